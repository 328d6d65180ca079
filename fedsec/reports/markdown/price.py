"""What protections of a classifier's updates cost, and leave of the leak:
``fedsec table --as price RUN``.

RUN: a folder with the events.jsonl of ``fedsec run experiments/leakage.toml --profile price``. Each arm is held against
the one of its own normalisation that protects nothing, seed by seed; intervals of 95 % over seeds. ``--audits``: events
of audited runs of the same arms (profiles sweep, epsilon), whose leak the figure shows beside the cost, where there
was an attack.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fedsec.log.files import read_text
from fedsec.log.record import RunRecord
from fedsec.log.runlog import read
from fedsec.log.values import values_of
from fedsec.metrics.intervals import Interval, mean_interval, paired_difference
from fedsec.privacy.protection import parsed
from fedsec.reports.leaks import setting

SCORES = ("accuracy", "auc")
FEW = 3
"""Seeds from which an interval says something."""
Leaks = dict[tuple[str, int], float]
"""(arm, site): the RDLV (mean over the site's images) of ATTACK in the last audited round, where it was made."""
ATTACK = "row-space"
"""The strongest where nothing is done. What weaker ones leave where it was not made would look like protection."""


def bare_arms(record: RunRecord) -> dict[str, str]:
    """Normalisation: the arm that sends its updates whole and unprotected."""
    whole = {"classifier.protect": "", "classifier.sends": "statistics", "defence.name": "fed-avg"}
    return {
        str(setting(record, arm, "classifier.norm")): arm
        for arm in reversed(record.header.arms)
        if all(setting(record, arm, key) == value for key, value in whole.items())
    }


def cost(record: RunRecord, arm: str, score: str) -> Interval | None:
    """Points (hundredths) of a score that an arm has above its bare one; None for that one and where there is none."""
    base = bare_arms(record).get(str(setting(record, arm, "classifier.norm")))
    if base is None or base == arm:
        return None
    ours, theirs = (values_of(record, which, score) for which in (arm, base))
    return paired_difference([100 * value for value in ours], [100 * value for value in theirs])


def table(record: RunRecord) -> Iterator[str]:
    yield "| arm | seeds | epsilon | accuracy, each seed | points above the bare arm | AUC, each seed | points |"
    yield "|---|---|---|---|---|---|---|"
    finished = record.finished()
    for arm in record.header.arms:
        seeds = [seed for seed in record.header.seeds if (arm, seed) in finished]
        if not seeds:
            continue
        epsilon = mean_interval(values_of(record, arm, "epsilon-replies")).mean
        cells = [f"{epsilon:.3g}" if math.isfinite(epsilon) else "none"]
        for score in SCORES:
            difference = cost(record, arm, score)
            cells += [_each(values_of(record, arm, score), 3, len(seeds)), _told(difference) if difference else ""]
        yield f"| {arm} | {len(seeds)} | {' | '.join(cells)} |"


def _each(values: Sequence[float], digits: int, seeds: int = 0) -> str:
    """What every seed gave, and how many of ``seeds`` finished ones gave no number."""
    told = [f"{one:.{digits}f}" for one in values if math.isfinite(one)]
    broken = seeds - len(told)
    return ", ".join(told + [f"{broken} not finite"] * (broken > 0))


def _enough(value: Interval) -> bool:
    return len(value.values) - value.missing >= FEW


def _told(value: Interval) -> str:
    """Mean and interval; of fewer than three seeds their values."""
    if not _enough(value):
        return _each(value.values, 1)
    return f"{value.mean:.1f} ({value.low:.1f} to {value.high:.1f})"


def leaks_of(files: Sequence[Path]) -> Leaks:
    """Of ATTACK where it was made; events of audits alone are enough. One that read no map handed back the prior."""
    events = [json.loads(line) for path in files for line in read_text(path).splitlines()]
    rows = [event for event in events if event["event"] == "leak" and event["attack"] == ATTACK]
    last = {row["arm"]: max(other["round"] for other in rows if other["arm"] == row["arm"]) for row in rows}
    found: Leaks = {}
    for row in rows:
        value = row["values"].get("rdlv", math.nan)
        made = row["values"].get("maps", 1) > 0
        if row["round"] == last[row["arm"]] and math.isfinite(value) and made:
            key = row["arm"], row["partition"]
            found[key] = max(value, found.get(key, -math.inf))
    return found


def draw(record: RunRecord, leaks: Leaks, path: Path) -> None:
    """Left: Gaussian noise over sigma0; right: clipping and noise with group normalisation. Leftmost: the bare arm."""
    figure = Figure(figsize=(9, 3.2))
    panels = (("noise", "batch", "sigma0"), ("clip-noise", "group", "noise over the clipping bound"))
    for place, (name, norm, across) in enumerate(panels):
        axes = figure.add_subplot(1, 2, place + 1)
        levels = levels_of(record, name, norm)
        _costs(axes, record, levels)
        axes.set_xlabel(f"{across} (left: none)", size=8)
        axes.set_ylabel("AUC lost, points", size=8)
        _beside(axes, leaks, levels)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def levels_of(record: RunRecord, name: str, norm: str) -> dict[str, float]:
    """Arms of that normalisation that do nothing but ``name``, and the bare one (0), by strength."""
    found, bare = {}, bare_arms(record).values()
    for arm in record.header.arms:
        steps = parsed(str(setting(record, arm, "classifier.protect")))
        whole = setting(record, arm, "classifier.sends") == "statistics"
        alone = whole and (all(step.name == name for step in steps) if steps else arm in bare)
        if alone and setting(record, arm, "classifier.norm") == norm:
            found[arm] = steps[0].strength if steps else 0.0
    return dict(sorted(found.items(), key=lambda pair: pair[1]))


def _places(levels: dict[str, float]) -> dict[str, float]:
    """Where an arm stands: by the logarithm of its strength, the bare one a decade left of the others."""
    logs = {arm: math.log10(level) for arm, level in levels.items() if level}
    return {arm: logs.get(arm, min(logs.values(), default=0.0) - 1) for arm in levels}


def _costs(axes: Axes, record: RunRecord, levels: dict[str, float]) -> None:
    places = _places(levels)
    for arm in levels:
        found = cost(record, arm, "auc")
        if found is None:
            axes.plot(places[arm], 0, "o", color="C0")
            continue
        reach = found.high - found.mean if _enough(found) else None
        axes.errorbar(places[arm], -found.mean, yerr=reach, fmt="o", color="C0", capsize=3)
        axes.plot([places[arm]] * len(found.values), [-value for value in found.values], ".", color="C0", alpha=0.4)
    axes.axhline(0, color="lightgray", linewidth=0.8, zorder=0)
    axes.set_xticks(list(places.values()), [f"{level:g}" for level in levels.values()])
    axes.tick_params(labelsize=7)


def _beside(axes: Axes, leaks: Leaks, levels: dict[str, float]) -> None:
    """RDLV of the audited sites on an axis of its own."""
    sites = sorted({site for arm, site in leaks if arm in levels})
    if not sites:
        return
    places, right = _places(levels), axes.twinx()
    for number, site in enumerate(sites, 1):
        known = [arm for arm in levels if (arm, site) in leaks]
        values = [leaks[arm, site] for arm in known]
        right.plot(
            [places[arm] for arm in known],
            values,
            "s--",
            color=f"C{number}",
            markersize=4,
            linewidth=1,
            label=f"site {site}",
        )
    right.set_ylim(bottom=min(0.0, right.get_ylim()[0]))  # from 0 on: the prior, not the least of the squares
    right.set_ylabel(f"RDLV by {ATTACK}, where it was made", size=8)
    right.tick_params(labelsize=7)
    right.legend(fontsize=7, frameon=False, loc="upper center")


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="fedsec table --as price", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path)
    parser.add_argument("--audits", nargs="*", type=Path, default=[], metavar="EVENTS")
    parser.add_argument("--png", type=Path, help="where cost and leak are drawn")
    options = parser.parse_args(words)
    record = read(options.run)
    print("\n".join(table(record)))
    if options.png:
        draw(record, leaks_of(options.audits), options.png)
