"""The federated side: ``fedsec run`` as a user calls it, timed from outside by the lines it appends to its run log."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.processes import Family
from benchmarks.workload import TIMED
from fedsec.config import RunConfig
from fedsec.config.toml import write_config
from fedsec.errors import RunError
from fedsec.log.runlog import EVENTS
from fedsec.run.plan import run_folder

LOOK = 0.02
"""Seconds between two looks at the run log: the error of every time below."""
WEIGH = 1.0
"""Seconds between two looks at the memory, when it is asked for."""


@dataclass(frozen=True)
class Stamped:
    """One event of the run log and the second, from the command's start, at which it was there."""

    at: float
    event: dict[str, Any]

    @property
    def is_round(self) -> bool:
        return bool(self.event["event"] == "round")


@dataclass(frozen=True)
class FederatedRun:
    """Seconds: the timed rounds, command to first step, whole command. Bytes: the peak, 0 if unasked."""

    wall: float
    first_step: float
    total: float
    peak: int
    folder: Path


def run_federated(config: RunConfig, *, weigh: bool = False) -> FederatedRun:
    """One ``fedsec run`` to its end. Raises RunError with its last words when it fails.

    ``wall`` runs from the start of the first timed round to the end of the last one, over both cells: starting Flower,
    Ray and the workers is outside, and so are torch's import and the loading of the data, which the warm-up cells did.
    The end of a round is when its line is in the run log; its start is that less the ``seconds`` the line holds.

    ``first_step`` is when the first round is in the log. That round has one step, so every client of its cell has
    taken its first step by then: an upper bound of the first training step, by one message and one average.
    """
    folder = run_folder(config)
    started = time.monotonic()
    events, family = _watched(config, started, weigh=weigh)
    total = time.monotonic() - started
    rounds = [stamped for stamped in events if stamped.is_round]
    timed = [stamped for stamped in rounds if stamped.event["arm"] in TIMED]
    if not timed:
        raise RunError(f"the run in {folder} logged no timed round")
    return FederatedRun(
        wall=max(s.at for s in timed) - min(s.at - float(s.event["seconds"]) for s in timed),
        first_step=min(s.at for s in rounds),
        total=total,
        peak=family.peak,
        folder=folder,
    )


def _watched(config: RunConfig, started: float, *, weigh: bool) -> tuple[list[Stamped], Family]:
    settings = run_folder(config).parent / f"{config.run.name}-settings"
    write_config(config, settings)
    command = [sys.executable, "-m", "fedsec.cli", "run", str(settings / "config.toml")]
    output = settings / "output.log"
    events: list[Stamped] = []
    with open(output, "wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        try:
            family = _follow(process, run_folder(config) / EVENTS, started, events, weigh=weigh)
        finally:
            end(process)
    if process.returncode:
        raise RunError(f"fedsec run ended with {process.returncode}:\n{output.read_text(errors='replace')[-2000:]}")
    return events, family


def _follow(
    process: subprocess.Popen[bytes], log: Path, started: float, events: list[Stamped], *, weigh: bool
) -> Family:
    """Stamp whole lines as they appear until the process ends."""
    family, read, weighed = Family(process.pid), 0, 0.0
    while process.poll() is None:
        read += _take(log, read, time.monotonic() - started, events)
        if weigh and time.monotonic() - weighed > WEIGH:
            weighed = time.monotonic()
            family.look(weigh=True)
        time.sleep(LOOK)
    _take(log, read, time.monotonic() - started, events)
    return family


def _take(log: Path, start: int, at: float, events: list[Stamped]) -> int:
    """Append the whole lines from byte ``start`` on; returns their length."""
    if not log.exists() or log.stat().st_size <= start:
        return 0
    with log.open("rb") as stream:
        stream.seek(start)
        fresh = stream.read()
    whole = fresh[: fresh.rfind(b"\n") + 1]
    events.extend(Stamped(at, event) for event in _parsed(whole.splitlines()))
    return len(whole)


def _parsed(lines: Iterable[bytes]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in lines if line]


def end(process: subprocess.Popen[bytes], *, patience: float = 60) -> None:
    """End a command we started as Ctrl-C would, so that it ends what it started itself; then without asking."""
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(timeout=patience)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
