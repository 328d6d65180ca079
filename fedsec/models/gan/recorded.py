"""A DCGAN's local steps on CUDA as replays of one recorded step: the same draws, some hundred launches fewer a step.
The networks stay on the GPU from round to round, and only their values change."""

from __future__ import annotations

import threading
from functools import lru_cache

import torch

from fedsec.config import RunConfig
from fedsec.models.chance import Tape
from fedsec.models.gan.dcgan import GanSpec
from fedsec.models.gan.losses import LOSSES
from fedsec.models.gan.steps import StepLosses, new_discriminator, new_generator, new_pair, paired, step, steps
from fedsec.models.graphs import recorded
from fedsec.models.state import load_network, network_arrays
from fedsec.seeds import address_seed
from fedsec.types import Rows


class Recording:
    """One step of ``config``'s recipe on a pair of networks of its own. ``restart`` before a round; ``turn`` counts
    the restarts, by which a learner sees that the networks are still its own."""

    turn = 0

    def __init__(self, config: RunConfig, shape: GanSpec, device: str) -> None:
        self.shape, self.device, self.norm = shape, device, LOSSES[config.gan.loss].norm
        made = new_pair(config, shape, seed=0, device=device)
        on_cuda = torch.device(device).type == "cuda"
        self.pair = paired(config, made.generator, made.discriminator, capturable=on_cuda)
        batch = config.train.batch
        self.real = torch.zeros(batch, shape.channels, shape.size, shape.size, device=device)
        self.real = self.real.contiguous(memory_format=torch.channels_last)
        self.classes = torch.zeros(batch, dtype=torch.int64, device=device)
        self.tape = Tape(0, device)

        def once() -> tuple[torch.Tensor, torch.Tensor]:
            self.tape.rewind()
            return step(self.pair, config, self.real, self.classes, self.tape)

        once()
        self.replay = recorded(once, device=device)

    def restart(self, *, seed: int) -> None:
        """The weights that ``seed`` starts from, and optimisers that have seen nothing."""
        pair = self.pair
        self.turn += 1
        load_network(pair.generator, network_arrays(new_generator(self.shape, seed=seed)))
        load_network(pair.discriminator, network_arrays(new_discriminator(self.shape, self.norm, seed=seed)))
        for optimiser in (pair.generator_optimiser, pair.discriminator_optimiser):
            for state in optimiser.state.values():
                for value in state.values():
                    value.zero_()

    def train_round(self, rows: Rows, config: RunConfig, *, seed: int) -> StepLosses:
        """``fedsec.models.gan.steps.train_round`` by replay."""
        self.tape.seeded(address_seed(seed, "latents"))

        def take(real: torch.Tensor, classes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            self.real.copy_(real)
            self.classes.copy_(classes)
            self.tape.refill()
            generator, discriminator = self.replay()
            return generator.clone(), discriminator.clone()

        return steps(rows, config, take, seed=seed, device=self.device)


def recording(config: RunConfig, shape: GanSpec, device: str) -> Recording:
    """This thread's recording of this recipe, made at the first call."""
    recipe = {key: value for key, value in config.to_flat().items() if key.split(".")[0] in ("gan", "train")}
    return _made(tuple(sorted(recipe.items())), shape, device, threading.get_ident())


@lru_cache(maxsize=4)
def _made(
    recipe: tuple[tuple[str, bool | int | float | str], ...], shape: GanSpec, device: str, thread: int
) -> Recording:
    return Recording(RunConfig.from_flat(dict(recipe)), shape, device)
