"""Models trained on chosen images by a regime: what membership inference attacks, and what it learns from.

One at a time: ConvNets of 32 channels stacked and trained by ``torch.func.vmap`` took 1.4 to 3.6 times the CPU time of
a loop in batches of 32, and as much in batches of 8 (docs/results/membership.md).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from fedsec.config import RunConfig
from fedsec.datasets.assembly import split
from fedsec.images import to_images
from fedsec.models.chance import Chance
from fedsec.models.gan.augment import AUGMENTS
from fedsec.models.gan.sampling import balanced_labels, generate
from fedsec.models.gan.steps import Pair, new_pair, spec, train_round
from fedsec.models.networks import NetworkSpec, build_network, new_network
from fedsec.models.order import batches
from fedsec.models.state import network_arrays
from fedsec.seeds import address_seed, stream
from fedsec.types import Dataset, Images, Indices, Rows, Vector


@dataclass(frozen=True)
class Regime:
    """AdamW (Loshchilov & Hutter 2019) with cross-entropy, the rate falling as a cosine to 0.

    ``steps``: in all, of ``batch`` images. ``augment``: of fedsec.models.gan.augment. ``clients`` above 1: the images
    are dealt to as many, and their weights are averaged after every ``local`` steps each (McMahan et al. 2017), running
    statistics too; ``steps`` is then the sum over clients, so that the cost is that of one.
    """

    steps: int
    augment: str = "none"
    batch: int = 32
    lr: float = 1e-3
    weight_decay: float = 0.0
    clients: int = 1
    local: int = 10


def quarter(data: Dataset, number: int, seed: int) -> Indices:
    """Quarter ``number`` % 4 of draw ``number`` // 4: four of a draw share no group, and are all images together."""
    draw, place = divmod(number, 4)
    rows = np.arange(len(data.labels))
    for level, side in (("half", place // 2), ("quarter", place % 2)):
        at = address_seed(seed, "quarters", draw, level, place // 2 if level == "quarter" else 0)
        rows = rows[split(data.labels[rows], data.groups[rows], 0.5, at)[side]]
    return rows


def trained(rows: Rows, regime: Regime, spec: NetworkSpec, *, seed: int) -> nn.Module:
    """A network of ``spec`` in eval mode; weights, order and augmentation come from ``seed`` alone."""
    assert len(rows) >= regime.clients, (len(rows), regime.clients)
    network = new_network(spec, seed=seed).to(memory_format=torch.channels_last)
    if regime.clients == 1:
        _steps(network, rows, regime, regime.steps, (0.0, 1.0), seed)
        return network.eval()
    parts = np.array_split(stream(seed, "clients").permutation(len(rows)), regime.clients)
    rounds = max(1, regime.steps // (regime.clients * regime.local))
    for number in range(rounds):
        share = (number / rounds, (number + 1) / rounds)
        replies = []
        for client, part in enumerate(parts):
            local = build_network(spec).to(memory_format=torch.channels_last)
            local.load_state_dict(network.state_dict())
            _steps(local, rows.take(part), regime, regime.local, share, address_seed(seed, number, client))
            replies.append(local)
        network.load_state_dict(average(replies))
    return network.eval()


def average(networks: Sequence[nn.Module]) -> dict[str, torch.Tensor]:
    """State dict of the plain mean of all floating tensors; counters are the first network's."""
    states = [network.state_dict() for network in networks]
    return {
        name: torch.stack([state[name] for state in states]).mean(dim=0) if value.is_floating_point() else value
        for name, value in states[0].items()
    }


def _steps(network: nn.Module, rows: Rows, regime: Regime, steps: int, share: tuple[float, float], seed: int) -> None:
    """Train in place. ``share``: from which to which part of the whole training these steps go, for the rate."""
    network.train()
    chance = Chance(address_seed(seed, "augment"))
    augment = AUGMENTS[regime.augment]
    adam = torch.optim.AdamW(network.parameters(), regime.lr, weight_decay=regime.weight_decay)
    order = batches(len(rows), min(regime.batch, len(rows)), steps, stream(seed, "order"))
    for step, index in enumerate(order):
        done = share[0] + (share[1] - share[0]) * step / steps
        adam.param_groups[0]["lr"] = regime.lr * 0.5 * (1 + math.cos(math.pi * done))
        taken = rows.take(np.sort(index))
        images = augment(torch.from_numpy(to_images(taken.pixels)), chance).contiguous(
            memory_format=torch.channels_last
        )
        loss = F.cross_entropy(network(images), torch.from_numpy(taken.labels))
        adam.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        adam.step()


def trained_gan(rows: Rows, config: RunConfig, *, classes: int, count: int, seed: int) -> tuple[Pair, Images]:
    """A DCGAN after ``config.train.steps`` on ``rows``, and ``count`` images drawn from it, labels in their shares."""
    shape = spec(config, channels=rows.pixels.shape[3], classes=classes)
    pair = new_pair(config, shape, seed=seed, device="cpu")
    train_round(pair, rows, config, seed=seed, device="cpu")
    labels = balanced_labels(rows.labels, count)
    return pair, generate(network_arrays(pair.generator), shape, labels, seed=seed, statistics="local")


@torch.no_grad()
def judged_real(critic: nn.Module, rows: Rows, batch: int = 64) -> Vector:
    """(n,) logits in eval mode, in batches as they come: mix members and strangers, since the minibatch deviation looks
    at all of a batch."""
    critic.eval()
    images, labels = torch.from_numpy(to_images(rows.pixels)), torch.from_numpy(np.array(rows.labels))
    cuts = range(0, len(images), batch)
    parts = [critic(images[i : i + batch], labels[i : i + batch]).double().numpy() for i in cuts]
    return np.asarray(np.concatenate(parts), np.float64)
