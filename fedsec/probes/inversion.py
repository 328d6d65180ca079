"""Images from one update by optimisation, from several starts at once; fedsec.probes.presets says which and how."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.func import grad_and_value, vmap
from torch.optim.lr_scheduler import LambdaLR

from fedsec.errors import ProbeError
from fedsec.models.graphs import recorded
from fedsec.probes.consensus import consensus, shifts_onto_mean
from fedsec.probes.descent import Reconstruction, rate_at
from fedsec.probes.presets import PRESETS, Preset
from fedsec.probes.replica import Replica
from fedsec.probes.terms import OF_THE_UPDATE, PRIORS, TERMS, Observed, Scene
from fedsec.seeds import address_seed
from fedsec.types import Images

__all__ = ["PRESETS", "Canvas", "Preset", "Reconstruction", "invert"]

NOISE = 0.3
"""Deviation of a start from noise, and of all starts but the first around a prior."""
REGISTER = 10
"""Iterations between two registrations of the restarts."""


class Canvas:
    """What an optimiser moves, and the images it stands for; any leading axes."""

    def __init__(self, images: Tensor, pixels: str) -> None:
        self.spectral, self.size = pixels == "spectrum", images.shape[-1]
        if self.spectral:
            rows, columns = torch.fft.fftfreq(self.size)[:, None], torch.fft.rfftfreq(self.size)[None]
            self.falloff = (1 / (self.size * torch.sqrt(rows**2 + columns**2)).clamp(min=1)).to(images.device)
            images = torch.view_as_real(torch.fft.rfft2(images, norm="ortho") / self.falloff)
        self.moved = images.clone().contiguous().requires_grad_(True)

    def images(self, moved: Tensor | None = None) -> Tensor:
        """Of ``moved``, which is a part of the canvas's own, or of all."""
        moved = self.moved if moved is None else moved
        if not self.spectral:
            return moved
        waves = torch.view_as_complex(moved) * self.falloff
        images: Tensor = torch.fft.irfft2(waves, s=(self.size, self.size), norm="ortho")
        return images


@dataclass
class Pass:
    """One iteration of all restarts: gradients as the canvas is (and the logits, where they are moved), and per restart
    the loss without the term 'group', each term, and the images."""

    slopes: list[Tensor]
    loss: Tensor
    values: dict[str, Tensor]
    images: Tensor


def invert(
    replica: Replica,
    observed: Observed,
    preset: Preset,
    *,
    count: int,
    labels: Tensor | None,
    prior: Images,
    seed: int,
    chunk: int | None = None,
    say: Callable[[int, float], None] = lambda iteration, loss: None,
) -> Reconstruction:
    """Reconstruct ``count`` images. ``prior`` (c, s, s) or (1, c, s, s): a public image to start from.

    ``chunk``: restarts in one vectorised pass; fewer need less memory, all (None) are fastest, 1 is a loop.
    The best iterate of the best restart is chosen by the loss alone; an iterate whose loss is not finite is passed
    over, and a run without a finite one raises FloatingPointError. Errors: ProbeError when none of what the preset
    matches was observed.
    """
    chosen = _chosen(preset, observed)
    first = _starts(replica, preset, count, prior, seed)
    canvas = Canvas(first.to(replica.device), preset.pixels)
    joint = preset.targets == "joint" or labels is None
    logits = torch.zeros(preset.restarts, count, replica.recipe.classes, device=replica.device, requires_grad=joint)
    moved = [canvas.moved, *([logits] if joint else [])]
    adam = torch.optim.Adam(moved, preset.lr)
    rate = LambdaLR(adam, lambda iteration: rate_at(iteration, preset.iterations))
    known = labels.to(replica.device) if labels is not None and not joint else None
    look = _looking(replica, observed, chosen, canvas, known, chunk)
    agreed = _agreeing(preset, chosen)
    replayed = None if "group" in chosen else recorded(lambda: look(moved, None), device=replica.device)
    rng = torch.Generator().manual_seed(address_seed(seed, "inversion", "noise"))
    best = _Best(first)
    for iteration in range(preset.iterations):
        seen = replayed() if replayed else look(moved, agreed(iteration, canvas))
        best.take(seen)
        for tensor, slope in zip(moved, seen.slopes, strict=True):
            tensor.grad = slope.sign() if preset.signed else slope
        adam.step()
        if preset.noise:
            shaken = preset.noise * rate.get_last_lr()[0] * torch.randn(canvas.moved.shape, generator=rng)
            canvas.moved.data += shaken.to(replica.device)
        rate.step()
        say(iteration + 1, float(seen.loss.min()))
    return best.reconstruction()


class _Best:
    """The lowest loss of each restart so far, with its images and terms, and every loss."""

    def __init__(self, images: Tensor) -> None:
        self.loss = [math.inf] * len(images)
        self.images = list(images)
        self.terms: list[dict[str, float]] = [{} for _ in images]
        self.curves: list[list[float]] = [[] for _ in images]

    def take(self, seen: Pass) -> None:
        for restart, number in enumerate(seen.loss.tolist()):
            self.curves[restart].append(number)
            if number < self.loss[restart]:
                self.loss[restart], self.images[restart] = number, seen.images[restart].detach().clone()
                self.terms[restart] = {name: float(value[restart]) for name, value in seen.values.items()}

    def reconstruction(self) -> Reconstruction:
        least = min(range(len(self.loss)), key=lambda restart: self.loss[restart])
        if not math.isfinite(self.loss[least]):
            raise FloatingPointError("no iterate of the inversion had a finite loss")
        images = self.images[least].clamp(-1, 1).cpu().numpy()
        return Reconstruction(images, self.loss[least], self.terms[least], tuple(self.curves[least]), tuple(self.loss))


def _looking(
    replica: Replica,
    observed: Observed,
    chosen: dict[str, float],
    canvas: Canvas,
    labels: Tensor | None,
    chunk: int | None,
) -> Callable[[list[Tensor], Tensor | None], Pass]:
    """The function that takes all restarts, and what they agree on, to one Pass."""

    def value(one: list[Tensor], group: Tensor | None) -> tuple[Tensor, tuple[Tensor, dict[str, Tensor], Tensor]]:
        images = canvas.images(one[0])
        targets = torch.softmax(one[1], dim=1) if labels is None else labels
        scene = Scene(replica, observed, images, targets, group)
        if any(name in OF_THE_UPDATE for name in chosen):
            _ = scene.matched
        values = {name: TERMS[name](scene) for name in chosen if name != "group"}
        loss = torch.stack([chosen[name] * value for name, value in values.items()]).sum()
        total = loss if group is None else loss + chosen["group"] * TERMS["group"](scene)
        return total, (loss, values, images)

    def alone(moved: list[Tensor], group: Tensor | None) -> Pass:
        """One restart after the other."""
        passes = []
        for restart in range(len(moved[0])):
            one = [tensor[restart].detach().requires_grad_(True) for tensor in moved]
            total, told = value(one, group)
            slopes = torch.autograd.grad(total, one, materialize_grads=True)
            passes.append((slopes, *told))
        slopes, losses, values, images = zip(*passes, strict=True)
        each = {name: torch.stack([found[name].detach() for found in values]) for name in values[0]}
        return Pass(
            [torch.stack(part) for part in zip(*slopes, strict=True)],
            torch.stack(losses).detach(),
            each,
            torch.stack(images),
        )

    def together(moved: list[Tensor], group: Tensor | None) -> Pass:
        inner = vmap(grad_and_value(value, has_aux=True), in_dims=(0, None), chunk_size=chunk)
        slopes, (_, (losses, values, images)) = inner([tensor.detach() for tensor in moved], group)
        return Pass(slopes, losses, values, images)

    return lambda moved, group: (alone if chunk == 1 or len(moved[0]) == 1 else together)(moved, group)


def _agreeing(preset: Preset, chosen: dict[str, float]) -> Callable[[int, Canvas], Tensor | None]:
    """The function that says what the restarts agree on in an iteration; None where 'group' has no part in it."""
    begins = math.ceil(preset.group_from * preset.iterations)
    latest: list[np.ndarray] = []

    def agreed(iteration: int, canvas: Canvas) -> Tensor | None:
        if "group" not in chosen or iteration < begins:
            return None
        images = canvas.images().detach()
        if (iteration - begins) % REGISTER == 0:
            latest[:] = [shifts_onto_mean(images)]
        return consensus(images, latest[0])

    return agreed


def _starts(replica: Replica, preset: Preset, count: int, prior: Images, seed: int) -> Tensor:
    """(restarts, count, c, s, s), the same for a restart however many there are."""
    shape = (count, replica.recipe.channels, replica.recipe.size, replica.recipe.size)
    public = torch.from_numpy(np.array(np.broadcast_to(prior, shape), np.float32))
    starts = []
    for restart in range(preset.restarts):
        address = ("inversion", restart) if restart else ("inversion",)
        noise = NOISE * torch.randn(shape, generator=torch.Generator().manual_seed(address_seed(seed, *address)))
        starts.append(noise if preset.start == "noise" else public + noise if restart else public)
    return torch.stack(starts)


def _chosen(preset: Preset, observed: Observed) -> dict[str, float]:
    """The preset's terms that can be computed. Priors alone are a choice, but never what is left of another."""
    wanted = {name: weight for name, weight in preset.terms.items() if weight}
    usable = {name: weight for name, weight in wanted.items() if _usable(name, preset, observed)}
    if not set(usable) - {"group"} or (set(usable) <= set(PRIORS) and not set(wanted) <= set(PRIORS)):
        missing = ", ".join(name for name in wanted if name not in usable) or "any term"
        raise ProbeError(f"nothing to hold images against: {missing} was not observed; take a preset of other terms")
    return usable


def _usable(name: str, preset: Preset, observed: Observed) -> bool:
    there = {"statistics": bool(observed.moments), "maps": observed.maps is not None, "group": preset.restarts > 1}
    return there.get(name, True)
