"""What a curious server draws out of the activations of one client of split learning."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property, partial

import numpy as np
import torch
from torch import Tensor, nn

from fedsec.config import RunConfig
from fedsec.config.lists import audits as named
from fedsec.config.lists import pairs
from fedsec.defences.activations import Control
from fedsec.images import to_images
from fedsec.metrics.gallery import Gallery
from fedsec.metrics.measures import SSIM
from fedsec.metrics.similarity import psnr, rdlv, ssim
from fedsec.models.order import batches
from fedsec.models.split_learning.exchange import Exchange
from fedsec.models.split_learning.halves import ClientHalf, SplitSpec, entering
from fedsec.models.split_learning.steps import Batch, outsider
from fedsec.probes.split_learning.attacks import ATTACKS
from fedsec.probes.split_learning.view import READINGS, Means, SplitView
from fedsec.seeds import address_seed, stream
from fedsec.types import Fit, Images
from strategies.observers.audits import Audits

MODELLING = ("adaptive", "adaptive-joint")
"""Attacks that know of PGSL's fold and map: where there is none they are 'white-box', and are not made again."""


class SplitAudit:
    """The attacks of ``leakage.attacks`` on the activations of a client's first training images.

    Every attacker has the activations and, unlike a server that keeps to the protocol, the client's half, as who
    averages halves or colludes with another client of an averaged half would. 'white-box' knows of PGSL its
    space-to-depth, 'adaptive' and 'adaptive-joint' the making of its map too; 'decoder' is another client: it has the
    control, and makes its map with a surrogate of its own, trained on ``audits.others`` as long as a client trains. The
    truth is used for scores alone.
    """

    def __init__(self, config: RunConfig, spec: SplitSpec, exchange: Exchange, audits: Audits, seed: int) -> None:
        self.spec, self.exchange, self.audits, self.seed = spec, exchange, audits, seed
        self.control = Control(config.cut.noise, config.cut.decorrelation)
        self.folded = spec.pgsl is not None and spec.pgsl.fold
        self.names = [name for name in named(config.leakage) if self.folded or name not in MODELLING]
        self.fewer = pairs(config.leakage.iterations)
        self.public = torch.from_numpy(to_images(audits.others.pixels))

    @cached_property
    def stranger(self) -> nn.Module | None:
        labels = torch.from_numpy(np.array(self.audits.others.labels))
        steps, size = self.exchange.k * self.exchange.messages, min(self.exchange.batch, len(labels))
        order = batches(len(labels), size, steps, stream(self.seed, "split-audit", "order"))
        own = [
            Batch(self.public[rows], labels[rows], address_seed(self.seed, "split-audit", n))
            for n, rows in enumerate(order)
        ]
        return outsider(self.spec, own, seed=self.seed, lr=self.exchange.lr)

    def attack(self, message: int, fit: Fit) -> None:
        """Every attack and the prior on one reply of an 'audit' round."""
        every = self.audits.truth(fit.partition)
        truth = every.take(np.arange(min(self.exchange.shown, len(every))))
        view = self._view(fit, len(truth))
        prior = torch.from_numpy(self.audits.prior)
        reading = READINGS["folded" if self.folded else "image"]
        means = Means(prior, self.public, self._asked(view), None, reading, 0, self.seed)
        images, nothing = to_images(truth.pixels), np.repeat(self.audits.prior, len(truth), axis=0)
        crowd = Gallery.of(self.audits.crowd(fit.partition))
        for name in self.names:
            started = time.monotonic()
            found = ATTACKS[name](view, replace(means, iterations=self.fewer.get(name, 0))).images
            values, each = self._scores(images, found)
            values |= {**crowd.scores(truth, found, None), "seconds": time.monotonic() - started}
            file = self.audits.picture(message, fit, name, images, found)
            self.audits.leak(message, fit, name, values, file, each=each)
        values, each = self._scores(images, nothing)
        self.audits.leak(message, fit, "prior", values, each=each)

    def _view(self, fit: Fit, count: int) -> SplitView:
        """What the reply holds of ``count`` images; the half sent them by its running statistics."""
        arrays = {name: torch.from_numpy(np.array(value)) for name, value in fit.arrays.items()}
        half = {name.removeprefix("half."): value for name, value in arrays.items() if name.startswith("half.")}
        shape = (self.spec.channels, self.spec.size, self.spec.size)
        return SplitView(arrays["activations"][:count], partial(ClientHalf, self.spec), shape, train=False, client=half)

    def _asked(self, view: SplitView) -> Callable[[Tensor], Tensor]:
        """Images -> activations, as another client of the same half and control sends them."""
        half, surrogate, draws = view.client_half(), self.stranger, stream(self.seed, "split-audit", "asked")
        rng = torch.Generator().manual_seed(address_seed(self.seed, "split-audit", "control"))

        def ask(images: Tensor) -> Tensor:
            seed = int(draws.integers(2**62))
            given = entering(self.spec, images, surrogate, None, seed=seed)
            return self.control.sent(half(given), rng).detach()

        return ask

    def _scores(self, truth: Images, found: Images) -> tuple[dict[str, float], dict[str, list[float]]]:
        """Means, and SSIM and PSNR image by image: images come in the order that activations were sent in."""
        leak = rdlv(truth, found, self.audits.prior, pairing="matched")
        each = {SSIM: ssim(truth, found), "psnr": psnr(truth, found)}
        values = {name: float(scores.mean()) for name, scores in each.items()}
        return {**values, "rdlv": leak.mean, "rdlv-max": leak.max}, {name: _list(x) for name, x in each.items()}


def _list(values: Sequence[float] | np.ndarray) -> list[float]:
    return [round(float(value), 4) for value in values]
