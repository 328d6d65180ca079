"""What is attributed to a source is the difference of two attacks on the same updates."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from fedsec.log.record import LeakRow
from fedsec.metrics.measures import HEADINGS, OLD_SSIM, SSIM
from fedsec.reports.leakage import SCORES, attacks
from fedsec.reports.leaks import PRIOR, Leak, likeness
from fedsec.reports.sources import differences, ladder


def leak(
    attack: str,
    *scores: float,
    partition: int = 8,
    arm: str = "plain",
    rounds: tuple[int, ...] = (1, 10),
    key: str = SSIM,
) -> Leak:
    rows = [
        LeakRow(number, partition, attack, 1, {key: score, "rdlv": 2 * score}, "", "")
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
    for other, measure, expected in (("global", SSIM, [0.1, 0.5]), ("prior-only", "rdlv", [0.4, 0.8])):
        gained = differences(FOUND, "plain", "bn-only", other, measure)
        assert [value for _, value in gained] == pytest.approx(expected)
    assert differences(FOUND, "noise", "bn-only", "global", SSIM) == []


def test_the_page_has_a_line_for_what_was_attributed_and_none_for_what_was_not() -> None:
    text = ladder(FOUND)
    assert "Where the leak comes from" in text
    assert "+0.30" in text
    assert "bn-only − global" in text
    assert "maps" not in text
    assert "noise" not in text
    assert ladder(FOUND[2:]) == ""


def test_an_older_log_is_read_by_the_name_of_its_measure_and_never_as_the_new_one() -> None:
    old = [leak("bn-only", 0.5, 0.7, key=OLD_SSIM), leak(PRIOR, 0.3, 0.3, key=OLD_SSIM)]
    told = HEADINGS[OLD_SSIM]
    assert likeness(old[0], old[1]) == f"{told}: 0.600 against 0.300 of the public prior"
    for text in (attacks(old, SCORES), ladder(old)):
        assert told in text
        assert HEADINGS[SSIM] not in text
    new = leak("bn-only", 0.9, 0.9, partition=4)
    assert likeness(new, new) == f"{HEADINGS[SSIM]}: 0.900 against 0.900 of the public prior"
    both = attacks([*old, new], SCORES)
    assert told in both
    assert HEADINGS[SSIM] in both
    assert differences([*old, leak("global", 0.4, 0.2)], "plain", "bn-only", "global", SSIM) == []


def test_a_row_of_both_measures_counts_for_its_own_alone() -> None:
    mixed = Leak(
        "plain", 8, "bn-only", (*leak("bn-only", 0.9, 0.9, key=OLD_SSIM).rows, *leak("bn-only", 0.5, 0.5).rows)
    )
    assert mixed.of(mixed.ssim).mean == pytest.approx(0.5)


def test_rounds_of_one_seed_count_once() -> None:
    """Two rounds of each of three seeds: Student's with 2 degrees of freedom over the seeds' means 0.2, 0.4, 0.6."""
    one = leak("bn-only", 0.1, 0.3, 0.3, 0.5, 0.5, 0.7, rounds=(1, 10) * 3)
    found = replace(one, seeds=(0, 0, 1, 1, 2, 2)).of(SSIM)
    half = 4.302652729911275 * 0.2 / 3**0.5
    assert (found.mean, found.low, found.high) == pytest.approx((0.4, 0.4 - half, 0.4 + half))
    assert math.isnan(one.of(SSIM).low), "one seed has no interval"
