"""The yardstick: the same ``client.fit`` calls in a bare pool of processes, without Flower and Ray.

``python -m benchmarks.pool SETTINGS OUT`` reads a ``config.toml``, trains its cells and writes the wall of the timed
ones to OUT/pool.json and their generators beside it.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import subprocess
import sys
import time
import tomllib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import lru_cache
from multiprocessing.pool import Pool
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from benchmarks.workload import TIMED, WARM
from clients import index
from fedsec.config import Data, RunConfig, Split
from fedsec.config.toml import flatten, write_config
from fedsec.datasets import load
from fedsec.datasets import partition as divide
from fedsec.defences.reducers import mean
from fedsec.errors import RunError
from fedsec.models.gan.steps import new_pair, spec
from fedsec.models.state import network_arrays
from fedsec.run import machine
from fedsec.run.plan import run_folder
from fedsec.types import Arrays, Rows
from fedsec.weights import Layout, generator_arrays, shared_arrays

SEED = 0


@dataclass(frozen=True)
class Call:
    """One ``client.fit``. What a client keeps travels both ways, since any process may serve any client."""

    config: RunConfig
    partition: int
    number: int
    shared: Arrays
    kept: Arrays
    device: str


@dataclass(frozen=True)
class Lane:
    """One cell trained in the pool: when its rounds started and ended, and the generator average it ends with."""

    began: float
    ended: float
    generator: Arrays


def run_pool(config: RunConfig) -> float:
    """Seconds of the timed rounds, both cells side by side. A process of its own, so that no run inherits another's
    memory. Raises RunError when it fails."""
    folder = run_folder(config)
    write_config(config, folder)
    command = [sys.executable, "-m", "benchmarks.pool", str(folder / "config.toml"), str(folder)]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RunError(f"the bare pool ended with {done.returncode}:\n{done.stderr[-2000:]}")
    return float(json.loads((folder / "pool.json").read_text())["wall"])


def main(settings: str, out: str) -> None:
    """Every cell once: the warm-up cells of all lanes, then the timed ones, one thread of this process a lane."""
    config = RunConfig.from_flat(flatten(tomllib.loads(Path(settings).read_text(encoding="utf-8"))))
    plan = machine.resources(config, clients=config.split.clients, cells=len(WARM + TIMED))
    device = "cuda" if plan.gpus else "cpu"
    with (
        multiprocessing.get_context("spawn").Pool(plan.workers) as pool,
        ThreadPoolExecutor(len(TIMED)) as threads,
    ):
        list(threads.map(lambda arm: train(pool, config.arm(arm), device), WARM))
        lanes = list(threads.map(lambda arm: train(pool, config.arm(arm), device), TIMED))
    wall = max(lane.ended for lane in lanes) - min(lane.began for lane in lanes)
    (Path(out) / "pool.json").write_text(json.dumps({"wall": wall, "workers": plan.workers}))
    for arm, lane in zip(TIMED, lanes, strict=True):
        save_file(lane.generator, Path(out) / f"generator-{arm}-{SEED}.safetensors")


def train(pool: Pool, config: RunConfig, device: str) -> Lane:
    """The rounds of one cell as ``strategies.base`` does them: everybody fits, the server averages, the next round."""
    dataset = load(config.data)
    shape = spec(config, channels=dataset.channels, classes=len(dataset.class_names))
    pair = new_pair(config, shape, seed=SEED, device="cpu")
    initial = shared_arrays(config.gan, network_arrays(pair.generator), network_arrays(pair.discriminator))
    layout = Layout.of(initial)
    current = layout.vector(initial)
    average = current.copy()
    uniform = np.full(config.split.clients, 1 / config.split.clients)
    first = [Call(config, p, 0, {}, {}, device) for p in range(config.split.clients)]
    calls, began = first, time.monotonic()
    for number in range(1, config.train.rounds + 1):
        shared = layout.arrays(current)
        answers = pool.map(answer, [replace(call, number=number, shared=shared) for call in calls], chunksize=1)
        updates = layout.updates([sent for sent, _ in answers], current)
        current = current + mean(updates, uniform)
        decay = min(config.gan.ema, number / (number + 9))
        average = decay * average + (1 - decay) * current
        calls = [replace(call, kept=kept) for call, (_, kept) in zip(calls, answers, strict=True)]
    return Lane(began, time.monotonic(), generator_arrays(layout.arrays(average)))


def answer(call: Call) -> tuple[Arrays, Arrays]:
    """In a process of the pool: one round of one client. Returns what it sends and what it keeps."""
    import torch

    torch.set_num_threads(1)
    rows, classes = _rows(call.config.data, call.config.split, call.partition)
    client = index.build(
        call.config,
        rows,
        partition=call.partition,
        classes=classes,
        seed=SEED,
        kept=call.kept,
        device=call.device,
    )
    sent, _, _ = client.fit(list(call.shared.values()), {"round": call.number})
    return dict(zip(call.shared, sent, strict=True)), client.kept


@lru_cache(maxsize=8)
def _rows(data: Data, split: Split, partition: int) -> tuple[Rows, int]:
    dataset = load(data)
    return dataset.rows(divide(dataset, split, seed=data.seed)[partition]), len(dataset.class_names)


if __name__ == "__main__":
    main(*sys.argv[1:])
