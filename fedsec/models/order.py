"""In which order a client meets its images."""

from __future__ import annotations

import numpy as np


def batches(rows: int, batch: int, steps: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Row indices of each step: whole shuffled passes one after the other, cut into batches."""
    passes = -(-batch * steps // rows)
    order = np.concatenate([rng.permutation(rows) for _ in range(passes)])
    return [order[i * batch : (i + 1) * batch] for i in range(steps)]
