"""Who was flagged in whole runs: ``fedsec table --as flags RUN [RUN ...]``, or a matrix's cells by
``fedsec table --as flags --matrix FILE CELLS [--profile P] [SETTING ...]``.

A line for each arm that a defence with flags defended; a value a seed. Runs that differ by their seeds alone share it.
Rates are over the replies of a client after its own tenth, the first five of them apart; the last three columns
need an arm of the oracle. Below it, of runs, the same by the number of clients alone: means over runs, a 95 % interval.
``--again``: what fed-inspect, as it is now, makes of the peaks that were recorded, whatever was flagged then.
"""

from __future__ import annotations

import argparse
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from fedsec.config import Defence, RunConfig
from fedsec.config.matrix import ORACLE, read_matrix
from fedsec.defences.feddetect import Rule, Standing, judge, rule_of
from fedsec.log.record import Cell, Header, RoundRow, RunRecord
from fedsec.log.runlog import read
from fedsec.log.values import values_of
from fedsec.metrics.intervals import paired_ratio
from fedsec.reports.words import digits, percent
from fedsec.run.matrix import standings
from fedsec.run.roles import overrides, role
from fedsec.run.standings import trigger_score

GONE = 0.01
"""Part of its fair share below which a client has lost its weight."""
WARMUP = 10
EARLY = WARMUP + 5
OWN = ("data.seed", "run.seeds", "data.cache")
"""In these, and in what says where and how fast, runs of one kind may differ."""
ELSEWHERE = ("run.", "speed.", "measure.")
HEAD = (
    "arm", "attackers", "their replies flagged", "11th to 15th", "later ones", "all from round", "no weight from round",
    "honest flagged", "Fréchet over the oracle's", "trigger rate", "the oracle's",
)  # fmt: skip
POOLED = (
    "attackers", "runs", "their replies flagged", "lowest", "honest flagged", "Fréchet over the oracle's",
)  # fmt: skip


def replies(rows: Iterable[RoundRow]) -> Iterator[tuple[int, int, RoundRow]]:
    """(how many its client has sent with it, partition, round) of each reply."""
    own: Counter[int] = Counter()
    for row in rows:
        own.update(list(row.losses))
        yield from ((own[p], p, row) for p in row.losses)


def told(rows: Sequence[RoundRow], malicious: Sequence[int], *, after: int = WARMUP) -> tuple[list[bool], list[bool]]:
    """Whether each reply after so many of its client's was flagged: attackers', honest ones'."""
    flagged: dict[bool, list[bool]] = {True: [], False: []}
    for own, p, row in replies(rows):
        flagged[p in malicious] += [p in row.flags] if own > after else []
    return flagged[True], flagged[False]


def since(rows: Sequence[RoundRow], malicious: Sequence[int]) -> int | None:
    """The first round from which every reply of an attacker was flagged; None when the last one was not."""
    return _after_last(rows, lambda row: any(p in row.losses and p not in row.flags for p in malicious))


def gone(rows: Sequence[RoundRow], malicious: Sequence[int]) -> int | None:
    """The first round from which no attacker that replied had GONE of a fair share of those who did."""

    def heavy(row: RoundRow) -> bool:
        return any(row.weights.get(p, 0.0) * len(row.weights) >= GONE for p in malicious if p in row.losses)

    return _after_last(rows, heavy)


def _after_last(rows: Sequence[RoundRow], holds: Callable[[RoundRow], bool]) -> int | None:
    """The round after the last in which something holds; None when that is the last of all."""
    last = max((row.round for row in rows if holds(row)), default=rows[0].round - 1)
    return last + 1 if last < rows[-1].round else None


def alike(records: Mapping[str, RunRecord]) -> dict[str, list[RunRecord]]:
    """Runs of one kind, under the name of the first of them."""
    found: dict[str, list[RunRecord]] = {}
    for name, record in records.items():
        first = next((one for one, runs in found.items() if _same(runs[0].header, record.header)), name)
        found.setdefault(first, []).append(record)
    return found


def _same(one: Header, other: Header) -> bool:
    """Whether both say the same, for all runs and for the arms that they share, but for seeds and places."""
    said = {key for key in one.config.keys() & other.config.keys() if key not in OWN and not key.startswith(ELSEWHERE)}
    shared = set(one.arms) & set(other.arms)
    return all(one.config[key] == other.config[key] for key in said) and all(
        overrides(one, arm) == overrides(other, arm) for arm in shared
    )


def defended(runs: Sequence[RunRecord]) -> dict[str, list[Cell]]:
    """The finished cells of each arm that a defence with flags defended."""
    found: dict[str, list[Cell]] = {}
    for record in runs:
        for (arm, _), cell in sorted(record.finished().items()):
            if Defence(name=role(record.header, arm).defence).reads_losses:  # type: ignore[arg-type]
                found.setdefault(arm, []).append(cell)
    return found


def again(record: RunRecord) -> RunRecord:
    """The run with the flags and weights that today's fed-inspect gives its recorded peaks; other arms as they are.

    Not modelled: what other weights would have done to the generator, and so to later peaks.
    """
    config, cells = RunConfig.from_flat(record.header.config), dict(record.cells)
    for (arm, seed), cell in record.finished().items():
        defence = config.arm(arm).defence
        if defence.name == "fed-inspect":
            rows = _judged(cell.rounds, rule_of(defence), record.header.clients)
            cells[arm, seed] = replace(cell, rounds=tuple(rows))
    return replace(record, cells=cells)


def _judged(rows: Sequence[RoundRow], rule: Rule, clients: int) -> Iterator[RoundRow]:
    standing = Standing.start(clients)
    for row in rows:
        peaks = [row.evidence.get(p, math.nan) if p in row.losses else None for p in range(clients)]
        verdict, standing = judge(peaks, standing, rule)
        flags = tuple(p for p in range(clients) if verdict.flagged[p])
        weights = {p: verdict.weights[p] for p in row.weights}
        yield replace(row, flags=flags, weights=weights, suspicion={p: verdict.suspicion[p] for p in row.losses})


def table(runs: Sequence[RunRecord], name: str) -> Iterator[str]:
    """A row an arm of runs of one kind."""
    header = runs[0].header
    for arm, found in defended(runs).items():
        malicious = role(header, arm).malicious
        every, late = ([told(c.rounds, malicious, after=n)[0] for c in found] for n in (WARMUP, EARLY))
        early = [replies[: len(replies) - len(rest)] for replies, rest in zip(every, late, strict=True)]
        honest = _honest(found, malicious)
        first, lost = (
            ["–" if (n := of(c.rounds, malicious)) is None else str(n) for c in found] for of in (since, gone)
        )
        columns = [
            f"{name}: {arm}",
            f"{len(malicious)} of {header.clients}",
            *(_listed(_share(replies) for replies in seeds if replies) for seeds in (every, early, late)),
            *(_listed(numbers) if malicious else "" for numbers in (first, lost)),
            f"{sum(honest)} of {len(honest)}",
            _listed(map(digits, filter(math.isfinite, over_the_oracle(runs, arm)))),
            *(_listed(map(percent, filter(math.isfinite, v))) for v in _stamped(runs, arm)),
        ]
        yield f"| {' | '.join(columns)} |"


def pooled(kinds: Iterable[Sequence[RunRecord]]) -> Iterator[str]:
    """A row for each number of attackers and clients, whatever the runs differ in: the mean over runs."""
    groups: dict[tuple[int, int], list[tuple[list[Cell], tuple[int, ...], list[float]]]] = {}
    for runs in kinds:
        for arm, found in defended(runs).items():
            malicious = role(runs[0].header, arm).malicious
            key = (runs[0].header.clients, len(malicious))
            groups.setdefault(key, []).append((found, malicious, over_the_oracle(runs, arm)))
    for (clients, attackers), arms in sorted(groups.items()):
        rates = [
            float(np.mean(replies))
            for found, malicious, _ in arms
            for cell in found
            if (replies := told(cell.rounds, malicious)[0])
        ]
        honest = [flag for found, malicious, _ in arms for flag in _honest(found, malicious)]
        ratios = [ratio for *_, found in arms for ratio in found if math.isfinite(ratio)]
        number = sum(len(found) for found, *_ in arms)
        columns = [
            f"{attackers} of {clients}",
            str(number),
            _share(rates) if rates else "",
            percent(min(rates)) if rates else "",
            f"{sum(honest)} of {len(honest):,}",
            _geometric(ratios) + (f", {len(ratios)} of them" if 0 < len(ratios) < number else ""),
        ]
        yield f"| {' | '.join(columns)} |"


def _honest(cells: Sequence[Cell], malicious: Sequence[int]) -> list[bool]:
    """Whether each reply of an honest client was flagged."""
    return [p in row.flags for cell in cells for row in cell.rounds for p in row.losses if p not in malicious]


def _geometric(ratios: Sequence[float]) -> str:
    """Their geometric mean, with its interval where there are several; '' of none."""
    if not ratios:
        return ""
    found = paired_ratio(ratios, [1.0] * len(ratios))
    return digits(found.mean) + (f" ({digits(found.low)} to {digits(found.high)})" if math.isfinite(found.low) else "")


def _oracle(record: RunRecord, arm: str) -> str:
    """The oracle's arm, for one that is attacked; '' where there is none."""
    oracles = [other for other in record.header.arms if role(record.header, other).defence == ORACLE]
    return oracles[0] if oracles and role(record.header, arm).attacked else ""


def over_the_oracle(runs: Sequence[RunRecord], arm: str) -> list[float]:
    """The arm's Fréchet distance over the oracle's, a value a seed; NaN where either is missing."""
    found: list[float] = []
    for record in runs:
        metric = record.header.measured_by
        both = (values_of(record, one, metric) for one in (arm, _oracle(record, arm)))
        found += paired_ratio(*both).values
    return found


def _stamped(runs: Sequence[RunRecord], arm: str) -> Iterator[list[float]]:
    """Trigger rates of the arm and of the oracle, a value a seed."""
    trigger = role(runs[0].header, arm).trigger
    for shown in ([arm] * len(runs), [_oracle(record, arm) for record in runs]):
        both = list(zip(runs, shown, strict=True))
        yield [v for record, one in both for v in values_of(record, one, trigger_score(record, one, trigger))]


def _listed(texts: Iterable[str]) -> str:
    """A value a seed; one for all where they are equal."""
    every = list(texts)
    return f"{every[0]} each" if len(every) > 1 and len(set(every)) == 1 else ", ".join(every)


def _share(replies: Sequence[float]) -> str:
    return percent(float(np.mean(replies)))


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="fedsec table --as flags", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("paths", nargs="+", help="run folders; with --matrix: the folder of its cells, then settings")
    parser.add_argument("--matrix", type=Path, metavar="FILE")
    parser.add_argument("--profile", default="")
    parser.add_argument("--again", action="store_true", help="flags by today's fed-inspect from the recorded peaks")
    options = parser.parse_intermixed_args(words)
    if options.matrix:
        cells, *settings = options.paths
        matrix = read_matrix(options.matrix, options.profile, settings)
        records = {split: standings(matrix, split, Path(cells)).record for split in matrix.splits}
    else:
        records = {path: read(Path(path)) for path in options.paths}
    if options.again:
        records = {name: again(record) for name, record in records.items()}
    kinds = alike(records) if not options.matrix else {name: [record] for name, record in records.items()}
    print_table(HEAD, (row for name, runs in kinds.items() for row in table(runs, Path(name).name)))
    if not options.matrix:
        print()
        print_table(POOLED, pooled(kinds.values()))


def print_table(head: Sequence[str], rows: Iterable[str]) -> None:
    print(f"| {' | '.join(head)} |\n|{'---|' * len(head)}", *rows, sep="\n")
