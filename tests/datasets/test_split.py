"""The split: no lesion or patient on both sides, classes in proportion, seeded."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedsec.datasets import classes
from fedsec.datasets.assembly import grouped, split
from fedsec.datasets.raw import Raw
from fedsec.types import Dataset


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 12)), min_size=2, max_size=60), st.integers(0, 5))
@settings(max_examples=60, deadline=None)
def test_train_and_test_are_disjoint_complete_and_share_no_group(rows: list[tuple[int, int]], seed: int) -> None:
    labels, groups = (np.array(column, np.int64) for column in zip(*rows, strict=True))
    train, test = split(labels, groups, 0.2, seed)
    assert np.array_equal(np.sort(np.concatenate([train, test])), np.arange(len(rows)))
    assert not set(groups[train]) & set(groups[test])
    assert len(train)


def test_each_class_is_held_out_in_proportion() -> None:
    labels = np.repeat([0, 1, 2], [500, 100, 5])
    _, test = split(labels, np.arange(605), 0.2, 0)
    assert np.bincount(labels[test]).tolist() == [100, 20, 1]
    assert not np.array_equal(test, split(labels, np.arange(605), 0.2, 1)[1])


def test_the_phantom_splits_by_lesion(phantom: Dataset) -> None:
    assert not set(phantom.groups[phantom.train]) & set(phantom.groups[phantom.test])
    assert len(phantom.test) == pytest.approx(0.2 * len(phantom.labels), abs=4)


def test_equal_files_fall_on_one_side() -> None:
    pixels, blank = np.zeros((5, 8, 8, 1), np.uint8), [""] * 5
    raw = Raw(pixels, ["a"] * 5, ["p", "p", "q", "", ""], blank, blank, ["1", "2", "2", "3", "3"])
    assert grouped(raw).tolist() == [0, 0, 0, 1, 1]


def test_grouping_knows_skin_diagnoses_and_leaves_other_sets_alone() -> None:
    assert classes.grouped(["MEL", "nv", "akiec", "AK", "SCC", "bcc", "df"], "malignant") == [
        *("malignant", "benign", "malignant", "malignant", "malignant", "malignant", "benign")
    ]
    assert classes.grouped(["NORMAL", "PNEUMONIA"], "malignant") == ["NORMAL", "PNEUMONIA"]
    assert classes.grouped(["mel", "odd"], "classes") == ["mel", "odd"]
    assert len(classes.problems(["mel", "odd"], "malignant")) == 1
