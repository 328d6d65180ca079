"""The server's own clean images and what training on them would do: the root of trust of FLTrust."""

from __future__ import annotations

import numpy as np

from fedsec.models.gan.learner import new_learner
from fedsec.models.state import device_of
from fedsec.seeds import address_seed, stream
from fedsec.types import Arrays, Rows, Vector
from fedsec.weights import Layout
from strategies.base import Brief


class Root:
    """Trains as a benign client would, on ``defence.root`` images with a learner of its own (Cao et al. 2021).

    The images are drawn once from the server's training images, so in a simulation clients hold them too; the held-out
    ones stay with the scores.
    """

    def __init__(self, brief: Brief) -> None:
        data, config = brief.dataset, brief.config
        count = min(config.defence.root, len(data.train))
        chosen = np.sort(stream(brief.seed, "root").permutation(data.train)[:count])
        self.rows: Rows = data.rows(chosen)
        self.seed = brief.seed
        self.learner = new_learner(
            config,
            channels=data.channels,
            classes=len(data.class_names),
            seed=brief.seed,
            device=device_of(config.speed),
        )

    def update(self, number: int, layout: Layout, current: Vector) -> Vector:
        """(d,) the change of the shared tensors after one round's steps from ``current``."""
        self.learner.load(layout.arrays(current), {})
        self.learner.train(self.rows, seed=address_seed(self.seed, "root", "round", number))
        after: Arrays = self.learner.shared()
        return layout.vector(after) - current
