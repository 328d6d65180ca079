"""``report.html``: one file drawn from the run folder alone, the same bytes each time it is drawn."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fedsec.config import meanings
from fedsec.log import runlog
from fedsec.log.files import write_whole
from fedsec.log.record import RunRecord
from fedsec.reports import figures
from fedsec.reports.curves import client_sections, score_curves, utility_curves
from fedsec.reports.gallery import gallery
from fedsec.reports.guarantees import guarantees
from fedsec.reports.leakage import leak_sections, leak_verdict
from fedsec.reports.markup import details, figure, inert, page, paragraph, plots, section, table
from fedsec.reports.split_learning.page import shield, split_sections, split_verdict
from fedsec.reports.tables import events, score_table
from fedsec.reports.verdict import verdict
from fedsec.reports.words import Verdict
from fedsec.run.roles import overrides, role
from fedsec.types import Scalar

REPORT = "report.html"
MOST_BARS = 40
"""Clients up to which the split is drawn as bars; above it stands in numbers only."""


@dataclass(frozen=True)
class Kind:
    """What the page of one task has of its own. ``defence``: what is said to protect an arm."""

    title: str
    verdict: Callable[[RunRecord], Verdict]
    middle: Callable[[RunRecord, Path], str]
    defence: Callable[[RunRecord, str], str]
    curves: tuple[Callable[[RunRecord], str], ...] = (score_curves, utility_curves)


def _generators(record: RunRecord, folder: Path) -> str:
    return "".join((gallery(record, folder), *client_sections(record)))


def _reducer(record: RunRecord, arm: str) -> str:
    return role(record.header, arm).defence


KINDS = {
    "gan": Kind("federated image generators under attack", verdict, _generators, _reducer),
    "classifier": Kind("what single updates give away", leak_verdict, leak_sections, _reducer),
    "split-learning": Kind("split learning, plain and PGSL", split_verdict, split_sections, shield, ()),
}
"""By ``train.task``."""


def write_report(folder: Path, *, goes_on: str = "", again: int = 0) -> Path:
    """Draw ``report.html`` into the run folder and return its path.

    Reads ``events.jsonl`` and ``samples/`` and nothing else; the same folder gives the same bytes. RunError when the
    log cannot be read. No text in it can act: all is escaped, and the page forbids itself every outside resource.
    ``goes_on``: words on top of the page of a run that is not finished; ``again``: seconds until it opens anew.
    """
    folder = Path(folder)
    record = runlog.read(folder)
    name = str(record.header.config.get("run.name", "run"))
    kind = KINDS[str(record.header.config.get("train.task", "gan"))]
    body = "".join(
        (
            f'<p class="warn"><strong>{inert(goes_on)}</strong></p>' if goes_on else "",
            _opening(record, name, kind.verdict(record)),
            _what_was_run(record, kind),
            _split(record),
            kind.middle(record, folder),
            guarantees(record),
            score_table(record),
            *(draw(record) for draw in kind.curves),
            events(record),
            _provenance(record, name),
        )
    )
    path = folder / REPORT
    write_whole(path, page(f"{name}: {kind.title}", body, again=again))
    return path


def _opening(record: RunRecord, name: str, said: Verdict) -> str:
    header = record.header
    points = "".join(
        f"<dt>{inert(term)}</dt>" + "".join(f"<dd{_tone(term)}>{inert(text, 4000)}</dd>" for text in texts)
        for term, texts in said.points
    )
    data = header.data
    facts = (
        f"{data.source}: {data.train} training and {data.test} test images; {_count(header.clients, 'client')}, "
        f"{len(header.malicious)} malicious; {header.config.get('train.rounds', '?')} rounds; "
        f"{_count(len(header.arms), 'arm')}, {_count(len(header.seeds), 'seed')}. Started {_readable(header.time)}."
    )
    return (
        f"<header><h1>{inert(name)}</h1>{paragraph(inert(facts), 'soft')}</header>\n"
        f'<section class="verdict" aria-label="Verdict"><p class="head">{inert(said.headline, 1000)}</p>'
        f"<dl>{points}</dl></section>\n"
    )


def _count(n: int, what: str) -> str:
    return f"{n} {what}" if n == 1 else f"{n} {what}s"


def _readable(time: str) -> str:
    """An ISO time without its seconds; UTC is named."""
    return f"{time[:16].replace('T', ' ')} UTC" if time.endswith("+00:00") else time


def _tone(term: str) -> str:
    return ' class="warn"' if term in ("Read with care", "Not run") else ""


def _what_was_run(record: RunRecord, kind: Kind) -> str:
    config = record.header.config
    known = {key: (default, meaning) for key, default, _, meaning in meanings()}
    changed = [
        (_code(key), _code(value), _code(known[key][0]) if key in known else "–", inert(known.get(key, ("", ""))[1]))
        for key, value in config.items()
        if key != "run.arms" and (key not in known or known[key][0] != value)
    ]
    arms = []
    for arm in record.header.arms:
        its, own = role(record.header, arm), overrides(record.header, arm)
        settings = "<br>".join(_code(f"{key} = {value}") for key, value in own.items()) or "–"
        does = "<br>".join(inert(line) for line in its.threat) or "honest"
        arms.append((inert(arm), does, inert(kind.defence(record, arm)), settings))
    head = ("key", "value", "default", "meaning")
    return section(
        "What was run",
        table("Arms", ("arm", "malicious clients", "defence", "its own settings"), arms),
        table("Settings that differ from the defaults, for every arm", head, changed)
        if changed
        else paragraph("All settings are the defaults."),
        paragraph(
            "To run it again: <code>fedsec run config.toml</code>, with the file of that name in the run folder."
        ),
    )


def _code(value: Scalar) -> str:
    return f"<code>{inert(value) or 'empty'}</code>"


def _split(record: RunRecord) -> str:
    header = record.header
    sides = [
        _side(record, counts, names, kind)
        for counts, names, kind in (
            (header.label_counts, header.data.classes, "class"),
            (header.site_counts, header.data.sites, "site"),
        )
        if names and counts
    ]
    guilty = ", ".join(map(str, header.malicious))
    marked = f"A dashed vermilion outline marks the malicious client ({guilty})." if guilty else "No client attacks."
    left_out = f" {header.data.quarantined} unusable files were left out." if header.data.quarantined else ""
    bars = plots([bars for bars, _ in sides]) if header.clients <= MOST_BARS else ""
    numbers = details("The split in numbers", *(numbers for _, numbers in sides))
    return section("The split", paragraph(inert(marked + left_out), "soft"), bars, numbers)


def _side(record: RunRecord, counts: tuple[tuple[int, ...], ...], names: tuple[str, ...], kind: str) -> tuple[str, str]:
    """Bars and numbers of one way to count a client's images."""
    guilty = record.header.malicious
    title = f"Training images of each client, by {kind}"
    rows = [
        (f"client {i}" + (" (malicious)" if i in guilty else ""), *map(str, row), str(sum(row)))
        for i, row in enumerate(counts)
    ]
    numbers = table(title, ("client", *map(inert, names), "all"), rows, numeric=True)
    if len(counts) > MOST_BARS:
        return "", numbers
    key = figures.legend([(figures.class_look(i), inert(name)) for i, name in enumerate(names)], filled=True)
    return f"<div>{figure(figures.stacked_counts(counts, guilty, title=title), title)}{key}</div>", numbers


def _provenance(record: RunRecord, name: str) -> str:
    header, end = record.header, record.end
    versions = [(inert(package), inert(version)) for package, version in sorted(header.versions.items())]
    spent = [cell.seconds for cell in record.finished().values() if math.isfinite(cell.seconds)]
    facts = [
        ("seeds", inert(", ".join(map(str, header.seeds)))),
        ("data digest", _code(header.data.digest)),
        ("seed of data and split", inert(header.config.get("data.seed", "?"))),
        ("starts of this run folder", str(record.starts)),
        ("finished cells (arm x seed)", f"{len(record.finished())} of {len(header.cells)}"),
        ("time in finished cells", f"{sum(spent):.0f} s"),
        ("wall time of the last start", f"{end.wall_seconds:.0f} s" if end else "not recorded"),
    ]
    again = "To draw this page again from the run folder alone, on any machine and without a GPU: "
    return section(
        "Versions and seeds",
        table("Provenance", ("what", "value"), facts),
        table("Versions", ("package", "version"), versions),
        paragraph(f"{inert(again)}<code>fedsec report {inert(name)}</code> beside the folder {_code(name)}."),
    )
