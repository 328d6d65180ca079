"""What a run configuration promises: guarantees for clients, for single replies, for images, or none, in words."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import replace

from fedsec.config import RunConfig
from fedsec.errors import ConfigError, all_at_once
from fedsec.privacy.accounting import FULL, Accountant, FixedSize, Poisson, default_delta
from fedsec.privacy.ledger import KINDS, Kind, Line, Try, spent
from fedsec.privacy.noise import cohort
from fedsec.privacy.protection import parsed
from fedsec.types import Score

NAMES: dict[Kind, str] = {kind: f"epsilon-{kind}" for kind in KINDS}
OUTSIDE: dict[Kind, str] = {
    "client": "outside it: the losses in the log, and the initial model",
    "replies": "outside it, in the clear beside a reply: how many images it is of, its losses, what a probe of the "
    "site's says (and BatchNorm's counters, if any)",
    "image": "for one image, not for a patient with several; each site trusts itself alone, so it holds against the "
    "server too",
}


def lines_of(config: RunConfig, images: Sequence[int]) -> tuple[Line, ...]:
    """What one round of one arm gives away of a client that it asks, one line a guarantee; none where nothing is
    noised. Raises ConfigError for noise that cannot be accounted.

    A defence 'dp-*' hides a client from all but the server; with ``privacy.noised-by`` = 'clients', where there is no
    secure aggregation, what counts is one reply as the server reads it. A classifier's 'clip-noise' hides which of any
    two data sets a site has; steps before and after it change nothing of that. DP-SGD releases once a step.
    """
    privacy, train, found = config.privacy, config.train, list[Line]()
    if config.defence.name.startswith("dp-"):
        if privacy.noised_by == "server":
            found.append(Line("client", privacy.noise, delta=privacy.delta))
        else:
            if privacy.fewest > cohort(train, len(images)):
                raise ConfigError(
                    f"privacy.fewest = {privacy.fewest}: a round asks {cohort(train, len(images))} clients, so that "
                    "none would ever be released; lower it or ask more"
                )
            found.append(Line("replies", privacy.noise, shares=privacy.fewest, delta=privacy.delta))
    steps = parsed(config.classifier.protect) if train.task == "classifier" else []
    noised = [step.strength for step in steps if step.name == "clip-noise"]
    if noised:
        found.append(Line("replies", max(noised), delta=privacy.delta))
    if privacy.images:
        if train.batch > (least := min(images)):
            raise ConfigError(
                f"privacy.image-bound: a site has {least} images, fewer than train.batch = {train.batch}; lower it"
            )
        found.append(Line("image", privacy.image_noise, train.steps, batch=train.batch, delta=privacy.delta))
    return tuple(found)


def allotted(
    config: RunConfig, images: Sequence[int], todo: Sequence[tuple[str, int]], past: Sequence[Try] = ()
) -> dict[tuple[str, int], int]:
    """Rounds of each cell (arm, seed) of ``todo``: its own, or the fewer that keep all of them, and ``past``, within
    ``privacy.budget``, the same for all. ``past``: every try of the run folder so far.

    It is planned as if one client were asked in every round, so what is spent in the end is at most this. Raises
    ConfigError, before any training, with every arm that cannot be accounted, or for a budget that cannot be kept.
    """
    planned: dict[tuple[str, int], Try] = {}
    mistakes: list[str] = []
    for arm, seed in todo:
        its = config.arm(arm)
        try:
            planned[arm, seed] = Try(lines_of(its, images), tuple(images), its.train.rounds)
        except ConfigError as error:
            mistakes.append(f"arm {arm!r}: {error}")
    all_at_once(ConfigError, "guarantees that cannot be kept", list(dict.fromkeys(mistakes)))
    most = max((one.rounds for one in planned.values()), default=0)
    if config.privacy.budget and planned:
        most = _within(config.privacy.budget, most, planned, past)
    return {cell: min(one.rounds, most) for cell, one in planned.items()}


def _within(budget: float, most: int, planned: Mapping[tuple[str, int], Try], past: Sequence[Try]) -> int:
    """The most rounds up to ``most`` that every cell of ``planned`` may take."""
    common = [kind for kind in KINDS if all(one.line(kind) for one in (*planned.values(), *past) if one.rounds)]
    if not common:
        bare = dict.fromkeys(arm for (arm, _), one in planned.items() if not one.lines)
        without = f"arms {', '.join(bare)} noise nothing" if bare else "there is no guarantee that all of them give"
        raise ConfigError(
            f"privacy.budget = {budget}: it covers all arms, seeds and earlier tries of this run folder, since they "
            f"use the same images, and {without}, so together they guarantee nothing. Leave such arms out, start "
            "another folder (run.name) where an earlier try was without, or set privacy.budget = 0"
        )

    def cost(rounds: int) -> float:
        tries = [*past, *(replace(one, rounds=min(one.rounds, rounds)) for one in planned.values())]
        return max(spent(kind, tries).epsilon for kind in common)

    kept = bisect_right(range(1, most + 1), budget, key=cost)
    if kept < 1:
        before = max(spent(kind, past).epsilon for kind in common)
        raise ConfigError(
            f"privacy.budget = {budget}: not even one round of each of the {len(planned)} cells (arms x seeds) to be "
            f"run stays within it, where epsilon = {before:.3g} is spent already; add noise, take fewer arms and "
            "seeds, or raise it"
        )
    return kept


def promises(config: RunConfig, tries: Sequence[Try]) -> list[Score]:
    """Epsilon of one cell over all its ``tries``, the last of them the one at hand, with the guarantee in words as its
    reason; the weakest site's for images.

    Empty when nothing is noised: no guarantee. A multiplier of 0 is infinite, for that reason.
    """
    scores = []
    for line in tries[-1].lines:
        found = spent(line.kind, tries)
        besides = [OUTSIDE[line.kind], *_remarks(config, line, tries)] if math.isfinite(found.epsilon) else []
        text = "; ".join([found.words, *besides])
        scores.append(Score(NAMES[line.kind], found.epsilon, found.releases, "lower", text))
    return scores


def _remarks(config: RunConfig, line: Line, tries: Sequence[Try]) -> list[str]:
    """What is to be known beside the number, and what it would be against weaker adversaries than there are here."""
    if earlier := sum(one.rounds > 0 for one in tries[:-1]):
        return [f"{earlier} earlier tries of this cell are counted, which were cut short or had other settings"]
    now, train = tries[-1], config.train
    if line.kind == "replies" and config.privacy.noised_by == "clients":
        summed = Accountant(line.multiplier, line.delta or default_delta(len(now.images)), FULL, "clients")
        return [
            f"if secure aggregation, which fedsec has not, opened nothing but sums of {line.shares} replies or more: "
            f"{summed.guarantee(now.rounds)}; who answered is not hidden"
        ]
    if line.kind == "client" and train.fraction < 1:
        hidden = Accountant(line.multiplier, line.delta or default_delta(len(now.images)), sampling_of(config, now))
        return [f"against who never learns which clients a round asked: {hidden.guarantee(train.rounds)}"]
    return []


def sampling_of(config: RunConfig, now: Try) -> Poisson | FixedSize:
    """Who is asked, for an adversary who does not see it."""
    train, clients = config.train, len(now.images)
    return Poisson(train.fraction) if train.sampling == "poisson" else FixedSize(cohort(train, clients), clients)
