"""Random numbers of one seed for training steps, drawn on the CPU, so that every device sees the same."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Draw = Callable[[torch.Generator], Tensor]


class Chance:
    """Draws in the order in which it is asked; ``seed`` alone decides. Tensors are on ``device``."""

    def __init__(self, seed: int, device: str = "cpu") -> None:
        self.rng, self.device = torch.Generator().manual_seed(seed), device

    def uniform(self, *shape: int) -> Tensor:
        """In [0, 1)."""
        return self._drawn(lambda rng: torch.rand(shape, generator=rng))

    def normal(self, *shape: int) -> Tensor:
        return self._drawn(lambda rng: torch.randn(shape, generator=rng))

    def below(self, end: int, *shape: int) -> Tensor:
        """int64 in [0, end)."""
        return self._drawn(lambda rng: torch.randint(0, end, shape, generator=rng))

    def _drawn(self, draw: Draw) -> Tensor:
        return draw(self.rng).to(self.device)


class Tape(Chance):
    """The draws of one step in tensors that stay where they are, for a step that is recorded and replayed: the first
    step after ``rewind`` asks for them, ``refill`` draws them anew for the next, in the same order."""

    def __init__(self, seed: int, device: str = "cpu") -> None:
        super().__init__(seed, device)
        self.kept: list[tuple[Draw, Tensor]] = []
        self.place = 0

    def seeded(self, seed: int) -> None:
        self.rng = torch.Generator().manual_seed(seed)

    def rewind(self) -> None:
        self.place = 0

    def refill(self) -> None:
        for draw, tensor in self.kept:
            tensor.copy_(draw(self.rng))

    def _drawn(self, draw: Draw) -> Tensor:
        if self.place == len(self.kept):
            self.kept.append((draw, super()._drawn(draw)))
        self.place += 1
        return self.kept[self.place - 1][1]
