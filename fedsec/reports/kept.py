"""Finished cells as small files of their own, one JSON object a line: what can be committed and merged.

A cell file holds the cell's events as the run log does, without its pictures, numbers to six digits. A matrix of many
cells grows over several machines and sittings by copying such files.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from fedsec.errors import RunError
from fedsec.reports import runlog
from fedsec.reports.record import Cell, CellKey, Event, advance
from fedsec.reports.results import write_whole

DIGITS = 6


def place(folder: Path, cell: CellKey) -> Path:
    return folder / f"{cell[0]}-{cell[1]}.jsonl"


def keep(run: Path, folder: Path, cell: CellKey) -> None:
    """Write one finished cell of the log in ``run`` to its file in ``folder``, whole or not at all."""
    events = [event for event in runlog.events_of(run, cell) if event["event"] != "samples"]
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(place(folder, cell), "".join(json.dumps(_kept(runlog.encoded(e))) + "\n" for e in events))


def holds(folder: Path, cell: CellKey, digest: str) -> bool:
    """Whether the cell's file is there and its last event is the end of a cell of that digest."""
    path = place(folder, cell)
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    return bool(lines) and f'"digest": "{digest}"' in lines[-1]


def rules(folder: Path, cells: Iterable[CellKey]) -> dict[CellKey, str]:
    """The detection rule that each cell with a file was made by. Raises RunError for one that cannot be read."""
    paths = {cell: place(folder, cell) for cell in cells}
    read = {cell: _cell(_events(path), path).get(cell) for cell, path in paths.items() if path.is_file()}
    return {cell: found.rule for cell, found in read.items() if found is not None}


def recall(run: Path, folder: Path, wanted: dict[CellKey, str]) -> list[CellKey]:
    """Append to the log in ``run`` the cells of ``wanted`` (cell -> digest) that it lacks and a file holds.

    A file of another digest was made with other settings and is left alone. Raises RunError for one that cannot be
    read.
    """
    done, found = runlog.finished_cells(run), []
    for cell, digest in wanted.items():
        path = place(folder, cell)
        if done.get(cell) == digest or not path.is_file():
            continue
        events = _events(path)
        kept = _cell(events, path).get(cell)
        if kept is not None and kept.finished and kept.digest == digest:
            runlog.RunLog(run).append(events)
            found.append(cell)
    return found


def _events(path: Path) -> list[Event]:
    try:
        return [runlog.decoded(json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]
    except (ValueError, UnicodeDecodeError) as error:
        raise RunError(f"{path}: not a cell's events ({error}); restore or remove the file") from error


def _cell(events: list[Event], path: Path) -> dict[CellKey, Cell]:
    cells: dict[CellKey, Cell] = {}
    try:
        for event in events:
            advance(cells, event)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise RunError(f"{path}: breaks the event schema ({error!r}); restore or remove the file") from error
    return cells


def _kept(event: Event) -> Event:
    """What was spent stays to the digit."""
    short: Event = _short(event)
    return short | {key: event[key] for key in ("spends", "earlier") if key in event}


def _short(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}")
    if isinstance(value, dict):
        return {key: _short(item) for key, item in value.items()}
    return [_short(item) for item in value] if isinstance(value, list) else value
