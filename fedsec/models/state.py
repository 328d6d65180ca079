"""Networks and optimisers as arrays and back, and the device they live on."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from fedsec.config import Speed
from fedsec.types import Arrays


def device_of(speed: Speed) -> str:
    """Where to compute: as told, or CUDA where there is one."""
    if speed.device != "auto":
        return speed.device
    return "cuda" if torch.cuda.is_available() else "cpu"


def network_arrays(network: nn.Module) -> Arrays:
    return {name: value.detach().cpu().contiguous().numpy().copy() for name, value in network.state_dict().items()}


def load_network(network: nn.Module, arrays: Mapping[str, np.ndarray]) -> None:
    """Load the tensors given by name; others keep their value."""
    own = network.state_dict()
    for name, value in arrays.items():
        own[name].copy_(torch.from_numpy(np.array(value)))


def optimiser_arrays(optimiser: torch.optim.Adam) -> Arrays:
    """Adam's step, exp_avg and exp_avg_sq of each parameter, as plain arrays."""
    return {
        f"{index}.{key}": value.detach().cpu().contiguous().numpy().copy()
        for index, slots in optimiser.state_dict()["state"].items()
        for key, value in slots.items()
    }


def load_optimiser(optimiser: torch.optim.Adam, arrays: Mapping[str, np.ndarray]) -> None:
    """Into the tensors of a state that is there, or as a new state."""
    if optimiser.state:
        parameters = [parameter for group in optimiser.param_groups for parameter in group["params"]]
        for name, value in arrays.items():
            index, key = name.split(".", 1)
            optimiser.state[parameters[int(index)]][key].copy_(torch.from_numpy(np.array(value)))
        return
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in arrays.items():
        index, key = name.split(".", 1)
        state.setdefault(int(index), {})[key] = torch.from_numpy(np.array(value))
    packed = optimiser.state_dict()
    packed["state"] = state
    optimiser.load_state_dict(packed)
