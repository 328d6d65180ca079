"""Which terms an inversion minimises, from where and how: PRESETS is the index."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True)
class Preset:
    """``terms``: weight of each of ``fedsec.probes.terms.TERMS``. ``pixels``: what is optimised, the pixels or their
    spectrum scaled by 1/f, in which coarse structure moves first. ``signed``: Adam is given the gradient's sign. The
    rate falls as a cosine to 0.

    ``restarts``: starts that differ by their noise, run side by side. ``group_from``: share of the iterations after
    which the term 'group' begins. ``noise``: Gaussian noise added after each step, in units of its rate.
    """

    source: str
    terms: Mapping[str, float] = field(default_factory=dict)
    iterations: int = 1000
    lr: float = 0.1
    signed: bool = False
    start: Literal["noise", "prior"] = "noise"
    pixels: Literal["pixels", "spectrum"] = "pixels"
    targets: Literal["labels", "joint"] = "labels"
    restarts: int = 1
    group_from: float = 0.25
    noise: float = 0.0


PRESETS: dict[str, Preset] = {
    "dlg": Preset(
        "Zhu et al. 2019: L2 distance of gradients, images and labels optimised together; Adam in place of L-BFGS",
        {"update-l2": 1.0},
        targets="joint",
    ),
    "idlg": Preset("Zhao et al. 2020: as dlg with labels from the last layer", {"update-l2": 1.0}),
    "inverting-gradients": Preset(
        "Geiping et al. 2020: cosine of updates, total variation, signed Adam, images kept in range",
        {"update-cosine": 1.0, "total-variation": 0.01, "box": 1.0},
        signed=True,
    ),
    "see-through-gradients": Preset(
        "Yin et al. 2021: L2 of updates, statistics, total variation, L2 of images, group consistency, noise; 4 "
        "restarts for 8, whole-pixel phase correlation for RANSAC-flow, terms relative, so their weights are ours",
        {"update-l2": 1.0, "statistics": 1.0, "total-variation": 0.02, "energy": 0.001, "group": 0.1},
        iterations=2000,
        restarts=4,
        noise=0.2,
    ),
    "bn-update": Preset(
        "after Hatamizadeh et al. 2023, with an update term that has a gradient and statistics corrected for the steps",
        {"update-layers": 1.0, "statistics": 1.0, "total-variation": 0.02, "box": 10.0},
        lr=0.05,
        start="prior",
        pixels="spectrum",
    ),
    "bn-only": Preset(
        "Hatamizadeh et al. 2023 without the update: statistics and a prior",
        {"statistics": 1.0, "total-variation": 0.02, "box": 10.0},
        lr=0.05,
        start="prior",
        pixels="spectrum",
    ),
    "row-space": Preset(
        "ours: the maps that fedsec.probes.rowspace reads off the update, and the statistics where they were sent",
        {"maps": 1.0, "statistics": 0.1, "total-variation": 0.15, "box": 10.0},
        iterations=1500,
        lr=0.05,
        start="prior",
    ),
}
