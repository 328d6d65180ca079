"""Feature-space hijacking: a malicious server trains the client half into an encoder that it can decode (FSHA)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedsec.errors import ProbeError
from fedsec.models.chance import Chance
from fedsec.models.gan.losses import gradient_penalty
from fedsec.probes.descent import Reconstruction
from fedsec.probes.split_learning.learned import BATCH, Decoder
from fedsec.probes.split_learning.view import Means, SplitView, fresh
from fedsec.seeds import address_seed, stream

STEPS = 500
PENALTY = 10.0
RATE = 1e-3


class Critic(nn.Module):
    """Activations (n, k, h, h) -> a score each, (n, 1). No normalisation, since the penalty is per sample."""

    def __init__(self, channels: int, width: int = 32) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(channels, width, 3, 1, 1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(width, 2 * width, 4, 2, 1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(2 * width, 2 * width, 4, 2, 1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(2 * width, 1, 1),
        )

    def forward(self, activations: Tensor) -> Tensor:
        scores: Tensor = self.layers(activations)
        return scores.mean(dim=(2, 3))


def hijack(view: SplitView, means: Means) -> Reconstruction:
    """FSHA (Pasquini et al. 2021): a pilot encoder and its inverse learn public images, a critic learns to tell
    the client's activations from the pilot's, and the client is returned the gradient that makes them alike.

    Knows ``means.public``, the architecture (the pilot is built like the client half), and holds ``means.session``;
    ``view.activations`` are not asked. Wasserstein critic with gradient penalty, as the source's code.
    Departures: PENALTY and RATE fit networks of this size; the client steps with its own optimiser.
    """
    if means.session is None:
        raise ProbeError("hijacking needs the training session itself: a server that only watches takes another attack")
    public, session, rng = means.images(), means.session, stream(means.seed, "split", "hijack")
    mixing = Chance(address_seed(means.seed, "split", "hijack", "mixing"))
    channels, side = view.activations.shape[1:3]
    pilot = fresh(view.architecture, means.seed, "pilot")
    inverse = fresh(lambda: Decoder(channels, side, view.shape), means.seed, "inverse")
    critic = fresh(lambda: Critic(channels), means.seed, "critic")
    autoencoding = torch.optim.Adam([*pilot.parameters(), *inverse.parameters()], RATE)
    judging = torch.optim.Adam(critic.parameters(), RATE, betas=(0.5, 0.9))
    curve = []
    for _ in range(means.iterations or STEPS):
        sent = session.send().detach().requires_grad_(True)
        (towards,) = torch.autograd.grad(-critic(sent).mean(), sent)
        session.give_back(towards)
        images = public[torch.from_numpy(rng.integers(0, len(public), max(BATCH, len(sent))))]
        piloted = pilot(means.reading.enter(means.reading.lift(images)))
        error = F.mse_loss(inverse(piloted), images)
        _step(autoencoding, error)
        real, fake = piloted.detach()[: len(sent)], sent.detach()
        penalty = PENALTY * gradient_penalty(critic, real, fake, mixing)
        _step(judging, critic(fake).mean() - critic(real).mean() + penalty)
        curve.append(float(error.detach()))
    with torch.no_grad():
        found = inverse(session.watch())
    return Reconstruction(found.numpy(), curve[-1], {"public-error": curve[-1]}, tuple(curve))


def _step(optimiser: torch.optim.Optimizer, loss: Tensor) -> None:
    optimiser.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    optimiser.step()
