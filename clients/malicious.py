"""The malicious client: a benign one with other training rows. What it sends and reports: ``strategies.adversary``."""

from __future__ import annotations

from clients.gan import GanClient
from fedsec.attacks.poison import POISONS, Party
from fedsec.seeds import address_seed
from fedsec.types import Rows


class MaliciousGanClient(GanClient):
    """Poisons the real images its local discriminator sees; in all else it follows the protocol (Jin & Li 2023)."""

    def rows(self) -> Rows:
        attack = self.config.attack
        if attack.name not in POISONS:
            return super().rows()
        guilty = self.config.malicious
        seed = address_seed(self.seed, "poison", self.partition)
        party = Party(guilty.index(self.partition), len(guilty), self.classes, seed)
        return POISONS[attack.name](super().rows(), attack, party)
