"""Clients that audit their own update before it leaves: honest training, then the attack that the server could make.

The probes see the server's view; the site, which has the truth, scores what they found. Only numbers are reported.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from flwr.common.typing import NDArrays, Scalar
from torch import nn

from clients.classifier import ClassifierClient
from fedsec.datasets.public import prior_image
from fedsec.errors import ProbeError, ReplyError
from fedsec.images import to_images
from fedsec.metrics.iip import pixels
from fedsec.metrics.similarity import placed, rdlv
from fedsec.probes.audit import ATTACKS, Means
from fedsec.probes.batchnorm import (
    Moments,
    moment_likelihood,
    noise_gain,
    recovered,
    recovery_error,
    steps_taken,
    weighted,
)
from fedsec.probes.replica import Replica
from fedsec.probes.span import FEWEST
from fedsec.probes.view import Recipe, ServerView
from fedsec.types import Features, Images, Rows
from fedsec.weights import COUNTERS

__all__ = ["BatchNormProbeClient", "InversionProbeClient", "Probed", "moments_of", "recognised"]


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


@dataclass(frozen=True)
class Probed:
    """What a site's own attack drew of its images. ``recognised``: share of them whose reconstruction is more like them
    than like any other image of the site or of the public, by pixels at any contrast. ``reason``: why there are no
    numbers, '' where there are."""

    rdlv: float
    rdlv_max: float
    recognised: float
    reason: str = ""

    @property
    def worst(self) -> float:
        """The larger of the likest image's RDLV and the share recognised; NaN where neither is known."""
        known = [value for value in (self.rdlv_max, self.recognised) if math.isfinite(value)]
        return max(known, default=math.nan)


class InversionProbeClient(ClassifierClient):
    """Attacks its own update and reports ``probe-rdlv`` (mean), ``probe-rdlv-max`` and ``probe-recognised`` over its
    images, against the mean of ``public`` images. Above ``limit``, by the larger of the last two, the update does not
    leave: ``fit`` raises a ReplyError that says why, and the server drops the reply with that reason. Nor does it
    where the attack could not be made or gave no number, since nothing is known then: unless ``unmeasured`` is 'send'.
    A limit of ``inf`` withholds nothing.

    ``attack``: of ``fedsec.probes.audit.ATTACKS``. A limit that is kept says what this attack drew, and no more. The
    release's filter empties the update instead; an empty update would enter the average.
    """

    def __init__(
        self,
        recipe: Recipe,
        rows: Rows,
        *,
        public: Rows,
        limit: float = math.inf,
        attack: str = "span",
        iterations: int = 0,
        unmeasured: str = "withhold",
        **usual: Any,
    ) -> None:
        super().__init__(recipe, rows, **usual)
        self.public, self.limit, self.attack = public, limit, attack
        self.iterations, self.unmeasured = iterations, unmeasured

    def fit(self, parameters: NDArrays, config: Mapping[str, Scalar]) -> tuple[NDArrays, int, dict[str, Scalar]]:
        sent, examples, told = super().fit(parameters, config)
        assert self.captured is not None
        found = self.probed(self.captured)
        self._hold_to_limit(found)
        numbers: dict[str, Scalar] = {
            "probe-rdlv": found.rdlv, "probe-rdlv-max": found.rdlv_max, "probe-recognised": found.recognised
        }  # fmt: skip
        return sent, examples, {**told, **numbers}

    def _hold_to_limit(self, found: Probed) -> None:
        if self.limit == math.inf:
            return
        if not math.isfinite(found.worst):
            if self.unmeasured == "send":
                return
            raise ReplyError(
                f"update withheld: this site's own attack gave no number ({found.reason or 'unknown'}), so nothing is "
                "known of what the update gives away; mend that, or set leakage.unmeasured = 'send'"
            )
        if found.worst > self.limit:
            raise ReplyError(
                f"update withheld: the likeliest reconstruction has RDLV {found.rdlv_max:.2f} and "
                f"{found.recognised:.0%} of the images are recognised, this site's limit is {self.limit:g}; leave "
                "this round out, or raise leakage.limit"
            )

    def probed(self, view: ServerView) -> Probed:
        """What of this site's images the server can draw from ``view``."""
        truth, prior = to_images(self.rows.pixels), prior_image(self.public)
        means = Means(prior, self.public, self.seed, self.iterations, self.device)
        if self.attack == "span" and 0 < self.iterations < FEWEST and self.limit < math.inf:
            why = f"{self.iterations} iterations of span are no attempt, {FEWEST} are the fewest"
            return Probed(math.nan, math.nan, math.nan, why)
        try:
            images, _ = ATTACKS[self.attack](view, means)
        except (ProbeError, FloatingPointError) as error:
            return Probed(math.nan, math.nan, math.nan, str(error))
        leak = rdlv(truth, images, prior)
        return Probed(leak.mean, leak.max, recognised(truth, images, to_images(self.public.pixels)), leak.reason)


def recognised(truth: Images, images: Images, others: Images) -> float:
    """Share of ``truth`` whose reconstruction (matched first) correlates with it more than with every other image. A
    flat reconstruction is like none."""
    known = np.concatenate([truth, others])
    near = _directions(pixels(placed(truth, images))) @ _directions(pixels(known)).T
    own = np.diag(near).copy()
    near[np.arange(len(own)), np.arange(len(own))] = -np.inf
    return float(np.mean(own > near.max(axis=1)))


def _directions(features: Features) -> Features:
    length = np.linalg.norm(features, axis=1, keepdims=True)
    return np.asarray(features / np.where(length > 0, length, 1), np.float64)


def moments_of(replica: Replica, image: Images) -> dict[str, Moments]:
    """Moments of one image (c, s, s) alone in a train-mode batch, at every BatchNorm."""
    with torch.no_grad():
        _, seen = replica.logits(replica.weights, torch.from_numpy(image[None]))
    names = replica.counts(1)
    return {
        name: Moments(mean.double().numpy(), spread.double().numpy())
        for name, (mean, spread) in zip(names, seen, strict=True)
    }
