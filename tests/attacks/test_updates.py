"""Every update attack does what its source says, and stays finite where there is little to see."""

from __future__ import annotations

from dataclasses import replace
from typing import get_args, get_type_hints

import numpy as np
import pytest

from fedsec.attacks.updates import MAJORITY, UPDATES, Known, UpdateAttack, alie_z
from fedsec.config import Attack
from fedsec.weights import Updates

CORNERS = [(1, 3), (1, 1), (1, 2), (1, 0), (3, 0), (3, 1), (2, 8), (3, 4)]
SEEN = [(1, 2), (1, 3), (2, 8), (3, 0)]
"""(attackers, honest) that show a spread, if only their own."""


def known(attackers: int, honest: int, *, strength: float = 0.0, seed: int = 0, size: int = 40) -> Known:
    rng = np.random.default_rng(seed)
    shared = rng.normal(size=size)
    return Known(
        own=shared + 0.5 * rng.normal(size=(attackers, size)),
        others=shared + 0.5 * rng.normal(size=(honest, size)),
        clients=attackers + honest,
        previous=rng.normal(size=size),
        strength=strength,
        rng=np.random.default_rng(seed + 1),
    )


def distances(one: Updates, many: Updates) -> Updates:
    return np.asarray(np.linalg.norm(one[:, None] - many[None], axis=2))


def test_the_table_is_what_a_configuration_may_name() -> None:
    assert {"none", *UPDATES} < set(get_args(get_type_hints(Attack)["update"])), "the others know the rule"
    assert {attack.knows for attack in UPDATES.values()} == set(get_args(get_type_hints(UpdateAttack)["knows"]))
    assert all(attack.source for attack in UPDATES.values())


@pytest.mark.parametrize("strength", [0.0, 2.5])
@pytest.mark.parametrize(("attackers", "honest"), CORNERS)
@pytest.mark.parametrize("name", sorted(UPDATES))
def test_what_is_sent_is_finite_seeded_and_leaves_the_input(
    name: str, attackers: int, honest: int, strength: float
) -> None:
    given = known(attackers, honest, strength=strength)
    kept = [given.own.copy(), given.others.copy(), given.previous.copy()]
    sent = UPDATES[name].craft(given)
    assert sent.shape == given.own.shape
    assert sent.dtype == np.float64
    assert np.isfinite(sent).all()
    for now, before in zip([given.own, given.others, given.previous], kept, strict=True):
        np.testing.assert_array_equal(now, before)
    np.testing.assert_array_equal(UPDATES[name].craft(known(attackers, honest, strength=strength)), sent)
    sent[:] = 0
    np.testing.assert_array_equal(given.others, kept[1], err_msg="what is sent must be a copy")


@pytest.mark.parametrize("honest", [2, 3, 6])
@pytest.mark.parametrize("name", sorted(UPDATES))
def test_the_order_of_the_honest_does_not_matter(name: str, honest: int) -> None:
    sent = UPDATES[name].craft(known(2, honest))
    for turn in range(honest):
        given = known(2, honest)
        turned = replace(given, others=np.roll(given.others[::-1], turn, axis=0))
        np.testing.assert_allclose(UPDATES[name].craft(turned), sent, atol=1e-9)


@pytest.mark.parametrize("name", sorted(name for name, attack in UPDATES.items() if attack.knows != "all updates"))
def test_who_does_not_know_the_others_does_not_look_at_them(name: str) -> None:
    blind = replace(known(2, 5), others=np.full((5, 40), np.nan))
    np.testing.assert_array_equal(UPDATES[name].craft(blind), UPDATES[name].craft(known(2, 5)))


@pytest.mark.parametrize("value", [0.0, 0.1, 1.5, 1e-200, 1e6])
@pytest.mark.parametrize("name", sorted(UPDATES))
def test_equal_and_zero_updates_divide_by_nothing(name: str, value: float) -> None:
    flat = np.full(9, value)
    same = Known(np.tile(flat, (2, 1)), np.tile(flat, (3, 1)), 5, 0 * flat, 0.0, np.random.default_rng(0))
    sent = UPDATES[name].craft(same)
    assert np.isfinite(sent).all()
    assert np.abs(sent).max() <= 10 * value


def test_scaling_makes_the_mean_the_attackers() -> None:
    given = known(1, 3)
    rest = np.zeros((3, 40))
    np.testing.assert_allclose(np.concatenate([UPDATES["scale"].craft(given), rest]).mean(axis=0), given.own[0])
    pair = known(2, 3)
    np.testing.assert_allclose(
        np.concatenate([UPDATES["scale"].craft(pair), rest]).mean(axis=0), pair.own.mean(axis=0), atol=1e-12
    )


def test_a_flipped_sign_is_the_opposite() -> None:
    given = known(2, 3)
    np.testing.assert_array_equal(UPDATES["sign-flip"].craft(given), -given.own)
    np.testing.assert_array_equal(UPDATES["sign-flip"].craft(known(2, 3, strength=3.0)), -3 * given.own)


def test_gaussian_noise_has_the_own_updates_length() -> None:
    given = known(2, 3, size=20_000)
    sent = UPDATES["gaussian"].craft(given)
    np.testing.assert_allclose(np.linalg.norm(sent, axis=1) / np.linalg.norm(given.own, axis=1), 1, atol=0.03)
    assert np.abs(sent.mean(axis=1)).max() < 0.03 * sent.std(), "its mean is 0"
    np.testing.assert_allclose(
        UPDATES["gaussian"].craft(known(2, 3, strength=4.0)), 4 * UPDATES["gaussian"].craft(known(2, 3))
    )


def test_alie_has_the_z_of_its_paper_and_stays_within_it() -> None:
    # n = 50, m = 24: s = 26 - 24 = 2 supporters are needed of 26 honest, Phi(z) = (50 - 24 - 2) / (50 - 24) = 0.923
    assert alie_z(50, 24) == pytest.approx(1.426, abs=1e-3)
    # n = 25, m = 5: s = 13 - 5 = 8 of 20, Phi(z) = 0.6
    assert alie_z(25, 5) == pytest.approx(0.2533, abs=1e-4)
    # n = 4, m = 1: s = 2 of 3, Phi(z) = 1/3 has only a negative z; n = 4, m = 3 need nobody
    assert alie_z(4, 1) == 0.0
    assert alie_z(4, 3) == alie_z(4, 4) == MAJORITY
    assert 0 < alie_z(10_001, 5000) <= MAJORITY
    given = known(24, 26)
    seen = np.concatenate([given.own, given.others])
    sent = UPDATES["alie"].craft(given)
    np.testing.assert_allclose(np.abs(sent - seen.mean(axis=0)), alie_z(50, 24) * seen.std(axis=0) * np.ones((24, 1)))
    assert len(np.unique(sent, axis=0)) == 1


def test_ipm_turns_the_mean_against_the_honest() -> None:
    given = known(1, 3)
    sent, honest = UPDATES["ipm"].craft(given), given.others.mean(axis=0)
    assert float(sent[0] @ honest) < 0
    assert float(np.concatenate([sent, given.others]).mean(axis=0) @ honest) < 0
    small = UPDATES["ipm"].craft(known(1, 3, strength=0.5))
    assert float(small[0] @ honest) < 0
    assert float(np.concatenate([small, given.others]).mean(axis=0) @ honest) > 0


@pytest.mark.parametrize(("attackers", "honest"), SEEN)
def test_min_max_is_as_far_as_two_honest_ones_and_no_further(attackers: int, honest: int) -> None:
    given = known(attackers, honest)
    sent = UPDATES["min-max"].craft(given)
    away = distances(sent, given.honest).max()
    assert away == pytest.approx(distances(given.honest, given.honest).max(), rel=1e-9)
    assert (given.honest.mean(axis=0) > sent).all(), "the direction is minus the deviation"


@pytest.mark.parametrize(("attackers", "honest"), SEEN)
def test_min_sum_has_the_largest_honest_sum_of_squares(attackers: int, honest: int) -> None:
    given = known(attackers, honest)
    sums = np.square(distances(UPDATES["min-sum"].craft(given)[:1], given.honest)).sum()
    assert sums == pytest.approx(np.square(distances(given.honest, given.honest)).sum(axis=1).max(), rel=1e-9)


def test_min_sum_stays_nearer_than_min_max() -> None:
    given = known(2, 8)
    mean = given.others.mean(axis=0)
    near, far = (np.linalg.norm(UPDATES[name].craft(given)[0] - mean) for name in ("min-sum", "min-max"))
    assert near < far


def test_with_one_honest_to_see_min_max_and_min_sum_are_its_copy() -> None:
    given = known(2, 1)
    for name in ("min-max", "min-sum"):
        np.testing.assert_array_equal(UPDATES[name].craft(given), np.tile(given.others, (2, 1)))


@pytest.mark.parametrize("honest", [1, 2, 6])
def test_a_mimic_is_one_of_the_honest(honest: int) -> None:
    given = known(3, honest)
    sent = UPDATES["mimic"].craft(given)
    assert (sent == sent[0]).all()
    assert any((sent[0] == other).all() for other in given.others)


def test_a_mimic_copies_the_one_furthest_out() -> None:
    given = known(3, 6)
    given.others[4] += 50
    sent = UPDATES["mimic"].craft(given)
    np.testing.assert_array_equal(sent, np.tile(given.others[4], (3, 1)))


def test_a_free_rider_repeats_the_last_change_and_knows_nothing_else() -> None:
    assert [name for name, attack in UPDATES.items() if attack.knows == "global models"] == ["free-rider"]
    given = known(2, 3)
    away = np.abs(UPDATES["free-rider"].craft(given) - given.previous)
    assert 0 < away.max() < 0.6 * given.previous.std()
    untrained = replace(given, own=np.full_like(given.own, np.nan), rng=np.random.default_rng(1))
    np.testing.assert_array_equal(UPDATES["free-rider"].craft(untrained), UPDATES["free-rider"].craft(known(2, 3)))
