"""What meets the aim, and what does not."""

from __future__ import annotations

from typing import Any

import pytest

from studies.detection.adaptive_table import FLOOR, above, allowed, oracles, roughest, row, verdict


def cell(rate: float, attacker: str = "patch", seed: int = 3, defence: str = "fed-inspect") -> dict[str, Any]:
    return {
        "data": "d",
        "split": "iid",
        "seed": seed,
        "defence": defence,
        "attacker": attacker,
        "trigger rate": rate,
        "trigger strength": 0.1,
        "matches": [i / 100 + (rate > 0.03) * 0.05 for i in range(101)],
        "attacker flagged": None if attacker == "none" else 0.5,
        "attacker share": None if attacker == "none" else 0.25,
        "honest flags": 1,
        "honest rounds": 42,
        "flags": [[], [0], [1]],
        "shares": [dict.fromkeys("0123", 0.25)] * 3,
    }


def test_a_cell_is_held_against_the_oracle_of_its_own_seed_and_none_counts_as_up_to_three_in_a_thousand() -> None:
    cells = [cell(0.02, defence="oracle"), cell(0.0, seed=4, defence="oracle"), cell(0.04), cell(0.05)]
    cells += [cell(0.006, seed=4), cell(0.007, seed=4), cell(0.0, seed=5), cell(0.9, attacker="none")]
    best = oracles(cells)
    assert list(best) == [("d", "iid", 3), ("d", "iid", 4)]
    assert allowed(best["d", "iid", 3]) == pytest.approx(0.04)
    assert allowed(best["d", "iid", 4]) == pytest.approx(2 * FLOOR)
    assert verdict(cells) == {"cells": 4, "met": 2, "flagged": 6, "rounds": 6 * 42, "early": 2, "all": 12}
    oracle, calm = cells[0], cells[-1]
    found = row(cells[2], oracle, calm, 0.99)
    assert found[1:4] == ["d, iid, seed 3", "fed-inspect", "patch"]
    assert found[4:8] == ["4.0 %", "90.0 %", "2.0 %", "yes"]
    assert found[8:] == ["0.100", "0.100", "6 %", "2", "0.25", "1 of 42"]
    assert row(cells[3], oracle, calm, 0.99)[7] == "**no**"
    assert row(cells[6], None, None, 0.99)[5:8] == ["", "", ""], "no oracle, no verdict"
    assert row(calm, oracle, calm, 0.99)[7] == row(calm, oracle, calm, 0.99)[11] == "", "nobody to flag"


def test_a_trigger_is_plain_where_no_unattacked_model_of_the_data_matches_as_well() -> None:
    cells = [cell(0.0, defence="oracle"), cell(0.04, attacker="none"), cell(0.04), cell(0.0)]
    assert roughest(cells) == {"d": pytest.approx(0.99 + 0.05)}, "the worst of the two that nobody attacked"
    assert [above(each, 0.99) for each in cells] == pytest.approx([1 / 101, 6 / 101, 6 / 101, 1 / 101])
