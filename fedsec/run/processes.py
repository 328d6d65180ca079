"""Ending what a run has started."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def undisturbed() -> Iterator[None]:
    """An interrupt meanwhile is heard at the end: what we started must not outlive us."""
    if threading.current_thread() is not threading.main_thread():  # which alone hears signals
        yield
        return
    heard: list[int] = []
    before = {which: signal.getsignal(which) for which in (signal.SIGINT, signal.SIGTERM)}
    ours = {which: handler for which, handler in before.items() if handler not in (signal.SIG_IGN, None)}
    for which in ours:
        signal.signal(which, lambda number, frame: heard.append(number))
    try:
        yield
    finally:
        for which, handler in ours.items():
            signal.signal(which, handler)
        if heard:
            signal.raise_signal(heard[0])


def end(process: subprocess.Popen[bytes]) -> None:
    """End a process we started, politely first."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(timeout=15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def alive() -> Iterator[tuple[int, int, int]]:
    """(pid, parent, process group) of what runs on this machine, read from /proc; nothing where there is none."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent, group = stat.read_text().rpartition(")")[2].split()[:3]  # what follows the name
        except (FileNotFoundError, ProcessLookupError):  # ended meanwhile
            continue
        if state not in "ZX":  # ended, and only its exit status is left
            yield int(stat.parent.name), int(parent), int(group)


def groups_below(parent: int) -> list[int]:
    """Process groups led by a child of ``parent``: the SuperExec leads one, with the simulation and Ray in it."""
    return [group for pid, above, group in alive() if above == parent and group == pid]


def end_group(group: int) -> None:
    """End what is left of a process group: an interrupted simulation and its Ray do not end by themselves."""
    for how, patience in ((signal.SIGTERM, 15), (signal.SIGKILL, 5)):
        if not lives(group):
            return
        with suppress(ProcessLookupError):  # ended since the look
            os.killpg(group, how)
        deadline = time.monotonic() + patience
        while lives(group) and time.monotonic() < deadline:
            time.sleep(0.2)


def lives(group: int) -> bool:
    return any(found == group for _, _, found in alive())
