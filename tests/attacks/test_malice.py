"""When attackers attack, with how many of their images, and of which class."""

from __future__ import annotations

import numpy as np
import pytest

from fedsec.attacks.poison import POISONS, Party
from fedsec.attacks.threat import threat
from fedsec.config import Attack, RunConfig
from fedsec.types import Rows


def rounds(attack: Attack, count: int = 10) -> list[int]:
    return [number for number in range(1, count + 1) if attack.acts(number, count)]


@pytest.mark.parametrize(
    ("attack", "when"),
    [
        (Attack(), list(range(1, 11))),
        (Attack(start=4), [4, 5, 6, 7, 8, 9, 10]),
        (Attack(start=-1), [10]),
        (Attack(start=-3), [8, 9, 10]),
        (Attack(start=-30), list(range(1, 11))),
        (Attack(stop=2), [1, 2]),
        (Attack(start=-4, stop=-4), [7]),
        (Attack(start=2, stop=-8), [2, 3]),
        (Attack(period=3), [1, 4, 7, 10]),
        (Attack(start=2, stop=7, period=3), [2, 5]),
    ],
)
def test_they_attack_from_start_to_stop_in_every_period(attack: Attack, when: list[int]) -> None:
    assert rounds(attack) == when


def test_a_ramp_grows_to_the_fraction_and_stays() -> None:
    attack = Attack(fraction=0.5, ramp=4, start=3)
    assert [round(attack.share(number, 10), 3) for number in (3, 4, 5, 6, 7, 10)] == [0.125, 0.25, 0.375, 0.5, 0.5, 0.5]
    assert {Attack(fraction=0.5).share(number, 10) for number in (1, 10)} == {0.5}


@pytest.mark.parametrize("name", sorted(POISONS))
def test_a_poison_touches_its_fraction_of_one_class_and_more_with_more(name: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 32, 32, 3), dtype=np.uint8)
    rows = Rows(pixels, np.arange(40) % 2)

    def touched(fraction: float, only: int) -> set[int]:
        attack = Attack(name=name, fraction=fraction, class_=only)  # type: ignore[arg-type]
        found = POISONS[name](rows, attack, Party(0, 1, 2, seed=3))
        changed = (found.pixels != rows.pixels).any(axis=(1, 2, 3)) | (found.labels != rows.labels)
        return set(np.flatnonzero(changed))

    some, all_of_it = touched(0.25, 1), touched(1.0, 1)
    assert len(some) == 5
    assert some < all_of_it == set(range(1, 40, 2))
    assert touched(1.0, 5) == set(), "no image of that class, nothing to change"


def test_the_key_of_a_reserved_word_is_the_word() -> None:
    config = RunConfig.from_flat({"attack.class": 1, "attack.name": "patch"})
    assert config.attack.class_ == 1
    assert config.to_flat()["attack.class"] == 1


def test_who_chooses_rounds_or_classes_says_so() -> None:
    chosen = Attack("patch", start=-3, period=2, ramp=5, class_=1)
    _, when = threat(chosen)
    for part in (
        "in the last 3 rounds alone",
        "one round of 2",
        "grows over 5 rounds",
        "class 1 alone",
        "they know the",
    ):
        assert part in when
    assert "from round 30 on, to round 35" in threat(Attack("patch", start=30, stop=35))[1]
    assert "when 6 rounds are to come alone" in threat(Attack("patch", start=-7, stop=-7))[1]
    assert "when 6 rounds are to come until 2 are" in threat(Attack("patch", start=-7, stop=-3))[1]
    assert "from round 2 on, until 2 rounds are to come" in threat(Attack("patch", start=2, stop=-3))[1]
    assert "in the last round alone" in threat(Attack(update="scale", start=-1))[1]
    assert threat(Attack(start=3)) == [], "nobody attacks"
