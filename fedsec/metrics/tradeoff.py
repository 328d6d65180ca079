"""Is a defence's leakage below that of noise at equal accuracy? Points of accuracy and leakage in, plain words out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from fedsec.errors import ConfigError
from fedsec.seeds import stream

REPLICATES = 1000
Values = npt.NDArray[np.floating[Any]]
Rows = npt.NDArray[np.integer[Any]]
Place = Literal["within", "above", "below"]


@dataclass(frozen=True, eq=False)
class Point:
    """One arm: ``accuracy`` (seeds,) on ``test`` held-out images each, and by attack ``leaks`` (seeds, images), higher
    is worse. Seeds and images are the same, in the same order, in all points of a comparison."""

    name: str
    accuracy: Values
    test: int
    leaks: Mapping[str, Values]


@dataclass(frozen=True)
class Tradeoff:
    """``difference``: the arm's leakage less that of noise at the arm's accuracy, with its 95 % interval. ``place``:
    where the arm's accuracy lies on the noise curve; ``outside``: share of the replicates in which it lies off it."""

    words: str
    difference: float
    low: float
    high: float
    place: Place
    outside: float


def strongest(found: Point) -> str:
    """The attack with the largest mean over images and seeds."""
    return max(found.leaks, key=lambda name: float(found.leaks[name].mean()))


def matched(accuracy: float, curve: Sequence[tuple[float, float]]) -> tuple[float, Place, int]:
    """Leakage of noise at ``accuracy``; where it lies; and the level before it.

    ``curve``: (accuracy, leakage) from the least noise to the most. Linear between two neighbouring levels whose
    accuracies enclose ``accuracy``; of several such pairs the one with the most noise, which a defender would take. Off
    the curve: the leakage of the most ('above') or the least ('below') accurate level.
    """
    for i in range(len(curve) - 2, -1, -1):
        (first, its), (second, other) = curve[i], curve[i + 1]
        if min(first, second) <= accuracy <= max(first, second):
            share = (accuracy - first) / (second - first) if second != first else 1.0
            return its + share * (other - its), "within", i
    values = [level for level, _ in curve]
    place: Place = "above" if accuracy > max(values) else "below"
    end = int(np.argmax(values) if place == "above" else np.argmin(values))
    return curve[end][1], place, end


def against_noise(mine: Point, noise: Sequence[Point], *, measure: str = "SSIM", seed: int = 0) -> Tradeoff:
    """Compares ``mine`` with ``noise``, its levels from the least to the most. The strongest attacker of each decides.

    Interval: bootstrap over seeds, then over images within each (the same draw for all arms), accuracies redrawn as
    binomial shares of the test images; the arm is matched anew in each. With few seeds too narrow: each seed's own
    difference, at the accuracies over all seeds, is in the words. Raises ConfigError below two levels, or when the
    points are not of the same seeds and images.
    """
    _check(mine, noise)
    arms = [mine, *noise]
    best = [strongest(arm) for arm in arms]
    leaks = np.stack([arm.leaks[name] for arm, name in zip(arms, best, strict=True)])
    right = np.stack([arm.accuracy for arm in arms])
    gap, place, level = _gap(right.mean(axis=1), leaks.mean(axis=(1, 2)))
    seeds, images = leaks.shape[1:]
    rng, gaps, off = stream(seed, "verdict"), np.empty(REPLICATES), 0
    for n in range(REPLICATES):
        drawn: Rows = rng.integers(0, seeds, (seeds,))
        rows: Rows = rng.integers(0, images, (seeds, images))
        shares = rng.binomial(mine.test, right[:, drawn]) / mine.test
        gaps[n], where, _ = _gap(shares.mean(axis=1), leaks[:, drawn[:, None], rows].mean(axis=(1, 2)))
        off += where != "within"
    low, high = (float(x) for x in np.quantile(gaps, (0.025, 0.975)))
    each = [_gap(right.mean(axis=1), leaks[:, s].mean(axis=1))[0] for s in range(seeds)]
    words = _words(arms, best, leaks.mean(axis=(1, 2)), (gap, low, high), place, level, each, measure)
    return Tradeoff(words, gap, low, high, place, off / REPLICATES)


def _gap(accuracies: Values, leaks: Values) -> tuple[float, Place, int]:
    """The first arm's leakage less that of the others, a curve, at its accuracy."""
    curve = [(float(a), float(leak)) for a, leak in zip(accuracies[1:], leaks[1:], strict=True)]
    level, place, at = matched(float(accuracies[0]), curve)
    return float(leaks[0]) - level, place, at


def _words(
    arms: Sequence[Point],
    best: Sequence[str],
    leaks: Values,
    gap: tuple[float, float, float],
    place: Place,
    level: int,
    each: Sequence[float],
    measure: str,
) -> str:
    name, first = arms[0].name, arms[1 + level]
    against = (
        f"between {first.name} and {arms[min(2 + level, len(arms) - 1)].name}" if place == "within" else first.name
    )
    told = "below that of" if gap[2] < 0 else "above that of" if gap[1] > 0 else "not told apart from"
    opening = "at matched accuracy" if place == "within" else f"NOT matched ({_off(name, place)}):"
    seeds = ", ".join(f"{value:+.3f}" for value in each)
    score = f"{leaks[0]:.3f} by {best[0]}, accuracy {float(arms[0].accuracy.mean()):.3f}"
    spread = f"difference {gap[0]:+.3f} ({gap[1]:+.3f} to {gap[2]:+.3f}); seeds {seeds}"
    return f"{measure}, {name}: {opening} its leakage is {told} noise ({against}): {score}; {spread}."


def _off(name: str, place: Place) -> str:
    if place == "above":
        return f"{name} is more accurate than every level, held against the most accurate one"
    return f"{name} is less accurate than every level, held against the least accurate one"


def _check(mine: Point, noise: Sequence[Point]) -> None:
    if len(noise) < 2:
        raise ConfigError(f"{len(noise)} noise levels: a curve needs at least two")
    shapes = {values.shape for arm in (mine, *noise) for values in arm.leaks.values()}
    if len(shapes) != 1 or {arm.accuracy.shape for arm in (mine, *noise)} != {(next(iter(shapes))[0],)}:
        raise ConfigError(f"leakage of shapes {sorted(shapes)}: all arms need the same seeds and images")
