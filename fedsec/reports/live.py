"""The report of a run that goes on: drawn anew while it does, and opened anew by the reader's browser."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from fedsec.log.record import CellKey
from fedsec.log.tail import Tail
from fedsec.reports.page import write_report

LEAST = 20.0
"""Seconds between two drawings."""
AGAIN = 20
"""Seconds after which a browser opens the page anew."""
SHARE = 0.05
"""Of one core's time that drawing may take: it is the clients' time too."""
TOLD = 20
"""The time left is told from a round in so many on: before, it is the start that was timed."""


class LiveReport:
    """``look`` draws ``report.html`` where the log has grown and the last drawing is long enough ago.

    What it draws is what ``write_report`` draws of an unfinished run; the run's end draws the last one. ``cells``:
    those that are run, of ``rounds`` each."""

    def __init__(self, folder: Path, *, cells: Sequence[CellKey], rounds: int) -> None:
        self.folder, self.cells, self.rounds = folder, cells, rounds
        self.tail = Tail(folder)
        self.tail.grown()
        self.before = dict(self.tail.cells)
        self.grown, self.next, self.began = False, 0.0, time.monotonic()

    def look(self) -> bool:
        """Whether it drew."""
        self.grown |= self.tail.grown()
        done = self._done()
        if not (self.grown and done) or time.monotonic() < self.next:
            return False
        began = time.monotonic()
        write_report(self.folder, goes_on=self._words(done), again=AGAIN)
        self.grown, self.next = False, time.monotonic() + max(LEAST, (time.monotonic() - began) / SHARE)
        return True

    def _done(self) -> int:
        """Rounds of this run, not of one before it."""
        begun = (self.tail.cells[key] for key in self.cells if key in self.tail.cells)
        return sum(len(cell.rounds) for cell in begun if cell is not self.before.get((cell.arm, cell.seed)))

    def _words(self, done: int) -> str:
        every = len(self.cells) * self.rounds
        if done < every / TOLD:
            return f"This run goes on: {done} of {every} rounds."
        left = (time.monotonic() - self.began) / 60 * (every - done) / done
        return f"This run goes on: {done} of {every} rounds, about {max(1, round(left))} minutes left."
