"""DP-SGD of the discriminator: what one image can do, what the noise is, and that a GAN still trains."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from fedsec.config import RunConfig
from fedsec.errors import ConfigError
from fedsec.models.gan.augment import AUGMENTS
from fedsec.models.gan.dcgan import Discriminator, GanSpec
from fedsec.models.gan.losses import LOSSES
from fedsec.models.gan.private import (
    Noise,
    PrivateStep,
    poisson,
    private_discriminator,
    private_pair,
    summed,
    train_private_round,
)
from fedsec.models.gan.steps import Pair, spec
from fedsec.models.state import network_arrays
from fedsec.privacy.accounting import Accountant, Poisson
from fedsec.seeds import stream
from fedsec.types import Rows

SHAPE = GanSpec(32, 3, 2, width=8)
CONFIG = RunConfig.from_flat({"train.steps": 3, "train.batch": 8, "gan.width": 8})
RNG = np.random.default_rng(0)
ROWS = Rows(RNG.integers(0, 256, (40, 32, 32, 3), dtype=np.uint8), RNG.integers(0, 2, 40))
LOSS = LOSSES["non-saturating"]


def some(images: int, seed: int) -> tuple[Tensor, Tensor]:
    rng = torch.Generator().manual_seed(seed)
    return torch.rand(images, 3, 32, 32, generator=rng) * 2 - 1, torch.randint(2, (images,), generator=rng)


def vector(critic: Discriminator) -> Tensor:
    return torch.cat([p.detach().flatten() for p in critic.parameters()])


def moved(real: tuple[Tensor, Tensor], noise: Noise, *, seed: int = 0, loss: str = "non-saturating") -> Tensor:
    """By how much one step of SGD at learning rate 1 moves the weights, against the same fakes."""
    critic = private_discriminator(SHAPE, seed=3)
    start = vector(critic)
    step = PrivateStep(critic, torch.optim.SGD(critic.parameters(), 1.0), LOSSES[loss], noise, seed=seed)
    step(*real, *some(8, seed=1))
    step.close()
    return vector(critic) - start


def train(config: RunConfig = CONFIG, *, multiplier: float = 1.0, seed: int = 5) -> tuple[Pair, tuple[float, ...]]:
    pair = private_pair(config, spec(config, channels=3, classes=2), seed=3, device="cpu")
    losses = train_private_round(pair, ROWS, config, Noise(1.0, multiplier, 8), seed=seed, device="cpu")
    return pair, losses


@pytest.mark.parametrize("loss", ["non-saturating", "hinge"])
def test_without_clip_and_noise_a_step_is_the_ordinary_one(loss: str) -> None:
    (real, labels), (fake, fake_labels) = some(8, seed=2), some(8, seed=1)
    critic = private_discriminator(SHAPE, seed=3)
    torch.autograd.backward(LOSSES[loss].discriminator(critic(real, labels), critic(fake, fake_labels)))
    gradient = torch.cat([p.grad.flatten() for p in critic.parameters() if p.grad is not None])
    torch.testing.assert_close(moved((real, labels), Noise(1e6, 0.0, 8), loss=loss), -gradient, atol=2e-6, rtol=1e-4)


@pytest.mark.parametrize("scale", [1.0, 1e3, 1e15, math.inf, math.nan])
def test_one_image_moves_the_weights_by_bound_over_batch_at_most(scale: float) -> None:
    (real, labels), noise = some(6, seed=2), Noise(0.01, 0.0, 8)
    real[-1] *= scale
    alone = moved((real[:-1], labels[:-1]), noise)
    together = moved((real, labels), noise)
    assert torch.isfinite(together).all()
    assert float((together - alone).norm()) <= 0.01 / 8 * (1 + 1e-4)
    if scale <= 1e3:
        assert float((together - alone).norm()) == pytest.approx(0.01 / 8, rel=1e-2)


def test_no_image_changes_what_another_scores() -> None:
    critic = private_discriminator(SHAPE, seed=3)
    images, labels = some(6, seed=2)
    torch.testing.assert_close(critic(images, labels)[:1], critic(images[:1], labels[:1]), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("images", [0, 6])
def test_noise_has_the_promised_deviation_whatever_was_drawn(images: int) -> None:
    real = some(images, seed=2)
    noise = moved(real, Noise(0.5, 3.0, 8)) - moved(real, Noise(0.5, 0.0, 8))
    assert len(noise) > 10_000
    assert float(noise.std()) == pytest.approx(3.0 * 0.5 / 8, rel=0.03)
    assert abs(float(noise.mean())) < 4 * float(noise.std()) / math.sqrt(len(noise))


def test_noise_comes_from_its_seed_and_torchs_global_generator_stays_as_it_was() -> None:
    real, noise = some(6, seed=2), Noise(0.5, 3.0, 8)
    before = torch.get_rng_state()
    first, again, other = moved(real, noise), moved(real, noise), moved(real, noise, seed=1)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("augment", sorted(AUGMENTS))
@pytest.mark.parametrize("loss", ["non-saturating", "hinge"])
def test_a_gan_trains_and_the_same_seed_gives_the_same_bits(loss: str, augment: str) -> None:
    config = RunConfig.from_flat({**CONFIG.to_flat(), "gan.loss": loss, "gan.augment": augment})
    start = private_pair(config, spec(config, channels=3, classes=2), seed=3, device="cpu")
    torch.manual_seed(1)
    pair, losses = train(config)
    torch.manual_seed(2)
    again, losses_again = train(config)
    assert losses == losses_again
    assert len(losses) == 3
    assert np.isfinite(losses).all()
    for network, same, old in (
        (pair.generator, again.generator, start.generator),
        (pair.discriminator, again.discriminator, start.discriminator),
    ):
        arrays, twin, before = network_arrays(network), network_arrays(same), network_arrays(old)
        assert list(arrays) == list(before)
        for name, value in arrays.items():
            np.testing.assert_array_equal(value, twin[name])
            assert np.isfinite(value).all()
        assert any(not np.array_equal(arrays[name], before[name]) for name in arrays)


def test_a_discriminator_still_learns_where_there_is_little_noise() -> None:
    """Real images are bright, fakes are not: D tells them apart after some steps at multiplier 0.5."""
    critic = private_discriminator(SHAPE, seed=3)
    step = PrivateStep(critic, torch.optim.Adam(critic.parameters(), 2e-3), LOSS, Noise(1.0, 0.5, 32), seed=0)
    for number in range(30):
        (real, labels), (fake, fake_labels) = some(32, seed=2 * number), some(32, seed=2 * number + 1)
        step((real + 1) / 2, labels, (fake - 1) / 2, fake_labels)
    step.close()
    images, labels = some(64, seed=1000)
    with torch.no_grad():
        bright, dark = critic((images + 1) / 2, labels).mean(), critic((images - 1) / 2, labels).mean()
    assert float(bright) > 0 > float(dark)


def test_the_generator_never_sees_a_real_image_or_label_directly() -> None:
    """With D held still by a learning rate of 0, other rows leave the generator as it was."""
    generators = []
    for rows in (ROWS, Rows(255 - ROWS.pixels, 1 - ROWS.labels)):
        pair = private_pair(CONFIG, spec(CONFIG, channels=3, classes=2), seed=3, device="cpu")
        for group in pair.discriminator_optimiser.param_groups:
            group["lr"] = 0.0
        train_private_round(pair, rows, CONFIG, Noise(1.0, 1.0, 8), seed=5, device="cpu")
        generators.append(network_arrays(pair.generator))
    for name, value in generators[0].items():
        np.testing.assert_array_equal(value, generators[1][name])


def test_poisson_draws_each_row_by_its_own_coin() -> None:
    samples = poisson(100, 5, 2000, stream(1))
    sizes = np.array([len(sample) for sample in samples])
    assert sizes.mean() == pytest.approx(5, rel=0.05)
    assert sizes.var() == pytest.approx(100 * 0.05 * 0.95, rel=0.1)
    assert (sizes == 0).any()
    share = np.bincount(np.concatenate(samples), minlength=100) / 2000
    assert abs(share - 0.05).max() < 5 * math.sqrt(0.05 * 0.95 / 2000)
    assert all(len(sample) == 40 for sample in poisson(40, 40, 3, stream(1)))


def test_a_summed_loss_has_gradients_that_do_not_depend_on_how_many_came() -> None:
    for loss in ("non-saturating", "hinge"):
        fake = torch.zeros(8, requires_grad=True)
        for images in (0, 1, 5):
            real = torch.zeros(images, requires_grad=True)
            pull_real, pull_fake = torch.autograd.grad(
                summed(LOSSES[loss], real, fake), [real, fake], allow_unused=True
            )
            assert pull_fake.tolist() == pytest.approx([0.5 if loss == "non-saturating" else 1.0] * 8)
            if images:
                assert pull_real.tolist() == pytest.approx([-0.5 if loss == "non-saturating" else -1.0] * images)


def test_epsilon_of_a_site_is_accounted_by_steps() -> None:
    accountant = Accountant(1.1, 1e-5, Poisson(8 / 4000), "site", "image")
    assert 0 < accountant.epsilon(3 * 100) < accountant.epsilon(20 * 100) < 8
    assert "adding or removing one image, after 300 releases; trusted: the site" in accountant.guarantee(300)


def test_what_cannot_be_private_is_refused() -> None:
    for critic, words in (
        (Discriminator(SHAPE, "batch", deviation=False), "BatchNorm2d"),
        (Discriminator(SHAPE, "instance"), "MinibatchDeviation"),
    ):
        with pytest.raises(ConfigError, match=f"{words} lets images see each other"):
            PrivateStep(critic, torch.optim.SGD(critic.parameters(), 1.0), LOSS, Noise(1.0, 1.0, 8), seed=0)
    private = private_discriminator(SHAPE, seed=3)
    with pytest.raises(ConfigError, match="gradient penalty"):
        PrivateStep(private, torch.optim.SGD(private.parameters()), LOSSES["wgan-gp"], Noise(1.0, 1.0, 8), seed=0)
    with pytest.raises(ConfigError, match="batch 50 of 40 images"):
        poisson(40, 50, 1, stream(1))
    with pytest.raises(ConfigError, match=r"\(3 found\)"):
        Noise(0.0, -1.0, 0)
