"""The diffusion model: laws of noising and sampling in closed form, training on toys, no global randomness."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from fedsec.config import RunConfig
from fedsec.errors import ConfigError
from fedsec.models.gan import diffusion
from fedsec.models.gan.denoiser import STEPS, Denoiser, DiffusionSpec, new_denoiser
from fedsec.models.gan.diffusion import (
    common_noise,
    ddim,
    diffusion_loss,
    generate_diffusion,
    levels,
    new_optimiser,
    noised,
    schedule,
    train_diffusion_round,
    velocity,
)
from fedsec.models.state import network_arrays
from fedsec.types import Rows

SMALL = DiffusionSpec(32, 3, 2, 16)
GRAY = DiffusionSpec(32, 1, 2, 16)
CONFIG = RunConfig.from_flat({"train.steps": 3, "train.batch": 8, "train.lr": 2e-3, "train.beta1": 0.9})
RNG = np.random.default_rng(0)
ROWS = Rows(RNG.integers(0, 256, (20, 32, 32, 3), dtype=np.uint8), RNG.integers(0, 2, 20))


def two_colours() -> Rows:
    """Class 0 dark, class 1 bright, each image its own shade."""
    labels = np.arange(32) % 2
    shades = np.where(labels == 0, 50, 205) + RNG.integers(-20, 21, 32)
    return Rows(np.broadcast_to(shades[:, None, None, None], (32, 32, 32, 1)).astype(np.uint8), labels)


class OneImage:
    """The perfect network when ``image`` (1, c, s, s) is all the data: its noise is known, so v is."""

    def __init__(self, image: Tensor) -> None:
        self.image = image

    def __call__(self, noisy: Tensor, step: Tensor, labels: Tensor) -> Tensor:
        alpha, sigma = levels(step)
        return velocity(self.image, step, (noisy - alpha * self.image) / sigma)


def ready(seed: int = 1) -> Denoiser:
    """A denoiser whose zero layers have been stirred, so that its output depends on all it is given."""
    network = new_denoiser(SMALL, seed=seed)
    rng = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in network.parameters():
            weight.add_(torch.randn(weight.shape, generator=rng), alpha=0.05)
    return network


@pytest.mark.parametrize("size", [32, 64, 128])
@pytest.mark.parametrize("channels", [1, 3])
def test_shapes_and_range_at_every_size(size: int, channels: int) -> None:
    shape = DiffusionSpec(size, channels, 3, 16)
    network = new_denoiser(shape, seed=0)
    out = network(torch.zeros(2, channels, size, size), torch.tensor([0, STEPS - 1]), torch.tensor([0, 2]))
    assert out.shape == (2, channels, size, size)
    images = generate_diffusion(network_arrays(network), shape, np.array([0, 1, 2]), seed=0, steps=2)
    assert images.shape == (3, channels, size, size)
    assert images.dtype == np.float32
    assert np.isfinite(images).all()
    assert np.abs(images).max() <= 1


@pytest.mark.parametrize(("size", "width"), [(48, 32), (32, 24), (32, 0)])
def test_unusable_shapes_are_refused(size: int, width: int) -> None:
    with pytest.raises(ConfigError, match="not supported"):
        DiffusionSpec(size, 3, 2, width)


def test_equal_seeds_give_equal_weights_and_only_weights_are_kept() -> None:
    one, same, other = (network_arrays(new_denoiser(SMALL, seed=seed)) for seed in (3, 3, 4))
    assert one.keys() == dict(Denoiser(SMALL).named_parameters()).keys()
    assert all(np.isfinite(value).all() for value in one.values())
    for name, value in one.items():
        np.testing.assert_array_equal(value, same[name])
    assert not np.array_equal(one["stem.weight"], other["stem.weight"])


def test_global_generators_are_not_touched() -> None:
    torch.manual_seed(3)
    np.random.seed(3)
    expected = (torch.rand(1).item(), np.random.rand())
    torch.manual_seed(3)
    np.random.seed(3)
    network = new_denoiser(SMALL, seed=0)
    train_diffusion_round(network, new_optimiser(network, CONFIG), ROWS, CONFIG, seed=1, device="cpu")
    generate_diffusion(network_arrays(network), SMALL, np.array([0, 1]), seed=0, steps=2)
    assert (torch.rand(1).item(), np.random.rand()) == expected


def test_schedule_falls_from_image_to_noise() -> None:
    alpha_bar = schedule()
    assert alpha_bar.shape == (STEPS,)
    assert (np.diff(alpha_bar) < 0).all()
    assert alpha_bar[0] > 0.999
    assert 0 < alpha_bar[-1] < 1e-6


@pytest.mark.parametrize("step", [0, STEPS // 2, STEPS - 1])
def test_noising_keeps_the_signal_and_adds_the_variance_it_says(step: int) -> None:
    noise = torch.randn(400, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    steps = torch.full((400,), step)
    image = torch.linspace(-1, 1, 32).expand(400, 1, 32, 32)
    noisy = noised(image, steps, noise)
    alpha_bar = schedule()[step]
    spread = float(noisy.var(dim=0).mean())
    assert spread == pytest.approx(1 - alpha_bar, rel=0.02, abs=1e-5)
    kept = noisy.mean(dim=(0, 1, 2)) - np.sqrt(alpha_bar) * image[0, 0, 0]
    assert float(kept.abs().max()) < 0.05
    alpha, sigma = levels(steps)
    torch.testing.assert_close(alpha * noisy - sigma * velocity(image, steps, noise), image)


def test_a_perfect_network_has_no_loss_and_draws_its_image() -> None:
    image = torch.from_numpy(RNG.uniform(-1, 1, (1, 3, 32, 32)).astype(np.float32))
    perfect = OneImage(image)
    labels = torch.zeros(4, dtype=torch.int64)
    loss = diffusion_loss(perfect, image.expand(4, -1, -1, -1), labels, torch.Generator().manual_seed(0))
    assert float(loss) < 1e-4
    for steps in (1, 2, 10, 50):
        drawn = ddim(perfect, labels, common_noise(4, SMALL, seed=0), steps=steps)
        assert float((drawn - image).abs().max()) < 1e-3


def test_steps_of_a_batch_lie_evenly() -> None:
    seen: list[Tensor] = []

    def spy(noisy: Tensor, step: Tensor, labels: Tensor) -> Tensor:
        seen.append(step)
        return noisy

    rng = torch.Generator().manual_seed(0)
    for _ in range(50):
        diffusion_loss(spy, torch.zeros(16, 1, 32, 32), torch.zeros(16, dtype=torch.int64), rng)
    for step in seen:
        gaps = np.diff(np.sort(step.numpy()))
        assert gaps.min() >= STEPS // 16 - 1
        assert gaps.max() <= STEPS // 16 + 1
    drawn = torch.cat(seen)
    assert drawn.min() >= 0
    assert drawn.max() < STEPS
    assert float(drawn.float().mean()) == pytest.approx((STEPS - 1) / 2, abs=5)


def test_a_round_repeats_itself() -> None:
    def trained(seed: int) -> tuple[tuple[float, ...], np.ndarray]:
        network = new_denoiser(SMALL, seed=0)
        losses = train_diffusion_round(network, new_optimiser(network, CONFIG), ROWS, CONFIG, seed=seed, device="cpu")
        return losses, network_arrays(network)["head.weight"]

    losses, weights = trained(1)
    assert len(losses) == 3
    again, weights_again = trained(1)
    assert losses == again
    np.testing.assert_array_equal(weights, weights_again)
    assert trained(2)[0] != losses


def test_sampling_repeats_itself_and_chunks_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    network, labels = ready(), torch.tensor([0, 1, 0, 1, 1])
    noise = common_noise(5, SMALL, seed=2)
    whole = ddim(network, labels, noise, steps=4)
    torch.testing.assert_close(ddim(network, labels, noise, steps=4), whole, rtol=0, atol=0)
    monkeypatch.setattr(diffusion, "CHUNK", 2)
    torch.testing.assert_close(ddim(network, labels, noise, steps=4), whole, rtol=0, atol=1e-4)
    assert not torch.equal(ddim(network, 1 - labels, noise, steps=4), whole)
    assert not whole.requires_grad


def test_samples_depend_on_the_seed_alone() -> None:
    arrays = network_arrays(ready())
    few, more = np.array([0, 1]), np.array([0, 1, 1])
    drawn = generate_diffusion(arrays, SMALL, more, seed=1, steps=3)
    np.testing.assert_array_equal(drawn, generate_diffusion(arrays, SMALL, more, seed=1, steps=3))
    np.testing.assert_allclose(drawn[:2], generate_diffusion(arrays, SMALL, few, seed=1, steps=3), atol=1e-4)
    assert not np.array_equal(drawn, generate_diffusion(arrays, SMALL, more, seed=2, steps=3))


def test_training_lowers_the_loss_and_learns_what_a_label_means() -> None:
    network = new_denoiser(GRAY, seed=0)
    config = replace(CONFIG, train=replace(CONFIG.train, steps=50, batch=16))
    losses = train_diffusion_round(network, new_optimiser(network, config), two_colours(), config, seed=0, device="cpu")
    assert np.isfinite(losses).all()
    assert np.mean(losses[-5:]) < 0.5 * np.mean(losses[:5])
    images = generate_diffusion(network_arrays(network), GRAY, np.arange(16) % 2, seed=0, steps=10)
    dark, bright = images[::2].mean(axis=(1, 2, 3)), images[1::2].mean(axis=(1, 2, 3))
    assert dark.max() < 0 < bright.min(), (dark, bright)
