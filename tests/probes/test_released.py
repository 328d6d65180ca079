"""The released attack keeps its defects: what it draws does not depend on the update it says it matches."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from clients.classifier import ClassifierClient
from fedsec.models.networks import NetworkSpec, new_network
from fedsec.models.state import network_arrays
from fedsec.probes.released import released, released_together
from fedsec.probes.view import Recipe, ServerView
from fedsec.types import Rows
from tests.recordable import checked

PRIOR = np.zeros((1, 1, 32, 32), np.float32)


def captured(seed: int) -> ServerView:
    rng = np.random.default_rng(seed)
    rows = Rows(rng.integers(0, 256, (2, 32, 32, 1), dtype=np.uint8), np.array([0, 1]))
    client = ClassifierClient(Recipe(network="convnet", size=32, batch=2), rows, partition=0, seed=0)
    client.fit(list(network_arrays(new_network(NetworkSpec("convnet"), seed=1)).values()), {"round": 1})
    assert client.captured is not None
    return client.captured


@pytest.fixture(scope="module")
def view() -> ServerView:
    return captured(3)


def test_each_result_spans_the_range_and_repeats(view: ServerView) -> None:
    first = released(view, prior=PRIOR, seed=0, iterations=5)
    assert first.shape == (2, 1, 32, 32)
    np.testing.assert_allclose(first.min(axis=(1, 2, 3)), -1, atol=1e-6)
    np.testing.assert_allclose(first.max(axis=(1, 2, 3)), 1, atol=1e-6)
    np.testing.assert_array_equal(first, released(view, prior=PRIOR, seed=0, iterations=5))


def test_the_update_of_the_last_layer_changes_nothing(view: ServerView) -> None:
    other = {**view.after, "fc.weight": view.after["fc.weight"] + 1}
    expected = released(view, prior=PRIOR, seed=0, iterations=5)
    np.testing.assert_array_equal(released(replace(view, after=other), prior=PRIOR, seed=0, iterations=5), expected)


def test_the_statistics_do(view: ServerView) -> None:
    name = "features.1.running_mean"
    other = {**view.after, name: view.after[name] + 1}
    expected = released(view, prior=PRIOR, seed=0, iterations=5)
    assert not np.array_equal(released(replace(view, after=other), prior=PRIOR, seed=0, iterations=5), expected)


def test_views_in_one_pass_are_drawn_as_each_is_alone(view: ServerView) -> None:
    views, seen = [view, captured(4), captured(5)], list[int]()
    found = released_together(views, prior=PRIOR, seed=0, iterations=3, say=seen.append)
    assert seen == [1, 2, 3]
    for images, one in zip(found, views, strict=True):
        np.testing.assert_allclose(images, released(one, prior=PRIOR, seed=0, iterations=3), atol=1e-4)
    assert np.abs(found[0] - found[1]).max() > 0.1


def test_an_iteration_can_be_recorded(view: ServerView, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = released(view, prior=PRIOR, seed=0, iterations=3)
    monkeypatch.setattr("fedsec.probes.released.recorded", checked)
    np.testing.assert_array_equal(released(view, prior=PRIOR, seed=0, iterations=3), expected)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU on this machine")
def test_on_cuda_replayed_iterations_are_the_plain_ones(view: ServerView, monkeypatch: pytest.MonkeyPatch) -> None:
    replayed = released(view, prior=PRIOR, seed=0, iterations=4, device="cuda")
    monkeypatch.setattr("fedsec.probes.released.recorded", lambda function, device: function)
    plain = released(view, prior=PRIOR, seed=0, iterations=4, device="cuda")
    assert np.abs(replayed - plain).mean() < 0.01  # a pixel whose slope is rounding goes either way
