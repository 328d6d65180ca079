"""Numbers as words, and what a verdict is."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Verdict:
    """A headline, and what is said under each term. Plain text, still to be escaped."""

    headline: str
    points: tuple[tuple[str, tuple[str, ...]], ...]


def percent(value: float) -> str:
    """A share for reading: whole percents from 10 % to 90 %, one decimal outside; 'not measured' for NaN."""
    if not math.isfinite(value):
        return "not measured"
    if 0 < value < 0.0005:
        return "<0.1 %"
    return f"{100 * value:.0f} %" if 0.1 <= value <= 0.9 or value in (0, 1) else f"{100 * value:.1f} %"


def digits(value: float) -> str:
    """Three significant digits, zeros kept so that numbers compare at a glance; whole numbers from 1,000 on."""
    return f"{value:.0f}" if abs(value) >= 999.5 else f"{value:#.3g}".rstrip(".")
