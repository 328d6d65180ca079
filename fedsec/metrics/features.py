"""Images -> features on which generated images are compared with real ones."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import load_file, save
from torch import Tensor, nn

from fedsec.datasets import cache
from fedsec.images import to_images
from fedsec.models.classifier import Classifier, in_batches
from fedsec.models.fitting import fit_classifier
from fedsec.models.state import network_arrays
from fedsec.seeds import address_seed
from fedsec.types import Features, Images, Rows, Vector

STEPS = 300
"""Training steps of the domain classifier."""
NETWORKS = 3
"""Domain classifiers whose features stand side by side."""
VERSION = 2
"""Of the training recipe and the file; part of a kept extractor's name. 1 kept convolution weights in a wrong order."""
SCALE = ("mean", "deviation")
FLOOR = 0.01
"""Least deviation of a feature, as a share of the mean deviation: a dead unit must not weigh without bound."""


@dataclass(frozen=True, eq=False)
class Extractor:
    """A frozen network and the scale of its features; ``name`` is the name of the Fréchet distance on them.

    ``network``: Images tensor (n, c, s, s) in [-1, 1] -> (n, d). ``mean``, ``deviation``: (d,), or () to leave the
    features as they are. ``batch``: images at once; changes memory, not the answer.
    """

    name: Literal["fid", "frechet-domain"]
    network: nn.Module
    mean: Vector
    deviation: Vector
    batch: int

    def __call__(self, images: Images) -> Features:
        """(n, d) float64. Images are first rounded to the 256 levels in which they are stored and shown.

        An image with a non-finite value gets NaN features, which every score turns into a NaN with a reason.
        """
        finite = np.asarray(np.isfinite(images).all(axis=(1, 2, 3)))
        levels = np.rint((np.clip(np.where(finite[:, None, None, None], images, 0), -1, 1) + 1) * 127.5)
        stored = torch.from_numpy((levels / 127.5 - 1).astype(np.float32))
        device = next(self.network.parameters()).device
        raw = in_batches(self.network, stored.to(device), self.batch).double().cpu().numpy()
        features: Features = (raw - self.mean) / self.deviation
        features[~finite] = np.nan
        return features


def domain_extractor(
    train: Rows,
    *,
    classes: int,
    seed: int,
    networks: int = NETWORKS,
    steps: int = STEPS,
    batch: int = 64,
    device: str = "cpu",
) -> Extractor:
    """Pooled features (128 each) of ``networks`` Classifiers trained on the real TRAINING set; ``frechet-domain``.

    Several, since one is a coarse yardstick: with one, the ratio of two arms' distances moved by 10 to 30 % from
    classifier to classifier; with three by 3 to 12 % (``studies.measures.yardstick``). Each feature is standardised on
    the real training images, so distances have a known scale: one deviation of shift in one feature adds 1. Not
    comparable with FID, nor between data sets; comparable between arms and seeds that share ``train`` and ``seed``.
    """
    seeds = [address_seed(seed, "domain network", i) for i in range(networks)]
    network = _SideBySide(
        fit_classifier(train, classes=classes, steps=steps, seed=s, batch=batch, device=device).blocks for s in seeds
    )
    plain = Extractor("frechet-domain", network, np.zeros(()), np.ones(()), 256)
    real = plain(to_images(train.pixels))
    deviation = real.std(axis=0)
    return Extractor("frechet-domain", network, real.mean(axis=0), np.maximum(deviation, FLOOR * deviation.mean()), 256)


def kept_extractor(
    path: Path, train: Rows, *, classes: int, seed: int, device: str = "cpu", steps: int = STEPS
) -> Extractor:
    """``domain_extractor``, trained once and kept in ``path`` (safetensors) for later runs on the same images.

    Guarantee: the features of the kept one are those of the one just made. The caller puts everything the answer
    depends on into the file's name. A file that cannot be read is made again.
    """
    try:
        stored = load_file(path)
        network = _SideBySide(Classifier(train.pixels.shape[3], classes).blocks for _ in range(NETWORKS))
        network.load_state_dict({k: torch.from_numpy(v) for k, v in stored.items() if k not in SCALE})
        return Extractor("frechet-domain", network.to(device), stored["mean"], stored["deviation"], 256)
    except (OSError, KeyError, RuntimeError, SafetensorError):  # absent or damaged: train it anew
        made = domain_extractor(train, classes=classes, seed=seed, device=device, steps=steps)
        content = save({**network_arrays(made.network), "mean": made.mean, "deviation": made.deviation})
        cache.write(path, lambda stream: stream.write(content))
        return made


class _SideBySide(nn.Module):
    """Frozen convolutional blocks, each pooled over the image, side by side: (n, 128 x networks)."""

    def __init__(self, blocks: Iterable[nn.Module]) -> None:
        super().__init__()
        self.members = nn.ModuleList(blocks)
        self.requires_grad_(False).eval()

    def forward(self, images: Tensor) -> Tensor:
        return torch.cat([member(images).mean(dim=(2, 3)) for member in self.members], dim=1)
