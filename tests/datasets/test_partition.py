"""Every scheme: a permutation of the training rows, nobody empty, the same each time; and flwr-datasets agrees."""

from __future__ import annotations

import socket
from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets as hf
import numpy as np
import pytest
from flwr_datasets.partitioner import IidPartitioner, NaturalIdPartitioner

from fedsec.config import Split
from fedsec.datasets import held_by_nobody, partition
from fedsec.datasets.partitioning import SCHEMES
from fedsec.errors import DataError
from fedsec.seeds import stream
from fedsec.types import Dataset

ALL = pytest.mark.parametrize("scheme", SCHEMES)


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("a partition must not open a connection")

    monkeypatch.setattr(socket.socket, "connect", refuse)


def unmapped(dataset: Dataset) -> Dataset:
    """The same set outside the cache, so that nothing is remembered."""
    return replace(dataset, pixels=np.array(dataset.pixels))


def split_of(scheme: Any, clients: int) -> Split:
    return Split(scheme=scheme, clients=clients, images=",".join(map(str, range(1, clients + 1))))


@ALL
@pytest.mark.parametrize("clients", [2, 4, 10])
def test_a_partition_is_a_permutation_of_train(phantom: Dataset, scheme: Any, clients: int) -> None:
    parts = partition(unmapped(phantom), split_of(scheme, clients), seed=1)
    assert len(parts) == (4 if scheme == "site" else clients)
    given = np.concatenate(parts)
    if scheme == "sizes":
        assert len(np.unique(given)) == len(given) == clients * (clients + 1) // 2
        assert np.isin(given, phantom.train).all()
    else:
        assert np.array_equal(np.sort(given), phantom.train)
    assert all(len(part) and part.dtype == np.int64 and (np.diff(part) > 0).all() for part in parts)


@ALL
def test_same_seed_same_partition_with_and_without_the_cache(phantom: Dataset, scheme: Any) -> None:
    split = split_of(scheme, 5)
    runs = [
        partition(phantom, split, seed=2),
        partition(phantom, split, seed=2),
        partition(unmapped(phantom), split, seed=2),
    ]
    for parts in runs[1:]:
        assert all(np.array_equal(a, b) for a, b in zip(runs[0], parts, strict=True))
    if scheme != "site":
        other = partition(phantom, split, seed=3)
        assert any(not np.array_equal(a, b) for a, b in zip(runs[0], other, strict=True))


def test_a_damaged_memory_is_drawn_again(phantom: Dataset) -> None:
    split = Split(clients=7)
    first = partition(phantom, split, seed=4)
    for memo in Path(str(phantom.pixels.filename)).parent.glob("partition-*.npz"):  # type: ignore[attr-defined]
        memo.write_bytes(memo.read_bytes()[:40])
    assert all(np.array_equal(a, b) for a, b in zip(first, partition(phantom, split, seed=4), strict=True))


def test_iid_and_site_are_flwr_datasets_partitioners(phantom: Dataset) -> None:
    order = stream(0, "partition", "iid").permutation(phantom.train)
    iid = IidPartitioner(num_partitions=7)
    iid.dataset = hf.Dataset.from_dict({"row": order})
    natural = NaturalIdPartitioner(partition_by="site")
    sites = [phantom.site_names[k] for k in phantom.sites[phantom.train]]
    natural.dataset = hf.Dataset.from_dict({"row": phantom.train, "site": sites})
    for ours, theirs, clients in ((Split(clients=7), iid, 7), (Split(scheme="site"), natural, 4)):
        parts = partition(unmapped(phantom), ours, seed=0)
        assert all(np.array_equal(parts[k], np.sort(theirs.load_partition(k)["row"][:])) for k in range(clients))


def test_schemes_skew_as_they_promise(phantom: Dataset) -> None:
    def spread(split: Split) -> float:
        parts = partition(unmapped(phantom), split, seed=0)
        return float(np.std([phantom.labels[part].mean() for part in parts]))

    assert spread(Split("dirichlet", 4, 0.2)) > spread(Split("dirichlet", 4, 1000.0))
    parts = partition(unmapped(phantom), Split("pathological", 4, classes=1), seed=0)
    assert [set(phantom.labels[part].tolist()) for part in parts] == [{0}, {1}, {0}, {1}]
    sites = partition(unmapped(phantom), Split(scheme="site"), seed=0)
    assert [set(phantom.sites[part].tolist()) for part in sites] == [{0}, {1}, {2}, {3}]


def test_sizes_are_kept_with_even_classes_and_the_rest_is_nobodys(phantom: Dataset) -> None:
    parts = partition(unmapped(phantom), Split("sizes", 4, images="8,1,1,6"), seed=0)
    assert [len(part) for part in parts] == [8, 1, 1, 6]
    assert [np.bincount(phantom.labels[part], minlength=2).tolist() for part in parts] == [
        [4, 4],
        [0, 1],
        [1, 0],
        [3, 3],
    ]
    public = held_by_nobody(phantom, parts)
    assert len(public)
    assert not np.isin(phantom.groups[public], phantom.groups[np.concatenate(parts)]).any()
    everybody = partition(unmapped(phantom), Split(clients=3), seed=0)
    assert len(held_by_nobody(phantom, everybody)) == 0


@pytest.mark.parametrize(
    ("split", "said"),
    [
        (Split("sizes", 2, images="1,5000"), "no image of class"),
        (Split(clients=500), "fewer images than clients"),
        (Split(clients=0), "stands for the nodes"),
        (Split(scheme="dirichlet", clients=150, alpha=0.01), "a client would get no image"),
        (Split(scheme="pathological", clients=4, classes=3), "must be between"),
        (Split(scheme="pathological", clients=1, classes=1), "images would go to nobody"),
    ],
)
def test_a_partition_that_cannot_be(phantom: Dataset, split: Split, said: str) -> None:
    with pytest.raises(DataError, match=f"(?s){said}.*Remedy:"):
        partition(unmapped(phantom), split, seed=0)


def test_a_site_without_training_images_or_no_sites_at_all(phantom: Dataset) -> None:
    with pytest.raises(DataError, match=r"1 clients without a training image .nobody."):
        partition(replace(unmapped(phantom), site_names=(*phantom.site_names, "nobody")), Split(scheme="site"), seed=0)
    with pytest.raises(DataError, match="knows no sites"):
        partition(replace(unmapped(phantom), site_names=("unknown",)), Split(scheme="site"), seed=0)
