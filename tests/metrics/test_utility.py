from __future__ import annotations

import math

import numpy as np
import pytest

from fedsec.metrics.utility import _first_of_each, auc, classified, utility_curve
from fedsec.types import Rows
from tests.metrics.samples import lesions

TRAIN, TEST = lesions(80, "train"), lesions(100, "test")


def test_names_say_what_was_trained_on() -> None:
    alone = utility_curve(TRAIN, TEST, None, (2, 3), classes=2, seed=0, steps=1)
    mixed = utility_curve(TRAIN, TEST, TRAIN, (2,), classes=2, seed=0, steps=1)
    assert [score.name for score in alone] == ["real-auc-2", "real-auc-3"]
    assert [score.name for score in mixed] == ["utility-auc-2"]
    assert all(score.better == "higher" and score.n == 100 and 0 <= score.value <= 1 for score in alone + mixed)


def test_same_seed_same_scores() -> None:
    one, two = (utility_curve(TRAIN, TEST, TRAIN, (4,), classes=2, seed=3, steps=3) for _ in range(2))
    assert one == two


def test_good_synthetic_images_help_and_mislabelled_ones_harm() -> None:
    more = lesions(400, "more")
    swapped = Rows(more.pixels, 1 - more.labels)
    values = [
        utility_curve(TRAIN, TEST, synthetic, (3,), classes=2, seed=0, steps=40)[0].value
        for synthetic in (swapped, None, more)
    ]
    assert values == sorted(values)
    assert values[2] - values[0] > 0.1


def test_sizes_are_nested_and_balanced() -> None:
    small, large = (_first_of_each(TRAIN, n, 2, seed=5) for n in (3, 9))
    known = {image.tobytes() for image in large.pixels}
    assert {image.tobytes() for image in small.pixels} < known
    np.testing.assert_array_equal(np.bincount(large.labels), [9, 9])


def test_what_cannot_be_had_is_nan_with_the_reason() -> None:
    ones = TEST.take(np.flatnonzero(TEST.labels == 1))
    for test, synthetic, n, reason in (
        (TEST, None, 41, "41 real images a class: class 0 has 40"),
        (TEST, None, 0, "0 real images a class"),
        (ones, None, 2, "the test images lack"),
        (TEST, ones, 2, "the synthetic images lack"),
    ):
        (score,) = utility_curve(TRAIN, test, synthetic, (n,), classes=2, seed=0, steps=1)
        assert math.isnan(score.value)
        assert reason in score.reason


def test_auc_of_two_and_of_more_classes() -> None:
    labels = np.array([0, 0, 1, 1])
    shares = np.array([[0.9, 0.1], [0.4, 0.6], [0.5, 0.5], [0.1, 0.9]])
    assert auc(labels, shares) == 0.75
    assert auc(np.arange(3), np.eye(3)) == 1
    assert auc(np.arange(3), np.full((3, 3), 1 / 3)) == pytest.approx(0.5)


def test_answers_that_are_not_finite_are_no_scores() -> None:
    shares = np.array([[0.3, 0.7], [math.nan, math.nan]])
    found = classified(np.array([1, 0]), shares)
    assert [score.name for score in found] == ["auc", "accuracy", "balanced-accuracy"]
    assert all(math.isnan(score.value) and "not finite" in score.reason for score in found)
