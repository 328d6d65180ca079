"""What is drawn and scored of a cell's generator, over rounds and at its end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from flwr.app import ArrayRecord, MetricRecord

from fedsec.config import RunConfig
from fedsec.images import grid as tile
from fedsec.images import save_png, to_pixels
from fedsec.log.runlog import RunLog
from fedsec.metrics.detection import DetectionTrace, detection_scores
from fedsec.metrics.panel import QUICK_SAMPLES, Panel
from fedsec.models.gan.learner import new_learner
from fedsec.models.gan.sampling import balanced_labels, draw
from fedsec.privacy.promises import promises
from fedsec.run.models import keep_model
from fedsec.run.plan import Plan
from fedsec.types import Arrays, Images, Labels, Score
from fedsec.weights import generator_arrays
from strategies.base import RoundStrategy

GRID_COLUMNS = 8
GRID_ROWS = 8


def new_generator(plan: Plan, config: RunConfig, seed: int) -> Arrays:
    """What the clients share before round 1."""
    channels, classes = plan.dataset.channels, len(plan.dataset.class_names)
    return new_learner(config, channels=channels, classes=classes, seed=seed, device="cpu").shared()


@dataclass
class GeneratorObserver:
    """Draws and scores what the server's averaged generator makes, on latents that no arm or round changes."""

    plan: Plan
    config: RunConfig
    strategy: RoundStrategy
    panel: Panel
    log: RunLog

    def after_round(self, number: int, arrays: ArrayRecord) -> MetricRecord | None:
        """A sample grid and quick scores every ``measure.every`` rounds; the last round belongs to ``finish``."""
        if number and number % self.config.measure.every == 0 and number < self.config.train.rounds:
            images, _ = self._sample(min(QUICK_SAMPLES, self.config.measure.samples))
            self._draw(number, images)
            self._log_scores(number, self.panel.quick(images, self.config.attack), final=False)
        return None

    def finish(self) -> None:
        arm, seed, rounds = self.strategy.arm, self.strategy.seed, self.config.train.rounds
        images, labels = self._sample(self.config.measure.samples)
        self._draw(rounds, images)
        quick = min(QUICK_SAMPLES, len(images))
        self._log_scores(rounds, self.panel.quick(images[:quick], self.config.attack), final=False)
        scores = self.panel.full(images, labels, self.config, seed=seed)
        scores += detection_scores(self._trace(self.plan.clients))
        scores += promises(self.config, self.strategy.tries)
        scores += self._withheld(rounds)
        self._log_scores(rounds, scores, final=True)
        keep_model(self.plan, "generator", arm, seed, generator_arrays(self.strategy.averaged))

    def _withheld(self, rounds: int) -> list[Score]:
        """How many rounds were not released, where clients draw the noise and too few of them may answer."""
        privacy = self.config.privacy
        if not self.config.defence.name.startswith("dp-") or privacy.noised_by != "clients":
            return []
        reason = f"fewer than privacy.fewest = {privacy.fewest} answered: nothing was released, the model stayed"
        return [Score("rounds-withheld", self.strategy.withheld, rounds, "lower", reason)]

    def _sample(self, count: int) -> tuple[Images, Labels]:
        return draw(self.plan.dataset, self.config, generator_arrays(self.strategy.averaged), count)

    def _draw(self, number: int, images: Images) -> None:
        """The first images of each class, class by class, as one PNG."""
        data = self.plan.dataset
        labels = balanced_labels(data.labels[data.train], len(images))
        each = GRID_COLUMNS * GRID_ROWS // len(data.class_names)
        chosen = np.concatenate([np.flatnonzero(labels == k)[:each] for k in range(len(data.class_names))])
        file = f"samples/{self.strategy.arm}-{self.strategy.seed}-{number:04d}.png"
        save_png(tile(to_pixels(np.nan_to_num(images[chosen])), GRID_COLUMNS), self.plan.folder / file)
        self.log.samples(self.strategy.arm, self.strategy.seed, number, file)

    def _log_scores(self, number: int, scores: Sequence[Score], *, final: bool) -> None:
        for score in scores:
            self.log.score(self.strategy.arm, self.strategy.seed, number, score, final=final)

    def _trace(self, clients: int) -> DetectionTrace:
        history = self.strategy.history
        weights = np.full((len(history), clients), np.nan)
        flagged = np.zeros((len(history), clients), bool)
        suspicion = np.full((len(history), clients), np.nan)
        for row, weighing in enumerate(history):
            for partition, weight in weighing.weights.items():
                weights[row, partition] = weight
            flagged[row, list(weighing.flagged)] = True
            for partition, value in weighing.suspicion.items():
                suspicion[row, partition] = value
        malicious = np.isin(np.arange(clients), self.config.malicious)
        return DetectionTrace(malicious, flagged, weights, suspicion)
