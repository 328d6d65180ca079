"""Labels from the last bias: exact for one image, counts for a batch."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from clients.classifier import ClassifierClient
from fedsec.datasets.phantom import draw
from fedsec.errors import ProbeError
from fedsec.images import to_images
from fedsec.models.networks import NetworkSpec, new_network
from fedsec.models.state import network_arrays
from fedsec.probes.labels import label_counts, only_label, replies
from fedsec.probes.replica import Replica
from fedsec.probes.view import Recipe, ServerView
from fedsec.types import Rows

RECIPE = Recipe(network="convnet", size=32, classes=3)


@pytest.fixture(scope="module")
def rows() -> Rows:
    raw = draw("chest", 60, 32, seed=0)
    return Rows(raw.pixels, np.arange(60) % 3)


def captured(recipe: Recipe, rows: Rows) -> ServerView:
    client = ClassifierClient(recipe, rows, partition=0, seed=0)
    client.fit(list(network_arrays(new_network(NetworkSpec("convnet", classes=3), seed=1)).values()), {"round": 1})
    assert client.captured is not None
    return client.captured


@pytest.mark.parametrize("place", [0, 1, 2])
def test_the_label_of_one_image_is_exact(rows: Rows, place: int) -> None:
    assert only_label(captured(RECIPE, rows.take(np.array([place])))) == place


@pytest.mark.parametrize(("counts", "steps"), [((6, 0, 2), 1), ((0, 1, 7), 1), ((4, 3, 1), 2), ((0, 0, 8), 2)])
def test_the_counts_of_a_batch(rows: Rows, counts: tuple[int, ...], steps: int) -> None:
    index = np.concatenate([np.flatnonzero(rows.labels == k)[:n] for k, n in enumerate(counts)])
    recipe = replace(RECIPE, batch=8 // steps, steps=steps)
    view = captured(recipe, rows.take(index))
    public = rows.take(np.arange(24, 60))
    given = replies(Replica(recipe, view.before), to_images(public.pixels), public.labels)
    np.testing.assert_allclose(given.sum(axis=1), 1, atol=1e-6)
    assert label_counts(view, given) == counts


def test_what_cannot_be_read_is_refused(rows: Rows) -> None:
    with pytest.raises(ProbeError, match="2 images: one label"):
        only_label(captured(replace(RECIPE, batch=2), rows.take(np.arange(2))))
    with pytest.raises(ProbeError, match=r"momentum 0\.9 over 2 steps"):
        only_label(captured(replace(RECIPE, momentum=0.9, steps=2), rows.take(np.arange(1))))
    replica = Replica(replace(RECIPE, batch=4), network_arrays(new_network(NetworkSpec("convnet", classes=3), seed=1)))
    with pytest.raises(ProbeError, match="class 2: fewer than 4"):
        replies(replica, to_images(rows.pixels[:12]), np.arange(12) % 2)
