"""``results.json``: the final scores of every finished cell, over seeds, in the schema that other tools may rely on."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fedsec.log import runlog
from fedsec.log.files import write_whole
from fedsec.log.record import RunRecord
from fedsec.log.values import metrics_of, values_of
from fedsec.metrics.intervals import mean_interval
from fedsec.run.roles import role

RESULTS = "results.json"


def results(record: RunRecord) -> dict[str, Any]:
    """The value of ``results.json``. Deterministic: same log, same value, same key order."""
    header = record.header
    arms = {
        arm: {metric: _summary(values_of(record, arm, metric)) for metric in metrics_of(record, arm)}
        for arm in header.arms
    }
    return {
        "experiment": header.config.get("run.name", ""),
        "data": {
            "source": header.data.source,
            "train": header.data.train,
            "test": header.data.test,
            "classes": list(header.data.classes),
        },
        "clients": header.clients,
        "malicious": list(header.malicious),
        "rounds": header.config.get("train.rounds"),
        "seeds": list(header.seeds),
        "threats": {arm: list(lines) for arm in header.arms if (lines := role(header, arm).threat)},
        "arms": {arm: table for arm, table in arms.items() if table},
        "wall_seconds": _number(record.end.wall_seconds) if record.end else None,
        "versions": dict(sorted(header.versions.items())),
    }


def write_results(folder: Path) -> dict[str, Any]:
    """Write ``results.json`` from the run log, whole or not at all, and return its value."""
    value = results(runlog.read(folder))
    text = json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False) + "\n"
    write_whole(Path(folder) / RESULTS, text)
    return value


def _summary(values: Sequence[float]) -> dict[str, Any]:
    """``ci95`` is None below two finite values."""
    over = mean_interval(values)
    ends = [over.low, over.high] if math.isfinite(over.low) else None
    return {"mean": _number(over.mean), "ci95": ends, "values": [_number(value) for value in values]}


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None
