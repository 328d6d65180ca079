"""Matrix files: attacks x defences x splits as tables, expanded to the arms of one Flower run a split.

``[attacks.NAME]``, ``[defences.NAME]`` and ``[splits.NAME]`` hold overrides; ``attacks.none`` and ``defences.fed-avg``
have to be there, since everything is held against them. The arm of a pair is ``ATTACK+DEFENCE``. ``[again]`` says
which cells get more seeds: rows of whole ``defences``, single ``arms``, and with ``worst = true`` each defence's worst.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from fedsec.config import RunConfig
from fedsec.config.files import absolute, parse_settings, read_toml, tables
from fedsec.config.toml import flatten
from fedsec.errors import ConfigError, all_at_once
from fedsec.types import Flat


@dataclass(frozen=True)
class Again:
    """Which cells get ``seeds`` in place of the run's."""

    seeds: str = ""
    defences: tuple[str, ...] = ()
    arms: tuple[str, ...] = ()
    worst: bool = False


@dataclass(frozen=True)
class Matrix:
    """``base``: what all cells share. The other tables: name -> overrides, in the order of the file."""

    base: Flat
    attacks: Mapping[str, Flat]
    defences: Mapping[str, Flat]
    splits: Mapping[str, Flat]
    again: Again

    @cached_property
    def pairs(self) -> dict[tuple[str, str], str]:
        """(attack, defence) -> the arm that holds its numbers, the oracle's among them.

        Pairs that cannot differ share an arm: what is reported means nothing to a defence that does not read it, and
        the oracle leaves the attackers out whatever they do.
        """
        config = RunConfig.from_flat(self.base)
        arms: dict[str, str] = {}
        pairs: dict[tuple[str, str], str] = {}
        for defence in dict.fromkeys((PLAIN, ORACLE, *self.defences)):
            for attack in self.attacks:
                name = f"{attack}+{defence}"
                its = replace(config, run=replace(config.run, arms=json.dumps({name: self.overrides(attack, defence)})))
                pairs[attack, defence] = arms.setdefault(_identity(its.arm(name)), name)
        return pairs

    def overrides(self, attack: str, defence: str) -> Flat:
        chosen: Flat = {"defence.name": ORACLE} if defence == ORACLE else dict(self.defences[defence])
        return {**self.attacks[attack], **chosen}

    def config(self, split: str, worst: Iterable[str] = ()) -> RunConfig:
        """The run of one split. ``worst``: arms that turned out to be some defence's worst."""
        repeated = {*worst, *self.again.arms}
        repeated |= {arm for (_, defence), arm in self.pairs.items() if defence in self.again.defences}
        arms: dict[str, Flat] = {}
        for (attack, defence), arm in self.pairs.items():
            if arm not in arms:
                more: Flat = {"run.seeds": self.again.seeds} if arm in repeated and self.again.seeds else {}
                arms[arm] = {**self.overrides(attack, defence), **more}
        name = f"{self.base['run.name']}-{split}"
        return RunConfig.from_flat({**self.base, **self.splits[split], "run.name": name, "run.arms": json.dumps(arms)})


def read_matrix(file: Path, profile: str, settings: Sequence[str]) -> Matrix:
    """File, then profile, then ``key=value``, as ``read_experiment``; a profile may list the attacks, defences and
    splits to keep. Raises ConfigError with everything that is wrong."""
    table = read_toml(file)
    profiles, again = tables(table, "profiles"), dict(table.pop("again", {}))
    kinds = {kind: tables(table, kind) for kind in ("attacks", "defences", "splits")}
    flat = flatten(table)
    if profile:
        if profile not in profiles:
            raise ConfigError(f"profile {profile!r}: {file.name} has {', '.join(profiles) or 'none'}")
        chosen = dict(profiles[profile])
        again = {**again, **chosen.pop("again", {})}
        kinds = {kind: _kept(kind, found, chosen.pop(kind, list(found)), profile) for kind, found in kinds.items()}
        flat |= flatten(chosen)
    base = absolute(RunConfig.from_flat({**flat, **parse_settings(settings)})).to_flat()
    attacks, defences, splits = ({name: flatten(t) for name, t in kinds[kind].items()} for kind in kinds)
    matrix = Matrix(base, attacks, defences, splits or {"iid": {}}, _again(again))
    all_at_once(ConfigError, f"{file.name} is no matrix", _mistakes(matrix))
    every = {f"{a}+{d}": matrix.overrides(a, d) for a in matrix.attacks for d in (*matrix.defences, ORACLE)}
    for overrides in matrix.splits.values():
        RunConfig.from_flat({**base, **overrides, "run.arms": json.dumps(every)})
    return matrix


def _kept(kind: str, found: dict[str, Any], names: object, profile: str) -> dict[str, Any]:
    if not isinstance(names, list) or any(name not in found for name in names):
        raise ConfigError(f"profile {profile!r}: {kind} = {names!r} must be a list of {', '.join(found)}")
    return {name: found[name] for name in names}


def _again(table: dict[str, Any]) -> Again:
    known = {"seeds": str, "defences": list, "arms": list, "worst": bool}
    mistakes = [
        f"again.{key} = {value!r}: must be {known[key].__name__}" if key in known else f"again.{key}: unknown key"
        for key, value in table.items()
        if not isinstance(value, known.get(key, ()))
    ]
    all_at_once(ConfigError, "[again] cannot be used", mistakes)
    lists = {key: tuple(map(str, table.get(key, ()))) for key in ("defences", "arms")}
    return Again(str(table.get("seeds", "")), lists["defences"], lists["arms"], bool(table.get("worst", False)))


def _mistakes(matrix: Matrix) -> list[str]:
    mistakes = []
    if CLEAN not in matrix.attacks:
        mistakes.append(f"[attacks.{CLEAN}]: missing; every defence has its price when nobody attacks")
    if PLAIN not in matrix.defences:
        mistakes.append(f"[defences.{PLAIN}]: missing; every attack is measured undefended")
    if ORACLE in matrix.defences:
        mistakes.append(f"[defences.{ORACLE}]: leave it out, it is always there")
    for name in (*matrix.attacks, *matrix.defences, *matrix.splits):
        if not name or not all(c.isalnum() or c in "-._" for c in name):
            mistakes.append(f"{name!r}: use letters, digits, '-', '.', '_'")
    every = (*matrix.defences, ORACLE)
    mistakes += [
        f"again.defences: {name!r} is not among {', '.join(every)}"
        for name in matrix.again.defences
        if name not in every
    ]
    if mistakes:
        return mistakes
    arms = {f"{attack}+{defence}" for attack in matrix.attacks for defence in every}
    return [
        f"again.arms: {name!r} is no ATTACK+DEFENCE of this matrix" for name in matrix.again.arms if name not in arms
    ]


def _identity(config: RunConfig) -> str:
    """Equal for arms whose training and scores cannot differ."""
    attack, defence = config.attack, config.defence
    if defence.name == ORACLE:
        return f"{ORACLE} {sorted(config.malicious)}" if attack.active else _identity(_undefended(config))
    if not defence.reads_losses:
        attack = replace(attack, report="honest")
    return replace(config, attack=attack).digest(seed=0, data="")


def _undefended(config: RunConfig) -> RunConfig:
    return replace(config, defence=replace(config.defence, name="fed-avg"))


CLEAN, PLAIN, ORACLE = "none", "fed-avg", "oracle"
