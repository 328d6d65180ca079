"""Attacks on split learning's exchange, by name; each function's card says what its attacker knows, and the source."""

from __future__ import annotations

from collections.abc import Callable

from fedsec.probes.descent import Reconstruction
from fedsec.probes.split_learning.hijack import hijack
from fedsec.probes.split_learning.learned import decoder, unsplit
from fedsec.probes.split_learning.matching import (
    adaptive,
    adaptive_joint,
    client_update,
    dlg,
    inverting_gradients,
    white_box,
)
from fedsec.probes.split_learning.view import Means, SplitView

SplitAttack = Callable[[SplitView, Means], Reconstruction]

ATTACKS: dict[str, SplitAttack] = {
    "dlg": dlg,
    "inverting-gradients": inverting_gradients,
    "client-update": client_update,
    "white-box": white_box,
    "decoder": decoder,
    "unsplit": unsplit,
    "fsha": hijack,
    "adaptive": adaptive,
    "adaptive-joint": adaptive_joint,
}
