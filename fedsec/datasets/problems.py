"""Everything that can be wrong with a source: the laws, and one error that lists every breach with its remedy."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fedsec.errors import DataError, all_at_once

SHOWN = 20
"""Files named in a message for each law; the full list is in the quarantine file."""


@dataclass(frozen=True)
class Law:
    """A rule that files or rows keep, and what to do where one does not.

    ``fatal``: going on without the file would change what the set means, so ``data.quarantine`` does not help.
    """

    text: str
    remedy: str
    fatal: bool = False


UNREADABLE = Law("unreadable or truncated image", "copy the file again from its source, or remove it")
NOT_AN_IMAGE = Law("not a JPEG, PNG, BMP or TIFF image", "move the file out of the set")
BOMB = Law("image above the size limit (a possible decompression bomb)", "scale the image down if it is genuine")
MODE = Law("pixels that cannot become 8-bit gray or RGB safely", "convert the file to 8-bit gray or RGB")
CHANNELS = Law("wrong channel count: a set is all gray or all RGB", "convert these files or keep them in their own set")
LINK_OUT = Law("link that leaves the source folder", "replace the link by the file itself")
LINKED_FOLDER = Law("linked folder (never followed)", "replace the link by the folder itself")
NOT_REGULAR = Law("neither a file nor a folder", "remove it")
NO_ACCESS = Law("folder that cannot be read", "give read permission")
LOOSE = Law("image outside the class folders, so without a label", "move it into the folder of its class")
EMPTY_CLASS = Law("empty class folder", "add its images or remove the folder")
OUTSIDE = Law(
    "CSV path that is absolute, climbs out of the source or is no path", "write paths relative to the CSV, without '..'"
)
ROW_WITHOUT_FILE = Law("CSV row without its file", "add the file or remove the row")
FILE_WITHOUT_ROW = Law("image file without its CSV row", "add the row or remove the file")
DUPLICATE_ROW = Law("file named by more than one CSV row", "keep one row for each file", fatal=True)
BROKEN_ROW = Law("CSV row with more or fewer cells than the header", "repair the row")
NO_LABEL = Law("row without a label", "give the row one class, or remove it")
TWO_LABELS = Law("row with more than one class of the one-hot columns", "leave one 1.0 in the row")
BAD_LABEL = Law("one-hot cell that is neither 0 nor 1", "write 0.0 or 1.0")
BAD_SPLIT = Law("split that is not 'train', 'val' or 'test'", "fill the split column or remove it", fatal=True)
STRADDLES = Law(
    "lesion or patient in both train and test",
    "repair the split, or merge train/ and test/ so that a split is drawn",
    fatal=True,
)
UNKNOWN_CLASS = Law(
    "class that is no known skin diagnosis in a set of skin classes",
    "rename it, or set data.grouping = 'classes' to keep the classes as they are",
    fatal=True,
)


@dataclass(frozen=True)
class Problem:
    """One breach: the file or row, and the value that breaks the law."""

    law: Law
    file: str
    detail: str = ""

    def __str__(self) -> str:
        name = shown(self.file)
        return f"{name} ({shown(self.detail)})" if self.detail else name


def shown(text: str) -> str:
    """``text`` without control characters or undecodable bytes: file names are foreign input."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def as_lines(problems: Sequence[Problem]) -> bytes:
    """The full list as a file holds it: one JSON object a line with file, law, detail, remedy."""
    rows = ({"file": p.file, "law": p.law.text, "detail": p.detail, "remedy": p.law.remedy} for p in problems)
    return "".join(json.dumps(row) + "\n" for row in rows).encode("ascii")


def settle(problems: Sequence[Problem], source: str, *, go_on: bool, full_list: Path) -> None:
    """Raise one DataError that lists every problem, unless ``go_on`` and none is fatal.

    ``full_list``: the file that already holds them all. One line a law: how many, the first ``SHOWN``, the remedy.
    """
    if not problems or (go_on and not any(p.law.fatal for p in problems)):
        return
    lines = []
    for law in dict.fromkeys(p.law for p in problems):
        broken = [str(p) for p in problems if p.law == law]
        more = f" and {len(broken) - SHOWN} more" if len(broken) > SHOWN else ""
        lines.append(f"{law.text}: {len(broken)}: {', '.join(broken[:SHOWN])}{more}. Remedy: {law.remedy}")
    if not go_on and not any(p.law.fatal for p in problems):
        lines.append("or set data.quarantine = true to go on without these files, counted and listed")
    all_at_once(DataError, f"{shown(source)} cannot be used; full list in {full_list}", lines)
