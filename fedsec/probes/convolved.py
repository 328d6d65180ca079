"""Convolutions with constant weights, for passes that are differentiated twice by their images.

torch's second derivative of a convolution computes a weight gradient that nobody asked for, which at 64 px takes most
of its time, and under vmap one a restart. ``Convolved`` and ``Adjoint`` are each other's derivative and leave it out;
vmap folds the restarts into their batch.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.grad import conv2d_input

Product = tuple[Tensor, Tensor]
"""<a, b> and <a, a> of one tensor."""
FEW = 32
"""Positions of a batch up to which a convolution is faster as a product with its patches than by torch's own."""


class Convolved(torch.autograd.Function):
    """conv2d of images (n, c, h, w) with a weight that has no derivative. vmap folds restarts into n."""

    @staticmethod
    def forward(images: Tensor, weight: Tensor, stride: int, padding: int) -> Tensor:
        kernel = weight.shape[-1]
        sides = [(side + 2 * padding - kernel) // stride + 1 for side in images.shape[-2:]]
        if len(images) * sides[0] * sides[1] > FEW:
            return F.conv2d(images, weight, None, stride, padding)
        rows = patches(images, kernel, stride, padding).flatten(0, 1)
        out = F.linear(rows, weight.flatten(1)).reshape(len(images), *sides, len(weight))
        return out.permute(0, 3, 1, 2).contiguous()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, int, int], output: Tensor) -> None:
        images, weight, ctx.stride, ctx.padding = inputs
        ctx.sides = (images.shape[-2], images.shape[-1])
        ctx.save_for_backward(weight)

    @staticmethod
    def backward(ctx: Any, errors: Tensor) -> tuple[Tensor, None, None, None]:
        (weight,) = ctx.saved_tensors
        return Adjoint.apply(errors, weight, ctx.sides, ctx.stride, ctx.padding), None, None, None

    @staticmethod
    def vmap(info: Any, in_dims: Any, images: Tensor, weight: Tensor, stride: int, padding: int) -> tuple[Tensor, int]:
        images = _folded(images, in_dims)
        out: Tensor = Convolved.apply(images, weight, stride, padding)
        return out.reshape(info.batch_size, -1, *out.shape[1:]), 0


class Adjoint(torch.autograd.Function):
    """The transpose of ``Convolved``: errors (n, out, h', w') -> (n, c, *sides)."""

    @staticmethod
    def forward(errors: Tensor, weight: Tensor, sides: tuple[int, int], stride: int, padding: int) -> Tensor:
        n, out, *seen = errors.shape
        if n * seen[0] * seen[1] > FEW:
            back: Tensor = conv2d_input((n, weight.shape[1], *sides), weight, errors, stride, padding)  # type: ignore[no-untyped-call]
            return back
        rows = errors.flatten(2).transpose(1, 2).reshape(-1, out) @ weight.flatten(1)
        columns = rows.reshape(n, -1, rows.shape[1]).transpose(1, 2)
        folded: Tensor = F.fold(columns, sides, weight.shape[-1], 1, padding, stride)
        return folded

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, tuple[int, int], int, int], output: Tensor) -> None:
        _, weight, _, ctx.stride, ctx.padding = inputs
        ctx.save_for_backward(weight)

    @staticmethod
    def backward(ctx: Any, images: Tensor) -> tuple[Tensor, None, None, None, None]:
        (weight,) = ctx.saved_tensors
        return Convolved.apply(images, weight, ctx.stride, ctx.padding), None, None, None, None

    @staticmethod
    def vmap(
        info: Any, in_dims: Any, errors: Tensor, weight: Tensor, sides: tuple[int, int], stride: int, padding: int
    ) -> tuple[Tensor, int]:
        out: Tensor = Adjoint.apply(_folded(errors, in_dims), weight, sides, stride, padding)
        return out.reshape(info.batch_size, -1, *out.shape[1:]), 0


class Tapped(nn.Conv2d):
    """A convolution that, while something is ``added`` to what comes out, keeps what ``entered``."""

    added: Tensor | None = None
    entered: Tensor

    @classmethod
    def of(cls, conv: nn.Conv2d) -> Tapped:
        """The same layer with the same parameter."""
        kernel, stride, padding = conv.kernel_size, conv.stride, conv.padding
        assert len({*kernel}) == len({*stride}) == len({*padding}) == 1, conv
        assert (conv.bias, conv.groups, conv.dilation) == (None, 1, (1, 1)), conv
        tapped = cls(
            conv.in_channels, conv.out_channels, kernel[0], stride[0], int(padding[0]), bias=False, device="meta"
        )
        tapped.weight = conv.weight
        return tapped

    def forward(self, images: Tensor) -> Tensor:
        if self.added is None:
            return super().forward(images)
        self.entered = images
        return self._convolved(images, self.weight) + self.added

    def pays(self, positions: int) -> bool:
        """Whether ``product`` over this many positions costs less than the gradient itself."""
        depth = self.in_channels * self.kernel_size[0] ** 2
        return positions * (depth + self.out_channels) < 2 * depth * self.out_channels

    def product(self, errors: Tensor, observed: Tensor) -> Product:
        """<a, b> and <a, a> of this weight's gradient a, from ``errors`` (n, out, h', w') at what came out."""
        along = (errors * self._convolved(self.entered, observed)).sum()
        rows = patches(self.entered, self.kernel_size[0], self.stride[0], int(self.padding[0])).flatten(0, 1)
        deltas = errors.flatten(2).transpose(1, 2).flatten(0, 1)
        return along, ((rows @ rows.T) * (deltas @ deltas.T)).sum()

    def _convolved(self, images: Tensor, weight: Tensor) -> Tensor:
        out: Tensor = Convolved.apply(images, weight, self.stride[0], int(self.padding[0]))
        return out


def patches(images: Tensor, side: int, stride: int, padding: int) -> Tensor:
    """(n, c, h, w) -> (n, positions, c * side * side)."""
    return F.unfold(images, side, 1, padding, stride).transpose(1, 2)


def _folded(values: Tensor, in_dims: tuple[Any, ...]) -> Tensor:
    """Restarts and images as one axis; the weight is the same for all restarts."""
    assert in_dims[0] is not None, in_dims
    assert in_dims[1] is None, in_dims
    return values.movedim(in_dims[0], 0).flatten(0, 1)
