"""Each layout, recognised and named: labels, groups, sites, splits as the source gives them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fedsec.config import Data
from fedsec.datasets import load
from fedsec.errors import DataError
from tests.datasets.conftest import picture


def test_class_folders(folder: Path) -> None:
    dataset = load(Data(source=str(folder)))
    assert dataset.pixels.shape == (12, 32, 32, 3)
    assert dataset.class_names == ("benign", "malignant")
    assert np.bincount(dataset.labels).tolist() == [6, 6]
    assert dataset.site_names == ("unknown",)
    assert len(np.unique(dataset.groups)) == 12


@pytest.mark.parametrize("litter", [".DS_Store", "benign/.hidden.png", "benign/Thumbs.db", "__MACOSX/benign/b0.png"])
def test_system_litter_and_documents_are_passed_over(folder: Path, litter: str) -> None:
    (folder / litter).parent.mkdir(parents=True, exist_ok=True)
    (folder / litter).write_bytes(b"litter")
    (folder / "README.txt").write_text("about")
    assert len(load(Data(source=str(folder))).labels) == 12


def test_a_sidecar_csv_gives_lesions_and_sites(folder: Path) -> None:
    rows = [
        f"source/{c}/{c[0]}{k}.png,L{k // 2},{'a' if k < 3 else 'b'}" for c in ("benign", "malignant") for k in range(6)
    ]
    (folder.parent / "source.csv").write_text("\n".join(["file,lesion_id,site", *rows]) + "\n")
    dataset = load(Data(source=str(folder)))
    assert dataset.site_names == ("a", "b")
    assert len(np.unique(dataset.groups)) == 3
    assert not set(dataset.groups[dataset.train]) & set(dataset.groups[dataset.test])


def test_train_and_test_folders_keep_their_split(tmp_path: Path) -> None:
    for part, count in (("train", 4), ("val", 1), ("test", 2)):
        for name in ("NORMAL", "PNEUMONIA"):
            for k in range(count):
                picture(tmp_path / "chest" / part / name / f"{part}{name}{k}.jpeg", k, gray=True)
    dataset = load(Data(source=str(tmp_path / "chest")))
    assert dataset.class_names == ("NORMAL", "PNEUMONIA")
    assert dataset.channels == 1
    assert (len(dataset.train), len(dataset.test)) == (10, 4)


def test_the_isic_2019_challenge(challenge: Path) -> None:
    dataset = load(Data(source=str(challenge)))
    assert dataset.class_names == ("benign", "malignant")
    assert dataset.labels.tolist() == [k % 2 for k in range(12)]
    assert dataset.site_names == ("rosendahl", "vidir_modern")
    assert len(np.unique(dataset.groups)) == 8
    (challenge / "HAM10000_metadata.csv").unlink()
    bare = load(Data(source=str(challenge), grouping="classes"))
    assert bare.class_names == ("MEL", "NV")
    assert len(np.unique(bare.groups)) == 12


@pytest.mark.parametrize("ending", ["", ".png"])
def test_a_csv_with_file_and_label(folder: Path, ending: str) -> None:
    rows = [f"{c}/{c[0]}{k}{ending},{c},p{k % 3}" for c in ("benign", "malignant") for k in range(6)]
    (folder / "labels.csv").write_text("\n".join(["Image,Label,patient_id", *rows]) + "\n", "utf-8-sig")
    by_file, by_folder = (load(Data(source=str(folder / name))) for name in ("labels.csv", ""))
    assert by_file.digest == by_folder.digest
    assert len(np.unique(by_file.groups)) == 3


def test_a_csv_may_fix_the_split(folder: Path) -> None:
    rows = [f"{c}/{c[0]}{k}.png,{c},{'test' if k > 3 else 'train'}" for c in ("benign", "malignant") for k in range(6)]
    (folder / "labels.csv").write_text("\n".join(["file,label,split", *rows]) + "\n")
    dataset = load(Data(source=str(folder)))
    assert dataset.test.tolist() == [4, 5, 10, 11]


@pytest.mark.parametrize(
    ("images", "names", "channels"),
    [
        (np.zeros((7, 28, 28), np.uint8), ("0", "1", "2", "3", "4", "5", "6"), 1),
        (np.zeros((7, 28, 28, 3), np.uint8), ("benign", "malignant"), 3),
    ],
)
def test_medmnist(tmp_path: Path, images: Any, names: tuple[str, ...], channels: int) -> None:
    arrays: dict[str, Any] = {f"{part}_images": images for part in ("train", "val", "test")}
    labels: dict[str, Any] = {
        f"{part}_labels": np.arange(7, dtype=np.uint8)[:, None] for part in ("train", "val", "test")
    }
    np.savez(tmp_path / "set.npz", **arrays, **labels)
    dataset = load(Data(source=str(tmp_path / "set.npz"), size=64))
    assert dataset.pixels.shape == (21, 64, 64, channels)
    assert dataset.class_names == names
    assert (len(dataset.train), len(dataset.test)) == (14, 7)
    if channels == 3:
        assert dataset.labels[:7].tolist() == [1, 1, 0, 0, 1, 0, 0]


@pytest.mark.parametrize(("name", "said"), [("nowhere", "no such file"), ("empty", "unrecognised layout")])
def test_a_source_that_is_none(tmp_path: Path, name: str, said: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=said):
        load(Data(source=str(tmp_path / name)))
    with pytest.raises(DataError, match="no such file"):
        load(Data(source="a\0b"))


def test_a_named_layout_must_fit(folder: Path) -> None:
    with pytest.raises(DataError, match=r"data.format = 'medmnist'.* is a folder"):
        load(Data(source=str(folder), format="medmnist"))


def test_images_are_cropped_to_the_central_square(tmp_path: Path) -> None:
    for name, colour in (("a", 40), ("b", 80)):
        wide = np.zeros((16, 48, 3), np.uint8)
        wide[:, 16:32] = (colour, 200, 90)
        (tmp_path / "s" / name).mkdir(parents=True)
        for k in range(2):
            wide[0, 0, 0] = k
            Image.fromarray(wide).save(tmp_path / "s" / name / f"{k}.png")
    dataset = load(Data(source=str(tmp_path / "s")))
    assert (dataset.pixels[0] == (40, 200, 90)).all()


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGBA", "LA"])
def test_modes_that_lose_nothing_are_taken(tmp_path: Path, mode: str) -> None:
    base = Image.fromarray(np.tile(np.arange(16, dtype=np.uint8) * 16, (16, 1)))
    for name in ("a", "b"):
        (tmp_path / "s" / name).mkdir(parents=True)
        for k in range(2):
            base.rotate(90 * k).convert(mode).save(tmp_path / "s" / name / f"{k}.png")
    assert load(Data(source=str(tmp_path / "s"))).channels == 1
