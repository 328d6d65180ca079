"""Real local rounds, as torch trains them, for the probes' tests to hold their answers against."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import cycle, islice
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fedsec.images import to_images
from fedsec.models.networks import new_network
from fedsec.probes.replica import BatchMoments, Replica
from fedsec.probes.view import Recipe, ServerView
from fedsec.types import Arrays
from tests.metrics.samples import lesions

SMALL = Recipe(network="convnet", size=32)
RESNET = Recipe(network="resnet18", size=64)


@dataclass
class Round:
    """``seen``: for each step, the moments that entered each normalisation layer of BatchNorm's kind."""

    view: ServerView
    images: Tensor
    labels: Tensor
    seen: list[list[BatchMoments]]

    @property
    def replica(self) -> Replica:
        return Replica(self.view.recipe, self.view.before)

    @property
    def update(self) -> dict[str, Tensor]:
        return {name: torch.from_numpy(value).float() for name, value in self.view.update.items()}

    @property
    def batches(self) -> list[tuple[Tensor, Tensor]]:
        """Of each step: passes over the images, all in the same order."""
        batch, steps = self.view.recipe.batch, self.view.recipe.steps
        passes = cycle(zip(torch.split(self.images, batch), torch.split(self.labels, batch), strict=True))
        return list(islice(passes, steps))


def arrays(network: nn.Module) -> Arrays:
    return {name: value.detach().numpy().copy() for name, value in network.state_dict().items()}


def images_of(recipe: Recipe, n: int, *address: str) -> Tensor:
    return torch.from_numpy(to_images(lesions(n, *address, channels=recipe.channels, size=recipe.size).pixels))


def trained(recipe: Recipe, *, count: int = 0, **changes: Any) -> Round:
    """One client's round by torch.optim.SGD from a new network on ``count`` images, 0 for as many as
    one pass takes; images and labels are the same at each call."""
    recipe = replace(recipe, **changes)
    network = new_network(recipe.spec, seed=0)
    before, n = arrays(network), count or recipe.batch * recipe.steps
    done = Round(
        ServerView(recipe, before, before, n), images_of(recipe, n, "round"), torch.arange(n) % recipe.classes, []
    )
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = recipe.bn_momentum

            def look(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
                x = inputs[0].detach()
                done.seen[-1].append((x.mean((0, 2, 3)), x.var((0, 2, 3), unbiased=False)))

            module.register_forward_pre_hook(look)
    optimiser = torch.optim.SGD(network.parameters(), lr=recipe.lr, momentum=recipe.momentum)
    for images, labels in done.batches:
        done.seen.append([])
        optimiser.zero_grad()
        loss: Tensor = nn.functional.cross_entropy(network(images), labels)
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    done.view = replace(done.view, after=arrays(network))
    return done


def disturbed(view: ServerView, share: float, *, alone: bool = False) -> ServerView:
    """The view with Gaussian noise of ``share`` of each tensor's root mean square on its update, or ``alone``."""
    rng, after = np.random.default_rng(0), dict(view.after)
    for name, change in view.update.items():
        noise = share * np.sqrt(np.mean(np.square(change))) * rng.standard_normal(change.shape)
        after[name] = view.before[name] + noise + (0 if alone else change)
    return replace(view, after=after)
