"""Attacks on split learning that learn: a decoder from auxiliary images, and UnSplit's clone of the client half."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedsec.errors import ProbeError
from fedsec.probes.descent import Reconstruction
from fedsec.probes.split_learning.matching import likened
from fedsec.probes.split_learning.view import Means, SplitView, fresh
from fedsec.probes.terms import excess, variation
from fedsec.seeds import address_seed, stream

BATCH = 16
DECODER_STEPS = 500
ROUNDS, IMAGE_STEPS, CLONE_STEPS = 40, 20, 20
"""UnSplit: alternations, steps on the images in each, steps on the clone. The source takes 1000, 100 and 100."""
UNSPLIT_VARIATION = 0.1
"""UnSplit's weight of total variation, on mean squared errors."""


class Decoder(nn.Module):
    """Activations (n, k, h, h) -> images (n, c, s, s) in [-1, 1]; s / h must be a power of two."""

    def __init__(self, channels: int, side: int, shape: tuple[int, int, int], width: int = 64) -> None:
        super().__init__()
        doublings = math.log2(shape[1] / side)
        if doublings % 1 or doublings < 0:
            raise ProbeError(f"images of {shape[1]} px from activations of {side}: the ratio must be a power of two")
        layers: list[nn.Module] = [nn.Conv2d(channels, width, 3, 1, 1), nn.LeakyReLU(0.2)]
        for _ in range(int(doublings)):
            narrow = max(width // 2, 16)
            layers += [nn.ConvTranspose2d(width, narrow, 4, 2, 1), nn.LeakyReLU(0.2)]
            width = narrow
        layers += [nn.Conv2d(width, width, 3, 1, 1), nn.LeakyReLU(0.2), nn.Conv2d(width, shape[0], 3, 1, 1)]
        self.layers = nn.Sequential(*layers)

    def forward(self, activations: Tensor) -> Tensor:
        out: Tensor = torch.tanh(self.layers(activations))
        return out


def decoder(view: SplitView, means: Means) -> Reconstruction:
    """Black box with auxiliary data (He et al. 2019): a network is trained to give back public images from
    what the client half makes of them, by mean squared error, and is then shown the victim's activations.

    Knows the activations, ``means.public`` and ``means.query``; no weights, no architecture. Whatever the client does
    before it sends (perturbation, noise) is in the queries, so the decoder learns to undo what can be undone.
    Departure: the decoder is not the mirrored client half, since that is not known here.
    """
    if means.query is None:
        raise ProbeError("a decoder learns from queries of the client half and was given none: take unsplit or fsha")
    public, steps = means.images(), means.iterations or DECODER_STEPS
    channels, side = view.activations.shape[1:3]
    net = fresh(lambda: Decoder(channels, side, view.shape), means.seed, "decoder")
    adam = torch.optim.Adam(net.parameters(), 1e-3)
    fall = torch.optim.lr_scheduler.CosineAnnealingLR(adam, steps)
    rng, curve = stream(means.seed, "split", "decoder"), []
    for _ in range(steps):
        images = public[torch.from_numpy(rng.integers(0, len(public), BATCH))]
        with torch.no_grad():
            sent = means.query(images)
        loss = F.mse_loss(net(sent), images)
        adam.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        adam.step()
        fall.step()
        curve.append(float(loss.detach()))
    with torch.no_grad():
        images = net(view.activations)
    return Reconstruction(images.numpy(), curve[-1], {"public-error": curve[-1]}, tuple(curve))


def unsplit(view: SplitView, means: Means) -> Reconstruction:
    """UnSplit (Erdogan et al. 2022): images and a clone of the client half are fitted to the activations in turn.

    Knows the activations and the architecture; neither weights nor data. Images and the first layer's weights may
    change sign together, or scale, or shift, and little but borders says which is right: of the images and their
    negatives those nearer to the prior are taken, with the mean colour and spread over the batch that public images
    have (ours). Other departures: images start from the prior, not from a constant, which under train-mode BatchNorm
    has no scale (from noise of 0.01 the layer amplified the noise: correlation with the truth 0.5, from the prior 0.9,
    on the test's lesions); all images of a batch share one clone; fewer steps (constants above) at ten times the rate;
    the clone of a client half in eval mode takes statistics 0 and 1, for which its affine part makes up.
    """
    clone = fresh(view.architecture, means.seed, "clone").train(view.train)
    rng = torch.Generator().manual_seed(address_seed(means.seed, "split", "unsplit"))
    first = means.prior + 0.01 * torch.randn(len(view.activations), *view.shape, generator=rng)
    canvas = means.reading.lift(first).clone().requires_grad_(True)
    drawing = torch.optim.Adam([canvas], 0.01, amsgrad=True)
    cloning = torch.optim.Adam(clone.parameters(), 0.01, amsgrad=True)
    curve = []
    for _ in range(means.iterations or ROUNDS):
        clone.requires_grad_(False)
        for _ in range(IMAGE_STEPS):
            images = means.reading.show(canvas)
            fit = F.mse_loss(clone(means.reading.enter(canvas)), view.activations)
            prior = UNSPLIT_VARIATION * variation(images) + excess(images) + means.reading.amiss(canvas)
            (canvas.grad,) = torch.autograd.grad(fit + prior, [canvas])
            drawing.step()
        clone.requires_grad_(True)
        entering = means.reading.enter(canvas.detach())
        for _ in range(CLONE_STEPS):
            fit = F.mse_loss(clone(entering), view.activations)
            cloning.zero_grad()
            fit.backward()  # type: ignore[no-untyped-call]
            cloning.step()
        curve.append(float(fit.detach()))
    images = means.reading.show(canvas.detach())
    images = likened(images if _along(images, means.prior) >= 0 else -images, means)
    return Reconstruction(images.clamp(-1, 1).numpy(), curve[-1], {"activations": curve[-1]}, tuple(curve))


def _along(images: Tensor, prior: Tensor) -> float:
    """Covariance of the mean image with the prior, over pixels."""
    mean = images.mean(dim=0)
    return float(((mean - mean.mean()) * (prior[0] - prior.mean())).sum())
