"""What this machine offers a run, and what is missing."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from fedsec.errors import FedsecError


@dataclass(frozen=True)
class Finding:
    """One thing looked at. ``needed``: a run cannot start without it."""

    what: str
    found: str
    fine: bool
    needed: bool


def examine() -> list[Finding]:
    return [_python(), *_commands(), _cores(), _gpu(), _inception(), _disk(), _shared_memory()]


def _python() -> Finding:
    version = ".".join(map(str, sys.version_info[:3]))
    return Finding("python", version, sys.version_info >= (3, 11), True)


def _commands() -> list[Finding]:
    names = ("flwr", "flower-superlink", "flwr-simulation")
    beside = Path(sys.executable).parent
    places = {name: str(beside / name) if (beside / name).exists() else shutil.which(name) for name in names}
    return [Finding(n, p or "missing: run 'make setup'", p is not None, True) for n, p in places.items()]


def _cores() -> Finding:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return Finding("cores", f"{cores}: as many workers of one thread each", True, False)


def _gpu() -> Finding:
    import torch

    count = torch.cuda.device_count()
    names = ", ".join(torch.cuda.get_device_name(i) for i in range(count))
    return Finding("cuda", names or "none: clients train on the CPU", True, False)


def _inception() -> Finding:
    from fedsec.metrics.inception import find_fid_weights

    try:
        weights = find_fid_weights("")
    except FedsecError as error:
        return Finding("FID weights", str(error), False, False)
    told = str(weights) if weights else "none: scores are frechet-domain; give measure.fid-weights=FILE for fid"
    return Finding("FID weights", told, weights is not None, False)


def _disk() -> Finding:
    free = shutil.disk_usage(Path.cwd()).free / 2**30
    return Finding("disk", f"{free:.0f} GiB free here", free > 2, True)


def _shared_memory() -> Finding:
    place = Path("/dev/shm") if Path("/dev/shm").is_dir() else Path(tempfile.gettempdir())
    free = shutil.disk_usage(place).free / 2**30
    return Finding("shared memory", f"{free:.1f} GiB free (Ray's object store)", free > 0.5, False)
