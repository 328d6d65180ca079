"""Who was flagged in whole runs: ``python -m experiments.caught RUN [RUN ...]``, or a matrix's cells by
``python -m experiments.caught --matrix FILE CELLS [--profile P] [SETTING ...]``.

A line for each arm that a defence with flags defended; a value a seed. Rates are over the rounds of a client after its
own tenth.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from experiments.scenarios import WARMUP
from fedsec.config import Defence
from fedsec.matrix import read_matrix
from fedsec.matrix_run import standings
from fedsec.reports.record import Cell, RoundRow, RunRecord
from fedsec.reports.roles import role
from fedsec.reports.runlog import read

GONE = 0.01
"""Part of its fair share below which a client has lost its weight."""


def told(rows: Sequence[RoundRow], malicious: Sequence[int]) -> tuple[list[bool], list[bool]]:
    """Whether each reply after its client's tenth was flagged: attackers', honest ones'."""
    own: Counter[int] = Counter()
    flagged: dict[bool, list[bool]] = {True: [], False: []}
    for row in rows:
        own.update(list(row.losses))
        for p in row.losses:
            flagged[p in malicious] += [p in row.flags] if own[p] > WARMUP else []
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


def table(record: RunRecord) -> Iterator[str]:
    cells: dict[str, list[Cell]] = {}
    for (arm, _), cell in sorted(record.finished().items()):
        if Defence(name=role(record.header, arm).defence).reads_losses:  # type: ignore[arg-type]
            cells.setdefault(arm, []).append(cell)
    for arm, found in cells.items():
        malicious = role(record.header, arm).malicious
        rates = [told(cell.rounds, malicious) for cell in found]
        honest = [p in row.flags for cell in found for row in cell.rounds for p in row.losses if p not in malicious]
        caught = [f"{100 * np.mean(true):.0f} %" for true, _ in rates if true]
        firsts = [since(cell.rounds, malicious) for cell in found] if malicious else []
        lost = [gone(cell.rounds, malicious) for cell in found] if malicious else []
        columns = [
            arm,
            f"{len(malicious)} of {record.header.clients}",
            ", ".join(caught),
            ", ".join("–" if number is None else str(number) for number in firsts),
            ", ".join("–" if number is None else str(number) for number in lost),
            f"{sum(honest)} of {len(honest)}",
        ]
        yield f"| {' | '.join(columns)} |"


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
    for name, record in records.items():
        print(f"\n### {name}\n")
        print("| arm | attackers | their replies flagged | all from round | no weight from round | honest flagged |")
        print("|---|---|---|---|---|---|")
        print("\n".join(table(record)))


if __name__ == "__main__":
    main()
