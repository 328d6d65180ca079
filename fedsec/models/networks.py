"""Image classifiers as hospitals train them: ResNet-18 or a small convolutional net, their normalisation a choice; and
a perceptron, which nobody should, since one image can be divided out of its update.

What a server can read from an update hangs on the normalisation more than on anything else, so it is one word of the
specification: NORMS is the index.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from fedsec.seeds import address_seed

Norm = Literal["batch", "frozen", "group", "layer", "none"]
GROUPS = 8
HIDDEN = "hidden"
"""Name of a perceptron's first layer."""


class FrozenStatistics(nn.BatchNorm2d):
    """BatchNorm that normalises by its running statistics while it trains, and leaves them alone (BN in eval mode)."""

    def __init__(self, num_features: int) -> None:
        super().__init__(num_features)
        self.train()

    def train(self, mode: bool = True) -> FrozenStatistics:
        return super().train(False)


class Nothing(nn.Identity):
    """No normalisation, built like one."""


NORMS: dict[str, Callable[[int], nn.Module]] = {
    "batch": nn.BatchNorm2d,
    "frozen": FrozenStatistics,
    "group": partial(nn.GroupNorm, GROUPS),
    "layer": partial(nn.GroupNorm, 1),
    "none": Nothing,
}


@dataclass(frozen=True)
class NetworkSpec:
    """``norm``: 'batch' takes each batch's own statistics while training and keeps a running average of them, 'frozen'
    uses the running ones it was given (BN in eval mode), the others keep none. ``width``: channels of a convnet's first
    convolution, and an eighth of a perceptron's hidden units; a ResNet-18 has its own. ``size``: pixels a side, which a
    perceptron alone is made for."""

    network: Literal["resnet18", "convnet", "perceptron"] = "resnet18"
    norm: Norm = "batch"
    channels: int = 1
    classes: int = 2
    width: int = 32
    size: int = 64


class ConvNet(nn.Module):
    """Three convolutions of 3 x 3, each with normalisation, ReLU and 2 x 2 average pooling; a linear head."""

    def __init__(self, channels: int, classes: int, norm: Callable[[int], nn.Module], width: int = 32) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        before = channels
        for after in (width, 2 * width, 4 * width):
            layers += [nn.Conv2d(before, after, 3, 1, 1, bias=False), norm(after), nn.ReLU(), nn.AvgPool2d(2)]
            before = after
        self.features = nn.Sequential(*layers)
        self.fc = nn.Linear(before, classes)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.fc(self.features(images).mean(dim=(2, 3)))
        return logits


class Perceptron(nn.Module):
    """All pixels to one linear layer with a bias, normalisation, ReLU, a linear head."""

    def __init__(self, pixels: int, classes: int, norm: Callable[[int], nn.Module], width: int) -> None:
        super().__init__()
        self.hidden, self.norm, self.fc = nn.Linear(pixels, width), norm(width), nn.Linear(width, classes)

    def forward(self, images: Tensor) -> Tensor:
        hidden = self.norm(self.hidden(images.flatten(1))[..., None, None])
        logits: Tensor = self.fc(torch.relu(hidden).flatten(1))
        return logits


def _resnet18(spec: NetworkSpec, norm: Callable[[int], nn.Module]) -> nn.Module:
    from torchvision.models import resnet18

    net: nn.Module = resnet18(weights=None, num_classes=spec.classes, norm_layer=norm)
    if spec.channels != 3:
        net.conv1 = nn.Conv2d(spec.channels, 64, kernel_size=7, stride=2, padding=3, bias=False)
    return net


NETWORKS: dict[str, Callable[[NetworkSpec, Callable[[int], nn.Module]], nn.Module]] = {
    "resnet18": _resnet18,
    "convnet": lambda spec, norm: ConvNet(spec.channels, spec.classes, norm, spec.width),
    "perceptron": lambda spec, norm: Perceptron(spec.channels * spec.size**2, spec.classes, norm, 8 * spec.width),
}


def build_network(spec: NetworkSpec, *, norm: Callable[[int], nn.Module] | None = None) -> nn.Module:
    """The network on the CPU, its tensors not yet set; draws no random numbers.

    ``norm`` replaces the specification's layer by one of the same tensors.
    """
    with torch.device("meta"):
        net = NETWORKS[spec.network](spec, norm or NORMS[spec.norm])
    return net.to_empty(device="cpu")


def new_network(spec: NetworkSpec, *, seed: int) -> nn.Module:
    """The network in train mode with weights from ``seed`` alone."""
    return drawn(build_network(spec), seed=address_seed(seed, "network"))


def drawn(net: nn.Module, *, seed: int) -> nn.Module:
    """``net`` in train mode, its weights drawn anew: He et al. (2015) by fan-out, as torchvision's; biases zero."""
    rng = torch.Generator().manual_seed(seed)
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu", generator=rng)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Linear):
            bound = module.in_features**-0.5
            nn.init.uniform_(module.weight, -bound, bound, generator=rng)
            nn.init.zeros_(module.bias)
        elif isinstance(module, nn.BatchNorm2d | nn.GroupNorm):
            reset: Any = module.reset_parameters
            reset()
    return net.train()
