"""Print what the cells of run folders guarantee, each by itself and all together, accounted anew from their logs:
``fedsec table --as epsilons RUN [RUN ...] [--held 340,1000 --arm image-1.0]``.

The epsilons under docs/results/ are this script's. Logs of before 2026-12 do not say what their cells spent: it is then
taken from the configuration in the log. The folders given must be of the same images. ``--held``: one image's epsilon
of ``--arm``, were there so many images at each site.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from fedsec.config import RunConfig
from fedsec.log import runlog
from fedsec.log.record import CellKey, RunRecord
from fedsec.privacy.ledger import KINDS, Kind, Spent, Try, spent
from fedsec.privacy.promises import lines_of


def tries_of(record: RunRecord) -> dict[CellKey, list[Try]]:
    """Every try of every cell in the log, with its guarantees."""
    config = RunConfig.from_flat(record.header.config)
    images = tuple(sum(counts) for counts in record.header.label_counts)
    return {
        (arm, seed): [
            one if one.images else replace(one, lines=lines_of(config.arm(arm), images), images=images)
            for one in cell.tries
        ]
        for (arm, seed), cell in record.cells.items()
    }


def rows(records: Sequence[RunRecord]) -> Iterator[str]:
    """A Markdown table: each cell that noises something, then all cells and tries of all ``records`` together."""
    every: list[Try] = []
    yield "| cell | hidden | epsilon | delta | releases |"
    yield "|---|---|---|---|---|"
    for record in records:
        for (arm, seed), tries in tries_of(record).items():
            every += tries
            under_way = "" if record.cells[arm, seed].finished else " (cut short)"
            for line in tries[-1].lines:
                yield _row(f"{arm}, seed {seed}{under_way}", line.kind, spent(line.kind, tries))
    for kind in KINDS:
        if any(one.line(kind) for one in every):
            yield _row("all together", kind, spent(kind, every))
            given = [one for one in every if (its := one.line(kind)) is not None and its.multiplier]
            if len(given) < len(every):
                yield _row(f"the {len(given)} of {len(every)} tries with such noise", kind, spent(kind, given))


def _row(name: str, kind: Kind, found: Spent) -> str:
    if math.isinf(found.epsilon):
        return f"| {name} | {kind} | none | | {found.releases} |"
    delta = found.worst.delta if found.worst is not None else math.nan
    return f"| {name} | {kind} | {found.epsilon:.3g} | {delta} | {found.releases} |"


def by_images(record: RunRecord, arm: str, held: Sequence[int]) -> Iterator[str]:
    """One image's epsilon of one cell of ``arm``, with the default delta of so many images a site."""
    config = RunConfig.from_flat(record.header.config).arm(arm)
    rounds = next(cell.tries[-1].rounds for (its, _), cell in record.cells.items() if its == arm)
    yield f"| images a site ({arm}, {rounds} rounds) | epsilon | delta |"
    yield "|---|---|---|"
    for images in held:
        found = spent("image", [Try(lines_of(config, [images]), (images,), rounds)])
        yield f"| {images:,} | {found.epsilon:.3g} | {found.worst.delta if found.worst else math.nan} |"


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="fedsec table --as epsilons", description=__doc__)
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--held", default="", help="images a site, with commas")
    parser.add_argument("--arm", default="")
    args = parser.parse_args(words)
    records = [runlog.read(folder) for folder in args.runs]
    lines = [*rows(records)]
    if args.held:
        lines += ["", *by_images(records[0], args.arm, [int(n) for n in args.held.split(",")])]
    print("\n".join(lines))
