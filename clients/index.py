"""The client that a configuration asks for."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Protocol

from flwr.common.typing import NDArrays, Scalar

from clients.classifier import ClassifierClient
from clients.gan import GanClient
from clients.malicious import MaliciousGanClient
from clients.probe import BatchNormProbeClient, InversionProbeClient
from clients.split_learning import SplitClient
from fedsec.config import RunConfig
from fedsec.config.lists import pairs
from fedsec.datasets.public import first_of_each
from fedsec.defences.activations import Control
from fedsec.images import to_images
from fedsec.models.split_learning.exchange import exchange_of, spec_of
from fedsec.probes.audit import recipe_of
from fedsec.types import Arrays, Rows

STRANGERS = 25
"""Public images of a class that a site's statistics probe holds its own against."""
PROBE = "span"
"""The attack that a site makes on its own update: the strongest there is for every protection that was tried."""


class SiteClient(Protocol):
    """A client between two rounds: ``kept`` is what its site stores."""

    kept: Arrays

    def fit(self, parameters: NDArrays, config: dict[str, Scalar]) -> tuple[NDArrays, int, dict[str, Scalar]]: ...


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
    public: Callable[[], Rows] | None = None,
    held: Callable[[], Rows] | None = None,
) -> SiteClient:
    """The client of one partition: malicious when the configuration says so, benign otherwise.

    ``public``: what an attacker may have of the same kind; asked for by a client that probes its own update.
    ``held``: the held-out images that a client of split learning is scored on.
    """
    usual: dict[str, Any] = {
        "partition": partition,
        "seed": seed,
        "kept": kept,
        "device": device,
        "secret": secret,
    }
    if config.train.task == "split-learning":
        assert held is not None, "a client of split learning needs held-out images"
        spec = spec_of(config, channels=rows.pixels.shape[3], classes=classes)
        control = Control(config.cut.noise, config.cut.decorrelation)
        return SplitClient(spec, exchange_of(config), rows, held(), control=control, **usual)
    if config.train.task == "classifier":
        return _classifier(config, rows, classes, public, **usual)
    kind = MaliciousGanClient if partition in config.malicious else GanClient
    return kind(config, rows, classes=classes, **usual)


def _classifier(
    config: RunConfig, rows: Rows, classes: int, public: Callable[[], Rows] | None, *, partition: int, **usual: Any
) -> ClassifierClient:
    channels, leakage = rows.pixels.shape[3], config.leakage
    recipe = recipe_of(config, partition=partition, images=len(rows), channels=channels, classes=classes)
    usual |= {"partition": partition, "sends": config.classifier.sends, "protect": config.classifier.protect}
    if leakage.probe == "none":
        return ClassifierClient(recipe, rows, **usual)
    assert public is not None, "a client that probes its own update needs images that an attacker may have"
    if leakage.probe == "statistics":
        return BatchNormProbeClient(
            recipe, rows, strangers=to_images(first_of_each(public(), STRANGERS).pixels), **usual
        )
    limit, iterations = leakage.limit or math.inf, pairs(leakage.iterations).get(PROBE, 0)
    usual |= {"limit": limit, "unmeasured": leakage.unmeasured}
    return InversionProbeClient(recipe, rows, public=public(), attack=PROBE, iterations=iterations, **usual)
