"""What a matrix of attacks and defences says: every pair against the oracle, worst cases, ranks, prices.

All numbers come from the final scores of finished cells; a pair that is not finished is NaN everywhere.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import bootstrap, rankdata

from fedsec.config.matrix import CLEAN, ORACLE, PLAIN
from fedsec.log.record import RunRecord
from fedsec.log.values import metrics_of, values_of
from fedsec.metrics.intervals import Interval, mean_interval, paired_difference, paired_ratio
from fedsec.run.roles import role
from fedsec.seeds import stream

RESAMPLES = 2000


@dataclass(frozen=True)
class Standings:
    """``pairs``: (attack, defence) -> arm of ``record``; ``attacks`` and ``defences`` in the order shown, the oracle
    last."""

    record: RunRecord
    attacks: tuple[str, ...]
    defences: tuple[str, ...]
    pairs: Mapping[tuple[str, str], str]

    def ratio(self, attack: str, defence: str) -> Interval:
        """Fréchet distance over the oracle's of the same seed; 1 = as if nobody attacked and nobody had to defend."""
        metric = self.record.header.measured_by
        return paired_ratio(self._values(attack, defence, metric), self._values(attack, ORACLE, metric))

    def trigger(self, attack: str, defence: str) -> Interval:
        """Share of generated images that carry the attack's trigger; NaN for an attack without one."""
        return mean_interval(self._values(attack, defence, self._sought(attack, defence)))

    def strength(self, attack: str, defence: str) -> Interval:
        """How far generated images lean towards the attack's trigger, below the threshold of its rate too."""
        name = self._sought(attack, defence).replace("trigger-rate", "trigger-strength")
        return mean_interval(self._values(attack, defence, name))

    def utility_loss(self, attack: str, defence: str) -> Interval:
        """AUC lost against the oracle, at the fewest real images a class that were measured."""
        name = next((m for m in metrics_of(self.record, self.pairs[CLEAN, PLAIN]) if m.startswith("utility-auc")), "")
        return paired_difference(self._values(attack, ORACLE, name), self._values(attack, defence, name))

    def label_loss(self, attack: str, defence: str) -> Interval:
        """GAN-test AUC lost against the oracle: how much less images show the class they were asked for."""
        name = "gan-test-auc"
        return paired_difference(self._values(attack, ORACLE, name), self._values(attack, defence, name))

    def flags(self, attack: str, defence: str) -> Interval:
        """True-flag rate under attack; without one, the false-flag rate."""
        name = "false-flag-rate" if attack == CLEAN else "true-flag-rate"
        return mean_interval(self._values(attack, defence, name))

    def attacker_weight(self, attack: str, defence: str) -> Interval:
        """What the attackers weigh in the last round."""
        return mean_interval(self._values(attack, defence, "attacker-weight"))

    def seconds(self, attack: str, defence: str) -> Interval:
        """Wall time of a cell, as it ran beside others."""
        cells = self.record.finished()
        spent = [cells[c].seconds if c in cells else math.nan for c in self._cells(attack, defence)]
        return mean_interval(spent)

    def worst(self, defence: str, measure: Callable[[str, str], Interval]) -> tuple[str, float]:
        """The attack that does most by ``measure``, and how much; ('', NaN) when none is finished."""
        found = {attack: measure(attack, defence).mean for attack in self.attacks if attack != CLEAN}
        finite = {attack: value for attack, value in found.items() if math.isfinite(value)}
        return max(finite.items(), key=lambda item: item[1], default=("", math.nan))

    def ranks(self, measure: Callable[[str, str], Interval]) -> dict[str, Interval]:
        """Mean rank of each defence over attacks (1 = least by ``measure``), 95 % percentile bootstrap over attacks.

        A defence that lacks a number which another has is not ranked; ``values`` are the ranks, attack by attack. NaN
        throughout where fewer than two defences are left.
        """
        named = [d for d in self.defences if d != ORACLE]
        rows = np.array([[measure(attack, d).mean for d in named] for attack in self.attacks if attack != CLEAN])
        found = np.isfinite(rows)
        measured = found.any(axis=1)
        whole = found[measured].all(axis=0) & measured.any()
        ranks = {defence: mean_interval([]) for defence in named}
        if whole.sum() > 1:
            places = rankdata(rows[measured][:, whole], axis=1)
            ranks |= {named[j]: _resampled(places[:, i], int(j)) for i, j in enumerate(np.flatnonzero(whole))}
        return ranks

    def unfinished(self) -> list[str]:
        """Arms without a finished cell of any seed."""
        done = {arm for arm, _ in self.record.finished()}
        return [arm for arm in dict.fromkeys(self.pairs.values()) if arm not in done]

    def _cells(self, attack: str, defence: str) -> list[tuple[str, int]]:
        arm = self.pairs[attack, defence]
        return [(arm, seed) for seed in self.record.header.seeds]

    def _values(self, attack: str, defence: str, metric: str) -> list[float]:
        return values_of(self.record, self.pairs[attack, defence], metric) if metric else [math.nan]

    def _sought(self, attack: str, defence: str) -> str:
        """The score that looks for the attack's trigger in this arm, which may be another attack's or nobody's."""
        trigger = role(self.record.header, self.pairs[attack, PLAIN]).trigger
        return trigger_score(self.record, self.pairs[attack, defence], trigger)


def trigger_score(record: RunRecord, arm: str, trigger: str) -> str:
    """Name of the score that looks for a trigger in an arm, whose own it need not be; '' for none."""
    other = f"trigger-rate@{trigger}"
    return "" if not trigger else other if other in metrics_of(record, arm) else "trigger-rate"


def _resampled(places: Sequence[float], index: int) -> Interval:
    values = np.asarray(places, np.float64)
    mean = float(values.mean())
    if len(values) < 2 or np.ptp(values) == 0:  # nothing to resample
        end = math.nan if len(values) < 2 else mean
        return Interval(mean, end, end, tuple(map(float, values)))
    rng = stream(0, "ranks", index)
    found = bootstrap((values,), np.mean, n_resamples=RESAMPLES, method="percentile", rng=rng).confidence_interval
    return Interval(mean, float(found.low), float(found.high), tuple(map(float, values)))
