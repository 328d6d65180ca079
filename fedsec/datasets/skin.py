"""Procedural dermoscopy: lesions whose Asymmetry, Border, Colours and Diameter follow a hidden severity.

Light model: skin reflectance times exp(-optical density); melanin, blood and a blue veil absorb each in their own
ratio of red, green and blue. Severity is N(+SEPARATION, 1) for malignant and N(-SEPARATION, 1) for benign lesions and
each trait only correlates with it, so the classes overlap. Source of the criteria: the ABCD rule of dermatoscopy
(Nachbar et al., J Am Acad Dermatol 30, 1994). The pictures imitate its criteria, not any patient.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fedsec.datasets.fields import CANVAS, Layers, Plane, blob, coordinates, fractal, soft_step, strokes, viewed

CLASSES = ("benign", "malignant")
SEPARATION = 1.15
"""Half the distance of the two severity means, in units of their spread."""
LOADING = 0.88
"""Correlation of each trait with the severity."""

MELANIN = np.array([0.55, 0.85, 1.0])
BLOOD = np.array([0.12, 0.62, 0.5])
PATCHES = {
    "dark": np.array([0.75, 0.95, 0.9]),
    "black": np.array([1.5, 1.5, 1.35]),
    "red": np.array([0.05, 0.65, 0.5]),
    "blue": np.array([0.8, 0.5, 0.15]),
    "white": np.array([-0.35, -0.45, -0.45]),
}
"""Optical density (red, green, blue) that a patch of each colour of the ABCD rule adds."""


@dataclass(frozen=True)
class Site:
    """An acquisition site: its camera, its patients, its share of the images and of malignant lesions."""

    name: str
    share: float
    malignant: float
    skin: tuple[float, float, float]
    gain: tuple[float, float, float]
    zoom: float
    vignette: float


SITES = (
    Site("north", 0.35, 0.35, (0.84, 0.67, 0.62), (1.00, 0.98, 1.06), 1.00, 0.25),
    Site("east", 0.30, 0.45, (0.90, 0.60, 0.56), (1.06, 0.88, 0.90), 0.85, 0.10),
    Site("south", 0.20, 0.40, (0.86, 0.66, 0.55), (1.02, 0.96, 0.86), 1.15, 0.15),
    Site("west", 0.15, 0.55, (0.80, 0.70, 0.70), (0.94, 0.97, 1.08), 0.95, 0.60),
)


def traits(rng: np.random.Generator, label: int) -> npt.NDArray[np.float64]:
    """(asymmetry, border, colours, diameter), each in [0, 1]."""
    severity = rng.normal(SEPARATION if label else -SEPARATION, 1)
    own = rng.standard_normal(4)
    clipped: npt.NDArray[np.float64] = np.clip(0.45 + 0.2 * (LOADING * severity + np.sqrt(1 - LOADING**2) * own), 0, 1)
    return clipped


def lesion(rng: np.random.Generator, label: int) -> Layers:
    """Optical density (3, side, side) of one lesion: outline, textured pigment, and patches of other colours."""
    asymmetry, border, colours, diameter = traits(rng, label)
    radius = 0.22 + 0.45 * diameter
    distance = _outline(rng, asymmetry, border, radius)
    mask = soft_step(distance, np.exp(rng.uniform(np.log(0.05), np.log(0.3))))
    texture = np.clip(1 + rng.uniform(0.15, 0.4) * fractal(rng, 1.6, 2) + _network(rng), 0.15, 2.5)
    pigment = np.exp(rng.normal(-0.35, 0.45)) * mask * texture
    pigment *= 1 + rng.uniform(-0.2, 0.6) * soft_step(distance + 0.55, 0.12)
    density = MELANIN[:, None, None] * pigment + BLOOD[:, None, None] * mask * rng.uniform(0, 0.9)
    names = list(PATCHES)
    for _ in range(rng.binomial(5, 0.08 + 0.7 * colours)):
        angle, reach = rng.uniform(0, 2 * np.pi), radius * rng.uniform(0.1, 0.35 + 0.5 * asymmetry)
        spot = blob(reach * np.cos(angle), reach * np.sin(angle), radius * rng.uniform(0.2, 0.45))
        ragged = soft_step(0.55 - spot - 0.2 * fractal(rng, 1.5, 2), 0.12)
        density += PATCHES[names[rng.choice(5, p=[0.34, 0.2, 0.16, 0.16, 0.14])]][:, None, None] * mask * ragged
    x, y = coordinates()
    framed: Layers = density * soft_step(np.hypot(x, y) - 0.94, 0.015)
    return framed


def _outline(rng: np.random.Generator, asymmetry: float, border: float, radius: float) -> Plane:
    """Signed distance to the lesion's edge in units of its radius, below 0 inside."""
    x, y = coordinates()
    angle, stretch = rng.uniform(0, np.pi), np.exp(rng.uniform(0, 0.22))
    u = (x * np.cos(angle) + y * np.sin(angle)) / stretch
    v = (y * np.cos(angle) - x * np.sin(angle)) * stretch
    theta, reach = np.arctan2(v, u), np.hypot(u, v)
    edge = np.ones_like(theta)
    for wave, height in ((1, 0.4 * asymmetry), (2, 0.16 * asymmetry), (3, 0.14 * asymmetry)):
        edge += height * rng.uniform(0.5, 1) * np.cos(wave * theta + rng.uniform(0, 2 * np.pi))
    for wave in range(4, 9):
        edge += 0.055 * border * rng.normal() * np.cos(wave * theta + rng.uniform(0, 2 * np.pi))
    distance: Plane = reach / radius - edge + (0.03 + 0.27 * border) * fractal(rng, 1.75, 2)
    return distance


def _network(rng: np.random.Generator) -> Plane:
    """Pigment network (fine ridges) or globules (dots), or neither: seen in benign and malignant lesions alike."""
    kind = rng.integers(3)
    if kind == 0:
        return np.zeros((CANVAS, CANVAS))
    grain = fractal(rng, 0.5, 9, 18)
    pattern = 0.35 - np.abs(grain) if kind == 1 else np.clip(grain - 0.9, 0, 1.2)
    network: Plane = rng.uniform(0.3, 0.7) * pattern
    return network


def picture(rng: np.random.Generator, drawn: Layers, site: Site) -> Layers:
    """One photograph (side, side, 3) in [0, 1] of a lesion at a site: its own turn, zoom, light, skin and hairs."""
    shift = (rng.normal(0, 0.09), rng.normal(0, 0.09))
    density = viewed(drawn, rng.uniform(0, 2 * np.pi), site.zoom * rng.uniform(0.88, 1.14), shift)
    density = density + _skin_density(rng)
    if rng.random() < 0.3:
        hair = strokes(rng, int(rng.integers(1, 9)), rng.uniform(0.5, 0.9))
        density = density + hair * rng.uniform(0.8, 1.8)
    tone = np.array(site.skin) * np.exp(rng.normal(0, 0.05, 3) + rng.normal(0, 0.05))
    light = tone[:, None, None] * np.exp(-density) * _light(rng, site.vignette)
    gloss = np.clip(fractal(rng, 0.6, 6) - rng.uniform(2.7, 4.5), 0, 1) * 0.4
    shown = light * np.array(site.gain)[:, None, None] + gloss + 0.012 * rng.standard_normal((3, CANVAS, CANVAS))
    colours: Layers = np.clip(shown, 0, 1).transpose(1, 2, 0)
    return colours


def _skin_density(rng: np.random.Generator) -> Layers:
    """Absorption of the skin around: mottled blood, pigment flecks, and the fine relief."""
    mottle = np.clip(rng.uniform(0.04, 0.2) * fractal(rng, 1.4, 2), -0.4, 0.6)
    flecks = rng.uniform(0, 0.1) * np.clip(fractal(rng, 1.3, 3), 0, 3)
    relief = rng.uniform(0.01, 0.04) * fractal(rng, 0.8, 8, 40)
    density: Layers = BLOOD[:, None, None] * mottle + MELANIN[:, None, None] * flecks + relief
    return density


def _light(rng: np.random.Generator, vignette: float) -> Plane:
    """Illumination: a slope, a fall-off to the corners, and sometimes the dark rim of the dermatoscope."""
    x, y = coordinates()
    reach = np.hypot(x, y)
    slope = 1 + 0.06 * rng.normal() * x + 0.06 * rng.normal() * y
    light: Plane = slope * (1 - vignette * rng.uniform(0.5, 1) * 0.35 * reach**2)
    if rng.random() < 0.35 * vignette:
        light = light * (0.04 + 0.96 * soft_step(reach - rng.uniform(1.02, 1.2), 0.025))
    return light
