"""The run configuration: frozen, complete, parsed once from flat keys, failing with all its mistakes at once.

Flower carries it as dotted keys with scalar values: a section of ``fedsec.config.sections`` is one prefix. ``speed``
may change how fast an answer comes, never the answer: digests leave it out.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cache
from typing import Any, Literal, cast, get_args, get_origin, get_type_hints

from fedsec.config.added import GROUPS, added, origin
from fedsec.config.checks import cross_checks
from fedsec.config.lists import integers
from fedsec.config.malice import Attack
from fedsec.config.sections import (
    Classifier,
    Cut,
    Data,
    Defence,
    Gan,
    Leakage,
    Measure,
    Pgsl,
    Privacy,
    Run,
    Speed,
    Split,
    Train,
)
from fedsec.config.settings import checked
from fedsec.errors import ConfigError, all_at_once
from fedsec.types import Flat, Scalar

NUMBERED = "2"
"""The version of fed-inspect in the digests of cells made before a rule's version was a digest of its code."""
REDUCER_KEYS = ("defence.byzantine", "defence.mixing")
DETECTION_KEYS = ("defence.decay", "defence.warmup", "defence.false-flags", "defence.bound")
DEFENCE_KEYS: dict[str, tuple[str, ...]] = {
    "fed-avg": ("defence.bound",),
    "oracle": (),
    "fed-detect": (*DETECTION_KEYS, "defence.rule", "defence.reported"),
    "fed-inspect": (*DETECTION_KEYS, "defence.inspects", "defence.latents"),
    "fltrust": (*REDUCER_KEYS, "defence.root"),
    "dp-fixed": (),
    "dp-adaptive": (),
}
"""What each defence reads of its section, beside its name; a reducer, REDUCER_KEYS."""


@dataclass(frozen=True)
class RunConfig:
    """Every key of a run. ``from_flat(to_flat(c)) == c`` for any valid c."""

    data: Data = Data()
    split: Split = Split()
    gan: Gan = Gan()
    classifier: Classifier = Classifier()
    cut: Cut = Cut()
    pgsl: Pgsl = Pgsl()
    train: Train = Train()
    attack: Attack = Attack()
    defence: Defence = Defence()
    privacy: Privacy = Privacy()
    leakage: Leakage = Leakage()
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
        return tuple(integers(self.run.seeds))

    @property
    def malicious(self) -> tuple[int, ...]:
        """Partitions that attack; empty when nobody does."""
        return tuple(integers(self.attack.malicious)) if self.attack.active else ()

    @property
    def utility_sizes(self) -> tuple[int, ...]:
        return tuple(integers(self.measure.utility))

    @property
    def ema(self) -> float:
        """Decay a round of the server's average over rounds; a classifier is scored as it is broadcast."""
        return self.gan.ema if self.train.task == "gan" else 0.0

    @property
    def batches(self) -> tuple[int, ...]:
        """``classifier.batches``; empty when ``train.batch`` holds for all."""
        return tuple(integers(self.classifier.batches))

    @property
    def audited(self) -> tuple[int, ...]:
        """Partitions of ``leakage.sites``; empty for all."""
        return tuple(integers(self.leakage.sites))

    @property
    def arms(self) -> dict[str, Flat]:
        return {name: dict(overrides) for name, overrides in _arms(self.run.arms).items()}

    def arm(self, name: str) -> RunConfig:
        """This configuration with one arm's overrides applied. Raises ConfigError as ``from_flat`` does."""
        return _arm(self, name)

    def digest(self, *, seed: int, data: str, rule: str = "") -> str:
        """Names one cell: everything that can change its numbers, nothing that cannot.

        ``rule``: the digest of the detection rule (``fedsec.run.versions``) where ``reads_losses``; '' names a cell
        made before rules had one. Keys at their default are left out, so that a key added later leaves finished cells
        as they are; who changes a default, or what one means, raises the version that ``data`` holds.
        """
        defaults = RunConfig().to_flat()
        kept = {k: v for k, v in self.to_flat().items() if k.split(".")[0] not in ("speed", "run") and v != defaults[k]}
        for key in ("data.source", "data.cache", "data.quarantine"):
            kept.pop(key, None)
        kept["defence.reported"] = self.defence.reads
        kept["defence.inspects"] = self.defence.inspects if rule else f"{self.defence.inspects} {NUMBERED}"
        used = {"defence.name", *DEFENCE_KEYS.get(self.defence.name, REDUCER_KEYS)}
        kept = {k: v for k, v in kept.items() if k in used or not k.startswith("defence.")}
        if rule and self.defence.reads_losses:
            kept["rule"] = rule
        flat = self.to_flat()
        for key in GROUPS:
            for name in str(flat[key]).split(","):
                if name.strip() in added(key):
                    kept[f"{key} {name.strip()}"] = origin(added(key)[name.strip()])
        text = json.dumps([kept, seed, data], sort_keys=True)
        return hashlib.blake2b(text.encode(), digest_size=12).hexdigest()


@cache
def _arms(text: str) -> dict[str, Flat]:
    return dict(json.loads(text))


@cache
def _arm(config: RunConfig, name: str) -> RunConfig:
    found, mistakes = _parse({**config.to_flat(), **_arms(config.run.arms)[name]})
    all_at_once(ConfigError, f"arm {name!r} cannot be used", mistakes)
    return found


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
    return config, mistakes + cross_checks(config)


def key_of(section: str, name: str) -> str:
    """The key of a field: ``test_fraction`` is 'test-fraction', ``class_`` 'class'."""
    return f"{section}.{name.rstrip('_').replace('_', '-')}"


def meanings() -> list[tuple[str, Scalar, str, str]]:
    """(key, default, allowed values, meaning) of every key, in order."""
    rows: list[tuple[str, Scalar, str, str]] = []
    for section in fields(RunConfig):
        kind = _hints(RunConfig)[section.name]
        for item in fields(kind):
            hint = _hints(kind)[item.name]
            key = key_of(section.name, item.name)
            named = get_origin(hint) is Literal
            allowed = " | ".join(map(str, (*get_args(hint), *added(key)))) if named else hint.__name__
            rows.append((key, cast(Scalar, item.default), allowed, item.metadata["meaning"]))
    return rows


@cache
def _hints(kind: type) -> dict[str, Any]:
    return get_type_hints(kind)


def _arm_mistakes(config: RunConfig) -> list[str]:
    try:
        arms = json.loads(config.run.arms)
    except json.JSONDecodeError as error:
        return [f"run.arms: not JSON ({error}); write arms as tables of the experiment's TOML"]
    if not isinstance(arms, dict) or not arms or not all(isinstance(v, dict) for v in arms.values()):
        return ["run.arms: must be an object of arm name -> overrides with at least one arm"]
    mistakes = []
    flat = config.to_flat()
    shared = cross_checks(config)
    for name, overrides in arms.items():
        if not name or not all(c.isalnum() or c in "+-._" for c in name):
            mistakes.append(f"arm {name!r}: use letters, digits, '+', '-', '.', '_'")
        same = ("data", "run", "speed", "split")
        shared_keys = ("train.task", "privacy.budget")
        fixed = [k for k in overrides if (k.split(".")[0] in same and k != "run.seeds") or k in shared_keys]
        if fixed:
            mistakes.append(f"arm {name!r}: {', '.join(fixed)} is the same for every arm of a run")
            continue
        mistakes += [f"arm {name!r}: {m}" for m in _parse({**flat, **overrides})[1] if m not in shared]
    return mistakes
