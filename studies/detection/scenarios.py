"""Federations put together from recorded clients, and what each rule makes of them.

A run's clients, while all weigh the same, give *traces*: over rounds, how far each loss a client reports (and the peak
of what its generator draws, where fed-inspect looked) stands from the median of the honest ones. Honest and malicious
traces form two pools, the malicious by how many attacked together. A scenario draws n - k of the first and k of the
second (of the recorded number nearest to k) with replacement, puts each back on one recorded median, and swaps what a
client differs by from its own ten-round mean between neighbouring rounds, so that no two copies are equal. Liars report
the honest median. Where a fraction is asked each round, a trace goes on with its client's own rounds, and a scenario
ends when the first is used up. Each rule then judges it round by round.

Not modelled: what a weight does to its client's loss.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.metrics import roc_auc_score, roc_curve

from fedsec.defences.evidence import READINGS, signed_log
from fedsec.defences.feddetect import Rule, Standing, judge
from fedsec.errors import RunError
from fedsec.log.record import Cell, Header, RoundRow
from fedsec.log.runlog import read
from fedsec.reports.markdown.flags import WARMUP
from fedsec.run.roles import overrides, role
from fedsec.seeds import stream
from fedsec.types import Vector

SERIES = ("g-loss", "g-loss-last", "g-loss-first", "peak")
RULES: dict[str, Rule] = {
    "released": Rule("released", reading="last"),
    "paper": Rule("paper", reading="last"),
    "calibrated": Rule("calibrated", reading="drop"),
    "fed-inspect": Rule("calibrated", reading="peak"),
}
EQUAL = 1e-9
BLOCK = 5
"""Rounds within which a trace's deviations are shuffled."""
FALSE = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
"""Shares of honest client-rounds flagged at which a ROC curve is kept."""


@dataclass(frozen=True)
class Trace:
    """(rounds, series) of one client, relative to the honest median in signed_log (peak: in log)."""

    values: Vector


@dataclass(frozen=True)
class Pool:
    """Recorded clients of one kind of federation. ``malicious``: by how many attacked together; ``medians``: (rounds,
    series) of each cell."""

    honest: tuple[Trace, ...]
    malicious: dict[int, tuple[Trace, ...]]
    medians: tuple[Vector, ...]

    def attackers(self, count: int) -> tuple[Trace, ...]:
        """Those of the recorded number that is nearest to ``count``: what one attacker does alone is not what each of
        several does."""
        recorded = min(self.malicious, key=lambda number: abs(math.log(number / count)))
        return self.malicious[recorded]


def series_of(row: RoundRow) -> dict[int, list[float]]:
    return {
        p: [
            signed_log(row.losses[p]),
            signed_log(row.last[p]),
            signed_log(row.first.get(p, math.nan)),
            math.log(max(row.evidence.get(p, math.nan), 1e-6)) if p in row.evidence else math.nan,
        ]
        for p in row.losses
    }


def traces_of(header: Header, arm: str, cell: Cell) -> Iterator[tuple[int, Vector, Vector]]:
    """(partition, trace, the cell's medians) while weights are equal."""
    rows = []
    for row in cell.rounds:
        if row.dropped or max(row.weights.values()) - min(row.weights.values()) > EQUAL:
            break
        rows.append(series_of(row))
    if not rows:
        return
    guilty = role(header, arm).malicious
    partitions = sorted(rows[0])
    table = np.array([[row[p] for p in partitions] for row in rows])  # rounds, clients, series
    if not inspected(header, arm):
        table[:, :, SERIES.index("peak")] = np.nan
    honest = [i for i, p in enumerate(partitions) if p not in guilty]
    medians = np.median(table[:, honest], axis=1)
    for i, partition in enumerate(partitions):
        yield partition, table[:, i] - medians, medians


def pool_of(folders: Sequence[Path], rounds: int) -> Pool:
    """Every client of every finished cell with ``rounds`` rounds of equal weights; equal traces count once."""
    honest: dict[bytes, Trace] = {}
    malicious: dict[int, dict[bytes, Trace]] = {}
    medians: dict[bytes, Vector] = {}
    for folder in folders:
        record = read(folder)
        for (arm, _), cell in record.finished().items():
            its = role(record.header, arm)
            for partition, values, middle in traces_of(record.header, arm, cell):
                if len(values) < rounds or np.isnan(values[:rounds, :3]).any():
                    continue
                kept = np.array(values[:rounds])
                together = malicious.setdefault(len(its.malicious), {}) if partition in its.malicious else honest
                together[kept.tobytes()] = Trace(kept)
                medians[middle[:rounds].tobytes()] = np.array(middle[:rounds])
    if not honest:
        raise RunError(f"no finished cell of {', '.join(map(str, folders))} kept equal weights for {rounds} rounds")
    guilty = {number: tuple(traces.values()) for number, traces in malicious.items()}
    return Pool(tuple(honest.values()), guilty, tuple(medians.values()))


def scenario(
    pool: Pool, clients: int, attackers: int, rng: np.random.Generator, *, lying: bool, fraction: float = 1.0
) -> Vector:
    """(rounds, clients, series): what each client reports, attackers first; losses in their own unit, NaN from those
    who are not asked."""
    middle = pool.medians[int(rng.integers(len(pool.medians)))]
    guilty = pool.attackers(attackers) if attackers else ()
    drawn = [guilty[int(i)] for i in rng.integers(len(guilty) or 1, size=attackers)]
    drawn += [pool.honest[int(i)] for i in rng.integers(len(pool.honest), size=clients - attackers)]
    values = np.stack([shuffled(trace.values, rng) for trace in drawn], axis=1)
    if lying:
        values[:, :attackers, :3] = 0.0
    table = values + middle[:, None] if fraction == 1 else sampled(values, middle, fraction, rng)
    losses = np.sign(table[..., :3]) * np.expm1(np.abs(table[..., :3]))
    return np.concatenate([losses, np.exp(table[..., 3:])], axis=2)


def sampled(values: Vector, middle: Vector, fraction: float, rng: np.random.Generator) -> Vector:
    """(rounds, clients, series) -> more rounds, in each of which so many clients go on by one of their own."""
    rounds, clients, _ = values.shape
    own = np.zeros(clients, int)
    rows: list[Vector] = []
    while (own < rounds).all():
        row = np.full(values.shape[1:], np.nan)
        here = rng.choice(clients, max(1, round(fraction * clients)), replace=False)
        row[here] = values[own[here], here] + middle[min(rounds - 1, int(len(rows) * fraction))]
        own[here] += 1
        rows.append(row)
    return np.stack(rows)


def counted(table: Vector) -> npt.NDArray[np.bool_]:
    """(rounds, clients): who was asked, after WARMUP rounds of its own."""
    asked = ~np.isnan(table[..., 0])
    return np.asarray(asked & (asked.cumsum(axis=0) > WARMUP))


def shuffled(trace: Vector, rng: np.random.Generator) -> Vector:
    """The trace with its deviations from a running mean exchanged between neighbouring rounds."""
    kernel = np.ones(2 * BLOCK) / (2 * BLOCK)
    padded = np.pad(trace, ((BLOCK, BLOCK - 1), (0, 0)), mode="edge")
    smooth = np.stack([np.convolve(column, kernel, "valid") for column in padded.T], axis=1)
    order = np.argsort(np.arange(len(trace)) // BLOCK + rng.random(len(trace)) * 0.999)
    return np.asarray(smooth + (trace - smooth)[order], np.float64)


def replay(table: Vector, rule: Rule) -> tuple[Vector, Vector, Vector]:
    """(rounds, clients) flags and suspicion, (clients,) last weights of one scenario under one rule."""
    standing = Standing.start(table.shape[1])
    flags, suspicion = [], []
    of: Callable[[dict[str, float]], float] = READINGS[rule.reading].of
    for row in table:
        told = [
            None if np.isnan(client[0]) else of(dict(zip(SERIES, map(float, client), strict=True))) for client in row
        ]
        verdict, standing = judge(told, standing, rule)
        flags.append(verdict.flagged)
        suspicion.append(verdict.suspicion)
    return np.array(flags), np.array(suspicion), np.array(standing.weights)


def rates(
    pool: Pool, clients: int, attackers: int, name: str, scenarios: int, *, lying: bool = False, fraction: float = 1.0
) -> dict[str, Any]:
    """Flag rates after the warm-up, ROC over client-rounds (``roc``: true flags at the FALSE rates), and what the
    attackers weigh at the end, as parts of a fair share; of ``released`` also under ``paper``, whose flags are the same
    (``printed``)."""
    flags, suspicion, truths, shares, printed = [], [], [], [], []
    fair = clients / max(1, attackers)
    for seed in range(scenarios):
        rng = stream(seed, "scenario", clients, attackers, int(lying))
        table = scenario(pool, clients, attackers, rng, lying=lying, fraction=fraction)
        raised, suspected, weights = replay(table, RULES[name])
        here = counted(table)
        flags.append(raised[here])
        suspicion.append(suspected[here])
        truths.append(np.broadcast_to(np.arange(clients) < attackers, here.shape)[here])
        shares.append(weights[:attackers].sum() * fair)
        decayed = RULES[name].decay ** raised.sum(axis=0)
        printed.append(decayed[:attackers].sum() / decayed.sum() * fair)
    raised, suspected, truth = np.concatenate(flags), np.concatenate(suspicion), np.concatenate(truths)
    found: dict[str, Any] = {"false flags": float(raised[~truth].mean())}
    if attackers:
        false, true, _ = roc_curve(truth, suspected)
        found |= {
            "flags": float(raised[truth].mean()),
            "auc": float(roc_auc_score(truth, suspected)),
            "share": float(np.mean(shares)),
            "roc": [float(true[np.searchsorted(false, rate, side="right") - 1]) for rate in FALSE],
        }
        if name == "released":
            found["printed"] = float(np.mean(printed))
    return found


def inspected(header: Header, arm: str) -> bool:
    """Whether fed-inspect looked at all parts. Runs of before there was a choice lack the key and are of another
    rule."""
    merged = {**header.config, **overrides(header, arm)}
    return merged.get("defence.name") == "fed-inspect" and merged.get("defence.inspects") == "all"
