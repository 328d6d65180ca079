"""Layout 'folders': one folder a class, or train/ and test/ (and val/) that each hold one folder a class.

A CSV beside the folder with the folder's name (``class2/`` and ``class2.csv``) gives lesion or patient and site of
each file; then every file needs its row and every row its file. A val/ part counts as training data. Documents at the
top of the set (any file that is no image by its suffix) are left alone; inside a class folder every file is an image.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from fedsec.datasets import table
from fedsec.datasets.listing import contents, looks_like_image, tree
from fedsec.datasets.problems import (
    DUPLICATE_ROW,
    EMPTY_CLASS,
    FILE_WITHOUT_ROW,
    LOOSE,
    OUTSIDE,
    ROW_WITHOUT_FILE,
    Problem,
)
from fedsec.datasets.raw import Item, Survey

PARTS = {"train": "train", "val": "train", "valid": "train", "validation": "train", "test": "test"}


def survey(root: Path) -> Survey:
    """List a resolved folder of class folders, with its sidecar CSV when there is one."""
    found: list[Problem] = []
    files, folders = contents(root, root, found)
    found += [Problem(LOOSE, name) for name in files if looks_like_image(name)]
    if is_parted(folders):
        items = []
        for name in folders:
            items += _classes(root / name, root, PARTS.get(name.lower(), ""), found)
    else:
        items = _classes(root, root, "", found)
    sidecar = root.parent / f"{root.name}.csv"
    if sidecar.is_file():
        items = _joined(items, root.name, table.read(sidecar, found), found)
    return Survey(root, tuple(items), tuple(found))


def is_parted(folders: list[str]) -> bool:
    """Whether these folders are the parts of a given split and nothing else."""
    names = {name.lower() for name in folders}
    return {"train", "test"} <= names <= set(PARTS)


def _classes(folder: Path, root: Path, split: str, found: list[Problem]) -> list[Item]:
    """Items of every class folder in ``folder``: the root, whose own entries are reported already, or one part."""
    files, names = contents(folder, root, [] if folder == root else found)
    if folder != root:
        found += [Problem(LOOSE, f"{folder.name}/{name}") for name in files if looks_like_image(name)]
    items = []
    for name in names:
        inside = tree(folder / name, root, found)
        if not inside:
            found.append(Problem(EMPTY_CLASS, (folder / name).relative_to(root).as_posix()))
        items += [Item(file, name, split=split) for file in inside]
    return items


def _joined(items: list[Item], folder: str, sidecar: table.Table, found: list[Problem]) -> list[Item]:
    """``items`` with group and site of the sidecar's rows, whose paths start at the folder that holds the CSV."""
    sidecar.needs("file")
    rows: dict[str, table.Row] = {}
    for line, row in sidecar.rows:
        path = table.inside(sidecar.get(row, "file"))
        where = f"{sidecar.path.name} line {line}"
        if path is None:
            found.append(Problem(OUTSIDE, where, sidecar.get(row, "file")))
            continue
        path = path.removeprefix(f"{folder}/")
        if path in rows:
            found.append(Problem(DUPLICATE_ROW, path, where))
        rows[path] = row
    known = {item.file for item in items}
    found += [Problem(ROW_WITHOUT_FILE, path, sidecar.path.name) for path in rows if path not in known]
    found += [Problem(FILE_WITHOUT_ROW, file, sidecar.path.name) for file in sorted(known - set(rows))]
    return [
        replace(item, group=sidecar.group(rows[item.file]), site=sidecar.get(rows[item.file], "site"))
        for item in items
        if item.file in rows
    ]
