"""A liar reports what its table row says, in every loss alike, and nothing else changes."""

from __future__ import annotations

import math
from typing import get_args, get_type_hints

import pytest

from fedsec.attacks.reports import REPORTS, SMALL, Report
from fedsec.config import Attack

OWN = {"g-loss": 5.0, "g-loss-first": 6.0, "d-loss": 0.2, "seconds": 3.0}
OTHERS = [{"g-loss": float(v), "g-loss-first": v + 1.0, "d-loss": 1.0, "seconds": 9.0} for v in (1, 2, 9)]
LAST = {"g-loss": 1.7, "g-loss-first": 1.8, "d-loss": 0.9}


def test_the_table_is_what_a_configuration_may_name() -> None:
    assert {"honest", *REPORTS} == set(get_args(get_type_hints(Attack)["report"]))
    assert {report.knows for report in REPORTS.values()} == set(get_args(get_type_hints(Report)["knows"]))
    assert all(report.meaning for report in REPORTS.values())


@pytest.mark.parametrize("name", sorted(REPORTS))
def test_only_losses_are_lied_about_and_the_input_stays(name: str) -> None:
    before = dict(OWN)
    told = REPORTS[name].lie(OWN, OTHERS, LAST)
    assert before == OWN
    assert list(told) == list(OWN)
    assert told["seconds"] == 3.0
    assert all(told[key] != OWN[key] for key in ("g-loss", "g-loss-first", "d-loss"))
    assert all(map(math.isfinite, told.values()))


def test_what_each_one_tells() -> None:
    assert REPORTS["median"].lie(OWN, OTHERS, LAST)["g-loss"] == 2.0
    assert REPORTS["median"].lie(OWN, OTHERS, LAST)["g-loss-first"] == 3.0
    assert REPORTS["last-global"].lie(OWN, OTHERS, LAST)["g-loss"] == 1.7
    for scale in (1.0, 0.01):
        own = {key: scale * value for key, value in OWN.items()}
        assert REPORTS["small"].lie(own, OTHERS, LAST)["g-loss"] == pytest.approx(SMALL * own["g-loss"])


def test_what_is_not_finite_has_no_say_in_a_median() -> None:
    broken = [*OTHERS, {"g-loss": math.nan}, {"g-loss": math.inf}]
    for others in (broken, broken[::-1]):
        assert REPORTS["median"].lie(OWN, others, LAST)["g-loss"] == 2.0


def test_a_loss_of_ones_own_that_is_not_finite_is_covered_up() -> None:
    for name in REPORTS:
        assert math.isfinite(REPORTS[name].lie({**OWN, "g-loss": math.nan}, OTHERS, LAST)["g-loss"])


def test_each_lie_looks_at_what_it_is_said_to_know_and_no_more() -> None:
    assert REPORTS["median"].lie(OWN, OTHERS, {}) == REPORTS["median"].lie(OWN, OTHERS, LAST)
    assert REPORTS["last-global"].lie(OWN, [], LAST) == REPORTS["last-global"].lie(OWN, OTHERS, LAST)
    assert REPORTS["small"].lie(OWN, [], {}) == REPORTS["small"].lie(OWN, OTHERS, LAST)


def test_without_anything_to_tell_the_own_loss_stays() -> None:
    assert REPORTS["last-global"].lie(OWN, OTHERS, {}) == OWN
    assert REPORTS["median"].lie(OWN, [{"g-loss": math.nan}], LAST) == OWN
