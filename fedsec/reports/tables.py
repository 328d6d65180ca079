"""The tables of the page: final scores with their intervals and footnotes, and what happened on the way."""

from __future__ import annotations

import math

from fedsec.log.record import LoggedScore, RunRecord
from fedsec.log.values import metrics_of, values_of
from fedsec.metrics.intervals import mean_interval
from fedsec.reports.markup import details, inert, paragraph, section, table
from fedsec.reports.words import digits, percent

MOST_ROWS = 200
"""Dropped replies that are listed one by one."""
_ARROWS = {"higher": "↑", "lower": "↓", "neither": ""}
_WORDS = {"higher": "higher is better", "lower": "lower is better"}


def score_table(record: RunRecord) -> str:
    """Metrics down, arms across. A score that could not be computed in some seed carries a footnote with its reason."""
    arms = [arm for arm in record.header.arms if metrics_of(record, arm)]
    if not arms:
        return section("Final scores", paragraph("No arm has finished: there is no final score."))
    metrics = list(dict.fromkeys(name for arm in arms for name in metrics_of(record, arm)))
    notes: dict[str, list[str]] = {}
    rows = [(_metric(record, name), *(_cell(record, arm, name, notes) for arm in arms)) for name in metrics]
    several = len(record.header.seeds) > 1
    caption = "Mean over seeds, below it the 95 % Student-t interval." if several else "One seed: no interval."
    caption += " ↑ higher is better, ↓ lower is better; n: images or client-rounds the score rests on."
    footnotes = "".join(
        f"<li>{inert(reason)} <small>({'; '.join(where)})</small></li>" for reason, where in notes.items()
    )
    return section(
        "Final scores",
        table(caption, ("score", *map(inert, arms)), rows, numeric=True, kind="wide" if len(arms) > 4 else ""),
        f'<ol class="soft">{footnotes}</ol>' if notes else "",
    )


def _found(record: RunRecord, arm: str, name: str) -> dict[int, LoggedScore]:
    """Seed -> final score, of the finished cells that have it."""
    cells = record.finished()
    return {seed: cell.final()[name] for (its, seed), cell in cells.items() if its == arm and name in cell.final()}


def _metric(record: RunRecord, name: str) -> str:
    """The name with its best direction and the sample it rests on (0 only where nothing could be computed)."""
    rows = [row for arm in record.header.arms for row in _found(record, arm, name).values()]
    counts = sorted({row.score.n for row in rows if row.score.n} or {0})
    better = rows[0].score.better
    arrow = f' <abbr title="{_WORDS[better]}">{_ARROWS[better]}</abbr>' if better in _WORDS else ""
    span = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]}–{counts[-1]}"
    return f"{inert(name)}{arrow} <small>n = {span}</small>"


def _cell(record: RunRecord, arm: str, name: str, notes: dict[str, list[str]]) -> str:
    """Mean and interval, a dash where the arm has no such score. ``notes`` collects reason -> where it applies, in the
    order of the footnotes."""
    share = name.endswith("-rate") or name == "attacker-weight"
    over = mean_interval(values_of(record, arm, name))
    reasons: dict[str, list[int]] = {}
    for seed, row in _found(record, arm, name).items():
        if not math.isfinite(row.score.value):
            reasons.setdefault(row.score.reason, []).append(seed)
    absent = "NaN" if name in metrics_of(record, arm) else "–"
    text = _number(over.mean, share) if math.isfinite(over.mean) else absent
    for reason, seeds in reasons.items():
        which = "" if len(seeds) == len(record.header.seeds) else f", seed {', '.join(map(str, seeds))}"
        notes.setdefault(reason, []).append(f"{inert(name)}: {inert(arm)}{which}")
        text += f"<sup>{list(notes).index(reason) + 1}</sup>"
    if math.isfinite(over.low):
        text += f"<small>{_number(over.low, share)} to {_number(over.high, share)}</small>"
    return text


def _number(value: float, share: bool) -> str:
    """Markup: percents for shares, three digits for the rest, a true minus sign."""
    return inert(percent(value) if share else digits(value)).replace("-", "−")


def events(record: RunRecord) -> str:
    """Dropped replies, each with its site and reason."""
    rows = [
        (inert(arm), str(seed), str(row.round), str(gone.partition), inert(gone.site), inert(gone.reason))
        for (arm, seed), cell in record.current().items()
        for row in cell.rounds
        for gone in row.dropped
    ]
    if not rows:
        return section("Dropped replies", paragraph("Every reply entered its round."))
    head = ("arm", "seed", "round", "client", "site", "reason")
    told = f"{len(rows)} replies did not enter their round; the round went on without them."
    cut = f"Only the first {MOST_ROWS} are listed; events.jsonl holds them all." if len(rows) > MOST_ROWS else ""
    few = len(rows) <= 12
    listed = table("In the order of the log", head, rows[:MOST_ROWS])
    return section(
        "Dropped replies",
        paragraph(told),
        listed if few else details("List of dropped replies", listed),
        paragraph(cut, "soft") if cut else "",
    )
