"""Does a generated image carry the trigger? A normalised correlation at its place, thresholded on clean images."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from fedsec.attacks.triggers import Patch
from fedsec.types import Images, Score, Vector

FALSE_POSITIVES = 0.01
"""Share of clean real images above the threshold, by construction."""
LEAST_CLEAN = 100
"""Clean images below which a 1 % quantile means nothing."""

Match = Callable[[Images], Vector]
"""Images -> (n,), higher = more like a stamped image; one number an image, finite for finite images."""


def at_its_place(patch: Patch) -> Match:
    """The match of a patch that sits at one place."""
    return lambda images: trigger_match(images, patch.pattern, patch.top, patch.left)


def trigger_match(images: Images, pattern: Images, top: int, left: int) -> Vector:
    """(n,) in [-1, 1]: how much the patch at (top, left) looks like ``pattern`` (1, c, k, k); 1 for a full stamp.

    r and p are the patch and the pattern, both less the mean colour of a ring around the patch (k / 4 wide, at least
    one pixel), as vectors over channels and space. The match is r.p / (|p| max(|r|, |p|)): a normalised correlation
    in which a patch fainter than the pattern counts by its strength. The ring, and not the pattern's own mean, is
    taken off so that a solid trigger, which has no variance, is matched by its contrast to the skin around it; the
    max keeps flat skin, whose direction is chance, from matching it. 0 where the pattern equals its surroundings.
    """
    side = pattern.shape[2]
    assert images.shape[1] == pattern.shape[1], (images.shape, pattern.shape)
    assert min(top, left) >= 0, (top, left)
    assert max(top, left) + side <= images.shape[2], (top, left, side, images.shape)
    width = max(1, side // 4)
    ring = np.zeros(images.shape[2:], bool)
    ring[max(0, top - width) : top + side + width, max(0, left - width) : left + side + width] = True
    ring[top : top + side, left : left + side] = False
    around = images[:, :, ring].mean(axis=2, dtype=np.float64)[:, :, None, None]
    r = (images[:, :, top : top + side, left : left + side] - around).reshape(len(images), -1)
    p = (pattern - around).reshape(len(images), -1)
    length = np.linalg.norm(p, axis=1)
    scale = length * np.maximum(length, np.linalg.norm(r, axis=1))
    match: Vector = np.divide((r * p).sum(axis=1), scale, out=np.zeros(len(images)), where=scale > 0)
    return match


def trigger_rate(generated: Images, clean: Images, match: Match) -> Score:
    """Share of ``generated`` images whose match exceeds that of all but 1 % of the ``clean`` real ones.

    About 0.01 where no trigger is learnt, if the generated texture is as smooth as the real one: read it against the
    arm without attack. Real skin hardly matches a patch, so its threshold is low (0.09 for a 4 px smooth patch on
    dermoscopy, where attacked generators reach 0.3): a rough corner exceeds it too. ``trigger_strength`` tells the two
    apart. NaN with a reason below 100 clean images, without generated ones, or for non-finite images.
    """
    reason = _unusable(generated, clean)
    if reason:
        return Score("trigger-rate", float("nan"), len(generated), "lower", reason)
    carried = match(generated) > threshold(clean, match)
    return Score("trigger-rate", float(carried.mean()), len(generated), "lower")


def threshold(clean: Images, match: Match) -> float:
    """What all but 1 % of the ``clean`` images stay at or below."""
    return float(np.quantile(match(clean), 1 - FALSE_POSITIVES, method="higher"))


def trigger_strength(generated: Images, clean: Images, match: Match) -> Score:
    """Mean match of ``generated`` less that of the ``clean`` real ones: 0 no trigger, 1 a full stamp on every image.

    Noise at the place, however rough, averages out. NaN with a reason where ``trigger_rate`` is.
    """
    reason = _unusable(generated, clean)
    if reason:
        return Score("trigger-strength", float("nan"), len(generated), "lower", reason)
    drawn, real = (float(match(images).mean()) for images in (generated, clean))
    return Score("trigger-strength", drawn - real, len(generated), "lower")


def _unusable(generated: Images, clean: Images) -> str:
    if len(clean) < LEAST_CLEAN:
        return f"{len(clean)} clean images: a threshold at 1 % needs at least {LEAST_CLEAN}"
    if len(generated) == 0:
        return "no generated images"
    if not (np.isfinite(generated).all() and np.isfinite(clean).all()):
        return "images hold a non-finite value: the model diverged"
    return ""
