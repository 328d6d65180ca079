"""The run log ``events.jsonl``: what every stop of a run appends to, and the one file the report is drawn from.

One JSON object a line, each written by a single ``os.write`` on a file opened with O_APPEND, so threads and processes
may share one log. A number that is not finite is stored as ``{"value": null, "reason": "nan" | "inf" | "-inf"}`` (a
score: ``"value": null`` beside its own reason), so that the file is strict JSON. A run that was resumed has several
``run`` events: the last one counts. A line that a crash cut short is kept, marked by the next writer with a ``torn``
event, and reported by the reader; any other line that cannot be read is an error.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path, PurePath
from typing import Any

from fedsec.errors import RunError
from fedsec.log.files import is_there, read_bytes, unpack
from fedsec.log.record import Cell, CellKey, Dropped, Event, Header, LeakRow, RunEnd, RunRecord, advance, header_of
from fedsec.privacy.ledger import Try
from fedsec.types import Flat, Score

EVENTS = "events.jsonl"
_TORN = b'\n{"event": "torn"}\n'
CELL_EVENTS = ("cell-start", "round", "samples", "leak", "score", "cell-end")


class RunLog:
    """Appends the events of one run folder. Safe to share between threads, and to open in several processes."""

    def __init__(self, folder: Path) -> None:
        self.path = Path(folder) / EVENTS
        self.path.parent.mkdir(parents=True, exist_ok=True)
        unpack(self.path)
        self._torn = _ends_torn(self.path)

    def run(
        self,
        *,
        config: Flat,
        versions: Mapping[str, str],
        data: Mapping[str, Any],
        labels: Sequence[Sequence[int]],
        sites: Sequence[Sequence[int]],
        malicious: Sequence[int],
        arms: Sequence[str],
        seeds: Sequence[int],
        measured_by: str,
        notes: Sequence[str] = (),
        digests: Mapping[CellKey, str] | None = None,
    ) -> None:
        """What is run. ``labels[client][class]`` and ``sites[client][site]`` count training images.

        ``data`` holds source, train, test, classes, sites, quarantined, digest; of a source path only the base name
        is kept. ``digests``, when given, is the digest each cell of this run must have: a finished cell of another
        digest (settings changed since) is then left out of results and report.
        """
        named = {**data, "source": PurePath(str(data["source"])).name}
        expected: dict[str, dict[int, str]] = {}
        for (arm, seed), digest in (digests or {}).items():
            expected.setdefault(arm, {})[seed] = digest
        self._append(
            {"event": "run", "time": _now(), "config": dict(config), "versions": dict(versions), "data": named}
            | {"split": {"labels": labels, "sites": sites}, "malicious": malicious, "arms": arms, "seeds": seeds}
            | {"measured_by": measured_by, "notes": notes, "digests": expected}
        )

    def measured_anew(self, record: RunRecord, by: str) -> None:
        """The run's header again, with what its fidelity is now measured by, and its end."""
        header, end = record.header, record.end
        self.run(
            config=header.config,
            versions=header.versions,
            data=asdict(header.data),
            labels=header.label_counts,
            sites=header.site_counts,
            malicious=header.malicious,
            arms=header.arms,
            seeds=header.seeds,
            measured_by=by,
            notes=header.notes,
            digests=header.digests,
        )
        if end is not None:
            self.run_end(end.status, end.reason, wall_seconds=end.wall_seconds)

    def cell_start(
        self,
        arm: str,
        seed: int,
        digest: str,
        *,
        spends: Try | None = None,
        earlier: Sequence[Try] = (),
        rule: str = "",
    ) -> None:
        """Supersedes what was before it, but not what left: ``earlier``; ``spends``: a round's; ``rule``: a digest."""
        told: dict[str, Any] = {"event": "cell-start", "arm": arm, "seed": seed, "digest": digest, "time": _now()}
        told |= {"spends": spends.to_event(), "earlier": [one.to_event() for one in earlier]} if spends else {}
        self._append(told | ({"rule": rule} if rule else {}))

    def round(
        self,
        arm: str,
        seed: int,
        round: int,
        *,
        heard: Sequence[int],
        metrics: Mapping[str, Mapping[int, float]],
        weights: Mapping[int, float],
        flags: Sequence[int] = (),
        suspicion: Mapping[int, float] | None = None,
        evidence: Mapping[int, float] | None = None,
        undone: Mapping[int, int] | None = None,
        dropped: Sequence[Dropped] = (),
        seconds: float,
    ) -> None:
        """One aggregated round: whose replies were used, and by partition what they reported (``metrics``: name ->
        partition -> value); what the defence read (``evidence``), made of it (``suspicion``) and did (flags, weights,
        and how many earlier updates of a client it took out again: ``undone``)."""
        gone = [{"partition": d.partition, "site": d.site, "reason": d.reason} for d in dropped]
        self._append(
            {"event": "round", "arm": arm, "seed": seed, "round": round, "heard": list(heard), "metrics": metrics}
            | {"weights": weights, "flags": flags}
            | {"suspicion": suspicion or {}, "evidence": evidence or {}, "undone": undone or {}}
            | {"dropped": gone, "seconds": seconds}
        )

    def samples(self, arm: str, seed: int, round: int, file: str) -> None:
        """``file`` is relative to the run folder."""
        self._append({"event": "samples", "arm": arm, "seed": seed, "round": round, "file": file})

    def leak(self, arm: str, seed: int, leak: LeakRow) -> None:
        """What one attack drew out of one client's update."""
        self._append({"event": "leak", "arm": arm, "seed": seed} | asdict(leak))

    def score(self, arm: str, seed: int, round: int, score: Score, *, final: bool) -> None:
        """``final`` scores make the table and ``results.json``; the others are curves over rounds."""
        value = score.value if math.isfinite(score.value) else None
        self._append(
            {"event": "score", "arm": arm, "seed": seed, "round": round, "name": score.name, "value": value}
            | {"n": score.n, "better": score.better, "reason": score.reason, "final": final}
        )

    def cell_end(self, arm: str, seed: int, digest: str, seconds: float) -> None:
        self._append({"event": "cell-end", "arm": arm, "seed": seed, "digest": digest, "seconds": seconds})

    def run_end(self, status: str, reason: str = "", *, wall_seconds: float) -> None:
        """``status`` is ``finished`` or ``failed``; a failure says why."""
        assert status in ("finished", "failed"), status
        self._append({"event": "run-end", "status": status, "reason": reason, "wall_seconds": wall_seconds})

    def append(self, events: Sequence[Event]) -> None:
        """Events of another log of the same run, as ``events_of`` gives them."""
        for event in events:
            self._append(event)

    def _append(self, event: Event) -> None:
        line = json.dumps(encoded(event), allow_nan=False).encode() + b"\n"
        if self._torn:
            line = _TORN + line
        try:
            target = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
            try:
                written = os.write(target, line)
            finally:
                os.close(target)
        except OSError as error:
            raise RunError(
                f"{self.path}: cannot append ({error.strerror}); free space or choose another run.out"
            ) from error
        self._torn = written < len(line)
        if self._torn:
            raise RunError(f"{self.path}: only {written} of {len(line)} bytes were written; free space on that disk")


def read(folder: Path) -> RunRecord:
    """The folder's record. Raises RunError when there is no run event, or naming the line that cannot be read."""
    path = Path(folder) / EVENTS
    if not is_there(path):
        raise RunError(f"{path}: no such file; a run folder holds one once its run has started")
    headers, cells, end, torn = _replay(path)
    if not headers:
        raise RunError(f"{path}: holds no 'run' event; the run ended before it started, run it again")
    return RunRecord(headers[-1], cells, end, torn, len(headers))


def finished_cells(folder: Path) -> dict[CellKey, str]:
    """(arm, seed) -> digest of every cell that need not be run again; empty when there is no log yet."""
    path = Path(folder) / EVENTS
    cells = _replay(path)[1] if is_there(path) else {}
    return {key: cell.digest for key, cell in cells.items() if cell.finished}


def events_of(folder: Path, cell: CellKey) -> list[Event]:
    """The events of one cell since its last start, in order, as they were written."""
    events = [event for _, event in _events(Path(folder) / EVENTS)[0] if event["event"] in CELL_EVENTS]
    mine = [event for event in events if (event["arm"], event["seed"]) == cell]
    starts = [at for at, event in enumerate(mine) if event["event"] == "cell-start"]
    return mine[starts[-1] :] if starts else []


def _replay(path: Path) -> tuple[list[Header], dict[CellKey, Cell], RunEnd | None, tuple[int, ...]]:
    headers: list[Header] = []
    cells: dict[CellKey, Cell] = {}
    end: RunEnd | None = None
    events, torn = _events(path)
    for number, event in events:
        try:
            kind = event["event"]
            if kind == "run":
                headers.append(header_of(event))
                end = None
            elif kind == "run-end":
                end = RunEnd(str(event["status"]), str(event["reason"]), float(event["wall_seconds"]))
            elif kind in CELL_EVENTS:
                advance(cells, event)
            else:
                raise ValueError(f"unknown event {kind!r}")
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise RunError(
                f"{path}: line {number} breaks the event schema ({error!r}); restore or remove it"
            ) from error
    return headers, cells, end, torn


def _events(path: Path) -> tuple[list[tuple[int, Event]], tuple[int, ...]]:
    """(line number, event) of every whole line, and the numbers of the torn ones."""
    lines = read_bytes(path).split(b"\n")
    events: list[tuple[int, Event]] = []
    torn: list[int] = []
    broken: int | None = None
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        event = decoded_line(line)
        if event is not None and event.get("event") == "torn":
            torn += [broken] if broken is not None else []
            broken = None
            continue
        if broken is not None:
            raise RunError(f"{path}: line {broken} is not a JSON object; restore the file or remove that line")
        if event is None:
            broken = number
        else:
            events.append((number, event))
    if broken is not None and lines[-1] == b"":
        raise RunError(f"{path}: line {broken} is not a JSON object; restore the file or remove that line")
    return events, (*torn, *([broken] if broken is not None else []))


def decoded_line(line: bytes) -> Event | None:
    try:
        event = json.loads(line)
    except ValueError:  # also bytes that are not UTF-8
        return None
    return decoded(event) if isinstance(event, dict) else None


def encoded(value: Any) -> Any:
    """Plain JSON values; a number that is not finite becomes {"value": null, "reason": its text}."""
    if isinstance(value, Mapping):
        return {str(key): encoded(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [encoded(item) for item in value]
    if hasattr(value, "item"):  # a numpy scalar
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return {"value": None, "reason": str(value)}
    return value


def decoded(value: Any) -> Any:
    if isinstance(value, list):
        return [decoded(item) for item in value]
    if not isinstance(value, dict):
        return value
    if value.keys() == {"value", "reason"} and value["reason"] in ("nan", "inf", "-inf"):
        return float(value["reason"])
    return {key: decoded(item) for key, item in value.items()}


def _ends_torn(path: Path) -> bool:
    if not path.is_file() or path.stat().st_size == 0:
        return False
    with path.open("rb") as log:
        log.seek(-1, os.SEEK_END)
        return log.read(1) != b"\n"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
