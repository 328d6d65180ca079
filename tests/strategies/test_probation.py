"""Updates count in the released model only once they have been judged."""

from __future__ import annotations

import numpy as np
import pytest

from fedsec.defences.probation import MOST, ROUNDS, Probation, Reply, counting, moved, rounds_of, without


def replies(*updates: float) -> dict[int, Reply]:
    """One number a client, all of equal share."""
    return {i: Reply(np.array([update]), 1 / len(updates)) for i, update in enumerate(updates)}


def test_without_suspects_the_model_is_the_plain_average_and_the_released_one_is_behind() -> None:
    state = Probation(np.zeros(1), 2)
    for _ in range(5):
        state = state.after(replies(1.0, 3.0), ())
    assert state.model == pytest.approx([10.0])
    assert state.settled == pytest.approx([6.0])
    assert len(state.pending) == 2
    plain = Probation(np.zeros(1), 0).after(replies(1.0, 3.0), ())
    assert plain.settled == plain.model == pytest.approx([2.0])


def test_who_is_flagged_loses_all_that_is_pending_and_nothing_that_is_settled_and_comes_back() -> None:
    state = Probation(np.zeros(1), 3)
    for _ in range(4):
        state = state.after(replies(0.0, 0.0, 9.0), ())
    assert state.settled == pytest.approx([3.0])
    assert state.undone({2}) == {2: 3}
    state = state.after(replies(0.0, 0.0, 9.0), {2})
    assert state.settled == state.model == pytest.approx([3.0]), "four rounds undone, one had been settled"
    assert state.undone({2}) == {}, "taken out once"
    later = state.after(replies(0.0, 0.0, 9.0), ())
    assert later.model == pytest.approx([6.0]), "a later round counts again"


def test_what_was_taken_out_stays_out_when_its_client_is_flagged_no_more() -> None:
    state = Probation(np.zeros(1), 3).after(replies(0.0, 0.0, 9.0), ())
    caught = state.after(replies(0.0, 0.0, 0.0), {2})
    assert caught.model == pytest.approx([0.0])
    assert caught.after(replies(0.0, 0.0, 0.0), ()).model == caught.model


def test_shares_go_to_the_others_in_proportion_up_to_a_cap_and_to_nobody_where_there_are_none() -> None:
    row = {0: Reply(np.ones(1), 0.5), 1: Reply(np.ones(1), 0.3), 2: Reply(np.ones(1), 0.1)}
    assert counting(without(row, {0})) == pytest.approx({0: 0, 1: MOST / 3, 2: 0.225})
    assert sum(counting(row).values()) == pytest.approx(0.9), "as before"
    nobody = without(row, {*row})
    assert set(counting(nobody).values()) == {0.0}
    assert moved(nobody) == pytest.approx([0.0])
    alone = {i: Reply(np.full(1, 8.0), 0.125, i == 0) for i in range(8)}
    assert moved(alone) == pytest.approx([2.0]), "one of eight is a quarter of the round, not all of it"


def test_what_comes_in_the_last_rounds_is_not_released() -> None:
    honest = Probation(np.zeros(1), ROUNDS)
    for _ in range(10):
        honest = honest.after(replies(1.0, 1.0), ())
    attacked = honest
    for _ in range(ROUNDS):
        honest, attacked = honest.after(replies(1.0, 1.0), ()), attacked.after(replies(1e6, 1.0), ())
    assert attacked.settled == honest.settled
    assert attacked.model > honest.model


def test_short_runs_have_fewer_rounds_on_probation() -> None:
    assert [rounds_of(total) for total in (1, 3, 4, 8, 20, 100)] == [0, 0, 1, 2, 5, 5]
