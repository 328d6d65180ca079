"""The comparison with breaching: sides take turns, the ratio is taken pair by pair, a failed side ends it."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

import pytest

from benchmarks import inversion_speed
from fedsec.errors import RunError

TINY = {"network": "convnet", "norm": "batch", "size": 32, "restarts": 2, "iterations": 2, "pairs": 3}


def options(**changes: object) -> argparse.Namespace:
    return argparse.Namespace(**{**TINY, "breaching": sys.executable, **changes})


def test_sides_take_turns_and_the_ratio_is_taken_pair_by_pair(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def side(name: str, python: str, folder: Path, chosen: argparse.Namespace) -> dict[str, float]:
        asked.append(name)
        assert (folder / "view.safetensors").is_file()
        pace = len(asked) * (0.5 if name == "ours" else 1.0)
        return {"seconds": pace, "cpu-seconds": pace, "loss": 0.0}

    monkeypatch.setattr(inversion_speed, "side", side)
    found = inversion_speed.compare(options())
    assert asked == ["theirs", "ours", "ours", "theirs", "theirs", "ours"]
    assert found["ratio"]["seconds"]["values"] == pytest.approx([1.0, 3 / 8, 6 / 10])
    assert found["settings"]["restarts"] == 2


def test_our_side_answers_from_a_process_of_its_own(tmp_path: Path) -> None:
    inversion_speed.capture(tmp_path, network="convnet", size=32, norm="batch")
    figures = inversion_speed.side("ours", sys.executable, tmp_path, options())
    assert 0 < figures["seconds"] < 60
    assert figures["loss"] < 2.1


@pytest.mark.skipif("FEDSEC_BREACHING" not in os.environ, reason="FEDSEC_BREACHING names no interpreter with breaching")
def test_their_side_answers_too(tmp_path: Path) -> None:
    inversion_speed.capture(tmp_path, network="convnet", size=32, norm="batch")
    figures = inversion_speed.side("theirs", os.environ["FEDSEC_BREACHING"], tmp_path, options())
    assert figures["seconds"] > 0


def test_a_side_that_fails_says_why(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"(?s)ours under .* ended with status 1: .*view"):
        inversion_speed.side("ours", sys.executable, tmp_path / "none", options())
