"""The PGSL experiment: cells once, tables of what was measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fedsec.errors import ConfigError
from studies.split_learning import accuracy as pgsl


def call(folder: Path, monkeypatch: pytest.MonkeyPatch, *more: str) -> None:
    chosen = ["phantom", "data.modality=chest", "data.count=60", "--seeds", "1", "--batch", "8", "--out", str(folder)]
    monkeypatch.setattr("sys.argv", ["pgsl", *chosen, *more])
    pgsl.main()


def test_every_cell_is_run_once_and_ends_in_both_tables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arms = ["--arms", "whole,split,pgsl", "--steps", "4"]
    call(tmp_path, monkeypatch, *arms)
    printed = capsys.readouterr().out
    assert {file.name for file in tmp_path.iterdir()} == {"whole-0.json", "split-0.json", "pgsl-0.json"}
    cell = json.loads((tmp_path / "pgsl-0.json").read_text(encoding="utf-8"))
    assert set(cell["streams"]) == {"on", "off"}
    assert set(cell["streams"]["on"]) == {"attacked", "recovered", "fused", "late"}
    assert (cell["up"], cell["down"]) == (4 * 32 * 8 * 8 + 8, 4 * 32 * 8 * 8)
    assert f"{cell['streams']['on']['late']['accuracy']:.3f}" in printed
    assert "14.0, 17.9 and 36.9" in printed
    monkeypatch.setattr(pgsl, "split_cell", None)  # what is there is not run again
    monkeypatch.setattr(pgsl, "whole_cell", None)
    call(tmp_path, monkeypatch, *arms)
    assert capsys.readouterr().out == printed
    with pytest.raises(ConfigError, match="take another --out"):
        call(tmp_path, monkeypatch, "--arms", "split", "--steps", "6")


def test_one_batch_a_message_scores_as_the_whole_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    call(tmp_path, monkeypatch, "--arms", "whole,split", "--steps", "4", "--k", "1")
    whole, split = (
        json.loads((tmp_path / f"{arm}-0.json").read_text())["streams"]["off"] for arm in ("whole", "split")
    )
    assert whole["plain"]["accuracy"] == split["plain"]["accuracy"]
    assert whole["plain"]["auc"] == pytest.approx(split["plain"]["auc"], abs=1e-3)


def test_gains_are_paired_over_the_seeds_that_both_arms_have() -> None:
    def cell(**streams: float) -> dict[str, Any]:
        return {"streams": {"on": {name: {"accuracy": value} for name, value in streams.items()}}}

    maps = {pgsl.TRANSFERRED: {"attacked": 0.5}, pgsl.OWN: {"attacked": 0.25}}
    cells = {
        "whole 0": {**cell(plain=0.8), **maps},
        "pgsl 0": cell(attacked=0.6, recovered=0.75, fused=0.7, late=0.75),
        "pgsl 1": cell(attacked=0.0, recovered=0.0, fused=0.0, late=0.0),
    }
    rows = {line.split(" | ")[0].strip("| "): line for line in pgsl.paper_table(cells).splitlines()}
    assert rows["attacked: trained clean, tested under the clients' map"].endswith("| 0.500 | 25.0 | 50.0 |")
    assert rows["reconstructed: recovered stream of PGSL"].endswith("| 0.750 | 0.0 | 0.0 |")
    assert "whole and pgsl" in pgsl.paper_table({"pgsl 0": cells["pgsl 0"]})
