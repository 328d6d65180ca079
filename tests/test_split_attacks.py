"""The split-attacks experiment on the phantom, small: rows, resumption, strips, and a victim left as it was."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fedsec.defences.activations import Control
from fedsec.metrics.measures import SSIM
from studies.split_learning import attacks as split_attacks
from studies.split_learning.victim import FRONTS, Hijacked, Victim
from tests.probes.exchanges import pictures


def victim(depth: int, control: Control, front: str = "image") -> Victim:
    return Victim(pictures(16, "victim", size=16), torch.arange(16) % 2, 2, depth, control, front)


def test_rows_are_kept_and_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = "phantom data.count=60 data.modality=chest --attacks prior,white-box --depths 1 --modes eval --images 2"
    words += f" --steps 2 --iterations white-box=3 --noise 0.1 --json {tmp_path}/rows.json"
    monkeypatch.setattr(sys, "argv", ["split_attacks", *words.split(), "--png", str(tmp_path)])
    split_attacks.main()
    first = json.loads((tmp_path / "rows.json").read_text())
    assert set(first) == {f"{name} depth=1 eval image noise=0.1 no-peek=0 seed=0" for name in ("prior", "white-box")}
    assert all(
        np.isfinite(row[SSIM]) and len(row[split_attacks.EACH[SSIM]]) == 2 and 0 <= row["accuracy"] <= 1
        for row in first.values()
    )
    for key in first:
        with Image.open(tmp_path / f"{key}.png") as strip:
            assert strip.size == (3 * (2 * 33 + 1), 3 * (2 * 33 + 1))
    monkeypatch.setattr(split_attacks, "Case", None)
    split_attacks.main()
    assert json.loads((tmp_path / "rows.json").read_text()) == first
    assert "| white-box | 1 | eval | 1 | 2 |" in capsys.readouterr().out


@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize("front", FRONTS)
@pytest.mark.parametrize("depth", [1, 2])
def test_an_exchange_is_the_gradient_of_the_whole_network(depth: int, front: str, train: bool) -> None:
    mine = victim(depth, Control(), front)
    before = [value.clone() for half in (mine.client, mine.server) for value in half.state_dict().values()]
    view = mine.exchange(mine.images[:4], mine.labels[:4], train=train)
    mine.query(train=train)(mine.images)
    Hijacked(mine, mine.images[:4], train=train).watch()
    after = [value for half in (mine.client, mine.server) for value in half.state_dict().values()]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert view.activations.shape[1:] == ((16, 8, 8) if front == "image" else (16, 4, 4)) if depth == 1 else True
    assert view.gradient is not None
    assert view.update is not None
    sent = view.activations.clone().requires_grad_(True)
    loss = torch.nn.functional.cross_entropy(view.server_half()(sent), mine.labels[:4])
    torch.testing.assert_close(torch.autograd.grad(loss, sent)[0], view.gradient)
    assert set(view.update) == {name for name, _ in mine.client.named_parameters()}


def test_training_and_controls_reach_the_wire() -> None:
    plain, noisy = victim(1, Control()), victim(1, Control(noise=1.0, decorrelation=0.5))
    assert torch.equal(plain.sent(plain.images), plain.sent(plain.images))
    assert not torch.equal(noisy.sent(noisy.images), noisy.sent(noisy.images))
    start = [value.clone() for value in noisy.client.parameters()]
    noisy.train(2)
    assert not any(torch.equal(a, b) for a, b in zip(start, noisy.client.parameters(), strict=True) if a.ndim > 1)
    session = Hijacked(noisy, noisy.images[:2], train=True)
    start = [value.clone() for value in session.client.parameters()]
    session.give_back(torch.zeros_like(session.send()))
    assert not torch.equal(start[0], next(session.client.parameters())), "the client's own penalty takes part"
