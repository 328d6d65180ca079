"""Identification is certain for copies, at chance for what knows nothing, and says when a gallery is too small."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import binom
from torch import nn

from fedsec.errors import MetricError
from fedsec.images import to_images
from fedsec.metrics.features import Extractor
from fedsec.metrics.iip import OTHERS, Embedding, iip, named, pixels
from fedsec.seeds import stream
from fedsec.types import Features, Images, Labels
from tests.metrics.samples import lesions

GALLERY = lesions(2 * (OTHERS + 1), "gallery", channels=1)
IMAGES, LABELS = to_images(GALLERY.pixels), GALLERY.labels


def network() -> Extractor:
    """A second embedding: an untrained convolution, pooled."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Conv2d(1, 32, 5, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(4), nn.Flatten())
    return Extractor("frechet-domain", net.eval(), np.zeros(()), np.ones(()), 256)


def constant(images: Images) -> Features:
    return np.ones((len(images), 3))


EMBEDDINGS: dict[str, Embedding] = {"pixels": pixels, "network": network()}


@pytest.mark.parametrize("name", EMBEDDINGS)
def test_copies_are_all_identified(name: str) -> None:
    sources = np.arange(40)[::-1].copy()
    result = iip(IMAGES[sources], IMAGES, LABELS, sources, EMBEDDINGS[name])
    assert (result.value, result.n) == (1, 40)
    assert result.chance == pytest.approx(1 / (OTHERS + 1))
    assert (result.ranks == 1).all()


@pytest.mark.parametrize("name", EMBEDDINGS)
def test_random_images_are_at_chance(name: str) -> None:
    """Sources are drawn without a look at the images, so hits are binomial with p = chance whatever the embedding."""
    n, rng = 1000, stream(0, "random", name)
    guesses = rng.uniform(-1, 1, (n, 1, 32, 32)).astype(np.float32)
    result = iip(guesses, IMAGES, LABELS, rng.integers(0, len(IMAGES), n), EMBEDDINGS[name])
    low, high = binom.ppf([0.0005, 0.9995], n, result.chance)
    assert low <= result.value * n <= high
    assert abs(result.ranks.mean() - (OTHERS + 2) / 2) < 4 * OTHERS / np.sqrt(12 * n)


@pytest.mark.parametrize("name", EMBEDDINGS)
def test_other_peoples_images_are_at_chance(name: str) -> None:
    n, rng = 400, stream(0, "others", name)
    guesses = to_images(lesions(n, "strangers", channels=1).pixels)
    result = iip(guesses, IMAGES, LABELS, rng.integers(0, len(IMAGES), n), EMBEDDINGS[name])
    assert result.value * n <= binom.ppf(0.999, n, result.chance)


@pytest.mark.parametrize("name", EMBEDDINGS)
def test_damage_lowers_the_value(name: str) -> None:
    sources, rng = np.arange(60), stream(0, "damage")
    error = rng.normal(size=(60, 1, 32, 32)).astype(np.float32)
    values = [
        iip(np.clip(IMAGES[:60] + level * error, -1, 1), IMAGES, LABELS, sources, EMBEDDINGS[name]).value
        for level in (np.float32(0.02), np.float32(20))
    ]
    assert values[0] > 0.5 > values[1]


def test_only_images_of_the_same_label_are_searched() -> None:
    """A copy of the source stands under the other label too, and does not take its place."""
    labels: Labels = np.repeat(np.arange(2, dtype=np.int64), OTHERS + 1)
    twice = np.concatenate([IMAGES[: OTHERS + 1]] * 2)
    result = iip(twice[[5, OTHERS + 9]], twice, labels, np.array([5, OTHERS + 9]), pixels)
    assert result.value == 1


def test_chance_is_the_mean_over_galleries_of_unequal_size() -> None:
    labels: Labels = (np.arange(len(IMAGES) + 100) >= OTHERS + 1).astype(np.int64)
    images = np.concatenate([IMAGES, to_images(lesions(100, "more", channels=1).pixels)])
    result = iip(images[[0, 300]], images, labels, np.array([0, 300]), pixels)
    assert result.chance == pytest.approx((1 / 201 + 1 / 301) / 2)


def test_equally_near_images_share_the_hit() -> None:
    images = IMAGES.copy()
    images[[2, 4]] = images[0]
    result = iip(images[:1], images, LABELS, np.array([2]), pixels)
    assert result.value == pytest.approx(1 / 3)
    assert result.ranks[0] == 2


def test_a_blind_embedding_is_exactly_at_chance() -> None:
    result = iip(IMAGES[:7], IMAGES, LABELS, np.arange(7), constant)
    assert result.value == pytest.approx(result.chance)
    flat = np.zeros((7, 1, 32, 32), np.float32)
    assert iip(flat, IMAGES, LABELS, np.arange(7), pixels).value == pytest.approx(result.chance)


def test_the_rank_counts_who_is_nearer() -> None:
    result = iip(IMAGES[[0]], IMAGES, LABELS, np.array([6]), pixels)
    mine = pixels(IMAGES[LABELS == 0])
    cosines = np.array([np.corrcoef(mine[0], row)[0, 1] for row in mine])
    assert result.ranks[0] == 1 + (cosines > cosines[3]).sum()
    assert result.value == 0


def test_pixels_see_neither_brightness_nor_contrast() -> None:
    sources = np.arange(30)
    dull = (IMAGES[:30] * np.float32(0.3) + np.float32(0.4)).astype(np.float32)
    assert iip(dull, IMAGES, LABELS, sources, pixels).value == 1


def test_says_what_is_wrong() -> None:
    few: Labels = np.concatenate([LABELS[:-2], [7, 7]])
    with pytest.raises(MetricError, match="199 other images of label 1, IIP needs at least 200"):
        iip(IMAGES[:1], IMAGES, few, np.array([1]), pixels)
    with pytest.raises(MetricError, match="2 reconstructions with 1 sources"):
        iip(IMAGES[:2], IMAGES, LABELS, np.array([1]), pixels)
    with pytest.raises(MetricError, match="0 reconstructions"):
        iip(IMAGES[:0], IMAGES, LABELS, np.arange(0), pixels)
    with pytest.raises(MetricError, match=r"the gallery has rows 0 \.\. 401"):
        iip(IMAGES[:1], IMAGES, LABELS, np.array([402]), pixels)
    broken = IMAGES[:2].copy()
    broken[1, 0, 0, 0] = np.nan
    with pytest.raises(MetricError, match="1 of 2 reconstructed images have non-finite features"):
        iip(broken, IMAGES, LABELS, np.arange(2), EMBEDDINGS["network"])


def test_named_needs_no_order_and_no_label() -> None:
    rng = np.random.default_rng(0)
    gallery = rng.uniform(-1, 1, (50, 1, 8, 8)).astype(np.float32)
    sources = np.array([3, 4, 5])
    assert named(gallery[[5, 3, 4]], gallery, sources, pixels) == 1
    assert named(gallery[[5, 5, 20]], gallery, sources, pixels) == pytest.approx(1 / 3)
    assert named(np.zeros_like(gallery[:3]), gallery, np.array([0, 1, 2]), pixels) == 0, "a blank image names nobody"
    with pytest.raises(MetricError, match="no reconstruction"):
        named(gallery[:0], gallery, sources, pixels)
