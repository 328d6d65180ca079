"""Real exchanges of split learning, as torch makes them, for the attacks' tests."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedsec.probes.split_learning.view import Means, SplitView, fresh
from tests.probes.rounds import SMALL, images_of

SIZE = 32
PUBLIC = 32


def client_of(channels: int, width: int = 16, *, norm: bool = True, pool: bool = True) -> nn.Sequential:
    """One block; it keeps the side without ``pool``."""
    layers: list[nn.Module] = [nn.Conv2d(channels, width, 3, 1, 1), *([nn.BatchNorm2d(width)] if norm else [])]
    return nn.Sequential(*layers, nn.ReLU(), *([nn.MaxPool2d(2)] if pool else []))


def server_of(width: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(width, 8, 3, 2, 1),
        nn.BatchNorm2d(8),
        nn.Tanh(),
        nn.AdaptiveAvgPool2d(4),
        nn.Flatten(),
        nn.Linear(128, 2),
    )


def pictures(n: int, *address: str, size: int = SIZE) -> Tensor:
    return images_of(replace(SMALL, size=size), n, *address)


def exchange(images: Tensor, client: nn.Module, factory: Callable[[], nn.Module], *, train: bool = False) -> SplitView:
    """One batch there and back, all that any attacker may see of it."""
    state = {name: value.clone() for name, value in client.state_dict().items()}
    labels = torch.arange(len(images)) % 2
    sent = client.train(train)(images)
    server = fresh(lambda: server_of(sent.shape[1]), 0, "server").train(train)
    sent.retain_grad()
    F.cross_entropy(server(sent), labels).backward()  # type: ignore[no-untyped-call]
    update = {name: -value.grad for name, value in client.named_parameters() if value.grad is not None}
    shape = (1, SIZE, SIZE) if images.shape[1] != 1 else (1, images.shape[2], images.shape[3])
    return SplitView(sent.detach(), factory, shape, train, sent.grad, labels, server, state, update)


def shallow(
    *, train: bool = False, n: int = 2, width: int = 16, size: int = SIZE
) -> tuple[SplitView, Tensor, nn.Module]:
    """An untrained block with its view and the truth."""
    factory = partial(client_of, 1, width)
    client, images = fresh(factory, 0, "client"), pictures(n, "own", size=size)
    return exchange(images, client, factory, train=train), images, client


def means(size: int = SIZE, **more: object) -> Means:
    public = pictures(PUBLIC, "public", size=size)
    return replace(Means(public.mean(dim=0, keepdim=True), public), **more)  # type: ignore[arg-type]
