"""A run folder and the plan of what is still to be done in it. No Flower, no torch."""

from __future__ import annotations

import importlib.metadata
import platform
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from fedsec import __version__
from fedsec.config import RunConfig
from fedsec.config.toml import write_config
from fedsec.datasets import load, partition
from fedsec.errors import ConfigError, RunError, all_at_once
from fedsec.log import runlog
from fedsec.privacy.protection import parsed
from fedsec.types import Dataset, Flat, Indices, SiteReport

CLIENTS = 4
"""Nodes a simulation starts when the experiment names no number: the release's."""
PACKAGES = ("flwr", "ray", "torch", "torchvision", "numpy", "scikit-learn", "scipy")


@dataclass(frozen=True)
class Census:
    """Training images of each client: ``labels[client][class]`` and ``sites[client][site]``.

    ``told_by``: names of the real sites that reported it; empty in a simulation, where the partition says it.
    """

    labels: tuple[tuple[int, ...], ...]
    sites: tuple[tuple[int, ...], ...]
    site_names: tuple[str, ...]
    told_by: tuple[str, ...] = ()

    @classmethod
    def of_parts(cls, dataset: Dataset, parts: Sequence[Indices]) -> Census:
        return cls(
            tuple(_counts(dataset.labels[part], len(dataset.class_names)) for part in parts),
            tuple(_counts(dataset.sites[part], len(dataset.site_names)) for part in parts),
            dataset.site_names,
        )

    @classmethod
    def of_sites(cls, dataset: Dataset, reports: Sequence[SiteReport]) -> Census:
        """Raises RunError naming every site whose images are of another kind than the server's."""
        ours = f"classes {', '.join(dataset.class_names)}; {dataset.channels} channels"
        wrong = [
            f"{report.name}: classes {', '.join(report.classes) or 'not told'}; {report.channels} channels"
            for report in reports
            if (report.classes, report.channels, len(report.labels))
            != (dataset.class_names, dataset.channels, len(dataset.class_names))
        ]
        remedy = "give all of them, and the server's data.source, the same classes and grouping, all gray or all RGB"
        all_at_once(RunError, f"the server has {ours}; some sites differ: {remedy}", wrong)
        names = tuple(report.name for report in reports)
        alone = tuple(
            tuple(sum(report.labels) * (i == j) for j in range(len(reports))) for i, report in enumerate(reports)
        )
        return cls(tuple(report.labels for report in reports), alone, names, names)


@dataclass(frozen=True)
class Plan:
    """One experiment in its folder: the data, who holds how much of it, and the cells that are not finished yet.

    ``rules``: the digest of each detection rule (``fedsec.run.versions.rules``), by ``defence.name``; ``earlier``: that
    of cells which are read as what they were made with, in place of today's.
    """

    config: RunConfig
    folder: Path
    dataset: Dataset
    census: Census
    rules: Mapping[str, str]
    earlier: Mapping[tuple[str, int], str] = field(default_factory=dict)

    @property
    def clients(self) -> int:
        return len(self.census.labels)

    @property
    def images(self) -> list[int]:
        """Training images of each client."""
        return [sum(counts) for counts in self.census.labels]

    @cached_property
    def cells(self) -> list[tuple[str, int]]:
        """Every (arm, seed); all arms of the first seed before the second."""
        seeds = {arm: self.config.arm(arm).seeds for arm in self.config.arms}
        every = dict.fromkeys(seed for own in seeds.values() for seed in own)
        return [(arm, seed) for seed in every for arm in seeds if seed in seeds[arm]]

    @property
    def seeds(self) -> list[int]:
        """Every seed of any arm, each once."""
        return list(dict.fromkeys(seed for _, seed in self.cells))

    def secret(self, seed: int) -> int:
        """Seed of the server's noise: a simulation repeats itself, over real sites nobody may know it."""
        return secrets.randbits(63) if self.census.told_by else seed

    @cached_property
    def digests(self) -> dict[tuple[str, int], str]:
        told = f" {self.census}" if self.census.told_by else ""
        return {
            cell: cell_digest(self.config, *cell, data=self.dataset.digest + told, rule=self.rule(cell))
            for cell in self.cells
        }

    def rule(self, cell: tuple[str, int]) -> str:
        """The digest of the detection rule of one cell; '' where there is none, or it was made before there was one."""
        return self.earlier.get(cell, self.rules.get(self.config.arm(cell[0]).defence.name, ""))

    @property
    def todo(self) -> list[tuple[str, int]]:
        """Cells without a finished result of the same digest."""
        done = runlog.finished_cells(self.folder)
        return [cell for cell in self.cells if done.get(cell) != self.digests[cell]]


def cell_digest(config: RunConfig, arm: str, seed: int, *, data: str, rule: str) -> str:
    return config.arm(arm).digest(seed=seed, data=f"{data} fedsec {__version__}", rule=rule)


def run_folder(config: RunConfig) -> Path:
    return Path(config.run.out).expanduser() / config.run.name


def with_clients(config: RunConfig, nodes: int) -> RunConfig:
    """``split.clients = 0`` means as many clients as there are nodes."""
    return replace(config, split=replace(config.split, clients=nodes)) if config.split.clients == 0 else config


def plan_run(
    config: RunConfig, *, rules: Mapping[str, str], progress: bool = False, sites: Sequence[SiteReport] = ()
) -> Plan:
    """Load the data, cut it into partitions, and check everything that can be checked before any training.

    ``rules``: of a Plan. ``sites``: the real sites' reports; there is then nothing to cut, and the data is what the
    server scores on.
    """
    dataset = load(config.data, progress=progress)
    if sites:
        census = Census.of_sites(dataset, sites)
    else:
        census = Census.of_parts(dataset, partition(dataset, config.split, seed=config.data.seed))
    _check_malicious(config, len(census.labels), len(dataset.class_names))
    _check_protections(config)
    if config.measure.fid_weights:
        _measured_by(config)
    return Plan(config, run_folder(config), dataset, census, rules)


def open_run(config: RunConfig, *, rules: Mapping[str, str], sites: Sequence[SiteReport] = ()) -> Plan:
    """Write ``config.toml`` first, then plan and log the ``run`` event. Safe to repeat: a resumed run logs it again."""
    write_config(config, run_folder(config))
    plan = plan_run(config, rules=rules, sites=sites)
    log_run(plan)
    return plan


def log_run(plan: Plan) -> None:
    """The ``run`` event: what is run, on what, and the digest each cell must have."""
    config, dataset, census = plan.config, plan.dataset, plan.census
    note = f"{dataset.source} is the server's own data for scoring; the sites trained on theirs"
    runlog.RunLog(plan.folder).run(
        config=_without_places(config),
        versions=versions(),
        data={
            "source": Path(dataset.source).name,
            "train": len(dataset.train),
            "test": len(dataset.test),
            "classes": list(dataset.class_names),
            "sites": list(census.site_names),
            "quarantined": dataset.quarantined,
            "digest": dataset.digest,
        },
        labels=census.labels,
        sites=census.sites,
        malicious=sorted({p for arm in config.arms for p in config.arm(arm).malicious}),
        arms=list(config.arms),
        seeds=plan.seeds,
        measured_by=_measured_by(config),
        notes=[note] if census.told_by else [],
        digests=plan.digests,
    )


def _without_places(config: RunConfig) -> Flat:
    """The flat configuration with bare names for paths: the event log travels, a machine's folders need not."""
    flat = config.to_flat()
    places = ("data.source", "data.cache", "run.out", "measure.fid-weights")
    return flat | {key: Path(str(flat[key])).name for key in places}


def _measured_by(config: RunConfig) -> str:
    from fedsec.metrics.inception import find_fid_weights

    return "fid" if find_fid_weights(config.measure.fid_weights) else "frechet-domain"


def _check_malicious(config: RunConfig, clients: int, classes: int) -> None:
    for arm in config.arms:
        its = config.arm(arm)
        beyond = [p for p in its.malicious if p >= clients]
        if beyond:
            raise RunError(f"arm {arm!r}: malicious partitions {beyond}, but the split gives {clients} clients from 0")
        if its.attack.class_ >= classes:
            raise RunError(
                f"arm {arm!r}: attack.class = {its.attack.class_}, but the data has {classes} classes from 0"
            )


def _check_protections(config: RunConfig) -> None:
    """Raises ConfigError naming every arm whose sites would do to their updates what cannot be done."""
    mistakes = []
    for arm in config.arms:
        try:
            steps = parsed(config.arm(arm).classifier.protect)
        except ConfigError as error:
            mistakes.append(f"arm {arm!r}: classifier.protect: {error}")
            continue
        if any(step.name == "local-statistics" for step in steps):
            mistakes.append(f"arm {arm!r}: what leaves a site is the protocol's: set classifier.sends = 'weights'")
    all_at_once(ConfigError, "protections that cannot be used", mistakes)


def _counts(values: np.ndarray, kinds: int) -> tuple[int, ...]:
    return tuple(int(n) for n in np.bincount(values, minlength=kinds))


def versions() -> dict[str, str]:
    found = {"fedsec": __version__, "python": platform.python_version()}
    return found | {name: importlib.metadata.version(name) for name in PACKAGES}
