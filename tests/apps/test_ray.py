"""Real runs by the command line: SuperLink, Flower's simulation and Ray, as a user gets them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from benchmarks.processes import Family
from clients.client_app import app
from fedsec.config import RunConfig
from fedsec.config.toml import write_config
from fedsec.log import runlog
from strategies.server_app import run_experiment
from tests.local_grid import LocalGrid
from tests.quick_extractor import keep_quick_extractor

pytestmark = [
    pytest.mark.timeout(900),
    pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="what is left running is read from /proc"),
]
LONGEST = 600.0
"""Seconds a run may take on a slow and busy machine."""
GRACE = 60.0
"""Seconds the processes of a run may take to go once its command has ended."""
ARMS = {"vanilla": {}, "attack": {"attack.name": "patch"}}


@dataclass(frozen=True)
class Finished:
    """One command: its exit status, what it said, and every process it ever had."""

    code: int
    said: str
    family: Family


def config(folder: Path, **changes: object) -> RunConfig:
    flat = {
        "data.count": 160,
        "data.cache": str(folder / "cache"),
        "split.clients": 4,
        "gan.width": 8,
        "train.rounds": 2,
        "train.steps": 2,
        "train.batch": 8,
        "measure.samples": 120,
        "measure.utility": "",
        "speed.device": "cpu",
        "run.out": str(folder / "runs"),
        "run.arms": json.dumps(ARMS),
    }
    return RunConfig.from_flat(flat | {key.replace("__", ".").replace("_", "-"): v for key, v in changes.items()})


def command(settings: RunConfig, folder: Path, *, interrupt: signal.Signals | None = None) -> Finished:
    """``fedsec run`` to its end; with ``interrupt``, sent that signal from the first trained round on, again and again,
    as an impatient user would."""
    keep_quick_extractor(settings.data)
    written = folder / f"{settings.run.name}-settings"
    write_config(settings, written)
    words = [sys.executable, "-m", "fedsec.cli", "run", str(written / "config.toml")]
    with tempfile.TemporaryDirectory(prefix="ray-") as ray, open(written / "said.txt", "wb") as said:  # a short path
        env = {**os.environ, "FEDSEC_CACHE": str(folder / "unused"), "OMP_NUM_THREADS": "1", "RAY_TMPDIR": ray}
        process = subprocess.Popen(words, cwd=folder, env=env, stdout=said, stderr=subprocess.STDOUT)
        family = Family(process.pid)
        _await(process, settings, family, interrupt)
        family.await_end(GRACE)
    return Finished(process.returncode, (written / "said.txt").read_text(), family)


def _await(
    process: subprocess.Popen[bytes], settings: RunConfig, family: Family, interrupt: signal.Signals | None
) -> None:
    try:
        deadline = time.monotonic() + LONGEST
        while process.poll() is None and time.monotonic() < deadline:
            family.look()
            if interrupt and '"event": "round"' in events(settings):
                process.send_signal(interrupt)
            time.sleep(0.25)
        assert process.poll() is not None, f"still running after {LONGEST:.0f} s"
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            process.wait(60)


def events(settings: RunConfig) -> str:
    path = Path(settings.run.out) / settings.run.name / runlog.EVENTS
    return path.read_text() if path.exists() else ""


def demand_nothing_left(finished: Finished) -> None:
    """Every process the command ever had is gone, its SuperLink and its Ray included."""
    assert len(finished.family.seen) > 4, "the SuperLink, Ray and its workers were seen"
    assert finished.family.left == []


def generators(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("generator-*.safetensors"))}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("ray")


@pytest.fixture(scope="module")
def in_process(place: Path) -> dict[str, bytes]:
    """The generators of the same experiment over the in-process grid."""
    settings = config(place, run__name="local")
    grid = LocalGrid(app, settings.to_flat(), nodes=8)
    return generators(run_experiment(grid, settings, wait=1))


@pytest.fixture(scope="module")
def two_workers(place: Path) -> Finished:
    return command(config(place, run__name="two", speed__workers=2), place)


def test_a_run_ends_with_results_report_and_generators(two_workers: Finished, place: Path) -> None:
    assert two_workers.code == 0, two_workers.said
    folder = place / "runs" / "two"
    results = json.loads((folder / "results.json").read_text())
    assert set(results["arms"]) == set(ARMS)
    assert results["arms"]["attack"]["frechet-domain"]["values"][0] > 0
    assert (folder / "report.html").read_text().lower().startswith("<!doctype html>")
    assert list(generators(folder)) == ["generator-attack-0.safetensors", "generator-vanilla-0.safetensors"]
    assert str(folder / "report.html") in two_workers.said
    assert not (place / "unused").exists(), "data.cache goes before FEDSEC_CACHE"


def test_ray_trains_the_same_bytes_as_the_in_process_grid(
    two_workers: Finished, in_process: dict[str, bytes], place: Path
) -> None:
    assert two_workers.code == 0, two_workers.said
    assert len(in_process) == 2
    assert generators(place / "runs" / "two") == in_process


def test_one_worker_trains_the_same_bytes_and_nothing_stays_behind(in_process: dict[str, bytes], place: Path) -> None:
    done = command(config(place, run__name="one", speed__workers=1, speed__arms_at_once=1), place)
    assert done.code == 0, done.said
    assert generators(place / "runs" / "one") == in_process
    demand_nothing_left(done)


def test_nothing_of_a_finished_run_stays_behind(two_workers: Finished) -> None:
    demand_nothing_left(two_workers)


def test_the_same_command_again_runs_nothing(two_workers: Finished, place: Path) -> None:
    assert two_workers.code == 0, two_workers.said
    done = command(config(place, run__name="two", speed__workers=2), place)
    assert done.code == 0, done.said
    assert "0 cells to run, 2 already finished" in done.said
    assert len(done.family.seen) == 1, "no SuperLink, no Ray"


def test_a_run_whose_clients_all_diverge_exits_non_zero_with_the_reason(place: Path) -> None:
    """A learning rate of 1e30 makes every reply absurd: all are dropped, and after three such rounds the cell ends."""
    arms = json.dumps({"vanilla": {}})
    done = command(config(place, run__name="fails", train__lr=1e30, train__rounds=4, run__arms=arms), place)
    assert done.code == 1, done.said
    assert "the Flower run ended as finished:failed" in done.said
    assert "no usable reply in 3 rounds" in done.said
    assert "Traceback" not in done.said
    end = runlog.read(place / "runs" / "fails").end
    assert end is not None
    assert end.status == "failed"
    demand_nothing_left(done)


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT], ids=lambda how: how.name)
def test_a_run_that_is_interrupted_again_and_again_leaves_nothing_running(place: Path, how: signal.Signals) -> None:
    settings = config(place, run__name=f"cut-{how.name}", train__rounds=2000)
    done = command(settings, place, interrupt=how)
    assert done.code == 130, done.said
    assert done.said.count("interrupted; ending what was started") == 1
    assert "finished cells are kept" in done.said
    demand_nothing_left(done)
