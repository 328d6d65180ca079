"""Counts of flags over whole runs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from fedsec.config.matrix import read_matrix
from fedsec.log.record import RoundRow
from fedsec.log.runlog import read
from fedsec.reports.markdown.flags import EARLY, again, alike, gone, pooled, since, table, told
from fedsec.run.matrix import standings
from tests.test_pages import CHEST

PROJECT = Path(__file__).parents[1]
SOURCE = PROJECT.parent / "shared/data/isic/class2"
KEPT = PROJECT / "docs/results/calibration"


def round_of(number: int, flags: tuple[int, ...], weights: dict[int, float]) -> RoundRow:
    losses = dict.fromkeys(weights, 1.0)
    return RoundRow(number, tuple(losses), {"g-loss": losses}, weights, flags, {}, {}, (), 0.0)


def test_replies_count_after_their_own_clients_tenth() -> None:
    rows = [round_of(n, (0,) if n > 10 else (), {0: 0.5, 1: 0.5}) for n in range(1, 13)]
    rows += [round_of(13, (2,), {2: 1.0})]
    assert told(rows, (0,)) == ([True, True], [False, False]), "client 2 answered once"
    assert told(rows[5:], (0,)) == ([], [])


def test_from_when_on_an_attacker_was_always_flagged_and_weighed_nothing() -> None:
    fair, none = {0: 0.5, 1: 0.5}, {0: 0.004, 1: 0.996}
    rows = [round_of(1, (0,), fair), round_of(2, (), fair), round_of(3, (0,), fair), round_of(4, (0,), none)]
    assert since(rows, (0,)) == 3
    assert gone(rows, (0,)) == 4
    assert since([*rows, round_of(5, (), {1: 1.0})], (0,)) == 3, "who is not asked is not missed"
    assert since(rows[:2], (0,)) is None
    assert gone(rows[:3], (0,)) is None
    assert since(rows[2:3], (0,)) == 3


def test_the_page_shows_what_is_kept() -> None:
    kinds = alike({path.name: read(path) for path in sorted(KEPT.glob("clients-*"))})
    page = (KEPT.parent / "calibration.md").read_text(encoding="utf-8")
    for name, runs in kinds.items():
        assert "\n".join(table(runs, name)) in page
    assert "\n".join(pooled(kinds.values())) in page
    assert "\n".join(pooled([[again(run) for run in runs] for runs in kinds.values()])) in page


def test_runs_that_differ_by_their_seeds_alone_are_of_one_kind() -> None:
    names = ("clients-10-0.1", "clients-10-0.1-1", "clients-10-0.3")
    kinds = alike({name: read(KEPT / name) for name in names})
    assert {name: len(runs) for name, runs in kinds.items()} == {"clients-10-0.1": 2, "clients-10-0.3": 1}
    named_alike = alike({name: read(KEPT / name) for name in ("clients-10-iid-1", "sooner-10-iid-1")})
    assert len(named_alike) == 2, "an arm of the same name has another decay"


def test_pooled_runs_are_all_of_a_size() -> None:
    records = [[read(KEPT / name)] for name in ("clients-10-iid", "clients-10-iid-2", "clients-100-iid-1")]
    rows = [row.strip("| ").split(" | ") for row in pooled(records)]
    assert [row[:2] for row in rows] == [["0 of 10", "2"], ["3 of 10", "2"], ["30 of 100", "1"]]
    assert "(" not in rows[2][-1], "one run has no interval"
    lone = [float(next(table(runs, "one")).split(" | ")[8]) for runs in records[:2]]
    assert float(rows[1][-1].split(" ")[0]) == pytest.approx((lone[0] * lone[1]) ** 0.5, abs=0.01)


def test_four_hospitals_are_shown_as_the_matrix_has_them() -> None:
    if not SOURCE.is_dir():
        pytest.skip("needs shared/data/isic/class2 beside the project: a cell is known by its images, too")
    page = (KEPT.parent / "calibration.md").read_text(encoding="utf-8")
    for profile, split in (("core", "iid"), ("skewed", "site"), ("skewed", "dirichlet-0.3")):
        matrix = read_matrix(PROJECT / "experiments/matrix.toml", profile, [f"data.source={SOURCE}"])
        record = standings(matrix, split, KEPT.parent / "matrix/isic").record
        rows = set(table([record], split))
        assert set(table([again(record)], split)) == rows, "today's rule gives the flags that were raised"
        shown = {line for line in page.splitlines() if line.startswith(f"| {split}: ")}
        assert shown
        assert shown <= rows


def test_todays_rule_gives_the_flags_that_were_raised_on_radiographs() -> None:
    source = PROJECT.parent / "shared/data/chestx/chest_xray"
    if not source.is_dir():
        pytest.skip("needs shared/data/chestx/chest_xray beside the project: a cell is known by its images, too")
    matrix = read_matrix(PROJECT / "experiments/matrix.toml", "core", [f"data.source={source}", *CHEST])
    record = standings(matrix, "iid", KEPT.parent / "matrix/chestx").record
    rows = list(table([record], "iid"))
    assert rows
    assert list(table([again(record)], "iid")) == rows


def test_early_and_late_replies_make_up_all_of_them() -> None:
    rows = [round_of(n, (0,) if n > 13 else (), {0: 0.5, 1: 0.5}) for n in range(1, 21)]
    every, late = told(rows, (0,))[0], told(rows, (0,), after=EARLY)[0]
    assert (len(every), sum(every)) == (10, 7)
    assert late == [True] * 5


def test_recorded_peaks_judged_again_give_the_flags_of_the_run() -> None:
    """Runs of ten in which nobody stands far out among the honest: what was flagged then is flagged today."""
    for name in ("clients-10-iid-1", "clients-10-1.0-1"):
        record = read(KEPT / name)
        for key, cell in again(record).finished().items():
            for row, was in zip(cell.rounds, record.cells[key].rounds, strict=True):
                assert row.flags == was.flags
                assert row.weights == pytest.approx(was.weights, abs=1e-5)


def test_peaks_are_judged_by_the_rule_and_not_by_what_was_flagged() -> None:
    record = read(KEPT / "clients-10-iid-1")
    key = ("attack+fed-inspect", 1)
    cell = record.cells[key]
    forgotten = replace(cell, rounds=tuple(replace(row, flags=(), weights={}) for row in cell.rounds))
    found = again(replace(record, cells={key: forgotten})).cells[key]
    assert [row.flags for row in found.rounds] == [row.flags for row in cell.rounds]
