"""The arrows of docs/design.md: a layer imports only what stands to its left."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LAYERS: list[set[str]] = [
    {
        "fedsec",
        "fedsec.types",
        "fedsec.errors",
        "fedsec.seeds",
        "fedsec.images",
        "fedsec.settings",
        "fedsec.sections",
        "fedsec.malice",
        "fedsec.checks",
        "fedsec.config",
    },
    {"fedsec.weights", "fedsec.npy"},
    {"fedsec.privacy", "fedsec.defences", "fedsec.models", "fedsec.datasets"},
    {"fedsec.attacks", "fedsec.metrics", "fedsec.probes", "fedsec.reports"},
    {"fedsec.records", "fedsec.runs", "fedsec.experiment", "fedsec.matrix"},
    {"strategies", "clients"},
    {"fedsec.server_app", "fedsec.client_app"},
    {
        "fedsec.launch",
        "fedsec.progress",
        "fedsec.matrix_run",
        "fedsec.doctor",
        "fedsec.cli",
        "benchmarks",
        "experiments",
    },
]
FLOWER_DOORS = {"fedsec.records", "fedsec.server_app", "fedsec.client_app", "strategies", "clients", "benchmarks"}
TORCHLESS = {
    "fedsec.config",
    "fedsec.checks",
    "fedsec.sections",
    "fedsec.malice",
    "fedsec.weights",
    "fedsec.npy",
    "fedsec.reports",
    "fedsec.types",
    "fedsec.seeds",
    "fedsec.runs",
    "fedsec.privacy",
    "fedsec.experiment",
    "fedsec.matrix",
}
TORCHLESS_MODULES = {
    "strategies.reducers",
    "strategies.mixing",
    "strategies.geometry",
    "strategies.detection",
    "strategies.calibration",
    "fedsec.probes.batchnorm",
    "fedsec.probes.membership",
    "fedsec.metrics.membership",
}


def modules() -> dict[str, Path]:
    folders = ("fedsec", "strategies", "clients", "benchmarks")
    paths = [path for folder in folders for path in (ROOT / folder).rglob("*.py")]
    return {".".join(p.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): p for p in paths}


def imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def unit_of(module: str) -> str | None:
    """The entry of LAYERS a module belongs to."""
    known = set().union(*LAYERS)
    parts = module.split(".")
    names = [".".join(parts[:n]) for n in range(len(parts), 0, -1)]
    return next((name for name in names if name in known and (name != "fedsec" or module == "fedsec")), None)


def level(unit: str) -> int:
    return next(i for i, layer in enumerate(LAYERS) if unit in layer)


def test_every_module_has_a_place() -> None:
    assert [name for name in modules() if unit_of(name) is None] == []


@pytest.mark.parametrize("name", sorted(modules()))
def test_imports_point_left(name: str) -> None:
    own = unit_of(name)
    assert own is not None
    for imported in imports(modules()[name]):
        unit = unit_of(imported)
        if unit is None or unit == own:
            continue
        allowed = level(unit) < level(own) or (
            level(unit) == level(own) and not {"strategies", "clients"} <= {own, unit}
        )
        assert allowed, f"{name} ({own}) imports {imported} ({unit}), which stands to its right"


@pytest.mark.parametrize("name", sorted(name for name in modules() if name.startswith("fedsec.probes")))
def test_probes_never_see_the_truth(name: str) -> None:
    """View and truth meet in metrics only, so a probe imports nothing from there."""
    assert "fedsec.metrics" not in {unit_of(imported) for imported in imports(modules()[name])}


@pytest.mark.parametrize("name", sorted(modules()))
def test_flower_stops_at_the_door_and_torch_stays_out_of_pure_maths(name: str) -> None:
    roots = {imported.split(".")[0] for imported in imports(modules()[name])}
    if unit_of(name) not in FLOWER_DOORS:
        assert "flwr" not in roots, f"{name} imports flwr"
    if unit_of(name) in TORCHLESS or name in TORCHLESS_MODULES:
        assert "torch" not in roots, f"{name} imports torch"


@pytest.mark.parametrize("name", sorted(modules()))
def test_modules_stay_readable(name: str) -> None:
    text = modules()[name].read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 300, f"{name} is too long"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or 0) - node.lineno + 1
            assert length <= 50, f"{name}.{node.name} has {length} lines"
