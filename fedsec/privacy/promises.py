"""What a run configuration promises: guarantees for clients, for single replies, for images, or none, in words."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from fedsec.config import RunConfig
from fedsec.errors import ConfigError, all_at_once
from fedsec.privacy.accounting import FULL, Accountant, FixedSize, Poisson, default_delta
from fedsec.privacy.noise import cohort, expected
from fedsec.privacy.protection import parsed
from fedsec.types import Score

NAMES = {"client": "epsilon-client", "image": "epsilon-image"}
REPLIES = "and what goes in the clear beside a reply: how many images it is of (and BatchNorm's counters, if any)"
OUTSIDE = {
    "client": "outside it: the losses in the log, and the initial model",
    "image": "for one image, not for a patient with several; each site trusts itself alone, so it holds against the "
    "server too",
}


def client_accountant(config: RunConfig, clients: int) -> Accountant | None:
    """Of ``defence.name`` = dp-*: hides that one client took part; None for any other defence."""
    if not config.defence.name.startswith("dp-"):
        return None
    privacy, train = config.privacy, config.train
    sampling: Poisson | FixedSize = FULL if train.fraction == 1 else Poisson(train.fraction)
    if train.fraction < 1 and train.sampling == "fixed":
        sampling = FixedSize(cohort(train, clients), clients)
    trusted = "server" if privacy.noised_by == "server" else "clients"
    return Accountant(privacy.noise, privacy.delta or default_delta(clients), sampling, trusted)


def image_accountant(config: RunConfig, images: int) -> Accountant | None:
    """Of DP-SGD at a site with ``images``; a release is a step. None without it."""
    if not config.privacy.images:
        return None
    privacy = config.privacy
    if config.train.batch > images:
        raise ConfigError(
            f"privacy.image-bound: a site has {images} images, fewer than train.batch = {config.train.batch}; lower it"
        )
    delta = privacy.delta or default_delta(images)
    return Accountant(privacy.image_noise, delta, Poisson(config.train.batch / images), "site", "image")


def reply_accountant(config: RunConfig, clients: int) -> Accountant | None:
    """Of a classifier's 'clip-noise': hides which of any two data sets a site has from whoever reads its replies. Steps
    before and after it change nothing of that. None without it."""
    steps = parsed(config.classifier.protect) if config.train.task == "classifier" else []
    noised = [step.strength for step in steps if step.name == "clip-noise"]
    if not noised:
        return None
    return Accountant(max(noised), config.privacy.delta or default_delta(clients), FixedSize(1, 1), "nobody")


def affordable(config: RunConfig, images: Sequence[int]) -> RunConfig:
    """``config`` with as many rounds as ``privacy.budget`` allows. ``images``: of each client.

    Raises ConfigError when not even one round fits, or a site has too few images to be private.
    """
    budget, rounds = config.privacy.budget, config.train.rounds
    clients = [client_accountant(config, len(images)), reply_accountant(config, len(images))]
    sites = [site for count in images if (site := image_accountant(config, count)) is not None]
    if not budget:
        return config
    rounds = min([rounds, *(one.rounds_within(budget) for one in clients if one is not None)])
    rounds = min([rounds, *(site.rounds_within(budget) // config.train.steps for site in sites)])
    if rounds < 1:
        raise ConfigError(f"privacy.budget = {budget}: not even one round stays within it; add noise or raise it")
    return replace(config, train=replace(config.train, rounds=rounds))


def check_promises(config: RunConfig, images: Sequence[int]) -> None:
    """Raises ConfigError, before any training, naming every arm that cannot keep its budget for one round."""
    mistakes = []
    for arm in config.arms:
        try:
            affordable(config.arm(arm), images)
        except ConfigError as error:
            mistakes.append(f"arm {arm!r}: {error}")
    all_at_once(ConfigError, "guarantees that cannot be kept", mistakes)


def promises(config: RunConfig, images: Sequence[int], rounds: int) -> list[Score]:
    """Epsilon after ``rounds``, with the guarantee in words as its reason; the weakest site's for images.

    Empty when nothing is noised: no guarantee. A multiplier of 0 is infinite, for that reason.
    """
    scores = []
    client = client_accountant(config, len(images))
    if client is not None:
        scores.append(_score(client, rounds))
        if config.privacy.noised_by == "clients":
            alone = client.alone(max(1, round(expected(config.train, len(images))))).guarantee(rounds)
            scores[-1] = replace(scores[-1], reason=f"{scores[-1].reason}; a client's replies read one by one: {alone}")
    reply = reply_accountant(config, len(images))
    if reply is not None:
        scores.append(replace(_score(reply, rounds), name="epsilon-replies"))
        if math.isfinite(scores[-1].value):
            scores[-1] = replace(scores[-1], reason=f"{scores[-1].reason}, {REPLIES}")
    if config.privacy.images:
        sites = [site for count in images if (site := image_accountant(config, count)) is not None]
        releases = rounds * config.train.steps
        scores.append(_score(max(sites, key=lambda site: site.epsilon(releases)), releases))
    return scores


def _score(accountant: Accountant, releases: int) -> Score:
    epsilon, words = accountant.epsilon(releases), accountant.guarantee(releases)
    text = words if math.isinf(epsilon) else f"{words}; {OUTSIDE[accountant.unit]}"
    return Score(NAMES[accountant.unit], epsilon, releases, "lower", text)
