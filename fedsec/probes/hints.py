"""What kind of images a client trained on, from its batch statistics: classes, cameras, sexes, any public grouping.

The mean that BatchNorm takes is over the images of the batch, so behind the first convolution it is exactly the mean of
what each image alone would give; deeper it is nearly so. The server mixes batches of public images of every group, in
shares that it draws, as many steps and images a step as the client's, passes them through the model that it sent out,
and learns by ridge regression to tell the shares from the means at every BatchNorm; then it is given the client's.

Ours (shadow rounds, after the shadow models of Shokri et al. 2017). Labels alone are read better from the last bias
(``labels``), where that is sent and the round was one step.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from sklearn.linear_model import RidgeCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from fedsec.errors import ProbeError
from fedsec.probes.batchnorm import Moments, recovered, weighted
from fedsec.probes.replica import Replica
from fedsec.probes.view import ServerView
from fedsec.seeds import stream
from fedsec.types import Features, Images, Indices, Vector

ROUNDS = 300
"""Rounds of public images that the regression learns from."""
PENALTIES = np.logspace(0, 6, 13)
"""Of the ridge, chosen among by leave-one-out error."""


class GroupReader:
    """Reads the shares of public groups from statistics of one recipe and one model sent out; learns once."""

    def __init__(
        self,
        replica: Replica,
        images: Images,
        groups: Indices,
        *,
        examples: int,
        rounds: int = ROUNDS,
        seed: int = 0,
    ) -> None:
        """``images`` (n, c, s, s) public, ``groups`` (n,) from 0, which each is of; ``examples``: images of the client.

        Errors: ProbeError where the model has no train-mode BatchNorm, or a group has no public image.
        """
        count, recipe = int(groups.max()) + 1, replica.recipe
        lacking = [group for group in range(count) if not (groups == group).any()]
        if lacking:
            raise ProbeError(f"groups {lacking} have no public image: give one at least of each")
        self.recipe, self.layers = recipe, list(replica.counts(1))
        if not self.layers:
            raise ProbeError(f"norm {recipe.norm!r} keeps no batch statistics: there is nothing to read")
        sizes = recipe.sizes(examples)
        rng, members = stream(seed, "group-reader"), [np.flatnonzero(groups == group) for group in range(count)]
        seen, shares = [], []
        for _ in range(rounds):
            mixture = rng.dirichlet(np.ones(count))
            kinds = [rng.choice(count, size, p=mixture) for size in sizes]
            batches = [images[[rng.choice(members[kind]) for kind in step]] for step in kinds]
            steps = [_moments(replica, self.layers, batch) for batch in batches]
            seen.append(self._means(weighted(steps, recipe.bn_momentum)))
            shares.append(np.bincount(np.concatenate(kinds), minlength=count) / sum(sizes))
        self.model = make_pipeline(StandardScaler(), RidgeCV(PENALTIES)).fit(np.stack(seen), np.stack(shares))

    def __call__(self, view: ServerView) -> Vector:
        """(k,) the share of each group among the images that the client trained on; in [0, 1], sum 1. Where statistics
        say nothing it is what public mixtures have on average, 1 / k. Errors: ProbeError where none were sent."""
        target = recovered(view.before, view.after, steps=self.recipe.steps, momentum=self.recipe.bn_momentum)
        found = np.clip(self.model.predict(self._means(target)[None])[0], 0, None)
        return np.asarray(found / found.sum(), np.float64)

    def _means(self, moments: dict[str, Moments]) -> Features:
        return np.concatenate([moments[layer].mean for layer in self.layers])


def _moments(replica: Replica, names: Sequence[str], images: Images) -> dict[str, Moments]:
    """At every BatchNorm, of one train-mode batch with the weights that were sent out."""
    with torch.no_grad():
        _, seen = replica.logits(replica.weights, torch.from_numpy(images).to(replica.device))
    return {
        name: Moments(mean.double().cpu().numpy(), spread.double().cpu().numpy())
        for name, (mean, spread) in zip(names, seen, strict=True)
    }
