"""Seeded training of the small classifier: same rows, same seed, same weights.

Nothing here reads or moves a global random generator, so cells may fit side by side in threads. On a CPU the result
is bitwise repeatable at a given number of torch threads; on CUDA it is repeatable up to the kernels' own rounding.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedsec.images import to_images
from fedsec.models.chance import Chance
from fedsec.models.classifier import Classifier, in_batches
from fedsec.models.gan.augment import flip
from fedsec.seeds import address_seed
from fedsec.types import Features, Images, Labels, Rows, Vector


def class_weights(labels: Labels) -> Vector:
    """(n,) sampling weights under which every class present is drawn equally often; they sum to 1."""
    present, position, counts = np.unique(labels, return_inverse=True, return_counts=True)
    return np.asarray(1.0 / (len(present) * counts[position]), np.float64)


def fit_classifier(
    rows: Rows,
    *,
    classes: int,
    steps: int,
    seed: int,
    batch: int = 64,
    lr: float = 1e-3,
    weight_decay: float = 1e-4,
    weights: Vector | None = None,
    width: int = 32,
    device: str = "cpu",
) -> Classifier:
    """Train a Classifier on ``rows`` and return it in eval mode.

    ``steps`` batches of ``batch`` rows drawn with replacement, each image mirrored left-right with probability 1/2;
    cross-entropy; AdamW (Loshchilov & Hutter 2019) with a cosine decay of ``lr`` to 0. ``weights`` (n,): how often a
    row is drawn, relative to the others; None draws the classes equally often.
    """
    assert len(rows) > 0, "no rows to train on"
    assert 0 <= rows.labels.min() <= rows.labels.max() < classes, (rows.labels.min(), rows.labels.max(), classes)
    chances = torch.from_numpy(class_weights(rows.labels) if weights is None else np.asarray(weights, np.float64))
    assert chances.shape == (len(rows),), (chances.shape, len(rows))
    chance = Chance(address_seed(seed, "classifier"))
    rng = chance.rng
    net = _initialised(rows.pixels.shape[3], classes, width, rng).to(device).train()
    net = net.to(memory_format=torch.channels_last)
    adam = torch.optim.AdamW(net.parameters(), lr=lr, weight_decay=weight_decay)
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(adam, steps)
    for _ in range(steps):
        index = torch.multinomial(chances, batch, replacement=True, generator=rng).numpy()
        taken = rows.take(index)
        images = flip(torch.from_numpy(to_images(taken.pixels)), chance)
        images = images.to(device, memory_format=torch.channels_last)
        loss = F.cross_entropy(net(images), torch.from_numpy(taken.labels).to(device))
        adam.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        adam.step()
        decay.step()
    return net.eval()


def probabilities(net: nn.Module, images: Images) -> Features:
    """(n, classes) class probabilities, float64; each row sums to 1."""
    logits = in_batches(net, torch.from_numpy(images).to(next(net.parameters()).device))
    shares: Tensor = torch.softmax(logits.double(), dim=1)
    return np.asarray(shares.cpu().numpy(), np.float64)


def _initialised(channels: int, classes: int, width: int, rng: torch.Generator) -> Classifier:
    """A Classifier whose weights come from ``rng`` alone (He et al. 2015), never from the global generator."""
    with torch.device("meta"):
        net = Classifier(channels, classes, width)
    net.to_empty(device="cpu")
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu", generator=rng)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.BatchNorm2d):
            module.reset_parameters()
    return net
