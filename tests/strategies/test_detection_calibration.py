"""The closed-form forest and its thresholds."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from sklearn.tree import ExtraTreeRegressor

from fedsec.defences.isolation import NULLS, SPREAD, _depth, isolate, thresholds
from fedsec.seeds import stream


def test_depth_counts_the_cuts_of_a_forest_of_full_trees() -> None:
    """Against 1,500 random trees: the cuts on the path that have the point on their upper side."""
    values = np.array([0.0, 0.3, 0.5, 1.4, 3.0])
    cuts = []
    for seed in range(1500):
        tree = ExtraTreeRegressor(max_features=1, random_state=seed).fit(values[:, None], stream(seed, "y").random(5))
        path = tree.decision_path(values[-1:, None]).indices
        split = tree.tree_.threshold[path][tree.tree_.feature[path] >= 0]
        cuts.append((split < values[-1]).sum())
    gaps, away = np.diff(values), values[-1] - values[:-1]
    assert (gaps / away).sum() == pytest.approx(np.mean(cuts), abs=0.07)


def test_depth_of_a_lone_point_is_near_one_and_falls_with_distance() -> None:
    rows = np.array([[-1.0, 0.0, 1.0, far] for far in (2.0, 4.0, 20.0, 2000.0)])
    depth = _depth(rows, 1, 1.0)
    assert (np.diff(depth) < 0).all()
    assert depth[0] > 2
    assert (depth >= 1).all()


@pytest.mark.parametrize("n", [4, 6, 10, 30, 100])
@pytest.mark.parametrize("null", sorted(NULLS))
def test_fresh_draws_keep_the_rate(n: int, null: str) -> None:
    draws = NULLS[null](stream(1, "fresh", n, null), (4000 // n + 100, n)) * SPREAD
    flagged = np.mean([isolate(row, 0.01).flagged for row in draws])
    assert flagged <= 0.02


@pytest.mark.parametrize("n", [4, 10, 30, 100])
def test_right_skewed_honest_losses_are_the_known_limit(n: int) -> None:
    draws = (stream(1, "skewed", n).standard_exponential((4000 // n + 100, n)) - 1) * SPREAD
    assert np.mean([isolate(row, 0.01).flagged for row in draws]) <= 0.05


@pytest.mark.parametrize("n", [4, 10])
def test_thresholds_loosen_with_the_rate_and_come_out_the_same_twice(n: int) -> None:
    strict, usual, loose = (thresholds(n, rate).depth for rate in (0.001, 0.01, 0.1))
    assert (strict <= usual).all()
    assert (usual <= loose).all()
    assert (strict < loose).any()
    thresholds.cache_clear()
    assert np.array_equal(thresholds(n, 0.01).depth, usual)


@pytest.mark.parametrize(("n", "colluders"), [(10, 3), (10, 4), (30, 9)])
def test_colluders_do_not_mask_each_other(n: int, colluders: int) -> None:
    values = stream(0, "colluders", n).standard_normal(n) * SPREAD
    values[:colluders] += 10 * SPREAD
    result = isolate(values, 0.01)
    assert all(result.flagged[:colluders])
    assert not any(result.flagged[colluders:])


def values(n: int) -> npt.NDArray[np.float64]:
    drawn: npt.NDArray[np.float64] = stream(0, "values", n).standard_normal(n) * SPREAD
    drawn[0] += 8 * SPREAD
    return drawn


@pytest.mark.parametrize("n", [4, 5, 11, 40])
def test_isolation_is_monotone_shift_free_and_blind_to_order(n: int) -> None:
    plain = isolate(values(n), 0.01)
    order = stream(1, "order", n).permutation(n)
    assert plain.flagged[0]
    ranked = np.array(plain.margin)[np.argsort(values(n))]
    assert (np.diff(ranked) >= 0).all(), "a higher loss is never less suspicious"
    moved = isolate(values(n) + 3.0, 0.01)
    assert moved.margin == pytest.approx(plain.margin)
    shuffled = isolate(values(n)[order], 0.01)
    assert shuffled.margin == tuple(plain.margin[i] for i in order)


@pytest.mark.parametrize("n", [0, 1, 3, 4, 9, 10, 100])
def test_equal_values_flag_nobody(n: int) -> None:
    assert not any(isolate(np.full(n, 0.3), 0.2).flagged)


def test_ties_at_the_top_never_pass_the_gate() -> None:
    assert not any(isolate(np.array([0.0, 0.01, 1.0, 1.0]), 0.01).flagged)
