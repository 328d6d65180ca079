"""Leak to the strongest attackers beside AUC, over sigma0: ``python -m studies.leakage.curves RUN ROWS... --png FILE``.

RUN: a folder with the events.jsonl of ``fedsec run experiments/leakage.toml --profile price``. ROWS: files that
``studies.leakage.protected`` kept, a seed each. Three panels: the share of images that come first, SSIM and RDLV of
what is drawn, and AUC lost. A dot a seed, lines through their means; nothing is drawn where nothing was tried.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fedsec.log.record import RunRecord
from fedsec.log.runlog import read
from fedsec.metrics.measures import HEADINGS, SSIM
from fedsec.reports.markdown.price import cost, levels_of

KEY = re.compile(r"seed (\d+) (nothing|noise=([\d.]+)) (span|span-pooled|candidates|weights candidates) \d+")
"""Rows of noise alone; those of other protections are in tables."""
TOLD = {
    "candidates": "has the files, one round",
    "weights candidates": "the same, no statistics sent",
    "span-pooled": "draws, ten rounds",
    "span": "draws, one round",
}
LINEAR = 0.1
"""sigma0 below which the axis is linear, for 0 is on it."""
Means = dict[str, dict[float, dict[int, float]]]
"""Attack -> sigma0 -> seed -> mean over the sites."""


def means_of(files: Sequence[Path], score: str) -> Means:
    """Mean of a score over the sites, for every attack, sigma0 and seed; rows without it (not attempted) are left out,
    and are no zero."""
    found: dict[tuple[str, float, int], list[float]] = {}
    for attack, sigma0, seed, row in _rows(files):
        if score in row:
            found.setdefault((attack, sigma0, seed), []).append(row[score])
    means: Means = {}
    for (attack, sigma0, seed), values in sorted(found.items()):
        means.setdefault(attack, {}).setdefault(sigma0, {})[seed] = float(np.mean(values))
    return means


def _rows(files: Sequence[Path]) -> Iterator[tuple[str, float, int, Mapping[str, float]]]:
    for file in files:
        for key, row in json.loads(file.read_text(encoding="utf-8")).items():
            if hit := KEY.fullmatch(key):
                yield hit[4], float(hit[3] or 0), int(hit[1]), row


def _lines(axes: Axes, means: Mapping[float, Mapping[int, float]], colour: str, label: str, mark: str = "o") -> None:
    levels = sorted(means)
    axes.plot(levels, [np.mean(list(means[x].values())) for x in levels], mark + "-", color=colour, label=label, ms=4)
    for x in levels:
        axes.plot([x] * len(means[x]), list(means[x].values()), ".", color=colour, alpha=0.4, ms=4)


def draw(record: RunRecord, files: Sequence[Path], path: Path) -> None:
    figure = Figure(figsize=(12, 3.4))
    panels = [figure.add_subplot(1, 3, place) for place in (1, 2, 3)]
    first = {attack: by for attack, by in means_of(files, "first").items() if attack in TOLD}
    for place, attack in enumerate(TOLD):
        if attack in first:
            share = {x: {seed: 100 * value for seed, value in by.items()} for x, by in first[attack].items()}
            _lines(panels[0], share, f"C{place}", TOLD[attack])
    panels[0].set_ylabel("patients who come first, %", size=8)
    for place, attack in enumerate(("span-pooled", "span"), 2):
        for score, mark in ((SSIM, "o"), ("rdlv", "s")):
            if attack in (means := means_of(files, score)):
                name = HEADINGS.get(score, "RDLV").partition(" (")[0] if score == SSIM else "RDLV"
                _lines(panels[1], means[attack], f"C{place}", f"{name}, {TOLD[attack]}", mark)
    panels[1].set_ylabel("SSIM and RDLV of what is drawn", size=8)
    levels = levels_of(record, "noise", "batch")
    for arm, sigma0 in levels.items():
        found = cost(record, arm, "auc")
        if found is None:
            panels[2].plot(sigma0, 0, "o", color="C0")
        else:
            panels[2].errorbar(sigma0, -found.mean, yerr=found.high - found.mean, fmt="o", color="C0", capsize=3)
            panels[2].plot([sigma0] * len(found.values), [-v for v in found.values], ".", color="C0", alpha=0.4)
    panels[2].set_ylabel("AUC lost, points, with 95 % interval", size=8)
    for axes in panels:
        axes.set_xscale("symlog", linthresh=LINEAR)
        axes.set_xlabel("sigma0 (noise over the update's 95th percentile)", size=8)
        axes.axhline(0, color="lightgray", linewidth=0.8, zorder=0)
        axes.tick_params(labelsize=7)
    for axes in panels[:2]:
        axes.legend(fontsize=6, frameon=False)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("rows", type=Path, nargs="+")
    parser.add_argument("--png", type=Path, required=True)
    options = parser.parse_args()
    draw(read(options.run), options.rows, options.png)


if __name__ == "__main__":
    main()
