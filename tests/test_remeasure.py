"""Kept strips are cut into the images that were put in, and pages have what they measure."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fedsec.errors import ConfigError
from fedsec.images import grid, save_png, to_images, to_pixels
from fedsec.metrics.measures import HEADINGS, SSIM
from fedsec.metrics.similarity import ssim
from fedsec.types import Dataset, Images
from studies.measures import remeasure
from studies.measures.remeasure import STRIPS, Strip, cut, measured, table
from tests.metrics.samples import lesions

PAGES = {"split-attacks": "split-attacks.md", "pgsl": "pgsl-privacy.md"}


def drawn(n: int = 3, channels: int = 1) -> tuple[Images, Images]:
    truth = to_images(lesions(n, "truth", channels=channels, size=32).pixels)
    noise = np.random.default_rng(0).normal(0, 0.2, truth.shape)
    return truth, np.clip(0.8 * truth + noise, -1, 1).astype(np.float32)


@pytest.mark.parametrize(("across", "enlarged", "of"), [(False, 3, "chest"), (True, 1, "chest"), (False, 2, "skin")])
def test_a_strip_is_cut_into_what_was_put_in(across: bool, enlarged: int, of: str, tmp_path: Path) -> None:
    """Eight bits move an SSIM by less than 0.002."""
    truth, found = drawn(channels=1 if of == "chest" else 3)
    rows = np.stack([truth, found])
    ordered = rows.swapaxes(0, 1) if across else rows
    sheet = grid(to_pixels(ordered.reshape(-1, *truth.shape[1:])), ordered.shape[1])
    save_png(sheet.repeat(enlarged, axis=1).repeat(enlarged, axis=2), tmp_path / "strip.png")
    strip = Strip("strip.png", ("truth", "decoder"), 32, enlarged, across, of)
    images = cut(strip, tmp_path / "strip.png")
    np.testing.assert_array_equal(images["truth"], to_images(to_pixels(truth)))
    np.testing.assert_allclose(ssim(images["truth"], images["decoder"]), ssim(truth, found), atol=0.002)
    (row,) = measured(strip, images, None)
    assert (row.name, len(row.near), row.leaks, row.ranks) == ("decoder", 3, None, None)
    with pytest.raises(ConfigError, match="mend STRIPS"):
        cut(Strip("strip.png", ("truth", "prior", "decoder"), 32, enlarged, across, of), tmp_path / "strip.png")


def test_the_true_image_is_ranked_among_its_label(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fedsec.metrics.iip.OTHERS", 5)
    truth, found = drawn(12)
    none = np.zeros(12, np.int64)
    data = Dataset("", to_pixels(truth), none, ("one",), none, ("",), np.arange(12), np.arange(12), none[:0], "0")
    ranks, searched = remeasure.ranked(truth[:3], found[:3], data)
    assert ranks.tolist() == [1, 1, 1]
    assert searched == pytest.approx(12)
    with pytest.raises(ConfigError, match="not in the data set"):
        remeasure.ranked(-truth[:3], found[:3], data)


@pytest.mark.parametrize(
    "strip", [strip for strip in STRIPS if strip.file.split("/")[0] in PAGES], ids=lambda s: s.file
)
def test_pages_have_what_their_strips_measure(strip: Strip) -> None:
    """All cells but identification, which needs the data set."""
    page = (remeasure.RESULTS / PAGES[strip.file.split("/")[0]]).read_text(encoding="utf-8").splitlines()
    rows = table({strip.file: measured(strip, cut(strip, remeasure.RESULTS / strip.file), None)})[2:]
    shown = [[cell.strip() for cell in line.split("|")[1:-1]] for line in page if line.startswith(f"| {strip.file} |")]
    expected = [[cell.strip() for cell in line.split("|")[1:-1]] for line in rows]
    assert [cells[:3] + cells[5:] for cells in shown] == [cells[:3] + cells[5:] for cells in expected]


def test_every_strip_of_the_index_is_there_and_has_the_name_of_its_measure() -> None:
    found = remeasure.remeasured(STRIPS, {})
    assert set(found) == {strip.file for strip in STRIPS}
    assert HEADINGS[SSIM] in table(found)[0]
    best = {name: max(rows, key=lambda row: row.near.mean()).name for name, rows in found.items()}
    assert best["leakage/one-image-224px.png"] == "row-space"
