"""A trigger of any kind is found in stamped images, and a detector that cannot says so."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fedsec.attacks.triggers import trigger
from fedsec.config import Attack, Data
from fedsec.datasets import load
from fedsec.images import to_images
from fedsec.metrics.marks import mark_of
from fedsec.types import Dataset

REAL = Path(__file__).resolve().parents[3] / "shared" / "data" / "isic" / "class2"


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return load(Data(count=600, cache=str(tmp_path_factory.mktemp("cache"))))


@pytest.mark.parametrize(("name", "blend"), [("patch", 0.0), ("distributed", 0.0), ("frequency", 0.3)])
def test_stamped_images_are_told_from_clean_ones(dataset: Dataset, name: str, blend: float) -> None:
    stamp = trigger(Attack(name=name, blend=blend), size=32, channels=3)  # type: ignore[arg-type]
    mark = mark_of(stamp, dataset, seed=0)
    images = to_images(dataset.rows(dataset.test).pixels)
    rate, strength = (score.value for score in mark.scores(images))
    assert mark.power > 0.9
    assert rate <= 0.04
    assert abs(strength) < 0.1
    rate, strength = (score.value for score in mark.scores(stamp.stamp(images)))
    assert rate > 0.9
    assert strength > 0.5


def test_a_blind_detector_gives_no_number(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fedsec.metrics.marks.STEPS", 2)
    mark = mark_of(trigger(Attack(name="warp", blend=0.01), size=32, channels=3), dataset, seed=0)
    scores = mark.scores(to_images(dataset.rows(dataset.test).pixels))
    assert [score.name for score in scores] == ["trigger-rate", "trigger-strength"]
    assert all(np.isnan(score.value) and "the detector finds only" in score.reason for score in scores)


@pytest.mark.real
@pytest.mark.skipif(not REAL.is_dir(), reason="no real images in ../shared/data")
def test_mixed_frequencies_are_found_on_real_skin() -> None:
    real = load(Data(source=str(REAL)))
    assert mark_of(trigger(Attack(name="frequency"), size=32, channels=3), real, seed=0).power > 0.95
