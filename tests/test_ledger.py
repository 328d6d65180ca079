"""What left in all tries together: never less than dp-accounting says of what was truly released."""

from __future__ import annotations

import json
import math
from pathlib import Path

import dp_accounting as dp
import numpy as np
import pytest
from dp_accounting.rdp import RdpAccountant
from hypothesis import given, settings
from hypothesis import strategies as st

from fedsec.log.runlog import read
from fedsec.privacy.accounting import Accountant, Poisson
from fedsec.privacy.ledger import KINDS, Line, Try, spent
from fedsec.privacy.noise import client_side
from fedsec.reports.markdown.epsilons import by_images, rows
from fedsec.seeds import stream

ADD_OR_REMOVE, REPLACE = dp.NeighboringRelation.ADD_OR_REMOVE_ONE, dp.NeighboringRelation.REPLACE_ONE
CLIENT, REPLIES = Line("client", 2.0), Line("replies", 4.0)
IMAGE = Line("image", 1.5, releases=20, batch=8)
LINES = {"client": CLIENT, "replies": REPLIES, "image": IMAGE}


def by_the_library(events: list[tuple[dp.DpEvent, int]], delta: float, relation: dp.NeighboringRelation) -> float:
    accountant = RdpAccountant(neighboring_relation=relation)
    for event, times in events:
        accountant.compose(event, times)
    return float(accountant.get_epsilon(delta))


def test_a_line_for_every_kind_is_tried() -> None:
    assert set(LINES) == set(KINDS)


@pytest.mark.parametrize("kind", sorted(LINES))
def test_one_try_is_worth_what_its_accountant_says(kind: str) -> None:
    line, images = LINES[kind], (400, 90, 400)
    found = spent(line.kind, [Try((line,), images, 7)])
    alone = [line.accountant(images, i).epsilon(7 * line.releases) for i in range(3)]
    assert found.epsilon == max(alone)
    assert found.releases == 7 * line.releases
    assert found.words == line.accountant(images, 1).guarantee(found.releases)


@pytest.mark.parametrize("kind", sorted(LINES))
def test_tries_add_up_and_two_halves_are_a_whole(kind: str) -> None:
    line, images = LINES[kind], (300, 90)

    def of(*rounds: int) -> float:
        return spent(line.kind, [Try((line,), images, n) for n in rounds]).epsilon

    assert of(3, 4) == pytest.approx(of(7))
    assert of(7) < of(7, 1) < of(7, 7)
    assert of(7, 0) == of(7)
    assert of(0, 0) == of() == 0


def test_tries_with_other_noise_compose_as_the_library_says() -> None:
    tries = [Try((Line("client", z, delta=1e-4),), (50,) * 9, rounds) for z, rounds in ((2.0, 30), (8.0, 100))]
    events = [(dp.GaussianDpEvent(2.0), 30), (dp.GaussianDpEvent(8.0), 100)]
    assert spent("client", tries).epsilon == pytest.approx(by_the_library(events, 1e-4, ADD_OR_REMOVE))
    tries = [
        Try((Line("image", s, 20, batch=8, delta=1e-5),), (500, 100), rounds) for s, rounds in ((1.0, 2), (2.0, 9))
    ]
    images = [(dp.PoissonSampledDpEvent(0.08, dp.GaussianDpEvent(s)), n) for s, n in ((1.0, 40), (2.0, 180))]
    assert spent("image", tries).epsilon == pytest.approx(by_the_library(images, 1e-5, ADD_OR_REMOVE))
    replies = [Try((Line("replies", 9.0, shares=4, delta=1e-3),), (50,) * 9, 5)]
    assert spent("replies", replies).epsilon == pytest.approx(
        by_the_library([(dp.GaussianDpEvent(9.0 / 2 / 2), 5)], 1e-3, REPLACE)
    )


def test_one_try_without_the_guarantee_leaves_none() -> None:
    bare = Try((), (90,), 1)
    for kind, line in LINES.items():
        own = Try((line,), (90,), 1)
        assert math.isinf(spent(line.kind, [own, bare]).epsilon), kind
        assert spent(line.kind, [own, bare]).words == "no guarantee"
        assert math.isfinite(spent(line.kind, [own, Try((), (90,), 0)]).epsilon), "what released nothing costs nothing"
        silent = Line(line.kind, 0.0, batch=line.batch)
        assert math.isinf(spent(line.kind, [own, Try((silent,), (90,), 1)]).epsilon), "a multiplier of 0"


def test_other_images_in_another_try_are_counted_for_the_worst() -> None:
    """Which of the clients a hospital was the other time is not known: it may have been the smallest twice."""
    one, other = Try((IMAGE,), (400, 90), 5), Try((IMAGE,), (80, 500), 5)
    worst = [(dp.PoissonSampledDpEvent(8 / n, dp.GaussianDpEvent(1.5)), 100) for n in (90, 80)]
    least = min(IMAGE.accountant((n,), 0).delta for n in (400, 90, 80, 500))
    assert spent("image", [one, other]).epsilon == pytest.approx(by_the_library(worst, least, ADD_OR_REMOVE))


def test_delta_is_the_smallest() -> None:
    tries = [Try((Line("client", 4.0, delta=d),), (9,) * 3, 5) for d in (1e-3, 1e-6)]
    found = spent("client", tries)
    assert found.epsilon == pytest.approx(Accountant(4.0, 1e-6).epsilon(10))
    assert "delta = 1e-06" in found.words


def test_a_try_survives_the_log() -> None:
    one = Try((CLIENT, Line("replies", 1.2345678901, shares=3), IMAGE), (400, 90), 12)
    assert Try.of_event(json.loads(json.dumps(one.to_event()))) == one


@given(
    st.integers(2, 9).flatmap(
        lambda n: st.tuples(st.just(n), st.integers(1, n), st.lists(st.integers(0, n), min_size=1, max_size=30))
    ),
    st.floats(0.5, 8.0),
)
@settings(max_examples=60, deadline=None)
def test_noise_of_clients_is_never_less_than_is_accounted(answered: tuple[int, int, list[int]], z: float) -> None:
    """Any history of how many of n answered, those below the floor withheld: what the sums truly were worth, and what
    each client's replies were, lies at or below what is told. Without the floor it does not: see below."""
    n, fewest, history = answered
    summed = [(dp.GaussianDpEvent(z * math.sqrt(m / fewest)), 1) for m in history if m >= fewest]
    told = Accountant(z, 1e-3).epsilon(len(history))
    if summed:
        assert by_the_library(summed, 1e-3, ADD_OR_REMOVE) <= told * (1 + 1e-9)
    replies = [(dp.GaussianDpEvent(z / math.sqrt(fewest) / 2), sum(m > 0 for m in history) or 1)]
    headline = spent("replies", [Try((Line("replies", z, shares=fewest, delta=1e-3),), (9,) * n, len(history))])
    assert by_the_library(replies, 1e-3, REPLACE) <= headline.epsilon * (1 + 1e-9)
    assert headline.epsilon >= told or fewest == 1


def test_shares_of_the_expected_number_were_worth_less_than_was_told() -> None:
    """Four shares at z = 2, twenty rounds, three answer: 11.77, where 9.73 was told; one answers: 25.1. With shares for
    three, three who answer give z again."""
    told = Accountant(2.0, 1e-3).epsilon(20)
    assert told == pytest.approx(9.73, abs=0.01)
    for m, true in ((3, 11.77), (1, 25.1)):
        assert Accountant(2.0 * math.sqrt(m / 4), 1e-3).epsilon(20) == pytest.approx(true, abs=0.05)
    rngs = [stream(0, "client", i) for i in range(3)]
    total = sum(client_side(np.zeros(50_000), 1.0, 2.0, rng, 3) for rng in rngs)
    assert np.std(total) == pytest.approx(2.0, rel=0.02)


def test_what_was_amplified_is_less_than_what_an_adversary_sees_who_knows_who_was_asked() -> None:
    """The amplified number lies below that of the rounds one client was asked in."""
    for rate in (0.01, 0.05, 0.2):
        assert Accountant(1.0, 1e-5, Poisson(rate)).epsilon(100) < Accountant(1.0, 1e-5).epsilon(round(100 * rate))


def test_the_page_says_what_its_logs_are_worth() -> None:
    """Every epsilon of docs/results/privacy.md, accounted anew from the kept logs."""
    docs = Path(__file__).parents[1] / "docs/results"
    page = (docs / "privacy.md").read_text(encoding="utf-8")
    told = {row.split(" | ")[0].strip("| "): row.split(" | ")[1] for row in page.splitlines() if row.startswith("| ")}
    logs = [read(docs / "privacy"), read(docs / "privacy/clients")]
    found = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows(logs)][2:]
    alone = {row[0].split(",")[0]: row[2] for row in found if row[0].endswith("seed 0")}
    assert len(alone) == 8
    for arm, epsilon in alone.items():
        assert (told[arm] == epsilon == "none") or float(told[arm]) == pytest.approx(float(epsilon), rel=0.01), arm
    together = {(row[0], row[1]): row[2:] for row in found if "tries" in row[0] or "all" in row[0]}
    assert together["all together", "image"][0] == together["all together", "client"][0] == "none"
    assert together["the 3 of 13 tries with such noise", "image"] == ["182", "0.001", "2400"]
    assert together["the 5 of 13 tries with such noise", "client"] == ["2.72e+07", "0.001", "137"]
    assert "182 (`image-0.5`, `-1.0`, `-2.0`: 2,400 steps) |" in page
    assert "2.72e7 (137 releases) |" in page
    held = [row.strip("| ").split(" | ") for row in by_images(logs[0], "image-1.0", [340, 1000, 3400, 10_000])][2:]
    assert held == [
        ["340", "17.6", "0.001"],
        ["1,000", "5", "0.0005"],
        ["3,400", "1.46", "0.00013"],
        ["10,000", "0.789", "3.9e-05"],
    ]
    assert "17.6 at 340 images a site, 5.0 at 1,000, 1.46 at 3,400, 0.79 at 10,000, at delta 1e-3, 5e-4, 1.3e-4" in page
