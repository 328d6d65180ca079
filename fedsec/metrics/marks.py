"""How to look for an attack's trigger in generated images, whatever the trigger."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fedsec.attacks.triggers import Patch, Trigger
from fedsec.images import to_images, to_pixels
from fedsec.metrics.trigger import Match, at_its_place, threshold, trigger_rate, trigger_strength
from fedsec.models.classifier import Classifier
from fedsec.models.fitting import fit_classifier, probabilities
from fedsec.types import Dataset, Images, Rows, Score

STEPS = 300
"""Training steps of the network that tells stamped images from clean ones."""
BLIND = 0.5
"""A detector that finds fewer than this share of stamped real images says nothing about generated ones."""


@dataclass(frozen=True, eq=False)
class Mark:
    """``match`` and the ``clean`` real images its threshold rests on.

    ``power``: share of real images, clean before and then stamped, whose match exceeds the threshold: the most that an
    attack could reach. 1 % where nothing can be told.
    """

    match: Match
    clean: Images
    power: float

    def scores(self, generated: Images) -> list[Score]:
        """``trigger-rate`` and ``trigger-strength``; NaN with the reason when the detector is blind."""
        scores = [trigger_rate(generated, self.clean, self.match), trigger_strength(generated, self.clean, self.match)]
        if self.power >= BLIND:
            return scores
        reason = f"the detector finds only {self.power:.0%} of real images stamped with this trigger"
        return [Score(score.name, float("nan"), score.n, score.better, score.reason or reason) for score in scores]


def mark_of(trigger: Trigger, dataset: Dataset, *, seed: int, device: str = "cpu") -> Mark:
    """A patch at its place is matched by correlation with the training images as clean ones (``trigger_match``).

    Every other trigger, and a pattern over the whole image, by a Classifier taught on the training images to tell them
    from stamped copies: its match is the probability of *stamped*; threshold and power come from the test images.
    """
    train, test = dataset.rows(dataset.train), dataset.rows(dataset.test)
    if isinstance(trigger, Patch) and trigger.pattern.shape[2] < dataset.size:
        match, clean = at_its_place(trigger), to_images(train.pixels)
    else:
        match, clean = _learned(trigger, train, seed, device), to_images(test.pixels)
    return Mark(match, clean, float((match(trigger.stamp(clean)) > threshold(clean, match)).mean()))


def _learned(trigger: Trigger, train: Rows, seed: int, device: str) -> Match:
    copies = to_pixels(trigger.stamp(to_images(train.pixels)))
    both = Rows(np.concatenate([train.pixels, copies]), np.repeat(np.arange(2), len(train)))
    network: Classifier = fit_classifier(both, classes=2, steps=STEPS, seed=seed, device=device)
    return lambda images: probabilities(network, images)[:, 1]
