"""The server's own clean images and what training on them would do: the root of trust of FLTrust."""

from __future__ import annotations

import numpy as np

from fedsec.models.training import device_of, load_network, network_arrays, new_pair, spec, train_round
from fedsec.seeds import address_seed, stream
from fedsec.types import Rows, Vector
from fedsec.weights import Layout, generator_arrays, shared_arrays
from strategies.base import Brief


class Root:
    """Trains as a benign client would, on ``defence.root`` images against a discriminator of its own (Cao et al. 2021).

    The images are drawn once from the server's training images, so in a simulation clients hold them too; the held-out
    ones stay with the scores.
    """

    def __init__(self, brief: Brief) -> None:
        data, config = brief.dataset, brief.config
        count = min(config.defence.root, len(data.train))
        chosen = np.sort(stream(brief.seed, "root").permutation(data.train)[:count])
        self.rows: Rows = data.rows(chosen)
        self.config, self.seed, self.device = config, brief.seed, device_of(config.speed)
        shape = spec(config, channels=data.channels, classes=len(data.class_names))
        self.pair = new_pair(config, shape, seed=brief.seed, device=self.device)

    def update(self, number: int, layout: Layout, current: Vector) -> Vector:
        """(d,) the change of the shared tensors after one round's steps from ``current``."""
        shared = layout.arrays(current)
        load_network(self.pair.generator, generator_arrays(shared))
        prefix = "discriminator."
        load_network(
            self.pair.discriminator, {n.removeprefix(prefix): v for n, v in shared.items() if n.startswith(prefix)}
        )
        train_round(
            self.pair, self.rows, self.config, seed=address_seed(self.seed, "root", "round", number), device=self.device
        )
        after = shared_arrays(
            self.config.gan, network_arrays(self.pair.generator), network_arrays(self.pair.discriminator)
        )
        return layout.vector(after) - current
