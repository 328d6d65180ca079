"""Differential privacy in whole rounds: what is promised, what stops, what a silent round does."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Message
from safetensors.numpy import load_file

from clients.client_app import app
from fedsec.config import RunConfig
from fedsec.errors import ConfigError
from fedsec.log import runlog
from fedsec.log.record import RunRecord
from fedsec.privacy.accounting import Accountant, FixedSize, Poisson, default_delta
from fedsec.privacy.ledger import Try, spent
from fedsec.privacy.promises import allotted, lines_of, promises
from fedsec.privacy.protection import epsilon
from fedsec.reports.page import write_report
from strategies.server_app import run_experiment
from tests.local_grid import LocalGrid, Tamper
from tests.quick_extractor import keep_quick_extractor

CLIENTS = 5
IMAGES = [26] * CLIENTS


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("private")


def flat(arms: dict[str, dict[str, Any]]) -> dict[str, Any]:
    return {
        "data.count": 160,
        "split.clients": CLIENTS,
        "gan.width": 4,
        "gan.latent": 8,
        "train.rounds": 3,
        "train.steps": 2,
        "train.batch": 4,
        "measure.samples": 64,
        "measure.every": 3,
        "measure.utility": "",
        "run.arms": json.dumps(arms),
    }


def private(
    folder: Path,
    arms: dict[str, dict[str, Any]],
    name: str,
    tamper: Tamper | None = None,
    *,
    budget: float = 0.0,
    seeds: str = "0",
) -> RunRecord:
    keys = {"run.out": str(folder), "run.name": name, "privacy.budget": budget, "run.seeds": seeds}
    settings = RunConfig.from_flat({**flat(arms), **keys})
    keep_quick_extractor(settings.data)
    grid = LocalGrid(app, settings.to_flat(), nodes=CLIENTS, tamper=tamper)
    return runlog.read(run_experiment(grid, settings, wait=1))


def test_every_mechanism_runs_and_says_what_it_is_worth(folder: Path) -> None:
    noise = {"privacy.noise": 2.0, "privacy.bound": 0.5}
    arms: dict[str, dict[str, Any]] = {
        "none": {},
        "server": {"defence.name": "dp-fixed", **noise},
        "adaptive": {"defence.name": "dp-adaptive", **noise},
        "clients": {"defence.name": "dp-fixed", "privacy.noised-by": "clients", "privacy.fewest": 4, **noise},
        "sampled": {"defence.name": "dp-fixed", "train.fraction": 0.4, "train.sampling": "poisson", **noise},
        "clip-only": {"defence.name": "dp-fixed", "privacy.bound": 0.5},
        "images": {"privacy.image-bound": 1.0, "privacy.image-noise": 1.5},
    }
    record = private(folder, arms, "mechanisms")
    scores = {arm: cell.final() for (arm, _), cell in record.finished().items()}
    assert set(scores) == set(arms)
    assert not {"epsilon-client", "epsilon-image"} & set(scores["none"])
    delta = default_delta(CLIENTS)
    expected = Accountant(2.0, delta).epsilon(3)
    for arm in ("server", "adaptive"):
        assert scores[arm]["epsilon-client"].score.value == pytest.approx(expected)
    replies = Accountant(2.0 / math.sqrt(4), delta, FixedSize(1, 1))
    told = scores["clients"]["epsilon-replies"].score
    assert told.value == pytest.approx(replies.epsilon(3)), "nothing but the reply hides a client from who reads it"
    assert "if secure aggregation, which fedsec has not, opened nothing but sums of 4 replies" in told.reason
    assert f"epsilon = {math.ceil(1000 * expected) / 1000:.3f}, delta = 0.001" in told.reason
    assert scores["clients"]["rounds-withheld"].score.value == 0
    row = scores["sampled"]["epsilon-client"].score
    asked = [len(r.weights) for r in record.finished()["sampled", 0].rounds]
    assert 0 < row.n <= 3, asked
    assert row.value == Accountant(2.0, delta).epsilon(row.n), "the log lists who was asked: nothing is amplified"
    hidden = Accountant(2.0, delta, Poisson(0.4)).guarantee(3)
    assert f"against who never learns which clients a round asked: {hidden}" in row.reason
    clip_only = scores["clip-only"]["epsilon-client"].score
    assert math.isnan(clip_only.value) or math.isinf(clip_only.value)
    assert clip_only.reason == "no guarantee"
    held = min(sum(row) for row in record.header.label_counts)
    site = Accountant(1.5, default_delta(held), Poisson(4 / held), "site", "image")
    assert scores["images"]["epsilon-image"].score.value == pytest.approx(site.epsilon(6))
    cells = record.finished()
    assert not any("d-loss" in row.metrics for row in cells["images", 0].rounds), "what is not said is not there"
    assert all(math.isfinite(loss) for row in cells["images", 0].rounds for loss in row.losses.values())
    page = write_report(folder / "mechanisms").read_text(encoding="utf-8")
    assert "no guarantee" in page
    assert "trusted: the server, which sees every update" in page
    assert "no guarantee; arms without it: clients, images, none" in page, "together they guarantee nothing"


def test_noise_is_as_large_as_told_whoever_draws_it(folder: Path) -> None:
    """With a bound near zero and huge multiplier the model is noise: its size is that of the mechanism."""
    shared = {"defence.name": "dp-fixed", "privacy.noise": 1e4, "privacy.bound": 1e-6, "gan.ema": 0.0}
    arms: dict[str, dict[str, Any]] = {
        "server": shared,
        "clients": {**shared, "privacy.noised-by": "clients", "privacy.fewest": CLIENTS},
        "still": {**shared, "privacy.noise": 0.0},
    }
    private(folder, arms, "sizes")
    still = load_file(folder / "sizes" / "generator-still-0.safetensors")
    for arm in ("server", "clients"):
        model = load_file(folder / "sizes" / f"generator-{arm}-0.safetensors")
        moved = np.concatenate([(model[name] - still[name]).ravel() for name in still])
        assert moved.std() == pytest.approx(1e4 * 1e-6 / CLIENTS * math.sqrt(3), rel=0.05)


def test_a_silent_round_releases_its_noise_like_any_other(folder: Path) -> None:
    def silent(partition: int, reply: Message) -> Message | None:
        return None if "arrays" in reply.content.array_records else reply

    arms: dict[str, dict[str, Any]] = {
        "dp": {"defence.name": "dp-fixed", "privacy.noise": 1.0, "train.rounds": 1},
        "plain": {"train.rounds": 1},
    }
    private(folder, arms, "silent", silent)
    dp, plain = (load_file(folder / "silent" / f"generator-{arm}-0.safetensors") for arm in ("dp", "plain"))
    assert all(not np.array_equal(dp[name], plain[name]) for name in plain if plain[name].size > 8)


def of_the_run(**keys: Any) -> dict[str, Any]:
    return {"defence.name": "dp-fixed", "privacy.noise": 2.0, **keys}


def test_a_round_that_too_few_answer_is_withheld_and_counted(folder: Path) -> None:
    """Two of five answer in round 2: their shares are less noise than is accounted, so the model stays as it was."""
    numbers: dict[int, int] = {}

    def tamper(partition: int, reply: Message) -> Message | None:
        if "arrays" not in reply.content.array_records:
            return reply
        numbers[partition] = numbers.get(partition, 0) + 1
        return None if numbers[partition] == 2 and partition > 1 else reply

    arms = {"dp": of_the_run(**{"privacy.noised-by": "clients", "privacy.fewest": 3, "gan.ema": 0.0})}
    record = private(folder, arms, "withheld", tamper)
    cell = record.finished()["dp", 0]
    assert [len(row.weights) for row in cell.rounds] == [5, 0, 5]
    assert [len(row.losses) for row in cell.rounds] == [5, 2, 5]
    final = cell.final()
    assert (final["rounds-withheld"].score.value, final["rounds-withheld"].score.n) == (1, 3)
    assert final["epsilon-replies"].score.n == 3, "who read the replies of the withheld round has read them"


def test_a_withheld_round_leaves_the_model_to_the_bit(folder: Path) -> None:
    def few(partition: int, reply: Message) -> Message | None:
        return reply if partition < 2 or "arrays" not in reply.content.array_records else None

    clients: dict[str, Any] = {"privacy.noised-by": "clients", "train.rounds": 1, "gan.ema": 0.0}
    arms = {
        "three": of_the_run(**clients, **{"privacy.fewest": 3}),
        "two": of_the_run(**clients, **{"privacy.fewest": 2}),
        "still": of_the_run(**{"privacy.noise": 0.0, "privacy.bound": 1e-9, "train.rounds": 1, "gan.ema": 0.0}),
    }
    private(folder, arms, "few", few)
    three, two, still = (load_file(folder / "few" / f"generator-{arm}-0.safetensors") for arm in arms)
    assert all(np.allclose(three[name], still[name], atol=1e-8) for name in still)
    assert not all(np.allclose(two[name], still[name], atol=1e-3) for name in still)


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ({}, "set privacy.fewest"),
        ({"privacy.fewest": 2, "train.sampling": "poisson", "train.fraction": 0.5}, "coins may ask fewer"),
        ({"privacy.fewest": 2, "attack.update": "scale"}, "carries no share of the noise"),
        ({"privacy.noised-by": "server", "privacy.fewest": 2}, "only privacy.noised-by = 'clients' reads it"),
    ],
)
def test_noise_of_clients_that_cannot_be_counted_on_is_refused(keys: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        RunConfig.from_flat(of_the_run(**{"privacy.noised-by": "clients", **keys}))


def test_more_shares_than_a_round_asks_are_refused() -> None:
    config = RunConfig.from_flat(
        of_the_run(**{"privacy.noised-by": "clients", "privacy.fewest": 6, "train.fraction": 0.5})
    )
    with pytest.raises(ConfigError, match=r"privacy\.fewest = 6: a round asks 5 clients"):
        lines_of(config, [100] * 10)


def test_training_stops_before_the_budget_is_spent(folder: Path) -> None:
    one = Accountant(2.0, default_delta(CLIENTS)).epsilon(2)
    cell = private(folder, {"dp": of_the_run()}, "budget", budget=one * 1.0001).finished()["dp", 0]
    assert [row.round for row in cell.rounds] == [1, 2]
    assert cell.final()["epsilon-client"].score.value <= one * 1.0001


def test_all_arms_and_seeds_stop_before_their_common_budget_is_spent(folder: Path) -> None:
    """Two arms x two seeds on the same images: four cells share what one alone would have had."""
    budget = Accountant(2.0, default_delta(CLIENTS)).epsilon(9)
    arms = {"a": of_the_run(), "b": of_the_run(**{"gan.loss": "hinge"})}
    record = private(folder, arms, "shared", budget=budget, seeds="0,1")
    assert {cell: len(its.rounds) for cell, its in record.finished().items()} == {
        ("a", 0): 2,
        ("b", 0): 2,
        ("a", 1): 2,
        ("b", 1): 2,
    }
    every = [one for its in record.cells.values() for one in its.tries]
    assert spent("client", every).epsilon == Accountant(2.0, default_delta(CLIENTS)).epsilon(8) <= budget
    assert "after 8 releases; trusted: the server" in write_report(folder / "shared").read_text(encoding="utf-8")


def test_an_arm_without_noise_makes_a_budget_of_the_run_meaningless(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"arms bare noise nothing, so together they guarantee nothing"):
        private(folder, {"dp": of_the_run(), "bare": {}}, "beside", budget=5.0)
    assert runlog.read(folder / "beside").cells == {}
    with pytest.raises(ConfigError, match=r"privacy\.budget is the same for every arm"):
        private(folder, {"dp": of_the_run(**{"privacy.budget": 5.0})}, "own")


def test_a_cell_that_was_killed_counts_both_tries(folder: Path) -> None:
    """Dies in round 3 of 3: two rounds are logged, the replies of the third may have left, then three more."""
    delta, asked = default_delta(CLIENTS), list[int]()

    def die(partition: int, reply: Message) -> Message | None:
        if "arrays" in reply.content.array_records:
            asked.append(partition)
            if len(asked) == 2 * CLIENTS + 1:
                raise InterruptedError
        return reply

    with pytest.raises(InterruptedError):
        private(folder, {"dp": of_the_run()}, "killed", die)
    record = private(folder, {"dp": of_the_run()}, "killed")
    (first, second) = record.cells["dp", 0].tries
    assert (first.rounds, second.rounds) == (3, 3)
    score = record.finished()["dp", 0].final()["epsilon-client"].score
    assert score.n == 6
    assert score.value == pytest.approx(Accountant(2.0, delta).epsilon(6))
    assert "1 earlier tries of this cell are counted" in score.reason
    again = private(folder, {"dp": of_the_run()}, "killed").cells["dp", 0]
    assert again.tries == (first, second), "a finished cell is not run again and counts nothing new"
    budget = Accountant(2.0, delta).epsilon(6) * 1.0001
    with pytest.raises(ConfigError, match=r"not even one round of each of the 1 cells.*is spent already"):
        private(folder, {"dp": of_the_run()}, "killed", budget=budget)


def test_a_budget_too_small_for_one_round_is_told_before_training(folder: Path) -> None:
    arms: dict[str, dict[str, Any]] = {"a": {"defence.name": "dp-fixed", "privacy.noise": 0.1}}
    with pytest.raises(ConfigError, match="not even one round"):
        private(folder, arms, "poor", budget=0.01)
    assert runlog.read(folder / "poor").cells == {}
    arms["b"] = {"privacy.image-bound": 1.0, "train.batch": 64}
    with pytest.raises(ConfigError, match=r"arm 'b'(?s:.)*fewer than train.batch = 64"):
        private(folder, arms, "poor")


def now(config: RunConfig, images: list[int], rounds: int) -> list[Try]:
    return [Try(lines_of(config, images), tuple(images), rounds)]


def rounds_of(config: RunConfig, images: list[int]) -> int:
    return allotted(config, images, [("vanilla", 0)])["vanilla", 0]


def test_nothing_is_amplified_whatever_the_sampling() -> None:
    """Who was asked stands in the log: a client has released as often as it was asked, and that is all it is worth."""
    for keys in ({}, {"train.fraction": 0.25}, {"train.fraction": 0.25, "train.sampling": "poisson"}):
        config = RunConfig.from_flat({"defence.name": "dp-fixed", "privacy.noise": 4.0, **keys})
        (found,) = promises(config, now(config, [100] * 20, 12))
        assert found.value == Accountant(4.0, default_delta(20)).epsilon(12)
        assert ("against who never learns" in found.reason) == bool(keys)
    assert promises(RunConfig(), now(RunConfig(), [100] * 20, 30)) == []


def test_a_classifier_s_noised_replies_promise_for_themselves() -> None:
    def told(protect: str, **keys: Any) -> RunConfig:
        return RunConfig.from_flat({"train.task": "classifier", "classifier.protect": protect, **keys})

    config = told("clip-noise=4,local-statistics=1")
    (found,) = promises(config, now(config, [30, 40], 5))
    assert (found.name, found.value) == ("epsilon-replies", epsilon(4.0, default_delta(2), 5))
    assert "trusted: nobody: the reply itself is protected" in found.reason
    assert "in the clear beside a reply: how many images it is of, its losses" in found.reason
    assert promises(told("noise=4"), now(told("noise=4"), [30, 40], 5)) == []
    assert promises(told("clip-noise=0"), now(told("clip-noise=0"), [30, 40], 5))[0].reason == "no guarantee"
    budget = {"privacy.budget": found.value, "train.rounds": 50}
    assert rounds_of(told("clip-noise=4", **budget), [30, 40]) == 5


def test_the_smallest_site_sets_the_promise_and_the_budget() -> None:
    config = RunConfig.from_flat({"privacy.image-bound": 1.0, "privacy.budget": 8.0, "train.batch": 8})
    fewer = rounds_of(config, [400, 90])
    assert fewer == rounds_of(config, [90]) < rounds_of(config, [400])
    assert promises(config, now(config, [400, 90], fewer))[0].value <= 8.0
    assert promises(config, now(config, [400, 90], fewer + 1))[0].value > 8.0
