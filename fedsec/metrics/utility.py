"""Are generated images worth training on? A classifier with n real images a class, with and without synthetic ones.

After Jin & Li 2023, fig. 7 (classifier quality over the number of real images a class; their numbers and settings
could not be read). Departures: AUC instead of accuracy, since dermoscopy sets are unbalanced; our own classifier.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from sklearn.metrics import roc_auc_score

from fedsec.images import to_images
from fedsec.models.fitting import class_weights, fit_classifier, probabilities
from fedsec.seeds import address_seed, stream
from fedsec.types import Features, Labels, Rows, Score

STEPS = 100
"""Training steps of each classifier, the same with and without synthetic images."""
SHARE = 0.5
"""Part of every batch that is synthetic, where there are synthetic images."""


def utility_curve(
    train: Rows,
    test: Rows,
    synthetic: Rows | None,
    sizes: Sequence[int],
    *,
    classes: int,
    seed: int,
    steps: int = STEPS,
    repeats: int = 1,
    device: str = "cpu",
) -> list[Score]:
    """AUC on ``test`` for each n of ``sizes``: ``utility-auc-<n>`` with ``synthetic``, ``real-auc-<n>`` when None.

    The n real images a class are the first of one seeded shuffle of each class: sizes are nested, and the curves with
    and without synthetic images, and those of different arms, use the same real images and initial weights. With
    synthetic images, half of each batch is real and half synthetic, classes equally often in both halves, whatever
    their numbers: a thousand poor images cannot drown 25 real ones, nor a few good ones be lost. Steps and batch
    are the same on both curves. ``repeats`` fits that differ in shuffle and seed are averaged.
    A size that cannot be had is NaN with its reason. n of a score: test images.
    """
    prefix = "real-auc" if synthetic is None else "utility-auc"
    scores = []
    for n in sizes:
        name = f"{prefix}-{n}"
        reason = _obstacle(train, test, synthetic, n, classes)
        if reason:
            scores.append(Score(name, float("nan"), len(test), "higher", reason))
            continue
        values = [
            _fit_and_test(train, test, synthetic, n, classes, address_seed(seed, "utility", i), steps, device)
            for i in range(repeats)
        ]
        scores.append(Score(name, float(np.mean(values)), len(test), "higher"))
    return scores


def auc(labels: Labels, shares: Features) -> float:
    """Area under the ROC curve of (n, classes) probabilities; one against the rest, macro mean, above two classes."""
    if shares.shape[1] == 2:
        return float(roc_auc_score(labels, shares[:, 1]))
    every = np.arange(shares.shape[1])
    return float(roc_auc_score(labels, shares, multi_class="ovr", average="macro", labels=every))


def classified(labels: Labels, shares: Features, suffix: str = "") -> list[Score]:
    """AUC, accuracy and balanced accuracy (mean recall of the classes present) of (n, classes) probabilities.

    Without an image of each class there is no AUC, and that is its reason; without any, or of a network whose answers
    are not finite, nothing.
    """
    n, best = len(labels), shares.argmax(axis=1)
    present = np.unique(labels)
    every = len(present) == shares.shape[1]
    why = "" if n else "no held-out image"
    if not np.isfinite(shares).all():
        why = "the model gives values that are not finite: it diverged"
    if why:
        names = ("auc", "accuracy", "balanced-accuracy")
        return [Score(name + suffix, float("nan"), n, "higher", why) for name in names]
    area = auc(labels, shares) if every else float("nan")
    recalls = [float((best[labels == label] == label).mean()) for label in present]
    return [
        Score("auc" + suffix, area, n, "higher", "" if every else "the held-out images lack a class"),
        Score("accuracy" + suffix, float((best == labels).mean()), n, "higher"),
        Score("balanced-accuracy" + suffix, float(np.mean(recalls)), n, "higher"),
    ]


def _obstacle(train: Rows, test: Rows, synthetic: Rows | None, n: int, classes: int) -> str:
    available = np.bincount(train.labels, minlength=classes)
    if n < 1 or n > available.min():
        return f"{n} real images a class: class {available.argmin()} has {available.min()}"
    for name, rows in (("test", test), ("synthetic", synthetic)):
        if rows is not None and len(np.unique(rows.labels)) < classes:
            return f"the {name} images lack one of {classes} classes"
    return ""


def _fit_and_test(
    train: Rows, test: Rows, synthetic: Rows | None, n: int, classes: int, seed: int, steps: int, device: str
) -> float:
    rows = _first_of_each(train, n, classes, seed)
    weights = class_weights(rows.labels)
    if synthetic is not None:
        weights = np.concatenate([(1 - SHARE) * weights, SHARE * class_weights(synthetic.labels)])
        rows = Rows(np.concatenate([rows.pixels, synthetic.pixels]), np.concatenate([rows.labels, synthetic.labels]))
    net = fit_classifier(rows, classes=classes, steps=steps, seed=seed, weights=weights, device=device)
    return auc(test.labels, probabilities(net, to_images(test.pixels)))


def _first_of_each(train: Rows, n: int, classes: int, seed: int) -> Rows:
    """The first n rows of each class in a shuffle that depends on the seed and the class alone."""
    chosen = [
        stream(seed, "utility", label).permutation(np.flatnonzero(train.labels == label))[:n]
        for label in range(classes)
    ]
    return train.take(np.sort(np.concatenate(chosen)))
