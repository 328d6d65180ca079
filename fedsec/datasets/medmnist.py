"""Layout 'medmnist': one .npz with {train,val,test}_{images,labels}; train and val become train, test stays test.

Images are (n, s, s) gray or (n, s, s, 3) RGB uint8, labels (n, 1) or (n,) whole numbers. The file knows no patients.
Class names: seven RGB labels are DermaMNIST's and ham10000_28's (akiec, bcc, bkl, df, mel, nv, vasc); two labels in a
file named *pneumonia* or *breast* are theirs; any other file keeps its numbers. Objects are never unpickled.
"""

from __future__ import annotations

import hashlib
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from fedsec.config import Data
from fedsec.datasets.problems import shown
from fedsec.datasets.progress import bar
from fedsec.datasets.raw import Raw, Source
from fedsec.errors import DataError, all_at_once
from fedsec.types import Pixels

PARTS = ("train", "val", "test")
SKIN = ("akiec", "bcc", "bkl", "df", "mel", "nv", "vasc")
PAIRS = {"pneumonia": ("normal", "pneumonia"), "breast": ("malignant", "benign")}
MAX_BYTES = 8 << 30
"""Of all arrays unpacked: a guard against a bomb."""

Parts = dict[str, npt.NDArray[np.generic]]


def open_source(path: Path, data: Data) -> Source:
    status = path.stat()
    fingerprint = f"{path} {status.st_size} {status.st_mtime_ns} {status.st_ino}"

    def digest() -> str:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "blake2b").hexdigest() + path.stem

    return Source(data.source, fingerprint, digest, lambda progress: (read(path, data.size, progress), []))


def read(path: Path, size: int, progress: bool) -> Raw:
    """Every image resized to ``size``. Raises one DataError with everything wrong in the file."""
    parts = _arrays(path)
    all_at_once(DataError, f"{shown(path.name)} is no MedMNIST file", _mistakes(parts))
    images = np.concatenate([parts[f"{part}_images"] for part in PARTS])
    numbers = np.concatenate([parts[f"{part}_labels"].reshape(-1) for part in PARTS]).astype(np.int64)
    splits = [("test" if part == "test" else "train") for part in PARTS for _ in range(len(parts[f"{part}_labels"]))]
    names = _names(path, images.ndim == 4, int(numbers.max()) + 1)
    with bar("resizing", len(images), progress) as step:
        pixels = _resized(images, size, step)
    none = [""] * len(images)
    return Raw(pixels, [names[k] for k in numbers], none, none, splits)


def _arrays(path: Path) -> Parts:
    keys = [f"{part}_{kind}" for part in PARTS for kind in ("images", "labels")]
    remedy = "Remedy: use a MedMNIST .npz with " + ", ".join(keys)
    try:
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(member.file_size for member in archive.infolist())
        if unpacked > MAX_BYTES:
            raise DataError(f"{shown(path.name)}: unpacks to {unpacked >> 30} GiB, above {MAX_BYTES >> 30}. {remedy}")
        with path.open("rb") as stored, np.load(stored, allow_pickle=False) as archive:
            missing = [key for key in keys if key not in archive.files]
            if missing:
                raise DataError(f"{shown(path.name)}: missing keys {', '.join(missing)}. {remedy}")
            return {key: archive[key] for key in keys}
    except (OSError, ValueError, EOFError, MemoryError, NotImplementedError, zlib.error, zipfile.BadZipFile) as error:
        text = shown(f"{path.name}: not a readable .npz of plain arrays ({error})")
        raise DataError(f"{text}. {remedy}") from error


def _mistakes(parts: Parts) -> list[str]:
    mistakes = []
    shapes = set()
    for part in PARTS:
        images, labels = parts[f"{part}_images"], parts[f"{part}_labels"]
        shapes.add(images.shape[1:])
        if images.dtype != np.uint8 or images.ndim not in (3, 4) or images.shape[3:] not in ((), (1,), (3,)):
            mistakes.append(
                f"{part}_images is {images.dtype} {images.shape}: must be uint8 (n, s, s) gray or (n, s, s, 3) RGB"
            )
        elif not images.size:
            mistakes.append(f"{part}_images is empty: must hold at least one image")
        if labels.dtype.kind not in "iu" or labels.size != len(labels):
            mistakes.append(f"{part}_labels is {labels.dtype} {labels.shape}: must be whole numbers, one an image")
        elif len(labels) != len(images):
            mistakes.append(f"{part}: {len(images)} images and {len(labels)} labels: must be as many")
        elif len(labels) and (labels.astype(np.int64).min() < 0 or labels.astype(np.int64).max() > 999):
            mistakes.append(f"{part}_labels runs from {labels.min()} to {labels.max()}: must lie in 0..999")
    if len(shapes) > 1:
        mistakes.append(f"images of different shapes {sorted(map(str, shapes))}: must be alike in train, val and test")
    return mistakes


def _names(path: Path, colour: bool, classes: int) -> tuple[str, ...]:
    if colour and classes == len(SKIN):
        return SKIN
    if classes == 2:
        for word, pair in PAIRS.items():
            if word in path.stem.lower():
                return pair
    width = len(str(classes - 1))
    return tuple(f"{k:0{width}d}" for k in range(classes))


def _resized(images: npt.NDArray[np.generic], size: int, step: Callable[[int], None]) -> Pixels:
    from fedsec.datasets.decode import squared

    channels = 3 if images.shape[3:] == (3,) else 1
    pixels: Pixels = np.empty((len(images), size, size, channels), np.uint8)
    for i, image in enumerate(images):
        plain = image if channels == 3 else image.reshape(image.shape[:2])
        pixels[i] = np.asarray(squared(Image.fromarray(plain), size)).reshape(size, size, channels)
        step(i + 1)
    return pixels
