"""The client of split learning: the first layers, the images, and what else the exchange leaves at home."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from flwr.client import NumPyClient
from flwr.common.typing import NDArrays, Scalar
from torch import Tensor, nn

from fedsec.defences.activations import Control
from fedsec.errors import DataError
from fedsec.images import to_images
from fedsec.models.order import batches
from fedsec.models.split_learning.exchange import AVERAGE, NOBODY, Exchange, answered, travelling, variants
from fedsec.models.split_learning.halves import SplitSpec, probabilities
from fedsec.models.split_learning.steps import (
    Batch,
    Home,
    applied,
    entered,
    heads_step,
    held_out,
    new_home,
    paced,
    sent,
)
from fedsec.models.state import load_network, load_optimiser, network_arrays, optimiser_arrays
from fedsec.seeds import address_seed, stream
from fedsec.types import Arrays, Rows


class SplitClient(NumPyClient):
    """Answers the rounds of ``exchange`` (its page says what each asks).

    ``rows``: this site's training images; ``held``: those it is scored on, at least one (DataError). ``kept``: weights,
    running statistics and optimisers between rounds, empty at first; ``fit`` leaves the successor in ``self.kept``.
    ``control``: what this client does to its activations on its own. ``secret``: read once, when ``kept`` is empty, as
    the seed of what is this client's own: its order, its surrogate, its random maps, its noise. No activations or maps
    are kept: they are made again from the weights that made them.
    """

    def __init__(
        self,
        spec: SplitSpec,
        exchange: Exchange,
        rows: Rows,
        held: Rows,
        *,
        partition: int,
        seed: int,
        kept: Arrays,
        control: Control | None = None,
        device: str = "cpu",
        secret: int | None = None,
    ) -> None:
        if not len(held):
            raise DataError("a split client needs at least one held-out image to be scored on; there is none")
        self.spec, self.exchange, self.rows, self.held = spec, exchange, rows, held
        self.partition, self.seed, self.device = partition, seed, device
        self.kept, self.sent, self.control = kept, tuple[str, ...](), control or Control()
        fresh = address_seed(seed if secret is None else secret, "client", partition, "own")
        self.own = int(kept["own"][0]) if kept else fresh

    def fit(self, parameters: NDArrays, config: Mapping[str, Scalar]) -> tuple[NDArrays, int, dict[str, Scalar]]:
        """One round. ``config["round"]``: from 1; ``config["names"]``: those of ``parameters``, with commas between.

        Returns the reply's tensors, named by ``self.sent``; the number of this site's images; in a 'heads' round the
        mean loss of each stream as ``loss-<stream>``.
        """
        number = int(config["round"])
        phase, home = self.exchange.phases[number - 1], self._home()
        names = str(config["names"]).split(",") if config["names"] else []
        given = dict(zip(names, parameters, strict=True))
        told: dict[str, float] = {}
        if phase == "heads":
            arrays, told = self._heads(home, given, self.exchange.message(number))
        elif phase == "score":
            arrays = self._score(home, given)
        else:
            if "gradients" in given:
                self._apply(home, given["gradients"], self.exchange.message(number - 1))
            self._average(home, given)
            answer = {"send": self._send, "sync": self._sync, "test": self._test, "audit": self._audit}
            arrays = answer[phase](home, number)
        self.kept = _state(home, self.own)
        self.sent = tuple(arrays)
        return [*arrays.values()], len(self.rows), {**told}

    def _home(self) -> Home:
        """This client as it was left; new in its first round."""
        home = new_home(
            self.spec,
            seed=self.seed,
            own=address_seed(self.own, "surrogate"),
            heads=self.exchange.labels == "client",
            lr=self.exchange.lr,
        )
        for name, network in _networks(home).items():
            if self.kept:
                load_network(network, _under(self.kept, f"{name}."))
                load_optimiser(home.optimisers[name], _under(self.kept, f"{name}-adam."))
            network.to(self.device)
        return home

    def _batches(self, message: int) -> list[Batch]:
        """The K mini-batches of message ``message``, from 1."""
        k = self.exchange.k
        order = batches(len(self.rows), self.exchange.batch, k * self.exchange.messages, stream(self.own, "order"))
        found = []
        for n in range((message - 1) * k, message * k):
            taken = self.rows.take(order[n])
            images, labels = torch.from_numpy(to_images(taken.pixels)), torch.from_numpy(np.array(taken.labels))
            found.append(Batch(images.to(self.device), labels.to(self.device), address_seed(self.own, "batch", n)))
        return found

    def _paced(self, home: Home, message: int) -> None:
        k = self.exchange.k
        paced(home.optimisers.values(), (message - 1) * k, self.exchange.messages * k, self.exchange.lr)

    def _apply(self, home: Home, gradients: np.ndarray, message: int) -> None:
        mini = self._batches(message)
        self._paced(home, message)
        given, back = entered(home, mini), torch.from_numpy(np.array(gradients)).to(self.device)
        if self.control.decorrelation:
            own = zip(mini, sent(home, given), strict=True)
            back = back + torch.stack([self.control.pull(batch.images, clear) for batch, clear in own])
        applied(home, mini, given, back)

    def _average(self, home: Home, given: Arrays) -> None:
        average = _under(given, AVERAGE)
        for name, network in _networks(home).items():
            load_network(network, _under(average, f"{name}."))

    def _send(self, home: Home, number: int) -> Arrays:
        message = self.exchange.message(number)
        mini = self._batches(message)
        wire = self._wire([*sent(home, entered(home, mini))], "message", message)
        arrays: Arrays = {"activations": _array(wire)}
        if self.exchange.labels == "server":
            arrays["labels"] = np.stack([batch.labels.cpu().numpy() for batch in mini])
        return arrays

    def _heads(self, home: Home, given: Arrays, message: int) -> tuple[Arrays, dict[str, float]]:
        """The gradients of what the server's body made of the batches just sent."""
        self._paced(home, message)
        gradients, losses = [], []
        for k, batch in enumerate(self._batches(message)):
            features = {s: torch.from_numpy(given[f"features.{s}"][k]).to(self.device) for s in self.spec.streams}
            found, answer = heads_step(home, features, batch.labels)
            gradients.append(found)
            losses.append(answer.losses)
        arrays: Arrays = {
            f"gradients.{s}": _array(torch.stack([found[s] for found in gradients])) for s in self.spec.streams
        }
        return arrays, {f"loss-{s}": float(np.mean([loss[s] for loss in losses])) for s in self.spec.streams}

    def _sync(self, home: Home, number: int) -> Arrays:
        networks = {name: network_arrays(net) for name, net in _networks(home).items() if name != "surrogate"}
        return travelling(networks)

    def _places(self) -> tuple[Rows, int]:
        """The held-out images that are sent, the first again where there are too few, and how many are real."""
        return _filled(self.held, self.exchange.held), min(self.exchange.held, len(self.held))

    def _test(self, home: Home, number: int) -> Arrays:
        rows, count = self._places()
        images = torch.from_numpy(to_images(rows.pixels)).to(self.device)
        seed = address_seed(self.own, "held-out")
        found = [held_out(home, images, perturb=name == "on", seed=seed) for name in variants(self.spec)]
        arrays: Arrays = {"activations": _array(self._wire(found, "held-out", number))}
        if self.exchange.labels == "server":
            arrays["labels"] = np.where(np.arange(len(rows)) < count, rows.labels, NOBODY)
        return arrays

    def _audit(self, home: Home, number: int) -> Arrays:
        """The first training images, sent as held-out ones are, defences on; the first again where there are too few.
        Beside them the half, which an attacker of the audit is given."""
        images = torch.from_numpy(to_images(_filled(self.rows, self.exchange.shown).pixels)).to(self.device)
        found = held_out(home, images, perturb=True, seed=address_seed(self.own, "audit"))
        half = {f"half.{name}": value for name, value in network_arrays(home.half).items()}
        return {"activations": _array(self._wire([found], "audit", number)[0]), **half}

    def _wire(self, activations: Sequence[Tensor], *address: str | int) -> Tensor:
        """What of each batch leaves the client, one below the other; noise by this client's seed and ``address``."""
        rng = torch.Generator().manual_seed(address_seed(self.own, "control", *address))
        return torch.stack([self.control.sent(batch, rng) for batch in activations])

    @torch.no_grad()
    def _score(self, home: Home, given: Arrays) -> Arrays:
        rows, count = self._places()
        assert home.heads is not None, "only a U-shaped exchange has this round"
        right = []
        for v in range(len(variants(self.spec))):
            features = {s: torch.from_numpy(given[f"features.{s}"][v]).to(self.device) for s in self.spec.streams}
            shares = probabilities(self.spec, home.heads(features))
            best = [shares[s].argmax(1).cpu().numpy()[:count] for s in answered(self.spec)]
            right.append([int((one == rows.labels[:count]).sum()) for one in best])
        return {"right": np.array(right, np.int64), "count": np.array([count], np.int64)}


def _filled(rows: Rows, places: int) -> Rows:
    """The first ``places`` of ``rows``, the first again where there are too few."""
    return rows.take(np.where(np.arange(places) < len(rows), np.arange(places), 0))


def _networks(home: Home) -> dict[str, nn.Module]:
    every = {"half": home.half, "surrogate": home.surrogate, "heads": home.heads}
    return {name: network for name, network in every.items() if network is not None}


def _state(home: Home, own: int) -> Arrays:
    arrays: Arrays = {"own": np.array([own], np.int64)}
    for name, network in _networks(home).items():
        arrays |= {f"{name}.{key}": value for key, value in network_arrays(network).items()}
        adam = optimiser_arrays(home.optimisers[name])
        arrays |= {f"{name}-adam.{key}": value for key, value in adam.items()}
    return arrays


def _under(arrays: Arrays, prefix: str) -> Arrays:
    """The entries whose name begins with ``prefix``, without it."""
    return {name[len(prefix) :]: value for name, value in arrays.items() if name.startswith(prefix)}


def _array(tensor: Tensor) -> np.ndarray:
    return np.ascontiguousarray(tensor.detach().cpu().numpy().astype(np.float32))
