"""GAN-test: 1 for images that show their label, a half for labels that mean nothing, 0 for swapped ones."""

from __future__ import annotations

import math

import numpy as np
import pytest

from fedsec.metrics.conditioning import gan_test
from fedsec.seeds import stream
from fedsec.types import Features, Labels


def clusters(seed: int, classes: int, count: int = 300) -> tuple[Features, Labels]:
    rng = stream(seed, "clusters")
    labels = rng.integers(0, classes, count)
    centres = 4 * np.eye(8)[:classes]
    return centres[labels] + rng.standard_normal((count, 8)), labels


@pytest.mark.parametrize("classes", [2, 3])
def test_labels_that_hold_score_one_and_shuffled_ones_a_half(classes: int) -> None:
    real, real_labels = clusters(0, classes)
    drawn, labels = clusters(1, classes)
    assert gan_test(real, real_labels, drawn, labels).value > 0.97
    shuffled = stream(2, "shuffle").permutation(labels)
    assert gan_test(real, real_labels, drawn, shuffled).value == pytest.approx(0.5, abs=0.08)


def test_swapped_labels_score_below_a_half() -> None:
    real, real_labels = clusters(0, 2)
    drawn, labels = clusters(1, 2)
    assert gan_test(real, real_labels, drawn, 1 - labels).value < 0.03


def test_what_cannot_be_judged_says_why() -> None:
    real, labels = clusters(0, 2)
    broken = real.copy()
    broken[3, 1] = np.nan
    for drawn, its, told in ((broken, labels, "not finite|non-finite"), (real, np.zeros_like(labels), "lack a class")):
        score = gan_test(real, labels, drawn, its)
        assert math.isnan(score.value)
        assert any(word in score.reason for word in told.split("|"))
