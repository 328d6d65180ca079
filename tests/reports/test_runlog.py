"""The log: what is appended comes back, a crash costs one line, and nothing unreadable passes unseen."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from fedsec.errors import RunError
from fedsec.log import cells as kept
from fedsec.log import runlog
from fedsec.log.record import Dropped
from fedsec.log.runlog import EVENTS, RunLog
from fedsec.privacy.ledger import Line, Try
from fedsec.types import Score
from tests.reports.fake_run import Plan, build, cell, start

SMALL = Plan(rounds=4, pictures=False)


def one_round(log: RunLog, number: int, *, arm: str = "vanilla", loss: float = 1.0) -> None:
    log.round(
        arm, 0, number, heard=[0], weights={0: 1.0}, seconds=0.1,
        metrics={"g-loss": {0: loss}, "g-loss-last": {0: loss}},
        dropped=[Dropped(2, "vienna", "shape (1,)")], flags=[0], suspicion={0: 0.5}, evidence={0: math.nan},
    )  # fmt: skip


def opened(folder: Path) -> RunLog:
    log = RunLog(folder)
    start(log, SMALL)
    log.cell_start("vanilla", 0, "d1")
    return log


def test_what_is_written_comes_back(tmp_path: Path) -> None:
    log = opened(tmp_path)
    one_round(log, 1)
    log.samples("vanilla", 0, 1, "samples/vanilla-0-0001.png")
    log.score("vanilla", 0, 1, Score("kid", 0.5, 100, "lower"), final=True)
    log.cell_end("vanilla", 0, "d1", 3.5)
    log.run_end("failed", "a worker died", wall_seconds=9.0)
    record = runlog.read(tmp_path)
    its = record.cells["vanilla", 0]
    assert its.finished
    assert (its.digest, its.seconds, its.samples) == ("d1", 3.5, ((1, "samples/vanilla-0-0001.png"),))
    assert its.rounds[0].dropped == (Dropped(2, "vienna", "shape (1,)"),)
    assert (its.rounds[0].losses, its.rounds[0].flags, its.rounds[0].suspicion) == ({0: 1.0}, (0,), {0: 0.5})
    assert math.isnan(its.rounds[0].evidence[0]), "what the defence read is kept as it was"
    assert its.final()["kid"].score == Score("kid", 0.5, 100, "lower")
    assert record.end is not None
    assert (record.end.status, record.end.reason, record.end.wall_seconds) == ("failed", "a worker died", 9.0)
    assert record.header.data.source == "isic", "only the base name of the source is kept"
    assert record.header.clients == 4
    assert record.header.malicious == (0,)


def test_a_round_of_a_log_from_before_metrics_had_names_reads_the_same(tmp_path: Path) -> None:
    log = opened(tmp_path)
    former = {"event": "round", "arm": "vanilla", "seed": 0, "round": 1, "flags": [], "suspicion": {}, "dropped": []}
    nothing = {"0": {"value": None, "reason": "nan"}, "1": {"value": None, "reason": "nan"}}
    log.append(
        [
            {
                **former,
                "losses": {"1": 2.0, "0": 1.0},
                "last": nothing,
                "d_losses": nothing,
                "weights": {},
                "seconds": 1.0,
            }
        ]
    )
    (row,) = runlog.read(tmp_path).cells["vanilla", 0].rounds
    assert row.heard == (0, 1)
    assert row.losses == {0: 1.0, 1: 2.0}
    assert row.metrics == {"g-loss": {0: 1.0, 1: 2.0}}, "what was not reported is not there"
    assert row.last == row.first == row.d_losses == {}


def test_what_a_client_did_not_report_is_absent_and_a_nan_is_a_nan(tmp_path: Path) -> None:
    log = opened(tmp_path)
    log.round("vanilla", 0, 1, heard=[0, 1], metrics={"loss": {0: math.nan}}, weights={}, seconds=0.1)
    text = (tmp_path / "events.jsonl").read_text()
    assert '"metrics": {"loss": {"0": {"value": null, "reason": "nan"}}}' in text
    (row,) = runlog.read(tmp_path).cells["vanilla", 0].rounds
    assert [math.isnan(row.losses[p]) for p in (0, 1)] == [True, True]
    assert list(row.metrics["loss"]) == [0]


@pytest.mark.parametrize("loss", [math.nan, math.inf, -math.inf, 1e300])
def test_numbers_that_json_lacks_survive_in_strict_json(tmp_path: Path, loss: float) -> None:
    one_round(opened(tmp_path), 1, loss=loss)

    def refuse(name: str) -> float:
        raise AssertionError(name)

    for line in (tmp_path / EVENTS).read_text().splitlines():
        json.loads(line, parse_constant=refuse)
    found = runlog.read(tmp_path).cells["vanilla", 0].rounds[0].losses[0]
    assert found == loss or (math.isnan(found) and math.isnan(loss))


def test_a_score_that_is_nan_keeps_its_reason(tmp_path: Path) -> None:
    opened(tmp_path).score("vanilla", 0, 1, Score("kid", math.nan, 3, "lower", "3 images"), final=True)
    score = runlog.read(tmp_path).cells["vanilla", 0].final()["kid"].score
    assert math.isnan(score.value)
    assert score.reason == "3 images"
    assert '"value": null' in (tmp_path / EVENTS).read_text()


def test_a_later_start_supersedes_and_a_new_run_event_wins(tmp_path: Path) -> None:
    log = opened(tmp_path)
    one_round(log, 1)
    start(log, Plan(arms=("attack",), rounds=9))
    log.cell_start("vanilla", 0, "d2")
    record = runlog.read(tmp_path)
    assert record.cells["vanilla", 0].rounds == ()
    assert record.header.arms == ("attack",)
    assert record.starts == 2
    assert record.current() == {}, "vanilla is no arm of the current run"


def test_finished_means_the_digest_of_the_last_start_came_back(tmp_path: Path) -> None:
    assert runlog.finished_cells(tmp_path) == {}
    log = opened(tmp_path)
    assert runlog.finished_cells(tmp_path) == {}
    log.cell_end("vanilla", 0, "another", 1.0)
    assert runlog.finished_cells(tmp_path) == {}
    log.cell_end("vanilla", 0, "d1", 1.0)
    assert runlog.finished_cells(tmp_path) == {("vanilla", 0): "d1"}
    log.cell_start("vanilla", 0, "d2")
    assert runlog.finished_cells(tmp_path) == {}


def test_a_cell_made_with_other_settings_is_not_current(tmp_path: Path) -> None:
    log = RunLog(tmp_path)
    start(log, SMALL)
    cell(log, tmp_path, SMALL, "vanilla", 0, digest="old")
    start(log, SMALL, digests={("vanilla", 0): "new", ("attack", 0): "new"})
    assert runlog.read(tmp_path).current() == {}
    assert runlog.finished_cells(tmp_path) == {("vanilla", 0): "old"}
    cell(log, tmp_path, SMALL, "vanilla", 0, digest="new")
    assert list(runlog.read(tmp_path).finished()) == [("vanilla", 0)]


def test_a_round_done_again_replaces_what_came_after_it(tmp_path: Path) -> None:
    log = opened(tmp_path)
    for number, loss in ((1, 1.0), (2, 2.0), (3, 3.0), (2, 9.0)):
        one_round(log, number, loss=loss)
    rounds = runlog.read(tmp_path).cells["vanilla", 0].rounds
    assert [(row.round, row.losses[0]) for row in rounds] == [(1, 1.0), (2, 9.0)]


@pytest.mark.parametrize("cut", [1, 7, 60])
def test_a_torn_last_line_is_left_out_and_told(tmp_path: Path, cut: int) -> None:
    path = build(tmp_path, SMALL) / EVENTS
    whole = path.read_bytes()
    path.write_bytes(whole[: -1 - cut])
    record = runlog.read(tmp_path)
    assert record.torn == (whole.count(b"\n"),)
    assert record.end is None
    RunLog(tmp_path).run_end("finished", wall_seconds=1.0)
    again = runlog.read(tmp_path)
    assert again.torn == record.torn
    assert again.end is not None
    assert len(again.finished()) == 6


def test_a_last_line_that_only_lacks_its_newline_counts(tmp_path: Path) -> None:
    path = build(tmp_path, SMALL) / EVENTS
    path.write_bytes(path.read_bytes()[:-1])
    assert runlog.read(tmp_path).torn == ()
    RunLog(tmp_path).run_end("failed", "again", wall_seconds=1.0)
    record = runlog.read(tmp_path)
    assert record.torn == ()
    assert record.end is not None
    assert record.end.status == "failed"


@pytest.mark.parametrize(
    "garbage", [b"{not json}", b"\xff\xfe", b"[1, 2]", b'{"event": "party"}', b'{"no": "event"}', b'{"event": "round"}']
)
def test_an_unreadable_line_in_the_middle_is_named(tmp_path: Path, garbage: bytes) -> None:
    path = build(tmp_path, SMALL) / EVENTS
    lines = path.read_bytes().splitlines()
    path.write_bytes(b"\n".join([*lines[:4], garbage, *lines[4:]]) + b"\n")
    with pytest.raises(RunError, match="line 5 "):
        runlog.read(tmp_path)


def test_an_unreadable_last_line_that_ends_is_an_error_too(tmp_path: Path) -> None:
    path = build(tmp_path, SMALL) / EVENTS
    count = path.read_bytes().count(b"\n")
    path.write_bytes(path.read_bytes() + b"{oops\n")
    with pytest.raises(RunError, match=f"line {count + 1} "):
        runlog.read(tmp_path)


def test_a_cell_that_never_started_is_an_error(tmp_path: Path) -> None:
    log = opened(tmp_path)
    one_round(log, 1, arm="attack")
    with pytest.raises(RunError, match="line 3 "):
        runlog.read(tmp_path)


def test_nothing_there_and_nothing_started_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no such file"):
        runlog.read(tmp_path)
    RunLog(tmp_path).run_end("failed", "no data", wall_seconds=0.1)
    with pytest.raises(RunError, match="no 'run' event"):
        runlog.read(tmp_path)


CLIENT = Line("client", 1.23456789, delta=1e-5)


def tried(log: RunLog, digest: str, rounds: int, *, end: bool, earlier: Sequence[Try] = ()) -> None:
    log.cell_start("vanilla", 0, digest, spends=Try((CLIENT,), (9, 8)), earlier=earlier)
    for number in range(1, rounds + 1):
        one_round(log, number)
    if end:
        log.cell_end("vanilla", 0, digest, 1.0)


def test_what_left_in_a_try_is_not_superseded_by_the_next(tmp_path: Path) -> None:
    """Each round asks partitions 0 (answers) and 2 (is dropped); what did not finish may have sent a round more."""
    log = RunLog(tmp_path)
    start(log, SMALL)
    tried(log, "d1", 3, end=False)
    first = runlog.read(tmp_path).cells["vanilla", 0].tries
    assert first == (Try((CLIENT,), (9, 8), 4),)
    tried(log, "d2", 2, end=True, earlier=first)
    second = runlog.read(tmp_path).cells["vanilla", 0].tries
    assert second == (*first, Try((CLIENT,), (9, 8), 2))


def test_a_log_that_does_not_say_what_was_spent_is_not_taken_to_have_noised(tmp_path: Path) -> None:
    log = opened(tmp_path)
    one_round(log, 1)
    log.cell_start("vanilla", 0, "d2")
    one_round(log, 1)
    log.cell_end("vanilla", 0, "d2", 1.0)
    assert runlog.read(tmp_path).cells["vanilla", 0].tries == (Try(rounds=2), Try(rounds=1))


def test_a_round_asked_whoever_answered_or_was_dropped_for_it(tmp_path: Path) -> None:
    log = opened(tmp_path)
    log.round(
        "vanilla", 0, 1, heard=[3], metrics={}, weights={}, seconds=0.1,
        dropped=[Dropped(2, "vienna", "no reply"), Dropped(-1, "", "reply from a node that was not asked")],
    )  # fmt: skip
    assert runlog.read(tmp_path).cells["vanilla", 0].rounds[0].asked == {2, 3}


def test_a_kept_cell_file_says_what_earlier_tries_spent_to_the_digit(tmp_path: Path) -> None:
    log = RunLog(tmp_path / "run")
    start(log, SMALL)
    tried(log, "d1", 3, end=False)
    before = runlog.read(tmp_path / "run").cells["vanilla", 0].tries
    tried(log, "d2", 2, end=True, earlier=before)
    kept.keep(tmp_path / "run", tmp_path / "cells", ("vanilla", 0))
    start(RunLog(tmp_path / "other"), SMALL)
    assert kept.recall(tmp_path / "other", tmp_path / "cells", {("vanilla", 0): "d2"}) == [("vanilla", 0)]
    found = runlog.read(tmp_path / "other").cells["vanilla", 0].tries
    assert found == runlog.read(tmp_path / "run").cells["vanilla", 0].tries
    assert found[0].lines[0].multiplier == 1.23456789


def test_threads_share_one_log(tmp_path: Path) -> None:
    log = opened(tmp_path)
    for arm in ("attack", "attack+fed-detect"):
        log.cell_start(arm, 0, "d")
    with ThreadPoolExecutor(3) as pool:
        jobs = [
            pool.submit(one_round, RunLog(tmp_path), n, arm=arm)
            for arm in ("vanilla", "attack", "attack+fed-detect")
            for n in range(40)
        ]
    assert [job.result() for job in jobs] == [None] * 120
    events = [json.loads(line) for line in (tmp_path / EVENTS).read_text().splitlines() if line]
    assert len([e for e in events if e["event"] == "round"]) == 120
    others = {e["event"] for e in events} - {"round", "run", "cell-start"}
    assert others <= {"torn"}, "a log opened while another is writing may take its end for torn: a harmless mark"
    assert runlog.read(tmp_path).torn == ()


def test_a_write_that_stops_half_way_is_an_error_and_costs_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = opened(tmp_path)
    real = os.write
    monkeypatch.setattr(os, "write", lambda target, line: real(target, line[:20]))
    with pytest.raises(RunError, match="only 20 of"):
        one_round(log, 1)
    monkeypatch.undo()
    one_round(log, 2)
    record = runlog.read(tmp_path)
    assert record.torn == (3,)
    assert [row.round for row in record.cells["vanilla", 0].rounds] == [2]


def test_a_log_that_cannot_be_opened_says_so(tmp_path: Path) -> None:
    log = opened(tmp_path)
    log.path.unlink()
    log.path.mkdir()
    with pytest.raises(RunError, match="cannot append"):
        one_round(log, 1)
