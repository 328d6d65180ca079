"""The values that flow between layers. Shapes, units and ranges are named here and nowhere else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

Scalar: TypeAlias = bool | int | float | str
Flat: TypeAlias = dict[str, Scalar]
"""A run configuration as Flower carries it: dotted key -> scalar."""

Images: TypeAlias = npt.NDArray[np.float32]
"""(n, channels, size, size), float32 in [-1, 1]."""
Pixels: TypeAlias = npt.NDArray[np.uint8]
"""(n, size, size, channels), uint8 in 0..255, as stored on disk."""
Labels: TypeAlias = npt.NDArray[np.int64]
"""(n,), 0 .. classes-1."""
Features: TypeAlias = npt.NDArray[np.float64]
"""(n, d)."""
Vector: TypeAlias = npt.NDArray[np.float64]
Indices: TypeAlias = npt.NDArray[np.int64]
Arrays: TypeAlias = dict[str, npt.NDArray[np.generic]]
"""Named tensors of one model, in the order of its state dict."""


@dataclass(frozen=True)
class Rows:
    """Labelled images that one party trains or measures on. ``pixels`` may be memory-mapped; never written to."""

    pixels: Pixels
    labels: Labels

    def __post_init__(self) -> None:
        assert self.pixels.ndim == 4, self.pixels.shape
        assert self.pixels.dtype == np.uint8, self.pixels.dtype
        assert self.labels.shape == (len(self.pixels),), (self.labels.shape, len(self.pixels))

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, index: Indices) -> Rows:
        return Rows(self.pixels[index], self.labels[index])


@dataclass(frozen=True)
class Dataset:
    """One data source after intake: every image decoded, resized, checked, and split by patient or lesion.

    ``sites`` and ``groups`` number the acquisition site and the lesion/patient of each image; a source that knows
    neither has one site and one group an image. ``train`` and ``test`` are sorted indices that share no group.
    ``digest`` names files and settings: equal digests mean equal bytes. ``quarantined`` counts the images left out,
    each with its reason in the cache's quarantine list.
    """

    source: str
    pixels: Pixels
    labels: Labels
    class_names: tuple[str, ...]
    sites: Labels
    site_names: tuple[str, ...]
    groups: Labels
    train: Indices
    test: Indices
    digest: str
    quarantined: int = 0

    @property
    def channels(self) -> int:
        return int(self.pixels.shape[3])

    @property
    def size(self) -> int:
        return int(self.pixels.shape[1])

    def rows(self, index: Indices) -> Rows:
        return Rows(self.pixels[index], self.labels[index])


@dataclass(frozen=True)
class SiteReport:
    """What a real site says of itself before any training: name, class names, training images of each, channels."""

    name: str
    classes: tuple[str, ...]
    labels: tuple[int, ...]
    channels: int


@dataclass(frozen=True)
class Score:
    """One measured number. ``name`` states the protocol; ``n`` is the sample it rests on.

    A score that cannot be computed is NaN with a ``reason``, never 0.
    """

    name: str
    value: float
    n: int
    better: Literal["higher", "lower", "neither"]
    reason: str = ""

    def __post_init__(self) -> None:
        assert np.isfinite(self.value) or self.reason, f"score {self.name} is {self.value} without a reason"


@dataclass(frozen=True)
class Fit:
    """What one client hands back after a round: weights, number of training examples, metrics."""

    partition: int
    arrays: Arrays
    examples: int
    metrics: dict[str, float]
