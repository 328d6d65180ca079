"""The maps that went into a convolution, read off its update by linear algebra: no iteration over images, no prior.

The gradient of a kernel is a sum over positions, ``dW = sum_p delta_p x patch_p``: its rows lie in the span of the
patches that the kernel met. Where there are fewer positions (times images, times local steps) than channels, that span
is a small subspace, and a map is found as what is left when every one of its overlapping, zero-padded patches must lie
in it: a null space of as many dimensions as there were images. Within it the images are told apart by what ReLU did to
them: they are non-negative with many zeros, so they are the extreme rays of its non-negative cone.

Train-mode BatchNorm makes ``delta`` sum to zero over positions, so the span holds differences of patches only, one
dimension less a step; it does not hide the maps. Plain SGD, with or without momentum, keeps all of this exact for any
number of local steps; Adam does not. Gradient pruning does not hide the span either (``completion``).

Ours. Related: SPEAR (Dimitrov et al. 2024: low rank and ReLU sparsity of fully connected layers), DAGER (Petrov et al.
2024: span check for tokens), R-GAP (Zhu & Blaschko 2021: layer-by-layer equations for one image).
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from scipy.optimize import linprog
from scipy.sparse.linalg import LinearOperator, lobpcg

from fedsec.probes.completion import Rows, completed_rows, pruned
from fedsec.probes.replica import Geometry, Replica
from fedsec.probes.view import ServerView
from fedsec.seeds import stream

Matrix = npt.NDArray[np.float64]

CLEAR = 1e-3
"""The null space of an exact update ends where an eigenvalue is below this part of the next."""
NEARLY = 2 / 3
"""The same of one that noise or further passes have touched: at a gap of 7 maps still had a cosine of 0.99."""
SLACK = (1e-6, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 1e-1)
"""How negative a map may be, in root mean squares of maps. With less than the rounding of an update takes, the corners
are cut off and what is found are mixtures; with more they are blunt. The one with the most zeros is right."""
ALIKE = 0.999
"""Cosine from which two rays are one."""
ZEROS = 0.4
"""Least share of zeros in what ReLU let through; a mixture of two maps has next to none."""
ROUNDS, ITERATIONS = 10, 40
"""Of lobpcg: calls, each from where the last one ended, and iterations a call."""
EXACT = 1e-8
"""Norm of (A v - lambda v) from which v is an eigenvector; lambda is at most a few tens."""
NEGATIVE = 0.01
"""Largest share of a map's energy in negative values: SLACK's own largest."""


@dataclass(frozen=True)
class Maps:
    """What went into ``layer``: ``maps`` (k, c, h, w) float64, one an image and local step, in no particular order,
    each of norm 1, since the update does not tell its scale. ``gap``: eigenvalue of the first direction that is none
    over that of the last that is; without noise 1e10, at 1 nothing was found."""

    layer: str
    maps: npt.NDArray[np.float64]
    gap: float


def recovered_maps(view: ServerView, replica: Replica, *, seed: int = 0, clear: float = CLEAR) -> Iterator[Maps]:
    """The maps into every convolution that gives them away, the nearest to the image first. ``clear``: what part of the
    next eigenvalue the null space's last may be.

    A layer does when it overlaps its patches on both sides (kernel above 1, stride 1) and has more channels than
    positions in all batches of all steps. Nothing is yielded when no layer does.
    """
    recipe, update = view.recipe, view.update
    count = sum(recipe.sizes(view.examples))
    centred = recipe.norm == "batch"
    for layer, geometry in replica.convolutions().items():
        kernel = update[f"{layer}.weight"].reshape(len(update[f"{layer}.weight"]), -1)
        rank = count * geometry.positions - (recipe.steps if centred else 0)
        if geometry.stride != (1, 1) or min(geometry.kernel) < 2 or geometry.shape[0] == recipe.channels:
            continue
        if rank >= min(kernel.shape) or not 0 < np.linalg.norm(kernel) < np.inf:
            continue
        rows = known_rows(kernel, rank)
        if rows is None:
            continue
        space, gap = null_space(rows.basis, geometry, count, centred=centred, seed=seed, seen=rows.seen)
        rays = extreme_rays(space, seed=seed) if gap > 1 / clear else []
        if len(rays) == count and all(rectified(ray, alone=count == 1) for ray in rays):
            yield Maps(layer, np.stack(rays).reshape(count, *geometry.shape), gap)


def known_rows(update: Matrix, rank: int) -> Rows | None:
    """The row space of (out, d), with what pruning took away filled in first; None where that cannot be done."""
    if pruned(update):
        return completed_rows(update, rank)
    return Rows(row_space(update, rank), np.ones(update.shape[1], bool))


def row_space(update: Matrix, rank: int) -> Matrix:
    """(out, d) -> (d, rank) orthonormal: the leading right singular vectors."""
    _, _, rows = np.linalg.svd(update, full_matrices=False)
    return np.ascontiguousarray(rows[:rank].T)


def null_space(
    basis: Matrix,
    geometry: Geometry,
    count: int,
    *,
    centred: bool,
    seed: int,
    seen: npt.NDArray[np.bool_] | None = None,
) -> tuple[Matrix, float]:
    """(c*h*w, count) orthonormal: maps whose patches (``centred``: less their mean) lie nearest to ``basis``, and the
    gap that sets them apart: the next direction's residual energy over theirs. ``seen``: the coordinates of a patch
    that are looked at; all where None."""
    shape, size = geometry.shape, int(np.prod(geometry.shape))
    onto = torch.from_numpy(basis)
    looked_at = torch.from_numpy(np.ones(len(basis)) if seen is None else seen.astype(np.float64))[:, None]
    convolution = {"kernel_size": geometry.kernel, "padding": geometry.padding, "stride": geometry.stride}

    def centre(patches: torch.Tensor) -> torch.Tensor:
        return patches - patches.mean(dim=-1, keepdim=True) if centred else patches

    def energy(columns: Matrix) -> Matrix:
        maps = torch.from_numpy(np.ascontiguousarray(columns.T)).reshape(-1, *shape)
        patches = centre(F.unfold(maps, **convolution)) * looked_at
        patches = centre(patches - onto @ (onto.T @ patches))
        folded: Matrix = F.fold(patches, shape[1:], **convolution).reshape(-1, size).numpy().T
        return folded

    operator = LinearOperator(
        (size, size), matvec=lambda v: energy(v.reshape(-1, 1)).ravel(), matmat=energy, dtype=np.float64
    )
    start = stream(seed, "null-space").standard_normal((size, count + 2))
    values, vectors, residuals = smallest(operator, start, count)
    least = np.finfo(np.float64).tiny
    return vectors[:, :count], float(max(values[count] - residuals[count], least) / max(values[count - 1], least))


def smallest(operator: LinearOperator, start: Matrix, count: int) -> tuple[Matrix, Matrix, Matrix]:
    """Values in rising order, vectors and residual norms of the smallest eigenpairs, as many as ``start`` has columns.

    Stops when the first ``count`` are exact and the next is known to a third, or when all these are known to a tenth
    and no gap shows. lobpcg warns of each column that is not exact yet; the residuals here take that warning's place.
    """
    vectors = start
    for _ in range(ROUNDS):
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=r"\s*(Exited|Failed|The problem size)", category=UserWarning)
            values, vectors = lobpcg(operator, vectors, largest=False, maxiter=ITERATIONS, tol=EXACT)
        order = np.argsort(values)
        values, vectors = values[order], vectors[:, order]
        residuals = np.linalg.norm(operator @ vectors - vectors * values, axis=0)
        known = residuals / np.maximum(np.abs(values), EXACT)
        if residuals[:count].max() < EXACT and known[count] < 1 / 3:
            break
        if known[: count + 1].max() < 0.1 and values[count] < 10 * values[count - 1]:
            break
    return values, vectors, residuals


def rectified(ray: Matrix, *, alone: bool) -> bool:
    """Whether it can have left a ReLU. One ``alone`` is no mixture, so pooling may have filled its zeros."""
    negative = np.square(np.minimum(ray, 0)).sum() / np.square(ray).sum()
    return bool(negative <= NEGATIVE) and (alone or zeros(ray) >= ZEROS)


def zeros(values: Matrix) -> float:
    """Share of entries below a thousandth of the root mean square."""
    return float(np.mean(np.abs(values) < 1e-3 * np.sqrt(np.mean(np.square(values)))))


def extreme_rays(space: Matrix, *, seed: int) -> list[Matrix]:
    """The extreme rays of {x in span(space) : x >= 0}, norm 1 each; at most as many as ``space`` has columns.

    Linear programmes over a slice of the cone, each along a direction orthogonal to the rays found before, so that
    each ends in a new corner; of every SLACK that gives them all, the rays with the most zeros. Empty where none does.
    """
    count = space.shape[1]
    if count == 1:
        only = space[:, 0] if space[:, 0].sum() >= 0 else -space[:, 0]
        return [only / np.linalg.norm(only)]
    found = [_corners(space, slack, seed) for slack in SLACK]
    whole = [rays for rays in found if len(rays) == count]
    return max(whole, key=lambda rays: min(map(zeros, rays)), default=[])


def _corners(space: Matrix, slack: float, seed: int) -> list[Matrix]:
    """As many corners of the slice as are found; fewer than there are columns where it is empty."""
    size, count = space.shape
    total, scale = space.sum(axis=0), size**-0.5
    rng = stream(seed, "extreme-rays")
    rays: list[Matrix] = []
    for attempt in range(4 * count):
        if len(rays) == count:
            break
        known = np.array([space.T @ ray for ray in rays]).reshape(-1, count)
        aim = rng.standard_normal(count)
        if len(known):
            aim = aim - known.T @ np.linalg.lstsq(known.T, aim, rcond=None)[0]
        found = linprog(
            aim if attempt % 2 else -aim, A_ub=-space, b_ub=np.full(size, slack * scale),
            A_eq=total[None], b_eq=[size * scale], bounds=(None, None), method="highs",
        )  # fmt: skip
        if found.status != 0:
            break
        ray = space @ found.x
        ray /= np.linalg.norm(ray)
        if all(ray @ other < ALIKE for other in rays):
            rays.append(ray)
    return rays
