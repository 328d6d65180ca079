"""What Flower and Ray are told, and that only what we started is ever ended."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fedsec.config import RunConfig
from fedsec.errors import RunError
from fedsec.run import launch, machine, processes
from fedsec.run.app import app_folder

SLEEP = "import time; print('up', flush=True); time.sleep(600)"
STUBBORN = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {SLEEP}"


@pytest.fixture
def cores(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine of four cores without a GPU."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 3}, raising=False)
    monkeypatch.setattr(machine, "visible_gpus", lambda: 0)


def config(**speed: int | str) -> RunConfig:
    return RunConfig.from_flat({f"speed.{key.replace('_', '-')}": value for key, value in speed.items()})


@pytest.mark.usefixtures("cores")
@pytest.mark.parametrize(
    ("speed", "clients", "cells", "nodes", "workers"),
    [
        ({}, 4, 6, 8, 4),
        ({}, 4, 1, 4, 4),
        ({}, 2, 1, 2, 2),
        ({"arms_at_once": 3}, 4, 9, 12, 4),
        ({"arms_at_once": 3}, 4, 2, 8, 4),
        ({"workers": 1}, 4, 6, 8, 1),
        ({"workers": 100}, 4, 6, 8, 8),
    ],
)
def test_one_worker_a_core_and_a_lane_a_cell(
    speed: dict[str, int | str], clients: int, cells: int, nodes: int, workers: int
) -> None:
    plan = machine.resources(config(**speed), clients=clients, cells=cells)
    assert plan == machine.Resources(nodes, workers, 0, 0.0)


@pytest.mark.usefixtures("cores")
@pytest.mark.parametrize(("gpus", "workers"), [(1, 1), (1, 3), (1, 7), (2, 4), (2, 3), (3, 8)])
def test_the_workers_of_a_gpu_never_ask_for_more_than_all_of_it(
    gpus: int, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "visible_gpus", lambda: gpus)
    plan = machine.resources(config(workers=workers), clients=8, cells=1)
    assert plan.gpus == gpus
    assert plan.gpu_share > 0
    busiest = -(-plan.workers // gpus)
    assert busiest * plan.gpu_share <= 1, "Ray would start fewer workers than planned"
    assert busiest * plan.gpu_share > 0.99


@pytest.mark.usefixtures("cores")
def test_a_gpu_that_is_not_there_is_one_clear_error_and_cpu_asks_for_none(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RunError, match=r"no CUDA device is visible; set speed.device"):
        machine.resources(config(device="cuda"), clients=4, cells=1)
    monkeypatch.setattr(machine, "visible_gpus", lambda: 2)
    assert machine.resources(config(device="cpu"), clients=4, cells=1).gpus == 0


def test_the_federation_config_names_nodes_and_resources() -> None:
    text = machine.Resources(8, 2, 1, 0.5).federation_config()
    assert text.split() == [
        "num-supernodes=8",
        "client-resources-num-cpus=1",
        "client-resources-num-gpus=0.5",
        "init-args-num-cpus=2",
        "init-args-num-gpus=1",
    ]


def test_the_port_is_free_on_loopback() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = launch._free_port()
        assert taken.getsockname()[1] != port
    with socket.socket() as again:
        again.bind(("127.0.0.1", port))


def test_the_port_is_asked_for_on_loopback_only(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    class Recording(socket.socket):
        def bind(self, address: tuple[str, int]) -> None:  # type: ignore[override]
            asked.append(address[0])
            super().bind(address)

    monkeypatch.setattr(socket, "socket", Recording)
    launch._free_port()
    assert asked == ["127.0.0.1"]


def test_the_environment_is_quiet_and_its_own(tmp_path: Path) -> None:
    env = launch._environment(tmp_path, tmp_path / "ray")
    assert env["FLWR_HOME"] == str(tmp_path)
    assert env["FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION"] == "1"
    assert env["FLWR_TELEMETRY_ENABLED"] == env["RAY_USAGE_STATS_ENABLED"] == "0"
    assert env["RAY_TMPDIR"] == str(tmp_path / "ray")
    assert env["OMP_NUM_THREADS"] == "1"
    assert env["PATH"].split(os.pathsep)[0] == str(Path(sys.executable).parent)
    assert 1024 < int(env["FLWR_LOCAL_SUPERLINK_HTTP_API_PORT"]) < 65536


def test_a_folder_in_use_is_refused(tmp_path: Path) -> None:
    with launch._locked(tmp_path), pytest.raises(RunError, match="another run is writing"), launch._locked(tmp_path):
        pass
    with launch._locked(tmp_path):
        pass


def started(code: str, *, own_group: bool = False) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, start_new_session=own_group
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"
    return process


@pytest.fixture
def bystander() -> Iterator[subprocess.Popen[str]]:
    """Somebody else's process."""
    process = started(SLEEP, own_group=True)
    yield process
    process.kill()
    process.communicate()


@pytest.mark.parametrize("code", [SLEEP, STUBBORN])
def test_only_the_process_we_started_is_ended(code: str, bystander: subprocess.Popen[str]) -> None:
    with started(code) as own:
        processes.end(own)  # type: ignore[arg-type]
        assert own.returncode is not None
    assert bystander.poll() is None


def test_ending_what_has_ended_does_nothing() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as own:
        own.wait()
        processes.end(own)
        assert own.returncode == 0


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="process groups are read from /proc")
@pytest.mark.parametrize("code", [SLEEP, STUBBORN])
def test_what_a_superlink_started_in_a_group_of_its_own_is_ended_too(
    code: str, bystander: subprocess.Popen[str]
) -> None:
    inner = f"subprocess.Popen([sys.executable, '-c', {code!r}], start_new_session=True)"
    with started(f"import subprocess, sys; p = {inner}; import time; time.sleep(600)") as superlink:
        groups = processes.groups_below(superlink.pid)
        assert len(groups) == 1
        processes.end(superlink)  # type: ignore[arg-type]
        assert processes.lives(groups[0]), "it outlives its parent"
        processes.end_group(groups[0])
        assert not processes.lives(groups[0])
    assert bystander.poll() is None


def test_ending_a_group_that_is_gone_does_nothing() -> None:
    with started(SLEEP, own_group=True) as own:
        own.kill()
        own.wait()
        processes.end_group(own.pid)


def test_a_superlink_that_dies_at_once_is_named_with_its_log(tmp_path: Path) -> None:
    with (
        subprocess.Popen([sys.executable, "-c", "raise SystemExit(7)"]) as process,
        pytest.raises(RunError, match=r"exit code 7 while starting; its log is"),
    ):
        launch._wait_for_port(launch._free_port(), process, tmp_path / "log")


def test_a_superlink_that_never_answers_is_given_up(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(launch, "START_WAIT", 0.2)
    began = time.monotonic()
    with started(SLEEP) as process:
        with pytest.raises(RunError, match=r"did not answer on port"):
            launch._wait_for_port(launch._free_port(), process, tmp_path / "log")  # type: ignore[arg-type]
        assert time.monotonic() - began < 30
        processes.end(process)  # type: ignore[arg-type]


def test_the_last_errors_of_a_log_are_short_and_distinct(tmp_path: Path) -> None:
    log = tmp_path / "flower.log"
    log.write_text("fine\n" + "  ValueError: twice\n" * 2 + "".join(f"RunError: {i}\n" for i in range(5)))
    assert launch._last_errors(log) == ["RunError: 1", "RunError: 2", "RunError: 3", "RunError: 4"]


@pytest.mark.parametrize(("status", "hinted"), [("finished:failed", True), ("finished:stopped", False)])
def test_a_failed_run_without_an_error_in_its_log_may_have_been_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: str, hinted: bool
) -> None:
    log = tmp_path / "flower.log"
    log.write_text("[ROUND 10/40]\n")
    monkeypatch.setattr(launch, "_status", lambda env: status)
    with pytest.raises(RunError, match=f"ended as {status}") as caught:
        launch._demand_completed({}, 0, log)
    assert (launch.GIVEN_UP in str(caught.value)) is hinted
    log.write_text("ValueError: what it was\n")
    with pytest.raises(RunError, match="ValueError: what it was") as caught:
        launch._demand_completed({}, 0, log)
    assert launch.GIVEN_UP not in str(caught.value)


def test_a_missing_command_says_how_to_get_it() -> None:
    with pytest.raises(RunError, match=r"'no-such-command' is missing .* run 'make setup'"):
        launch._tool("no-such-command")


def test_the_app_folder_is_the_checkout() -> None:
    assert (app_folder() / "pyproject.toml").is_file()


def test_an_interrupt_while_things_are_ended_is_heard_when_they_have() -> None:
    done: list[str] = []

    def end() -> None:
        with processes.undisturbed():
            signal.raise_signal(signal.SIGINT)
            done.append("to the end")

    with pytest.raises(KeyboardInterrupt):
        end()
    assert done == ["to the end"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # as under nohup
    try:
        with processes.undisturbed():
            signal.raise_signal(signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)
