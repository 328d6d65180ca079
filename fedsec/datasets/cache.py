"""The folder of decoded images: one sub-folder a digest, memory-mapped by every process that loads it.

Each file is written beside its place and renamed into it, ``meta.json`` last, so a reader sees all or nothing and two
writers do no harm: they write the same bytes. Each file's size and CRC-32 stand in ``meta.json``; a folder that does
not match them is written again.
"""

from __future__ import annotations

import json
import os
import tempfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np

from fedsec.config import Data
from fedsec.datasets.problems import shown
from fedsec.errors import DataError
from fedsec.types import Dataset

VERSION = 1
"""Part of every digest: raise it whenever the intake turns the same files into other bytes."""
QUARANTINE = "quarantine.jsonl"
FILES = ("images.npy", "rows.npz")
COLUMNS = ("labels", "sites", "groups", "train", "test")


def root(data: Data) -> Path:
    """``data.cache``, else $FEDSEC_CACHE, else fedsec/ in $XDG_CACHE_HOME or ~/.cache; created when absent."""
    standard = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fedsec"
    folder = Path(data.cache or os.environ.get("FEDSEC_CACHE") or standard).expanduser().absolute()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(
            f"cache folder {shown(str(folder))}: {error.strerror}. Remedy: set data.cache to a folder you can write to"
        ) from error
    return folder


def write(path: Path, fill: Callable[[IO[bytes]], object]) -> None:
    """Write one file so that it appears whole or not at all. Raises DataError when the disk refuses."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "wb") as stream:
                fill(stream)
            os.replace(name, path)
        finally:
            Path(name).unlink(missing_ok=True)
    except OSError as error:
        raise DataError(
            f"cache file {shown(str(path))}: {error.strerror or error}. Remedy: free the disk or set data.cache"
        ) from error


def keep(folder: Path, dataset: Dataset) -> None:
    """Write ``dataset`` into its folder."""
    write(folder / "images.npy", lambda stream: np.lib.format.write_array(stream, dataset.pixels, allow_pickle=False))
    columns = {name: getattr(dataset, name) for name in COLUMNS}
    names: dict[str, Any] = {n: np.array(getattr(dataset, n), np.str_) for n in ("class_names", "site_names")}
    write(folder / "rows.npz", lambda stream: np.savez(stream, quarantined=dataset.quarantined, **columns, **names))
    sums = {name: _sum(folder / name) for name in FILES}
    write(folder / "meta.json", lambda stream: stream.write(json.dumps({"version": VERSION, "files": sums}).encode()))


def fetch(folder: Path, digest: str, source: str) -> Dataset | None:
    """The Dataset of a folder with memory-mapped pixels, or None when it is absent, truncated or changed."""
    try:
        meta = json.loads((folder / "meta.json").read_bytes())
        if meta["version"] != VERSION or any(_sum(folder / name) != meta["files"][name] for name in FILES):
            return None
        with (folder / "rows.npz").open("rb") as stored, np.load(stored, allow_pickle=False) as rows:
            return _dataset(rows, np.load(folder / "images.npy", mmap_mode="r", allow_pickle=False), digest, source)
    except (OSError, ValueError, KeyError, TypeError):  # absent or damaged in any way: the caller builds it again
        return None


def _dataset(rows: Mapping[str, Any], pixels: Any, digest: str, source: str) -> Dataset:
    columns = {name: rows[name] for name in COLUMNS}
    classes, sites = (tuple(map(str, rows[name])) for name in ("class_names", "site_names"))
    return Dataset(
        source=source,
        pixels=pixels,
        class_names=classes,
        site_names=sites,
        digest=digest,
        quarantined=int(rows["quarantined"]),
        **columns,
    )


def _sum(path: Path) -> list[int]:
    """[size, CRC-32] of a file."""
    total, size = 0, 0
    with path.open("rb") as stream:
        while block := stream.read(1 << 22):
            total, size = zlib.crc32(block, total), size + len(block)
    return [size, total]
