"""Every entry of TERMS: it has a slope where images are wrong, and is zero where they are right."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from fedsec.probes.replica import BatchMoments
from fedsec.probes.terms import OF_THE_UPDATE, PRIORS, TERMS, Observed, Scene, observe
from tests.probes.rounds import SMALL, Round, trained

TINY = replace(SMALL, size=16)
MATCHING = [name for name in TERMS if name not in PRIORS]
LAYER = "features.8"


def observed(done: Round) -> Observed:
    """What was sent, and the true maps of each batch."""
    entered = torch.cat([done.replica.entering(LAYER, images)[0] for images, _ in done.batches])
    maps = entered / entered.flatten(1).norm(dim=1)[:, None, None, None]
    return replace(observe(done.view, done.replica), layer=LAYER, maps=maps)


def scene(done: Round, images: Tensor, seen: Observed | None = None) -> Scene:
    return Scene(done.replica, seen or observed(done), images, done.labels, group=torch.zeros_like(done.images))


def guess(done: Round) -> Tensor:
    rng = torch.Generator().manual_seed(0)
    return (1.5 * torch.randn(done.images.shape, generator=rng)).requires_grad_(True)


def weighted(done: Round) -> list[BatchMoments]:
    """The true moments as running statistics weigh them: the newest step most."""
    kept = 1 - done.view.recipe.bn_momentum
    shares = torch.tensor([kept ** (len(done.seen) - 1 - k) for k in range(len(done.seen))])
    shares = shares / shares.sum()
    return [
        (
            torch.stack([share * mean for share, (mean, _) in zip(shares, layer, strict=True)]).sum(0),
            torch.stack([share * var for share, (_, var) in zip(shares, layer, strict=True)]).sum(0),
        )
        for layer in zip(*done.seen, strict=True)
    ]


def test_the_table_is_whole() -> None:
    assert set(OF_THE_UPDATE) | set(PRIORS) <= set(TERMS)
    assert not set(OF_THE_UPDATE) & set(PRIORS)


@pytest.mark.parametrize(("steps", "batch"), [(1, 2), (3, 2)])
@pytest.mark.parametrize("name", TERMS)
def test_every_term_has_a_slope_at_a_random_guess(name: str, steps: int, batch: int) -> None:
    done = trained(TINY, steps=steps, batch=batch, lr=0.1)
    images = guess(done)
    value = TERMS[name](scene(done, images))
    assert value.shape == ()
    assert value > 1e-3
    (slope,) = torch.autograd.grad(value, images)
    assert torch.isfinite(slope).all()
    assert (slope.flatten(1).abs().amax(dim=1) > 0).all()


@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("norm", ["batch", "group", "none"])
@pytest.mark.parametrize("name", MATCHING)
def test_every_term_but_the_priors_is_zero_at_the_truth(name: str, norm: str, steps: int) -> None:
    done = trained(TINY, norm=norm, steps=steps, batch=2, lr=0.1, momentum=0.5)
    if name == "statistics" and norm != "batch":
        assert not observed(done).moments
        return
    right, wrong = scene(done, done.images), scene(done, guess(done).detach())
    for each in (right, wrong):
        assert each.trained
    assert abs(float(TERMS[name](right))) < 2e-3 * min(1, float(TERMS[name](wrong)))


@pytest.mark.parametrize(("images", "batch", "steps"), [(2, 2, 5), (4, 2, 4), (6, 4, 3), (3, 2, 4)])
@pytest.mark.parametrize("name", OF_THE_UPDATE)
def test_the_update_is_matched_at_the_truth_however_many_passes_were_made(
    name: str, images: int, batch: int, steps: int
) -> None:
    """Passes in one order; their last batch may be a part of one."""
    done = trained(TINY, count=images, steps=steps, batch=batch, lr=0.1)
    right, wrong = (
        scene(done, shown, observe(done.view, done.replica)) for shown in (done.images, guess(done).detach())
    )
    assert float(TERMS[name](right)) < 2e-3 * min(1, float(TERMS[name](wrong)))
    if images % batch == 0:
        assert right.trained
        assert float(TERMS["statistics"](right)) < 2e-3


def test_a_step_reaches_the_images_of_its_batch() -> None:
    recipe = replace(TINY, batch=4, steps=5)
    assert recipe.sizes(6) == [4, 2, 4, 2, 4]
    assert recipe.sizes(3) == [3, 3, 3, 3, 3]
    assert replace(recipe, steps=1).sizes(6) == [4]
    view = trained(TINY, count=6, batch=2, steps=2).view
    assert (view.examples, view.reached.examples) == (6, 4)
    assert trained(TINY, count=6, batch=4, steps=3).view.reached.examples == 6


def test_a_term_that_matches_survives_what_is_zero() -> None:
    """A tensor that did not move, in the update seen or in the guess's, has no direction, and no slope of NaN."""
    done = trained(TINY, norm="none")
    seen = observed(done)
    still = replace(seen, update={**seen.update, "fc.weight": torch.zeros_like(seen.update["fc.weight"])})
    for name in OF_THE_UPDATE:
        images = guess(done)
        (slope,) = torch.autograd.grad(TERMS[name](scene(done, images, still)), images)
        assert torch.isfinite(slope).all()
        black = torch.zeros_like(images, requires_grad=True)
        (slope,) = torch.autograd.grad(TERMS[name](scene(done, black)), black)
        assert torch.isfinite(slope).all()


@pytest.mark.parametrize("name", OF_THE_UPDATE)
def test_the_size_of_an_update_is_not_its_fit(name: str) -> None:
    """A tiny learning rate makes tiny updates, of which the terms say the same."""
    values = []
    for lr in (0.1, 1e-7):
        done = trained(TINY, norm="none", lr=0.1)
        small = replace(done.view.recipe, lr=lr)
        seen = {key: value * (lr / 0.1) for key, value in observed(done).update.items()}
        replica = type(done.replica)(small, done.view.before)
        values.append(float(TERMS[name](Scene(replica, Observed(seen), guess(done).detach(), done.labels))))
    assert values[1] == pytest.approx(values[0], rel=1e-3)


def test_statistics_of_three_steps_are_weighted_as_the_recursion_weighs_them() -> None:
    done = trained(TINY, steps=3, batch=2, lr=0.1, bn_momentum=0.3)
    right = scene(done, done.images)
    assert right.trained
    truth = weighted(done)
    for found in (right.moments, observed(done).moments):
        assert len(found) == len(truth) == 3
        for one, other in zip(found, truth, strict=True):
            for a, b in zip(one, other, strict=True):
                torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5)


def test_without_training_each_batch_keeps_to_itself() -> None:
    """Exact for a learning rate of next to nothing, and not what one batch of all images would give."""
    done = trained(TINY, steps=3, batch=2, lr=1e-6)
    aims = observed(done)
    for seen in (aims, replace(aims, layer="")):
        apart = scene(done, done.images, seen)
        assert "trained" not in apart.__dict__
        for one, other in zip(apart.moments, weighted(done), strict=False):
            for a, b in zip(one, other, strict=True):
                torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)
    entered = scene(done, done.images).entering[0]
    torch.testing.assert_close(entered[:2], done.replica.entering(LAYER, done.images[:2])[0])


def test_where_the_order_is_unknown_images_pass_by_the_recovered_moments() -> None:
    done = trained(TINY, steps=3, batch=2, lr=1e-6)
    loose = replace(observed(done), ordered=False)
    turned = torch.tensor([5, 0, 3, 1, 4, 2])
    entered, seen = scene(done, done.images, loose).entering
    other, _ = scene(done, done.images[turned], loose).entering
    torch.testing.assert_close(other, entered[turned])
    assert len(seen) == 1
    alike = torch.cosine_similarity(entered.flatten(1), scene(done, done.images).entering[0].flatten(1))
    assert alike.min() > 0.9, "nearly what the true batches give"
    assert scene(done, done.images[turned], observed(done)).entering[0].sub(other).abs().max() > 1e-3
    assert all(module.given is None for module in done.replica.watched)


def test_observe_takes_what_was_sent() -> None:
    done = trained(TINY, batch=2)
    seen = observe(done.view, done.replica)
    assert list(seen.update) == list(done.view.parameters)
    assert (seen.layer, seen.maps) == ("", None)
    silent = {name: value for name, value in done.view.after.items() if "running" not in name}
    assert not observe(replace(done.view, after=silent), done.replica).moments


def test_priors() -> None:
    done = trained(TINY)
    flat, far = torch.full_like(done.images, 0.5), torch.full_like(done.images, 1.5)
    assert float(TERMS["total-variation"](scene(done, flat))) == 0
    assert float(TERMS["energy"](scene(done, flat))) == pytest.approx(0.25)
    assert float(TERMS["box"](scene(done, flat))) == 0
    assert float(TERMS["box"](scene(done, far))) == pytest.approx(0.25)
    assert float(TERMS["group"](scene(done, flat))) == pytest.approx(0.25)
