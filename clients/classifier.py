"""The client of a federated image classifier, as hospitals run it: some local SGD steps, everything sent back."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
import torch.nn.functional as F
from flwr.client import NumPyClient
from flwr.common.typing import NDArrays, Scalar
from torch import nn

from fedsec.images import to_images
from fedsec.models.networks import new_network
from fedsec.models.state import load_network, network_arrays
from fedsec.privacy.protection import parsed
from fedsec.probes.view import Recipe, ServerView
from fedsec.seeds import stream
from fedsec.types import Arrays, Rows
from fedsec.weights import sent_names, with_proper_variances


class ClassifierClient(NumPyClient):
    """Trains the server's classifier on this site's images by the public ``recipe``.

    ``sends``: what leaves, see ``fedsec.weights.sent_names``; ``fit`` takes and returns that part of the state dict, in
    its order. What does not leave of BatchNorm's buffers stays here, in ``kept``: empty at first, its successor after
    each ``fit``. ``protect``: what is done to what is sent, see ``fedsec.privacy.protection``, drawn from ``secret``.
    ``captured`` is what the server holds after the last ``fit``: what was sent, to the bit.
    """

    def __init__(
        self,
        recipe: Recipe,
        rows: Rows,
        *,
        partition: int,
        seed: int,
        device: str = "cpu",
        sends: str = "everything",
        kept: Arrays | None = None,
        protect: str = "",
        secret: int | None = None,
    ) -> None:
        self.recipe, self.rows, self.partition, self.seed, self.device = recipe, rows, partition, seed, device
        self.sends, self.kept, self.protect = sends, kept or {}, parsed(protect)
        self.secret = seed if secret is None else secret
        self.captured: ServerView | None = None

    def fit(self, parameters: NDArrays, config: Mapping[str, Scalar]) -> tuple[NDArrays, int, dict[str, Scalar]]:
        """One round. ``config["round"]``: from 1; it, the client's address and its secret decide the images' order.

        Returns what is sent after ``recipe.steps`` steps over the images in a new order each pass, the number of
        images, and the mean training loss.
        """
        number = int(config["round"])
        network = new_network(self.recipe.spec, seed=self.seed)
        names = sent_names(network_arrays(network), self.sends)
        before: Arrays = dict(zip(names, parameters, strict=True))
        load_network(network, {**self.kept, **with_proper_variances(before)})
        losses = self._train(network, number)
        trained = network_arrays(network)
        after = {name: trained.pop(name) for name in names}
        self.kept = trained
        for step in self.protect:
            after = step(before, after, stream(self.secret, "client", self.partition, step.name, number))
        self.captured = ServerView(self.recipe, before, after, len(self.rows))
        return list(after.values()), len(self.rows), {"loss": float(np.mean(losses))}

    def _train(self, network: nn.Module, number: int) -> list[float]:
        """The round's steps on ``network``, in place: the loss of each."""
        recipe = self.recipe
        network.to(self.device).train()
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = recipe.bn_momentum
        optimiser = torch.optim.SGD(network.parameters(), recipe.lr, recipe.momentum)
        losses = []
        for index in self._batches(number):
            taken = self.rows.take(index)
            images = torch.from_numpy(to_images(taken.pixels)).to(self.device)
            loss = F.cross_entropy(network(images), torch.from_numpy(taken.labels).to(self.device))
            optimiser.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            losses.append(float(loss.detach()))
        return losses

    def _batches(self, number: int) -> list[np.ndarray]:
        """``recipe.steps`` index arrays: passes over all images, each shuffled and cut into batches."""
        rng = stream(self.secret, "client", self.partition, "round", number, "order")
        batches: list[np.ndarray] = []
        while len(batches) < self.recipe.steps:
            order = rng.permutation(len(self.rows))
            batches += [order[start : start + self.recipe.batch] for start in range(0, len(order), self.recipe.batch)]
        return batches[: self.recipe.steps]
