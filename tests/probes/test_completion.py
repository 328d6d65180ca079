"""Pruned updates of low rank, filled in: held against the matrix before pruning, and against real rounds."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from fedsec.privacy.protection import prune
from fedsec.probes.completion import Matrix, completed_rows, pruned
from fedsec.probes.rowspace import known_rows, null_space, recovered_maps, row_space
from fedsec.seeds import stream
from tests.probes.rounds import RESNET, trained


def low_rank(rows: int = 60, columns: int = 200, rank: int = 4) -> Matrix:
    rng = stream(0, "low rank")
    return np.asarray(rng.standard_normal((rows, rank)) @ rng.standard_normal((rank, columns)))


def largest(matrix: Matrix, share: float) -> Matrix:
    """What pruning leaves: the largest ``share`` of the entries."""
    return np.where(np.abs(matrix) >= np.quantile(np.abs(matrix), 1 - share), matrix, 0)


@pytest.mark.parametrize("share", [0.8, 0.5, 0.3])
def test_the_row_space_comes_back_from_the_largest_entries(share: float) -> None:
    whole = low_rank()
    left = largest(whole, share)
    found = completed_rows(left, 4)
    assert found is not None
    assert np.array_equal(found.seen, (left != 0).sum(axis=0) >= 4)
    assert not found.basis[~found.seen].any()
    np.testing.assert_allclose(found.basis.T @ found.basis, np.eye(4), atol=1e-9)
    true = np.linalg.svd(whole[:, found.seen], full_matrices=False)[2][:4]
    assert np.linalg.svd(true @ found.basis[found.seen], compute_uv=False).min() > 1 - 1e-9


def test_what_is_of_no_low_rank_or_too_little_known_is_not_made_up() -> None:
    noise = stream(0, "noise").standard_normal((60, 200))
    assert completed_rows(largest(noise, 0.5), 4) is None
    assert completed_rows(largest(low_rank(), 0.05), 4) is None


def test_whole_updates_dead_rows_and_pruned_ones_are_told_apart() -> None:
    whole = low_rank()
    dead = whole.copy()
    dead[:7], dead[:, :30] = 0, 0
    assert not pruned(whole)
    assert not pruned(dead)
    assert not pruned(np.zeros((3, 3)))
    assert pruned(largest(whole, 0.9))
    rounded = np.where(stream(0, "rounded").random(whole.shape) < 0.1, 0, whole)
    rounded[0, :] = 1e-7
    assert not pruned(rounded), "zeros by rounding stand beside tiny entries"
    plain = known_rows(whole, 4)
    assert plain is not None
    assert plain.seen.all()
    assert np.array_equal(plain.basis, row_space(whole, 4))


def test_a_real_update_gives_its_maps_though_half_of_it_is_pruned() -> None:
    round_, layer = trained(RESNET, batch=1), "layer3.0.conv2"
    basis = row_space(round_.view.update[f"{layer}.weight"].reshape(256, -1), 15)
    space, gap = null_space(basis, round_.replica.convolutions()[layer], 1, centred=True, seed=0)
    assert gap > 1e6
    after = prune(round_.view.before, round_.view.after, 0.5, stream(0, "unused"))
    found = next(recovered_maps(replace(round_.view, after=after), round_.replica))
    assert found.layer == layer
    assert abs(float(found.maps[0].ravel() @ space[:, 0])) > 0.9999
