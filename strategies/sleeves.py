"""The strategies a configuration can name."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from fedsec.config import Defence, RunConfig
from fedsec.errors import RobustnessError, all_at_once
from fedsec.privacy.noise import ClipState, adaptive, count_noise, expected, fixed
from fedsec.records import Enrolled
from fedsec.seeds import stream
from fedsec.types import Fit, Images, Vector
from fedsec.weights import Updates
from strategies.base import Brief, RoundStrategy, Weighing
from strategies.calibration import FEWEST
from strategies.detection import Standing, judge, rule_of
from strategies.draws import Inspector, public_latents, secret_latents
from strategies.evidence import READINGS, violation
from strategies.geometry import within
from strategies.inspection import (
    BOUND,
    MARK,
    WINDOW,
    class_means,
    marks,
    median_client,
    outstanding,
    parts,
    peak,
    scales,
)
from strategies.mixing import BUCKET, MIXINGS, mixed
from strategies.probation import Probation, Reply, counting, rounds_of, without
from strategies.reducers import NEEDS, REDUCERS, Situation
from strategies.root import Root


class FedAvg(RoundStrategy):
    """Uniform federated averaging of the generator (FedGAN, Rasouli et al. 2020; uniform as the FedDetect release)."""


class FedDetect(RoundStrategy):
    """Weights decay for clients whose generator loss an isolation forest flags again and again (Jin & Li 2023)."""

    def __init__(self, brief: Brief) -> None:
        super().__init__(brief)
        self.rule = rule_of(brief.config.defence)
        self.read = READINGS[self.rule.reading].of
        self.standing = Standing.start(len(self.nodes))

    def weigh(self, number: int, fits: Sequence[Fit]) -> Weighing:
        told = {fit.partition: self.read(fit.metrics) for fit in fits}
        partitions = [node.partition for node in self.nodes]
        verdict, self.standing = judge([told.get(p) for p in partitions], self.standing, self.rule)
        shares = dict(zip(partitions, verdict.weights, strict=True))
        total = sum(shares[fit.partition] for fit in fits)
        heard = {fit.partition: shares[fit.partition] / total if total > 0 else 1 / len(fits) for fit in fits}
        return Weighing(
            heard,
            tuple(p for p, flagged in zip(partitions, verdict.flagged, strict=True) if flagged),
            dict(zip(partitions, verdict.suspicion, strict=True)),
            told,
        )


class FedInspect(FedDetect):
    """Weights decay for clients whose generators draw something that the others' do not (``strategies.inspection``).

    It draws on latents that no client can know (``strategies.draws``), and looks at generators alone: a configuration
    that averages discriminators too is refused. Losses count only as violations, when they are not finite or absurd: a
    client that lies about them gains nothing. Track record and decay are those of the calibrated FedDetect; beside
    them no update counts beyond BOUND, and all are on probation (``strategies.probation``).
    """

    def __init__(self, brief: Brief) -> None:
        super().__init__(brief)
        defence, data = brief.config.defence, brief.dataset
        self.inspector: Inspector = Inspector(brief.config, channels=data.channels, classes=len(data.class_names))
        self.parts = parts(defence.inspects, mirrored=brief.config.gan.mirror)
        if MARK in self.parts:
            self.rule = replace(self.rule, reading=MARK)
        self.seen: dict[int, list[tuple[np.ndarray, np.ndarray]]] = {}
        self.probation = Probation(self.current, rounds_of(self.rounds))

    @property
    def bound(self) -> float:
        return self.config.defence.bound or BOUND

    def combine(self, number: int, fits: Sequence[Fit], updates: Updates) -> tuple[Vector, Weighing]:
        """Long updates are cut first, so that what is averaged is what was drawn from. Who is flagged, once weights may
        change, has nothing of this round and of the others that are on probation."""
        cuts = within(list(updates), self.bound)
        updates = updates * cuts[:, None]
        weighing = self.weigh(number, [self._as_counted(*each) for each in zip(fits, updates, cuts, strict=True)])
        flagged = weighing.flagged if number > self.rule.warmup else ()
        replies = {
            fit.partition: Reply(np.asarray(update, np.float32), weighing.weights[fit.partition])
            for fit, update in zip(fits, updates, strict=True)
        }
        undone = self.probation.undone(flagged)
        self.probation = self.probation.after(replies, flagged)
        left = counting(without(replies, flagged))
        return self.probation.model - self.current, replace(weighing, weights=left, undone=undone)

    def _as_counted(self, fit: Fit, update: Vector, cut: float) -> Fit:
        return fit if cut == 1 else replace(fit, arrays=self.layout.arrays(self.current + update))

    def counted(self, number: int) -> tuple[int, Vector]:
        return number - len(self.probation.pending), self.probation.settled

    def weigh(self, number: int, fits: Sequence[Fit]) -> Weighing:
        evidence, told = self._evidence(number, fits), []
        for fit in fits:
            loss, seen = fit.metrics.get("g-loss"), evidence.get(fit.partition, math.nan)
            told.append(replace(fit, metrics={"peak": loss if loss is not None and violation(loss) else seen}))
        return super().weigh(number, told)

    def _evidence(self, number: int, fits: Sequence[Fit]) -> dict[int, float]:
        """By partition, ``outstanding`` of this round; nothing of a client whose generator draws no finite images:
        they would leave nobody a median."""
        public = self.config.defence.latents == "public"
        seed = public_latents(self.seed, number) if public else secret_latents(self.secret, number)
        every = {fit.partition: self._draw(fit, seed) for fit in fits}
        drawn = {partition: images for partition, images in every.items() if np.isfinite(images).all()}
        if not drawn:
            return {}
        means = class_means(list(drawn.values()), self.inspector.labels)
        median = median_client(means)[0]
        for partition, mean in zip(drawn, means, strict=True):
            self.seen[partition] = [*self.seen.get(partition, []), (mean, median)][-WINDOW:]
        own, others = (np.stack([np.mean([r[i] for r in self.seen[p]], axis=0) for p in drawn]) for i in (0, 1))
        found = [peak(own, others, part) for part in self.parts if part != MARK]
        if MARK in self.parts:
            found += list(marks([np.stack([mean - median for mean, median in self.seen[p]]) for p in drawn]).T)
        return dict(zip(drawn, map(float, outstanding(np.stack(found, axis=1), *scales(self.parts))), strict=True))

    def _draw(self, fit: Fit, seed: int) -> Images:
        return self.inspector.draw(fit.arrays, seed)


class Oracle(RoundStrategy):
    """Federated averaging without the malicious clients: the ceiling any defence can reach. Not a defence."""

    def participants(self, nodes: Sequence[Enrolled]) -> list[Enrolled]:
        return [node for node in nodes if node.partition not in self.config.malicious]


def byzantine(defence: Defence, clients: int) -> int:
    """The f a reducer must withstand: as told, or a quarter of the clients, at least 1."""
    return defence.byzantine or max(1, clients // 4)


class Robust(RoundStrategy):
    """A Byzantine-robust reducer of ``REDUCERS``, with one of ``MIXINGS`` in front; no client is ever flagged.

    A round that too few answered for the reducer to withstand its f leaves the model as it was.
    """

    def __init__(self, brief: Brief) -> None:
        super().__init__(brief)
        self.name = brief.config.defence.name
        self.totals: dict[int, Vector] = {}
        self.root = Root(brief) if self.name == "fltrust" else None

    def combine(self, number: int, fits: Sequence[Fit], updates: Updates) -> tuple[Vector, Weighing]:
        defence = self.config.defence
        if self.name == "foolsgold":
            for fit, update in zip(fits, updates, strict=True):
                self.totals[fit.partition] = self.totals.get(fit.partition, 0.0) + update
        if shortfall(defence, len(self.asked), len(fits)):
            return np.zeros_like(self.current), Weighing({})
        situation = Situation(
            n_byzantine=byzantine(defence, len(self.asked)),
            previous=self.previous,
            totals=np.stack([self.totals[fit.partition] for fit in fits]) if self.totals else np.zeros((len(fits), 0)),
            root=self.root.update(number, self.layout, self.current) if self.root else None,
        )
        matrix = MIXINGS[defence.mixing](updates, situation.n_byzantine, stream(self.seed, "mixing", "round", number))
        reduced = mixed(REDUCERS[self.name], updates, situation, matrix)
        shares = zip([fit.partition for fit in fits], map(float, reduced.shares), strict=True)
        return reduced.update, Weighing(dict(shares))


class Private(RoundStrategy):
    """The noised mean of clipped updates: hides that one client took part (``fedsec.privacy.noise``).

    Divided by how many are expected, never by how many answered. With ``privacy.noised-by = 'clients'`` the replies
    carry the noise already: fewer than ``privacy.fewest`` would carry less than is accounted, so such a round is
    ``withheld`` (counted) and leaves the model as it was. Losses that clients report stay in the log, outside the
    guarantee.
    """

    releases_always = True

    def __init__(self, brief: Brief) -> None:
        super().__init__(brief)
        privacy = brief.config.privacy
        self.expected = expected(brief.config.train, len(self.nodes))
        self.clipping = ClipState(privacy.bound, count_noise(self.expected, privacy.noise))

    def combine(self, number: int, fits: Sequence[Fit], updates: Updates) -> tuple[Vector, Weighing]:
        privacy, rng = self.config.privacy, stream(self.secret, "privacy", "round", number)
        if privacy.noised_by == "clients" and len(fits) < privacy.fewest:
            self.withheld += 1
            return np.zeros_like(self.current), Weighing({})
        weighing = self.weigh(number, fits) if fits else Weighing({})
        if privacy.noised_by == "clients":
            return updates.sum(axis=0) / self.expected, weighing
        if self.config.defence.name == "dp-fixed":
            return fixed(updates, privacy.bound, privacy.noise, rng, self.expected), weighing
        update, self.clipping = adaptive(updates, self.clipping, privacy.noise, rng, self.expected)
        return update, weighing


STRATEGIES: dict[str, type[RoundStrategy]] = {
    "fed-avg": FedAvg,
    "fed-detect": FedDetect,
    "oracle": Oracle,
    "fed-inspect": FedInspect,
    **dict.fromkeys(set(REDUCERS) - {"mean"}, Robust),
    "dp-fixed": Private,
    "dp-adaptive": Private,
}


def shortfall(defence: Defence, clients: int, heard: int) -> str:
    """Why a reducer cannot withstand its f of ``clients`` when ``heard`` of them answered; '' when it can."""
    f, (times, more) = byzantine(defence, clients), NEEDS.get(defence.name, (0, 1))
    if defence.mixing == "nearest-neighbour":
        times, more = max((times, more), (2, 1))
    seen = -(-heard // BUCKET) if defence.mixing == "bucketing" else heard
    if seen >= times * f + more:
        return ""
    behind = " (buckets of clients)" if defence.mixing == "bucketing" else ""
    return (
        f"{defence.name} withstands f = {f} only among n >= {times} f + {more} clients, there are {seen}{behind}; "
        "add clients, lower defence.byzantine or take another reducer"
    )


def check_defences(config: RunConfig, clients: int) -> None:
    """Raises RobustnessError, before any training, naming every arm whose defence cannot hold among those it asks: a
    reducer that cannot withstand its f of n, a calibrated rule that compares too few."""
    mistakes = []
    for arm in config.arms:
        its = config.arm(arm)
        asked = max(1, round(expected(its.train, clients)))
        short = shortfall(its.defence, asked, asked) if its.defence.name in REDUCERS else ""
        if its.defence.reads_losses and its.defence.rule == "calibrated" and asked < FEWEST:
            short = f"{its.defence.name} compares at least {FEWEST} replies a round, {asked} are asked; ask more"
        mistakes += [f"arm {arm!r}: {short}"] if short else []
    all_at_once(RobustnessError, "defences that cannot hold", mistakes)
