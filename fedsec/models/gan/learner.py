"""What a site trains for one round, from arrays to arrays, whatever the model family. LEARNERS is the index."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

import numpy as np
import torch

from fedsec.config import FIRST_STEPS, RunConfig
from fedsec.models.gan.diffusion import DiffusionSpec, new_denoiser, new_optimiser, train_diffusion_round
from fedsec.models.gan.private import Noise, private_pair, train_private_round
from fedsec.models.gan.recorded import recording
from fedsec.models.gan.steps import Pair, StepLosses, new_pair, spec, train_round
from fedsec.models.state import load_network, load_optimiser, network_arrays, optimiser_arrays
from fedsec.types import Arrays, Rows
from fedsec.weights import shared_arrays


class Learner(Protocol):
    """The networks of one site with their optimisers, alive for one round. Equal seeds start from equal weights.

    ``shared``: what travels, named, in an order of its own. ``load``: takes what came from the server, and what this
    site kept ({} at first). ``kept``: what the site keeps. ``train``: one round on ``rows``; the losses it reports.
    """

    def load(self, shared: Mapping[str, np.ndarray], kept: Mapping[str, np.ndarray]) -> None: ...
    def train(self, rows: Rows, *, seed: int) -> dict[str, float]: ...
    def shared(self) -> Arrays: ...
    def kept(self) -> Arrays: ...


class GanLearner:
    """A generator against a discriminator of the site's own; with ``gan.share = 'both'`` both travel.

    Kept: discriminator, both Adam states, local BatchNorm statistics.
    """

    def __init__(self, config: RunConfig, *, channels: int, classes: int, seed: int, device: str) -> None:
        self.config, self.device, self.seed = config, device, seed
        self.shape = spec(config, channels=channels, classes=classes)
        self.pair = self.fresh()

    def fresh(self) -> Pair:
        return new_pair(self.config, self.shape, seed=self.seed, device=self.device)

    def load(self, shared: Mapping[str, np.ndarray], kept: Mapping[str, np.ndarray]) -> None:
        pair = self.pair
        if kept:
            load_network(pair.generator, _under("buffers", kept))
            load_network(pair.discriminator, _under("discriminator", kept))
            load_optimiser(pair.generator_optimiser, _under("g-adam", kept))
            load_optimiser(pair.discriminator_optimiser, _under("d-adam", kept))
        load_network(pair.generator, _under("generator", shared))
        load_network(pair.discriminator, _under("discriminator", shared))

    def train(self, rows: Rows, *, seed: int) -> dict[str, float]:
        return gan_losses(train_round(self.pair, rows, self.config, seed=seed, device=self.device))

    def shared(self) -> Arrays:
        pair = self.pair
        return shared_arrays(self.config.gan, network_arrays(pair.generator), network_arrays(pair.discriminator))

    def kept(self) -> Arrays:
        pair = self.pair
        buffers = {name: value.detach().cpu().numpy().copy() for name, value in pair.generator.named_buffers()}
        return {
            **_prefixed("buffers", buffers),
            **_prefixed("discriminator", network_arrays(pair.discriminator)),
            **_prefixed("g-adam", optimiser_arrays(pair.generator_optimiser)),
            **_prefixed("d-adam", optimiser_arrays(pair.discriminator_optimiser)),
        }


class RecordedGanLearner(GanLearner):
    """A GanLearner whose steps are replayed (``fedsec.models.gan.recorded``) on networks
    that all learners of its recipe in this thread share: making one ends the use of those before, which then raise
    RuntimeError."""

    def fresh(self) -> Pair:
        self.recording = recording(self.config, self.shape, self.device)
        self.recording.restart(seed=self.seed)
        self.turn = self.recording.turn
        return self.recording.pair

    def load(self, shared: Mapping[str, np.ndarray], kept: Mapping[str, np.ndarray]) -> None:
        self._alone()
        super().load(shared, kept)

    def train(self, rows: Rows, *, seed: int) -> dict[str, float]:
        self._alone()
        return gan_losses(self.recording.train_round(rows, self.config, seed=seed))

    def shared(self) -> Arrays:
        self._alone()
        return super().shared()

    def kept(self) -> Arrays:
        self._alone()
        return super().kept()

    def _alone(self) -> None:
        if self.turn != self.recording.turn:
            raise RuntimeError("a later learner of this thread has taken the recorded networks over: make a new one")


class PrivateGanLearner(GanLearner):
    """A GanLearner whose discriminator is trained by DP-SGD (``fedsec.models.gan.private``); reports generator losses
    only.

    ``rows`` must hold each image once, and ``seed`` must be the site's secret.
    """

    def fresh(self) -> Pair:
        return private_pair(self.config, self.shape, seed=self.seed, device=self.device)

    def train(self, rows: Rows, *, seed: int) -> dict[str, float]:
        privacy = self.config.privacy
        noise = Noise(privacy.image_bound, privacy.image_noise, self.config.train.batch)
        return told(train_private_round(self.pair, rows, self.config, noise, seed=seed, device=self.device))


class DiffusionLearner:
    """A denoiser (``fedsec.models.gan.diffusion``) as the whole generator. Kept: its Adam state, nothing else."""

    def __init__(self, config: RunConfig, *, channels: int, classes: int, seed: int, device: str) -> None:
        self.config, self.device = config, device
        shape = DiffusionSpec(config.data.size, channels, classes, config.gan.width)
        self.network = new_denoiser(shape, seed=seed).to(device)
        self.optimiser = new_optimiser(self.network, config)

    def load(self, shared: Mapping[str, np.ndarray], kept: Mapping[str, np.ndarray]) -> None:
        load_network(self.network, _under("generator", shared))
        if kept:
            load_optimiser(self.optimiser, _under("g-adam", kept))

    def train(self, rows: Rows, *, seed: int) -> dict[str, float]:
        losses = train_diffusion_round(self.network, self.optimiser, rows, self.config, seed=seed, device=self.device)
        return told(losses)

    def shared(self) -> Arrays:
        return _prefixed("generator", network_arrays(self.network))

    def kept(self) -> Arrays:
        return _prefixed("g-adam", optimiser_arrays(self.optimiser))


def told(losses: tuple[float, ...]) -> dict[str, float]:
    """What is reported of the generator's (the denoiser's) losses: epoch mean, last batch, which the released FedDetect
    reads, and mean over the FIRST_STEPS, while the generator is still nearly the server's."""
    return {
        "g-loss": float(np.mean(losses)),
        "g-loss-last": losses[-1],
        "g-loss-first": float(np.mean(losses[:FIRST_STEPS])),
    }


def gan_losses(losses: StepLosses) -> dict[str, float]:
    critic = losses.discriminator
    return {**told(losses.generator), "d-loss": float(np.mean(critic)), "d-loss-last": critic[-1]}


LEARNERS: dict[str, Callable[..., Learner]] = {
    "dcgan": GanLearner,
    "private dcgan": PrivateGanLearner,
    "diffusion": DiffusionLearner,
}


def new_learner(
    config: RunConfig, *, channels: int, classes: int, seed: int, device: str, alone: bool = False
) -> Learner:
    """The learner that ``gan.family`` names, private when ``privacy.image-bound`` says so.

    ``alone``: nobody in this thread uses an older learner again; on CUDA a DCGAN's steps are then replayed.
    """
    name = f"{'private ' if config.privacy.images else ''}{config.gan.family}"
    if alone and name == "dcgan" and torch.device(device).type == "cuda":
        return RecordedGanLearner(config, channels=channels, classes=classes, seed=seed, device=device)
    learner: Learner = LEARNERS[name](config, channels=channels, classes=classes, seed=seed, device=device)
    return learner


def _under(prefix: str, arrays: Mapping[str, np.ndarray]) -> Arrays:
    return {name[len(prefix) + 1 :]: value for name, value in arrays.items() if name.startswith(f"{prefix}.")}


def _prefixed(prefix: str, arrays: Arrays) -> Arrays:
    return {f"{prefix}.{name}": value for name, value in arrays.items()}
