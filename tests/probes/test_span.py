"""The attack that knows of noise: what it takes for noise, that truth is likelier, and that strength takes it away."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch

from clients.classifier import ClassifierClient
from fedsec.datasets.phantom import draw
from fedsec.errors import ProbeError
from fedsec.images import to_images
from fedsec.metrics.iip import pixels
from fedsec.models.networks import NetworkSpec, new_network
from fedsec.models.state import network_arrays
from fedsec.privacy.protection import PROTECTIONS, Chosen
from fedsec.probes.adapted import ADAPTED
from fedsec.probes.audit import ATTACKS, Means, pooled
from fedsec.probes.batchnorm import recovered
from fedsec.probes.candidates import likeness, rank_of
from fedsec.probes.gaussian import GaussianPrior
from fedsec.probes.replica import Replica
from fedsec.probes.span import FEWEST, LEAST, Observation, _below_edge, noise_levels, span
from fedsec.probes.upstream import as_one_step
from fedsec.probes.view import Recipe, ServerView
from fedsec.reports import leaks
from fedsec.seeds import stream
from fedsec.types import Arrays, Images, Rows
from tests.probes.rounds import disturbed

RECIPE = Recipe(network="convnet", size=32)


@pytest.fixture(scope="module")
def chests() -> Rows:
    raw = draw("chest", 60, 32, seed=0)
    return Rows(raw.pixels, np.zeros(60, np.int64))


@pytest.fixture(scope="module")
def prior(chests: Rows) -> Images:
    mean: Images = to_images(chests.pixels[10:]).mean(axis=0, keepdims=True)
    return mean


@pytest.fixture(scope="module")
def learned(chests: Rows, prior: Images) -> GaussianPrior:
    return GaussianPrior.of(to_images(chests.pixels[10:]), mean=prior)


def reply(rows: Rows, recipe: Recipe = RECIPE, *, number: int = 1, protect: str = "") -> ServerView:
    before = list(network_arrays(new_network(NetworkSpec("convnet", recipe.norm), seed=1)).values())
    client = ClassifierClient(recipe, rows, partition=0, seed=0, protect=protect)
    client.fit(before, {"round": number})
    assert client.captured is not None
    return client.captured


def correlation(one: Images, other: Images) -> float:
    a, b = pixels(one)[0], pixels(other)[0]
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def most_like_another(images: Images, chests: Rows) -> float:
    return max(correlation(images, to_images(chests.pixels[k : k + 1])) for k in range(1, len(chests)))


def test_the_noise_is_read_off_the_update(chests: Rows) -> None:
    view = reply(chests.take(np.array([0])))
    replica = Replica(view.recipe, view.before)
    clean = noise_levels(view, replica)
    assert max(clean.values()) < 1e-7, "float32 alone"
    share = 0.5
    noisy = disturbed(view, share)
    found = noise_levels(noisy, replica)
    name = max(replica.convolutions(), key=lambda layer: int(np.prod(view.before[f"{layer}.weight"].shape)))
    true = share * float(np.sqrt(np.mean(np.square(view.update[f"{name}.weight"]))))
    assert 0.8 * true < found[name] < 1.05 * true


def test_noise_that_drowns_the_signal_is_read_whole() -> None:
    """Taking out as many directions as there could be signal in would leave 0.9 of pure noise."""
    rng = stream(0, "noise")
    noise, signal = rng.normal(0, 2.0, (128, 1152)), rng.normal(size=(128, 60)) @ rng.normal(size=(60, 1152))
    assert _below_edge(noise, 64) == pytest.approx(2.0, rel=0.01)
    assert _below_edge(noise + 0.01 * signal, 64) == pytest.approx(2.0, rel=0.02)
    assert _below_edge(noise + 10 * signal, 64) == pytest.approx(2.0, rel=0.03)


@pytest.mark.parametrize("norm", ["batch", "group"])
@pytest.mark.parametrize("protect", ["", "noise=1", "quantise=1", "prune=0.9", "local-statistics=1", "noise=2"])
def test_the_true_image_is_likelier_than_the_prior(chests: Rows, prior: Images, protect: str, norm: str) -> None:
    own = chests.take(np.array([0]))
    seen = Observation.of(reply(own, replace(RECIPE, norm=norm), protect=protect))  # type: ignore[arg-type]
    with torch.no_grad():
        truth, blank, other = (
            float(seen.surprise(torch.from_numpy(images).float(), LEAST))
            for images in (to_images(own.pixels), prior, to_images(chests.pixels[1:2]))
        )
    assert truth < blank
    assert truth < other


@pytest.mark.parametrize(
    "protect", ["", "noise=0.1", "noise=1", "quantise=0.3", "prune=0.5", "local-statistics=1", "clip-noise=0.00001"]
)
def test_the_image_is_drawn_through_protections(chests: Rows, prior: Images, protect: str) -> None:
    own = chests.take(np.array([0]))
    images, told = ATTACKS["span"](reply(own, protect=protect), Means(prior, chests.take(np.arange(10, 40)), 0, 40))
    truth = to_images(own.pixels)
    assert correlation(images, truth) > correlation(prior, truth) + 0.02
    assert correlation(images, truth) > max(
        correlation(images, to_images(chests.pixels[k : k + 1])) for k in range(1, 60)
    )
    assert told["nats"] > 0


def test_more_passes_are_no_protection(chests: Rows, prior: Images) -> None:
    own = chests.take(np.array([0]))
    view = reply(own, replace(RECIPE, steps=4))
    images, _ = ATTACKS["span"](view, Means(prior, chests.take(np.arange(10, 40)), 0, 40))
    truth = to_images(own.pixels)
    assert correlation(images, truth) > max(
        correlation(images, to_images(chests.pixels[k : k + 1])) for k in range(1, 60)
    )


def test_rounds_pooled_say_more_than_one(chests: Rows, prior: Images, learned: GaussianPrior) -> None:
    """Through noise that hides the image in one round: the truth's lead grows with the rounds."""
    own, truth = chests.take(np.array([0])), torch.from_numpy(to_images(chests.pixels[:1])).float()
    views = [reply(own, number=number, protect="noise=1") for number in range(1, 4)]
    blank = torch.from_numpy(prior).float()
    with torch.no_grad():
        leads = [
            float(seen.surprise(blank, LEAST) - seen.surprise(truth, LEAST)) for seen in map(Observation.of, views)
        ]
    assert sum(leads) > max(leads) > 0
    images, told = pooled(views, Means(prior, chests.take(np.arange(10, 40)), 0, 40))
    assert images.shape == truth.shape
    assert np.isfinite(told["nats"])


def test_an_update_of_noise_alone_gives_next_to_nothing(chests: Rows, learned: GaussianPrior) -> None:
    view = disturbed(reply(chests.take(np.array([0]))), 1.0, alone=True)
    after = {n: view.before[n] if "running" in n else v for n, v in view.after.items()}
    seen = Observation.of(replace(view, after={n: v for n, v in after.items() if "running" not in n}))
    _, alone = span([seen], learned, count=1, seed=0, iterations=30)
    told = Observation.of(reply(chests.take(np.array([0])), protect="local-statistics=1"))
    _, read = span([told], learned, count=1, seed=0, iterations=30)
    assert read > 20 * max(alone, 1.0)


def test_every_protection_has_an_attack_that_knows_it() -> None:
    assert set(PROTECTIONS) <= set(ADAPTED)
    assert {entry.attack for entry in ADAPTED.values()} <= set(ATTACKS)
    assert all(entry.knows and entry.literature for entry in ADAPTED.values())


@pytest.mark.parametrize("name", [name for name, entry in PROTECTIONS.items() if not entry.whole])
def test_at_strength_0_the_attack_is_the_plain_one(chests: Rows, prior: Images, name: str) -> None:
    view = reply(chests.take(np.array([0])))
    after = Chosen(name, 0.0)(view.before, view.after, stream(0, "test"))
    means = Means(prior, chests.take(np.arange(10, 40)), 0, 5)
    plain, told = ATTACKS["span"](view, means)
    again, same = ATTACKS["span"](replace(view, after=after), means)
    np.testing.assert_array_equal(plain, again)
    assert told == same


def test_noise_takes_the_lead_away_without_a_jump(chests: Rows, prior: Images) -> None:
    """What the true image leads by falls with the noise, by at most 50 times for half an order of magnitude of noise:
    as the square of the noise, and as much again where a layer's signal goes under."""
    own = chests.take(np.array([0]))
    truth, blank = torch.from_numpy(to_images(own.pixels)).float(), torch.from_numpy(prior).float()
    leads = []
    for strength in (0.03, 0.1, 0.3, 1.0, 3.0, 30.0):
        seen = Observation.of(reply(own, protect=f"local-statistics=1,noise={strength}"))
        with torch.no_grad():
            leads.append(float(seen.surprise(blank, LEAST) - seen.surprise(truth, LEAST)))
    assert leads == sorted(leads, reverse=True)
    assert all(after > before / 50 for before, after in itertools.pairwise(leads[:5]))


def test_the_prior_is_what_public_images_are_like(chests: Rows, learned: GaussianPrior) -> None:
    public = torch.from_numpy(to_images(chests.pixels[10:])).float()
    own = torch.from_numpy(to_images(chests.pixels[:5])).float()
    torch.testing.assert_close(learned.images(learned.coordinates(own)), own, atol=1e-3, rtol=0)
    strange = torch.randn(5, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    assert learned.surprise(learned.coordinates(own)) < learned.surprise(learned.coordinates(strange)) / 2
    assert learned.surprise(learned.coordinates(learned.mean[None])) < 1e-3
    assert learned.directions.shape[0] == len(public) - len(public) // 5
    few = GaussianPrior.of(to_images(chests.pixels[:3]), mean=to_images(chests.pixels[:3]).mean(axis=0, keepdims=True))
    assert few.directions.shape == (0, 1, 32, 32)


@pytest.mark.parametrize("protect", ["", "noise=1", "noise=25", "local-statistics=1,noise=10"])
def test_candidates_are_told_apart_through_noise(chests: Rows, protect: str) -> None:
    views = [reply(chests.take(np.array([place])), protect=protect) for place in range(3)]
    found = likeness(views, chests)
    assert found.shape == (3, 60)
    assert [rank_of(found[place], place) for place in range(3)] == [1, 1, 1]


def test_candidates_say_nothing_of_an_update_of_noise(chests: Rows) -> None:
    view = disturbed(reply(chests.take(np.array([0])), protect="local-statistics=1"), 1.0, alone=True)
    ranks = []
    for place in range(20):
        rng = np.random.default_rng(place)
        after: Arrays = {
            n: np.asarray(view.before[n], np.float64) + rng.standard_normal(v.shape) for n, v in view.update.items()
        }
        ranks.append(rank_of(likeness([replace(view, after=after)], chests)[0], place))
    assert 20 < np.mean(ranks) < 41


def test_a_perceptron_has_nothing_to_read(chests: Rows, prior: Images) -> None:
    recipe = Recipe(network="perceptron", norm="none", size=32)
    before = list(network_arrays(new_network(NetworkSpec("perceptron", "none", size=32), seed=1)).values())
    client = ClassifierClient(recipe, chests.take(np.array([0])), partition=0, seed=0)
    client.fit(before, {"round": 1})
    assert client.captured is not None
    with pytest.raises(ProbeError, match="not attempted: the network has no convolution"):
        ATTACKS["span"](client.captured, Means(prior, None, 0))


def test_reports_know_how_few_iterations_are_no_attempt() -> None:
    assert leaks.FEWEST == FEWEST


def test_ranks_count_ties_half() -> None:
    with pytest.raises(ProbeError, match="not finite"):
        rank_of(np.array([np.nan, 1.0]), 0)
    assert rank_of(np.array([1.0, 1.0, 1.0, 0.0]), 0) == 2
    assert rank_of(np.array([3.0, 1.0, 2.0]), 0) == 1


def test_patches_that_are_all_but_alike_can_be_computed(chests: Rows) -> None:
    """A clean update leaves next to no noise beside what float32 rounds: radiographs ended so at sigma0 0."""
    seen = Observation.of(reply(chests.take(np.array([0]))))
    ramp = torch.linspace(-1, 1, 32).expand(1, 1, 32, 32).clone().requires_grad_(True)
    for least in (LEAST, LEAST / 100):
        value = seen.surprise(ramp, least)
        value.backward()  # type: ignore[no-untyped-call]
        assert torch.isfinite(value)
        assert ramp.grad is not None
        assert bool(torch.isfinite(ramp.grad).all())


def test_statistics_are_read_where_noise_has_drowned_the_weights(chests: Rows, prior: Images) -> None:
    """They move by so much more than weights do that the same noise hardly touches them."""
    own = chests.take(np.array([0]))
    view = reply(own, protect="noise=30")
    assert Observation.of(view).drowned
    assert not Observation.of(reply(own, protect="noise=1")).drowned
    images, _ = ATTACKS["span"](view, Means(prior, chests.take(np.arange(10, 40)), 0, 40))
    blind, _ = ATTACKS["span"](
        reply(own, protect="noise=30,local-statistics=1"), Means(prior, chests.take(np.arange(10, 40)), 0, 40)
    )
    truth = to_images(own.pixels)
    assert correlation(images, truth) > max(correlation(blind, truth), correlation(prior, truth)) + 0.02


def test_passes_taken_for_one_step_keep_the_moments(chests: Rows) -> None:
    view = reply(chests.take(np.array([0])), replace(RECIPE, steps=4))
    one = as_one_step(view)
    assert one.recipe.steps == 1
    momentum = view.recipe.bn_momentum
    told = recovered(view.before, view.after, steps=4, momentum=momentum)
    again = recovered(one.before, one.after, steps=1, momentum=momentum)
    for name, moments in told.items():
        np.testing.assert_allclose(again[name].mean, moments.mean, atol=1e-5)
        np.testing.assert_allclose(again[name].var, moments.var, rtol=1e-3, atol=1e-5)
    for name, change in view.update.items():
        np.testing.assert_array_equal(one.update[name], change)
    several = reply(chests.take(np.arange(4)), replace(RECIPE, steps=4, batch=2))
    assert as_one_step(several) is several, "of two batches nobody knows which images were in which"
