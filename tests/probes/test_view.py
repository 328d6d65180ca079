"""The server's view: what it holds, and that a saved one comes back whole or not at all."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fedsec.errors import RunError
from fedsec.probes.view import Recipe, ServerView
from fedsec.types import Arrays

BEFORE: Arrays = {
    "z.weight": np.arange(6, dtype=np.float32).reshape(2, 3),
    "norm.weight": np.ones(2, np.float32),
    "norm.running_mean": np.zeros(2, np.float32),
    "norm.running_var": np.ones(2, np.float32),
    "norm.num_batches_tracked": np.array(7),
    "a.bias": np.array([0.5, -0.5]),
}
CHANGE = np.float32(1e-3)


@pytest.fixture
def view() -> ServerView:
    after: Arrays = {name: np.add(value, 1 if value.dtype.kind == "i" else CHANGE) for name, value in BEFORE.items()}
    return ServerView(Recipe(norm="batch", lr=0.5, momentum=0.9), dict(BEFORE), after, 4, (1, 0, 1, 1))


def without(view: ServerView, *leaves: str) -> ServerView:
    return replace(view, after={n: v for n, v in view.after.items() if n.rsplit(".", 1)[-1] not in leaves})


@pytest.mark.parametrize("labels", [None, (1, 0, 1, 1)])
def test_a_saved_view_comes_back(view: ServerView, labels: tuple[int, ...] | None, tmp_path: Path) -> None:
    saved = replace(view, labels=labels)
    saved.save(tmp_path / "deep" / "view")
    back = ServerView.load(tmp_path / "deep" / "view")
    assert (back.recipe, back.examples, back.labels) == (saved.recipe, 4, labels)
    for one, other in ((back.before, saved.before), (back.after, saved.after)):
        assert list(one) == list(other)
        for name, value in other.items():
            assert (one[name].dtype, one[name].shape) == (value.dtype, np.shape(value))
            np.testing.assert_array_equal(one[name], value)
    assert sorted(path.name for path in (tmp_path / "deep" / "view").iterdir()) == ["view.json", "view.safetensors"]


def test_saving_again_replaces(view: ServerView, tmp_path: Path) -> None:
    view.save(tmp_path)
    without(view, "running_mean", "running_var").save(tmp_path)
    assert not ServerView.load(tmp_path).statistics


def test_arrays_that_are_views_of_others_are_saved_as_they_read(view: ServerView, tmp_path: Path) -> None:
    turned = replace(view, before={**view.before, "z.weight": np.arange(6, dtype=np.float32).reshape(3, 2).T})
    turned.save(tmp_path)
    np.testing.assert_array_equal(ServerView.load(tmp_path).before["z.weight"], [[0, 2, 4], [1, 3, 5]])


def test_the_update_is_in_float64(view: ServerView) -> None:
    assert view.parameters == ("z.weight", "norm.weight", "a.bias")
    assert tuple(view.update) == view.parameters
    for name, change in view.update.items():
        assert change.dtype == np.float64
        assert change.shape == view.before[name].shape
        before, after = (side[name].astype(np.float64) for side in (view.before, view.after))
        np.testing.assert_array_equal(change, after - before)


def test_what_did_not_travel(view: ServerView, tmp_path: Path) -> None:
    assert view.statistics
    silent = without(view, "running_mean", "running_var", "num_batches_tracked")
    assert not silent.statistics
    assert silent.parameters == view.parameters
    assert silent.update.keys() == view.update.keys()
    silent.save(tmp_path)
    back = ServerView.load(tmp_path)
    assert list(back.after) == list(silent.after)
    assert list(back.before) == list(view.before)


def test_nothing_comes_back_that_was_not_sent(view: ServerView) -> None:
    with pytest.raises(AssertionError, match="never sent out"):
        replace(view, after={**view.after, "extra": np.zeros(1)})


def test_no_view_at_all(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"no saved view .*capture it again"):
        ServerView.load(tmp_path / "nowhere")


@pytest.mark.parametrize("name", ["view.json", "view.safetensors"])
@pytest.mark.parametrize("damage", ["missing", "cut", "noise"])
def test_a_damaged_view(view: ServerView, name: str, damage: str, tmp_path: Path) -> None:
    view.save(tmp_path)
    file = tmp_path / name
    whole = file.read_bytes()
    if damage == "missing":
        file.unlink()
    else:
        file.write_bytes(whole[: len(whole) // 2] if damage == "cut" else b"\xff\xfe" * 40)
    with pytest.raises(RunError, match=r"no saved view .*capture it again"):
        ServerView.load(tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        {"version": 2},
        {"recipe": {"network": "convnet", "colour": 3}},
        {"recipe": None},
        {"order": {"before": ["z.weight"], "after": ["z.weight", "a.bias"]}},
        {"order": {"before": ["b"], "after": []}},
        {"order": None},
        {"examples": "many"},
        {"labels": 3},
    ],
)
def test_facts_that_cannot_be(view: ServerView, change: dict[str, object], tmp_path: Path) -> None:
    view.save(tmp_path)
    file = tmp_path / "view.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
    with pytest.raises(RunError, match="capture it again"):
        ServerView.load(tmp_path)


@pytest.mark.parametrize("text", ["[]", "3", "{}", "null"])
def test_facts_of_another_kind(view: ServerView, text: str, tmp_path: Path) -> None:
    view.save(tmp_path)
    (tmp_path / "view.json").write_text(text)
    with pytest.raises(RunError, match="capture it again"):
        ServerView.load(tmp_path)
