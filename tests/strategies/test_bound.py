"""A bound on the length of an update, in front of what weighs clients: honest ones untouched, scaled ones cut."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from clients.client_app import app
from fedsec.config import RunConfig
from fedsec.defences.geometry import within
from fedsec.errors import ConfigError
from strategies.server_app import run_experiment
from tests.local_grid import LocalGrid
from tests.quick_extractor import keep_quick_extractor


def test_factors_bring_rows_to_the_bound_and_leave_shorter_ones() -> None:
    rows = np.array([[3.0, 4.0], [0.0, 5.0], [30.0, 40.0], [0.0, 0.0]])
    factors = within(list(rows), 2.0)
    assert factors == pytest.approx([1, 1, 0.2, 1])
    assert np.linalg.norm(rows * factors[:, None], axis=1).max() == pytest.approx(10)


def test_a_scaled_update_is_cut_and_an_honest_round_is_the_same_to_the_bit(tmp_path: Path) -> None:
    scaled = {"attack.update": "scale", "attack.strength": 200.0}
    arms = {
        "clean": {},
        "clean+bound": {"defence.bound": 3.0},
        "scaled": scaled,
        "scaled+bound": {**scaled, "defence.bound": 3.0},
    }
    flat = {
        "data.count": 160,
        "split.clients": 4,
        "gan.width": 4,
        "gan.latent": 8,
        "train.rounds": 2,
        "train.steps": 2,
        "train.batch": 4,
        "measure.samples": 64,
        "measure.every": 2,
        "measure.utility": "",
        "run.out": str(tmp_path),
        "run.arms": json.dumps(arms),
    }
    settings = RunConfig.from_flat(flat)
    keep_quick_extractor(settings.data)
    folder = run_experiment(LocalGrid(app, settings.to_flat(), nodes=4), settings, wait=1)
    kept = {arm: load_file(folder / f"generator-{arm}-0.safetensors") for arm in arms}
    for name, value in kept["clean"].items():
        np.testing.assert_array_equal(value, kept["clean+bound"][name])

    def far(arm: str) -> float:
        return float(np.sqrt(sum(np.square(v - kept["clean"][k]).sum() for k, v in kept[arm].items())))

    assert far("scaled") > 10 * far("scaled+bound") > 0


def test_a_bound_is_refused_where_nobody_is_weighed() -> None:
    with pytest.raises(ConfigError, match="'median' weighs no clients"):
        RunConfig.from_flat({"defence.name": "median", "defence.bound": 2.0})
