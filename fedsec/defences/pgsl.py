"""Proximal gradient split learning (Khowaja et al. 2022, arXiv 2201.04569): the maths of its parts, each with a switch.

The full text could not be read. Equations are quoted from a third party's quotations of them; where these leave a
choice, both readings are switches of ``Pgsl`` and its docstring says which is the default and why.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedsec.errors import ConfigError, all_at_once

Scores = Callable[[Tensor], Tensor]
"""Images (n, c, s, s) -> class logits (n, k), one image's scores depending on that image alone."""
FOLD = 2
"""Side of the blocks that space-to-depth takes apart."""
SMALLEST = 1e-12


@dataclass(frozen=True)
class Pgsl:
    """The switches. Defaults are the readings below; 'off' or False leaves a part out.

    ``perturb``: Eq. 1's map, or as a control the same values at random places ('random').
    ``scores``: of what f in Eq. 1 is made. Logits: with softmax beta = -alpha, the map is alpha^2, and vanishes on
    every image that f is sure of.
    ``label``: the y of Eq. 1. 'predicted' by f: a map of the true label writes that label into the training images,
    and at test time nobody knows it ('true' falls back on the prediction there).
    ``scale``, ``step``: 'raw' adds ``step * Map``, with step 1 the equation as it is quoted; 'peak' makes the largest
    value of each image's map ``step`` (images span 2), however sharp f has become.
    ``fold``: space-to-depth. ``map_channel``: the map travels as one more channel.
    ``recovery``: 'residual' hands x_hat - M_bar on, as quoted; 'low-rank' hands M_bar itself on.
    ``matrix``: one singular value decomposition a sample, of channels x positions, or one a channel, of rows x columns.
    Never over samples: the quoted code mixes the images of a batch.
    ``threshold``: ``lam`` times the sample's largest singular value ('relative'), or ``lam`` as it is: the spectrum of
    activations grows with width, size and layer, so that no one absolute number fits.
    ``mu``, ``lam``, ``iterations``: of the proximal loop; tau = lam mu; 0 iterations = its limit. mu is the paper's,
    the other two the third party's.
    ``fusion``: the convolution-sum stream. ``skip``: which stream is f_u, the one added again. The attacked one, since
    through it alone a gradient reaches the client.
    ``weights``: of the late fusion, for the recovered, fused and attacked stream (the paper's W_g, W_r, W_b).
    ``returned``: whose gradient goes back to the client. Raises ConfigError with every number that cannot be.
    """

    perturb: Literal["jsma", "random", "off"] = "jsma"
    scores: Literal["logits", "softmax"] = "logits"
    label: Literal["predicted", "true"] = "predicted"
    scale: Literal["raw", "peak"] = "raw"
    step: float = 1.0
    fold: bool = True
    map_channel: bool = True
    recovery: Literal["residual", "low-rank", "off"] = "residual"
    matrix: Literal["sample", "channel"] = "sample"
    threshold: Literal["relative", "absolute"] = "relative"
    mu: float = 0.55
    lam: float = 0.1
    iterations: int = 10
    fusion: bool = True
    skip: Literal["attacked", "recovered"] = "attacked"
    weights: tuple[float, float, float] = (0.5, 0.3, 0.2)
    returned: Literal["fused", "all"] = "fused"

    def __post_init__(self) -> None:
        laws = {
            f"mu = {self.mu}: must be above 0 and at most 1, or the loop does not settle": 0 < self.mu <= 1,
            f"lam = {self.lam}: must be at least 0": self.lam >= 0,
            f"iterations = {self.iterations}: must be at least 0; 0 is the limit": self.iterations >= 0,
            f"step = {self.step}: must be at least 0; perturb = 'off' leaves the images alone": self.step >= 0,
            f"weights = {self.weights}: must be above 0, the late fusion divides by them": min(self.weights) > 0,
        }
        all_at_once(ConfigError, "this PGSL cannot be", [law for law, kept in laws.items() if not kept])


def saliency(scores: Scores, images: Tensor, labels: Tensor | None, of: str = "logits") -> tuple[Tensor, Tensor]:
    """alpha_i = d f_y / d x_i and beta_i = sum over y' != y of d f_y' / d x_i, both (n, c, s, s).

    ``labels``: (n,), or None for the class that f puts first. Two backward passes whatever the number of classes, since
    beta is the gradient of a sum. ``of``: 'logits' or 'softmax'.
    """
    inner = images.detach().requires_grad_(True)
    with torch.enable_grad():
        logits = scores(inner)
        values = logits.softmax(dim=1) if of == "softmax" else logits
        chosen = logits.argmax(dim=1) if labels is None else labels
        own = values.gather(1, chosen[:, None]).sum()
        (alpha,) = torch.autograd.grad(own, inner, retain_graph=True)
        (beta,) = torch.autograd.grad(values.sum() - own, inner)
    return alpha, beta


def reversed_map(alpha: Tensor, beta: Tensor) -> Tensor:
    """Eq. 1: -alpha beta where alpha < 0 and beta > 0, else 0. Never negative.

    The ordinary saliency map (Papernot et al. 2016) keeps alpha > 0 and beta < 0 for a target class: here the pixels
    that speak against the image's own class and for the others are raised.
    """
    return torch.where((alpha < 0) & (beta > 0), -alpha * beta, torch.zeros_like(alpha))


def scaled(found: Tensor, scale: str, step: float) -> Tensor:
    """``step`` times the map ('raw'), or times the map over its largest value in each image ('peak')."""
    if scale == "raw":
        return step * found
    peak = found.flatten(1).amax(dim=1).clamp_min(SMALLEST)
    return step * found / peak.view(-1, 1, 1, 1)


def shuffled(found: Tensor, rng: torch.Generator) -> Tensor:
    """Each image's values at random places: what is left of the map when its direction is taken away."""
    flat = found.flatten(1)
    order = torch.rand(flat.shape, generator=rng).to(found.device).argsort(dim=1)
    return flat.gather(1, order).view_as(found)


def attack(
    images: Tensor, scores: Scores, labels: Tensor | None, chosen: Pgsl, rng: torch.Generator
) -> tuple[Tensor, Tensor]:
    """x_hat = x + Map clipped to [-1, 1], and the scaled map; ``rng`` is read for the random map alone."""
    if chosen.perturb == "off":
        return images, torch.zeros_like(images)
    known = labels if chosen.label == "true" else None
    found = scaled(reversed_map(*saliency(scores, images, known, chosen.scores)), chosen.scale, chosen.step)
    if chosen.perturb == "random":
        found = shuffled(found, rng)
    return (images + found).clamp(-1, 1), found


def fold(attacked: Tensor, found: Tensor, *, map_channel: bool = True) -> Tensor:
    """(n, c, s, s) -> (n, 4c [+ 1], s/2, s/2): 2 x 2 space-to-depth, and the map as the last channel, its mean over
    channels and over each 2 x 2 block."""
    folded = F.pixel_unshuffle(attacked, FOLD)
    if not map_channel:
        return folded
    return torch.cat([folded, F.avg_pool2d(found.mean(dim=1, keepdim=True), FOLD)], dim=1)


def unfold(folded: Tensor, channels: int) -> tuple[Tensor, Tensor | None]:
    """The inverse: x_hat (n, c, s, s) exactly, and the map as it was sent (n, 1, s/2, s/2), or None."""
    pixels = channels * FOLD * FOLD
    sent = folded[:, pixels:] if folded.shape[1] > pixels else None
    return F.pixel_shuffle(folded[:, :pixels], FOLD), sent


def shrunk(singular: Tensor, lam: Tensor, mu: float, iterations: int) -> Tensor:
    """Singular values of M_bar after ``iterations`` of Z = M - mu (M - x_hat), M = SVT(Z, lam mu), from M = 0.

    M keeps the singular vectors of x_hat throughout, so that one decomposition serves all iterations. 0 iterations: the
    limit max(sigma - lam, 0), the prox of lam times the nuclear norm at x_hat.
    """
    if not iterations:
        return (singular - lam).clamp_min(0)
    kept = torch.zeros_like(singular)
    for _ in range(iterations):
        kept = ((1 - mu) * kept + mu * singular - lam * mu).clamp_min(0)
    return kept


def low_rank(values: Tensor, chosen: Pgsl) -> Tensor:
    """M_bar of Eqs. 4 and 5 for each sample of (n, c, h, w), the same shape: F = mu g + f, f = 1/2 ||x_hat - M_bar||^2,
    g the nuclear norm. No gradient passes: that of a decomposition has none where singular values agree."""
    with torch.no_grad():
        matrices = values.flatten(2) if chosen.matrix == "sample" else values
        left, singular, right = torch.linalg.svd(matrices, full_matrices=False)
        lam = torch.full_like(singular[..., :1], chosen.lam)
        if chosen.threshold == "relative":
            lam = chosen.lam * singular[..., :1]
        kept = shrunk(singular, lam, chosen.mu, chosen.iterations)
        found: Tensor = (left * kept.unsqueeze(-2)) @ right
        return found.view_as(values)


def recovered(values: Tensor, chosen: Pgsl) -> Tensor:
    """What the recovered stream reads of activations (n, c, h, w). Detached: no gradient returns this way."""
    if chosen.recovery == "off":
        return values.detach()
    found = low_rank(values.detach(), chosen)
    return found if chosen.recovery == "low-rank" else values.detach() - found


class Fusion(nn.Module):
    """Eqs. 7 and 8: f_out = [f_u ; f_v] * filter + bias + f_u, for two streams (n, channels, h, w)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.filter = nn.Conv2d(2 * channels, channels, 3, 1, 1)

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        out: Tensor = self.filter(torch.cat([first, second], dim=1)) + first
        return out


def late_shares(tops: Mapping[str, Tensor], weights: tuple[float, float, float]) -> dict[str, Tensor]:
    """Eqs. 10 and 11: share of each stream, W S^max / D, D the sum over streams; in [0, 1], together 1.

    ``tops``: a stream's largest softmax score (n,). ``weights``: W of 'recovered', 'fused', 'attacked'; gamma is the
    share of the first, rho of the second. A stream that is not there has no part in D.
    """
    named = dict(zip(("recovered", "fused", "attacked"), weights, strict=True))
    raw = {name: named[name] * top for name, top in tops.items()}
    total = torch.stack([*raw.values()]).sum(dim=0)
    return {name: value / total for name, value in raw.items()}


def late_fusion(probabilities: Mapping[str, Tensor], weights: tuple[float, float, float]) -> Tensor:
    """Eq. 9: S = gamma S_r + rho S_f + (1 - gamma - rho) S_a, from softmax scores (n, k) of each stream."""
    shares = late_shares({name: found.amax(dim=1) for name, found in probabilities.items()}, weights)
    return torch.stack([shares[name][:, None] * found for name, found in probabilities.items()]).sum(dim=0)
