"""The benign client of a federated conditional GAN."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from flwr.client import NumPyClient
from flwr.common.typing import NDArrays, Scalar

from fedsec.config import FIRST_STEPS, RunConfig
from fedsec.models.training import (
    Pair,
    load_network,
    load_optimiser,
    network_arrays,
    new_pair,
    optimiser_arrays,
    spec,
    train_round,
)
from fedsec.seeds import address_seed
from fedsec.types import Arrays, Rows
from fedsec.weights import shared_arrays


class GanClient(NumPyClient):
    """Trains the global generator against a discriminator of its own for some steps a round.

    ``rows``: this site's images. ``kept``: what the site keeps between rounds (discriminator, both optimisers, local
    BatchNorm statistics), as named arrays, empty at first; ``fit`` leaves its successor in ``self.kept``. With
    ``gan.share = 'both'`` the discriminator travels too. Losses are reported as last batch (which the released
    FedDetect reads), as epoch mean, and over the FIRST_STEPS, while the generator is still nearly the server's.
    """

    def __init__(
        self,
        config: RunConfig,
        rows: Rows,
        *,
        partition: int,
        classes: int,
        seed: int,
        kept: Arrays,
        device: str = "cpu",
    ) -> None:
        self.config, self.own, self.partition, self.seed, self.kept = config, rows, partition, seed, kept
        self.shape = spec(config, channels=rows.pixels.shape[3], classes=classes)
        self.device = device

    def rows(self) -> Rows:
        """The images this client's discriminator takes for real."""
        if not self.config.gan.mirror:
            return self.own
        return Rows(
            np.concatenate([self.own.pixels, self.own.pixels[:, :, ::-1]]),
            np.concatenate([self.own.labels, self.own.labels]),
        )

    def fit(self, parameters: NDArrays, config: Mapping[str, Scalar]) -> tuple[NDArrays, int, dict[str, Scalar]]:
        """One round. ``parameters``: the shared tensors in the order of ``shared_names``; ``config["round"]``: from 1.

        Returns the shared tensors after training, the number of this site's own images, and the losses.
        """
        pair = new_pair(self.config, self.shape, seed=self.seed, device=self.device)
        self._recall(pair)
        self._accept(pair, parameters)
        address = address_seed(self.seed, "client", self.partition, "round", int(config["round"]))
        losses = train_round(pair, self.rows(), self.config, seed=address, device=self.device)
        self.kept = self._remember(pair)
        shared = self._shared(pair)
        return (
            list(shared.values()),
            len(self.own),
            {
                "g-loss": float(np.mean(losses.generator)),
                "g-loss-last": losses.generator[-1],
                "g-loss-first": float(np.mean(losses.generator[:FIRST_STEPS])),
                "d-loss": float(np.mean(losses.discriminator)),
                "d-loss-last": losses.discriminator[-1],
            },
        )

    def shared_names(self, pair: Pair) -> list[str]:
        return list(self._shared(pair))

    def _shared(self, pair: Pair) -> Arrays:
        return shared_arrays(self.config.gan, network_arrays(pair.generator), network_arrays(pair.discriminator))

    def _accept(self, pair: Pair, parameters: NDArrays) -> None:
        named = dict(zip(self.shared_names(pair), parameters, strict=True))
        load_network(pair.generator, _under("generator", named))
        load_network(pair.discriminator, _under("discriminator", named))

    def _recall(self, pair: Pair) -> None:
        if self.kept:
            load_network(pair.generator, _under("buffers", self.kept))
            load_network(pair.discriminator, _under("discriminator", self.kept))
            load_optimiser(pair.generator_optimiser, _under("g-adam", self.kept))
            load_optimiser(pair.discriminator_optimiser, _under("d-adam", self.kept))

    def _remember(self, pair: Pair) -> Arrays:
        buffers = {name: value.detach().cpu().numpy().copy() for name, value in pair.generator.named_buffers()}
        return {
            **_prefixed("buffers", buffers),
            **_prefixed("discriminator", network_arrays(pair.discriminator)),
            **_prefixed("g-adam", optimiser_arrays(pair.generator_optimiser)),
            **_prefixed("d-adam", optimiser_arrays(pair.discriminator_optimiser)),
        }


def _under(prefix: str, arrays: Mapping[str, np.ndarray]) -> Arrays:
    return {name[len(prefix) + 1 :]: value for name, value in arrays.items() if name.startswith(f"{prefix}.")}


def _prefixed(prefix: str, arrays: Arrays) -> Arrays:
    return {f"{prefix}.{name}": value for name, value in arrays.items()}
