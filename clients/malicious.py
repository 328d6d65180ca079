"""The malicious client: a benign one whose training rows carry a trigger."""

from __future__ import annotations

from clients.gan import GanClient
from fedsec.attacks.poison import stamp_rows
from fedsec.attacks.triggers import trigger
from fedsec.seeds import address_seed
from fedsec.types import Rows


class MaliciousGanClient(GanClient):
    """Poisons the real images its local discriminator sees; in all else it follows the protocol (Jin & Li 2023)."""

    def rows(self) -> Rows:
        attack = self.config.attack
        stamp = trigger(attack, size=self.config.data.size, channels=self.own.pixels.shape[3])
        seed = address_seed(self.seed, "poison", self.partition)
        return stamp_rows(super().rows(), stamp, fraction=attack.fraction, seed=seed)
