"""Small sources on disk, and a cache of their own for every test."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fedsec.config import Data
from fedsec.datasets import load
from fedsec.seeds import stream
from fedsec.types import Dataset


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv("FEDSEC_CACHE", str(folder))
    return folder


@pytest.fixture(scope="session")
def phantom(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """240 lesions from four sites, drawn once for all tests; never written to."""
    return load(Data(count=240, cache=str(tmp_path_factory.mktemp("phantom"))))


def picture(path: Path, seed: int = 0, *, gray: bool = False, size: tuple[int, int] = (12, 10)) -> Path:
    """Write one noise image of (width, height)."""
    shape = (size[1], size[0]) if gray else (size[1], size[0], 3)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(stream(seed, "picture", path.name).integers(0, 256, shape).astype(np.uint8)).save(path)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two classes of six RGB images each: source/{benign,malignant}/<k>.png."""
    for name in ("benign", "malignant"):
        for k in range(6):
            picture(tmp_path / "source" / name / f"{name[0]}{k}.png", k)
    return tmp_path / "source"


@pytest.fixture
def challenge(tmp_path: Path) -> Path:
    """An ISIC 2019 folder: 12 images of 8 lesions, MEL and NV, two sites."""
    root = tmp_path / "isic2019"
    truth = ["image,MEL,NV,UNK"]
    metadata = ["lesion_id,image_id,dx,dataset"]
    for k in range(12):
        picture(root / "ISIC_2019_Training_Input" / f"ISIC_{k:07d}.jpg", k)
        truth.append(f"ISIC_{k:07d},{float(k % 2)},{float(1 - k % 2)},0.0")
        metadata.append(f"HAM_{k % 8},ISIC_{k:07d},mel,{'rosendahl' if k % 3 else 'vidir_modern'}")
    (root / "ISIC_2019_Training_GroundTruth.csv").write_text("\n".join(truth) + "\n")
    (root / "HAM10000_metadata.csv").write_text("\n".join(metadata) + "\n")
    return root
