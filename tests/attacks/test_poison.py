"""Every poison does to its own rows what its source says."""

from __future__ import annotations

import numpy as np
import pytest

from fedsec.attacks.poison import POISONS, Party
from fedsec.attacks.triggers import TEXTURES, patch, trigger
from fedsec.config import Attack
from fedsec.datasets.phantom import draw
from fedsec.images import to_images
from fedsec.types import Rows

PARTY = Party(0, 2, 3, seed=5)


def rows(channels: int = 3) -> Rows:
    pixels = np.random.default_rng(0).integers(0, 256, (30, 32, 32, channels), dtype=np.uint8)
    return Rows(pixels, np.arange(30) % 3)


def test_a_flipped_label_is_the_next_one() -> None:
    flipped = POISONS["label-flip"](rows(), Attack("label-flip"), PARTY)
    np.testing.assert_array_equal(flipped.labels, (rows().labels + 1) % 3)
    np.testing.assert_array_equal(flipped.pixels, rows().pixels)


def test_noise_images_are_uniform_over_all_values() -> None:
    noise = POISONS["noise-images"](rows(), Attack("noise-images"), PARTY)
    assert set(np.unique(noise.pixels)) == set(range(256))
    assert noise.pixels.mean() == pytest.approx(127.5, abs=1)
    assert noise.pixels.std() == pytest.approx(256 / 12**0.5, abs=1)
    beside = np.corrcoef(noise.pixels[..., :-1, 0].ravel(), noise.pixels[..., 1:, 0].ravel())[0, 1]
    assert abs(beside) < 0.03, "no pixel says anything of the next"
    np.testing.assert_array_equal(noise.labels, rows().labels)


@pytest.mark.parametrize(("channels", "kind"), [(3, "chest"), (1, "skin")])
def test_out_of_distribution_images_are_those_of_the_other_modality(channels: int, kind: str) -> None:
    strange = POISONS["out-of-distribution"](rows(channels), Attack("out-of-distribution"), PARTY)
    other = draw(kind, 30, 32, seed=5).pixels  # type: ignore[arg-type]
    told = other if channels == 3 else other.mean(axis=3, keepdims=True).round().astype(np.uint8)
    np.testing.assert_array_equal(strange.pixels, np.broadcast_to(told, strange.pixels.shape))
    assert strange.pixels.std() > 20


def test_attackers_that_share_a_trigger_stamp_a_part_each() -> None:
    attack = Attack("distributed", trigger="solid", size=4)
    changed = []
    for index in range(2):
        stamped = POISONS["distributed"](rows(), attack, Party(index, 2, 3, seed=5)).pixels
        changed.append((stamped != rows().pixels).any(axis=(0, 3)))
    assert not (changed[0] & changed[1]).any()
    whole = POISONS["patch"](rows(), Attack("patch", trigger="solid", size=4), PARTY).pixels
    np.testing.assert_array_equal(changed[0] | changed[1], (whole != rows().pixels).any(axis=(0, 3)))


def test_a_blended_texture_covers_the_image_at_a_fifth() -> None:
    images = to_images(rows().pixels)
    stamped = trigger(Attack("blended"), size=32, channels=3).stamp(images)
    np.testing.assert_allclose(stamped, 0.8 * images + 0.2 * TEXTURES["smooth"](32, 3), atol=1e-6)


def test_frequencies_are_mixed_at_the_share_of_the_source() -> None:
    images = to_images(rows().pixels)
    own = trigger(Attack("frequency"), size=32, channels=3).stamp(images)
    np.testing.assert_array_equal(own, trigger(Attack("frequency", blend=0.15), size=32, channels=3).stamp(images))


def test_a_patch_is_pasted_hard_unless_a_blend_is_asked_for() -> None:
    assert patch(Attack(), size=32, channels=3).blend == 1
    assert patch(Attack(blend=0.4), size=32, channels=3).blend == 0.4
