"""Scores of a finished run anew, from the generators it kept: for Inception weights that come later."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from safetensors import safe_open

from fedsec.errors import RunError, all_at_once
from fedsec.log import runlog
from fedsec.log.record import CellKey
from fedsec.metrics.panel import Panel
from fedsec.models.gan.sampling import draw
from fedsec.models.state import device_of
from fedsec.run.plan import Plan
from fedsec.types import Arrays


def rescore(plan: Plan) -> list[CellKey]:
    """Append every score of generated images but utility to the run's log, for each finished cell.

    The images are those the run itself scored, to the bit on the same kind of machine. The last score written counts.
    Returns the cells. Raises RunError when a generator is missing or belongs to another cell, before anything is
    written.
    """
    if plan.config.train.task != "gan":
        raise RunError(f"{plan.folder}: only generators are scored again; this run trained a {plan.config.train.task}")
    record = runlog.read(plan.folder)
    if plan.dataset.digest != record.header.data.digest:
        raise RunError(
            f"data.source = {plan.dataset.source!r} holds other images than the run's; name the right folder"
        )
    kept = _generators(plan.folder, {key: cell.digest for key, cell in record.finished().items()})
    panel, log = Panel(plan.config, plan.dataset, device_of(plan.config.speed)), runlog.RunLog(plan.folder)
    scores = {}
    for (arm, seed), arrays in kept.items():
        config = plan.config.arm(arm)
        images, labels = draw(plan.dataset, config, arrays, config.measure.samples)
        scores[arm, seed] = config.train.rounds, panel.drawn(images, labels, config)
    if record.header.measured_by != panel.measured_by:
        log.measured_anew(record, panel.measured_by)
    for (arm, seed), (number, found) in scores.items():
        for score in found:
            log.score(arm, seed, number, score, final=True)
    return list(scores)


def _generators(folder: Path, digests: dict[CellKey, str]) -> dict[CellKey, Arrays]:
    """Every cell's generator, checked against the digest written into its file."""
    found: dict[CellKey, Arrays] = {}
    wrong = []
    for (arm, seed), digest in digests.items():
        path = folder / f"generator-{arm}-{seed}.safetensors"
        if not path.is_file():
            wrong.append(f"{path.name}: missing; run the cell again")
            continue
        with safe_open(path, framework="numpy") as file:
            facts = json.loads((file.metadata() or {}).get("fedsec", "{}"))
            if facts.get("digest") != digest:
                wrong.append(f"{path.name}: is of digest {facts.get('digest')}, the cell's is {digest}; run it again")
                continue
            found[arm, seed] = {name: np.asarray(file.get_tensor(name)) for name in file.keys()}  # noqa: SIM118
    all_at_once(RunError, f"{folder} cannot be scored again", wrong)
    return found
