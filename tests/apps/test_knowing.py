"""Whole rounds of attackers that choose their rounds, and of those that know the rule."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Message
from safetensors.numpy import load_file

from fedsec.attacks.knowing import KNOWING
from fedsec.attacks.updates import UPDATES
from fedsec.config import RunConfig
from fedsec.datasets import load, partition
from fedsec.errors import RunError
from fedsec.flower.messages import Enrolled
from fedsec.log import runlog
from fedsec.log.runlog import RunLog
from fedsec.reports.results import write_results
from fedsec.seeds import stream
from fedsec.types import Fit
from fedsec.weights import Layout
from strategies.adversary import Adversary
from strategies.base import Brief
from strategies.draws import Inspector, public_latents, secret_latents
from strategies.fedinspect import FedInspect
from strategies.observers.generators import new_generator
from strategies.rehearsal import IMAGINED, Rehearsal
from tests.apps.test_rounds import config, run

PATCH = {"attack.name": "patch"}
WHEN: dict[str, tuple[dict[str, Any], list[int]]] = {
    "start": ({"attack.start": 2}, [2, 3]),
    "from the end": ({"attack.start": -1}, [3]),
    "stop": ({"attack.stop": 1}, [1]),
    "period": ({"attack.period": 2}, [1, 3]),
}


def sent(tmp_path: Path, name: str, arm: dict[str, Any], rounds: int = 3) -> list[np.ndarray]:
    """What client 0's training gave in each round; the others are left to be honest."""
    heard: list[np.ndarray] = []

    def listen(client: int, reply: Message) -> Message | None:
        if client == 0 and "arrays" in reply.content.array_records:
            heard.append(next(iter(reply.content.array_records["arrays"].values())).numpy())
        elif "arrays" in reply.content.array_records:
            return None if client > 1 else reply
        return reply

    settings = config(tmp_path, run__name=name, train__rounds=rounds, run__arms=json.dumps({"arm": arm}))
    run(settings, tamper=listen)
    return heard


@pytest.mark.parametrize("name", sorted(WHEN))
def test_a_client_is_honest_to_the_bit_until_it_attacks(name: str, tmp_path: Path) -> None:
    keys, when = WHEN[name]
    honest, attacked = (sent(tmp_path, f"{name} {i}", arm) for i, arm in enumerate(({}, {**PATCH, **keys})))
    first = min(when)
    for number in range(1, first + 1):
        same = np.array_equal(honest[number - 1], attacked[number - 1])
        assert same == (number < first), "after that the model itself differs"


def test_one_class_and_a_ramp_train_on_less_than_the_whole_patch(tmp_path: Path) -> None:
    arms: dict[str, dict[str, Any]] = {
        "none": {},
        "all": PATCH,
        "one": {**PATCH, "attack.class": 1},
        "ramp": {**PATCH, "attack.ramp": 9},
    }
    firsts = [sent(tmp_path, name, arm, rounds=1)[0] for name, arm in arms.items()]
    assert all(not np.array_equal(a, b) for i, a in enumerate(firsts) for b in firsts[:i])


def test_the_trigger_is_counted_in_the_class_that_is_stamped_too(tmp_path: Path) -> None:
    arms = json.dumps({"one": {**PATCH, "attack.class": 1}})
    folder, _ = run(config(tmp_path, run__arms=arms))
    found = runlog.read(folder).cells["one", 0].final()
    assert {"trigger-rate", "trigger-strength", "trigger-rate-class-1"} <= set(found)
    whole, one = (found[name].score for name in ("trigger-rate", "trigger-rate-class-1"))
    assert 0 < one.n < whole.n


def test_a_class_that_the_data_lacks_ends_the_run_before_any_training(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"attack.class = 2, but the data has 2 classes"):
        run(config(tmp_path, run__arms=json.dumps({"one": {**PATCH, "attack.class": 2}})))


def test_lies_wait_for_their_round_too(tmp_path: Path) -> None:
    arms = {"honest": {}, "late": {"attack.report": "small", "attack.start": 2}}
    folder, _ = run(config(tmp_path, run__arms=json.dumps(arms)))
    honest, late = (runlog.read(folder).cells[arm, 0].rounds for arm in arms)
    assert late[0].losses == honest[0].losses
    assert late[1].losses[0] == pytest.approx(honest[1].losses[0] / 10)


@pytest.mark.parametrize("update", sorted(UPDATES))
def test_every_update_attack_waits_for_its_round(update: str) -> None:
    settings = RunConfig.from_flat({"attack.update": update, "attack.start": 2, "attack.stop": 2, "train.rounds": 3})
    rng = np.random.default_rng(0)
    layout = Layout.of({"w": np.zeros(6, np.float32)})
    fits = [Fit(i, {"w": rng.normal(size=6).astype(np.float32)}, 10, {"g-loss": 1.0}) for i in range(4)]
    nodes = [Enrolled(i, i, f"site {i}") for i in range(4)]
    adversary = Adversary(settings, layout, seed=0)
    changed = []
    for number in (1, 2, 3):
        kept, dropped = adversary.act(number, fits, np.zeros(6), rng.normal(size=6), nodes)
        assert not dropped
        changed.append([i for i in range(4) if not np.array_equal(kept[i].arrays["w"], fits[i].arrays["w"])])
    assert changed == [[], [0], []]


def test_attackers_that_know_the_rule_change_what_is_averaged_repeat_and_are_told(tmp_path: Path) -> None:
    """Every one, over whole rounds; what the plain patch gives is not what they give."""
    inspect = {"defence.name": "fed-inspect", **PATCH}
    arms: dict[str, Any] = {"patch": inspect}
    arms |= {name: {**inspect, "attack.update": name} for name in KNOWING if name != "discriminator-only"}
    arms |= {"both": {**PATCH, "gan.share": "both"}}
    arms |= {"discriminator-only": {**arms["both"], "attack.update": "discriminator-only"}}
    folder, _ = run(config(tmp_path, run__name="one", run__arms=json.dumps(arms)))
    again, _ = run(config(tmp_path, run__name="two", run__arms=json.dumps({arm: arms[arm] for arm in KNOWING})))
    for arm in KNOWING:
        plain, one, two = (
            load_file(place / f"generator-{name}-0.safetensors")
            for place, name in (
                (folder, "both" if arm == "discriminator-only" else "patch"),
                (folder, arm),
                (again, arm),
            )
        )
        assert all(np.array_equal(one[key], two[key]) for key in one), arm
        assert any(not np.array_equal(one[key], plain[key]) for key in one), arm
    threats = write_results(folder)["threats"]
    assert all(any(KNOWING[arm].knows in line for line in threats[arm]) for arm in KNOWING)


def test_a_sleeper_is_honest_to_the_bit_until_it_wakes(tmp_path: Path) -> None:
    """By the losses of the honest: they hear of an attack one round after it."""
    arms = {"honest": {}, "sleeper": {**PATCH, "attack.update": "sleeper", "attack.start": 2, "attack.stop": 2}}
    folder, _ = run(config(tmp_path, train__rounds=3, run__arms=json.dumps(arms)))
    honest, asleep = (
        [{p: row.losses[p] for p in (1, 2, 3)} for row in runlog.read(folder).cells[arm, 0].rounds] for arm in arms
    )
    assert [a == b for a, b in zip(honest, asleep, strict=True)] == [True, True, False]


def test_the_server_draws_on_latents_that_no_task_tells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    honest = Inspector.draw

    def draw(self: Inspector, arrays: Any, seed: int) -> Any:
        asked.append(seed)
        return honest(self, arrays, seed)

    monkeypatch.setattr(Inspector, "draw", draw)
    for latents, made in (("secret", secret_latents), ("public", public_latents)):
        asked.clear()
        arm = {"defence.name": "fed-inspect", "defence.latents": latents}
        run(config(tmp_path, run__name=latents, run__arms=json.dumps({"arm": arm})))
        assert set(asked) == {made(0, 1), made(0, 2)}
    assert not {secret_latents(0, n) for n in range(9)} & {public_latents(0, n) for n in range(9)}


def rehearsal(tmp_path: Path, clients: int = 5, malicious: str = "1") -> tuple[Rehearsal, Layout, Brief]:
    arm = {"defence.name": "fed-inspect", "attack.update": "below-the-bar", "attack.malicious": malicious}
    settings = config(tmp_path, split__clients=clients, run__arms=json.dumps({"arm": arm})).arm("arm")
    data = load(settings.data)
    plan: Any = type("Plan", (), {"dataset": data})
    initial = new_generator(plan, settings, 0)
    nodes = [Enrolled(i, i, f"site {i}") for i in range(clients)]
    brief = Brief(settings, "arm", 0, nodes, initial, RunLog(tmp_path / "log"), data, 0, [1] * clients)
    layout = Layout.of(initial)
    return Rehearsal(brief, layout, FedInspect), layout, brief


def test_a_rehearsal_reads_the_attackers_images_alone_and_has_its_own_secret(tmp_path: Path) -> None:
    found, _, brief = rehearsal(tmp_path)
    parts = partition(brief.dataset, brief.config.split, seed=brief.config.data.seed)
    own = {row.tobytes() for row in brief.dataset.rows(parts[1]).pixels}
    assert len(found.stand_ins) == 4
    for rows in found.stand_ins:
        assert len(rows) == len(parts[1]) // 2
        assert {row.tobytes() for row in rows.pixels} <= own
    assert found.judge is not None
    assert found.judge.secret != brief.secret
    assert found.judge.config.malicious == ()
    assert len(rehearsal(tmp_path, clients=20)[0].stand_ins) == IMAGINED[1]


def test_the_copy_flags_what_stands_apart_and_forgets_what_was_only_tried(tmp_path: Path) -> None:
    """A generator of another seed, kept up for the rounds the copy looks back over, is seen; the clean one is not."""
    found, layout, brief = rehearsal(tmp_path)
    current = layout.vector(brief.initial)
    for number in range(1, 5):
        guilty = [Fit(1, brief.initial, 10, {"g-loss": 1.0})]
        insight = found.insight(number, guilty, current)
        assert insight.most == 5
        assert not insight.noticed(insight.clean), "what honest training gives"
        found.learn(number, [Fit(1, layout.arrays(current + insight.clean[0]), 10, {"g-loss": 1.0})])
    far = insight.clean + stream(0, "far").normal(0, 0.3, insight.clean.shape)
    assert insight.noticed(far)
    assert not insight.noticed(insight.clean), "what was tried leaves no trace"


def test_the_copy_knows_attackers_apart_where_some_were_not_asked(tmp_path: Path) -> None:
    found, layout, brief = rehearsal(tmp_path, malicious="1,3")
    guilty = [Fit(3, brief.initial, 10, {"g-loss": 1.0})]
    found.insight(1, guilty, layout.vector(brief.initial))
    found.learn(1, guilty)
    assert isinstance(found.judge, FedInspect)
    assert set(found.judge.seen) == {1, 2, 3, 4}, "the second attacker, and three that stand for the others"
