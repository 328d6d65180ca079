"""What each arm is for, read from its configuration and not from its name."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields

from fedsec.attacks.threat import threat
from fedsec.attacks.triggers import TRIGGERS, label
from fedsec.config import Attack, key_of
from fedsec.log.record import Header
from fedsec.types import Scalar

IDLE = {"attack.name": "none", "attack.update": "none", "attack.report": "honest"}
"""What says that nobody attacks; runs made before a key existed lack it."""


@dataclass(frozen=True)
class Role:
    """``malicious``: the partitions that attack in this arm; none in a clean one.
    ``trigger``: name of its trigger, '' without one. ``threat``: what the attackers do and know, in words."""

    attacked: bool
    defence: str
    malicious: tuple[int, ...] = ()
    trigger: str = ""
    threat: tuple[str, ...] = ()

    @property
    def defended(self) -> bool:
        """Whether a defence has to find the attacker. The oracle knows it, so it is a ceiling and no defence."""
        return self.defence not in ("fed-avg", "oracle")


def overrides(header: Header, arm: str) -> dict[str, Scalar]:
    """The settings that an arm changes."""
    return dict(json.loads(str(header.config.get("run.arms", "{}"))).get(arm, {}))


def role(header: Header, arm: str) -> Role:
    merged: Mapping[str, Scalar] = {**header.config, **overrides(header, arm)}
    attacked = any(str(merged.get(key, idle)) != idle for key, idle in IDLE.items())
    listed = str(merged.get("attack.malicious", "")).split(",") if attacked else []
    guilty = tuple(int(part) for part in listed if part.strip())
    keys = {key_of("attack", item.name): item.name for item in fields(Attack)}
    attack = Attack(**{keys[key]: value for key, value in merged.items() if key in keys})  # type: ignore[arg-type]
    found = label(attack) if attack.name in TRIGGERS else ""
    return Role(attacked, str(merged.get("defence.name", "fed-avg")), guilty, found, tuple(threat(attack)))
