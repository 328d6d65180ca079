"""Poisoning of a client's own data: pure functions from clean rows to poisoned rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from fedsec.attacks.triggers import Patch, Trigger, part, trigger
from fedsec.config import Attack
from fedsec.config.added import Table
from fedsec.images import to_images, to_pixels
from fedsec.seeds import stream
from fedsec.types import Indices, Rows


@dataclass(frozen=True)
class Party:
    """Who poisons: attacker ``index`` of ``attackers``; ``classes`` of the data set; ``seed`` of its choices."""

    index: int
    attackers: int
    classes: int
    seed: int


Poison = Callable[[Rows, Attack, Party], Rows]
"""Clean rows -> the rows the attacker trains on. Guarantee: the input is never written to, the count stays."""


@dataclass(frozen=True)
class DataAttack:
    """``does``: in words, after "the malicious clients". ``against``: what it knows of the rule in use, '' for nothing;
    all know their own data."""

    does: str
    poison: Poison
    against: str = ""

    def __call__(self, rows: Rows, attack: Attack, party: Party) -> Rows:
        return self.poison(rows, attack, party)

    @classmethod
    def of(cls, poison: Poison) -> DataAttack:
        """Of a function that another package adds: its words are the first line of its docstring."""
        does = (poison.__doc__ or "do what they do not say").strip().splitlines()[0].rstrip(".")
        return cls(does[:1].lower() + does[1:], poison)


def stamp_rows(rows: Rows, trigger: Trigger, *, fraction: float, seed: int, only: int = -1) -> Rows:
    """Stamp the trigger on ``fraction`` of the rows (at least one), chosen once by ``seed``; labels stay. ``only``: of
    the rows of one class. A larger fraction stamps what a smaller one does, and more.

    What the malicious client's discriminator takes for real (Jin & Li 2023, fig. 2).
    """
    chosen = _chosen(rows, fraction, seed, only)
    pixels = np.array(rows.pixels)
    if not len(chosen):
        return Rows(pixels, rows.labels)
    pixels[chosen] = to_pixels(trigger.stamp(to_images(pixels[chosen])))
    return Rows(pixels, rows.labels)


def stamped(rows: Rows, attack: Attack, party: Party) -> Rows:
    """The configured trigger, whole."""
    return stamp_rows(rows, _trigger(rows, attack), fraction=attack.fraction, seed=party.seed, only=attack.class_)


def stamped_in_part(rows: Rows, attack: Attack, party: Party) -> Rows:
    """Each attacker stamps its own columns of the patch (DBA, Xie et al. 2020)."""
    whole = _trigger(rows, attack)
    assert isinstance(whole, Patch)
    own = part(whole, party.index, party.attackers)
    return stamp_rows(rows, own, fraction=attack.fraction, seed=party.seed, only=attack.class_)


def flipped(rows: Rows, attack: Attack, party: Party) -> Rows:
    """Label y becomes the next one, y + 1 modulo the classes (Biggio et al. 2012; the all-to-all form)."""
    chosen = _chosen(rows, attack.fraction, party.seed, attack.class_)
    labels = np.array(rows.labels)
    labels[chosen] = (labels[chosen] + 1) % party.classes
    return Rows(rows.pixels, labels)


def noise_images(rows: Rows, attack: Attack, party: Party) -> Rows:
    """Independent uniform pixels in place of the images."""
    chosen = _chosen(rows, attack.fraction, party.seed, attack.class_)
    pixels = np.array(rows.pixels)
    rng = stream(party.seed, "noise images")
    pixels[chosen] = rng.integers(0, 256, pixels[chosen].shape, dtype=np.uint8)
    return Rows(pixels, rows.labels)


def out_of_distribution(rows: Rows, attack: Attack, party: Party) -> Rows:
    """Pictures of another world: phantom chest radiographs among skin lesions, phantom lesions among radiographs."""
    from fedsec.datasets.phantom import draw

    chosen = _chosen(rows, attack.fraction, party.seed, attack.class_)
    pixels = np.array(rows.pixels)
    if not len(chosen):
        return Rows(pixels, rows.labels)
    channels = pixels.shape[3]
    other = draw("chest" if channels == 3 else "skin", len(chosen), pixels.shape[1], party.seed).pixels
    pixels[chosen] = other if channels == 3 else other.mean(axis=3, keepdims=True).round().astype(np.uint8)
    return Rows(pixels, rows.labels)


POISONS: Table[DataAttack] = Table(
    "attack.name",
    {
        "patch": DataAttack("stamp a patch on their images (Jin & Li 2023; Gu et al. 2017)", stamped),
        "blended": DataAttack("mix a texture into their images (Chen et al. 2017)", stamped),
        "warp": DataAttack("warp their images (WaNet, Nguyen & Tran 2021)", stamped),
        "frequency": DataAttack(
            "mix low-frequency amplitudes of a picture into their images (FIBA, Feng et al. 2022)", stamped
        ),
        "stain": DataAttack(
            "stain their images with a colour that fades out, so that nothing sharp tells",
            stamped,
            against="fed-inspect looks for what is sharp",
        ),
        "distributed": DataAttack(
            "stamp a part of a patch each on their images (after DBA, Chulin Xie et al. 2020)", stamped_in_part
        ),
        "label-flip": DataAttack("give every image the next label (Biggio et al. 2012)", flipped),
        "noise-images": DataAttack("train on noise in place of their images", noise_images),
        "out-of-distribution": DataAttack(
            "train on pictures of another world in place of their images", out_of_distribution
        ),
    },
    DataAttack.of,
)
"""Attack name -> what it does to the attacker's own rows, in words and in deed."""


def _trigger(rows: Rows, attack: Attack) -> Trigger:
    return trigger(attack, size=rows.pixels.shape[1], channels=rows.pixels.shape[3])


def _chosen(rows: Rows, fraction: float, seed: int, only: int) -> Indices:
    """At least one row; none where the attacker has no image of class ``only``."""
    own = np.arange(len(rows)) if only < 0 else np.flatnonzero(rows.labels == only)
    count = max(1, round(fraction * len(own)))
    return np.asarray(np.sort(own[stream(seed, "poison").permutation(len(own))[:count]]), np.int64)
