"""Laws that every reducer and mixing keeps, and what each rule's paper says on examples small enough for pencil."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.reducers import measure
from fedsec.defences import geometry, reducers
from fedsec.defences.geometry import Ordered, cosines, squared_distances
from fedsec.defences.mixing import BUCKET, MIXINGS, mixed
from fedsec.defences.reducers import NEEDS, REDUCERS, Reduced, Situation, check, mean
from fedsec.errors import RobustnessError
from fedsec.seeds import stream
from fedsec.types import Vector
from fedsec.weights import Updates

EVERY = sorted(REDUCERS)
MOVES_WITH_A_SHIFT = sorted(set(EVERY) - {"centred-clipping", "norm-clipping", "foolsgold", "fltrust"})
CLIENTS, WIDTH = 11, 20
REACH: dict[str, Callable[[int, int], float]] = {
    "median": lambda n, f: WIDTH**0.5,
    "trimmed-mean": lambda n, f: WIDTH**0.5,
    "krum": lambda n, f: 1,
    "multi-krum": lambda n, f: 1,
    "bulyan": lambda n, f: WIDTH**0.5,
    "geometric-median": lambda n, f: 2 * (n - f) / (n - 2 * f),
    "centred-clipping": lambda n, f: n / (n - 2 * f),
    "norm-clipping": lambda n, f: 2,
    "foolsgold": lambda n, f: 1,
    "fltrust": lambda n, f: 2,
}
"""How far from the honest mean f of n may bring the answer, in distances of the farthest honest update from it.

Coordinate-wise rules stay in the honest range of each coordinate; Krum's picks are honest; the geometric median's
factor is the classic one; norm clipping and FLTrust stay in a ball around 0 (here: of honest updates around 0).
"""


def test_every_reducer_but_the_mean_has_a_bound_that_attackers_are_held_against() -> None:
    assert set(REACH) == set(REDUCERS) - {"mean"}


def situation(updates: Updates, f: int = 0, *, root: Vector | None = None) -> Situation:
    """Totals are the updates, the root their first, unless told otherwise."""
    previous = np.zeros(updates.shape[1])
    return Situation(f, previous, updates, updates[0] if root is None else root)


def column(*values: float) -> Updates:
    """Clients with one parameter each."""
    return np.array(values, np.float64)[:, None]


def reduce(name: str, updates: Updates, f: int = 0) -> Reduced:
    return REDUCERS[name](updates, situation(updates, f))


def most(name: str, n: int) -> int:
    """The largest f that a rule takes for n clients; where f plays no part, a third."""
    times, plus = NEEDS.get(name, (0, 1))
    return (n - plus) // times if times else n // 3


def attacked(name: str, outlier: str) -> tuple[Updates, Situation, int]:
    """Honest updates around 0 and, first, as many byzantine ones at 1e6 as the rule takes."""
    rng, f = stream(0, "outliers", name, outlier), most(name, CLIENTS)
    honest = rng.normal(0.1, 1, (CLIENTS - f, WIDTH))
    direction = rng.normal(size=(f, WIDTH)) if outlier == "each its own way" else np.ones((f, WIDTH))
    updates = np.concatenate([1e6 * direction, honest])
    return updates, situation(updates, f, root=np.full(WIDTH, -0.1)), f


grids = st.tuples(st.integers(7, 12), st.integers(1, 4), st.integers(0, 2**32 - 1), st.integers(0, 4)).map(
    lambda t: np.random.default_rng(t[2]).integers(-t[3], t[3] + 1, t[:2]).astype(np.float64)
)
"""Whole numbers of a small range: many ties, equal and zero updates."""


@given(grids, st.integers(0, 2**32 - 1))
@settings(max_examples=60, deadline=None)
@pytest.mark.parametrize("name", EVERY)
def test_the_order_of_clients_changes_no_bit_even_where_values_tie(name: str, updates: Updates, seed: int) -> None:
    rng = np.random.default_rng(seed)
    totals, order = rng.normal(size=updates.shape), rng.permutation(len(updates))
    known = replace(situation(updates, 1), totals=totals)
    moved = replace(known, totals=totals[order])
    answer, again = REDUCERS[name](updates, known), REDUCERS[name](updates[order], moved)
    np.testing.assert_array_equal(again.update, answer.update)
    assert sorted(again.shares) == sorted(answer.shares)


@pytest.mark.parametrize("n", [7, 12])
@pytest.mark.parametrize("name", EVERY)
def test_permuted_clients_get_permuted_shares_and_the_same_input_the_same_bits(name: str, n: int) -> None:
    rng = stream(0, "order", n)
    updates, totals, order = rng.normal(size=(n, 300)), rng.normal(size=(n, 300)), rng.permutation(n)
    known = replace(situation(updates, 1), totals=totals, previous=rng.normal(size=300))
    before = updates.copy()
    answer, same = REDUCERS[name](updates, known), REDUCERS[name](updates.copy(), known)
    moved = REDUCERS[name](updates[order], replace(known, totals=totals[order]))
    for other, shares in ((same, answer.shares), (moved, answer.shares[order])):
        np.testing.assert_array_equal(other.update, answer.update)
        np.testing.assert_array_equal(other.shares, shares)
    np.testing.assert_array_equal(updates, before)


@pytest.mark.parametrize("name", EVERY)
def test_a_shift_moves_the_answer_where_it_should(name: str) -> None:
    rng = stream(0, "shift")
    updates, shift = rng.normal(size=(9, 6)), rng.normal(size=6) + 2
    known = situation(updates, 1)
    answer, shifted = REDUCERS[name](updates, known), REDUCERS[name](updates + shift, known)
    follows = np.allclose(shifted.update, answer.update + shift, atol=1e-9)
    assert follows == (name in MOVES_WITH_A_SHIFT or name == "foolsgold"), "FoolsGold reads the totals alone"
    totals = replace(known, totals=updates + shift)
    assert np.allclose(REDUCERS[name](updates + shift, totals).update, answer.update + shift, atol=1e-9) == (
        name in MOVES_WITH_A_SHIFT
    )


@pytest.mark.parametrize("factor", [1e-7, 3.0, 1e7])
@pytest.mark.parametrize("name", EVERY)
def test_a_scale_scales_the_answer(name: str, factor: float) -> None:
    rng = stream(0, "scale")
    updates, previous, root = rng.normal(size=(9, 6)), rng.normal(size=6), rng.normal(size=6)
    answer = REDUCERS[name](updates, Situation(1, previous, updates, root))
    scaled = REDUCERS[name](factor * updates, Situation(1, factor * previous, factor * updates, factor * root))
    np.testing.assert_allclose(scaled.update, factor * answer.update, rtol=1e-8, atol=1e-9 * factor)
    np.testing.assert_allclose(scaled.shares, answer.shares, atol=1e-8)


@pytest.mark.parametrize("name", EVERY)
def test_equal_updates_return_themselves(name: str) -> None:
    updates = np.tile(stream(0, "equal").normal(size=9), (8, 1))
    known = replace(situation(updates, 1), previous=np.ones(9))
    np.testing.assert_allclose(REDUCERS[name](updates, known).update, updates[0], atol=1e-12)


@given(grids)
@settings(max_examples=60, deadline=None)
@pytest.mark.parametrize("name", EVERY)
def test_shares_are_shares_and_the_answer_is_finite(name: str, updates: Updates) -> None:
    answer = reduce(name, updates, 1)
    assert answer.update.shape == updates.shape[1:]
    assert answer.shares.shape == updates.shape[:1]
    assert np.isfinite(answer.update).all()
    assert (answer.shares >= 0).all()
    assert answer.shares.sum() == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("n", [1, 2, 3, 8])
@pytest.mark.parametrize("name", EVERY)
def test_zero_updates_and_few_clients_divide_nothing_by_zero(name: str, n: int) -> None:
    for updates in (np.zeros((n, 5)), np.ones((n, 5))):
        if n < NEEDS.get(name, (0, 1))[1]:
            with pytest.raises(RobustnessError, match=f"{name}: {n} updates"):
                reduce(name, updates)
            continue
        answer = reduce(name, updates)
        np.testing.assert_allclose(answer.update, updates[0], atol=1e-12)
        assert answer.shares.sum() == pytest.approx(1)


@pytest.mark.parametrize(
    ("name", "outlier"),
    [
        *((name, "one way") for name in sorted(REACH)),
        *((name, "each its own way") for name in sorted(REACH) if name != "foolsgold"),
    ],
)
def test_as_many_outliers_as_a_rule_takes_stay_bounded(name: str, outlier: str) -> None:
    updates, known, f = attacked(name, outlier)
    honest = updates[f:]
    centre, answer = honest.mean(axis=0), REDUCERS[name](updates, known)
    farthest = np.linalg.norm(honest - centre, axis=1).max()
    assert np.linalg.norm(answer.update - centre) <= REACH[name](CLIENTS, f) * farthest
    assert f > 1
    if name in ("median", "trimmed-mean", "bulyan"):
        assert (answer.update >= honest.min(axis=0)).all()
        assert (answer.update <= honest.max(axis=0)).all()
    if name != "fltrust" or outlier == "one way":
        assert answer.shares[:f].max() < 1e-4, "the outliers count next to nothing"


def test_the_mean_withstands_nobody_and_foolsgold_no_lone_attacker() -> None:
    updates = np.concatenate([np.full((1, WIDTH), 1e6), stream(0, "lone").normal(size=(9, WIDTH))])
    for name in ("mean", "foolsgold"):
        assert np.linalg.norm(reduce(name, updates).update) > 1e5


@pytest.mark.parametrize("name", sorted(NEEDS))
def test_one_client_too_few_raises_with_value_law_and_remedy(name: str) -> None:
    times, plus = NEEDS[name]
    least = 2 * times + plus
    reduce(name, np.eye(least), 2)
    check(name, least, 2)
    with pytest.raises(RobustnessError, match=rf"{name}: {least - 1} updates, 2 .* {times} f .* {least}; ask more"):
        reduce(name, np.eye(least - 1), 2)


@pytest.mark.parametrize("name", EVERY)
def test_extra_memory_stays_below_twice_the_updates(name: str) -> None:
    updates = stream(0, "memory").normal(size=(20, 200_000))
    tracemalloc.start()
    reduce(name, updates, 4)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < updates.nbytes


def test_mean_weighs_and_leaves_out_weight_zero() -> None:
    updates = np.array([[1.0, 2.0], [np.nan, np.inf], [3.0, 6.0]])
    np.testing.assert_array_equal(mean(updates, np.array([1.0, 0.0, 0.0])), [1.0, 2.0])
    np.testing.assert_array_equal(mean(updates, np.array([0.25, 0.0, 0.75])), [2.5, 5.0])
    np.testing.assert_array_equal(reduce("mean", updates[[0, 2]]).update, [2.0, 4.0])


@pytest.mark.parametrize(
    ("name", "f", "values", "update", "shares"),
    [
        ("median", 1, (1, 2, 9), 2, (0, 1, 0)),
        ("median", 1, (9, 1, 4, 2), 3, (0, 0, 1 / 2, 1 / 2)),
        ("median", 1, (1, 2, 2, 9, 2), 2, (0, 1 / 3, 1 / 3, 0, 1 / 3)),
        ("trimmed-mean", 1, (100, 1, 2, 3, 4), 3, (0, 0, 1 / 3, 1 / 3, 1 / 3)),
        ("trimmed-mean", 2, (100, 1, 2, 3, 4), 3, (0, 0, 0, 1, 0)),
        # two nearest others of five: scores 7.25, 3.25, 6.25, 16.25 and huge
        ("krum", 1, (0, 1, 2.5, 4.5, 100), 1, (0, 1, 0, 0, 0)),
        ("multi-krum", 1, (0, 1, 2.5, 4.5, 100), 1.75, (0, 1 / 2, 1 / 2, 0, 0)),
        # picks 2 (scores 10, 10: the lower value), 3, 1 (10, 10), 4 (1, 1), 0 (25, 25); then the three next to their 2
        ("bulyan", 1, (-1000, 0, 1, 2, 3, 4, 5), 2, (0, 0, 1 / 3, 1 / 3, 1 / 3, 0, 0)),
        ("norm-clipping", 1, (5, -1, 10), 3, (2 / 5, 2 / 5, 1 / 5)),
    ],
)
def test_pencil_examples(
    name: str, f: int, values: tuple[float, ...], update: float, shares: tuple[float, ...]
) -> None:
    answer = reduce(name, column(*values), f)
    assert answer.update == pytest.approx(update)
    assert answer.shares == pytest.approx(shares)


def test_geometric_median_of_a_quadrangle_is_where_its_diagonals_cross() -> None:
    corners = np.array([[-1.0, 0], [0, -2], [3, 0], [0, 1]])
    assert reduce("geometric-median", corners, 1).update == pytest.approx(np.zeros(2), abs=1e-6)
    assert reduce("geometric-median", column(0, 1, 10)).update == pytest.approx(1, abs=1e-4)


def test_no_step_leads_nearer_to_all_than_the_geometric_median() -> None:
    rng = stream(0, "median")
    updates = rng.normal(size=(9, 5)) ** 3
    answer = reduce("geometric-median", updates, 4)
    np.testing.assert_allclose(answer.shares @ updates, answer.update, atol=1e-12)
    least = np.linalg.norm(updates - answer.update, axis=1).sum()
    for step in rng.normal(size=(200, 5)) * np.logspace(-4, 0, 200)[:, None]:
        assert np.linalg.norm(updates - answer.update - step, axis=1).sum() > least - 1e-9


def test_geometric_median_withstands_one_less_than_half_however_far() -> None:
    """Steps from the mean would still be at 0.1 x the outliers: f / (n - f) of their pull is left after each."""
    honest = stream(0, "half").normal(size=(51, WIDTH))
    answer = reduce("geometric-median", np.concatenate([np.full((50, WIDTH), 1e6), honest]), 50)
    farthest = np.linalg.norm(honest - honest.mean(axis=0), axis=1).max()
    assert np.linalg.norm(answer.update - honest.mean(axis=0)) < REACH["geometric-median"](101, 50) * farthest


def test_centred_clipping_moves_by_clipped_differences(monkeypatch: pytest.MonkeyPatch) -> None:
    """From 0 with radius 2, the median distance: 1, 2, and 2 of 100; then from 5/3 with 2/3: -2/3, 1/3, 2/3."""
    for iterations, update in ((1, 5 / 3), (2, 5 / 3 + 1 / 9)):
        monkeypatch.setattr(reducers, "CLIPPINGS", iterations)
        answer = reduce("centred-clipping", column(1, 2, 100), 1)
        assert answer.update == pytest.approx(update)
        if iterations == 1:
            assert answer.shares == pytest.approx(np.array([1, 1, 0.02]) / 2.02)
    monkeypatch.setattr(reducers, "CLIPPINGS", 1)
    known = replace(situation(column(1, 2, 100), 1), previous=np.full(1, 2.0))
    assert REDUCERS["centred-clipping"](column(1, 2, 100), known).update == pytest.approx(2 - 1 / 3 + 1 / 3)


def test_centred_clipping_finds_its_way_from_a_far_centre() -> None:
    honest = stream(0, "far").normal(size=(9, WIDTH))
    updates = np.concatenate([np.full((2, WIDTH), 1e6), honest])
    known = replace(situation(updates, 2), previous=np.full(WIDTH, 100.0))
    answer = REDUCERS["centred-clipping"](updates, known)
    assert np.linalg.norm(answer.update) < np.linalg.norm(honest, axis=1).max()


def test_foolsgold_silences_sybils_and_pardons_who_is_a_little_like_them() -> None:
    """Similarities: 1 among the sybils, 0.71 of the third to them, pardoned to 0.5: diversity 0.5, logit 0, weight 0.5.

    Without pardon 0.29 would be left, whose logit gives weight 0.
    """
    totals = np.array([[2.0, 0, 0, 0], [5, 0, 0, 0], [1, 1, 0, 0], [0, 0, 0, 3]])
    updates = np.diag([1.0, 1, 3, 3])
    answer = REDUCERS["foolsgold"](updates, Situation(0, np.zeros(4), totals))
    assert answer.shares == pytest.approx([0, 0, 1 / 3, 2 / 3])
    assert answer.update == pytest.approx([0, 0, 1, 2])
    rng = stream(0, "parallel")
    for _ in range(50):
        parallel = np.outer(rng.uniform(1, 2, 3), rng.normal(size=50))
        alike = REDUCERS["foolsgold"](np.eye(3, 50), Situation(0, np.zeros(50), parallel))
        assert alike.shares == pytest.approx([1 / 3] * 3), "rounding makes nobody diverse"


def test_fltrust_rescales_to_the_root_and_weighs_by_cosine() -> None:
    """Cosines 1, 0, -1 and 0.6; the first becomes (2, 0), the last (1.2, 1.6)."""
    updates, root = np.array([[4.0, 0], [0, 3], [-1, 0], [3, 4]]), np.array([2.0, 0])
    answer = REDUCERS["fltrust"](updates, situation(updates, root=root))
    assert answer.update == pytest.approx([1.7, 0.6])
    assert answer.shares == pytest.approx([0.625, 0, 0, 0.375])
    alone = REDUCERS["fltrust"](updates[1:3], situation(updates[1:3], root=root))
    assert (list(alone.update), list(alone.shares)) == ([0, 0], [0.5, 0.5])
    with pytest.raises(RobustnessError, match=r"root = None.*defence\.root"):
        REDUCERS["fltrust"](updates, Situation(0, np.zeros(2), updates))


def test_krum_sees_small_distances_between_large_parameters() -> None:
    """Parameters of scale 10, honest ones 0.004 apart, an attacker 0.2 away: float32 norms lose all of it."""
    rng, d = stream(0, "scale 10"), 200_000
    apart = np.array([0.2, *[0.004 / 2**0.5] * 6])
    noise = rng.normal(size=(7, d))
    noise *= (apart / np.linalg.norm(noise, axis=1))[:, None]
    replies = 10 * rng.normal(size=d) + noise
    distances = np.sqrt(squared_distances(list(replies)))
    assert distances[1:, 1:][~np.eye(6, dtype=bool)] == pytest.approx(0.004, rel=0.02)
    assert distances[0, 1:] == pytest.approx(0.2, rel=0.01)
    for name, least in (("krum", 1), ("multi-krum", 4)):
        shares = reduce(name, replies, 1).shares
        assert shares[0] == 0
        assert (shares > 0).sum() == least
    single = replies.astype(np.float32)
    squares = (single**2).sum(axis=1)
    expanded = squares[:, None] + squares - 2 * single @ single.T
    assert np.abs(expanded[1:, 1:] - distances[1:, 1:] ** 2).max() > 0.2**2, "what norm expansion makes of it"


def test_distances_keep_their_digits_whatever_byzantine_clients_send(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = stream(0, "digits")
    rows = list(np.concatenate([1e6 + 1e-3 * rng.normal(size=(3, 50)), 1e3 + 1e-3 * rng.normal(size=(4, 50))]))
    rows += [rows[0].copy(), rows[-1].copy()]
    plain = np.array([[((one - other) ** 2).sum() for other in rows] for one in rows])
    np.testing.assert_allclose(squared_distances(rows), plain, rtol=1e-6)
    assert (cosines([*rows, np.zeros(50)])[-1] == 0).all()
    monkeypatch.setattr(geometry, "CANCELLED", 0)
    np.testing.assert_allclose(squared_distances(rows)[3:7, 3:7], plain[3:7, 3:7], rtol=1e-6)


def test_values_order_clients_by_the_first_coordinate_that_differs_then_by_totals() -> None:
    updates = np.zeros((4, 10_000))
    updates[[0, 2], 9_999] = 1, -1
    assert list(Ordered.of(updates).order) == [2, 1, 3, 0]
    assert list(Ordered.of(updates, column(0, 5, 0, 4)).order) == [2, 3, 1, 0]


@pytest.mark.parametrize("name", sorted(MIXINGS))
def test_a_mixing_is_row_stochastic_and_ignores_the_order_of_clients(name: str) -> None:
    rng = stream(0, "mixing")
    for n in (1, 2, 7, 10):
        updates, order, f = rng.normal(size=(n, 5)), rng.permutation(n), (n - 1) // 3
        matrix = MIXINGS[name](updates, f, stream(0, "buckets"))
        moved = MIXINGS[name](updates[order], f, stream(0, "buckets"))
        assert matrix.shape == (-(-n // BUCKET) if name == "bucketing" else n, n)
        assert (matrix >= 0).all()
        assert matrix.sum(axis=1) == pytest.approx(np.ones(len(matrix)))
        np.testing.assert_array_equal(moved, matrix[:, order] if name == "bucketing" else matrix[np.ix_(order, order)])


def test_nearest_neighbours_and_buckets_by_pencil() -> None:
    updates, rng = column(100, 0, 1, 3), stream(0, "buckets")
    matrix = MIXINGS["nearest-neighbour"](updates, 1, rng)
    assert (matrix @ updates)[:, 0] == pytest.approx([104 / 3, 4 / 3, 4 / 3, 4 / 3])
    assert set(matrix.flat) == {0, 1 / 3}
    buckets = MIXINGS["bucketing"](np.eye(5), 1, rng)
    assert sorted((buckets > 0).sum(axis=1)) == [1, 2, 2]
    assert list((buckets > 0).sum(axis=0)) == [1] * 5, "each client is in one bucket"
    drawn = {MIXINGS["bucketing"](np.eye(5), 1, rng).tobytes() for _ in range(20)}
    assert len(drawn) > 1, "at random"
    with pytest.raises(RobustnessError, match=r"nearest-neighbour: 4 updates, 2 .* = 5; ask more"):
        MIXINGS["nearest-neighbour"](updates, 2, rng)


@pytest.mark.parametrize("mixing", sorted(MIXINGS))
@pytest.mark.parametrize("name", EVERY)
def test_shares_come_back_through_the_mixing(name: str, mixing: str) -> None:
    updates = stream(0, "mixed").normal(size=(14, 6))
    known, matrix = situation(updates, 1), MIXINGS[mixing](updates, 1, stream(0, "buckets"))
    answer = mixed(REDUCERS[name], updates, known, matrix)
    assert answer.shares.shape == (14,)
    assert answer.shares.sum() == pytest.approx(1)
    direct = REDUCERS[name](matrix @ updates, replace(known, totals=matrix @ updates))
    np.testing.assert_array_equal(answer.update, direct.update)
    np.testing.assert_array_equal(answer.shares, matrix.T @ direct.shares)


@pytest.mark.parametrize("mixing", sorted(MIXINGS))
@pytest.mark.parametrize("name", sorted(NEEDS))
def test_a_rule_behind_a_mixing_withstands_its_outliers(name: str, mixing: str) -> None:
    honest = stream(0, "behind").normal(size=(12, WIDTH))
    updates = np.concatenate([np.full((2, WIDTH), 1e6), honest])
    f = 1 if name == "bulyan" and mixing == "bucketing" else 2
    matrix = MIXINGS[mixing](updates[2 - f :], f, stream(0, "buckets"))
    answer = mixed(REDUCERS[name], updates[2 - f :], situation(updates[2 - f :], f), matrix)
    assert np.linalg.norm(answer.update) < 3 * np.linalg.norm(honest, axis=1).max()
    with pytest.raises(RobustnessError, match="7 updates"):
        mixed(REDUCERS[name], updates, situation(updates, 4), MIXINGS["bucketing"](updates, 4, stream(0, "b")))


@pytest.mark.parametrize("rule", ["foolsgold", "fltrust", "bucketing"])
def test_the_benchmark_measures_reducers_and_mixings(rule: str) -> None:
    figures = measure(rule, 5, 1000)
    assert set(figures) == {"seconds", "cpu", "memory"}
    assert min(figures.values()) >= 0
