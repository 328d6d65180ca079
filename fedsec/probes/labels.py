"""How many images of each class a client trained on, from the last layer's bias alone.

The gradient of cross-entropy by the bias of the last layer is ``mean over images of (p_c - [y = c])``: what the network
gave class c, less the share of c. With one image the only negative entry is its label (iDLG, Zhao et al. 2020). With
more, what the network gave has to be known: ``replies`` says it class by class, from public images, and the shares q
solve ``q - replies^T q = -gradient``, sum 1. Several SGD steps give the mean of their gradients, at moved weights.
"""

from __future__ import annotations

import numpy as np
import torch

from fedsec.errors import ProbeError
from fedsec.probes.replica import Replica
from fedsec.probes.view import ServerView
from fedsec.types import Features, Images, Labels, Vector

BIAS = "fc.bias"


def bias_gradient(view: ServerView) -> Vector:
    """(classes,) mean gradient of the round by the last bias. Raises ProbeError where momentum has mixed the steps."""
    recipe = view.recipe
    if recipe.momentum and recipe.steps > 1:
        raise ProbeError(
            f"momentum {recipe.momentum:g} over {recipe.steps} steps weighs them unequally: labels are not read"
        )
    return -view.update[BIAS] / (recipe.lr * recipe.steps)


def only_label(view: ServerView) -> int:
    """The label of a one-image round: exact. Raises ProbeError for more images."""
    if view.examples != 1:
        raise ProbeError(f"{view.examples} images: one label can be read from the sign only where there is one image")
    return int(np.argmin(bias_gradient(view)))


def replies(replica: Replica, images: Images, labels: Labels) -> Features:
    """(classes, classes) what the network gives each class (column) for public images of each class (row), taken in
    train-mode batches of the recipe's size within a class. Raises ProbeError for a class without a whole batch."""
    classes, batch = replica.recipe.classes, replica.recipe.batch
    rows = []
    for label in range(classes):
        own = images[labels == label]
        own = own[: len(own) // batch * batch]
        if not len(own):
            raise ProbeError(f"class {label}: fewer than {batch} public images, one batch at least is needed")
        with torch.no_grad():
            given = [
                torch.softmax(replica.logits(replica.weights, chunk)[0], dim=1)
                for chunk in torch.split(torch.from_numpy(own).to(replica.device), batch)
            ]
        rows.append(torch.cat(given).mean(dim=0).double().cpu().numpy())
    return np.stack(rows)


def label_counts(view: ServerView, given: Features) -> tuple[int, ...]:
    """How many of ``view.examples`` images each class has, by largest remainder; they sum to the examples.

    ``given``: see ``replies``; its rows sum to 1, so the equations lose one rank, which the sum of shares restores.
    """
    classes = view.recipe.classes
    equations = np.vstack([np.eye(classes) - given.T, np.ones(classes)])
    shares = np.linalg.lstsq(equations, np.append(-bias_gradient(view), 1.0), rcond=None)[0]
    shares = np.clip(shares, 0, None) / np.clip(shares, 0, None).sum()
    whole = np.floor(shares * view.examples).astype(int)
    missing = view.examples - int(whole.sum())
    for label in np.argsort(whole - shares * view.examples)[:missing]:
        whole[label] += 1
    return tuple(int(count) for count in whole)
