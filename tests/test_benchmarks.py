"""The benchmark's own arithmetic: what is stamped, what is compared, what is counted as one run's memory."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from benchmarks import bench, federated, replay
from benchmarks.processes import Family, descendants, memory
from benchmarks.workload import FULL, QUICK, TIMED, WARM, workload
from fedsec.errors import RunError

CHILDREN = """
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "import time; print('up', flush=True); time.sleep(600)"])
child.wait()
"""


@pytest.mark.parametrize("scale", [FULL, QUICK])
def test_the_workload_is_the_default_but_for_its_length(scale: object, tmp_path: Path) -> None:
    config = workload(scale, out=tmp_path, cache=tmp_path, name="x")  # type: ignore[arg-type]
    assert (config.split.clients, config.data.size, config.gan.width, config.train.batch) == (4, 32, 32, 32)
    assert (config.speed.workers, config.speed.device, config.speed.arms_at_once) == (0, "auto", 2)
    assert list(config.arms) == [*WARM, *TIMED]
    assert all((config.arm(arm).train.rounds, config.arm(arm).train.steps) == (1, 1) for arm in WARM)
    assert config.measure.every > config.train.rounds


def test_whole_lines_are_stamped_once_and_a_part_of_one_waits(tmp_path: Path) -> None:
    log, events = tmp_path / "events.jsonl", list[federated.Stamped]()
    assert federated._take(log, 0, 1.0, events) == 0
    first, second = json.dumps({"event": "run"}) + "\n", json.dumps({"event": "round", "seconds": 2}) + "\n"
    log.write_text(first + second[:5])
    read = federated._take(log, 0, 2.0, events)
    assert read == len(first)
    log.write_text(first + second)
    read += federated._take(log, read, 3.0, events)
    assert read == len(first + second)
    assert [(stamped.at, stamped.is_round) for stamped in events] == [(2.0, False), (3.0, True)]


def test_the_ratio_is_taken_pair_by_pair_and_its_median_shown() -> None:
    figure = bench.ratio([(11.0, 10.0), (24.0, 20.0), (5.0, 5.0)])[0]
    assert figure.values == (1.1, 1.2, 1.0)
    assert str(figure) == "federated / bare pool: 1.10"
    assert str(bench.first_step([14.21])) == "first training step: 14.2 s"


def test_two_sides_that_trained_different_things_are_not_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fedsec.run.machine.visible_gpus", lambda: 0)
    for side, value in (("one", 0.0), ("two", 0.0), ("three", 1e-7)):
        (tmp_path / side).mkdir()
        for arm in TIMED:
            save_file({"w": np.full(3, value, np.float32)}, tmp_path / side / f"generator-{arm}-0.safetensors")
    bench._demand_same_work(tmp_path / "one", tmp_path / "two")
    with pytest.raises(RunError, match="different generators"):
        bench._demand_same_work(tmp_path / "one", tmp_path / "three")


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="processes are read from /proc")
def test_a_family_is_the_process_and_all_below_it() -> None:
    with subprocess.Popen([sys.executable, "-c", CHILDREN], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == "up\n"
        family = Family(parent.pid)
        family.look(weigh=True)
        members = descendants(parent.pid)
        assert len(members) == 2
        assert family.seen == set(members)
        assert 2**20 < family.peak < 2**30
        child = next(process for process in members if process.pid != parent.pid)
        os.kill(child.pid, signal.SIGTERM)
        parent.wait(60)
        family.await_end(60)
        assert family.left == []
        assert memory(members) == 0


def test_both_ways_of_a_step_are_timed(capsys: pytest.CaptureFixture[str]) -> None:
    replay.main(["--device", "cpu", "--rounds", "1"])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == ["cpu, launched", "cpu, replayed"]
    assert all(float(line.split()[2]) > 0 for line in lines)
