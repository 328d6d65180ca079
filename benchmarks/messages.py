"""Seconds a round of clients that compute nothing: what Flower and Ray themselves cost, through ``flwr run``."""

from __future__ import annotations

import json
from pathlib import Path

from fedsec.config.toml import toml_scalar
from fedsec.errors import RunError
from fedsec.run import launch
from fedsec.run.machine import Resources

APP = Path(__file__).parent / "noop"


def noop_seconds(clients: int, rounds: int, *, workers: int, folder: Path) -> list[float]:
    """Seconds of each of ``rounds`` rounds of ``clients`` no-op clients with a 1 MB float32 model each way.

    A SuperLink and a simulation of their own, started as ``fedsec run`` starts them; the start and one small round
    that wakes the workers are outside. Raises RunError with the last words of the log when the run fails.
    """
    folder.mkdir(parents=True)
    out, log = folder / "seconds.json", folder / launch.LOG
    plan = Resources(nodes=clients, workers=workers, gpus=0, gpu_share=0.0)
    settings = f"clients={clients} rounds={rounds} megabytes=1 out={toml_scalar(str(out))}"
    launch.run(folder, plan, app=APP, run_config=settings)
    if not out.is_file():
        raise RunError(f"{clients} no-op clients: the run failed:\n{log.read_text(errors='replace')[-2000:]}")
    return [float(second) for second in json.loads(out.read_text())]
