"""Do generated images show the class they were asked for? A classifier of real images judges them."""

from __future__ import annotations

from typing import Any

import numpy as np

from fedsec.metrics.utility import auc
from fedsec.types import Features, Labels, Score


def gan_test(real: Features, real_labels: Labels, generated: Features, labels: Labels) -> Score:
    """``gan-test-auc``: AUC for ``labels``, on generated images, of a classifier fitted to the real ones.

    GAN-test of Shmelkov et al. 2018 (sec. 3.2). Departures: a logistic regression on the features the fidelity is
    measured on, ``real`` (n, d) and ``generated`` (m, d), instead of a network of its own; AUC (one against the rest,
    macro mean, above two classes) instead of accuracy. 0.5: labels mean nothing; below: they are swapped. NaN with a
    reason for features that are not finite or labels that lack a class.
    """
    reason = ""
    if not np.isfinite(generated).all():
        reason = "images hold a non-finite value: the model diverged"
    elif set(labels.tolist()) != set(real_labels.tolist()):
        reason = "the generated images lack a class"
    if reason:
        return Score("gan-test-auc", float("nan"), len(labels), "higher", reason)
    shares = label_judge(real, real_labels).predict_proba(generated)
    return Score("gan-test-auc", auc(labels, shares), len(labels), "higher")


def label_judge(real: Features, labels: Labels) -> Any:
    """A scikit-learn classifier of real features; ``predict_proba``: (n, d) -> (n, classes)."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=500)).fit(real, labels)
