"""What the calibrated FedDetect reads from the losses that clients report: one number a client and round.

READINGS is the index. A *level* is the loss itself. The *drop* is how far a client's generator loss falls within the
round, from its first steps to the mean of all: what the client's own discriminator demands and the server's generator
lacks. A trigger is such a thing: averaging with the honest dilutes it each round, and the attacker's local steps learn
it anew. A strong discriminator is not: its loss is high from the first step to the last. From round 41 on
the drop of recorded attackers stands 6 to 17 honest deviations apart, their level 4 to 8; an honest client whose level
stood 2 apart stood 1 apart in drop (docs/feddetect.md).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from fedsec.defences.isolation import FEWEST, spread_at

Losses = Sequence[float | None]
"""One reported number a client, by partition; None for a client that sent no reply this round."""
History = tuple[tuple[float, ...], ...]
"""By partition: the relative values of the last rounds in which that client had a usable one, oldest first."""

ABSURD = 1e6
"""|loss| beyond it is a violation: float16 ends at 65 504, cross-entropy near 1e2, a runaway critic near 1e4."""
WINDOW = 10
"""Rounds of its own that are remembered of a client, and its relative value is averaged over."""
FEW_ROUNDS = 5
"""A client with fewer usable rounds is not judged."""


@dataclass(frozen=True)
class Reading:
    """One way to read a client's losses.

    ``of(metrics)``: the number reported. ``scale``: from that number to where honest clients differ by about ``spread``
    in round 1, 2, ... ``one_round``: bound on one round's relative value, so that a single spike moves the mean of
    WINDOW rounds by about one honest deviation. ``absence``: what a client's suspicious value is divided by while it is
    away, that is, has all but lost its weight. ``rounds``: how many of a client's last the relative value is averaged
    over. ``asked``: where only some clients were asked, over the second number of highest among the first number of
    last ones. ``far``: an average that is flagged however many others are beside it, which no forest says of a crowd.
    """

    of: Callable[[Mapping[str, float]], float]
    scale: Callable[[float], float]
    spread: Callable[[int], float]
    one_round: float
    absence: float
    rounds: int = WINDOW
    asked: tuple[int, int] = (WINDOW, WINDOW)
    far: float = math.inf


def signed_log(loss: float) -> float:
    """sign(L) log(1 + |L|): relative, for critics' signed losses too."""
    return math.copysign(math.log1p(abs(loss)), loss)


def drop(metrics: Mapping[str, float]) -> float:
    """signed_log(loss of the first steps) - signed_log(mean loss of the round).

    A loss that is a violation by itself is handed on as it is, so that it is judged as one.
    """
    first, mean = _told("g-loss-first")(metrics), _told("g-loss")(metrics)
    for loss in (first, mean):
        if violation(loss):
            return loss
    return signed_log(first) - signed_log(mean)


def _told(name: str) -> Callable[[Mapping[str, float]], float]:
    return lambda metrics: metrics.get(name, math.nan)


def _level(name: str) -> Reading:
    return Reading(_told(name), signed_log, spread_at, 0.7, 1.0)


DROP_SPREAD = 0.03
"""Standard deviation of honest clients' relative drops over WINDOW rounds: 0.03 in rounds 11 to 40 and 0.017 after, in
three recorded clean runs."""
DROP_ABSENCE = 3.0
"""A generator that no longer learns from a client pleases it less and less, honest or not; without an allowance an
exclusion proves itself right. Ten to thirty rounds after they were excluded, recorded honest clients dropped by 0.07 to
0.18 more than the others, attackers by 0.36 to 0.62."""
PEAK_SPREAD = 0.3
"""Standard deviation of the logarithm of honest clients' peaks (``fedsec.defences.inspection``)."""
PEAK_FAR = 3 * PEAK_SPREAD
"""2.5 times the median client's peak. Where a third attack, the slowest of them stand beside the honest, so that there
is no gap to isolate anybody by; the others are far out all the same."""
PEAK_ASKED = (4, 2)
"""A round that happens to ask many attackers lowers what all of them stand out by, since the median client is nearly
one of them; nothing raises an honest client as much."""
MARK_ROUNDS = 2
"""Marks (``fedsec.defences.inspection.marks``) are of five and twenty rounds already; over two, a round alone
is nothing."""
READINGS: dict[str, Reading] = {
    "drop": Reading(drop, float, lambda number: DROP_SPREAD, 0.3, DROP_ABSENCE),
    "first": _level("g-loss-first"),
    "mean": _level("g-loss"),
    "last": _level("g-loss-last"),
    "peak": Reading(
        _told("peak"),
        lambda value: math.log(max(value, 1e-6)),
        lambda number: PEAK_SPREAD,
        2.0,
        1.0,
        FEW_ROUNDS,  # it is of many rounds already; averaged over ten more it came three rounds later
        PEAK_ASKED,
        PEAK_FAR,
    ),
}
READINGS["mark"] = replace(READINGS["peak"], rounds=MARK_ROUNDS)


def violation(loss: float | None) -> str:
    """What is wrong with a reported loss by itself; '' when nothing is."""
    if loss is None:
        return ""
    if not math.isfinite(loss):
        return f"reported generator loss {float(loss)} is not finite"
    return f"reported generator loss {loss:.3g} is beyond {ABSURD:.0e}" if abs(loss) > ABSURD else ""


def relative(losses: Losses, reading: Reading) -> tuple[float | None, ...]:
    """Per client its scaled value minus the median over clients; None where there is no usable loss."""
    usable = {i: reading.scale(loss) for i, loss in enumerate(losses) if loss is not None and not violation(loss)}
    if len(usable) < FEWEST:  # the median of so few is no yardstick
        return (None,) * len(losses)
    middle, bound = float(np.median(list(usable.values()))), reading.one_round
    bounded = {i: min(bound, max(-bound, value - middle)) for i, value in usable.items()}
    return tuple(bounded.get(i) for i in range(len(losses)))


def remembered(history: History, now: Sequence[float | None]) -> History:
    """``history`` with this round's relative values."""
    before = history or ((),) * len(now)
    return tuple(row if here is None else (*row, here)[-WINDOW:] for row, here in zip(before, now, strict=True))


def smoothed(history: History, now: Sequence[float | None], reading: Reading) -> list[float | None]:
    """What each client is judged by: an average over its last rounds, as ``reading`` says (``asked`` where somebody
    with FEW_ROUNDS is missing ``now``); None for one with fewer than FEW_ROUNDS."""
    known = [len(row) >= FEW_ROUNDS for row in history]
    some = any(k and here is None for k, here in zip(known, now, strict=True))
    rounds, highest = reading.asked if some else (reading.rounds, reading.rounds)
    last = [sorted(row[-rounds:])[-highest:] for row in history]
    return [math.fsum(row) / len(row) if k else None for k, row in zip(known, last, strict=True)]
