"""The command line: what each command says, and one clear error with its exit status for every wrong input."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from fedsec import cli
from fedsec.config import meanings
from fedsec.run.doctor import Finding
from tests.reports.fake_run import Plan, build

ROOT = Path(__file__).parents[1]
SMALL = ["data.count=80"]


@pytest.fixture(autouse=True)
def own_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cache and runs go to a temporary folder, and lines are as long as they are."""
    monkeypatch.setenv("FEDSEC_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    for console in (cli.OUT, cli.ERR):
        monkeypatch.setattr(console, "width", 400)


@pytest.fixture
def experiment(tmp_path: Path) -> Path:
    file = tmp_path / "small.toml"
    file.write_text(
        "[data]\ncount = 80\n[run]\nname = 'small'\n[arms.vanilla]\n[arms.attack]\nattack.name = 'patch'\n"
        "[profiles.short]\narms = ['vanilla']\ntrain.rounds = 2\n"
    )
    return file


def one_error(capsys: pytest.CaptureFixture[str]) -> str:
    """What was said on stderr: one message of ours, and no stack trace."""
    told = capsys.readouterr().err
    assert told.startswith("fedsec: ")
    assert "Traceback" not in told
    return told


def test_data_says_what_is_in_a_source(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert cli.main(["data", "phantom", *SMALL]) == 0
    said = capsys.readouterr().out
    for part in ("phantom: 80 images", "benign", "malignant", "32 px, 3 channels", "none in both", "0 quarantined"):
        assert part in said
    assert list((tmp_path / "cache").iterdir()), "the cache is where FEDSEC_CACHE says"


def test_data_that_cannot_be_used_is_one_error(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert cli.main(["data", str(tmp_path / "absent")]) == 1
    assert "absent" in one_error(capsys)


def test_config_lists_every_key_with_its_meaning(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["config"]) == 0
    said = capsys.readouterr().out
    for key, _, _, meaning in meanings():
        assert key in said
        assert meaning in said


def test_doctor_finds_the_tools_of_this_environment(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["doctor"]) == 0
    said = capsys.readouterr().out
    for what in ("python", "flwr", "flower-superlink", "flwr-simulation", "cores", "cuda", "FID weights", "disk"):
        assert f"  {what}: " in said


@pytest.mark.parametrize(("needed", "code"), [(True, 1), (False, 0)])
def test_doctor_fails_only_for_what_a_run_needs(
    needed: bool, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("fedsec.run.doctor.examine", lambda: [Finding("a thing", "not here", False, needed)])
    assert cli.main(["doctor"]) == code
    assert "MISS  a thing: not here" in capsys.readouterr().out


def test_report_redraws_page_and_results_from_the_folder_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = build(tmp_path / "first", Plan(rounds=4, pictures=False))
    moved = folder.rename(tmp_path / "moved")
    assert cli.main(["report", str(moved)]) == 0
    said = capsys.readouterr().out
    assert f"report: {moved / 'report.html'}" in said
    assert "attack+fed-detect" in said
    assert set(json.loads((moved / "results.json").read_text())["arms"]) == {"vanilla", "attack", "attack+fed-detect"}
    before = (moved / "report.html").read_bytes()
    assert cli.main(["report", str(moved)]) == 0
    assert (moved / "report.html").read_bytes() == before


def test_names_in_brackets_are_shown_as_they_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A class folder may be called like a markup tag of the console; it is text."""
    for name, level in (("[red]", 90), ("[blue]", 180)):
        (tmp_path / "site" / name).mkdir(parents=True)
        for i in range(6):
            Image.new("RGB", (32, 32), (level, i, 0)).save(tmp_path / "site" / name / f"{i}.png")
    assert cli.main(["data", str(tmp_path / "site"), "data.grouping=classes"]) == 0
    assert "[red]" in capsys.readouterr().out


def test_report_of_something_else_is_one_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["report", str(tmp_path / "absent")]) == 1
    assert "no such file" in one_error(capsys)


def test_a_dry_run_checks_settings_and_data_and_runs_nothing(
    experiment: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["run", str(experiment), "--dry-run", "train.rounds=3"]) == 0
    said = capsys.readouterr().out
    assert re.search(r"small: \d+ training and \d+ test images of 2 classes, 4 clients, 3 rounds", said)
    assert "2 cells to run, 0 already finished" in said
    assert not (tmp_path / "runs").exists()


def test_settings_may_stand_before_and_after_options(experiment: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["run", str(experiment), "train.steps=7", "--profile", "short", "--dry-run", "split.clients=3"]
    assert cli.main(words) == 0
    said = capsys.readouterr().out
    assert "3 clients, 2 rounds of 7 steps" in said
    assert "1 cells to run" in said


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (["train.round=3"], ["train.round: unknown key"]),
        (["train.rounds=many"], ["train.rounds = 'many': must be int"]),
        (["data.size=33", "gan.loss=nice", "x=1"], ["data.size = 33", "gan.loss = 'nice'", "x: unknown key"]),
        (["train.rounds"], ["'train.rounds': write key=value"]),
        (["data.source=absent"], ["absent"]),
        (["attack.malicious=9"], ["there are 4 clients"]),
        (["--profile", "long"], ["profile 'long'", "short"]),
        (["run.name=../up"], ["plain folder name"]),
    ],
)
def test_a_wrong_setting_is_one_error_that_names_all_of_them(
    settings: list[str], told: list[str], experiment: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["run", str(experiment), "--dry-run", *settings]) == 1
    said = one_error(capsys)
    for part in told:
        assert part in said
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("text", ["not toml at all", "[data]\ncount = [1, 2]\n", "data.size = 'x'\n"])
def test_a_file_that_is_no_experiment_is_one_error(
    text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bad.toml").write_text(text)
    assert cli.main(["run", "bad.toml"]) == 1
    one_error(capsys)


@pytest.mark.parametrize(
    "text",
    [
        "profiles = 3\n",
        "arms = 'vanilla'\n",
        "[arms]\nvanilla = 1\n",
        "[profiles]\np = 1\n",
        "[profiles.p]\narms = 1\n",
        "[profiles.p]\narms = [[1]]\n",
    ],
)
def test_a_table_that_is_no_table_is_one_error(text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "bad.toml").write_text(text)
    assert cli.main(["run", "bad.toml", "--profile", "p"]) == 1
    one_error(capsys)


@pytest.mark.parametrize("words", [[], ["fly"], ["run"], ["config", "extra"], ["run", "x.toml", "--fast"], ["data"]])
def test_wrong_words_show_the_usage_and_exit_with_2(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(words)
    assert caught.value.code == 2
    assert "usage: fedsec" in capsys.readouterr().err


def test_the_command_is_quick_to_fail(tmp_path: Path) -> None:
    """Torch, Flower and Ray are not loaded before they are needed: the command's start is the user's wait."""
    code = "import sys, fedsec.cli; print([m for m in ('torch', 'flwr', 'ray', 'matplotlib') if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120, check=True
    )
    assert done.stdout.strip() == "[]"
