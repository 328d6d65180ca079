"""Clients that lie about their loss: what FedDetect, which believes it, is told."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

Metrics = Mapping[str, float]
SMALL = 0.1
"""The part of its own loss that a client reports which wants to look small, whatever losses are like: a GAN's are about
0.7 and more, a diffusion model's below 0.1."""


@dataclass(frozen=True)
class Report:
    """``lie``: (own metrics, the honest clients' of this round, everybody's medians of the last) -> what is reported.

    Every metric with "loss" in its name is replaced, consistently; the others stay. ``knows``: what it has to see.
    ``meaning``: what is reported, in one line.
    """

    lie: Callable[[Metrics, Sequence[Metrics], Metrics], dict[str, float]]
    knows: Literal["all reports", "last round's median", "nothing"]
    meaning: str


def median(own: Metrics, others: Sequence[Metrics], last: Metrics) -> dict[str, float]:
    """The median of the honest clients' reports of this round: as ordinary as can be."""
    return _replaced(own, lambda key: middle([metrics[key] for metrics in others if key in metrics]))


def last_global(own: Metrics, others: Sequence[Metrics], last: Metrics) -> dict[str, float]:
    """The median over all clients of the last round; the own values in the first."""
    return _replaced(own, lambda key: last.get(key, math.nan))


def small(own: Metrics, others: Sequence[Metrics], last: Metrics) -> dict[str, float]:
    """A small part of the own loss: rules that look for high losses see none."""
    return _replaced(own, lambda key: SMALL * (abs(own[key]) if math.isfinite(own[key]) else 1))


REPORTS: dict[str, Report] = {
    "median": Report(median, "all reports", "the median of the honest clients' losses of this round"),
    "last-global": Report(last_global, "last round's median", "the median of all clients' losses of the last round"),
    "small": Report(small, "nothing", f"a {1 / SMALL:.0f}th of their own losses"),
}


def _replaced(own: Metrics, told: Callable[[str], float]) -> dict[str, float]:
    """Where there is nothing finite to tell, the own value stays."""
    lies = {key: told(key) for key in own if "loss" in key}
    return {**own, **{key: value for key, value in lies.items() if math.isfinite(value)}}


def middle(values: Sequence[float]) -> float:
    """The median of the finite ones; NaN without any."""
    finite = [value for value in values if math.isfinite(value)]
    return float(np.median(finite)) if finite else math.nan
