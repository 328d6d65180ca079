"""Split learning as messages: the real client and strategy over the in-process grid, hostile replies included."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import Array, Context, Message
from flwr.clientapp import ClientApp

from clients.split_learning import SplitClient
from fedsec.defences.activations import Control
from fedsec.defences.pgsl import Pgsl
from fedsec.errors import ConfigError, DataError, RunError
from fedsec.flower import messages
from fedsec.flower.messages import Enrolled
from fedsec.images import to_images
from fedsec.models.order import batches
from fedsec.models.split_learning.exchange import Exchange, reply_layout
from fedsec.models.split_learning.halves import ClientHalf, SplitSpec
from fedsec.models.split_learning.steps import Batch, applied, entered, new_desk, new_home, paced, sent, server_step
from fedsec.models.state import load_network, network_arrays
from fedsec.seeds import address_seed, stream
from fedsec.types import Arrays, Rows
from strategies.split_learning import SplitStrategy
from tests.local_grid import LocalGrid, Tamper

PLAIN, FULL = SplitSpec(size=16), SplitSpec(size=16, pgsl=Pgsl())
SMALL = Exchange(batch=4, k=2, messages=3, held=5)


def rows(partition: int, count: int = 10) -> Rows:
    """Dark and bright images."""
    labels = np.arange(count) % 2
    noise = stream(partition, "images").integers(0, 80, (count, 16, 16, 1))
    return Rows((noise + 150 * labels[:, None, None, None]).astype(np.uint8), labels.astype(np.int64))


def client(spec: SplitSpec, exchange: Exchange, partition: int = 0, **changes: Any) -> SplitClient:
    held = rows(partition + 100, 7)
    usual: dict[str, Any] = {"partition": partition, "seed": 3, "kept": {}}
    return SplitClient(spec, exchange, rows(partition), held, **usual | changes)


def app_of(spec: SplitSpec, exchange: Exchange) -> ClientApp:
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        arrays, task = messages.read_task(message)
        its = client(spec, exchange, task.partition, seed=task.seed, kept=messages.kept_arrays(context, "cell"))
        found, examples, told = its.fit(list(arrays.values()), {"round": task.round, "names": ",".join(arrays)})
        messages.keep_arrays(context, "cell", its.kept)
        numbers = {key: float(value) for key, value in told.items()}
        return messages.reply(message, dict(zip(its.sent, found, strict=True)), examples, numbers)

    return app


def run(
    spec: SplitSpec,
    exchange: Exchange,
    *,
    clients: int = 2,
    tamper: Tamper | None = None,
    audited: tuple[int, ...] = (),
) -> SplitStrategy:
    grid = LocalGrid(app_of(spec, exchange), {}, nodes=clients, tamper=tamper)
    nodes = [Enrolled(node, i, f"site {i}") for node, i in grid.partition.items()]
    nodes.sort(key=lambda n: n.partition)
    strategy = SplitStrategy(spec, exchange, nodes, arm="split", seed=3, audited=audited)
    strategy.start(grid, messages.to_record(strategy.half.arrays), num_rounds=exchange.rounds)
    strategy.grid = grid  # type: ignore[attr-defined]
    return strategy


def kept(strategy: SplitStrategy, partition: int) -> Arrays:
    grid: LocalGrid = strategy.grid  # type: ignore[attr-defined]
    context = next(grid.contexts[node] for node, i in grid.partition.items() if i == partition)
    return messages.kept_arrays(context, "cell")


@pytest.mark.parametrize("spec", [PLAIN, FULL])
def test_rounds_of_messages_are_the_functions_one_after_the_other(spec: SplitSpec) -> None:
    """One client; weights, optimisers and the surrogate travel through what is kept between rounds."""
    strategy = run(spec, SMALL, clients=1)
    own = address_seed(3, "client", 0, "own")
    home, desk = new_home(spec, seed=3, own=address_seed(own, "surrogate")), new_desk(spec, seed=3)
    data = rows(0)
    images = torch.from_numpy(data.pixels.transpose(0, 3, 1, 2).astype(np.float32) / np.float32(127.5) - 1)
    order = batches(len(data), 4, 6, stream(own, "order"))
    for m in range(3):
        mini = [
            Batch(images[i], torch.from_numpy(data.labels[i]), address_seed(own, "batch", 2 * m + n))
            for n, i in enumerate(order[2 * m : 2 * m + 2])
        ]
        paced([*home.optimisers.values(), desk.optimiser], 2 * m, 6)
        given = entered(home, mini)
        z = sent(home, given)
        gradients = [server_step(desk, one, batch.labels).gradient for one, batch in zip(z, mini, strict=True)]
        applied(home, mini, given, torch.stack(gradients))
    for name, value in network_arrays(desk.body).items():
        np.testing.assert_array_equal(strategy.half.arrays[f"body.{name}"], value, err_msg=name)
    for name, value in network_arrays(home.half).items():
        np.testing.assert_array_equal(kept(strategy, 0)[f"half.{name}"], value, err_msg=name)


def close(a: np.ndarray, b: np.ndarray) -> bool:
    """Adam blows up the last bit of a gradient near zero."""
    return bool(np.allclose(a, b, atol=2e-4))


def test_a_u_shaped_run_makes_the_same_halves_as_labels_at_the_server_with_one_batch_a_message() -> None:
    shared = replace(SMALL, k=1)
    at_server, u_shaped = run(FULL, shared, clients=1), run(FULL, replace(shared, labels="client"), clients=1)
    bodies = [{k: v for k, v in s.half.arrays.items() if k.startswith("body")} for s in (at_server, u_shaped)]
    for name, value in bodies[0].items():
        assert close(value, bodies[1][name]), name
    heads = {k: v for k, v in at_server.half.arrays.items() if k.startswith("heads")}
    assert heads
    assert not [name for name in u_shaped.half.arrays if name.startswith("heads")]
    for name, value in heads.items():
        assert close(value, kept(u_shaped, 0)[name]), name
    told = [{s.name: s.value for s in run_.scores} for run_ in (at_server, u_shaped)]
    assert {name: told[0][name] for name in told[1]} == told[1]


def test_labels_leave_a_client_only_when_they_are_asked_for() -> None:
    for labels in ("server", "client"):
        exchange = replace(SMALL, labels=labels)
        its = client(FULL, exchange)
        its.fit([], {"round": 1, "names": ""})
        assert ("labels" in its.sent) == (labels == "server")


def test_bytes_are_counted_a_training_image() -> None:
    strategy = run(PLAIN, SMALL)
    cut = 4 * 32 * 4 * 4
    up, down = strategy.traffic.per_sample
    assert strategy.traffic.samples == 2 * 3 * 2 * 4
    assert (up, down) == (cut + 8, cut)
    u_shaped = run(PLAIN, replace(SMALL, labels="client")).traffic.per_sample
    assert u_shaped == (cut + 4 * 256, cut + 4 * 256)


def test_running_statistics_stay_home_and_halves_are_averaged_only_when_told() -> None:
    names = reply_layout(FULL, replace(SMALL, average=1), "sync", seed=3).names
    assert names
    assert not [name for name in names if "running" in name or "tracked" in name or name.startswith("surrogate")]
    apart, together = run(FULL, SMALL), run(FULL, replace(SMALL, average=3))
    name = next(name for name in names if name.endswith("weight"))
    assert not np.array_equal(kept(apart, 0)[name], kept(apart, 1)[name])
    np.testing.assert_array_equal(kept(together, 0)[name], kept(together, 1)[name])
    local = next(name for name in kept(together, 0) if name.startswith("half") and name.endswith("running_mean"))
    assert not np.array_equal(kept(together, 0)[local], kept(together, 1)[local])
    assert np.isfinite(kept(together, 0)[name]).all()


def test_held_out_images_are_scored_on_and_off_and_padding_is_not_counted() -> None:
    exchange = replace(SMALL, held=9, messages=8, batch=8)
    strategy = run(FULL, exchange)
    scores = {score.name: score for score in strategy.scores}
    assert {name.split("-", 1)[1] for name in scores if name.startswith("accuracy")} == {
        f"{s}-{v}" for s in ("attacked", "recovered", "fused", "late") for v in ("on", "off")
    }
    assert {score.n for score in scores.values()} == {14}, "two clients with seven held-out images each"
    assert scores["auc-late-off"].value > 0.9


def test_noise_is_what_leaves_and_no_peek_pulls_at_the_half() -> None:
    plain, noisy = (client(PLAIN, SMALL, control=c) for c in (None, Control(noise=0.5)))
    clear, wire = (its.fit([], {"round": 1, "names": ""})[0][0] for its in (plain, noisy))
    added = wire - clear
    for k in range(SMALL.k):
        assert added[k].std() / clear[k].std() == pytest.approx(0.5, rel=0.1)
    assert not np.array_equal(added[0], added[1])
    again = client(PLAIN, SMALL, control=Control(noise=0.5)).fit([], {"round": 1, "names": ""})[0][0]
    np.testing.assert_array_equal(wire, again, err_msg="the noise is this client's own, by its seed")


def test_the_penalty_s_gradient_is_added_to_the_server_s() -> None:
    """One message, then the gradients come back as zeros: what moves the half is the penalty alone."""
    for control, moves in ((Control(), False), (Control(decorrelation=5.0), True)):
        its = client(PLAIN, SMALL, control=control)
        its.fit([], {"round": 1, "names": ""})
        before, zeros = its.kept, np.zeros((SMALL.k, SMALL.batch, *PLAIN.cut), np.float32)
        after = client(PLAIN, SMALL, control=control, kept=before)
        after.fit([zeros], {"round": 2, "names": "gradients"})
        moved = [n for n, v in before.items() if n.endswith("weight") and not np.array_equal(v, after.kept[n])]
        assert bool([name for name in moved if name.startswith("half.")]) == moves


@pytest.mark.parametrize("spec", [PLAIN, FULL])
def test_an_audit_sends_the_half_and_what_it_makes_of_the_first_images(spec: SplitSpec) -> None:
    exchange = replace(SMALL, audit=2, shown=12)
    assert exchange.phases == ("send", "send", "test", "audit", "send", "test", "audit")
    its = client(spec, exchange)
    its.fit([], {"round": 1, "names": ""})
    sent_, _, _ = client(spec, exchange, kept=its.kept).fit([], {"round": 4, "names": ""})
    layout = reply_layout(spec, exchange, "audit", seed=3)
    arrays = dict(zip(layout.names, sent_, strict=True))
    layout.check(arrays)
    half = ClientHalf(spec)
    load_network(half, {name[5:]: value for name, value in arrays.items() if name.startswith("half.")})
    half.eval()
    z = torch.from_numpy(arrays["activations"])
    assert torch.equal(z[10], z[0]), "ten images: the first stands in for the two that are not there"
    if spec.pgsl is None:
        images = torch.from_numpy(to_images(rows(0).pixels))
        torch.testing.assert_close(half(images).detach(), z[:10])


def test_only_audited_clients_are_asked_and_training_does_not_notice() -> None:
    plain, audited = run(FULL, SMALL), run(FULL, replace(SMALL, audit=3), audited=(1,))
    assert [fit.partition for fit in audited.captured] == [1]
    assert audited.captured[0].examples == 10
    for name, value in plain.half.arrays.items():
        np.testing.assert_array_equal(audited.half.arrays[name], value, err_msg=name)
    assert audited.traffic.per_sample == plain.traffic.per_sample, "an audit is no part of training"


Change = Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]]


def spoilt(name: str, change: Callable[[np.ndarray], np.ndarray]) -> Change:
    return lambda arrays: {**arrays, name: change(arrays[name])} if name in arrays else arrays


HOSTILE: dict[str, tuple[Change, str]] = {
    "nan": (spoilt("activations", lambda z: np.full_like(z, np.nan)), "non-finite"),
    "huge": (spoilt("activations", lambda z: z * np.float32(1e5) + np.float32(2e3)), "is not believed"),
    "shape": (spoilt("activations", lambda z: z[:, :1]), "shape"),
    "dtype": (spoilt("activations", lambda z: z.astype(np.float64)), "dtype|bytes"),
    "extra": (lambda arrays: {**arrays, "more": np.zeros(3, np.float32)}, "1 extra"),
    "missing": (lambda arrays: {k: v for k, v in arrays.items() if k != "labels"}, "1 missing"),
    "label": (spoilt("labels", lambda y: y + 7), "there are 2 classes"),
    "negative": (spoilt("labels", lambda y: y - 2), "there are 2 classes"),
}


@pytest.mark.parametrize("kind", sorted(HOSTILE))
def test_a_bad_reply_is_dropped_with_its_reason_and_ends_nothing(kind: str) -> None:
    change, reason = HOSTILE[kind]

    def tamper(partition: int, reply: Message) -> Message | None:
        if partition == 1:
            arrays = messages.from_record(reply.content.array_records["arrays"])
            new = {name: Array(np.asarray(value, order="C")) for name, value in change(arrays).items()}
            reply.content["arrays"] = type(reply.content.array_records["arrays"])(new)
        return reply

    strategy = run(FULL, SMALL, tamper=tamper)
    dropped = [drop for row in strategy.history if row.phase == "send" for drop in row.dropped]
    assert [drop.partition for drop in dropped] == [1] * SMALL.messages
    assert {drop.site for drop in dropped} == {"site 1"}
    assert all(re.search(reason, drop.reason) for drop in dropped), dropped[0].reason
    assert all(set(row.losses) == {0} for row in strategy.history if row.phase == "send")
    alone = run(FULL, SMALL, clients=1).half.arrays
    for name, value in strategy.half.arrays.items():
        np.testing.assert_array_equal(value, alone[name], err_msg="the other client trains as if it were alone")


def test_a_client_that_failed_once_goes_on_with_the_next_message() -> None:
    seen: list[int] = []

    def tamper(partition: int, reply: Message) -> Message | None:
        if partition == 1:
            seen.append(1)
            return None if len(seen) == 2 else reply
        return reply

    strategy = run(FULL, SMALL, tamper=tamper)
    heard = [set(row.losses) for row in strategy.history if row.phase == "send"]
    assert heard == [{0, 1}, {0}, {0, 1}]
    assert strategy.scores


def test_a_server_that_nobody_answers_gives_up_with_reasons() -> None:
    with pytest.raises(RunError, match="no usable reply in 3 rounds on end"):
        run(PLAIN, SMALL, tamper=lambda partition, reply: None)


@pytest.mark.parametrize("claim", [(9, 5), (-1, 5), (1, 0), (1, 600)])
def test_u_shaped_a_client_cannot_claim_what_cannot_be(claim: tuple[int, int]) -> None:
    def tamper(partition: int, reply: Message) -> Message | None:
        record = reply.content.array_records["arrays"]
        if partition == 1 and "right" in record:
            right, count = claim
            shape = record["right"].numpy().shape
            record["right"] = Array(np.full(shape, right, np.int64))
            record["count"] = Array(np.array([count], np.int64))
        return reply

    strategy = run(PLAIN, replace(SMALL, labels="client"), tamper=tamper)
    (dropped,) = strategy.history[-1].dropped
    assert "images" in dropped.reason
    assert {score.n for score in strategy.scores} == {5}


def test_an_exchange_says_all_that_is_wrong_with_it() -> None:
    with pytest.raises(ConfigError, match=r"batch = 1: must be at least 2(.|\n)*k = 0: must be at least 1"):
        Exchange(batch=1, k=0)


def test_rounds_are_what_the_exchange_says() -> None:
    assert SMALL.phases == ("send", "send", "send", "test")
    u_shaped = Exchange(messages=2, labels="client", average=2)
    assert u_shaped.phases == ("send", "heads", "send", "heads", "sync", "test", "score")
    assert [u_shaped.message(n) for n in (1, 2, 3, 5)] == [1, 1, 2, 2]


def test_a_client_without_held_out_images_says_so() -> None:
    with pytest.raises(DataError, match="held-out"):
        SplitClient(PLAIN, SMALL, rows(0), rows(0).take(np.arange(0)), partition=0, seed=0, kept={})
