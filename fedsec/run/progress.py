"""What a person sees while a run goes on: one bar per cell with its round, and the time left; plain lines in a log."""

from __future__ import annotations

import time
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from fedsec.log.record import Cell
from fedsec.log.tail import Tail


class RunProgress:
    """Reads the run's events twice a second and draws them. On a terminal: bars; otherwise a line per tenth."""

    def __init__(self, folder: Path, console: Console, *, cells: list[tuple[str, int]], rounds: int) -> None:
        self.console, self.cells, self.rounds = console, cells, rounds
        self.bars = Progress(
            TextColumn("{task.description:<32}"),
            BarColumn(bar_width=28),
            TextColumn("{task.completed:>4.0f}/{task.total:.0f} rounds"),
            TextColumn("{task.fields[note]:<34}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self.total = self.bars.add_task("all cells", total=len(cells) * rounds, note="starting")
        self.tasks: dict[tuple[str, int], TaskID] = {}
        self.told: dict[tuple[str, int], int] = {}
        self.tail = Tail(folder)
        self.tail.grown()
        self.before = dict(self.tail.cells)
        self.started = time.monotonic()

    def __enter__(self) -> RunProgress:
        self.bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bars.stop()

    def refresh(self) -> None:
        """Read what was appended since the last look; nothing to do while the log has not grown.

        What an earlier run left of a cell that is to be done again, other settings or half of it, is not shown.
        """
        if not self.tail.grown():
            return
        begun = {key: cell for key, cell in self.tail.cells.items() if cell is not self.before.get(key)}
        shown = {key: cell for key, cell in begun.items() if key in self.cells}
        for key, cell in shown.items():
            self._show(key, cell)
        done = sum(self.rounds if cell.finished else len(cell.rounds) for cell in shown.values())
        self.bars.update(self.total, completed=done, note=f"{sum(c.finished for c in shown.values())} cells finished")

    def _show(self, key: tuple[str, int], cell: Cell) -> None:
        arm, seed = key
        if key not in self.tasks:
            self.tasks[key] = self.bars.add_task(f"{arm}  seed {seed}", total=self.rounds, note="")
        latest = cell.rounds[-1] if cell.rounds else None
        flagged = f"flagged: {', '.join(map(str, latest.flags))}" if latest and latest.flags else ""
        note = "finished" if cell.finished else "scoring" if latest and latest.round == self.rounds else flagged
        self.bars.update(self.tasks[key], completed=latest.round if latest else 0, note=note)
        self._tell(key, latest.round if latest else 0, note)
        if cell.finished:
            self.bars.update(self.tasks[key], visible=False)

    def _tell(self, key: tuple[str, int], number: int, note: str) -> None:
        """Plain lines where there is no terminal: at every tenth of the rounds."""
        tenth = number * 10 // self.rounds + (note == "finished")
        if not self.console.is_terminal and tenth > self.told.get(key, 0):
            self.told[key] = tenth
            seconds = time.monotonic() - self.started
            self.console.print(f"[{seconds:6.0f} s] {key[0]} seed {key[1]}: round {number}/{self.rounds} {note}")
