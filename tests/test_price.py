"""What protections cost, seed by seed, and what they leave of the leak."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from experiments.price import bare_arms, cost, draw, leaks_of, levels_of, table
from fedsec.experiment import read_experiment
from fedsec.reports.record import RunRecord
from fedsec.reports.runlog import RunLog, read
from fedsec.types import Score

PROJECT = Path(__file__).parents[1]
ACCURACY = {
    "plain": (0.9, 0.8),
    "noise-1": (0.88, 0.8),
    "noise-25": (0.7, 0.6),
    "fed-bn": (0.91, 0.81),
    "group-norm": (0.95, 0.85),
    "group-clip-noise-0.1": (0.65, 0.75),
    "epochs-4": (0.93, 0.83),
    "noise-50": (0.7, math.nan),
}
DATA = {"source": "x", "train": 9, "test": 9, "classes": ["a"], "sites": ["s"], "quarantined": 0, "digest": "d"}


def reason(value: float) -> str:
    return "" if math.isfinite(value) else "diverged"


@pytest.fixture
def record(tmp_path: Path) -> RunRecord:
    """Two seeds of some arms of the profile ``price``; one arm's second is not finished, another's diverged."""
    config = read_experiment(PROJECT / "experiments/leakage.toml", "price", ["run.seeds=0,1"])
    log = RunLog(tmp_path)
    log.run(
        config=config.to_flat(),
        versions={},
        data=DATA,
        labels=[[1]] * 9,
        sites=[[1]] * 9,
        malicious=[],
        arms=list(ACCURACY),
        seeds=[0, 1],
        measured_by="",
    )
    for arm, values in ACCURACY.items():
        for seed, value in enumerate(values):
            log.cell_start(arm, seed, "d")
            log.score(arm, seed, 10, Score("accuracy", value, 290, "higher", reason(value)), final=True)
            log.score(arm, seed, 10, Score("auc", 0.9, 290, "higher"), final=True)
            if (arm, seed) != ("group-clip-noise-0.1", 1):
                log.cell_end(arm, seed, "d", 1.0)
    return read(tmp_path)


def test_an_arm_is_held_against_the_bare_one_of_its_normalisation(record: RunRecord) -> None:
    assert bare_arms(record) == {"batch": "plain", "group": "group-norm"}
    assert cost(record, "plain", "accuracy") is None
    found = cost(record, "noise-25", "accuracy")
    assert found is not None
    np.testing.assert_allclose(found.values, [-20, -20])
    assert found.low == pytest.approx(-20)
    assert found.high == pytest.approx(-20)
    statistics = cost(record, "fed-bn", "accuracy")
    assert statistics is not None
    assert statistics.mean == pytest.approx(1.0)


def test_a_seed_that_is_not_there_is_not_counted(record: RunRecord) -> None:
    found = cost(record, "group-clip-noise-0.1", "accuracy")
    assert found is not None
    assert found.mean == pytest.approx(-30), "against the bare arm's own first seed"
    line = next(line for line in table(record) if line.startswith("| group-clip"))
    assert line.startswith("| group-clip-noise-0.1 | 1 | none | 0.650 | -30.0 |")


def test_the_table_has_every_arm_that_finished_something(record: RunRecord) -> None:
    lines = list(table(record))
    assert [line.split(" | ")[0][2:] for line in lines[2:]] == list(ACCURACY)
    assert lines[-1].startswith("| noise-50 | 2 | none | 0.700, 1 not finite | -20.0 |"), "a diverged seed is told"
    assert lines[2] == "| plain | 2 | none | 0.900, 0.800 |  | 0.900, 0.900 |  |"
    assert lines[3].split(" | ")[4] == "-2.0, 0.0", "two seeds have no interval"


def test_the_page_shows_what_is_kept() -> None:
    results = PROJECT / "docs/results"
    page = (results / "leakage-federation.md").read_text(encoding="utf-8")
    assert "\n".join(table(read(results / "leakage/price"))) in page


def test_levels_are_of_arms_that_do_nothing_else(record: RunRecord) -> None:
    assert levels_of(record, "noise", "batch") == {"plain": 0.0, "noise-1": 1.0, "noise-25": 25.0, "noise-50": 50.0}
    assert levels_of(record, "clip-noise", "group") == {"group-norm": 0.0, "group-clip-noise-0.1": 0.1}


def leak(arm: str, number: int, attack: str, rdlv: float | None, **more: float) -> str:
    row = {"event": "leak", "arm": arm, "seed": 0, "round": number, "partition": 8, "attack": attack}
    return json.dumps(row | {"values": {} if rdlv is None else {"rdlv": rdlv, **more}})


def found_in(folder: Path, lines: list[str]) -> dict[tuple[str, int], float]:
    path = folder / "events.jsonl"
    path.write_text("\n".join([*lines, '{"event": "score"}']) + "\n", encoding="utf-8")
    return leaks_of([path])


def test_the_leak_is_the_best_attack_of_the_last_round(tmp_path: Path) -> None:
    first = [leak("plain", 1, "row-space", 0.9), leak("plain", 10, "prior", 0.8)]
    lines = [*first, leak("plain", 10, "row-space", 0.7), leak("plain", 10, "bn-only", 0.1)]
    assert found_in(tmp_path, [*lines, leak("plain", 10, "maps-only", None)]) == {("plain", 8): 0.7}


@pytest.mark.parametrize("silent", [None, 0.05])
def test_where_the_strongest_attack_was_not_made_the_leak_is_not_known(tmp_path: Path, silent: float | None) -> None:
    plain = [leak("plain", 10, "row-space", 0.7, maps=4096.0), leak("plain", 10, "bn-only", 0.1)]
    noised = [leak("noise-1", 10, "row-space", silent, maps=0.0), leak("noise-1", 10, "bn-only", 0.05)]
    found = found_in(tmp_path, [*plain, *noised])
    assert found["plain", 8] == 0.7
    assert math.isnan(found["noise-1", 8]), "neither the prior that it left nor a weaker attack's"


def test_what_was_not_attempted_is_hollow_and_at_no_value(record: RunRecord, tmp_path: Path) -> None:
    sheets = []
    for name, leaks in {"none": math.nan, "zero": 0.0, "again": math.nan}.items():
        draw(record, {("plain", 8): 0.9, ("noise-1", 8): leaks}, tmp_path / f"{name}.png")
        sheets.append(np.asarray(Image.open(tmp_path / f"{name}.png")))
    assert (sheets[0] != sheets[1]).any()
    np.testing.assert_array_equal(sheets[0], sheets[2])


def test_no_kept_audit_under_noise_is_drawn_as_a_score() -> None:
    results = PROJECT / "docs/results/leakage"
    found = leaks_of([results / "federation-events.jsonl", results / "federation-epsilon.jsonl"])
    silent = {key for key, value in found.items() if math.isnan(value)}
    assert {(f"noise-{level}", site) for level in ("0.1", "1", "25") for site in (4, 8)} <= silent
    assert {("noise-0.01", 8), ("plain", 4), ("plain", 8), ("group-norm", 4), ("group-norm", 8)}.isdisjoint(silent)


def test_the_picture_has_cost_and_leak(record: RunRecord, tmp_path: Path) -> None:
    draw(record, {}, tmp_path / "cost.png")
    draw(record, {("plain", 8): 0.9, ("noise-1", 8): 0.0}, tmp_path / "both.png")
    alone, both = (np.asarray(Image.open(tmp_path / name)) for name in ("cost.png", "both.png"))
    assert alone.shape == both.shape
    left = np.s_[:, : alone.shape[1] // 2]
    assert (alone[left] != both[left]).any(), "the leak is drawn where its arms are"
