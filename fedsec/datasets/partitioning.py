"""Which client holds which training images: a pure function of labels, sites, split settings and seed.

'dirichlet' and 'pathological' are flwr-datasets' partitioners. 'iid' and 'site' are its IidPartitioner (contiguous
shards of a shuffled list) and NaturalIdPartitioner without the seconds that its import costs; a test holds them equal.
The answer is kept beside the images, so only the first process of a machine pays that import.
"""

from __future__ import annotations

import hashlib
import json
import os
import warnings
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from fedsec.config import Split
from fedsec.datasets import cache
from fedsec.errors import DataError
from fedsec.seeds import address_seed, stream
from fedsec.types import Dataset, Indices

VERSION = 1
Scheme = Callable[[Dataset, Split, int], list[Indices]]


def partition(dataset: Dataset, split: Split, *, seed: int) -> tuple[Indices, ...]:
    """Each client's images, as sorted values of ``dataset.train``.

    Guarantee: disjoint, none empty, together ``dataset.train``; the same on every machine and in every process.
    'site' has one client a site, in the order of ``site_names``, and ignores ``split.clients``. 'sizes' leaves images
    to nobody (see ``held_by_nobody``).
    Errors: DataError when there are fewer images than clients, or a client would get none.
    """
    _check(dataset, split)
    memo = _memo(dataset, split, seed)
    parts = _recalled(memo, dataset, split) if memo else None
    if parts is None:
        parts = tuple(np.sort(part) for part in SCHEMES[split.scheme](dataset, split, seed))
        _check_parts(parts, dataset, split)
        if memo and os.access(memo.parent, os.W_OK):
            _remember(memo, parts)
    return parts


def iid(dataset: Dataset, split: Split, seed: int) -> list[Indices]:
    order = stream(seed, "partition", "iid").permutation(dataset.train)
    return list(np.array_split(order, split.clients))


def site(dataset: Dataset, split: Split, seed: int) -> list[Indices]:
    home = dataset.sites[dataset.train]
    return [dataset.train[home == k] for k in range(len(dataset.site_names))]


def dirichlet(dataset: Dataset, split: Split, seed: int) -> list[Indices]:
    """Shares of each class drawn from Dirichlet(alpha); drawn again, ten times at most, while a client has no image."""
    from flwr_datasets.partitioner import DirichletPartitioner

    return _by_flower(
        DirichletPartitioner(
            split.clients, "label", split.alpha, min_partition_size=1, seed=address_seed(seed, "partition", "dirichlet")
        ),
        dataset,
        split,
    )


def pathological(dataset: Dataset, split: Split, seed: int) -> list[Indices]:
    """Client i holds classes i, i+1, ... (``split.classes`` of them, counted round), so that no class is left out."""
    from flwr_datasets.partitioner import PathologicalPartitioner

    partitioner = PathologicalPartitioner(
        split.clients,
        "label",
        split.classes,
        class_assignment_mode="deterministic",
        seed=address_seed(seed, "partition", "pathological"),
    )
    return _by_flower(partitioner, dataset, split, seed)


def sizes(dataset: Dataset, split: Split, seed: int) -> list[Indices]:
    """``split.images`` images each, classes as even as they come; what is left of each class goes to nobody.

    Client i begins its round of the classes at class i, so that several one-image clients do not all hold one class.
    """
    classes = len(dataset.class_names)
    left = [
        list(stream(seed, "partition", "sizes", k).permutation(dataset.train[dataset.labels[dataset.train] == k]))
        for k in range(classes)
    ]
    parts = []
    for client, count in enumerate(wanted(split)):
        wishes = [(client + i) % classes for i in range(count)]
        short = [k for k in range(classes) if len(left[k]) < wishes.count(k)]
        if short:
            raise DataError(
                f"split.images = {split.images!r}: no image of class {dataset.class_names[short[0]]!r} is left for "
                f"client {client}, which asks {wishes.count(short[0])}. Remedy: smaller sizes or more images"
            )
        parts.append(np.array([left[k].pop() for k in wishes], np.int64))
    return parts


def wanted(split: Split) -> list[int]:
    """``split.images`` as numbers."""
    return [int(part) for part in split.images.split(",") if part.strip()]


def held_by_nobody(dataset: Dataset, parts: Sequence[Indices]) -> Indices:
    """Training images that no client holds, nor another of the same patient or lesion: public ones, in a simulation."""
    held = np.unique(dataset.groups[np.concatenate(parts)])
    return dataset.train[~np.isin(dataset.groups[dataset.train], held)]


SCHEMES: dict[str, Scheme] = {
    "iid": iid,
    "dirichlet": dirichlet,
    "pathological": pathological,
    "site": site,
    "sizes": sizes,
}


def _by_flower(partitioner: Any, dataset: Dataset, split: Split, shuffle: int | None = None) -> list[Indices]:
    """Run a flwr-datasets partitioner over the training labels. Nothing is fetched and no bar is drawn.

    ``shuffle``: seed that mixes the images first, for a partitioner that deals out a class in order.
    """
    import datasets as hf

    hf.disable_progress_bars()
    rows = dataset.train
    if shuffle is not None:
        rows = stream(shuffle, "partition", "order").permutation(rows)
    partitioner.dataset = hf.Dataset.from_dict({"label": dataset.labels[rows].tolist(), "row": rows.tolist()})
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it warns of every new draw; giving up is a ValueError
            return [np.array(partitioner.load_partition(k)["row"][:], np.int64) for k in range(split.clients)]
    except ValueError as error:
        raise DataError(
            f"split.scheme = '{split.scheme}' with split.clients = {split.clients}, split.alpha = {split.alpha}, "
            f"split.classes = {split.classes}: a client would get no image. Remedy: fewer clients, a larger alpha or "
            "more images"
        ) from error


def _check(dataset: Dataset, split: Split) -> None:
    n, classes = len(dataset.train), len(np.unique(dataset.labels[dataset.train]))
    if split.scheme == "site":
        if len(dataset.site_names) < 2:
            raise DataError(
                f"split.scheme = 'site': {dataset.source} knows no sites. Remedy: add a site column or another scheme"
            )
        return
    if split.clients < 1:
        raise DataError("split.clients = 0 stands for the nodes of a run, and here is none. Remedy: name a number")
    if n < split.clients:
        raise DataError(
            f"split.clients = {split.clients}: fewer images than clients, {n} in training; each client needs one. "
            f"Remedy: at most {n} clients, or more images"
        )
    if split.scheme == "pathological" and not classes - split.clients < split.classes <= classes:
        raise DataError(
            f"split.classes = {split.classes}: with {classes} classes and {split.clients} clients it must be between "
            f"{max(1, classes - split.clients + 1)} and {classes}, or images would go to nobody. Remedy: change it"
        )


def _check_parts(parts: tuple[Indices, ...], dataset: Dataset, split: Split) -> None:
    empty = [k for k, part in enumerate(parts) if not len(part)]
    if empty:
        names = ", ".join(dataset.site_names[k] if split.scheme == "site" else str(k) for k in empty[:20])
        raise DataError(
            f"split.scheme = '{split.scheme}': {len(empty)} clients without a training image ({names}); each needs "
            "one. Remedy: fewer clients, another scheme or data.seed, or more images"
        )
    assert _proper(np.concatenate(parts), dataset, split), "the partition is no permutation of train"


def _proper(given: Indices, dataset: Dataset, split: Split) -> bool:
    """Whether the clients' images together are the training images, each once; with 'sizes', some of them."""
    if split.scheme == "sizes":
        return len(np.unique(given)) == len(given) and bool(np.isin(given, dataset.train).all())
    return np.array_equal(np.sort(given), dataset.train)


def _memo(dataset: Dataset, split: Split, seed: int) -> Path | None:
    """Where this partition is kept: beside the mapped images; None for images that lie in no cache."""
    images = getattr(dataset.pixels, "filename", None)
    if images is None:
        return None
    key = json.dumps([VERSION, dataset.digest, asdict(split), seed], sort_keys=True)
    return Path(images).parent / f"partition-{hashlib.blake2b(key.encode(), digest_size=16).hexdigest()}.npz"


def _remember(memo: Path, parts: tuple[Indices, ...]) -> None:
    ends = np.cumsum([len(part) for part in parts])
    cache.write(memo, lambda stream: np.savez(stream, rows=np.concatenate(parts), ends=ends))


def _recalled(memo: Path, dataset: Dataset, split: Split) -> tuple[Indices, ...] | None:
    """The partition kept in ``memo``, or None when it is absent or damaged."""
    try:
        with memo.open("rb") as stored, np.load(stored, allow_pickle=False) as kept:
            rows, ends = kept["rows"], kept["ends"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
    if not _proper(rows, dataset, split) or not len(ends) or ends[-1] != len(rows):
        return None
    return tuple(np.split(rows, ends[:-1]))
