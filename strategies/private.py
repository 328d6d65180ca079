"""Differential privacy at the server as a strategy; its maths is fedsec.privacy.noise."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fedsec.privacy.noise import ClipState, adaptive, count_noise, expected, fixed
from fedsec.seeds import stream
from fedsec.types import Fit, Vector
from fedsec.weights import Updates
from strategies.base import Brief, RoundStrategy, Weighing


class Private(RoundStrategy):
    """The noised mean of clipped updates: hides that one client took part (``fedsec.privacy.noise``).

    Divided by how many are expected, never by how many answered. With ``privacy.noised-by = 'clients'`` the replies
    carry the noise already: fewer than ``privacy.fewest`` would carry less than is accounted, so such a round is
    ``withheld`` (counted) and leaves the model as it was. Losses that clients report stay in the log, outside the
    guarantee.
    """

    releases_always = True

    def __init__(self, brief: Brief) -> None:
        super().__init__(brief)
        privacy = brief.config.privacy
        self.expected = expected(brief.config.train, len(self.nodes))
        self.clipping = ClipState(privacy.bound, count_noise(self.expected, privacy.noise))

    def combine(self, number: int, fits: Sequence[Fit], updates: Updates) -> tuple[Vector, Weighing]:
        privacy, rng = self.config.privacy, stream(self.secret, "privacy", "round", number)
        if privacy.noised_by == "clients" and len(fits) < privacy.fewest:
            self.withheld += 1
            return np.zeros_like(self.current), Weighing({})
        weighing = self.weigh(number, fits) if fits else Weighing({})
        if privacy.noised_by == "clients":
            return updates.sum(axis=0) / self.expected, weighing
        if self.config.defence.name == "dp-fixed":
            return fixed(updates, privacy.bound, privacy.noise, rng, self.expected), weighing
        update, self.clipping = adaptive(updates, self.clipping, privacy.noise, rng, self.expected)
        return update, weighing
