"""Scenarios put together from recorded clients keep what those clients are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fedsec.defences.evidence import signed_log
from fedsec.errors import RunError
from fedsec.reports.markdown.flags import WARMUP
from fedsec.seeds import stream
from studies.detection.calibration import check, judged, replayed
from studies.detection.scenarios import FALSE, SERIES, Pool, Trace, counted, pool_of, rates, replay, scenario, shuffled
from studies.detection.scenarios import RULES as CALIBRATED

ISIC = Path(__file__).parents[1] / "docs/results/isic"


def made_up(gap: float, *, clients: int = 12, rounds: int = 40) -> Pool:
    """Honest drops that differ by little; malicious ones larger by ``gap``; the peak likewise."""
    rng = stream(0, "made up")

    def trace(extra: float) -> Trace:
        values = 0.02 * rng.standard_normal((rounds, len(SERIES)))
        values[:, 2] += extra  # first steps
        values[:, 3] += 5 * extra
        return Trace(values)

    middle = np.tile(np.array([1.0, 1.0, 1.0, -2.0]), (rounds, 1))
    return Pool(tuple(trace(0.0) for _ in range(clients)), {1: tuple(trace(gap) for _ in range(3))}, (middle,))


def test_recorded_runs_give_honest_and_malicious_clients_once_each() -> None:
    pool = pool_of([ISIC], 60)
    assert {number: len(traces) for number, traces in pool.malicious.items()} == {1: 3}
    assert len(pool.honest) > 20
    assert len({trace.values.tobytes() for trace in pool.honest}) == len(pool.honest)
    late = np.array([trace.values[40:, 2].mean() - trace.values[40:, 0].mean() for trace in pool.honest])
    assert abs(np.median(late)) < 0.03, "honest clients drop as the median does"
    caught = [trace.values[40:, 2].mean() - trace.values[40:, 0].mean() for trace in pool.malicious[1]]
    assert min(caught) > late.max(), "attackers more than every honest one"


def test_a_run_without_equal_weights_gives_nothing() -> None:
    with pytest.raises(RunError, match="kept equal weights for 200 rounds"):
        pool_of([ISIC], 200)


def test_liars_report_the_honest_median_and_the_others_themselves() -> None:
    pool, rng = made_up(0.5), stream(1, "liars")
    table = scenario(pool, 8, 2, rng, lying=True)
    assert table.shape == (40, 8, len(SERIES))
    assert np.allclose([signed_log(v) for v in table[:, :2, :3].ravel()], 1.0)
    assert np.ptp(table[:, 2:, 0]) > 0
    assert table[:, :2, 3].min() > table[:, 2:, 3].max(), "what their generators draw is no lie"


def test_shuffling_keeps_the_mean_and_moves_only_what_passes() -> None:
    trace = np.linspace(0, 1, 60)[:, None] + 0.1 * stream(2, "trace").standard_normal((60, 4))
    moved = shuffled(trace, stream(3, "order"))
    assert not np.allclose(moved, trace)
    assert np.allclose(moved.mean(axis=0), trace.mean(axis=0), atol=1e-9)
    assert np.abs(moved - trace).max() < 0.7


@pytest.mark.parametrize("name", ["calibrated", "fed-inspect"])
def test_far_attackers_are_told_apart_and_none_is_found_where_none_stands_out(name: str) -> None:
    far = rates(made_up(0.6), 4, 1, name, 8)
    assert far["flags"] > 0.95
    assert far["auc"] > 0.99
    assert far["share"] < 0.1
    near = rates(made_up(0.0), 4, 1, name, 8)
    assert near["flags"] < 0.2
    assert 0.2 < near["auc"] < 0.8
    assert rates(made_up(0.6), 10, 0, name, 4)["false flags"] < 0.02


def test_a_roc_rises_from_the_rarest_false_flag_to_all_of_them() -> None:
    found = rates(made_up(0.002), 10, 1, "fed-inspect", 4)
    curve = found["roc"]
    assert len(curve) == len(FALSE)
    assert curve == sorted(curve)
    assert curve[-1] == 1
    assert curve[0] < 1, "a faint attacker is not told apart at one false flag in a thousand"
    assert rates(made_up(0.6), 10, 1, "fed-inspect", 4)["roc"][0] == 1


def test_every_case_is_judged_once_and_fewer_scenarios_of_more_clients() -> None:
    rows = list(judged(made_up(0.6), ["fed-inspect"], {4, 10}, 30, 1.0))
    cases = [(row["attackers"], row["clients"], row["lying"]) for row in rows]
    assert cases == [
        (0, 4, False), (1, 4, False), (1, 4, True),
        (0, 10, False), (1, 10, False), (1, 10, True), (3, 10, False), (3, 10, True),
    ]  # fmt: skip
    assert {row["scenarios"] for row in rows if row["clients"] == 4} == {30}
    assert {row["scenarios"] for row in rows if row["clients"] == 10} == {12}
    assert "flags" not in rows[0], "nobody attacks"


def test_the_printed_rule_decays_by_the_flags_of_the_released_one() -> None:
    pool = made_up(0.6)
    table = scenario(pool, 4, 1, stream(0, "scenario", 4, 1, 0), lying=False)
    weights = replay(table, CALIBRATED["paper"])[2]
    assert rates(pool, 4, 1, "released", 1)["printed"] == pytest.approx(4 * weights[0])
    assert rates(pool, 4, 1, "released", 1)["share"] != pytest.approx(4 * weights[0])


def test_an_attacker_is_drawn_from_those_that_attacked_in_like_numbers() -> None:
    alone, colluding = ((Trace(np.full((40, 4), value)),) for value in (1.0, 2.0))
    pool = Pool(made_up(0).honest, {1: alone, 3: colluding}, made_up(0).medians)
    assert pool.attackers(1) is alone
    assert all(pool.attackers(count) is colluding for count in (2, 3, 9, 30))


def test_lies_blind_what_reads_losses_and_not_what_looks_at_drawings() -> None:
    pool = made_up(0.6)
    assert rates(pool, 4, 1, "calibrated", 6, lying=True)["flags"] == 0
    assert rates(pool, 4, 1, "fed-inspect", 6, lying=True)["flags"] > 0.95


def test_where_a_third_is_asked_traces_go_on_with_their_clients_own_rounds() -> None:
    pool = made_up(0.6)
    table = scenario(pool, 30, 9, stream(6, "third"), lying=False, fraction=0.34)
    asked = ~np.isnan(table[..., 0])
    assert (asked.sum(axis=1) == 10).all()
    assert asked.sum(axis=0).max() == 40, "ends when the first trace is used up"
    assert len(table) > 60
    here = counted(table)
    assert not (here & ~asked).any()
    assert (asked.sum(axis=0) - here.sum(axis=0) == WARMUP).all()
    everybody = scenario(pool, 30, 9, stream(6, "third"), lying=False)
    assert (counted(everybody) == (np.arange(40) >= WARMUP)[:, None]).all()


def test_a_round_of_attackers_in_the_majority_is_judged_by_those_not_asked() -> None:
    found = rates(made_up(0.6), 30, 9, "fed-inspect", 3, fraction=0.34)
    assert found["flags"] > 0.95
    assert found["false flags"] < 0.01


def test_a_replay_is_the_judges_own_words() -> None:
    table = scenario(made_up(0.6), 4, 1, stream(5, "replay"), lying=False)
    flags, suspicion, weights = replay(table, CALIBRATED["calibrated"])
    assert flags.shape == suspicion.shape == (40, 4)
    assert weights.sum() == pytest.approx(1)
    assert weights[0] == weights.min()


def test_whole_runs_are_held_against_scenarios() -> None:
    lines = list(check(pool_of([ISIC], 60), [ISIC], 60, 3, ["calibrated"]))
    cells = {line.split(" | ")[0] for line in lines[2:]}
    assert cells == {f"| isic: {arm}+fed-detect, seed {seed}" for arm in ("attack", "clean") for seed in (0, 1, 2)}


def test_scenarios_and_a_whole_run_of_ten_unequal_hospitals_agree() -> None:
    """The whole run's rates lie in the range of 95 % of scenarios like it (docs/results/calibration.md)."""
    kept = ISIC.parent / "calibration"
    rows = list(check(pool_of([kept / "traces-0.1"], 40), [kept / "clients-10-0.1-1"], 40, 12, ["fed-inspect"]))[2:]
    assert len(rows) == 2
    for row in rows:
        cells = [cell.strip() for cell in row.strip("|").split("|")]
        for run, scenarios in ((cells[2], cells[3]), (cells[4], cells[5])):
            if run != "–":
                low, high = (float(part) for part in scenarios.split("(")[1].rstrip(")").split(" to "))
                assert low - 0.01 <= float(run) <= high + 0.01, row


def test_rules_are_replayed_on_the_losses_of_undefended_cells() -> None:
    lines = list(replayed([ISIC.parent / "diffusion"], ["calibrated"]))
    cells = {("vanilla", 0), ("attack", 0), ("attack", 1), ("attack", 2)}
    assert set(lines[1:]) == {f"| {arm}, seed {seed} | calibrated | 0, 0, 0, 0 |" for arm, seed in cells}
