"""A federated classifier over the in-process grid: averaged, scored, audited, and withheld where a site says so."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file

from clients.client_app import app
from fedsec.config import RunConfig
from fedsec.config.checks import AUDITS
from fedsec.datasets.phantom import draw
from fedsec.errors import ConfigError, RunError
from fedsec.log import runlog
from fedsec.log.record import RunRecord
from fedsec.metrics.measures import SSIM
from fedsec.probes.audit import ATTACKS
from fedsec.probes.view import ServerView
from fedsec.reports.page import write_report
from fedsec.reports.risk import write_risk
from strategies.server_app import run_experiment
from tests.local_grid import LocalGrid


def config(tmp_path: Path, **changes: Any) -> RunConfig:
    flat = {
        "train.task": "classifier",
        "train.rounds": 2,
        "train.lr": 0.01,
        "data.modality": "chest",
        "data.count": 700,
        "data.grouping": "classes",
        "split.scheme": "sizes",
        "split.clients": 3,
        "split.images": "6,4,1",
        "classifier.network": "convnet",
        "classifier.epochs": 1,
        "classifier.batches": "3,4,1",
        "leakage.every": 2,
        "leakage.sites": "2",
        "leakage.iterations": "span=40,row-space=20",
        "measure.every": 1,
        "run.out": str(tmp_path / "runs"),
        "run.name": "leakage",
    }
    return RunConfig.from_flat(flat | {key.replace("__", ".").replace("_", "-"): v for key, v in changes.items()})


def run(settings: RunConfig) -> tuple[RunRecord, Path]:
    folder = run_experiment(LocalGrid(app, settings.to_flat(), nodes=3), settings, wait=1)
    return runlog.read(folder), folder


def test_a_round_is_averaged_scored_and_audited(tmp_path: Path) -> None:
    record, folder = run(config(tmp_path, leakage__keep=True))
    cell = record.finished()["vanilla", 0]
    assert [sorted(row.losses) for row in cell.rounds] == [[0, 1, 2]] * 2
    assert all(np.isfinite(list(row.losses.values())).all() for row in cell.rounds)
    assert cell.rounds[0].weights == pytest.approx({0: 6 / 11, 1: 4 / 11, 2: 1 / 11}), "shares by images"
    assert {"auc", "accuracy", "balanced-accuracy"} <= set(cell.final())
    assert 0.4 < cell.final()["auc"].score.value <= 1
    leaks = {(row.round, row.partition, row.attack): row for row in cell.leaks}
    assert set(leaks) == {(1, 2, "span"), (1, 2, "prior")}
    found, prior = leaks[1, 2, "span"], leaks[1, 2, "prior"]
    assert found.values["nats"] > 0
    assert found.values[SSIM] > prior.values[SSIM]
    assert found.values["iip-pixels"] in (0, 1)
    assert 0 < found.values["iip-chance"] <= 1 / 201
    assert (folder / found.file).is_file()
    view = ServerView.load(folder / "views" / "vanilla-0-0001-2")
    assert (view.examples, view.recipe.steps, view.recipe.batch) == (1, 1, 1)
    assert np.isfinite(load_file(folder / "classifier-vanilla-0.safetensors")["fc.bias"]).all()


def test_what_was_sent_is_what_the_audit_holds(tmp_path: Path) -> None:
    """The view of an audited reply equals a client's own capture of what it sent."""
    from clients import index
    from fedsec.datasets import load, partition

    settings = config(tmp_path, leakage__keep=True, train__rounds=1)
    _, folder = run(settings)
    view = ServerView.load(folder / "views" / "vanilla-0-0001-2")
    data = load(settings.data)
    own = data.rows(partition(data, settings.split, seed=settings.data.seed)[2])
    client = index.build(settings, own, partition=2, classes=2, seed=0, kept={})
    client.fit(list(view.before.values()), {"round": 1})
    captured = client.captured  # type: ignore[attr-defined]
    for name, value in captured.after.items():
        np.testing.assert_array_equal(value, view.after[name])
    assert captured.recipe == view.recipe


def test_a_site_keeps_an_update_that_says_too_much(tmp_path: Path) -> None:
    record, _ = run(config(tmp_path, leakage__probe="inversion", leakage__limit=0.01, train__rounds=1))
    (row,) = record.finished()["vanilla", 0].rounds
    gone = {drop.partition: drop.reason for drop in row.dropped}
    assert 2 in gone
    assert "the site keeps it: update withheld" in gone[2]
    assert "this site's limit is 0.01" in gone[2]
    assert set(row.weights) == {0, 1, 2} - set(gone)


def test_probing_sites_report_numbers(tmp_path: Path) -> None:
    record, _ = run(config(tmp_path, leakage__probe="statistics", leakage__every=0, train__rounds=1))
    told = {row.partition: row.values for row in record.finished()["vanilla", 0].leaks}
    assert told[0]["steps"] == 2
    assert told[2]["likelier"] == 1, "one image's statistics single it out"
    assert all(values["recovery-error"] < 1e-3 for values in told.values())


def on_machines(tmp_path: Path, *, images: int = 6, **changes: Any) -> RunRecord:
    """Two hospitals, each with ``images`` of its own of each class, each on its own node."""
    for kind, drawn in zip(
        ("normal", "pneumonia"), np.split(draw("chest", 2 * images, 64, seed=0).pixels, 2), strict=True
    ):
        (tmp_path / "site" / kind).mkdir(parents=True)
        for i, pixels in enumerate(drawn):
            Image.fromarray(pixels[..., 0]).save(tmp_path / "site" / kind / f"{i}.png")
    usual = {"split__clients": 2, "split__scheme": "iid", "split__images": "", "classifier__batches": ""}
    settings = config(tmp_path, **usual, leakage__sites="", train__rounds=1, **changes)
    grid = LocalGrid(
        app,
        settings.to_flat(),
        nodes=2,
        node_config=lambda i: {"site": ("Graz", "Linz")[i], "data": str(tmp_path / "site")},
    )
    return runlog.read(run_experiment(grid, settings, wait=1))


def test_hospitals_probe_their_own_updates_on_their_own_machines(tmp_path: Path) -> None:
    """One step on one image of each: both updates say too much for a strict site, and leave a lenient one."""
    one = {
        "leakage__every": 0,
        "leakage__probe": "inversion",
        "classifier__epochs": 0,
        "train__steps": 1,
        "train__batch": 1,
    }
    (row,) = on_machines(tmp_path, images=4, leakage__limit=0.01, **one).cells["vanilla", 0].rounds
    assert {drop.partition for drop in row.dropped} == {0, 1}
    assert {drop.site for drop in row.dropped} == {"Graz", "Linz"}
    assert all("the site keeps it: update withheld" in drop.reason for drop in row.dropped)
    (tmp_path / "again").mkdir()
    lenient = on_machines(tmp_path / "again", images=4, leakage__limit=50.0, **one).finished()["vanilla", 0]
    assert {leak.partition for leak in lenient.leaks} == {0, 1}
    assert all(leak.values["rdlv-max"] > 0.01 for leak in lenient.leaks)


def test_a_server_cannot_audit_hospitals_whose_images_it_has_not(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"only a simulation knows.*take leakage\.probe"):
        on_machines(tmp_path, leakage__every=1)


def test_a_runs_report_says_where_the_leak_comes_from(tmp_path: Path) -> None:
    names = ("bn-only", "random", "global", "proxy", "maps-only", "maps+bn", "first-layer")
    few = ",".join(f"{name}=5" for name in names)
    record, folder = run(config(tmp_path, leakage__attacks=",".join(names), leakage__iterations=few, train__rounds=1))
    (cell,) = record.finished().values()
    made = {row.attack: row for row in cell.leaks}
    assert set(made) == {*names, "prior"}
    assert "begins with a convolution" in made["first-layer"].reason
    assert made["maps-only"].values[SSIM] > made["prior"].values[SSIM]
    text = write_report(folder).read_text(encoding="utf-8")
    assert "Where the leak comes from" in text
    for line in ("bn-only − global", "bn-only − prior-only", "maps-only − prior-only", "maps+bn − maps-only"):
        assert line in text


def test_an_attack_that_needs_what_an_arm_does_not_send_says_so_and_the_run_goes_on(tmp_path: Path) -> None:
    """As the quick profile has it: running statistics that stay at the site, or that no layer has."""
    arms = {"fed-bn": {"classifier.sends": "weights"}, "group-norm": {"classifier.norm": "group"}}
    asked = {"leakage__attacks": "bn-only,global,random,proxy,row-space", "run__arms": json.dumps(arms)}
    record, _ = run(config(tmp_path, **asked, train__rounds=1))
    for cell in record.finished().values():
        reasons = {row.attack: row.reason for row in cell.leaks}
        assert "no running statistics" in reasons["global"]
        assert reasons["random"] == reasons["global"]
        assert reasons["bn-only"]
        assert not reasons["row-space"]
    proxies = {
        arm: next(row for row in cell.leaks if row.attack == "proxy") for (arm, _), cell in record.finished().items()
    }
    assert "no layer has batch statistics" in proxies["group-norm"].reason
    assert proxies["fed-bn"].values, "public images have statistics of their own"


def test_one_image_is_divided_out_of_a_perceptrons_update_in_a_federation(tmp_path: Path) -> None:
    network = {"classifier__network": "perceptron", "classifier__norm": "none", "leakage__attacks": "first-layer"}
    record, _ = run(config(tmp_path, **network, leakage__sites="0,2", train__rounds=1))
    made = {(row.partition, row.attack): row for row in record.finished()["vanilla", 0].leaks}
    assert made[2, "first-layer"].values[SSIM] > 0.999
    assert "6 images are mixed" in made[0, "first-layer"].reason


def test_the_pages_say_what_was_drawn_and_show_it(tmp_path: Path) -> None:
    arms = {"plain": {}, "noise-9": {"classifier.protect": "noise=9"}, "noise-1": {"classifier.protect": "noise=1"}}
    _, folder = run(config(tmp_path, run__arms=json.dumps(arms), train__rounds=1, leakage__sites="0,2"))
    text = write_report(folder).read_text(encoding="utf-8")
    assert write_report(folder).read_text(encoding="utf-8") == text
    for part in (
        "In plain, a server that only looks could draw images of",
        "site 2, plain",
        "RDLV over sigma0",
        "prior",
    ):
        assert part in text, part
    assert text.count("data:image/png;base64,") == 6, "a picture for each arm and site"
    rows = np.asarray(Image.open(next((folder / "leaks").glob("plain-*-span.png"))).convert("L"))
    last = rows[-(rows.shape[0] // 4) :]
    assert (last.min(), last.max()) == (0, 255), "the last row is the reconstruction at full contrast"
    sheets = write_risk(folder)
    assert sheets is not None
    told = sheets.read_text(encoding="utf-8")
    assert [told.count(f"<h1>Site {site}:") for site in (0, 1, 2)] == [1, 0, 1]
    assert "In each of the 1 rounds the site trains on 1 image in 1 step of 1." in told
    assert str(tmp_path) not in text + told
    log = folder / "events.jsonl"
    kept = [line for line in log.read_text(encoding="utf-8").splitlines() if not unfinished(json.loads(line))]
    log.write_text("\n".join(kept) + "\n", encoding="utf-8")
    text = write_report(folder).read_text(encoding="utf-8")
    assert "Site 0: not audited" in text, "a site whose update did not arrive keeps its column"
    assert write_risk(folder) == sheets
    assert "not yet measured for who does not" in sheets.read_text(encoding="utf-8")


NOISED = {f"noise-{strength}": {"classifier.protect": f"noise={strength}"} for strength in (0.1, 0.3, 1)}
SAFE = ("drew none of its images", "no more than the public prior")


def test_the_sheet_does_not_call_an_update_safe_for_its_noise(tmp_path: Path) -> None:
    _, folder = run(config(tmp_path, run__arms=json.dumps(NOISED), train__rounds=1))
    told = write_risk(folder).read_text(encoding="utf-8")  # type: ignore[union-attr]
    assert "Site 2: its images can be drawn" in told
    assert not any(word in told for word in SAFE)


def test_an_attack_that_gave_up_is_no_sign_of_safety(tmp_path: Path) -> None:
    """'row-space' reads nothing through noise: it has no score, and the sheet says that nothing is known."""
    record, folder = run(config(tmp_path, run__arms=json.dumps(NOISED), train__rounds=1, leakage__attacks="row-space"))
    for cell in record.finished().values():
        (row,) = [row for row in cell.leaks if row.attack == "row-space"]
        assert row.reason.startswith("not attempted: ")
        assert not row.values
    for page in (write_risk(folder), write_report(folder)):
        told = page.read_text(encoding="utf-8")  # type: ignore[union-attr]
        assert "nothing is known" in told
        assert not any(word in told for word in SAFE)


def unfinished(event: dict[str, Any]) -> bool:
    """What a log lacks when site 0 of one arm was dropped, and an audit was cut short before its prior."""
    leak = event["event"] == "leak"
    return leak and (event["attack"] == "prior" or (event["arm"], event["partition"]) == ("noise-9", 0))


def test_without_audits_there_is_no_risk_sheet(tmp_path: Path) -> None:
    _, folder = run(config(tmp_path, leakage__every=0, train__rounds=1))
    assert write_risk(folder) is None
    assert "No update was attacked in this run" in write_report(folder).read_text(encoding="utf-8")


ARMS = {
    "plain": {},
    "fed-bn": {"classifier.sends": "weights"},
    "noise": {"classifier.protect": "noise=5"},
    "pruned": {"classifier.protect": "prune=0.9,quantise=1"},
    "dp": {"defence.name": "dp-fixed", "privacy.noise": 1.0, "classifier.norm": "group"},
    "median": {"defence.name": "median"},
}


def test_every_kind_of_arm_runs_over_the_same_nodes(tmp_path: Path) -> None:
    settings = config(tmp_path, run__arms=json.dumps(ARMS), leakage__every=0, train__rounds=2)
    record, folder = run(settings)
    done = {arm: cell.final() for (arm, _), cell in record.finished().items()}
    assert set(done) == set(ARMS)
    assert all(np.isfinite(final["auc"].score.value) for final in done.values())
    assert np.isfinite(done["dp"]["epsilon-client"].score.value)
    weights = {arm: load_file(folder / f"classifier-{arm}-0.safetensors")["fc.weight"] for arm in ARMS}
    assert not np.array_equal(weights["plain"], weights["noise"])
    assert not np.array_equal(weights["plain"], weights["median"])


def test_a_protection_that_cannot_be_is_named_with_its_arm(tmp_path: Path) -> None:
    arms = {"a": {"classifier.protect": "prune=2"}, "b": {"classifier.protect": "local-statistics=1"}, "c": {}}
    with pytest.raises(ConfigError, match=r"(?s)arm 'a': .*prune.*arm 'b': .*classifier.sends = 'weights'"):
        run(config(tmp_path, run__arms=json.dumps(arms)))


def test_what_cannot_be_measured_is_refused_before_training(tmp_path: Path) -> None:
    wrong = config(tmp_path, split__scheme="iid", split__images="", classifier__batches="", classifier__sends="weights")
    with pytest.raises(RunError, match="statistics of public images"):
        run(wrong)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"split__images": "6,4"}, "names 2 clients, split.clients = 3"),
        ({"classifier__batches": "0,1,1"}, "numbers >= 1"),
        ({"gan__width": 8}, "gan.width: train.task = 'classifier' does not read it"),
        ({"defence__name": "fed-inspect"}, "reads generators"),
        ({"attack__name": "patch"}, "attacks on generators"),
        ({"leakage__attacks": "row-space,telepathy"}, "must be of span, row-space"),
        ({"leakage__iterations": "row-space"}, "write 'attack=number'"),
        ({"leakage__limit": 1.0}, "only leakage.probe = 'inversion'"),
        ({"defence__name": "dp-fixed"}, "variance negative"),
        ({"classifier__norm": "frozen", "classifier__sends": "weights"}, "same statistics"),
        ({"leakage__sites": "3"}, "there are 3 clients"),
        ({"train__task": "gan", "split__scheme": "iid", "split__images": ""}, "classifier.epochs: train.task = 'gan'"),
    ],
)
def test_a_wrong_classifier_run_says_what_is_wrong(tmp_path: Path, changes: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        config(tmp_path, **changes)


def test_every_audit_that_can_be_named_exists() -> None:
    assert set(AUDITS) == set(ATTACKS)
