"""Probing clients train like honest ones, report numbers only, and keep an update that says too much."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from clients.classifier import ClassifierClient
from clients.probe import BatchNormProbeClient, InversionProbeClient, recognised
from fedsec.datasets.phantom import draw
from fedsec.errors import ProbeError, ReplyError
from fedsec.images import to_images
from fedsec.metrics.similarity import ssim
from fedsec.models.networks import NetworkSpec, new_network
from fedsec.models.state import network_arrays
from fedsec.probes.audit import Means, inverted, known_labels
from fedsec.probes.replica import Replica
from fedsec.probes.view import Recipe
from fedsec.types import Images, Rows

RECIPE = Recipe(network="convnet", size=32)


def start() -> list[np.ndarray]:
    return list(network_arrays(new_network(NetworkSpec("convnet"), seed=1)).values())


@pytest.fixture(scope="module")
def chests() -> Rows:
    raw = draw("chest", 24, 32, seed=0)
    return Rows(raw.pixels, np.zeros(24, np.int64))


@pytest.fixture(scope="module")
def strangers(chests: Rows) -> Images:
    return to_images(chests.pixels[4:])


@pytest.fixture(scope="module")
def prior(strangers: Images) -> Images:
    mean: Images = strangers.mean(axis=0, keepdims=True)
    return mean


def test_the_statistics_of_one_image_single_it_out(chests: Rows, strangers: Images) -> None:
    own = chests.take(np.array([0]))
    client = BatchNormProbeClient(RECIPE, own, partition=0, seed=0, strangers=strangers)
    sent, examples, told = client.fit(start(), {"round": 1})
    honest = ClassifierClient(RECIPE, own, partition=0, seed=0).fit(start(), {"round": 1})
    for value, expected in zip(sent, honest[0], strict=True):
        np.testing.assert_array_equal(value, expected)
    assert examples == 1
    assert (told["probe-steps"], told["probe-likelier"]) == (1, 1)
    assert told["probe-noise-gain"] == pytest.approx(10)
    assert float(told["probe-recovery-error"]) < 1e-4
    assert set(told) == {"loss", "probe-steps", "probe-noise-gain", "probe-recovery-error", "probe-likelier"}


def test_images_that_were_not_trained_on_are_no_likelier_than_strangers() -> None:
    """However many there are: the likeliest of forty is likelier than one stranger."""
    found = []
    for seed in range(4):
        chests = Rows(draw("chest", 60, 32, seed=seed).pixels, np.zeros(60, np.int64))
        own, strangers = chests.take(np.arange(40)), to_images(chests.pixels[40:])
        client = BatchNormProbeClient(RECIPE, own, partition=0, seed=seed, strangers=strangers)  # one step of one image
        found.append(float(client.fit(start(), {"round": 1})[2]["probe-likelier"]))
    assert 0.35 < np.mean(found) < 0.65


def test_the_error_of_recovery_is_that_of_the_round_as_it_was_trained(chests: Rows, strangers: Images) -> None:
    recipe = Recipe(network="convnet", size=32, steps=3, batch=2)
    client = BatchNormProbeClient(recipe, chests.take(np.arange(6)), partition=0, seed=0, strangers=strangers)
    assert float(client.fit(start(), {"round": 1})[2]["probe-recovery-error"]) < 1e-4
    client = BatchNormProbeClient(recipe, chests.take(np.arange(5)), partition=0, seed=0, strangers=strangers)
    odd = float(client.fit(start(), {"round": 1})[2]["probe-recovery-error"])
    assert 1e-4 < odd < 0.1, "a last batch of one image has another n, which nobody tells"


def test_the_images_own_update_draws_it(chests: Rows, prior: Images) -> None:
    own, public = chests.take(np.array([0])), chests.take(np.arange(4, 24))
    client = InversionProbeClient(RECIPE, own, partition=0, seed=0, public=public, iterations=40)
    _, _, told = client.fit(start(), {"round": 1})
    assert float(told["probe-rdlv"]) > 0.2
    assert told["probe-recognised"] == 1
    view = client.captured
    assert view is not None
    images, said = inverted(view, "row-space", Means(prior, None, 0, 300))
    truth = to_images(own.pixels)
    assert ssim(truth, images)[0] > ssim(truth, prior)[0] + 0.2
    assert said["gap"] > 1e3


@pytest.mark.parametrize("protect", ["", "noise=0.1", "noise=0.3", "noise=1"])
def test_an_update_that_says_too_much_does_not_leave(chests: Rows, protect: str) -> None:
    """Noise of these strengths made an earlier attack give up, and the gate let the update go."""
    own, public = chests.take(np.array([0])), chests.take(np.arange(4, 24))
    limited = InversionProbeClient(
        RECIPE, own, partition=0, seed=0, public=public, iterations=60, limit=0.5, protect=protect
    )
    with pytest.raises(ReplyError, match=r"update withheld: .*recognised.* limit is 0\.5; leave this round out"):
        limited.fit(start(), {"round": 1})


def test_a_leak_that_cannot_be_measured_does_not_leave_either_unless_the_site_says_so(chests: Rows) -> None:
    """'row-space' has nothing to read in a batch of eight through this network."""
    own, public = chests.take(np.arange(8)), chests.take(np.arange(8, 24))
    usual: dict[str, Any] = {"partition": 0, "seed": 0, "public": public, "attack": "row-space", "iterations": 5}
    recipe = Recipe(network="convnet", size=32, batch=8)
    limited = InversionProbeClient(recipe, own, limit=10.0, **usual)
    with pytest.raises(ReplyError, match=r"withheld: .*gave no number \(not attempted: .*unmeasured = 'send'"):
        limited.fit(start(), {"round": 1})
    InversionProbeClient(recipe, own, limit=10.0, unmeasured="send", **usual).fit(start(), {"round": 1})
    _, _, told = InversionProbeClient(recipe, own, **usual).fit(start(), {"round": 1})
    assert np.isnan(told["probe-rdlv"]), "no number, not that of the prior"
    with pytest.raises(ProbeError, match="not attempted: no layer"):
        inverted(limited.captured, "row-space", Means(to_images(chests.pixels[:1]), None, 0))  # type: ignore[arg-type]


def test_recognised_is_by_the_nearest_image() -> None:
    truth = np.random.default_rng(0).standard_normal((3, 1, 16, 16)).astype(np.float32)
    others = np.random.default_rng(1).standard_normal((9, 1, 16, 16)).astype(np.float32)
    assert recognised(truth, 0.2 * truth[::-1] + 0.5, others) == 1, "order, contrast and brightness do not matter"
    assert recognised(truth, others[:3], others) == 0
    assert recognised(truth, np.zeros_like(truth), others) == 0, "a blank answer is like nobody"


def test_a_gate_is_not_opened_by_an_attack_that_was_hardly_made(chests: Rows) -> None:
    own, public = chests.take(np.array([0])), chests.take(np.arange(4, 24))
    limited = InversionProbeClient(RECIPE, own, partition=0, seed=0, public=public, iterations=1, limit=0.5)
    with pytest.raises(ReplyError, match="1 iterations of span are no attempt"):
        limited.fit(start(), {"round": 1})


def test_the_labels_of_a_batch_come_from_the_last_bias(chests: Rows) -> None:
    labels = np.array([0, 1, 1, 1])
    own, public = Rows(chests.pixels[:4], labels), Rows(chests.pixels[4:], np.arange(20) % 2)
    client = ClassifierClient(Recipe(network="convnet", size=32, batch=4), own, partition=0, seed=0)
    client.fit(start(), {"round": 1})
    view = client.captured
    assert view is not None
    replica = Replica(view.recipe, view.before)
    found = known_labels(view, replica, public)
    assert found is not None
    assert found.tolist() == [0, 1, 1, 1]
    assert known_labels(view, replica, None) is None
    images, said = inverted(view, "see-through-gradients", Means(to_images(chests.pixels[:1]), public, 0, 3))
    assert images.shape == (4, 1, 32, 32)
    assert np.isfinite(said["loss"])
