"""Split learning as a task of the run configuration, over the in-process grid: scored, dropped, resumed, reported."""

from __future__ import annotations

import json
from dataclasses import fields
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, Message
from safetensors.numpy import load_file

from clients.client_app import app
from fedsec.config import RunConfig, sections
from fedsec.config.checks import SPLIT_AUDITS
from fedsec.datasets import load
from fedsec.datasets.public import held_share
from fedsec.defences.pgsl import Pgsl
from fedsec.errors import ConfigError, FedsecError
from fedsec.log import runlog
from fedsec.log.record import RunRecord
from fedsec.metrics.measures import SSIM
from fedsec.models.split_learning.exchange import rounds_of, spec_of
from fedsec.models.split_learning.steps import LR
from fedsec.probes.split_learning.attacks import ATTACKS
from fedsec.reports.page import write_report
from fedsec.reports.risk import write_risk
from fedsec.reports.split_learning.leaks import tradeoffs
from fedsec.run.plan import plan_run
from fedsec.run.versions import rules
from strategies.server_app import run_experiment
from tests.local_grid import LocalGrid, Tamper

ARMS: dict[str, dict[str, Any]] = {
    "split": {},
    "pgsl": {"pgsl.on": True},
    "recovery-off": {"pgsl.on": True, "pgsl.recovery": "off"},
    "perturb-off": {"pgsl.on": True, "pgsl.perturb": "off"},
    "u-shaped": {"cut.labels": "client", "cut.average": 2},
}


def config(tmp_path: Path, **changes: Any) -> RunConfig:
    flat = {
        "train.task": "split-learning",
        "train.rounds": 3,
        "train.batch": 4,
        "train.lr": LR,
        "data.modality": "chest",
        "data.count": 60,
        "data.grouping": "classes",
        "split.clients": 2,
        "measure.every": 2,
        "run.out": str(tmp_path / "runs"),
        "run.name": "split",
        "run.arms": json.dumps({"split": {}}),
    }
    return RunConfig.from_flat(flat | {key.replace("__", ".").replace("_", "-"): v for key, v in changes.items()})


def run(settings: RunConfig, tamper: Tamper | None = None) -> tuple[RunRecord, Path]:
    grid = LocalGrid(app, settings.to_flat(), nodes=2, tamper=tamper)
    folder = run_experiment(grid, settings, wait=1)
    return runlog.read(folder), folder


AUDITED = {
    "leakage__every": 3,
    "leakage__attacks": "white-box,adaptive,adaptive-joint,decoder,unsplit",
    "leakage__iterations": "white-box=2,adaptive=2,adaptive-joint=2,decoder=2,unsplit=1",
    "leakage__images": 3,
}


@pytest.fixture(scope="module")
def all_arms(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunConfig, RunRecord, Path]:
    settings = config(tmp_path_factory.mktemp("arms"), run__arms=json.dumps(ARMS))
    return settings, *run(settings)


def test_every_arm_is_scored_by_stream_with_and_without_perturbation(
    all_arms: tuple[RunConfig, RunRecord, Path],
) -> None:
    settings, record, folder = all_arms
    done = {arm: cell.final() for (arm, _), cell in record.finished().items()}
    cost = {"bytes-up", "bytes-down", "samples-a-second"}
    three = ("accuracy", "balanced-accuracy", "auc")
    full = {f"{m}-{s}-{v}" for m, s, v in product(three, ("attacked", "recovered", "fused", "late"), ("on", "off"))}
    assert set(done["split"]) == cost | {f"{m}-plain-off" for m in three}
    assert set(done["pgsl"]) == set(done["recovery-off"]) == cost | full
    assert set(done["perturb-off"]) == cost | {name for name in full if name.endswith("-off")}
    assert set(done["u-shaped"]) == cost | {"accuracy-plain-off"}, "the clients count, the server has no labels"
    assert all(np.isfinite(row.score.value) for final in done.values() for row in final.values())
    assert done["split"]["accuracy-plain-off"].score.n == len(load(settings.data).test)
    cut = 4 * 32 * 8 * 8
    assert (done["split"]["bytes-up"].score.value, done["split"]["bytes-down"].score.value) == (cut + 8, cut)
    for arm, cell in ((arm, cell) for (arm, _), cell in record.finished().items()):
        assert len(cell.rounds) == rounds_of(settings.arm(arm)), arm
        assert sorted({row.round for row in cell.scores if not row.final}) == [2, 3], "scores stand by message"
        kept = load_file(folder / f"server-half-{arm}-0.safetensors")
        assert any(name.startswith("body.") for name in kept)
        assert any(name.startswith("heads.") for name in kept) == (arm != "u-shaped")


def test_the_page_says_what_was_found_and_what_was_not(all_arms: tuple[RunConfig, RunRecord, Path]) -> None:
    _, record, folder = all_arms
    text = write_report(folder).read_text(encoding="utf-8")
    assert write_report(folder).read_text(encoding="utf-8") == text
    for part in (
        "split learning, plain and PGSL",
        "14.0, 17.9 and 36.9 %",
        "over the reconstructed stream of pgsl",
        "recovery-off (pgsl.recovery = off) against pgsl",
        "python -m studies.split_learning.accuracy",
        "In u-shaped accuracies are what the clients count",
        "Every reply entered its round.",
        "Phantom images",
        "One seed",
        "8,200",
    ):
        assert part in text, part
    late = record.finished()["pgsl", 0].final()["accuracy-late-on"].score.value
    assert f'<td class="num">{late:.3f}</td>' in text
    assert text.count("<figure>") >= 3
    assert "generator" not in text.split("Settings that differ")[0]
    assert str(folder.parent) not in text


def test_what_was_sent_is_attacked_scored_drawn_and_held_against_noise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fedsec.metrics.gallery.OTHERS", 5)
    monkeypatch.setattr("fedsec.metrics.iip.OTHERS", 5)
    arms = {name: {"cut.noise": level} for name, level in (("split", 0.0), ("noise-1", 1.0), ("noise-4", 4.0))}
    arms |= {"pgsl": {"pgsl.on": True}, "no-peek": {"cut.decorrelation": 5.0}}
    settings = config(tmp_path, run__arms=json.dumps(arms), leakage__sites="1", **AUDITED)
    record, folder = run(settings)
    names = {arm: [row.attack for row in cell.leaks] for (arm, _), cell in record.finished().items()}
    plain = ["white-box", "decoder", "unsplit", "prior"]
    assert names == {**dict.fromkeys(arms, plain), "pgsl": [*settings.leakage.attacks.split(","), "prior"]}
    rows = [row for cell in record.finished().values() for row in cell.leaks]
    assert {(row.round, row.partition) for row in rows} == {(3, 1)}
    for row in rows:
        assert row.values[SSIM] == pytest.approx(np.mean(row.each[SSIM]), abs=1e-4)
        assert len(row.each[SSIM]) == len(row.each["psnr"]) == 3
        assert (folder / row.file).exists()
        assert bool(row.file) == (row.attack != "prior")
        assert ("iip-pixels" in row.values) == (row.attack != "prior")
    found = tradeoffs(record)
    assert set(found) == {"pgsl", "no-peek"}
    text = write_report(folder).read_text(encoding="utf-8")
    for part in (
        "Privacy at matched accuracy",
        "SSIM (Gaussian 11, [0, 1]), pgsl:",
        "What activations give away",
        "site 1, no-peek",
    ):
        assert part in text, part
    assert "NoPeek of 5" in text
    assert text.count("data:image/png;base64,") == len(arms)
    sheets = write_risk(folder)
    assert sheets is not None
    told = sheets.read_text(encoding="utf-8")
    assert "In each of the 3 messages the site sends 8 images of its" in told
    assert "accuracy of the model" in told
    assert str(tmp_path) not in text + told


def test_the_truth_is_not_what_attackers_read(tmp_path: Path) -> None:
    """Noise of a thousand deviations: what is drawn is as like one image as another."""
    arms = json.dumps({"loud": {"cut.noise": 1000.0}, "split": {}})
    changes = {**AUDITED, "leakage__attacks": "white-box", "leakage__iterations": "white-box=60", "leakage__images": 8}
    record, _ = run(config(tmp_path, run__arms=arms, **changes))
    near = {
        (arm, row.attack): np.mean(row.each[SSIM]) for (arm, _), cell in record.finished().items() for row in cell.leaks
    }
    assert near["split", "white-box"] > near["split", "prior"] + 0.05
    assert near["loud", "white-box"] < near["loud", "prior"]


def test_a_real_site_keeps_its_half(tmp_path: Path) -> None:
    grid = LocalGrid(
        app,
        config(tmp_path, **AUDITED).to_flat(),
        nodes=2,
        node_config=lambda i: {"site": f"site {i}", "data": str(tmp_path)},
    )
    with pytest.raises(FedsecError, match=r"set leakage\.every = 0, audits are for simulations alone"):
        run_experiment(grid, config(tmp_path, **AUDITED), wait=1)


def test_every_audit_has_its_attack() -> None:
    assert set(SPLIT_AUDITS) <= set(ATTACKS)


def test_what_finished_is_not_run_again(all_arms: tuple[RunConfig, RunRecord, Path]) -> None:
    settings, _, _ = all_arms
    assert plan_run(settings, rules=rules()).todo == []
    changed = {**ARMS, "pgsl": {"pgsl.on": True, "pgsl.scores": "softmax"}}
    again = RunConfig.from_flat({**settings.to_flat(), "run.arms": json.dumps(changed)})
    assert plan_run(again, rules=rules()).todo == [("pgsl", 0)]


def test_same_seed_same_numbers_and_the_learning_rate_counts(tmp_path: Path) -> None:
    def half(name: str, **changes: Any) -> np.ndarray:
        _, folder = run(config(tmp_path, run__name=name, train__rounds=2, **changes))
        return load_file(folder / "server-half-split-0.safetensors")["heads.linear.plain.weight"]

    first = half("a")
    np.testing.assert_array_equal(first, half("b", measure__every=1))
    assert not np.array_equal(first, half("c", train__lr=1e-4))
    assert not np.array_equal(first, half("d", run__seeds="0", cut__batches=1))


def test_a_hostile_site_is_dropped_and_the_run_goes_on(tmp_path: Path) -> None:
    def tamper(partition: int, reply: Message) -> Message | None:
        records = {} if reply.has_error() else reply.content.array_records
        if partition == 1 and "arrays" in records and "activations" in records["arrays"]:
            sent = records["arrays"]["activations"].numpy()
            records["arrays"]["activations"] = Array(np.full_like(sent, np.nan))
        return reply

    record, folder = run(config(tmp_path), tamper)
    cell = record.finished()["split", 0]
    dropped = [gone for row in cell.rounds for gone in row.dropped]
    assert {gone.partition for gone in dropped} == {1}
    assert len(dropped) == 5, "three messages, two rounds of scores"
    assert np.isfinite(cell.final()["accuracy-plain-off"].score.value)
    assert "5 replies did not enter their round" in write_report(folder).read_text(encoding="utf-8")


def test_scores_that_nobody_sent_say_so(tmp_path: Path) -> None:
    trips = rounds_of(config(tmp_path))

    def silent(partition: int, reply: Message) -> Message | None:
        return None if reply.metadata.group_id == str(trips) else reply

    record, folder = run(config(tmp_path), silent)
    score = record.finished()["split", 0].final()["accuracy-plain-off"].score
    assert np.isnan(score.value)
    assert score.reason == "no client answered the last scoring round"
    assert "not measured" in write_report(folder).read_text(encoding="utf-8")


def test_hospitals_train_and_are_scored_on_their_own_machines(tmp_path: Path) -> None:
    from PIL import Image

    rng = np.random.default_rng(0)
    for site, count in (("Graz", 10), ("Linz", 16)):
        for kind in ("normal", "pneumonia"):
            (tmp_path / site / kind).mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(0, 256, (40, 40), dtype=np.uint8)
                Image.fromarray(pixels).save(tmp_path / site / kind / f"{i}.png")
    arms = {"split": {}, "pgsl": {"pgsl.on": True, "cut.labels": "client"}}
    settings = config(tmp_path, run__arms=json.dumps(arms), train__rounds=2)
    names = ("Graz", "Linz")
    grid = LocalGrid(
        app,
        settings.to_flat(),
        nodes=2,
        node_config=lambda i: {"site": names[i], "data": str(tmp_path / names[i])},
    )
    record = runlog.read(run_experiment(grid, settings, wait=1))
    done = {arm: cell for (arm, _), cell in record.finished().items()}
    assert set(done) == set(arms)
    assert record.header.data.sites == names
    assert not [gone for cell in done.values() for row in cell.rounds for gone in row.dropped]
    held = {cell.final()[f"accuracy-{s}-off"].score.n for cell, s in ((done["split"], "plain"), (done["pgsl"], "late"))}
    own = [load(RunConfig.from_flat({**settings.to_flat(), "data.source": str(tmp_path / n)}).data) for n in names]
    assert held == {sum(len(data.test) for data in own)}, "each site's own held-out images"


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"gan__width": 8}, r"gan\.width: train\.task = 'split-learning' does not read it"),
        ({"train__steps": 5}, r"train\.steps: train\.task = 'split-learning'"),
        ({"train__fraction": 0.5}, r"train\.fraction"),
        ({"defence__name": "median"}, r"defence\.name: train\.task = 'split-learning'"),
        ({"attack__name": "patch"}, r"attack\.name: train\.task"),
        ({"privacy__noise": 1.0}, r"privacy\.noise: train\.task"),
        ({"leakage__sites": "0"}, r"leakage\.sites: leakage\.every = 0 does not read it"),
        ({"leakage__every": 1}, "leakage.attacks = 'span': must be of white-box, adaptive"),
        ({**AUDITED, "leakage__probe": "inversion"}, r"leakage\.probe: train\.task = 'split-learning'"),
        ({**AUDITED, "leakage__iterations": "white-box"}, "write 'attack=number', e.g. 'adaptive=300'"),
        ({"cut__noise": -1.0}, r"cut\.noise = -1"),
        ({"train__batch": 1}, "must be at least 2"),
        ({"cut__batches": 0}, r"cut\.batches = 0"),
        ({"cut__labels": "nobody"}, r"cut\.labels = 'nobody'"),
        ({"pgsl__step": 2.0}, r"pgsl\.step: pgsl\.on = False does not read it"),
        ({"pgsl__on": True, "pgsl__perturb": "off", "pgsl__scale": "peak"}, r"pgsl\.scale: pgsl\.perturb = 'off'"),
        ({"pgsl__on": True, "pgsl__recovery": "off", "pgsl__lam": 0.2}, r"pgsl\.lam: pgsl\.recovery = 'off'"),
        ({"train__task": "gan", "cut__average": 2}, r"cut\.average: train\.task = 'gan'"),
        ({"train__task": "classifier", "pgsl__on": True}, r"pgsl\.on: train\.task = 'classifier'"),
    ],
)
def test_a_wrong_split_run_says_what_is_wrong(tmp_path: Path, changes: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        config(tmp_path, **changes)


def test_the_section_has_the_defaults_of_the_maths() -> None:
    maths = Pgsl()
    for item in fields(sections.Pgsl):
        if item.name != "on":
            assert item.default == getattr(maths, item.name), item.name
    on = RunConfig.from_flat({"train.task": "split-learning", "pgsl.on": True})
    assert spec_of(on, channels=1, classes=2).pgsl == maths
    assert spec_of(RunConfig(), channels=1, classes=2).pgsl is None


def test_every_held_out_image_is_one_client_s() -> None:
    data = load(RunConfig.from_flat({"data.modality": "chest", "data.count": 60}).data)
    parts = [held_share(data, i, 3) for i in range(3)]
    together = np.concatenate([part.pixels for part in parts])
    assert {image.tobytes() for image in together} == {image.tobytes() for image in data.rows(data.test).pixels}
    assert sum(map(len, parts)) == len(data.test)
