"""Fidelity and diversity apart: improved precision and recall, and the spread over latents."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from sklearn.metrics import pairwise_distances_chunked

from fedsec.errors import MetricError
from fedsec.metrics.samples import measured, usable
from fedsec.types import Features, Images, Labels, Score, Vector

NEIGHBOURS = 3
"""k of the k-nearest-neighbour balls (Kynkäänniemi et al. 2019, sec. 2: k = 3)."""
SLACK = 1e-6
"""Rounding allowed in a Euclidean distance, as a share of the longest feature vector."""


def covered_share(points: Features, centres: Features, neighbours: int = NEIGHBOURS) -> float:
    """Share of ``points`` that lie within the k-NN ball of at least one of ``centres`` (ibid., eq. 1); in [0, 1].

    Distances are taken block by block; more than k centres, all values finite.
    """
    assert len(centres) > neighbours, (len(centres), neighbours)
    middle = centres.mean(axis=0)
    points, centres = points - middle, centres - middle
    slack = SLACK * float(max(np.linalg.norm(points, axis=1).max(), np.linalg.norm(centres, axis=1).max()))
    reach = _radii(centres, neighbours) + slack
    inside = pairwise_distances_chunked(points, centres, reduce_func=lambda block, _: (block <= reach).any(axis=1))
    return float(np.concatenate(list(inside)).mean())


def precision_share(real: Features, fake: Features) -> float:
    """Share of generated images inside the real manifold. Errors: MetricError for k rows or fewer, or non-finite."""
    real, fake = usable(real, fake, least=NEIGHBOURS + 1)
    return covered_share(fake, real)


def recall_share(real: Features, fake: Features) -> float:
    """Share of real images inside the generated manifold. Errors: MetricError for k rows or fewer, or non-finite."""
    real, fake = usable(real, fake, least=NEIGHBOURS + 1)
    return covered_share(real, fake)


def precision(real: Features, fake: Features) -> Score:
    """``precision_share`` as a Score: fidelity. It depends on n: compare at equal n."""
    return measured("precision", "higher", precision_share, real, fake)


def recall(real: Features, fake: Features) -> Score:
    """``recall_share`` as a Score: diversity; 0 for a collapsed generator. It depends on n: compare at equal n."""
    return measured("recall", "higher", recall_share, real, fake)


def spread(images: Images, labels: Labels) -> float:
    """Mean over classes and pixels of the deviation over the images of one class, in units of the range [-1, 1].

    0 when a generator ignores its latent. Classes with one image are left out.
    Errors: MetricError when no class has two images, or a value is not finite.
    """
    if not np.isfinite(images).all():
        raise MetricError("images hold a non-finite value: the model diverged")
    shared = [label for label in np.unique(labels) if (labels == label).sum() >= 2]
    if not shared:
        raise MetricError(f"{len(images)} images: needs at least two of one class")
    return float(np.mean([images[labels == label].std(axis=0, dtype=np.float64).mean() for label in shared]))


def relative_spread(real: Images, real_labels: Labels, fake: Images, fake_labels: Labels) -> Score:
    """``spread`` of the generated images over that of the real ones, on the classes both have.

    1: as varied as the real images; 0: one image a class. Noise raises it too, so read it beside precision.
    """
    known = np.intersect1d(real_labels, fake_labels)
    mine, theirs = np.isin(fake_labels, known), np.isin(real_labels, known)
    try:
        reference = spread(real[theirs], real_labels[theirs])
        if reference == 0:
            raise MetricError("the real images of a class are all the same: nothing to compare with")
        return Score("spread", spread(fake[mine], fake_labels[mine]) / reference, int(mine.sum()), "neither")
    except MetricError as error:
        return Score("spread", float("nan"), int(mine.sum()), "neither", str(error))


def _radii(points: Features, neighbours: int) -> Vector:
    """(n,) distance of each point to its k-th neighbour, itself not counted."""

    def kth(block: npt.NDArray[np.float64], _: int) -> npt.NDArray[np.float64]:
        return np.asarray(np.partition(block, neighbours, axis=1)[:, neighbours])

    return np.concatenate(list(pairwise_distances_chunked(points, reduce_func=kth)))
