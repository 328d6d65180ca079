"""Images out of split learning's exchange: ``python -m studies.split_learning.attacks SOURCE [key=value ...]``.

A small network is cut after ``--depths`` blocks and trained on half of the training images as plain split learning
trains it; with ``--front real-plain``, ``real-pgsl`` ... it is the client half of ``fedsec.models``, trained as there.
The attackers' auxiliary images are of the other half, less the client's own patients. One batch of ``--images`` of the
client's then goes there and back, once with BatchNorm in train mode and once in eval mode, and every attack of
``ATTACKS`` is given what its card says. The truth is used for scores alone: PSNR, SSIM and RDLV against the public
prior (the mean of the test images), PSNR and SSIM in the order sent. Finished rows of ``--json`` are not run again.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fedsec.config import RunConfig
from fedsec.config.files import parse_settings
from fedsec.datasets import load
from fedsec.defences.activations import Control
from fedsec.errors import ConfigError
from fedsec.images import grid, save_png, to_images, to_pixels
from fedsec.log.files import write_whole
from fedsec.metrics.intervals import by_seed
from fedsec.metrics.measures import HEADINGS, OLD_SSIM, SSIM, ssim_of
from fedsec.metrics.similarity import psnr, rdlv, ssim
from fedsec.models.split_learning.halves import SplitSpec
from fedsec.probes.split_learning.attacks import ATTACKS
from fedsec.probes.split_learning.view import READINGS, Means
from fedsec.seeds import stream
from fedsec.types import Dataset, Images, Indices
from studies.split_learning.client import ARMS, SplitParty
from studies.split_learning.victim import FRONTS, Hijacked, Victim

Row = dict[str, float | list[float]]
EACH = {SSIM: f"{SSIM}-each", OLD_SSIM: "ssims"}
"""Where a row holds the SSIM of each image, by its measure."""
ENLARGED = 3
"""Sides of a pixel in the strips."""
REAL = {f"real-{name}": arm.pgsl for name, arm in ARMS.items() if not (arm.control.noise or arm.control.decorrelation)}
"""Fronts of ``fedsec.models.split_learning.halves.ClientHalf``, trained by
``fedsec.models.split_learning.steps``: of one cut, two blocks."""


def tensors(data: Dataset, index: Indices) -> tuple[Tensor, Tensor]:
    rows = data.rows(index)
    return torch.from_numpy(to_images(rows.pixels)), torch.from_numpy(rows.labels.copy())


def victim_of(
    data: Dataset, images: Tensor, labels: Tensor, depth: int, seed: int, options: argparse.Namespace
) -> Victim | SplitParty:
    """The stand-in, or the real client. Raises ConfigError for a cut that the real client has not."""
    control, classes = Control(options.noise, options.no_peek), len(data.class_names)
    if options.front not in REAL:
        return Victim(images, labels, classes, depth, control, options.front, seed)
    if depth != 2:
        raise ConfigError(f"--depths {depth} with --front {options.front}: the real client half has two blocks, take 2")
    return SplitParty(images, labels, SplitSpec(data.channels, classes, data.size, REAL[options.front]), control, seed)


class Case:
    """One victim, its batch and what the attackers bring. Trained at the first question."""

    def __init__(self, data: Dataset, depth: int, seed: int, options: argparse.Namespace) -> None:
        order = stream(seed, "split-attacks").permutation(data.train)
        own, others = np.split(order, [len(order) // 2])
        self.public = others[~np.isin(data.groups[others], data.groups[own])]
        self.data, self.seed, self.options = data, seed, options
        images, labels = tensors(data, own)
        self.victim = victim_of(data, images, labels, depth, seed, options)
        self.images, self.labels = images[: options.images], labels[: options.images]
        test = tensors(data, data.test)
        self.prior = test[0].mean(dim=0, keepdim=True)
        self.victim.train(options.steps)
        self.accuracy = self.victim.accuracy(*test)

    def attacked(self, name: str, mode: str) -> tuple[Images, dict[str, float]]:
        """Reconstructions in the order sent, and what the attack says of itself."""
        if name == "prior":
            return self.prior.expand_as(self.images).numpy().copy(), {}
        train, options = mode == "train", self.options
        view = self.victim.exchange(self.images, self.labels, train=train)
        reading = READINGS["image" if options.front in ("image", "real-plain") else "folded"]
        session = Hijacked(self.victim, self.images, train=train)
        public = tensors(self.data, self.public)[0]
        iterations = options.iterations.get(name, 0)
        means = Means(self.prior, public, self.victim.query(train=train), session, reading, iterations, self.seed)
        found = ATTACKS[name](view, means)
        return found.images, {"loss": found.loss}

    def scored(self, images: Images) -> Row:
        """Means over the batch, and its single ``EACH`` of SSIM; RDLV pairs images and reconstructions one to one."""
        truth, prior = self.images.numpy(), self.prior.numpy()
        leak = rdlv(truth, images, prior, pairing="matched")
        near = ssim(truth, images)
        row: Row = {"psnr": float(psnr(truth, images).mean()), SSIM: float(near.mean()), "rdlv": leak.mean}
        return {**row, "rdlv-max": leak.max, EACH[SSIM]: near.tolist(), "accuracy": self.accuracy}


def run(options: argparse.Namespace) -> dict[str, Row]:
    flat = {"data.source": options.source, "data.size": options.size, **parse_settings(options.settings)}
    data = load(RunConfig.from_flat(flat).data)
    results: dict[str, Row] = json.loads(options.json.read_text()) if options.json and options.json.is_file() else {}
    for seed, depth in itertools.product(options.seeds, options.depths):
        case: Case | None = None
        for mode, name in itertools.product(options.modes, options.attacks):
            key = f"{name} depth={depth} {mode} {options.arm} seed={seed}"
            if key not in results:
                case = case or Case(data, depth, seed, options)
                started = time.monotonic()
                images, told = case.attacked(name, mode)
                results[key] = {**case.scored(images), **told, "seconds": time.monotonic() - started}
                if options.png:
                    sheet = grid(to_pixels(np.concatenate([case.images.numpy(), images])), options.images)
                    save_png(sheet.repeat(ENLARGED, axis=1).repeat(ENLARGED, axis=2), options.png / f"{key}.png")
                if options.json:
                    write_whole(options.json, json.dumps(results, indent=1) + "\n")
            print(
                key + ": " + ", ".join(f"{k} {v:.3g}" for k, v in results[key].items() if k not in EACH.values()),
                flush=True,
            )
    return results


def table(results: dict[str, Row], options: argparse.Namespace) -> str:
    """One line an attack, cut and mode; SSIM with its interval over seeds, whose images share a victim: none of one
    seed."""
    measures = {ssim_of(row) for row in results.values()}
    if len(measures) > 1:
        raise ConfigError("--json holds rows of two measures of SSIM, which are not comparable: take another --json")
    key = measures.pop() if measures else SSIM
    lines = [
        f"| attack | cut | BN | seeds | images | {HEADINGS[key]} | RDLV | highest RDLV | PSNR, dB |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for depth, mode, name in itertools.product(options.depths, options.modes, options.attacks):
        asked = [f"{name} depth={depth} {mode} {options.arm} seed={seed}" for seed in options.seeds]
        rows = [results[one] for one in asked if one in results]
        if rows:
            near = by_seed([row[EACH[key]] for row in rows])  # type: ignore[misc]
            ends = f" ({near.low:.2f} to {near.high:.2f})" if len(rows) > 1 else ""
            shown = sum(len(row[EACH[key]]) for row in rows)  # type: ignore[arg-type,misc]
            level, leak = (np.mean([row[score] for row in rows]) for score in ("psnr", "rdlv"))
            highest = max(row["rdlv-max"] for row in rows)
            cells = [f"{near.mean:.2f}{ends}", f"{leak:.2f}", f"{highest:.2f}", f"{level:.1f}"]
            lines.append(f"| {name} | {depth} | {mode} | {len(rows)} | {shown} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", help="'phantom', or a folder, CSV or .npz of real images")
    parser.add_argument("settings", nargs="*", help="data.modality=chest and other keys of [data]")
    parser.add_argument(
        "--attacks", default="prior,white-box,decoder,unsplit,fsha,dlg,inverting-gradients,client-update"
    )
    parser.add_argument("--depths", default="1,2", help="blocks at the client")
    parser.add_argument("--modes", default="train,eval", help="of BatchNorm while the batch goes there and back")
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--steps", type=int, default=200, help="training steps before the batch")
    parser.add_argument(
        "--front",
        default="image",
        choices=[*FRONTS, *REAL],
        help="what enters the client half, and which half: a stand-in or the real one",
    )
    parser.add_argument("--noise", type=float, default=0.0, help="on activations, over their own standard deviation")
    parser.add_argument("--no-peek", type=float, default=0.0, help="weight of the distance correlation")
    parser.add_argument("--iterations", default="", help="e.g. 'fsha=4000,decoder=3000'; the attacks' own otherwise")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--png", type=Path, help="folder for a strip a row: the truth above the reconstructions")
    options = parser.parse_intermixed_args()
    options.attacks, options.modes = options.attacks.split(","), options.modes.split(",")
    options.depths, options.seeds = (
        [int(word) for word in text.split(",")] for text in (options.depths, options.seeds)
    )
    options.iterations = {k: int(v) for k, v in (pair.split("=") for pair in options.iterations.split(",") if pair)}
    options.arm = f"{options.front} noise={options.noise:g} no-peek={options.no_peek:g}"
    torch.set_num_threads(1)
    print(table(run(options), options))


if __name__ == "__main__":
    main()
