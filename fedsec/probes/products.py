"""Inner products of a guess's update with the observed one, tensor by tensor, without forming the guess's update.

Terms that match updates need <a, b> and <a, a> of the guess's gradient a and the observed update b, no more. For a
convolution with patches x_p and errors delta_p, a = sum_p delta_p x_p^T, so <a, b> = sum_p delta_p . (b x_p) is one
convolution of what went in with b, and <a, a> = sum_pq (x_p . x_q)(delta_p . delta_q), which costs less than a itself
where there are few positions (ghost norms: Goodfellow 2015, Li et al. 2022). What is left to differentiate are
convolutions with weights that are constant and shared by all restarts.

It holds for one local step, whose gradient is taken at the weights that were sent out.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from fedsec.probes.convolved import Product
from fedsec.probes.replica import BatchMoments, Replica, Weights


def products(
    replica: Replica, observed: Weights, images: Tensor, targets: Tensor
) -> tuple[dict[str, Product], list[BatchMoments]]:
    """Name -> (<a, b>, <a, a>), a = what one step of the recipe on this batch changes, b the ``observed`` change; and
    the batch's moments. Differentiable once by images and targets."""
    shapes = {name: (len(images), *shape) for name, shape in replica.shapes.items()}
    taps = {name: tap for name, tap in replica.taps.items() if tap.pays(math.prod(shapes[name]) // tap.out_channels)}
    own = {name: value for name, value in replica.weights.items() if name.removesuffix(".weight") not in taps}
    nothing = {name: images.new_zeros(shapes[name]) for name in taps}

    def loss(weights: Weights, added: Weights) -> tuple[Tensor, list[BatchMoments]]:
        for name, tap in taps.items():
            tap.added = added[name]
        logits, seen = replica.logits({**replica.weights, **weights}, images)
        return -replica.recipe.lr * F.cross_entropy(logits, targets), seen

    try:
        (gradients, errors), seen = torch.func.grad(loss, argnums=(0, 1), has_aux=True)(own, nothing)
    finally:
        for tap in taps.values():
            tap.added = None
    found = {name: ((a * observed[name]).sum(), a.square().sum()) for name, a in gradients.items()}
    for name, tap in taps.items():
        found[f"{name}.weight"] = tap.product(errors[name], observed[f"{name}.weight"])
    return {name: found[name] for name in replica.weights}, seen
