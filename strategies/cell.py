"""One cell (arm x seed): train over the grid, score, save. What finished is never run again."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from flwr.app import ArrayRecord, MetricRecord
from flwr.serverapp import Grid
from safetensors.numpy import save_file

from fedsec.config import RunConfig
from fedsec.images import grid as tile
from fedsec.images import save_png, to_pixels
from fedsec.metrics.detection import DetectionTrace, detection_scores
from fedsec.metrics.panel import QUICK_SAMPLES, Panel
from fedsec.models.learner import new_learner
from fedsec.models.sampling import balanced_labels, sample
from fedsec.privacy.promises import affordable, promises
from fedsec.records import Enrolled, to_record
from fedsec.reports.runlog import RunLog
from fedsec.runs import Plan
from fedsec.types import Arrays, Dataset, Images, Labels, Score
from fedsec.weights import generator_arrays
from strategies.base import Brief, GanStrategy
from strategies.sleeves import STRATEGIES

ROUND_TIMEOUT = 3600.0
"""Seconds the server waits for the slowest client of a round."""
GRID_COLUMNS = 8
GRID_ROWS = 8


def run_cell(
    grid: Grid, plan: Plan, lane: Sequence[Enrolled], panel: Panel, *, arm: str, seed: int, log: RunLog
) -> None:
    """Everything of one cell, in its order: start event, rounds, final scores, generator, end event."""
    config, started = plan.config.arm(arm), time.monotonic()
    config = affordable(config, plan.images)
    classes = len(plan.dataset.class_names)
    learner = new_learner(config, channels=plan.dataset.channels, classes=classes, seed=seed, device="cpu")
    initial = learner.shared()
    log.cell_start(arm, seed, plan.digests[arm, seed])
    strategy = STRATEGIES[config.defence.name](
        Brief(config, arm, seed, lane, initial, log, plan.dataset, plan.secret(seed))
    )
    observer = Observer(plan, config, strategy, panel, log)
    strategy.start(
        grid,
        to_record(initial),
        num_rounds=config.train.rounds,
        timeout=ROUND_TIMEOUT,
        evaluate_fn=observer.after_round,
    )
    observer.finish()
    log.cell_end(arm, seed, plan.digests[arm, seed], time.monotonic() - started)


def draw(data: Dataset, config: RunConfig, generator: Arrays, count: int) -> tuple[Images, Labels]:
    """``count`` images on the latents that no arm or round changes, labelled as the training set is."""
    labels = balanced_labels(data.labels[data.train], count)
    classes = len(data.class_names)
    images = sample(config, generator, labels, channels=data.channels, classes=classes, seed=config.data.seed)
    return images, labels


@dataclass
class Observer:
    """Draws and scores what the server's averaged generator makes, on latents that no arm or round changes."""

    plan: Plan
    config: RunConfig
    strategy: GanStrategy
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
        scores += promises(self.config, self.plan.images, rounds)
        self._log_scores(rounds, scores, final=True)
        path = self.plan.folder / f"generator-{arm}-{seed}.safetensors"
        partial = path.with_suffix(f".{os.getpid()}.part")
        facts = json.dumps({"arm": arm, "seed": seed, "digest": self.plan.digests[arm, seed]})
        save_file(generator_arrays(self.strategy.averaged), partial, metadata={"fedsec": facts})
        os.replace(partial, path)

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
