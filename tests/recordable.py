"""What a CUDA graph cannot hold, as far as a CPU can tell: operations that wait for a value, make a tensor of constants
or draw random numbers, which are the host's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from torch.utils._python_dispatch import TorchDispatchMode

NAMES = ("_local_scalar_dense", "nonzero", "lift_fresh", "rand")
T = TypeVar("T")


class Watch(TorchDispatchMode):
    """``found``: names of such operations while it is entered."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if any(name in str(func) for name in NAMES):
            self.found.append(str(func))
        return func(*args, **(kwargs or {}))


def checked(function: Callable[[], T], *, device: str) -> Callable[[], T]:
    """In place of ``fedsec.models.graphs.recorded``: every call but the first, which warms up, must be recordable."""
    function()

    def call() -> T:
        with Watch() as watch:
            result = function()
        assert watch.found == [], watch.found
        return result

    return call
