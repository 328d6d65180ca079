"""Curves over sigma0: what is not attempted is no zero, and seeds stay apart."""

from __future__ import annotations

import json
from pathlib import Path

from PIL import Image

from fedsec.log.runlog import read
from studies.leakage.curves import draw, means_of

PRICE = Path(__file__).parents[1] / "docs/results/leakage/price"


def test_rows_that_were_not_attempted_are_left_out(tmp_path: Path) -> None:
    rows = {
        "seed 0 nothing span 0": {"first": 1.0, "rdlv": 0.5},
        "seed 0 nothing span 1": {"first": 0.0, "rdlv": 0.1},
        "seed 1 nothing span 0": {"reason": "not attempted: no layer moved"},
        "seed 1 noise=10 span-pooled 0": {"first": 1.0},
        "seed 1 noise=2.5 weights candidates 0": {"first": 0.0},
        "seed 1 quantise=1 span 0": {"first": 1.0},
        "seed 1 prior 0": {"first": 0.0},
    }
    file = tmp_path / "rows.json"
    file.write_text(json.dumps(rows), encoding="utf-8")
    assert means_of([file], "first") == {
        "span": {0.0: {0: 0.5}},
        "span-pooled": {10.0: {1: 1.0}},
        "weights candidates": {2.5: {1: 0.0}},
    }
    assert means_of([file], "rdlv") == {"span": {0.0: {0: 0.3}}}
    draw(read(PRICE), [file], tmp_path / "curve.png")
    with Image.open(tmp_path / "curve.png") as picture:
        assert min(picture.size) > 300
