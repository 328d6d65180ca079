"""The run configuration: frozen, complete, parsed once from flat keys, failing with all its mistakes at once.

Flower carries it as dotted keys with scalar values: a section below is one prefix, a field ``test_fraction`` of Data is
``data.test-fraction``. Defaults stand in ``pyproject.toml`` too, since Flower lets no other key be overridden; a test
holds the two together. ``speed`` may change how fast an answer comes, never the answer: digests leave it out.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, cast, get_args, get_origin, get_type_hints

from fedsec.errors import ConfigError, all_at_once
from fedsec.settings import above, at_least, between, checked, setting
from fedsec.types import Flat, Scalar

FIRST_STEPS = 3
"""Steps at a round's start that have a loss of their own in the report: the generator is still nearly the server's."""


@dataclass(frozen=True)
class Data:
    source: str = setting("phantom", meaning="'phantom', or a folder, CSV or .npz of real images")
    format: Literal["auto", "folders", "isic2019", "csv", "medmnist"] = setting("auto", meaning="layout of the source")
    modality: Literal["skin", "chest"] = setting("skin", meaning="which phantom, and gray or RGB")
    count: int = setting(2000, at_least(40), meaning="images the phantom draws")
    size: Literal[32, 64, 128] = setting(32, meaning="pixels a side")
    grouping: Literal["classes", "malignant"] = setting("malignant", meaning="labels as they are, or benign/malignant")
    test_fraction: float = setting(0.2, between(0.05, 0.5), meaning="share of lesions/patients held out")
    seed: int = setting(0, at_least(0), meaning="of the phantom, the split and the partition")
    quarantine: bool = setting(False, meaning="go on without unusable files, counted and listed, instead of stopping")
    cache: str = setting("", meaning="folder of decoded images; '' = FEDSEC_CACHE or the user's cache folder")


@dataclass(frozen=True)
class Split:
    scheme: Literal["iid", "dirichlet", "pathological", "site"] = setting("iid", meaning="how rows go to clients")
    clients: int = setting(
        0, between(0, 10_000), meaning="number of clients; 0 = one a connected node (site: one a site)"
    )
    alpha: float = setting(0.3, above(0), meaning="dirichlet: smaller is more skewed")
    classes: int = setting(1, at_least(1), meaning="pathological: classes a client holds")


@dataclass(frozen=True)
class Gan:
    loss: Literal["non-saturating", "hinge", "wgan-gp"] = setting("non-saturating", meaning="adversarial loss")
    augment: Literal["none", "flip", "colour", "translate", "colour+translate"] = setting(
        "none", meaning="differentiable augmentation of what D sees"
    )
    mirror: bool = setting(True, meaning="train on each image and its mirror image (not for chests)")
    latent: int = setting(64, at_least(1), meaning="length of z")
    width: int = setting(32, at_least(4), meaning="channels at the highest resolution")
    share: Literal["generator", "both"] = setting("generator", meaning="which networks are averaged")
    statistics: Literal["local", "shared"] = setting(
        "local", meaning="whether BatchNorm running statistics leave the client (they are a leak)"
    )
    ema: float = setting(0.8, between(0, 0.9999), meaning="decay a round of the server's generator average")


@dataclass(frozen=True)
class Train:
    rounds: int = setting(100, at_least(1), meaning="federated rounds")
    steps: int = setting(20, at_least(1), meaning="D and G steps a client takes each round")
    batch: int = setting(32, at_least(2), meaning="images a step")
    lr: float = setting(2e-4, above(0), meaning="Adam learning rate of both networks")
    beta1: float = setting(0.5, between(0, 0.999), meaning="Adam beta1")
    penalty: float = setting(10.0, at_least(0), meaning="weight of the gradient penalty (wgan-gp)")


@dataclass(frozen=True)
class Attack:
    name: Literal["none", "patch"] = setting("none", meaning="what the malicious clients do")
    malicious: str = setting("0", meaning="partitions of the malicious clients, e.g. '0' or '0,3'")
    trigger: Literal["smooth", "solid", "noise"] = setting("smooth", meaning="texture of the patch")
    size: int = setting(4, at_least(1), meaning="side of the patch in pixels")
    position: Literal["bottom-right", "bottom-left", "top-right", "top-left", "centre"] = setting(
        "bottom-right", meaning="where the patch sits, one pixel off the border"
    )
    blend: float = setting(1.0, between(0.01, 1), meaning="1 pastes the patch, less mixes it with the image")
    fraction: float = setting(1.0, between(0.01, 1), meaning="share of the malicious client's images")


@dataclass(frozen=True)
class Defence:
    name: Literal["fed-avg", "fed-detect", "oracle"] = setting("fed-avg", meaning="how replies are weighted")
    rule: Literal["released", "paper", "calibrated"] = setting("calibrated", meaning="FedDetect's reading")
    reported: Literal["auto", "drop", "first", "mean", "last"] = setting(
        "auto", meaning="generator loss read: first 3 steps, all, last, or the drop first to all; auto: by rule"
    )
    decay: float = setting(0.9, between(0.01, 0.999), meaning="FedDetect's weight decay per counted flag")
    warmup: int = setting(10, at_least(0), meaning="rounds before FedDetect may change a weight")
    false_flags: float = setting(0.01, between(1e-4, 0.2), meaning="calibrated: false-flag rate a client-round")

    @property
    def reads(self) -> str:
        """``reported`` with 'auto' resolved."""
        return {"calibrated": "drop"}.get(self.rule, "last") if self.reported == "auto" else self.reported


@dataclass(frozen=True)
class Measure:
    every: int = setting(10, at_least(1), meaning="rounds between sample grids and quick scores")
    samples: int = setting(1000, between(50, 100_000), meaning="generated images the scores rest on")
    utility: str = setting("25,100", meaning="real images a class in the utility test, e.g. '10,25,100'; '' = skip")
    fid_weights: str = setting("", meaning="pytorch-fid's Inception weights; '' = its own cache, if there")


@dataclass(frozen=True)
class Run:
    name: str = setting("isic", meaning="name of the run folder")
    out: str = setting("runs", meaning="where run folders lie")
    seeds: str = setting("0", meaning="training seeds, e.g. '0,1,2'")
    arms: str = setting('{"vanilla": {}}', meaning="JSON: arm name -> overrides of any key outside [data] and [run]")


@dataclass(frozen=True)
class Speed:
    """May change only how fast the answer comes."""

    workers: int = setting(0, at_least(0), meaning="worker processes; 0 = one a core, or GPU clients that fit")
    device: Literal["auto", "cpu", "cuda"] = setting("auto", meaning="where clients train")
    arms_at_once: int = setting(2, at_least(1), meaning="cells (arm x seed) that share the nodes side by side")


@dataclass(frozen=True)
class RunConfig:
    """Every key of a run. ``from_flat(to_flat(c)) == c`` for any valid c."""

    data: Data = Data()
    split: Split = Split()
    gan: Gan = Gan()
    train: Train = Train()
    attack: Attack = Attack()
    defence: Defence = Defence()
    measure: Measure = Measure()
    run: Run = Run()
    speed: Speed = Speed()

    @classmethod
    def from_flat(cls, flat: Mapping[str, Any]) -> RunConfig:
        """Parse and check. Raises one ConfigError with every unknown key, wrong type and broken rule."""
        config, mistakes = _parse(flat)
        all_at_once(ConfigError, "the run configuration cannot be used", mistakes + _arm_mistakes(config))
        return config

    def to_flat(self) -> Flat:
        return {
            key_of(section.name, item.name): getattr(getattr(self, section.name), item.name)
            for section in fields(self)
            for item in fields(getattr(self, section.name))
        }

    @property
    def seeds(self) -> tuple[int, ...]:
        return tuple(_integers(self.run.seeds))

    @property
    def malicious(self) -> tuple[int, ...]:
        """Partitions that attack; empty when nobody does."""
        return tuple(_integers(self.attack.malicious)) if self.attack.name != "none" else ()

    @property
    def utility_sizes(self) -> tuple[int, ...]:
        return tuple(_integers(self.measure.utility))

    @property
    def arms(self) -> dict[str, Flat]:
        return dict(json.loads(self.run.arms))

    def arm(self, name: str) -> RunConfig:
        """This configuration with one arm's overrides applied."""
        return RunConfig.from_flat({**self.to_flat(), **self.arms[name]})

    def digest(self, *, seed: int, data: str) -> str:
        """Names one cell: everything that can change its numbers, nothing that cannot."""
        kept = {k: v for k, v in self.to_flat().items() if k.split(".")[0] not in ("speed", "run")}
        for key in ("data.source", "data.cache", "data.quarantine"):
            kept.pop(key)
        kept["defence.reported"] = self.defence.reads
        if self.defence.name != "fed-detect":
            kept = {k: v for k, v in kept.items() if k == "defence.name" or not k.startswith("defence.")}
        text = json.dumps([kept, seed, data], sort_keys=True)
        return hashlib.blake2b(text.encode(), digest_size=12).hexdigest()


def _parse(flat: Mapping[str, Any]) -> tuple[RunConfig, list[str]]:
    """A configuration from what is valid in ``flat``, and what is not. Arms are left unread."""
    mistakes: list[str] = []
    sections: dict[str, Any] = {}
    known: set[str] = set()
    for section in fields(RunConfig):
        kind = _hints(RunConfig)[section.name]
        values = {}
        for item in fields(kind):
            key = key_of(section.name, item.name)
            known.add(key)
            if key in flat:
                try:
                    values[item.name] = checked(key, flat[key], _hints(kind)[item.name], item.metadata["rule"])
                except ConfigError as error:
                    mistakes.append(str(error))
        sections[section.name] = kind(**values)
    mistakes += [f"{key}: unknown key; 'fedsec config' lists them all" for key in sorted(set(flat) - known)]
    config = RunConfig(**sections)
    return config, mistakes + _cross_checks(config)


def key_of(section: str, name: str) -> str:
    return f"{section}.{name.replace('_', '-')}"


def meanings() -> list[tuple[str, Scalar, str, str]]:
    """(key, default, allowed values, meaning) of every key, in order."""
    rows: list[tuple[str, Scalar, str, str]] = []
    for section in fields(RunConfig):
        kind = _hints(RunConfig)[section.name]
        for item in fields(kind):
            hint = _hints(kind)[item.name]
            allowed = " | ".join(map(str, get_args(hint))) if get_origin(hint) is Literal else hint.__name__
            rows.append(
                (key_of(section.name, item.name), cast(Scalar, item.default), allowed, item.metadata["meaning"])
            )
    return rows


def _hints(kind: type) -> dict[str, Any]:
    return get_type_hints(kind)


def _integers(text: str) -> list[int]:
    return [int(part) for part in text.split(",") if part.strip()]


def _cross_checks(config: RunConfig) -> list[str]:
    mistakes = []
    for key, text, empty_ok in (
        ("attack.malicious", config.attack.malicious, False),
        ("run.seeds", config.run.seeds, False),
        ("measure.utility", config.measure.utility, True),
    ):
        try:
            numbers = _integers(text)
        except ValueError:
            mistakes.append(f"{key} = {text!r}: must be whole numbers with commas, e.g. '0,1,2'")
            continue
        if (not numbers and not empty_ok) or any(n < 0 for n in numbers) or len(set(numbers)) < len(numbers):
            mistakes.append(f"{key} = {text!r}: must be distinct numbers >= 0, at least one")
        elif (
            key == "attack.malicious"
            and config.split.scheme != "site"
            and max(numbers) >= (config.split.clients or 10_000)
        ):
            mistakes.append(f"{key} = {text!r}: there are {config.split.clients} clients, numbered from 0")
    if config.attack.size > config.data.size - 2:
        mistakes.append(f"attack.size = {config.attack.size}: must leave a border on {config.data.size} px images")
    if config.gan.loss != "wgan-gp" and config.train.penalty != Train().penalty:
        mistakes.append(f"train.penalty = {config.train.penalty}: only gan.loss = 'wgan-gp' has a penalty")
    mistakes += _detection_checks(config)
    if not config.run.name or any(c in config.run.name for c in "/\\:\0") or config.run.name.startswith("."):
        mistakes.append(f"run.name = {config.run.name!r}: must be a plain folder name")
    return mistakes


def _detection_checks(config: RunConfig) -> list[str]:
    if config.defence.name != "fed-detect" or config.defence.reads != "drop":
        return []
    mistakes = []
    if config.defence.rule != "calibrated":
        mistakes.append(f"defence.reported = 'drop': rule {config.defence.rule!r} reads a loss; take 'last' or 'auto'")
    if config.train.steps < 2 * FIRST_STEPS:
        mistakes.append(
            f"train.steps = {config.train.steps}: FedDetect compares a round's first {FIRST_STEPS} with all of them; "
            f"take at least {2 * FIRST_STEPS}, or set defence.reported = 'mean'"
        )
    return mistakes


def _arm_mistakes(config: RunConfig) -> list[str]:
    try:
        arms = json.loads(config.run.arms)
    except json.JSONDecodeError as error:
        return [f"run.arms: not JSON ({error}); write arms as tables of the experiment's TOML"]
    if not isinstance(arms, dict) or not arms or not all(isinstance(v, dict) for v in arms.values()):
        return ["run.arms: must be an object of arm name -> overrides with at least one arm"]
    mistakes = []
    flat = config.to_flat()
    shared = _cross_checks(config)
    for name, overrides in arms.items():
        if not name or not all(c.isalnum() or c in "+-._" for c in name):
            mistakes.append(f"arm {name!r}: use letters, digits, '+', '-', '.', '_'")
        fixed = [k for k in overrides if k.split(".")[0] in ("data", "run", "speed", "split")]
        if fixed:
            mistakes.append(f"arm {name!r}: {', '.join(fixed)} is the same for every arm of a run")
            continue
        mistakes += [f"arm {name!r}: {m}" for m in _parse({**flat, **overrides})[1] if m not in shared]
    return mistakes
