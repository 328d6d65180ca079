"""What is attributed to a source is the difference of two attacks on the same updates."""

from __future__ import annotations

import pytest

from fedsec.reports.leaks import PRIOR, Leak
from fedsec.reports.record import LeakRow
from fedsec.reports.sources import differences, ladder


def leak(
    attack: str, *scores: float, partition: int = 8, arm: str = "plain", rounds: tuple[int, ...] = (1, 10)
) -> Leak:
    rows = [
        LeakRow(number, partition, attack, 1, {"ssim": score, "rdlv": 2 * score}, "", "")
        for number, score in zip(rounds, scores, strict=True)
    ]
    return Leak(arm, partition, attack, tuple(rows))


FOUND = [
    leak("bn-only", 0.5, 0.7),
    leak("global", 0.4, 0.2),
    leak(PRIOR, 0.3, 0.3),
    leak("bn-only", 0.9, 0.9, partition=4),
    leak("bn-only", 0.9, 0.9, arm="noise"),
]


def test_differences_are_audit_by_audit_where_both_were_made() -> None:
    assert differences(FOUND, "plain", "bn-only", "global", "ssim") == pytest.approx([0.1, 0.5])
    assert differences(FOUND, "plain", "bn-only", "prior-only", "rdlv") == pytest.approx([0.4, 0.8])
    assert differences(FOUND, "noise", "bn-only", "global", "ssim") == []


def test_the_page_has_a_line_for_what_was_attributed_and_none_for_what_was_not() -> None:
    text = ladder(FOUND)
    assert "Where the leak comes from" in text
    assert "+0.30" in text
    assert "bn-only − global" in text
    assert "maps" not in text
    assert "noise" not in text
    assert ladder(FOUND[2:]) == ""
