"""What a reducer costs on this machine: ``python -m benchmarks.reducers [--clients 100 --parameters 1000000]``.

One line a rule: seconds on the clock and of CPU, and the most memory it took beyond the updates, in parts of theirs.
Each rule runs once in a process of its own; memory is the growth of the process's high-water mark of resident memory,
BLAS's own included. Updates are float64 and standard normal, f is a fifth of the clients. The clock also counts what
else the machine does; threads are those of the environment (OMP_NUM_THREADS). ``--rule``: one rule, here, as JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Sequence

import numpy as np

from fedsec.defences.mixing import MIXINGS, mixed
from fedsec.defences.reducers import REDUCERS, Situation
from fedsec.seeds import stream

KIB = 1 if sys.platform == "darwin" else 1024
"""Bytes in a unit of ``ru_maxrss``."""


def main(argv: Sequence[str] | None = None) -> int:
    """Print the figures; exit status 1 when a rule failed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.reducers", description=__doc__)
    parser.add_argument("--clients", type=int, default=100)
    parser.add_argument("--parameters", type=int, default=1_000_000)
    parser.add_argument("--rule", choices=[*REDUCERS, *MIXINGS], help="this one alone, in this process")
    options = parser.parse_args(argv)
    if options.rule:
        print(json.dumps(measure(options.rule, options.clients, options.parameters)))
        return 0
    threads = os.environ.get("OMP_NUM_THREADS", f"all of {os.cpu_count()}")
    gigabytes = options.clients * options.parameters * 8 / 1e9
    print(f"{options.clients} clients x {options.parameters} parameters ({gigabytes:.2f} GB), threads: {threads}")
    failed = 0
    for rule in [*REDUCERS, *MIXINGS]:
        command = [sys.executable, "-m", "benchmarks.reducers", "--rule", rule]
        sizes = ["--clients", str(options.clients), "--parameters", str(options.parameters)]
        done = subprocess.run(command + sizes, capture_output=True, text=True, check=False)
        if done.returncode:
            failed = 1
            print(f"{rule}: failed: {done.stderr.strip().splitlines()[-1]}")
            continue
        figures = json.loads(done.stdout)
        kind = "mixing + mean" if rule in MIXINGS else "reducer"
        clock, cpu, memory = (figures[key] for key in ("seconds", "cpu", "memory"))
        print(f"{rule} ({kind}): {clock:.2f} s, {cpu:.2f} s CPU, {memory:.2f} x the updates", flush=True)
    return failed


def measure(rule: str, clients: int, parameters: int) -> dict[str, float]:
    """Seconds and extra memory over the bytes of the updates; a mixing is measured in front of the mean."""
    updates = np.empty((clients, parameters))
    stream(0, "benchmark").standard_normal(out=updates)
    totals = updates if rule == "foolsgold" else updates[:, :0]
    known = Situation(clients // 5, np.zeros(parameters), totals, updates[0])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started, worked = time.perf_counter(), time.process_time()
    if rule in MIXINGS:
        matrix = MIXINGS[rule](updates, known.n_byzantine, stream(0, "buckets"))
        mixed(REDUCERS["mean"], updates, known, matrix)
    else:
        REDUCERS[rule](updates, known)
    seconds, cpu = time.perf_counter() - started, time.process_time() - worked
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * KIB
    return {"seconds": seconds, "cpu": cpu, "memory": grown / updates.nbytes}


if __name__ == "__main__":
    sys.exit(main())
