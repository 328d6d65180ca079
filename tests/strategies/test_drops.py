"""Rule ``calibrated`` on the drop of the loss, which it reads by default: recorded runs, and what absence does."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fedsec.defences.evidence import ABSURD, READINGS, drop, signed_log
from fedsec.defences.feddetect import BACK, GONE, LONGEST, Rule, Standing, judge
from tests.strategies.test_detection import Matrix, replay

DROPS: dict[str, list[list[float]]] = json.loads((Path(__file__).parent / "drops.json").read_text())["drops"]
EXCLUDED_FROM = {"attack-0": 35, "attack-1": 45, "clean-1": 68}
"""Rounds after which, in the runs named *-excluded, the rule of that day had taken client 0's weight."""
LEFT_OUT: Matrix = np.array([0.0, 1 / 3, 1 / 3, 1 / 3])


def heard(name: str) -> Matrix:
    """The recorded rounds in which everybody weighed the same."""
    return np.array(DROPS[name] if name in DROPS else DROPS[f"{name}-excluded"][: EXCLUDED_FROM[name]])


def test_the_drop_compares_the_first_steps_with_all() -> None:
    assert drop({"g-loss-first": 3.0, "g-loss": 1.0}) == pytest.approx(math.log(4) - math.log(2))
    assert drop({"g-loss-first": 1.0, "g-loss": 1.0}) == 0
    assert drop({"g-loss-first": -3.0, "g-loss": 3.0}) == pytest.approx(-2 * math.log(4)), "critics have signs"
    assert signed_log(-1.5) == -signed_log(1.5)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 1e300, -2e6])
@pytest.mark.parametrize("key", ["g-loss-first", "g-loss"])
def test_a_loss_that_cannot_be_is_handed_on_as_the_violation_it_is(key: str, bad: float) -> None:
    told = drop({"g-loss-first": 1.2, "g-loss": 1.1} | {key: bad})
    assert told == bad or (math.isnan(told) and math.isnan(bad))
    verdict, _ = judge([told, 0.0, 0.01, -0.01], Standing.start(4), Rule())
    assert verdict.flagged == (True, False, False, False)
    assert verdict.weights[0] == 0


def test_equal_absurd_losses_do_not_cancel() -> None:
    assert drop({"g-loss-first": 1e300, "g-loss": 1e300}) > ABSURD


def test_a_reply_without_the_losses_is_a_violation() -> None:
    assert math.isnan(drop({"g-loss": 1.0}))
    assert math.isnan(READINGS["last"].of({}))


@pytest.mark.parametrize("name", ["clean-0", "clean-1", "clean-2"])
def test_recorded_clean_runs_keep_the_false_flag_rate(name: str) -> None:
    run = replay(heard(name), Rule())
    assert run.flags.mean() <= 0.02
    assert (run.weights[-1] == 0.25).all()


@pytest.mark.parametrize("name", ["attack-0", "attack-1", "attack-2"])
def test_recorded_attackers_are_flagged_before_half_of_100_rounds_and_no_one_else_is(name: str) -> None:
    run = replay(heard(name), Rule())
    assert not run.flags[:, 1:].any()
    assert run.flags[:45, 0].sum() >= 5
    assert run.weights[-1, 0] < 0.125, "half its share; being unheard then does the rest"


def test_the_honest_outlier_of_seed_1_stands_out_in_level_not_in_drop() -> None:
    """Its loss was 1.6 against 1.1 of the others from round 50 on; the rule that read the level excluded it."""
    last: Matrix = heard("clean-1")[-20:].mean(axis=0)
    assert abs(last[0] - np.median(last)) < 0.03
    attacker: Matrix = heard("attack-2")[-20:].mean(axis=0)
    assert attacker[0] - np.median(attacker) > 0.1


def excluded(rounds: int) -> Standing:
    """Client 0 long excluded, after ``rounds`` rounds."""
    start = Standing.start(4)
    away = (True, False, False, False)
    return replace(start, weights=tuple(LEFT_OUT), counts=(LONGEST, 0.0, 0.0, 0.0), away=away, round=rounds)


def test_an_honest_client_comes_back_and_an_attacker_does_not() -> None:
    """Both are recorded without weight, where the drop of either is far above the others'."""
    shares = {}
    for name in ("clean-1", "attack-0", "attack-1"):
        start = EXCLUDED_FROM[name]
        standing, flags = excluded(start), 0
        for row in DROPS[f"{name}-excluded"][start : start + 25]:
            verdict, standing = judge(row, standing, Rule())
            flags += verdict.flagged[0]
            assert standing.away[0], "the record still speaks against it"
        shares[name] = flags
    assert shares["clean-1"] <= 1
    assert shares["attack-0"] >= 15
    assert shares["attack-1"] >= 15


@pytest.mark.parametrize(("value", "flags"), [(0.12, (True, False)), (0.36, (True, True))])
def test_an_absent_client_is_allowed_a_third(value: float, flags: tuple[bool, bool]) -> None:
    """A drop that flags a client in its place does not flag one that is away; three times as much does."""
    for standing, expected in zip((replace(Standing.start(4), round=40), excluded(40)), flags, strict=True):
        after = standing
        for _ in range(6):
            verdict, after = judge([value, 0.0, 0.01, -0.01], after, Rule())
        assert verdict.flagged[0] == expected


def test_a_client_is_away_from_a_hundredth_of_its_share_until_half_of_it() -> None:
    states = []
    standing = Standing.start(4)
    for share in (1.0, BACK - 0.1, GONE + 0.01, GONE - 0.005, GONE + 0.01, BACK - 0.1, BACK + 0.1, BACK - 0.1):
        rest = (1 - share / 4) / 3
        before = replace(standing, weights=(share / 4, rest, rest, rest))
        _, standing = judge([0.0, 0.0, 0.0, 0.0], before, Rule())
        states.append(standing.away[0])
    assert states == [False, False, False, True, True, True, False, False]


def test_an_attacker_whose_drop_does_not_grow_in_absence_is_kept_small_all_the_same() -> None:
    """Its flags stop while it is away, and come again before it has half its share back."""
    standing, shares = Standing.start(4), []
    for _ in range(200):
        verdict, standing = judge([0.15, 0.0, 0.01, -0.01], standing, Rule())
        shares.append(verdict.weights[0] * 4)
    assert min(shares) < GONE
    assert np.mean(shares[30:]) < 0.35
