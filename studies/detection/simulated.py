"""Flag rates of a FedDetect rule on simulated reports: ``python -m studies.detection.simulated [--rule calibrated]``.

Two simulations, with the sizes measured in recorded runs (docs/feddetect.md):
- ``drop``, which ``calibrated`` reads: honest clients differ persistently by 0.025, rounds by 0.05; an attacker's drop
  is larger by some amount from round 4 on. A client that has lost half its share drops by 2.5 times as much plus 0.1:
  what weights do to losses is part of the simulation.
- ``mean``, a level: log-normal losses around 1.5, clients differing by a log-deviation of 0.12, rounds by 0.15; an
  attacker reports a multiple of its loss from round 4 on. Weights do not feed back.

The tables of docs/feddetect.md are made by this script.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from fedsec.defences.feddetect import RULES, Rule, Standing, judge
from fedsec.seeds import stream
from fedsec.types import Vector

HALF = 0.5
"""Part of its share below which a client is no longer learnt from."""
ONSET = 3
"""Rounds before an attack begins."""
FROM_ROUND = 10
"""Rates are taken after the warm-up."""


@dataclass(frozen=True)
class Replay:
    """(rounds, clients) flags and weights of one simulated federation."""

    flags: np.ndarray
    weights: np.ndarray


@dataclass(frozen=True)
class Federation:
    """``reported`` (rounds, clients) while all are heard; ``absent(values)``: what unheard clients report instead."""

    reported: Vector
    absent: Callable[[Vector], Vector]


def drops(clients: int, rounds: int, seed: int, *, attackers: int = 0, strength: float = 0.0) -> Federation:
    """Relative drops; ``strength``: what is added to an attacker's."""
    rng = stream(seed, "simulated drops", clients)
    values = 0.025 * rng.standard_normal(clients) + 0.05 * rng.standard_normal((rounds, clients))
    values[ONSET:, :attackers] += strength
    return Federation(values, lambda reported: 2.5 * reported + 0.1)


def levels(clients: int, rounds: int, seed: int, *, attackers: int = 0, strength: float = 1.0) -> Federation:
    """Losses with a slow common decline; ``strength``: what an attacker's is multiplied by."""
    rng = stream(seed, "simulated federation", clients)
    level = np.log(1.5) + 0.4 * np.exp(-np.arange(rounds) / 15)[:, None]
    values = np.exp(level + 0.12 * rng.standard_normal(clients) + 0.15 * rng.standard_normal((rounds, clients)))
    values[ONSET:, :attackers] *= strength
    return Federation(values, lambda reported: reported)


SIMULATIONS: dict[str, tuple[Callable[..., Federation], tuple[float, ...]]] = {
    "drop": (drops, (0.08, 0.12, 0.2)),
    "mean": (levels, (1.8, 2.2, 3.0)),
}
"""Reading -> its simulation and the strengths of attack in the table."""


def replay(federation: Federation, rule: Rule) -> Replay:
    clients = federation.reported.shape[1]
    standing, verdicts = Standing.start(clients), []
    for row in federation.reported:
        unheard = np.array(standing.weights) * clients < HALF
        verdict, standing = judge(np.where(unheard, federation.absent(row), row).tolist(), standing, rule)
        verdicts.append(verdict)
    return Replay(np.array([v.flagged for v in verdicts]), np.array([v.weights for v in verdicts]))


def clean(clients: int, rule: Rule, runs: int) -> tuple[float, float]:
    """False-flag rate a client-round, and the share of clients that keep half their weight for 200 rounds."""
    simulate = SIMULATIONS[rule.reading][0]
    replays = [replay(simulate(clients, 200, seed), rule) for seed in range(runs)]
    kept = [run.weights.min(axis=0) * clients >= 0.5 for run in replays]
    return float(np.mean([run.flags.mean() for run in replays])), float(np.mean(kept))


def attacked(clients: int, attackers: int, strength: float, rule: Rule, runs: int) -> tuple[float, float]:
    """Over rounds 11 to 60: true-flag rate; and the attackers' part of their fair share in round 50."""
    simulate = SIMULATIONS[rule.reading][0]
    flags, parts = [], []
    for seed in range(1000, 1000 + runs):
        run = replay(simulate(clients, 60, seed, attackers=attackers, strength=strength), rule)
        flags.append(run.flags[FROM_ROUND:, :attackers].mean())
        parts.append(run.weights[49, :attackers].mean() * clients)
    return float(np.mean(flags)), float(np.mean(parts))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rule", choices=sorted(RULES), default="calibrated")
    parser.add_argument("--reading", choices=sorted(SIMULATIONS), default="drop")
    parser.add_argument("--runs", type=int, default=20, help="simulated federations a row")
    options = parser.parse_args()
    rule = Rule(options.rule, reading=options.reading)
    print("| clean, 200 rounds | false flags | clients that keep half their weight |\n|---|---|---|")
    for clients in (4, 10, 30, 100):
        flags, kept = clean(clients, rule, options.runs * (5 if clients == 4 else 1))
        print(f"| {clients} clients | {flags:.2%} | {kept:.1%} |")
    strengths = SIMULATIONS[options.reading][1]
    print(f"\n| attackers of clients | {' | '.join(map(str, strengths))} |\n|---|{'---|' * len(strengths)}")
    for clients, attackers in ((4, 1), (10, 1), (10, 3), (30, 1), (30, 9), (100, 30)):
        rates = [attacked(clients, attackers, strength, rule, options.runs) for strength in strengths]
        row = " | ".join(f"{flags:.0%}, {part:.2f}" for flags, part in rates)
        print(f"| {attackers} of {clients} | {row} |")


if __name__ == "__main__":
    main()
