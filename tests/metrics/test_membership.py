"""What a membership curve must say, on scores whose curve is known."""

from __future__ import annotations

import numpy as np
import pytest

from fedsec.errors import MetricError
from fedsec.metrics.membership import membership, pooled
from fedsec.seeds import stream

N_IN, N_OUT = 500, 1000
MEMBER = np.arange(N_IN + N_OUT) < N_IN
GROUPS = np.arange(N_IN + N_OUT)


def scores(shift: float) -> np.ndarray:
    return np.asarray(stream(0, "scores").normal(0, 1, len(MEMBER)) + shift * MEMBER)


def test_perfect_scores_catch_everybody_and_chance_nobody_more_than_it_should() -> None:
    perfect = membership(MEMBER.astype(float), MEMBER, GROUPS)
    assert (perfect.auc, perfect.balanced) == (1, 1)
    assert [one.value for one in perfect.caught] == [1, 1]
    assert (perfect.members, perfect.strangers) == (N_IN, N_OUT)
    chance = membership(scores(0), MEMBER, GROUPS)
    assert 0.46 < chance.auc < 0.54
    assert 0.5 <= chance.balanced < 0.55
    assert chance.caught[0].low < 0.01 < chance.caught[0].high


def test_a_rising_function_changes_nothing_and_a_falling_one_turns_the_auc() -> None:
    plain = membership(scores(1), MEMBER, GROUPS)
    assert membership(np.exp(scores(1)), MEMBER, GROUPS) == plain
    assert membership(-scores(1), MEMBER, GROUPS).auc == pytest.approx(1 - plain.auc)


def test_the_rate_is_the_largest_within_the_law() -> None:
    """Ten strangers stand above all but 40 members: at 1 % of 1000 all 40 and those beside them are caught."""
    values = np.where(MEMBER, 0.0, -1.0)
    values[:40], values[N_IN : N_IN + 10] = 2.0, 1.0
    values[40:N_IN] = 0.5
    found = membership(values, MEMBER, GROUPS)
    assert [one.value for one in found.caught] == [1.0, 40 / N_IN]
    assert found.caught[1].low < 40 / N_IN < found.caught[1].high


def test_the_interval_is_clopper_and_pearsons_and_says_something_of_nobody_caught() -> None:
    values = np.where(MEMBER, 0.0, 1.0)
    caught = membership(values, MEMBER, GROUPS).caught[0]
    assert (caught.value, caught.low) == (0, 0)
    assert caught.high == pytest.approx(1 - 0.025 ** (1 / N_IN))


def test_too_few_strangers_are_out_of_reach_not_zero() -> None:
    keep = np.arange(len(MEMBER)) < N_IN + 999
    found = membership(scores(3)[keep], MEMBER[keep], GROUPS[keep])
    one, tenth = found.caught
    assert one.value > 0.5
    assert np.isnan([tenth.value, tenth.low, tenth.high]).all()
    assert tenth.reason == "999 strangers: an FPR of 0.1 % needs at least 1000"
    rows = {score.name: score for score in found.scores("loss")}
    assert np.isnan(rows["membership-loss-tpr@0.1%"].value)
    assert rows["membership-loss-tpr@0.1%"].reason == tenth.reason
    assert rows["membership-loss-tpr@1%"].value == one.value
    assert rows["membership-loss-auc"].n == N_IN + 999


def test_equal_scores_are_caught_together_or_not_at_all() -> None:
    found = membership(np.zeros(len(MEMBER)), MEMBER, GROUPS)
    assert (found.auc, found.balanced) == (0.5, 0.5)
    assert [one.value for one in found.caught] == [0, 0]


def test_a_patient_on_both_sides_is_refused_and_so_is_what_no_curve_can_be_drawn_of() -> None:
    shared = GROUPS.copy()
    shared[0] = shared[-1]
    with pytest.raises(MetricError, match="1 patients or lesions have images on both sides"):
        membership(scores(0), MEMBER, shared)
    with pytest.raises(MetricError, match="both sides need at least one"):
        membership(scores(0), np.ones_like(MEMBER), GROUPS)
    with pytest.raises(MetricError, match="one each an image"):
        membership(scores(0)[1:], MEMBER, GROUPS)
    broken = scores(0)
    broken[3] = np.nan
    with pytest.raises(MetricError, match="not finite"):
        membership(broken, MEMBER, GROUPS)


def test_pooling_targets_keeps_their_patients_apart() -> None:
    """Member of one target, stranger to the other: no clash, and twice the strangers."""
    few = np.arange(len(MEMBER)) % 2 == 0
    parts = [(scores(1)[few], MEMBER[few], GROUPS[few]), (scores(1)[few][::-1].copy(), MEMBER[few], GROUPS[few][::-1])]
    found = membership(*pooled(parts))
    assert (found.members, found.strangers) == (N_IN, N_OUT)
    assert np.isnan(membership(*parts[0]).caught[1].value)
    assert not np.isnan(found.caught[1].value)
    clash = GROUPS[few].copy()
    clash[0] = clash[-1]
    with pytest.raises(MetricError, match="both sides"):
        membership(*pooled([parts[0], (parts[1][0], MEMBER[few], clash)]))
