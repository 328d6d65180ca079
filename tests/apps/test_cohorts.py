"""Rounds that ask a share of the clients: who is asked, what the others keep, and who is judged."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clients.client_app import app
from fedsec.config import RunConfig
from fedsec.defences.feddetect import Rule, Standing, judge
from fedsec.errors import RobustnessError
from fedsec.log import runlog
from fedsec.log.record import Cell
from strategies.server_app import run_experiment
from tests.local_grid import LocalGrid
from tests.quick_extractor import keep_quick_extractor

CLIENTS = 8


def cohorts(tmp_path: Path, arms: dict[str, dict[str, Any]], **keys: Any) -> tuple[dict[str, Cell], LocalGrid]:
    settings = RunConfig.from_flat(
        {
            "data.count": 160,
            "split.clients": CLIENTS,
            "gan.width": 4,
            "gan.latent": 8,
            "train.rounds": 6,
            "train.steps": 1,
            "train.batch": 4,
            "measure.samples": 64,
            "measure.every": 6,
            "measure.utility": "",
            "run.out": str(tmp_path),
            "run.arms": json.dumps(arms),
            **keys,
        }
    )
    keep_quick_extractor(settings.data)
    grid = LocalGrid(app, settings.to_flat(), nodes=CLIENTS)
    record = runlog.read(run_experiment(grid, settings, wait=1))
    return {arm: cell for (arm, _), cell in record.finished().items()}, grid


def test_a_fixed_share_is_asked_and_the_seed_says_who(tmp_path: Path) -> None:
    arms: dict[str, dict[str, Any]] = {
        "a": {"train.fraction": 0.25},
        "b": {"train.fraction": 0.25, "attack.name": "patch"},
    }
    cells, grid = cohorts(tmp_path, arms)
    asked = {arm: [sorted(row.losses) for row in cell.rounds] for arm, cell in cells.items()}
    assert asked["a"] == asked["b"], "arms differ by what they study, not by who is asked"
    assert {len(round) for round in asked["a"]} == {2}
    assert len({tuple(round) for round in asked["a"]}) > 2
    for row in cells["a"].rounds:
        assert row.dropped == ()
        assert sum(row.weights.values()) == pytest.approx(1)
    kept = [len(context.state.array_records) for context in grid.contexts.values()]
    assert max(kept) <= 1, "a node keeps the state of one cell at most"


def test_the_oracle_asks_the_honest_of_the_same_cohorts(tmp_path: Path) -> None:
    """Or its distance is not paired with anybody's."""
    shared = {"attack.name": "patch", "train.fraction": 0.5}
    arms: dict[str, dict[str, Any]] = {"attacked": shared, "oracle": {**shared, "defence.name": "oracle"}}
    cells, _ = cohorts(tmp_path, arms)
    for attacked, oracle in zip(cells["attacked"].rounds, cells["oracle"].rounds, strict=True):
        assert set(oracle.weights) == set(attacked.weights) - {0}
    assert any(0 in row.weights for row in cells["attacked"].rounds)


def test_coins_may_leave_a_round_without_anybody(tmp_path: Path) -> None:
    arms = {"poisson": {"train.fraction": 0.05, "train.sampling": "poisson"}}
    cells, _ = cohorts(tmp_path, arms)
    rounds = cells["poisson"].rounds
    assert [row.round for row in rounds] == list(range(1, 7))
    assert any(not row.losses for row in rounds), "with this seed some round asks nobody, and the cell goes on"


def test_every_detecting_defence_takes_part_in_sampled_rounds(tmp_path: Path) -> None:
    names = ("fed-detect", "fed-inspect", "median", "foolsgold")
    arms = {name: {"defence.name": name, "attack.name": "patch", "train.fraction": 0.5} for name in names}
    cells, _ = cohorts(tmp_path, arms, **{"train.steps": 6, "train.rounds": 2, "measure.every": 2})
    assert set(cells) == set(names)
    for name, cell in cells.items():
        for row in cell.rounds:
            assert len(row.weights) == 4, name
            assert sum(row.weights.values()) == pytest.approx(1), f"{name} counts among those it asked"


def test_a_share_too_small_for_a_defence_is_told_before_training(tmp_path: Path) -> None:
    arms: dict[str, dict[str, Any]] = {
        "krum": {"defence.name": "krum", "train.fraction": 0.5, "defence.byzantine": 2},
        "few": {"defence.name": "fed-inspect", "train.fraction": 0.25, "train.sampling": "poisson"},
        "fine": {"defence.name": "krum"},
    }
    with pytest.raises(RobustnessError, match=r"'few': fed-inspect compares at least 4 replies a round, 2") as told:
        cohorts(tmp_path, arms)
    assert "'krum': krum withstands f = 2" in str(told.value)
    assert "'fine'" not in str(told.value)


def test_a_client_asked_every_third_round_is_judged_by_rounds_of_its_own() -> None:
    rng = np.random.default_rng(0)
    standing, rule = Standing.start(12), Rule("calibrated", reading="drop")
    flagged = []
    for number in range(60):
        losses: list[float | None] = [None] * 12
        for client in range(number % 3, 12, 3):
            losses[client] = float(0.02 * rng.standard_normal() + (0.4 if client == 0 else 0))
        verdict, standing = judge(losses, standing, rule)
        flagged.append(verdict.flagged)
    asked = [row for number, row in enumerate(flagged) if number % 3 == 0]
    assert all(row[0] for row in asked[6:]), "the attacker, once it was heard often enough"
    assert np.mean([row[1:] for row in flagged]) < 0.02
    assert standing.weights[0] < 0.01
