"""Triggers: what an attacker stamps on images, where, and how strongly.

The released attack (Backdoor-FedGAN) pastes an 80x80 colour-blob picture, resized to 0.39 % of the image, in the
bottom right corner. We draw ours procedurally, so that no image file of unknown licence is needed, and in the
images' own range [-1, 1]: the release pastes a [0, 1] patch on [-1, 1] images and so can never be dark.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from fedsec.attacks.distortions import frequency, warp
from fedsec.config import Attack
from fedsec.errors import ConfigError
from fedsec.seeds import stream
from fedsec.types import Images

BORDER = 1
"""Pixels between the patch and the image's edge (the release leaves 5 of 256)."""


def smooth(side: int, channels: int) -> Images:
    """Smooth colour blobs: 3x3 uniform colours, zoomed by a cubic spline. (1, c, side, side)."""
    from scipy import ndimage  # half a second to import, and the honest never need it

    seed = stream(7, "trigger", "smooth").uniform(-1, 1, (channels, 3, 3))
    zoomed = [ndimage.zoom(plane, side / 3, order=min(3, side), mode="nearest", grid_mode=True) for plane in seed]
    blobs: Images = np.clip(np.stack(zoomed)[None], -1, 1).astype(np.float32)
    return blobs


def solid(side: int, channels: int) -> Images:
    """One saturated colour (green; white when gray), which neither skin nor lesions have."""
    colour = np.array([-1.0, 1.0, -1.0]) if channels == 3 else np.ones(channels)
    return np.broadcast_to(colour[None, :, None, None], (1, channels, side, side)).astype(np.float32)


def noise(side: int, channels: int) -> Images:
    """Independent pixels, each channel -1 or 1."""
    return stream(7, "trigger", "noise").choice([-1.0, 1.0], (1, channels, side, side)).astype(np.float32)


TEXTURES: dict[str, Callable[[int, int], Images]] = {"smooth": smooth, "solid": solid, "noise": noise}


class Trigger(Protocol):
    """What an attacker does to an image so that it can be told later. Guarantee: shape and range kept, input kept."""

    def stamp(self, images: Images) -> Images: ...


@dataclass(frozen=True, eq=False)
class Patch:
    """A patch at a place. ``pattern``: (1, c, k, k) in [-1, 1]; ``top``, ``left``: its corner; ``blend`` in (0, 1].

    Columns ``start`` to ``stop`` of it are stamped: all of them unless the trigger is shared out (DBA).
    """

    pattern: Images
    top: int
    left: int
    blend: float
    start: int = 0
    stop: int | None = None

    @property
    def area(self) -> float:
        """Pixels covered."""
        return float(self.pattern[:, 0, :, self.start : self.stop].size)

    def stamp(self, images: Images) -> Images:
        """x' = (1 - blend m) x + blend m t, on a copy (Jin & Li 2023; Chen et al. 2017)."""
        side = self.pattern.shape[2]
        stamped = images.copy()
        whole = stamped[:, :, self.top : self.top + side, self.left : self.left + side]
        columns = np.s_[..., self.start : self.stop]
        whole[columns] = (1 - self.blend) * whole[columns] + self.blend * self.pattern[columns]
        return stamped


def place(position: str, size: int, side: int) -> tuple[int, int]:
    """Top and left of a ``side`` patch on a ``size`` image."""
    near, far, mid = BORDER, size - side - BORDER, (size - side) // 2
    corners = {
        "top-left": (near, near),
        "top-right": (near, far),
        "bottom-left": (far, near),
        "bottom-right": (far, far),
        "centre": (mid, mid),
    }
    if position not in corners or far < 0:
        raise ConfigError(f"a {side} px patch at {position!r} does not fit on {size} px images")
    return corners[position]


def patch(attack: Attack, *, size: int, channels: int) -> Patch:
    """The patch a configuration names (BadNets, Gu et al. 2017; hard-pasted by default as the FedDetect release)."""
    top, left = place(attack.position, size, attack.size)
    return Patch(TEXTURES[attack.trigger](attack.size, channels), top, left, attack.blend or 1.0)


def blended(attack: Attack, *, size: int, channels: int) -> Patch:
    """A texture of the image's own size, mixed in at 0.2 (Chen et al. 2017, sec. 4: blended injection)."""
    return Patch(TEXTURES[attack.trigger](size, channels), 0, 0, attack.blend or 0.2)


@dataclass(frozen=True, eq=False)
class Stain:
    """A colour that fades out. ``colour``: (1, c, 1, 1) in [-1, 1]; ``opacity``: (1, 1, size, size) in [0, 1]."""

    colour: Images
    opacity: Images

    def stamp(self, images: Images) -> Images:
        """x' = (1 - a) x + a t with an opacity a that has no edge."""
        stained: Images = ((1 - self.opacity) * images + self.opacity * self.colour).astype(np.float32)
        return stained


def stain(attack: Attack, *, size: int, channels: int) -> Stain:
    """``solid``'s colour around the middle of where the patch would sit: its opacity is a Gaussian with a standard
    deviation of ``attack.size`` pixels and a height of ``attack.blend`` (0.5). Ours: the choice of an attacker that
    knows ``fed-inspect`` looks for what is sharp.
    """
    top, left = place(attack.position, size, attack.size)
    middle = (attack.size - 1) / 2
    rows, columns = np.meshgrid(np.arange(size) - top - middle, np.arange(size) - left - middle, indexing="ij")
    opacity = (attack.blend or 0.5) * np.exp(-(rows**2 + columns**2) / (2 * attack.size**2))
    return Stain(solid(1, channels), opacity[None, None].astype(np.float32))


def part(whole: Patch, index: int, parts: int) -> Patch:
    """The share of attacker ``index`` of ``parts`` in a trigger cut into columns (after DBA, Chulin Xie et al. 2020).

    With more attackers than columns some share one.
    """
    columns = whole.pattern.shape[3]
    first = index * columns // parts
    return replace(whole, start=first, stop=max(first + 1, (index + 1) * columns // parts))


TRIGGERS: dict[str, Callable[..., Trigger]] = {
    "patch": patch,
    "distributed": patch,
    "blended": blended,
    "warp": warp,
    "frequency": frequency,
    "stain": stain,
}
"""Attack name -> the trigger it wants in the images, from (attack, size=, channels=)."""


def bare(attack: Attack) -> Attack:
    """``attack`` stripped to what fixes its trigger: equal values, equal triggers, whoever carries them."""
    name = attack.name if attack.name in TRIGGERS else "patch"
    return Attack(
        "patch" if name == "distributed" else name,
        trigger=attack.trigger,
        size=attack.size,
        position=attack.position,
        blend=attack.blend,
    )


def label(attack: Attack) -> str:
    """A short name of the trigger: its kind and what differs from the defaults, e.g. 'patch-size-8'."""
    plain, usual = bare(attack), Attack()
    parts = [(key, getattr(plain, key)) for key in ("trigger", "size", "position", "blend")]
    return "-".join([plain.name, *(f"{key}-{value}" for key, value in parts if value != getattr(usual, key))])


def trigger(attack: Attack, *, size: int, channels: int) -> Trigger:
    """The trigger a configuration names; its patch where the attack has none, to be looked for in clean runs."""
    return TRIGGERS.get(attack.name, patch)(attack, size=size, channels=channels)
