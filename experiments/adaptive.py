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
import subprocess
import tempfile
import time
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np

from clients.gan import GanClient
from clients.malicious import MaliciousGanClient
from fedsec.attacks.triggers import bare, trigger
from fedsec.config import Attack, RunConfig
from fedsec.datasets import load, partition
from fedsec.experiment import parse_settings
from fedsec.images import to_images
from fedsec.metrics.trigger import at_its_place, trigger_rate, trigger_strength
from fedsec.models.sampling import balanced_labels, sample
from fedsec.records import Enrolled
from fedsec.reports.runlog import RunLog
from fedsec.types import Arrays, Dataset, Fit, Rows
from fedsec.weights import generator_arrays
from strategies.base import Brief, RoundStrategy, Weighing
from strategies.generators import new_learner
from strategies.sleeves import STRATEGIES

SCORED = 1000
"""Images of the averaged generator that are searched for the trigger."""


@dataclass(frozen=True)
class Attacker:
    """What the first client does. ``attack``: the section's keys. It attacks in rounds ``first`` to ``last`` (counted
    from the end where not above 0), in every ``period``-th of them, on ``only`` one class (-1: on all), and sends
    ``scale`` times its update."""

    attack: Attack = field(default_factory=lambda: Attack("patch"))
    first: int = 1
    last: int = 0
    period: int = 1
    only: int = -1
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
    "class": Attacker(only=1),
    "period3": Attacker(period=3),
    "late": Attacker(first=-9),
    "late-frac25": Attacker(Attack("patch", fraction=0.25), first=-9),
    "last5": Attacker(first=-4),
    "burst": Attacker(first=-6, last=-6, scale=4.0),
}


class OneClassClient(MaliciousGanClient):
    """A MaliciousGanClient that leaves the images of all classes but one alone."""

    only = -1

    def rows(self) -> Rows:
        honest, stamped = GanClient.rows(self), super().rows()
        chosen = honest.labels == self.only
        return Rows(np.where(chosen[:, None, None, None], stamped.pixels, honest.pixels), honest.labels)


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
        kind = GanClient if not acts else MaliciousGanClient if attacker.only < 0 else OneClassClient
        config = replace(self.config, attack=replace(attacker.attack, malicious="0")) if acts else self.config
        rows, classes = self.data.rows(self.parts[index]), len(self.data.class_names)
        client = kind(config, rows, partition=index, classes=classes, seed=self.seed, kept=self.kept[index])
        if isinstance(client, OneClassClient):
            client.only = attacker.only
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
    brief = Brief(config, "adaptive", seed, nodes, initial, RunLog(folder), data, secret=seed)
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


def flags(rows: Sequence[Weighing], attacked: Sequence[bool], after: int) -> dict[str, float]:
    """Shares of rounds after ``after``: flags of the attacker in those it attacked in (NaN: in none) and of the honest,
    clients and rounds together; the attacker's weight in the last round."""
    clients = len(rows[0].weights)
    judged = list(zip(rows, attacked, strict=True))[after:]
    caught = [0 in row.flagged for row, acts in judged if acts]
    blamed = [
        partition in row.flagged for row, acts in judged for partition in range(0 if not any(attacked) else 1, clients)
    ]
    return {
        "attacker flagged": float(np.mean(caught)) if caught else float("nan"),
        "honest flagged": float(np.mean(blamed)),
        "honest flags": float(np.sum(blamed)),
        "weight": rows[-1].weights[0],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source")
    parser.add_argument("--attackers", default=",".join(ATTACKERS))
    parser.add_argument("--seed", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=24)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("settings", nargs="*")
    told = parser.parse_args()
    base = {"data.source": told.source, "split.clients": 4, "train.rounds": told.rounds, "defence.name": "fed-inspect"}
    config = RunConfig.from_flat({**base, **parse_settings(told.settings)})
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True).stdout
    wanted = [(name, ATTACKERS[name]) for name in told.attackers.split(",")]
    begins = {n: next((r for r in range(1, told.rounds + 1) if a.acts(r, told.rounds)), 1) for n, a in wanted}
    with tempfile.TemporaryDirectory() as folder:
        start = federation(config, told.seed, Path(folder))
        branches = {1: (deepcopy_of(start), list[Weighing]())}
        for name, attacker in sorted(wanted, key=lambda pair: pair[0] != "clean"):
            began = time.monotonic()
            at = begins[name] if begins[name] in branches else 1
            cell, rows = deepcopy_of(branches[at][0]), list(branches[at][1])
            for number in range(at, told.rounds + 1):
                if name == "clean" and number in begins.values():
                    branches[number] = (deepcopy_of(cell), list(rows))
                rows.append(cell.round(number, attacker))
            attacked = [attacker.acts(number, told.rounds) for number in range(1, told.rounds + 1)]
            rate, strength = searched(cell)
            line = {
                "data": config.data.source,
                "split": config.split.scheme,
                "defence": config.defence.name,
                "seed": told.seed,
                "attacker": name,
                **asdict(attacker),
                "rounds": told.rounds,
                "trigger rate": rate,
                "trigger strength": strength,
                **flags(rows, attacked, config.defence.warmup),
                "seconds": round(time.monotonic() - began),
                "from round": at,
                "commit": commit.strip(),
                "evidence": [{p: round(v, 3) for p, v in row.evidence.items()} for row in rows],
                "flags": [row.flagged for row in rows],
            }
            with told.json.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
            print(name, round(rate, 3), {k: v for k, v in line.items() if "flag" in k and k != "flags"}, line["weight"])


def deepcopy_of(cell: Federation) -> Federation:
    """A cell that goes on by itself; data and log are shared."""
    memo = {id(cell.data): cell.data, id(cell.strategy.log): cell.strategy.log}
    return deepcopy(cell, memo)


if __name__ == "__main__":
    main()
