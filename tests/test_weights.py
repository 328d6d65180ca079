"""Layout: vectors and back, and everything a hostile reply can hold."""

from __future__ import annotations

import numpy as np
import pytest

from fedsec.config import Gan
from fedsec.errors import ReplyError
from fedsec.types import Arrays
from fedsec.weights import Layout, generator_arrays, shared_arrays

GOOD: Arrays = {
    "a": np.arange(6, dtype=np.float32).reshape(2, 3),
    "b": np.array(2.5, np.float32),
    "c": np.zeros((0, 4), np.float32),
}


def test_vector_and_back_is_the_identity() -> None:
    layout = Layout.of(GOOD)
    back = layout.arrays(layout.vector(GOOD))
    assert layout.size == 7
    for name, value in GOOD.items():
        assert back[name].dtype == value.dtype
        np.testing.assert_array_equal(back[name], value)


def test_updates_are_deltas_in_float64() -> None:
    layout = Layout.of(GOOD)
    origin = layout.vector(GOOD)
    moved = layout.arrays(origin + 1)
    updates = layout.updates([GOOD, moved], origin)
    assert updates.dtype == np.float64
    np.testing.assert_allclose(updates, [np.zeros(7), np.ones(7)])


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"a": np.zeros((1,), np.float32)}, "shape"),
        ({"a": np.zeros((2, 3), np.float64)}, "dtype"),
        ({"a": np.zeros((2, 3), np.complex64)}, "dtype"),
        ({"a": np.full((2, 3), np.nan, np.float32)}, "non-finite"),
        ({"a": np.full((2, 3), -np.inf, np.float32)}, "non-finite"),
        ({"a": np.full((2, 3), 1e30, np.float32)}, "above"),
        ({"extra": np.zeros(1, np.float32)}, "1 extra"),
    ],
)
def test_a_wrong_reply_is_refused_with_its_reason(change: Arrays, told: str) -> None:
    with pytest.raises(ReplyError, match=told):
        Layout.of(GOOD).check({**GOOD, **change})


def test_missing_and_reordered_tensors_are_refused() -> None:
    with pytest.raises(ReplyError, match="1 missing"):
        Layout.of(GOOD).check({"a": GOOD["a"], "b": GOOD["b"]})
    with pytest.raises(ReplyError, match="another order"):
        Layout.of(GOOD).check({"b": GOOD["b"], "a": GOOD["a"], "c": GOOD["c"]})


def test_statistics_and_counters_stay_home_unless_shared() -> None:
    state: Arrays = {
        f"n.{leaf}": np.zeros(1) for leaf in ("weight", "running_mean", "running_var", "num_batches_tracked")
    }
    assert list(shared_arrays(Gan(), state, state)) == ["generator.n.weight"]
    both = shared_arrays(Gan(share="both", statistics="shared"), state, state)
    assert len(both) == 6
    assert not [name for name in both if "num_batches" in name]
    assert list(generator_arrays(both)) == ["n.weight", "n.running_mean", "n.running_var"]
