"""Clients that audit their own update before it leaves: honest training, then the attack that the server could make.

The probes see the server's view; the site, which has the truth, scores what they found. Only numbers are reported.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from flwr.common.typing import NDArrays, Scalar

from clients.classifier import ClassifierClient
from fedsec.errors import ReplyError
from fedsec.images import to_images
from fedsec.metrics.similarity import Rdlv, rdlv
from fedsec.probes.audit import Means, inverted
from fedsec.probes.batchnorm import Moments, moment_likelihood, noise_gain, recovered, steps_taken
from fedsec.probes.replica import Replica
from fedsec.probes.view import Recipe, ServerView
from fedsec.types import Images, Rows
from fedsec.weights import COUNTERS

__all__ = ["BatchNormProbeClient", "InversionProbeClient", "moments_of"]


class BatchNormProbeClient(ClassifierClient):
    """Reports what its running statistics give away: ``probe-steps``, the local steps that the counters tell (the
    recipe, where they are not sent);
    ``probe-noise-gain``, by which noise on them would grow; ``probe-rank``, the place of this site's likeliest image
    among it and ``strangers`` (public images of the same size), 1 = picked out. Nothing is withheld."""

    def __init__(self, recipe: Recipe, rows: Rows, *, strangers: Images, **usual: Any) -> None:
        super().__init__(recipe, rows, **usual)
        self.strangers = strangers

    def fit(self, parameters: NDArrays, config: Mapping[str, Scalar]) -> tuple[NDArrays, int, dict[str, Scalar]]:
        sent, examples, told = super().fit(parameters, config)
        view = self.captured
        assert view is not None
        counted = any(name.rsplit(".", 1)[-1] in COUNTERS for name in view.after)
        steps = steps_taken(view.before, view.after) if counted else view.recipe.steps
        replica = Replica(view.recipe, view.before)
        target = recovered(
            view.before,
            view.after,
            steps=steps,
            momentum=view.recipe.bn_momentum,
            counts=replica.counts(min(view.recipe.batch, view.examples)),
        )
        own = max(moment_likelihood(moments_of(replica, image), target) for image in to_images(self.rows.pixels))
        others = [moment_likelihood(moments_of(replica, image), target) for image in self.strangers]
        rank = 1 + sum(other >= own for other in others)
        gain = noise_gain(view.recipe.bn_momentum, steps)
        return sent, examples, {**told, "probe-steps": steps, "probe-noise-gain": gain, "probe-rank": rank}


class InversionProbeClient(ClassifierClient):
    """Inverts its own update by ``preset`` and reports ``probe-rdlv`` (mean) and ``probe-rdlv-max`` over its images,
    against ``prior`` (1, c, s, s), a public image, and ``probe-maps`` (see ``leak``). Above ``limit`` the update does
    not leave: ``fit`` raises a ReplyError that says why, and the server drops the reply with that reason. A leak that
    cannot be measured counts as above any limit. ``inf`` withholds nothing.

    The release's filter empties the update instead; an empty update would enter the average.
    """

    def __init__(
        self,
        recipe: Recipe,
        rows: Rows,
        *,
        prior: Images,
        limit: float = math.inf,
        preset: str = "row-space",
        iterations: int = 0,
        **usual: Any,
    ) -> None:
        super().__init__(recipe, rows, **usual)
        self.prior, self.limit, self.preset, self.iterations = prior, limit, preset, iterations

    def fit(self, parameters: NDArrays, config: Mapping[str, Scalar]) -> tuple[NDArrays, int, dict[str, Scalar]]:
        sent, examples, told = super().fit(parameters, config)
        assert self.captured is not None
        leak, maps = self.leak(self.captured)
        if self.limit < math.inf and not leak.max <= self.limit:
            raise ReplyError(
                f"update withheld: the likeliest reconstruction has RDLV {leak.max:.2f}, this site's limit is "
                f"{self.limit:g}; train on more images or steps a round, or add noise"
            )
        return sent, examples, {**told, "probe-rdlv": leak.mean, "probe-rdlv-max": leak.max, "probe-maps": maps}

    def leak(self, view: ServerView) -> tuple[Rdlv, float]:
        """What of this site's images the server can draw from ``view``, NaN where the prior is like none of them; and
        how many values an image 'row-space' read: 0 says that it found nothing, not that there is nothing."""
        truth = to_images(self.rows.pixels)
        images, said = inverted(view, self.preset, Means(self.prior, None, self.seed, self.iterations, self.device))
        return rdlv(truth, images, self.prior), said.get("maps", 0.0)


def moments_of(replica: Replica, image: Images) -> dict[str, Moments]:
    """Moments of one image (c, s, s) alone in a train-mode batch, at every BatchNorm."""
    with torch.no_grad():
        _, seen = replica.logits(replica.weights, torch.from_numpy(image[None]))
    names = replica.counts(1)
    return {
        name: Moments(mean.double().numpy(), spread.double().numpy())
        for name, (mean, spread) in zip(names, seen, strict=True)
    }
