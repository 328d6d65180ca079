"""Who was in the training set: ``python -m experiments.membership SOURCE [key=value ...] --out DIR``.

Models are trained on quarters of all images, each quarter without the patients (lesions) of the others; four disjoint
quarters, then four of the next draw, and so on. Every model in turn is the target, its quarter the members, everybody
else a stranger, and the other models are the attacker's shadows. ``--generators``: DCGANs instead, and the attacks on
them. One JSON a model in ``--out``; what is there is not trained again. Intervals: 95 %, over targets (or seeds).
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fedsec.config import RunConfig
from fedsec.datasets import load
from fedsec.experiment import parse_settings
from fedsec.images import to_images
from fedsec.metrics.features import domain_extractor
from fedsec.metrics.intervals import mean_interval
from fedsec.metrics.membership import Judged, membership, pooled
from fedsec.models.classifier import in_batches
from fedsec.models.networks import NetworkSpec
from fedsec.models.shadows import Regime, judged_real, quarter, trained, trained_gan
from fedsec.probes.membership import ATTACKS, Held, confidence, nearest, queries
from fedsec.reports.results import write_whole
from fedsec.seeds import address_seed, stream
from fedsec.types import Dataset, Images

REGIMES: dict[str, Regime] = {
    "overfitted": Regime(1000, lr=3e-3, batch=16),
    "regularised": Regime(200, "translate", lr=3e-3, weight_decay=0.05),
    "federated": Regime(400, lr=3e-3, clients=4),
}
WIDTH = 16
"""Of the ConvNets: a third of the time of 32 channels."""
GENERATORS = {"few": (128, 1000), "quarter": (1000, 1000)}
"""Largest number of members, and steps of batch 32."""
LEAST = 12  # classifiers: three draws of four quarters, the target one of them
DRAWN = 4000  # images from a generator
FEATURE_STEPS = 150
"""Of the network whose features distances are taken in."""
HEADER = """\
| model | attack | targets | members/strangers | AUC | balanced | TPR at 1 % FPR | at 0.1 % | at 0.1 %, one threshold |
|---|---|---|---|---|---|---|---|---|"""


def classifier(data: Dataset, images: list[Images], name: str, number: int, seed: int) -> dict[str, Any]:
    """One trained model: its members, its accuracy on them and on the others, its confidence in all images."""
    inside = quarter(data, number, seed)
    shape = NetworkSpec("convnet", "batch", data.channels, len(data.class_names), WIDTH)
    network = trained(data.rows(inside), REGIMES[name], shape, seed=address_seed(seed, "model", number))
    logits = [in_batches(network, torch.from_numpy(asked)).double().numpy() for asked in images]
    right = logits[0].argmax(axis=1) == data.labels
    member = np.isin(np.arange(len(right)), inside)
    sure = [[round(float(value), 4) for value in confidence(row, data.labels)] for row in logits]
    told = {"accuracy-members": float(right[member].mean()), "accuracy-strangers": float(right[~member].mean())}
    return {"inside": inside.tolist(), **told, "confidence": sure}


def judged_classifiers(data: Dataset, found: list[dict[str, Any]]) -> dict[str, list[Judged]]:
    """Attack -> one list of scores a target."""
    sure = np.array([model["confidence"] for model in found], np.float64)
    inside = np.array([np.isin(np.arange(sure.shape[2]), model["inside"]) for model in found])
    answers: dict[str, list[Judged]] = {name: [] for name, attack in ATTACKS.items() if attack.of == "classifier"}
    for k in range(len(found)):
        others = np.arange(len(found)) != k
        held = Held(target=sure[k], shadows=sure[others], inside=inside[others])
        for name, parts in answers.items():
            parts.append((ATTACKS[name].score(held), inside[k], data.groups))
    return answers


def generator(data: Dataset, name: str, number: int, seed: int) -> dict[str, Any]:
    """A DCGAN of the first quarter's images, one of the second's (the attacker's own), and what both give away of the
    first's members and of the other two quarters. Features are learnt on the attacker's own images."""
    (most, steps), classes, seed = GENERATORS[name], len(data.class_names), seed + number
    own, theirs, *others = (stream(seed, "few", k).permutation(quarter(data, k, seed)) for k in range(4))
    asked = stream(seed, "asked").permutation(np.concatenate([own[:most], *others]))
    extractor = domain_extractor(data.rows(theirs), classes=classes, seed=seed, networks=1, steps=FEATURE_STEPS)
    features = extractor(to_images(data.rows(asked).pixels))
    config = RunConfig.from_flat({"data.size": data.size, "gan.width": WIDTH, "train.steps": steps, "train.batch": 32})
    critics, distances = [], []
    for place, rows in enumerate((own[:most], theirs[:most])):
        at = address_seed(seed, "gan", place)
        pair, drawn = trained_gan(data.rows(rows), config, classes=classes, count=DRAWN, seed=at)
        critics.append(pair.discriminator)
        distances.append(nearest(features, extractor(drawn)))
    held = Held(distance=distances[0], reference=distances[1], realness=judged_real(critics[0], data.rows(asked)))
    names = [name for name, attack in ATTACKS.items() if attack.of == "generator"]
    scores = {name: [round(float(value), 5) for value in ATTACKS[name].score(held)] for name in names}
    return {"asked": asked.tolist(), "member": np.isin(asked, own[:most]).tolist(), "scores": scores}


def judged_generators(data: Dataset, found: list[dict[str, Any]]) -> dict[str, list[Judged]]:
    names = [name for name, attack in ATTACKS.items() if attack.of == "generator"]
    asked = [(np.array(one["member"]), data.groups[np.array(one["asked"])]) for one in found]
    return {
        name: [(np.array(one["scores"][name]), *truth) for one, truth in zip(found, asked, strict=True)]
        for name in names
    }


def table(name: str, judged: dict[str, list[Judged]]) -> list[str]:
    """A line an attack: means over targets, and the TPR of all targets under one threshold."""
    lines = []
    for attack, parts in judged.items():
        each = [membership(*part) for part in parts]
        cells = [_spread([one.auc for one in each]), _spread([one.balanced for one in each])]
        cells += [_spread([one.caught[k].value for one in each]) for k in (0, 1)]
        whole = membership(*pooled(parts)).caught[1]
        cells.append(whole.reason or f"{100 * whole.value:.2f} % ({100 * whole.low:.2f} to {100 * whole.high:.2f})")
        sides = f"{each[0].members}/{each[0].strangers}"
        lines.append(f"| {name} | {attack} | {len(parts)} | {sides} | {' | '.join(cells)} |")
    return lines


def _spread(values: list[float]) -> str:
    found = mean_interval(values)
    interval = "" if math.isnan(found.low) else f" ({found.low:.3f} to {found.high:.3f})"
    return "out of reach" if math.isnan(found.mean) else f"{found.mean:.3f}{interval}"


def kept(path: Path, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What ``path`` holds, made first where it is absent."""
    if not path.is_file():
        started = time.monotonic()
        write_whole(path, json.dumps({**(made := make()), "seconds": time.monotonic() - started}) + "\n")
        print(path.name, {key: value for key, value in made.items() if isinstance(value, float)}, flush=True)
    read: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return read


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", help="'phantom', or a folder, CSV or .npz of real images")
    parser.add_argument("settings", nargs="*", help="data.modality=chest and other keys of [data]")
    parser.add_argument("--regimes", default=",".join(REGIMES), help="of REGIMES, or with --generators of GENERATORS")
    parser.add_argument("--models", type=int, default=16, help="classifiers a regime, or generators: seeds")
    parser.add_argument("--generators", action="store_true")
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True, help="folder of one JSON a model")
    options = parser.parse_intermixed_args()
    if not options.generators and options.models < LEAST:
        parser.error(f"--models {options.models}: LiRA takes two shadows on each side of an image, so at least {LEAST}")
    options.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    flat = {"data.source": options.source, "data.size": options.size, **parse_settings(options.settings)}
    data = load(RunConfig.from_flat(flat).data)
    images = queries(to_images(data.pixels))
    lines = [HEADER]
    for name in options.regimes.split(","):
        make = partial(generator, data, name) if options.generators else partial(classifier, data, images, name)
        found = [kept(options.out / f"{name}-{k}.json", partial(make, k, options.seed)) for k in range(options.models)]
        judge = judged_generators if options.generators else judged_classifiers
        lines += table(name, judge(data, found))
        print("\n".join(lines), flush=True)


if __name__ == "__main__":
    main()
