"""What gradient pruning left out of a kernel's update, filled in: a matrix of low rank is known from some entries.

Pruning keeps a tensor's largest changes and sets the others to zero. The update of a kernel has a rank of ``steps x
images x positions`` at most (``rowspace``), so r (m + n - r) numbers fix all m n of its entries (Candes & Recht 2009),
and alternating least squares find them where somewhat more are known: a ninth of a 256 x 2304 kernel that met 16
positions. Coordinates of a patch with fewer known entries than the rank stay unknown and are left out.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Matrix = npt.NDArray[np.float64]

PRUNED = 0.01
"""Share of zeros, outside rows and columns of nothing else, from which an update can have been pruned."""
SMALLEST = 1e-3
"""Least entry that pruning leaves, in root mean squares of what it leaves. Rounding makes zeros too, up to 8 % in a net
without normalisation, but of entries below a millionth."""
SPARE = 1.2
"""Known entries over the numbers that fix the matrix, at least."""
ROUNDS = 120
RIDGE, COOLING = 1e-3, 0.9
"""Ridge of the least squares in mean squares of known entries, and its factor a round: large while the factors are
wrong, gone when they are right."""
FIT = 1e-3
"""Largest part of the known entries that a right answer may leave unexplained."""


@dataclass(frozen=True, eq=False)
class Rows:
    """Row space of an update: ``basis`` (d, rank), orthonormal, zero at the coordinates that are not ``seen`` (d,)."""

    basis: Matrix
    seen: npt.NDArray[np.bool_]


def pruned(update: Matrix) -> bool:
    """Whether entries of ``update`` (m, d) were set to zero one by one."""
    known = update != 0
    alive = known[np.ix_(known.any(axis=1), known.any(axis=0))]
    if not alive.size or float(1 - alive.mean()) <= PRUNED:
        return False
    left = np.abs(update[known])
    return bool(left.min() > SMALLEST * np.sqrt(np.mean(np.square(left))))


def completed_rows(update: Matrix, rank: int) -> Rows | None:
    """The row space of what ``update`` (m, d), zero where unknown, was before; None where too little is known, or no
    matrix of ``rank`` goes through what is."""
    known = update != 0
    if known.sum() < SPARE * rank * (sum(update.shape) - rank):
        return None
    scale = float(np.sqrt(np.mean(np.square(update[known]))))
    left, right, misfit = _factors(update / scale, known.astype(np.float64), rank)
    rows, seen = known.sum(axis=1) >= rank, known.sum(axis=0) >= rank
    if misfit > FIT or rows.sum() < rank or seen.sum() <= rank:
        return None
    _, _, space = np.linalg.svd(left[rows] @ right[seen].T, full_matrices=False)
    basis: Matrix = np.zeros((update.shape[1], rank))
    basis[seen] = space[:rank].T
    return Rows(basis, seen)


def _factors(update: Matrix, weight: Matrix, rank: int) -> tuple[Matrix, Matrix, float]:
    """(m, rank), (d, rank) whose product meets the known entries, and the relative misfit that is left."""
    first, values, second = np.linalg.svd(update, full_matrices=False)
    root = np.sqrt(values[:rank])
    left: Matrix = np.asarray(first[:, :rank] * root, np.float64)
    right: Matrix = np.asarray(second[:rank].T * root, np.float64)
    for number in range(ROUNDS):
        ridge: Matrix = (RIDGE * COOLING**number + 1e-12) * np.eye(rank)
        right = _solved(update.T, weight.T, left, ridge)
        left = _solved(update, weight, right, ridge)
    misfit = np.linalg.norm(weight * (update - left @ right.T)) / np.linalg.norm(update)
    return left, right, float(misfit)


def _solved(update: Matrix, weight: Matrix, other: Matrix, ridge: Matrix) -> Matrix:
    """Row by row the least squares of ``update`` (m, d) on ``other`` (d, rank) over its known entries: (m, rank)."""
    rank = other.shape[1]
    squares = (weight @ (other[:, :, None] * other[:, None, :]).reshape(len(other), -1)).reshape(-1, rank, rank)
    return np.asarray(np.linalg.solve(squares + ridge, (update @ other)[..., None])[..., 0], np.float64)
