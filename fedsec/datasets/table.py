"""Read a CSV that a stranger wrote: columns by their usual names, paths that must stay inside the source."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath, PureWindowsPath

from fedsec.datasets.problems import BROKEN_ROW, Problem, shown
from fedsec.errors import DataError

NAMES: dict[str, tuple[str, ...]] = {
    "file": ("file", "path", "filename", "file_name", "filepath", "image_path", "image", "image_id"),
    "label": ("label", "class", "dx", "diagnosis", "target", "binary"),
    "lesion": ("lesion_id", "lesion"),
    "patient": ("patient_id", "patient"),
    "site": ("site", "dataset", "hospital", "source"),
    "split": ("split",),
    "series": ("subtype",),
}
"""What a column holds -> names it goes by, the first present one wins; capitals do not matter."""
MAX_BYTES = 64 << 20

Row = Mapping[str, str]


@dataclass(frozen=True)
class Table:
    """A CSV: header as written, and its whole rows by line number."""

    path: Path
    header: tuple[str, ...]
    rows: tuple[tuple[int, Row], ...]

    @cached_property
    def columns(self) -> dict[str, str | None]:
        """Each kind of ``NAMES`` -> the header's name for it, or None."""
        by_lower = {name.strip().lower(): name for name in reversed(self.header)}
        return {kind: next((by_lower[n] for n in names if n in by_lower), None) for kind, names in NAMES.items()}

    def column(self, kind: str) -> str | None:
        return self.columns[kind]

    def needs(self, *kinds: str) -> None:
        """Raise DataError when a column is missing, naming what it may be called."""
        missing = [f"a column {' or '.join(map(repr, NAMES[k]))}" for k in kinds if self.column(k) is None]
        if missing:
            header = shown(", ".join(self.header[:20]))
            raise DataError(
                f"{shown(self.path.name)}: missing column: the header '{header}' has not {'; and '.join(missing)}. "
                "Remedy: rename or add the column"
            )

    def get(self, row: Row, kind: str) -> str:
        """The row's value of ``kind``, stripped; '' when there is no such column."""
        name = self.column(kind)
        return row[name].strip() if name else ""

    def group(self, row: Row) -> str:
        """The patient where given, else the lesion, else ''.

        Patient numbers restart for each subtype in Kermany's radiographs (person262_bacteria is not person262_virus),
        so a ``subtype`` column is part of the name.
        """
        for kind in ("patient", "lesion"):
            if value := self.get(row, kind):
                return " ".join(filter(None, (kind, value, self.get(row, "series"))))
        return ""


def read(path: Path, found: list[Problem]) -> Table:
    """Rows of a UTF-8 CSV with a header; ragged rows go to ``found``. Raises DataError when it is no such file."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise DataError(f"{shown(path.name)}: larger than {MAX_BYTES >> 20} MiB. Remedy: split the table")
        with path.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.reader(stream, strict=True)
            header = tuple(next(reader, ()))
            lines = [(reader.line_num, cells) for cells in reader if cells]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{shown(path.name)}: not a readable UTF-8 CSV ({error}). Remedy: export it again") from error
    if not lines or len(set(header)) < len(header):
        raise DataError(f"{shown(path.name)}: needs a header of distinct names and one row a file. Remedy: add them")
    found += [Problem(BROKEN_ROW, f"{path.name} line {n}") for n, cells in lines if len(cells) != len(header)]
    rows = tuple((n, dict(zip(header, cells, strict=True))) for n, cells in lines if len(cells) == len(header))
    return Table(path, header, rows)


def is_labelled(path: Path) -> bool:
    """Whether a CSV's header has a file and a label column."""
    with path.open(newline="", encoding="utf-8-sig", errors="replace") as stream:
        header = tuple(stream.readline(1 << 16).strip().replace('"', "").split(","))
    table = Table(path, header, ())
    return table.column("file") is not None and table.column("label") is not None


def inside(value: str) -> str | None:
    """``value`` as a clean relative path with '/', or None when it is absolute, climbs out or can be no path."""
    text = value.replace("\\", "/")
    path = PurePosixPath(text)
    if len(text) > 1024 or any(len(part.encode()) > 255 for part in path.parts):
        return None
    if path.is_absolute() or PureWindowsPath(value).drive or ".." in path.parts or not path.parts or "\0" in text:
        return None
    return path.as_posix()
