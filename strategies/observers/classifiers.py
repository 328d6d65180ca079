"""What is scored of a cell's classifier, and what a curious server draws out of single updates."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch
from flwr.app import ArrayRecord, MetricRecord
from torch import nn
from torch.optim.swa_utils import update_bn

from fedsec.config import RunConfig
from fedsec.config.lists import audits as audited
from fedsec.config.lists import pairs
from fedsec.datasets.public import first_of_each
from fedsec.errors import ProbeError, RunError
from fedsec.images import to_images
from fedsec.log.runlog import RunLog
from fedsec.metrics.gallery import Gallery
from fedsec.metrics.panel import Panel
from fedsec.metrics.similarity import leak_scores, placed
from fedsec.metrics.utility import classified
from fedsec.models.fitting import probabilities
from fedsec.models.networks import NetworkSpec, new_network
from fedsec.models.state import load_network, network_arrays
from fedsec.privacy.promises import promises
from fedsec.probes.audit import ATTACKS, Means, recipe_of
from fedsec.probes.view import ServerView
from fedsec.run.models import keep_model
from fedsec.run.plan import Plan
from fedsec.types import Arrays, Fit, Score
from fedsec.weights import sent_names, with_proper_variances
from strategies.base import RoundStrategy
from strategies.observers.audits import Audits

CALIBRATING = 256
"""Public images of a class that running statistics are taken from where clients keep theirs."""
KNOWN = 64
"""Public images of a class that an attack calibrates its reading of labels by."""
BATCH = 64


def spec_of(plan: Plan, config: RunConfig) -> NetworkSpec:
    chosen = config.classifier
    data = plan.dataset
    return NetworkSpec(chosen.network, chosen.norm, data.channels, len(data.class_names), size=data.size)


def new_classifier(plan: Plan, config: RunConfig, seed: int) -> Arrays:
    """What travels of a new network."""
    arrays = network_arrays(new_network(spec_of(plan, config), seed=seed))
    return {name: arrays[name] for name in sent_names(arrays, config.classifier.sends)}


class ClassifierObserver:
    """Scores the server's classifier on held-out images, and attacks single updates of audited rounds.

    In a simulation alone the truth is at hand to score an attack by; on real machines each site probes its own update
    (``leakage.probe``) and reports numbers. Errors: RunError, before any training, for what cannot be measured.
    """

    def __init__(self, plan: Plan, config: RunConfig, strategy: RoundStrategy, panel: Panel, log: RunLog) -> None:
        self.plan, self.config, self.strategy, self.log, self.device = plan, config, strategy, log, panel.device
        data = plan.dataset
        self.audits = Audits(plan, config, strategy.arm, strategy.seed, log)
        self.gallery = Gallery.of(self.audits.others)
        self.public = self.audits.public
        self.test = data.rows(data.test)
        local = config.classifier.sends == "weights" and config.classifier.norm == "batch"
        if local and not len(self.public):
            raise RunError(
                "classifier.sends = 'weights' with norm 'batch': the server scores by statistics of public images and "
                "every image here is some client's; take split.scheme = 'sizes', or another norm"
            )
        self.calibrates = local

    def after_round(self, number: int, arrays: ArrayRecord) -> MetricRecord | None:
        if not number:
            return None
        if number % self.config.measure.every == 0 or number == self.config.train.rounds:
            self._log(number, self._scores()[:2], final=False)
        for fit in self.strategy.heard:
            told = {key.removeprefix("probe-"): value for key, value in fit.metrics.items() if key.startswith("probe-")}
            if told:
                self.audits.leak(number, fit, "the site's own probe", told)
        every = self.config.leakage.every
        if every and (number - 1) % every == 0:
            network = self._network()
            for fit in self.strategy.heard:
                if not self.config.audited or fit.partition in self.config.audited:
                    self._audit(number, fit, network)
        return None

    def finish(self) -> None:
        strategy, rounds = self.strategy, self.config.train.rounds
        self._log(rounds, [*self._scores(), *promises(self.config, self.strategy.tries)], final=True)
        keep_model(self.plan, "classifier", strategy.arm, strategy.seed, network_arrays(self._network()))

    def _network(self) -> nn.Module:
        """The server's model, with running statistics of public images where clients keep theirs."""
        network = new_network(spec_of(self.plan, self.config), seed=0)
        load_network(network, with_proper_variances(self.strategy.averaged))
        if self.calibrates:
            update_bn(self._batches(), network)
        return network.eval()

    def _batches(self) -> Iterator[torch.Tensor]:
        images = to_images(first_of_each(self.public, CALIBRATING).pixels)
        return iter(torch.split(torch.from_numpy(images), BATCH))

    def _scores(self) -> list[Score]:
        return classified(self.test.labels, probabilities(self._network(), to_images(self.test.pixels)))

    def _audit(self, number: int, fit: Fit, network: nn.Module) -> None:
        """Every attack of ``leakage.attacks``, and the prior, on one reply; the truth is used for the scores alone."""
        config, leakage, strategy = self.config, self.config.leakage, self.strategy
        data, audits, truth = self.plan.dataset, self.audits, self.audits.truth(fit.partition)
        recipe = recipe_of(
            config,
            partition=fit.partition,
            images=fit.examples,
            channels=data.channels,
            classes=len(data.class_names),
        )
        view = ServerView(recipe, strategy.layout.arrays(strategy.origin), fit.arrays, fit.examples)
        if leakage.keep:
            view.save(self.plan.folder / "views" / audits.place(number, fit))
        images = to_images(truth.pixels)
        others = first_of_each(audits.others, KNOWN)
        fewer = pairs(leakage.iterations)
        means = Means(audits.prior, others, strategy.seed, device=self.device)
        prior = np.repeat(audits.prior, len(images), axis=0)
        for name in audited(leakage):
            started = time.monotonic()
            try:
                found, told = ATTACKS[name](view, replace(means, iterations=fewer.get(name, 0)))
            except (ProbeError, FloatingPointError) as error:  # not sent what it needs, or diverged; others may go on
                audits.leak(number, fit, name, {}, reason=str(error))
                continue
            own = placed(images, found)
            told |= {**leak_scores(images, found, audits.prior), **self.gallery.scores(truth, own, network)}
            file = audits.picture(number, fit, name, images, own)
            audits.leak(number, fit, name, {**told, "seconds": time.monotonic() - started}, file)
        audits.leak(number, fit, "prior", leak_scores(images, prior, audits.prior))

    def _log(self, number: int, scores: list[Score], *, final: bool) -> None:
        for score in scores:
            self.log.score(self.strategy.arm, self.strategy.seed, number, score, final=final)
