"""Speed and memory on this machine, one figure a line; BENCH.json beside it holds every repeat.

``python -m benchmarks.bench`` takes under eight minutes on two idle cores, ``--quick`` under 90 seconds: quick shows
that everything works, its figures say little. Whatever else the machine does meanwhile is in the figures.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.federated import FederatedRun, run_federated
from benchmarks.messages import noop_seconds
from benchmarks.pool import run_pool
from benchmarks.workload import FULL, QUICK, TIMED, Scale, workload
from fedsec.errors import FedsecError, RunError
from fedsec.run.machine import resources, visible_gpus
from fedsec.run.plan import run_folder, versions

BENCH = Path(__file__).resolve().parents[1] / "BENCH.json"


@dataclass(frozen=True)
class Figure:
    """One line of the answer: the median of ``values``, and how they were measured."""

    name: str
    unit: str
    values: tuple[float, ...]
    how: str
    digits: int = 2

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    def __str__(self) -> str:
        return f"{self.name}: {self.median:.{self.digits}f} {self.unit}".rstrip()


def main(argv: Sequence[str] | None = None) -> int:
    """Print the figures and write BENCH.json. Exit status 1 when a run failed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one small repeat of everything but the large federations")
    parser.add_argument("--out", type=Path, default=BENCH, help="where the JSON goes")
    options = parser.parse_args(argv)
    scale = QUICK if options.quick else FULL
    started, facts = time.monotonic(), machine()
    try:
        with tempfile.TemporaryDirectory(prefix="bench-") as folder:
            os.environ["RAY_TMPDIR"] = folder  # what Ray leaves goes with it; its socket paths must stay short
            figures = measure(scale, Path(folder))
    except FedsecError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    answer: dict[str, Any] = {"machine": facts, "scale": asdict(scale), "quick": options.quick}
    answer |= {"wall_seconds": time.monotonic() - started}
    answer |= {"figures": {f.name: {"median": f.median, **asdict(f)} for f in figures}}
    options.out.write_text(json.dumps(answer, indent=2) + "\n", encoding="utf-8")
    return 0


def measure(scale: Scale, folder: Path) -> list[Figure]:
    """Every figure, printed as soon as it is known. ``folder`` takes runs and data cache; nothing else is written."""
    cold = _federated(scale, folder, "cold", weigh=True)
    walls: list[tuple[float, float]] = []
    first_steps: list[float] = []
    for pair in range(scale.pairs):
        _tell(f"pair {pair + 1} of {scale.pairs}")
        federated = _federated(scale, folder, f"federated-{pair}")
        bare = workload(scale, out=folder / "runs", cache=folder / "cache", name=f"pool-{pair}")
        walls.append((federated.wall, run_pool(bare)))
        first_steps.append(federated.first_step)
        _demand_same_work(federated.folder, run_folder(bare))
    figures = [*ratio(walls), first_step(first_steps), *cold_figures(cold)]
    for figure in figures:
        print(figure, flush=True)
    workers = resources(workload(scale, out=folder, cache=folder, name="x"), clients=4, cells=2).workers
    for clients, rounds in scale.noop.items():
        _tell(f"{clients} no-op clients")
        seconds = noop_seconds(clients, rounds, workers=workers, folder=folder / f"noop-{clients}")
        how = "send, receive, decode and average over flwr run and Ray; start and one waking round outside"
        figures.append(Figure(f"seconds a round, {clients:,} no-op clients x 1 MB", "", tuple(seconds), how))
        print(figures[-1], flush=True)
    return figures


def ratio(walls: Sequence[tuple[float, float]]) -> list[Figure]:
    """The ratio of each pair, and both walls."""
    how = "rounds of two cells x 4 clients, first round's start to last round's end; start-up outside on both sides"
    return [
        Figure("federated / bare pool", "", tuple(a / b for a, b in walls), "wall over wall, pair by pair"),
        Figure("federated rounds", "s", tuple(a for a, _ in walls), f"fedsec run: {how}", 1),
        Figure("bare pool rounds", "s", tuple(b for _, b in walls), f"multiprocessing: {how}", 1),
    ]


def first_step(seconds: Sequence[float]) -> Figure:
    how = "command's start until the server has averaged a first round of one step: an upper bound; data already cached"
    return Figure("first training step", "s", tuple(seconds), how, 1)


def cold_figures(cold: FederatedRun) -> list[Figure]:
    """What the first run of all shows: it draws its data, and it is the one whose memory is weighed."""
    how = "sum of PSS over fedsec run and all it started, once a second, in a run of its own; highest look"
    return [
        Figure("first training step, empty data cache", "s", (cold.first_step,), "as above, data drawn first", 1),
        Figure("peak memory", "GB", (cold.peak / 1e9,), how, 1),
    ]


def machine() -> dict[str, Any]:
    """What the figures depend on."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    models = [line.split(":", 1)[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")]
    total = [int(line.split()[1]) * 1024 for line in _lines("/proc/meminfo") if line.startswith("MemTotal")]
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "cores": cores,
        "cpu": models[0] if models else platform.processor(),
        "memory_bytes": total[0] if total else None,
        "gpus": visible_gpus(),
        "load_at_start": os.getloadavg()[0],
        "system": platform.platform(),
        "versions": versions(),
    }


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines() if Path(path).is_file() else []


def _federated(scale: Scale, folder: Path, name: str, *, weigh: bool = False) -> FederatedRun:
    _tell(f"fedsec run: {name}")
    config = workload(scale, out=folder / "runs", cache=folder / "cache", name=name)
    return run_federated(config, weigh=weigh)


def _demand_same_work(federated: Path, bare: Path) -> None:
    """Both sides trained the same generators, bit for bit; else the ratio compares two different things.

    On a GPU, where sums are not ordered, nothing is compared.
    """
    from safetensors.numpy import load_file

    if visible_gpus():
        return
    for arm in TIMED:
        one, other = (load_file(folder / f"generator-{arm}-0.safetensors") for folder in (federated, bare))
        if list(one) != list(other) or any(one[k].tobytes() != other[k].tobytes() for k in one):
            raise RunError(f"{arm}: the federated run and the bare pool trained different generators")


def _tell(text: str) -> None:
    print(f"  ... {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
