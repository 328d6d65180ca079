"""Matrix files become arms, cells survive as files, and standings say what the cells say."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from clients.client_app import app
from fedsec.attacks.knowing import KNOWING
from fedsec.config import RunConfig
from fedsec.config.files import read_experiment
from fedsec.config.matrix import Matrix, read_matrix
from fedsec.config.toml import CONFIG
from fedsec.errors import ConfigError, RunError
from fedsec.log import cells as kept
from fedsec.log import runlog
from fedsec.log.runlog import RunLog
from fedsec.log.tail import Tail
from fedsec.metrics.intervals import mean_interval, paired_ratio
from fedsec.reports.markdown.matrix import apart
from fedsec.reports.matrix import MAPS, draw
from fedsec.reports.matrix import rules as versions
from fedsec.run import launch, machine
from fedsec.run import matrix as matrix_run
from fedsec.run.matrix import run_matrix, standings, worst_arms
from fedsec.run.standings import Standings
from fedsec.run.versions import rules
from fedsec.types import Score
from strategies.server_app import run_experiment
from tests.local_grid import LocalGrid
from tests.quick_extractor import keep_quick_extractor
from tests.reports.fake_run import Plan, build, cell, start

ROOT = Path(__file__).parents[1]
SMALL = """
[run]
name = "m"
[data]
count = 160
[split]
clients = 4
[gan]
width = 4
latent = 8
[train]
rounds = 1
steps = 2
batch = 4
[measure]
samples = 64
utility = ""
[attacks.none]
[attacks.patch]
attack.name = "patch"
[attacks.liar]
attack.name = "patch"
attack.report = "median"
[attacks.flip]
attack.name = "label-flip"
attack.malicious = "1"
[defences.fed-avg]
[defences.median]
defence.name = "median"
[defences.inspect]
defence.name = "fed-inspect"
[profiles.less]
attacks = ["none", "patch"]
defences = ["fed-avg", "median"]
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "small.toml"
    path.write_text(SMALL)
    return path


def matrix(file: Path, *settings: str, profile: str = "") -> Matrix:
    return read_matrix(file, profile, [f"run.out={file.parent / 'runs'}", *settings])


def test_pairs_that_cannot_differ_share_an_arm(file: Path) -> None:
    pairs = matrix(file).pairs
    assert pairs["liar", "fed-avg"] == "patch+fed-avg", "nobody reads what is reported"
    assert pairs["liar", "inspect"] == "liar+inspect"
    assert pairs["liar", "oracle"] == pairs["patch", "oracle"] == "patch+oracle"
    assert pairs["flip", "oracle"] == "flip+oracle", "another client is left out"
    assert pairs["none", "oracle"] == "none+fed-avg"
    assert len(set(pairs.values())) == 3 + 3 + 4 + 2


def test_more_seeds_go_where_the_file_says(file: Path) -> None:
    file.write_text(SMALL + '[again]\nseeds = "0,1"\ndefences = ["oracle"]\narms = ["none+fed-avg"]\n')
    config = matrix(file).config("iid", worst=("flip+median",))
    seeds = {arm: config.arm(arm).seeds for arm in config.arms}
    assert {arm for arm, own in seeds.items() if own == (0, 1)} == {
        "none+fed-avg",
        "patch+oracle",
        "flip+oracle",
        "flip+median",
    }
    assert set(seeds.values()) == {(0,), (0, 1)}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (("[attacks.none]", ""), r"\[attacks.none\]: missing"),
        (("[defences.fed-avg]", ""), r"\[defences.fed-avg\]: missing"),
        (("[defences.median]", "[defences.oracle]"), "leave it out"),
        (("[attacks.flip]", '[attacks."a+b"]'), "'a\\+b': use letters"),
        (('"label-flip"', '"label-flop"'), "attack.name = 'label-flop'"),
        (("[run]", '[again]\nworst = "yes"\n[run]'), "must be bool"),
        (("[run]", "[again]\nwhat = 1\n[run]"), "again.what: unknown key"),
        (("[run]", '[again]\narms = ["x"]\n[run]'), "is no ATTACK\\+DEFENCE"),
        (("[run]", '[again]\ndefences = ["x"]\n[run]'), "'x' is not among"),
        (('["none", "patch"]', '["none", "x"]'), "must be a list of none"),
    ],
)
def test_a_file_that_is_no_matrix_says_why(file: Path, change: tuple[str, str], told: str) -> None:
    file.write_text(SMALL.replace(*change))
    with pytest.raises(ConfigError, match=told):
        matrix(file, profile="less" if "list" in told else "")


def test_the_matrix_that_comes_with_fedsec_is_one() -> None:
    for profile in ("", "iid", "quick", "adaptive"):
        read = read_matrix(ROOT / "experiments" / "matrix.toml", profile, [])
        assert "none" in read.attacks
    assert len(read_matrix(ROOT / "experiments" / "matrix.toml", "", []).attacks) > 8
    assert "discriminator-only" in read_matrix(ROOT / "experiments" / "matrix-shared.toml", "", []).attacks


def test_the_adaptive_profile_has_every_attacker_that_knows_a_rule_and_splits_with_more_attackers() -> None:
    adaptive = read_matrix(ROOT / "experiments" / "matrix.toml", "adaptive", [])
    updates = {str(flat.get("attack.update")) for flat in adaptive.attacks.values()}
    assert {*KNOWING} - updates == {"discriminator-only"}, "experiments/matrix-shared.toml has it"
    guilty = {split: len(adaptive.config(split).arm("patch+fed-avg").malicious) for split in adaptive.splits}
    assert guilty == {"iid": 1, "site": 1, "dirichlet-0.3": 1, "clients-10": 2, "clients-30": 7}


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Flower runs over the in-process grid; a run ends with an error once it has finished so many cells."""
    allowed = [math.inf]

    def run(folder: Path, needs: machine.Resources, *, watch: Callable[[], None]) -> None:
        config = read_experiment(folder / CONFIG, "", [])
        keep_quick_extractor(config.data)

        def count(self: RunLog, *args: Any) -> None:
            end(self, *args)
            watch()
            allowed[0] -= 1
            if allowed[0] <= 0:
                raise RunError("pulled the plug")

        end = RunLog.cell_end
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(RunLog, "cell_end", count)
            run_experiment(LocalGrid(app, config.to_flat(), nodes=4), config, wait=1)

    monkeypatch.setattr(launch, "run", run)

    def limit(cells: int) -> None:
        allowed[0] = cells

    return limit


def test_an_interrupted_matrix_goes_on_from_its_cell_files_alone(
    file: Path, tmp_path: Path, in_process: Callable[[int], None]
) -> None:
    cells, console = tmp_path / "cells", Console(quiet=True)
    announced: list[int] = []

    def announce(plan: object, todo: list[tuple[str, int]]) -> None:
        announced.append(len(todo))

    small = matrix(file, profile="less")
    in_process(2)
    with pytest.raises(RunError, match="plug"):
        run_matrix(small, cells, console, announce=announce)
    assert len(list((cells / "iid").iterdir())) == 2
    in_process(99)
    elsewhere = matrix(file, f"run.out={tmp_path / 'other machine'}", profile="less")
    run_matrix(elsewhere, cells, console, announce=announce)
    assert announced == [5, 3]
    run_matrix(elsewhere, cells, console, announce=announce)
    assert announced[-1] == 0
    page = draw(elsewhere, cells).read_text(encoding="utf-8")
    assert "Fréchet distance over the oracle" in page
    assert "Not finished" not in page
    assert "stamp a patch on their images" in page
    assert "they know their own images" in page
    board = standings(elsewhere, "iid", cells)
    assert board.ratio("patch", "oracle").mean == pytest.approx(1)
    assert math.isfinite(board.trigger("patch", "oracle").mean)
    assert math.isnan(board.trigger("none", "median").mean), "nobody's trigger"
    found = board.record.finished()["none+median", 0].final()
    assert {"gan-test-auc", "trigger-rate", "trigger-rate@patch"} & set(found) == {"gan-test-auc", "trigger-rate"}
    assert worst_arms(elsewhere, "iid", cells) == ("patch+fed-avg", "patch+median")


def test_a_cell_of_another_rule_is_made_again_and_is_still_read_as_what_it_was_made_with(
    file: Path, tmp_path: Path, in_process: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    file.write_text(SMALL.replace('defences = ["fed-avg", "median"]', 'defences = ["fed-avg", "inspect"]'))
    cells, console = tmp_path / "cells", Console(quiet=True)
    small = matrix(file, profile="less")
    run_matrix(small, cells, console, announce=lambda plan, todo: None)
    told: list[list[tuple[str, int]]] = []
    monkeypatch.setattr(matrix_run, "rules", lambda: {"fed-inspect": "changed", "fed-detect": "changed"})
    elsewhere = matrix(file, f"run.out={tmp_path / 'other machine'}", profile="less")
    run_matrix(elsewhere, cells, console, announce=lambda plan, todo: told.append(todo), dry=True)
    assert told == [[("none+inspect", 0), ("patch+inspect", 0)]], "what no rule judges stays"
    board = standings(elsewhere, "iid", cells)
    found = board.record.finished()
    assert versions(board) == ""
    mixed = {**found, ("none+inspect", 0): replace(found["none+inspect", 0], rule="fedcba987654")}
    said = versions(replace(board, record=replace(board.record, cells=mixed)))
    assert "more than one rule" in said
    assert f"{rules()['fed-inspect']} (1 cells)" in said
    assert {cell.rule for (arm, _), cell in found.items() if arm.endswith("+inspect")} == {rules()["fed-inspect"]}
    assert {cell.rule for (arm, _), cell in found.items() if arm.endswith("+fed-avg")} == {""}
    for path in (cells / "iid").iterdir():  # as files of before the digest are: they name no rule
        path.write_text(path.read_text().replace(f', "rule": "{rules()["fed-inspect"]}"', ""))
    left = standings(elsewhere, "iid", cells).record.finished()
    assert {arm for arm, _ in left} == {"none+fed-avg", "patch+fed-avg", "patch+oracle"}, "whose digest it is not"


def test_what_more_seeds_show_to_be_worse_gets_more_seeds_too(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = iter([("patch+fed-avg",), ("patch+fed-avg", "flip+median"), ("flip+median",)])
    ran: list[set[str]] = []
    monkeypatch.setattr(matrix_run, "worst_arms", lambda *_: next(shown))
    monkeypatch.setattr(matrix_run, "_run_split", lambda *told: ran.append({*told[-1]}))
    chosen = matrix(file)
    run_matrix(replace(chosen, again=replace(chosen.again, worst=True)), tmp_path, Console(), announce=lambda *_: None)
    assert ran == [set(), {"patch+fed-avg"}, {"patch+fed-avg", "flip+median"}]


def test_a_clean_arm_looks_for_every_trigger_of_the_run(file: Path, tmp_path: Path, in_process: Any) -> None:
    changed = SMALL.replace(
        'attack.name = "patch"\nattack.report', 'attack.size = 8\nattack.name = "patch"\nattack.report'
    )
    file.write_text(changed.replace('attacks = ["none", "patch"]', 'attacks = ["none", "liar"]'))
    cells = tmp_path / "cells"
    run_matrix(matrix(file, profile="less"), cells, Console(quiet=True), announce=lambda plan, todo: None)
    board = standings(matrix(file, profile="less"), "iid", cells)
    clean, attacked = (board.record.finished()[arm, 0].final() for arm in ("none+fed-avg", "liar+fed-avg"))
    assert "trigger-rate@patch-size-8" in clean
    assert "trigger-rate@patch-size-8" not in attacked
    assert board.record.finished()["liar+oracle", 0].final()["trigger-rate"].score.value >= 0


def test_nothing_finished_is_an_error_and_not_an_empty_page(file: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no cell of this matrix is finished"):
        draw(matrix(file), tmp_path / "cells")


def test_a_cell_file_is_the_cell(tmp_path: Path) -> None:
    run = build(tmp_path / "run", Plan(seeds=(0,), rounds=4))
    record = runlog.read(run)
    for key in record.cells:
        kept.keep(run, tmp_path / "cells", key)
    log = RunLog(tmp_path / "again")
    start(log, Plan(seeds=(0,), rounds=4))
    wanted = {key: found.digest for key, found in record.cells.items()}
    assert kept.recall(tmp_path / "again", tmp_path / "cells", wanted) == list(wanted)
    assert kept.recall(tmp_path / "again", tmp_path / "cells", wanted) == [], "it is there by now"
    for key, found in runlog.read(tmp_path / "again").cells.items():
        before = record.cells[key]
        assert found.finished
        assert [row.flags for row in found.rounds] == [row.flags for row in before.rounds]
        for name, row in found.final().items():
            assert row.score.value == pytest.approx(before.final()[name].score.value, rel=1e-5, nan_ok=True)
    other = dict.fromkeys(wanted, "another digest")
    assert kept.recall(tmp_path / "again", tmp_path / "cells", other) == []


@pytest.mark.parametrize("text", ["{", '{"event": "round", "arm": "a", "seed": 0}\n'])
def test_a_broken_cell_file_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "a-0.jsonl").write_text(text)
    with pytest.raises(RunError, match=r"a-0\.jsonl"):
        kept.recall(tmp_path / "run", tmp_path, {("a", 0): "d"})


def test_a_tail_sees_what_a_whole_reading_sees(tmp_path: Path) -> None:
    log, tail = RunLog(tmp_path), Tail(tmp_path)
    assert not tail.grown()
    plan = Plan(seeds=(0,), rounds=4, pictures=False)
    start(log, plan)
    cell(log, tmp_path, plan, "vanilla", 0, end=False)
    assert tail.grown()
    assert not tail.cells["vanilla", 0].finished
    with log.path.open("ab") as torn:
        torn.write(b'{"event": "cell-e')
    assert not tail.grown(), "half a line is not read"
    with log.path.open("ab") as rest:
        rest.write(b'nd", "arm": "vanilla", "seed": 0, "digest": "vanilla-0", "seconds": 1.0}\n')
    assert tail.grown()
    assert repr(tail.cells) == repr(runlog.read(tmp_path).cells)


def board_of(tmp_path: Path, values: dict[tuple[str, str], dict[str, tuple[float, ...]]]) -> Standings:
    """Standings of made-up scores: (attack, defence) -> metric -> one value a seed."""
    attacks = tuple(dict.fromkeys(attack for attack, _ in values))
    defences = tuple(dict.fromkeys(defence for _, defence in values))
    pairs = {pair: "+".join(pair) for pair in values}
    log = RunLog(tmp_path)
    arms = {pairs[pair]: {} if pair[0] == "none" else {"attack.name": "patch"} for pair in values}
    seeds = range(max(len(v) for scores in values.values() for v in scores.values()))
    config = RunConfig.from_flat({"run.arms": json.dumps(arms), "run.seeds": ",".join(map(str, seeds))})
    facts = {"source": "x", "train": 9, "test": 9, "classes": [], "sites": [], "quarantined": 0, "digest": "d"}
    log.run(
        config=config.to_flat(), versions={}, data=facts, labels=[[1]] * 4, sites=[[1]] * 4, malicious=[0],
        arms=list(arms), seeds=list(seeds), measured_by="frechet-domain",
    )  # fmt: skip
    for pair, scores in values.items():
        for seed in seeds:
            log.cell_start(pairs[pair], seed, "d")
            for name, row in scores.items():
                log.score(pairs[pair], seed, 1, Score(name, row[seed], 9, "lower"), final=True)
            log.cell_end(pairs[pair], seed, "d", 10.0 + seed)
    return Standings(runlog.read(tmp_path), attacks, defences, pairs)


def test_standings_divide_by_the_oracle_of_the_same_seed(tmp_path: Path) -> None:
    fid = "frechet-domain"
    board = board_of(
        tmp_path,
        {
            ("none", "fed-avg"): {fid: (2.0, 4.0), "false-flag-rate": (0.0, 0.0)},
            ("none", "a"): {fid: (3.0, 6.0), "false-flag-rate": (0.1, 0.2)},
            ("none", "oracle"): {fid: (2.0, 4.0)},
            ("x", "fed-avg"): {fid: (8.0, 16.0), "trigger-rate": (1.0, 0.8)},
            ("x", "a"): {fid: (4.0, 8.0), "trigger-rate": (0.0, 0.2), "trigger-strength": (0.25, 0.5)},
            ("x", "oracle"): {fid: (4.0, 8.0), "trigger-rate": (0.0, 0.0)},
        },
    )
    assert board.ratio("x", "fed-avg").mean == pytest.approx(2)
    assert board.ratio("none", "a").mean == pytest.approx(1.5), "the price when nobody attacks"
    assert board.trigger("x", "a").mean == pytest.approx(0.1)
    assert board.strength("x", "a").mean == pytest.approx(0.375)
    assert math.isnan(board.strength("none", "a").mean)
    assert math.isnan(board.trigger("none", "a").mean)
    assert board.flags("none", "a").mean == pytest.approx(0.15)
    assert board.seconds("x", "a").mean == pytest.approx(10.5)
    attack, most = board.worst("fed-avg", board.ratio)
    assert attack == "x"
    assert most == pytest.approx(2)
    ranks = board.ranks(board.ratio)
    assert (ranks["a"].mean, ranks["fed-avg"].mean) == (1, 2)
    assert "oracle" not in ranks


def test_a_map_tells_each_seed_by_itself_and_leaves_out_attacks_without_a_value(tmp_path: Path) -> None:
    rate = "trigger-rate"
    board = board_of(
        tmp_path,
        {
            ("none", "fed-avg"): {"frechet-domain": (2.0, 4.0, 3.0)},
            ("none", "oracle"): {"frechet-domain": (2.0, 4.0, 3.0)},
            ("x", "fed-avg"): {rate: (1.0, 0.8, 0.9)},
            ("x", "oracle"): {"frechet-domain": (2.0, 4.0, 3.0)},
        },
    )
    shown = next(shown for shown in MAPS if shown.title == "Trigger rate")
    lines = "\n".join(apart(board, shown)).splitlines()
    assert lines[0] == "| attack | fed-avg | oracle |"
    assert lines[2:] == [f"| x | {', '.join(map(shown.text, (1.0, 0.8, 0.9)))} | – |"]


def test_ranks_carry_the_spread_over_attacks(tmp_path: Path) -> None:
    scores: dict[tuple[str, str], dict[str, tuple[float, ...]]] = {}
    for index, attack in enumerate(["none", "x", "y", "z", "w"]):
        for defence, value in (("fed-avg", 3.0), ("a", 2.0 if index % 2 else 4.0), ("b", 5.0), ("oracle", 1.0)):
            scores[attack, defence] = {"frechet-domain": (value,)}
    ranks = board_of(tmp_path, scores).ranks(board_of(tmp_path, scores).ratio)
    assert ranks["b"].mean == 3
    assert (ranks["b"].low, ranks["b"].high) == (3, 3)
    assert ranks["a"].mean == 1.5
    assert ranks["a"].low < 1.5 < ranks["a"].high


def test_a_defence_that_lacks_an_attack_is_not_ranked(tmp_path: Path) -> None:
    scores: dict[tuple[str, str], dict[str, tuple[float, ...]]] = {}
    for attack in ("none", "x", "y"):
        for defence, value in (("fed-avg", 3.0), ("a", 2.0), ("begun", 1.5), ("oracle", 1.0)):
            name = "other" if (attack, defence) == ("y", "begun") else "frechet-domain"
            scores[attack, defence] = {name: (value,)}
    board = board_of(tmp_path, scores)
    ranks = board.ranks(board.ratio)
    assert math.isnan(ranks["begun"].mean)
    assert (ranks["a"].mean, ranks["fed-avg"].mean) == (1, 2)
    assert all(math.isnan(rank.mean) for rank in board.ranks(board.trigger).values()), "nobody has a trigger"


def test_a_cell_file_says_which_cell_it_holds(tmp_path: Path) -> None:
    run = build(tmp_path / "run", Plan(seeds=(0,), rounds=2, pictures=False))
    kept.keep(run, tmp_path, ("vanilla", 0))
    assert kept.holds(tmp_path, ("vanilla", 0), "vanilla-0")
    assert not kept.holds(tmp_path, ("vanilla", 0), "another")
    assert not kept.holds(tmp_path, ("attack", 0), "attack-0")


def test_two_seeds_are_told_as_two_values_and_an_interval_stays_within_what_there_is() -> None:
    """Student's interval of a rate from two seeds runs from -555 % to 651 %: that says nothing."""
    maps = {shown.title: shown for shown in MAPS}
    rate, ratio, seconds = maps["Trigger rate"], maps["Fréchet distance over the oracle's"], maps["Seconds a cell"]
    assert rate.spread(mean_interval([0.5])) == ""
    assert rate.spread(mean_interval([0.06, math.nan, 0.91])) == "6.0 %, 91.0 %"
    assert rate.spread(mean_interval([0.0, 0.05, 0.9])) == "0 % to 100 %"
    low, high = ratio.spread(paired_ratio([1.0, 2.0, 3.0], [1.0, 1.0, 1.0])).split(" to ")
    assert float(low) < 1 < 2 < float(high)
    assert seconds.spread(mean_interval([30.0, 400.0, 900.0])) == ""
