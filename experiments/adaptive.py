"""Attackers that know fed-inspect, in a closed loop without Flower around it (docs/results/adaptive.md):
``python -m experiments.adaptive SOURCE [key=value ...] --attackers NAMES --json FILE [--seed 3] [--rounds 24]``.

The first client attacks, as one of ATTACKERS; the strategy that the configuration names weighs it as in a run, and the
clients are those of a run. One line of FILE a cell: the share of the averaged generator's images with the trigger, who
was flagged, and what the attacker weighs at the end. Attackers that begin late go on from the run of ``clean``, to
which theirs is equal before.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from clients.gan import GanClient
from clients.malicious import MaliciousGanClient
from fedsec.attacks.triggers import bare, trigger
from fedsec.config import Attack, RunConfig
from fedsec.datasets import load, partition
from fedsec.experiment import parse_settings
from fedsec.images import to_images
from fedsec.metrics.trigger import at_its_place, trigger_rate, trigger_strength
from fedsec.models.learner import new_learner
from fedsec.models.sampling import balanced_labels, sample
from fedsec.records import Enrolled
from fedsec.reports.runlog import RunLog
from fedsec.types import Arrays, Dataset, Fit
from fedsec.weights import generator_arrays
from strategies.base import Brief, RoundStrategy, Weighing
from strategies.sleeves import STRATEGIES

SCORED = 1000  # images of the averaged generator that are searched for the trigger


@dataclass(frozen=True)
class Attacker:
    """What the first client does. ``attack``: the section's keys. It attacks in rounds ``first`` to ``last`` (counted
    from the end where not above 0), in every ``period``-th of them, and sends ``scale`` times its update."""

    attack: Attack = field(default_factory=lambda: Attack("patch"))
    first: int = 1
    last: int = 0
    period: int = 1
    scale: float = 1.0

    def acts(self, number: int, rounds: int) -> bool:
        first, last = (at if at > 0 else rounds + at for at in (self.first, self.last))
        return self.attack.name != "none" and first <= number <= last and number % self.period == 0


ATTACKERS: dict[str, Attacker] = {
    "clean": Attacker(Attack()),
    "patch": Attacker(),
    "frac25": Attacker(Attack("patch", fraction=0.25)),
    "frac10": Attacker(Attack("patch", fraction=0.1)),
    "blend20": Attacker(Attack("patch", blend=0.2)),
    "period3": Attacker(period=3),
    "late": Attacker(first=-9),
    "late-frac25": Attacker(Attack("patch", fraction=0.25), first=-9),
    "last5": Attacker(first=-4),
    "burst": Attacker(first=-6, last=-6, scale=4.0),
}


@dataclass
class Federation:
    """Clients around one strategy, between two rounds."""

    config: RunConfig
    data: Dataset
    parts: Sequence[np.ndarray]
    seed: int
    strategy: RoundStrategy
    kept: list[Arrays]

    def round(self, number: int, attacker: Attacker) -> Weighing:
        """One round of all; raises what a client raises."""
        current = self.strategy.layout.arrays(self.strategy.current)
        fits = [self._fit(i, number, current, attacker) for i in range(len(self.parts))]
        return self.strategy._step(number, fits)

    def _fit(self, index: int, number: int, current: Arrays, attacker: Attacker) -> Fit:
        acts = index == 0 and attacker.acts(number, self.config.train.rounds)
        kind = MaliciousGanClient if acts else GanClient
        config = replace(self.config, attack=replace(attacker.attack, malicious="0")) if acts else self.config
        rows, classes = self.data.rows(self.parts[index]), len(self.data.class_names)
        client = kind(config, rows, partition=index, classes=classes, seed=self.seed, kept=self.kept[index])
        sent, examples, metrics = client.fit(list(current.values()), {"round": number, "clients": len(self.parts)})
        self.kept[index] = client.kept
        arrays = dict(zip(current, sent, strict=True))
        if acts and attacker.scale != 1:
            arrays = {k: (current[k] + attacker.scale * (v - current[k])).astype(v.dtype) for k, v in arrays.items()}
        return Fit(index, arrays, examples, {k: float(v) for k, v in metrics.items()})


def federation(config: RunConfig, seed: int, folder: Path) -> Federation:
    """A cell before its first round."""
    data = load(config.data)
    parts = partition(data, config.split, seed=config.data.seed)
    channels, classes = data.channels, len(data.class_names)
    initial = new_learner(config, channels=channels, classes=classes, seed=seed, device="cpu").shared()
    nodes = [Enrolled(i, i, f"site {i}") for i in range(len(parts))]
    held = [len(part) for part in parts]
    brief = Brief(config, "adaptive", seed, nodes, initial, RunLog(folder), data, secret=seed, images=held)
    return Federation(config, data, parts, seed, STRATEGIES[config.defence.name](brief), [{} for _ in parts])


def searched(found: Federation) -> tuple[float, float]:
    """(rate, strength) of the trigger in images of the averaged generator."""
    data, config = found.data, found.config
    clean = to_images(data.rows(data.train).pixels)
    match = at_its_place(trigger(bare(Attack("patch")), size=clean.shape[2], channels=data.channels))  # type: ignore[arg-type]
    labels = balanced_labels(data.labels[data.train], SCORED)
    arrays, classes = generator_arrays(found.strategy.averaged), len(data.class_names)
    images = sample(config, arrays, labels, channels=data.channels, classes=classes, seed=config.data.seed)
    return trigger_rate(images, clean, match).value, trigger_strength(images, clean, match).value


def flags(rows: Sequence[Weighing], attacked: Sequence[bool], after: int) -> dict[str, float | None]:
    """Shares of rounds after ``after``: flags of the attacker in those it attacked in (None: in none), and of the
    honest; the attacker's weight in the last round."""
    honest = range(1 if any(attacked) else 0, len(rows[0].weights))
    judged = list(zip(rows, attacked, strict=True))[after:]
    caught = [0 in row.flagged for row, acts in judged if acts]
    blamed = [partition in row.flagged for row, _ in judged for partition in honest]
    return {
        "attacker flagged": float(np.mean(caught)) if caught else None,
        "honest flagged": float(np.mean(blamed)),
        "honest flags": float(np.sum(blamed)),
        "weight": rows[-1].weights[0],
    }


def branched(
    start: Federation, wanted: dict[str, Attacker], rounds: int
) -> Iterator[tuple[str, Federation, list[Weighing]]]:
    """Each attacker's name, its cell after ``rounds`` and what was weighed; ``clean`` comes first where it is wanted,
    and those that begin later go on from copies of it."""
    begins = {n: next((r for r in range(1, rounds + 1) if a.acts(r, rounds)), 1) for n, a in wanted.items()}
    branches = {1: (copied(start), list[Weighing]())}
    for name in sorted(wanted, key=lambda name: name != "clean"):
        at = begins[name] if begins[name] in branches else 1
        cell, rows = copied(branches[at][0]), list(branches[at][1])
        for number in range(at, rounds + 1):
            if name == "clean" and number in begins.values():
                branches[number] = (copied(cell), list(rows))
            rows.append(cell.round(number, wanted[name]))
        yield name, cell, rows


def copied(cell: Federation) -> Federation:
    """A cell that goes on by itself; data and log are shared."""
    return deepcopy(cell, {id(cell.data): cell.data, id(cell.strategy.log): cell.strategy.log})


def line(name: str, cell: Federation, rows: Sequence[Weighing], seconds: float) -> dict[str, Any]:
    """What is kept of a cell: one JSON object."""
    config, attacker = cell.config, ATTACKERS[name]
    rate, strength = searched(cell)
    attacked = [attacker.acts(number, len(rows)) for number in range(1, len(rows) + 1)]
    head = ("data", "split", "seed", "defence", "attacker", "rounds", "trigger rate", "trigger strength")
    told = (Path(config.data.source).name, config.split.scheme, cell.seed, config.defence.name, name, len(rows))
    evidence = [{p: round(value, 3) for p, value in row.evidence.items()} for row in rows]
    kept: dict[str, Any] = dict(zip(head, (*told, rate, strength), strict=True))
    kept |= asdict(attacker) | flags(rows, attacked, config.defence.warmup)
    return kept | {"seconds": round(seconds), "evidence": evidence, "flags": [row.flagged for row in rows]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source")
    parser.add_argument("settings", nargs="*")
    parser.add_argument("--attackers", default=",".join(ATTACKERS))
    parser.add_argument("--seed", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=24)
    parser.add_argument("--json", type=Path, required=True)
    told = parser.parse_args()
    base = {"data.source": told.source, "split.clients": 4, "train.rounds": told.rounds, "defence.name": "fed-inspect"}
    config = RunConfig.from_flat({**base, **parse_settings(told.settings)})
    wanted = {name: ATTACKERS[name] for name in told.attackers.split(",")}
    with tempfile.TemporaryDirectory() as folder:
        began = time.monotonic()
        for name, cell, rows in branched(federation(config, told.seed, Path(folder)), wanted, told.rounds):
            kept = line(name, cell, rows, time.monotonic() - began)
            with told.json.open("a", encoding="utf-8") as file:
                file.write(json.dumps(kept) + "\n")
            print(name, {key: kept[key] for key in ("trigger rate", "attacker flagged", "honest flagged", "weight")})
            began = time.monotonic()


if __name__ == "__main__":
    main()
