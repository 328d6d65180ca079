"""What public images say of an image nobody has seen: a Gaussian whose mean, main directions and spectrum are theirs.

``x = mean + directions a + filtered(w)`` with a and w standard normal: the first principal components of the public
images (Turk & Pentland 1991), and for what they leave a stationary Gaussian whose power at each frequency is that of
held-out public images less their projection (1/f, as natural images have it; Burton & Moorhead 1987). Half the squared
length of (a, w) is then the negative log of the prior, in nats, beside which a likelihood in nats needs no weight.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fedsec.seeds import stream
from fedsec.types import Images

DIRECTIONS = 100
"""Principal components at most; fewer where there are fewer public images."""
HELD = 5
"""One public image of so many is held out of the components, for the spectrum of what they leave."""


@dataclass(frozen=True)
class GaussianPrior:
    """``mean`` (c, s, s), ``directions`` (k, c, s, s) each as long as its deviation, ``power`` (c, s, s // 2 + 1): the
    root of the power that is left at each frequency."""

    mean: Tensor
    directions: Tensor
    power: Tensor

    @classmethod
    def of(cls, public: Images, *, mean: Images, seed: int = 0, device: str = "cpu") -> GaussianPrior:
        """Of ``public`` (n, c, s, s) around ``mean`` (1, c, s, s). Needs 2 * HELD images; with fewer the prior is the
        spectrum of an image that falls with 1 / frequency at the deviation of ``mean``, and has no directions."""
        centre = np.asarray(mean, np.float64)
        shape = centre.shape[1:]
        order = stream(seed, "gaussian-prior").permutation(len(public))
        held, fitted = np.split(np.asarray(public, np.float64)[order], [len(public) // HELD])
        if len(public) < 2 * HELD:
            deviation = max(float(centre.std()), 0.1)
            return cls(*_tensors(device, centre[0], np.zeros((0, *shape)), deviation * _falloff(shape)))
        _, lengths, rows = np.linalg.svd((fitted - centre).reshape(len(fitted), -1), full_matrices=False)
        rows, lengths = rows[:DIRECTIONS], lengths[:DIRECTIONS]
        off = (held - centre).reshape(len(held), -1)
        left = (off - (off @ rows.T) @ rows).reshape(len(held), *shape)
        power = np.square(np.abs(np.fft.rfft2(left, norm="ortho"))).mean(axis=0)
        directions = (rows * (lengths / np.sqrt(len(fitted)))[:, None]).reshape(-1, *shape)
        return cls(*_tensors(device, centre[0], directions, np.sqrt(_radial(power))))

    def start(self, count: int, *, seed: int, spread: float) -> list[Tensor]:
        """Coordinates (count, k) and (count, c, s, s) of images near the mean; ``spread``: deviation of the first, so
        that the images of a batch are not all alike, which nothing would tell apart again."""
        rng = torch.Generator().manual_seed(seed)
        near = spread * torch.randn(count, len(self.directions), generator=rng)
        return [near.to(self.mean.device), torch.zeros(count, *self.mean.shape, device=self.mean.device)]

    def images(self, at: list[Tensor]) -> Tensor:
        """(count, c, s, s); not kept within [-1, 1]."""
        main = self.mean + torch.einsum("nk,kchw->nchw", at[0], self.directions)
        waves = torch.fft.rfft2(at[1], norm="ortho") * self.power
        fine: Tensor = torch.fft.irfft2(waves, s=self.mean.shape[-2:], norm="ortho")
        return main + fine

    def coordinates(self, images: Tensor) -> list[Tensor]:
        """Coordinates of ``images``, the main directions taking all that they can: the inverse of ``images``."""
        off, lengths = images - self.mean, self.directions.flatten(1).square().sum(dim=1).clamp(min=1e-12)
        near = torch.einsum("nchw,kchw->nk", off, self.directions) / lengths
        left = off - torch.einsum("nk,kchw->nchw", near, self.directions)
        waves = torch.fft.rfft2(left, norm="ortho") / self.power.clamp(min=1e-6)
        return [near, torch.fft.irfft2(waves, s=self.mean.shape[-2:], norm="ortho")]

    def surprise(self, at: list[Tensor]) -> Tensor:
        """Negative log of the prior but for a constant, in nats, of all images together."""
        return torch.stack([part.square().sum() for part in at]).sum() / 2


def _radius(side: int) -> np.ndarray:
    """(side, side // 2 + 1): the length of each frequency, in waves a side."""
    found: np.ndarray = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)[None]) * side
    return found


def _radial(power: np.ndarray) -> np.ndarray:
    """(c, s, s // 2 + 1) averaged over frequencies of one length, which few images cannot tell apart."""
    ring = np.rint(_radius(power.shape[-2])).astype(np.int64).ravel()
    counts = np.maximum(np.bincount(ring), 1)
    means = [np.bincount(ring, weights=channel.ravel()) / counts for channel in power]
    return np.stack([mean[ring].reshape(power.shape[1:]) for mean in means])


def _falloff(shape: tuple[int, ...]) -> np.ndarray:
    return np.broadcast_to(1 / np.maximum(_radius(shape[-1]), 1), (*shape[:-1], shape[-1] // 2 + 1)).copy()


def _tensors(device: str, *arrays: np.ndarray) -> list[Tensor]:
    return [torch.from_numpy(np.asarray(array, np.float32)).to(device) for array in arrays]
