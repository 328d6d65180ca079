"""Finished cells as small files of their own, one JSON object a line: what can be committed and merged.

A cell file holds the cell's events as the run log does, without its pictures, numbers to six digits. A matrix of many
cells grows over several machines and sittings by copying such files. Those of a folder can be packed into one (PACK);
a file of a cell's own goes before what is packed.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any

from fedsec.errors import RunError
from fedsec.log import files, runlog
from fedsec.log.files import write_whole
from fedsec.log.record import Cell, CellKey, Event, advance

DIGITS = 6
PACK = "cells.jsonl"
"""All cells of a folder, one after another; kept as ``cells.jsonl.xz``."""


def place(folder: Path, cell: CellKey) -> Path:
    return folder / f"{cell[0]}-{cell[1]}.jsonl"


def keep(run: Path, folder: Path, cell: CellKey) -> None:
    """Write one finished cell of the log in ``run`` to its file in ``folder``, whole or not at all."""
    events = [event for event in runlog.events_of(run, cell) if event["event"] != "samples"]
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(place(folder, cell), "".join(json.dumps(_kept(runlog.encoded(e))) + "\n" for e in events))


def lines(folder: Path, cell: CellKey) -> list[str]:
    """The cell's events as text, of its own file or of the folder's pack; none where there is neither."""
    path = place(folder, cell)
    return path.read_text(encoding="utf-8").splitlines() if path.is_file() else packed(folder).get(cell, [])


def packed(folder: Path) -> dict[CellKey, list[str]]:
    """The cells of the folder's pack and their events as text; empty without a pack. Raises RunError for one that
    cannot be read."""
    pack = files.packed(folder / PACK)
    return _unpacked(pack, pack.stat().st_mtime_ns) if pack.is_file() else {}


def pack(folder: Path) -> list[CellKey]:
    """Put the folder's cell files, and what is packed already, into its pack; whose they are, in order."""
    own = {path: path.read_text(encoding="utf-8").splitlines() for path in sorted(folder.glob("*.jsonl"))}
    found = dict(packed(folder))
    found |= {_key(text[0]): text for text in own.values()}
    text = "".join(line + "\n" for _, cell in sorted(found.items()) for line in cell)
    files.write_packed(folder / PACK, text.encode("utf-8"))
    _unpacked.cache_clear()
    for path in own:
        path.unlink()
    return sorted(found)


@lru_cache(maxsize=4)
def _unpacked(pack: Path, changed: int) -> dict[CellKey, list[str]]:
    try:
        found: dict[CellKey, list[str]] = {}
        for line in files.read_text(pack.with_suffix("")).splitlines():
            found.setdefault(_key(line), []).append(line)
    except (OSError, RunError, ValueError, KeyError) as error:
        raise RunError(f"{pack}: not a pack of cells ({error}); restore or remove the file") from error
    return found


def _key(line: str) -> CellKey:
    event = json.loads(line)
    return str(event["arm"]), int(event["seed"])


def holds(folder: Path, cell: CellKey, digest: str) -> bool:
    """Whether the cell is there and its last event is the end of a cell of that digest."""
    found = lines(folder, cell)
    return bool(found) and f'"digest": "{digest}"' in found[-1]


def rules(folder: Path, cells: Iterable[CellKey]) -> dict[CellKey, str]:
    """The detection rule that each cell that is there was made by. Raises RunError for one that cannot be read."""
    found = {cell: _cell(folder, cell) for cell in cells if lines(folder, cell)}
    return {cell: kept.rule for cell, kept in found.items() if kept is not None}


def recall(run: Path, folder: Path, wanted: dict[CellKey, str]) -> list[CellKey]:
    """Append to the log in ``run`` the cells of ``wanted`` (cell -> digest) that it lacks and the folder holds.

    One of another digest was made with other settings and is left alone. Raises RunError for one that cannot be read.
    """
    done, found = runlog.finished_cells(run), []
    for cell, digest in wanted.items():
        if done.get(cell) == digest or not lines(folder, cell):
            continue
        kept = _cell(folder, cell)
        if kept is not None and kept.finished and kept.digest == digest:
            runlog.RunLog(run).append(_events(folder, cell))
            found.append(cell)
    return found


def _events(folder: Path, cell: CellKey) -> list[Event]:
    try:
        return [runlog.decoded(json.loads(line)) for line in lines(folder, cell)]
    except (ValueError, UnicodeDecodeError) as error:
        raise RunError(f"{place(folder, cell)}: not a cell's events ({error}); restore or remove the file") from error


def _cell(folder: Path, cell: CellKey) -> Cell | None:
    cells: dict[CellKey, Cell] = {}
    try:
        for event in _events(folder, cell):
            advance(cells, event)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        path = place(folder, cell)
        raise RunError(f"{path}: breaks the event schema ({error!r}); restore or remove the file") from error
    return cells.get(cell)


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
