"""Split training as functions: what a client sends, what the server does with it, what the client does with the answer.

One exchange is K mini-batches, all at the client's weights of that message. With the labels at the server:

    client   ``sent(home, entered(home, batches))``     -> activations (K, n, c, h, w), beside the labels
    server   ``server_step(desk, activations, labels)`` -> gradient at the cut, K times, one optimiser step each
    client   ``applied(home, batches, entered, gradients)``

U-shaped, with heads and labels at the client: ``features`` comes back, ``heads_step`` answers with its gradient, and
``server_backward`` takes the server's step. With K = 1 and one client both are the training of the whole network, step
for step. With more, the K gradients are all of the same client weights and are applied one after the other.

A client sends before it knows the answer and keeps no graph: ``applied`` repeats the forward pass. ``sent`` leaves the
running statistics alone, so that each batch enters them once. Who keeps nothing but weights calls ``entered`` again.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from fedsec.errors import ReplyError
from fedsec.models.split_learning.halves import (
    Body,
    ClientHalf,
    Heads,
    SplitSpec,
    Streams,
    entering,
    new_body,
    new_client_half,
    new_heads,
    new_surrogate,
)
from fedsec.seeds import address_seed

LR = 1e-3
"""Adam's on both sides, as the third party; a cosine decay in place of its plateau schedule."""


@dataclass(frozen=True)
class Batch:
    """One mini-batch at its client: images (n, c, s, s) in [-1, 1], labels (n,), seed of the random map."""

    images: Tensor
    labels: Tensor
    seed: int


@dataclass
class Home:
    """What lives at a client: its half, its surrogate (with a map), the heads (U-shaped); an optimiser each."""

    spec: SplitSpec
    half: ClientHalf
    surrogate: nn.Module | None
    heads: Heads | None
    optimisers: dict[str, torch.optim.Adam]


@dataclass
class Desk:
    """What lives at the server: the body, and the heads unless they are at the clients; one optimiser over both."""

    spec: SplitSpec
    body: Body
    heads: Heads | None
    optimiser: torch.optim.Adam


@dataclass(frozen=True)
class Answer:
    """``gradient`` at the cut, the shape of the activations; mean loss and share of right answers of each stream."""

    gradient: Tensor
    losses: dict[str, float]
    right: dict[str, float]


def new_home(spec: SplitSpec, *, seed: int, own: int, heads: bool = False, lr: float = LR) -> Home:
    """``seed``: of the half and heads, which all clients start from; ``own``: of this client's surrogate."""
    half = new_client_half(spec, seed=seed)
    surrogate = new_surrogate(spec, seed=own) if spec.surrogate else None
    its_heads = new_heads(spec, seed=seed) if heads else None
    networks: dict[str, nn.Module | None] = {"half": half, "surrogate": surrogate, "heads": its_heads}
    optimisers = {name: torch.optim.Adam(net.parameters(), lr) for name, net in networks.items() if net is not None}
    return Home(spec, half, surrogate, its_heads, optimisers)


def new_desk(spec: SplitSpec, *, seed: int, heads: bool = True, lr: float = LR) -> Desk:
    body = new_body(spec, seed=seed)
    its_heads = new_heads(spec, seed=seed) if heads else None
    parameters = [*body.parameters(), *(its_heads.parameters() if its_heads else ())]
    return Desk(spec, body, its_heads, torch.optim.Adam(parameters, lr))


def paced(optimisers: Iterable[torch.optim.Adam], done: int, steps: int, lr: float = LR) -> None:
    """Cosine decay of the learning rate from ``lr`` to 0: ``done`` of ``steps`` mini-batches are behind."""
    for optimiser in optimisers:
        for group in optimiser.param_groups:
            group["lr"] = lr * 0.5 * (1 + math.cos(math.pi * min(done / steps, 1.0)))


def without_statistics(network: nn.Module, *given: Any) -> Any:
    """``network`` in the mode it is in, its running statistics left as they are."""
    return functional_call(network, {name: value.clone() for name, value in network.named_buffers()}, given)


def entered(home: Home, batches: Sequence[Batch]) -> Tensor:
    """What the half is given for K training batches of one size (K, n, *spec.entering)."""
    return torch.stack([entering(home.spec, b.images, home.surrogate, b.labels, seed=b.seed) for b in batches])


@torch.no_grad()
def sent(home: Home, given: Tensor) -> Tensor:
    """Activations (K, n, c, h, w) of K training batches; nothing at the client changes."""
    return torch.stack([without_statistics(home.half, batch) for batch in given])


def server_step(desk: Desk, activations: Tensor, labels: Tensor) -> Answer:
    """One optimiser step on one batch of activations (n, c, h, w), the labels (n,) and the heads at the server.

    Every stream's loss trains the layers that made it; the gradient at the cut is that of ``spec.returned`` alone.
    Raises ReplyError, and leaves the server as it was, when loss or gradient is not finite.
    """
    assert desk.heads is not None, "the heads are at the clients: features, heads_step, server_backward"
    before = {name: value.clone() for name, value in desk.body.named_buffers()}
    leaf = activations.detach().requires_grad_(True)
    logits = desk.heads(desk.body(leaf))
    losses = {name: F.cross_entropy(value, labels) for name, value in logits.items()}
    gradient = _stepped(desk, before, leaf, losses, dict.fromkeys(losses))
    right = {name: float((value.argmax(1) == labels).float().mean()) for name, value in logits.items()}
    return Answer(gradient, {name: float(loss.detach()) for name, loss in losses.items()}, right)


@torch.no_grad()
def features(desk: Desk, activations: Tensor) -> Streams:
    """Features (n, 256) of each stream for one batch, in train mode; nothing at the server changes."""
    found: Streams = without_statistics(desk.body, activations)
    return found


def heads_step(home: Home, found: Streams, labels: Tensor) -> tuple[Streams, Answer]:
    """The client's heads take one step on ``found``; the gradient with respect to it, and the losses.

    ``Answer.gradient`` is that of the streams together, for the record.
    """
    assert home.heads is not None, "the heads are at the server: server_step"
    leaves = {name: value.detach().requires_grad_(True) for name, value in found.items()}
    logits = home.heads(leaves)
    losses = {name: F.cross_entropy(value, labels) for name, value in logits.items()}
    optimiser = home.optimisers["heads"]
    optimiser.zero_grad(set_to_none=True)
    torch.autograd.backward([*losses.values()])
    optimiser.step()
    gradients = {name: _gradient_of(leaf) for name, leaf in leaves.items()}
    right = {name: float((value.argmax(1) == labels).float().mean()) for name, value in logits.items()}
    together = torch.stack([*gradients.values()]).sum(dim=0)
    return gradients, Answer(together, {name: float(loss.detach()) for name, loss in losses.items()}, right)


def server_backward(desk: Desk, activations: Tensor, gradients: Streams) -> Tensor:
    """The server's step of the U-shape: ``gradients`` of the features of ``activations`` -> gradient at the cut."""
    before = {name: value.clone() for name, value in desk.body.named_buffers()}
    leaf = activations.detach().requires_grad_(True)
    found: Streams = desk.body(leaf)
    return _stepped(desk, before, leaf, found, {name: gradients[name] for name in found})


def _stepped(
    desk: Desk, before: Streams, leaf: Tensor, outputs: Streams, given: dict[str, Tensor | None] | Streams
) -> Tensor:
    """Backward from ``outputs`` and one step. Only ``spec.returned`` reaches ``leaf``; every output trains layers."""
    back = [name for name in outputs if name in desk.spec.returned]
    rest = [name for name in outputs if name not in desk.spec.returned]
    parameters = [parameter for group in desk.optimiser.param_groups for parameter in group["params"]]
    desk.optimiser.zero_grad(set_to_none=True)
    torch.autograd.backward([outputs[n] for n in back], [given[n] for n in back], retain_graph=bool(rest))
    gradient = _gradient_of(leaf)
    if rest:
        torch.autograd.backward([outputs[n] for n in rest], [given[n] for n in rest], inputs=parameters)
    finite = all(bool(torch.isfinite(p.grad).all()) for p in parameters if p.grad is not None)
    if not (finite and bool(torch.isfinite(gradient).all())):
        for name, value in desk.body.named_buffers():
            value.copy_(before[name])
        raise ReplyError("the server's gradient on these activations is not finite; the batch was not trained on")
    desk.optimiser.step()
    return gradient


def applied(home: Home, batches: Sequence[Batch], given: Tensor, gradients: Tensor) -> None:
    """The client's step for each of ``batches``, from the gradients at the cut (K, n, c, h, w) that came back.

    All K are taken at the weights that ``sent`` used; then Adam steps on each in turn. The surrogate then takes a step
    on each batch of clean images, so that the next map is of a classifier that has seen as much as the network.
    """
    parameters = [*home.half.parameters()]
    found = [
        torch.autograd.grad(home.half(batch), parameters, gradient)
        for batch, gradient in zip(given, gradients, strict=True)
    ]
    for gradient in found:
        for parameter, its in zip(parameters, gradient, strict=True):
            parameter.grad = its
        home.optimisers["half"].step()
    for batch in batches:
        surrogate_step(home, batch)


def surrogate_step(home: Home, batch: Batch) -> None:
    """One step of the client's own classifier on clean images; nothing without one."""
    if home.surrogate is None:
        return
    optimiser = home.optimisers["surrogate"]
    optimiser.zero_grad(set_to_none=True)
    torch.autograd.backward(F.cross_entropy(home.surrogate(batch.images), batch.labels))
    optimiser.step()


def outsider(spec: SplitSpec, order: Sequence[Batch], *, seed: int, lr: float = LR) -> nn.Module | None:
    """The surrogate of another client: trained as ours is, on the mini-batches of ``order``. None without a map."""
    home = new_home(spec, seed=seed, own=address_seed(seed, "attacker"), lr=lr)
    for done, batch in enumerate(order if home.surrogate is not None else ()):
        paced(home.optimisers.values(), done, len(order), lr)
        surrogate_step(home, batch)
    return home.surrogate


@torch.no_grad()
def held_out(home: Home, images: Tensor, *, perturb: bool, seed: int) -> Tensor:
    """Activations of held-out images, in eval mode: running statistics, no labels. ``perturb``: with the map or not."""
    given = entering(home.spec, images, home.surrogate, None, seed=seed, perturb=perturb)
    home.half.eval()
    found: Tensor = home.half(given)
    home.half.train()
    return found


def _gradient_of(leaf: Tensor) -> Tensor:
    assert leaf.grad is not None, "no gradient reached the cut"
    return leaf.grad.clone()
