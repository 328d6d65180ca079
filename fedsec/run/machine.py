"""What of this machine a simulated client may use."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from fedsec.config import RunConfig
from fedsec.errors import RunError


@dataclass(frozen=True)
class Resources:
    """What Flower and Ray are told. ``workers`` processes of one thread each; ``gpu_share`` of a GPU a worker."""

    nodes: int
    workers: int
    gpus: int
    gpu_share: float

    def federation_config(self) -> str:
        values: dict[str, int | float | str] = {
            "num-supernodes": self.nodes,
            "client-resources-num-cpus": 1,
            "client-resources-num-gpus": self.gpu_share,
            "init-args-num-cpus": self.workers,
            "init-args-num-gpus": self.gpus,
        }
        return " ".join(f"{key}={value}" for key, value in values.items())


def resources(config: RunConfig, *, clients: int, cells: int) -> Resources:
    """One worker a core (two processes of one thread train about twice as fast as one of two), or several a GPU."""
    lanes = max(1, min(config.speed.arms_at_once, cells))
    nodes = clients * lanes
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    workers = max(1, min(config.speed.workers or cores, nodes))
    gpus = 0 if config.speed.device == "cpu" else visible_gpus()
    if config.speed.device == "cuda" and not gpus:
        raise RunError("speed.device = 'cuda': no CUDA device is visible; set speed.device = 'cpu' or 'auto'")
    share = 10_000 // -(-workers // gpus) / 10_000 if gpus else 0.0  # rounded down, or Ray starts one worker less
    return Resources(nodes, workers, gpus, share)


def visible_gpus() -> int:
    """CUDA devices torch can use. Asked in a process of its own: importing torch here would cost the start-up time."""
    if shutil.which("nvidia-smi") is None and not Path("/dev/nvidia0").exists():
        return 0
    code = "import torch; print(torch.cuda.device_count())"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    return int(found.stdout.strip() or 0)
