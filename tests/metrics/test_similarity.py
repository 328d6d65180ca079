"""PSNR and SSIM by their definitions, RDLV by the numbers measured on the published pictures."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from fedsec.errors import MetricError
from fedsec.images import to_images
from fedsec.metrics.similarity import (
    matched,
    pairwise,
    psnr,
    rdlv,
    rdlv_similarities,
    released_ssim,
    ssim,
    stretched,
)
from fedsec.seeds import stream
from fedsec.types import Features, Images
from tests.metrics.samples import lesions

PRIOR_SSIM = 0.364
"""Prior against original in the published pictures of site-9."""


def pictures(n: int, *address: str, channels: int = 1, size: int = 32) -> Images:
    """Lesions that span [-1, 1] each, so that stretching leaves them as they are."""
    return stretched(to_images(lesions(n, *address, channels=channels, size=size).pixels))


def noise(n: int, *address: str, channels: int = 1, size: int = 32) -> Images:
    return stream(0, "noise", *address).uniform(-1, 1, (n, channels, size, size)).astype(np.float32)


def by_definition(x: Images, y: Images) -> float:
    """Wang et al. 2004, eqs. 13 to 17, on [0, 1] over every 11 x 11 window of one image (c, s, s) in [-1, 1]."""
    side = np.exp(-(np.arange(-5, 6) ** 2) / (2 * 1.5**2))
    return over_windows(raised(x) / 2, raised(y) / 2, np.outer(side, side) / side.sum() ** 2, 1.0, 1.0)


def as_released(x: Images, y: Images) -> float:
    """The RDLV release's: on 0..255, L = 256, 7 x 7 uniform windows, sample covariance."""
    return over_windows(raised(x) * 127.5, raised(y) * 127.5, np.full((7, 7), 1 / 49), 256.0, 49 / 48)


def raised(image: Images) -> Features:
    return image.astype(np.float64) + 1


def over_windows(x: Features, y: Features, weights: Features, data_range: float, bias: float) -> float:
    p, q = (np.lib.stride_tricks.sliding_window_view(image, weights.shape, axis=(1, 2)) for image in (x, y))
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    mp, mq = ((windows * weights).sum(axis=(3, 4), keepdims=True) for windows in (p, q))
    vp, vq, covariance = (
        bias * (weights * a * b).sum(axis=(3, 4), keepdims=True)
        for a, b in ((p - mp, p - mp), (q - mq, q - mq), (p - mp, q - mq))
    )
    values = (2 * mp * mq + c1) * (2 * covariance + c2) / ((mp**2 + mq**2 + c1) * (vp + vq + c2))
    return float(values.mean())


def with_similarity(goal: float, truth: Images, other: Images, finish: Callable[[Images], Images]) -> Images:
    """The mixture of ``truth`` and ``other`` whose similarity with ``truth``, once finished, is ``goal``: bisection."""
    low, high = 0.0, 1.0
    for _ in range(40):
        middle = (low + high) / 2
        mixture = finish(((1 - middle) * truth + middle * other).astype(np.float32))
        low, high = (middle, high) if as_released(truth[0], mixture[0]) > goal else (low, middle)
    return mixture


@pytest.mark.parametrize("channels", [1, 3])
def test_ssim_is_the_definition(channels: int) -> None:
    x, y = pictures(2, "x", channels=channels, size=16), pictures(2, "y", channels=channels, size=16)
    plain, released = ssim(x, y), released_ssim(x, y)
    for i in range(2):
        assert plain[i] == pytest.approx(by_definition(x[i], y[i]), abs=1e-9)
        assert released[i] == pytest.approx(as_released(x[i], y[i]), abs=1e-9)


def test_a_little_brightness_costs_little() -> None:
    """On [0, 1]; around mid-gray, which is 0 on [-1, 1], the same offset would cost a quarter."""
    x = 0.4 * pictures(3, "x", size=64)
    assert (ssim(x, x + np.float32(0.1)) > 0.95).all()


def test_psnr_is_the_definition() -> None:
    x, y = pictures(3, "x"), noise(3, "y")
    error = ((x.astype(np.float64) - y) ** 2).mean(axis=(1, 2, 3))
    np.testing.assert_allclose(psnr(x, y), 10 * np.log10(4 / error), rtol=1e-12)


def test_an_image_and_itself() -> None:
    x = pictures(3, "x", channels=3)
    assert (ssim(x, x) == 1).all()
    assert (released_ssim(x, x) == 1).all()
    assert (psnr(x, x) == np.inf).all()


@pytest.mark.parametrize(("reached", "expected"), [(0.611, 0.68), (0.645, 0.77), (0.468, 0.29)])
def test_golden_values_of_the_published_pictures(reached: float, expected: float) -> None:
    """The demo's reconstruction, and those of round 20 at noise 0 and 20; the prior is not rescaled, they are."""
    truth = pictures(1, "truth")
    dim = pictures(1, "prior") * np.float32(0.5)
    prior = with_similarity(PRIOR_SSIM, truth, dim, lambda image: image)
    dull = with_similarity(reached, truth, noise(1, "error"), stretched) * np.float32(0.3) - np.float32(0.2)
    result = rdlv(truth, dull, prior)
    assert round(result.mean, 2) == round(result.max, 2) == expected
    assert result.values[0] == pytest.approx((reached - PRIOR_SSIM) / PRIOR_SSIM, abs=1e-4)
    assert result.reason == ""


def test_the_prior_itself_leaks_nothing() -> None:
    truth, prior = pictures(4, "truth"), pictures(1, "prior")
    np.testing.assert_allclose(rdlv(truth, prior, prior).values, 0, atol=1e-6)


def test_a_copy_leaks_all_there_is() -> None:
    truth, prior = pictures(4, "truth"), pictures(1, "prior")
    floor = pairwise(released_ssim, truth, prior)[:, 0]
    np.testing.assert_allclose(rdlv(truth, truth, prior).values, 1 / floor - 1, rtol=1e-5)


def test_brightness_and_contrast_of_a_reconstruction_do_not_matter() -> None:
    truth, prior, guess = pictures(2, "truth"), pictures(1, "prior"), noise(3, "guess")
    plain, dull = rdlv(truth, guess, prior), rdlv(truth, 0.2 * guess - 0.5, prior)
    np.testing.assert_allclose(plain.values, dull.values, atol=1e-5)


def test_permuted_reconstructions_are_matched_back() -> None:
    truth, prior = pictures(6, "truth"), pictures(1, "prior")
    order = stream(0, "order").permutation(6)
    damaged = (0.7 * truth + 0.3 * noise(6, "damage"))[order].astype(np.float32)
    similarities = rdlv_similarities(truth, damaged)
    np.testing.assert_array_equal(order[matched(similarities)], np.arange(6))
    straight = rdlv_similarities(truth, damaged[np.argsort(order)])
    np.testing.assert_allclose(similarities[np.arange(6), matched(similarities)], np.diag(straight), atol=1e-12)
    shuffled = rdlv(truth, damaged[::-1], prior, pairing="matched")
    np.testing.assert_allclose(rdlv(truth, damaged, prior, pairing="matched").values, shuffled.values)


def test_one_good_reconstruction_counts_once_when_matched() -> None:
    """Two alike images, one copy and one flat picture: the best of the batch gives the copy to both."""
    truth = np.concatenate([pictures(1, "truth")] * 2)
    guesses = np.concatenate([truth[:1], np.zeros_like(truth[:1])])
    prior = pictures(1, "prior")
    best, fair = rdlv(truth, guesses, prior), rdlv(truth, guesses, prior, pairing="matched")
    assert best.values[0] == best.values[1] == fair.max == best.max
    assert fair.mean < best.mean
    assert fair.values.min() < 0


def test_mean_and_maximum_are_over_the_training_images() -> None:
    truth, prior = pictures(3, "truth"), pictures(1, "prior")
    result = rdlv(truth, truth[:1], prior)
    assert result.max == result.values.max() == pytest.approx(1 / released_ssim(truth[:1], prior)[0] - 1, rel=1e-5)
    assert result.mean == pytest.approx(result.values.mean())
    more = rdlv(truth, np.concatenate([truth[:1], noise(2, "more")]), prior)
    assert (more.values >= result.values).all()


def test_a_prior_unlike_the_image_gives_nan_with_the_reason() -> None:
    """Checkerboards: a negative has similarity below 0, and dividing by it would turn the sign around."""
    board = np.where(np.indices((16, 16)).sum(axis=0) % 2, 1, -1).astype(np.float32)[None, None]
    assert released_ssim(board, -board)[0] < 0
    both = np.concatenate([board, -board])
    result = rdlv(both, both, -board)
    assert np.isnan(result.values[0])
    assert result.values[1] == result.mean == result.max == pytest.approx(0, abs=1e-9)
    assert "1 of 2 images is not above 0" in result.reason
    nothing = rdlv(board, board, -board)
    assert np.isnan([nothing.mean, nothing.max]).all()
    assert nothing.reason


def test_a_flat_reconstruction_is_left_as_it_is() -> None:
    flat = np.full((1, 1, 16, 16), 0.25, np.float32)
    np.testing.assert_array_equal(stretched(flat), flat)
    assert np.isfinite(rdlv(pictures(1, "truth", size=16), flat, pictures(1, "prior", size=16)).mean)


def test_bad_images_are_refused_with_the_reason() -> None:
    x, broken = pictures(2, "x"), pictures(2, "x")
    broken[1, 0, 3, 3] = np.nan
    with pytest.raises(MetricError, match=r"shape \(2, 1, 32, 32\), the others \(1, 1, 32, 32\)"):
        ssim(x, x[:1])
    with pytest.raises(MetricError, match="1 of 2 other images hold a non-finite value"):
        psnr(x, broken)
    with pytest.raises(MetricError, match="1 of 2 reconstructions hold a non-finite value"):
        rdlv(x, broken, x[:1])
    with pytest.raises(MetricError, match="at least 11"):
        ssim(x[..., :10, :10], x[..., :10, :10])
    with pytest.raises(MetricError, match="at least 7"):
        released_ssim(x[..., :6, :6], x[..., :6, :6])
    with pytest.raises(MetricError, match=r"shape \(2, 3, 32, 32\), the others \(2, 1, 32, 32\)"):
        rdlv(np.repeat(x, 3, axis=1), x, x[:1])
    with pytest.raises(MetricError, match="exactly one prior"):
        rdlv(x, x, x)
    with pytest.raises(MetricError, match="1 reconstructions of 2 images cannot be matched"):
        rdlv(x, x[:1], x[:1], pairing="matched")
    with pytest.raises(MetricError, match="not finite"):
        matched(pairwise(psnr, x, x))
