"""The sleeve of fed-inspect: long updates are cut before they are drawn from, suspicion costs a share bit by bit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fedsec.config import RunConfig
from fedsec.defences.inspection import BOUND
from fedsec.types import Arrays, Fit, Images
from strategies.fedinspect import FedInspect
from studies.detection.adaptive import Federation, federation

TINY = {"data.count": 160, "split.clients": 4, "gan.width": 4, "gan.latent": 8, "train.rounds": 12}


def cell(folder: Path, **settings: object) -> Federation:
    flat = {**TINY, "defence.name": "fed-inspect", **{k.replace("__", "."): v for k, v in settings.items()}}
    return federation(RunConfig.from_flat(flat), 0, folder)


def told(found: Federation, lengths: list[float], seed: int = 0) -> list[Fit]:
    """Replies whose updates point anywhere and have these lengths."""
    strategy, rng = found.strategy, np.random.default_rng(seed)
    moves = rng.normal(size=(len(lengths), len(strategy.current)))
    moves *= np.array(lengths)[:, None] / np.linalg.norm(moves, axis=1, keepdims=True)
    arrays = [strategy.layout.arrays(strategy.current + move) for move in moves]
    return [Fit(i, each, 10, {"g-loss": 1.0}) for i, each in enumerate(arrays)]


@pytest.mark.parametrize(("bound", "kept"), [(0.0, BOUND), (2.0, 2.0), (50.0, 4.0)])
def test_what_is_averaged_is_what_was_drawn_from_a_long_update_cut_to_the_bound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bound: float, kept: float
) -> None:
    found = cell(tmp_path, defence__bound=bound)
    strategy, drawn = found.strategy, list[Arrays]()

    def draw(self: FedInspect, fit: Fit, seed: int) -> Images:
        drawn.append(fit.arrays)
        return np.zeros((128, 3, 32, 32), np.float32)

    monkeypatch.setattr(FedInspect, "_draw", draw)
    before = strategy.current
    strategy._step(1, told(found, [4.0, 1.0, 1.0, 1.0]))
    updates = strategy.layout.updates(drawn, before)
    assert np.linalg.norm(updates, axis=1) == pytest.approx([kept, 1.0, 1.0, 1.0], rel=1e-4)
    np.testing.assert_allclose(strategy.current - before, updates.mean(axis=0), atol=1e-6)


def test_who_stands_out_a_little_keeps_its_share_and_who_is_flagged_loses_what_is_on_probation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Shares that fall with suspicion drove an honest hospital out: who counts less stands out more for it."""
    found = cell(tmp_path)
    strategy = found.strategy
    assert isinstance(strategy, FedInspect)
    stands_out = {0: 1.0, 1: 1.0, 2: 1.0, 3: 1.0}
    monkeypatch.setattr(FedInspect, "_evidence", lambda self, number, fits: dict(stands_out))
    for number in range(1, 7):
        strategy._step(number, told(found, [1.0] * 4, number))
    stands_out[0] = 1.7
    for number in (7, 8):
        last = strategy._step(number, told(found, [1.0] * 4, number))
    assert last.flagged == ()
    assert set(last.weights.values()) == {0.25}
    stands_out[0] = 30.0
    for number in (9, 10, 11):
        last = strategy._step(number, told(found, [1.0] * 4, number))
    assert last.flagged == (0,)
    assert last.weights[0] == 0
    assert last.undone == {0: len(strategy.probation.pending)}
