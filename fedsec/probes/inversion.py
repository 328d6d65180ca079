"""Images from one update: a preset says which terms are minimised, from where and how. PRESETS is the index."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from fedsec.probes.batchnorm import ProbeError
from fedsec.probes.replica import Replica
from fedsec.probes.terms import OF_THE_UPDATE, PRIORS, TERMS, Observed, Scene
from fedsec.seeds import address_seed
from fedsec.types import Images

WARM = 20
"""Iterations over which the learning rate rises from 0."""


@dataclass(frozen=True)
class Preset:
    """``terms``: weight of each. ``pixels``: what is optimised, the pixels or their spectrum scaled by 1/f, in which
    coarse structure moves first. ``signed``: Adam is given the gradient's sign. The rate falls as a cosine to 0."""

    source: str
    terms: Mapping[str, float] = field(default_factory=dict)
    iterations: int = 1000
    lr: float = 0.1
    signed: bool = False
    start: Literal["noise", "prior"] = "noise"
    pixels: Literal["pixels", "spectrum"] = "pixels"
    targets: Literal["labels", "joint"] = "labels"


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


@dataclass(frozen=True)
class Reconstruction:
    """``images`` (n, c, s, s) in [-1, 1]: the iterate with the lowest ``loss``. ``terms``: its value of each term;
    ``curve``: the loss of every iteration."""

    images: Images
    loss: float
    terms: dict[str, float]
    curve: tuple[float, ...]


class Canvas:
    """What an optimiser moves, and the images it stands for."""

    def __init__(self, images: Tensor, pixels: str) -> None:
        self.spectral, self.size = pixels == "spectrum", images.shape[-1]
        if self.spectral:
            rows, columns = torch.fft.fftfreq(self.size)[:, None], torch.fft.rfftfreq(self.size)[None]
            self.falloff = (1 / (self.size * torch.sqrt(rows**2 + columns**2)).clamp(min=1)).to(images.device)
            images = torch.view_as_real(torch.fft.rfft2(images, norm="ortho") / self.falloff)
        self.moved = images.clone().contiguous().requires_grad_(True)

    def images(self) -> Tensor:
        if not self.spectral:
            return self.moved
        waves = torch.view_as_complex(self.moved) * self.falloff
        images: Tensor = torch.fft.irfft2(waves, s=(self.size, self.size), norm="ortho")
        return images


def invert(
    replica: Replica,
    observed: Observed,
    preset: Preset,
    *,
    count: int,
    labels: Tensor | None,
    prior: Images,
    seed: int,
    say: Callable[[int, float], None] = lambda iteration, loss: None,
) -> Reconstruction:
    """Reconstruct ``count`` images. ``prior`` (c, s, s) or (1, c, s, s): a public image to start from.

    The best iterate is chosen by the loss alone; an iterate whose loss is not finite is passed over, and a run without
    a finite one raises FloatingPointError. Errors: ProbeError when none of what the preset matches was observed.
    """
    chosen = _chosen(preset, observed)
    rng = torch.Generator().manual_seed(address_seed(seed, "inversion"))
    shape = (count, replica.recipe.channels, replica.recipe.size, replica.recipe.size)
    first = torch.from_numpy(np.array(np.broadcast_to(prior, shape), np.float32))
    if preset.start == "noise":
        first = 0.3 * torch.randn(shape, generator=rng)
    canvas = Canvas(first.to(replica.device), preset.pixels)
    logits = torch.zeros(count, replica.recipe.classes, device=replica.device, requires_grad=True)
    joint = preset.targets == "joint" or labels is None
    moved = [canvas.moved, *([logits] if joint else [])]

    def look() -> tuple[Tensor, dict[str, Tensor]]:
        images = canvas.images()
        targets = torch.softmax(logits, dim=1) if joint or labels is None else labels
        scene = Scene(replica, observed, images, targets)
        if any(name in OF_THE_UPDATE for name in chosen):
            _ = scene.trained
        return images, {name: TERMS[name](scene) for name in chosen}

    return descend(moved, look, chosen, lr=preset.lr, iterations=preset.iterations, signed=preset.signed, say=say)


def descend(
    moved: Sequence[Tensor],
    look: Callable[[], tuple[Tensor, dict[str, Tensor]]],
    weights: Mapping[str, float],
    *,
    lr: float,
    iterations: int,
    signed: bool = False,
    say: Callable[[int, float], None] = lambda iteration, loss: None,
) -> Reconstruction:
    """Adam on ``moved``, warmed up over WARM iterations, then along a cosine to 0.

    ``look()``: the images as they are now, and each term's value; the loss is their sum by ``weights``. ``signed``:
    Adam is given the gradient's sign. The best iterate is that of least loss; FloatingPointError without a finite one.
    """
    adam = torch.optim.Adam(moved, lr)
    best, curve = (math.inf, torch.empty(0), dict[str, float]()), []
    for iteration in range(iterations):
        rate = min(1, (iteration + 1) / WARM) * 0.5 * (1 + math.cos(math.pi * iteration / iterations))
        adam.param_groups[0]["lr"] = lr * rate
        images, values = look()
        loss = torch.stack([weight * values[name] for name, weight in weights.items()]).sum()
        gradients = torch.autograd.grad(loss, moved, allow_unused=True)
        for tensor, gradient in zip(moved, gradients, strict=True):
            tensor.grad = gradient if gradient is None or not signed else gradient.sign()
        number = float(loss.detach())
        curve.append(number)
        if number < best[0]:
            best = (number, images.detach().clone(), {name: float(value.detach()) for name, value in values.items()})
        adam.step()
        say(iteration + 1, number)
    if not math.isfinite(best[0]):
        raise FloatingPointError("no iterate of the inversion had a finite loss")
    return Reconstruction(best[1].clamp(-1, 1).cpu().numpy(), best[0], best[2], tuple(curve))


def _chosen(preset: Preset, observed: Observed) -> dict[str, float]:
    """The preset's terms that can be computed. Priors alone are a choice, but never what is left of another."""
    wanted = {name: weight for name, weight in preset.terms.items() if weight}
    usable = {name: weight for name, weight in wanted.items() if _usable(name, observed)}
    if not usable or (set(usable) <= set(PRIORS) and not set(wanted) <= set(PRIORS)):
        missing = ", ".join(name for name in wanted if name not in usable) or "any term"
        raise ProbeError(f"nothing to hold images against: {missing} was not observed; take a preset of other terms")
    return usable


def _usable(name: str, observed: Observed) -> bool:
    return (name != "statistics" or bool(observed.moments)) and (name != "maps" or observed.maps is not None)
