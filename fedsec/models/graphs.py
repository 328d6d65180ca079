"""A function of tensors that stay where they are, recorded once as a CUDA graph and replayed.

Networks for small images are bound by launches on a GPU: a step of some hundred kernels waits for the processor, not
for the kernels. A graph launches them all at once.
"""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock
from typing import TypeVar

import torch

T = TypeVar("T")
WARM = 3
"""Calls before the recording, in which libraries choose their kernels and optimisers make their state."""
ONE_AT_A_TIME = Lock()
"""CUDA allows one recording a process at a time; arms side by side are threads."""


def recorded(function: Callable[[], T], *, device: str) -> Callable[[], T]:
    """``function``, or on CUDA its replay. Not on CUDA it is returned as it is, and not called.

    ``function`` reads and writes tensors that it keeps alive, and no others; it must not wait for the device, copy from
    the host or decide by values. It is called WARM times at once, then recorded, so what it writes must be set anew
    after. What a replay returns is overwritten by the next. Raises RuntimeError (from torch) when something in it
    cannot be recorded.
    """
    if torch.device(device).type != "cuda":
        return function
    here = torch.cuda.current_stream(device)
    side = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    side.wait_stream(here)
    with torch.cuda.stream(side):
        for _ in range(WARM):
            function()
    here.wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with ONE_AT_A_TIME, torch.cuda.graph(graph, stream=side, capture_error_mode="thread_local"):
        result = function()

    def replay(kept: Callable[[], T] = function) -> T:  # what the graph reads lives as long as it
        graph.replay()
        return result

    return replay
