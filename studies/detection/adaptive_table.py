"""The tables of docs/results/adaptive.md from cells of ``studies.detection.adaptive``:
``python -m studies.detection.adaptive_table
FILE``. Every cell of fed-inspect is held against the oracle of its data, split and seed."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fedsec.config.matrix import CLEAN, ORACLE

TIMES = 2.0
"""At most so many times the images that the oracle's model has the trigger in: the aim."""
FLOOR = 0.003
"""What an oracle's rate of 0 counts as: none of 1000 images leaves up to 3 in 1000 at 95 %."""
CHOSEN = "lesions, iid, seeds 0, 1; radiographs, iid, seed 3"
"""What the rule was chosen on."""
HONEST = 0.01
"""Largest share of honest client-rounds that are flagged: the aim."""

Cell = dict[str, Any]


def place(cell: Cell) -> tuple[str, str, int]:
    return cell["data"], cell["split"], cell["seed"]


def oracles(cells: Sequence[Cell]) -> dict[tuple[str, str, int], Cell]:
    """(data, split, seed) -> the oracle's cell."""
    return {place(cell): cell for cell in cells if cell["defence"] == ORACLE}


def allowed(oracle: Cell) -> float:
    """The largest rate that meets the aim."""
    return TIMES * max(float(oracle["trigger rate"]), FLOOR)


def roughest(cells: Sequence[Cell]) -> dict[str, float]:
    """Data -> what all but 1 % of the images match the trigger less than, in the worst of the models that nobody
    attacked: young generators match it better than real images do, some of them in half of their images."""
    calm = [cell for cell in cells if cell["attacker"] == CLEAN or cell["defence"] == ORACLE]
    return {data: max(c["matches"][99] for c in calm if c["data"] == data) for data in {c["data"] for c in calm}}


def above(cell: Cell, level: float) -> float:
    """The share of images that match the trigger better than ``level``."""
    return float(np.mean(np.array(cell["matches"]) > level))


def first_flag(cell: Cell) -> str:
    """When the attacker was flagged, in rounds, as short as it can be said; '' where nobody attacks."""
    if cell["attacker flagged"] is None:
        return ""
    rounds = [number for number, flags in enumerate(cell["flags"], 1) if 0 in flags]
    return ", ".join(map(str, rounds)) or "never"


def row(cell: Cell, oracle: Cell | None, calm: Cell | None, level: float) -> list[str]:
    """One line of the table. ``calm``: the same seed under the same defence when nobody attacks; ``level``: of
    ``roughest``. The attackers' share is that of the last round, over equal ones."""
    rate, share = cell["trigger rate"], cell["attacker share"]
    best = ["", ""]
    if oracle is not None:
        met = "yes" if rate <= allowed(oracle) else "**no**"
        best = [f"{100 * oracle['trigger rate']:.1f} %", met if cell["attacker"] != CLEAN else ""]
    quiet = ["", ""] if calm is None else [f"{100 * calm['trigger rate']:.1f} %", f"{calm['trigger strength']:.3f}"]
    weight = "" if share is None else f"{share:.2f}"
    honest = f"{cell['honest flags']} of {cell['honest rounds']}"
    where = (CHOSEN, f"{cell['data']}, {cell['split']}, seed {cell['seed']}", cell["defence"], cell["attacker"])
    strength, plain = f"{cell['trigger strength']:.3f}", f"{100 * above(cell, level):.0f} %"
    return [*where, f"{100 * rate:.1f} %", quiet[0], *best, strength, quiet[1], plain, first_flag(cell), weight, honest]


HEAD = (
    *("chosen on", "tested on", "defence", "attacker", "trigger in", "nobody attacks", "oracle", "at most twice it"),
    *("strength", "nobody attacks", "above any unattacked model", "attacker flagged in rounds", "its share"),
    "honest flags",
)


def verdict(cells: Sequence[Cell], defence: str = "fed-inspect") -> dict[str, int]:
    """``cells`` and ``met``: attacked cells that have an oracle, and those that meet the aim; ``flagged`` of
    ``rounds``: honest client-rounds after the warm-up, with cells that nobody attacks; ``early`` of ``all``: those of
    all rounds of cells that nobody attacks."""
    best, mine = oracles(cells), [cell for cell in cells if cell["defence"] == defence]
    calm = [cell for cell in mine if cell["attacker"] == CLEAN]
    attacked = [cell for cell in mine if cell["attacker"] != CLEAN and place(cell) in best]
    return {
        "cells": len(attacked),
        "met": int(np.sum([cell["trigger rate"] <= allowed(best[place(cell)]) for cell in attacked])),
        "flagged": int(np.sum([cell["honest flags"] for cell in mine])),
        "rounds": int(np.sum([cell["honest rounds"] for cell in mine])),
        "early": sum(len(flags) for cell in calm for flags in cell["flags"]),
        "all": sum(len(shares) for cell in calm for shares in cell["shares"]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    cells = [json.loads(text) for text in parser.parse_args().file.read_text(encoding="utf-8").splitlines()]
    best, levels = oracles(cells), roughest(cells)
    quiet = {(place(cell), cell["defence"]): cell for cell in cells if cell["attacker"] == CLEAN}
    rows = [
        row(cell, best.get(place(cell)), quiet.get((place(cell), cell["defence"])), levels[cell["data"]])
        for cell in sorted(cells, key=place)
    ]
    lines = [HEAD, ["---"] * len(HEAD), *rows]
    print("\n".join(f"| {' | '.join(line)} |" for line in lines))
    found = verdict(cells)
    print(f"aim met in {found['met']} of {found['cells']} attacked cells; honest client-rounds flagged:", end=" ")
    print(f"{found['flagged']} of {found['rounds']} (at most {HONEST:.0%}); of all rounds that nobody", end=" ")
    print(f"attacks in: {found['early']} of {found['all']}")


if __name__ == "__main__":
    main()
