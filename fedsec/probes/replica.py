"""The attacker's own copy of the client's network: what a batch of images would have looked like inside.

Every pass is a pure function of (weights, images): nothing that a pass does stays behind, so the network is the same
in every iteration of an attack by construction.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils.hooks import RemovableHandle

from fedsec.models.networks import build_network
from fedsec.probes.convolved import Tapped
from fedsec.probes.view import Recipe
from fedsec.weights import COUNTERS, STATISTICS

Weights = dict[str, Tensor]
BatchMoments = tuple[Tensor, Tensor]
"""Mean and biased variance a channel, (channels,) each."""


class Watched(nn.BatchNorm2d):
    """Train-mode BatchNorm that shows the batch's moments and leaves its running statistics alone. Moments ``given``
    normalise in place of the batch's own."""

    given: BatchMoments | None = None

    def forward(self, images: Tensor) -> Tensor:
        self.moments = (images.mean((0, 2, 3)), images.var((0, 2, 3), unbiased=False))
        if self.given is not None:
            mean, spread = self.given
            return F.batch_norm(images, mean, spread, self.weight, self.bias, False, 0.0, self.eps)
        return F.batch_norm(images, None, None, self.weight, self.bias, True, 0.0, self.eps)


@dataclass(frozen=True)
class Geometry:
    """One convolution as its weight gradient shows it: kernel, stride, padding and the maps that go in."""

    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    shape: tuple[int, int, int]
    positions: int


class _Reached(Exception):  # noqa: N818  # not an error
    """A pass has come as far as it was asked to."""


class Replica:
    """The network of ``recipe`` with the tensors of ``state`` on ``device``: a whole state dict, or one without running
    statistics where train-mode BatchNorm does not read them."""

    def __init__(self, recipe: Recipe, state: Mapping[str, np.ndarray], *, device: str = "cpu") -> None:
        self.recipe, self.device = recipe, device
        self.network = build_network(recipe.spec, norm=Watched if recipe.norm == "batch" else None)
        tensors = {
            name: torch.from_numpy(np.array(value, np.float32 if value.dtype.kind == "f" else value.dtype))
            for name, value in state.items()
            if name.rsplit(".", 1)[-1] not in COUNTERS
        }
        for name, module in list(self.network.named_modules()):
            if isinstance(module, nn.Conv2d):
                self.network.set_submodule(name, Tapped.of(module))
        missing, extra = self.network.load_state_dict(tensors, strict=False)
        unread = (*COUNTERS, *(STATISTICS if recipe.norm == "batch" else ()))  # by a train-mode pass
        lacking = [name for name in missing if name.rsplit(".", 1)[-1] not in unread]
        assert not lacking, f"tensors missing from the view: {lacking}"
        assert not extra, f"tensors that the network lacks: {extra}"
        self.network.train().to(device).requires_grad_(False)
        self.weights: Weights = {name: value.detach() for name, value in self.network.named_parameters()}
        self.modules = dict(self.network.named_modules())
        self.taps = {name: module for name, module in self.modules.items() if isinstance(module, Tapped)}
        self.watched = [module for module in self.network.modules() if isinstance(module, Watched)]

    def logits(self, weights: Weights, images: Tensor) -> tuple[Tensor, list[BatchMoments]]:
        """(batch, classes), and the moments at every train-mode BatchNorm, in the network's order."""
        out: Tensor = functional_call(self.network, weights, (images,))
        return out, [module.moments for module in self.watched]

    def entering(
        self, layer: str, images: Tensor, given: Sequence[BatchMoments] = ()
    ) -> tuple[Tensor, list[BatchMoments]]:
        """What goes into ``layer`` (batch, c, h, w), and the moments on the way; the rest is not computed.

        ``given``: moments at every BatchNorm that normalise in place of the batch's own; none: its own."""
        for module, moments in zip(self.watched, given, strict=False):
            module.given = moments
        seen: list[Tensor] = []

        def stop(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            seen.append(inputs[0])
            raise _Reached

        for module in self.watched:
            module.moments = (torch.empty(0), torch.empty(0))
        handle = self.modules[layer].register_forward_pre_hook(stop)
        try:
            functional_call(self.network, self.weights, (images,))
        except _Reached:
            pass
        finally:
            handle.remove()
            for module in self.watched:
                module.given = None
        passed = [module.moments for module in self.watched if module.moments[0].numel()]
        return seen[0], passed

    def counts(self, batch: int) -> dict[str, int]:
        """Values a channel, batch x height x width, at every train-mode BatchNorm."""
        found: dict[str, int] = {}
        handles = []
        for name, module in self.network.named_modules():
            if isinstance(module, Watched):

                def record(norm: nn.Module, inputs: tuple[Tensor, ...], name: str = name) -> None:
                    found[name] = batch * inputs[0].shape[2] * inputs[0].shape[3]

                handles.append(module.register_forward_pre_hook(record))
        self._pass_zeros(handles)
        return found

    def convolutions(self) -> dict[str, Geometry]:
        """Every convolution in the order in which a pass meets it."""
        found: dict[str, Geometry] = {}
        handles = []
        for name, module in self.network.named_modules():
            if isinstance(module, nn.Conv2d):

                def record(conv: Any, inputs: tuple[Tensor, ...], output: Tensor, name: str = name) -> None:
                    shape = (inputs[0].shape[1], inputs[0].shape[2], inputs[0].shape[3])
                    positions = output.shape[2] * output.shape[3]
                    found[name] = Geometry(conv.kernel_size, conv.stride, conv.padding, shape, positions)

                handles.append(module.register_forward_hook(record))
        self._pass_zeros(handles)
        return found

    @cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """What comes out of every convolution of one image: (channels, height, width)."""
        found: dict[str, tuple[int, ...]] = {}
        handles = []
        for name, conv in self.taps.items():

            def record(conv: Any, inputs: tuple[Tensor, ...], output: Tensor, name: str = name) -> None:
                found[name] = tuple(output.shape[1:])

            handles.append(conv.register_forward_hook(record))
        self._pass_zeros(handles)
        return found

    def _pass_zeros(self, handles: Sequence[RemovableHandle]) -> None:
        """One pass of two black images for the hooks to see shapes by; then they are removed."""
        recipe = self.recipe
        images = torch.zeros(2, recipe.channels, recipe.size, recipe.size, device=self.device)
        with torch.no_grad():
            functional_call(self.network, self.weights, (images,))
        for handle in handles:
            handle.remove()


def local_update(
    replica: Replica, batches: Sequence[tuple[Tensor, Tensor]]
) -> tuple[Weights, list[list[BatchMoments]]]:
    """What the recipe makes of ``batches`` [(images, targets), ...], one SGD step each: (after - before, moments).

    ``targets``: labels (batch,), or probabilities (batch, classes) with a gradient of their own. Every step stays
    differentiable with respect to images and targets; the small change is summed by itself, not lost in the weights.
    """
    recipe = replica.recipe

    def loss(weights: Weights, images: Tensor, targets: Tensor) -> tuple[Tensor, list[BatchMoments]]:
        logits, seen = replica.logits(weights, images)
        return -recipe.lr * F.cross_entropy(logits, targets), seen

    moved: Weights = {}
    velocity: Weights = {}
    moments = []
    for images, targets in batches:
        weights = {name: value + moved[name] if moved else value for name, value in replica.weights.items()}
        gradient, seen = torch.func.grad(loss, has_aux=True)(weights, images, targets)
        moments.append(seen)
        velocity = {name: g + recipe.momentum * velocity[name] if velocity else g for name, g in gradient.items()}
        moved = {name: moved[name] + v if moved else v for name, v in velocity.items()}
    return moved, moments
