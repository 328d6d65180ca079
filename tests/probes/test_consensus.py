"""What restarts agree on: images that were moved are put back, and chance is no shift."""

from __future__ import annotations

import torch

from fedsec.probes.consensus import consensus, shifts_onto_mean
from tests.probes.rounds import SMALL, images_of


def test_images_that_were_moved_are_put_back() -> None:
    truth = images_of(SMALL, 2, "consensus")
    restarts = torch.stack([truth, truth, truth, torch.roll(truth, (2, -1), (-2, -1))])
    shifts = shifts_onto_mean(restarts)
    assert shifts.shape == (4, 2, 2)
    assert shifts[:3].any() == False  # noqa: E712
    assert shifts[3].tolist() == [[-2, 1], [-2, 1]]
    torch.testing.assert_close(consensus(restarts, shifts), truth)
    assert not torch.allclose(consensus(restarts, 0 * shifts), truth, atol=1e-2)


def test_a_shift_that_is_too_far_is_chance() -> None:
    truth = images_of(SMALL, 1, "consensus")
    restarts = torch.stack([truth, truth, truth, torch.roll(truth, (12, 0), (-2, -1))])
    assert not shifts_onto_mean(restarts).any()


def test_what_has_no_structure_stays_where_it_is() -> None:
    flat = torch.zeros(2, 1, 3, 16, 16)
    assert not shifts_onto_mean(flat).any()
    broken = torch.full_like(flat, torch.nan)
    assert not shifts_onto_mean(broken).any()


def test_it_is_a_target_not_a_variable() -> None:
    images = images_of(SMALL, 1, "consensus").repeat(2, 1, 1, 1, 1).requires_grad_(True)
    agreed = consensus(images, shifts_onto_mean(images))
    assert not agreed.requires_grad
