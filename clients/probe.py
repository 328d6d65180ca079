"""Clients that audit their own update before it leaves: honest training, then the attack that the server could make.

The probes see the server's view; the site, which has the truth, scores what they found. Only numbers are reported.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from flwr.common.typing import NDArrays, Scalar
from torch import nn

from clients.classifier import ClassifierClient
from fedsec.errors import ReplyError
from fedsec.images import to_images
from fedsec.metrics.similarity import Rdlv, rdlv
from fedsec.probes.audit import Means, inverted
from fedsec.probes.batchnorm import (
    Moments,
    ProbeError,
    moment_likelihood,
    noise_gain,
    recovered,
    recovery_error,
    steps_taken,
    weighted,
)
from fedsec.probes.replica import Replica
from fedsec.probes.view import Recipe, ServerView
from fedsec.types import Images, Rows
from fedsec.weights import COUNTERS

__all__ = ["BatchNormProbeClient", "InversionProbeClient", "moments_of"]


class BatchNormProbeClient(ClassifierClient):
    """Reports what its running statistics give away. Nothing is withheld.

    ``probe-steps``: the local steps that the counters tell (the recipe's, where they are not sent).
    ``probe-noise-gain``: by how much noise on the statistics grows in what is recovered from them.
    ``probe-recovery-error``: the largest relative error, over layers, of the recovered means and variances.
    ``probe-likelier``: the chance that one of this site's images is likelier, by its moments alone, than one of
    ``strangers``, public images of the same size: 0.5 says nothing, 1 picks this site's out.
    """

    def __init__(self, recipe: Recipe, rows: Rows, *, strangers: Images, **usual: Any) -> None:
        super().__init__(recipe, rows, **usual)
        self.strangers = strangers
        self._seen: list[dict[str, Moments]] = []

    def fit(self, parameters: NDArrays, config: Mapping[str, Scalar]) -> tuple[NDArrays, int, dict[str, Scalar]]:
        sent, examples, told = super().fit(parameters, config)
        view = self.captured
        assert view is not None
        momentum = view.recipe.bn_momentum
        counted = any(name.rsplit(".", 1)[-1] in COUNTERS for name in view.after)
        steps = steps_taken(view.before, view.after) if counted else view.recipe.steps
        replica = Replica(view.recipe, view.before)
        counts = replica.counts(min(view.recipe.batch, view.examples))
        target = recovered(view.before, view.after, steps=steps, momentum=momentum, counts=counts)
        errors = recovery_error(target, weighted(self._seen, momentum)).values()
        likelihoods = [
            [moment_likelihood(moments_of(replica, image), target) for image in images]
            for images in (to_images(self.rows.pixels), self.strangers)
        ]
        own, others = map(np.array, likelihoods)
        above = (own[:, None] > others).mean() + (own[:, None] == others).mean() / 2
        found: dict[str, Scalar] = {
            "probe-steps": steps,
            "probe-noise-gain": noise_gain(momentum, steps),
            "probe-recovery-error": max(max(error.mean, error.var) for error in errors),
            "probe-likelier": float(above),
        }
        return sent, examples, {**told, **found}

    def _train(self, network: nn.Module, number: int) -> list[float]:
        """As any client, with what enters each BatchNorm looked at."""
        self._seen, hooks = [], []
        layers = {name: module for name, module in network.named_modules() if isinstance(module, nn.BatchNorm2d)}
        first = next(iter(layers), "")
        for name, module in layers.items():

            def look(_: nn.Module, inputs: tuple[torch.Tensor, ...], name: str = name) -> None:
                if name == first:
                    self._seen.append({})
                x = inputs[0].detach()
                moments = x.mean((0, 2, 3)), x.var((0, 2, 3), unbiased=False)
                self._seen[-1][name] = Moments(*(moment.double().cpu().numpy() for moment in moments))

            hooks.append(module.register_forward_pre_hook(look))
        try:
            return super()._train(network, number)
        finally:
            for hook in hooks:
                hook.remove()


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
        """What of this site's images the server can draw from ``view``, NaN where the prior is like none of them or the
        attack breaks down; and how many values an image 'row-space' read: 0 says that it found nothing, not that there
        is nothing."""
        truth = to_images(self.rows.pixels)
        means = Means(self.prior, None, self.seed, self.iterations, self.device)
        try:
            images, said = inverted(view, self.preset, means)
        except (ProbeError, FloatingPointError) as error:
            return Rdlv(np.full(len(truth), math.nan), math.nan, math.nan, str(error)), 0.0
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
