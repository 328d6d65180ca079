"""What the docs quote is what the scripts print."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision.models import alexnet

from fedsec.config import RunConfig
from fedsec.config.files import read_experiment
from fedsec.config.matrix import read_matrix
from fedsec.datasets import load
from fedsec.errors import RunError
from fedsec.log.runlog import read
from fedsec.metrics.features import Extractor
from fedsec.metrics.lpips import STAGES
from fedsec.metrics.measures import SSIM
from fedsec.metrics.membership import membership as judge
from fedsec.metrics.membership import without_signal
from fedsec.models.shadows import Regime
from fedsec.privacy.percentile import percentile_noise
from fedsec.privacy.promises import allotted
from fedsec.probes.membership import ATTACKS, Held
from fedsec.seeds import stream
from studies.detection import evidence
from studies.detection.readings import table
from studies.leakage import hints, inversion, ladder, membership, sites
from tests.metrics.samples import lesions
from tests.probes.rounds import SMALL, trained

ROOT = Path(__file__).parents[1]


def test_the_table_of_levels_and_drops_is_the_scripts() -> None:
    record = read(ROOT / "docs/results/isic")
    printed = table(record, ["vanilla", "clean+fed-detect"], "attack", rounds=60)
    quoted = (ROOT / "docs/feddetect.md").read_text(encoding="utf-8").replace("**", "")
    rows = [
        line.split(" | ", 1)[1] for line in printed.splitlines()[2:] if "| 1 to" not in line and "| 11 to" not in line
    ]
    assert len(rows) == 8
    assert [row for row in rows if row not in quoted] == []


def test_an_arm_whose_weights_moved_at_once_is_no_measure_of_honest_clients() -> None:
    record = read(ROOT / "docs/results/isic")
    with pytest.raises(RunError, match="no finished cell has losses and equal weights"):
        table(record, ["clean+fed-detect-released"], "attack", rounds=60)


@pytest.mark.parametrize("file", sorted((ROOT / "experiments").glob("*.toml")), ids=lambda file: file.stem)
def test_every_experiment_file_can_be_read(file: Path) -> None:
    if file.stem.startswith("matrix"):
        assert read_matrix(file, "", []).attacks
        return
    config = read_experiment(file, "", [])
    assert config.arms
    rounds = {(arm, 0): config.arm(arm).train.rounds for arm in config.arms}
    assert allotted(config, [340] * 4, list(rounds)) == rounds


def test_the_trial_of_readings_says_how_many_honest_deviations_the_attacker_stands_above() -> None:
    rng = stream(0, "readings")

    def run(gap: float) -> list[dict[str, list[float]]]:
        rows = []
        for _ in range(10):
            values = rng.normal(0, 0.1, 4)
            values[0] += gap
            rows.append({"all": list(map(float, values)), "drop": list(map(float, values))})
        return rows

    lines = evidence.table({"none": run(0.0), "patch": run(1.0), "unseen": run(0.0)}, (10, 20)).splitlines()
    found = {line.split(" | ")[0].strip("| "): line.split(" | ")[2:] for line in lines[2:]}
    assert set(found) == {"patch", "unseen"}, "only rounds that were run"
    assert all(float(cell.strip(" |")) > 5 for cell in found["patch"])
    assert all(float(cell.strip(" |")) < 3 for cell in found["unseen"])


def test_the_trial_of_readings_reads_every_client_every_round() -> None:
    config = RunConfig.from_flat({"data.count": 200, "split.clients": evidence.COUNT, "train.steps": 1})
    data, flat = load(config.data), torch.nn.Sequential(torch.nn.Conv2d(3, 8, 8, stride=8), torch.nn.Flatten())
    extractor = Extractor("frechet-domain", flat, np.array(0.0), np.array(1.0), 64)
    rounds = evidence.federation(config, data, extractor, 2, lambda line: None)
    assert len(rounds) == 2
    for readings in rounds:
        assert {"whole", "sharp", "odd", "mark", "all", "features", "spectrum", "labels", "cross", "drop"} == set(
            readings
        )
        assert {len(values) for values in readings.values()} == {evidence.COUNT}
    assert rounds[0]["all"] != rounds[1]["all"]


def test_the_inversion_trial_scores_every_attack_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = ["phantom", "data.modality=chest", "data.count=60", "--sites", "1", "--warm", "1"]
    kept = ["--attacks", "prior,bn-only", "--iterations", "bn-only=2", "--json", str(tmp_path / "scores.json")]
    monkeypatch.setattr("sys.argv", ["inversion", *chosen, *kept, "--png", str(tmp_path)])
    inversion.main()
    scores = json.loads((tmp_path / "scores.json").read_text(encoding="utf-8"))
    assert set(scores) == {"prior 0", "bn-only 0"}
    assert 0 < scores["prior 0"][SSIM] < 1
    assert "iip-pixels" not in scores["prior 0"], "sixty images are no crowd"
    assert (tmp_path / "site-0.png").is_file()
    monkeypatch.setattr(inversion, "attack", None)  # what is finished is not run again
    monkeypatch.setattr("sys.argv", ["inversion", *chosen, *kept])
    inversion.main()
    assert json.loads((tmp_path / "scores.json").read_text(encoding="utf-8")) == scores
    (tmp_path / "site-0.png").unlink()
    monkeypatch.setattr("sys.argv", ["inversion", *chosen, *kept, "--png", str(tmp_path)])
    inversion.main()
    assert (tmp_path / "site-0.png").is_file()


def test_the_inversion_trial_searches_a_crowd_and_measures_lpips_by_given_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone, heads = tmp_path / "alexnet.pth", tmp_path / "alex.pth"
    torch.save(alexnet(weights=None).state_dict(), backbone)
    shapes = enumerate(channels for _, channels in STAGES["alex"])
    torch.save({f"lin{stage}.model.1.weight": torch.rand(1, width, 1, 1) for stage, width in shapes}, heads)
    chosen = ["phantom", "data.modality=chest", "data.count=450", "--sites", "1", "--warm", "1", "--size", "32"]
    chosen += ["--network", "convnet", "--attacks", "prior", "--json", str(tmp_path / "scores.json")]
    monkeypatch.setattr("sys.argv", ["inversion", *chosen, "--lpips", "alex", str(backbone), str(heads)])
    inversion.main()
    (scores,) = json.loads((tmp_path / "scores.json").read_text(encoding="utf-8")).values()
    assert scores["lpips-alex"] > 0
    assert scores["iip-chance"] < 1 / 200
    assert 0 <= scores["iip-pixels"] <= 1


def test_what_statistics_say_of_classes_is_held_against_the_truth(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = tmp_path / "hints.json"
    chosen = ["phantom", "data.modality=chest", "data.count=80", "--sites", "3", "--warm", "1", "--size", "32"]
    chosen += ["--network", "convnet", "--images", "4", "--batch", "4", "--rounds", "10", "--json", str(kept)]
    monkeypatch.setattr("sys.argv", ["hints", *chosen])
    hints.main()
    assert "| class (2) | 4, 4, 1 | 3 |" in capsys.readouterr().out
    shares = json.loads(kept.read_text(encoding="utf-8"))
    assert np.allclose(np.sum(shares["truth"], axis=1), 1)
    assert np.allclose(np.sum(shares["read"], axis=1), 1)


def test_the_ladder_climbs_every_rung_once_and_takes_differences(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = tmp_path / "ladder.json"
    chosen = ["phantom", "data.modality=chest", "data.count=60", "--sites", "2", "--warm", "1", "--size", "32"]
    chosen += ["--network", "convnet", "--rungs", "prior-only,bn-only,global", "--iterations", "2", "--json", str(kept)]
    monkeypatch.setattr("sys.argv", ["ladder", *chosen])
    ladder.main()
    printed = capsys.readouterr().out
    assert "| statistics alone | bn-only - prior-only | 2 |" in printed
    assert "update alone" not in printed
    scores = json.loads(kept.read_text(encoding="utf-8"))
    assert set(scores) == {f"{rung} {site}" for rung in ("prior-only", "bn-only", "global") for site in (0, 1)}
    assert all(len(row[SSIM]) == 1 for row in scores.values())
    found = ladder.leak(scores, "statistics alone", SSIM)
    assert found is not None
    expected = [scores[f"bn-only {site}"][SSIM][0] - scores[f"prior-only {site}"][SSIM][0] for site in (0, 1)]
    assert found.values == pytest.approx(expected)
    monkeypatch.setattr(ladder, "climb", None)  # what is finished is not run again
    ladder.main()


def test_the_inversion_trial_has_a_line_for_every_protection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    chosen = ["phantom", "data.modality=chest", "data.count=60", "--sites", "1", "--warm", "1", "--attacks", "prior"]
    kept = ["--protect", "prune=0.9", "--protect", "local-statistics=1,noise=0.5", "--json", str(tmp_path / "s.json")]
    monkeypatch.setattr("sys.argv", ["inversion", *chosen, *kept, "--noise", "0.1"])
    inversion.main()
    scores = json.loads((tmp_path / "s.json").read_text(encoding="utf-8"))
    assert set(scores) == {"prior prune=0.9 0", "prior local-statistics=1,noise=0.5 0"}
    assert "| prior prune=0.9 | 1 |" in capsys.readouterr().out


def test_protected_sites_send_what_the_protection_says() -> None:
    view = trained(SMALL).view
    site = sites.Site(view, lesions(1, "protected", channels=1, size=32))
    bare = sites.protected(site, "local-statistics=1", 0, 0)
    assert site.view.statistics
    assert not bare.view.statistics
    noised = percentile_noise(view.before, view.after, 0.5, stream(0, "client", 1, "noise"))
    found = sites.protected(site, "noise=0.5", 0, 0).view.after
    assert all(np.array_equal(found[name], noised[name]) for name in noised)


def test_the_membership_trial_keeps_a_file_a_model_and_prints_every_attack(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(membership, "REGIMES", {"short": Regime(1), "federated": Regime(2, clients=2, local=1)})
    chosen = ["membership", "phantom", "data.modality=chest", "data.count=48", "--models", "12", "--out", str(tmp_path)]
    table = tmp_path / "table/rows.json"
    monkeypatch.setattr("sys.argv", [*chosen, "--regimes", "short,federated", "--repeats", "2", "--json", str(table)])
    membership.main()
    printed = capsys.readouterr().out
    for regime in ("short", "federated"):
        for attack in ("loss", "lira-online", "lira-offline"):
            assert f"| {regime} | {attack} | AUC | " in printed
    assert "| TPR at 0.1 % | out of reach: too few strangers | | |" in printed
    assert len(list(tmp_path.glob("*.json"))) == 24
    found = json.loads(table.read_text(encoding="utf-8"))["short"]
    assert (len(found["sides"]), found["repeats"]) == (12, 2)
    assert len(found["attacks"]["loss"]["auc"]["values"]) == len(found["attacks"]["loss"]["auc"]["chance"]) == 12
    monkeypatch.setattr(membership, "trained", None)  # what is finished is not trained again
    membership.main()


def test_the_membership_trial_of_generators_attacks_each_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(membership, "GENERATORS", {"few": (6, 1)})
    monkeypatch.setattr(membership, "DRAWN", 8)
    monkeypatch.setattr(membership, "WIDTH", 4)
    monkeypatch.setattr(membership, "FEATURE_STEPS", 1)
    chosen = ["membership", "phantom", "data.modality=chest", "data.count=48", "--models", "2", "--out", str(tmp_path)]
    monkeypatch.setattr("sys.argv", [*chosen, "--generators", "--regimes", "few"])
    membership.main()
    printed = capsys.readouterr().out
    for attack in ("nearest-sample", "nearest-sample-calibrated", "logan"):
        assert f"| few | {attack} | AUC | " in printed


def test_members_and_strangers_have_equally_many_shadows_and_no_signal_is_a_coin() -> None:
    """Three draws of four quarters. With the target's siblings among the shadows the AUC by chance was 0.47."""
    draws = [np.array_split(stream(0, "quarters", draw).permutation(800), 4) for draw in range(3)]
    inside = np.array([np.isin(np.arange(800), part) for parts in draws for part in parts])
    for k in range(12):
        assert (inside[np.arange(12) // membership.DRAW != k // membership.DRAW].sum(axis=0) == 2).all()

    def null(rng: np.random.Generator) -> membership.Answers:
        return membership.judged_classifiers(without_signal(inside, 6, rng), inside, np.arange(800))

    rows = membership.held_against(membership.numbers(null(stream(0, "draw"))), membership.by_chance(null, 20, 0))
    for attack in ("loss", "lira-online", "lira-offline"):
        auc, at_one = rows[attack]["auc"], rows[attack]["tpr@1%"]
        assert np.mean(auc["chance"]) == pytest.approx(0.5, abs=0.008)
        assert np.mean(at_one["chance"]) == pytest.approx(7 / 601, abs=0.002), "six of 600 strangers, rank by rank"
        assert auc["low"] < np.mean(auc["chance"]) < auc["high"]
    with_siblings = []
    for k in range(12):
        others, sure = np.arange(12) != k, without_signal(inside, 6, stream(0, "siblings", k))
        held = Held(target=sure[k], shadows=sure[others], inside=inside[others])
        with_siblings.append(judge(ATTACKS["lira-online"].score(held), inside[k], np.arange(800)).auc)
    assert np.mean(with_siblings) < 0.49


def test_the_membership_trial_asks_for_enough_shadows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["membership", "phantom", "--models", "8", "--out", str(tmp_path)])
    with pytest.raises(SystemExit):
        membership.main()
