"""Run what a matrix lacks, one Flower run a split, keeping each cell's file as it ends; then draw it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.console import Console

from fedsec.config.matrix import CLEAN, ORACLE, Again, Matrix
from fedsec.config.toml import write_config
from fedsec.log import cells as kept
from fedsec.log import runlog
from fedsec.log.record import CellKey
from fedsec.log.tail import Tail
from fedsec.run import launch, machine
from fedsec.run.plan import CLIENTS, Plan, log_run, plan_run, with_clients
from fedsec.run.progress import RunProgress
from fedsec.run.standings import Standings
from fedsec.run.versions import rules

Announce = Callable[[Plan, list[CellKey]], None]


def run_matrix(matrix: Matrix, cells: Path, console: Console, *, announce: Announce, dry: bool = False) -> None:
    """The run's own seeds first, then more seeds for each defence's worst, until those no longer show another worst.

    ``cells``: folder of the small files, one folder a split inside; finished cells found there are taken from it.
    """
    for split in matrix.splits:
        _run_split(matrix, split, cells / split, console, announce, dry, ())
        repeated: set[str] = set()
        while matrix.again.worst and not dry and (worst := {*worst_arms(matrix, split, cells)} - repeated):
            repeated |= worst
            _run_split(matrix, split, cells / split, console, announce, dry, tuple(repeated))


def _run_split(
    matrix: Matrix, split: str, cells: Path, console: Console, announce: Announce, dry: bool, worst: tuple[str, ...]
) -> None:
    config = with_clients(matrix.config(split, worst), CLIENTS)
    plan = plan_run(config, rules=rules(), progress=console.is_terminal)
    kept.recall(plan.folder, cells, plan.digests)
    todo = plan.todo
    announce(plan, todo)
    if dry or not todo:
        return
    write_config(plan.config, plan.folder)
    keeper = Keeper(plan, cells)
    keeper.look()
    needs = machine.resources(plan.config, clients=plan.clients, cells=len(todo))
    with RunProgress(plan.folder, console, cells=todo, rounds=plan.config.train.rounds) as progress:

        def watch() -> None:
            progress.refresh()
            keeper.look()

        try:
            launch.run(plan.folder, needs, watch=watch)
        finally:
            keeper.look()


class Keeper:
    """Writes the file of each cell of a plan as soon as the log says that it is finished."""

    def __init__(self, plan: Plan, cells: Path) -> None:
        self.plan, self.cells, self.tail = plan, cells, Tail(plan.folder)
        self.written = {cell for cell, digest in plan.digests.items() if kept.holds(cells, cell, digest)}

    def look(self) -> None:
        if not self.tail.grown():
            return
        for cell, digest in self.plan.digests.items():
            found = self.tail.cells.get(cell)
            if cell not in self.written and found is not None and found.finished and found.digest == digest:
                kept.keep(self.plan.folder, self.cells, cell)
                self.written.add(cell)


def standings(matrix: Matrix, split: str, cells: Path) -> Standings:
    """What the cell files of one split say, whatever run made them and with however many seeds each.

    A cell of an earlier detection rule is read as what it was made with; a run would make it again.
    """
    seeds = ",".join(dict.fromkeys(f"{matrix.base['run.seeds']},{matrix.again.seeds}".strip(",").split(",")))
    with TemporaryDirectory() as folder:
        base = {**matrix.base, "run.out": folder, "run.seeds": seeds}
        config = replace(matrix, base=base, again=Again()).config(split)
        plan = plan_run(with_clients(config, CLIENTS), rules=rules())
        plan = replace(plan, earlier=kept.rules(cells / split, plan.cells))
        log_run(plan)
        kept.recall(plan.folder, cells / split, plan.digests)
        record = runlog.read(plan.folder)
    return Standings(record, tuple(matrix.attacks), (*matrix.defences, ORACLE), matrix.pairs)


def worst_arms(matrix: Matrix, split: str, cells: Path) -> tuple[str, ...]:
    """The arms in which each defence fares worst, by Fréchet ratio and by trigger rate."""
    found = standings(matrix, split, cells)
    pairs = [
        (found.worst(defence, measure)[0], defence)
        for defence in matrix.defences
        for measure in (found.ratio, found.trigger)
    ]
    return tuple(dict.fromkeys(matrix.pairs[pair] for pair in pairs if pair[0] not in ("", CLEAN)))
