"""What the docs quote is what the scripts print."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from experiments.readings import table
from fedsec.errors import RunError
from fedsec.experiment import read_experiment
from fedsec.matrix import read_matrix
from fedsec.privacy.promises import check_promises
from fedsec.reports.runlog import read

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
