"""Warps and mixed frequencies do what their papers say, and stains have no edge."""

from __future__ import annotations

import numpy as np
import pytest

from fedsec.attacks.distortions import CONTROL, Frequency, Warp, frequency, warp
from fedsec.attacks.triggers import TRIGGERS
from fedsec.config import Attack
from fedsec.defences.inspection import sharp
from fedsec.images import to_images
from tests.metrics.samples import lesions


def spectra(images: np.ndarray) -> np.ndarray:
    return np.asarray(np.fft.fftshift(np.fft.fft2((images.astype(np.float64) + 1) * 127.5), axes=(2, 3)))


def test_a_warp_moves_pixels_by_half_its_strength_on_average_and_never_out_of_the_image() -> None:
    field = warp(Attack(), size=32, channels=3)
    rows, columns = np.meshgrid(np.arange(32), np.arange(32), indexing="ij")
    moved = np.abs(np.stack([field.rows - rows, field.columns - columns]))
    assert 0.1 < moved.mean() < 0.3  # s / 2 = 0.25 at the control points; the spline between them is a little smoother
    stronger = warp(Attack(blend=2.0), size=32, channels=3)
    assert np.abs(stronger.rows - rows).mean() > 3 * moved[0].mean()
    assert min(field.rows.min(), field.columns.min()) >= 0
    assert max(field.rows.max(), field.columns.max()) <= 31
    assert CONTROL == 4


def test_a_flat_image_has_nothing_to_warp() -> None:
    flat = np.full((1, 3, 32, 32), 0.25, np.float32)
    np.testing.assert_allclose(warp(Attack(blend=4.0), size=32, channels=3).stamp(flat), flat, atol=1e-6)


def test_a_ramp_is_shifted_by_the_field() -> None:
    ramp = np.broadcast_to(np.linspace(-1, 1, 32, dtype=np.float32)[:, None], (1, 1, 32, 32)).copy()
    field: Warp = warp(Attack(blend=2.0), size=32, channels=1)
    np.testing.assert_allclose(field.stamp(ramp)[0, 0], field.rows / 31 * 2 - 1, atol=1e-5)


@pytest.mark.parametrize("channels", [1, 3])
def test_frequencies_mix_amplitudes_in_the_window_and_keep_phase_and_the_rest(channels: int) -> None:
    images = 0.3 * to_images(lesions(4, "clean", channels=channels).pixels)  # far from the range's ends: no clipping
    trigger: Frequency = frequency(Attack(blend=0.15), size=32, channels=channels)
    before, after = spectra(images), spectra(trigger.stamp(images))
    assert trigger.half == 3
    window = np.zeros((32, 32), bool)
    window[13:20, 13:20] = True
    expected = np.where(window, 0.85 * np.abs(before) + 0.15 * trigger.amplitude, np.abs(before))
    np.testing.assert_allclose(np.abs(after), expected, rtol=1e-3, atol=0.5)
    strong = np.abs(before) > 20
    turned = np.abs(np.angle(after[strong] / before[strong]))
    assert turned.max() < 0.05


def test_a_stronger_mix_changes_more() -> None:
    images = to_images(lesions(8, "clean", channels=3).pixels)
    changes = [
        np.abs(frequency(Attack(blend=blend), size=32, channels=3).stamp(images) - images).mean()
        for blend in (0.05, 0.15, 0.5)
    ]
    assert changes == sorted(changes)


def test_a_stain_is_strongest_at_its_place_and_has_no_edge() -> None:
    clean = np.zeros((1, 3, 32, 32), np.float32)
    attack = Attack("stain", position="centre", blend=0.4)
    stained, pasted = (TRIGGERS[name](attack, size=32, channels=3).stamp(clean) for name in ("stain", "patch"))
    green = stained[0, 1]
    assert green.max() == pytest.approx(0.4, rel=0.05)
    assert np.unravel_index(green.argmax(), green.shape)[0] in (15, 16)
    assert np.abs(np.diff(green)).max() < 0.1 < np.abs(np.diff(pasted[0, 1])).max()
    of_stain, of_patch = (np.square(sharp(image[None].astype(np.float64))).max() for image in (stained, pasted))
    assert of_stain < of_patch / 50, "what fed-inspect calls sharp"
