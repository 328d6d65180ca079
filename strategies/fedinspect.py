"""fed-inspect as a strategy; its maths is fedsec.defences.inspection."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from fedsec.defences.evidence import violation
from fedsec.defences.geometry import within
from fedsec.defences.inspection import (
    BOUND,
    MARK,
    WINDOW,
    class_means,
    marks,
    median_client,
    outstanding,
    parts,
    peak,
    scales,
)
from fedsec.defences.probation import Probation, Reply, counting, rounds_of, without
from fedsec.types import Fit, Images, Vector
from fedsec.weights import Updates
from strategies.base import Brief, Weighing
from strategies.draws import Inspector, public_latents, secret_latents
from strategies.feddetect import FedDetect


class FedInspect(FedDetect):
    """Weights decay for clients whose generators draw something that the others' do not
    (``fedsec.defences.inspection``).

    It draws on latents that no client can know (``strategies.draws``), and looks at generators alone: a configuration
    that averages discriminators too is refused. Losses count only as violations, when they are not finite or absurd: a
    client that lies about them gains nothing. Track record and decay are those of the calibrated FedDetect; beside
    them no update counts beyond BOUND, and all are on probation (``fedsec.defences.probation``).
    """

    def __init__(self, brief: Brief) -> None:
        super().__init__(brief)
        defence, data = brief.config.defence, brief.dataset
        self.inspector: Inspector = Inspector(brief.config, channels=data.channels, classes=len(data.class_names))
        self.parts = parts(defence.inspects, mirrored=brief.config.gan.mirror)
        if MARK in self.parts:
            self.rule = replace(self.rule, reading=MARK)
        self.seen: dict[int, list[tuple[np.ndarray, np.ndarray]]] = {}
        self.probation = Probation(self.current, rounds_of(self.rounds))

    @property
    def bound(self) -> float:
        return self.config.defence.bound or BOUND

    def combine(self, number: int, fits: Sequence[Fit], updates: Updates) -> tuple[Vector, Weighing]:
        """Long updates are cut first, so that what is averaged is what was drawn from. Who is flagged, once weights may
        change, has nothing of this round and of the others that are on probation."""
        cuts = within(list(updates), self.bound)
        updates = updates * cuts[:, None]
        weighing = self.weigh(number, [self._as_counted(*each) for each in zip(fits, updates, cuts, strict=True)])
        flagged = weighing.flagged if number > self.rule.warmup else ()
        replies = {
            fit.partition: Reply(np.asarray(update, np.float32), weighing.weights[fit.partition])
            for fit, update in zip(fits, updates, strict=True)
        }
        undone = self.probation.undone(flagged)
        self.probation = self.probation.after(replies, flagged)
        left = counting(without(replies, flagged))
        return self.probation.model - self.current, replace(weighing, weights=left, undone=undone)

    def _as_counted(self, fit: Fit, update: Vector, cut: float) -> Fit:
        return fit if cut == 1 else replace(fit, arrays=self.layout.arrays(self.current + update))

    def counted(self, number: int) -> tuple[int, Vector]:
        return number - len(self.probation.pending), self.probation.settled

    def weigh(self, number: int, fits: Sequence[Fit]) -> Weighing:
        evidence, told = self._evidence(number, fits), []
        for fit in fits:
            loss, seen = fit.metrics.get("g-loss"), evidence.get(fit.partition, math.nan)
            told.append(replace(fit, metrics={"peak": loss if loss is not None and violation(loss) else seen}))
        return super().weigh(number, told)

    def _evidence(self, number: int, fits: Sequence[Fit]) -> dict[int, float]:
        """By partition, ``outstanding`` of this round; nothing of a client whose generator draws no finite images:
        they would leave nobody a median."""
        public = self.config.defence.latents == "public"
        seed = public_latents(self.seed, number) if public else secret_latents(self.secret, number)
        every = {fit.partition: self._draw(fit, seed) for fit in fits}
        drawn = {partition: images for partition, images in every.items() if np.isfinite(images).all()}
        if not drawn:
            return {}
        means = class_means(list(drawn.values()), self.inspector.labels)
        median = median_client(means)[0]
        for partition, mean in zip(drawn, means, strict=True):
            self.seen[partition] = [*self.seen.get(partition, []), (mean, median)][-WINDOW:]
        own, others = (np.stack([np.mean([r[i] for r in self.seen[p]], axis=0) for p in drawn]) for i in (0, 1))
        found = [peak(own, others, part) for part in self.parts if part != MARK]
        if MARK in self.parts:
            found += list(marks([np.stack([mean - median for mean, median in self.seen[p]]) for p in drawn]).T)
        return dict(zip(drawn, map(float, outstanding(np.stack(found, axis=1), *scales(self.parts))), strict=True))

    def _draw(self, fit: Fit, seed: int) -> Images:
        return self.inspector.draw(fit.arrays, seed)
