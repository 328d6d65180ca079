"""Every test run has a data cache of its own, shared by its tests, and one torch thread, as the workers have."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import torch


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
