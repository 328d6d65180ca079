"""The Flower ServerApp: enrol the nodes once, then run every cell (arm x seed) of the experiment over them."""

from __future__ import annotations

import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from fedsec.config import RunConfig
from fedsec.flower import messages, roll_call
from fedsec.flower.messages import Enrolled
from fedsec.log import runlog
from fedsec.run.plan import Plan, open_run, run_folder, with_clients
from fedsec.run.versions import rules

app = ServerApp()
WAIT_FOR_NODES = 120.0
"""Seconds."""


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run what is not finished yet. Raises when a cell failed, so that the run's status says so."""
    config = RunConfig.from_flat(context.run_config)
    run_experiment(grid, config)


def run_experiment(grid: Grid, config: RunConfig, *, wait: float = WAIT_FOR_NODES) -> Path:
    """Everything of one experiment over one grid; returns the run folder."""
    started = time.monotonic()
    log = runlog.RunLog(run_folder(config))
    Thread(target=_import_ahead, daemon=True).start()
    try:
        present = roll_call.roll_call(grid, least=max(1, config.split.clients), wait=wait)
        plan = open_run(with_clients(config, len(present.nodes)), rules=rules(), sites=present.reports)
        _run_cells(grid, plan, present.lanes(plan.clients)[: config.speed.arms_at_once], log)
    except BaseException as error:
        log.run_end("failed", messages.plain_text(f"{type(error).__name__}: {error}"), wall_seconds=_since(started))
        raise
    log.run_end("finished", wall_seconds=_since(started))
    return plan.folder


def _import_ahead() -> None:
    """What scoring needs takes seconds to import; that goes on while the nodes answer the roll call."""
    import strategies.cell  # noqa: F401


def _run_cells(grid: Grid, plan: Plan, lanes: list[list[Enrolled]], log: runlog.RunLog) -> None:
    """Each lane takes the next cell as soon as it is free; the first failure stops further cells and is raised."""
    import torch

    from fedsec.metrics.panel import Panel
    from fedsec.models.state import device_of
    from fedsec.privacy.promises import allotted
    from strategies.cell import run_cell
    from strategies.index import check_defences

    check_defences(plan.config, plan.clients)
    before = {cell: its.tries for cell, its in runlog.read(plan.folder).cells.items()}
    rounds = allotted(plan.config, plan.images, plan.todo, [one for tries in before.values() for one in tries])
    torch.set_num_threads(1)  # the workers have the cores; and sums keep their order
    panel = Panel(plan.config, plan.dataset, device_of(plan.config.speed))
    todo: SimpleQueue[tuple[str, int]] = SimpleQueue()
    for cell in rounds:
        todo.put(cell)
    failures: list[BaseException] = []

    def work(lane: list[Enrolled]) -> None:
        while not failures:
            try:
                cell = todo.get_nowait()
            except Empty:
                return
            try:
                arm, seed = cell
                earlier = before.get(cell, ())
                run_cell(grid, plan, lane, panel, arm=arm, seed=seed, log=log, rounds=rounds[cell], earlier=earlier)
            except BaseException as error:
                traceback.print_exc()
                failures.append(error)

    with ThreadPoolExecutor(max_workers=len(lanes)) as pool:
        list(pool.map(work, lanes))
    if failures:
        raise failures[0]


def _since(started: float) -> float:
    return time.monotonic() - started
