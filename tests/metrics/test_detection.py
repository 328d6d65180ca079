from __future__ import annotations

import math

import numpy as np
import pytest

from fedsec.metrics.detection import DETECTION, DetectionTrace, detection_scores
from fedsec.types import Score

MALICIOUS = np.array([True, False, False, False])


def trace(
    flagged: list[list[int]], weights: list[list[float]] | None = None, suspicion: list[list[float]] | None = None
) -> DetectionTrace:
    flags = np.array(flagged, bool)
    return DetectionTrace(
        MALICIOUS,
        flags,
        np.array(weights) if weights else np.full(flags.shape, 0.25),
        np.array(suspicion) if suspicion else flags.astype(float),
    )


def perfect(rounds: int = 10, tail: int = 4) -> DetectionTrace:
    """The attacker is flagged each round and weightless for the last ``tail`` rounds."""
    flagged = np.tile(MALICIOUS, (rounds, 1))
    weights = np.full((rounds, 4), 0.25)
    weights[rounds - tail :] = [0, 1 / 3, 1 / 3, 1 / 3]
    return DetectionTrace(MALICIOUS, flagged, weights, flagged * 5.0)


def by_name(record: DetectionTrace) -> dict[str, Score]:
    return {score.name: score for score in detection_scores(record)}


def test_names_are_those_of_the_table() -> None:
    assert list(by_name(perfect())) == list(DETECTION)


def test_a_perfect_defence() -> None:
    values = {name: score.value for name, score in by_name(perfect()).items()}
    assert values == {
        "true-flag-rate": 1,
        "false-flag-rate": 0,
        "attacker-weight": 0,
        "rounds-to-1-percent": 7,
        "score-auc": 1,
    }


@pytest.mark.parametrize("name", DETECTION)
def test_does_not_depend_on_the_order_of_clients(name: str) -> None:
    rng = np.random.default_rng(0)
    weights = rng.dirichlet(np.ones(4), 6)
    record = DetectionTrace(MALICIOUS, rng.random((6, 4)) < 0.4, weights, rng.random((6, 4)))
    order = np.array([2, 0, 3, 1])
    turned = DetectionTrace(MALICIOUS[order], record.flagged[:, order], weights[:, order], record.suspicion[:, order])
    assert DETECTION[name](turned).value == pytest.approx(DETECTION[name](record).value, nan_ok=True)


@pytest.mark.parametrize("name", DETECTION)
def test_what_needs_an_attacker_is_nan_without_one(name: str) -> None:
    record = perfect()
    clean = DetectionTrace(np.zeros(4, bool), record.flagged, record.weights, record.suspicion)
    score = DETECTION[name](clean)
    if name == "false-flag-rate":
        assert score.value == 0.25
    else:
        assert math.isnan(score.value)
        assert "malicious" in score.reason


@pytest.mark.parametrize("name", DETECTION)
def test_no_round_gives_nan_with_a_reason(name: str) -> None:
    empty = np.zeros((0, 4))
    score = DETECTION[name](DetectionTrace(MALICIOUS, empty.astype(bool), empty, empty))
    assert math.isnan(score.value)
    assert score.reason


def test_no_honest_client_has_no_false_flags() -> None:
    record = DetectionTrace(np.ones(2, bool), np.ones((3, 2), bool), np.full((3, 2), 0.5), np.ones((3, 2)))
    assert "no honest client" in by_name(record)["false-flag-rate"].reason


def test_rates_are_per_client_round() -> None:
    scores = by_name(trace([[1, 0, 0, 0], [0, 1, 0, 0], [1, 1, 0, 0]]))
    assert scores["true-flag-rate"].value == pytest.approx(2 / 3)
    assert scores["true-flag-rate"].n == 3
    assert scores["false-flag-rate"].value == pytest.approx(2 / 9)
    assert scores["false-flag-rate"].n == 9


def test_an_absent_client_counts_for_nothing() -> None:
    nan = math.nan
    scores = by_name(
        trace(
            [[1, 1, 0, 0], [0, 0, 0, 0]],
            weights=[[0.5, nan, 0.25, 0.25], [nan, 0.4, 0.3, 0.3]],
            suspicion=[[2.0, nan, 0.5, 0.1], [nan, 0.1, 0.2, 0.3]],
        )
    )
    assert (scores["true-flag-rate"].value, scores["true-flag-rate"].n) == (1.0, 1)
    assert (scores["false-flag-rate"].value, scores["false-flag-rate"].n) == (0.0, 5)
    assert (scores["score-auc"].value, scores["score-auc"].n) == (1.0, 6)
    assert scores["attacker-weight"].value == 0


def test_the_weight_must_stay_below_one_percent() -> None:
    def after(*attacker: float) -> Score:
        weights = [[w, *[(1 - w) / 3] * 3] for w in attacker]
        return by_name(trace([[0] * 4] * len(weights), weights))["rounds-to-1-percent"]

    assert after(0.25, 0.001, 0.25, 0.009, 0.001).value == 4
    assert after(0.0, 0.0).value == 1
    never = after(0.25, 0.001, 0.01)
    assert math.isnan(never.value)
    assert "after 3 rounds" in never.reason


def test_colluders_count_together() -> None:
    malicious = np.array([True, True, False])
    weights = np.array([[0.3, 0.3, 0.4], [0.006, 0.006, 0.988]])
    record = DetectionTrace(malicious, np.zeros((2, 3), bool), weights, np.ones((2, 3)))
    scores = by_name(record)
    assert scores["attacker-weight"].value == pytest.approx(0.012)
    assert math.isnan(scores["rounds-to-1-percent"].value)
    assert scores["score-auc"].value == 0.5


def test_an_infinite_suspicion_is_the_highest() -> None:
    scores = by_name(trace([[0] * 4] * 2, suspicion=[[math.inf, 0.1, 0.2, 1e300], [0.3, 0.1, 0.2, 0.1]]))
    assert scores["score-auc"].value == pytest.approx((6 + 5) / 12)
