"""One finished fake run for every test that only reads."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.reports.fake_run import Plan, build


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("run") / "isic-quick", Plan(rounds=12))
