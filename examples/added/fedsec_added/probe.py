"""``leakage.attacks = "nearest"``."""

from __future__ import annotations

import numpy as np

from fedsec.errors import ProbeError
from fedsec.images import to_images
from fedsec.probes.audit import Means, Told
from fedsec.probes.candidates import likeness
from fedsec.probes.view import ServerView
from fedsec.types import Images


def nearest(view: ServerView, means: Means) -> tuple[Images, Told]:
    """The attacker's own public images whose updates look most like the one that was sent."""
    if means.public is None or len(means.public) < view.examples:
        raise ProbeError(f"not attempted: nearest: {view.examples} public images are needed at least")
    alike = likeness([view], means.public)[0]
    best = np.argsort(-alike)[: view.examples]
    return to_images(means.public.pixels[best]), {"alike": float(alike[best[0]])}
