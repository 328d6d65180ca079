"""What meets the aim, and what does not."""

from __future__ import annotations

from typing import Any

import pytest

from experiments.adaptive_table import FLOOR, allowed, oracles, row, verdict


def cell(rate: float, attacker: str = "patch", seed: int = 3, defence: str = "fed-inspect") -> dict[str, Any]:
    return {
        "data": "d",
        "split": "iid",
        "seed": seed,
        "defence": defence,
        "attacker": attacker,
        "trigger rate": rate,
        "attacker flagged": None if attacker == "none" else 0.5,
        "attacker share": None if attacker == "none" else 0.25,
        "honest flags": 1,
        "honest rounds": 42,
        "flags": [[], [0], [1]],
    }


def test_a_cell_is_held_against_the_oracle_of_its_own_seed_and_none_counts_as_up_to_three_in_a_thousand() -> None:
    cells = [cell(0.02, defence="oracle"), cell(0.0, seed=4, defence="oracle"), cell(0.04), cell(0.05)]
    cells += [cell(0.006, seed=4), cell(0.007, seed=4), cell(0.0, seed=5), cell(0.9, attacker="none")]
    assert oracles(cells) == {("d", "iid", 3): 0.02, ("d", "iid", 4): 0.0}
    assert allowed(0.0) == pytest.approx(2 * FLOOR)
    assert verdict(cells) == {"cells": 4, "met": 2, "flagged": 6, "rounds": 6 * 42}
    assert row(cells[2], 0.02)[5:] == ["4.0 %", "2.0 %", "yes", "2", "0.25", "1 of 42"]
    assert row(cells[3], 0.02)[7] == "**no**"
    assert row(cells[6], None)[6:8] == ["", ""], "no oracle, no verdict"
    assert row(cells[7], 0.02)[8] == "", "nobody to flag"
