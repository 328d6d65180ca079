"""Results on a terminal."""

from __future__ import annotations

from typing import Any

from rich.table import Table
from rich.text import Text


def scores_table(results: dict[str, Any]) -> Table:
    """The scores that say most of each arm, with half the width of their intervals."""
    arms = results["arms"]
    chosen = (
        "auc",
        "balanced-accuracy",
        "accuracy-plain-off",
        "accuracy-late-on",
        "accuracy-late-off",
        "fid",
        "frechet-domain",
        "kid",
        "recall",
        "trigger-rate",
        "false-flag-rate",
        "attacker-weight",
    )
    names = [name for name in chosen if any(name in scores for scores in arms.values())]
    table = Table("arm", *names, title=Text(results["experiment"]))
    for arm, scores in arms.items():
        table.add_row(Text(arm), *[_cell(scores.get(name)) for name in names])
    return table


def _cell(score: dict[str, Any] | None) -> str:
    if score is None or score["mean"] is None:
        return "-"
    low_high = score["ci95"]
    spread = f" ± {(low_high[1] - low_high[0]) / 2:.2g}" if low_high and None not in low_high else ""
    return f"{score['mean']:.4g}{spread}"
