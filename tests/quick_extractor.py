"""A domain extractor of a few steps, kept where a run looks for its own: tests of whole runs need no better one."""

from __future__ import annotations

from functools import lru_cache

from fedsec.config import Data
from fedsec.datasets import load
from fedsec.metrics.features import kept_extractor
from fedsec.metrics.panel import extractor_path

STEPS = 3


@lru_cache
def keep_quick_extractor(data: Data) -> None:
    dataset = load(data)
    train = dataset.rows(dataset.train)
    kept_extractor(extractor_path(data, dataset), train, classes=len(dataset.class_names), seed=data.seed, steps=STEPS)
