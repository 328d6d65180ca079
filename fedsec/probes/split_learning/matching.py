"""Images from one exchange by an attacker who has the client half: MATCHING says what is matched, and how."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from fedsec.errors import ProbeError
from fedsec.probes.descent import Reconstruction, descend
from fedsec.probes.presets import Preset
from fedsec.probes.split_learning.terms import SPLIT_TERMS, THROUGH_THE_SERVER, Guess, Halves
from fedsec.probes.split_learning.view import READINGS, Means, SplitView
from fedsec.probes.terms import TINY
from fedsec.seeds import address_seed

MATCHING: dict[str, Preset] = {
    "dlg": Preset(
        "Zhu et al. 2019 at the cut: L2 distance of the returned gradients, Adam in place of L-BFGS",
        {"cut-l2": 1.0},
        iterations=200,
    ),
    "inverting-gradients": Preset(
        "Geiping et al. 2020 at the cut: cosine of the returned gradients, total variation, signed Adam",
        {"cut-cosine": 1.0, "total-variation": 0.01, "box": 1.0},
        iterations=200,
        signed=True,
    ),
    "client-update": Preset(
        "Geiping et al. 2020 on the client half's own update, which SplitFed's averaging server sees",
        {"update-cosine": 1.0, "total-variation": 0.01, "box": 1.0},
        iterations=200,
        signed=True,
    ),
    "white-box": Preset(
        "He et al. 2019, white box: regularised maximum likelihood, L2 of activations and total variation",
        {"activations": 1.0, "total-variation": 0.03, "box": 1.0},
        iterations=1000,
        lr=0.1,
        start="prior",
    ),
    "adaptive": Preset(
        "ours, after He et al. 2019: PGSL's client input by regularised maximum likelihood, then fold and map undone",
        {"activations": 1.0, "total-variation": 0.03, "box": 1.0, "amiss": 1.0},
        iterations=1000,
        lr=0.1,
        start="prior",
    ),
    "adaptive-joint": Preset(
        "ours: as adaptive, but images and a map of every pixel's own are moved, and smoothness tells them apart",
        {"activations": 1.0, "total-variation": 0.01, "box": 1.0, "amiss": 1.0},
        iterations=1000,
        lr=0.1,
        start="prior",
    ),
}


def dlg(view: SplitView, means: Means) -> Reconstruction:
    """Knows both halves and the returned gradient, not the activations. Labels are optimised along where not given."""
    return match(view, means, MATCHING["dlg"])


def inverting_gradients(view: SplitView, means: Means) -> Reconstruction:
    """Knows what ``dlg`` knows."""
    return match(view, means, MATCHING["inverting-gradients"])


def client_update(view: SplitView, means: Means) -> Reconstruction:
    """Knows both halves and the client half's update of one step of SGD (SplitFed: the averaging server is the same
    party or colludes), not the activations nor the gradient at the cut."""
    return match(view, means, MATCHING["client-update"])


def white_box(view: SplitView, means: Means) -> Reconstruction:
    """Knows the client half's weights and the activations: an honest-but-curious server that averages client halves."""
    return match(view, means, MATCHING["white-box"])


def adaptive(view: SplitView, means: Means) -> Reconstruction:
    """Knows what ``white_box`` knows, and PGSL: moves the client half's whole input, undoes space-to-depth, subtracts
    the map that came with it. ``means.reading`` is not asked."""
    return match(view, replace(means, reading=READINGS["adaptive"]), MATCHING["adaptive"])


def adaptive_joint(view: SplitView, means: Means) -> Reconstruction:
    """Knows what ``adaptive`` knows, and that the map sent is a mean over 2 x 2 pixels of what was added to each."""
    return match(view, replace(means, reading=READINGS["joint"]), MATCHING["adaptive-joint"])


def match(view: SplitView, means: Means, preset: Preset) -> Reconstruction:
    """Images whose passage through the halves fits ``view`` by ``preset``'s terms.

    Guarantee: neither half changes; the same seed gives the same images. With ``view.train`` they are ``likened``.
    Errors: ProbeError when the view lacks what a term needs; FloatingPointError when no iterate had a finite loss.
    """
    through = any(name in THROUGH_THE_SERVER for name in preset.terms)
    _needed(view, preset)
    halves = Halves(view.client_half(), view.server_half() if through else None)
    if "update-cosine" in preset.terms:
        halves.client.requires_grad_(True)
    n, device = len(view.activations), view.activations.device
    rng = torch.Generator().manual_seed(address_seed(means.seed, "split", "matching"))
    first = means.prior.expand(n, *view.shape)
    if preset.start == "noise":
        first = 0.3 * torch.randn(n, *view.shape, generator=rng)
    canvas = means.reading.lift(first.to(device)).clone().requires_grad_(True)
    logits = _unknown_labels(view, halves) if through and view.labels is None else None

    def look() -> tuple[Tensor, dict[str, Tensor]]:
        targets = view.labels if logits is None else torch.softmax(logits, dim=1)
        guess = Guess(view, halves, means.reading, canvas, targets)
        return guess.images, {name: SPLIT_TERMS[name](guess) for name in preset.terms}

    moved = [canvas] if logits is None else [canvas, logits]
    iterations = means.iterations or preset.iterations
    found = descend(moved, look, preset.terms, lr=preset.lr, iterations=iterations, signed=preset.signed)
    if not view.train:
        return found
    return replace(found, images=likened(torch.from_numpy(found.images), means).clamp(-1, 1).numpy())


def likened(images: Tensor, means: Means) -> Tensor:
    """The batch with each channel's mean and the overall spread of public images; without these, of the prior.

    Train-mode BatchNorm takes both out of what is sent, but for the borders, and smoothness then shrinks the spread.
    """
    known = means.prior if means.public is None else means.public
    spread = (images - _colour(images)).std() / (known - _colour(known)).std()
    return (images - _colour(images)) / spread.clamp(min=TINY) + _colour(known)


def _colour(images: Tensor) -> Tensor:
    return images.mean(dim=(0, 2, 3), keepdim=True)


def _unknown_labels(view: SplitView, halves: Halves) -> Tensor:
    assert halves.server is not None
    with torch.no_grad():
        classes = halves.server(view.activations).shape[1]
    return torch.zeros(len(view.activations), classes, device=view.activations.device, requires_grad=True)


def _needed(view: SplitView, preset: Preset) -> None:
    lacking = {"cut-l2": view.gradient, "cut-cosine": view.gradient, "update-cosine": view.update}
    missing = [name for name, what in lacking.items() if name in preset.terms and what is None]
    if missing:
        raise ProbeError(f"nothing to hold images against: {', '.join(missing)} was not observed; take another attack")
