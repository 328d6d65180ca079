"""Rule ``calibrated`` on the level of losses: rates on recorded and drawn ones, the record, odd replies."""

from __future__ import annotations

import json
from dataclasses import FrozenInstanceError, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from fedsec.config import Defence
from fedsec.defences.evidence import Losses
from fedsec.defences.feddetect import LONGEST, RULES, Rule, Standing, _isolated, judge, rule_of
from fedsec.defences.isolation import NULLS
from fedsec.errors import ConfigError, RunError
from fedsec.seeds import stream

Matrix = npt.NDArray[np.float64]
TRACES: dict[str, list[list[float]]] = json.loads((Path(__file__).parent / "traces.json").read_text())["traces"]
CLEAN = sorted(name for name in TRACES if not name.startswith("atk"))
ATTACKED = sorted(name for name in TRACES if name.startswith("atk"))
LEVEL = Rule(reading="mean")
WARMUP = LEVEL.warmup


@dataclass(frozen=True)
class Replay:
    flags: npt.NDArray[np.bool_]
    suspicion: Matrix
    weights: Matrix
    standing: Standing


def replay(losses: Matrix | list[list[float]], rule: Rule | None = None) -> Replay:
    """Every round judged in turn; the weights do not feed back into the losses."""
    standing = Standing.start(len(losses[0]))
    verdicts = []
    for row in losses:
        verdict, standing = judge([float(v) for v in row], standing, rule or LEVEL)
        verdicts.append(verdict)
    return Replay(
        np.array([v.flagged for v in verdicts]),
        np.array([v.suspicion for v in verdicts]),
        np.array([v.weights for v in verdicts]),
        standing,
    )


def federation(n: int, rounds: int, seed: int, *, between: float = 0.12, within: float = 0.15) -> Matrix:
    """Losses around 1.5: log-normal persistent client effects and round noise, a slow common drift."""
    rng = stream(seed, "federation", n)
    level = np.log(1.5) + 0.4 * np.exp(-np.arange(rounds) / 15)[:, None]
    losses: Matrix = np.exp(level + between * rng.standard_normal(n) + within * rng.standard_normal((rounds, n)))
    return losses


@pytest.mark.parametrize("name", CLEAN)
def test_recorded_clean_runs_keep_the_false_flag_rate_and_the_weights(name: str) -> None:
    run = replay(TRACES[name])
    assert run.flags.mean() <= 0.02
    assert run.weights.min() >= 0.5 / 4


@pytest.mark.parametrize("name", ATTACKED)
def test_recorded_attackers_lose_their_weight_and_no_one_else_does(name: str) -> None:
    run = replay(TRACES[name])
    assert run.flags[WARMUP:, 0].mean() >= 0.8
    assert not run.flags[:, 1:].any()
    below = np.flatnonzero(run.weights[:, 0] < 0.01)
    assert below[0] + 1 <= 30
    assert (run.weights[below[0] :, 0] < 0.01).all(), "and stays there"
    assert (run.suspicion[WARMUP:].argmax(axis=1) == 0).all()


def test_recorded_clean_runs_under_the_released_rule_are_why_this_rule_exists() -> None:
    run = replay(TRACES["base"][:20], Rule("released"))
    assert run.flags[12:].mean() > 0.1


@pytest.mark.parametrize(("n", "federations"), [(4, 120), (10, 20), (30, 10), (100, 4)])
def test_drawn_clean_runs_of_200_rounds(n: int, federations: int) -> None:
    runs = [replay(federation(n, 200, seed)) for seed in range(federations)]
    kept = np.concatenate([run.weights.min(axis=0) * n >= 0.5 for run in runs])
    assert np.mean([run.flags.mean() for run in runs]) <= 0.02
    assert kept.mean() > 0.95


@pytest.mark.parametrize(
    ("n", "attackers", "times"), [(4, 1, 1.8), (10, 1, 2.2), (10, 3, 2.2), (30, 9, 2.2), (100, 1, 3)]
)
def test_attackers_lose_all_but_a_25th_of_their_share_by_round_30(n: int, attackers: int, times: float) -> None:
    """For n = 4 that is 1 % of the total weight."""
    lost: list[bool] = []
    harmed: list[bool] = []
    for seed in range(6):
        losses = federation(n, 60, seed + 1000)
        losses[3:, :attackers] *= times
        run = replay(losses)
        lost.extend(run.weights[29, :attackers] * n < 0.04)
        harmed.extend(run.weights[-1, attackers:] * (n - attackers) < 0.5)
    assert np.mean(lost) >= 0.8
    assert np.mean(harmed) <= 0.02


def test_two_of_four_reach_the_papers_gate_and_are_not_flagged() -> None:
    losses = federation(4, 40, 5)
    losses[:, :2] *= 2.2
    assert not replay(losses).flags.any(), "no majority can be told from the other: at most floor(n/2) - 1 flags"


def test_two_flags_cost_nothing_ten_nearly_all_and_a_clear_record_comes_back() -> None:
    rule = Rule(warmup=0, reading="mean")
    standing = Standing.start(4)
    shares = []
    for _ in range(10):
        _, standing = judge([float("nan"), 1.0, 1.1, 0.9], standing, rule)
        shares.append(standing.weights[0])
    assert shares[1] == 0.25
    assert shares == sorted(shares, reverse=True)
    assert shares[-1] < 0.01
    for _ in range(70):
        _, standing = judge([1.0, 1.0, 1.1, 0.9], standing, rule)
    assert standing.counts == (0, 0, 0, 0)
    assert standing.weights == (0.25,) * 4


def test_the_record_is_bounded() -> None:
    standing = Standing.start(4)
    for _ in range(40):
        _, standing = judge([float("inf"), 1.0, 1.1, 0.9], standing, LEVEL)
    assert standing.counts[0] == LONGEST


@pytest.mark.parametrize("loss", [float("nan"), float("inf"), float("-inf"), 1e300, -1e300, 4e38, 1.1e6])
@pytest.mark.parametrize("n", [4, 10])
def test_a_loss_that_cannot_be_is_a_violation_and_touches_nobody_else(loss: float, n: int) -> None:
    plain, lied = Standing.start(n - 1), Standing.start(n)
    for row in federation(n, 25, 3):
        honest = [float(v) for v in row[1:]]
        without, plain = judge(honest, plain, LEVEL)
        verdict, lied = judge([loss, *honest], lied, LEVEL)
        assert verdict.flagged == (True, *without.flagged)
        assert verdict.weights[0] == 0
        assert verdict.suspicion[0] > max(verdict.suspicion[1:])
        assert "reported generator loss" in verdict.reasons[0]
        assert "\n" not in verdict.reasons[0]
    assert lied.weights[0] < 0.01


def test_when_all_lie_all_are_flagged_and_someone_still_weighs() -> None:
    verdict, _ = judge([float("nan"), float("inf"), 1e9, None], Standing.start(4), LEVEL)
    assert verdict.flagged == (True, True, True, False)
    assert verdict.weights == pytest.approx((1 / 3, 1 / 3, 1 / 3, 0))


def test_a_low_loss_is_never_suspicious() -> None:
    losses = federation(4, 60, 2, between=0.02)
    losses[:, 2] /= 6
    run = replay(losses)
    assert not run.flags[:, 2].any()
    assert run.suspicion[:, 2].max() < 1


def test_one_spike_flags_nobody() -> None:
    losses = federation(4, 40, 2, between=0.02, within=0.05)
    losses[20, 1] = 9e5
    assert not replay(losses).flags.any()


def test_warm_up_counts_flags_but_moves_no_weight() -> None:
    losses = federation(4, 30, 2)
    losses[:, 0] *= 4
    run = replay(losses, Rule(warmup=15, reading="mean"))
    assert run.flags[5:15, 0].all()
    assert (run.weights[:15] == 0.25).all()
    assert run.weights[15, 0] < 0.01


def test_a_silent_client_keeps_its_record_and_weighs_nothing() -> None:
    losses = federation(4, 40, 2)
    losses[:, 0] *= 3
    before = replay(losses).standing
    row: Losses = [None, *map(float, losses[-1, 1:])]
    verdict, after = judge(row, before, LEVEL)
    assert not verdict.flagged[0]
    assert verdict.suspicion[0] == 0
    assert verdict.weights[0] == 0
    assert sum(verdict.weights) == pytest.approx(1)
    assert after.counts[0] == before.counts[0]
    verdict, after = judge([None] * 4, before, LEVEL)
    assert verdict.weights == pytest.approx(before.weights)
    assert after.counts == before.counts


def test_attackers_who_are_most_of_those_asked_are_judged_beside_what_is_remembered_of_the_others() -> None:
    losses = federation(12, 40, 2, between=0.04, within=0.05)
    losses[:, :4] *= 3
    before = replay(losses).standing
    row: Losses = [float(loss) if i < 6 else None for i, loss in enumerate(losses[-1])]
    verdict, _ = judge(row, before, LEVEL)
    assert verdict.flagged == (True,) * 4 + (False,) * 8, "four of the six asked"
    assert verdict.suspicion[6:] == (0.0,) * 6, "who was not asked is not judged"


@pytest.mark.parametrize("null", sorted(NULLS))
def test_the_rate_holds_where_some_of_the_clients_are_asked(null: str) -> None:
    """Two forests, each at half the rate; both at the whole of it reach 0.012 under ``student``."""
    rng, false = stream(0, "asked", null), []
    for row in NULLS[null](rng, (4000, 12)):
        known = dict(enumerate(map(float, row)))
        judged = {int(i): known[int(i)] for i in rng.choice(12, 5, replace=False)}
        false += [flagged for flagged, _ in _isolated(judged, known, 0.01, 1.0).values()]
    assert len(false) == 20_000
    assert np.mean(false) <= 0.01


@pytest.mark.parametrize("n", [1, 2, 3])
@pytest.mark.parametrize("name", sorted(RULES))
def test_few_clients_are_judged_by_violations_alone(name: str, n: int) -> None:
    standing = Standing.start(n)
    for _ in range(15):
        verdict, standing = judge([50.0, 1.0, 1.1][:n], standing, Rule(name))
        assert not any(verdict.flagged)
        assert sum(verdict.weights) == pytest.approx(1)


def test_standing_reads_back_what_it_wrote_and_refuses_the_rest() -> None:
    row: Losses = [1.0, 1.2, None, 3.0]
    standing = Standing.start(4)
    for _ in range(12):
        _, standing = judge(row, standing, LEVEL)
    assert Standing.from_json(standing.to_json()) == standing
    with pytest.raises(FrozenInstanceError):
        standing.round = 3  # type: ignore[misc]
    for text in (
        "",
        "[]",
        "{}",
        '{"weights": [0.5, 0.5], "counts": [0], "history": [], "away": [], "round": 0}',
        '{"weights": [0.9, 0.9], "counts": [0, 0], "history": [], "away": [], "round": 0}',
        '{"weights": [0.5, NaN], "counts": [0, 0], "history": [], "away": [], "round": 0}',
        '{"weights": [0.5, 0.5], "counts": [0, 0], "history": [[1]], "away": [], "round": 0}',
        '{"weights": [1.5, -0.5], "counts": [0, 0], "history": [], "away": [], "round": 0}',
        '{"weights": [0.5, 0.5], "counts": [0, 0], "history": [], "away": [true], "round": 0}',
        '{"weights": [], "counts": [], "history": [], "away": [], "round": 0}',
    ):
        with pytest.raises(RunError, match="start the cell again"):
            Standing.from_json(text)


def test_the_rule_comes_from_the_configuration() -> None:
    told = Defence(rule="paper", decay=0.8, warmup=3, false_flags=0.05)
    assert rule_of(told) == Rule("paper", 0.8, 3, 0.05, "last")
    assert rule_of(Defence()) == Rule()
    assert rule_of(Defence(reported="first")) == Rule(reading="first")
    with pytest.raises(ConfigError, match="rule = 'mine': must be one of"):
        Rule("mine")
    with pytest.raises(ConfigError, match="reported = 'auto': must be one of"):
        Rule(reading="auto")
