from __future__ import annotations

import json
import math

import numpy as np
import pytest
from scipy import stats

from fedsec.metrics.intervals import by_seed, mean_interval, paired_difference, paired_ratio, summarise
from fedsec.types import Score


def test_agrees_with_scipy() -> None:
    values = [1.0, 2.5, 2.0, 4.0]
    low, high = stats.t.interval(0.95, 3, np.mean(values), stats.sem(values))
    found = mean_interval(values)
    assert (found.mean, found.low, found.high) == pytest.approx((np.mean(values), low, high))


def test_covers_the_truth_in_95_percent_of_draws() -> None:
    rng = np.random.default_rng(0)
    found = [mean_interval(list(rng.normal(5, 2, 3))) for _ in range(1000)]
    assert 0.93 < np.mean([i.low <= 5 <= i.high for i in found]) < 0.97


def test_moves_with_shift_and_scale() -> None:
    plain, moved = mean_interval([1, 2, 4]), mean_interval([13, 23, 43])
    assert (moved.low, moved.high) == pytest.approx((3 + 10 * plain.low, 3 + 10 * plain.high))


def test_equal_values_have_no_width() -> None:
    found = mean_interval([0.5, 0.5, 0.5])
    assert (found.low, found.mean, found.high) == (0.5, 0.5, 0.5)


def test_what_shares_a_model_counts_once_a_seed() -> None:
    """18 sites of three seeds, whose models differ more than their sites do: 2 degrees of freedom, not 17."""
    rng = np.random.default_rng(0)
    covered, pooled = [], []
    for _ in range(1000):
        models = rng.normal(5, 2, 3)
        sites = [list(rng.normal(model, 0.5, 6)) for model in models]
        found, flat = by_seed(sites), mean_interval([value for seed in sites for value in seed])
        covered.append(found.low <= 5 <= found.high)
        pooled.append(flat.low <= 5 <= flat.high)
        assert found.mean == pytest.approx(flat.mean)
    assert 0.93 < np.mean(covered) < 0.97
    assert np.mean(pooled) < 0.7


def test_a_seed_without_a_value_is_counted_and_one_seed_has_no_interval() -> None:
    found = by_seed([[1.0, math.nan], [math.nan], [3.0, 5.0]], ["diverged"])
    assert found.values[0] == 1.0
    assert math.isnan(found.values[1])
    assert (found.mean, found.missing, found.reasons) == (2.5, 1, ("diverged",))
    assert math.isnan(by_seed([[1.0, 2.0, 3.0]]).low)


def test_one_seed_has_no_interval() -> None:
    assert mean_interval([2.0]).to_json() == {"mean": 2.0, "ci95": [None, None], "values": [2.0]}


def test_no_value_has_no_mean() -> None:
    assert mean_interval([]).to_json() == {"mean": None, "ci95": [None, None], "values": []}


def test_missing_values_are_shown_with_their_reasons() -> None:
    scores = [
        Score("kid", 1.0, 9, "lower"),
        Score("kid", math.nan, 9, "lower", "the model diverged"),
        Score("kid", 3.0, 9, "lower"),
    ]
    row = summarise(scores).to_json()
    assert row["mean"] == 2.0
    assert row["values"] == [1.0, None, 3.0]
    assert (row["missing"], row["reasons"]) == (1, ["the model diverged"])
    assert json.loads(json.dumps(row, allow_nan=False)) == row


def test_summarises_one_score_only() -> None:
    with pytest.raises(AssertionError):
        summarise([Score("kid", 1.0, 9, "lower"), Score("fid", 1.0, 9, "lower")])


def test_pairing_takes_out_what_the_seeds_share() -> None:
    theirs = [10.0, 20.0, 30.0]
    ours = [11.0, 21.1, 30.9]
    paired = paired_difference(ours, theirs)
    assert paired.mean == pytest.approx(1.0)
    assert paired.high - paired.low < 0.6
    assert mean_interval(ours).high - mean_interval(ours).low > 10


def test_an_arm_against_itself() -> None:
    values = [1.0, 2.0, 5.0]
    same = paired_difference(values, values)
    assert (same.low, same.mean, same.high) == (0, 0, 0)
    ratio = paired_ratio(values, values)
    assert (ratio.low, ratio.mean, ratio.high) == (1, 1, 1)


def test_a_ratio_is_geometric_and_turns_over() -> None:
    up, down = paired_ratio([2.0, 8.0], [1.0, 1.0]), paired_ratio([1.0, 1.0], [2.0, 8.0])
    assert up.mean == pytest.approx(4)
    assert (1 / down.high, 1 / down.low) == pytest.approx((up.low, up.high))


@pytest.mark.parametrize("absent", [math.nan, 0.0, -1.0])
def test_a_pair_without_ratio_is_counted(absent: float) -> None:
    found = paired_ratio([2.0, absent, 2.0], [1.0, 1.0, 1.0])
    assert found.mean == pytest.approx(2)
    assert found.missing == 1
    assert found.reasons == ("a ratio needs two positive values",)


def test_a_pair_with_a_missing_value_is_counted() -> None:
    found = paired_difference([1.0, math.nan, 4.0], [0.0, 0.0, 1.0])
    assert (found.mean, found.missing) == (2.0, 1)
    assert found.reasons


def test_arms_must_have_the_same_seeds() -> None:
    with pytest.raises(ValueError, match="zip"):
        paired_difference([1.0], [1.0, 2.0])
