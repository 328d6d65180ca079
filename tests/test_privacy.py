"""Client-level differential privacy: what the clip, the noise, the moving bound and the accountant promise."""

from __future__ import annotations

import math
from dataclasses import FrozenInstanceError

import dp_accounting as dp
import numpy as np
import pytest
from dp_accounting.gaussian_mechanism import get_epsilon_gaussian
from dp_accounting.pld import PLDAccountant
from dp_accounting.rdp import RdpAccountant

from fedsec.errors import ConfigError
from fedsec.privacy.accounting import FULL, LARGEST_DELTA, MOST_ROUNDS, Accountant, FixedSize, Poisson, default_delta
from fedsec.privacy.noise import (
    BOUNDS,
    ClipState,
    adaptive,
    client_side,
    clip,
    count_noise,
    fixed,
    update_multiplier,
)
from fedsec.privacy.percentile import percentile_noise
from fedsec.seeds import stream
from fedsec.types import Arrays, Vector

ADD_OR_REMOVE, REPLACE = dp.NeighboringRelation.ADD_OR_REMOVE_ONE, dp.NeighboringRelation.REPLACE_ONE
SETTINGS = [
    (FULL, 0.5, 1, 1e-3),
    (FULL, 1.0, 100, 1e-5),
    (FULL, 10.0, 100, 1e-3),
    (FULL, 50.0, 2000, 1e-3),
    (Poisson(0.01), 0.8, 500, 1e-5),
    (Poisson(0.01), 1.1, 10_000, 1e-6),
    (Poisson(0.1), 1.0, 100, 1e-5),
    (Poisson(0.25), 4.0, 300, 1e-4),
    (Poisson(0.5), 2.0, 20, 1e-3),
    (FixedSize(10, 1000), 2.0, 200, 1e-5),
    (FixedSize(10, 100), 4.0, 50, 1e-4),
    (FixedSize(5, 10), 6.0, 100, 1e-3),
    (FixedSize(20, 20), 3.0, 10, 1e-3),
]
ROUGH = {
    "a NaN": [1.0, np.nan, 3.0],
    "an infinity": [1.0, np.inf, 3.0],
    "a negative infinity": [-np.inf, 1.0, 2.0],
    "both": [np.nan, np.inf, 1e9],
}


def norm(vector: Vector) -> float:
    """Without overflow."""
    return math.hypot(*vector.tolist())


@pytest.mark.parametrize("name", sorted(ROUGH))
def test_a_non_finite_element_does_not_disable_the_clip(name: str) -> None:
    np.testing.assert_array_equal(clip(np.array([*ROUGH[name], 1e9]), 1.0), np.zeros(4))
    average = fixed(np.array([[3.0, 4.0, 0.0], ROUGH[name]]), 1.0, 0.0, stream(0), 2)
    np.testing.assert_allclose(average, [0.3, 0.4, 0.0], atol=1e-15)


def test_a_zero_update_and_an_empty_one_stay_as_they_are() -> None:
    np.testing.assert_array_equal(clip(np.zeros(5), 0.1), np.zeros(5))
    assert clip(np.zeros(0), 0.1).shape == (0,)


def test_a_short_update_passes_to_the_bit_as_a_copy() -> None:
    update = np.array([0.6, -0.8, 0.0])
    clipped = clip(update, 1.0)
    np.testing.assert_array_equal(clipped, update)
    assert clipped is not update


@pytest.mark.parametrize("scale", [5e-324, 1e-300, 1e-9, 1.0, 1e9, 1e160, 1.7e308])
@pytest.mark.parametrize("bound", [1e-9, 0.3, 1e9])
def test_a_clipped_update_keeps_to_its_bound_and_direction(scale: float, bound: float) -> None:
    for size in (1, 7, 10_000):
        shape = stream(1, size).uniform(-1, 1, size)
        clipped = clip(scale * shape, bound)
        assert norm(clipped) <= bound * (1 + 1e-12)
        if scale >= 1e9 * bound:
            np.testing.assert_allclose(clipped / bound, shape / norm(shape), rtol=1e-9)


def test_the_average_divides_by_enrolment_and_holds_one_client_to_its_share() -> None:
    updates = stream(2).normal(size=(4, 50))
    without = fixed(updates[:3], 0.5, 0.0, stream(0), 4)
    for last in (updates[3], 1e9 * updates[3], np.full(50, np.nan)):
        assert norm(fixed(np.vstack([updates[:3], last]), 0.5, 0.0, stream(0), 4) - without) <= 0.5 / 4 * (1 + 1e-9)
    np.testing.assert_allclose(without, sum(clip(row, 0.5) for row in updates[:3]) / 4)


def test_noise_has_the_promised_deviation_also_when_nobody_answered() -> None:
    for rows in (0, 3):
        noise = fixed(np.zeros((rows, 200_000)), 0.5, 3.0, stream(3, rows), 10)
        assert abs(noise.mean()) < 4 * 0.15 / math.sqrt(200_000)
        assert noise.std() == pytest.approx(3.0 * 0.5 / 10, rel=0.01)


def test_noise_of_all_clients_adds_up_to_that_of_the_server() -> None:
    replies = [client_side(np.zeros(200_000), 0.5, 3.0, stream(4, client), 8) for client in range(8)]
    assert replies[0].std() == pytest.approx(3.0 * 0.5 / math.sqrt(8), rel=0.01)
    assert np.sum(replies, axis=0).std() == pytest.approx(3.0 * 0.5, rel=0.01)
    assert np.sum(replies[:2], axis=0).std() == pytest.approx(3.0 * 0.5 / 2, rel=0.01)
    huge = client_side(np.full(4, 1e9), 0.5, 0.0, stream(0), 8)
    assert norm(huge) == pytest.approx(0.5)


def test_noise_comes_from_the_generator_given_and_from_nothing_else() -> None:
    before = np.random.get_state(legacy=False)
    state = ClipState(1.0, 0.5)
    updates = stream(5).normal(size=(3, 20))
    first = [fixed(updates, 1.0, 2.0, stream(6), 3), client_side(updates[0], 1.0, 2.0, stream(6), 3)]
    average, moved = adaptive(updates, state, 0.8, stream(6), 3)
    again, moved_again = adaptive(updates, state, 0.8, stream(6), 3)
    np.testing.assert_array_equal(first[0], fixed(updates, 1.0, 2.0, stream(6), 3))
    np.testing.assert_array_equal(first[1], client_side(updates[0], 1.0, 2.0, stream(6), 3))
    np.testing.assert_array_equal(average, again)
    assert moved == moved_again
    assert not np.array_equal(first[0], fixed(updates, 1.0, 2.0, stream(7), 3))
    after = np.random.get_state(legacy=False)
    assert repr(before) == repr(after)


@pytest.mark.parametrize("quantile", [0.2, 0.5, 0.9])
@pytest.mark.parametrize("start", [0.05, 20.0])
def test_the_bound_finds_the_quantile_of_the_norms(start: float, quantile: float) -> None:
    rng = stream(8)
    norms = np.exp(rng.normal(0, 0.6, 100))
    updates = norms[:, None] * np.array([0.6, 0.8])
    state = ClipState(start, count_noise(100, 1.0), quantile)
    seen = []
    for _ in range(350):
        _, state = adaptive(updates, state, 1.0, rng, 100)
        seen.append(state.bound)
    assert np.mean(norms <= np.exp(np.mean(np.log(seen[-150:])))) == pytest.approx(quantile, abs=0.03)


@pytest.mark.parametrize("rate", [0.2, 50.0])
def test_the_bound_stays_positive_and_finite_under_any_noise(rate: float) -> None:
    for updates in (np.zeros((4, 3)), np.full((4, 3), 1e12), np.full((4, 3), np.nan), np.zeros((0, 3))):
        state = ClipState(1.0, 1e4, rate=rate)
        for number in range(60):
            average, state = adaptive(updates, state, 1.0, stream(9, number), 4)
            assert BOUNDS[0] <= state.bound <= BOUNDS[1]
            assert np.isfinite(average).all()


def test_the_bound_moves_as_the_paper_says() -> None:
    updates = np.array([[1.0], [2.0], [3.0], [4.0]])
    state = ClipState(2.5, 0.0, quantile=0.9, rate=0.2)
    average, moved = adaptive(updates, state, 0.0, stream(0), 4)
    assert moved.bound == pytest.approx(2.5 * math.exp(-0.2 * (0.5 - 0.9)))
    np.testing.assert_allclose(average, [(1 + 2 + 2.5 + 2.5) / 4])
    assert state.bound == 2.5
    with pytest.raises(FrozenInstanceError):
        state.bound = 1.0  # type: ignore[misc]


def test_a_broken_update_counts_as_the_zeros_that_it_becomes() -> None:
    bounds = []
    for last in (0.0, np.nan, np.inf, 1e9):
        _, moved = adaptive(np.array([[1.0], [9.0], [last]]), ClipState(2.0, 0.0), 0.0, stream(0), 3)
        bounds.append(moved.bound)
    assert bounds[0] == bounds[1] == bounds[2] < 2.0 < bounds[3]


def test_noise_of_an_adaptive_round_is_split_between_updates_and_count() -> None:
    state = ClipState(0.5, 1.5, rate=0.01)
    average, _ = adaptive(np.zeros((3, 200_000)), state, 2.0, stream(11), 10)
    assert average.std() == pytest.approx((2.0**-2 - 3.0**-2) ** -0.5 * 0.5 / 10, rel=0.01)
    logs = [
        math.log(adaptive(np.zeros((3, 1)), state, 2.0, stream(11, number), 10)[1].bound / 0.5)
        for number in range(4000)
    ]
    assert np.std(logs) == pytest.approx(0.01 * 1.5 / 10, rel=0.05)
    assert np.mean(logs) == pytest.approx(0.01 * (0.5 - 0.65), abs=4 * 0.0015 / math.sqrt(4000))


@pytest.mark.parametrize(("z", "sigma"), [(1.0, 5.0), (0.5, 0.3), (2.0, 2.0), (0.1, 50.0)])
def test_updates_and_count_together_cost_what_the_noise_multiplier_says(z: float, sigma: float) -> None:
    both = RdpAccountant()
    both.compose(dp.GaussianDpEvent(update_multiplier(z, sigma))).compose(dp.GaussianDpEvent(2 * sigma))
    assert both.get_epsilon(1e-5) == pytest.approx(Accountant(z, 1e-5).epsilon(1), rel=1e-9)


def test_a_count_that_costs_more_than_the_round_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"count noise 0\.5: must exceed half the noise multiplier 1"):
        update_multiplier(1.0, 0.5)
    for clients in (4, 20, 1000):
        for z in (0.1, 1.0, 10.0, 100.0):
            assert update_multiplier(z, count_noise(clients, z)) <= 1.1548 * z
    assert update_multiplier(0.0, 0.0) == 0


@pytest.mark.parametrize(("sampling", "z", "rounds", "delta"), SETTINGS)
def test_epsilon_is_dp_accountings(sampling: Poisson | FixedSize, z: float, rounds: int, delta: float) -> None:
    if isinstance(sampling, FixedSize):
        accountant = RdpAccountant(neighboring_relation=REPLACE)
        event = dp.SampledWithoutReplacementDpEvent(sampling.clients, sampling.taken, dp.GaussianDpEvent(z / 2))
    elif sampling.rate == 1:
        accountant, event = RdpAccountant(neighboring_relation=ADD_OR_REMOVE), dp.GaussianDpEvent(z)
    else:
        accountant = RdpAccountant(neighboring_relation=ADD_OR_REMOVE)
        event = dp.PoissonSampledDpEvent(sampling.rate, dp.GaussianDpEvent(z))
    accountant.compose(dp.SelfComposedDpEvent(event, rounds))
    expected = accountant.get_epsilon(delta)
    assert Accountant(z, delta, sampling).epsilon(rounds) == pytest.approx(expected, abs=1e-6)


def test_epsilon_is_an_upper_bound_on_the_exact_one() -> None:
    """The replace-one sensitivity is twice the bound: taken at z, dp-accounting's Renyi bound would lie below."""
    for z, rounds in ((1.0, 10), (3.0, 10), (20.0, 100)):
        exact = get_epsilon_gaussian(z / math.sqrt(rounds), 1e-5)
        assert exact <= Accountant(z, 1e-5).epsilon(rounds) <= 1.3 * exact
        replaced = get_epsilon_gaussian(z / 2 / math.sqrt(rounds), 1e-5)
        assert replaced <= Accountant(z, 1e-5, FixedSize(8, 8)).epsilon(rounds) <= 1.3 * replaced
    tight = PLDAccountant()
    tight.compose(dp.PoissonSampledDpEvent(0.05, dp.GaussianDpEvent(1.0)), 200)
    assert tight.get_epsilon(1e-5) <= Accountant(1.0, 1e-5, Poisson(0.05)).epsilon(200) <= 1.4 * tight.get_epsilon(1e-5)


@pytest.mark.parametrize("budget", [0.3, 2.0, 8.0, 100.0])
@pytest.mark.parametrize("sampling", [FULL, Poisson(0.05), FixedSize(10, 200)])
def test_the_budget_stop_is_tight(sampling: Poisson | FixedSize, budget: float) -> None:
    accountant = Accountant(8.0, 1e-4, sampling)
    rounds = accountant.rounds_within(budget)
    assert rounds == 0 or accountant.epsilon(rounds) <= budget
    assert accountant.epsilon(rounds + 1) > budget


def test_the_budget_stop_at_its_ends() -> None:
    assert Accountant(0.1, 1e-5).rounds_within(1.0) == 0
    assert Accountant(0.0, 1e-5).rounds_within(1e300) == 0
    assert Accountant(1e9, 1e-5).rounds_within(1.0) == MOST_ROUNDS
    for budget in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(ConfigError, match="epsilon budget"):
            Accountant(1.0, 1e-5).rounds_within(budget)


def test_epsilon_grows_with_rounds() -> None:
    epsilons = [Accountant(2.0, 1e-4, Poisson(0.2)).epsilon(rounds) for rounds in range(8)]
    assert epsilons[0] == 0
    assert epsilons == sorted(set(epsilons))


def test_without_noise_there_is_no_guarantee() -> None:
    accountant = Accountant(0.0, 1e-5, Poisson(0.1))
    assert accountant.epsilon(0) == 0
    assert accountant.epsilon(1) == math.inf
    assert accountant.guarantee(0) == accountant.guarantee(1) == "no guarantee"


def test_a_guarantee_names_epsilon_delta_neighbours_and_trust() -> None:
    accountant = Accountant(10.0, 1e-3)
    text = accountant.guarantee(100)
    assert text.startswith(
        "epsilon = 3.537, delta = 0.001 for adding or removing one client, after 100 releases; trust"
    )
    assert accountant.epsilon(100) <= 3.537
    assert "the server" in text
    replaced = Accountant(10.0, 1e-5, FixedSize(3, 30), trusted="clients").guarantee(5)
    assert "delta = 1e-05 for replacing one client" in replaced
    assert "secure aggregation" in replaced
    assert "one image" in Accountant(1.0, 1e-5, Poisson(0.1), trusted="site", unit="image").guarantee(5)


def test_default_delta_is_small_for_few_clients_too() -> None:
    assert default_delta(4) == LARGEST_DELTA
    assert default_delta(10**6) == 2.5e-7
    assert all(default_delta(n) <= min(1 / n, LARGEST_DELTA) for n in (1, 4, 100, 10**5))


def test_the_delta_that_is_printed_is_the_one_that_was_used() -> None:
    for n in range(1, 40_000, 37):
        assert n**-1.1 * 0.89 < default_delta(n) <= n**-1.1 or default_delta(n) == LARGEST_DELTA
        assert float(f"{default_delta(n):.1e}") == default_delta(n)
    for delta in (default_delta(1234), 1e-5, 1.23456789e-4):
        told = Accountant(5.0, delta).guarantee(3).split("delta = ")[1].split(" for ")[0]
        assert float(told) == delta


def test_what_is_expected_comes_from_enrolment() -> None:
    assert (FULL.expected(4), Poisson(0.25).expected(200), FixedSize(3, 9).expected(9)) == (4, 50, 3)


def test_settings_that_cannot_be_accounted_are_refused_together() -> None:
    with pytest.raises(ConfigError, match=r"\(3 found\)(?s:.)*noise multiplier nan(?s:.)*delta 0(?s:.)*trusted 'all'"):
        Accountant(math.nan, 0.0, trusted="all")
    with pytest.raises(ConfigError, match=r"\(4 found\)"):
        ClipState(0.0, -1.0, 2.0, 0.0)
    for rate in (0.0, 1.1, math.nan):
        with pytest.raises(ConfigError, match="sampling rate"):
            Poisson(rate)
    for taken in (0, 5):
        with pytest.raises(ConfigError, match=f"{taken} of 4 clients"):
            FixedSize(taken, 4)


def test_percentile_noise_has_the_level_it_says() -> None:
    rng = np.random.default_rng(0)
    before: Arrays = {"w": np.zeros((200, 200), np.float32), "bn.num_batches_tracked": np.array(3)}
    after: Arrays = {"w": rng.standard_normal((200, 200)).astype(np.float32), "bn.num_batches_tracked": np.array(4)}
    sigma = 2 * np.percentile(np.abs(after["w"]), 95)
    noised = percentile_noise(before, after, 2.0, np.random.default_rng(1))
    assert np.std(np.asarray(noised["w"], np.float64) - np.asarray(after["w"], np.float64)) == pytest.approx(
        sigma, rel=0.02
    )
    assert noised["bn.num_batches_tracked"] == 4
    assert noised["w"].dtype == np.float32
    same = percentile_noise(before, after, 0.0, np.random.default_rng(1))
    np.testing.assert_array_equal(same["w"], after["w"])
    np.testing.assert_array_equal(percentile_noise(before, before, 2.0, np.random.default_rng(1))["w"], before["w"])
