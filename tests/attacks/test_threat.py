"""Every attack says what it does and what it has to know."""

from __future__ import annotations

import pytest

from fedsec.attacks.poison import POISONS
from fedsec.attacks.reports import REPORTS
from fedsec.attacks.threat import threat
from fedsec.attacks.updates import UPDATES
from fedsec.config import Attack

EVERY = [("name", name) for name in POISONS] + [("update", name) for name in UPDATES]
EVERY += [("report", name) for name in REPORTS]


@pytest.mark.parametrize(("key", "name"), EVERY)
def test_an_attack_says_what_it_knows(key: str, name: str) -> None:
    (line,) = threat(Attack(**{key: name}))  # type: ignore[arg-type]
    assert "they know " in line


def test_who_was_made_against_a_rule_says_so() -> None:
    (line,) = threat(Attack("stain"))
    assert "the rule in use (fed-inspect" in line
    assert all("rule in use" not in threat(Attack(**{key: name}))[0] for key, name in EVERY if name != "stain")  # type: ignore[arg-type]


def test_attacks_that_combine_are_all_told_and_the_honest_say_nothing() -> None:
    assert threat(Attack()) == []
    lines = threat(Attack(name="patch", update="scale", report="median", fraction=0.25))
    assert len(lines) == 3
    assert "25% of them" in lines[0]
    assert "every client's reported losses" in lines[2]
