"""The classifier client: what it sends is what the server's view holds, and the recipe is followed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch

from clients.classifier import ClassifierClient
from fedsec.models.networks import NetworkSpec, new_network
from fedsec.models.state import network_arrays
from fedsec.probes.batchnorm import steps_taken
from fedsec.probes.view import Recipe
from fedsec.types import Rows

RECIPE = Recipe(network="convnet", size=32, steps=3, batch=4)


def rows(count: int = 10) -> Rows:
    rng = np.random.default_rng(0)
    return Rows(rng.integers(0, 256, (count, 32, 32, 1), dtype=np.uint8), np.arange(count) % 2)


def start() -> list[np.ndarray]:
    return list(network_arrays(new_network(NetworkSpec("convnet"), seed=1)).values())


def client(**changes: Any) -> ClassifierClient:
    return ClassifierClient(replace(RECIPE, **changes), rows(), partition=2, seed=5)


def test_captured_is_what_was_sent() -> None:
    own = client()
    sent, examples, told = own.fit(start(), {"round": 1})
    view = own.captured
    assert view is not None
    assert view.examples == examples == 10
    assert np.isfinite(told["loss"])
    for value, seen in zip(sent, view.after.values(), strict=True):
        np.testing.assert_array_equal(value, seen)
    for value, seen in zip(start(), view.before.values(), strict=True):
        np.testing.assert_array_equal(value, seen)


def test_takes_the_steps_of_the_recipe_with_its_momentum() -> None:
    own = client(steps=7, bn_momentum=0.5)
    own.fit(start(), {"round": 1})
    view = own.captured
    assert view is not None
    assert steps_taken(view.before, view.after) == 7
    assert own._batches(1)[0].shape == (4,)
    assert sorted(np.concatenate(own._batches(1)[:3])) == list(range(10)), "one pass sees every image once"


def test_same_address_same_bytes_and_another_round_another_order() -> None:
    torch.manual_seed(0)
    first = client().fit(start(), {"round": 1})[0]
    torch.manual_seed(1)
    second = client().fit(start(), {"round": 1})[0]
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one, other)
    assert not np.array_equal(client().fit(start(), {"round": 2})[0][0], first[0])


def test_frozen_statistics_stay_as_they_were_sent() -> None:
    own = client(norm="frozen")
    own.fit(start(), {"round": 1})
    view = own.captured
    assert view is not None
    moved = [name for name in view.before if not np.array_equal(view.before[name], view.after[name])]
    assert moved
    assert not [name for name in moved if "running" in name or "tracked" in name]
