"""What every feature score asks of its two samples, and how a failed law becomes a NaN with its reason."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np

from fedsec.errors import MetricError
from fedsec.types import Features, Score


def usable(real: Features, fake: Features, *, least: int) -> tuple[Features, Features]:
    """Both samples as float64, once they are (n, d) with one d, at least ``least`` rows each, and finite.

    Errors: MetricError with all that fails.
    """
    mistakes = []
    for name, sample in (("real", real), ("generated", fake)):
        if len(sample) < least:
            mistakes.append(f"{len(sample)} {name} images: needs at least {least}")
        bad = int((~np.isfinite(sample)).any(axis=1).sum())
        if bad:
            mistakes.append(f"{bad} of {len(sample)} {name} images have non-finite features: the model diverged")
    if real.shape[1] != fake.shape[1]:
        mistakes.append(f"{real.shape[1]} real against {fake.shape[1]} generated dimensions: use one extractor")
    if mistakes:
        raise MetricError("; ".join(mistakes))
    return np.asarray(real, np.float64), np.asarray(fake, np.float64)


def measured(
    name: str,
    better: Literal["higher", "lower", "neither"],
    law: Callable[[Features, Features], float],
    real: Features,
    fake: Features,
) -> Score:
    """``law(real, fake)`` as a Score; NaN with the reason when the samples do not allow it."""
    n = min(len(real), len(fake))
    try:
        return Score(name, law(real, fake), n, better)
    except MetricError as error:
        return Score(name, float("nan"), n, better, str(error))
