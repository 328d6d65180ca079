"""Laws of every score that compares real with generated features."""

from __future__ import annotations

import math

import numpy as np
import pytest

from fedsec.metrics.fidelity import FIDELITY, fidelity_scores
from fedsec.types import Features
from tests.metrics.samples import gaussian

every_score = pytest.mark.parametrize("name", FIDELITY)
NEUTRAL = {"fid": 0.0, "frechet-domain": 0.0, "kid": 0.0, "precision": 1.0, "recall": 1.0}
"""What a perfect generator gets."""


def value(name: str, real: Features, fake: Features) -> float:
    return FIDELITY[name](real, fake).value


def test_every_score_has_a_neutral_value() -> None:
    assert NEUTRAL.keys() == FIDELITY.keys()


@every_score
def test_is_named_as_in_the_table_and_counts_the_smaller_sample(name: str) -> None:
    score = FIDELITY[name](gaussian(40, 6), gaussian(30, 6))
    assert (score.name, score.n, score.reason) == (name, 30, "")
    assert score.better == ("higher" if name in ("precision", "recall") else "lower")


@every_score
def test_does_not_depend_on_the_order_of_images(name: str) -> None:
    real, fake = gaussian(60, 8), gaussian(50, 8, shift=0.3)
    order = np.random.default_rng(0)
    mixed = value(name, order.permutation(real), order.permutation(fake))
    assert mixed == pytest.approx(value(name, real, fake), rel=1e-9, abs=1e-12)


@every_score
def test_does_not_write_to_its_input(name: str) -> None:
    real, fake = gaussian(30, 5), gaussian(30, 5, "b")
    before = real.copy(), fake.copy()
    value(name, real, fake)
    np.testing.assert_array_equal(before[0], real)
    np.testing.assert_array_equal(before[1], fake)


@every_score
def test_is_near_its_best_on_two_halves_of_one_distribution(name: str) -> None:
    both = gaussian(2000, 4)
    assert value(name, both[:1000], both[1000:]) == pytest.approx(NEUTRAL[name], abs=0.08)


@every_score
def test_tells_another_distribution(name: str) -> None:
    real = gaussian(400, 4)
    near, far = (abs(value(name, real, gaussian(400, 4, "b", shift=s)) - NEUTRAL[name]) for s in (0.0, 3.0))
    assert far > 0.3
    assert far > 5 * near


@every_score
@pytest.mark.parametrize("broken", [math.nan, math.inf])
@pytest.mark.parametrize("side", ["real", "generated"])
def test_non_finite_features_give_nan_with_the_reason(name: str, broken: float, side: str) -> None:
    real, fake = gaussian(30, 5), gaussian(30, 5, "b")
    (real if side == "real" else fake)[3, 2] = broken
    score = FIDELITY[name](real, fake)
    assert math.isnan(score.value)
    assert f"1 of 30 {side} images have non-finite features" in score.reason


@every_score
def test_too_few_images_give_nan_with_the_reason(name: str) -> None:
    score = FIDELITY[name](gaussian(1, 5), gaussian(30, 5))
    assert math.isnan(score.value)
    assert "1 real images: needs at least" in score.reason
    assert math.isnan(FIDELITY[name](gaussian(30, 5), gaussian(0, 5)).value)


@every_score
def test_features_of_two_extractors_give_nan_with_the_reason(name: str) -> None:
    score = FIDELITY[name](gaussian(30, 5), gaussian(30, 6))
    assert math.isnan(score.value)
    assert "use one extractor" in score.reason


@every_score
def test_a_collapsed_generator_is_far_from_its_best(name: str) -> None:
    real = gaussian(200, 6)
    collapsed = np.repeat(real[:1], 200, axis=0)
    if name == "precision":
        assert value(name, real, collapsed) == 1.0
    else:
        assert abs(value(name, real, collapsed) - NEUTRAL[name]) > 0.3


@every_score
def test_float32_features_are_measured_in_float64(name: str) -> None:
    real, fake = gaussian(50, 5) + 10, gaussian(50, 5, "b") + 10
    coarse = value(name, real.astype(np.float32), fake.astype(np.float32))
    fine = value(name, real.astype(np.float32).astype(np.float64), fake.astype(np.float32).astype(np.float64))
    assert coarse == pytest.approx(fine, rel=1e-6, abs=1e-6)


@pytest.mark.parametrize("extractor", ["fid", "frechet-domain"])
def test_scores_of_one_extractor_carry_its_name(extractor: str) -> None:
    names = [score.name for score in fidelity_scores(extractor, gaussian(30, 5), gaussian(30, 5, "b"))]
    assert names == [extractor, "kid", "precision", "recall"]
