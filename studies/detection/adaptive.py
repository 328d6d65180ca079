"""Rows of experiments/matrix.toml in a closed loop without Flower around it (docs/results/adaptive.md):
``python -m studies.detection.adaptive SOURCE [key=value ...] --attackers NAMES --json FILE [--split iid] [--seed 3]``.

Attackers, defences and splits are those of the matrix, by name and by its keys; clients, attackers and the strategy are
those of a run, and so is what they compute. One line of FILE a cell: the share of the averaged generator's images with
the trigger, who was flagged and what everybody weighed; cells that FILE has by the rule in use are not run again.
Attackers whose first rounds are honest go on from the run of ``none``, to which theirs is equal before.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from clients.gan import GanClient
from clients.malicious import MaliciousGanClient
from fedsec.attacks.knowing import KNOWING
from fedsec.attacks.triggers import bare, trigger
from fedsec.config import RunConfig
from fedsec.config.matrix import CLEAN, Matrix, read_matrix
from fedsec.datasets import load, partition
from fedsec.flower.messages import Enrolled
from fedsec.images import grid, save_png, to_images, to_pixels
from fedsec.log.runlog import RunLog
from fedsec.metrics.trigger import at_its_place, trigger_rate, trigger_strength
from fedsec.models.gan.learner import new_learner
from fedsec.models.gan.sampling import balanced_labels, sample
from fedsec.run.versions import rules
from fedsec.types import Arrays, Dataset, Fit, Flat
from fedsec.weights import generator_arrays
from strategies.adversary import Adversary
from strategies.base import Brief, RoundStrategy, Weighing
from strategies.index import STRATEGIES
from strategies.rehearsal import Rehearsal

MATRIX = Path(__file__).parents[2] / "experiments/matrix.toml"
SCORED = 1000
"""Images of the averaged generator that are searched for the trigger."""
MANY = 0.02
"""Shown as a PNG, where asked for, is a model with the trigger in more than this share."""


@dataclass
class Federation:
    """Clients around one strategy, between two rounds."""

    config: RunConfig
    data: Dataset
    parts: Sequence[np.ndarray]
    seed: int
    brief: Brief
    strategy: RoundStrategy
    kept: list[Arrays]

    def round(self, number: int) -> Weighing:
        """One round of all who are asked; raises what a client raises."""
        strategy = self.strategy
        current, nodes = strategy.layout.arrays(strategy.current), strategy.nodes
        fits = [self._fit(node.partition, number, current) for node in nodes]
        sent, dropped = strategy.adversary.act(number, fits, strategy.current, strategy.previous, nodes)
        assert not dropped, dropped
        return strategy._step(number, sent)

    def _fit(self, index: int, number: int, current: Arrays) -> Fit:
        kind = MaliciousGanClient if index in self.config.malicious else GanClient
        rows, classes = self.data.rows(self.parts[index]), len(self.data.class_names)
        client = kind(self.config, rows, partition=index, classes=classes, seed=self.seed, kept=self.kept[index])
        sent, examples, metrics = client.fit(list(current.values()), {"round": number, "clients": len(self.parts)})
        self.kept[index] = client.kept
        arrays = dict(zip(current, sent, strict=True))
        return Fit(index, arrays, examples, {k: float(v) for k, v in metrics.items()})

    def turned(self, config: RunConfig) -> Federation:
        """A copy that goes on by itself, with the attackers of ``config``; data and log are shared."""
        shared = {id(each): each for each in (self.data, self.strategy.log, self.brief)}
        cell = deepcopy(self, shared)
        cell.config, cell.brief = config, replace(self.brief, config=config)
        strategy = cell.strategy
        strategy.config, kind, layout = config, type(strategy), strategy.layout
        strategy.adversary = Adversary(
            config, layout, seed=self.seed, rehearse=lambda: Rehearsal(cell.brief, layout, kind)
        )
        return cell


def federation(config: RunConfig, seed: int, folder: Path) -> Federation:
    """A cell before its first round."""
    data = load(config.data)
    parts = partition(data, config.split, seed=config.data.seed)
    channels, classes = data.channels, len(data.class_names)
    initial = new_learner(config, channels=channels, classes=classes, seed=seed, device="cpu").shared()
    nodes = [Enrolled(i, i, f"site {i}") for i in range(len(parts))]
    held = [len(part) for part in parts]
    brief = Brief(config, "adaptive", seed, nodes, initial, RunLog(folder), data, secret=seed, images=held)
    strategy = STRATEGIES[config.defence.name](brief)
    return Federation(config, data, parts, seed, brief, strategy, [{} for _ in parts])


def drawn(found: Federation) -> np.ndarray:
    """SCORED images of the averaged generator, on the latents that a run is scored on."""
    data, config = found.data, found.config
    labels = balanced_labels(data.labels[data.train], SCORED)
    arrays, classes = generator_arrays(found.strategy.averaged), len(data.class_names)
    return sample(config, arrays, labels, channels=data.channels, classes=classes, seed=config.data.seed)


def searched(found: Federation, images: np.ndarray) -> dict[str, Any]:
    """Rate and strength in ``images`` of the attackers' trigger, or of the patch where they have none, and the
    quantiles of its match in hundredths: the rate counts what real skin hardly reaches; young generators are rougher.
    """
    data = found.data
    clean = to_images(data.rows(data.train).pixels)
    mark = trigger(bare(found.config.attack), size=clean.shape[2], channels=data.channels)
    match = at_its_place(mark)  # type: ignore[arg-type]
    return {
        "trigger rate": trigger_rate(images, clean, match).value,
        "trigger strength": trigger_strength(images, clean, match).value,
        "matches": [round(float(value), 4) for value in np.quantile(match(images), np.linspace(0, 1, 101))],
    }


def counted(rows: Sequence[Weighing], attacked: Sequence[bool], guilty: Sequence[int], after: int) -> dict[str, Any]:
    """Shares of rounds after ``after``: flags of attackers in those they attacked in (None: in none), and of the
    honest; the least that an honest client weighs in the last round, and what the attackers do, over equal shares."""
    honest = [p for p in rows[-1].weights if p not in guilty or not any(attacked)]
    bad = [p for p in rows[-1].weights if p not in honest]
    judged = list(zip(rows, attacked, strict=True))[after:]
    caught = [p in row.flagged for row, acts in judged if acts for p in bad]
    blamed = [p in row.flagged for row, _ in judged for p in honest]
    fair, last = 1 / len(rows[-1].weights), rows[-1].weights
    return {
        "attacker flagged": float(np.mean(caught)) if caught else None,
        "honest flagged": float(np.mean(blamed)),
        "honest flags": int(np.sum(blamed)),
        "honest rounds": len(blamed),
        "attacker share": float(np.mean([last[p] for p in bad])) / fair if bad else None,
        "least honest share": min(last[p] for p in honest) / fair,
    }


def begins(config: RunConfig) -> int:
    """The first round in which the attackers do anything that nobody else does, at home or not."""
    attack = config.attack
    return 1 if attack.update in KNOWING else attack.first(config.train.rounds)


def branched(start: Federation, wanted: Mapping[str, RunConfig]) -> Iterator[tuple[str, Federation, list[Weighing]]]:
    """Each attacker's name, its cell after all rounds and what was weighed; ``none`` comes first where it is wanted,
    and those that begin later go on from copies of it."""
    branches = {1: (start, list[Weighing]())}
    for name in sorted(wanted, key=lambda name: name != CLEAN):
        config = wanted[name]
        at = begins(config) if begins(config) in branches else 1
        cell, rows = branches[at][0].turned(config), list(branches[at][1])
        for number in range(at, config.train.rounds + 1):
            if name == CLEAN and number in map(begins, wanted.values()):
                branches[number] = (cell.turned(config), list(rows))
            rows.append(cell.round(number))
        yield name, cell, rows


def line(arm: Flat, cell: Federation, rows: Sequence[Weighing]) -> dict[str, Any]:
    """What is kept of a cell: one JSON object."""
    config, rounds = cell.config, len(rows)
    acts = [config.attack.active and config.attack.acts(number, rounds) for number in range(1, rounds + 1)]
    evidence = [{p: round(value, 3) for p, value in row.evidence.items()} for row in rows]
    return {
        "attack": dict(arm),
        **counted(rows, acts, config.malicious, config.defence.warmup),
        "shares": [{p: round(value, 4) for p, value in row.weights.items()} for row in rows],
        "evidence": evidence,
        "flags": [row.flagged for row in rows],
        "undone": [row.undone for row in rows],
    }


def key(told: argparse.Namespace, config: RunConfig, attacker: str) -> dict[str, Any]:
    """What a cell is known by."""
    rule = rules().get(config.defence.name, "")
    data, rounds = Path(config.data.source).name, config.train.rounds
    names = ("data", "split", "seed", "defence", "rule", "attacker", "rounds")
    return dict(zip(names, (data, told.split, told.seed, told.defence, rule, attacker, rounds), strict=True))


def arranged(matrix: Matrix, told: argparse.Namespace) -> dict[str, RunConfig]:
    """Attacker -> the configuration of its cell."""
    base = {**matrix.base, **matrix.splits[told.split]}
    return {
        name: RunConfig.from_flat({**base, **matrix.overrides(name, told.defence)})
        for name in told.attackers.split(",")
    }


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source")
    parser.add_argument("settings", nargs="*")
    parser.add_argument("--attackers", required=True)
    parser.add_argument("--defence", default="fed-inspect")
    parser.add_argument("--split", default="iid")
    parser.add_argument("--seed", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=24)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--png", type=Path, help="folder of 64 images of each cell with many triggers")
    return parser.parse_args()


def main() -> None:
    told = options()
    settings = [f"data.source={told.source}", f"train.rounds={told.rounds}", *told.settings]
    matrix = read_matrix(MATRIX, "adaptive", settings)
    wanted = arranged(matrix, told)
    text = told.json.read_text(encoding="utf-8").splitlines() if told.json.exists() else []
    done = [json.loads(each) for each in text]
    keys = {name: key(told, config, name) for name, config in wanted.items()}
    missing = [name for name in wanted if not any(keys[name].items() <= each.items() for each in done)]
    if any(begins(wanted[name]) > 1 for name in missing) and CLEAN in wanted and CLEAN not in missing:
        print("the run that nobody attacks is made again: others go on from it")
    runs = {name: wanted[name] for name in wanted if name in missing or (name == CLEAN and missing)}
    with tempfile.TemporaryDirectory() as folder:
        began = time.monotonic()
        for name, cell, rows in branched(federation(wanted[next(iter(wanted))], told.seed, Path(folder)), runs):
            images = drawn(cell)
            kept = keys[name] | searched(cell, images) | line(matrix.overrides(name, told.defence), cell, rows)
            kept["seconds"] = round(time.monotonic() - began)
            if name in missing:
                with told.json.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(kept) + "\n")
            if told.png and kept["trigger rate"] > MANY:
                told.png.mkdir(parents=True, exist_ok=True)
                save_png(grid(to_pixels(images[:64]), 8), told.png / f"{told.seed}-{told.defence}-{name}.png")
            print(name, {k: kept[k] for k in ("trigger rate", "attacker flagged", "honest flags", "attacker share")})
            began = time.monotonic()


if __name__ == "__main__":
    main()
