"""Is a defence's leakage below that of noise at equal accuracy? Points of accuracy and leakage in, plain words out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from fedsec.errors import ConfigError
from fedsec.metrics.intervals import Interval, mean_interval

Values = npt.NDArray[np.floating[Any]]
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
    """``difference``: the arm's leakage less that of noise at the arm's accuracy, mean over seeds, with Student's 95 %
    interval over seeds (NaN ends at one seed). ``place``: where the arm's accuracy lies on the noise curve, means over
    seeds; ``outside``: share of the seeds in which it lies off it. ``measure``: of leakage, as tables call it."""

    words: str
    difference: float
    low: float
    high: float
    place: Place
    outside: float
    measure: str


def strongest(found: Point) -> str:
    """The attack with the largest mean over images and seeds."""
    return max(found.leaks, key=lambda name: float(found.leaks[name].mean()))


def worst(found: Point) -> tuple[Values, tuple[str, ...]]:
    """(seeds,) leakage under the strongest attack of each seed, means over images, and those attacks' names."""
    means = {name: values.mean(axis=1) for name, values in found.leaks.items()}
    names = [max(means, key=lambda name: float(means[name][seed])) for seed in range(len(found.accuracy))]
    return np.array([means[name][seed] for seed, name in enumerate(names)]), tuple(dict.fromkeys(names))


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


def against_noise(mine: Point, noise: Sequence[Point], *, measure: str) -> Tradeoff:
    """Compares ``mine`` with ``noise``, its levels from the least to the most. The strongest attacker of each decides.

    Each seed stands by itself: its strongest attackers, its accuracies, its noise curve; the interval is Student's over
    these, since all images of a seed share its models and its accuracy. Where a seed lies off its curve it is held
    against the end of it, which is no match: ``outside`` and the words say in how many. What the seeds share (the test
    images, the attackers' settings) is not in the interval. An attacker that does not know of the noise leaves noise's
    leakage a lower bound. Raises ConfigError below two levels, or when the points are not of the same seeds and images.
    """
    _check(mine, noise)
    arms = [mine, *noise]
    found = [worst(arm) for arm in arms]
    leaks = np.stack([values for values, _ in found])
    right = np.stack([arm.accuracy for arm in arms])
    each = [_gap(right[:, seed], leaks[:, seed]) for seed in range(right.shape[1])]
    gap = mean_interval([difference for difference, _, _ in each])
    off = sum(where != "within" for _, where, _ in each)
    _, place, level = _gap(right.mean(axis=1), leaks.mean(axis=1))
    words = _words(arms, found[0][1], float(leaks[0].mean()), gap, place, level, off, measure)
    return Tradeoff(words, gap.mean, gap.low, gap.high, place, off / len(each), measure)


def _gap(accuracies: Values, leaks: Values) -> tuple[float, Place, int]:
    """The first arm's leakage less that of the others, a curve, at its accuracy."""
    curve = [(float(a), float(leak)) for a, leak in zip(accuracies[1:], leaks[1:], strict=True)]
    level, place, at = matched(float(accuracies[0]), curve)
    return float(leaks[0]) - level, place, at


def _words(
    arms: Sequence[Point], best: Sequence[str], leak: float, gap: Interval, place: Place, level: int, off: int, of: str
) -> str:
    name, first, n = arms[0].name, arms[1 + level], len(gap.values)
    against = (
        f"between {first.name} and {arms[min(2 + level, len(arms) - 1)].name}" if place == "within" else first.name
    )
    told = "below that of" if gap.high < 0 else "above that of" if gap.low > 0 else "not told apart from"
    opening = "at matched accuracy" if place == "within" else f"NOT matched ({_off(name, place)}):"
    seeds = ", ".join(f"{value:+.3f}" for value in gap.values)
    spread = f"({gap.low:+.3f} to {gap.high:+.3f})" if n > 1 else "(one seed, no interval)"
    score = f"{leak:.3f} by {' or '.join(best)}, accuracy {float(arms[0].accuracy.mean()):.3f}"
    text = f"{of}, {name}: {opening} its leakage is {told} noise ({against}): {score}; "
    text += f"difference {gap.mean:+.3f} {spread}; seeds {seeds}"
    return text + (f"; off the curve in {off} of {n} seeds." if off else ".")


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
