"""Which image file was it? Candidates held against an update by the update that each would have made.

An attacker who has the very files in question (another hospital's copy, the insurer's, a leaked archive) need not
draw anything: it repeats the public recipe on each and asks which one the reply looks most like. Of the Gaussian
observation ``b = a + noise`` that is the likelihood ratio test, which no attack on a single known image beats (Neyman &
Pearson 1933); noise of deviation sigma leaves it ``|a| / sigma`` standard deviations apart, however many weights share
the noise. Related: membership tests that match gradients (Li, Rezaei & Liu, ICLR 2022); canaries that are correlated
with an update to audit differential privacy (Andrew et al. 2024).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F

from fedsec.errors import ProbeError
from fedsec.images import to_images
from fedsec.probes.replica import Replica, Weights
from fedsec.probes.view import ServerView
from fedsec.types import Features, Rows
from fedsec.weights import STATISTICS

MEAN, VARIANCE = STATISTICS


def likeness(views: Sequence[ServerView], candidates: Rows, *, device: str = "cpu") -> Features:
    """(views, candidates): how much of each reply's squared length each candidate explains; higher is likelier.

    ``views``: replies to one and the same model, so that what a candidate does to it is computed once. The explained
    part is ``max(<a, b>, 0)^2 / <a, a>`` over all weights, a the candidate's own one-step update: the scale is free, so
    that more images, steps or passes only add what the candidate did not do. Where a round was one step of one image
    and statistics were sent, the squared distance of the running statistics is taken off, which the same noise is on.
    Labels are the candidates' own: who has the image has the diagnosis, or tries both.
    """
    first = views[0]
    replica = Replica(first.recipe, first.before, device=device)
    updates = [_flat({n: torch.from_numpy(v) for n, v in view.update.items()}, replica) for view in views]
    sent = [_statistics(view) for view in views]
    images, labels = torch.from_numpy(to_images(candidates.pixels)), torch.from_numpy(candidates.labels)
    found = np.zeros((len(views), len(candidates)))

    for place in range(len(candidates)):
        image = images[place : place + 1].to(device)
        target = labels[place : place + 1].to(device)

        def loss(weights: Weights, image: torch.Tensor = image, target: torch.Tensor = target) -> torch.Tensor:
            answers, _ = replica.logits(weights, image)
            return -first.recipe.lr * F.cross_entropy(answers, target)

        own = _flat(torch.func.grad(loss)(replica.weights), replica)
        length = max(float(own @ own), 1e-30)
        moved = _moved(first, replica, image) if any(part is not None for part in sent) else None
        for row, (update, statistics) in enumerate(zip(updates, sent, strict=True)):
            found[row, place] = max(float(own @ update), 0.0) ** 2 / length
            if statistics is not None and moved is not None:
                found[row, place] -= float(np.square(statistics - moved).sum())
    return found


def rank_of(likeness: np.ndarray, own: int) -> int:
    """1 for the likeliest; candidates that are as likely as ``own`` count half. Errors: ProbeError for a likeness that
    is no number."""
    if not np.isfinite(likeness).all():
        raise ProbeError("not attempted: a candidate's likeness is not finite")
    above, level = (likeness > likeness[own]).sum(), (likeness == likeness[own]).sum() - 1
    return int(1 + above + -(-level // 2))


def _flat(weights: Weights, replica: Replica) -> torch.Tensor:
    return torch.cat([weights[name].to(replica.device).float().flatten() for name in replica.weights])


def _statistics(view: ServerView) -> np.ndarray | None:
    """What was sent of running statistics, flat, in the model's order; None where they say nothing of one image."""
    if not view.statistics or view.recipe.steps * view.recipe.batch != 1 or view.examples != 1:
        return None
    return np.concatenate(
        [np.asarray(value, np.float64).ravel() for name, value in view.after.items() if name.endswith((MEAN, VARIANCE))]
    )


def _moved(view: ServerView, replica: Replica, image: torch.Tensor) -> np.ndarray:
    """The running statistics after a step on ``image`` alone."""
    with torch.no_grad():
        _, seen = replica.logits(replica.weights, image)
    parts, share = [], view.recipe.bn_momentum
    for (name, values), (mean, spread) in zip(replica.counts(1).items(), seen, strict=True):
        for leaf, own in ((MEAN, mean), (VARIANCE, spread * values / (values - 1))):
            old = np.asarray(view.before[f"{name}.{leaf}"], np.float64)
            parts.append((1 - share) * old + share * own.double().cpu().numpy())
    return np.concatenate([part.ravel() for part in parts])
