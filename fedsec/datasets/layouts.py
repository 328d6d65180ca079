"""Which layout a source has, recognised or named by ``data.format``, and its survey as a Source of images."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from functools import cache
from pathlib import Path

from fedsec.config import Data
from fedsec.config.added import Table
from fedsec.datasets import folders, table, tabled
from fedsec.datasets.listing import contents, looks_like_image
from fedsec.datasets.problems import Problem, shown
from fedsec.datasets.raw import Raw, Source, Survey
from fedsec.errors import DataError

BY_SUFFIX: dict[str, str] = {".npz": "medmnist", ".csv": "csv"}
KNOWN = (
    "a folder of class folders, a folder with train/ and test/ of class folders, an ISIC 2019 folder (images and "
    "*GroundTruth.csv), a CSV with a file and a label column, or a MedMNIST .npz"
)

SURVEYS: Table[Callable[[Path], Survey]] = Table(
    "data.format", {"folders": folders.survey, "isic2019": tabled.survey_isic2019, "csv": tabled.survey_csv}
)
"""``data.format`` -> what lists its images, each with label, group and site, and its problems; MedMNIST's is a file of
pixels, apart. One that another package adds is never recognised, only named."""
BUILT_IN = (*SURVEYS, "medmnist")


def open_source(data: Data) -> Source:
    """Survey ``data.source`` without decoding. Raises DataError when it is absent or of no known layout."""
    path = _existing(data.source)
    if path is None:
        raise DataError(f"data.source = {shown(data.source)!r}: no such file or folder. Remedy: give {KNOWN}")
    layout, path = _layout(path, data)
    if layout == "medmnist":
        from fedsec.datasets import medmnist

        return medmnist.open_source(path, data)
    return _from_survey(SURVEYS[layout](path), data)


def _existing(source: str) -> Path | None:
    """The resolved path, or None when there is no such file or it is no path at all."""
    try:
        return Path(source).expanduser().resolve(strict=True)
    except (OSError, ValueError, RuntimeError):
        return None


def _layout(path: Path, data: Data) -> tuple[str, Path]:
    """(layout, the file or folder that it starts from)."""
    files, names = contents(path, path, []) if path.is_dir() else ([], [])
    tables = [name for name in files if name.lower().endswith(".csv")]
    recognised: str | None = None
    if path.is_file():
        recognised = BY_SUFFIX.get(path.suffix.lower())
    elif len(tabled.truths(files)) == 1:
        recognised = "isic2019"
    elif len(tables) == 1 and table.is_labelled(path / tables[0]):
        recognised = "csv"
    elif folders.is_parted(names) or _hold_images(path, names):
        recognised = "folders"
    layout = recognised if data.format == "auto" else data.format
    if layout is None:
        hint = f"; it holds {shown(', '.join((names + files)[:8]))}: name one of them" if names or files else ""
        raise DataError(f"data.source = {shown(data.source)!r}: unrecognised layout{hint}. Remedy: give {KNOWN}")
    if layout == "csv" and len(tables) == 1:
        path = path / tables[0]
    own = layout in BUILT_IN
    if own and not (path.is_dir() if layout in ("folders", "isic2019") else path.is_file()):
        kind = "folder" if path.is_dir() else "file" if path.is_file() else "device"
        raise DataError(
            f"data.format = '{layout}': {shown(data.source)!r} is a {kind}. Remedy: give {KNOWN}, "
            "or set data.format = 'auto'"
        )
    return layout, path


def _from_survey(survey: Survey, data: Data) -> Source:
    def read(progress: bool) -> tuple[Raw, list[Problem]]:
        from fedsec.datasets.decode import decode_all

        return decode_all(survey, hashes(), data.size, progress)

    @cache
    def hashes() -> list[str]:
        from fedsec.datasets.decode import file_hashes

        return file_hashes(survey)

    states = [_stat(f"{survey.root}/{item.file}") for item in survey.items]
    return Source(data.source, _digest(survey, states), lambda: _digest(survey, hashes()), read)


def _hold_images(path: Path, names: list[str]) -> bool:
    """Whether any of these folders holds an image directly, as a class folder does."""
    return any(looks_like_image(file) for name in names for file in contents(path / name, path, [])[0])


def _stat(path: str) -> str:
    """Size, time and inode of a file: what changes when its bytes do, short of reading them."""
    try:
        status = os.stat(path)
    except OSError as error:  # gone since it was listed: decoding will name it
        return f"{path} {error.errno}"
    return f"{path} {status.st_size} {status.st_mtime_ns} {status.st_ino}"


def _digest(survey: Survey, states: list[str]) -> str:
    """Names what was surveyed: every item with its label, group, site, split and file state, and every problem."""
    total = hashlib.blake2b(digest_size=16)
    for item, state in zip(survey.items, states, strict=True):
        total.update(
            "\x1f".join((item.file, item.label, item.group, item.site, item.split, state, "\n")).encode(
                "utf-8", "surrogateescape"
            )
        )
    for problem in survey.problems:
        total.update(f"{problem.law.text}\x1f{problem}\n".encode("utf-8", "surrogateescape"))
    return total.hexdigest()
