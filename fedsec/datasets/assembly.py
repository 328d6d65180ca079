"""From decoded images with names to a Dataset: number the names, and split by lesion or patient."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from fedsec.config import Data
from fedsec.datasets import classes
from fedsec.datasets.problems import STRADDLES, Problem
from fedsec.datasets.raw import Raw
from fedsec.errors import DataError
from fedsec.seeds import stream
from fedsec.types import Dataset, Indices, Labels


def assemble(raw: Raw, data: Data, digest: str, quarantined: int) -> Dataset:
    """Number labels, sites and groups of ``raw`` and split it. Raises DataError when either part would be empty."""
    labels, class_names = numbered(classes.grouped(raw.labels, data.grouping))
    sites, site_names = numbered([site or "unknown" for site in raw.sites])
    groups = grouped(raw)
    if len(class_names) < 2:
        raise DataError(
            f"{data.source}: only the class {class_names[0]!r}; two are needed. Remedy: add the other class"
        )
    if all(raw.splits) and raw.splits:
        train, test = (np.flatnonzero(np.array(raw.splits) == part) for part in ("train", "test"))
    else:
        train, test = split(labels, groups, data.test_fraction, data.seed)
    if not len(train) or not len(test):
        raise DataError(
            f"{data.source}: {len(train)} images to train on and {len(test)} to test on, from {len(set(groups))} "
            "lesions or patients; both need at least one. Remedy: give more images"
        )
    return Dataset(
        data.source, raw.pixels, labels, class_names, sites, site_names, groups, train, test, digest, quarantined
    )


def numbered(names: Sequence[str]) -> tuple[Labels, tuple[str, ...]]:
    """Each name's place in the sorted list of distinct names, and that list."""
    distinct = sorted(set(names))
    place = {name: k for k, name in enumerate(distinct)}
    return np.array([place[name] for name in names], np.int64).reshape(-1), tuple(distinct)


def grouped(raw: Raw) -> Labels:
    """A number for each lesion or patient. Where the source fixes no split, byte-identical files share a number too."""
    parent = list(range(len(raw.labels)))

    def head(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    by_content = raw.contents if raw.contents and not any(raw.splits) else [""] * len(parent)
    for names in (raw.groups, by_content):
        first: dict[str, int] = {}
        for i, name in enumerate(names):
            if name:
                parent[head(i)] = head(first.setdefault(name, i))
    heads = [head(i) for i in range(len(parent))]
    place = {h: k for k, h in enumerate(dict.fromkeys(heads))}
    return np.array([place[h] for h in heads], np.int64).reshape(-1)


def split(labels: Labels, groups: Labels, test_fraction: float, seed: int) -> tuple[Indices, Indices]:
    """(train, test): sorted, disjoint, complete, no group in both; each class as near to ``test_fraction`` as it goes.

    A group counts for its rarest class. A class of two groups or more has one on each side; a class of one trains.
    """
    counts = np.bincount(labels)
    members: dict[int, list[int]] = defaultdict(list)
    for i, group in enumerate(groups.tolist()):
        members[group].append(i)
    strata: dict[int, list[int]] = defaultdict(list)
    for group, rows in members.items():
        strata[min({int(labels[i]) for i in rows}, key=lambda label: (counts[label], label))].append(group)
    test: list[int] = []
    for label in sorted(strata):
        order = [strata[label][k] for k in stream(seed, "split", label).permutation(len(strata[label]))]
        target = test_fraction * sum(len(members[g]) for g in order)
        taken = 0
        for place, group in enumerate(order[:-1]):
            if place and taken + len(members[group]) / 2 > target:
                break
            test += members[group]
            taken += len(members[group])
    chosen = np.zeros(len(labels), bool)
    chosen[test] = True
    return np.flatnonzero(~chosen), np.flatnonzero(chosen)


def straddling(raw: Raw) -> list[Problem]:
    """Lesions or patients that a source's own split puts on both sides."""
    sides: dict[str, set[str]] = defaultdict(set)
    for group, part in zip(raw.groups, raw.splits, strict=True):
        if group and part:
            sides[group].add(part)
    return [Problem(STRADDLES, group) for group, parts in sides.items() if len(parts) > 1]
