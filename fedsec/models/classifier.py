"""A small convolutional classifier: domain features, utility, and the phantom's difficulty check."""

from __future__ import annotations

import torch
from torch import Tensor, nn

FEATURES = 128


class Classifier(nn.Module):
    """Images (n, channels, s, s), any s >= 16 -> logits (n, classes). ``features`` gives the (n, 128) pooled layer."""

    def __init__(self, channels: int, classes: int, width: int = 32) -> None:
        super().__init__()
        blocks: list[nn.Module] = []
        before = channels
        for after in (width, 2 * width, FEATURES):
            blocks += [
                nn.Conv2d(before, after, 3, 1, 1, bias=False),
                nn.BatchNorm2d(after),
                nn.ReLU(inplace=True),
                nn.AvgPool2d(2),
            ]
            before = after
        blocks += [nn.Conv2d(before, FEATURES, 3, 1, 1, bias=False), nn.BatchNorm2d(FEATURES), nn.ReLU(inplace=True)]
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Linear(FEATURES, classes)

    def features(self, images: Tensor) -> Tensor:
        pooled: Tensor = self.blocks(images).mean(dim=(2, 3))
        return pooled

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(self.features(images))
        return logits


@torch.no_grad()
def in_batches(network: nn.Module, images: Tensor, batch: int = 256) -> Tensor:
    """``network`` over ``images`` in chunks, in eval mode; the caller's mode is restored."""
    was_training = network.training
    network.eval()
    parts = [network(images[i : i + batch]) for i in range(0, len(images), batch)]
    network.train(was_training)
    return torch.cat(parts)
