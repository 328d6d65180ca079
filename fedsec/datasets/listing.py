"""Walk a folder that a stranger filled: links, system litter, odd entries.

Rules. Litter that operating systems leave (names that start with '.', Thumbs.db, desktop.ini, __MACOSX, @eaDir) holds
no data and is passed over. A linked file is taken when its target lies inside the source folder; a linked folder is
never followed. Everything else is either taken or a problem.
"""

from __future__ import annotations

import os
from pathlib import Path

from fedsec.datasets.problems import LINK_OUT, LINKED_FOLDER, NO_ACCESS, NOT_REGULAR, UNREADABLE, Problem

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff"})
LITTER = frozenset({"thumbs.db", "desktop.ini", "__macosx", "@eadir"})


def is_litter(name: str) -> bool:
    return name.startswith(".") or name.lower() in LITTER


def looks_like_image(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in SUFFIXES


def contents(folder: Path, root: Path, found: list[Problem]) -> tuple[list[str], list[str]]:
    """(file names, folder names) directly in ``folder``, sorted; what is neither goes to ``found``.

    ``root``: resolved folder that links must not leave.
    """
    files: list[str] = []
    folders: list[str] = []
    try:
        with os.scandir(folder) as scan:
            entries = sorted((e for e in scan if not is_litter(e.name)), key=lambda e: e.name)
    except OSError as error:
        found.append(Problem(NO_ACCESS, _relative(folder, root), error.strerror or ""))
        return files, folders
    above = "" if folder == root else f"{_relative(folder, root)}/"
    for entry in entries:
        name = above + entry.name
        if entry.is_symlink():
            problem = _link_problem(Path(entry.path), root, name)
            if problem:
                found.append(problem)
                continue
        elif entry.is_dir():
            folders.append(entry.name)
            continue
        if entry.is_file():
            files.append(entry.name)
        else:
            found.append(Problem(NOT_REGULAR, name))
    return files, folders


def tree(folder: Path, root: Path, found: list[Problem]) -> list[str]:
    """Every file below ``folder``, relative to ``root`` with '/', sorted within each folder."""
    files, folders = contents(folder, root, found)
    above = "" if folder == root else f"{_relative(folder, root)}/"
    below = [above + name for name in files]
    for name in folders:
        below += tree(folder / name, root, found)
    return below


def _link_problem(link: Path, root: Path, name: str) -> Problem | None:
    try:
        target = link.resolve(strict=True)
    except (OSError, RuntimeError) as error:
        return Problem(UNREADABLE, name, f"broken link: {type(error).__name__}")
    if not target.is_relative_to(root):
        return Problem(LINK_OUT, name)
    return Problem(LINKED_FOLDER, name) if target.is_dir() else None


def _relative(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix()
