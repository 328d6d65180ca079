"""Keys whose value is a list, written as text."""

from __future__ import annotations

from fedsec.config.sections import Leakage


def integers(text: str) -> list[int]:
    """Whole numbers with commas. ValueError when it reads otherwise.

    >>> integers("0, 3,")
    [0, 3]
    """
    return [int(part) for part in text.split(",") if part.strip()]


def pairs(text: str) -> dict[str, int]:
    """Numbers by name. ValueError when it reads otherwise.

    >>> pairs("span=40, bn-only=300")
    {'span': 40, 'bn-only': 300}
    """
    split = [part.partition("=") for part in text.split(",") if part.strip()]
    return {name.strip(): int(number) for name, _, number in split}


def audits(leakage: Leakage) -> list[str]:
    """``leakage.attacks`` one by one."""
    return [name.strip() for name in leakage.attacks.split(",") if name.strip()]
