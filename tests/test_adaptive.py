"""The arithmetic of experiments.adaptive; its cells train for minutes and are in docs/results/adaptive."""

from __future__ import annotations

import pytest

from experiments.adaptive import ATTACKERS, flags
from strategies.base import Weighing


def test_attackers_act_when_they_say() -> None:
    def rounds(name: str) -> list[int]:
        return [number for number in range(1, 25) if ATTACKERS[name].acts(number, 24)]

    assert rounds("clean") == []
    assert rounds("patch") == list(range(1, 25))
    assert rounds("late") == list(range(15, 25))
    assert rounds("last5") == [20, 21, 22, 23, 24]
    assert rounds("burst") == [18]
    assert rounds("period3") == [3, 6, 9, 12, 15, 18, 21, 24]


def test_flags_are_counted_where_the_attacker_attacked_and_of_the_honest_everywhere() -> None:
    weights = {0: 0.1, 1: 0.3, 2: 0.3, 3: 0.3}
    rows = [Weighing(weights, (0, 1)), Weighing(weights, (0,)), Weighing(weights, (3,)), Weighing(weights)]
    counted = flags(rows, [True, True, False, True], after=1)
    assert counted["attacker flagged"] == pytest.approx(1 / 2)
    assert counted["honest flagged"] == pytest.approx(1 / 9)
    assert counted["honest flags"] == 1
    assert counted["weight"] == 0.1
    clean = flags(rows, [False] * 4, after=0)
    assert clean["attacker flagged"] is None
    assert clean["honest flagged"] == pytest.approx(4 / 16), "nobody attacks, so the first is honest too"
