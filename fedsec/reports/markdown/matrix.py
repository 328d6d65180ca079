"""Print a matrix as Markdown and draw its heat-maps:
``fedsec table --as matrix FILE CELLS [--png DIR]``.

FILE, profile and settings as for ``fedsec matrix``; CELLS: its folder of cell files. docs/results/matrix.md is made so.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from fedsec.config.matrix import CLEAN, ORACLE, PLAIN, read_matrix
from fedsec.metrics.intervals import Interval
from fedsec.reports.matrix import MAPS, Map
from fedsec.reports.words import digits, percent
from fedsec.run.matrix import standings
from fedsec.run.standings import Standings

SHOWN = (
    "Fréchet distance over the oracle's",
    "Trigger rate",
    "Trigger strength",
    "Label fidelity lost",
    "Attackers not flagged",
)


def text(shown: Map, value: Interval) -> str:
    if not math.isfinite(value.mean):
        return "–"
    spread = shown.spread(value)
    return shown.text(value.mean) + (f" ({spread})" if spread else "")


def tables(board: Standings) -> Iterator[str]:
    """One Markdown table a map, then worst cases, prices and ranks."""
    for shown in MAPS:
        measure = shown.of(board)
        yield f"\n**{shown.title}.** {shown.note}\n"
        yield f"| attack | {' | '.join(board.defences)} |\n|---|{'---|' * len(board.defences)}"
        for attack in board.attacks:
            yield f"| {attack} | {' | '.join(text(shown, measure(attack, d)) for d in board.defences)} |"
    yield "\n| defence | worst Fréchet ratio | worst trigger rate | price | false flags | rank by Fréchet |"
    yield "|---|---|---|---|---|---|"
    ranks = board.ranks(board.ratio)
    for defence in (d for d in board.defences if d != ORACLE):
        worst = [board.worst(defence, measure) for measure in (board.ratio, board.trigger)]
        told = [
            f"{say(value)} ({attack})" if attack else "–"
            for (attack, value), say in zip(worst, (digits, percent), strict=True)
        ]
        paid, flagged = board.ratio(CLEAN, defence).mean, board.flags(CLEAN, defence).mean
        price = "–" if defence == PLAIN or not math.isfinite(paid) else digits(paid)
        false = percent(flagged) if math.isfinite(flagged) else "–"
        rank = ranks[defence]
        place = f"{rank.mean:.1f} ({rank.low:.1f} to {rank.high:.1f})" if math.isfinite(rank.mean) else "–"
        yield f"| {defence} | {told[0]} | {told[1]} | {price} | {false} | {place} |"


def apart(board: Standings, shown: Map) -> Iterator[str]:
    """One map, each seed's value by itself; attacks without a value are left out."""
    yield f"| attack | {' | '.join(board.defences)} |\n|---|{'---|' * len(board.defences)}"
    measure = shown.of(board)
    for attack in board.attacks:
        rows = [[v for v in measure(attack, d).values if math.isfinite(v)] for d in board.defences]
        if any(rows):
            yield f"| {attack} | {' | '.join(', '.join(map(shown.text, row)) or '–' for row in rows)} |"


def draw(board: Standings, path: Path) -> None:
    chosen = [shown for shown in MAPS if shown.title in SHOWN]
    figure = Figure(figsize=(1.2 + 0.75 * len(board.defences), (0.9 + 0.32 * len(board.attacks)) * len(chosen)))
    for place, shown in enumerate(chosen, start=1):
        axes, measure = figure.add_subplot(len(chosen), 1, place), shown.of(board)
        values = np.array([[measure(a, d).mean for d in board.defences] for a in board.attacks])
        heat = np.vectorize(lambda v, m=shown: m.heat(v) if math.isfinite(v) else np.nan)(values)
        axes.imshow(np.ma.masked_invalid(heat), cmap=mpl.colormaps["Oranges"], vmin=0, vmax=1.3, aspect="auto")
        for (row, column), value in np.ndenumerate(values):
            axes.text(column, row, shown.text(value) if math.isfinite(value) else "–", ha="center", va="center", size=7)
        axes.set_xticks(range(len(board.defences)), board.defences, rotation=30, ha="right", size=7)
        axes.set_yticks(range(len(board.attacks)), board.attacks, size=7)
        axes.set_title(shown.title, size=9, loc="left")
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="fedsec table --as matrix", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file", type=Path)
    parser.add_argument("cells", type=Path)
    parser.add_argument("settings", nargs="*")
    parser.add_argument("--profile", default="")
    parser.add_argument("--png", type=Path, help="folder for one picture a split")
    parser.add_argument("--apart", choices=[shown.title for shown in MAPS], help="this table alone, seeds by commas")
    options = parser.parse_intermixed_args(words)
    matrix = read_matrix(options.file, options.profile, options.settings)
    boards = {split: standings(matrix, split, options.cells) for split in matrix.splits}
    if not any(board.record.finished() for board in boards.values()):
        parser.error(f"{options.cells} has no finished cell of these settings: give those of the run, data.source too")
    for split, board in boards.items():
        if not board.record.finished():
            continue
        print(f"\n### Split: {split}")
        chosen = [shown for shown in MAPS if shown.title == options.apart]
        print("\n".join(apart(board, chosen[0]) if chosen else tables(board)))
        if options.png:
            draw(board, options.png / f"heat-{split}.png")
