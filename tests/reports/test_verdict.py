"""The verdict says what the numbers say, in both directions, and no more."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path

import pytest

from fedsec.attacks.threat import threat
from fedsec.config import Attack
from fedsec.log import runlog
from fedsec.log.record import Header
from fedsec.log.runlog import RunLog
from fedsec.reports.verdict import verdict
from fedsec.reports.words import Verdict, digits, percent
from fedsec.run.roles import Role, role
from fedsec.types import Score
from tests.reports.fake_run import Plan, build, start

FIVE = ("vanilla", "attack", "attack+fed-detect", "clean+fed-detect", "attack+oracle")


def judged(
    folder: Path,
    rates: Mapping[str, float],
    *,
    false_flags: float = 0.0,
    distances: Mapping[str, list[float]] | None = None,
) -> Verdict:
    """The verdict on runs whose trigger rates and Fréchet distances are given."""
    seeds = tuple(range(len(next(iter(distances.values()))))) if distances else (0,)
    log = RunLog(folder)
    start(log, Plan(arms=tuple(rates), seeds=seeds))
    for arm, rate in rates.items():
        for seed in seeds:
            log.cell_start(arm, seed, "d")
            reason = "" if math.isfinite(rate) else "no images"
            log.score(arm, seed, 9, Score("trigger-rate", rate, 1000, "lower", reason), final=True)
            log.score(arm, seed, 9, Score("false-flag-rate", false_flags, 100, "lower"), final=True)
            if distances:
                log.score(arm, seed, 9, Score("frechet-domain", distances[arm][seed], 1000, "lower"), final=True)
            log.cell_end(arm, seed, "d", 1.0)
    log.run_end("finished", wall_seconds=1.0)
    return verdict(runlog.read(folder))


def text(said: Verdict, term: str) -> str:
    return " ".join(dict(said.points).get(term, ()))


@pytest.mark.parametrize(
    ("clean", "hit", "words"),
    [
        (0.01, 0.97, "The attack got through: at least ten times"),
        (0.01, 0.05, "in part"),
        (0.01, 0.02, "did not get through"),
        (0.0, 0.011, "got through: at least ten times"),
        (0.0, 0.002, "did not get through"),
        (0.01, math.nan, "cannot be compared"),
    ],
)
def test_the_attack(tmp_path: Path, clean: float, hit: float, words: str) -> None:
    assert words in text(judged(tmp_path, {"vanilla": clean, "attack": hit}), "The attack")


@pytest.mark.parametrize(
    ("hit", "words"), [(0.02, "kept out"), (0.3, "weakened, not kept out"), (0.9, "does not keep the trigger out")]
)
def test_the_defence(tmp_path: Path, hit: float, words: str) -> None:
    said = judged(tmp_path, {"vanilla": 0.01, "attack": 0.97, "attack+fed-detect": hit})
    assert words in text(said, "The defence")


@pytest.mark.parametrize(("rate", "words"), [(0.008, "within the line"), (0.3, "above the line")])
def test_false_flags_in_clean_runs(tmp_path: Path, rate: float, words: str) -> None:
    said = judged(tmp_path, {"vanilla": 0.01, "clean+fed-detect": 0.01}, false_flags=rate)
    assert words in text(said, "Clean runs")
    assert "does not say what the attack does" in said.headline


def test_paired_seeds_decide_about_fidelity(tmp_path: Path) -> None:
    rates = {"vanilla": 0.01, "attack": 0.9}
    same = {"vanilla": [0.10, 0.20, 0.30], "attack": [0.11, 0.19, 0.31]}
    worse = {"vanilla": [0.10, 0.20, 0.30], "attack": [0.151, 0.249, 0.35]}
    assert "do not tell the two apart" in text(judged(tmp_path / "a", rates, distances=same), "The attack")
    assert "holds over the seeds" in text(judged(tmp_path / "b", rates, distances=worse), "The attack")
    one = {arm: values[:1] for arm, values in worse.items()}
    assert "chance cannot be ruled out" in text(judged(tmp_path / "c", rates, distances=one), "The attack")


@pytest.mark.parametrize(
    ("distance", "words"), [(0.109, "within the line of 10 %"), (0.13, "outside the line of 10 %")]
)
def test_the_oracle_is_the_ceiling(tmp_path: Path, distance: float, words: str) -> None:
    rates = dict.fromkeys(FIVE, 0.01)
    distances = {arm: [0.1, 0.1] for arm in FIVE} | {"attack+fed-detect": [distance, distance]}
    assert words in text(judged(tmp_path, rates, distances=distances), "The defence")


def test_what_was_not_run_is_said(tmp_path: Path) -> None:
    said = judged(tmp_path, {"attack": 0.9})
    missing = text(said, "Not run")
    for part in ("a clean arm", "with a defence", "false flags", "oracle"):
        assert part in missing
    assert "nothing shows what that rate would be otherwise" in text(said, "The attack")
    assert "No defended arm was measured" in said.headline
    assert "One seed" in text(said, "Read with care")


def test_a_clean_arm_alone_says_nothing_about_attacks(tmp_path: Path) -> None:
    said = judged(tmp_path, {"vanilla": 0.01})
    assert "does not say what the attack does" in said.headline
    assert "The attack" not in dict(said.points)


def test_nothing_finished(tmp_path: Path) -> None:
    log = RunLog(tmp_path)
    start(log, Plan())
    log.cell_start("attack", 0, "d")
    said = verdict(runlog.read(tmp_path))
    assert "nothing to judge" in said.headline
    assert "Started, not finished: attack, seed 0." in text(said, "Not run")
    assert "vanilla, seed 1" in text(said, "Not run")
    assert "has not come to its end" in text(said, "Read with care")


def test_a_failure_is_told_with_its_reason(tmp_path: Path) -> None:
    build(tmp_path, Plan(rounds=4, pictures=False))
    RunLog(tmp_path).run_end("failed", "a worker died", wall_seconds=1.0)
    assert "The run failed: a worker died." in text(verdict(runlog.read(tmp_path)), "Read with care")


def test_the_weight_of_the_attacker_over_rounds(tmp_path: Path) -> None:
    said = verdict(runlog.read(build(tmp_path, Plan(pictures=False))))
    assert "stays below 1 % from round 9 of 20 on" in text(said, "The defence")
    short = verdict(runlog.read(build(tmp_path / "short", Plan(rounds=6, pictures=False))))
    assert "never stays below 1 %" in text(short, "The defence")


def test_a_role_comes_from_the_settings_and_not_from_the_name(tmp_path: Path) -> None:
    log = RunLog(tmp_path)
    start(log, Plan(arms=("vanilla",)))
    header = runlog.read(tmp_path).header
    arms = {"good": {"attack.name": "patch", "attack.malicious": "1,3"}, "attack": {"defence.name": "oracle"}}
    renamed = Header(**{**vars(header), "config": {**header.config, "run.arms": json.dumps(arms)}})
    assert role(renamed, "good") == Role(True, "fed-avg", (1, 3), "patch", tuple(threat(Attack("patch"))))
    assert role(renamed, "attack") == Role(False, "oracle")
    assert not role(renamed, "attack").defended


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (0.0, "0 %"),
        (1e-5, "<0.1 %"),
        (0.011, "1.1 %"),
        (0.5, "50 %"),
        (0.972, "97.2 %"),
        (1.0, "100 %"),
        (math.nan, "not measured"),
    ],
)
def test_percent(value: float, words: str) -> None:
    assert percent(value) == words


@pytest.mark.parametrize(
    ("value", "words"),
    [(0.17, "0.170"), (12.0, "12.0"), (123.4, "123"), (1234.5, "1234"), (-0.0123, "-0.0123"), (0.0, "0.00")],
)
def test_digits(value: float, words: str) -> None:
    assert digits(value) == words
