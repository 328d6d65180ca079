"""Scoring a finished run again from what it kept."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from safetensors.numpy import load_file, save_file

from fedsec.cli import main
from fedsec.log import runlog
from fedsec.metrics.panel import Panel
from tests.apps.test_rounds import config, run

DRAWN = (
    "frechet-domain",
    "kid",
    "precision",
    "recall",
    "spread",
    "gan-test-auc",
    "trigger-rate",
    "trigger-strength",
)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, _ = run(config(tmp_path_factory.mktemp("rescore")))
    return folder


@pytest.fixture
def folder(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "moved"))


def final(folder: Path) -> dict[str, float]:
    return {name: row.score.value for name, row in runlog.read(folder).finished()["vanilla", 0].final().items()}


def test_the_same_generator_scores_the_same(folder: Path) -> None:
    before, rows = final(folder), len((folder / runlog.EVENTS).read_text().splitlines())
    assert main(["rescore", str(folder)]) == 0
    assert final(folder) == pytest.approx(before, nan_ok=True)
    assert len((folder / runlog.EVENTS).read_text().splitlines()) == rows + len(DRAWN), "and was scored"


def test_another_generator_scores_otherwise(folder: Path) -> None:
    before, path = final(folder), folder / "generator-vanilla-0.safetensors"
    cell = runlog.read(folder).finished()["vanilla", 0]
    louder = {name: (value * 1.5 if value.ndim > 1 else value) for name, value in load_file(path).items()}
    save_file(louder, path, metadata={"fedsec": f'{{"digest": "{cell.digest}"}}'})
    assert main(["rescore", str(folder)]) == 0
    after = final(folder)
    assert abs(after["frechet-domain"] - before["frechet-domain"]) > 1e-3 * before["frechet-domain"]
    assert {k: v for k, v in after.items() if k not in DRAWN} == pytest.approx(
        {k: v for k, v in before.items() if k not in DRAWN}, nan_ok=True
    )


def test_fid_comes_later(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make = Panel._make_extractor
    monkeypatch.setattr(Panel, "_make_extractor", lambda self: replace(make(self), name="fid"))
    assert main(["rescore", str(folder)]) == 0
    record = runlog.read(folder)
    assert record.header.measured_by == "fid"
    assert record.end is not None
    assert record.end.status == "finished"
    assert final(folder)["fid"] == pytest.approx(final(folder)["frechet-domain"])


@pytest.mark.parametrize(("spoil", "told"), [("missing", "missing; run the cell again"), ("other", "is of digest x")])
def test_a_generator_that_is_not_the_cells_is_an_error_and_nothing_is_written(
    spoil: str, told: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, log = folder / "generator-vanilla-0.safetensors", (folder / runlog.EVENTS).read_bytes()
    if spoil == "missing":
        path.unlink()
    else:
        save_file(load_file(path), path, metadata={"fedsec": '{"digest": "x"}'})
    assert main(["rescore", str(folder)]) == 1
    assert told in capsys.readouterr().err
    assert (folder / runlog.EVENTS).read_bytes() == log


def test_what_a_run_was_made_with_stays(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rescore", str(folder), "train.lr=1", "data.seed=3"]) == 1
    told = capsys.readouterr().err
    assert "train.lr" in told
    assert "data.seed" in told
    assert "only data.cache, data.source" in told
