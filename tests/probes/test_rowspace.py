"""Maps out of real updates, held against what really entered the layer; and none out of what is no update."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.sparse.linalg import LinearOperator

from fedsec.probes.replica import Replica
from fedsec.probes.rowspace import (
    ALIKE,
    Maps,
    extreme_rays,
    null_space,
    recovered_maps,
    rectified,
    row_space,
    smallest,
    zeros,
)
from fedsec.probes.view import Recipe, ServerView
from fedsec.seeds import stream
from fedsec.types import Features
from tests.probes.rounds import RESNET, SMALL, Round, disturbed, trained

TINY = replace(SMALL, size=16)
NOTHING = Maps("", np.zeros((0, 1, 1, 1)), 1.0)


def first(view: ServerView, replica: Replica) -> Maps:
    return next(recovered_maps(view, replica), NOTHING)


def cosines(done: Round, found: Maps) -> Features:
    """(images, maps); each batch by itself through the weights sent out."""
    truth = torch.cat([done.replica.entering(found.layer, images)[0] for images, _ in done.batches]).double()
    assert truth.shape == found.maps.shape
    rows = truth.flatten(1).numpy()
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows @ found.maps.reshape(len(found.maps), -1).T, np.float64)


@pytest.mark.parametrize(
    ("recipe", "layer"),
    [
        (RESNET, "layer2.0.conv2"),
        (replace(RESNET, norm="group", batch=2), "layer3.0.conv2"),
        (replace(RESNET, batch=4), "layer3.0.conv2"),
        (TINY, "features.8"),
        (replace(TINY, norm="frozen"), "features.8"),
        (replace(TINY, norm="none"), "features.8"),
    ],
)
def test_the_first_maps_are_the_truth(recipe: Recipe, layer: str) -> None:
    done = trained(recipe)
    found = first(done.view, done.replica)
    assert found.layer == layer
    assert found.gap > 1e5
    np.testing.assert_allclose(np.linalg.norm(found.maps.reshape(recipe.batch, -1), axis=1), 1)
    alike = cosines(done, found) > 0.999
    assert (alike.sum(axis=0) == 1).all()
    assert (alike.sum(axis=1) == 1).all()


def test_a_seed_gives_the_same_maps() -> None:
    done = trained(replace(TINY, norm="none"))
    np.testing.assert_array_equal(first(done.view, done.replica).maps, first(done.view, done.replica).maps)


def test_nothing_comes_out_of_a_random_update() -> None:
    done = trained(TINY, norm="none")
    assert list(recovered_maps(disturbed(done.view, 1, alone=True), done.replica)) == []


def test_noise_never_makes_a_false_map() -> None:
    """Either the true ones or none at all; at a thousandth of the update's size there still are some."""
    done = trained(TINY, norm="none")
    counted = []
    for share in (1e-4, 0.001, 0.01, 0.1):
        every = list(recovered_maps(disturbed(done.view, share), done.replica))
        counted.append(len(every))
        for found in every:
            assert cosines(done, found).max(axis=0).min() > 0.99
    assert counted[0] > 0
    assert counted[-1] == 0


@pytest.mark.parametrize("share", [None, 0.1])
def test_the_gap_tells_noise_from_an_update(share: float | None) -> None:
    """A random matrix of the update's size has no gap; a noised update has none, or one that the truth made."""
    done = trained(TINY)
    view = disturbed(done.view, 1, alone=True) if share is None else disturbed(done.view, share)
    kernel = view.update["features.8.weight"].reshape(128, -1)
    geometry = done.replica.convolutions()["features.8"]
    space, gap = null_space(row_space(kernel, 15), geometry, 1, centred=True, seed=0)
    truth = done.replica.entering("features.8", done.images)[0].flatten().double().numpy()
    assert gap < 10 or (share is not None and np.linalg.norm(space.T @ truth) > 0.99 * np.linalg.norm(truth))


@pytest.mark.parametrize("bad", [0.0, np.nan, np.inf])
def test_an_update_of_nothing_or_not_of_numbers(bad: float) -> None:
    done = trained(TINY, norm="none")
    spoilt = {**done.view.after, "features.8.weight": np.add(done.view.before["features.8.weight"], np.float32(bad))}
    assert list(recovered_maps(replace(done.view, after=spoilt), done.replica)) == []


@pytest.mark.parametrize("changes", [{"batch": 9}, {"batch": 1, "steps": 9}, {"batch": 3, "size": 32}])
def test_layers_too_narrow_are_passed_over(changes: dict[str, int], monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object, **__: object) -> Iterator[Maps]:
        raise AssertionError("looked into a layer with no more channels than positions")

    monkeypatch.setattr("fedsec.probes.rowspace.row_space", never)
    done = trained(TINY, **changes)
    assert list(recovered_maps(done.view, done.replica)) == []


def test_the_smallest_eigenpairs_of_a_known_matrix() -> None:
    rng = stream(0, "eigen")
    turn = np.linalg.qr(rng.standard_normal((60, 60)))[0]
    matrix = (turn * np.r_[0, 1e-9, 1, np.linspace(1.5, 9, 57)]) @ turn.T
    operator = LinearOperator((60, 60), matvec=lambda v: matrix @ v, matmat=lambda v: matrix @ v, dtype=np.float64)
    values, vectors, residuals = smallest(operator, rng.standard_normal((60, 4)), 2)
    assert (np.diff(values) >= 0).all()
    assert np.abs(values[:2]).max() < 1e-7
    assert residuals[:2].max() < 1e-7
    assert values[2] == pytest.approx(1, rel=0.1)
    np.testing.assert_allclose(np.linalg.norm(vectors[:, :2].T @ turn[:, :2], axis=0), 1, atol=1e-6)


def test_a_problem_too_small_for_its_block_warns_nobody() -> None:
    diagonal = np.arange(8.0)
    operator = LinearOperator(
        (8, 8), matvec=lambda v: diagonal * v, matmat=lambda v: diagonal[:, None] * v, dtype=float
    )
    values, _, _ = smallest(operator, stream(0, "small").standard_normal((8, 3)), 1)
    np.testing.assert_allclose(values, [0, 1, 2], atol=1e-9)


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_extreme_rays_of_a_mixed_cone(count: int) -> None:
    rng = stream(0, "cone", count)
    rays = np.maximum(rng.standard_normal((count, 400)), 0)
    rays /= np.linalg.norm(rays, axis=1, keepdims=True)
    space = np.linalg.qr(rays.T @ rng.standard_normal((count, count)))[0]
    found = np.stack(extreme_rays(space, seed=0))
    assert found.shape == (count, 400)
    assert sorted(np.argmax(found @ rays.T, axis=1)) == list(range(count))
    assert (np.max(found @ rays.T, axis=1) > ALIKE).all()
    assert all(rectified(ray, alone=False) for ray in found)


def test_a_ray_alone_stands_upright_whatever_its_sum() -> None:
    for column in (-np.ones(4), np.array([1.0, -1.0, 1.0, -1.0])):
        (only,) = extreme_rays((column / 2)[:, None], seed=0)
        assert np.linalg.norm(only) == pytest.approx(1)
        assert only.sum() >= 0


def test_what_can_have_left_a_relu() -> None:
    rng = stream(0, "relu")
    one, two = np.maximum(rng.standard_normal((2, 1000)), 0)
    assert zeros(one) == pytest.approx(0.5, abs=0.06)
    assert rectified(one, alone=False)
    assert not rectified(one + two, alone=False)
    assert rectified(one + two, alone=True)
    assert not rectified(rng.standard_normal(1000), alone=True)
