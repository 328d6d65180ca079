"""Flag rates of a FedDetect rule on simulated losses: ``python -m experiments.detection [--rule calibrated]``.

Losses are log-normal around 1.5 with persistent client effects (log-deviation 0.12) and round noise (0.15), as in the
recorded traces; an attacker reports a multiple of its loss from round 4 on. Weights do not feed back into the losses.
The tables of docs/feddetect.md are made by this script.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass

import numpy as np

from fedsec.seeds import stream
from fedsec.types import Vector
from strategies.detection import RULES, Rule, Standing, judge

BETWEEN, WITHIN = 0.12, 0.15
FROM_ROUND = 10
"""Rates are taken after the warm-up."""


@dataclass(frozen=True)
class Replay:
    """(rounds, clients) flags and weights of one simulated federation."""

    flags: np.ndarray
    weights: np.ndarray


def losses(clients: int, rounds: int, seed: int) -> Vector:
    """(rounds, clients) with a slow common decline."""
    rng = stream(seed, "simulated federation", clients)
    level = np.log(1.5) + 0.4 * np.exp(-np.arange(rounds) / 15)[:, None]
    noise = BETWEEN * rng.standard_normal(clients) + WITHIN * rng.standard_normal((rounds, clients))
    drawn: Vector = np.exp(level + noise)
    return drawn


def replay(reported: Vector, rule: Rule) -> Replay:
    standing, verdicts = Standing.start(reported.shape[1]), []
    for row in reported:
        verdict, standing = judge(row.tolist(), standing, rule)
        verdicts.append(verdict)
    return Replay(np.array([v.flagged for v in verdicts]), np.array([v.weights for v in verdicts]))


def clean(clients: int, rule: Rule, runs: int) -> tuple[float, float]:
    """False-flag rate a client-round, and the share of clients that keep half their weight for 200 rounds."""
    replays = [replay(losses(clients, 200, seed), rule) for seed in range(runs)]
    kept = [run.weights.min(axis=0) * clients >= 0.5 for run in replays]
    return float(np.mean([run.flags.mean() for run in replays])), float(np.mean(kept))


def attacked(clients: int, attackers: int, times: float, rule: Rule, runs: int) -> float:
    """True-flag rate from round 11 to 60."""
    rates = []
    for seed in range(1000, 1000 + runs):
        reported = losses(clients, 60, seed)
        reported[3:, :attackers] *= times
        rates.append(replay(reported, rule).flags[FROM_ROUND:, :attackers].mean())
    return float(np.mean(rates))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rule", choices=sorted(RULES), default="calibrated")
    parser.add_argument("--runs", type=int, default=20, help="simulated federations a row")
    options = parser.parse_args()
    rule = Rule(options.rule)
    print("| clean, 200 rounds | false flags | clients that keep half their weight |\n|---|---|---|")
    for clients in (4, 10, 30, 100):
        flags, kept = clean(clients, rule, options.runs * (5 if clients == 4 else 1))
        print(f"| {clients} clients | {flags:.2%} | {kept:.1%} |")
    print("\n| attackers of clients | 1.8 x | 2.2 x | 3 x |\n|---|---|---|---|")
    for clients, attackers in ((4, 1), (10, 1), (10, 3), (30, 1), (30, 9), (100, 30)):
        row = " | ".join(f"{attacked(clients, attackers, times, rule, options.runs):.0%}" for times in (1.8, 2.2, 3))
        print(f"| {attackers} of {clients} | {row} |")


if __name__ == "__main__":
    main()
