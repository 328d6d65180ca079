"""The maps in front of a strided convolution, from those behind it: exact without noise, refused otherwise."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from clients.classifier import ClassifierClient
from fedsec.models.networks import NetworkSpec, new_network
from fedsec.models.state import network_arrays
from fedsec.probes.replica import Replica
from fedsec.probes.rowspace import Maps
from fedsec.probes.upstream import before_stride
from fedsec.probes.view import Recipe, ServerView
from fedsec.types import Rows

BEHIND, BEFORE = "layer3.0.conv2", "layer3.0.conv1"


@pytest.fixture(scope="module")
def rows() -> Rows:
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (1, 16, 16, 1))
    return Rows(coarse.repeat(4, axis=1).repeat(4, axis=2).astype(np.uint8), np.array([1]))


@pytest.fixture(scope="module")
def view(rows: Rows) -> ServerView:
    client = ClassifierClient(Recipe(), rows, partition=0, seed=0)
    client.fit(list(network_arrays(new_network(NetworkSpec(), seed=1)).values()), {"round": 1})
    assert client.captured is not None
    return client.captured


def entering(replica: Replica, layer: str, rows: Rows) -> np.ndarray:
    images = torch.from_numpy(rows.pixels.astype(np.float32)).permute(0, 3, 1, 2) / 127.5 - 1
    with torch.no_grad():
        values = replica.entering(layer, images)[0].double().numpy()
    return np.asarray(values / np.linalg.norm(values))


def test_the_map_before_the_stride_comes_back(view: ServerView, rows: Rows) -> None:
    replica = Replica(view.recipe, view.before)
    found = before_stride(view, replica, Maps(BEHIND, entering(replica, BEHIND, rows), 1e9))
    assert found is not None
    assert found.layer == BEFORE
    assert float((found.maps * entering(replica, BEFORE, rows)).sum()) > 0.9999


def test_a_map_of_something_else_leaves_equations_unexplained(view: ServerView) -> None:
    replica = Replica(view.recipe, view.before)
    other = np.abs(np.random.default_rng(1).standard_normal((1, 256, 4, 4)))
    assert before_stride(view, replica, Maps(BEHIND, other / np.linalg.norm(other), 1e9)) is None


def test_more_steps_or_no_statistics_give_nothing(view: ServerView, rows: Rows) -> None:
    replica = Replica(view.recipe, view.before)
    maps = Maps(BEHIND, entering(replica, BEHIND, rows), 1e9)
    assert before_stride(replace(view, recipe=replace(view.recipe, steps=2)), replica, maps) is None
    kept = {name: value for name, value in view.after.items() if "running" not in name}
    assert before_stride(replace(view, after=kept), replica, maps) is None
    assert before_stride(view, replica, replace(maps, layer="layer3.1.conv1")) is None
