"""Differential privacy in whole rounds: what is promised, what stops, what a silent round does."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Message
from safetensors.numpy import load_file

from fedsec.client_app import app
from fedsec.config import RunConfig
from fedsec.errors import ConfigError
from fedsec.privacy.accounting import FULL, Accountant, FixedSize, Poisson, default_delta
from fedsec.privacy.promises import affordable, promises
from fedsec.privacy.protection import epsilon
from fedsec.reports import runlog
from fedsec.reports.page import write_report
from fedsec.reports.record import RunRecord
from fedsec.server_app import run_experiment
from tests.local_grid import LocalGrid, Tamper
from tests.quick_extractor import keep_quick_extractor

CLIENTS = 5
IMAGES = [26] * CLIENTS


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("private")


def flat(arms: dict[str, dict[str, Any]]) -> dict[str, Any]:
    return {
        "data.count": 160,
        "split.clients": CLIENTS,
        "gan.width": 4,
        "gan.latent": 8,
        "train.rounds": 3,
        "train.steps": 2,
        "train.batch": 4,
        "measure.samples": 64,
        "measure.every": 3,
        "measure.utility": "",
        "run.arms": json.dumps(arms),
    }


def private(folder: Path, arms: dict[str, dict[str, Any]], name: str, tamper: Tamper | None = None) -> RunRecord:
    settings = RunConfig.from_flat({**flat(arms), "run.out": str(folder), "run.name": name})
    keep_quick_extractor(settings.data)
    grid = LocalGrid(app, settings.to_flat(), nodes=CLIENTS, tamper=tamper)
    return runlog.read(run_experiment(grid, settings, wait=1))


def test_every_mechanism_runs_and_says_what_it_is_worth(folder: Path) -> None:
    noise = {"privacy.noise": 2.0, "privacy.bound": 0.5}
    arms: dict[str, dict[str, Any]] = {
        "none": {},
        "server": {"defence.name": "dp-fixed", **noise},
        "adaptive": {"defence.name": "dp-adaptive", **noise},
        "clients": {"defence.name": "dp-fixed", "privacy.noised-by": "clients", **noise},
        "sampled": {"defence.name": "dp-fixed", "train.fraction": 0.4, "train.sampling": "poisson", **noise},
        "clip-only": {"defence.name": "dp-fixed", "privacy.bound": 0.5},
        "images": {"privacy.image-bound": 1.0, "privacy.image-noise": 1.5},
    }
    record = private(folder, arms, "mechanisms")
    scores = {arm: cell.final() for (arm, _), cell in record.finished().items()}
    assert set(scores) == set(arms)
    assert not {"epsilon-client", "epsilon-image"} & set(scores["none"])
    delta = default_delta(CLIENTS)
    expected = Accountant(2.0, delta).epsilon(3)
    for arm in ("server", "adaptive", "clients"):
        assert scores[arm]["epsilon-client"].score.value == pytest.approx(expected)
    assert scores["sampled"]["epsilon-client"].score.value == Accountant(2.0, delta, Poisson(0.4)).epsilon(3)
    clip_only = scores["clip-only"]["epsilon-client"].score
    assert math.isnan(clip_only.value) or math.isinf(clip_only.value)
    assert clip_only.reason == "no guarantee"
    held = min(sum(row) for row in record.header.label_counts)
    site = Accountant(1.5, default_delta(held), Poisson(4 / held), "site", "image")
    assert scores["images"]["epsilon-image"].score.value == pytest.approx(site.epsilon(6))
    cells = record.finished()
    assert all(math.isnan(loss) for row in cells["images", 0].rounds for loss in row.d_losses.values())
    assert all(math.isfinite(loss) for row in cells["images", 0].rounds for loss in row.losses.values())
    page = write_report(folder / "mechanisms").read_text(encoding="utf-8")
    assert "no guarantee" in page
    assert "trusted: the server, which sees every update" in page
    assert "replies read one by one: epsilon" in scores["clients"]["epsilon-client"].score.reason


def test_noise_is_as_large_as_told_whoever_draws_it(folder: Path) -> None:
    """With a bound near zero and huge multiplier the model is noise: its size is that of the mechanism."""
    shared = {"defence.name": "dp-fixed", "privacy.noise": 1e4, "privacy.bound": 1e-6, "gan.ema": 0.0}
    arms: dict[str, dict[str, Any]] = {
        "server": shared,
        "clients": {**shared, "privacy.noised-by": "clients"},
        "still": {**shared, "privacy.noise": 0.0},
    }
    private(folder, arms, "sizes")
    still = load_file(folder / "sizes" / "generator-still-0.safetensors")
    for arm in ("server", "clients"):
        model = load_file(folder / "sizes" / f"generator-{arm}-0.safetensors")
        moved = np.concatenate([(model[name] - still[name]).ravel() for name in still])
        assert moved.std() == pytest.approx(1e4 * 1e-6 / CLIENTS * math.sqrt(3), rel=0.05)


def test_a_silent_round_releases_its_noise_like_any_other(folder: Path) -> None:
    def silent(partition: int, reply: Message) -> Message | None:
        return None if "arrays" in reply.content.array_records else reply

    arms: dict[str, dict[str, Any]] = {
        "dp": {"defence.name": "dp-fixed", "privacy.noise": 1.0, "train.rounds": 1},
        "plain": {"train.rounds": 1},
    }
    private(folder, arms, "silent", silent)
    dp, plain = (load_file(folder / "silent" / f"generator-{arm}-0.safetensors") for arm in ("dp", "plain"))
    assert all(not np.array_equal(dp[name], plain[name]) for name in plain if plain[name].size > 8)


def test_training_stops_before_the_budget_is_spent(folder: Path) -> None:
    one = Accountant(2.0, default_delta(CLIENTS)).epsilon(2)
    arms: dict[str, dict[str, Any]] = {
        "dp": {"defence.name": "dp-fixed", "privacy.noise": 2.0, "privacy.budget": one * 1.0001}
    }
    cell = private(folder, arms, "budget").finished()["dp", 0]
    assert [row.round for row in cell.rounds] == [1, 2]
    assert cell.final()["epsilon-client"].score.value <= one * 1.0001


def test_a_budget_too_small_for_one_round_is_told_before_training(folder: Path) -> None:
    arms: dict[str, dict[str, Any]] = {
        "a": {"defence.name": "dp-fixed", "privacy.noise": 0.1, "privacy.budget": 0.01},
        "b": {"privacy.image-bound": 1.0, "train.batch": 64},
    }
    with pytest.raises(ConfigError, match="not even one round") as told:
        private(folder, arms, "poor")
    assert "arm 'b'" in str(told.value)
    assert "fewer than train.batch = 64" in str(told.value)
    assert runlog.read(folder / "poor").cells == {}


def test_promises_follow_the_sampling() -> None:
    def promised(**keys: Any) -> float:
        config = RunConfig.from_flat({"defence.name": "dp-fixed", "privacy.noise": 4.0, **keys})
        return promises(config, [100] * 20, 30)[0].value

    delta = default_delta(20)
    assert promised() == Accountant(4.0, delta, FULL).epsilon(30)
    assert promised(**{"train.fraction": 0.25}) == Accountant(4.0, delta, FixedSize(5, 20)).epsilon(30)
    poisson = {"train.fraction": 0.25, "train.sampling": "poisson"}
    assert promised(**poisson) == Accountant(4.0, delta, Poisson(0.25)).epsilon(30)
    assert promises(RunConfig(), [100] * 20, 30) == []


def test_a_classifier_s_noised_replies_promise_for_themselves() -> None:
    def told(protect: str, **keys: Any) -> RunConfig:
        return RunConfig.from_flat({"train.task": "classifier", "classifier.protect": protect, **keys})

    (found,) = promises(told("clip-noise=4,local-statistics=1"), [30, 40], 5)
    assert (found.name, found.value) == ("epsilon-replies", epsilon(4.0, default_delta(2), 5))
    assert "trusted: nobody: the reply itself is protected" in found.reason
    assert "in the clear beside a reply: how many images it is of" in found.reason
    assert promises(told("noise=4"), [30, 40], 5) == []
    assert promises(told("clip-noise=0"), [30, 40], 5)[0].reason == "no guarantee"
    budget = {"privacy.budget": found.value, "train.rounds": 50}
    assert affordable(told("clip-noise=4", **budget), [30, 40]).train.rounds == 5


def test_the_smallest_site_sets_the_promise_and_the_budget() -> None:
    config = RunConfig.from_flat({"privacy.image-bound": 1.0, "privacy.budget": 8.0, "train.batch": 8})
    fewer = affordable(config, [400, 90]).train.rounds
    assert fewer == affordable(config, [90]).train.rounds < affordable(config, [400]).train.rounds
    assert promises(config, [400, 90], fewer)[0].value <= 8.0
    assert promises(config, [400, 90], fewer + 1)[0].value > 8.0
