"""A configuration as TOML text, and tables as flat keys."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path

from fedsec.config import RunConfig
from fedsec.errors import RunError
from fedsec.types import Flat, Scalar

CONFIG = "config.toml"


def write_config(config: RunConfig, folder: Path) -> None:
    """Write the resolved configuration as TOML, before anything runs, by an atomic rename."""
    folder.mkdir(parents=True, exist_ok=True)
    lines: list[str] = ["# Resolved configuration of this run; `fedsec run config.toml` repeats it.\n"]
    section = ""
    for key, value in config.to_flat().items():
        head, name = key.split(".", 1)
        if head != section:
            section = head
            lines.append(f"\n[{head}]\n")
        lines.append(f"{name} = {toml_scalar(value)}\n")
    text = "".join(lines)
    tomllib.loads(text)
    temporary = folder / f".{CONFIG}.{os.getpid()}"
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, folder / CONFIG)


def toml_scalar(value: Scalar) -> str:
    """A scalar as TOML; strings as basic strings with everything risky escaped."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    escaped = "".join(_escape(c) for c in value)
    return f'"{escaped}"'


def _escape(character: str) -> str:
    if character in '"\\':
        return "\\" + character
    return character if character.isprintable() else f"\\U{ord(character):08x}"


def flatten(table: dict[str, object], prefix: str = "") -> Flat:
    """Nested TOML tables to dotted keys."""
    flat: Flat = {}
    for key, value in table.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict):
            flat |= flatten(value, f"{name}.")
        elif isinstance(value, bool | int | float | str):
            flat[name] = value
        else:
            raise RunError(f"{name}: must be a number, a text, true or false, not {type(value).__name__}")
    return flat
