from __future__ import annotations

import math

import numpy as np
import pytest
import sklearn

from fedsec.errors import MetricError
from fedsec.metrics.coverage import (
    covered_share,
    precision,
    precision_share,
    recall,
    recall_share,
    relative_spread,
    spread,
)
from fedsec.types import Features, Images
from tests.metrics.samples import gaussian


def by_definition(points: Features, centres: Features, k: int) -> float:
    """Kynkäänniemi et al. 2019, eq. 1, pair by pair."""
    inside = 0
    for point in points:
        for i, centre in enumerate(centres):
            others = np.sort(np.linalg.norm(np.delete(centres, i, axis=0) - centre, axis=1))
            if np.linalg.norm(point - centre) <= others[k - 1]:
                inside += 1
                break
    return inside / len(points)


@pytest.mark.parametrize("k", [1, 3, 5])
def test_is_the_share_within_some_ball(k: int) -> None:
    points, centres = gaussian(40, 3, "p", shift=0.8), gaussian(30, 3, "c")
    assert covered_share(points, centres, k) == by_definition(points, centres, k)


def test_precision_of_a_real_subset_is_one() -> None:
    real = gaussian(100, 20)
    assert precision(real, real[::3]).value == 1.0
    far = real + 1e4
    assert precision(far, far[::3]).value == 1.0


def test_recall_of_a_collapsed_generator_is_nearly_zero() -> None:
    real = gaussian(100, 20)
    collapsed = np.repeat(real[:1], 50, axis=0)
    assert recall(real, collapsed).value <= 1 / 100
    assert recall(real, np.zeros((50, 20))).value == 0.0


def test_recall_counts_the_modes_a_generator_has() -> None:
    modes = np.concatenate([gaussian(50, 4, i, shift=100.0 * i) for i in range(4)])
    half = np.concatenate([gaussian(80, 4, "g", i, shift=100.0 * i) for i in range(2)])
    assert 0.3 < recall(modes, half).value <= 0.5
    assert precision(modes, half).value > 0.8


def test_blocks_change_the_memory_and_not_the_answer() -> None:
    points, centres = gaussian(300, 5, "p"), gaussian(400, 5, "c")
    whole = covered_share(points, centres)
    with sklearn.config_context(working_memory=0.05):
        assert covered_share(points, centres) == whole


def test_k_rows_have_no_k_th_neighbour() -> None:
    with pytest.raises(MetricError, match="3 real images: needs at least 4"):
        precision_share(gaussian(3, 5), gaussian(9, 5))
    with pytest.raises(MetricError, match="3 generated images: needs at least 4"):
        recall_share(gaussian(9, 5), gaussian(3, 5))


def images(n: int, deviation: float) -> Images:
    rng = np.random.default_rng(0)
    return rng.normal(0, deviation, (n, 1, 8, 8)).astype(np.float32)


def test_spread_is_the_deviation_within_classes() -> None:
    labels = np.repeat(np.arange(2), 400)
    apart = images(800, 0.2) + labels[:, None, None, None].astype(np.float32)
    assert spread(apart, labels) == pytest.approx(0.2, rel=0.02)


def test_spread_of_an_ignored_latent_is_zero() -> None:
    labels = np.repeat(np.arange(2), 5)
    same = np.repeat(images(2, 1.0), 5, axis=0)
    assert spread(same, labels) == 0
    assert relative_spread(images(10, 0.5), labels, same, labels).value == 0


def test_relative_spread_is_one_for_the_real_images_and_follows_the_scale() -> None:
    labels, real = np.arange(100) % 2, images(100, 0.4)
    assert relative_spread(real, labels, real, labels).value == pytest.approx(1)
    assert relative_spread(real, labels, real * np.float32(0.5), labels).value == pytest.approx(0.5)
    order = np.random.default_rng(1).permutation(100)
    assert relative_spread(real, labels, real[order], labels[order]).value == pytest.approx(1)


def test_relative_spread_compares_the_classes_both_have() -> None:
    labels = np.repeat(np.arange(2), 50)
    real = images(100, 0.4) * (1 + labels[:, None, None, None].astype(np.float32))
    score = relative_spread(real, labels, real[:50], labels[:50])
    assert score.value == pytest.approx(1)
    assert score.n == 50


def test_spread_that_cannot_be_had_is_nan_with_the_reason() -> None:
    labels = np.zeros(4, np.int64)
    broken = images(4, 1.0)
    broken[0, 0, 0, 0] = np.nan
    for fake, theirs, reason in (
        (broken, labels, "diverged"),
        (images(1, 1.0), labels[:1], "at least two of one class"),
        (images(4, 1.0), labels + 1, "at least two of one class"),
    ):
        score = relative_spread(images(4, 1.0), labels, fake, theirs)
        assert math.isnan(score.value)
        assert reason in score.reason
    flat = relative_spread(np.zeros((4, 1, 8, 8), np.float32), labels, images(4, 1.0), labels)
    assert "nothing to compare with" in flat.reason
