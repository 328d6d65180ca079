"""Groups are read from statistics, as well as the statistics tell them apart."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from clients.classifier import ClassifierClient
from fedsec.errors import ProbeError
from fedsec.images import to_images
from fedsec.models.networks import new_network
from fedsec.models.state import network_arrays
from fedsec.probes.hints import GroupReader
from fedsec.probes.replica import Replica
from fedsec.probes.view import Recipe, ServerView
from fedsec.types import Rows

RECIPE = Recipe(network="convnet", size=32, batch=8)


def rows(dark: int, bright: int, seed: int, *, apart: int = 30) -> Rows:
    """Noise around two shades; their groups are the labels."""
    rng, labels = np.random.default_rng(seed), np.repeat([0, 1], [dark, bright])
    shade = np.where(labels == 0, 100, 100 + apart)[:, None, None, None]
    noisy = shade + 40 * rng.standard_normal((dark + bright, 32, 32, 1))
    return Rows(np.clip(noisy, 0, 255).astype(np.uint8), labels)


def view_of(own: Rows, recipe: Recipe = RECIPE) -> ServerView:
    client = ClassifierClient(recipe, own, partition=0, seed=0)
    client.fit(list(network_arrays(new_network(recipe.spec, seed=1)).values()), {"round": 1})
    assert client.captured is not None
    return client.captured


def reader(view: ServerView, public: Rows) -> GroupReader:
    replica = Replica(view.recipe, view.before)
    return GroupReader(replica, to_images(public.pixels), public.labels, examples=view.examples, rounds=60)


@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("bright", [0, 2, 6, 8])
def test_shares_are_read(bright: int, steps: int) -> None:
    view = view_of(rows(8 - bright, bright, seed=1), replace(RECIPE, steps=steps, lr=0.001))
    shares = reader(view, rows(40, 40, seed=2))(view)
    assert shares.sum() == pytest.approx(1)
    assert shares[1] == pytest.approx(bright / 8, abs=0.12)


def test_groups_that_look_alike_are_not_told_apart() -> None:
    public = rows(40, 40, seed=2, apart=0)
    found = [reader(view, public)(view)[1] for view in (view_of(rows(8, 0, seed=s, apart=0)) for s in range(3))]
    assert np.mean(found) == pytest.approx(0.5, abs=0.2)


def test_what_cannot_be_read_says_why() -> None:
    view = view_of(rows(4, 4, seed=1))
    with pytest.raises(ProbeError, match="have no public image"):
        reader(view, Rows(rows(4, 4, seed=2).pixels, np.full(8, 2)))
    with pytest.raises(ProbeError, match="no batch statistics"):
        reader(view_of(rows(4, 4, seed=1), replace(RECIPE, norm="group")), rows(4, 4, seed=2))
