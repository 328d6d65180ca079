"""Who was in the training set: ``python -m studies.leakage.membership SOURCE [key=value ...] --out DIR``.

Models are trained on quarters of all images, each quarter without the patients (lesions) of the others; four disjoint
quarters, then four of the next draw, and so on. Every model in turn is the target, its quarter the members, everybody
else a stranger. The models of the other draws are the attacker's shadows: in each draw one of four has seen a given
image, so members and strangers have equally many shadows on either side. (With the target's siblings, which have seen
no member, they had not, and an attack without any signal was below chance.) ``--generators``: DCGANs instead, and the
attacks on them. One JSON a model in ``--out``; what is there is not trained again.

Beside each number stands what the same attack has in the same design without signal: simulated ``--repeats`` times, of
the same targets, members and strangers. Intervals: 95 %, over targets (or seeds), which share shadows: somewhat narrow.
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
import numpy.typing as npt
import torch

from fedsec.config import RunConfig
from fedsec.config.files import parse_settings
from fedsec.datasets import load
from fedsec.images import to_images
from fedsec.log.files import write_whole
from fedsec.metrics.features import domain_extractor
from fedsec.metrics.intervals import paired_difference
from fedsec.metrics.membership import POOLED, Judged, summary, without_signal
from fedsec.models.classifier import in_batches
from fedsec.models.networks import NetworkSpec
from fedsec.models.shadows import Regime, judged_real, quarter, trained, trained_gan
from fedsec.probes.membership import ATTACKS, Confidences, Held, confidence, nearest, queries
from fedsec.seeds import address_seed, stream
from fedsec.types import Dataset, Images, Labels

REGIMES: dict[str, Regime] = {
    "overfitted": Regime(1000, lr=3e-3, batch=16),
    "regularised": Regime(200, "translate", lr=3e-3, weight_decay=0.05),
    "federated": Regime(400, lr=3e-3, clients=4),
}
WIDTH = 16
"""Of the ConvNets: a third of the time of 32 channels."""
GENERATORS = {"few": (128, 1000), "quarter": (1000, 1000)}
"""Largest number of members, and steps of batch 32."""
ACCURACIES = ("accuracy-members", "accuracy-strangers")
DRAW = 4
"""Models of one draw: the quarters of one partition."""
LEAST = 12  # classifiers: three draws of four quarters, the target in one of them
DRAWN = 4000  # images from a generator
FEATURE_STEPS = 150
"""Of the network whose features distances are taken in."""
ROWS = {"auc": "AUC", "tpr@1%": "TPR at 1 % FPR", "tpr@0.1%": "TPR at 0.1 %", POOLED: "TPR at 0.1 %, one threshold"}
"""Key of a number -> what the table calls it; files hold balanced accuracy too."""
HEADER = """\
| model | attack | number | measured | by chance | above chance, target by target |
|---|---|---|---|---|---|"""

Inside = npt.NDArray[np.bool_]
Answers = dict[str, list[Judged]]
"""Attack -> one list of scores a target."""
Numbers = dict[str, dict[str, list[float]]]
"""Attack -> number -> one value a target (``POOLED``: one)."""


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


def judged_classifiers(sure: Confidences, inside: Inside, groups: Labels) -> Answers:
    """``sure`` (m, queries, n) of m models in draws of DRAW, ``inside`` (m, n). Guarantee: where ``sure`` does not
    depend on ``inside``, scores of members and strangers have one distribution."""
    answers: Answers = {name: [] for name, attack in ATTACKS.items() if attack.of == "classifier"}
    for k in range(len(sure)):
        others = np.arange(len(sure)) // DRAW != k // DRAW
        held = Held(target=sure[k], shadows=sure[others], inside=inside[others])
        for name, parts in answers.items():
            parts.append((ATTACKS[name].score(held), inside[k], groups))
    return answers


def classifiers_of(data: Dataset, found: list[dict[str, Any]]) -> tuple[Confidences, Inside]:
    sure = np.array([model["confidence"] for model in found], np.float64)
    return sure, np.array([np.isin(np.arange(sure.shape[2]), model["inside"]) for model in found])


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


def judged_generators(data: Dataset, found: list[dict[str, Any]]) -> Answers:
    names = [name for name, attack in ATTACKS.items() if attack.of == "generator"]
    asked = [(np.array(one["member"]), data.groups[np.array(one["asked"])]) for one in found]
    return {
        name: [(np.array(one["scores"][name]), *truth) for one, truth in zip(found, asked, strict=True)]
        for name in names
    }


def unmoved(answers: Answers, rng: np.random.Generator) -> Answers:
    """Scores of generators' attacks without signal: noise, for the same members and strangers."""
    return {name: [(rng.standard_normal(len(part[0])), *part[1:]) for part in parts] for name, parts in answers.items()}


def numbers(answers: Answers) -> Numbers:
    return {attack: summary(parts) for attack, parts in answers.items()}


def by_chance(make: Callable[[np.random.Generator], Answers], repeats: int, seed: int) -> list[Numbers]:
    """What the attacks have without signal, once a repeat."""
    return [numbers(make(stream(seed, "chance", repeat))) for repeat in range(repeats)]


def held_against(found: Numbers, chance: list[Numbers]) -> dict[str, dict[str, Any]]:
    """Attack -> number -> each target's value and its mean by chance, and the means over targets by chance of each
    repeat, of which 95 % lie between ``low`` and ``high``."""
    rows: dict[str, dict[str, Any]] = {}
    for attack, values in found.items():
        rows[attack] = {}
        for key, each in values.items():
            repeats = np.array([one[attack][key] for one in chance])
            low, high = np.quantile(repeats.mean(axis=1), (0.025, 0.975))
            told = {"values": each, "chance": repeats.mean(axis=0).tolist(), "low": float(low), "high": float(high)}
            rows[attack][key] = told
    return rows


def table(name: str, rows: dict[str, dict[str, Any]]) -> list[str]:
    """A line an attack and number of ROWS: the mean over targets, what it is by chance, and the difference with its
    interval over targets."""
    lines = []
    for attack, found in rows.items():
        for key, called in ROWS.items():
            row = found[key]
            if not np.isfinite(row["values"]).all():
                lines.append(f"| {name} | {attack} | {called} | out of reach: too few strangers | | |")
                continue
            digits = 3 if key == "auc" else 4
            over = paired_difference(row["values"], row["chance"])
            ends = "" if math.isnan(over.low) else f" ({over.low:+.{digits}f} to {over.high:+.{digits}f})"
            mean, chance = (f"{np.mean(row[of]):.{digits}f}" for of in ("values", "chance"))
            chance += f" ({row['low']:.{digits}f} to {row['high']:.{digits}f})"
            lines.append(f"| {name} | {attack} | {called} | {mean} | {chance} | {over.mean:+.{digits}f}{ends} |")
    return lines


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
    parser.add_argument("--repeats", type=int, default=100, help="simulations without signal, at least 1")
    parser.add_argument("--out", type=Path, required=True, help="folder of one JSON a model")
    parser.add_argument("--json", type=Path, help="file for every number of the table, target by target")
    options = parser.parse_intermixed_args()
    if not options.generators and options.models < LEAST:
        parser.error(f"--models {options.models}: LiRA takes two shadows on each side of an image, so at least {LEAST}")
    if options.repeats < 1:
        parser.error(f"--repeats {options.repeats}: a number without what it is by chance says nothing; take 1 or more")
    options.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    flat = {"data.source": options.source, "data.size": options.size, **parse_settings(options.settings)}
    data = load(RunConfig.from_flat(flat).data)
    images = queries(to_images(data.pixels))
    lines = [HEADER]
    results: dict[str, Any] = {}
    for name in options.regimes.split(","):
        make = partial(generator, data, name) if options.generators else partial(classifier, data, images, name)
        found = [kept(options.out / f"{name}-{k}.json", partial(make, k, options.seed)) for k in range(options.models)]
        answers, null = judged_of(data, found, generators=options.generators)
        rows = held_against(numbers(answers), by_chance(null, options.repeats, options.seed))
        told = {key: [one[key] for one in found] for key in ACCURACIES if key in found[0]}
        results[name] = {"attacks": rows, "repeats": options.repeats, "sides": sides(answers), **told}
        lines += table(name, rows)
        print("\n".join(lines), flush=True)
        if options.json:
            options.json.parent.mkdir(parents=True, exist_ok=True)
            write_whole(options.json, json.dumps(results) + "\n")


def judged_of(
    data: Dataset, found: list[dict[str, Any]], *, generators: bool
) -> tuple[Answers, Callable[[np.random.Generator], Answers]]:
    """The attacks' answers, and what makes them without signal."""
    if generators:
        answers = judged_generators(data, found)
        return answers, partial(unmoved, answers)
    sure, inside = classifiers_of(data, found)

    def null(rng: np.random.Generator) -> Answers:
        return judged_classifiers(without_signal(inside, sure.shape[1], rng), inside, data.groups)

    return judged_classifiers(sure, inside, data.groups), null


def sides(answers: Answers) -> list[list[int]]:
    """Members and strangers of each target."""
    first = next(iter(answers.values()))
    return [[int(member.sum()), int((~member).sum())] for _, member, _ in first]


if __name__ == "__main__":
    main()
