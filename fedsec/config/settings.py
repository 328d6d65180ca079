"""One configuration key: its default, its rule, its meaning, and the check of a value against them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import field
from typing import Any, Literal, get_args, get_origin

from fedsec.config.added import added, origin
from fedsec.errors import ConfigError


def at_least(low: float) -> Callable[[Any], str]:
    return lambda value: "" if value >= low else f"must be at least {low}"


def between(low: float, high: float) -> Callable[[Any], str]:
    return lambda value: "" if low <= value <= high else f"must be between {low} and {high}"


def above(low: float) -> Callable[[Any], str]:
    return lambda value: "" if value > low else f"must be above {low}"


def setting(default: Any, rule: Callable[[Any], str] | None = None, *, meaning: str) -> Any:
    """A field with its rule and its one-line meaning (shown by ``fedsec config``)."""
    return field(default=default, metadata={"rule": rule, "meaning": meaning})


def checked(key: str, value: Any, hint: Any, rule: Callable[[Any], str] | None) -> Any:
    """``value`` as ``hint`` (a plain type or a Literal) under ``rule``. Raises ConfigError with value and rule."""
    if get_origin(hint) is Literal:
        allowed = (*get_args(hint), *added(key))
        if value not in allowed or isinstance(value, bool):
            raise ConfigError(f"{key} = {value!r}: must be one of {', '.join(map(repr, allowed))}")
        if allowed.count(value) > 1:
            raise ConfigError(
                f"{key} = {value!r}: {origin(added(key)[value])} adds a name that fedsec has; uninstall it"
            )
        return value
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool):
        raise ConfigError(f"{key} = {value!r}: must be {hint.__name__}, not {type(value).__name__}")
    if isinstance(value, float) and value != value:
        raise ConfigError(f"{key} = {value!r}: must be a number")
    broken = rule(value) if rule else ""
    if broken:
        raise ConfigError(f"{key} = {value!r}: {broken}")
    return value
