"""fed-inspect: judge clients by what their uploaded generators draw, not by what they say of themselves.

The server holds every uploaded generator, so it draws images with each on the same latents and labels. What a client
wants in the images that others do not want shows as a deviation of its mean image from the median client's, at the same
place and with the same sign round after round; what batches and latents do to it changes sign and averages out. Three
PARTS of the mean images are looked at, each for its *peak*, the highest local energy:

- ``whole``: all of the deviation. Among equal hospitals this is what attackers stand out in, large and soft stamps too;
  where hospitals differ in labels or cameras, so do their mean images, by as much as a trigger does.
- ``sharp``: what is finer than BLUR. A mean over patients is smooth, whoever the patients are and whatever took the
  pictures; a stamp at one place keeps its edges. A hospital with a handful of images is a little sharper than others.
- ``odd``: what changes sign when left and right are exchanged. Clients that train on each image and its mirror image
  (``gan.mirror``) want the same on both sides, whatever their images; a mark on one side does not. It needs no edge.

Of ``sharp`` and ``odd`` a client is charged with what it has *more* of than the median client (GAINS), not with how far
it is from it: honest images have next to none of either. Once colluders have begun to win, everybody's generator draws
the mark; they want more of it, the honest less, and either is a deviation.

A mark on a quarter of the images, on one class or in some rounds, a faint one and one that has just begun have peaks
that are no higher than honest ones. ``marks`` finds them by what changes at their place (docs/results/adaptive.md).

Pure functions; sampling is the strategy's. Ours; related: discriminator-response probing of free-riders (Zhao et al.
2022), comparison of generated images between clients for re-weighting (FedCAR, 2024).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from fedsec.types import Images, Labels, Vector

Means = npt.NDArray[np.float64]
"""(clients, classes, channels, size, size): each client's mean image of each class."""
Deviations = npt.NDArray[np.float64]
"""(rounds, classes, channels, size, size): one client's class means less the median client's, round by round."""
Array = npt.NDArray[np.float64]
WINDOW = 20
"""Rounds of its own over which a client's deviation must persist. In trials weak marks (blended textures, colluders
that have begun to win) stood apart over twenty rounds and not over ten."""
PLACE = 4
"""Side of the square, in pixels at 32 px, over which energy is averaged: about a small trigger."""
SPANS = (5, 20)
"""Rounds over which a mark must persist: the few in which one that has just begun is all there is, and the many in
which a faint one adds up."""
BLUR = 1.0
"""Standard deviation, in pixels at 32 px, of the Gaussian that the sharp part is what is left of; 1 to 3 did
alike in trials."""
BOUND = 1.0
"""Longest update that counts whole, over the median client's, unless ``defence.bound`` says otherwise. Adam's steps
make lengths alike: 0.75 to 1.25 among honest clients (lesions, seeds 0 and 1, 24 rounds), so nobody honest loses much.
With 1.25 one scaled update left a mark of 0.015 of a full stamp's strength at both seeds, which no test of a round
alone told from honest rounds."""
NOTHING = 1e-6
"""A peak that is none, in units of the image range: added to each, so that equal clients have a ratio."""


def class_means(drawn: list[Images], labels: Labels) -> Means:
    """Mean image of each class for each client's images (n, c, s, s), all drawn for the same ``labels``."""
    classes = np.unique(labels)
    return np.stack([[images[labels == k].mean(axis=0, dtype=np.float64) for k in classes] for images in drawn])


def median_client(means: Means) -> Means:
    """(1, classes, channels, size, size): the pixel-wise median; colluders below half cannot move it far."""
    return np.asarray(np.median(means, axis=0, keepdims=True), np.float64)


def sharp(means: Means) -> Means:
    """What is left of each image when a Gaussian blur of BLUR is taken off; linear, and 0 for flat images."""
    from scipy.ndimage import gaussian_filter

    width = BLUR * means.shape[-1] / 32
    return np.asarray(means - gaussian_filter(means, (0, 0, 0, width, width), mode="nearest"), np.float64)


def odd(means: Means) -> Means:
    """Half the difference to the mirror image, left and right exchanged."""
    return np.asarray((means - means[..., ::-1]) / 2, np.float64)


PARTS: dict[str, Callable[[Means], Means]] = {"whole": lambda means: means, "sharp": sharp, "odd": odd}
MARK = "mark"
"""What is fine and persists at one place, over what changes there (``marks``): no peak of the mean images alone."""
MARK_POWER = 2.3
"""Honest clients' marks differ by 0.13 in the logarithm, their peaks by 0.3 (recorded lesions)."""
HANDICAP = 2.0
"""What the other parts' ratios are divided by beside MARK: an honest client's highest of them was 1.9 in trials, and
whom everybody else's noise stands beside is hidden by it."""
GAINS = ("sharp", "odd")
"""Parts that honest mean images have next to nothing of."""


def parts(inspects: str, *, mirrored: bool) -> tuple[str, ...]:
    """The PARTS, and MARK, that ``defence.inspects`` names; ``all`` leaves ``odd`` out where nothing makes clients
    symmetric."""
    every = tuple(name for name in (*PARTS, MARK) if mirrored or name != "odd")
    return every if inspects == "all" else (inspects,)


def scales(looked_at: Sequence[str]) -> tuple[list[float], list[float]]:
    """The powers and divisors by which ``outstanding`` makes these parts comparable, in order; of MARK one for each of
    SPANS."""
    others, spans = [part for part in looked_at if part != MARK], len(SPANS) if MARK in looked_at else 0
    handicap = HANDICAP if spans else 1.0
    return [1.0 for _ in others] + [MARK_POWER] * spans, [handicap for _ in others] + [1.0] * spans


def peak(means: Means, medians: Means, part: str = "whole") -> Vector:
    """(clients,) the root of the highest local energy; units of the image range.

    ``means``: each client's class means, averaged over the rounds remembered of it; ``medians``: the median client's
    over the same rounds (one for all, or one for each); ``part``: which of PARTS. Energy is that of the deviation, or
    of GAINS what the client's has above the median client's; 0 for a client that has nothing of its own anywhere.
    """
    deviation = PARTS[part](np.asarray(means - medians, np.float64))
    energy = np.square(deviation)
    if part in GAINS:
        energy += 2 * PARTS[part](medians) * deviation
    local = _local(energy.mean(axis=(1, 2)))
    return np.asarray(np.sqrt(np.maximum(local, 0).max(axis=(1, 2))), np.float64)


def persistence(deviations: Deviations) -> tuple[Array, Array]:
    """What of one client's deviations stays where it is, and how much of them changes from round to round.

    ``deviations``: its last rounds, oldest first. Returns (spans, classes, size, size), for each of SPANS the local
    energy of the mean over the last so many rounds, times how many those are, and (classes, size, size), the mean
    local energy of single rounds. Where rounds are independent and of mean 0 both are the same in expectation.
    """
    fine = sharp(deviations)
    last = [fine[-span:] for span in SPANS]
    stays = np.stack([len(rounds) * _local(np.square(rounds.mean(axis=0)).mean(axis=1)) for rounds in last])
    return stays, _local(np.square(fine).mean(axis=(0, 2)))


def marks(histories: Sequence[Deviations]) -> Array:
    """(clients, spans): at the place where a client's fine deviation persists most, how much it does, as a root, over
    what the median client's deviations of single rounds are *at that place* and of that class.

    A mark fainter than what generators change by elsewhere stands out where they change little. A window-limited
    generalised likelihood ratio (Siegmund & Venkatraman 1995; Lai 1998) with two windows, the noise of each place taken
    from the clients. About 1 on average over places for a client that wants nothing of its own; returned is the
    highest, over places, of the mean over classes. 0 for a client without any deviation.
    """
    stays, changes = (np.stack(every) for every in zip(*map(persistence, histories), strict=True))
    ratios = stays / (np.median(changes, axis=0) + NOTHING**2)
    return np.asarray(np.sqrt(ratios.mean(axis=2).max(axis=(2, 3))), np.float64)


def outstanding(peaks: Array, powers: Sequence[float] = (1.0,), divisors: Sequence[float] = (1.0,)) -> Vector:
    """(clients, parts) peaks -> (clients,): how many times the median client's, in the part where that is most, each
    part's ratios raised to its power and divided by its divisor (``scales``)."""
    ratios = (peaks + NOTHING) / (np.median(peaks, axis=0) + NOTHING)
    return np.asarray((ratios ** np.array(powers) / np.array(divisors)).max(axis=1), np.float64)


def _local(energy: Array) -> Array:
    """The mean over the PLACE around each pixel of the last two axes."""
    from scipy.ndimage import uniform_filter

    side = max(2, PLACE * energy.shape[-1] // 32)
    return np.asarray(uniform_filter(energy, (0,) * (energy.ndim - 2) + (side, side)), np.float64)
