"""Federated averaging, and what it is among the honest alone."""

from __future__ import annotations

from collections.abc import Sequence

from fedsec.flower.messages import Enrolled
from strategies.base import RoundStrategy


class FedAvg(RoundStrategy):
    """Uniform federated averaging of the generator (FedGAN, Rasouli et al. 2020; uniform as the FedDetect release)."""


class Oracle(RoundStrategy):
    """Federated averaging without the malicious clients: the ceiling any defence can reach. Not a defence."""

    def participants(self, nodes: Sequence[Enrolled]) -> list[Enrolled]:
        return [node for node in nodes if node.partition not in self.config.malicious]
