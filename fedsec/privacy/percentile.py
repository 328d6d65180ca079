"""Noise on an update as the gradient-inversion paper adds it: a level that leak and accuracy are drawn over."""

from __future__ import annotations

import numpy as np

from fedsec.types import Arrays


def percentile_noise(before: Arrays, after: Arrays, sigma0: float, rng: np.random.Generator) -> Arrays:
    """``after`` with Gaussian noise of one standard deviation, ``sigma0`` times the 95th percentile of the non-zero
    |after - before| over all floating tensors, running statistics among them (Hatamizadeh et al. 2023, as released).

    Nothing is clipped, so it is no differential privacy. ``sigma0`` 0 changes nothing. Departure: counters, which the
    release noises too, are left alone.
    """
    floats = [name for name, value in after.items() if value.dtype.kind == "f"]
    change = np.concatenate([(np.float64(after[name]) - np.float64(before[name])).ravel() for name in floats])
    moved = np.abs(change[change != 0])
    sigma = sigma0 * float(np.percentile(moved, 95)) if len(moved) else 0.0
    noised = dict(after)
    for name in floats if sigma else []:
        value = np.float64(after[name])
        noised[name] = (value + rng.normal(0, sigma, value.shape)).astype(after[name].dtype)
    return noised
