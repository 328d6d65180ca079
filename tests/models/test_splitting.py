"""Split training is the training of the whole network; what is sent depends on nothing that came later."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from fedsec.defences.pgsl import Pgsl
from fedsec.errors import ReplyError
from fedsec.models.split_learning.halves import SplitSpec, Whole, entering, new_classifier, probabilities
from fedsec.models.split_learning.steps import (
    LR,
    Batch,
    Desk,
    Home,
    applied,
    entered,
    features,
    heads_step,
    held_out,
    new_desk,
    new_home,
    sent,
    server_backward,
    server_step,
)

PLAIN, FULL = SplitSpec(size=16), SplitSpec(size=16, pgsl=Pgsl(step=5.0))


def drawn_batches(spec: SplitSpec, count: int, start: int = 0) -> list[Batch]:
    rng = torch.Generator().manual_seed(start)
    shape = (6, spec.channels, spec.size, spec.size)
    return [Batch(torch.rand(shape, generator=rng) * 2 - 1, torch.arange(6) % 2, start + n) for n in range(count)]


def exchange(home: Home, desk: Desk, batches: list[Batch]) -> None:
    """One message and its answer, with the labels at the server or U-shaped."""
    given = entered(home, batches)
    z = sent(home, given)
    if desk.heads is not None:
        answers = [server_step(desk, one, batch.labels).gradient for one, batch in zip(z, batches, strict=True)]
    else:
        pairs = [(one, heads_step(home, features(desk, one), b.labels)[0]) for one, b in zip(z, batches, strict=True)]
        answers = [server_backward(desk, one, gradients) for one, gradients in pairs]
    applied(home, batches, given, torch.stack(answers))


def whole_step(network: Whole, adam: torch.optim.Adam, given: Tensor, labels: Tensor) -> None:
    """The reference: every stream's loss on one graph, the client's half trained by the returned stream alone."""
    spec = network.body.spec
    adam.zero_grad()
    losses = {name: F.cross_entropy(value, labels) for name, value in network(given).items()}
    front = [*network.front.parameters()]
    returned = torch.stack([losses[name] for name in spec.returned]).sum()
    gradients = torch.autograd.grad(returned, front, retain_graph=True)
    torch.autograd.backward([*losses.values()])
    for parameter, gradient in zip(front, gradients, strict=True):
        parameter.grad = gradient
    adam.step()


@pytest.mark.parametrize("heads_at_client", [False, True])
@pytest.mark.parametrize(
    "spec",
    [
        PLAIN,
        FULL,
        replace(PLAIN, channels=3, classes=3),
        replace(FULL, pgsl=Pgsl(fusion=False)),
        replace(FULL, pgsl=Pgsl(returned="all", skip="recovered", recovery="low-rank")),
        replace(FULL, pgsl=Pgsl(fold=False)),
    ],
)
def test_with_one_batch_a_message_split_training_is_the_whole_networks(spec: SplitSpec, heads_at_client: bool) -> None:
    home = new_home(spec, seed=1, own=2, heads=heads_at_client)
    desk = new_desk(spec, seed=1, heads=not heads_at_client)
    heads = home.heads or desk.heads
    assert heads is not None
    for network in (home.half, desk.body, heads, *([home.surrogate] if home.surrogate else [])):
        network.double()  # Adam would blow up the last float32 bit of a gradient near zero
    whole = Whole(copy.deepcopy(home.half), copy.deepcopy(desk.body), copy.deepcopy(heads))
    adam = torch.optim.Adam(whole.parameters(), LR)
    for step in range(3):
        batches = [replace(batch, images=batch.images.double()) for batch in drawn_batches(spec, 1, start=step)]
        given = entered(home, batches)[0]
        exchange(home, desk, batches)
        whole_step(whole, adam, given, batches[0].labels)
    split = Whole(home.half, desk.body, heads)
    for (name, a), b in zip(split.state_dict().items(), whole.state_dict().values(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-9, rtol=1e-9, msg=name)


def test_the_parts_of_a_seed_are_the_whole_classifier_of_that_seed() -> None:
    home, desk = new_home(PLAIN, seed=1, own=2), new_desk(PLAIN, seed=1)
    assert desk.heads is not None
    images = drawn_batches(PLAIN, 1)[0].images
    one_piece = new_classifier(PLAIN, seed=1)
    torch.testing.assert_close(one_piece(images), desk.heads(desk.body(home.half(images)))["plain"])


@pytest.mark.parametrize("spec", [PLAIN, FULL, replace(FULL, pgsl=Pgsl(perturb="random"))])
def test_what_is_sent_can_be_made_again_and_sending_changes_nothing(spec: SplitSpec) -> None:
    home = new_home(spec, seed=1, own=2)
    batches = drawn_batches(spec, 2)
    before = copy.deepcopy(home.half.state_dict())
    first = sent(home, entered(home, batches))
    assert first.shape == (2, 6, *spec.cut)
    assert torch.equal(first, sent(home, entered(home, batches)))
    assert all(torch.equal(value, before[name]) for name, value in home.half.state_dict().items())


def test_each_batch_enters_the_running_statistics_once() -> None:
    home, desk = new_home(FULL, seed=1, own=2), new_desk(FULL, seed=1)
    exchange(home, desk, drawn_batches(FULL, 2))
    for network in (home.half, desk.body):
        counts = [int(value) for name, value in network.named_buffers() if name.endswith("tracked")]
        assert counts
        assert set(counts) == {2}


def test_several_batches_a_message_are_all_of_the_same_client_weights() -> None:
    """The second gradient is that of the first message's weights; the server's has moved on by one step."""
    home, desk = new_home(PLAIN, seed=1, own=2), new_desk(PLAIN, seed=1)
    batches = drawn_batches(PLAIN, 2)
    z = sent(home, entered(home, batches))
    alone = torch.stack([sent(home, entered(home, [batch]))[0] for batch in batches])
    assert torch.equal(z, alone)
    moved = copy.deepcopy(desk)
    server_step(desk, z[0], batches[0].labels)
    second = server_step(desk, z[1], batches[1].labels)
    assert not torch.allclose(second.gradient, server_step(moved, z[1], batches[1].labels).gradient)


def test_only_the_fused_streams_gradient_returns() -> None:
    """The gradient at the cut does not change when the other streams' last layers do."""
    desks = [new_desk(FULL, seed=1) for _ in range(2)]
    with torch.no_grad():
        for name in ("attacked", "recovered"):
            # one class alone, or the softmax would not see it
            desks[1].heads.linear[name].weight[0].add_(1.0)  # type: ignore[union-attr, index]
    z, labels = torch.rand(6, *FULL.cut, generator=torch.Generator().manual_seed(0)), torch.arange(6) % 2
    first, second = (server_step(desk, z, labels) for desk in desks)
    assert torch.equal(first.gradient, second.gradient)
    assert first.losses["attacked"] != second.losses["attacked"]
    every = replace(FULL, pgsl=Pgsl(returned="all"))
    assert not torch.allclose(server_step(new_desk(every, seed=1), z, labels).gradient, first.gradient)


def test_every_stream_trains_the_layers_that_made_it() -> None:
    desk = new_desk(FULL, seed=1)
    before = copy.deepcopy(desk.body.state_dict())
    server_step(desk, torch.rand(6, *FULL.cut), torch.arange(6) % 2)
    assert [n for n, v in desk.body.named_parameters() if torch.equal(v, before[n])] == []


def test_a_batch_without_a_finite_gradient_leaves_the_server_as_it_was() -> None:
    desk = new_desk(FULL, seed=1)
    before = copy.deepcopy(desk.body.state_dict())
    with pytest.raises(ReplyError, match="not finite"):
        server_backward(desk, torch.rand(6, *FULL.cut), {n: torch.full((6, 256), torch.inf) for n in FULL.streams})
    assert all(torch.equal(value, before[name]) for name, value in desk.body.state_dict().items())


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [32, 64])
def test_shapes_with_and_without_pgsl(channels: int, size: int) -> None:
    for pgsl in (None, Pgsl()):
        spec = SplitSpec(channels, 4, size, pgsl)
        home, desk = new_home(spec, seed=0, own=0), new_desk(spec, seed=0)
        images = torch.zeros(2, channels, size, size)
        assert entering(spec, images, home.surrogate, None, seed=0).shape == (2, *spec.entering)
        z = held_out(home, images, perturb=True, seed=0)
        assert z.shape == (2, 32, size // 4, size // 4)
        assert desk.heads is not None
        shares = probabilities(spec, desk.heads(desk.body(z)))
        assert list(shares) == [*spec.streams, *(["late"] if pgsl else [])]
        assert all(value.shape == (2, 4) for value in shares.values())


def test_without_perturbation_at_test_time_the_folded_image_is_the_image_and_the_map_zero() -> None:
    home = new_home(FULL, seed=1, own=2)
    images = drawn_batches(FULL, 1)[0].images
    calm = entering(FULL, images, home.surrogate, None, seed=0, perturb=False)
    assert torch.equal(torch.nn.functional.pixel_shuffle(calm[:, :4], 2), images)
    assert not calm[:, 4].any()
    assert entering(FULL, images, home.surrogate, None, seed=0)[:, 4].any()


def test_a_little_training_separates_two_kinds_of_images() -> None:
    spec = replace(FULL, pgsl=Pgsl())
    home, desk = new_home(spec, seed=1, own=2), new_desk(spec, seed=1)
    labels = torch.arange(16) % 2
    images = torch.zeros(16, 1, 16, 16) + (labels * 0.8 - 0.4).view(-1, 1, 1, 1)
    images = images + 0.2 * torch.randn(images.shape, generator=torch.Generator().manual_seed(0))
    for n in range(10):
        exchange(home, desk, [Batch(images, labels, n)] * 2)
    z = sent(home, entered(home, [Batch(images, labels, 0)]))[0]
    assert server_step(desk, z, labels).right == {"attacked": 1.0, "recovered": 1.0, "fused": 1.0}
