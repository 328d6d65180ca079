"""The client of a federated image classifier, as hospitals run it: some local SGD steps, everything sent back."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
import torch.nn.functional as F
from flwr.client import NumPyClient
from flwr.common.typing import NDArrays, Scalar

from fedsec.images import to_images
from fedsec.models.networks import new_network
from fedsec.models.training import load_network, network_arrays
from fedsec.probes.view import Recipe, ServerView
from fedsec.seeds import stream
from fedsec.types import Arrays, Rows


class ClassifierClient(NumPyClient):
    """Trains the server's classifier on this site's images by the public ``recipe``; nothing stays between rounds.

    ``fit`` takes and returns the whole state dict in its order, running statistics and counters among it: that is the
    protocol whose leak is measured. ``captured`` is what the server holds after the last ``fit``.
    """

    def __init__(self, recipe: Recipe, rows: Rows, *, partition: int, seed: int, device: str = "cpu") -> None:
        self.recipe, self.rows, self.partition, self.seed, self.device = recipe, rows, partition, seed, device
        self.captured: ServerView | None = None

    def fit(self, parameters: NDArrays, config: Mapping[str, Scalar]) -> tuple[NDArrays, int, dict[str, Scalar]]:
        """One round. ``config["round"]``: from 1; it and the client's address decide the order of the images.

        Returns the state dict after ``recipe.steps`` steps over the images in a new order each pass, the number of
        images, and the mean training loss.
        """
        recipe = self.recipe
        network = new_network(recipe.spec, seed=self.seed)
        before: Arrays = dict(zip(network_arrays(network), parameters, strict=True))
        load_network(network, before)
        network.to(self.device).train()
        for module in network.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.momentum = recipe.bn_momentum
        optimiser = torch.optim.SGD(network.parameters(), recipe.lr, recipe.momentum)
        losses = []
        for index in self._batches(int(config["round"])):
            taken = self.rows.take(index)
            images = torch.from_numpy(to_images(taken.pixels)).to(self.device)
            loss = F.cross_entropy(network(images), torch.from_numpy(taken.labels).to(self.device))
            optimiser.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            losses.append(float(loss.detach()))
        after = network_arrays(network)
        self.captured = ServerView(recipe, before, after, len(self.rows))
        return list(after.values()), len(self.rows), {"loss": float(np.mean(losses))}

    def _batches(self, number: int) -> list[np.ndarray]:
        """``recipe.steps`` index arrays: passes over all images, each shuffled and cut into batches."""
        rng = stream(self.seed, "client", self.partition, "round", number, "order")
        batches: list[np.ndarray] = []
        while len(batches) < self.recipe.steps:
            order = rng.permutation(len(self.rows))
            batches += [order[start : start + self.recipe.batch] for start in range(0, len(order), self.recipe.batch)]
        return batches[: self.recipe.steps]
