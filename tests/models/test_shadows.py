"""Models for membership inference: whose images they see, that they repeat, that averaging averages."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from fedsec.config import RunConfig
from fedsec.images import to_images
from fedsec.models.networks import NetworkSpec, new_network
from fedsec.models.shadows import Regime, average, judged_real, quarter, trained, trained_gan
from fedsec.types import Dataset
from tests.metrics.samples import lesions

SHAPE = NetworkSpec("convnet", "batch", 3, 2, width=8)
ROWS = lesions(24, "shadows", channels=3, size=32)


def data(n: int = 80) -> Dataset:
    """Images of 50 patients, some with several, labels in both classes."""
    rows = lesions(n, "quarters", channels=3, size=32)
    none = np.zeros(n, np.int64)
    groups = np.arange(n) % 50
    return Dataset("", rows.pixels, groups % 2, ("a", "b"), none, ("",), groups, np.arange(n), none[:0], "0")


@pytest.mark.parametrize("draw", [0, 1])
def test_the_quarters_of_a_draw_are_all_images_and_share_no_patient(draw: int) -> None:
    whole = data()
    parts = [quarter(whole, 4 * draw + place, seed=3) for place in range(4)]
    assert sorted(np.concatenate(parts)) == list(range(80))
    for one in range(4):
        assert len(parts[one]) >= 10
        assert set(whole.labels[parts[one]]) == {0, 1}
        for other in range(one):
            assert not set(whole.groups[parts[one]]) & set(whole.groups[parts[other]])


def test_quarters_repeat_by_seed_and_differ_by_draw() -> None:
    whole = data()
    assert np.array_equal(quarter(whole, 1, seed=3), quarter(whole, 1, seed=3))
    assert not np.array_equal(quarter(whole, 1, seed=3), quarter(whole, 5, seed=3))
    assert not np.array_equal(quarter(whole, 1, seed=3), quarter(whole, 1, seed=4))


@pytest.mark.parametrize("regime", [Regime(6, "translate"), Regime(16, clients=2, local=4, batch=8)])
def test_a_model_repeats_by_seed_and_leaves_the_global_generator_alone(regime: Regime) -> None:
    before = torch.random.get_rng_state()
    one, two, other = (trained(ROWS, regime, SHAPE, seed=seed).state_dict() for seed in (1, 1, 2))
    assert torch.equal(before, torch.random.get_rng_state())
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not torch.equal(one["fc.weight"], other["fc.weight"])


def test_enough_steps_learn_a_small_set_by_heart() -> None:
    network = trained(ROWS, Regime(80, lr=1e-2, batch=12), SHAPE, seed=0)
    assert not network.training
    with torch.no_grad():
        right = network(torch.from_numpy(to_images(ROWS.pixels))).argmax(dim=1).numpy() == ROWS.labels
    assert right.mean() > 0.9


def test_one_client_with_all_images_is_no_federation_and_more_clients_are_one() -> None:
    alone = trained(ROWS, Regime(8, batch=8), SHAPE, seed=0).state_dict()
    shared = trained(ROWS, Regime(8, batch=8, clients=2, local=2), SHAPE, seed=0).state_dict()
    assert not torch.equal(alone["fc.weight"], shared["fc.weight"])
    assert int(alone["features.1.num_batches_tracked"]) == 8
    assert int(shared["features.1.num_batches_tracked"]) == 4, "two rounds of two steps at each of two clients"


def test_the_average_is_the_mean_and_equal_networks_are_their_own() -> None:
    one, two = new_network(SHAPE, seed=0), new_network(SHAPE, seed=1)
    mean = average([one, two])
    for name, value in one.state_dict().items():
        if value.is_floating_point():
            torch.testing.assert_close(mean[name], (value + two.state_dict()[name]) / 2)
    same = average([one, one, one])
    assert all(torch.allclose(same[name], value) for name, value in one.state_dict().items())


def test_a_generator_repeats_and_its_discriminator_judges_each_row() -> None:
    config = RunConfig.from_flat({"data.size": 32, "gan.width": 4, "train.steps": 2, "train.batch": 4})
    pair, drawn = trained_gan(ROWS, config, classes=2, count=10, seed=5)
    again = trained_gan(ROWS, config, classes=2, count=10, seed=5)[1]
    assert drawn.shape == (10, 3, 32, 32)
    assert np.array_equal(drawn, again)
    assert np.abs(drawn).max() <= 1
    judged = judged_real(pair.discriminator, ROWS, batch=24)
    assert judged.shape == (24,)
    order = np.arange(24)[::-1].copy()
    turned = judged_real(pair.discriminator, replace(ROWS, pixels=ROWS.pixels[order], labels=ROWS.labels[order]), 24)
    np.testing.assert_allclose(turned, judged[order], atol=1e-5)
