"""What a server could read from uploaded generators, several readings on the same uploads:
``python -m studies.detection.evidence SOURCE [--attacks a,b] [--rounds 25] [--json FILE] [key=value ...]``.

Four clients train in a plain loop, the first attacks, all weigh the same. Each round the server draws with every upload
on common latents and takes, for each client, how far it stands from the median client over twenty rounds:

- ``whole``: highest local energy of the persistent deviation of class mean images,
- ``sharp``: what they have more of that is finer than a blur,
- ``odd``: what they have more of that left and right do not share, where clients train on mirror images,
- ``mark``: what is fine and persists at one place, over what changes there,
- ``all``: how many times the median client's, in whichever of these that is most (fed-inspect),
- ``features``: length of the persistent deviation of class mean features of the domain extractor,
- ``spectrum``: the same of mean log amplitudes,
- ``labels``: how much less a classifier of real images finds the label that was asked for,
- ``cross``: how much less the other clients' discriminators take the draws for real (they would have to travel),
- ``drop``: of the reported loss, which FedDetect reads.

Printed: the logarithm (labels, cross, drop: the value) of the attacker's less the highest honest client's, in standard
deviations of honest clients in the clean run of the same command. Above 3 it stands apart.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from clients import index
from fedsec.config import Attack, RunConfig
from fedsec.config.files import parse_settings
from fedsec.datasets import load, partition
from fedsec.defences.evidence import drop
from fedsec.defences.inspection import (
    MARK,
    NOTHING,
    WINDOW,
    class_means,
    marks,
    median_client,
    outstanding,
    parts,
    peak,
    scales,
)
from fedsec.images import to_images
from fedsec.log.files import write_whole
from fedsec.metrics.conditioning import label_judge
from fedsec.metrics.features import Extractor, kept_extractor
from fedsec.metrics.panel import extractor_path
from fedsec.models.gan.learner import GanLearner
from fedsec.models.gan.sampling import sample
from fedsec.seeds import address_seed
from fedsec.types import Arrays, Dataset, Images, Labels, Vector
from fedsec.weights import generator_arrays

COUNT, DRAWN = 4, 256
SPAN = 10
"""Rounds that the printed values and honest deviations are of."""
LOGARITHMIC = ("whole", "sharp", "odd", "mark", "all", "features", "spectrum")
ATTACKS: dict[str, Attack] = {
    "none": Attack(),
    "patch": Attack("patch"),
    "blended": Attack("blended"),
    "frequency": Attack("frequency"),
    "stain": Attack("stain"),
    "label-flip": Attack("label-flip"),
    "noise-images": Attack("noise-images"),
    "weak patch": Attack("patch", fraction=0.25),
}


class Server:
    """The readings of one federation, round by round."""

    def __init__(self, config: RunConfig, data: Dataset, extractor: Extractor) -> None:
        self.config, self.data, self.extractor = config, data, extractor
        self.labels: Labels = np.arange(DRAWN) % len(data.class_names)
        train = data.rows(data.train)
        self.judge = label_judge(extractor(to_images(train.pixels)), train.labels)
        self.seen: dict[str, list[Any]] = {"images": [], "medians": [], "features": [], "spectrum": []}

    def read(
        self, uploads: list[Arrays], critics: list[GanLearner], losses: list[dict[str, float]], seed: int
    ) -> dict[str, Vector]:
        kind = {"channels": self.data.channels, "classes": len(self.data.class_names), "seed": seed}
        drawn = [sample(self.config, generator_arrays(arrays), self.labels, **kind) for arrays in uploads]  # type: ignore[arg-type]
        features = [self.extractor(images) for images in drawn]
        means = class_means(drawn, self.labels)
        self._remember("images", means)
        self._remember("medians", median_client(means))
        self._remember("features", self._apart(features))
        self._remember("spectrum", self._apart([amplitudes(images) for images in drawn]))
        held = [self.judge.predict_log_proba(f)[np.arange(DRAWN), self.labels].mean() for f in features]
        crossed = np.array([[doubt(critic, images, self.labels) for critic in critics] for images in drawn])
        others = (crossed.sum(axis=1) - np.diag(crossed)) / (COUNT - 1)
        looked = parts("all", mirrored=self.config.gan.mirror)
        peaked = tuple(part for part in looked if part != MARK)
        deviations = np.stack(self.seen["images"]) - np.stack(self.seen["medians"])
        marked = marks([deviations[:, client] for client in range(COUNT)])
        own, median = (np.mean(self.seen[name], axis=0) for name in ("images", "medians"))
        peaks = np.stack([peak(own, median, part) for part in peaked], axis=1)
        return {
            **{part: np.log(values) for part, values in zip(peaked, peaks.T, strict=True)},
            "mark": np.log(marked.max(axis=1) + NOTHING),
            "all": np.log(outstanding(np.concatenate([peaks, marked], axis=1), *scales(looked))),
            "features": np.log(np.linalg.norm(np.mean(self.seen["features"], axis=0).reshape(COUNT, -1), axis=1)),
            "spectrum": np.log(np.linalg.norm(np.mean(self.seen["spectrum"], axis=0).reshape(COUNT, -1), axis=1)),
            "labels": float(np.median(held)) - np.array(held),
            "cross": others - np.median(others),
            "drop": np.array([drop(told) for told in losses]),
        }

    def _apart(self, values: list[Vector]) -> Vector:
        means = np.stack([[v[self.labels == k].mean(axis=0) for k in np.unique(self.labels)] for v in values])
        return np.asarray(means - np.median(means, axis=0, keepdims=True))

    def _remember(self, name: str, value: Vector) -> None:
        self.seen[name] = [*self.seen[name], value][-WINDOW:]


def amplitudes(images: Images) -> Vector:
    spectrum = np.fft.rfft2((images.astype(np.float64) + 1) * 127.5)
    return np.asarray(np.log1p(np.abs(spectrum)).reshape(len(images), -1))


@torch.no_grad()
def doubt(critic: GanLearner, images: Images, labels: Labels) -> float:
    """Minus the mean logit that a client's discriminator gives."""
    network = critic.pair.discriminator.train()
    return -float(network(torch.from_numpy(images), torch.from_numpy(labels)).mean())


def federation(
    config: RunConfig, data: Dataset, extractor: Extractor, rounds: int, say: Callable[[str], None]
) -> list[dict[str, list[float]]]:
    parts = partition(data, config.split, seed=config.data.seed)
    kind = {"channels": data.channels, "classes": len(data.class_names), "device": "cpu"}
    server, kept = Server(config, data, extractor), [dict[str, np.ndarray]() for _ in parts]
    model = GanLearner(config, seed=0, **kind).shared()  # type: ignore[arg-type]
    found = []
    for number in range(1, rounds + 1):
        uploads, critics, losses = [], [], []
        for place, part in enumerate(parts):
            client = index.build(
                config, data.rows(part), partition=place, classes=len(data.class_names), seed=0, kept=kept[place]
            )
            sent, _, told = client.fit(list(model.values()), {"round": number, "clients": COUNT})
            kept[place] = client.kept
            uploads.append(dict(zip(model, sent, strict=True)))
            losses.append({key: float(value) for key, value in told.items()})
            critic = GanLearner(config, seed=0, **kind)  # type: ignore[arg-type]
            critic.load({}, kept[place])
            critics.append(critic)
        readings = server.read(uploads, critics, losses, address_seed(0, "evidence", number))
        model = {
            name: np.asarray(np.mean([u[name] for u in uploads], axis=0, dtype=np.float64), np.float32)
            for name in model
        }
        found.append({name: [round(float(v), 4) for v in values] for name, values in readings.items()})
        say(f"  round {number}")
    return found


def table(runs: dict[str, list[dict[str, list[float]]]], at: tuple[int, ...]) -> str:
    """A reading that a kept run was made without is '–'."""
    names = max((list(rounds[0]) for rounds in runs.values()), key=len)
    lines = [f"| attack | round | {' | '.join(names)} |", f"|---|---|{'---|' * len(names)}"]
    for attack, rounds in runs.items():
        for number in (n for n in at if n <= len(rounds) and attack != "none"):
            cells = []
            for name in names:
                if name not in rounds[0] or name not in runs["none"][0]:
                    cells.append("–")
                    continue
                clean = np.array([row[name] for row in runs["none"][max(0, number - SPAN) : number]])
                spread = (clean - np.median(clean, axis=1, keepdims=True)).std()
                window = np.array([row[name] for row in rounds[max(0, number - SPAN) : number]])
                values = window[-1] if name in LOGARITHMIC else window.mean(axis=0)
                cells.append(f"{(values[0] - values[1:].max()) / spread:.1f}")
            lines.append(f"| {attack} | {number} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", help="'phantom', or a folder, CSV or .npz of real images")
    parser.add_argument("settings", nargs="*")
    parser.add_argument("--attacks", default=",".join(name for name in ATTACKS if name != "none"))
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument(
        "--json", type=Path, help="keeps every reading of every round; finished attacks are not run again"
    )
    options = parser.parse_intermixed_args()
    torch.set_num_threads(1)
    base = RunConfig.from_flat(
        {"data.source": options.source, "split.clients": COUNT, **parse_settings(options.settings)}
    )
    data = load(base.data)
    train, classes = data.rows(data.train), len(data.class_names)
    extractor = kept_extractor(extractor_path(base.data, data), train, classes=classes, seed=base.data.seed)
    runs = json.loads(options.json.read_text()) if options.json and options.json.is_file() else {}
    for name in ["none", *options.attacks.split(",")]:
        if name not in runs:
            print(name, flush=True)
            config = replace(base, attack=ATTACKS[name])
            runs[name] = federation(config, data, extractor, options.rounds, lambda line: print(line, flush=True))
            if options.json:
                write_whole(options.json, json.dumps(runs))
    print(table(runs, (10, 15, 20, 25, 40)))


if __name__ == "__main__":
    main()
