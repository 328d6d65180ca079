"""Inner products of updates against the updates themselves, and the convolutions they rest on."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from fedsec.probes import convolved
from fedsec.probes.convolved import Adjoint, Convolved
from fedsec.probes.products import products
from fedsec.probes.replica import local_update
from fedsec.probes.view import Recipe
from tests.probes.rounds import RESNET, SMALL, Round, images_of, trained

TINY = replace(SMALL, size=16)


def guess(done: Round) -> Tensor:
    return images_of(done.view.recipe, len(done.images), "guess")


def close(one: Tensor, other: Tensor, tolerance: float) -> bool:
    return bool(torch.linalg.vector_norm(one - other) <= tolerance * torch.linalg.vector_norm(other))


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize(
    "recipe",
    [*(replace(TINY, norm=n) for n in ("batch", "frozen", "group", "layer", "none")), RESNET],
)
def test_they_are_those_of_the_unrolled_update(recipe: Recipe, batch: int) -> None:
    done = trained(recipe, batch=batch, lr=0.1)
    images = guess(done)
    update, (moments,) = local_update(done.replica, [(images, done.labels)])
    found, seen = products(done.replica, done.update, images, done.labels)
    assert list(found) == list(update)
    for name, a in update.items():
        b = done.update[name]
        scale = torch.linalg.vector_norm(a)
        assert abs(found[name][0] - (a * b).sum()) < 1e-3 * scale * torch.linalg.vector_norm(b)
        assert abs(found[name][1] - scale.square()) < 1e-3 * scale.square()
    for pair, other in zip(seen, moments, strict=True):
        assert all(close(one, two, 1e-5) for one, two in zip(pair, other, strict=True))


@pytest.mark.parametrize("recipe", [TINY, RESNET])
def test_their_slopes_are_the_unrolled_updates_too(recipe: Recipe) -> None:
    done = trained(recipe, batch=2, lr=0.1)
    sure = torch.tensor([[0.3, 0.7], [0.9, 0.1]])

    def quick(images: Tensor, targets: Tensor) -> Tensor:
        found, _ = products(done.replica, done.update, images, targets)
        return torch.stack([ab - 0.5 * aa for ab, aa in found.values()]).sum()

    def slow(images: Tensor, targets: Tensor) -> Tensor:
        update, _ = local_update(done.replica, [(images, targets)])
        return torch.stack([(a * done.update[name] - 0.5 * a.square()).sum() for name, a in update.items()]).sum()

    slopes = []
    for value in (quick, slow):
        images, targets = guess(done).requires_grad_(True), sure.clone().requires_grad_(True)
        slopes.append(torch.autograd.grad(value(images, targets), [images, targets]))
    assert all(close(one, other, 1e-3) for one, other in zip(*slopes, strict=True))


def test_the_network_is_as_before() -> None:
    replica = trained(RESNET).replica
    before = {name: value.clone() for name, value in replica.network.state_dict().items()}
    images = images_of(RESNET, 1, "after")
    first, _ = replica.logits(replica.weights, images)
    products(replica, replica.weights, images, torch.tensor([0]))
    assert all(tap.added is None for tap in replica.taps.values())
    assert torch.equal(replica.logits(replica.weights, images)[0], first)
    assert all(torch.equal(before[name], value) for name, value in replica.network.state_dict().items())


@pytest.mark.parametrize("few", [0, 10_000])
@pytest.mark.parametrize(("side", "stride", "padding"), [(3, 1, 1), (3, 2, 1), (1, 2, 0), (7, 2, 3)])
def test_convolutions_and_their_slopes(
    few: int, side: int, stride: int, padding: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(convolved, "FEW", few)
    rng = torch.Generator().manual_seed(0)
    weight = torch.randn(4, 3, side, side, generator=rng, dtype=torch.float64)
    images = torch.randn(2, 3, 9, 9, generator=rng, dtype=torch.float64, requires_grad=True)
    out = Convolved.apply(images, weight, stride, padding)
    torch.testing.assert_close(out, torch.nn.functional.conv2d(images, weight, None, stride, padding))
    errors = torch.randn(out.shape, generator=rng, dtype=torch.float64, requires_grad=True)
    back = Adjoint.apply(errors, weight, (9, 9), stride, padding)
    torch.testing.assert_close((out * errors).sum(), (images * back).sum())
    assert torch.autograd.gradcheck(lambda x: Convolved.apply(x, weight, stride, padding), images)
    assert torch.autograd.gradcheck(lambda e: Adjoint.apply(e, weight, (9, 9), stride, padding), errors)
    many = torch.randn(3, 2, 3, 9, 9, generator=rng, dtype=torch.float64)
    each = torch.stack([Convolved.apply(one, weight, stride, padding) for one in many])
    torch.testing.assert_close(torch.vmap(lambda one: Convolved.apply(one, weight, stride, padding))(many), each)
