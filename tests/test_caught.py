"""Counts of flags over whole runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from experiments.caught import gone, since, table, told
from fedsec.reports.record import RoundRow
from fedsec.reports.runlog import read

KEPT = Path(__file__).parents[1] / "docs/results/calibration"


def round_of(number: int, flags: tuple[int, ...], weights: dict[int, float]) -> RoundRow:
    losses = dict.fromkeys(weights, 1.0)
    return RoundRow(number, losses, {}, {}, {}, weights, flags, {}, {}, (), 0.0)


def test_replies_count_after_their_own_clients_tenth() -> None:
    rows = [round_of(n, (0,) if n > 10 else (), {0: 0.5, 1: 0.5}) for n in range(1, 13)]
    rows += [round_of(13, (2,), {2: 1.0})]
    assert told(rows, (0,)) == ([True, True], [False, False]), "client 2 answered once"
    assert told(rows[5:], (0,)) == ([], [])


def test_from_when_on_an_attacker_was_always_flagged_and_weighed_nothing() -> None:
    fair, none = {0: 0.5, 1: 0.5}, {0: 0.004, 1: 0.996}
    rows = [round_of(1, (0,), fair), round_of(2, (), fair), round_of(3, (0,), fair), round_of(4, (0,), none)]
    assert since(rows, (0,)) == 3
    assert gone(rows, (0,)) == 4
    assert since([*rows, round_of(5, (), {1: 1.0})], (0,)) == 3, "who is not asked is not missed"
    assert since(rows[:2], (0,)) is None
    assert gone(rows[:3], (0,)) is None
    assert since(rows[2:3], (0,)) == 3


@pytest.mark.parametrize(
    ("run", "line"),
    [
        ("clients-10-iid", "| attack+fed-inspect | 3 of 10 | 100 % | 5 | 16 | 0 of 280 |"),
        ("clients-10-0.1", "| clean+fed-inspect | 0 of 10 |  |  |  | 0 of 400 |"),
    ],
)
def test_recorded_runs(run: str, line: str) -> None:
    assert line in list(table(read(KEPT / run)))
