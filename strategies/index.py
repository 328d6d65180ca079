"""The strategies a configuration can name."""

from __future__ import annotations

from fedsec.config import RunConfig
from fedsec.config.added import Table
from fedsec.defences.isolation import FEWEST
from fedsec.defences.reducers import REDUCERS
from fedsec.errors import RobustnessError, all_at_once
from fedsec.privacy.noise import expected
from strategies.base import RoundStrategy
from strategies.fedavg import FedAvg, Oracle
from strategies.feddetect import FedDetect
from strategies.fedinspect import FedInspect
from strategies.private import Private
from strategies.robust import Robust, shortfall

STRATEGIES: Table[type[RoundStrategy]] = Table(
    "defence.name",
    {
        "fed-avg": FedAvg,
        "fed-detect": FedDetect,
        "oracle": Oracle,
        "fed-inspect": FedInspect,
        **dict.fromkeys(set(REDUCERS) - {"mean"}, Robust),
        "dp-fixed": Private,
        "dp-adaptive": Private,
    },
    wrap=lambda reducer: Robust,
)
"""``defence.name`` -> its strategy; of reducers, added ones too, Robust."""


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
