"""The arithmetic of studies.detection.adaptive; its cells train for minutes and are in docs/results/adaptive."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fedsec.attacks.knowing import KNOWING
from fedsec.config import RunConfig
from fedsec.config.matrix import read_matrix
from strategies.base import Weighing
from studies.detection.adaptive import MATRIX, arranged, begins, branched, counted, federation

TINY = {
    "data.count": 160,
    "split.clients": 4,
    "gan.width": 4,
    "gan.latent": 8,
    "train.rounds": 4,
    "train.steps": 2,
    "train.batch": 4,
    "defence.name": "fed-inspect",
    "attack.size": 8,
}


def test_attackers_are_rows_of_the_matrix_and_begin_when_they_say() -> None:
    matrix = read_matrix(MATRIX, "adaptive", ["train.rounds=24"])
    told = argparse.Namespace(split="iid", defence="fed-inspect", attackers=",".join(matrix.attacks))
    configs = arranged(matrix, told)
    rounds = {
        name: [n for n in range(1, 25) if config.attack.active and config.attack.acts(n, 24)]
        for name, config in configs.items()
    }
    assert rounds["none"] == []
    assert rounds["patch"] == list(range(1, 25))
    assert rounds["late"] == list(range(15, 25))
    assert rounds["burst"] == [18]
    assert rounds["on-off"] == list(range(1, 25, 3))
    assert begins(configs["burst"]) == 18
    asleep = [name for name, config in configs.items() if config.attack.update in KNOWING]
    assert {begins(configs[name]) for name in asleep} == {1}, "what they keep at home begins at once"


def test_late_attackers_branched_off_an_honest_run_are_those_of_a_run_of_their_own(tmp_path: Path) -> None:
    clean = RunConfig.from_flat(TINY)
    late = RunConfig.from_flat({**TINY, "attack.name": "patch", "attack.start": 3, "attack.update": "scale"})
    assert clean == replace(late, attack=clean.attack)

    def model(*configs: RunConfig) -> tuple[np.ndarray, list[int]]:
        wanted = dict(zip(("none", "late")[-len(configs) :], configs, strict=True))
        *_, (name, cell, rows) = branched(federation(configs[0], 0, tmp_path), wanted)
        assert name == "late"
        return cell.strategy.current, [len(row.weights) for row in rows]

    (branch, rows), (whole, again) = model(clean, late), model(late)
    np.testing.assert_array_equal(branch, whole)
    assert rows == again == [4] * 4
    honest = model(replace(late, attack=replace(late.attack, start=4, stop=4)))[0]
    assert not np.array_equal(honest, whole)


def test_flags_are_counted_where_the_attacker_attacked_and_of_the_honest_everywhere() -> None:
    weights = {0: 0.1, 1: 0.3, 2: 0.2, 3: 0.4}
    rows = [Weighing(weights, (0, 1)), Weighing(weights, (0,)), Weighing(weights, (3,)), Weighing(weights)]
    found = counted(rows, [True, True, False, True], [0], after=1)
    assert found["attacker flagged"] == pytest.approx(1 / 2)
    assert found["honest flagged"] == pytest.approx(1 / 9)
    assert (found["honest flags"], found["honest rounds"]) == (1, 9)
    assert found["attacker share"] == pytest.approx(0.4)
    assert found["least honest share"] == pytest.approx(0.8)
    clean = counted(rows, [False] * 4, [0], after=0)
    assert clean["attacker flagged"] is None
    assert clean["honest flagged"] == pytest.approx(4 / 16), "nobody attacks, so the first is honest too"
