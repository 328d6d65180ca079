"""How to look for an attack's trigger in generated images, whatever the trigger."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fedsec.attacks.distortions import Frequency
from fedsec.attacks.triggers import Patch, Trigger
from fedsec.images import to_images, to_pixels
from fedsec.metrics.trigger import Match, at_its_place, threshold, trigger_rate, trigger_strength
from fedsec.models.classifier import Classifier
from fedsec.models.fitting import fit_classifier, probabilities
from fedsec.types import Dataset, Features, Images, Rows, Score

STEPS = 300
"""Training steps of the network that tells stamped images from clean ones."""
AROUND = 3
"""Frequencies beyond the mixed window that a spectral match looks at as well."""
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

    Every other trigger, and a pattern over the whole image, by a classifier taught on the training images to tell them
    from stamped copies: its match is the probability of *stamped*; threshold and power come from the test images. For
    mixed amplitudes that is a logistic regression on log amplitudes around the window (power 0.985 on dermoscopy at the
    source's strength, where a convolutional Classifier has 0.10), else a Classifier (blended: 0.99). Warps of natural
    skin stay unseen (0.04 at the source's strength, 0.13 at eight times that).
    """
    train, test = dataset.rows(dataset.train), dataset.rows(dataset.test)
    if isinstance(trigger, Patch) and trigger.pattern.shape[2] < dataset.size:
        match, clean = at_its_place(trigger), to_images(train.pixels)
    else:
        teach = _spectral if isinstance(trigger, Frequency) else _convolutional
        match, clean = teach(trigger, train, seed, device), to_images(test.pixels)
    stamped = to_images(to_pixels(trigger.stamp(clean)))
    return Mark(match, clean, float((match(stamped) > threshold(clean, match)).mean()))


def _convolutional(trigger: Trigger, train: Rows, seed: int, device: str) -> Match:
    copies = to_pixels(trigger.stamp(to_images(train.pixels)))
    both = Rows(np.concatenate([train.pixels, copies]), np.repeat(np.arange(2), len(train)))
    network: Classifier = fit_classifier(both, classes=2, steps=STEPS, seed=seed, device=device)
    return lambda images: probabilities(network, images)[:, 1]


def _spectral(trigger: Trigger, train: Rows, seed: int, device: str) -> Match:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    assert isinstance(trigger, Frequency)
    half = trigger.half + AROUND

    def amplitudes(images: Images) -> Features:
        spectrum = np.fft.fftshift(np.fft.fft2((images.astype(np.float64) + 1) * 127.5), axes=(2, 3))
        middle = images.shape[2] // 2
        window = np.s_[:, :, middle - half : middle + half + 1, middle - half : middle + half + 1]
        return np.asarray(np.log1p(np.abs(spectrum[window])).reshape(len(images), -1))

    clean = to_images(train.pixels)
    both = np.concatenate([amplitudes(clean), amplitudes(to_images(to_pixels(trigger.stamp(clean))))])
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=300))
    model.fit(both, np.repeat(np.arange(2), len(clean)))
    return lambda images: np.asarray(model.predict_proba(amplitudes(images))[:, 1], np.float64)
