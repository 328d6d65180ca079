"""Poisoning of a client's own data: pure functions from clean rows to poisoned rows."""

from __future__ import annotations

import numpy as np

from fedsec.attacks.triggers import Trigger
from fedsec.images import to_images, to_pixels
from fedsec.seeds import stream
from fedsec.types import Rows


def stamp_rows(rows: Rows, trigger: Trigger, *, fraction: float, seed: int) -> Rows:
    """Stamp the trigger on ``fraction`` of the rows (at least one), chosen once by ``seed``; labels stay.

    What the malicious client's discriminator takes for real (Jin & Li 2023, fig. 2). The input is never written to.
    """
    count = max(1, round(fraction * len(rows)))
    chosen = np.sort(stream(seed, "poison").permutation(len(rows))[:count])
    pixels = np.array(rows.pixels)
    pixels[chosen] = to_pixels(trigger.stamp(to_images(pixels[chosen])))
    return Rows(pixels, rows.labels)
