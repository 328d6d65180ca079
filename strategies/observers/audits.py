"""What audits share: the truth that only a simulation has at hand, what an attacker may have, pictures, the log."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from fedsec.config import RunConfig
from fedsec.datasets import partition
from fedsec.datasets.public import attacker_rows, prior_image, public_rows
from fedsec.errors import RunError
from fedsec.images import grid as tile
from fedsec.images import save_png, to_pixels
from fedsec.log.record import LeakRow
from fedsec.log.runlog import RunLog
from fedsec.metrics.similarity import stretched
from fedsec.run.plan import Plan
from fedsec.types import Fit, Images, Rows

SHOWN = 8
"""Images of one update or message that its picture shows."""


class Audits:
    """Of one cell. ``public``: training images of no client; ``others``: what an attacker may have of the same kind;
    ``prior`` (1, c, s, s): what is drawn by who saw nothing. On real machines both are the server's own images, and
    RunError when the configuration asks for an audit there."""

    def __init__(self, plan: Plan, config: RunConfig, arm: str, seed: int, log: RunLog) -> None:
        self.data, self.folder, self.arm, self.seed, self.log = plan.dataset, plan.folder, arm, seed, log
        simulated = not plan.census.told_by
        if config.leakage.every and not simulated:
            raise RunError(
                "leakage.every: only a simulation knows what an attack should have drawn; take leakage.probe"
            )
        self.parts = list(partition(self.data, config.split, seed=config.data.seed)) if simulated else []
        own = self.data.rows(self.data.train)
        self.public = public_rows(self.data, self.parts) if simulated else own
        self.others = attacker_rows(self.data, self.parts) if simulated else own
        self.prior = prior_image(self.others)

    def truth(self, client: int) -> Rows:
        """The training images of one client."""
        return self.data.rows(self.parts[client])

    def crowd(self, client: int) -> Rows:
        """Everybody else's images, those held out included: what a client's are to be picked out of."""
        every = np.concatenate([self.data.train, self.data.test])
        return self.data.rows(every[~np.isin(every, self.parts[client])])

    def place(self, number: int, fit: Fit) -> str:
        return f"{self.arm}-{self.seed}-{number:04d}-{fit.partition}"

    def picture(self, number: int, fit: Fit, attack: str, truth: Images, found: Images) -> str:
        """Truth, prior, reconstruction and the same at full contrast, as RDLV sees it, below each other, an image a
        column; the file within the run folder. Without the last row a faint image would pass for none."""
        file, shown = f"leaks/{self.place(number, fit)}-{attack}.png", found[:SHOWN]
        rows = [truth[:SHOWN], np.repeat(self.prior, len(shown), axis=0), shown, stretched(shown)]
        save_png(tile(to_pixels(np.concatenate(rows)), len(shown)), self.folder / file)
        return file

    def leak(
        self,
        number: int,
        fit: Fit,
        attack: str,
        values: dict[str, float],
        file: str = "",
        *,
        reason: str = "",
        each: Mapping[str, list[float]] | None = None,
    ) -> None:
        row = LeakRow(number, fit.partition, attack, fit.examples, values, file, reason, dict(each or {}))
        self.log.leak(self.arm, self.seed, row)
