"""Laws that every entry of a table keeps. Add an entry and its tests exist."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fedsec.attacks.poison import POISONS, Party, stamp_rows
from fedsec.attacks.triggers import TEXTURES, TRIGGERS, part, patch, trigger
from fedsec.config import Attack
from fedsec.images import to_images, to_pixels
from fedsec.models.chance import Chance
from fedsec.models.gan.augment import AUGMENTS
from fedsec.models.gan.dcgan import IMAGE_SIZES, Discriminator, GanSpec, Generator
from fedsec.models.gan.losses import LOSSES
from fedsec.types import Pixels, Rows

POSITIONS = ("bottom-right", "bottom-left", "top-right", "top-left", "centre")


def pixels(n: int, size: int, channels: int) -> Pixels:
    return np.random.default_rng(0).integers(0, 256, (n, size, size, channels), dtype=np.uint8)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", sorted(TRIGGERS))
def test_a_trigger_keeps_shape_range_and_its_input(name: str, channels: int) -> None:
    images = to_images(pixels(3, 32, channels))
    before = images.copy()
    stamped = trigger(Attack(name=name), size=32, channels=channels).stamp(images)  # type: ignore[arg-type]
    assert stamped.shape == images.shape
    assert stamped.dtype == images.dtype
    assert stamped.min() >= -1
    assert stamped.max() <= 1
    np.testing.assert_array_equal(images, before)
    assert (stamped != images).any()


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize("texture", sorted(TEXTURES))
def test_a_patch_sits_in_its_place_and_nowhere_else(texture: str, position: str, channels: int) -> None:
    images = to_images(pixels(3, 32, channels))
    stamp = patch(Attack(trigger=texture, size=5, position=position), size=32, channels=channels)  # type: ignore[arg-type]
    stamped = stamp.stamp(images)
    changed = (stamped != images).any(axis=(0, 1))
    assert 0 < changed.sum() <= 25
    at = stamped[:, :, stamp.top : stamp.top + 5, stamp.left : stamp.left + 5]
    np.testing.assert_allclose(at, np.broadcast_to(stamp.pattern, at.shape))


@pytest.mark.parametrize("attackers", [1, 2, 3, 4])
def test_the_parts_of_a_shared_trigger_make_the_whole(attackers: int) -> None:
    images = to_images(pixels(3, 32, 3))
    whole = patch(Attack(size=4), size=32, channels=3)
    shared = images
    for index in range(attackers):
        shared = part(whole, index, attackers).stamp(shared)
    np.testing.assert_array_equal(shared, whole.stamp(images))
    assert sum(part(whole, index, attackers).area for index in range(attackers)) == whole.area


@pytest.mark.parametrize("texture", sorted(TEXTURES))
def test_half_a_blend_lies_half_way(texture: str) -> None:
    images = to_images(pixels(2, 32, 3))
    full = patch(Attack(trigger=texture, blend=1.0), size=32, channels=3).stamp(images)  # type: ignore[arg-type]
    half = patch(Attack(trigger=texture, blend=0.5), size=32, channels=3).stamp(images)  # type: ignore[arg-type]
    np.testing.assert_allclose(half, (full + images) / 2, atol=1e-6)


@pytest.mark.parametrize("name", sorted(POISONS))
def test_a_poison_is_seeded_keeps_the_count_and_touches_its_fraction(name: str) -> None:
    rows = Rows(pixels(40, 32, 3), np.arange(40) % 3)
    images, labels = rows.pixels.copy(), rows.labels.copy()
    attack = Attack(name=name, fraction=0.25)  # type: ignore[arg-type]
    poisoned = POISONS[name](rows, attack, Party(0, 2, 3, seed=5))
    again = POISONS[name](rows, attack, Party(0, 2, 3, seed=5))
    np.testing.assert_array_equal(rows.pixels, images)
    np.testing.assert_array_equal(rows.labels, labels)
    np.testing.assert_array_equal(poisoned.pixels, again.pixels)
    touched = (poisoned.pixels != images).any(axis=(1, 2, 3)) | (poisoned.labels != labels)
    assert touched.sum() == 10
    assert set(poisoned.labels) <= {0, 1, 2}


@pytest.mark.parametrize("fraction", [0.01, 0.25, 1.0])
def test_poison_stamps_its_fraction_and_leaves_its_input(fraction: float) -> None:
    rows = Rows(pixels(40, 32, 3), np.zeros(40, np.int64))
    before = rows.pixels.copy()
    stamp = trigger(Attack(trigger="solid"), size=32, channels=3)
    poisoned = stamp_rows(rows, stamp, fraction=fraction, seed=3)
    changed = (poisoned.pixels != rows.pixels).any(axis=(1, 2, 3)).sum()
    assert changed == max(1, round(fraction * 40))
    np.testing.assert_array_equal(rows.pixels, before)
    np.testing.assert_array_equal(poisoned.pixels, stamp_rows(rows, stamp, fraction=fraction, seed=3).pixels)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", IMAGE_SIZES)
def test_networks_keep_shape_and_range(size: int, channels: int) -> None:
    spec = GanSpec(size, channels, 2, width=8)
    labels = torch.tensor([0, 1, 1])
    images = Generator(spec)(torch.randn(3, spec.latent), labels)
    assert images.shape == (3, channels, size, size)
    assert images.abs().max() <= 1
    for norm in ("batch", "instance", "none"):
        assert Discriminator(spec, norm)(images, labels).shape == (3,)


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_a_loss_pulls_scores_apart_and_the_generator_up(name: str) -> None:
    loss = LOSSES[name]
    real, fake = torch.zeros(8, requires_grad=True), torch.zeros(8, requires_grad=True)
    pull_real, pull_fake = torch.autograd.grad(loss.discriminator(real, fake), [real, fake])
    assert bool((pull_real < 0).all()), "D must raise the score of real images"
    assert bool((pull_fake > 0).all()), "D must lower the score of fake images"
    fooled = torch.zeros(8, requires_grad=True)
    (pull,) = torch.autograd.grad(loss.generator(fooled), [fooled])
    assert bool((pull < 0).all()), "G must raise the score of its images"


def test_gradient_penalty_is_zero_for_a_unit_slope() -> None:
    direction = torch.randn(3 * 8 * 8)
    direction /= direction.norm()
    penalty = LOSSES["wgan-gp"].penalty
    assert penalty is not None
    real, fake = torch.randn(4, 3, 8, 8), torch.randn(4, 3, 8, 8)
    chance = Chance(0)
    assert float(penalty(lambda x: x.flatten(1) @ direction, real, fake, chance)) < 1e-10
    assert float(penalty(lambda x: 3 * (x.flatten(1) @ direction), real, fake, chance)) == pytest.approx(4, rel=1e-4)


@pytest.mark.parametrize("name", sorted(AUGMENTS))
def test_an_augmentation_keeps_shape_passes_gradients_and_is_seeded(name: str) -> None:
    images = torch.rand(4, 3, 32, 32, requires_grad=True)
    once = AUGMENTS[name](images, Chance(1))
    again = AUGMENTS[name](images, Chance(1))
    assert once.shape == images.shape
    assert torch.equal(once, again)
    once.sum().backward()  # type: ignore[no-untyped-call]
    assert images.grad is not None
    assert images.grad.abs().sum() > 0


def test_pixels_and_images_are_inverse() -> None:
    stored = pixels(5, 32, 3)
    images = to_images(stored)
    assert images.min() >= -1
    assert images.max() <= 1
    np.testing.assert_array_equal(to_pixels(images), stored)
