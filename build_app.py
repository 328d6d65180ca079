"""The wheel's ``fedsec/_app``: what Flower bundles for a run, as data of the package; hatchling calls this.

``strategies/`` and ``clients/`` are names too general for site-packages, so a wheel has the one name ``fedsec``. Flower
bundles a folder with a ``pyproject.toml`` of its own; ``fedsec`` itself is imported from where it is installed.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

CARRIED = ("strategies", "clients", "experiments", "LICENSE")
INCLUDED = 'fab-include = ["strategies/**/*.py", "clients/**/*.py", "LICENSE"]'


class App(BuildHookInterface):  # type: ignore[misc]
    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version == "editable":
            return
        root = Path(self.root)
        self.made = made = Path(tempfile.mkdtemp()) / "pyproject.toml"
        made.write_text(app_pyproject((root / "pyproject.toml").read_text(encoding="utf-8")), encoding="utf-8")
        forced = build_data["force_include"]
        forced |= {str(root / name): f"fedsec/_app/{name}" for name in CARRIED}
        forced[str(made)] = "fedsec/_app/pyproject.toml"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        if version != "editable":
            shutil.rmtree(self.made.parent)


def app_pyproject(text: str) -> str:
    """What Flower needs of the project's own: its name and version, and everything below ``[tool.flwr.app]``."""
    version, licence = (re.search(rf'^{key} = "([^"]+)"', text, re.MULTILINE) for key in ("version", "license"))
    assert version is not None
    assert licence is not None
    project = f'[project]\nname = "fedsec"\nversion = "{version[1]}"\ndescription = "The Flower app of fedsec."\n'
    project += f'license = "{licence[1]}"\ndependencies = ["fedsec=={version[1]}"]\n\n'
    app = text[text.index("[tool.flwr.app]") :]
    found, count = re.subn(r"^fab-include = .*$", INCLUDED, app, flags=re.MULTILINE)
    assert count == 1
    return project + found
