"""Whole rounds over the in-process grid: the real strategies and clients, hostile replies included."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, Message, MetricRecord, RecordDict
from safetensors.numpy import load_file

from clients.client_app import app
from fedsec.config import RunConfig
from fedsec.errors import RunError
from fedsec.log import runlog
from fedsec.reports.page import write_report
from fedsec.reports.results import write_results
from strategies.server_app import run_experiment
from tests.local_grid import LocalGrid, Tamper
from tests.quick_extractor import keep_quick_extractor

ARMS = {
    "vanilla": {},
    "attack": {"attack.name": "patch"},
    "attack+fed-detect": {"attack.name": "patch", "defence.name": "fed-detect", "train.steps": 6},
    "attack+oracle": {"attack.name": "patch", "defence.name": "oracle"},
}


def config(tmp_path: Path, **changes: Any) -> RunConfig:
    flat = {
        "data.count": 160,
        "split.clients": 4,
        "gan.width": 8,
        "train.rounds": 2,
        "train.steps": 2,
        "train.batch": 8,
        "measure.samples": 64,
        "measure.every": 1,
        "measure.utility": "",
        "run.out": str(tmp_path / "runs"),
        "run.arms": json.dumps({"vanilla": {}}),
    }
    return RunConfig.from_flat(flat | {key.replace("__", ".").replace("_", "-"): v for key, v in changes.items()})


def run(settings: RunConfig, *, lanes: int = 1, tamper: Tamper | None = None) -> tuple[Path, LocalGrid]:
    keep_quick_extractor(settings.data)
    grid = LocalGrid(app, settings.to_flat(), nodes=4 * lanes, tamper=tamper)
    return run_experiment(grid, settings, wait=1), grid


def changed(reply: Message, arrays: Callable[[dict[str, Array]], object] | None = None, **metrics: Any) -> Message:
    """The reply with some arrays or metrics replaced."""
    tensors = dict(reply.content.array_records["arrays"])
    if arrays:
        arrays(tensors)
    numbers = dict(reply.content.metric_records["metrics"]) | {k.replace("_", "-"): v for k, v in metrics.items()}
    reply.content = RecordDict({"arrays": ArrayRecord(tensors), "metrics": MetricRecord(numbers)})
    return reply


def with_first(make: Callable[[np.ndarray], np.ndarray]) -> Callable[[dict[str, Array]], None]:
    def change(tensors: dict[str, Array]) -> None:
        name = next(iter(tensors))
        tensors[name] = Array(make(tensors[name].numpy()))

    return change


def declaring(header: bytes) -> Callable[[dict[str, Array]], None]:
    """A first tensor of under 200 bytes whose .npy header is ``header``, with the shape it should have for SHAPE."""

    def change(tensors: dict[str, Array]) -> None:
        name = next(iter(tensors))
        text = header.replace(b"SHAPE", str(tuple(tensors[name].shape)).encode()) + b"\n"
        data = b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text
        tensors[name] = Array("float32", tensors[name].shape, "numpy.ndarray", data)

    return change


LONG = b"{'descr': '<f4', 'fortran_order': False, 'shape': (4000000000000,), }"
HUGE = b"{'descr': '|S2147483647', 'fortran_order': False, 'shape': SHAPE, }"
HOSTILE: dict[str, tuple[Callable[[Message], Message | None], str]] = {
    "nan": (lambda m: changed(m, with_first(lambda v: v * np.float32("nan"))), "non-finite"),
    "inf": (lambda m: changed(m, with_first(lambda v: v + np.float32("inf"))), "non-finite"),
    "huge": (lambda m: changed(m, with_first(lambda v: v + np.float32(1e12))), "above"),
    "broadcastable": (lambda m: changed(m, with_first(lambda v: np.zeros(1, np.float32))), "shape"),
    "other dtype": (lambda m: changed(m, with_first(lambda v: v.astype(np.float64))), "bytes|dtype"),
    "integers": (lambda m: changed(m, with_first(lambda v: v.astype(np.int32))), "dtype"),
    "missing tensor": (lambda m: changed(m, lambda t: t.pop(next(iter(t)))), "1 missing"),
    "extra tensor": (lambda m: changed(m, lambda t: t.update(x=Array(np.zeros(1)))), "1 extra"),
    "reordered": (lambda m: changed(m, lambda t: t.update({(k := next(iter(t))): t.pop(k)})), "another order"),
    "oversized": (lambda m: changed(m, with_first(lambda v: np.zeros(10**6, np.float32))), "bytes"),
    "lying header": (lambda m: changed(m, declaring(LONG)), "declares shape"),
    "huge dtype": (lambda m: changed(m, declaring(HUGE)), r"declares dtype \|S2147483647, expected <f4"),
    "header never closed": (lambda m: changed(m, declaring(b"{'descr': (")), "no .npy header"),
    "one image more": (lambda m: changed(m, num_examples=33), "33, the site enrolled with 32"),
    "one image fewer": (lambda m: changed(m, num_examples=31), "31, the site enrolled with 32"),
    "weight 1e9": (lambda m: changed(m, num_examples=10**9), "num-examples"),
    "weight nan": (lambda m: changed(m, num_examples=float("nan")), "num-examples"),
    "weight negative": (lambda m: changed(m, num_examples=-5), "num-examples"),
    "silent": (lambda m: None, "no reply"),
}


@pytest.mark.parametrize("name", sorted(HOSTILE))
def test_one_bad_reply_is_dropped_with_site_and_reason_and_the_round_goes_on(name: str, tmp_path: Path) -> None:
    break_it, told = HOSTILE[name]

    def tamper(partition: int, reply: Message) -> Message | None:
        training = not reply.has_error() and "arrays" in reply.content.array_records
        return break_it(reply) if partition == 2 and training else reply

    folder, _ = run(config(tmp_path), tamper=tamper)
    cell = runlog.read(folder).cells["vanilla", 0]
    assert cell.finished
    for row in cell.rounds:
        assert [(d.partition, d.site) for d in row.dropped] == [(2, "partition 2")]
        assert re.search(told, row.dropped[0].reason), row.dropped[0].reason
        assert set(row.weights) == {0, 1, 3}
        assert sum(row.weights.values()) == pytest.approx(1)
    for value in load_file(folder / "generator-vanilla-0.safetensors").values():
        assert np.isfinite(value).all()


def test_a_classifier_s_weight_is_that_of_the_images_it_enrolled_with(tmp_path: Path) -> None:
    """Ten million images beside three clients of 128 weighed 0.99996: the sender is dropped, the others weigh a third
    each; and who says the truth weighs by it."""
    settings = config(
        tmp_path,
        data__count=1000,
        gan__width=32,
        train__task="classifier",
        train__steps=1,
        train__lr=0.01,
        classifier__network="perceptron",
        classifier__norm="none",
        split__scheme="sizes",
        split__images="128,128,128,128",
    )
    assert settings.classifier.weighting == "images"

    def tamper(partition: int, reply: Message) -> Message:
        training = not reply.has_error() and "arrays" in reply.content.array_records
        return changed(reply, num_examples=10_000_000) if partition == 3 and training else reply

    def weights(name: str, tamper: Tamper | None) -> list[dict[int, float]]:
        folder, _ = run(replace(settings, run=replace(settings.run, name=name, arms='{"plain": {}}')), tamper=tamper)
        return [row.weights for row in runlog.read(folder).cells["plain", 0].rounds]

    assert weights("honest", None) == [dict.fromkeys(range(4), 0.25)] * 2
    assert weights("lied", tamper) == [dict.fromkeys(range(3), 1 / 3)] * 2


def test_an_extra_metric_or_a_nan_loss_does_not_drop_a_good_update(tmp_path: Path) -> None:
    def tamper(partition: int, reply: Message) -> Message | None:
        training = "arrays" in reply.content.array_records
        return changed(reply, g_loss_first=float("nan"), surprise=1.0) if partition == 1 and training else reply

    arms = json.dumps({"fed-detect": {"defence.name": "fed-detect", "train.steps": 6}})
    folder, _ = run(config(tmp_path, run__arms=arms), tamper=tamper)
    for row in runlog.read(folder).cells["fed-detect", 0].rounds:
        assert not row.dropped
        assert row.flags == (1,), "a non-finite loss is a violation by itself"


def test_a_client_that_fails_is_named_and_a_run_without_any_reply_ends_as_failed(tmp_path: Path) -> None:
    def silent(partition: int, reply: Message) -> Message | None:
        return None if "arrays" in reply.content.array_records else reply

    settings = config(tmp_path, train__rounds=5)
    with pytest.raises(RunError, match="no usable reply in 3 rounds"):
        run(settings, tamper=silent)
    record = runlog.read(tmp_path / "runs" / "isic")
    assert record.end is not None
    assert record.end.status == "failed"


def test_every_arm_trains_scores_and_is_kept(tmp_path: Path) -> None:
    settings = config(tmp_path, run__arms=json.dumps(ARMS), run__seeds="0,1")
    folder, grid = run(settings, lanes=2)
    results = write_results(folder)
    assert list(results["arms"]) == list(ARMS)
    for scores in results["arms"].values():
        assert len(scores["frechet-domain"]["values"]) == 2
        assert {"kid", "precision", "recall", "trigger-rate", "attacker-weight"} <= set(scores)
    assert results["malicious"] == [0]
    assert len(list((folder / "samples").glob("*.png"))) == 4 * 2 * 2
    run_again, second = run(settings, lanes=2)
    assert run_again == folder
    assert second.calls == 8, "finished cells are not run again: only the roll call is heard"
    assert grid.calls == 8 + 2 * 2 * (4 + 4 + 4 + 3)


def test_utility_is_measured_with_and_without_synthetic_images(tmp_path: Path) -> None:
    folder, _ = run(config(tmp_path, measure__utility="5"))
    scores = write_results(folder)["arms"]["vanilla"]
    assert 0 < scores["utility-auc-5"]["mean"] < 1
    assert 0 < scores["real-auc-5"]["mean"] < 1


def test_a_changed_setting_redoes_only_the_arms_it_touches(tmp_path: Path) -> None:
    arms: dict[str, dict[str, Any]] = {"vanilla": {}, "attack": {"attack.name": "patch"}}
    folder, _ = run(config(tmp_path, run__arms=json.dumps(arms)))
    before = (folder / "generator-vanilla-0.safetensors").read_bytes()
    arms["attack"]["attack.size"] = 6
    _, grid = run(config(tmp_path, run__arms=json.dumps(arms)))
    assert grid.calls == 4 + 2 * 4
    assert (folder / "generator-vanilla-0.safetensors").read_bytes() == before


def test_same_seed_same_bytes_on_one_lane_and_on_two(tmp_path: Path) -> None:
    def generators(name: str, lanes: int) -> dict[str, bytes]:
        folder, _ = run(config(tmp_path, run__arms=json.dumps(ARMS), run__name=name), lanes=lanes)
        return {path.name: path.read_bytes() for path in sorted(folder.glob("*.safetensors"))}

    one = generators("one", 1)
    assert len(one) == len(ARMS)
    assert generators("two", 2) == one


def test_the_attack_changes_only_what_the_malicious_client_sends(tmp_path: Path) -> None:
    sent: dict[str, dict[int, np.ndarray]] = {"vanilla": {}, "attack": {}}
    arm = "vanilla"

    def listen(partition: int, reply: Message) -> Message | None:
        if "arrays" in reply.content.array_records:
            first = next(iter(reply.content.array_records["arrays"].values()))
            sent[arm].setdefault(partition, first.numpy())
        return reply

    for arm in sent:
        run(config(tmp_path, run__name=arm, run__arms=json.dumps({arm: ARMS[arm]})), tamper=listen)
    for partition in range(4):
        same = np.array_equal(sent["vanilla"][partition], sent["attack"][partition])
        assert same == (partition != 0)


def test_the_oracle_never_asks_the_malicious_client(tmp_path: Path) -> None:
    folder, _ = run(config(tmp_path, run__arms=json.dumps({"attack+oracle": ARMS["attack+oracle"]})))
    assert {frozenset(row.weights) for row in runlog.read(folder).cells["attack+oracle", 0].rounds} == {
        frozenset({1, 2, 3})
    }


def test_too_few_nodes_is_one_clear_error(tmp_path: Path) -> None:
    settings = config(tmp_path)
    with pytest.raises(RunError, match=r"2 nodes are there.*needs 4"):
        run_experiment(LocalGrid(app, settings.to_flat(), nodes=2), settings, wait=0.1)


def test_the_event_log_and_the_report_name_no_folder_of_this_machine(tmp_path: Path) -> None:
    folder, _ = run(config(tmp_path))
    write_report(folder)
    write_results(folder)
    for name in ("events.jsonl", "results.json", "report.html"):
        assert str(tmp_path) not in (folder / name).read_text(encoding="utf-8"), name


def test_no_number_of_clients_means_one_a_node(tmp_path: Path) -> None:
    settings = config(tmp_path, split__clients=0)
    folder = run_experiment(LocalGrid(app, settings.to_flat(), nodes=3), settings, wait=0.1)
    assert set(runlog.read(folder).cells["vanilla", 0].rounds[0].weights) == {0, 1, 2}


def site_grid(settings: RunConfig, folder: Path, names: list[str]) -> LocalGrid:
    return LocalGrid(
        app, settings.to_flat(), nodes=len(names), node_config=lambda i: {"site": names[i], "data": str(folder)}
    )


@pytest.fixture
def images(tmp_path: Path) -> Path:
    from PIL import Image

    rng = np.random.default_rng(0)
    for name in ("benign", "malignant"):
        (tmp_path / "site" / name).mkdir(parents=True)
        for i in range(20):
            Image.fromarray(rng.integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(
                tmp_path / "site" / name / f"{i}.png"
            )
    return tmp_path / "site"


def test_real_sites_train_on_their_own_data(tmp_path: Path, images: Path) -> None:
    settings = config(tmp_path, split__clients=2)
    grid = site_grid(settings, images, ["Vienna", "Graz"])
    folder = run_experiment(grid, settings, wait=1)
    cell = runlog.read(folder).cells["vanilla", 0]
    assert [set(row.weights) for row in cell.rounds] == [{0, 1}, {0, 1}]
    assert not any(row.dropped for row in cell.rounds)
    header = runlog.read(folder).header
    assert header.data.sites == ("Graz", "Vienna"), "the split in the report is the sites' own, not the server's data"
    assert header.label_counts == ((16, 16), (16, 16))
    assert header.site_counts == ((32, 0), (0, 32))
    assert "the server's own data for scoring" in header.notes[0]


def test_the_servers_own_split_does_not_bind_real_sites(tmp_path: Path, images: Path) -> None:
    """Its phantom has four acquisition sites; two hospitals are two clients."""
    settings = config(tmp_path, split__scheme="site", split__clients=2)
    folder = run_experiment(site_grid(settings, images, ["Vienna", "Graz"]), settings, wait=1)
    assert set(runlog.read(folder).cells["vanilla", 0].rounds[0].weights) == {0, 1}


@pytest.mark.parametrize("odd", [{"channels": "three"}, {"labels": ["x", "y"]}, {"labels": [-1, 5]}, {"classes": 2}])
def test_a_site_that_answers_the_roll_call_in_odd_words_is_named(
    odd: dict[str, Any], tmp_path: Path, images: Path
) -> None:
    def tamper(partition: int, reply: Message) -> Message | None:
        if partition == 1 and "who" in reply.content.config_records:
            for key, value in odd.items():
                reply.content.config_records["who"][key] = value
        return reply

    settings = config(tmp_path, split__clients=2)
    grid = site_grid(settings, images, ["Graz", "Linz"])
    grid.tamper = tamper
    with pytest.raises(RunError, match=r"some sites differ(.|\n)*Linz") as caught:
        run_experiment(grid, settings, wait=1)
    assert "Graz" not in str(caught.value)


def test_sites_with_other_classes_are_named_before_any_training(tmp_path: Path, images: Path) -> None:
    shutil.copytree(images, tmp_path / "odd")
    (tmp_path / "odd" / "malignant").rename(tmp_path / "odd" / "melanoma")
    settings = config(tmp_path, split__clients=2, data__grouping="classes")
    homes = {"Graz": images, "Linz": tmp_path / "odd"}
    grid = LocalGrid(
        app,
        settings.to_flat(),
        nodes=2,
        node_config=lambda i: {"site": list(homes)[i], "data": str(list(homes.values())[i])},
    )
    with pytest.raises(RunError, match=r"some sites differ(.|\n)*Linz: classes benign, melanoma; 3 channels") as caught:
        run_experiment(grid, settings, wait=1)
    assert "Graz" not in str(caught.value)


@pytest.mark.parametrize(
    ("names", "arms", "told"),
    [
        (["Graz", "Wien"], {"attack": {"attack.name": "patch"}}, "this site refuses the run"),
        (["Graz", "Graz"], {"vanilla": {}}, "a name of its own"),
        (["Graz", ""], {"vanilla": {}}, "a name of its own"),
    ],
)
def test_a_real_site_refuses_an_attack_and_needs_a_name(
    names: list[str], arms: dict[str, Any], told: str, tmp_path: Path, images: Path
) -> None:
    settings = config(tmp_path, split__clients=2, run__arms=json.dumps(arms))
    with pytest.raises(RunError, match=told):
        run_experiment(site_grid(settings, images, names), settings, wait=1)
