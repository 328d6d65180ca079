"""Final scores of a run, by arm and metric."""

from __future__ import annotations

import math

from fedsec.log.record import RunRecord


def values_of(record: RunRecord, arm: str, metric: str) -> list[float]:
    """One final score a seed, in the header's order; NaN where the cell is unfinished or the score is missing."""
    cells = record.finished()
    found = [cells[arm, seed].final().get(metric) if (arm, seed) in cells else None for seed in record.header.seeds]
    return [row.score.value if row is not None else math.nan for row in found]


def metrics_of(record: RunRecord, arm: str) -> list[str]:
    """Names of the arm's final scores, in the order in which they were first written."""
    names = [name for (its_arm, _), cell in record.finished().items() if its_arm == arm for name in cell.final()]
    return list(dict.fromkeys(names))
