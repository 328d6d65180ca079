"""``defence.name = "mean-around-median"``."""

from __future__ import annotations

import numpy as np

from fedsec.defences.reducers import Reduced, Situation
from fedsec.weights import Updates


def mean_around_median(updates: Updates, situation: Situation) -> Reduced:
    """Coordinate by coordinate the mean of the n - f values nearest to the median (Xie, Koyejo & Gupta 2018)."""
    kept = len(updates) - situation.n_byzantine
    values = np.sort(updates, axis=0)  # nearest values stand side by side: windows of them, the closest to the median
    windows = np.lib.stride_tricks.sliding_window_view(values, kept, axis=0)
    reach = np.abs(windows[..., [0, -1]] - np.median(values, axis=0)[:, None]).max(axis=-1)
    first = np.argmin(reach, axis=0)[None]
    low, high = np.take_along_axis(values, first, 0)[0], np.take_along_axis(values, first + kept - 1, 0)[0]
    inside = (updates >= low) & (updates <= high)
    chosen = np.take_along_axis(values, first + np.arange(kept)[:, None], 0)
    return Reduced(chosen.mean(axis=0), (inside / inside.sum(axis=0)).mean(axis=1))


mean_around_median.needs = (2, 1)  # type: ignore[attr-defined]
