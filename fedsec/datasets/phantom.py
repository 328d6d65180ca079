"""The embedded data: procedural lesions ('skin') and radiographs ('chest') from four acquisition sites.

Guarantee: image i, its label, site and lesion depend on ``(seed, modality, i)`` alone, not on how many are drawn, so
a shorter phantom is a prefix of a longer one. Images come in blocks of ``BLOCK`` that hold whole lesions/patients;
some of them are photographed two or three times. A changed picture needs a new ``intake.PHANTOM_VERSION``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Literal

import numpy as np

from fedsec.datasets import chest, skin
from fedsec.datasets.fields import Layers, at_size
from fedsec.datasets.raw import Raw
from fedsec.seeds import stream
from fedsec.types import Pixels

BLOCK = 8

Modality = Literal["skin", "chest"]
Step = Callable[[int], None]


def draw(modality: Modality, count: int, size: int, seed: int, step: Step = lambda done: None) -> Raw:
    """``count`` images of side ``size`` (32, 64, 128 or 224), with class names, group and site of each.

    ``step(done)`` is called as images get ready.
    """
    channels = 3 if modality == "skin" else 1
    pixels: Pixels = np.empty((count, size, size, channels), np.uint8)
    labels, groups, sites = [], [], []
    for i, (canvas, label, group, site) in zip(range(count), _pictures(modality, seed), strict=False):
        pixels[i] = at_size(canvas, size)
        labels.append(label)
        groups.append(group)
        sites.append(site)
        step(i + 1)
    return Raw(pixels, labels, groups, sites, [""] * count)


def _pictures(modality: Modality, seed: int) -> Iterator[tuple[Layers, str, str, str]]:
    """(canvas, class name, group, site name) of image 0, 1, 2, ... without end."""
    first = 0
    while True:
        image = first
        for size in _shots(stream(seed, "phantom", modality, "block", first)):
            yield from _subject(modality, seed, image, size)
            image += size
        first += BLOCK


def _shots(rng: np.random.Generator) -> list[int]:
    """How many images each subject of one block has: mostly 1, some 2 or 3, together ``BLOCK``."""
    shots: list[int] = []
    while (left := BLOCK - sum(shots)) > 0:
        shots.append(min(left, int(rng.choice([1, 2, 3], p=[0.72, 0.2, 0.08]))))
    return shots


def _subject(modality: Modality, seed: int, image: int, shots: int) -> Iterator[tuple[Layers, str, str, str]]:
    """The ``shots`` images of the lesion or patient whose first one is number ``image``."""
    rng = stream(seed, "phantom", modality, "subject", image)
    views = (stream(seed, "phantom", modality, "image", image + k) for k in range(shots))
    group = f"{modality}-{image}"
    if modality == "skin":
        site = skin.SITES[rng.choice(len(skin.SITES), p=[s.share for s in skin.SITES])]
        label = int(rng.random() < site.malignant)
        drawn = skin.lesion(rng, label)
        for view in views:
            yield skin.picture(view, drawn, site), skin.CLASSES[label], group, site.name
    else:
        clinic = chest.SITES[rng.choice(len(chest.SITES), p=[s.share for s in chest.SITES])]
        label = int(rng.random() < clinic.pneumonia)
        drawn = chest.patient(rng, label)
        for view in views:
            yield chest.picture(view, drawn, clinic), chest.CLASSES[label], group, clinic.name
