"""Print the results of runs as Markdown: ``fedsec table --as scores RUN [RUN ...] [--metrics a,b]``.

The tables under docs/results/ are made by this script from the ``results.json`` beside them.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

DEFAULT = (
    "fid,frechet-domain,kid,precision,recall,spread,trigger-rate,trigger-strength,utility-auc-25,true-flag-rate,false-flag-rate,"
    "attacker-weight,rounds-to-1-percent"
)


def cell(score: dict[str, Any] | None) -> str:
    """Mean and half-width of the 95 % interval; the values alone show where there is one seed."""
    if score is None or score["mean"] is None:
        return "–"
    interval = score["ci95"]
    spread = f" ± {(interval[1] - interval[0]) / 2:.2g}" if interval else ""
    return f"{score['mean']:.3g}{spread}"


def table(results: dict[str, Any], metrics: list[str]) -> str:
    """One row an arm, one column a metric that any arm has."""
    arms = results["arms"]
    shown = [name for name in metrics if any(name in scores for scores in arms.values())]
    lines = [f"| arm | {' | '.join(shown)} |", f"|---|{'---|' * len(shown)}"]
    lines += [f"| {arm} | {' | '.join(cell(scores.get(name)) for name in shown)} |" for arm, scores in arms.items()]
    return "\n".join(lines)


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="fedsec table --as scores", description=__doc__)
    parser.add_argument("runs", nargs="+", type=Path, help="run folders or results.json files")
    parser.add_argument("--metrics", default=DEFAULT)
    options = parser.parse_args(words)
    for run in options.runs:
        results = json.loads((run / "results.json" if run.is_dir() else run).read_text(encoding="utf-8"))
        print(f"## {results['experiment']}: {results['rounds']} rounds, seeds {results['seeds']}\n")
        print(table(results, options.metrics.split(",")), "\n")
