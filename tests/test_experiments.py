"""What the docs quote is what the scripts print."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from experiments import evidence, inversion, ladder
from experiments.readings import table
from fedsec.errors import RunError
from fedsec.experiment import read_experiment
from fedsec.matrix import read_matrix
from fedsec.privacy.promises import check_promises
from fedsec.reports.runlog import read
from fedsec.seeds import stream

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
    if file.stem == "matrix":
        assert read_matrix(file, "", []).attacks
        return
    config = read_experiment(file, "", [])
    assert config.arms
    for arm in config.arms:
        check_promises(replace(config, run=replace(config.run, arms=json.dumps({arm: config.arms[arm]}))), [340] * 4)


def test_the_trial_of_readings_says_how_many_honest_deviations_the_attacker_stands_above() -> None:
    rng = stream(0, "readings")

    def run(gap: float) -> list[dict[str, list[float]]]:
        rows = []
        for _ in range(10):
            values = rng.normal(0, 0.1, 4)
            values[0] += gap
            rows.append({"peak": list(map(float, values)), "drop": list(map(float, values))})
        return rows

    lines = evidence.table({"none": run(0.0), "patch": run(1.0), "unseen": run(0.0)}, (10, 20)).splitlines()
    found = {line.split(" | ")[0].strip("| "): line.split(" | ")[2:] for line in lines[2:]}
    assert set(found) == {"patch", "unseen"}, "only rounds that were run"
    assert all(float(cell.strip(" |")) > 5 for cell in found["patch"])
    assert all(float(cell.strip(" |")) < 3 for cell in found["unseen"])


def test_the_inversion_trial_scores_every_attack_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = ["phantom", "data.modality=chest", "data.count=60", "--sites", "1", "--warm", "1"]
    kept = ["--attacks", "prior,bn-only", "--iterations", "bn-only=2", "--json", str(tmp_path / "scores.json")]
    monkeypatch.setattr("sys.argv", ["inversion", *chosen, *kept, "--png", str(tmp_path)])
    inversion.main()
    scores = json.loads((tmp_path / "scores.json").read_text(encoding="utf-8"))
    assert set(scores) == {"prior 0", "bn-only 0"}
    assert 0 < scores["prior 0"]["ssim"] < 1
    assert (tmp_path / "site-0.png").is_file()
    monkeypatch.setattr(inversion, "attack", None)  # what is finished is not run again
    monkeypatch.setattr("sys.argv", ["inversion", *chosen, *kept])
    inversion.main()
    assert json.loads((tmp_path / "scores.json").read_text(encoding="utf-8")) == scores
    (tmp_path / "site-0.png").unlink()
    monkeypatch.setattr("sys.argv", ["inversion", *chosen, *kept, "--png", str(tmp_path)])
    inversion.main()
    assert (tmp_path / "site-0.png").is_file()


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
    assert all(len(row["ssim"]) == 1 for row in scores.values())
    found = ladder.leak(scores, "statistics alone", "ssim")
    assert found is not None
    expected = [scores[f"bn-only {site}"]["ssim"][0] - scores[f"prior-only {site}"]["ssim"][0] for site in (0, 1)]
    assert found.values == pytest.approx(expected)
    monkeypatch.setattr(ladder, "climb", None)  # what is finished is not run again
    ladder.main()
