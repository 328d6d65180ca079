"""Every test run has a data cache of its own, shared by its tests, and one torch thread, as the workers have."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(scope="session", autouse=True)
def heard_interrupts() -> Iterator[None]:
    """Under nohup, or in the background of a script, SIGINT is ignored, by what the tests start as well."""
    before = signal.getsignal(signal.SIGINT)
    if before is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    torch.set_num_threads(1)
    before = os.environ.get("FEDSEC_CACHE")
    os.environ["FEDSEC_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    yield
    if before is None:
        del os.environ["FEDSEC_CACHE"]
    else:
        os.environ["FEDSEC_CACHE"] = before
