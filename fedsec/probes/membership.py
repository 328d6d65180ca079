"""Was this image among the training images? Scores from what an attacker holds. ATTACKS is the index.

The attacker has candidates with their labels and the trained model; some attacks also need models of the same kind,
trained by the attacker on images of its own ("shadows"), or images drawn from a generator. A score is one number a
candidate, higher for members; where to cut is the attacker's business and ``fedsec.metrics.membership`` judges it.
Everything here is arrays: whoever holds a network asks it first (``queries``, ``confidence``).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import log_ndtr, logsumexp
from scipy.stats import norm

from fedsec.errors import ProbeError
from fedsec.types import Features, Images, Labels, Vector

LEAST_SPREAD = 1e-6
"""Least standard deviation of a confidence: equal shadows must not divide by 0."""
OWN_SPREAD = 32
"""Shadows on each side of every candidate from which it gets variances of its own; below, one variance for all."""

Confidences = npt.NDArray[np.float64]
"""(queries, n) or (shadows, queries, n): ``confidence`` of each candidate under each query."""


@dataclass(frozen=True, eq=False)
class Held:
    """What an attacker holds of n candidates; what it lacks is None.

    ``target`` (queries, n): confidence of the attacked classifier. ``shadows`` (m, queries, n): of m classifiers of the
    attacker's own, trained as the target was. ``inside`` (m, n): whether candidate n was among shadow m's images.
    ``distance`` (n,): from the nearest image drawn from the attacked generator, in whatever features.
    ``reference`` (n,): the same for a generator that the attacker trained on other images.
    ``realness`` (n,): logit of the attacked generator's own discriminator.
    """

    target: Confidences | None = None
    shadows: Confidences | None = None
    inside: npt.NDArray[np.bool_] | None = None
    distance: Vector | None = None
    reference: Vector | None = None
    realness: Vector | None = None


@dataclass(frozen=True)
class Attack:
    """``of``: what is attacked. ``knows``: what the attacker must hold. ``score``: Held -> (n,), higher = member."""

    of: str
    knows: str
    source: str
    score: Callable[[Held], Vector]


def confidence(logits: Features, labels: Labels) -> Vector:
    """(n, classes) logits -> (n,) log(p_y / (1 - p_y)), p the softmax: nearly Gaussian over models (Carlini et al.
    2022, sec. IV). Finite for finite logits, however sure the network is. For two classes: difference of the logits."""
    others = np.array(logits, np.float64)
    rows = np.arange(len(labels))
    own = others[rows, labels]
    others[rows, labels] = -np.inf
    return np.asarray(own - logsumexp(others, axis=1), np.float64)


def queries(images: Images, reach: int = 2) -> list[Images]:
    """The candidates as they are, mirrored left-right, and moved by ``reach`` pixels up, down, left and right (mid-gray
    outside): what training by ``translate`` or mirroring may have shown the model (Carlini et al. 2022, sec. VI)."""
    moves = ((-reach, 0), (reach, 0), (0, -reach), (0, reach))
    return [images, images[:, :, :, ::-1].copy(), *(_moved(images, down, right) for down, right in moves)]


def nearest(candidates: Features, drawn: Features, block: int = 256) -> Vector:
    """(n,) Euclidean distance of each candidate's features (n, d) from the nearest drawn image's (m, d)."""
    if not len(drawn):
        raise ProbeError("no drawn image: the nearest one needs at least one")
    squares = np.square(drawn).sum(axis=1)
    parts = []
    for start in range(0, len(candidates), block):
        rows = candidates[start : start + block]
        parts.append((np.square(rows).sum(axis=1)[:, None] - 2 * rows @ drawn.T + squares).min(axis=1))
    return np.asarray(np.sqrt(np.maximum(np.concatenate(parts), 0)), np.float64)


def loss(held: Held) -> Vector:
    """- cross-entropy of the image as it is: log p_y = -log(1 + exp(-confidence)). Its threshold is one for all."""
    return np.asarray(-np.logaddexp(0, -_needed(held.target, "the target's confidence")[0]), np.float64)


def lira_online(held: Held) -> Vector:
    """Log-likelihood ratio of the target's confidence under shadows with and without the candidate, mean over queries.

    Guarantee: adding one number to all confidences of a candidate, target's and shadows', changes nothing. Departure:
    queries count as independent; the paper fits one covariance, which takes more shadows than a small study trains.
    """
    target, shadows, inside = _all(held)
    (in_mean, in_spread), (out_mean, out_spread) = (_gaussians(shadows, side) for side in (inside, ~inside))
    ratio = norm.logpdf(target, in_mean, in_spread) - norm.logpdf(target, out_mean, out_spread)
    return np.asarray(ratio.mean(axis=0), np.float64)


def lira_offline(held: Held) -> Vector:
    """log P[Z <= target's confidence], Z ~ N(mean, variance of shadows without the candidate), mean over queries.

    One test of one side: needs no shadow that has seen the candidate, so shadows are trained once for all candidates.
    """
    target, shadows, inside = _all(held)
    mean, spread = _gaussians(shadows, ~inside)
    return np.asarray(log_ndtr((target - mean) / spread).mean(axis=0), np.float64)


def near(held: Held) -> Vector:
    """- distance from the nearest image drawn: what a generator has learnt by heart it can draw."""
    return np.asarray(-_needed(held.distance, "distances from images drawn"), np.float64)


def nearer_than_reference(held: Held) -> Vector:
    """Distance from the reference generator's nearest image less that from the target's: easy images, which every
    generator comes near to, lose their head start."""
    theirs, own = (
        _needed(held.reference, "a reference generator"),
        _needed(held.distance, "distances from images drawn"),
    )
    return np.asarray(theirs - own, np.float64)


def realness(held: Held) -> Vector:
    """Logit of the discriminator, which was trained to call its training images real."""
    return np.array(_needed(held.realness, "the discriminator"), np.float64)


ATTACKS: dict[str, Attack] = {
    "loss": Attack("classifier", "the model, or its answers to one query an image", "Yeom et al. 2018", loss),
    "lira-online": Attack(
        "classifier",
        "the model's answers, images like the training images, and shadows trained on each candidate and without it",
        "Carlini et al. 2022",
        lira_online,
    ),
    "lira-offline": Attack(
        "classifier",
        "the model's answers, images like the training images, and shadows that saw no candidate",
        "Carlini et al. 2022, sec. V-C",
        lira_offline,
    ),
    "nearest-sample": Attack("generator", "images drawn from the generator", "Chen et al. 2020 (GAN-Leaks)", near),
    "nearest-sample-calibrated": Attack(
        "generator",
        "images drawn from the generator, and images like the training images to train another one on",
        "Chen et al. 2020 (GAN-Leaks), sec. 5",
        nearer_than_reference,
    ),
    "logan": Attack(
        "generator",
        "the discriminator: the site itself, or the server where gan.share = 'both'",
        "Hayes et al. 2019 (LOGAN, white box)",
        realness,
    ),
}


def _gaussians(shadows: Confidences, chosen: npt.NDArray[np.bool_]) -> tuple[Confidences, Confidences]:
    """Mean and standard deviation, (queries, n) each, over the ``chosen`` (m, n) shadows of each candidate."""
    counts = chosen.sum(axis=0)
    if counts.min() < 2:
        raise ProbeError(
            f"a candidate has {counts.min()} shadows on one side: LiRA needs at least 2 with it and 2 without it"
        )
    weight = chosen[:, None, :].astype(np.float64)
    mean = (shadows * weight).sum(axis=0) / counts
    square = (np.square(shadows - mean) * weight).sum(axis=0)
    if counts.min() >= OWN_SPREAD:
        variance = square / (counts - 1)
    else:
        variance = np.broadcast_to(square.sum(axis=1, keepdims=True) / (counts - 1).sum(), mean.shape)
    return mean, np.maximum(np.sqrt(variance), LEAST_SPREAD)


def _all(held: Held) -> tuple[Confidences, Confidences, npt.NDArray[np.bool_]]:
    target = _needed(held.target, "the target's confidence")
    shadows, inside = _needed(held.shadows, "shadow models"), held.inside
    if inside is None or inside.shape != (len(shadows), target.shape[1]) or shadows.shape[1:] != target.shape:
        raise ProbeError(
            f"shadows {shadows.shape}, target {target.shape}, inside {None if inside is None else inside.shape}: "
            "must be (m, queries, n), (queries, n) and (m, n)"
        )
    return target, shadows, inside


def _needed(value: npt.NDArray[np.float64] | None, what: str) -> npt.NDArray[np.float64]:
    if value is None:
        raise ProbeError(f"this attack needs {what}, which the attacker does not hold")
    return value


def _moved(images: Images, down: int, right: int) -> Images:
    moved = np.zeros_like(images)
    size = images.shape[2]
    take = [slice(max(0, -step), size - max(0, step)) for step in (down, right)]
    put = [slice(max(0, step), size - max(0, -step)) for step in (down, right)]
    moved[:, :, put[0], put[1]] = images[:, :, take[0], take[1]]
    return moved
