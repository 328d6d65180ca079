"""Names that other installed packages add to fedsec's tables, by entry points; GROUPS is the index.

A package that has, in its pyproject, ``[project.entry-points."fedsec.reducers"]`` with ``mine = "its.module:function"``
gives ``defence.name`` one value more. Nothing of it is imported before a configuration names it. On real machines it
has to be installed wherever it is used: reducers and probes at the server, attacks and layouts at the clients.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any, TypeVar

from fedsec.errors import ConfigError

GROUPS = {
    "attack.name": "fedsec.attacks",
    "defence.name": "fedsec.reducers",
    "data.format": "fedsec.layouts",
    "leakage.attacks": "fedsec.probes",
}
"""Key -> group of entry points that adds values to it. CONTRIBUTING.md says what each has to be; examples/ has one."""
Row = TypeVar("Row")


@cache
def added(key: str) -> dict[str, EntryPoint]:
    """Name -> entry point. Raises ConfigError for a name that two packages add."""
    found: dict[str, EntryPoint] = {}
    for point in entry_points(group=GROUPS[key]) if key in GROUPS else ():
        if point.name in found and point.value != found[point.name].value:
            both = f"{origin(found[point.name])} and {origin(point)}"
            raise ConfigError(f"{key} = {point.name!r}: added by {both}; uninstall one of them")
        found[point.name] = point
    return found


def origin(point: EntryPoint) -> str:
    """The package that adds it, with its version: what a cell's digest says of code that is not ours."""
    return f"{point.dist.name} {point.dist.version}" if point.dist else point.value


class Table(dict[str, Row]):
    """A table of ``key``'s values: iterates over fedsec's own; looks up those that are added, too.

    ``wrap``: makes a row of what an entry point loads."""

    def __init__(self, key: str, rows: Mapping[str, Row], wrap: Callable[[Any], Row] = lambda loaded: loaded) -> None:
        super().__init__(rows)
        self.key, self.wrap = key, wrap

    def __contains__(self, name: object) -> bool:
        return super().__contains__(name) or name in added(self.key)

    def __missing__(self, name: str) -> Row:
        if name not in added(self.key):
            raise KeyError(name)
        point = added(self.key)[name]
        try:
            return self.wrap(point.load())
        except Exception as error:
            raise ConfigError(f"{self.key} = {name!r}: {origin(point)} cannot be loaded: {error!r}") from error
