"""ROC and flag rates of every rule on federations put together from recorded clients (``studies.detection.scenarios``):
``python -m studies.detection.calibration RUN [RUN ...]``.

``--check`` holds scenarios against defended cells, of the same runs or of others, where a weight does act on its
client's loss: flag rates of each, and the range in which 95 % of such scenarios lie. docs/results/calibration.md shows
what ``--json`` keeps (``studies.detection.roc``).
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from fedsec.defences.evidence import READINGS
from fedsec.defences.isolation import FEWEST
from fedsec.log.files import write_whole
from fedsec.log.record import Header
from fedsec.log.runlog import read
from fedsec.reports.markdown.flags import WARMUP, told
from fedsec.run.roles import Role, overrides, role
from fedsec.seeds import stream
from fedsec.types import Vector
from studies.detection.scenarios import RULES, Pool, counted, inspected, pool_of, rates, replay, scenario


def check(pool: Pool, folders: Sequence[Path], rounds: int, scenarios: int, rules: Sequence[str]) -> Iterator[str]:
    """A row for each cell that a rule of RULES defended: what it did in the whole run, and in scenarios like it."""
    yield "| cell | clients | true flags, run | scenarios | false flags, run | scenarios |"
    yield "|---|---|---|---|---|---|"
    for folder in folders:
        record = read(folder)
        for (arm, seed), cell in record.finished().items():
            its, name = role(record.header, arm), _rule_of(record.header, arm)
            if name is None or name not in rules or len(cell.rounds) < rounds or (its.malicious and not pool.malicious):
                continue
            clients, attackers = record.header.clients, len(its.malicious)
            fraction = float(record.header.config.get("train.fraction", 1))
            true, false = [], []
            for number in range(scenarios):
                table = _like(pool, clients, attackers, number, its, fraction)
                flags, here = replay(table, RULES[name])[0], counted(table)
                true += [flags[:, :attackers][here[:, :attackers]].mean()] if attackers else []
                false.append(flags[:, attackers:][here[:, attackers:]].mean())
            caught, accused = told(cell.rounds[: round(rounds / fraction)], its.malicious)
            hit = f"{np.mean(caught):.2f}" if attackers else "–"
            cell_of = f"| {folder.name}: {arm}, seed {seed} | {attackers} of {clients}"
            yield f"{cell_of} | {hit} | {_range(true)} | {np.mean(accused):.3f} | {_range(false)} |"


def replayed(folders: Sequence[Path], rules: Sequence[str]) -> Iterator[str]:
    """What each rule would have flagged in cells that nobody defended, on their own losses: rounds a client."""
    yield "| cell | rule | flags of each client after the warm-up |\n|---|---|---|"
    for folder in folders:
        record = read(folder)
        for (arm, seed), cell in record.finished().items():
            if role(record.header, arm).defence != "fed-avg":
                continue
            rows = [(row.losses, row.last, row.first) for row in cell.rounds]
            table = np.array([[[*(told[p] for told in row), math.nan] for p in sorted(row[0])] for row in rows])
            for name in (rule for rule in rules if rule != "fed-inspect"):
                flags = replay(table, RULES[name])[0][WARMUP:].sum(axis=0)
                yield f"| {arm}, seed {seed} | {name} | {', '.join(map(str, flags))} |"


def _like(pool: Pool, clients: int, attackers: int, number: int, its: Role, fraction: float) -> Vector:
    lying = any("report as their losses" in line for line in its.threat)
    return scenario(
        pool, clients, attackers, stream(number, "check", clients, attackers), lying=lying, fraction=fraction
    )


def _rule_of(header: Header, arm: str) -> str | None:
    """The rule of RULES that an arm's defence is, when it acts within the run."""
    merged = {**header.config, **overrides(header, arm)}
    if int(merged.get("defence.warmup", WARMUP)) != WARMUP:
        return None
    if inspected(header, arm):
        return "fed-inspect"
    return str(merged.get("defence.rule", "calibrated")) if merged.get("defence.name") == "fed-detect" else None


def _range(rates: Sequence[float]) -> str:
    if not rates:
        return "–"
    low, middle, high = np.quantile(rates, [0.025, 0.5, 0.975])
    return f"{middle:.2f} ({low:.2f} to {high:.2f})"


CASES = tuple(
    (clients, attackers)
    for clients, some in ((4, (1,)), (10, (1, 3)), (30, (1, 3, 9)), (100, (1, 10, 30)))
    for attackers in (0, *some)
)


CASE = ("rule", "clients", "attackers", "lying")
SHOWN = ("false flags", "flags", "auc", "share")
TELLS = ("truth", "lies")


def judged(
    pool: Pool, names: Sequence[str], sizes: Collection[int], scenarios: int, fraction: float
) -> Iterator[dict[str, Any]]:
    """Each rule on each case of CASES with ``sizes`` clients: fewer scenarios of more clients, and a tenth of them for
    the two rules that grow a forest each round."""
    for name in names:
        count = scenarios // 10 if name in ("released", "paper") else scenarios
        for clients, attackers in (case for case in CASES if case[0] in sizes):
            drawn = max(10, count * 4 // clients)
            for lying in (False, True) if attackers else (False,):
                found = rates(pool, clients, attackers, name, drawn, lying=lying, fraction=fraction)
                case = dict(zip(CASE, (name, clients, attackers, lying), strict=True))
                yield {**case, "scenarios": drawn, **found}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, help="run folders, or folders with an events.jsonl")
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--scenarios", type=int, default=200, help="a case; released and paper get a tenth")
    parser.add_argument("--clients", default="4,10,30,100")
    parser.add_argument("--fraction", type=float, default=1.0, help="of the clients asked each round")
    parser.add_argument("--rules", default="calibrated,fed-inspect,released,paper")
    parser.add_argument(
        "--check", nargs="*", type=Path, metavar="RUN", help="scenarios against defended cells: of these, or RUNS"
    )
    parser.add_argument("--replay", action="store_true", help="each rule on the losses of the undefended cells")
    parser.add_argument("--spread", type=float, help="what fed-inspect takes honest log peaks to differ by; 0.3")
    parser.add_argument("--json", type=Path, help="where the numbers are kept; cases that are there are replaced")
    options = parser.parse_args()
    if options.replay:
        print("\n".join(replayed(options.runs, options.rules.split(","))))
        return
    sizes = {int(number) for number in options.clients.split(",")}
    if not 0 < options.fraction <= 1 or options.fraction * min(sizes) < FEWEST:
        parser.error(f"--fraction {options.fraction} of {min(sizes)} clients: at most 1, and at least {FEWEST} of them")
    if options.spread:
        READINGS["peak"] = replace(READINGS["peak"], spread=lambda number: options.spread)
    pool = pool_of(options.runs, options.rounds)
    if options.check is not None:
        held = options.check or options.runs
        print("\n".join(check(pool, held, options.rounds, options.scenarios, options.rules.split(","))))
        return
    peaks = any(np.isfinite(trace.values[:, 3]).all() for trace in pool.honest)
    names = [name for name in options.rules.split(",") if peaks or name != "fed-inspect"]
    guilty = " and ".join(f"{len(traces)} of {number} attacking" for number, traces in sorted(pool.malicious.items()))
    told = f"traces of {options.rounds} rounds: {len(pool.honest)} honest, {guilty or 'none'}"
    print(told + ("" if peaks else "; fed-inspect did not look") + "\n")
    print("| rule | attackers of clients | tell | false flags | true flags | AUC | share left |")
    print("|---|---|---|---|---|---|---|")
    rows = json.loads(options.json.read_text()) if options.json and options.json.is_file() else []
    for row in judged(pool, names, sizes, options.scenarios, options.fraction):
        numbers = " | ".join(f"{row[key]:.3f}" if key in row else "–" for key in SHOWN)
        print(
            f"| {row['rule']} | {row['attackers']} of {row['clients']} | {TELLS[row['lying']]} | {numbers} |",
            flush=True,
        )
        rows = [other for other in rows if any(other[key] != row[key] for key in CASE)] + [row]
    if options.json:
        write_whole(options.json, json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
