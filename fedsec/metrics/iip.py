"""Image identifiability precision: how often a reconstruction points at exactly the image it came from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from fedsec.errors import MetricError
from fedsec.types import Features, Images, Indices, Labels, Vector

OTHERS = 200
"""Images of the source's label, the source not counted, that a gallery must at least hold."""
TIE = 1e-9
"""Cosines closer than this are equal: rounding must not choose a neighbour."""

Embedding = Callable[[Images], Features]
"""Images (n, c, s, s) -> (n, d), each image by itself: a ``metrics.features.Extractor``, or ``pixels`` below."""


@dataclass(frozen=True, eq=False)
class Iip:
    """What a gallery search gave. ``n``: reconstructions searched for.

    ``value``: share identified, in [0, 1]; k equally near images, the source among them, count 1/k.
    ``chance``: what images that know nothing of the sources reach: the mean of 1 / images searched.
    ``ranks`` (n,): place of the source among the images searched, 1 = nearest; equally near ones share a mean place.
    """

    value: float
    chance: float
    n: int
    ranks: Vector


def pixels(images: Images) -> Features:
    """(n, c s s): the pixels less their mean over the image, so that the cosine is the correlation of two images.

    Neither brightness nor contrast of a whole image matters. An image of one value is 0: alike with nothing.
    """
    flat = images.reshape(len(images), -1).astype(np.float64)
    return np.asarray(flat - flat.mean(axis=1, keepdims=True))


def iip(reconstructions: Images, gallery: Images, labels: Labels, sources: Indices, embedding: Embedding) -> Iip:
    """Share of reconstructions whose nearest gallery image of the source's label is the source (Yin et al. 2021, IIP).

    ``reconstructions`` (n, c, s, s); ``gallery`` (g, c, s, s) with its ``labels`` (g,), sources and others together;
    ``sources`` (n,): the gallery row each reconstruction is to be held against (an attack does not keep the order of a
    batch: match first, ``metrics.similarity.matched``). Nearest by cosine similarity under ``embedding``.
    Guarantee: reconstructions that know nothing of sources drawn at random are at ``chance`` on average, whatever the
    embedding, even a constant one; exact copies give 1 where the embedding tells all images of a label apart.
    Departure: only images of the source's label are searched, at least 1 + 200, since finding the label is no
    identification; the source (known to us at second hand) searches all originals. The value falls as the gallery
    grows: compare at equal ``chance`` only, with the embedding's name, and with two embeddings, as one may be blind.
    Errors: MetricError for a smaller gallery, no reconstruction, or non-finite features.
    """
    _check(len(reconstructions), len(gallery), labels, sources)
    known, found = _directions(embedding(gallery), "gallery"), _directions(embedding(reconstructions), "reconstructed")
    shares, chances, ranks = (np.empty(len(sources)) for _ in range(3))
    for i, source in enumerate(sources):
        searched = np.flatnonzero(labels == labels[source])
        cosines = known[searched] @ found[i]
        own = cosines[np.searchsorted(searched, source)]
        nearer, equal = int((cosines > own + TIE).sum()), int((np.abs(cosines - own) <= TIE).sum())
        shares[i], chances[i] = (nearer == 0) / equal, 1 / len(searched)
        ranks[i] = nearer + (equal + 1) / 2
    return Iip(float(shares.mean()), float(chances.mean()), len(sources), ranks)


def named(reconstructions: Images, gallery: Images, sources: Indices, embedding: Embedding) -> float:
    """Share of ``sources`` (rows of the gallery) that are the nearest of all its images to some reconstruction.

    Nothing is matched and no label is known, as for who has the files and not the truth: of a batch ``iip`` holds each
    reconstruction against the source it was matched to. n reconstructions that know nothing name at most n of g images.
    Errors: as ``iip``.
    """
    if not len(reconstructions) or not len(sources):
        raise MetricError("no reconstruction or no source: nothing can be named")
    known, found = _directions(embedding(gallery), "gallery"), _directions(embedding(reconstructions), "reconstructed")
    nearest = np.argmax(found @ known.T, axis=1)[np.linalg.norm(found, axis=1) > 0]
    return float(np.isin(sources, nearest).mean())


def _directions(features: Features, name: str) -> Features:
    """Rows of length 1; a row of zeros stays, and has cosine 0 with all."""
    bad = int((~np.isfinite(features)).any(axis=1).sum())
    if bad:
        raise MetricError(f"{bad} of {len(features)} {name} images have non-finite features: leave them out")
    length = np.linalg.norm(features.astype(np.float64), axis=1, keepdims=True)
    return np.asarray(features / np.where(length > 0, length, 1), np.float64)


def _check(n: int, size: int, labels: Labels, sources: Indices) -> None:
    if n == 0 or sources.shape != (n,) or labels.shape != (size,):
        raise MetricError(
            f"{n} reconstructions with {len(sources)} sources, {size} gallery images with {len(labels)} labels: "
            "IIP needs one source a reconstruction, at least one, and one label a gallery image"
        )
    if sources.min() < 0 or sources.max() >= size:
        raise MetricError(f"sources lie in {sources.min()} .. {sources.max()}, the gallery has rows 0 .. {size - 1}")
    for label in np.unique(labels[sources]):
        others = int((labels == label).sum()) - 1
        if others < OTHERS:
            raise MetricError(
                f"the gallery holds {others} other images of label {label}, IIP needs at least {OTHERS}: add images of "
                "that label, or a nearest neighbour means little"
            )
