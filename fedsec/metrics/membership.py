"""How well scores tell members of a training set from strangers: the whole curve, and its end that matters.

An attack that is right about few people and sure of it does harm that an average does not show: TPR at a low FPR is
what is reported (Carlini et al. 2022), AUC and balanced accuracy beside it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import binomtest
from sklearn.metrics import roc_auc_score, roc_curve

from fedsec.errors import MetricError
from fedsec.types import Labels, Score, Vector

RATES = (0.01, 0.001)
"""False positive rates at which the true positive rate is reported."""
LEVEL = 0.95

POOLED = "tpr@0.1%, one threshold"
"""Key of the TPR of all targets in one list, at the smaller of RATES."""
SHARED = 0.9
"""Of the variance of a model's confidence in an image, without signal: what all its queries have in common."""

Judged = tuple[Vector, npt.NDArray[np.bool_], Labels]
"""(n,) each: scores, truth, groups; what ``membership`` takes."""


@dataclass(frozen=True)
class Caught:
    """True positive rate at a false positive rate of at most ``rate``. ``low``, ``high``: Clopper-Pearson, 95 %, of the
    members caught at the threshold that the strangers set; the threshold's own spread is not in it. Where there are too
    few strangers all three are NaN and ``reason`` says so."""

    rate: float
    value: float
    low: float
    high: float
    reason: str = ""


@dataclass(frozen=True)
class Membership:
    """``auc``: 0.5 is chance. ``balanced``: accuracy at equal priors with the best threshold there is, which no
    attacker is given: an upper bound. ``caught``: one for each of RATES."""

    auc: float
    balanced: float
    caught: tuple[Caught, ...]
    members: int
    strangers: int

    def scores(self, attack: str) -> list[Score]:
        """The same as Scores: ``membership-<attack>-auc``, ``-balanced``, ``-tpr@1%``, ``-tpr@0.1%``."""
        n = self.members + self.strangers
        plain = [("auc", self.auc, ""), ("balanced", self.balanced, "")]
        rows = [*plain, *((f"tpr@{100 * one.rate:g}%", one.value, one.reason) for one in self.caught)]
        return [Score(f"membership-{attack}-{name}", value, n, "lower", reason) for name, value, reason in rows]


def membership(scores: Vector, member: npt.NDArray[np.bool_], groups: Labels) -> Membership:
    """Judge one attack's ``scores`` (n,), higher = member, against the truth ``member`` (n,).

    ``groups`` (n,): patient or lesion of each image. Guarantee: any rising function of the scores gives the same; equal
    scores count half in the AUC and are caught together or not at all. TPR at FPR f is the largest over thresholds
    whose FPR is at most f; with fewer than 1/f strangers it would stand on none of them: it is said to be out of reach.
    Errors: MetricError for a score that is not finite, one side empty, or a group on both sides: an image of a patient
    whose other image was trained on is neither member nor stranger.
    """
    _check(scores, member, groups)
    n_in, n_out = int(member.sum()), int((~member).sum())
    false, true, _ = roc_curve(member, scores, drop_intermediate=False)
    caught = tuple(_caught(false, true, rate, n_in, n_out) for rate in RATES)
    balanced = float(((true + 1 - false) / 2).max())
    return Membership(float(roc_auc_score(member, scores)), balanced, caught, n_in, n_out)


def _caught(false: Vector, true: Vector, rate: float, n_in: int, n_out: int) -> Caught:
    least = math.ceil(1 / rate)
    if n_out < least:
        lost = f"{n_out} strangers: an FPR of {100 * rate:g} % needs at least {least}"
        return Caught(rate, math.nan, math.nan, math.nan, lost)
    value = float(true[false <= rate].max())
    interval = binomtest(round(value * n_in), n_in).proportion_ci(LEVEL, method="exact")
    return Caught(rate, value, float(interval.low), float(interval.high))


def _check(scores: Vector, member: npt.NDArray[np.bool_], groups: Labels) -> None:
    if not scores.shape == member.shape == groups.shape or scores.ndim != 1:
        raise MetricError(f"{scores.shape} scores, {member.shape} members, {groups.shape} groups: one each an image")
    if member.all() or not member.any():
        raise MetricError(f"{int(member.sum())} members of {len(member)} images: both sides need at least one")
    bad = int((~np.isfinite(scores)).sum())
    if bad:
        raise MetricError(f"{bad} of {len(scores)} membership scores are not finite: what was attacked diverged")
    shared = np.intersect1d(groups[member], groups[~member])
    if len(shared):
        raise MetricError(
            f"{len(shared)} patients or lesions have images on both sides: split by them (fedsec.datasets does)"
        )


def pooled(parts: Sequence[Judged]) -> Judged:
    """Several targets in one list: one threshold for all, and more strangers to set it by.

    An image comes once a target, a member of some and a stranger to others: each target's groups get numbers of their
    own here, so check each target by itself first. Its rows are not independent, so intervals are too narrow.
    """
    base = 1 + max(int(groups.max()) for _, _, groups in parts)
    numbers = [groups + base * place for place, (_, _, groups) in enumerate(parts)]
    scores, member = (np.concatenate([part[i] for part in parts]) for i in (0, 1))
    return scores, member.astype(bool), np.concatenate(numbers)


def summary(parts: Sequence[Judged]) -> dict[str, list[float]]:
    """'auc', 'balanced', 'tpr@1%', 'tpr@0.1%' of each target, and ``POOLED`` of all together; NaN out of reach."""
    each = [membership(*part) for part in parts]
    found = {"auc": [one.auc for one in each], "balanced": [one.balanced for one in each]}
    for k, rate in enumerate(RATES):
        found[f"tpr@{100 * rate:g}%"] = [one.caught[k].value for one in each]
    return {**found, POOLED: [membership(*pooled(parts)).caught[-1].value]}


def without_signal(inside: npt.NDArray[np.bool_], queries: int, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """(m, queries, n) confidences of m models that do not depend on who was ``inside`` (m, n): what an attack makes of
    them is its level by chance in that very design.

    Images differ in how sure all models are of them (deviation 2) and in how far models differ (log-normal, deviation
    0.7 of the logarithm); queries of one model agree by ``SHARED``. Not modelled: images of one patient, which agree
    too, so the spread over repeats is somewhat narrow; means do not depend on it.
    """
    m, n = inside.shape
    sure, spread = 2 * rng.standard_normal(n), np.exp(0.7 * rng.standard_normal(n))
    own, each = rng.standard_normal((m, 1, n)), rng.standard_normal((m, queries, n))
    return np.asarray(sure + spread * (math.sqrt(SHARED) * own + math.sqrt(1 - SHARED) * each), np.float64)
