"""The benign client of a federated image generator."""

from __future__ import annotations

from collections.abc import Mapping

from flwr.client import NumPyClient
from flwr.common.typing import NDArrays, Scalar

from fedsec.config import RunConfig
from fedsec.images import mirrored
from fedsec.models.gan.learner import new_learner
from fedsec.privacy.noise import client_side
from fedsec.seeds import address_seed, stream
from fedsec.types import Arrays, Rows
from fedsec.weights import Layout


class GanClient(NumPyClient):
    """Trains the server's generator on this site's images for some steps a round.

    ``rows``: this site's images. ``kept``: what its learner keeps between rounds, empty at first; ``fit`` leaves the
    successor in ``self.kept``. ``secret``: seed of what must be hidden from the server (noise, and with DP-SGD who was
    drawn); ``seed`` in a simulation, the site's own on real machines.
    """

    def __init__(
        self,
        config: RunConfig,
        rows: Rows,
        *,
        partition: int,
        classes: int,
        seed: int,
        kept: Arrays,
        device: str = "cpu",
        secret: int | None = None,
    ) -> None:
        self.config, self.own, self.partition, self.seed, self.kept = config, rows, partition, seed, kept
        self.channels, self.classes, self.device = rows.pixels.shape[3], classes, device
        self.secret = seed if secret is None else secret

    def rows(self) -> Rows:
        """The images this client trains on; with DP-SGD each once, since a mirrored copy would count twice."""
        if not self.config.gan.mirror or self.config.privacy.images:
            return self.own
        return mirrored(self.own)

    def fit(self, parameters: NDArrays, config: Mapping[str, Scalar]) -> tuple[NDArrays, int, dict[str, Scalar]]:
        """One round. ``parameters``: the shared tensors in the learner's order; ``config["round"]``: from 1.

        Returns the shared tensors after training, the number of this site's own images, and the losses.
        """
        learner = new_learner(
            self.config, channels=self.channels, classes=self.classes, seed=self.seed, device=self.device, alone=True
        )
        received = dict(zip(learner.shared(), parameters, strict=True))
        learner.load(received, self.kept)
        seed = self.secret if self.config.privacy.images else self.seed
        number = int(config["round"])
        losses = learner.train(self.rows(), seed=address_seed(seed, "client", self.partition, "round", number))
        self.kept = learner.kept()
        sent = learner.shared()
        if self.config.defence.name == "dp-fixed" and self.config.privacy.noised_by == "clients":
            sent = self._noised(received, sent, number)
        return list(sent.values()), len(self.own), {**losses}

    def _noised(self, before: Arrays, after: Arrays, number: int) -> Arrays:
        """The clipped update with this client's share of the noise, in place of the update. How large a share is stands
        in the configuration, which the site can read, not in what the server says of a round."""
        layout, privacy = Layout.of(before), self.config.privacy
        origin = layout.vector(before)
        rng = stream(self.secret, "client", self.partition, "noise", number)
        update = client_side(layout.vector(after) - origin, privacy.bound, privacy.noise, rng, privacy.fewest)
        return layout.arrays(origin + update)
