"""A ServerView in the form that breaching (Geiping et al., version 0.1.2) attacks; breaching itself is not imported.

``attacker.reconstruct([payload], [shared], {})`` takes what ``payload_of`` returns, beside a model of the view's
``recipe.spec``. Images are in [-1, 1] there too: the metadata's mean and deviation are 0.5, whose box is [-1, 1].

Departure from its own users: they send what one forward pass saw as buffers, never a running average, and take a
model with any buffers into eval mode. So a client's running statistics are recovered first (fedsec.probes.batchnorm)
and only handed over on request; without them its attacker trains in train mode, as the client did.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fedsec.errors import ProbeError
from fedsec.probes.batchnorm import MEAN, VARIANCE, recovered
from fedsec.probes.view import ServerView
from fedsec.weights import COUNTERS, STATISTICS


@dataclass(frozen=True)
class Metadata:
    """What breaching asks of the data, by attribute."""

    shape: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    classes: int
    modality: str = "vision"
    task: str = "classification"


def payload_of(
    view: ServerView, *, labels: Sequence[int] | None = None, statistics: bool = False
) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the server sent {parameters, buffers, metadata} and what the user shares {gradients, buffers, metadata}.

    ``labels``: in the order of training, as known or recovered; the view's own by default. One step gives the gradient
    itself; several give the difference of weights and the local hyperparameters to simulate them with. ``statistics``:
    hand over the recovered statistics as the user's buffers, with which breaching goes to eval mode.
    Errors: ProbeError for several steps with momentum or without labels, which breaching cannot simulate, and for
    statistics that were not sent.
    """
    recipe = view.recipe
    known = view.labels if labels is None else tuple(labels)
    if recipe.steps > 1 and recipe.momentum:
        raise ProbeError(f"momentum {recipe.momentum:g} over {recipe.steps} steps: breaching simulates plain SGD alone")
    if recipe.steps > 1 and known is None:
        raise ProbeError(f"{recipe.steps} steps: breaching needs the label of every image, so give them by hand")
    shape, half = (recipe.channels, recipe.size, recipe.size), (0.5,) * recipe.channels
    public = recipe.norm == "frozen"
    payload = {
        "parameters": [_tensor(view.before[name]) for name in view.parameters],
        "buffers": [_tensor(view.before[name]) for name in _buffers(view)] if public else None,
        "metadata": Metadata(shape, half, half, recipe.classes),
    }
    scale = -1 / recipe.lr if recipe.steps == 1 else 1.0
    shared = {
        "gradients": [_tensor(change * scale) for change in view.update.values()],
        "buffers": _recovered(view) if statistics else None,
        "metadata": {
            "num_data_points": view.examples,
            "labels": None if known is None else torch.tensor(known),
            "local_hyperparams": None if recipe.steps == 1 else _hyperparameters(view, known or ()),
        },
    }
    return payload, shared


def _hyperparameters(view: ServerView, labels: tuple[int, ...]) -> dict[str, Any]:
    recipe = view.recipe
    steps = [torch.tensor(labels[k * recipe.batch : (k + 1) * recipe.batch]) for k in range(recipe.steps)]
    if any(len(step) != recipe.batch for step in steps):
        raise ProbeError(f"{len(labels)} labels for {recipe.steps} steps of {recipe.batch}: one an image and step")
    return {"lr": recipe.lr, "steps": recipe.steps, "data_per_step": recipe.batch, "labels": steps}


def _recovered(view: ServerView) -> list[Tensor]:
    """The buffers as a user of breaching sends them: each batch's own mean and (unbiased) variance."""
    recipe = view.recipe
    found = recovered(view.before, view.after, steps=recipe.steps, momentum=recipe.bn_momentum)
    values: list[Tensor] = []
    for name in _buffers(view):
        layer, leaf = name.rsplit(".", 1)
        moments = {MEAN: found[layer].mean, VARIANCE: found[layer].var}
        values.append(_tensor(moments[leaf] if leaf in moments else view.before[name]))
    return values


def _buffers(view: ServerView) -> list[str]:
    """Names in the order of the network's buffers, which is the state dict's."""
    return [name for name in view.before if name.rsplit(".", 1)[-1] in (*STATISTICS, *COUNTERS)]


def _tensor(values: np.ndarray) -> Tensor:
    array = np.asarray(values)
    return torch.from_numpy(np.array(array, np.float32 if array.dtype.kind == "f" else array.dtype))
