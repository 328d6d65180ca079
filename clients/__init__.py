"""What runs at a site: Flower ``NumPyClient`` subclasses, numpy in and numpy out."""

from __future__ import annotations

from clients.gan import GanClient
from clients.malicious import MaliciousGanClient
from fedsec.config import RunConfig
from fedsec.types import Arrays, Rows


def build(
    config: RunConfig,
    rows: Rows,
    *,
    partition: int,
    classes: int,
    seed: int,
    kept: Arrays,
    device: str = "cpu",
    secret: int | None = None,
) -> GanClient:
    """The client of one partition: malicious when the configuration says so, benign otherwise."""
    kind = MaliciousGanClient if partition in config.malicious else GanClient
    return kind(config, rows, partition=partition, classes=classes, seed=seed, kept=kept, device=device, secret=secret)


__all__ = ["GanClient", "MaliciousGanClient", "build"]
