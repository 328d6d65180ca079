"""The loaders on real images, when they lie beside the checkout."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fedsec.config import Data
from fedsec.datasets import load

REAL = Path(__file__).parents[2].parent / "shared" / "data"
pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(not REAL.is_dir(), reason="the real images of ../shared/data are not here"),
]


@pytest.mark.parametrize(
    ("source", "counts", "sites", "groups", "channels"),
    [
        ("isic/class2", [1000, 704], 4, 1704, 3),
        ("isic/class7.csv", [1743, 704], 4, 2447, 3),
        ("isic/isic2019", [2406, 1465], 4, 2719, 3),
        ("chestx/class3", [238, 385, 376], 3, None, 1),
        ("chestx/chest_xray", [650, 800], 1, None, 1),
        ("medmnist/pneumoniamnist.npz", [1349, 3883], 1, 5232, 1),
        ("medmnist/ham10000_28.npz", [1743, 704], 1, 2447, 3),
    ],
)
def test_real_sets(source: str, counts: list[int], sites: int, groups: int | None, channels: int) -> None:
    dataset = load(Data(source=str(REAL / source)))
    assert np.bincount(dataset.labels).tolist() == counts
    assert (len(dataset.site_names), dataset.channels) == (sites, channels)
    assert groups is None or len(np.unique(dataset.groups)) == groups
    assert not set(dataset.groups[dataset.train]) & set(dataset.groups[dataset.test])
    assert 0.04 < len(dataset.test) / len(dataset.labels) < 0.22
    assert load(Data(source=str(REAL / source))).digest == dataset.digest


def test_kermany_keeps_its_own_split() -> None:
    dataset = load(Data(source=str(REAL / "chestx" / "chest_xray")))
    assert (len(dataset.train), len(dataset.test)) == (1160, 290)


def test_seven_classes_stay_when_asked() -> None:
    dataset = load(Data(source=str(REAL / "isic" / "class7"), grouping="classes"))
    assert dataset.class_names == ("akiec", "bcc", "bkl", "df", "mel", "nv", "vasc")
