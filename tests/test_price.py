"""What protections cost, seed by seed, and what they leave of the leak."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fedsec.config.files import read_experiment
from fedsec.log.record import RunRecord
from fedsec.log.runlog import RunLog, read
from fedsec.reports.markdown.price import bare_arms, cost, draw, leaks_of, levels_of, table
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


def test_the_leak_is_of_the_strongest_attack_in_the_last_round_where_it_was_made(tmp_path: Path) -> None:
    def leak(number: int, attack: str, rdlv: float | None, **values: float) -> str:
        row = {"event": "leak", "arm": "plain", "seed": 0, "round": number, "partition": 8, "attack": attack}
        return json.dumps(row | {"values": values | ({} if rdlv is None else {"rdlv": rdlv})})

    lines = [leak(1, "row-space", 0.9), leak(10, "prior", 0.8), leak(10, "row-space", 0.7), leak(10, "bn-only", 0.9)]
    lines.append(leak(10, "row-space", 0.95, maps=0.0))  # gave up, and handed back the prior
    path = tmp_path / "events.jsonl"
    path.write_text("\n".join([*lines, leak(10, "maps-only", None), '{"event": "score"}']) + "\n", encoding="utf-8")
    assert leaks_of([path]) == {("plain", 8): 0.7}


def test_no_kept_audit_under_noise_has_a_square() -> None:
    kept = [PROJECT / f"docs/results/leakage/federation-{name}.jsonl" for name in ("events", "epsilon")]
    found = leaks_of(kept)
    assert {("plain", 4), ("plain", 8), ("group-norm", 4), ("group-norm", 8), ("noise-0.01", 8)} <= set(found)
    assert not {(f"noise-{level}", site) for level in ("0.1", "1", "25") for site in (4, 8)} & set(found)


def test_the_picture_has_cost_and_leak(record: RunRecord, tmp_path: Path) -> None:
    draw(record, {}, tmp_path / "cost.png")
    draw(record, {("plain", 8): 0.9, ("noise-1", 8): 0.0}, tmp_path / "both.png")
    alone, both = (np.asarray(Image.open(tmp_path / name)) for name in ("cost.png", "both.png"))
    assert alone.shape == both.shape
    left = np.s_[:, : alone.shape[1] // 2]
    assert (alone[left] != both[left]).any(), "the leak is drawn where its arms are"
