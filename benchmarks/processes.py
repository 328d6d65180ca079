"""A process and all it started, read from /proc: who is there, and how much memory they take together. Linux only."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path

PROC = Path("/proc")


@dataclass(frozen=True)
class Process:
    """One process; ``started`` (clock ticks since boot) tells it from a later one with the same number."""

    pid: int
    parent: int
    started: int

    @property
    def alive(self) -> bool:
        """Still there, and not merely waiting for its parent to read its exit status."""
        found = _stat(self.pid)
        return found is not None and found[0] == self and found[1] != "Z"


def descendants(root: int) -> list[Process]:
    """``root`` and every process below it, as they are now."""
    everyone = [found[0] for path in PROC.iterdir() if path.name.isdigit() and (found := _stat(int(path.name)))]
    known = {root}
    size = 0
    while size < len(known):
        size = len(known)
        known |= {process.pid for process in everyone if process.parent in known}
    return [process for process in everyone if process.pid in known]


def memory(processes: list[Process]) -> int:
    """Bytes of the processes together: the sum of their PSS, where a page shared by k of them counts 1/k in each."""
    return sum(_pss(process.pid) for process in processes)


@dataclass
class Family:
    """Everything that was ever seen below ``root``, and the most memory it took at one look."""

    root: int
    seen: set[Process] = field(default_factory=set)
    peak: int = 0

    def look(self, *, weigh: bool = False) -> None:
        now = descendants(self.root)
        self.seen |= set(now)
        if weigh:
            self.peak = max(self.peak, memory(now))

    def await_end(self, patience: float) -> None:
        """Wait until all members are gone, at most ``patience`` seconds."""
        deadline = time.monotonic() + patience
        while self.left and time.monotonic() < deadline:
            time.sleep(0.1)

    @property
    def left(self) -> list[Process]:
        """Members that are still alive."""
        return [process for process in self.seen if process.alive]


def _stat(pid: int) -> tuple[Process, str] | None:
    """The process and its state letter; None when it is gone."""
    try:
        text = (PROC / str(pid) / "stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    words = text.rpartition(")")[2].split()  # after the name, which may hold anything
    return Process(pid, int(words[1]), int(words[19])), words[0]


def _pss(pid: int) -> int:
    try:
        lines = (PROC / str(pid) / "smaps_rollup").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError, PermissionError):  # gone, or a moment from it
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:")), 0)
