"""What the server saw of each client:
``fedsec table --as watched RUN --arms a,b [--seed 0] --png FILE``.

A column an arm. From the top: the reported loss less the median client's; what the arm's defence judges by (FedDetect:
the loss or its drop; fed-inspect: the peak of what the uploaded generator draws, in median clients', logarithmic); the
weight. Red: clients that attack; dots: flags.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fedsec.log.record import RoundRow, RunRecord
from fedsec.log.runlog import read
from fedsec.run.roles import role

JUDGED = "what is judged"


def _relative(row: RoundRow) -> dict[int, float]:
    middle = float(np.median(list(row.losses.values())))
    return {p: loss - middle for p, loss in row.losses.items()}


ROWS: dict[str, Callable[[RoundRow], dict[int, float]]] = {
    "loss, from the median": _relative,
    JUDGED: lambda row: row.evidence,
    "weight": lambda row: row.weights,
}


def draw(record: RunRecord, arms: Sequence[str], seed: int, path: Path) -> None:
    figure = Figure(figsize=(3.6 * len(arms), 5.6))
    for column, arm in enumerate(arms):
        rows, malicious = record.finished()[arm, seed].rounds, role(record.header, arm).malicious
        for place, (name, of) in enumerate(ROWS.items()):
            axes = figure.add_subplot(len(ROWS), len(arms), place * len(arms) + column + 1)
            if place == 0:
                axes.set_title(arm, size=9, loc="left")
            _lines(axes, rows, of, malicious)
            axes.set_ylabel("" if column else name, size=8)
            axes.tick_params(labelsize=7)
            if name == JUDGED and role(record.header, arm).defence == "fed-inspect":
                axes.set_yscale("log")
            if name == "weight":
                axes.set_ylim(0)
        axes.set_xlabel("round", size=8)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def _lines(
    axes: Axes,
    rows: Sequence[RoundRow],
    of: Callable[[RoundRow], dict[int, float]],
    malicious: Sequence[int],
) -> None:
    found = [of(row) for row in rows]
    if not any(found):
        axes.text(0.5, 0.5, "nothing", ha="center", va="center", size=8, transform=axes.transAxes)
        axes.set(xticks=[], yticks=[])
    for p in sorted({p for values in found for p in values}, key=lambda p: p in malicious):
        color = "C3" if p in malicious else "0.6"
        axes.plot(
            [row.round for row in rows], [values.get(p, math.nan) for values in found], color=color, linewidth=1.2
        )
        flagged = [(row.round, values[p]) for row, values in zip(rows, found, strict=True) if p in row.flags]
        if flagged:
            axes.plot(*zip(*flagged, strict=True), "o", color=color, markersize=2.5)


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="fedsec table --as watched", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path)
    parser.add_argument("--arms", required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--png", type=Path, required=True)
    options = parser.parse_args(words)
    draw(read(options.run), options.arms.split(","), options.seed, options.png)
