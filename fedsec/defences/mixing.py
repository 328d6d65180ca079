"""What stands in front of a reducer: updates become averages of updates, so that honest clients who hold different
data look less different. A mixing is a row-stochastic (m, n) matrix; the table is the index.

Guarantee: permuted clients get permuted columns (and, where rows are clients, rows), bit for bit, given equal random
numbers. Values must be finite.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from fedsec.defences.geometry import Matrix, Ordered, squared_distances
from fedsec.defences.reducers import Reduced, Reducer, Situation
from fedsec.errors import RobustnessError
from fedsec.weights import Updates

Mixing = Callable[[Updates, int, np.random.Generator], Matrix]

BUCKET = 2
"""Updates a bucket: the source's choice in practice, and the largest that leaves a majority to f < n/4."""


def none(updates: Updates, n_byzantine: int, rng: np.random.Generator) -> Matrix:
    """Every update as it is."""
    return np.eye(len(updates))


def nearest_neighbour(updates: Updates, n_byzantine: int, rng: np.random.Generator) -> Matrix:
    """NNM (Allouah et al. 2023): every update becomes the mean of the n - f nearest to it, itself included.

    Of equally near ones the first by value. Raises RobustnessError unless n > 2f.
    """
    n = len(updates)
    if n <= 2 * n_byzantine:
        raise RobustnessError(
            f"nearest-neighbour: {n} updates, {n_byzantine} of them byzantine: needs n >= 2 f + 1 = "
            f"{2 * n_byzantine + 1}; ask more clients or lower defence.byzantine"
        )
    ordered = Ordered.of(updates)
    nearest = squared_distances(ordered.rows).argsort(axis=1, kind="stable")[:, : n - n_byzantine]
    matrix = np.zeros((n, n))
    matrix[ordered.order[:, None], ordered.order[nearest]] = 1 / (n - n_byzantine)
    return matrix


def bucketing(updates: Updates, n_byzantine: int, rng: np.random.Generator) -> Matrix:
    """Bucketing (Karimireddy, He, Jaggi 2022): the means of random buckets of BUCKET updates; the last may be smaller.

    As many buckets as clients may be byzantine, of fewer: the reducer behind checks f against ceil(n / BUCKET).
    """
    n = len(updates)
    matrix = np.zeros((-(-n // BUCKET), n))
    matrix[np.arange(n) // BUCKET, Ordered.of(updates).order[rng.permutation(n)]] = 1
    matrix /= matrix.sum(axis=1, keepdims=True)
    return matrix


MIXINGS: dict[str, Mixing] = {"none": none, "nearest-neighbour": nearest_neighbour, "bucketing": bucketing}


def mixed(reducer: Reducer, updates: Updates, situation: Situation, matrix: Matrix) -> Reduced:
    """Reduce the mixed updates and totals, which takes their size again; shares come back through the matrix.

    ``n_byzantine`` stays: both sources let f mixed updates be bad, of n or of ceil(n / BUCKET). Nearest neighbours of
    an honest update may be byzantine, yet only while they are near it. Raises what ``reducer`` raises.
    """
    assert matrix.shape[1] == len(updates), (matrix.shape, len(updates))
    if np.array_equal(matrix, np.eye(len(updates))):
        return reducer(updates, situation)
    reduced = reducer(matrix @ updates, replace(situation, totals=matrix @ situation.totals))
    return Reduced(reduced.update, matrix.T @ reduced.shares)
