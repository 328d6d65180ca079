"""What a guess at split learning's images is held against: terms of one number each, SPLIT_TERMS is the index.

Every term is a differentiable function of a Guess, which computes what several of them need once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedsec.probes.split_learning.view import Reading, SplitView
from fedsec.probes.terms import TINY, excess, variation


@dataclass(frozen=True, eq=False)
class Halves:
    """The attacker's copies; ``server`` None where no term needs it."""

    client: nn.Module
    server: nn.Module | None


@dataclass(frozen=True, eq=False)
class Guess:
    """``canvas``: what is moved; ``targets`` (n,) labels or (n, classes) probabilities."""

    view: SplitView
    halves: Halves
    reading: Reading
    canvas: Tensor
    targets: Tensor | None

    @cached_property
    def images(self) -> Tensor:
        return self.reading.show(self.canvas)

    @cached_property
    def activations(self) -> Tensor:
        out: Tensor = self.halves.client(self.reading.enter(self.canvas))
        return out

    @cached_property
    def loss(self) -> Tensor:
        assert self.halves.server is not None
        assert self.targets is not None
        return F.cross_entropy(self.halves.server(self.activations), self.targets)

    @cached_property
    def gradient(self) -> Tensor:
        """Of the batch's mean loss by the activations, with a gradient of its own."""
        (found,) = torch.autograd.grad(self.loss, self.activations, create_graph=True)
        return found

    @cached_property
    def update(self) -> dict[str, Tensor]:
        """Direction of one step of SGD on the client half, parameter by parameter."""
        named = dict(self.halves.client.named_parameters())
        found = torch.autograd.grad(self.loss, list(named.values()), create_graph=True)
        return {name: -value for name, value in zip(named, found, strict=True)}


def activations(guess: Guess) -> Tensor:
    """Squared distance of the activations over the sent ones' squared norm (He et al. 2019, scaled)."""
    return _distance(guess.activations, guess.view.activations)


def cut_distance(guess: Guess) -> Tensor:
    """Squared distance of the gradients at the cut over the returned one's squared norm (Zhu et al. 2019, scaled)."""
    return _distance(guess.gradient, _returned(guess))


def cut_cosine(guess: Guess) -> Tensor:
    """1 - cosine of the gradients at the cut, image by image (Geiping et al. 2020, eq. 4, at the cut)."""
    return 1 - F.cosine_similarity(guess.gradient.flatten(1), _returned(guess).flatten(1), dim=1, eps=TINY).mean()


def update_cosine(guess: Guess) -> Tensor:
    """1 - cosine of the client half's updates (Geiping et al. 2020, eq. 4)."""
    assert guess.view.update is not None
    mine = torch.cat([value.flatten() for value in guess.update.values()])
    aim = torch.cat([guess.view.update[name].flatten() for name in guess.update])
    return 1 - F.cosine_similarity(mine, aim, dim=0, eps=TINY)


SPLIT_TERMS: dict[str, Callable[[Guess], Tensor]] = {
    "activations": activations,
    "cut-l2": cut_distance,
    "cut-cosine": cut_cosine,
    "update-cosine": update_cosine,
    "total-variation": lambda guess: variation(guess.images),
    "box": lambda guess: excess(guess.images),
    "amiss": lambda guess: guess.reading.amiss(guess.canvas),
}
THROUGH_THE_SERVER = ("cut-l2", "cut-cosine", "update-cosine")


def _returned(guess: Guess) -> Tensor:
    assert guess.view.gradient is not None
    return guess.view.gradient


def _distance(mine: Tensor, aim: Tensor) -> Tensor:
    return (mine - aim).square().sum() / aim.square().sum().clamp(min=TINY)
