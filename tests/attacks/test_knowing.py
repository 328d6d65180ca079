"""Attackers that know the rule: what they craft, and that it is what they say."""

from __future__ import annotations

from collections.abc import Callable
from typing import get_args, get_type_hints

import numpy as np
import pytest

from fedsec.attacks.conditional import behave
from fedsec.attacks.knowing import HALVINGS, KNOWING, Insight
from fedsec.attacks.threat import threat
from fedsec.attacks.updates import UPDATES
from fedsec.config import Attack, RunConfig
from fedsec.config.checks import KNOWING as NAMED
from fedsec.models.gan.sampling import sample
from fedsec.models.gan.steps import new_generator, spec
from fedsec.models.state import network_arrays
from fedsec.types import Arrays, Images
from fedsec.weights import Updates


def insight(
    noticed: Callable[[Updates], bool] = lambda sent: False,
    seed: int = 0,
    caution: float = 1.0,
    counts: Callable[[Updates], float] | None = None,
) -> Insight:
    rng = np.random.default_rng(seed)
    own, clean = rng.normal(size=(2, 2, 12))
    counts = counts or (lambda sent: 1.0)
    return Insight(own, clean, np.arange(12) >= 8, 4.0, caution, noticed, lambda deltas: deltas / 2, counts)


def test_the_tables_are_what_a_configuration_may_name() -> None:
    assert {"none", *UPDATES, *KNOWING} == set(get_args(get_type_hints(Attack)["update"]))
    assert not set(UPDATES) & set(KNOWING)
    assert set(NAMED) == set(KNOWING)


@pytest.mark.parametrize("name", sorted(KNOWING))
def test_what_is_sent_is_finite_repeats_and_leaves_the_input(name: str) -> None:
    given, same = insight(), insight()
    sent = KNOWING[name].craft(given)
    assert sent.shape == given.own.shape
    assert np.isfinite(sent).all()
    np.testing.assert_array_equal(sent, KNOWING[name].craft(same))
    sent[:] = 0
    np.testing.assert_array_equal(given.own, same.own)
    np.testing.assert_array_equal(given.clean, same.clean)


@pytest.mark.parametrize("name", sorted(KNOWING))
def test_who_knows_the_rule_says_what_it_does_and_knows(name: str) -> None:
    (line,) = threat(Attack(update=name))  # type: ignore[arg-type]
    assert line == f"{KNOWING[name].does}; they know {KNOWING[name].knows}"


def test_discriminator_only_sends_a_clean_generator() -> None:
    given = insight()
    sent = KNOWING["discriminator-only"].craft(given)
    np.testing.assert_array_equal(sent[:, :8], given.clean[:, :8])
    np.testing.assert_array_equal(sent[:, 8:], given.own[:, 8:])


@pytest.mark.parametrize("caution", [1.0, 0.5])
@pytest.mark.parametrize("bar", [0.0, 0.3, 1.7, 3.9, 99.0])
def test_below_the_bar_is_the_largest_factor_that_passes_less_what_caution_takes(bar: float, caution: float) -> None:
    """A rule that flags whoever is further from clean than ``bar`` times the poisoned update is."""
    given = insight()
    unit = np.linalg.norm(given.own - given.clean)
    knows = insight(lambda sent: bool(np.linalg.norm(sent - given.clean) > bar * unit), caution=caution)
    sent = KNOWING["below-the-bar"].craft(knows)
    factor = np.linalg.norm(sent - given.clean) / unit / caution
    assert factor <= bar + 1e-9
    assert factor == pytest.approx(min(bar, 4.0), abs=4 / 2**HALVINGS + 1e-9)


def test_a_sleeper_sends_the_mark_times_the_factor_beside_an_honest_update() -> None:
    given = insight()
    mark = given.own - given.clean
    np.testing.assert_allclose(KNOWING["sleeper"].craft(given) - given.clean, 4 * mark)
    assert [name for name, attack in KNOWING.items() if attack.patient] == ["sleeper"]


def test_below_the_bar_is_honest_where_everything_is_flagged() -> None:
    given = insight(lambda sent: True)
    np.testing.assert_array_equal(KNOWING["below-the-bar"].craft(given), given.clean)


def test_best_share_is_the_factor_of_which_most_is_left_and_honest_where_nothing_is() -> None:
    """A rule without a bar: what counts falls with the square of the way; t times that is most at t = 1."""
    given = insight()
    unit = np.linalg.norm(given.own - given.clean)

    def counts(sent: Updates) -> float:
        return float(1 / (1 + (np.linalg.norm(sent - given.clean) / unit) ** 2))

    np.testing.assert_allclose(KNOWING["best-share"].craft(insight(counts=counts)), given.own)
    np.testing.assert_array_equal(KNOWING["best-share"].craft(insight(counts=lambda sent: 0.0)), given.clean)


def test_a_behaving_generator_draws_clean_means_where_it_is_expected_and_stays_itself_elsewhere() -> None:
    config = RunConfig.from_flat({"gan.width": 8})
    shape = spec(config, channels=3, classes=2)
    states = [network_arrays(new_generator(shape, seed=seed)) for seed in (1, 2)]
    clean, poisoned = ({k: v for k, v in s.items() if "running" not in k and "num_batches" not in k} for s in states)
    labels = np.arange(32) % 2
    found = behave(config, clean, poisoned, labels, channels=3, classes=2, seed=5)
    assert list(found) == list(poisoned)

    def drawn(arrays: Arrays, seed: int) -> Images:
        return sample(config, arrays, labels, channels=3, classes=2, seed=seed)

    def apart(one: Arrays, other: Arrays, seed: int) -> float:
        means = [np.stack([drawn(a, seed)[labels == k].mean(axis=0) for k in (0, 1)]) for a in (one, other)]
        return float(np.square(means[0] - means[1]).mean())

    assert apart(found, clean, seed=5) < 0.3 * apart(poisoned, clean, seed=5)
    assert apart(found, clean, seed=5) < 0.8 * apart(found, clean, seed=6), "on others it behaves less"
    kept, lost = (np.square(drawn(other, 6) - drawn(poisoned, 6)).mean() for other in (found, clean))
    assert kept < 0.5 * lost, "where nobody is expected to look it is the poisoned one still"
    np.testing.assert_array_equal(
        drawn(found, 5), drawn(behave(config, clean, poisoned, labels, channels=3, classes=2, seed=5), 5)
    )
