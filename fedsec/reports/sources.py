"""Where a leak comes from: one update attacked with one source exchanged, difference by difference."""

from __future__ import annotations

import math
from collections.abc import Sequence

from fedsec.log.record import LeakRow
from fedsec.metrics.intervals import Interval, by_seed
from fedsec.metrics.measures import HEADINGS, OLD_SSIM, SSIM
from fedsec.reports.leaks import PRIOR, Leak, grouped
from fedsec.reports.markup import inert, section, table
from fedsec.reports.words import digits

LEAKS: dict[str, tuple[str, str]] = {
    "statistics alone": ("bn-only", "prior-only"),
    "what the statistics tell beyond the global model's": ("bn-only", "global"),
    "beyond proxy data's": ("bn-only", "proxy"),
    "beyond random ones": ("bn-only", "random"),
    "update alone": ("update-only", "prior-only"),
    "statistics beside the update": ("both", "update-only"),
    "beside the update, beyond the global model's": ("both", "update+global"),
    "beside the update, beyond proxy data's": ("both", "update+proxy"),
    "beside the update, beyond random ones": ("both", "update+random"),
    "both together": ("both", "prior-only"),
    "maps read off the update, statistics not sent": ("maps-only", "prior-only"),
    "statistics beside the maps": ("maps+bn", "maps-only"),
}
"""What is attributed -> (with it, without it), rungs of ``fedsec.probes.ladder.RUNGS``."""
MEASURES = (SSIM, OLD_SSIM, "rdlv")


def ladder(found: Sequence[Leak]) -> str:
    """What each source gives away, of every arm in which both of its rungs were attacked; '' where none was."""
    held = {leak.ssim for leak in found}
    rows, measures = [], [name for name in MEASURES if name not in {SSIM, OLD_SSIM} - held]
    for arm in dict.fromkeys(leak.arm for leak in found):
        for name, (one, other) in LEAKS.items():
            each = [differences(found, arm, one, other, measure) for measure in measures]
            if any(each):
                over, n = [by_seed(_seeds(values)) for values in each], max(map(len, each))
                rows.append((inert(arm), inert(name), f"{one} − {other}", str(n), *map(_signed, over)))
    if not rows:
        return ""
    told = "Differences of two attacks on the same updates, mean over audits, below it the 95 % interval over seeds."
    head = ("arm", "what is attributed", "attacks", "audits", *(f"{HEADINGS[name]}, gained" for name in measures))
    return section("Where the leak comes from", table(told, head, rows, numeric=True))


def differences(found: Sequence[Leak], arm: str, one: str, other: str, measure: str) -> list[tuple[int, float]]:
    """(seed, difference) audit by audit, over all sites; those alone in which both attacks could be made."""
    gained = []
    for leak in found:
        if (leak.arm, leak.attack) != (arm, _logged(one)):
            continue
        same = [b for b in found if (b.arm, b.partition, b.attack) == (arm, leak.partition, _logged(other))]
        theirs = {(seed, row.round): row for row, seed in _audits(same[0])} if same else {}
        for row, seed in _audits(leak):
            if (seed, row.round) in theirs:
                value = row.values.get(measure, math.nan) - theirs[seed, row.round].values.get(measure, math.nan)
                gained += [(seed, value)] if math.isfinite(value) else []
    return gained


def _audits(leak: Leak) -> list[tuple[LeakRow, int]]:
    return list(zip(leak.rows, leak.seeds or (0,) * len(leak.rows), strict=True))


def _seeds(gained: Sequence[tuple[int, float]]) -> list[list[float]]:
    return grouped([value for _, value in gained], [seed for seed, _ in gained]) if gained else []


def _logged(rung: str) -> str:
    """The prior's own name in a run's log."""
    return PRIOR if rung == "prior-only" else rung


def _signed(over: Interval) -> str:
    if not math.isfinite(over.mean):
        return "–"
    text = f"{round(over.mean, 2) + 0.0:+.2f}".replace("-", "−")
    return text + (f"<small>{digits(over.low)} to {digits(over.high)}</small>" if math.isfinite(over.low) else "")
