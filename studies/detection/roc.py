"""Tables and ROC curves of what ``studies.detection.calibration --json`` kept:
``python -m studies.detection.roc FILE [FILE ...]``.

FILE: NAME-SPLIT.json, one a kind of federation. docs/results/calibration.md shows what this prints and draws.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from studies.detection.scenarios import FALSE

Row = dict[str, Any]
RULES = ("fed-inspect", "calibrated", "released")
TARGETS = ((4, 1), (10, 3), (30, 9), (100, 30))
"""Clients and attackers of which 95 % are to be flagged; 1 % of nobody's."""
MOST_FALSE, LEAST_TRUE = 0.01, 0.95
GONE = 1e-3
"""Part of a fair share below which nothing is left."""


def named(kind: str) -> str:
    """A file's kind of federation in words: iid, or the concentration of a Dirichlet split."""
    return kind if kind == "iid" else f"Dirichlet {kind}"


def table(rows: Sequence[Row]) -> Iterator[str]:
    """One line a case; where attackers tell the truth or lie, two values. Bold: the target is met."""
    rules = [rule for rule in RULES if any(row["rule"] == rule for row in rows)]
    yield (
        "| attackers of clients | " + " | ".join(f"`{rule}`: false | true | AUC | share left" for rule in rules) + " |"
    )
    yield "|---|" + "---|" * 4 * len(rules)
    for clients, attackers in sorted({(row["clients"], row["attackers"]) for row in rows}):
        cells = [f"{attackers} of {clients}"]
        for rule in rules:
            case = (rule, clients, attackers)
            found = [row for row in rows if (row["rule"], row["clients"], row["attackers"]) == case]
            cells += _cells(
                sorted(found, key=lambda row: bool(row["lying"])), attackers, (clients, attackers) in TARGETS
            )
        yield f"| {' | '.join(cells)} |"


def _cells(rows: Sequence[Row], attackers: int, target: bool) -> list[str]:
    false = _pair([f"{100 * row['false flags']:.1f}" for row in rows], " %")
    if not attackers:
        return [_bold(false, bool(rows) and rows[0]["false flags"] <= MOST_FALSE), "", "", ""]
    true = _pair([f"{100 * row['flags']:.1f}" for row in rows], " %")
    met = target and bool(rows) and min(row["flags"] for row in rows) >= LEAST_TRUE
    return [
        false,
        _bold(true, met),
        _pair([f"{row['auc']:.2f}" for row in rows]),
        _pair([_share(row) for row in rows]),
    ]


def _share(row: Row) -> str:
    """Under the rule itself; in brackets under the paper's printed form of the released one."""
    told = [f"{row[key]:.2g}" if row[key] >= GONE else "0" for key in ("share", "printed") if key in row]
    return told[0] + (f" ({told[1]})" if len(told) > 1 else "")


def _pair(texts: Sequence[str], unit: str = "") -> str:
    """Both values, once where they are the same."""
    return ", ".join(dict.fromkeys(texts)) + unit if texts else "–"


def _bold(text: str, met: bool) -> str:
    return f"**{text}**" if met else text


def draw(kinds: dict[str, Sequence[Row]], path: Path) -> None:
    """A row a kind of federation, a column a target; solid: attackers tell the truth, dashed: they lie; dots: where the
    rule's own threshold stands."""
    figure = Figure(figsize=(2.6 * len(TARGETS), 2.1 * len(kinds) + 0.5))
    for place, (kind, rows) in enumerate(kinds.items()):
        for column, (clients, attackers) in enumerate(TARGETS):
            axes = figure.add_subplot(len(kinds), len(TARGETS), place * len(TARGETS) + column + 1)
            _curves(axes, [row for row in rows if (row["clients"], row["attackers"]) == (clients, attackers)])
            axes.set_title(f"{named(kind)}, {attackers} of {clients}", size=8, loc="left")
            if column:
                axes.set_yticklabels([])
            if place < len(kinds) - 1:
                axes.set_xticklabels([])
    handles = [mpl.lines.Line2D([], [], color=f"C{number}", label=rule) for number, rule in enumerate(RULES)]
    handles.append(mpl.lines.Line2D([], [], color="gray", label="attackers report their loss"))
    handles.append(mpl.lines.Line2D([], [], color="gray", linestyle="--", label="attackers report the honest median"))
    figure.legend(handles=handles, loc="lower center", ncols=len(handles), fontsize=8, frameon=False)
    figure.supxlabel("honest client-rounds flagged (logarithmic)", size=8, y=0.5 / figure.get_figheight())
    figure.supylabel("attackers' rounds flagged", size=8)
    figure.tight_layout(rect=(0.01, 0.45 / figure.get_figheight(), 1, 1))
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def _curves(axes: Axes, rows: Sequence[Row]) -> None:
    for row in rows:
        color = f"C{RULES.index(row['rule'])}"
        axes.plot(FALSE, row["roc"], color=color, linestyle="--" if row["lying"] else "-", linewidth=1.2)
        axes.plot(max(row["false flags"], FALSE[0]), row["flags"], "o", color=color, markersize=4, clip_on=False)
    frame(axes)


def frame(axes: Axes) -> None:
    """Shares of 0.1 to 100 % of the honest against all of the attackers', and the targets."""
    axes.set(xscale="log", xlim=(FALSE[0], 1), ylim=(-0.02, 1.02))
    axes.set_xticks([0.001, 0.01, 0.1, 1], ["0.1 %", "1 %", "10 %", "100 %"])
    axes.tick_params(labelsize=7)
    axes.axvline(MOST_FALSE, color="lightgray", linewidth=0.8, zorder=0)
    axes.axhline(LEAST_TRUE, color="lightgray", linewidth=0.8, zorder=0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--png", type=Path, help="where the curves are drawn")
    options = parser.parse_args()
    kinds = {path.stem.split("-", 1)[1]: json.loads(path.read_text(encoding="utf-8")) for path in options.files}
    for kind, rows in kinds.items():
        print(f"### {named(kind)}\n")
        print("\n".join(table(rows)), end="\n\n")
    if options.png:
        draw(kinds, options.png)


if __name__ == "__main__":
    main()
