"""Errors a user can cause. Each message says the value, the rule it breaks, and the remedy."""

from __future__ import annotations

from collections.abc import Sequence


class FedsecError(Exception):
    """Base of every error that a user's input can cause; the command line prints it without a stack trace."""


class ConfigError(FedsecError):
    """A run configuration that breaks a rule."""


class DataError(FedsecError):
    """A data source that cannot be used as it is."""


class ReplyError(FedsecError):
    """A client reply that cannot enter the aggregate."""


class RunError(FedsecError):
    """A federated run that did not finish."""


class RobustnessError(FedsecError):
    """A reducer that is asked to withstand more than it can, or lacks what it needs."""


def all_at_once(kind: type[FedsecError], title: str, mistakes: Sequence[str]) -> None:
    """Raise one ``kind`` that lists every mistake; do nothing when there is none."""
    if mistakes:
        lines = "".join(f"\n  - {mistake}" for mistake in mistakes)
        raise kind(f"{title} ({len(mistakes)} found):{lines}")


class ProbeError(FedsecError):
    """An update from which a probe cannot read what it is asked for."""


class MetricError(FedsecError):
    """A sample on which a score cannot be computed."""
