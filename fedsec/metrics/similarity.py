"""How alike a reconstruction and a training image are: PSNR, SSIM, and what is gained over a public prior (RDLV)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from scipy.optimize import linear_sum_assignment
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from fedsec.errors import MetricError
from fedsec.metrics.measures import SSIM
from fedsec.types import Features, Images, Indices, Vector

WINDOW = 11
"""Side of SSIM's Gaussian window in pixels; no image may be smaller."""
SIGMA = 1.5
"""Of that window, in pixels."""
RELEASED_WINDOW = 7
"""Side of the uniform window of the RDLV release's SSIM."""
RANGE = 2.0
"""Width of [-1, 1]."""
RELEASED_RANGE = 256.0
"""data_range of the RDLV release on images of 0..255."""

Similarity = Callable[[Images, Images], Vector]
"""(truth (n, c, s, s), other of the same shape) -> (n,), higher is more alike."""


@dataclass(frozen=True, eq=False)
class Rdlv:
    """Relative data leakage value of each training image, with its mean and its largest.

    ``values`` (n,): 0 is no better than the prior, 1 twice as similar, below 0 worse. NaN where the prior's similarity
    is not above 0; ``reason`` says how many. ``mean``, ``max``: over the others, NaN when there is none.
    """

    values: Vector
    mean: float
    max: float
    reason: str = ""


def psnr(truth: Images, other: Images) -> Vector:
    """(n,) peak signal-to-noise ratio in dB, image by image: 10 log10(2^2 / mean squared error over all channels).

    ``skimage.metrics.peak_signal_noise_ratio`` with data_range 2, in float64. inf for equal images. Nothing is clipped
    or rescaled. Errors: MetricError for unequal shapes or a non-finite value.

    >>> psnr(np.zeros((1, 1, 8, 8), np.float32), np.full((1, 1, 8, 8), 0.2, np.float32)).round(2)
    array([20.])
    """
    with np.errstate(divide="ignore"):
        scores = [peak_signal_noise_ratio(t, o, data_range=RANGE) for t, o in zip(*_pair(truth, other), strict=True)]
    return np.array(scores, np.float64)


def ssim(truth: Images, other: Images) -> Vector:
    """(n,) structural similarity (Wang et al. 2004, eqs. 13 to 17), image by image; 1 for equal images, can be below 0.

    Images are taken from [-1, 1] to [0, 1] first, L = 1: elsewhere it is another number, since its luminance term is
    not shift-invariant. Window: 11 x 11, Gaussian of 1.5 pixels, weights of sum 1, population covariance, K1 0.01,
    K2 0.03; mean over the places where the window lies inside the image, then over channels. In float64, by
    ``skimage.metrics.structural_similarity``. Nothing is clipped or rescaled. Departure: colour images are scored
    channel by channel, the source has gray ones. Log key: ``measures.SSIM``.
    Errors: MetricError for unequal shapes, a side below 11 or a non-finite value.
    """
    own, others = ((images + 1) / 2 for images in _pair(truth, other, least=WINDOW))
    return _each(own, others, win_size=WINDOW, sigma=SIGMA, gaussian_weights=True, data_range=1.0)


def released_ssim(truth: Images, other: Images) -> Vector:
    """(n,) SSIM as the RDLV release takes it: on 0..255, data_range 256, uniform window of 7 x 7, sample covariance.
    Errors: as ``ssim``, for a side below 7."""
    levels, others = ((images + 1) * 127.5 for images in _pair(truth, other, least=RELEASED_WINDOW))
    return _each(levels, others, win_size=RELEASED_WINDOW, use_sample_covariance=True, data_range=RELEASED_RANGE)


def stretched(images: Images) -> Images:
    """Each image rescaled so that its least value over all channels is -1 and its largest 1; a flat image stays."""
    low, high = images.min(axis=(1, 2, 3), keepdims=True), images.max(axis=(1, 2, 3), keepdims=True)
    width = np.where(high > low, high - low, 1)
    return np.where(high > low, (images - low) / width * 2 - 1, images).astype(np.float32)


def pairwise(similarity: Similarity, truth: Images, others: Images) -> Features:
    """(n, m) similarity of each of n true images with each of m others.

    n m calls of scikit-image for ssim. Errors: those of ``similarity``.
    """
    return np.stack([similarity(truth, np.repeat(other[None], len(truth), axis=0)) for other in others], axis=1)


def matched(similarities: Features) -> Indices:
    """(n,) column given to each row so that no column is given twice and the sum is largest (Hungarian method).

    Errors: MetricError for fewer columns than rows or a non-finite similarity (PSNR of equal images is inf).
    """
    n, m = similarities.shape
    if n > m:
        raise MetricError(f"{m} reconstructions of {n} images cannot be matched one to one: take the best of all")
    if not np.isfinite(similarities).all():
        raise MetricError("a similarity is not finite: match by ssim, where equal images score 1")
    return np.asarray(linear_sum_assignment(similarities, maximize=True)[1], np.int64)


def placed(truth: Images, images: Images) -> Images:
    """``images`` in the order of the true ones they are likest, by SSIM, one to one."""
    return images[matched(pairwise(ssim, truth, images))]


def leak_scores(truth: Images, reconstructions: Images, prior: Images) -> dict[str, float]:
    """Means over the images of one update: PSNR and SSIM with the reconstruction each is matched to; RDLV (mean and
    largest) with its best, as the release has it, and (``rdlv-matched``) with one of its own, since one drawing may be
    the best of several images. Errors: as ``rdlv``; without one reconstruction an image, as ``matched``."""
    own, leak = placed(truth, reconstructions), rdlv(truth, reconstructions, prior)
    return {
        "psnr": float(psnr(truth, own).mean()),
        SSIM: float(ssim(truth, own).mean()),
        "rdlv": leak.mean,
        "rdlv-max": leak.max,
        "rdlv-matched": rdlv(truth, reconstructions, prior, pairing="matched").mean,
    }


def rdlv_similarities(truth: Images, reconstructions: Images) -> Features:
    """(n, m) ``released_ssim`` of n training images with m reconstructions, each of these ``stretched`` first."""
    _check(reconstructions, "reconstructions")
    return pairwise(released_ssim, truth, stretched(reconstructions))


def rdlv(
    truth: Images, reconstructions: Images, prior: Images, *, pairing: Literal["best", "matched"] = "best"
) -> Rdlv:
    """Relative data leakage value (Hatamizadeh et al. 2023), as its release computes it.

    RDLV_i = (sim(T_i, R_j) - sim(T_i, P)) / sim(T_i, P), sim = ``released_ssim``; R_j is ``stretched``, T_i and P are
    not. ``truth`` (n, c, s, s), ``reconstructions`` (m, c, s, s), ``prior`` (1, c, s, s). ``pairing`` names j: for
    each i the best of all m (the release), or one to one (ours: no reconstruction is counted twice).
    Guarantee: rising brightness or contrast of a whole reconstruction changes nothing. A prior that spans [-1, 1]
    scores 0 as a reconstruction; any other is stretched there and not as prior, so it lands on either side of 0.
    A prior with similarity 0 or below has no ratio: that image is NaN, counted in ``reason``, left out of mean and max.
    One slightly above 0 makes the value large without a leak: read it beside the SSIM.
    Departures: reconstructions are not rounded to 256 levels; a flat one, which has no rescaling, is left as it is.
    Errors: MetricError for no image, unequal shapes, a side below 7, a non-finite value; for 'matched' and m < n.
    """
    if len(prior) != 1 or not len(truth) or not len(reconstructions):
        raise MetricError(
            f"{len(truth)} images, {len(reconstructions)} reconstructions, {len(prior)} priors: "
            "RDLV needs at least one image, at least one reconstruction and exactly one prior"
        )
    similarities = rdlv_similarities(truth, reconstructions)
    rows = np.arange(len(truth))
    reached = similarities[rows, similarities.argmax(axis=1) if pairing == "best" else matched(similarities)]
    floor = pairwise(released_ssim, truth, prior)[:, 0]
    return _relative(reached, floor)


def _relative(reached: Vector, floor: Vector) -> Rdlv:
    """The RDLV of similarities (n,) with the paired reconstruction and with the prior."""
    usable = floor > 0
    values = np.full(len(floor), np.nan)
    values[usable] = (reached[usable] - floor[usable]) / floor[usable]
    lost = int((~usable).sum())
    reason = f"the prior's similarity with {lost} of {len(floor)} images is not above 0" if lost else ""
    if not usable.any():
        return Rdlv(values, float("nan"), float("nan"), reason)
    return Rdlv(values, float(values[usable].mean()), float(values[usable].max()), reason)


def _each(truth: Features, other: Features, **setting: Any) -> Vector:
    """(n,) scikit-image's SSIM of each pair; K1 0.01, K2 0.03, population covariance unless ``setting`` says other."""
    setting = {"use_sample_covariance": False, "channel_axis": 0, "K1": 0.01, "K2": 0.03, **setting}
    return np.array([structural_similarity(t, o, **setting) for t, o in zip(truth, other, strict=True)], np.float64)


def _check(images: Images, name: str) -> None:
    if images.ndim != 4:
        raise MetricError(f"{name} have shape {images.shape}, expected (n, channels, size, size)")
    bad = int((~np.isfinite(images)).any(axis=(1, 2, 3)).sum())
    if bad:
        raise MetricError(f"{bad} of {len(images)} {name} hold a non-finite value: what made them diverged")


def _pair(truth: Images, other: Images, *, least: int = 1) -> tuple[Features, Features]:
    """Both in float64, once they have one shape, sides of at least ``least`` pixels, and finite values."""
    _check(truth, "true images")
    _check(other, "other images")
    if truth.shape != other.shape:
        raise MetricError(f"true images have shape {truth.shape}, the others {other.shape}: compare equal shapes")
    if min(truth.shape[2:]) < least:
        raise MetricError(f"images of {truth.shape[2]} x {truth.shape[3]} pixels: SSIM needs sides of at least {least}")
    return truth.astype(np.float64), other.astype(np.float64)
