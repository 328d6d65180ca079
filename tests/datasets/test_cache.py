"""Decoded once: equal bytes on every load, shared by a memory map, rebuilt when damaged."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fedsec.config import Data
from fedsec.datasets import cache as store
from fedsec.datasets import decode, intake, load
from tests.datasets.conftest import picture


def test_two_loads_give_equal_bytes_and_map_one_file(folder: Path) -> None:
    first, second = load(Data(source=str(folder))), load(Data(source=str(folder)))
    assert first.digest == second.digest
    for name in ("pixels", "labels", "sites", "groups", "train", "test"):
        assert np.array_equal(getattr(first, name), getattr(second, name))
    assert isinstance(second.pixels, np.memmap)
    assert not second.pixels.flags.writeable


def test_a_warm_load_decodes_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load(Data(source=str(folder)))
    monkeypatch.setattr(decode, "file_hashes", None)
    monkeypatch.setattr(decode, "decode_all", None)
    load(Data(source=str(folder)))


def test_touched_or_copied_files_are_the_same_set(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = load(Data(source=str(folder)))
    monkeypatch.setattr(decode, "decode_all", None)
    os.utime(folder / "benign" / "b0.png", (0, 0))
    assert load(Data(source=str(folder))).digest == first.digest
    shutil.copytree(folder, tmp_path / "copy")
    assert load(Data(source=str(tmp_path / "copy"))).digest == first.digest


def test_changed_bytes_or_settings_are_another_set(folder: Path) -> None:
    digests = {load(Data(source=str(folder))).digest, load(Data(source=str(folder), seed=1)).digest}
    digests |= {
        load(Data(source=str(folder), size=64)).digest,
        load(Data(source=str(folder), test_fraction=0.4)).digest,
    }
    picture(folder / "benign" / "b0.png", 99)
    digests.add(load(Data(source=str(folder))).digest)
    assert len(digests) == 5


@pytest.mark.parametrize("name", ["images.npy", "rows.npz", "meta.json"])
@pytest.mark.parametrize("damage", ["cut", "flip", "gone"])
def test_a_damaged_cache_is_rebuilt(folder: Path, cache: Path, name: str, damage: str) -> None:
    first = load(Data(source=str(folder)))
    before = first.pixels.copy()
    path = cache / first.digest / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    del first
    path.unlink()
    if damage != "gone":
        path.write_bytes(content[: len(content) // 2] if damage == "cut" else content)
    again = load(Data(source=str(folder)))
    assert np.array_equal(again.pixels, before)
    assert store.fetch(cache / again.digest, again.digest, "") is not None


def test_nothing_half_written_stays(folder: Path, cache: Path) -> None:
    load(Data(source=str(folder)))
    with pytest.raises(ZeroDivisionError):
        store.write(cache / "x", lambda stream: stream.write(bytes(1 // 0)))
    assert not [path for path in cache.rglob("*") if path.name.startswith(".") or path.name == "x"]


def test_where_the_cache_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert store.root(Data(cache=str(tmp_path / "named"))) == tmp_path / "named"
    assert store.root(Data()) == tmp_path / "cache"
    monkeypatch.delenv("FEDSEC_CACHE")
    assert store.root(Data()) == tmp_path / "xdg" / "fedsec"


def test_a_worker_imports_no_torch_no_pillow_no_hugging_face(folder: Path) -> None:
    """The warm path of load and partition, in a fresh process."""
    load(Data(source=str(folder)))
    code = (
        "import sys; from fedsec.config import Data, Split; from fedsec.datasets import load, partition; "
        f"d = load(Data(source={str(folder)!r})); partition(d, Split(clients=2), seed=0); "
        "print([m for m in ('torch', 'PIL', 'datasets', 'flwr_datasets', 'scipy', 'rich') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_progress_bar_goes_to_standard_error(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    load(Data(source=str(folder)), progress=True)
    assert capfd.readouterr().out == ""


def test_the_phantom_is_cached_by_its_settings(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = load(Data(count=40))
    monkeypatch.setattr(intake, "_built", None)
    assert load(Data(count=40)).digest == first.digest
    monkeypatch.undo()
    monkeypatch.setenv("FEDSEC_CACHE", str(cache))
    assert load(Data(count=40, modality="chest")).channels == 1
