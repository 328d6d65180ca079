"""``load``: from a data choice to a Dataset. Decodes once; afterwards every process maps the same file.

Two keys lead to a cache folder. The *fingerprint* (names, sizes, times, labels) is cheap and local to a machine; it
points to the *digest* (bytes of every file, and settings), which is the same wherever the same files lie, so that a
copied or freshly checked-out data set is the same data set. Only a changed fingerprint makes anybody read the files.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from fedsec.config import Data
from fedsec.datasets import assembly, cache, classes
from fedsec.datasets.layouts import open_source
from fedsec.datasets.problems import Problem, as_lines, settle
from fedsec.datasets.raw import Raw, Source
from fedsec.errors import DataError
from fedsec.types import Dataset


def load(data: Data, *, progress: bool = False) -> Dataset:
    """Images, labels, sites, groups and split of ``data.source``; pixels are memory-mapped read-only.

    Guarantee: the same files and settings give the same digest and the same bytes, in every process; a later call only
    lists the files and checks the cache. Speed and place (``data.cache``) never change the answer.
    Errors: one DataError that lists everything wrong with the source, each with its remedy. With ``data.quarantine``
    unusable files are left out, counted in ``Dataset.quarantined`` and listed in the cache folder's quarantine.jsonl.
    """
    root = cache.root(data)
    source = _phantom(data) if data.source == "phantom" else open_source(data)
    pointer = root / "keys" / _key(source.fingerprint, data)
    known = pointer.read_text("ascii", "replace").strip() if pointer.is_file() else ""
    dataset = _cached(root, known, data) if known.isalnum() else None
    if dataset is None:
        digest = _key(source.digest(), data)
        dataset = _cached(root, digest, data) or _built(root, digest, source, data, progress)
        cache.write(pointer, lambda stream: stream.write(digest.encode()))
    return dataset


def quarantine_list(dataset: Dataset, data: Data) -> Path:
    """Where the files left out of ``dataset`` are listed, one JSON object a line; absent when there are none."""
    return cache.root(data) / dataset.digest / cache.QUARANTINE


def _cached(root: Path, digest: str, data: Data) -> Dataset | None:
    """The cached set, unless it left files out and this caller wants to hear of them."""
    dataset = cache.fetch(root / digest, digest, data.source)
    return dataset if dataset and (data.quarantine or not dataset.quarantined) else None


def _built(root: Path, digest: str, source: Source, data: Data, progress: bool) -> Dataset:
    raw, found = source.read(progress)
    found += classes.problems(raw.labels, data.grouping) + assembly.straddling(raw)
    folder = root / digest
    if found:
        cache.write(folder / cache.QUARANTINE, lambda stream: stream.write(as_lines(found)))
    settle(found, source.name, go_on=data.quarantine, full_list=folder / cache.QUARANTINE)
    if not len(raw.pixels):
        raise DataError(f"{source.name}: no usable image. Remedy: give a source that holds images")
    cache.keep(folder, assembly.assemble(raw, data, digest, len(found)))
    dataset = cache.fetch(folder, digest, data.source)
    if dataset is None:
        raise DataError(
            f"cache folder {folder}: does not read back as written. Remedy: check the disk or set data.cache"
        )
    return dataset


def _key(state: str, data: Data) -> str:
    """``state`` with every setting that can change the bytes or the split."""
    settings = [cache.VERSION, state, data.size, data.grouping, data.test_fraction, data.seed]
    return hashlib.blake2b(json.dumps(settings).encode(), digest_size=16).hexdigest()


def _phantom(data: Data) -> Source:
    def read(progress: bool) -> tuple[Raw, list[Problem]]:
        from fedsec.datasets import phantom
        from fedsec.datasets.progress import bar

        with bar("drawing the phantom", data.count, progress) as step:
            return phantom.draw(data.modality, data.count, data.size, data.seed, step), []

    name = json.dumps(["phantom", PHANTOM_VERSION, data.modality, data.count])
    return Source("phantom", name, lambda: name, read)


PHANTOM_VERSION = 1
"""Part of the phantom's digest: raise it whenever a picture changes."""
