"""Every attack and every defence in whole rounds over the in-process grid."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, get_args, get_type_hints

import numpy as np
import pytest
from flwr.app import Message

from clients.client_app import app
from fedsec.attacks.knowing import KNOWING
from fedsec.attacks.poison import POISONS
from fedsec.attacks.reports import REPORTS
from fedsec.attacks.updates import UPDATES
from fedsec.config import Attack, Defence, RunConfig
from fedsec.defences.mixing import MIXINGS
from fedsec.errors import RobustnessError
from fedsec.log import runlog
from fedsec.log.record import RunRecord
from fedsec.types import Fit, Images
from strategies.fedinspect import FedInspect
from strategies.index import STRATEGIES
from strategies.server_app import run_experiment
from tests.local_grid import LocalGrid, Tamper
from tests.quick_extractor import keep_quick_extractor

CLIENTS = 7
"""Bulyan needs four times its f, and three more."""


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fedsec.metrics.marks.STEPS", 2)
        yield tmp_path_factory.mktemp("laboratory")


def laboratory(folder: Path, arms: dict[str, dict[str, Any]], name: str, tamper: Tamper | None = None) -> RunRecord:
    settings = RunConfig.from_flat(
        {
            "data.count": 160,
            "split.clients": CLIENTS,
            "gan.width": 4,
            "gan.latent": 8,
            "train.rounds": 2,
            "train.steps": 2,
            "train.batch": 4,
            "measure.samples": 64,
            "measure.every": 2,
            "measure.utility": "",
            "defence.root": 16,
            "run.out": str(folder),
            "run.name": name,
            "run.arms": json.dumps(arms),
        }
    )
    keep_quick_extractor(settings.data)
    return runlog.read(
        run_experiment(LocalGrid(app, settings.to_flat(), nodes=CLIENTS, tamper=tamper), settings, wait=1)
    )


def test_names_of_the_configuration_are_the_tables_keys() -> None:
    attack, defence = get_type_hints(Attack), get_type_hints(Defence)
    assert set(get_args(attack["name"])) == {"none", *POISONS}
    assert set(get_args(attack["update"])) == {"none", *UPDATES, *KNOWING}
    assert set(get_args(attack["report"])) == {"honest", *REPORTS}
    assert set(get_args(defence["name"])) == set(STRATEGIES)
    assert set(get_args(defence["mixing"])) == set(MIXINGS)


def assert_whole(record: RunRecord, arms: Iterable[str]) -> None:
    """Every arm ended, nobody's reply was dropped, and weights are shares."""
    assert {arm for arm, _ in record.finished()} == set(arms)
    for (arm, _), cell in record.finished().items():
        for row in cell.rounds:
            assert row.dropped == (), arm
            assert sum(row.weights.values()) == pytest.approx(1), arm


def test_every_defence_finishes_attacked_rounds_and_says_what_each_client_weighed(quick: Path) -> None:
    attack = {"attack.name": "patch", "attack.update": "scale"}
    arms: dict[str, dict[str, Any]] = {name: {**attack, "defence.name": name} for name in STRATEGIES}
    arms["fed-detect"]["train.steps"] = 6
    arms |= {mixing: {"defence.name": "median", "defence.mixing": mixing} for mixing in MIXINGS}
    record = laboratory(quick, arms, "defences")
    assert_whole(record, arms)
    for (arm, _), cell in record.finished().items():
        for row in cell.rounds:
            assert len(row.weights) == (CLIENTS - 1 if arm == "oracle" else CLIENTS), arm
    for arm in ("krum", "multi-krum"):
        assert record.finished()[arm, 0].rounds[-1].weights[0] == 0, "a sevenfold update is not chosen"


def test_defences_take_a_diffusion_model_as_they_take_a_gan(quick: Path) -> None:
    diffusion = {"gan.family": "diffusion", "gan.denoising": 2, "gan.width": 16, "train.lr": 2e-3, "train.beta1": 0.9}
    names = ("fed-inspect", "median", "dp-fixed", "oracle")
    arms = {name: {**diffusion, "attack.name": "patch", "defence.name": name} for name in names}
    record = laboratory(quick, arms, "diffusion")
    assert_whole(record, arms)
    for (arm, _), cell in record.finished().items():
        assert np.isfinite(cell.final()["frechet-domain"].score.value), arm
    looked = record.finished()["fed-inspect", 0].rounds[-1].evidence
    assert len(looked) == CLIENTS
    assert all(np.isfinite(peak) and peak > 0 for peak in looked.values())
    assert len(set(looked.values())) == CLIENTS, "each client's own draws"


def test_every_attack_changes_what_the_server_learns(quick: Path) -> None:
    arms: dict[str, dict[str, Any]] = {"none": {}}
    arms |= {name: {"attack.name": name} for name in POISONS}
    arms |= {name: {"attack.update": name} for name in UPDATES}
    record = laboratory(quick, arms, "attacks")
    losses = {arm: cell.rounds[-1].losses[3] for (arm, _), cell in record.finished().items()}
    assert set(losses) == set(arms)
    honest = losses.pop("none")
    assert [arm for arm, loss in losses.items() if loss == honest] == [], "an honest client feels each of them"
    assert all(np.isfinite(loss) for loss in losses.values())


def test_liars_tell_the_server_what_they_want(quick: Path) -> None:
    arms = {name: {"attack.report": name, "attack.malicious": "0,1"} for name in REPORTS}
    cells = laboratory(quick, arms, "liars").finished()
    for row in cells["small", 0].rounds:
        honest = [row.losses[partition] for partition in (2, 3)]
        assert max(row.losses[0], row.losses[1]) < 0.3 * min(honest)
    last = cells["median", 0].rounds[-1]
    honest = [loss for partition, loss in last.losses.items() if partition > 1]
    assert last.losses[0] == last.losses[1] == pytest.approx(float(np.median(honest)))
    first, second = cells["last-global", 0].rounds
    assert second.losses[0] == pytest.approx(float(np.median(list(first.losses.values()))))


def test_an_update_out_of_bounds_costs_the_attacker_the_round(quick: Path) -> None:
    arms = {"attack": {"attack.update": "sign-flip", "attack.strength": 1e12}}
    cell = laboratory(quick, arms, "bounds").finished()["attack", 0]
    for row in cell.rounds:
        assert [(drop.partition, "above" in drop.reason) for drop in row.dropped] == [(0, True)]
        assert 0 not in row.weights


def test_a_generator_that_draws_nothing_finite_is_judged_alone(quick: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = FedInspect._draw

    def draw(self: FedInspect, fit: Fit, seed: int) -> Images:
        images = honest(self, fit, seed)
        return np.full_like(images, np.nan) if fit.partition == 2 else images

    monkeypatch.setattr(FedInspect, "_draw", draw)
    cell = laboratory(quick, {"inspect": {"defence.name": "fed-inspect"}}, "nothing finite").finished()["inspect", 0]
    for row in cell.rounds:
        assert list(row.flags) == [2]
        assert row.weights[2] == 0
        assert all(np.isfinite(value) for client, value in row.evidence.items() if client != 2)


def test_a_reducer_that_cannot_hold_ends_the_run_before_any_training(quick: Path) -> None:
    arms: dict[str, dict[str, Any]] = {"a": {"defence.name": "krum", "defence.byzantine": 3}}
    arms["b"] = {"defence.name": "bulyan"}
    arms["d"] = {"defence.name": "krum", "defence.byzantine": 1, "defence.mixing": "bucketing"}
    arms["c"] = {"defence.name": "median", "defence.byzantine": 4}
    with pytest.raises(RobustnessError, match=r"'a': krum withstands f = 3 .* are 7") as told:
        laboratory(quick, arms, "weak")
    assert "'b'" not in str(told.value)
    assert "'c': median" in str(told.value)
    assert "'d': krum withstands f = 1" in str(told.value), "buckets are fewer than clients"
    assert runlog.read(quick / "weak").cells == {}


def test_a_round_that_too_few_answered_leaves_the_model_and_goes_on(quick: Path) -> None:
    calls = {3: 0, 4: 0, 5: 0, 6: 0}

    def silent_once(partition: int, reply: Message) -> Message | None:
        if partition in calls and "arrays" in reply.content.array_records:
            calls[partition] += 1
            return None if calls[partition] == 1 else reply
        return reply

    arms = {"krum": {"defence.name": "krum"}}
    first, second = laboratory(quick, arms, "silent", silent_once).finished()["krum", 0].rounds
    assert len(first.dropped) == 4
    assert first.weights == {}
    assert sum(second.weights.values()) == pytest.approx(1)
