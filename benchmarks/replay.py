"""Milliseconds of a client's D and G step, launched kernel by kernel and replayed: ``python -m benchmarks.replay``.

Both train the same rounds from the same seeds, in turn, in one process; the first round of each is left out. A replay
is a CUDA graph; on a CPU nothing is recorded, and the two differ by noise alone.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Sequence

import numpy as np

from fedsec.config import RunConfig
from fedsec.models.gan.learner import GanLearner, RecordedGanLearner
from fedsec.models.state import device_of
from fedsec.types import Rows

IMAGES = 340


def milliseconds(config: RunConfig, device: str, rounds: int) -> dict[str, list[float]]:
    """Per way, the mean step of each round but the first."""
    size, draws = config.data.size, np.random.default_rng(0)
    pixels = draws.integers(0, 256, (IMAGES, size, size, 3), dtype=np.uint8)
    rows = Rows(pixels, draws.integers(0, 2, IMAGES))
    spent: dict[str, list[float]] = {"launched": [], "replayed": []}
    for number in range(rounds + 1):
        for name, made in (("launched", GanLearner), ("replayed", RecordedGanLearner)):
            learner = made(config, channels=3, classes=2, seed=0, device=device)
            started = time.perf_counter()
            learner.train(rows, seed=number)  # ends by fetching the losses, so nothing is under way
            if number:
                spent[name].append(1000 * (time.perf_counter() - started) / config.train.steps)
    return spent


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    parser.add_argument("--size", type=int, default=32, help="pixels a side")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of 20 steps")
    options = parser.parse_args(argv)
    config = RunConfig.from_flat({"train.steps": 20, "data.size": options.size, "speed.device": options.device})
    device = device_of(config.speed)
    spent = milliseconds(config, device, options.rounds)
    for name, values in spent.items():
        print(f"{device}, {name}: {statistics.median(values):.2f} ms a step ({min(values):.2f} to {max(values):.2f})")


if __name__ == "__main__":
    main()
