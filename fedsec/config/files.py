"""Experiment files: TOML tables of overrides, profiles and arms, and ``key=value`` words on top."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fedsec.config import RunConfig
from fedsec.config.toml import flatten
from fedsec.errors import ConfigError, all_at_once
from fedsec.types import Flat, Scalar


def read_experiment(file: Path, profile: str, settings: Sequence[str]) -> RunConfig:
    """File, then profile, then ``key=value``. Paths become absolute: the run happens in another process's folder.

    Raises ConfigError with everything that is wrong.
    """
    table = read_toml(file)
    profiles = tables(table, "profiles")
    arms = {name: flatten(overrides) for name, overrides in tables(table, "arms").items()}
    flat = flatten(table)
    if profile:
        if profile not in profiles:
            raise ConfigError(f"profile {profile!r}: {file.name} has {', '.join(profiles) or 'none'}")
        chosen = dict(profiles[profile])
        kept = chosen.pop("arms", list(arms))
        if not isinstance(kept, list):
            raise ConfigError(f"profile {profile!r}: arms = {kept!r} must be a list of names")
        unknown = [str(name) for name in kept if not isinstance(name, str) or name not in arms]
        all_at_once(ConfigError, f"profile {profile!r} names arms that are not there", unknown)
        arms = {name: arms[name] for name in kept}
        flat |= flatten(chosen)
    if arms:
        flat["run.arms"] = json.dumps(arms)
    return absolute(RunConfig.from_flat({**flat, **parse_settings(settings)}))


def read_toml(file: Path) -> dict[str, Any]:
    """Raises ConfigError when there is no such file or it is not TOML."""
    if not file.is_file():
        raise ConfigError(f"{file}: no such file; experiments/ holds the ones that come with fedsec")
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: not TOML ({error})") from error


def tables(table: dict[str, Any], name: str) -> dict[str, dict[str, Any]]:
    """The tables [name.X], taken out of ``table``; raises ConfigError when it holds something else there."""
    found = table.pop(name, {})
    if not isinstance(found, dict) or not all(isinstance(inner, dict) for inner in found.values()):
        raise ConfigError(f"{name} = {found!r}: must be tables, one [{name}.NAME] each")
    return found


def parse_settings(settings: Sequence[str]) -> Flat:
    """``key=value`` words; a value is TOML when it reads as a TOML scalar, else plain text."""
    flat: Flat = {}
    mistakes = []
    for word in settings:
        key, equals, text = word.partition("=")
        if not equals or not key:
            mistakes.append(f"{word!r}: write key=value")
            continue
        flat[key] = _value(key, text)
    all_at_once(ConfigError, "settings that cannot be read", mistakes)
    return flat


def _value(key: str, text: str) -> Scalar:
    default = RunConfig().to_flat().get(key)
    if isinstance(default, str):
        return text.strip("'\"")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
    return value if isinstance(value, bool | int | float | str) else text


def absolute(config: RunConfig) -> RunConfig:
    flat = config.to_flat()
    for key in ("run.out", "data.source", "data.cache", "measure.fid-weights"):
        value = str(flat[key])
        if value and not (key == "data.source" and value == "phantom"):
            flat[key] = str(Path(value).expanduser().resolve())
    return RunConfig.from_flat(flat)
