"""What a site can do to an update before it leaves, one word each. PROTECTIONS is the index. No torch.

Each is a pure function (before, after, strength, rng) -> what is sent. ``before``: the state dict that came, ``after``:
the one that training left. Guarantee of all: strength 0 sends ``after`` as it is; names, order, shapes and dtypes stay,
but for what 'local-statistics' leaves out; finite stays finite; an update of zeros stays one, 'clip-noise' apart, whose
promise is that nobody can tell; neither input is changed. Counters are never noised: they count public steps.

| name             | strength                                | at its end                                        |
| noise            | sigma0 >= 0, in 95th percentiles        | no end; no guarantee, since nothing is clipped    |
| clip-noise       | noise multiplier z >= 0                 | no end; ``epsilon`` says what it guarantees       |
| prune            | share of entries left out, 0 to 1       | 1: no weight moves                                |
| quantise         | step in largest entries, 0 to 1         | 1: three values a tensor (TernGrad)               |
| local-statistics | 0 or 1                                  | 1: running statistics and counters stay at home   |
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from fedsec.errors import ConfigError
from fedsec.privacy.accounting import Accountant, FixedSize
from fedsec.privacy.noise import clip
from fedsec.privacy.percentile import percentile_noise
from fedsec.types import Arrays, Vector
from fedsec.weights import COUNTERS, STATISTICS

BOUND = 1.0
"""L2 norm to which 'clip-noise' shortens the whole update."""
Protect = Callable[[Arrays, Arrays, float, np.random.Generator], Arrays]


@dataclass(frozen=True)
class Protection:
    """``most``: the largest strength that means anything. ``whole``: only 0 and 1 do."""

    source: str
    protect: Protect
    most: float = math.inf
    whole: bool = False


def clip_noise(
    before: Arrays, after: Arrays, strength: float, rng: np.random.Generator, *, bound: float = BOUND
) -> Arrays:
    """The update of all floating tensors, statistics among them, shortened to L2 norm ``bound``, plus N(0, (strength
    bound)^2) in each entry (McMahan et al. 2018, one client). An update with a value that is not finite counts as
    zeros. Strength 0 does not clip either."""
    if not strength:
        return dict(after)
    names = [name for name, value in after.items() if value.dtype.kind == "f"]
    moved = clip(np.concatenate([_change(before, after, name).ravel() for name in names]), bound)
    moved += rng.normal(0.0, strength * bound, moved.shape)
    cuts = np.cumsum([after[name].size for name in names])[:-1]
    sent = dict(after)
    for name, part in zip(names, np.split(moved, cuts), strict=True):
        sent[name] = _sum(before, after, name, part.reshape(after[name].shape))
    return sent


def epsilon(strength: float, delta: float, releases: int = 1) -> float:
    """Of 'clip-noise' against whoever reads the replies: any two data sets of the site are neighbours (an update moves
    by up to 2 bounds), no sampling and no sum hides anything. Infinite without noise.

    >>> round(epsilon(10.0, 1e-5), 2) < round(epsilon(10.0, 1e-5, releases=10), 2)
    True
    """
    return Accountant(strength, delta, FixedSize(1, 1), "nobody").epsilon(releases)


def prune(before: Arrays, after: Arrays, strength: float, rng: np.random.Generator) -> Arrays:
    """Each weight tensor's smallest changes set to zero, ``strength`` of its entries, rounded down (Zhu et al. 2019,
    sec. 5.2; tensor by tensor as Lin et al. 2018). Statistics are sent as they are: 'local-statistics' is for them.
    Departure: what is left out is not kept for the next round."""

    def largest(change: Vector) -> Vector:
        gone = int(strength * change.size)
        kept = change.ravel().copy()
        kept[np.argpartition(np.abs(kept), gone - 1)[:gone] if gone else []] = 0
        return kept.reshape(change.shape)

    return _weights(before, after, largest) if strength else dict(after)


def quantise(before: Arrays, after: Arrays, strength: float, rng: np.random.Generator) -> Arrays:
    """Each weight tensor's changes rounded at random, right on average, to multiples of ``strength`` times the largest
    (Alistarh et al. 2017, by the largest entry; at 1 Wen et al. 2017, TernGrad). Statistics are sent as they are."""

    def rounded(change: Vector) -> Vector:
        step = strength * float(np.abs(change).max(initial=0.0))
        if not 0 < step < math.inf:
            return change
        return np.asarray(np.floor(change / step + rng.random(change.shape)) * step, np.float64)

    return _weights(before, after, rounded) if strength else dict(after)


def local_statistics(before: Arrays, after: Arrays, strength: float, rng: np.random.Generator) -> Arrays:
    """Without BatchNorm's running statistics and counters, which stay at the site (Li et al. 2021, FedBN). Departure:
    FedBN keeps BatchNorm's weights at home too; they are trained like any other and are sent here."""
    return {name: value for name, value in after.items() if not strength or not _buffer(name)}


PROTECTIONS: dict[str, Protection] = {
    "noise": Protection("Hatamizadeh et al. 2023", percentile_noise),
    "clip-noise": Protection("McMahan et al. 2018", clip_noise),
    "prune": Protection("Zhu et al. 2019; Lin et al. 2018", prune, 1.0),
    "quantise": Protection("Alistarh et al. 2017; Wen et al. 2017", quantise, 1.0),
    "local-statistics": Protection("Li et al. 2021", local_statistics, 1.0, whole=True),
}


@dataclass(frozen=True)
class Chosen:
    """One protection at one strength. Raises ConfigError for a name or a strength that means nothing."""

    name: str
    strength: float

    def __post_init__(self) -> None:
        if self.name not in PROTECTIONS:
            raise ConfigError(f"protection {self.name!r} is unknown: choose one of {', '.join(PROTECTIONS)}")
        entry = PROTECTIONS[self.name]
        if not 0 <= self.strength <= entry.most or math.isinf(self.strength):
            raise ConfigError(f"{self.name} = {self.strength}: must be finite and 0 to {entry.most:g}")
        if entry.whole and self.strength not in (0, 1):
            raise ConfigError(f"{self.name} = {self.strength}: is off at 0 or on at 1, nothing between")

    def __call__(self, before: Arrays, after: Arrays, rng: np.random.Generator) -> Arrays:
        return PROTECTIONS[self.name].protect(before, after, self.strength, rng)


def parsed(text: str) -> list[Chosen]:
    """'prune=0.9,local-statistics=1': one after the other, in that order; '' is none. Raises ConfigError."""
    found = []
    for word in filter(None, text.split(",")):
        name, _, strength = word.partition("=")
        try:
            found.append(Chosen(name.strip(), float(strength)))
        except ValueError as error:
            raise ConfigError(f"{word!r}: a protection is written NAME=STRENGTH, such as prune=0.9") from error
    return found


def _change(before: Arrays, after: Arrays, name: str) -> Vector:
    return np.asarray(after[name], np.float64) - np.asarray(before[name], np.float64)


def _sum(before: Arrays, after: Arrays, name: str, change: Vector) -> np.ndarray:
    return np.asarray((np.asarray(before[name], np.float64) + change).astype(after[name].dtype))


def _weights(before: Arrays, after: Arrays, law: Callable[[Vector], Vector]) -> Arrays:
    """``after`` with the change of every trained tensor replaced by ``law`` of it."""
    return {
        name: value
        if value.dtype.kind != "f" or _buffer(name)
        else _sum(before, after, name, law(_change(before, after, name)))
        for name, value in after.items()
    }


def _buffer(name: str) -> bool:
    return name.rsplit(".", 1)[-1] in (*STATISTICS, *COUNTERS)
