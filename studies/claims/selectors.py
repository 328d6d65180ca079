"""How a claim reads its numbers from kept files: by keys, by equal fields of a line, by a table's row and column.

A ``read`` of docs/claims.toml:

- ``file``: a path from the project's root; ``*`` takes several files, in order of name.
- ``at``: keys parted by ``/``; ``*`` within a key matches any, in lists every item. A list of such paths takes each.
- ``where``: fields that a line of a .jsonl, or an item of a .json that is a list, must have, keys as in ``at``;
  without it every one is taken.
- ``flagged`` and ``arm`` (a run's events.jsonl only, in place of ``at``): 1 or 0 for each reply of an ``attacker`` or
  an ``honest`` client after its own tenth, as it was flagged when the arm ran; that arm must be attacked.
- ``under``, ``row``, ``column`` (.md only): the first table after the line that holds ``under``; its numbers.
- ``by``: what is made of the numbers, one word or several: ``each``, ``mean``, ``min``, ``max``, ``sum``, ``count``,
  and ``low`` and ``high`` of the 95 % Student interval of their mean.
- ``each-file``: one of the same words that give one number, made of each file first (a file a seed).
- ``times``: a factor, 100 for per cent.
- ``of = "interval"``: these are the numbers of the claim's interval and not of its value.

Errors: ``UnreadError`` when a file, key, line, row or column is not there or holds no finite
number. Nothing is evaluated.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from fedsec.log import cells, files
from fedsec.log.record import heard_in
from fedsec.metrics.intervals import mean_interval

WARMUP = 10
"""Replies of a client before it is judged, as in ``fedsec.reports.markdown.flags``."""
STATED = re.compile(r"[+\-−]?\d[\d,]*(?:\.\d+)?")
MADE: dict[str, Callable[[Sequence[float]], float]] = {
    "mean": lambda found: sum(found) / len(found),
    "min": min,
    "max": max,
    "sum": sum,
    "count": len,
    "low": lambda found: mean_interval(found).low,
    "high": lambda found: mean_interval(found).high,
}


class UnreadError(ValueError):
    """A number that cannot be read from where the claim says it is."""


def printed(text: str) -> list[tuple[float, float]]:
    """Every number of a text with half a unit of its last digit: ``0.92`` is (0.92, 0.005), ``1,704`` (1704, 0.5)."""
    found = []
    for hit in STATED.findall(text):
        plain = hit.replace(",", "").replace("−", "-")
        digits = len(plain.partition(".")[2])
        found.append((float(plain), 0.5 * 10.0**-digits * (1 + 1e-9)))
    return found


def reached(tree: Any, keys: Sequence[str]) -> Iterator[Any]:
    """What stands at the end of the keys; a list at the end gives its items."""
    if not keys:
        yield from tree if isinstance(tree, list) else [tree]
    elif isinstance(tree, dict):
        for key in tree:
            if fnmatchcase(key, keys[0]):
                yield from reached(tree[key], keys[1:])
    elif isinstance(tree, list):
        for place, item in enumerate(tree):
            if fnmatchcase(str(place), keys[0]):
                yield from reached(item, keys[1:])


def _trees(path: Path, where: Mapping[str, Any]) -> list[Any]:
    """The lines of a .jsonl, or items of a list, whose fields are equal; any other .json whole."""
    if path.suffix == ".jsonl":
        trees = [json.loads(line) for line in _lines(path) if line.strip()]
    else:
        whole = json.loads(path.read_text(encoding="utf-8"))
        trees = whole if where and isinstance(whole, list) else [whole]
    return [tree for tree in trees if all([want] == list(reached(tree, key.split("/"))) for key, want in where.items())]


def _files(project: Path, pattern: str) -> list[Path]:
    """What ``pattern`` names, in order: files as they are, packed ones, and cells of a pack as if each had its own."""
    packed = {path.with_suffix("") for path in project.glob(pattern + files.PACKED)}
    found = {*project.glob(pattern)} | {path for path in packed if path.name != cells.PACK}
    name = Path(pattern).name
    for pack in project.glob(str(Path(pattern).with_name(cells.PACK + files.PACKED))):
        found |= {
            path
            for cell in cells.packed(pack.parent)
            if fnmatchcase((path := cells.place(pack.parent, cell)).name, name)
        }
    return sorted(found)


def _lines(path: Path) -> list[str]:
    """Of a .jsonl, as it is or packed; of one cell where its folder's cells are packed."""
    arm, _, seed = path.stem.rpartition("-")
    if files.is_there(path) or not seed.isdigit():
        return files.read_text(path).splitlines()
    return cells.lines(path.parent, (arm, int(seed))) or files.read_text(path).splitlines()


def flagged(events: Sequence[Mapping[str, Any]], arm: str, side: str) -> list[float]:
    """1 or 0 for each reply of an ``attacker`` or ``honest`` client after its own tenth: was it flagged when it came?

    ``events``: of a run, in order; who attacks stands in its ``run`` event. UnreadError: no such event, or more.
    """
    headers = [event for event in events if event.get("event") == "run"]
    if len(headers) != 1 or side not in ("attacker", "honest"):
        raise UnreadError(
            f"{len(headers)} runs in one file; flags are of an attacker or of the honest, not of '{side}'"
        )
    malicious, sent, found = headers[0]["malicious"], Counter[tuple[int, int]](), []
    for event in events:
        if event.get("event") == "round" and event["arm"] == arm:
            for client in heard_in(event):
                sent[event["seed"], client] += 1
                if sent[event["seed"], client] > WARMUP and (client in malicious) == (side == "attacker"):
                    found.append(float(client in event["flags"]))
    return found


def _cell(path: Path, read: Mapping[str, Any]) -> list[float]:
    """Every number of one cell of the first Markdown table after the line that holds ``under``."""
    _, there, rest = path.read_text(encoding="utf-8").partition(read["under"])
    rows = []
    for line in rest.splitlines():
        if line.startswith("|"):
            rows.append([cell.strip() for cell in line.strip().strip("|").split("|")])
        elif rows:
            break
    if not there or not rows or read["column"] not in rows[0]:
        raise UnreadError(f"{path.name} has no table with the column '{read['column']}' after '{read['under']}'")
    cells = [row[rows[0].index(read["column"])] for row in rows if row[0] == read["row"]]
    if len(cells) != 1:
        raise UnreadError(f"{path.name}: {len(cells)} rows are called '{read['row']}'")
    return [number for number, _ in printed(cells[0])]


def _of_file(path: Path, read: Mapping[str, Any]) -> list[float]:
    if path.suffix == ".md":
        return _cell(path, read)
    trees = _trees(path, read.get("where", {}))
    if "flagged" in read:
        return flagged(trees, read["arm"], read["flagged"])
    paths = [read["at"]] if isinstance(read["at"], str) else read["at"]
    found = [value for tree in trees for at in paths for value in reached(tree, at.split("/"))]
    wrong = [value for value in found if isinstance(value, bool) or not isinstance(value, int | float)]
    if not found or wrong or not all(math.isfinite(value) for value in found):
        raise UnreadError(f"{path.name} gives no numbers at {read['at']}" + (f", but {wrong[0]!r}" if wrong else ""))
    return [float(value) for value in found]


def numbers(read: Mapping[str, Any], project: Path) -> list[float]:
    """The numbers that one ``read`` gives, in the order of its ``by``."""
    paths = _files(project, read["file"])
    if not paths:
        raise UnreadError(f"there is no file {read['file']}")
    groups = [_of_file(path, read) for path in paths]
    if "each-file" in read:
        groups = [[MADE[read["each-file"]](group)] for group in groups]
    pooled = [value for group in groups for value in group]
    if not pooled:
        raise UnreadError(f"{read['file']} gives no numbers")
    words = [read.get("by", "each")] if isinstance(read.get("by", "each"), str) else read["by"]
    made = [value for word in words for value in (pooled if word == "each" else [float(MADE[word](pooled))])]
    return [value * read.get("times", 1) for value in made]
