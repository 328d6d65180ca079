"""The command line: ``fedsec run | matrix | report | table | rescore | data | config | doctor``."""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from fedsec.config import RunConfig, meanings
from fedsec.config.files import absolute, parse_settings, read_experiment
from fedsec.config.toml import CONFIG, write_config
from fedsec.errors import ConfigError, FedsecError, all_at_once
from fedsec.run import machine
from fedsec.run.app import experiment
from fedsec.run.plan import CLIENTS, Plan, plan_run, with_clients
from fedsec.run.versions import rules

OUT = Console(soft_wrap=True, width=None if sys.stdout.isatty() else 140)
TABLES = ("scores", "flags", "price", "matrix", "watched", "epsilons")
"""Modules of ``fedsec.reports.markdown``."""
RESCORING = {"measure.fid-weights", "data.source", "data.cache", "speed.device"}
"""What may differ when a run is scored again."""
ERR = Console(stderr=True, soft_wrap=True)


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status: 0 done, 1 a run failed or the input cannot be used, 2 wrong words, 130 interrupted."""
    parser = _parser()
    words = sys.argv[1:] if argv is None else list(argv)
    alone = words[:1] == ["table"] and words[1:] not in ([], ["-h"], ["--help"])
    options, rest = parser.parse_known_args(words[:1] if alone else words)
    if [word for word in rest if word.startswith("-")] or (rest and not hasattr(options, "settings")):
        parser.error(f"unknown words: {' '.join(rest)}")
    if rest:
        options.settings = [*options.settings, *rest]
    try:
        with _interruptible():
            return _table_of(words[1:]) if options.command is _table_of else int(options.command(options))
    except FedsecError as error:
        ERR.print(f"fedsec: {error}", style="red", markup=False, highlight=False)
        return 1
    except KeyboardInterrupt:
        ERR.print("fedsec: finished cells are kept, the same command goes on from there", style="red")
        return 130


@contextmanager
def _interruptible() -> Iterator[None]:
    """A polite kill ends a run as Ctrl-C does: what we started is ended with us. Once: none after it is heard, or an
    impatient second would cut the ending short and leave a SuperLink, Ray and its workers behind."""
    before = {which: signal.getsignal(which) for which in (signal.SIGINT, signal.SIGTERM)}
    heard = [which for which, handler in before.items() if handler not in (signal.SIG_IGN, None)]

    def interrupt(number: int, frame: object) -> None:
        for which in heard:
            signal.signal(which, signal.SIG_IGN)
            before.pop(which, None)
        try:
            ERR.print("fedsec: interrupted; ending what was started, which takes up to a minute", style="red")
        finally:  # wherever standard error went
            raise KeyboardInterrupt

    for which in heard:
        signal.signal(which, interrupt)
    try:
        yield
    finally:
        for which in heard:
            if which in before:
                signal.signal(which, before[which])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="fedsec", description=__import__("fedsec").__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    run = commands.add_parser("run", help="run an experiment and write its report")
    run.add_argument(
        "file",
        type=Path,
        help="isic or another that is shipped, an experiment TOML, or a run's config.toml",
    )
    run.add_argument("settings", nargs="*", metavar="key=value", help="override any key ('fedsec config' lists them)")
    run.add_argument("--profile", default="", help="a table under [profiles] of the file, e.g. quick or full")
    run.add_argument("--dry-run", action="store_true", help="check settings and data, say what would run, run nothing")
    run.set_defaults(command=_run)

    matrix = commands.add_parser("matrix", help="attacks x defences x splits, cell by cell, and their heat-maps")
    matrix.add_argument("file", type=Path, help="TOML with [attacks.X], [defences.Y] and [splits.Z] tables")
    matrix.add_argument(
        "settings", nargs="*", metavar="key=value", help="override any key ('fedsec config' lists them)"
    )
    matrix.add_argument("--profile", default="", help="a table under [profiles] of the file")
    matrix.add_argument("--cells", type=Path, help="where a small file of each finished cell is kept and looked for")
    matrix.add_argument("--dry-run", action="store_true", help="say what would run, run nothing")
    matrix.add_argument("--report-only", action="store_true", help="draw what is finished, run nothing")
    matrix.set_defaults(command=_matrix)

    report = commands.add_parser("report", help="redraw report.html and results.json of a run folder")
    report.add_argument("folder", type=Path)
    report.set_defaults(command=_report)

    _add_table(commands)

    again = commands.add_parser("rescore", help="scores of a finished run anew, from the generators it kept")
    again.add_argument("folder", type=Path)
    again.add_argument("settings", nargs="*", metavar="key=value", help="measure.fid-weights=FILE, data.source=DIR")
    again.set_defaults(command=_rescore)

    data = commands.add_parser("data", help="check a data source and say what is in it")
    data.add_argument("source", help="'phantom', or a folder, CSV or .npz")
    data.add_argument("settings", nargs="*", metavar="key=value")
    data.set_defaults(command=_data)

    config = commands.add_parser("config", help="list every key with its default and meaning")
    config.set_defaults(command=_config)

    doctor = commands.add_parser("doctor", help="say what this machine offers and what is missing")
    doctor.set_defaults(command=_doctor)
    return parser


def _add_table(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    table = commands.add_parser("table", help="a run or a matrix as Markdown tables and pictures")
    table.add_argument("--as", dest="kind", default="scores", choices=TABLES, help="which; each has its own --help")
    table.add_argument("words", nargs="*", metavar="WORD", help="run folders and options of that table")
    table.set_defaults(command=_table_of)


def _run(options: argparse.Namespace) -> int:
    from fedsec.models.split_learning.exchange import rounds_of
    from fedsec.reports.live import LiveReport
    from fedsec.reports.page import REPORT
    from fedsec.run import launch
    from fedsec.run.progress import RunProgress

    config = with_clients(read_experiment(experiment(options.file), options.profile, options.settings), CLIENTS)
    plan = plan_run(config, rules=rules(), progress=OUT.is_terminal)
    todo = plan.todo
    _announce(plan, todo)
    if options.dry_run:
        return 0
    if todo:
        write_config(config, plan.folder)
        needs = machine.resources(config, clients=plan.clients, cells=len(todo))
        rounds = max(rounds_of(config.arm(arm)) for arm, _ in todo)
        live = LiveReport(plan.folder, cells=todo, rounds=rounds)
        OUT.print(f"report, drawn anew while the run goes on: {plan.folder / REPORT}", markup=False, highlight=False)
        with RunProgress(plan.folder, OUT, cells=todo, rounds=rounds) as progress:

            def watch() -> None:
                progress.refresh()
                live.look()

            launch.run(plan.folder, needs, watch=watch)
    return _draw(plan.folder)


def _matrix(options: argparse.Namespace) -> int:
    from fedsec.config.matrix import read_matrix
    from fedsec.reports.matrix import draw
    from fedsec.run.matrix import run_matrix

    matrix = read_matrix(experiment(options.file), options.profile, options.settings)
    kept = options.cells or Path(str(matrix.base["run.out"])) / f"{matrix.base['run.name']}-cells"
    if not options.report_only:
        run_matrix(matrix, kept, OUT, announce=_announce, dry=options.dry_run)
    if not options.dry_run:
        OUT.print(f"report: {draw(matrix, kept)}", markup=False, highlight=False)
    return 0


def _announce(plan: Plan, todo: list[tuple[str, int]]) -> None:
    data, config = plan.dataset, plan.config
    OUT.print(
        f"{config.run.name}: {len(data.train)} training and {len(data.test)} test images of "
        f"{len(data.class_names)} classes, {plan.clients} clients, {config.train.rounds} rounds of "
        f"{_work(config)} at {config.data.size} px",
        markup=False,
        highlight=False,
    )
    if data.quarantined:
        OUT.print(f"{data.quarantined} files were left out; their list is in the data cache (quarantine.jsonl)")
    finished = len(plan.cells) - len(todo)
    OUT.print(f"{len(todo)} cells to run, {finished} already finished, in {plan.folder}", markup=False, highlight=False)


def _work(config: RunConfig) -> str:
    """What a client does in a round."""
    if config.train.task == "split-learning":
        return f"{config.cut.batches} mini-batches"
    epochs = config.classifier.epochs if config.train.task == "classifier" else 0
    return f"{epochs} local epochs" if epochs else f"{config.train.steps} steps"


def _table_of(words: Sequence[str]) -> int:
    """``fedsec table WORDS [--as KIND]``: the words are those of the kind's own parser."""
    parser = argparse.ArgumentParser(prog="fedsec table", add_help=False, allow_abbrev=False)
    parser.add_argument("--as", dest="kind", default="scores", choices=TABLES)
    options, rest = parser.parse_known_args(words)
    import_module(f"fedsec.reports.markdown.{options.kind}").main(rest)
    return 0


def _report(options: argparse.Namespace) -> int:
    return _draw(options.folder)


def _rescore(options: argparse.Namespace) -> int:
    from fedsec.run.rescore import rescore

    moved = [f"run.out={options.folder.resolve().parent}", f"run.name={options.folder.resolve().name}"]
    settings = parse_settings(options.settings)
    fixed = sorted(set(settings) - RESCORING)
    allowed = ", ".join(sorted(RESCORING))
    all_at_once(ConfigError, f"what a finished run was made with stays; only {allowed} may differ now", fixed)
    config = read_experiment(options.folder / CONFIG, "", [*options.settings, *moved])
    cells = rescore(plan_run(config, rules=rules()))
    OUT.print(f"{len(cells)} cells scored again", highlight=False)
    return _draw(options.folder)


def _draw(folder: Path) -> int:
    from fedsec.reports.page import write_report
    from fedsec.reports.results import write_results
    from fedsec.reports.risk import write_risk
    from fedsec.reports.terminal import scores_table

    results = write_results(folder)
    page = write_report(folder)
    sheets = write_risk(folder)
    OUT.print(scores_table(results))
    OUT.print(f"report: {page}", markup=False, highlight=False)
    if sheets:
        OUT.print(f"risk sheets, one a site: {sheets}", markup=False, highlight=False)
    return 0


def _data(options: argparse.Namespace) -> int:
    from fedsec.datasets import load

    config = absolute(RunConfig.from_flat({"data.source": options.source, **parse_settings(options.settings)}))
    began = time.monotonic()
    dataset = load(config.data, progress=OUT.is_terminal)
    title = Text(f"{Path(dataset.source).name}: {len(dataset.labels)} images")
    table = Table("class", *map(escape, dataset.site_names), "all", title=title)
    for label, name in enumerate(dataset.class_names):
        of_class = dataset.labels == label
        counts = [int((of_class & (dataset.sites == site)).sum()) for site in range(len(dataset.site_names))]
        table.add_row(Text(name), *map(str, counts), str(int(of_class.sum())))
    OUT.print(table)
    groups = len(set(dataset.groups.tolist()))
    OUT.print(
        f"{dataset.size} px, {dataset.channels} channels; {len(dataset.train)} train, {len(dataset.test)} test, "
        f"{groups} lesions or patients, none in both; {dataset.quarantined} quarantined; "
        f"{time.monotonic() - began:.1f} s",
        highlight=False,
    )
    return 0


def _config(options: argparse.Namespace) -> int:
    table = Table("key", "default", "allowed", "meaning")
    for key, default, allowed, meaning in meanings():
        table.add_row(*map(Text, (key, repr(default), allowed, meaning)))
    OUT.print(table)
    return 0


def _doctor(options: argparse.Namespace) -> int:
    from fedsec.run.doctor import examine

    findings = examine()
    for finding in findings:
        OUT.print(
            f"{'ok  ' if finding.fine else 'MISS'}  {finding.what}: {finding.found}", markup=False, highlight=False
        )
    return 0 if all(finding.fine or not finding.needed for finding in findings) else 1


if __name__ == "__main__":
    sys.exit(main())
