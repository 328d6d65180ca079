"""What is measured: the default federated GAN, two cells side by side, small enough to be repeated in pairs."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from fedsec.config import RunConfig

WARM = ("warm-a", "warm-b")
"""Cells of one round of one step: they start the workers, load torch and the data, and are left out of the ratio."""
TIMED = ("vanilla", "attack")
"""Cells whose rounds are timed: a benign one and one with a malicious client, side by side as by default."""


@dataclass(frozen=True)
class Scale:
    """How much is measured. ``noop``: clients -> rounds."""

    pairs: int
    rounds: int
    steps: int
    noop: dict[int, int]


FULL = Scale(pairs=3, rounds=3, steps=20, noop={10: 10, 100: 3, 1000: 1})
QUICK = Scale(pairs=1, rounds=1, steps=3, noop={10: 2})


def workload(scale: Scale, *, out: Path, cache: Path, name: str) -> RunConfig:
    """Defaults in all but length: 4 clients, phantom at 32 px, width 32, batch 32; scoring cut to its minimum.

    ``vanilla`` and ``attack`` differ in one client's images, not in work. Everything a user gets by default stays:
    workers, device, cells side by side.
    """
    arms: dict[str, dict[str, object]] = {arm: {"train.rounds": 1, "train.steps": 1} for arm in WARM}
    arms |= {"vanilla": {}, "attack": {"attack.name": "patch"}}
    return RunConfig.from_flat(
        {
            "data.cache": str(cache),
            "split.clients": 4,
            "train.rounds": scale.rounds,
            "train.steps": scale.steps,
            "measure.every": scale.rounds + 1,
            "measure.samples": 50,
            "measure.utility": "",
            "run.name": name,
            "run.out": str(out),
            "run.arms": json.dumps(arms),
        }
    )
