"""How far attackers and honest clients stand apart in what FedDetect may read:
``python -m studies.detection.readings RUN``.

For each reading (the level of the first steps' loss, and the drop) and ten rounds at a time: the standard deviation of
honest clients in the arm without attack, the honest client that stands highest there, and the attackers in the arm with
it, all relative to the median client, as means over those rounds. Rounds count until a weight first moves: an excluded
client's loss says something else. A table of docs/feddetect.md is made by this script from docs/results/isic.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from fedsec.defences.evidence import READINGS, WINDOW, relative
from fedsec.errors import RunError
from fedsec.log.record import Cell, RunRecord
from fedsec.log.runlog import read
from fedsec.run.roles import role
from fedsec.types import Vector

READ = ("first", "drop")
EQUAL = 1e-9
"""Difference of weights that is rounding."""


def windows(cell: Cell, reading: str) -> Vector:
    """(windows, clients): relative values averaged over rounds 1 to 10, 11 to 20, ..., while all weigh the same."""
    read = READINGS[reading]
    rows = []
    for row in cell.rounds:
        if not row.first or not row.weights or max(row.weights.values()) - min(row.weights.values()) > EQUAL:
            break
        told = [read.of({"g-loss": row.losses[p], "g-loss-first": row.first[p]}) for p in sorted(row.losses)]
        rows.append([np.nan if value is None else value for value in relative(told, read)])
    whole = len(rows) // WINDOW
    values: Vector = np.array(rows[: whole * WINDOW]).reshape(whole, WINDOW, len(cell.rounds[0].losses)).mean(axis=1)
    return values


def table(record: RunRecord, clean: list[str], attacked: str, rounds: int) -> str:
    """Raises RunError when an arm has no finished cell with equal weights over ``rounds``."""
    guilty = list(role(record.header, attacked).malicious)
    lines = [
        "| reading | rounds | honest: deviation | highest honest (seed) | attackers (seed) |",
        "|---|---|---|---|---|",
    ]
    for name in READ:
        honest, hit = (_cells(record, arms, name, rounds) for arms in (clean, [attacked]))
        for at in range(rounds // WINDOW):
            every = np.concatenate([values[at] for values in honest.values()])
            top = max(honest, key=lambda seed: honest[seed][at].max())
            attackers = ", ".join(f"{values[at, guilty].max():.2f} ({seed})" for seed, values in hit.items())
            highest = f"{honest[top][at].max():.3f} ({top})"
            span = f"{at * WINDOW + 1} to {(at + 1) * WINDOW}"
            lines.append(f"| {name} | {span} | {every.std(ddof=1):.3f} | {highest} | {attackers} |")
    return "\n".join(lines)


def _cells(record: RunRecord, arms: list[str], reading: str, rounds: int) -> dict[int, Vector]:
    found: dict[int, Vector] = {}
    for arm in arms:
        for (name, seed), cell in record.finished().items():
            if name == arm and seed not in found and len(values := windows(cell, reading)) >= rounds // WINDOW:
                found[seed] = values
    if not found:
        raise RunError(f"{arms}: no finished cell has losses and equal weights for {rounds} rounds; name another arm")
    return dict(sorted(found.items()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="run folder, or any folder with its events.jsonl")
    parser.add_argument("--clean", default="vanilla,clean+fed-detect", help="arms without attack, by choice")
    parser.add_argument("--attacked", default="attack")
    parser.add_argument("--rounds", type=int, default=60)
    options = parser.parse_args()
    print(table(read(options.run), options.clean.split(","), options.attacked, options.rounds))


if __name__ == "__main__":
    main()
