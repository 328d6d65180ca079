"""Which of a crowd is it? IIP of reconstructions against public images of the same label, by two embeddings."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from fedsec.datasets.public import first_of_each
from fedsec.images import to_images
from fedsec.metrics.iip import OTHERS, Embedding, iip, pixels
from fedsec.types import Features, Images, Labels, Rows

MOST = OTHERS + 50
"""Public images of a label that are searched."""
BATCH = 64


@dataclass(frozen=True, eq=False)
class Gallery:
    """``images`` (n, c, s, s) and ``labels`` (n,): public ones, at most MOST a label."""

    images: Images
    labels: Labels

    @classmethod
    def of(cls, rows: Rows) -> Gallery:
        chosen = first_of_each(rows, MOST)
        return cls(to_images(chosen.pixels), chosen.labels)

    def scores(self, truth: Rows, reconstructions: Images, network: nn.Module | None) -> dict[str, float]:
        """``iip-pixels``, ``iip-features`` (``features_before`` the last layer of ``network``) and ``iip-chance``; none
        at all where a label of ``truth`` has fewer than OTHERS public images, and no features without a network or of
        one that noise has ruined: NaN where they are not finite. ``reconstructions``: in truth's order."""
        searched = np.isin(self.labels, truth.labels)
        labels = np.concatenate([self.labels[searched], truth.labels])
        if min(int((self.labels == label).sum()) for label in np.unique(truth.labels)) < OTHERS:
            return {}
        images = np.concatenate([self.images[searched], to_images(truth.pixels)])
        sources = np.arange(len(labels) - len(truth), len(labels))
        by_pixels = iip(reconstructions, images, labels, sources, pixels)
        if network is None:
            return {"iip-pixels": by_pixels.value, "iip-chance": by_pixels.chance}
        embed = features_before(network)
        crowd, drawn = embed(images), embed(reconstructions)
        named = float("nan")
        if np.isfinite(crowd).all() and np.isfinite(drawn).all():
            named = iip(reconstructions, images, labels, sources, lambda of: crowd if of is images else drawn).value
        return {"iip-pixels": by_pixels.value, "iip-features": named, "iip-chance": by_pixels.chance}


def features_before(network: nn.Module) -> Embedding:
    """What goes into ``network.fc``, in eval mode: the embedding that an attacker with the model has."""

    @torch.no_grad()
    def embed(images: Images) -> Features:
        seen: list[Tensor] = []
        handle = network.fc.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))  # type: ignore[union-attr]
        try:
            for chunk in torch.split(torch.from_numpy(np.ascontiguousarray(images)), BATCH):
                network(chunk)
        finally:
            handle.remove()
        return torch.cat(seen).double().numpy()

    return embed
