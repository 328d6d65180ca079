"""The cells of a run log that is still written to."""

from __future__ import annotations

from pathlib import Path

from fedsec.log.record import Cell, CellKey, advance
from fedsec.log.runlog import CELL_EVENTS, EVENTS, decoded_line


class Tail:
    """The cells of a log that is still written to: each look reads only what came since the last one."""

    def __init__(self, folder: Path) -> None:
        self.path, self.offset, self.cells = Path(folder) / EVENTS, 0, dict[CellKey, Cell]()

    def grown(self) -> bool:
        """Read what was appended. False: nothing new."""
        if not self.path.is_file() or self.path.stat().st_size <= self.offset:
            return False
        with self.path.open("rb") as log:
            log.seek(self.offset)
            text = log.read()
        whole = text.rfind(b"\n") + 1
        self.offset += whole
        for line in text[:whole].split(b"\n"):
            event = decoded_line(line) if line else None
            if event is not None and event.get("event") in CELL_EVENTS:
                advance(self.cells, event)
        return whole > 0
