"""One convolution further towards the image: from the maps after a strided convolution to those before it.

``fedsec.probes.rowspace`` needs kernels that overlap on both sides, so it stops behind a block's strided convolution.
But what it found there *is* that convolution's output, normalised and cut off at 0: wherever it is above 0, it says a
linear equation about the input, ``gamma (w * a - mean) / std + beta = s v``, with mean and std from the running
statistics that the client sent. Together with the row space of the strided convolution's own update these determine
the input ``a`` and the scale ``s``: one sparse least-squares problem an image (LSMR, Fong & Saunders 2011).

Ours. It needs the batch statistics of one local step exactly, so it holds for one step with statistics sent.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from scipy.sparse.linalg import LinearOperator, lsmr
from torch import Tensor

from fedsec.probes.batchnorm import Moments, kept, recovered
from fedsec.probes.completion import Rows
from fedsec.probes.replica import Geometry, Replica
from fedsec.probes.rowspace import CLEAR, Maps, Matrix, known_rows, recovered_maps
from fedsec.probes.view import ServerView
from fedsec.weights import STATISTICS

LEFT = 1e-3
"""Largest part of the equations that may stay unexplained."""
ALIVE = 1e-4
"""Entries above this part of a map's highest are taken to be above 0."""
ITERATIONS = 1500
EPS = 1e-5


def nearest_maps(view: ServerView, replica: Replica, *, seed: int = 0, clear: float = CLEAR) -> Maps | None:
    """The maps nearest to the image that the update gives away, one an image; None when it gives none, or when images
    were met more than once: each pass leaves maps of its own, which nothing assigns to images (but ``as_one_step``).
    ``clear``: as ``recovered_maps``."""
    if sum(view.recipe.sizes(view.examples)) != view.examples:
        return None
    found = next(recovered_maps(view, replica, seed=seed, clear=clear), None)
    return found and (before_stride(view, replica, found) or found)


def as_one_step(view: ServerView) -> ServerView:
    """A round whose every step had all images in its batch, taken for one step: its statistics are what one step on the
    recovered moments would have left, and what the weights moved between the steps counts as noise. Any other round as
    it is."""
    recipe, momentum = view.recipe, view.recipe.bn_momentum
    if recipe.steps < 2 or recipe.batch < view.examples or momentum is None:
        return view
    left = kept(momentum, recipe.steps)
    after = dict(view.after)
    for name, value in view.after.items():
        if name.rsplit(".", 1)[-1] in STATISTICS:
            old = np.asarray(view.before[name], np.float64)
            moments = (np.asarray(value, np.float64) - left * old) / (1 - left)
            after[name] = ((1 - momentum) * old + momentum * moments).astype(value.dtype)
    return replace(view, after=after, recipe=replace(recipe, steps=1))


def refusal(view: ServerView) -> str:
    """Why ``nearest_maps`` gave none."""
    if sum(view.recipe.sizes(view.examples)) != view.examples:
        return "images were met more than once, and exact maps are of one pass"
    return "no layer's update is of so clear a rank that maps can be read off it exactly"


def before_stride(view: ServerView, replica: Replica, behind: Maps) -> Maps | None:
    """What went into the strided convolution whose normalised output ``behind`` is, each of norm 1; None where there is
    no such convolution, more than one local step, no statistics, or no solution that leaves less than LEFT."""
    lower, norm = behind.layer.replace("conv2", "conv1"), behind.layer.replace("conv2", "bn1")
    convolutions = replica.convolutions()
    if lower == behind.layer or lower not in convolutions or convolutions[lower].stride == (1, 1):
        return None
    if view.recipe.steps != 1 or not view.statistics or view.recipe.norm != "batch":
        return None
    kernel, geometry = view.update[f"{lower}.weight"], convolutions[lower]
    kernel = kernel.reshape(len(kernel), -1)
    count = len(behind.maps)
    rank = count * geometry.positions - 1
    rows = known_rows(kernel, rank) if rank < min(kernel.shape) else None
    if rows is None:
        return None
    moments = recovered(
        view.before, view.after, steps=1, momentum=view.recipe.bn_momentum, counts=replica.counts(count)
    )[norm]
    block = _Block.of(view, lower, norm, geometry, moments, rows)
    solved = [block.solve(values.reshape(len(kernel), geometry.positions)) for values in behind.maps]
    if max(left for _, left in solved) > LEFT:
        return None
    maps = np.stack([values / np.linalg.norm(values) for values, _ in solved])
    return Maps(lower, maps.reshape(count, *geometry.shape), behind.gap)


@dataclass(frozen=True)
class _Block:
    """A strided convolution with its BatchNorm: ``output = weight * patches * slope + shift``, channel by channel."""

    geometry: Geometry
    weight: Tensor
    slope: Tensor
    shift: Tensor
    basis: Tensor
    seen: Tensor

    @classmethod
    def of(cls, view: ServerView, conv: str, norm: str, geometry: Geometry, moments: Moments, rows: Rows) -> _Block:
        tensor = {
            name: torch.from_numpy(np.asarray(view.before[name], np.float64))
            for name in (f"{conv}.weight", f"{norm}.weight", f"{norm}.bias")
        }
        slope = tensor[f"{norm}.weight"] / torch.from_numpy(np.sqrt(np.maximum(moments.var, 0) + EPS))
        shift = tensor[f"{norm}.bias"] - torch.from_numpy(moments.mean) * slope
        weight = tensor[f"{conv}.weight"].flatten(1)
        seen = torch.from_numpy(rows.seen.astype(np.float64))[:, None]
        return cls(geometry, weight, slope[:, None], shift[:, None], torch.from_numpy(rows.basis), seen)

    def solve(self, seen: npt.NDArray[np.float64]) -> tuple[npt.NDArray[np.float64], float]:
        """``seen`` (out, positions): this image's map behind, up to scale -> (the map before, flat; share unexplained).

        Unknown are the map and the scale of ``seen``, the last entry of the solution.
        """
        geometry, out = self.geometry, torch.from_numpy(seen)
        size, depth = int(np.prod(geometry.shape)), self.weight.shape[1]
        alive = out > ALIVE * out.max()
        told = torch.where(alive, -0.5 * np.sqrt(out.numel()) * out, 0.0)
        aim = torch.where(alive, -self.shift.expand_as(out), 0.0)
        kinds = {"kernel_size": geometry.kernel, "padding": geometry.padding, "stride": geometry.stride}

        def outside(patches: Tensor) -> Tensor:
            return self.seen * patches - self.basis @ (self.basis.T @ patches)

        def centred(patches: Tensor) -> Tensor:
            return patches - patches.mean(dim=-1, keepdim=True)

        def equations(guess: Matrix) -> Matrix:
            patches = F.unfold(_maps(guess[:-1], geometry), **kinds)[0]
            linear = torch.where(alive, self.slope * (self.weight @ patches), 0.0) + told * float(guess[-1])
            return np.concatenate([outside(centred(patches)).numpy().ravel(), linear.numpy().ravel()])

        def adjoint(errors: Matrix) -> Matrix:
            patches = torch.from_numpy(np.ascontiguousarray(errors[: depth * geometry.positions]))
            linear = torch.from_numpy(np.ascontiguousarray(errors[depth * geometry.positions :])).view_as(out)
            patches = centred(outside(patches.view(depth, geometry.positions)))
            patches = patches + self.weight.T @ (torch.where(alive, linear, 0.0) * self.slope)
            folded = F.fold(patches[None], geometry.shape[1:], **kinds).numpy().ravel()
            return np.concatenate([folded, [float((told * linear).sum())]])

        rows = depth * geometry.positions + out.numel()
        operator = LinearOperator((rows, size + 1), matvec=equations, rmatvec=adjoint, dtype=np.float64)
        target = np.concatenate([np.zeros(depth * geometry.positions), aim.numpy().ravel()])
        solution = lsmr(operator, target, maxiter=ITERATIONS, atol=1e-10, btol=1e-10, conlim=0)
        return solution[0][:-1], float(solution[3] / np.linalg.norm(target))


def _maps(flat: Matrix, geometry: Geometry) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(flat)).view(1, *geometry.shape)
