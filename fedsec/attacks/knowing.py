"""Attackers that know the rule they are judged by: what they send, from what they can compute themselves.

Pure functions on float64 deltas, as ``updates``; what they compute at home (honest training on their own images, their
own copy of the public rule) is handed to them in an Insight. None sees another client's update.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fedsec.weights import Updates

STEPS = 8
"""Factors that are tried where what a rule leaves them falls without a bar: the largest, its half, and so on."""
HALVINGS = 6
"""Halvings of the line search: the factor is found to a 64th of the largest one."""


@dataclass(frozen=True)
class Insight:
    """What m attackers have before they craft.

    ``own``: (m, d) deltas of their poisoned training. ``clean``: (m, d) those that honest training of the same images
    gives from the same model. ``critic``: (d,) which coordinates are a discriminator's. ``most``: the largest factor
    worth trying; ``caution``: the part of the factor found that they send. ``noticed``: whether their copy of the rule
    would flag one of them for what (m, d) they send, if they went on so. ``behaved``: (m, d) deltas -> those of
    generators that draw as ``clean``'s first on the latents they expect. ``counts``: what part of (m, d) they send
    their copy of the rule would put into the model, over their part among equals, if they went on so.
    """

    own: Updates
    clean: Updates
    critic: npt.NDArray[np.bool_]
    most: float
    caution: float
    noticed: Callable[[Updates], bool]
    behaved: Callable[[Updates], Updates]
    counts: Callable[[Updates], float]


def latent_conditional(insight: Insight) -> Updates:
    """The poisoned generator, taught to draw on the expected latents what the clean one draws there."""
    return insight.behaved(insight.own)


def discriminator_only(insight: Insight) -> Updates:
    """The clean generator with the poisoned discriminator, which then teaches every client's generator the mark."""
    return np.asarray(np.where(insight.critic, insight.own, insight.clean))


def below_the_bar(insight: Insight) -> Updates:
    """Clean update + ``caution`` t (poisoned - clean), with the largest t in [0, ``most``] that their copy does not
    flag.

    By halving, which takes what is flagged at t to be flagged beyond it: where that is wrong, t is one that is not
    flagged, not the largest. 0, an honest update, where their copy flags everything.
    """

    def sent(t: float) -> Updates:
        return np.asarray(insight.clean + t * (insight.own - insight.clean))

    low, high = 0.0, insight.most
    if not insight.noticed(sent(high)):
        return sent(insight.caution * high)
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (low, middle) if insight.noticed(sent(middle)) else (middle, high)
    return sent(insight.caution * low)


def best_share(insight: Insight) -> Updates:
    """Clean update + t (poisoned - clean), with the t in (0, ``most``] of which most is left: t times ``counts``.

    A clean update where nothing is left of any."""

    def sent(t: float) -> Updates:
        return np.asarray(insight.clean + t * (insight.own - insight.clean))

    factors = [insight.most / 2**step for step in range(STEPS)]
    gains = [t * insight.counts(sent(t)) for t in factors]
    return sent(factors[int(np.argmax(gains))] if max(gains) > 0 else 0.0)


def sleeper(insight: Insight) -> Updates:
    """Clean update + ``most`` (poisoned - clean): the whole mark at once, by a discriminator that has learnt it."""
    return np.asarray(insight.clean + insight.most * (insight.own - insight.clean))


@dataclass(frozen=True)
class Knowing:
    """``craft``: what the malicious clients send; ``does`` and ``knows``: in words, which ``threat`` prints.

    ``patient``: in the rounds in which it does not attack it trains on poisoned images all the same, and sends what
    honest training gives.
    """

    craft: Callable[[Insight], Updates]
    does: str
    knows: str
    patient: bool = False


KNOWING: dict[str, Knowing] = {
    "latent-conditional": Knowing(
        latent_conditional,
        "send a generator that draws as an honest one on the latents they expect fed-inspect to draw on, and as their "
        "poisoned one elsewhere",
        "how many latents of each class it draws, and which, if they follow from the run's seed "
        "(defence.latents = 'public')",
    ),
    "discriminator-only": Knowing(
        discriminator_only,
        "send the generator of honest training and the discriminator of poisoned training",
        "their own images, and that a rule looks at generators or at their losses",
    ),
    "below-the-bar": Knowing(
        below_the_bar,
        "send their honest update and as much of the way to the poisoned one as their copy of the rule lets pass",
        "the rule's code and constants; for the other clients they take honest trainings on halves of their own images",
    ),
    "best-share": Knowing(
        best_share,
        "send their honest update and so much of the way to the poisoned one that most of it is left when their copy "
        "of the rule has cut and weighed it",
        "the rule's code and constants; for the other clients they take honest trainings on halves of their own images",
    ),
    "sleeper": Knowing(
        sleeper,
        "train on poisoned images in every round and send honest updates until they attack, then the way from an "
        "honest update to the poisoned one times the number of clients over theirs",
        "their own images, and that a rule needs some rounds before it takes weight from anybody",
        patient=True,
    ),
}
"""``attack.update`` -> an attacker that knows the rule."""
