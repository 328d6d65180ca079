"""Start one Flower run as a person would with ``flwr run``, with everything that Flower leaves to the user settled.

The run gets its own SuperLink on free loopback ports and its own Flower home inside the output folder; run-time
installs, telemetry and update checks are off, so that nothing leaves the machine. ``flwr run`` exits 0 for a failed
run, so the status is read from ``flwr list`` and anything but completed raises.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from fedsec.config.toml import CONFIG
from fedsec.errors import RunError
from fedsec.run.app import app_folder
from fedsec.run.machine import Resources
from fedsec.run.processes import end, end_group, groups_below, undisturbed

LOG = "flower.log"
LOCK = ".lock"
SHORT = "/tmp" if Path("/tmp").is_dir() else None
"""Where Ray's session goes: the paths of its sockets must stay under a hundred characters."""
FLWR_WHEN_TOLD = """
import sys
from flwr.cli.app import app
sys.argv[0] = "flwr"
if sys.stdin.readline():
    app()
"""
"""The command ``flwr``, imported while the SuperLink starts, which takes both about three seconds."""
START_WAIT = 60.0
"""Seconds a SuperLink may take to answer."""
GIVEN_UP = "no error in it: Flower gives up a process that is silent for a minute, as on an overloaded machine"


def run(
    folder: Path,
    plan: Resources,
    *,
    watch: Callable[[], None] = lambda: None,
    app: Path | None = None,
    run_config: str = "",
) -> None:
    """Run to the end, calling ``watch`` twice a second. Raises RunError with the reason unless the run completed.

    ``folder``: the run folder; its log goes there, and a lock keeps a second run out of it. ``app``: folder of a Flower
    app, by default this checkout's. ``run_config``: as for ``flwr run``, by default the folder's ``config.toml``.
    """
    home = folder.parent.resolve() / ".flower" / folder.name
    home.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        stack.enter_context(_locked(folder))
        ray = stack.enter_context(TemporaryDirectory(prefix="fedsec-", dir=SHORT, ignore_cleanup_errors=True))
        env = _environment(home, Path(ray))
        wait_for_superlink = stack.enter_context(_superlink(env, home))
        output = stack.enter_context(open(folder / LOG, "ab"))
        command = [sys.executable, "-c", FLWR_WHEN_TOLD, "run", str(app or app_folder()), "local", "--stream"]
        command += ["--run-config", run_config or str(folder / CONFIG)]
        command += ["--federation-config", plan.federation_config()]
        stream = subprocess.Popen(command, env=env, stdin=subprocess.PIPE, stdout=output, stderr=subprocess.STDOUT)
        try:
            wait_for_superlink()
            assert stream.stdin is not None
            with suppress(BrokenPipeError), stream.stdin:  # where flwr has ended by itself, its status tells
                stream.stdin.write(b"go\n")
            while stream.poll() is None:
                watch()
                time.sleep(0.5)
            watch()
            _demand_completed(env, stream.returncode, folder / LOG)
        finally:
            with undisturbed():
                end(stream)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold ``folder`` for this process; the system lets go of it when the process ends, however it ends."""
    with open(folder / LOCK, "wb") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise RunError(
                f"{folder}: another run is writing to it; wait for it, or choose another run.name"
            ) from error
        yield


def _demand_completed(env: dict[str, str], code: int, log: Path) -> None:
    deadline = time.monotonic() + 30
    while (status := _status(env)).startswith(("running", "starting", "pending")) and time.monotonic() < deadline:
        time.sleep(1)
    if status != "finished:completed":
        unsaid = [GIVEN_UP] if status == "finished:failed" else []
        last = "".join(f"\n    {line}" for line in _last_errors(log) or unsaid)
        raise RunError(f"the Flower run ended as {status or 'unknown'} (flwr exit {code}); its log is {log}{last}")


def _status(env: dict[str, str]) -> str:
    """Status of the only run this SuperLink ever had."""
    command = [_tool("flwr"), "list", "local", "--format", "json"]
    listed = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    try:
        runs = json.loads(listed.stdout)["runs"]
    except (ValueError, KeyError):
        return ""
    return str(runs[0]["status"]) if runs else ""


def _last_errors(log: Path) -> list[str]:
    lines = log.read_text(errors="replace").splitlines()[-400:]
    return list(dict.fromkeys(line.strip() for line in lines if "Error" in line or "rror:" in line))[-4:]


@contextmanager
def _superlink(env: dict[str, str], home: Path) -> Iterator[Callable[[], None]]:
    """A SuperLink of our own in simulation mode, ended with us; yields what waits until it answers."""
    command = [_tool("flower-superlink"), "--insecure", "--simulation", "--isolation", "subprocess"]
    command += ["--host", "127.0.0.1", "--port", env["FLWR_LOCAL_SUPERLINK_HTTP_API_PORT"]]
    with open(home / "superlink.log", "ab") as log:
        process = subprocess.Popen(command, env=env, stdout=log, stderr=subprocess.STDOUT)
    try:
        port = int(env["FLWR_LOCAL_SUPERLINK_HTTP_API_PORT"])
        yield lambda: _wait_for_port(port, process, home / "superlink.log")
    finally:
        with undisturbed():
            groups = groups_below(process.pid)
            end(process)
            for group in groups:
                end_group(group)


def _wait_for_port(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_WAIT
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RunError(f"the SuperLink ended with exit code {process.returncode} while starting; its log is {log}")
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise RunError(f"the SuperLink did not answer on port {port} within {START_WAIT:.0f} s; its log is {log}")


def _environment(home: Path, ray: Path) -> dict[str, str]:
    """The caller's environment, with Flower and Ray kept to themselves: loopback only, own folders, no calls home."""
    quiet = {
        "FLWR_HOME": str(home),
        "FLWR_LOCAL_SUPERLINK_HTTP_API_PORT": str(_free_port()),
        "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "FLWR_TELEMETRY_ENABLED": "0",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_TMPDIR": str(ray),
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # Ray's switch for 127.0.0.1 as the node's address, on any system
        "OMP_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
    }
    return {**os.environ, **quiet}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _tool(name: str) -> str:
    """A command of the environment this process runs in."""
    beside = Path(sys.executable).parent / name
    found = str(beside) if beside.exists() else shutil.which(name)
    if not found:
        raise RunError(f"the command {name!r} is missing beside {sys.executable}: run 'make setup'")
    return found
