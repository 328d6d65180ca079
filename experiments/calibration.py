"""ROC and flag rates of every rule on federations put together from recorded clients:
``python -m experiments.calibration RUN [RUN ...]``.

A run's clients, while all weigh the same, give *traces*: over rounds, how far each loss a client reports (and the peak
of what its generator draws, where fed-inspect looked) stands from the median of the honest ones. Honest and malicious
traces form two pools. A scenario draws n - k of the first and k of the second with replacement, puts each back on one
recorded median, and swaps what a client differs by from its own ten-round mean between neighbouring rounds, so that no
two copies are equal. Liars report the honest median. Each rule then judges the scenario round by round.

Not modelled: what a weight does to its client's loss. ``--check`` holds scenarios against defended cells, of the same
runs or of others, where it does act: flag rates of each, and the range in which 95 % of such scenarios lie.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from sklearn.metrics import roc_auc_score, roc_curve

from fedsec.errors import RunError
from fedsec.reports.record import Cell, Header, RoundRow
from fedsec.reports.results import write_whole
from fedsec.reports.roles import Role, overrides, role
from fedsec.reports.runlog import read
from fedsec.seeds import stream
from fedsec.types import Vector
from strategies.detection import Rule, Standing, judge
from strategies.evidence import READINGS, signed_log
from strategies.inspection import PARTS

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
WARMUP = 10


@dataclass(frozen=True)
class Trace:
    """(rounds, series) of one client, relative to the honest median in signed_log (peak: in log)."""

    values: Vector


@dataclass(frozen=True)
class Pool:
    """Recorded clients of one kind of federation. ``medians``: (rounds, series) of each cell; ``inspects``: which
    ``defence.inspects`` their peaks are of."""

    honest: tuple[Trace, ...]
    malicious: tuple[Trace, ...]
    medians: tuple[Vector, ...]
    inspects: str = "all"


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


def traces_of(header: Header, arm: str, cell: Cell, inspected: bool) -> Iterator[tuple[int, Vector, Vector]]:
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
    if not inspected:
        table[:, :, SERIES.index("peak")] = np.nan
    honest = [i for i, p in enumerate(partitions) if p not in guilty]
    medians = np.median(table[:, honest], axis=1)
    for i, partition in enumerate(partitions):
        yield partition, table[:, i] - medians, medians


def pool_of(folders: Sequence[Path], rounds: int, inspects: str = "all") -> Pool:
    """Every client of every finished cell with ``rounds`` rounds of equal weights; equal traces count once."""
    honest: dict[bytes, Trace] = {}
    malicious: dict[bytes, Trace] = {}
    medians: dict[bytes, Vector] = {}
    for folder in folders:
        record = read(folder)
        for (arm, _), cell in record.finished().items():
            its = role(record.header, arm)
            inspected = _inspected(record.header, arm, inspects)
            for partition, values, middle in traces_of(record.header, arm, cell, inspected):
                if len(values) < rounds or np.isnan(values[:rounds, :3]).any():
                    continue
                kept = np.array(values[:rounds])
                chosen = malicious if partition in its.malicious else honest
                chosen[kept.tobytes()] = Trace(kept)
                medians[middle[:rounds].tobytes()] = np.array(middle[:rounds])
    if not honest:
        raise RunError(f"no finished cell of {', '.join(map(str, folders))} kept equal weights for {rounds} rounds")
    return Pool(tuple(honest.values()), tuple(malicious.values()), tuple(medians.values()), inspects)


def scenario(pool: Pool, clients: int, attackers: int, rng: np.random.Generator, *, lying: bool) -> Vector:
    """(rounds, clients, series): what each client reports, attackers first; losses in their own unit."""
    middle = pool.medians[int(rng.integers(len(pool.medians)))]
    drawn = [pool.malicious[int(i)] for i in rng.integers(len(pool.malicious) or 1, size=attackers)]
    drawn += [pool.honest[int(i)] for i in rng.integers(len(pool.honest), size=clients - attackers)]
    values = np.stack([shuffled(trace.values, rng) for trace in drawn], axis=1)
    if lying:
        values[:, :attackers, :3] = 0.0
    table = values + middle[:, None]
    losses = np.sign(table[..., :3]) * np.expm1(np.abs(table[..., :3]))
    return np.concatenate([losses, np.exp(table[..., 3:])], axis=2)


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
        told = [of(dict(zip(SERIES, map(float, client), strict=True))) for client in row]
        verdict, standing = judge(told, standing, rule)
        flags.append(verdict.flagged)
        suspicion.append(verdict.suspicion)
    return np.array(flags), np.array(suspicion), np.array(standing.weights)


def rates(
    pool: Pool, clients: int, attackers: int, name: str, scenarios: int, *, lying: bool = False
) -> dict[str, float]:
    """Flag rates after the warm-up, ROC over client-rounds, and what the attackers weigh at the end, as parts of a fair
    share."""
    flags, suspicion, shares = [], [], []
    for seed in range(scenarios):
        rng = stream(seed, "scenario", clients, attackers, int(lying))
        raised, suspected, weights = replay(scenario(pool, clients, attackers, rng, lying=lying), RULES[name])
        flags.append(raised[WARMUP:])
        suspicion.append(suspected[WARMUP:])
        shares.append(weights[:attackers].sum() * clients / max(1, attackers))
    raised, suspected = np.stack(flags), np.stack(suspicion)
    found = {"false flags": float(raised[..., attackers:].mean()), "flags": math.nan, "auc": math.nan}
    found |= {"tpr at 1 %": math.nan, "share": math.nan}
    if attackers:
        truth = np.broadcast_to(np.arange(clients) < attackers, suspected.shape).ravel()
        false, true, _ = roc_curve(truth, suspected.ravel())
        found |= {
            "flags": float(raised[..., :attackers].mean()),
            "auc": float(roc_auc_score(truth, suspected.ravel())),
            "tpr at 1 %": float(true[np.searchsorted(false, 0.01, side="right") - 1]),
            "share": float(np.mean(shares)),
        }
    return found


def check(pool: Pool, folders: Sequence[Path], rounds: int, scenarios: int, rules: Sequence[str]) -> Iterator[str]:
    """A row for each cell that a rule of RULES defended: what it did in the whole run, and in scenarios like it."""
    yield "| cell | clients | true flags, run | scenarios | false flags, run | scenarios |"
    yield "|---|---|---|---|---|---|"
    for folder in folders:
        record = read(folder)
        for (arm, seed), cell in record.finished().items():
            its, name = role(record.header, arm), _rule_of(record.header, arm, pool.inspects)
            if name is None or name not in rules or len(cell.rounds) < rounds or (its.malicious and not pool.malicious):
                continue
            clients, attackers = record.header.clients, len(its.malicious)
            seen = [replay(_like(pool, clients, attackers, number, its), RULES[name])[0] for number in range(scenarios)]
            true, false = (
                _range([flags[WARMUP:, part].mean() for flags in seen if flags[WARMUP:, part].size])
                for part in (slice(0, attackers), slice(attackers, None))
            )
            rows = cell.rounds[WARMUP:rounds]
            guilty = [p in row.flags for row in rows for p in its.malicious]
            honest = [p in row.flags for row in rows for p in row.losses if p not in its.malicious]
            hit = f"{np.mean(guilty):.2f}" if guilty else "–"
            cell_of = f"| {arm}, seed {seed} | {attackers} of {clients}"
            yield f"{cell_of} | {hit} | {true} | {np.mean(honest):.3f} | {false} |"


def replayed(folders: Sequence[Path], rules: Sequence[str]) -> Iterator[str]:
    """What each rule would have flagged in cells that nobody defended, on their own losses: rounds a client."""
    yield "| cell | rule | flags of each client after the warm-up |\n|---|---|---|"
    for folder in folders:
        record = read(folder)
        for (arm, seed), cell in record.finished().items():
            if role(record.header, arm).defence != "fed-avg":
                continue
            rows = [(row.losses, row.last, row.first) for row in cell.rounds]
            table = np.array([[[*(told[p] for told in row), math.nan] for p in sorted(row[0])] for row in rows])
            for name in (rule for rule in rules if rule != "fed-inspect"):
                flags = replay(table, RULES[name])[0][WARMUP:].sum(axis=0)
                yield f"| {arm}, seed {seed} | {name} | {', '.join(map(str, flags))} |"


def _like(pool: Pool, clients: int, attackers: int, number: int, its: Role) -> Vector:
    lying = any("report as their losses" in line for line in its.threat)
    return scenario(pool, clients, attackers, stream(number, "check", clients, attackers), lying=lying)


def _rule_of(header: Header, arm: str, inspects: str) -> str | None:
    """The rule of RULES that an arm's defence is, when it acts within the run."""
    merged = {**header.config, **overrides(header, arm)}
    if int(merged.get("defence.warmup", WARMUP)) != WARMUP:
        return None
    if _inspected(header, arm, inspects):
        return "fed-inspect"
    return str(merged.get("defence.rule", "calibrated")) if merged.get("defence.name") == "fed-detect" else None


def _inspected(header: Header, arm: str, inspects: str) -> bool:
    """Whether fed-inspect looked at that. Runs of before there was a choice lack the key and are of another rule."""
    merged = {**header.config, **overrides(header, arm)}
    return merged.get("defence.name") == "fed-inspect" and merged.get("defence.inspects") == inspects


def _range(rates: Sequence[float]) -> str:
    if not rates:
        return "–"
    low, middle, high = np.quantile(rates, [0.025, 0.5, 0.975])
    return f"{middle:.2f} ({low:.2f} to {high:.2f})"


CASES = ((4, 0), (4, 1), (10, 0), (10, 1), (10, 3), (30, 0), (30, 3), (30, 9), (100, 0), (100, 10), (100, 30))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, help="run folders, or folders with an events.jsonl")
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--scenarios", type=int, default=200, help="a case; released and paper get a tenth")
    parser.add_argument("--clients", default="4,10,30,100")
    parser.add_argument("--rules", default="calibrated,fed-inspect,released,paper")
    parser.add_argument(
        "--check", nargs="*", type=Path, metavar="RUN", help="scenarios against defended cells: of these, or RUNS"
    )
    parser.add_argument("--inspects", default="all", choices=("all", *PARTS), help="which of fed-inspect's runs count")
    parser.add_argument("--replay", action="store_true", help="each rule on the losses of the undefended cells")
    parser.add_argument("--json", type=Path, help="where to write the numbers as well")
    options = parser.parse_args()
    if options.replay:
        print("\n".join(replayed(options.runs, options.rules.split(","))))
        return
    pool = pool_of(options.runs, options.rounds, options.inspects)
    if options.check is not None:
        held = options.check or options.runs
        print("\n".join(check(pool, held, options.rounds, options.scenarios, options.rules.split(","))))
        return
    inspected = any(np.isfinite(trace.values[:, 3]).all() for trace in pool.honest)
    print(f"{len(pool.honest)} honest and {len(pool.malicious)} malicious traces of {options.rounds} rounds\n")
    print("| rule | attackers of clients | tell | false flags | true flags | AUC | TPR at 1 % FPR | share left |")
    print("|---|---|---|---|---|---|---|---|")
    rows = []
    for name in options.rules.split(","):
        if name == "fed-inspect" and not inspected:
            print(f"(fed-inspect left out: it did not inspect {options.inspects!r} in these runs)")
            continue
        for clients, attackers in (case for case in CASES if str(case[0]) in options.clients.split(",")):
            for lying in (False, True) if attackers else (False,):
                count = max(5, options.scenarios // 10) if name in ("released", "paper") else options.scenarios
                found = rates(pool, clients, attackers, name, max(5, count * 4 // clients), lying=lying)
                rows.append({"rule": name, "clients": clients, "attackers": attackers, "lying": lying, **found})
                tell = "lies" if lying else "truth" if attackers else "–"
                numbers = " | ".join("–" if math.isnan(v) else f"{v:.3f}" for v in found.values())
                print(f"| {name} | {attackers} of {clients} | {tell} | {numbers} |", flush=True)
    if options.json:
        plain = [{k: None if isinstance(v, float) and math.isnan(v) else v for k, v in row.items()} for row in rows]
        write_whole(options.json, json.dumps(plain, indent=1) + "\n")


if __name__ == "__main__":
    main()
