"""Images -> features on which generated images are compared with real ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import nn

from fedsec.images import to_images
from fedsec.models.classifier import in_batches
from fedsec.models.fitting import fit_classifier
from fedsec.types import Features, Images, Rows, Vector

STEPS = 300
"""Training steps of the domain classifier."""
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
    train: Rows, *, classes: int, seed: int, steps: int = STEPS, batch: int = 64, device: str = "cpu"
) -> Extractor:
    """Pooled features (128) of a Classifier trained on the real TRAINING set; the distance is ``frechet-domain``.

    Each feature is standardised on the real training images, so distances have a known scale: one deviation of shift
    in one feature adds 1, and an endless repetition of the mean image is at 128. Not comparable with FID, nor between
    data sets; comparable between arms and seeds that share ``train`` and ``seed``.
    """
    net = fit_classifier(train, classes=classes, steps=steps, seed=seed, batch=batch, device=device)
    network = nn.Sequential(net.blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten()).requires_grad_(False).eval()
    plain = Extractor("frechet-domain", network, np.zeros(()), np.ones(()), 256)
    real = plain(to_images(train.pixels))
    deviation = real.std(axis=0)
    return Extractor("frechet-domain", network, real.mean(axis=0), np.maximum(deviation, FLOOR * deviation.mean()), 256)
