"""Procedural frontal chest radiographs: normal, or with the opacities of a pneumonia; overlapping by design.

Drawn as brightness from body, lungs, ribs, spine, heart, diaphragm and clavicles. A hidden severity, N(+SEPARATION, 1)
or N(-SEPARATION, 1), sets how strong the opacities are; normal lungs carry vessels and haze that look like weak ones.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fedsec.datasets.fields import CANVAS, Layers, Plane, blob, coordinates, fractal, soft_step, viewed

CLASSES = ("normal", "pneumonia")
SEPARATION = 1.35
"""Half the distance of the two severity means, in units of their spread."""


@dataclass(frozen=True)
class Site:
    """An acquisition site: exposure, contrast, collimation, its share of the images and of pneumonia."""

    name: str
    share: float
    pneumonia: float
    exposure: float
    contrast: float
    zoom: float


SITES = (
    Site("north", 0.35, 0.45, 0.00, 1.00, 1.00),
    Site("east", 0.30, 0.55, 0.06, 0.85, 1.08),
    Site("south", 0.20, 0.40, -0.05, 1.15, 0.94),
    Site("west", 0.15, 0.60, 0.03, 0.95, 1.15),
)


def patient(rng: np.random.Generator, label: int) -> Layers:
    """Brightness (1, side, side) of one patient's thorax, with opacities as strong as the severity says."""
    severity = rng.normal(SEPARATION if label else -SEPARATION, 1)
    lungs = _lungs(rng)
    tissue = 0.6 + 0.035 * fractal(rng, 2.0, 2)
    air = lungs * rng.uniform(0.36, 0.46)
    vessels = lungs * rng.uniform(0.015, 0.04) * np.abs(fractal(rng, 1.2, 4, 24))
    opacity = lungs * _opacities(rng, float(np.clip(0.36 + 0.2 * severity, 0.03, 1)))
    inside = tissue - air + vessels + opacity + _ribs(rng, lungs) + _midline(rng)
    brightness: Layers = (inside * _body(rng))[None]
    return brightness


def _lungs(rng: np.random.Generator) -> Plane:
    """Both lung fields, 1 inside: tall domes cut by the heart and the diaphragm."""
    x, y = coordinates()
    wide, top, base = rng.uniform(0.27, 0.34), rng.uniform(-0.82, -0.7), rng.uniform(0.42, 0.6)
    centre, height = (top + base) / 2, (base - top) / 2
    field = np.zeros_like(x)
    for side in (-1, 1):
        middle = side * (rng.uniform(0.38, 0.43) + 0.06 * (y - centre))
        distance = ((x - middle) / (wide * (1 + 0.2 * (y - centre)))) ** 2 + np.abs((y - centre) / height) ** 3 - 1
        dome = base - rng.uniform(0.1, 0.2) + 0.9 * (x - middle) ** 2
        field = np.maximum(field, soft_step(distance, 0.1) * soft_step(y - dome, 0.03))
    heart = soft_step(((x - 0.14) / rng.uniform(0.28, 0.37)) ** 2 + ((y - 0.3) / rng.uniform(0.3, 0.38)) ** 2 - 1, 0.12)
    cut: Plane = field * (1 - 0.9 * heart)
    return cut


def _ribs(rng: np.random.Generator, lungs: Plane) -> Plane:
    """Bright arcs that run down and outwards from the spine, strongest over the lungs."""
    x, y = coordinates()
    spacing, phase, droop = rng.uniform(0.17, 0.21), rng.uniform(0, 1), rng.uniform(0.35, 0.6)
    height = y - droop * np.abs(x) ** 1.5 + 0.12 * np.abs(x)
    wave = np.cos(2 * np.pi * (height / spacing + phase))
    arcs: Plane = rng.uniform(0.06, 0.11) * np.clip(wave - 0.1, 0, 1) * (0.25 + 0.75 * lungs)
    return arcs


def _midline(rng: np.random.Generator) -> Plane:
    """Spine, heart and the bright abdomen below the diaphragm; the dark windpipe above."""
    x, y = coordinates()
    spine = 0.16 * soft_step(np.abs(x + 0.01) - rng.uniform(0.08, 0.11), 0.025)
    bones = 1 + 0.25 * np.cos(2 * np.pi * y / rng.uniform(0.1, 0.13))
    heart = 0.1 * soft_step(((x - 0.13) / 0.33) ** 2 + ((y - 0.28) / 0.36) ** 2 - 1, 0.15)
    abdomen = 0.16 * soft_step(rng.uniform(0.5, 0.6) - y, 0.06)
    windpipe = 0.13 * soft_step(np.abs(x) - 0.045, 0.015) * soft_step(y + 0.45, 0.06)
    slope = 0.07 * np.exp(-(((y + 0.72 + 0.25 * np.abs(x)) / 0.035) ** 2)) * (np.abs(x) < 0.65)
    midline: Plane = spine * bones + heart + abdomen - windpipe + slope
    return midline


def _body(rng: np.random.Generator) -> Plane:
    """1 inside the body: narrow neck, shoulders, trunk; air around it."""
    x, y = coordinates()
    half = rng.uniform(0.84, 1.15) - 0.75 * soft_step(y + rng.uniform(0.86, 0.95), 0.05)
    body: Plane = soft_step(np.abs(x) - half, 0.03)
    return body


def _opacities(rng: np.random.Generator, strength: float) -> Plane:
    """Consolidations: some spots of fluffy brightness, or one lobe, or haze everywhere."""
    kind = rng.choice(3, p=[0.45, 0.3, 0.25])
    fluffy = np.clip(0.8 + 0.3 * fractal(rng, 2.0, 3), 0, 1.5)
    if kind == 2:
        return 0.26 * strength * fluffy
    plane = np.zeros((CANVAS, CANVAS))
    for _ in range(1 if kind == 1 else int(rng.integers(2, 6))):
        side = rng.choice([-1, 1])
        radius = rng.uniform(0.2, 0.3) if kind == 1 else rng.uniform(0.09, 0.18)
        plane += blob(side * rng.uniform(0.28, 0.52), rng.uniform(-0.5, 0.4), radius)
    spots: Plane = 0.4 * strength * np.clip(plane, 0, 1.2) * fluffy
    return spots


def picture(rng: np.random.Generator, drawn: Layers, site: Site) -> Layers:
    """One radiograph (side, side, 1) in [0, 1] of a patient at a site: its own pose, exposure and grain."""
    shift = (rng.normal(0, 0.03), rng.normal(0, 0.03))
    shown = viewed(drawn, rng.normal(0, 0.03), site.zoom * rng.uniform(0.94, 1.06), shift, "nearest")[0]
    shown = 0.45 + site.exposure + rng.normal(0, 0.025) + (shown - 0.45) * site.contrast * rng.uniform(0.92, 1.08)
    if rng.random() < 0.4:
        row, column = rng.integers(8, 24, 2)
        shown[row : row + 7, column : column + 4] = 0.9
    gray: Layers = np.clip(shown + 0.012 * rng.standard_normal(shown.shape), 0, 1)[:, :, None]
    return gray
