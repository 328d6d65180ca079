"""Rules ``released`` and ``paper``: the authors' pseudo-code, and the replay of its rates.

scikit-learn takes 70 ms a forest, so the replay uses a vectorised copy of it (``flags``): the same trees from
the same seeds, cut for cut. A test proves the flags equal.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
from sklearn.ensemble import IsolationForest

from fedsec.defences.feddetect import Rule, Standing, judge
from fedsec.seeds import stream

Matrix = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]
State = npt.NDArray[np.uint32]
TREES = 100
MODULUS = np.uint32(2**31)


def first_states() -> State:
    """The random state each of the 100 trees starts from: seed 999 -> estimator -> tree -> splitter."""
    top = np.iinfo(np.int32).max
    seeds = np.random.RandomState(999).randint(top, size=TREES)
    trees = [np.random.RandomState(seed).randint(top) for seed in seeds]
    return np.array([np.random.RandomState(tree).randint(0, 2**31 - 1) for tree in trees], dtype=np.uint32)


def advanced(state: State, where: Mask) -> State:
    """scikit-learn's xorshift, one step for the trees in ``where``."""
    new = np.where(state == 0, np.uint32(1), state)
    for shift, left in ((13, True), (17, False), (5, True)):
        new = new ^ (new << np.uint32(shift) if left else new >> np.uint32(shift))
    return np.where(where, new, state)


def rest_length(n: npt.NDArray[np.int64]) -> Matrix:
    """Mean path length c(n) of a leaf that still holds n points."""
    big = np.maximum(n, 3).astype(np.float64)
    long = 2 * (np.log(big - 1) + np.euler_gamma) - 2 * (big - 1) / big
    return np.where(n > 2, long, np.where(n == 2, 1.0, 0.0))


def flags(losses: Matrix) -> Mask:
    """(rounds, n) -> what the released forest flags, before warm-up and gate."""
    x = np.abs(losses).astype(np.float32)
    rounds, n = x.shape
    limit = int(np.ceil(np.log2(max(n, 2))))
    state = np.broadcast_to(first_states(), (rounds, TREES)).copy()
    depths = np.zeros((rounds, n))

    def grow(members: Mask, depth: int) -> None:
        nonlocal state, depths
        size = members.sum(axis=2)
        split = (size >= 2) & (depth < limit)
        depths += ((members & ~split[:, :, None]) * (depth + rest_length(size))[:, :, None]).sum(axis=1)
        if not split.any():
            return
        state = advanced(state, split)
        state = advanced(state, split & (state % 2 == 0))  # drew the constant feature: draws again
        state = advanced(state, split)
        low = np.where(members, x[:, None, :], np.inf).min(axis=2).astype(np.float64)
        high = np.where(members, x[:, None, :], -np.inf).max(axis=2).astype(np.float64)
        low, high = np.where(split, low, 0), np.where(split, high, 1)
        cut = (high - low) * (state % MODULUS).astype(np.float64) / (2**31 - 1) + low
        cut = np.where(cut == high, low, cut)
        inside, left = members & split[:, :, None], x[:, None, :] <= cut[:, :, None]
        grow(inside & left, depth + 1)
        grow(inside & ~left, depth + 1)

    grow(np.ones((rounds, TREES, n), dtype=bool), 0)
    result: Mask = 2 ** (-depths / (TREES * rest_length(np.array([n]))[0])) > 0.5
    return result


def drawn(n: int, attackers: int, shift: float, rounds: int) -> Matrix:
    losses: Matrix = stream(0, "replay", n, attackers, int(shift)).normal(3, 1, (rounds, n))
    losses[:, :attackers] += shift
    return losses


@pytest.mark.parametrize("n", [4, 7, 10, 20])
def test_fast_forest_is_sklearns_bit_for_bit(n: int) -> None:
    losses = np.concatenate([drawn(n, 0, 0, 6), drawn(n, 1, 3, 3), drawn(n, 2, 10, 3)])
    theirs = [
        IsolationForest(max_samples=n, contamination="auto", random_state=999, n_estimators=TREES).fit_predict(
            np.column_stack([np.zeros(n), np.abs(row)])
        )
        == -1
        for row in losses
    ]
    assert np.array_equal(flags(losses), np.array(theirs))


# n, attackers, shift | the sheet's usable, false, true (%, None where it gives none) | the forest's own rates
TABLE = [
    (4, 0, 0.0, (73, 18, None), (75.6, 18.9, None)),
    (10, 0, 0.0, (75, 25, None), (78.7, 25.9, None)),
    (20, 0, 0.0, (95, 31, None), (92.0, 30.0, None)),
    (4, 1, 3.0, (None, 2, 66), (None, 2.8, 74.1)),
    (4, 1, 10.0, (None, 0, 98), (None, 0.0, 98.4)),
    (4, 2, 10.0, (None, 2, 11), (None, 2.0, 13.2)),
    (10, 1, 10.0, (None, 17, 99), (None, 17.8, 100.0)),
    (10, 2, 10.0, (None, 19, 94), (None, 17.2, 92.2)),
    (10, 3, 10.0, (None, 6, 44), (None, 4.8, 34.4)),
]
SHEET_DRAWS = 80
"""The sheet's smallest number of draws: its own rates carry a binomial error of up to 5.6 points."""


@pytest.mark.parametrize(("n", "attackers", "shift", "sheet", "exact"), TABLE)
def test_replay_of_the_sheets_table(
    n: int, attackers: int, shift: float, sheet: tuple[float | None, ...], exact: tuple[float | None, ...]
) -> None:
    rounds = 1200 if n < 20 else 600
    found = np.concatenate([flags(part) for part in np.array_split(drawn(n, attackers, shift, rounds), rounds // 100)])
    usable = found.any(axis=1) & (found.sum(axis=1) < n // 2)
    used = found & usable[:, None]
    true = used[:, :attackers].mean() if attackers else None
    rates = [float(usable.mean()), float(used[:, attackers:].mean()), None if true is None else float(true)]
    for rate, told, known in zip(rates, sheet, exact, strict=True):
        if rate is None or told is None:
            continue
        sampling = 200 * np.sqrt(rate * (1 - rate) / SHEET_DRAWS)  # two standard errors of the sheet's own estimate
        assert abs(100 * rate - told) <= max(3.0, sampling), (rate, told)
        assert known is None or abs(100 * rate - known) <= 3.0, (rate, known)


def test_judge_flags_what_the_forest_flags_behind_the_gate() -> None:
    losses = np.concatenate([drawn(4, 0, 0, 6), drawn(4, 2, 10, 6)])
    late = replace(Standing.start(4), round=11)
    for row, forest in zip(losses, flags(losses), strict=True):
        verdict, _ = judge(list(row), late, Rule("released"))
        usable = 0 < forest.sum() < 2
        assert verdict.flagged == tuple(bool(f and usable) for f in forest)


def pseudo_code(losses: Matrix, *, compounded: bool) -> tuple[list[list[float]], list[float]]:
    """The pseudo-code line by line; the single-power reading when not compounded."""
    n = losses.shape[1]
    w, c = [1 / n] * n, [0.0] * n
    rounds = []
    for t, found in enumerate(flags(losses)):
        if t > 10 and found.sum() < n // 2:
            for i in np.flatnonzero(found):
                c[i] += 1
                w[i] = w[i] * 0.9 ** c[i] if compounded else w[i]
            if not compounded:
                w = [0.9**count / n for count in c]
            w = [weight / sum(w) for weight in w]
        rounds.append(list(w))
    return rounds, c


@pytest.mark.parametrize("name", ["released", "paper"])
def test_weights_follow_the_pseudo_code(name: str) -> None:
    losses = drawn(4, 1, 3, 26)
    expected, counts = pseudo_code(losses, compounded=name == "released")
    standing = Standing.start(4)
    for t, row in enumerate(losses):
        verdict, standing = judge(list(row), standing, Rule(name))
        assert verdict.weights == pytest.approx(expected[t], rel=1e-12)
        assert t > 10 or not any(verdict.flagged)
    assert list(standing.counts) == counts
    assert standing.counts[0] >= 6, "the attacker is flagged most rounds"


def test_faults_kept_from_the_release() -> None:
    """What ``calibrated`` is there to cure. Documented, so that a change shows."""
    late = replace(Standing.start(10), round=11)
    honest = [3.1, 2.9, 3.4, 2.7, 3.0, 3.3, 2.8, 3.2, 2.6]
    for loss in (float("inf"), float("-inf"), 1e300, 4e38):
        verdict, _ = judge([loss, *honest], late, Rule("released"))
        assert [i for i, flagged in enumerate(verdict.flagged) if flagged] == [4, 7, 9], "three honest, not the liar"
        assert np.isfinite(verdict.suspicion).all()
    verdict, after = judge([float("nan"), *honest], late, Rule("released"))
    assert sum(verdict.flagged[1:]) == 3
    assert np.isfinite([*verdict.suspicion, *after.weights]).all()
    verdict, _ = judge([30.0, *honest], late, Rule("released"))
    assert verdict.flagged[0]


def test_identical_losses_all_score_a_half_in_the_release() -> None:
    late = replace(Standing.start(4), round=11)
    verdict, after = judge([1.5] * 4, late, Rule("released"))
    assert verdict.suspicion == pytest.approx((0.5,) * 4)
    assert after.weights == pytest.approx((0.25,) * 4)
    assert not any(verdict.flagged), "all four are flagged or none: the gate voids the round either way"
