"""The index of scores that compare real with generated features."""

from __future__ import annotations

from collections.abc import Callable

from fedsec.metrics.coverage import precision, recall
from fedsec.metrics.frechet import fid, frechet_domain
from fedsec.metrics.kid import kid
from fedsec.types import Features, Score

FeatureScore = Callable[[Features, Features], Score]
"""(real (m, d), generated (n, d)) -> Score."""

FIDELITY: dict[str, FeatureScore] = {
    "fid": fid,
    "frechet-domain": frechet_domain,
    "kid": kid,
    "precision": precision,
    "recall": recall,
}


def fidelity_scores(extractor: str, real: Features, fake: Features) -> list[Score]:
    """All feature scores of one sample; ``extractor`` is the name of what made the features: fid, frechet-domain."""
    return [FIDELITY[name](real, fake) for name in (extractor, "kid", "precision", "recall")]
