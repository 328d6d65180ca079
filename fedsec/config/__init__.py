"""What a run is told: sections of keys, their rules, the files they come from."""

from __future__ import annotations

from fedsec.config.run_config import (
    FIRST_STEPS,
    Attack,
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
    RunConfig,
    Speed,
    Split,
    Train,
    key_of,
    meanings,
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
