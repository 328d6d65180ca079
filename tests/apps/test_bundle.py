"""The bundle Flower makes of the checkout: every module, nothing else, and it works from where it is unpacked."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import warnings
import zipfile
from pathlib import Path, PurePosixPath

import pytest
from flwr.cli.build import build_fab_from_disk

ROOT = Path(__file__).parents[2]
PACKAGES = ("fedsec", "strategies", "clients")
BESIDE = {"LICENSE", "README.md", "pyproject.toml"}


@pytest.fixture(scope="module")
def bundle() -> zipfile.ZipFile:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # pathspec, as Flower calls it
        return zipfile.ZipFile(io.BytesIO(build_fab_from_disk(ROOT)))


@pytest.fixture(scope="module")
def unpacked(bundle: zipfile.ZipFile, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundle")
    bundle.extractall(folder)
    return folder


def entries(bundle: zipfile.ZipFile) -> set[str]:
    """Names of the bundle's files; ``.info`` is Flower's own."""
    return {name for name in bundle.namelist() if not name.endswith("/") and not name.startswith(".info/")}


def test_it_holds_every_module_and_nothing_else(bundle: zipfile.ZipFile) -> None:
    modules = {path.relative_to(ROOT).as_posix() for name in PACKAGES for path in (ROOT / name).rglob("*.py")}
    assert any(name.startswith("fedsec/datasets/") for name in modules)
    assert entries(bundle) == modules | BESIDE


def test_it_holds_no_test_image_or_result(bundle: zipfile.ZipFile) -> None:
    names = [PurePosixPath(name) for name in entries(bundle)]
    assert {name.suffix for name in names if name.name != "LICENSE"} == {".py", ".toml", ".md"}
    assert not [name for name in names if {"tests", "benchmarks", "runs", "experiments"} & set(name.parts)]
    assert sum(info.file_size for info in bundle.infolist()) < 5 * 2**18, "code alone is small"


def test_what_it_holds_is_the_checkout(unpacked: Path, bundle: zipfile.ZipFile) -> None:
    for name in entries(bundle) - {"pyproject.toml"}:  # Flower writes that one anew
        assert (unpacked / name).read_bytes() == (ROOT / name).read_bytes(), name


@pytest.mark.parametrize(
    ("module", "kind"), [("strategies.server_app", "ServerApp"), ("clients.client_app", "ClientApp")]
)
def test_its_apps_load_from_where_it_is_unpacked(module: str, kind: str, unpacked: Path) -> None:
    code = (
        f"import sys; sys.path.insert(0, {str(unpacked)!r}); import {module} as m, strategies, clients; "
        "print(type(m.app).__name__, m.__file__, strategies.__file__, clients.__file__, sep='\\n')"
    )
    env = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=unpacked, env=env, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr
    name, *files = done.stdout.splitlines()
    assert name == kind
    assert len(files) == 3
    assert all(Path(file).is_relative_to(unpacked) for file in files), files
