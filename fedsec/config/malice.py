"""The section ``attack`` of a run configuration: who attacks, with what, and when. Simulations alone read it.

``class_`` is the key ``attack.class``: a trailing underscore keeps a field off Python's reserved words.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from fedsec.config.settings import at_least, between, setting


@dataclass(frozen=True)
class Attack:
    """What the malicious clients do with their images (``name``), their updates and their reports."""

    name: Literal[
        "none",
        "patch",
        "blended",
        "warp",
        "frequency",
        "stain",
        "distributed",
        "label-flip",
        "noise-images",
        "out-of-distribution",
    ] = setting("none", meaning="what the malicious clients do to the images they train on")
    update: Literal[
        "none",
        "scale",
        "sign-flip",
        "gaussian",
        "alie",
        "ipm",
        "min-max",
        "min-sum",
        "mimic",
        "free-rider",
        "latent-conditional",
        "discriminator-only",
        "below-the-bar",
        "best-share",
        "sleeper",
    ] = setting("none", meaning="what they send in place of the update their training gave")
    report: Literal["honest", "median", "last-global", "small"] = setting(
        "honest", meaning="the losses they report: their own, the median of this or the last round, or a small one"
    )
    malicious: str = setting("0", meaning="partitions of the malicious clients, e.g. '0' or '0,3'")
    trigger: Literal["smooth", "solid", "noise"] = setting(
        "smooth", meaning="texture of the patch or of what is blended in"
    )
    size: int = setting(4, at_least(1), meaning="side of the patch in pixels")
    position: Literal["bottom-right", "bottom-left", "top-right", "top-left", "centre"] = setting(
        "bottom-right", meaning="where the patch sits, one pixel off the border"
    )
    blend: float = setting(
        0.0,
        between(0, 20),
        meaning="strength of the trigger: mixing, amplitude mixing (frequency), half pixels (warp); 0 = the source's",
    )
    fraction: float = setting(1.0, between(0.01, 1), meaning="share of the malicious client's images")
    strength: float = setting(0.0, at_least(0), meaning="factor of the update attack; 0 = its source's")

    start: int = setting(0, meaning="first round they attack in; 0 = the first; negative = from the end, -1 the last")
    stop: int = setting(0, meaning="last round they attack in; 0 = to the end; negative = from the end, as start")
    period: int = setting(
        1, at_least(1), meaning="from the first on they attack in every so-many-th round; 1 = in every"
    )
    class_: int = setting(-1, at_least(-1), meaning="number of the one class whose images they change; -1 = all")
    ramp: int = setting(
        0, at_least(0), meaning="rounds in which the changed share grows to attack.fraction; 0 = at once"
    )

    @property
    def active(self) -> bool:
        """Whether anybody attacks at all."""
        return (self.name, self.update, self.report) != ("none", "none", "honest")

    def first(self, rounds: int) -> int:
        """``start`` as a number from 1, of ``rounds`` in all."""
        return max(1, rounds + 1 + self.start if self.start < 0 else self.start)

    def last(self, rounds: int) -> int:
        """``stop`` as a number from 1, of ``rounds`` in all."""
        return rounds + 1 + self.stop if self.stop < 0 else self.stop or rounds

    def acts(self, number: int, rounds: int) -> bool:
        """Whether they attack in round ``number`` (from 1) of ``rounds``.

        >>> [number for number in range(1, 11) if Attack(start=-5, period=2).acts(number, 10)]
        [6, 8, 10]
        """
        since = number - self.first(rounds)
        return since >= 0 and since % self.period == 0 and number <= self.last(rounds)

    def share(self, number: int, rounds: int) -> float:
        """The share of their images that they change in round ``number``: ``fraction``, or on the way to it."""
        since = number - self.first(rounds) + 1
        return self.fraction * min(1.0, max(0, since) / self.ramp) if self.ramp else self.fraction
