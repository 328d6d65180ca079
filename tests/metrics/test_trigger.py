from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from fedsec.attacks.triggers import TEXTURES, Patch, place
from fedsec.images import to_images
from fedsec.metrics.trigger import Match, at_its_place, trigger_match, trigger_rate, trigger_strength
from fedsec.types import Images
from tests.metrics.samples import lesions, stamped

REAL = Path(__file__).resolve().parents[3] / "shared" / "data" / "isic" / "class2"
every_trigger = pytest.mark.parametrize("texture", TEXTURES)
both_modes = pytest.mark.parametrize("channels", [1, 3])


def at(pattern: Images, top: int, left: int) -> Match:
    return at_its_place(Patch(pattern, top, left, 1.0))


def clean_and_held_out(channels: int) -> tuple[Images, Images]:
    return to_images(lesions(400, "clean", channels=channels).pixels), to_images(
        lesions(300, "other", channels=channels).pixels
    )


@every_trigger
@both_modes
@pytest.mark.parametrize("position", ["bottom-right", "top-left"])
@pytest.mark.parametrize("side", [2, 4])
def test_tells_stamped_from_clean(texture: str, channels: int, position: str, side: int) -> None:
    clean, other = clean_and_held_out(channels)
    pattern = TEXTURES[texture](side, channels)
    top, left = place(position, 32, side)
    rates = {
        blend: trigger_rate(stamped(other, pattern, top, left, blend), clean, at(pattern, top, left)).value
        for blend in (0.0, 0.5, 1.0)
    }
    assert rates[0.0] <= 0.04
    assert rates[1.0] == 1.0
    assert rates[0.5] >= 0.9


@every_trigger
@both_modes
def test_a_full_stamp_matches_one_and_nothing_exceeds_it(texture: str, channels: int) -> None:
    clean, _ = clean_and_held_out(channels)
    pattern = TEXTURES[texture](4, channels)
    np.testing.assert_allclose(trigger_match(stamped(clean, pattern, 27, 27, 1.0), pattern, 27, 27), 1, atol=1e-6)
    anything = np.random.default_rng(0).uniform(-1, 1, clean.shape).astype(np.float32)
    assert np.abs(trigger_match(anything, pattern, 27, 27)).max() <= 1 + 1e-9


@every_trigger
@both_modes
def test_strength_is_the_blend_and_roughness_has_none(texture: str, channels: int) -> None:
    clean, other = clean_and_held_out(channels)
    pattern = TEXTURES[texture](4, channels)

    def strength(images: Images) -> float:
        return trigger_strength(images, clean, at(pattern, 27, 27)).value

    assert strength(stamped(other, pattern, 27, 27, 1.0)) == pytest.approx(1, abs=0.05)
    assert abs(strength(other)) < 0.05
    rough = other.copy()
    rough[:, :, 26:, 26:] += np.random.default_rng(0).normal(0, 0.2, rough[:, :, 26:, 26:].shape).astype(np.float32)
    assert abs(strength(rough)) < 0.05
    assert trigger_rate(rough, clean, at(pattern, 27, 27)).value > 0.02, (
        "which the rate takes for the trigger now and then"
    )


@every_trigger
@both_modes
def test_the_match_grows_with_the_blend(texture: str, channels: int) -> None:
    clean, _ = clean_and_held_out(channels)
    pattern = TEXTURES[texture](4, channels)
    means = [trigger_match(stamped(clean, pattern, 27, 27, b), pattern, 27, 27).mean() for b in (0, 0.25, 0.5, 1)]
    assert means == sorted(means)


@every_trigger
@both_modes
def test_a_blurred_noisy_stamp_is_still_a_trigger(texture: str, channels: int) -> None:
    """What a generator makes of a trigger is softer than the trigger."""
    clean, other = clean_and_held_out(channels)
    pattern = TEXTURES[texture](4, channels)
    soft = ndimage.gaussian_filter(stamped(other, pattern, 27, 27, 1.0), (0, 0, 0.6, 0.6))
    soft = (soft + np.random.default_rng(0).normal(0, 0.05, soft.shape)).clip(-1, 1).astype(np.float32)
    assert trigger_rate(soft, clean, at(pattern, 27, 27)).value > 0.95


@every_trigger
def test_elsewhere_is_no_trigger(texture: str) -> None:
    clean, other = clean_and_held_out(3)
    pattern = TEXTURES[texture](4, 3)
    assert trigger_rate(stamped(other, pattern, 1, 1, 1.0), clean, at(pattern, 27, 27)).value <= 0.04


@every_trigger
def test_the_threshold_lets_one_percent_of_the_clean_images_pass(texture: str) -> None:
    clean, _ = clean_and_held_out(3)
    pattern = TEXTURES[texture](4, 3)
    assert trigger_rate(clean, clean, at(pattern, 27, 27)).value <= 0.01


def test_the_rate_is_the_share_that_carries_it() -> None:
    clean, other = clean_and_held_out(3)
    pattern = TEXTURES["noise"](4, 3)
    mixed = np.concatenate([stamped(other[:75], pattern, 27, 27, 1.0), other[75:]])
    score = trigger_rate(mixed, clean, at(pattern, 27, 27))
    assert score.value == pytest.approx(0.25, abs=0.03)
    assert (score.name, score.n, score.better) == ("trigger-rate", 300, "lower")


def test_a_pattern_like_its_surroundings_matches_nothing() -> None:
    flat = np.full((3, 1, 16, 16), 0.5, np.float32)
    np.testing.assert_array_equal(trigger_match(flat, np.full((1, 1, 4, 4), 0.5, np.float32), 2, 2), 0)


def test_what_cannot_be_measured_is_nan_with_the_reason() -> None:
    clean, other = clean_and_held_out(3)
    pattern = TEXTURES["solid"](4, 3)
    broken = other.copy()
    broken[0, 0, 0, 0] = np.inf
    for generated, reference, reason in (
        (other, clean[:99], "99 clean images"),
        (other[:0], clean, "no generated"),
        (broken, clean, "diverged"),
    ):
        score = trigger_rate(generated, reference, at(pattern, 27, 27))
        assert math.isnan(score.value)
        assert reason in score.reason


@pytest.mark.real
@pytest.mark.skipif(not REAL.is_dir(), reason="needs shared/data/isic/class2 beside the project")
@every_trigger
@both_modes
def test_tells_stamped_from_clean_dermoscopy(texture: str, channels: int) -> None:
    files = sorted(REAL.glob("*/*.jpg"))[::3]
    mode = "RGB" if channels == 3 else "L"
    pixels = np.stack([np.asarray(Image.open(file).convert(mode).resize((32, 32))) for file in files])
    shown = to_images(pixels.reshape(len(files), 32, 32, channels))
    clean, other = shown[::2], shown[1::2]
    pattern = TEXTURES[texture](4, channels)
    top, left = place("bottom-right", 32, 4)
    rates = [
        trigger_rate(stamped(other, pattern, top, left, b), clean, at(pattern, top, left)).value for b in (0, 0.5, 1)
    ]
    assert rates[0] <= 0.04
    assert rates[1] >= 0.95
    assert rates[2] == 1.0
