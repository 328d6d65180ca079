"""Layouts 'csv' (a file and a label column) and 'isic2019' (image folder, one-hot ground truth, metadata).

CSV paths are relative to the folder that holds the CSV; a name without suffix finds its image. Each folder that a row
names is searched for images without a row. 'isic2019' is a folder with one ``*GroundTruth.csv`` and one image folder;
lesion and site come from any ``*metadata*.csv`` beside it (HAM10000's: ``lesion_id``, ``dataset``), which may hold
more rows than images. A row of UNK is unlabelled.
"""

from __future__ import annotations

import posixpath
from collections import defaultdict
from pathlib import Path

from fedsec.datasets import table
from fedsec.datasets.listing import contents, looks_like_image
from fedsec.datasets.problems import (
    BAD_LABEL,
    BAD_SPLIT,
    DUPLICATE_ROW,
    FILE_WITHOUT_ROW,
    LINKED_FOLDER,
    NO_LABEL,
    OUTSIDE,
    ROW_WITHOUT_FILE,
    TWO_LABELS,
    Problem,
)
from fedsec.datasets.raw import Item, Survey
from fedsec.errors import DataError

PARTS = {"": "", "train": "train", "training": "train", "val": "train", "valid": "train", "test": "test"}


class Shelf:
    """The files of the folders that a CSV names, each folder listed once."""

    def __init__(self, root: Path, found: list[Problem]) -> None:
        self.root, self.found = root, found
        self._folders: dict[str, dict[str, list[str]]] = {}
        self._taken: set[str] = set()

    def take(self, path: str, where: str) -> str | None:
        """The file that a row names, marked as seen; None, with the problem noted, when there is none."""
        folder, name = posixpath.split(path)
        by_name = self._listed(folder)
        matches = by_name.get(name, [])
        if len(matches) != 1:
            detail = f"{where}, fits {' and '.join(matches)}" if matches else where
            self.found.append(Problem(ROW_WITHOUT_FILE, path, detail))
            return None
        file = matches[0] if not folder else f"{folder}/{matches[0]}"
        if file in self._taken:
            self.found.append(Problem(DUPLICATE_ROW, file, where))
            return None
        self._taken.add(file)
        return file

    def report_untaken(self, csv_name: str) -> None:
        for folder, by_name in self._folders.items():
            names = {file for files in by_name.values() for file in files if looks_like_image(file)}
            paths = names if not folder else {f"{folder}/{name}" for name in names}
            self.found += [Problem(FILE_WITHOUT_ROW, path, csv_name) for path in sorted(paths - self._taken)]

    def _listed(self, folder: str) -> dict[str, list[str]]:
        """Names (with and without suffix) -> files of one folder; empty when it is absent or reached by a link."""
        if folder not in self._folders:
            by_name: dict[str, list[str]] = defaultdict(list)
            self._folders[folder] = by_name
            place = self.root / folder if folder else self.root
            if place.resolve() != place:
                self.found.append(Problem(LINKED_FOLDER, folder))
            elif place.is_dir():
                files = contents(place, self.root, self.found)[0]
                for file in files:
                    by_name[file].append(file)
                whole = set(files)
                for file in filter(looks_like_image, files):
                    stem = posixpath.splitext(file)[0]
                    if stem not in whole:
                        by_name[stem].append(file)
        return self._folders[folder]


def survey_csv(path: Path) -> Survey:
    """List the images of a CSV with a file and a label column."""
    found: list[Problem] = []
    rows = table.read(path, found)
    rows.needs("file", "label")
    shelf = Shelf(path.parent, found)
    items = []
    for line, row in rows.rows:
        where = f"{path.name} line {line}"
        clean = table.inside(rows.get(row, "file"))
        if clean is None:
            found.append(Problem(OUTSIDE, where, rows.get(row, "file")))
            continue
        file, label, split = shelf.take(clean, where), rows.get(row, "label"), rows.get(row, "split").lower()
        if file is not None and not label:
            found.append(Problem(NO_LABEL, file, where))
        elif file is not None and split not in PARTS:
            found.append(Problem(BAD_SPLIT, file, split))
        elif file is not None:
            items.append(Item(file, label, rows.group(row), rows.get(row, "site"), PARTS[split]))
    if len({bool(item.split) for item in items}) > 1:
        found += [Problem(BAD_SPLIT, item.file, "empty") for item in items if not item.split]
    shelf.report_untaken(path.name)
    return Survey(path.parent, tuple(items), tuple(found))


def survey_isic2019(root: Path) -> Survey:
    """List the images of a challenge folder: ground truth, images, and metadata where present."""
    found: list[Problem] = []
    truth_path, images = _parts(root)
    truth = table.read(truth_path, found)
    truth.needs("file")
    classes = [name for name in truth.header if name != truth.column("file")]
    known = _metadata(root, found)
    shelf = Shelf(root, found)
    items = []
    for line, row in truth.rows:
        where = f"{truth_path.name} line {line}"
        clean = table.inside(truth.get(row, "file"))
        if clean is None:
            found.append(Problem(OUTSIDE, where, truth.get(row, "file")))
            continue
        file = shelf.take(f"{images}/{clean}" if images else clean, where)
        label = _one_hot(row, classes, file or clean, found)
        if file is not None and label is not None:
            group, site = known.get(_stem(clean), ("", ""))
            items.append(Item(file, label, group, site))
    shelf.report_untaken(truth_path.name)
    return Survey(root, tuple(items), tuple(found))


def truths(files: list[str]) -> list[str]:
    """The ground-truth CSVs among the files of a folder."""
    return [name for name in files if name.lower().endswith("groundtruth.csv")]


def _parts(root: Path) -> tuple[Path, str]:
    """(ground truth CSV, name of the image folder or '' for the root itself)."""
    files, folders = contents(root, root, [])
    tables = truths(files)
    if len(tables) != 1:
        raise DataError(
            f"{root.name}: needs one *GroundTruth.csv, has {len(tables)}. Remedy: name the folder of one year"
        )
    stem = tables[0][: -len("GroundTruth.csv")].rstrip("_").lower()
    inputs = [name for name in folders if name.lower() == f"{stem}_input"] or folders
    if len(inputs) > 1:
        raise DataError(
            f"{root.name}: several image folders ({', '.join(inputs)}). Remedy: keep the one of {tables[0]}"
        )
    return root / tables[0], inputs[0] if inputs else ""


def _metadata(root: Path, found: list[Problem]) -> dict[str, tuple[str, str]]:
    """Image id -> (group, site) from every metadata CSV of the folder; a later file fills what an earlier one lacks."""
    known: dict[str, tuple[str, str]] = {}
    for name in contents(root, root, [])[0]:
        if "metadata" not in name.lower() or not name.lower().endswith(".csv"):
            continue
        rows = table.read(root / name, found)
        rows.needs("file")
        for _, row in rows.rows:
            image = _stem(rows.get(row, "file"))
            group, site = known.get(image, ("", ""))
            known[image] = (group or rows.group(row), site or rows.get(row, "site"))
    return known


def _stem(path: str) -> str:
    return posixpath.splitext(posixpath.basename(path))[0]


def _one_hot(row: table.Row, classes: list[str], name: str, found: list[Problem]) -> str | None:
    """The one class of a row, or None with its problem noted."""
    cells = {column: row[column].strip() for column in classes}
    odd = [f"{c} = {v}" for c, v in cells.items() if v not in ("0", "1", "0.0", "1.0")]
    ones = [column for column, value in cells.items() if value in ("1", "1.0")]
    if odd:
        found.append(Problem(BAD_LABEL, name, odd[0]))
    elif len(ones) > 1:
        found.append(Problem(TWO_LABELS, name, " and ".join(ones)))
    elif not ones or ones[0].upper() == "UNK":
        found.append(Problem(NO_LABEL, name, "UNK" if ones else ""))
    else:
        return ones[0]
    return None
