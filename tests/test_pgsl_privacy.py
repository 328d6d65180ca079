"""The privacy of PGSL: the real client under attack, cells once, and the verdict on made-up numbers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from fedsec.defences.activations import Control, distance_correlation
from fedsec.defences.pgsl import Pgsl, fold
from fedsec.errors import ConfigError
from fedsec.metrics.measures import HEADINGS, OLD_SSIM, SSIM
from fedsec.metrics.tradeoff import Point, against_noise, matched, strongest
from fedsec.models.split_learning.halves import SplitSpec, new_classifier
from fedsec.models.split_learning.steps import paced
from fedsec.probes.split_learning.view import folded
from studies.split_learning import attacks as split_attacks
from studies.split_learning import privacy as pgsl_privacy
from studies.split_learning.client import ARMS, BATCH, K, SplitParty, message_of
from tests.probes.exchanges import pictures


def party(arm: str, *, size: int = 16, seed: int = 0) -> SplitParty:
    spec = SplitSpec(1, 2, size, ARMS[arm].pgsl)
    return SplitParty(pictures(40, "party", size=size), torch.arange(40) % 2, spec, ARMS[arm].control, seed)


def call(folder: Path, monkeypatch: pytest.MonkeyPatch, *more: str) -> None:
    words = f"phantom data.modality=chest data.count=60 --out {folder} --images 3 --steps 2"
    monkeypatch.setattr("sys.argv", ["pgsl_privacy", *words.split(), "--iterations", "2", "--decoder", "2", *more])
    pgsl_privacy.main()


def test_cells_are_run_once_and_end_in_table_and_verdict(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("fedsec.metrics.iip.OTHERS", 5)
    out, arms = tmp_path / "cells", ["--arms", "plain,pgsl,noise-4", "--seeds", "0"]
    call(out, monkeypatch, *arms, "--png", str(tmp_path))
    printed = capsys.readouterr().out
    assert {file.name for file in out.iterdir()} == {"plain-0.json", "pgsl-0.json", "noise-4-0.json"}
    found = json.loads((out / "pgsl-0.json").read_text(encoding="utf-8"))["attacks"]
    assert set(found) == {"prior", *pgsl_privacy.FOLDED, "decoder-oracle"}
    assert all(len(row[SSIM]) == len(row["psnr"]) == 3 and 0 <= row["iip"] <= 1 for row in found.values())
    assert set(json.loads((out / "plain-0.json").read_text(encoding="utf-8"))["attacks"]) == {
        "prior",
        *pgsl_privacy.PLAIN,
    }
    assert "| pgsl | 1 |" in printed
    assert "SSIM (Gaussian 11, [0, 1]), pgsl:" in printed
    assert (tmp_path / "pgsl-0.png").is_file()
    monkeypatch.setattr(pgsl_privacy, "Case", None)
    call(out, monkeypatch, *arms)
    assert capsys.readouterr().out == printed
    call(out, monkeypatch, "--seeds", "0", "--read")
    assert capsys.readouterr().out.count("accuracy") >= 3, "what is there is read, what is not there is left out"
    with pytest.raises(ConfigError, match="take another --out"):
        call(out, monkeypatch, *arms, "--images", "4")


def test_the_party_trains_as_the_network_in_one_piece() -> None:
    """One mini-batch, one step on both sides."""
    mine = party("plain")
    whole = new_classifier(mine.spec, seed=0)
    adam = torch.optim.Adam(whole.parameters(), 1e-3)
    (batch,) = message_of(mine.images, mine.labels, 1, 0, "own")
    assert len(batch.labels) == BATCH
    paced([adam], 0, 1)
    torch.autograd.backward(torch.nn.functional.cross_entropy(whole(batch.images), batch.labels))
    adam.step()
    mine.train(1)
    for ours, theirs in zip(mine.client.parameters(), whole.network.front.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_no_peek_adds_its_own_gradient_and_noise_reaches_the_wire() -> None:
    mine, z = party("no-peek-5"), torch.randn(8, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    leaf = z.clone().requires_grad_(True)
    (aim,) = torch.autograd.grad(5 * distance_correlation(mine.images[:8], leaf), leaf)
    torch.testing.assert_close(mine.control.pull(mine.images[:8], z), aim)
    assert not party("plain").control.pull(mine.images[:8], z).any()
    noisy = party("noise-1")
    assert not torch.equal(noisy.sent(noisy.images), noisy.sent(noisy.images))
    start = [value.clone() for value in mine.client.parameters()]
    mine.train(K)
    assert not any(torch.equal(a, b) for a, b in zip(start, mine.client.parameters(), strict=True) if a.ndim > 1)


def test_what_is_sent_is_the_real_fold_of_the_real_map() -> None:
    mine = party("perturb-off")
    mine.client.eval()
    given = fold(mine.images, torch.zeros_like(mine.images))
    torch.testing.assert_close(mine.sent(mine.images), mine.client(given))
    change = torch.rand(mine.images.shape, generator=torch.Generator().manual_seed(0))
    assert torch.equal(fold(mine.images, change), folded(mine.images, change)), "attackers know the fold"


def test_an_outsider_has_a_surrogate_of_its_own() -> None:
    mine = party("pgsl")
    mine.train(4)
    other = mine.outsider(mine.images, mine.labels, 4)
    assert other is not None
    assert mine.home.surrogate is not None
    own, asked = mine.asked(None, train=False)(mine.images), mine.asked(other, train=False)(mine.images)
    mine.client.eval()
    torch.testing.assert_close(own, mine.sent(mine.images).detach())
    assert not torch.equal(own, asked)
    assert party("plain").outsider(mine.images, mine.labels, 4) is None


def test_every_attack_can_meet_the_real_client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = "phantom data.count=60 data.modality=chest --attacks fsha,dlg,adaptive --depths 2 --modes eval --images 2"
    words += f" --steps 2 --iterations fsha=2,dlg=2,adaptive=2 --front real-pgsl --json {tmp_path}/rows.json"
    monkeypatch.setattr("sys.argv", ["split_attacks", *words.split()])
    split_attacks.main()
    rows = json.loads((tmp_path / "rows.json").read_text())
    assert len(rows) == 3
    assert all(np.isfinite(row[SSIM]) for row in rows.values())
    monkeypatch.setattr("sys.argv", ["split_attacks", *words.replace("--depths 2", "--depths 1 --seeds 1").split()])
    with pytest.raises(ConfigError, match="has two blocks"):
        split_attacks.main()
    assert split_attacks.REAL["real-pgsl"] == Pgsl()
    assert ARMS["plain"].control == Control()


def made_up(name: str, accuracy: float, leak: float, *, seeds: int = 3, images: int = 16, test: int = 100_000) -> Point:
    rng = np.random.default_rng(sum(map(ord, name)))
    spread = 0.02 * rng.standard_normal((seeds, images))
    spread -= spread.mean()
    weak = np.full((seeds, images), leak - 0.2)
    return Point(name, np.full(seeds, accuracy), test, {"weak": weak, "strong": leak + spread})


def curve(test: int = 100_000) -> list[Point]:
    return [made_up(f"noise-{n}", a, k, test=test) for n, a, k in ((0, 0.95, 0.8), (1, 0.93, 0.6), (2, 0.89, 0.4))]


def test_noise_is_matched_between_its_neighbours() -> None:
    levels = [(0.95, 0.8), (0.93, 0.6), (0.89, 0.4)]
    bumpy = [(0.90, 0.8), (0.94, 0.6), (0.90, 0.4)]  # noise that first helps: of two crossings the one of more noise
    aims = [(levels, 0.91, 0.5, "within", 1), (levels, 0.94, 0.7, "within", 0), (levels, 0.97, 0.8, "above", 0)]
    for noise, accuracy, leak, place, at in [*aims, (levels, 0.80, 0.4, "below", 2), (bumpy, 0.92, 0.5, "within", 1)]:
        found = matched(accuracy, noise)
        assert found[0] == pytest.approx(leak)
        assert found[1:] == (place, at)


@pytest.mark.parametrize(("leak", "words"), [(0.3, "below that of"), (0.7, "above that of"), (0.5, "not told apart")])
def test_the_verdict_says_which_way_it_falls(leak: float, words: str) -> None:
    mine = made_up("pgsl", 0.91, leak)
    assert strongest(mine) == "strong"
    found = against_noise(mine, curve(), measure="SSIM")
    assert found.difference == pytest.approx(leak - 0.5, abs=1e-6)
    assert found.low <= found.difference <= found.high
    assert (found.place, words in found.words, "NOT matched" in found.words) == ("within", True, False)
    assert "between noise-1 and noise-2" in found.words


def test_off_the_curve_is_said() -> None:
    above, below = (against_noise(made_up("pgsl", a, 0.5), curve(), measure="SSIM") for a in (0.97, 0.80))
    assert (above.place, above.outside, below.place) == ("above", 1.0, "below")
    assert "NOT matched (pgsl is more accurate than every level" in above.words
    assert "less accurate" in below.words
    assert "off the curve in 3 of 3 seeds" in above.words
    with pytest.raises(ConfigError, match="at least two"):
        against_noise(made_up("pgsl", 0.91, 0.5), curve()[:1], measure="SSIM")
    with pytest.raises(ConfigError, match="same seeds"):
        against_noise(made_up("pgsl", 0.91, 0.5, seeds=2), curve(), measure="SSIM")


def test_the_interval_is_students_over_seeds_each_matched_at_its_own_accuracy() -> None:
    """Worked by hand: leaks 0.6, 0.6, 0.6; noise at each seed's accuracy 0.5, 0.55, 0.45."""
    flat = [
        Point(f"noise-{n}", np.full(3, a), 100, {"x": np.full((3, 4), k)})
        for n, a, k in ((0, 0.95, 0.8), (1, 0.85, 0.3))
    ]
    mine = Point("pgsl", np.array([0.89, 0.90, 0.88]), 100, {"x": np.full((3, 4), 0.6)})
    found = against_noise(mine, flat, measure="SSIM")
    each = [0.1, 0.05, 0.15]
    half = 4.302652729911275 * np.std(each, ddof=1) / np.sqrt(3)
    assert (found.difference, found.low, found.high) == pytest.approx((0.1, 0.1 - half, 0.1 + half))
    assert "not told apart" in found.words, "three equal signs are no interval that excludes 0"
    one = against_noise(
        *(lambda cut: (cut[0], cut[1:]))(
            [Point(p.name, p.accuracy[:1], 100, {"x": p.leaks["x"][:1]}) for p in (mine, *flat)]
        ),
        measure="SSIM",
    )
    assert np.isnan(one.low)
    assert "one seed, no interval" in one.words
    assert "not told apart" in one.words


def test_the_strongest_attacker_of_each_seed_decides() -> None:
    flat = [Point(f"noise-{n}", np.full(2, a), 100, {"x": np.full((2, 4), 0.0)}) for n, a in ((0, 0.95), (1, 0.85))]
    leaks = {"x": np.array([[0.5] * 4, [0.1] * 4]), "y": np.array([[0.4] * 4, [0.4] * 4])}
    found = against_noise(Point("pgsl", np.full(2, 0.9), 100, leaks), flat, measure="SSIM")
    assert found.difference == pytest.approx(0.45)
    assert "by x or y" in found.words


def test_cells_of_the_old_measure_are_read_by_its_name_and_not_mixed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("fedsec.metrics.iip.OTHERS", 5)
    out = tmp_path / "cells"
    call(out, monkeypatch, "--arms", "plain,noise-4", "--seeds", "0")
    capsys.readouterr()
    file = out / "plain-0.json"
    file.write_text(file.read_text(encoding="utf-8").replace(SSIM, OLD_SSIM), encoding="utf-8")
    call(out, monkeypatch, "--arms", "plain", "--seeds", "0", "--read")
    told = capsys.readouterr().out
    assert HEADINGS[OLD_SSIM] in told
    assert HEADINGS[SSIM] not in told
    with pytest.raises(ConfigError, match="two measures of SSIM"):
        call(out, monkeypatch, "--arms", "plain,noise-4", "--seeds", "0", "--read")
