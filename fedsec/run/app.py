"""Where the Flower app is: the folder with ``pyproject.toml``, ``strategies/`` and ``clients/`` that Flower bundles."""

from __future__ import annotations

from pathlib import Path

from fedsec.errors import ConfigError, RunError

PACKAGE = Path(__file__).resolve().parents[1]
CARRIED = PACKAGE / "_app"
"""In a wheel, which carries the app as data."""


def app_folder() -> Path:
    """The checkout, or what the installed package carries of it. Raises RunError where neither is there."""
    for folder in (CARRIED, PACKAGE.parent):
        if (folder / "pyproject.toml").is_file() and (folder / "strategies").is_dir():
            return folder
    raise RunError(f"no Flower app in {CARRIED} or {PACKAGE.parent}: install fedsec again, or use a checkout")


def experiment(file: Path) -> Path:
    """``file``, or what is shipped under that name (``isic``). Raises ConfigError for neither."""
    shipped = {path.stem: path for path in sorted((app_folder() / "experiments").glob("*.toml"))}
    if file.is_file():
        return file
    if str(file) not in shipped:
        raise ConfigError(f"{file}: no such file; by name there are {', '.join(shipped)}")
    return shipped[str(file)]


def source_of(module: str) -> str:
    """The text of a module of ``fedsec``, ``strategies`` or ``clients``, by its dotted name, without importing it."""
    root = PACKAGE.parent if module.startswith("fedsec.") else app_folder()
    return (root / module.replace(".", "/")).with_suffix(".py").read_text(encoding="utf-8")
