"""Seconds an iteration of one gradient inversion, ours against breaching 0.1.2, each in a process of its own.

``python -m benchmarks.inversion_speed --breaching PYTHON``: PYTHON is an interpreter of another environment, made by
``uv venv DIR && uv pip install --python DIR/bin/python breaching==0.1.2 torch torchvision safetensors``. Both sides get
the same update of one image, the same network and the attack of Geiping et al. 2020 (cosine, total variation, signed
Adam, box) with the same number of restarts and iterations, on one thread; they take turns, and which goes first turns
too. A side's figure is the wall of the attack alone, over iterations and restarts: imports, start and a first short
attack are outside. Whatever else the machine does is in the figures; the ratio is taken pair by pair.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from fedsec.errors import RunError

ROOT = Path(__file__).resolve().parents[1]
PRESET = "inverting-gradients"
FIRST = 2
"""Iterations of the attack before the one that is timed."""


def capture(folder: Path, *, network: str, size: int, norm: str) -> None:
    """One honest round on one phantom lesion; breaching's total variation wants three channels."""
    from clients.classifier import ClassifierClient
    from fedsec.datasets.phantom import draw
    from fedsec.models.networks import new_network
    from fedsec.models.state import network_arrays
    from fedsec.probes.view import Recipe
    from fedsec.types import Rows

    recipe = Recipe(network, norm, channels=3, size=size)  # type: ignore[arg-type]
    client = ClassifierClient(recipe, Rows(draw("skin", 1, size, seed=0).pixels, np.array([1])), partition=0, seed=0)
    client.fit(list(network_arrays(new_network(recipe.spec, seed=0)).values()), {"round": 1})
    assert client.captured is not None
    client.captured.save(folder)


def ours(folder: Path, iterations: int, restarts: int) -> dict[str, float]:
    import torch

    from fedsec.probes.inversion import PRESETS, invert
    from fedsec.probes.labels import only_label
    from fedsec.probes.replica import Replica
    from fedsec.probes.terms import observe
    from fedsec.probes.view import ServerView

    view = ServerView.load(folder)
    replica = Replica(view.recipe, view.before)
    shape = (1, view.recipe.channels, view.recipe.size, view.recipe.size)
    labels = torch.tensor([only_label(view)])

    def attack(count: int) -> float:
        from dataclasses import replace

        preset = replace(PRESETS[PRESET], iterations=count, restarts=restarts)
        prior = np.zeros(shape, np.float32)
        return invert(replica, observe(view, replica), preset, count=1, labels=labels, prior=prior, seed=0).loss

    return _timed(attack, iterations, restarts)


def theirs(folder: Path, iterations: int, restarts: int) -> dict[str, float]:
    """Runs under the other interpreter."""
    import torch

    from fedsec.models.networks import build_network
    from fedsec.probes.export import payload_of
    from fedsec.probes.labels import only_label
    from fedsec.probes.view import ServerView

    breaching = importlib.import_module("breaching")
    view = ServerView.load(folder)
    payload, shared = payload_of(view, labels=[only_label(view)])
    network = build_network(view.recipe.spec)

    def attack(count: int) -> float:
        chosen = [f"restarts.num_trials={restarts}", f"optim.max_iterations={count}"]
        settings = breaching.get_attack_config("invertinggradients", overrides=chosen)
        attacker = breaching.attacks.prepare_attack(network, torch.nn.CrossEntropyLoss(), settings)
        _, told = attacker.reconstruct([payload], [shared], {}, dryrun=False)
        return float(told["opt_value"])

    return _timed(attack, iterations, restarts)


def _timed(attack: Any, iterations: int, restarts: int) -> dict[str, float]:
    attack(FIRST)
    wall, cpu = time.perf_counter(), time.process_time()
    loss = attack(iterations)
    passes = iterations * restarts
    return {
        "seconds": (time.perf_counter() - wall) / passes,
        "cpu-seconds": (time.process_time() - cpu) / passes,
        "loss": loss,
    }


SIDES = {"ours": ours, "theirs": theirs}


def side(name: str, python: str, folder: Path, options: argparse.Namespace) -> dict[str, float]:
    """One side's figures, from a process of its own. Raises RunError when it fails."""
    command = [python, "-W", "ignore", str(Path(__file__).resolve()), "--side", name, "--view", str(folder)]
    command += ["--iterations", str(options.iterations), "--restarts", str(options.restarts)]
    alone = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    done = subprocess.run(command, env=alone, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RunError(f"{name} under {python} ended with status {done.returncode}: {done.stderr.strip()[-800:]}")
    figures: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    return figures


def compare(options: argparse.Namespace) -> dict[str, Any]:
    """Every pair, and the ratio of ours to theirs with a 95 % interval."""
    from fedsec.metrics.intervals import paired_ratio

    pairs: list[dict[str, dict[str, float]]] = []
    with tempfile.TemporaryDirectory(prefix="inversion-speed-") as folder:
        capture(Path(folder), network=options.network, size=options.size, norm=options.norm)
        for number in range(options.pairs):
            order = [("ours", sys.executable), ("theirs", options.breaching)]
            pair = {n: side(n, python, Path(folder), options) for n, python in (order if number % 2 else order[::-1])}
            pairs.append(pair)
            told = ", ".join(f"{n} {pair[n]['seconds']:.3f} s (CPU {pair[n]['cpu-seconds']:.3f})" for n in SIDES)
            print(f"pair {number + 1}: {told}", flush=True)
    ratios = {
        kind: paired_ratio([pair["ours"][kind] for pair in pairs], [pair["theirs"][kind] for pair in pairs]).to_json()
        for kind in ("seconds", "cpu-seconds")
    }
    return {"settings": _settings(options), "pairs": pairs, "ratio": ratios}


def _settings(options: argparse.Namespace) -> dict[str, Any]:
    named = {key: getattr(options, key) for key in ("network", "norm", "size", "restarts", "iterations")}
    return {**named, "load": os.getloadavg()[0], "preset": PRESET}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--breaching", help="interpreter of an environment with breaching 0.1.2")
    parser.add_argument("--network", default="resnet18")
    parser.add_argument("--norm", default="batch")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--restarts", type=int, default=4)
    parser.add_argument("--iterations", type=int, default=20)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--json", type=Path, help="where every figure goes")
    parser.add_argument("--side", choices=list(SIDES), help=argparse.SUPPRESS)
    parser.add_argument("--view", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        import torch

        torch.set_num_threads(1)
        print(json.dumps(SIDES[options.side](options.view, options.iterations, options.restarts)))
        return
    if not options.breaching:
        parser.error("--breaching: give the interpreter of an environment that has breaching 0.1.2")
    found = compare(options)
    for kind, ratio in found["ratio"].items():
        print(f"{kind}, ours / theirs: {ratio['mean']:.2f} {ratio['ci95']}")
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
