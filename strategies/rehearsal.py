"""What attackers that know the rule try at home before they send: honest training, and their own copy of the rule.

In a simulation only, where the server's process has every partition; of these the attackers' own images are read, and
of the round what they were sent and what they trained.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from fedsec.attacks.conditional import behave
from fedsec.attacks.knowing import Insight
from fedsec.config import Attack
from fedsec.datasets import partition
from fedsec.defences.geometry import within
from fedsec.flower.messages import Enrolled
from fedsec.images import mirrored
from fedsec.models.gan.learner import new_learner
from fedsec.models.state import device_of
from fedsec.seeds import address_seed, stream
from fedsec.types import Arrays, Fit, Images, Rows, Vector
from fedsec.weights import Layout, Updates, generator_arrays
from strategies.draws import Inspector, public_latents

if TYPE_CHECKING:
    from strategies.base import Brief, RoundStrategy, Weighing

IMAGINED = (3, 9)
"""Fewest and most stand-ins for the honest clients."""
COPIED = {"below-the-bar": 0.6, "best-share": 1.0}
"""Attackers that keep a copy of the rule -> what is sent of the factor that the copy lets pass. With all of it
``below-the-bar`` was flagged from the seventh round on (lesions, seed 0): one hospital's halves differ more than
hospitals do."""
AHEAD = 5
"""Times that the copy is told the same: a rule that looks back over some rounds judges what is kept up."""


class Rehearsal:
    """The attackers' own federation, round after round. ``rule``: makes the strategy whose rule they copy.

    Stand-ins for the honest clients train honestly on halves of the attackers' images. That makes them differ a little
    more than clients of the attackers' size do, and all of one hospital: the bar is as good a guess as that.
    """

    def __init__(self, brief: Brief, layout: Layout, rule: Callable[[Brief], RoundStrategy]) -> None:
        self.brief, self.layout = brief, layout
        self.config = replace(brief.config, attack=Attack())
        data, guilty, split = brief.dataset, brief.config.malicious, brief.config.split
        self.channels, self.classes = data.channels, len(data.class_names)
        parts = partition(data, replace(split, clients=len(brief.nodes)), seed=self.config.data.seed)
        self.rows = {p: data.rows(parts[p]) for p in guilty}
        self.places = {p: i for i, p in enumerate(guilty)}
        self.critic = _coordinates(layout, "discriminator.")
        self.kept: dict[str, Arrays] = {}
        self.judge: RoundStrategy | None = None
        self.stand_ins: list[Rows] = []
        self.caution = 1.0
        if brief.config.attack.update in COPIED and brief.config.defence.reads_losses:
            self.caution = COPIED[brief.config.attack.update]
            pool = data.rows(np.concatenate([parts[p] for p in guilty]))
            count = min(max(len(brief.nodes) - len(guilty), IMAGINED[0]), IMAGINED[1])
            self.stand_ins = [pool.take(_half(len(pool), brief.seed, i)) for i in range(count)]
            nodes = [Enrolled(i, i, "") for i in range(len(guilty) + count)]
            secret = address_seed(brief.seed, "rehearsal")
            self.judge = rule(replace(brief, config=self.config, nodes=nodes, secret=secret))
            if self.judge.inspector is not None:
                self.judge.inspector = Remembering(self.judge.inspector)

    def insight(self, number: int, guilty: Sequence[Fit], current: Vector) -> Insight:
        """What the attackers who were asked this round have before they craft. To be asked for in every round, so that
        what stands in for others keeps up with them."""
        shared = self.layout.arrays(current)
        clean = [self._trained(f"client {f.partition}", self.rows[f.partition], shared, number, f) for f in guilty]
        self.clean, self.current = self.layout.updates([fit.arrays for fit in clean], current), current
        self.others = [self._stand_in(i, shared, number) for i in range(len(self.stand_ins))]
        seed = public_latents(self.brief.seed, number)
        return Insight(
            own=self.layout.updates([fit.arrays for fit in guilty], current),
            clean=self.clean,
            critic=self.critic,
            most=self.brief.config.attack.strength or len(self.brief.nodes) / len(self.rows),
            caution=self.caution,
            noticed=lambda sent: self._noticed(number, guilty, sent),
            counts=lambda sent: self._counts(number, guilty, sent),
            behaved=lambda own: np.stack([self._behaved(row, clean[0], current, seed) for row in own]),
        )

    def learn(self, number: int, sent: Sequence[Fit]) -> None:
        """Tell the copy what the attackers sent in the end, without the caution: what it let pass is what it saw."""
        if self.judge is not None:
            updates = self.layout.updates([fit.arrays for fit in sent], self.current)
            told = self._fits(sent, self.clean + (updates - self.clean) / self.caution)
            self.judge.weigh(number, [*told, *self.others])

    def _fits(self, like: Sequence[Fit], updates: Updates) -> list[Fit]:
        """As the copy is told, where the attackers come first."""
        return [
            replace(fit, partition=self.places[fit.partition], arrays=self.layout.arrays(self.current + update))
            for fit, update in zip(like, updates, strict=True)
        ]

    def _noticed(self, number: int, guilty: Sequence[Fit], sent: Updates) -> bool:
        found = self._judged(number, self._fits(guilty, sent))
        return any(self.places[fit.partition] in row.flagged for row in found for fit in guilty)

    def _counts(self, number: int, guilty: Sequence[Fit], sent: Updates) -> float:
        """After AHEAD rounds of the same, cut to the bound of the rule; 1 under a rule that leaves all alike."""
        if self.judge is None:
            return 1.0
        others = self.layout.updates([fit.arrays for fit in self.others], self.current)
        cuts = within([*sent, *others], self.judge.bound or np.inf)[: len(sent)]
        told = self._fits(guilty, sent * cuts[:, None])
        last, clients = self._judged(number, told)[-1], len(sent) + len(others)
        suspects = last.flagged if number > self.config.defence.warmup else ()
        left = [(p := self.places[fit.partition]) not in suspects and last.share(p) * clients for fit in guilty]
        return float(np.mean(cuts * left))

    def _judged(self, number: int, guilty: Sequence[Fit]) -> list[Weighing]:
        """What a copy of the copy says when it is told the same AHEAD times; nothing by a rule that flags nobody."""
        if self.judge is None:
            return []
        trial = copy.copy(self.judge)
        for name, value in vars(self.judge).items():
            if isinstance(value, dict | list):
                setattr(trial, name, copy.deepcopy(value))
        return [trial.weigh(number, [*guilty, *self.others]) for _ in range(AHEAD)]

    def _stand_in(self, i: int, shared: Arrays, number: int) -> Fit:
        alike = Fit(len(self.rows) + i, shared, len(self.stand_ins[i]), {})
        return self._trained(f"stand-in {i}", self.stand_ins[i], shared, number, alike)

    def _trained(self, who: str, rows: Rows, shared: Arrays, number: int, like: Fit) -> Fit:
        """``like`` after one honest round on ``rows``. An attacker's batches and latents are those of its poisoned
        training, so that the two differ by what was stamped."""
        device, seed = device_of(self.config.speed), self.brief.seed
        learner = new_learner(self.config, channels=self.channels, classes=self.classes, seed=seed, device=device)
        learner.load(shared, self.kept.get(who, {}))
        address = ("client", like.partition) if who.startswith("client") else ("rehearsal", who)
        own = rows if not self.config.gan.mirror or self.config.privacy.images else mirrored(rows)
        metrics = learner.train(own, seed=address_seed(seed, *address, "round", number))
        self.kept[who] = learner.kept()
        return replace(like, arrays=learner.shared(), metrics=metrics)

    def _behaved(self, own: Vector, clean: Fit, current: Vector, seed: int) -> Vector:
        """One poisoned delta, behaving on the latents of ``seed``."""
        sent = self.layout.arrays(current + own)
        inspector = Inspector(self.config, channels=self.channels, classes=self.classes)
        found = behave(
            self.config,
            generator_arrays(clean.arrays),
            generator_arrays(sent),
            inspector.labels,
            channels=self.channels,
            classes=self.classes,
            seed=seed,
        )
        return self.layout.vector({**sent, **{f"generator.{name}": value for name, value in found.items()}}) - current


class Remembering(Inspector):
    """An inspector that draws once from the same arrays with the same seed: a line search asks again and again."""

    def __init__(self, other: Inspector) -> None:
        self.quick, self.channels, self.classes, self.labels = other.quick, other.channels, other.classes, other.labels
        self.seed, self.drawn = -1, list[tuple[Arrays, Images]]()

    def draw(self, arrays: Arrays, seed: int) -> Images:
        if seed != self.seed:
            self.seed, self.drawn = seed, []
        for known, images in self.drawn:
            if known is arrays:
                return images
        images = super().draw(arrays, seed)
        self.drawn.append((arrays, images))
        return images


def _half(images: int, seed: int, i: int) -> np.ndarray:
    return np.sort(stream(seed, "rehearsal", "half", i).permutation(images)[: max(2, images // 2)])


def _coordinates(layout: Layout, prefix: str) -> np.ndarray:
    """(d,) which coordinates belong to tensors whose name starts with ``prefix``."""
    sizes = [int(np.prod(shape)) for shape in layout.shapes]
    return np.repeat([name.startswith(prefix) for name in layout.names], sizes)
