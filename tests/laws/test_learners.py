"""Laws of every model family: what travels and what stays makes the whole, equal seeds make equal rounds."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fedsec.config import RunConfig
from fedsec.models.gan.learner import LEARNERS, Learner, new_learner
from fedsec.models.gan.sampling import SAMPLERS, sample
from fedsec.types import Arrays, Rows
from fedsec.weights import Layout, generator_arrays

SETTINGS: dict[str, dict[str, Any]] = {
    "dcgan": {},
    "private dcgan": {"privacy.image-bound": 1.0},
    "diffusion": {"gan.family": "diffusion", "gan.denoising": 3, "train.lr": 2e-3, "train.beta1": 0.9},
}
SMALL = {"gan.width": 16, "gan.latent": 8, "train.steps": 3, "train.batch": 4}
ROWS = Rows(np.random.default_rng(0).integers(0, 256, (24, 32, 32, 3), dtype=np.uint8), np.arange(24) % 2)


def config(name: str) -> RunConfig:
    return RunConfig.from_flat({**SMALL, **SETTINGS[name]})


def learner(name: str, seed: int = 1) -> Learner:
    return new_learner(config(name), channels=3, classes=2, seed=seed, device="cpu")


def equal(ours: Arrays, theirs: Arrays) -> bool:
    return ours.keys() == theirs.keys() and all(np.array_equal(ours[name], theirs[name]) for name in ours)


def test_every_family_has_a_learner_a_sampler_and_these_laws() -> None:
    assert set(SETTINGS) == set(LEARNERS)
    assert {config(name).gan.family for name in SETTINGS} == set(SAMPLERS)


@pytest.mark.parametrize("name", sorted(LEARNERS))
def test_equal_seeds_start_from_equal_weights_and_train_alike(name: str) -> None:
    first, second, other = learner(name), learner(name), learner(name, seed=2)
    assert equal(first.shared(), second.shared())
    assert not equal(first.shared(), other.shared())
    assert first.train(ROWS, seed=7) == second.train(ROWS, seed=7)
    assert equal(first.shared(), second.shared())
    assert equal(first.kept(), second.kept())


@pytest.mark.parametrize("name", sorted(LEARNERS))
def test_shared_and_kept_together_are_the_whole_state(name: str) -> None:
    """Two rounds with a change of hands between them are two rounds of one learner."""
    whole, part = learner(name), learner(name)
    whole.train(ROWS, seed=1)
    part.train(ROWS, seed=1)
    heir = learner(name, seed=9)
    heir.load(part.shared(), part.kept())
    assert heir.train(ROWS, seed=2) == whole.train(ROWS, seed=2)
    assert equal(heir.shared(), whole.shared())


@pytest.mark.parametrize("name", sorted(LEARNERS))
def test_what_is_reported_are_finite_losses_and_training_moves_what_travels(name: str) -> None:
    one = learner(name)
    before = one.shared()
    losses = one.train(ROWS, seed=3)
    assert {"g-loss", "g-loss-last", "g-loss-first"} <= set(losses)
    assert np.isfinite(list(losses.values())).all()
    after = one.shared()
    Layout.of(before).check(after)
    assert any(not np.array_equal(before[key], after[key]) for key in before)


@pytest.mark.parametrize("name", sorted(LEARNERS))
def test_the_server_draws_from_what_travels(name: str) -> None:
    labels = np.arange(6) % 2
    arrays = generator_arrays(learner(name).shared())
    drawn = sample(config(name), arrays, labels, channels=3, classes=2, seed=4)
    assert drawn.shape == (6, 3, 32, 32)
    assert np.abs(drawn).max() <= 1
    np.testing.assert_array_equal(drawn, sample(config(name), arrays, labels, channels=3, classes=2, seed=4))
