"""How well a defence told malicious from honest clients, from what it did round by round."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy.stats import rankdata
from sklearn.metrics import roc_auc_score

from fedsec.types import Features, Score

NEGLIGIBLE = 0.01
"""An attacker below this share of the aggregate has lost its say."""


@dataclass(frozen=True)
class DetectionTrace:
    """One cell's record; rounds x clients, clients in partition order.

    ``malicious`` (clients,) bool: the truth. ``flagged`` bool: flags raised that round. ``weights``: aggregation
    weight used that round, rows sum to 1; NaN for a client that took no part. ``suspicion``: what the defence
    thresholds, higher is worse, inf allowed; NaN where it gave none.
    """

    malicious: npt.NDArray[np.bool_]
    flagged: npt.NDArray[np.bool_]
    weights: Features
    suspicion: Features

    def __post_init__(self) -> None:
        shape = self.flagged.shape
        assert len(shape) == 2, shape
        assert shape == self.weights.shape == self.suspicion.shape, (shape, self.weights.shape, self.suspicion.shape)
        assert shape[1:] == self.malicious.shape, (shape, self.malicious.shape)
        assert self.malicious.dtype == self.flagged.dtype == bool, (self.malicious.dtype, self.flagged.dtype)

    @property
    def present(self) -> npt.NDArray[np.bool_]:
        """(rounds, clients): who took part."""
        return ~np.isnan(self.weights)

    @property
    def attacker_weight(self) -> Features:
        """(rounds,) share of the aggregate that all malicious clients had together."""
        return np.asarray(np.nansum(self.weights[:, self.malicious], axis=1), np.float64)


def true_flag_rate(trace: DetectionTrace) -> Score:
    """Share of the malicious client-rounds that were flagged."""
    return _flag_rate("true-flag-rate", trace, trace.malicious, "malicious")


def false_flag_rate(trace: DetectionTrace) -> Score:
    """Share of the honest client-rounds that were flagged."""
    return _flag_rate("false-flag-rate", trace, ~trace.malicious, "honest")


def attacker_weight(trace: DetectionTrace) -> Score:
    """Weight of all malicious clients together in the last round."""
    reason = _no_attacker(trace)
    value = float("nan") if reason else float(trace.attacker_weight[-1])
    return Score("attacker-weight", value, len(trace.flagged), "lower", reason)


def rounds_to_one_percent(trace: DetectionTrace) -> Score:
    """The first round, counted from 1, from which on the malicious clients' weight stays below 1 %."""
    reason = _no_attacker(trace)
    value = float("nan")
    if not reason:
        above = np.flatnonzero(trace.attacker_weight >= NEGLIGIBLE)
        value = float(above[-1] + 2) if len(above) else 1.0
        if value > len(trace.flagged):
            value, reason = float("nan"), f"the attacker still has 1 % or more after {len(trace.flagged)} rounds"
    return Score("rounds-to-1-percent", value, len(trace.flagged), "lower", reason)


def score_auc(trace: DetectionTrace) -> Score:
    """AUC of the suspicion as a test for malice, over client-rounds; 0.5 is chance. NaN suspicions are left out."""
    given = trace.present & ~np.isnan(trace.suspicion)
    truth = np.broadcast_to(trace.malicious, given.shape)[given]
    if not truth.any() or truth.all():
        reason = f"{int(truth.sum())} malicious and {int((~truth).sum())} honest client-rounds have a suspicion"
        return Score("score-auc", float("nan"), truth.size, "higher", f"{reason}: needs both")
    return Score("score-auc", float(roc_auc_score(truth, rankdata(trace.suspicion[given]))), truth.size, "higher")


DETECTION: dict[str, Callable[[DetectionTrace], Score]] = {
    "true-flag-rate": true_flag_rate,
    "false-flag-rate": false_flag_rate,
    "attacker-weight": attacker_weight,
    "rounds-to-1-percent": rounds_to_one_percent,
    "score-auc": score_auc,
}


def detection_scores(trace: DetectionTrace) -> list[Score]:
    """Every score of DETECTION."""
    return [score(trace) for score in DETECTION.values()]


def _flag_rate(name: str, trace: DetectionTrace, clients: npt.NDArray[np.bool_], who: str) -> Score:
    flags = trace.flagged[:, clients][trace.present[:, clients]]
    better: Literal["higher", "lower"] = "higher" if who == "malicious" else "lower"
    if not flags.size:
        return Score(name, float("nan"), 0, better, f"no {who} client took part")
    return Score(name, float(flags.mean()), flags.size, better)


def _no_attacker(trace: DetectionTrace) -> str:
    if not len(trace.flagged):
        return "no round was recorded"
    return "" if trace.malicious.any() else "no client is malicious"
