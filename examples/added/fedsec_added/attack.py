"""``attack.name = "disc"``."""

from __future__ import annotations

import numpy as np

from fedsec.attacks.poison import Party
from fedsec.config import Attack
from fedsec.seeds import stream
from fedsec.types import Rows


def disc(rows: Rows, attack: Attack, party: Party) -> Rows:
    """Paint a white disc of attack.size pixels into the middle of their images."""
    count = max(1, round(attack.fraction * len(rows)))
    chosen = stream(party.seed, "disc").permutation(len(rows))[:count]
    y, x = np.indices(rows.pixels.shape[1:3]) - (rows.pixels.shape[1] - 1) / 2
    inside = y**2 + x**2 <= (attack.size / 2) ** 2
    pixels = np.array(rows.pixels)
    pixels[chosen] = np.where(inside[:, :, None], np.uint8(255), pixels[chosen])
    return Rows(pixels, rows.labels)
