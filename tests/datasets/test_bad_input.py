"""Every bad input: one DataError that names it and its remedy; or a quarantine list where going on is safe."""

from __future__ import annotations

import json
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fedsec.config import Data
from fedsec.datasets import load, quarantine_list
from fedsec.errors import DataError
from tests.datasets.conftest import picture


def bomb(path: Path) -> None:
    """A small PNG that claims 20,000 x 20,000 pixels."""
    chunks = b"\x89PNG\r\n\x1a\n"
    for kind, body in ((b"IHDR", struct.pack(">IIBBBBB", 20000, 20000, 8, 2, 0, 0, 0)), (b"IDAT", zlib.compress(b"0"))):
        chunks += struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
    path.write_bytes(chunks)


def truncated(path: Path) -> None:
    picture(path, size=(64, 64))
    path.write_bytes(path.read_bytes()[:600])


def outward(path: Path) -> None:
    path.symlink_to(picture(path.parents[2] / "elsewhere.png"))


def cmyk(path: Path) -> None:
    Image.new("CMYK", (8, 8)).save(path.with_suffix(".tif"))


def transparent(path: Path) -> None:
    Image.new("RGBA", (8, 8), (1, 2, 3, 40)).save(path)


def linked_folder(path: Path) -> None:
    path.with_suffix("").symlink_to(path.parents[1] / "malignant", target_is_directory=True)


FILES: dict[str, tuple[Callable[[Path], object], str]] = {
    "truncated": (truncated, "unreadable or truncated image"),
    "empty": (lambda path: path.write_bytes(b""), "unreadable or truncated image"),
    "not an image": (lambda path: path.write_bytes(b"MZ not an image"), "not a JPEG, PNG, BMP or TIFF image"),
    "bomb": (bomb, "decompression bomb"),
    "link out": (outward, "link that leaves the source folder"),
    "broken link": (lambda path: path.symlink_to("nowhere"), "unreadable or truncated image"),
    "linked folder": (linked_folder, "linked folder"),
    "pipe": (lambda path: os.mkfifo(path), "neither a file nor a folder"),
    "gray among RGB": (lambda path: picture(path, gray=True), "wrong channel count"),
    "gray saved as RGB": (lambda path: Image.new("RGB", (8, 8), (9, 9, 9)).save(path), "wrong channel count"),
    "cmyk": (cmyk, "cannot become 8-bit gray or RGB"),
    "transparent": (transparent, "cannot become 8-bit gray or RGB"),
    "16 bit": (
        lambda path: Image.fromarray(np.zeros((8, 8), np.uint16)).save(path),
        "cannot become 8-bit gray or RGB",
    ),
}


@pytest.mark.parametrize("kind", FILES)
def test_a_bad_file_is_named_and_can_be_quarantined(folder: Path, kind: str) -> None:
    spoil, said = FILES[kind]
    spoil(folder / "benign" / "bad.png")
    with pytest.raises(DataError, match=said) as caught:
        load(Data(source=str(folder)))
    assert "benign/bad" in str(caught.value)
    assert "Remedy:" in str(caught.value)
    data = Data(source=str(folder), quarantine=True)
    dataset = load(data)
    assert (len(dataset.labels), dataset.quarantined) == (12, 1)
    (row,) = map(json.loads, quarantine_list(dataset, data).read_text().splitlines())
    assert row["file"].startswith("benign/bad")
    assert said in row["law"]
    with pytest.raises(DataError, match=said):
        load(Data(source=str(folder)))


def test_one_error_lists_everything_and_caps_long_lists(folder: Path, cache: Path) -> None:
    truncated(folder / "benign" / "cut.png")
    (folder / "empty").mkdir()
    picture(folder / "loose.png")
    for k in range(30):
        (folder / "malignant" / f"note{k:02d}.txt").write_text("x")
    with pytest.raises(DataError) as caught:
        load(Data(source=str(folder)))
    text = str(caught.value)
    for said in (
        "benign/cut.png",
        "empty class folder: 1: empty",
        "loose.png",
        "note19.txt and 10 more",
        "quarantine = true",
    ):
        assert said in text
    assert "note20" not in text
    (full,) = cache.glob("*/quarantine.jsonl")
    assert len(full.read_text().splitlines()) == 33


def test_a_file_name_cannot_write_to_the_terminal(folder: Path) -> None:
    (folder / "benign" / "\x1b[2J\udcff.png").write_bytes(b"x")
    with pytest.raises(DataError) as caught:
        load(Data(source=str(folder)))
    assert "\x1b" not in str(caught.value)
    str(caught.value).encode("utf-8")


def test_an_unknown_class_is_never_taken_for_benign(folder: Path) -> None:
    picture(folder / "sunburn" / "s.png")
    for quarantine in (False, True):
        with pytest.raises(DataError, match=r"class sunburn .*data.grouping = 'classes'"):
            load(Data(source=str(folder), quarantine=quarantine))
    assert load(Data(source=str(folder), grouping="classes")).class_names == ("benign", "malignant", "sunburn")


def table(folder: Path, *rows: str, header: str = "file,label") -> str:
    good = [f"{c}/{c[0]}{k}.png,{c}" for c in ("benign", "malignant") for k in range(6)]
    (folder / "t.csv").write_text("\n".join([header, *good, *rows]) + "\n")
    return str(folder / "t.csv")


ROWS = {
    "benign/gone.png,benign": "CSV row without its file: 1: benign/gone.png",
    "../elsewhere.png,benign": "climbs out of the source or is no path: 1: t.csv line 14",
    "/etc/hostname,benign": "climbs out of the source or is no path",
    "C:\\x.png,benign": "climbs out of the source or is no path",
    "benign/b0.png,benign,more": "more or fewer cells",
    "away/x.png,benign": "linked folder",
}


@pytest.mark.parametrize("row", ROWS)
def test_a_bad_row_is_named_and_can_be_quarantined(folder: Path, row: str) -> None:
    picture(folder.parent / "away" / "x.png")
    (folder / "away").symlink_to(folder.parent / "away", target_is_directory=True)
    source = table(folder, row)
    with pytest.raises(DataError, match=ROWS[row]):
        load(Data(source=source))
    dataset = load(Data(source=source, quarantine=True))
    assert len(dataset.labels) == 12
    assert dataset.quarantined >= 1


def test_a_file_without_its_row(folder: Path) -> None:
    source = table(folder)
    picture(folder / "benign" / "extra.png")
    with pytest.raises(DataError, match=r"image file without its CSV row: 1: benign/extra.png"):
        load(Data(source=source))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"name,label\nx.png,a\n", "missing column"),
        (b"", "not a|needs a header"),
        (b"file,file\nx,y\n", "distinct names"),
        (b"\xff\xfe\x00", "UTF-8"),
    ],
)
def test_a_csv_that_cannot_be_used(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "t.csv").write_bytes(content)
    with pytest.raises(DataError, match=said):
        load(Data(source=str(tmp_path / "t.csv")))


def test_a_file_named_twice_is_fatal(folder: Path) -> None:
    with pytest.raises(DataError, match="more than one CSV row"):
        load(Data(source=table(folder, "benign/b0.png,malignant"), quarantine=True))


def test_a_sidecar_must_name_every_file_and_only_those(folder: Path) -> None:
    rows = [f"source/benign/b{k}.png" for k in range(7)]
    (folder.parent / "source.csv").write_text("\n".join(["file", *rows]) + "\n")
    with pytest.raises(DataError) as caught:
        load(Data(source=str(folder)))
    assert "CSV row without its file: 1: benign/b6.png" in str(caught.value)
    assert "image file without its CSV row: 6: malignant/m0.png" in str(caught.value)


@pytest.mark.parametrize(
    ("cells", "said"),
    [
        ("1.0,1.0,0.0", "more than one class"),
        ("0.0,0.0,0.0", "row without a label"),
        ("0.0,0.0,1.0", r"row without a label: 1: .*\(UNK\)"),
        ("0.5,0.5,0.0", "neither 0 nor 1"),
    ],
)
def test_one_hot_rows(challenge: Path, cells: str, said: str) -> None:
    picture(challenge / "ISIC_2019_Training_Input" / "ISIC_0000099.jpg")
    truth = challenge / "ISIC_2019_Training_GroundTruth.csv"
    truth.write_text(truth.read_text() + f"ISIC_0000099,{cells}\n")
    with pytest.raises(DataError, match=said):
        load(Data(source=str(challenge)))
    assert load(Data(source=str(challenge), quarantine=True)).quarantined == 1


def test_a_patient_on_both_sides_of_a_given_split(folder: Path) -> None:
    rows = [
        f"{c}/{c[0]}{k}.png,{c},{'test' if k > 3 else 'train'},p{k % 4}"
        for c in ("benign", "malignant")
        for k in range(6)
    ]
    (folder / "t.csv").write_text("\n".join(["file,label,split,patient_id", *rows]) + "\n")
    with pytest.raises(DataError, match="both train and test: 2: patient p0, patient p1"):
        load(Data(source=str(folder)))


def medmnist(**changes: Any) -> dict[str, Any]:
    arrays: dict[str, Any] = {f"{p}_images": np.zeros((4, 28, 28), np.uint8) for p in ("train", "val", "test")}
    arrays |= {f"{p}_labels": np.array([[0], [1], [0], [1]], np.uint8) for p in ("train", "val", "test")}
    return {key: value for key, value in {**arrays, **changes}.items() if value is not None}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"val_labels": None}, "missing keys val_labels"),
        ({"val_labels": np.array([[{}]] * 4, object)}, "not a readable .npz of plain arrays"),
        ({"val_labels": np.zeros((4, 14), np.uint8)}, "whole numbers, one an image"),
        ({"val_labels": np.zeros((3, 1), np.uint8)}, "4 images and 3 labels"),
        ({"val_images": np.zeros((4, 28, 28), np.float32)}, "must be uint8"),
        ({"val_images": np.zeros((4, 20, 20), np.uint8)}, "different shapes"),
        ({"val_images": np.zeros((0, 28, 28), np.uint8)}, "is empty"),
    ],
)
def test_a_bad_npz(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    np.savez(tmp_path / "bad.npz", **medmnist(**changes))
    with pytest.raises(DataError, match=said):
        load(Data(source=str(tmp_path / "bad.npz")))


def test_a_damaged_npz(tmp_path: Path) -> None:
    (tmp_path / "bad.npz").write_bytes(b"PK\x03\x04 not really")
    with pytest.raises(DataError, match=r"not a readable \.npz"):
        load(Data(source=str(tmp_path / "bad.npz")))


def test_one_class_is_no_set(folder: Path) -> None:
    for path in (folder / "malignant").iterdir():
        path.unlink()
    (folder / "malignant").rmdir()
    with pytest.raises(DataError, match="only the class 'benign'"):
        load(Data(source=str(folder)))


def test_a_cache_that_cannot_be_written(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DataError, match=r"cache folder .* Remedy: set data.cache"):
        load(Data(source=str(folder), cache=str(tmp_path / "file" / "cache")))
