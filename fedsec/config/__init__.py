"""What a run is told: sections of keys, their rules, the files they come from."""

from __future__ import annotations

from fedsec.config.checks import FIRST_STEPS
from fedsec.config.malice import Attack
from fedsec.config.run_config import RunConfig, key_of, meanings
from fedsec.config.sections import (
    Classifier,
    Cut,
    Data,
    Defence,
    Gan,
    Leakage,
    Measure,
    Pgsl,
    Privacy,
    Run,
    Speed,
    Split,
    Train,
)

__all__ = [
    "FIRST_STEPS",
    "Attack",
    "Classifier",
    "Cut",
    "Data",
    "Defence",
    "Gan",
    "Leakage",
    "Measure",
    "Pgsl",
    "Privacy",
    "Run",
    "RunConfig",
    "Speed",
    "Split",
    "Train",
    "key_of",
    "meanings",
]
