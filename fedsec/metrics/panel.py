"""All scores of one experiment, with what they share (features of the real images, real-only utility) made once."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from fedsec.attacks.triggers import TRIGGERS, bare, label, trigger
from fedsec.config import Attack, Data, RunConfig
from fedsec.datasets import cache
from fedsec.images import to_images, to_pixels
from fedsec.metrics.conditioning import gan_test
from fedsec.metrics.coverage import relative_spread
from fedsec.metrics.features import VERSION, Extractor, kept_extractor
from fedsec.metrics.fidelity import FIDELITY, fidelity_scores
from fedsec.metrics.inception import find_fid_weights, inception_extractor
from fedsec.metrics.marks import Mark, mark_of
from fedsec.metrics.utility import utility_curve
from fedsec.types import Dataset, Features, Images, Labels, Rows, Score

QUICK_SAMPLES = 400
"""Generated images a quick score over rounds rests on; the final ones rest on ``measure.samples``."""


@dataclass
class Panel:
    """Scores generated images against the real training set (features) and held-out set (utility).

    Cells of one run share a panel between threads: what is made once is made under a lock, the rest is pure.
    ``device``: where features and classifiers are computed.
    """

    config: RunConfig
    dataset: Dataset
    device: str = "cpu"
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _extractor: Extractor | None = None
    _real: Features | None = None
    _clean: Images | None = None
    _marks: dict[Attack, Mark] = field(default_factory=dict)
    _utility: dict[int, list[Score]] = field(default_factory=dict)

    def quick(self, images: Images, attack: Attack) -> list[Score]:
        """Fréchet distance and trigger rate, for the curves over rounds."""
        extractor, real, _ = self._prepared()
        return [FIDELITY[extractor.name](real, extractor(images)), self._mark(attack).scores(images)[0]]

    def full(self, images: Images, labels: Labels, arm: RunConfig, *, seed: int) -> list[Score]:
        """Every score of the final table but detection."""
        drawn = self.drawn(images, labels, arm)
        return [*drawn, *self._real_utility(seed), *self._synthetic_utility(images, labels, seed)]

    def drawn(self, images: Images, labels: Labels, arm: RunConfig) -> list[Score]:
        """What can be said of generated images without training anything on them.

        Where nobody stamps images the triggers of the run's other arms are looked for too, as ``trigger-rate@NAME``:
        what an arm with such a trigger has to be compared with.
        """
        extractor, real, clean = self._prepared()
        features = extractor(images)
        return [
            *fidelity_scores(extractor.name, real, features),
            relative_spread(clean, self._train.labels, images, labels),
            gan_test(real, self._train.labels, features, labels),
            *self._mark(arm.attack).scores(images),
            *self._of_class(arm.attack, images, labels),
            *(score for other in self._absent(arm) for score in self._elsewhere(other, images)),
        ]

    def _of_class(self, attack: Attack, images: Images, labels: Labels) -> list[Score]:
        """The trigger among images of the one class that attackers stamp, as ``trigger-rate-class-K``."""
        k = attack.class_
        if k < 0 or attack.name not in TRIGGERS:
            return []
        return [
            replace(score, name=f"{score.name}-class-{k}") for score in self._mark(attack).scores(images[labels == k])
        ]

    def _absent(self, arm: RunConfig) -> list[Attack]:
        """Triggers of other arms, for an arm that has none in its images."""
        if arm.attack.name in TRIGGERS and arm.defence.name != "oracle":
            return []
        return [attack for attack in self._triggers if attack != bare(arm.attack)]

    @cached_property
    def _triggers(self) -> list[Attack]:
        """Every trigger of the run, each once."""
        every = [self.config.arm(name).attack for name in self.config.arms]
        return list(dict.fromkeys(bare(attack) for attack in every if attack.name in TRIGGERS))

    def _elsewhere(self, attack: Attack, images: Images) -> list[Score]:
        return [replace(score, name=f"{score.name}@{label(attack)}") for score in self._mark(attack).scores(images)]

    def _mark(self, attack: Attack) -> Mark:
        """Made once for each trigger, whoever carries it and however else they attack."""
        plain = bare(attack)
        with self._lock:
            if plain not in self._marks:
                stamp = trigger(plain, size=self.dataset.size, channels=self.dataset.channels)
                self._marks[plain] = mark_of(stamp, self.dataset, seed=self.config.data.seed, device=self.device)
            return self._marks[plain]

    @property
    def measured_by(self) -> str:
        return self._prepared()[0].name

    @property
    def _train(self) -> Rows:
        return self.dataset.rows(self.dataset.train)

    def _prepared(self) -> tuple[Extractor, Features, Images]:
        with self._lock:
            if self._extractor is None or self._real is None or self._clean is None:
                self._clean = to_images(self._train.pixels)
                self._extractor = self._make_extractor()
                self._real = self._extractor(self._clean)
            return self._extractor, self._real, self._clean

    def _make_extractor(self) -> Extractor:
        weights = find_fid_weights(self.config.measure.fid_weights)
        if weights is not None:
            return inception_extractor(weights, device=self.device)
        path, classes = extractor_path(self.config.data, self.dataset), len(self.dataset.class_names)
        return kept_extractor(path, self._train, classes=classes, seed=self.config.data.seed, device=self.device)

    def _real_utility(self, seed: int) -> list[Score]:
        """The curve without synthetic images: one for each training seed, whatever the arm."""
        with self._lock:
            if seed not in self._utility:
                self._utility[seed] = self._utility_of(None, seed)
            return self._utility[seed]

    def _synthetic_utility(self, images: Images, labels: Labels, seed: int) -> list[Score]:
        broken = int((~np.isfinite(images)).any(axis=(1, 2, 3)).sum())
        if broken:
            reason = f"{broken} of {len(images)} generated images are not finite: the model diverged"
            return [Score(f"utility-auc-{n}", float("nan"), 0, "higher", reason) for n in self.config.utility_sizes]
        return self._utility_of(Rows(to_pixels(images), labels), seed)

    def _utility_of(self, synthetic: Rows | None, seed: int) -> list[Score]:
        data = self.dataset
        return utility_curve(
            self._train,
            data.rows(data.test),
            synthetic,
            self.config.utility_sizes,
            classes=len(data.class_names),
            seed=seed,
            device=self.device,
        )


def extractor_path(data: Data, dataset: Dataset) -> Path:
    """Where the domain extractor of these images is kept, beside them."""
    return cache.root(data) / f"extractor-{VERSION}-{dataset.digest}-{data.seed}.safetensors"
