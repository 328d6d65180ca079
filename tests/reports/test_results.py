"""results.json: the schema of the issue, exactly."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from fedsec.log.runlog import RunLog
from fedsec.reports.results import RESULTS, write_results
from fedsec.types import Score
from tests.reports.fake_run import Plan, build, cell, start

KEYS = ["experiment", "data", "clients", "malicious", "rounds", "seeds", "threats", "arms", "wall_seconds", "versions"]


def test_schema(finished_run: Path) -> None:
    value = write_results(finished_run)
    assert json.loads((finished_run / RESULTS).read_text()) == value
    assert list(value) == KEYS
    assert value["experiment"] == "isic-quick"
    assert value["data"] == {"source": "isic", "train": 1600, "test": 400, "classes": ["benign", "malignant"]}
    assert (value["clients"], value["malicious"], value["rounds"], value["seeds"]) == (4, [0], 12, [0, 1])
    assert value["wall_seconds"] == 412.5
    assert list(value["arms"]) == ["vanilla", "attack", "attack+fed-detect"]
    assert list(value["threats"]) == ["attack", "attack+fed-detect"]
    assert "they know their own images" in value["threats"]["attack"][0]
    for metrics in value["arms"].values():
        for summary in metrics.values():
            assert list(summary) == ["mean", "ci95", "values"]
            assert len(summary["values"]) == 2


def test_interval_is_students_over_seeds(finished_run: Path) -> None:
    summary = write_results(finished_run)["arms"]["attack"]["kid"]
    a, b = summary["values"]
    assert summary["mean"] == pytest.approx((a + b) / 2)
    half = 12.706204736 * abs(a - b) / 2  # t(0.975, 1 degree) x standard error of two values
    assert summary["ci95"] == pytest.approx([(a + b) / 2 - half, (a + b) / 2 + half])


def test_same_log_same_bytes_and_nothing_left_beside(finished_run: Path) -> None:
    write_results(finished_run)
    first = (finished_run / RESULTS).read_bytes()
    write_results(finished_run)
    assert (finished_run / RESULTS).read_bytes() == first
    assert not [path for path in finished_run.iterdir() if path.name.startswith(".")]


def test_one_seed_has_no_interval(tmp_path: Path) -> None:
    value = write_results(build(tmp_path, Plan(arms=("vanilla",), seeds=(3,), rounds=4, pictures=False)))
    summary = value["arms"]["vanilla"]["kid"]
    assert summary["ci95"] is None
    assert summary["values"] == [summary["mean"]]


def test_nan_is_null_and_leaves_the_mean_of_the_others(tmp_path: Path) -> None:
    plan = Plan(arms=("vanilla",), seeds=(0, 1, 2), rounds=4, pictures=False)
    log = RunLog(tmp_path)
    start(log, plan)
    for seed, value in ((0, 0.2), (1, math.nan), (2, 0.4)):
        log.cell_start("vanilla", seed, "d")
        log.score("vanilla", seed, 4, Score("kid", value, 9, "lower", "" if value == value else "few"), final=True)
        log.score("vanilla", seed, 4, Score("fid", math.nan, 9, "lower", "no weights"), final=True)
        log.score("vanilla", seed, 4, Score("recall", 0.1, 9, "higher"), final=False)
        log.cell_end("vanilla", seed, "d", 1.0)
    arm = write_results(tmp_path)["arms"]["vanilla"]
    assert list(arm) == ["kid", "fid"], "quick scores stay out"
    assert arm["kid"]["values"] == [0.2, None, 0.4]
    assert arm["kid"]["mean"] == pytest.approx(0.3)
    assert arm["fid"] == {"mean": None, "ci95": None, "values": [None, None, None]}


def test_only_finished_cells_of_the_current_arms_and_seeds(tmp_path: Path) -> None:
    plan = Plan(seeds=(0, 1), rounds=4, pictures=False)
    log = RunLog(tmp_path)
    start(log, plan)
    cell(log, tmp_path, plan, "attack", 5)
    cell(log, tmp_path, plan, "vanilla", 0)
    cell(log, tmp_path, plan, "vanilla", 1, end=False)
    cell(log, tmp_path, plan, "attack", 0, end=False)
    value = write_results(tmp_path)
    assert list(value["arms"]) == ["vanilla"]
    assert value["arms"]["vanilla"]["kid"]["values"][1] is None
    assert value["arms"]["vanilla"]["kid"]["ci95"] is None
    assert value["wall_seconds"] is None, "the run has not ended"


def test_a_resumed_run_gives_the_results_of_an_uninterrupted_one(tmp_path: Path) -> None:
    plan = Plan(arms=("vanilla", "attack"), seeds=(0,), rounds=4, pictures=False)
    whole = write_results(build(tmp_path / "whole", plan))
    log = RunLog(tmp_path / "resumed")
    start(log, plan)
    cell(log, tmp_path / "resumed", plan, "vanilla", 0)
    cell(log, tmp_path / "resumed", plan, "attack", 0, end=False)
    start(log, plan)
    cell(log, tmp_path / "resumed", plan, "attack", 0)
    log.run_end("finished", wall_seconds=412.5)
    assert write_results(tmp_path / "resumed") == whole
