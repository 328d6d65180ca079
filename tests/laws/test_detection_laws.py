"""Laws that every rule in RULES keeps, whatever clients report."""

from __future__ import annotations

import math

import numpy as np
import pytest

from fedsec.defences.evidence import Losses
from fedsec.defences.feddetect import RULES, Rule, Standing, Verdict, judge
from fedsec.seeds import stream

EVERY = sorted(RULES)
ODD = [float("nan"), float("inf"), float("-inf"), 1e300, -1e300, 4e38, 0.0, -0.0, 5e-324, -3.0, 1e6, None]


def rounds(n: int, count: int, *, odd: bool = False) -> list[list[float | None]]:
    """Losses with one high client; ``odd`` sprinkles everything a float can be."""
    rng = stream(0, "laws", n)
    table: list[list[float | None]] = []
    for _ in range(count):
        row: list[float | None] = [float(v) for v in rng.normal(1.5, 0.1, n)]
        row[0] = float(rng.normal(3.5, 0.1))
        if odd:
            for i in np.flatnonzero(rng.random(n) < 0.3):
                row[i] = ODD[int(rng.integers(len(ODD)))]
        table.append(row)
    return table


def judged(table: list[list[float | None]], name: str) -> tuple[list[Verdict], Standing]:
    standing, verdicts = Standing.start(len(table[0])), []
    for row in table:
        verdict, standing = judge(row, standing, Rule(name, warmup=3))
        verdicts.append(verdict)
    return verdicts, standing


@pytest.mark.parametrize("n", [1, 2, 4, 10])
@pytest.mark.parametrize("name", EVERY)
def test_weights_are_shares_and_suspicion_is_finite_whatever_is_reported(name: str, n: int) -> None:
    verdicts, standing = judged(rounds(n, 12, odd=True), name)
    for verdict in verdicts:
        assert {len(verdict.flagged), len(verdict.suspicion), len(verdict.weights), len(verdict.reasons)} == {n}
        assert math.isclose(sum(verdict.weights), 1, rel_tol=1e-12)
        assert all(0 <= w <= 1 for w in verdict.weights)
        assert np.isfinite(verdict.suspicion).all()
        assert [bool(reason) for reason in verdict.reasons] == list(verdict.flagged)
    assert math.isclose(sum(standing.weights), 1, rel_tol=1e-12)
    assert Standing.from_json(standing.to_json()) == standing


@pytest.mark.parametrize("name", EVERY)
def test_permuting_clients_permutes_the_answer(name: str) -> None:
    """Holds for the released forest too: its fixed seed draws cuts between the lowest and highest loss, not by index.

    Only for finite losses: scikit-learn sends NaN, and cuts at infinity, by the order of rows.
    """
    order = [3, 0, 4, 2, 5, 1]
    table = rounds(6, 10)
    plain, before = judged(table, name)
    moved, after = judged([[row[i] for i in order] for row in table], name)
    for a, b in zip(plain, moved, strict=True):
        assert b.flagged == tuple(a.flagged[i] for i in order)
        assert b.weights == tuple(a.weights[i] for i in order)
        assert b.suspicion == pytest.approx([a.suspicion[i] for i in order])
    assert after.counts == tuple(before.counts[i] for i in order)


@pytest.mark.parametrize("n", [4, 10, 30])
@pytest.mark.parametrize("name", EVERY)
def test_identical_losses_flag_nobody(name: str, n: int) -> None:
    """The released forest scores all of them alike, so its gate voids the round; ours finds nobody apart."""
    verdicts, standing = judged([[1.7] * n] * 8, name)
    assert not any(flag for verdict in verdicts for flag in verdict.flagged)
    assert standing.weights == pytest.approx([1 / n] * n)


@pytest.mark.parametrize("name", EVERY)
def test_judging_is_deterministic_and_leaves_its_input(name: str) -> None:
    table = rounds(4, 8, odd=True)
    _, standing = judged(table, name)
    kept = standing.to_json()
    row: Losses = [2.9, 1.4, None, 1.5]
    first, second = judge(row, standing, Rule(name)), judge(row, standing, Rule(name))
    assert first == second
    assert standing.to_json() == kept
    assert row == [2.9, 1.4, None, 1.5]
    assert first[1].round == standing.round + 1


@pytest.mark.parametrize("name", EVERY)
def test_a_missing_reply_is_not_judged_and_weighs_nothing(name: str) -> None:
    _, standing = judged(rounds(5, 8), name)
    verdict, after = judge([None, 1.5, 1.4, 1.6, None], standing, Rule(name, warmup=3))
    for i in (0, 4):
        assert (verdict.flagged[i], verdict.suspicion[i], verdict.weights[i], verdict.reasons[i]) == (False, 0, 0, "")
        assert after.counts[i] == standing.counts[i]


@pytest.mark.parametrize("name", EVERY)
def test_no_flag_during_warm_up_for_finite_losses(name: str) -> None:
    verdicts, _ = judged(rounds(4, 6), name)
    assert not any(flag for verdict in verdicts[:3] for flag in verdict.flagged)
    assert [verdict.flagged[0] for verdict in verdicts[5:]] == [True], "and then the high one is"


@pytest.mark.parametrize("loss", [float("nan"), float("inf"), float("-inf"), 1e300, 4e38])
def test_only_calibrated_flags_the_liar_alone(loss: float) -> None:
    honest = [3.1, 2.9, 3.4, 2.7, 3.0, 3.3, 2.8, 3.2, 2.6]
    standing = Standing.start(10)
    for _ in range(15):
        verdict, standing = judge([loss, *honest], standing, Rule("calibrated"))
    assert verdict.flagged == (True, *[False] * 9)
    assert standing.weights[0] < 0.01
    assert min(standing.weights[1:]) == max(standing.weights[1:])
