"""Reducers and mixings against ByzFL (Gonzalez et al. 2025), where the definitions agree; where not, what differs.

Agree: mean, median, trimmed mean; geometric median (theirs after many steps and with a small floor); centred clipping
of one step at one radius; nearest-neighbour mixing; bucketing, bucket by bucket.
Differ: their Krum averages the n - f - 1 nearest others where the source sums n - f - 2; their Multi-Krum takes n - f
updates where ours takes n - f - 2. Both are held against the source's formula written out. No counterpart there:
Bulyan, norm clipping by the median, FoolsGold, FLTrust. Ours has no MDA, MoNNA, CAF, SMEA or ARC.
"""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from byzfl import NNM, Average, CenteredClipping, GeometricMedian, Krum, Median, TrMean

from fedsec.defences.mixing import bucketing, nearest_neighbour
from fedsec.defences.reducers import REDUCERS, Situation
from fedsec.seeds import stream
from fedsec.weights import Updates

SIZES = [(7, 2), (10, 2), (11, 3)]


def updates(n: int, f: int, d: int = 6) -> Updates:
    """The first f stand apart, as attackers do."""
    rows = stream(0, "reference", n, f).normal(0, 1, (n, d))
    rows[:f] += 4
    return rows


def reduced(rule: str, rows: Updates, f: int) -> np.ndarray:
    return REDUCERS[rule](rows, Situation(f, np.zeros(rows.shape[1]), np.zeros((len(rows), 0)))).update


@pytest.mark.parametrize(("n", "f"), SIZES)
def test_coordinate_wise_rules_are_theirs(n: int, f: int) -> None:
    rows = updates(n, f)
    for rule, theirs in (("mean", Average()), ("median", Median()), ("trimmed-mean", TrMean(f))):
        np.testing.assert_allclose(reduced(rule, rows, f), theirs(rows.copy()), atol=1e-12, err_msg=rule)


@pytest.mark.parametrize(("n", "f"), SIZES)
def test_the_geometric_median_is_where_their_steps_end(n: int, f: int) -> None:
    rows = updates(n, f)
    theirs = GeometricMedian(nu=1e-9, T=2000)(rows.copy())
    np.testing.assert_allclose(reduced("geometric-median", rows, f), theirs, atol=1e-6)


def test_centred_clipping_is_theirs_step_by_step_at_our_radii() -> None:
    """Theirs has one radius, ours the median distance anew in each step: each is theirs from where the last ended."""
    rows = updates(9, 2)
    centre = np.zeros(rows.shape[1])
    for _ in range(5):
        theirs = CenteredClipping(L=1, tau=float(np.median(np.linalg.norm(rows - centre, axis=1))))
        theirs.m = centre
        centre = theirs(rows.copy())
    np.testing.assert_allclose(reduced("centred-clipping", rows, 2), centre, atol=1e-9)


@pytest.mark.parametrize(("n", "f"), SIZES)
def test_krum_and_multi_krum_are_the_sources_formula(n: int, f: int) -> None:
    """Blanchard et al. 2017: the sum of squared distances to the n - f - 2 nearest others. ByzFL counts one more; on
    updates that stand apart both choose among the honest."""
    rows = updates(n, f)
    away = np.array([[float(((a - b) ** 2).sum()) for b in rows] for a in rows])
    scores = [sum(sorted(away[i][j] for j in range(n) if j != i)[: n - f - 2]) for i in range(n)]
    order = np.argsort(scores)
    np.testing.assert_allclose(reduced("krum", rows, f), rows[order[0]], atol=1e-12)
    np.testing.assert_allclose(reduced("multi-krum", rows, f), rows[order[: n - f - 2]].mean(axis=0), atol=1e-12)
    more = [np.mean(sorted(away[i][j] for j in range(n) if j != i)[: n - f - 1]) for i in range(n)]
    np.testing.assert_allclose(Krum(f)(rows.copy()), rows[int(np.argmin(more))], atol=1e-12)


@pytest.mark.parametrize(("n", "f"), SIZES)
def test_nearest_neighbour_mixing_is_theirs(n: int, f: int) -> None:
    rows = updates(n, f)
    np.testing.assert_allclose(nearest_neighbour(rows, f, stream(0, "mix")) @ rows, NNM(f)(rows.copy()), atol=1e-12)


def test_buckets_are_means_of_two_and_hold_everybody_once() -> None:
    """Theirs draws from numpy's global generator, so its buckets are other ones: held to the definition it states."""
    rows = updates(7, 2)
    matrix = bucketing(rows, 2, stream(0, "mix"))
    members = [set(np.flatnonzero(row)) for row in matrix]
    assert sorted(map(len, members)) == [1, 2, 2, 2]
    assert all(a.isdisjoint(b) for a, b in itertools.combinations(members, 2))
    for row, chosen in zip(matrix @ rows, members, strict=True):
        np.testing.assert_allclose(row, rows[sorted(chosen)].mean(axis=0), atol=1e-12)
