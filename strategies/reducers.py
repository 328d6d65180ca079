"""From updates to one update. Pure functions on float64 deltas (n, d); the table is the index."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from fedsec.types import Vector
from fedsec.weights import Updates

Reducer = Callable[[Updates, Vector], Vector]


def mean(updates: Updates, weights: Vector) -> Vector:
    """Weighted mean (McMahan et al. 2017). ``weights``: (n,), non-negative, sum 1; weight 0 leaves a row out.

    The sum runs in row order in float64, so equal inputs give equal bits.
    """
    assert weights.shape == (len(updates),), (weights.shape, len(updates))
    assert abs(float(weights.sum()) - 1) < 1e-9, weights
    total = np.zeros(updates.shape[1])
    for weight, update in zip(weights, updates, strict=True):
        if weight > 0:
            total += weight * update
    return total


REDUCERS: dict[str, Reducer] = {"mean": mean}
