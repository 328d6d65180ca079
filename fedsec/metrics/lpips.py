"""LPIPS, how different two images look to a network, where its weights are given as files. Nothing is downloaded.

Zhang et al. 2018, version 0.1: features after the five ReLU stages of torchvision's AlexNet or VGG-16, each position
scaled to length 1; squared differences weighted by channel, averaged over positions, summed over stages. The package
``lpips`` 0.1.4 is not used: it takes no file for the backbone (it downloads it, or leaves it random), passes over
weights that are missing, and its call of torchvision is deprecated. On its own linear weights, with the same random
backbones, this module gave its distances to 2e-7 of their size (gray and colour images of 64 pixels).
"""

from __future__ import annotations

import math
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from fedsec.errors import MetricError
from fedsec.types import Images, Score, Vector

STAGES: dict[str, tuple[tuple[int, int], ...]] = {
    "alex": ((1, 64), (4, 192), (7, 384), (9, 256), (11, 256)),
    "vgg": ((3, 64), (8, 128), (15, 256), (22, 512), (29, 512)),
}
"""Place of each stage's ReLU in torchvision's ``features``, and its channels."""
SHIFT = (-0.030, -0.088, -0.188)
SCALE = (0.458, 0.448, 0.450)
"""The backbone's normalisation, for images in [-1, 1]."""
LENGTH = 1e-10
"""Added to a position's length."""
SIDE = 32
"""Least pixels a side."""


@dataclass(frozen=True)
class PerceptualWeights:
    """``backbone``: torchvision's file of AlexNet (alexnet-owt-7be5be79.pth) or VGG-16 (vgg16-397923af.pth).
    ``heads``: the file of linear weights that the package lpips 0.1.4 carries (weights/v0.1/alex.pth, vgg.pth)."""

    network: Literal["alex", "vgg"]
    backbone: Path
    heads: Path


class Perceptual:
    """The distance. Guarantee: >= 0, symmetric, 0 for equal images; an image's company does not matter."""

    def __init__(self, network: str, features: nn.Module, heads: list[Tensor]) -> None:
        channels = [count for _, count in STAGES[network]]
        assert [len(head) for head in heads] == channels, ([len(head) for head in heads], channels)
        self.network, self.features, self.heads = network, features.eval().requires_grad_(False), heads

    @torch.no_grad()
    def __call__(self, truth: Images, other: Images, batch: int = 32) -> Vector:
        """(n,) of two times (n, c, s, s) in [-1, 1], c = 3 or 1 (then repeated). Errors: MetricError for unequal
        shapes, a side below 32 pixels, or a value that is not finite."""
        _check(truth, other)
        parts = [self._distance(truth[i : i + batch], other[i : i + batch]) for i in range(0, len(truth), batch)]
        return np.concatenate([np.zeros(0), *parts])

    def _distance(self, truth: Images, other: Images) -> Vector:
        total = torch.zeros(len(truth), dtype=torch.float64)
        for one, two, head in zip(self._stages(truth), self._stages(other), self.heads, strict=True):
            total += ((one - two).square() * head[:, None, None]).sum(dim=1).mean(dim=(1, 2)).double()
        return np.asarray(total.numpy(), np.float64)

    def _stages(self, images: Images) -> list[Tensor]:
        x = torch.from_numpy(images).float()
        x = (x - torch.tensor(SHIFT)[:, None, None]) / torch.tensor(SCALE)[:, None, None]  # gray becomes three channels
        wanted = [place for place, _ in STAGES[self.network]]
        found = []
        for place, layer in enumerate(self.features.children()):
            x = layer(x)
            if place in wanted:
                found.append(x / (x.square().sum(dim=1, keepdim=True).sqrt() + LENGTH))
            if place == wanted[-1]:
                break
        return found


def load_perceptual(weights: PerceptualWeights) -> Perceptual:
    """The distance of ``weights``. Errors: MetricError that names the file that is absent, unreadable or another's."""
    backbone, heads = _tensors(weights.backbone, "backbone"), _tensors(weights.heads, "linear weights")
    features = FEATURES[weights.network]()
    own = {name.removeprefix("features."): value for name, value in backbone.items() if name.startswith("features.")}
    names = [f"lin{stage}.model.1.weight" for stage in range(len(STAGES[weights.network]))]
    try:
        features.load_state_dict(own, assign=True)
        linear = [heads[name].reshape(-1) for name in names]
        return Perceptual(weights.network, features, linear)
    except (RuntimeError, LookupError, AssertionError) as error:
        told = str(error).splitlines()[0]
        raise MetricError(
            f"{weights.backbone} and {weights.heads} are not LPIPS weights of {weights.network!r}: {told}"
        ) from error


def perceptual_distance(truth: Images, other: Images, weights: PerceptualWeights | None) -> Score:
    """Mean ``lpips-<network>`` of pairs; NaN with the reason when weights or images do not allow it, never 0."""
    name = f"lpips-{weights.network}" if weights else "lpips"
    try:
        if weights is None:
            raise MetricError("no weights: give a backbone file of torchvision and the linear weights of lpips 0.1.4")
        if not len(truth):
            raise MetricError("no image")
        return Score(name, float(load_perceptual(weights)(truth, other).mean()), len(truth), "lower")
    except MetricError as error:
        return Score(name, math.nan, len(truth), "lower", str(error))


def _features(network: Callable[..., Any]) -> nn.Module:
    """The convolutions without weights yet, and no layer that overwrites what the one before gave."""
    with torch.device("meta"):
        features: nn.Module = network(weights=None).features
    for layer in features.modules():
        if isinstance(layer, nn.ReLU):
            layer.inplace = False
    return features


def _alexnet() -> nn.Module:
    from torchvision.models import alexnet

    return _features(alexnet)


def _vgg16() -> nn.Module:
    from torchvision.models import vgg16

    return _features(vgg16)


FEATURES: dict[str, Callable[[], nn.Module]] = {"alex": _alexnet, "vgg": _vgg16}


def _tensors(path: Path, what: str) -> dict[str, Tensor]:
    if not path.is_file():
        raise MetricError(f"no {what} at {path}: nothing is downloaded, put the file there")
    try:
        read: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
        return dict(read)
    except (OSError, RuntimeError, ValueError, TypeError, EOFError, pickle.UnpicklingError) as error:
        raise MetricError(f"{path} is no file of tensors ({type(error).__name__}): fetch the {what} again") from error


def _check(truth: Images, other: Images) -> None:
    if truth.shape != other.shape or truth.ndim != 4 or truth.shape[1] not in (1, 3):
        raise MetricError(f"images of {truth.shape} and {other.shape}: LPIPS takes equal (n, 1 or 3, size, size)")
    if min(truth.shape[2:]) < SIDE:
        raise MetricError(f"images of {truth.shape[2]} x {truth.shape[3]} pixels: LPIPS needs sides of {SIDE}")
    if not (np.isfinite(truth).all() and np.isfinite(other).all()):
        raise MetricError("an image holds a value that is not finite: what made it diverged")
