"""Who was flagged in whole runs: ``python -m experiments.caught RUN [RUN ...]``, or a matrix's cells by
``python -m experiments.caught --matrix FILE CELLS [--profile P] [SETTING ...]``.

A line for each arm that a defence with flags defended; a value a seed. Rates are over the replies of a client after its
own tenth, the first five of them apart; the last three columns need an arm of the oracle.
"""

from __future__ import annotations

import argparse
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from experiments.scenarios import WARMUP
from fedsec.config import Defence
from fedsec.matrix import read_matrix
from fedsec.matrix_run import standings
from fedsec.metrics.intervals import paired_ratio
from fedsec.reports.record import Cell, RoundRow, RunRecord
from fedsec.reports.results import values_of
from fedsec.reports.roles import role
from fedsec.reports.runlog import read
from fedsec.reports.standings import ORACLE, trigger_score
from fedsec.reports.verdict import digits, percent

GONE = 0.01
"""Part of its fair share below which a client has lost its weight."""
EARLY = WARMUP + 5
HEAD = (
    "arm", "attackers", "their replies flagged", "11th to 15th", "later ones", "all from round", "no weight from round",
    "honest flagged", "Fréchet over the oracle's", "trigger rate", "the oracle's",
)  # fmt: skip


def told(rows: Sequence[RoundRow], malicious: Sequence[int], *, after: int = WARMUP) -> tuple[list[bool], list[bool]]:
    """Whether each reply after so many of its client's was flagged: attackers', honest ones'."""
    own: Counter[int] = Counter()
    flagged: dict[bool, list[bool]] = {True: [], False: []}
    for row in rows:
        own.update(list(row.losses))
        for p in row.losses:
            flagged[p in malicious] += [p in row.flags] if own[p] > after else []
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


def table(record: RunRecord, name: str) -> Iterator[str]:
    """A row an arm; ``name`` is the run's."""
    cells: dict[str, list[Cell]] = {}
    for (arm, _), cell in sorted(record.finished().items()):
        if Defence(name=role(record.header, arm).defence).reads_losses:  # type: ignore[arg-type]
            cells.setdefault(arm, []).append(cell)
    for arm, found in cells.items():
        malicious = role(record.header, arm).malicious
        every, late = ([told(c.rounds, malicious, after=n)[0] for c in found] for n in (WARMUP, EARLY))
        early = [replies[: len(replies) - len(rest)] for replies, rest in zip(every, late, strict=True)]
        honest = [p in row.flags for cell in found for row in cell.rounds for p in row.losses if p not in malicious]
        first, lost = (
            ["–" if (n := of(c.rounds, malicious)) is None else str(n) for c in found] for of in (since, gone)
        )
        columns = [
            f"{name}: {arm}",
            f"{len(malicious)} of {record.header.clients}",
            *(_listed(_share(replies) for replies in seeds if replies) for seeds in (every, early, late)),
            *(_listed(numbers) if malicious else "" for numbers in (first, lost)),
            f"{sum(honest)} of {len(honest)}",
            *(_listed(map(say, filter(math.isfinite, v))) for v, say in _beside_the_oracle(record, arm)),
        ]
        yield f"| {' | '.join(columns)} |"


def _beside_the_oracle(record: RunRecord, arm: str) -> Iterator[tuple[Sequence[float], Callable[[float], str]]]:
    """Fréchet distance over the oracle's, trigger rate, the oracle's: a value a seed."""
    header, trigger = record.header, role(record.header, arm).trigger
    oracles = [other for other in header.arms if role(header, other).defence == ORACLE]
    ceiling = oracles[0] if oracles and role(header, arm).attacked else ""
    distance = values_of(record, ceiling, header.measured_by)
    yield paired_ratio(values_of(record, arm, header.measured_by), distance).values, digits
    for shown in (arm, ceiling):
        yield values_of(record, shown, trigger_score(record, shown, trigger)), percent


def _listed(texts: Iterable[str]) -> str:
    """A value a seed; one for all where they are equal."""
    every = list(texts)
    return f"{every[0]} each" if len(every) > 1 and len(set(every)) == 1 else ", ".join(every)


def _share(replies: Sequence[bool]) -> str:
    return percent(float(np.mean(replies)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paths", nargs="+", help="run folders; with --matrix: the folder of its cells, then settings")
    parser.add_argument("--matrix", type=Path, metavar="FILE")
    parser.add_argument("--profile", default="")
    options = parser.parse_intermixed_args()
    if options.matrix:
        cells, *settings = options.paths
        matrix = read_matrix(options.matrix, options.profile, settings)
        records = {split: standings(matrix, split, Path(cells)).record for split in matrix.splits}
    else:
        records = {path: read(Path(path)) for path in options.paths}
    print(f"| {' | '.join(HEAD)} |\n|{'---|' * len(HEAD)}")
    for name, record in records.items():
        for row in table(record, Path(name).name):
            print(row)


if __name__ == "__main__":
    main()
