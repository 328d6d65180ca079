"""The run configuration: frozen, complete, parsed once from flat keys, failing with all its mistakes at once.

Flower carries it as dotted keys with scalar values: a section of ``fedsec.sections`` is one prefix. ``speed`` may
change how fast an answer comes, never the answer: digests leave it out.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cache
from typing import Any, Literal, cast, get_args, get_origin, get_type_hints

from fedsec.errors import ConfigError, all_at_once
from fedsec.sections import Attack, Data, Defence, Gan, Measure, Privacy, Run, Speed, Split, Train
from fedsec.settings import checked
from fedsec.types import Flat, Scalar

__all__ = [
    "FIRST_STEPS",
    "Attack",
    "Data",
    "Defence",
    "Gan",
    "Measure",
    "Privacy",
    "Run",
    "RunConfig",
    "Speed",
    "Split",
    "Train",
    "meanings",
]

REDUCER_KEYS = ("defence.byzantine", "defence.mixing")
DEFENCE_KEYS: dict[str, tuple[str, ...]] = {
    "fed-avg": (),
    "oracle": (),
    "fed-detect": ("defence.rule", "defence.reported", "defence.decay", "defence.warmup", "defence.false-flags"),
    "fed-inspect": ("defence.decay", "defence.warmup", "defence.false-flags"),
    "fltrust": (*REDUCER_KEYS, "defence.root"),
    "dp-fixed": (),
    "dp-adaptive": (),
}
"""What each defence reads of its section, beside its name; a reducer, REDUCER_KEYS."""
FIRST_STEPS = 3
"""Steps at a round's start that have a loss of their own in the report: the generator is still nearly the server's."""


@dataclass(frozen=True)
class RunConfig:
    """Every key of a run. ``from_flat(to_flat(c)) == c`` for any valid c."""

    data: Data = Data()
    split: Split = Split()
    gan: Gan = Gan()
    train: Train = Train()
    attack: Attack = Attack()
    defence: Defence = Defence()
    privacy: Privacy = Privacy()
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
        return tuple(_integers(self.attack.malicious)) if self.attack.active else ()

    @property
    def utility_sizes(self) -> tuple[int, ...]:
        return tuple(_integers(self.measure.utility))

    @property
    def arms(self) -> dict[str, Flat]:
        return dict(json.loads(self.run.arms))

    def arm(self, name: str) -> RunConfig:
        """This configuration with one arm's overrides applied. Raises ConfigError as ``from_flat`` does."""
        config, mistakes = _parse({**self.to_flat(), **self.arms[name]})
        all_at_once(ConfigError, f"arm {name!r} cannot be used", mistakes)
        return config

    def digest(self, *, seed: int, data: str) -> str:
        """Names one cell: everything that can change its numbers, nothing that cannot.

        Keys at their default are left out, so that a key added later leaves finished cells as they are; who changes a
        default, or what one means, raises the version that ``data`` holds.
        """
        defaults = RunConfig().to_flat()
        kept = {k: v for k, v in self.to_flat().items() if k.split(".")[0] not in ("speed", "run") and v != defaults[k]}
        for key in ("data.source", "data.cache", "data.quarantine"):
            kept.pop(key, None)
        kept["defence.reported"] = self.defence.reads
        used = {"defence.name", *DEFENCE_KEYS.get(self.defence.name, REDUCER_KEYS)}
        kept = {k: v for k, v in kept.items() if k in used or not k.startswith("defence.")}
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


@cache
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
    if config.attack.blend > 1 and config.attack.name != "warp":
        mistakes.append(f"attack.blend = {config.attack.blend}: must be at most 1; only 'warp' counts in pixels")
    if config.attack.size > config.data.size - 2:
        mistakes.append(f"attack.size = {config.attack.size}: must leave a border on {config.data.size} px images")
    if config.gan.loss != "wgan-gp" and config.train.penalty != Train().penalty:
        mistakes.append(f"train.penalty = {config.train.penalty}: only gan.loss = 'wgan-gp' has a penalty")
    mistakes += _detection_checks(config) + _family_checks(config)
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


def _family_checks(config: RunConfig) -> list[str]:
    mistakes = []
    if config.gan.family == "diffusion":
        if config.gan.width % 16:
            mistakes.append(f"gan.width = {config.gan.width}: a denoiser's must be a multiple of 16")
        adversarial = {"gan.loss": config.gan.loss, "gan.augment": config.gan.augment, "gan.share": config.gan.share}
        usual = Gan()
        odd = [
            f"{key} = {value!r}"
            for key, value in adversarial.items()
            if value != getattr(usual, key.removeprefix("gan."))
        ]
        mistakes += [f"{text}: gan.family = 'diffusion' has no discriminator" for text in odd]
        if config.privacy.images:
            mistakes.append("privacy.image-bound: DP-SGD is of a discriminator, which gan.family = 'diffusion' lacks")
    if config.privacy.images and config.gan.loss == "wgan-gp":
        mistakes.append("privacy.image-bound: a gradient penalty has no gradient by image; take another gan.loss")
    if config.defence.name.startswith("dp-") and config.gan.statistics == "shared":
        mistakes.append("gan.statistics = 'shared': noise can make a shared variance negative; dp-* needs 'local'")
    if config.defence.name == "dp-adaptive" and config.privacy.noised_by == "clients":
        mistakes.append("privacy.noised-by = 'clients': dp-adaptive needs the count at the server; take dp-fixed")
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
        fixed = [k for k in overrides if k.split(".")[0] in ("data", "run", "speed", "split") and k != "run.seeds"]
        if fixed:
            mistakes.append(f"arm {name!r}: {', '.join(fixed)} is the same for every arm of a run")
            continue
        mistakes += [f"arm {name!r}: {m}" for m in _parse({**flat, **overrides})[1] if m not in shared]
    return mistakes
