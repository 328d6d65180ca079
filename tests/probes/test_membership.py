"""Membership scores against evidence whose members are known; and laws over every entry of ATTACKS."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from fedsec.errors import ProbeError
from fedsec.probes.membership import (
    ATTACKS,
    OWN_SPREAD,
    Held,
    confidence,
    lira_offline,
    lira_online,
    loss,
    nearest,
    queries,
)
from fedsec.seeds import stream

N, QUERIES = 400, 2
MEMBER = np.arange(N) < N // 2


def evidence(shadows: int = 20, gain: float = 1.0, spread: float = 0.3) -> Held:
    """Candidates of very unlike difficulty; a model is ``gain`` surer of those it was trained on."""
    rng = stream(0, "evidence", shadows)
    ease = rng.normal(0, 4, N)
    inside = np.stack([rng.permutation(N) < N // 2 for _ in range(shadows)])
    noise = rng.normal(0, spread, (shadows + 1, QUERIES, N))
    near = rng.uniform(1, 9, N)
    return Held(
        target=ease + gain * MEMBER + noise[0],
        shadows=ease + gain * inside[:, None, :] + noise[1:],
        inside=inside,
        distance=near - 0.5 * gain * MEMBER + 0.1 * noise[0, 0],
        reference=near + 0.1 * noise[0, 1],
        realness=gain * MEMBER + noise[0, 0],
    )


def auc(scores: np.ndarray) -> float:
    return float(roc_auc_score(MEMBER, scores))


@pytest.mark.parametrize("name", list(ATTACKS))
def test_every_attack_ranks_members_above_strangers_and_says_what_it_is(name: str) -> None:
    attack = ATTACKS[name]
    scores = attack.score(evidence(gain=8.0))
    assert scores.shape == (N,)
    assert scores.dtype == np.float64
    assert np.isfinite(scores).all()
    assert auc(scores) > 0.75
    assert 0.4 < auc(attack.score(evidence(gain=0.0))) < 0.6
    assert attack.of in ("classifier", "generator")
    assert attack.knows
    assert attack.source


@pytest.mark.parametrize("name", list(ATTACKS))
def test_the_order_of_candidates_does_not_matter(name: str) -> None:
    held, order = evidence(), stream(0, "order").permutation(N)
    moved = Held(**{field.name: getattr(held, field.name)[..., order] for field in fields(Held)})
    np.testing.assert_allclose(ATTACKS[name].score(moved), ATTACKS[name].score(held)[order], rtol=1e-9)


@pytest.mark.parametrize("name", list(ATTACKS))
def test_what_is_not_held_cannot_be_used(name: str) -> None:
    with pytest.raises(ProbeError, match="does not hold"):
        ATTACKS[name].score(Held())


@pytest.mark.parametrize("shadows", [20, 3 * OWN_SPREAD])
def test_shadows_take_each_images_difficulty_away(shadows: int) -> None:
    """One spread for all candidates, or with many shadows one for each."""
    held = evidence(shadows)
    assert auc(loss(held)) < 0.65
    assert auc(lira_online(held)) > 0.97
    assert auc(lira_offline(held)) > 0.95


@pytest.mark.parametrize("attack", [lira_online, lira_offline])
def test_lira_looks_at_a_candidate_against_itself_alone(attack: object) -> None:
    held, offset = evidence(), stream(0, "offset").normal(0, 5, N)
    assert held.target is not None
    assert held.shadows is not None
    moved = replace(held, target=held.target + offset, shadows=held.shadows + offset)
    score = ATTACKS["lira-online"].score if attack is lira_online else ATTACKS["lira-offline"].score
    np.testing.assert_allclose(score(moved), score(held), atol=1e-6, rtol=1e-6)


def test_equal_shadows_divide_by_nothing() -> None:
    held = evidence(spread=0.0)
    for attack in (lira_online, lira_offline):
        assert np.isfinite(attack(held)).all()
        assert auc(attack(held)) == 1


def test_lira_needs_two_shadows_on_each_side_and_arrays_that_fit() -> None:
    held = evidence()
    assert held.inside is not None
    with pytest.raises(ProbeError, match="at least 2 with it"):
        lira_online(replace(held, inside=np.ones_like(held.inside)))
    with pytest.raises(ProbeError, match="must be"):
        lira_online(replace(held, inside=held.inside[1:]))


def test_confidence_is_the_logit_of_the_true_class_and_stays_finite() -> None:
    logits, labels = stream(0, "logits").normal(0, 2, (50, 4)), np.arange(50) % 4
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    own = shares[np.arange(50), labels]
    np.testing.assert_allclose(confidence(logits, labels), np.log(own / (1 - own)), rtol=1e-9)
    before = logits.copy()
    assert np.isfinite(confidence(1e3 * logits, labels)).all()
    assert np.array_equal(logits, before)
    two = np.array([[1.0, 4.0]])
    assert confidence(two, np.array([1]))[0] == pytest.approx(3)


def test_the_loss_attack_is_minus_cross_entropy() -> None:
    logits, labels = stream(0, "logits").normal(0, 2, (50, 3)), np.arange(50) % 3
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    held = Held(target=confidence(logits, labels)[None])
    np.testing.assert_allclose(loss(held), np.log(shares[np.arange(50), labels]), rtol=1e-9)


def test_queries_are_the_image_its_mirror_and_four_small_moves() -> None:
    images = stream(0, "queries").uniform(-1, 1, (3, 1, 8, 8)).astype(np.float32)
    plain, mirrored, up, down, left, right = queries(images, 2)
    assert np.array_equal(plain, images)
    assert np.array_equal(mirrored[..., ::-1], images)
    assert np.array_equal(up[:, :, :-2], images[:, :, 2:])
    assert np.array_equal(down[:, :, 2:], images[:, :, :-2])
    assert np.array_equal(left[..., :-2], images[..., 2:])
    assert np.array_equal(right[..., 2:], images[..., :-2])
    assert not up[:, :, -2:].any()
    assert not right[..., :2].any()


def test_nearest_is_the_smallest_distance() -> None:
    rng = stream(0, "nearest")
    candidates, drawn = rng.normal(0, 1, (30, 5)), rng.normal(0, 1, (11, 5))
    drawn[3] = candidates[7]
    found = nearest(candidates, drawn, block=8)
    by_hand = np.linalg.norm(candidates[:, None] - drawn[None], axis=2).min(axis=1)
    np.testing.assert_allclose(found, by_hand, atol=1e-6)
    assert found[7] == pytest.approx(0, abs=1e-6)
    with pytest.raises(ProbeError, match="at least one"):
        nearest(candidates, drawn[:0])
