"""The report of a run that goes on can be drawn after any line of its log, and is not drawn too often."""

from __future__ import annotations

from pathlib import Path

import pytest

from fedsec.log.runlog import EVENTS
from fedsec.reports import live
from fedsec.reports.live import LiveReport
from fedsec.reports.page import REPORT, write_report
from tests.reports.fake_run import Plan, build

PLAN = Plan(rounds=3, pictures=True)


def test_it_is_drawn_after_any_line_and_says_how_far_the_run_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "LEAST", 0.0)
    monkeypatch.setattr(live, "SHARE", 1e9)
    whole = (build(tmp_path / "run", PLAN) / EVENTS).read_text().splitlines(keepends=True)
    folder, cells = tmp_path / "run", [(arm, seed) for arm in PLAN.arms for seed in PLAN.seeds]
    (folder / EVENTS).write_text("")
    report, drawn = LiveReport(folder, cells=cells, rounds=3), []
    for number, line in enumerate(whole):
        with (folder / EVENTS).open("a") as log:
            log.write(line)
        if number in range(0, 60, 4) or number % 29 == 0:
            drawn.append(report.look())
    assert not drawn[0], "the run event alone is nothing to draw"
    assert sum(drawn) > 10
    report.look()
    assert not report.look(), "nothing has grown"
    text = (folder / REPORT).read_text()
    assert 'http-equiv="refresh"' in text
    assert f"of {3 * len(cells)} rounds" in text
    last = write_report(folder).read_text()
    assert 'http-equiv="refresh"' not in last
    assert "This run goes on" not in last


def test_it_is_drawn_at_most_so_often(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    report = LiveReport(folder, cells=[("vanilla", 0)], rounds=3)
    build(folder, PLAN)
    assert report.look()
    with (folder / EVENTS).open("a") as log:
        log.write((folder / EVENTS).read_text().splitlines()[3] + "\n")
    assert not report.look()
