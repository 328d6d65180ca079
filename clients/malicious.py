"""The malicious client: a benign one with other training rows. What it sends and reports: ``strategies.adversary``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from flwr.common.typing import NDArrays, Scalar

from clients.gan import GanClient
from fedsec.attacks.knowing import KNOWING
from fedsec.attacks.poison import POISONS, Party
from fedsec.seeds import address_seed
from fedsec.types import Rows


class MaliciousGanClient(GanClient):
    """Poisons the real images its local discriminator sees, in the rounds in which it attacks; in all if it is patient.
    In all else it follows the protocol (Jin & Li 2023). The number of the round is in every task."""

    number = 0

    def fit(self, parameters: NDArrays, config: Mapping[str, Scalar]) -> tuple[NDArrays, int, dict[str, Scalar]]:
        self.number = int(config["round"])
        return super().fit(parameters, config)

    def rows(self) -> Rows:
        attack, rounds = self.config.attack, self.config.train.rounds
        patient = attack.update in KNOWING and KNOWING[attack.update].patient
        if attack.name not in POISONS or not (patient or attack.acts(self.number, rounds)):
            return super().rows()
        now = replace(attack, fraction=attack.share(self.number, rounds))
        guilty = self.config.malicious
        seed = address_seed(self.seed, "poison", self.partition)
        party = Party(guilty.index(self.partition), len(guilty), self.classes, seed)
        return POISONS[attack.name](super().rows(), now, party)
