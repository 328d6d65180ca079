"""What protections of a classifier's updates cost, and leave of the leak: ``python -m experiments.price RUN``.

RUN: a folder with the events.jsonl of ``fedsec run experiments/leakage.toml --profile price``. Each arm is held against
the one of its own normalisation that protects nothing, seed by seed; intervals of 95 % over seeds. ``--audits``: events
of audited runs of the same arms (profiles sweep, epsilon), whose leak the figure shows beside the cost.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fedsec.metrics.intervals import Interval, mean_interval, paired_difference
from fedsec.privacy.protection import parsed
from fedsec.reports.leaks import PRIOR, setting
from fedsec.reports.record import RunRecord
from fedsec.reports.results import values_of
from fedsec.reports.runlog import read

SCORES = ("accuracy", "auc")
FEW = 3
"""Seeds from which an interval says something."""
Leaks = dict[tuple[str, int], float]
"""(arm, site): the highest RDLV (mean over the site's images) of any attack that was made in the last audited round;
NaN where the site's strongest attack was not made: what it would have read is not known."""
OUTSIDE, APART = 1.05, 0.06
"""Where the hollow squares of the first site stand, above the frame and so at no value of its axes, and how far above
them each next site's: parts of the axes' height."""


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
    """Events of audits alone are enough; the prior is no attack, and one that was not made has no score.

    A site's strongest attack is the one with the highest RDLV of all arms.
    """
    events = [json.loads(line) for path in files for line in path.read_text(encoding="utf-8").splitlines()]
    rows = [event for event in events if event["event"] == "leak" and event["attack"] != PRIOR]
    last = {row["arm"]: max(other["round"] for other in rows if other["arm"] == row["arm"]) for row in rows}
    scored: dict[tuple[str, int], dict[str, float]] = {}
    for row in rows:
        if row["round"] == last[row["arm"]]:
            own = scored.setdefault((row["arm"], row["partition"]), {})
            if made(row):
                own[row["attack"]] = max(row["values"]["rdlv"], own.get(row["attack"], -math.inf))
    best: dict[int, dict[str, float]] = {}
    for (_, site), own in scored.items():
        for attack, value in own.items():
            of_site = best.setdefault(site, {})
            of_site[attack] = max(value, of_site.get(attack, -math.inf))
    strongest = {site: max(of_site, key=lambda attack: of_site[attack]) for site, of_site in best.items()}
    return {
        (arm, site): max(own.values()) if strongest.get(site) in own else math.nan
        for (arm, site), own in scored.items()
    }


def made(row: Mapping[str, Any]) -> bool:
    """Whether an attack of an audit has a score of its own: where an older file says that it read no maps, its values
    are the prior's."""
    values = row["values"]
    return math.isfinite(values.get("rdlv", math.nan)) and values.get("maps", math.inf) > 0


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
    """RDLV of the audited sites on an axis of its own; hollow and above the frame: what was not attempted."""
    sites = sorted({site for arm, site in leaks if arm in levels})
    if not sites:
        return
    places, right = _places(levels), axes.twinx()
    for number, site in enumerate(sites, 1):
        audited = {places[arm]: leaks[arm, site] for arm in levels if (arm, site) in leaks}
        known = {place: value for place, value in audited.items() if math.isfinite(value)}
        style: dict[str, Any] = {"color": f"C{number}", "markersize": 5, "linewidth": 1}
        right.plot(list(known), list(known.values()), "s--", label=f"site {site}", **style)
        unknown = [place for place in audited if place not in known]
        height, across = OUTSIDE + APART * (number - 1), right.get_xaxis_transform()
        label = f"site {site}: not attempted" if unknown else None
        right.plot(
            unknown, [height] * len(unknown), "s", mfc="none", transform=across, clip_on=False, label=label, **style
        )
    right.set_ylim(bottom=min(0.0, right.get_ylim()[0]))
    right.set_ylabel("RDLV in the last audited round", size=8)
    right.tick_params(labelsize=7)
    right.legend(fontsize=7, frameon=False, loc="upper center")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--audits", nargs="*", type=Path, default=[], metavar="EVENTS")
    parser.add_argument("--png", type=Path, help="where cost and leak are drawn")
    options = parser.parse_args()
    record = read(options.run)
    print("\n".join(table(record)))
    if options.png:
        draw(record, leaks_of(options.audits), options.png)


if __name__ == "__main__":
    main()
