"""The arrows of docs/design.md: library, server, site; inside the library a room imports only what stands above it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LAYERS: list[set[str]] = [
    {"fedsec", "fedsec.types", "fedsec.errors", "fedsec.seeds"},
    {"fedsec.images", "fedsec.npy", "fedsec.config"},
    {"fedsec.weights"},
    {"fedsec.privacy", "fedsec.defences", "fedsec.datasets"},
    {"fedsec.models", "fedsec.log"},
    {"fedsec.attacks", "fedsec.probes", "fedsec.flower"},
    {"fedsec.metrics"},
    {"fedsec.run"},
    {"fedsec.reports"},
    {"fedsec.cli"},
    {"strategies", "clients"},
    {"benchmarks", "studies"},
]
"""A room imports from layers before its own. Server and site import the library, never each other; the library imports
neither."""
FLOWER_DOORS = {"fedsec.flower", "strategies", "clients", "benchmarks"}
TORCHLESS = {
    "fedsec.types",
    "fedsec.errors",
    "fedsec.seeds",
    "fedsec.images",
    "fedsec.npy",
    "fedsec.config",
    "fedsec.weights",
    "fedsec.privacy",
    "fedsec.log",
    "fedsec.reports",
    "fedsec.flower",
}
TORCHLESS_MODULES = {
    "fedsec.defences.reducers",
    "fedsec.defences.mixing",
    "fedsec.defences.geometry",
    "fedsec.defences.feddetect",
    "fedsec.defences.isolation",
    "fedsec.defences.evidence",
    "fedsec.defences.inspection",
    "fedsec.defences.probation",
    "fedsec.probes.batchnorm",
    "fedsec.probes.membership",
    "fedsec.metrics.membership",
    "fedsec.run.app",
    "fedsec.run.machine",
    "fedsec.run.plan",
    "fedsec.run.processes",
    "fedsec.run.roles",
    "fedsec.run.standings",
    "fedsec.run.versions",
}


def modules() -> dict[str, Path]:
    folders = ("fedsec", "strategies", "clients", "benchmarks", "studies")
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
def test_imports_point_up(name: str) -> None:
    own = unit_of(name)
    assert own is not None
    for imported in imports(modules()[name]):
        unit = unit_of(imported)
        if unit is None or unit == own:
            continue
        assert level(unit) < level(own) or own == "studies", f"{name} ({own}) imports {imported} ({unit})"


def loaded(name: str) -> Iterator[str]:
    """The modules of ours that importing ``name`` loads, by its own top-level imports."""
    every = modules()
    for node in ast.parse(every[name].read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in every)
        elif isinstance(node, ast.ImportFrom) and node.module:
            below = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (module for module in (node.module, *below) if module in every)


def test_no_circle_anywhere() -> None:
    packages = {name for name, path in modules().items() if path.name == "__init__.py"}
    graph = {name: {*loaded(name)} - {name} - packages for name in modules()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


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
    tree = ast.parse(text)
    texts = [
        node.value for node in ast.walk(tree) if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    ]
    said = sum((value.end_lineno or 0) - value.lineno + 1 for value in texts)
    assert len(text.splitlines()) - said <= 300, f"{name} is too long"
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or 0) - node.lineno + 1
            assert length <= 50, f"{name}.{node.name} has {length} lines"
