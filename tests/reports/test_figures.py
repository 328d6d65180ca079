"""Figures: the same bytes, no free text, no global state, and no value that can break or hide a curve."""

from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ET

import matplotlib as mpl
import numpy as np
import pytest

from fedsec.reports import figures
from fedsec.reports.figures import MALICIOUS, Curve, Look, arm_look, client_look, clients_over_rounds, curves_over


def curve(*values: float, look: Look | None = None) -> Curve:
    return Curve(look or Look(figures.BLUE), np.arange(1.0, len(values) + 1), np.array(values))


def drawn(**values: float) -> str:
    series = {i: curve(1.0, 1.1, value, 1.2) for i, value in enumerate(values.values())}
    return clients_over_rounds(series, [(0, 3)], label="loss", title="t")


def test_same_values_same_bytes_and_valid_xml() -> None:
    assert drawn(a=2.0, b=3.0) == drawn(a=2.0, b=3.0)
    ET.fromstring(drawn(a=2.0))


def test_nothing_global_is_changed() -> None:
    before = dict(mpl.rcParams)
    drawn(a=1.0)
    assert dict(mpl.rcParams) == before


def test_nothing_outside_is_named_and_text_takes_the_pages_ink() -> None:
    text = drawn(a=1.0)
    assert "http" not in text
    assert "metadata" not in text
    assert figures.INK not in text
    assert "var(--ink)" in text


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1e300, -1e300, 0.0])
@pytest.mark.parametrize("log", [False, True])
def test_any_value_can_be_drawn(value: float, log: bool) -> None:
    series = {0: curve(1.0, value, 1.2), 1: curve(0.9, 1.1, 1.0)}
    ET.fromstring(clients_over_rounds(series, [(0, 2), (1, 2)], label="loss", title="t", log=log))


@pytest.mark.parametrize("values", [(math.nan,), (5.0,), (5.0, 5.0), (1e300, 1e300)])
def test_degenerate_curves_can_be_drawn(values: tuple[float, ...]) -> None:
    ET.fromstring(clients_over_rounds({0: curve(*values)}, [], label="loss", title="t"))


def test_one_absurd_value_does_not_flatten_the_others() -> None:
    low, high = figures._fence([np.array([1.0, 1.1, 1.2, 1.3, 1e300]), np.array([1.0, math.inf, math.nan, 1.2])])
    assert 0.9 < low < 1.0
    assert 1.3 < high < 1.4


def test_two_figures_share_no_identifier() -> None:
    one, two = (clients_over_rounds({0: curve(1.0, 2.0)}, [], label="loss", title=t) for t in ("one", "two"))
    found = [set(re.findall(r'id="([^"]+)"', text)) for text in (one, two)]
    assert found[0]
    assert found[1]
    assert not found[0] & found[1]


def test_the_malicious_client_looks_like_nobody_else() -> None:
    for clients in (4, 8, 100):
        looks = [client_look(p, clients, [1], [1]) for p in range(clients)]
        assert looks[1].colour == MALICIOUS
        assert all(look.colour != MALICIOUS for p, look in enumerate(looks) if p != 1)


def test_an_honest_client_keeps_its_look_in_every_arm() -> None:
    for partition in (0, 2, 3):
        assert client_look(partition, 4, [1], [1]) == client_look(partition, 4, [], [1])
    assert len({client_look(p, 8, [], [1]) for p in range(8)}) == 8


def test_arms_differ_in_more_than_colour() -> None:
    assert len({arm_look(place) for place in range(20)}) == 20
    assert len({arm_look(place).marker for place in range(7)}) == 7


def test_curves_with_and_without_intervals() -> None:
    x = np.array([10.0, 25.0])
    bars = Curve(arm_look(0), x, x, x - 1, np.array([math.nan, 26.0]))
    ET.fromstring(curves_over([bars, Curve(arm_look(1), x, x)], across="n", label="AUC", title="t", log=True))


def test_the_split_can_be_drawn_for_one_and_for_many() -> None:
    for counts in ([[3]], [[0, 0], [0, 0]], [[1, 2, 3]] * 40):
        ET.fromstring(figures.stacked_counts(counts, [0, 99], title="split"))
