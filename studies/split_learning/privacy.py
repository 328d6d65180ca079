"""Does PGSL hide images? ``python -m studies.split_learning.privacy SOURCE [key=value ...] --out FOLDER``.

The client of ``fedsec.models.split_learning.steps`` (``studies.split_learning.client``) trains on half of the training
images, by the arms of ``ARMS``; the attackers' images are of the other half, less the client's patients. ``--images``
of its images are then sent once, with running statistics, and every attack reads the same activations:

- white-box: the client half's weights and space-to-depth; of PGSL's map nothing.
- adaptive, adaptive-joint: and how PGSL's map is made and sent. Where nothing is folded they are white-box.
- decoder: is a client of the same half; has the control, and makes its map with a surrogate of its own, trained on its
  own images, since surrogates never leave their clients.
- decoder-oracle: the victim itself answers its queries, with the victim's surrogate (arms of ``--oracle``).

Each arm and seed is one JSON file, and what is there is not run again. The truth is used for scores alone.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fedsec.config import RunConfig
from fedsec.config.files import parse_settings
from fedsec.datasets import load
from fedsec.errors import ConfigError
from fedsec.images import grid, save_png, to_pixels
from fedsec.log.files import read_text, write_whole
from fedsec.metrics.iip import iip, pixels
from fedsec.metrics.intervals import mean_interval
from fedsec.metrics.measures import HEADINGS, SSIM, ssim_of
from fedsec.metrics.similarity import psnr, rdlv, ssim
from fedsec.metrics.tradeoff import Point, against_noise, strongest
from fedsec.metrics.utility import classified
from fedsec.models.split_learning.halves import SplitSpec
from fedsec.probes.split_learning.attacks import ATTACKS
from fedsec.probes.split_learning.view import READINGS, Means
from fedsec.seeds import stream
from fedsec.types import Dataset, Images
from studies.split_learning.attacks import ENLARGED, tensors
from studies.split_learning.client import ARMS, SplitParty

Cell = dict[str, Any]
FOLDED = ("white-box", "adaptive", "adaptive-joint", "decoder")
PLAIN = ("white-box", "decoder")


class Case:
    """One trained victim, its images and what the attackers bring."""

    def __init__(self, data: Dataset, arm: str, seed: int, options: argparse.Namespace) -> None:
        order = stream(seed, "pgsl-privacy").permutation(data.train)
        own, others = np.split(order, [len(order) // 2])
        self.public = tensors(data, others[~np.isin(data.groups[others], data.groups[own])])
        self.seed, self.options, self.oracle = seed, options, arm in options.oracle
        self.everything = tensors(data, order)
        images, labels = tensors(data, own)
        self.spec = SplitSpec(data.channels, len(data.class_names), data.size, ARMS[arm].pgsl)
        self.victim = SplitParty(images, labels, self.spec, ARMS[arm].control, seed)
        self.images, self.labels = images[: options.images], labels[: options.images]
        self.test = tensors(data, data.test)
        self.prior = self.test[0].mean(dim=0, keepdim=True)
        self.victim.train(options.steps)
        self.view = self.victim.exchange(self.images, self.labels, train=options.train_mode)

    def attacks(self) -> dict[str, Images]:
        """Images by each attack, in the order sent; 'prior' is who saw nothing."""
        mode, options = self.options.train_mode, self.options
        folded = self.spec.pgsl is not None and self.spec.pgsl.fold
        outsider = self.victim.outsider(*self.public, options.steps)
        names = FOLDED if folded else PLAIN
        if self.oracle:
            names = (*names, "decoder-oracle")
        reading = READINGS["folded" if folded else "image"]
        found = {"prior": self.prior.expand_as(self.images).numpy().copy()}
        for name in names:
            asked = self.victim.asked(None if name == "decoder-oracle" else outsider, train=mode)
            iterations = options.decoder if name.startswith("decoder") else options.iterations
            means = Means(self.prior, self.public[0], asked, None, reading, iterations, self.seed)
            found[name] = ATTACKS[name.removesuffix("-oracle")](self.view, means).images
        return found

    def scored(self, images: Images) -> Cell:
        truth = self.images.numpy()
        leak = rdlv(truth, images, self.prior.numpy(), pairing="matched")
        gallery, labels = (part.numpy() for part in self.everything)
        search = iip(images, gallery, labels, np.arange(len(truth)), pixels)
        each = {SSIM: ssim(truth, images), "psnr": psnr(truth, images), "rdlv": leak.values}
        row: Cell = {name: [round(float(v), 4) for v in values] for name, values in each.items()}
        return {**row, "iip": search.value, "iip-chance": search.chance}

    def accuracy(self) -> dict[str, float]:
        images, labels = self.test
        shares: Tensor = self.victim.shares(images)
        return {score.name: score.value for score in classified(labels.numpy(), shares.numpy())}


def cell(data: Dataset, arm: str, seed: int, options: argparse.Namespace) -> Cell:
    """One victim, scored and attacked; with ``--png`` a strip: the truth above each attack's images."""
    started = time.process_time()
    case = Case(data, arm, seed, options)
    found = case.attacks()
    if options.png:
        options.png.mkdir(parents=True, exist_ok=True)
        rows = [case.images.numpy(), *found.values()]
        sheet = grid(to_pixels(np.concatenate([row[: options.shown] for row in rows])), options.shown)
        save_png(sheet.repeat(ENLARGED, axis=1).repeat(ENLARGED, axis=2), options.png / f"{arm}-{seed}.png")
    attacks = {name: case.scored(images) for name, images in found.items()}
    seconds = round(time.process_time() - started, 1)
    return {"utility": case.accuracy(), "attacks": attacks, "test": len(case.test[1]), "seconds": seconds}


def run(options: argparse.Namespace) -> dict[str, dict[int, Cell]]:
    """Every cell that ``--out`` lacks, then all. Raises ConfigError on a file of other settings."""
    flat = {"data.source": options.source, "data.size": options.size, **parse_settings(options.settings)}
    data = load(RunConfig.from_flat(flat).data)
    keys = ("steps", "images", "iterations", "decoder", "train_mode")
    made_by = {**{key: getattr(options, key) for key in keys}, "data": data.digest}
    cells: dict[str, dict[int, Cell]] = {arm: {} for arm in options.arms}
    for seed, arm in itertools.product(options.seeds, options.arms):
        file = options.out / f"{arm}-{seed}.json"
        if options.read and not file.is_file():
            continue
        if not file.is_file():
            options.out.mkdir(parents=True, exist_ok=True)
            write_whole(file, json.dumps({**cell(data, arm, seed, options), "made by": made_by}) + "\n")
        found = json.loads(file.read_text(encoding="utf-8"))
        if found["made by"] != made_by:
            raise ConfigError(f"{file} was made by {found['made by']}, asked is {made_by}; take another --out")
        cells[arm][seed] = found
        key = held({arm: {seed: found}})
        near = {name: round(float(np.mean(row[key])), 2) for name, row in found["attacks"].items()}
        print(f"{arm} seed {seed}: accuracy {found['utility']['accuracy']:.3f}, {HEADINGS[key]} {near}", flush=True)
    return {arm: rows for arm, rows in cells.items() if rows}


def held(cells: dict[str, dict[int, Cell]]) -> str:
    """The SSIM that all cells hold; the old one where they are of before. Raises ConfigError where they differ."""
    found = {ssim_of(row) for rows in cells.values() for cell in rows.values() for row in cell["attacks"].values()}
    if len(found) > 1:
        raise ConfigError("--out holds cells of two measures of SSIM, which are not comparable: take another --out")
    return found.pop() if found else SSIM


def point(arm: str, rows: dict[int, Cell], measure: str) -> Point:
    """What the verdict reads of an arm: accuracies, and by each attack the mean leakage of each seed's images; images
    that the prior is not like at all have no RDLV and are left out of its mean."""
    seeds = sorted(rows)
    names = [name for name in rows[seeds[0]]["attacks"] if name != "prior"]
    leaks = {name: np.array([[np.nanmean(rows[s]["attacks"][name][measure])] for s in seeds]) for name in names}
    return Point(arm, np.array([rows[seed]["utility"]["accuracy"] for seed in seeds]), rows[seeds[0]]["test"], leaks)


def table(cells: dict[str, dict[int, Cell]]) -> str:
    """One line an arm and attack: means over images and seeds, SSIM with its interval over seeds; * = most by SSIM.
    Images that the prior is not like at all have no RDLV and are left out of its mean."""
    key = held(cells)
    lines = [
        f"| arm | seeds | accuracy | AUC | attack | {HEADINGS['iip']} | {HEADINGS[key]} | RDLV | PSNR, dB |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for arm, rows in cells.items():
        best = strongest(point(arm, rows, key))
        utility = [np.mean([row["utility"][key] for row in rows.values()]) for key in ("accuracy", "auc")]
        for name in next(iter(rows.values()))["attacks"]:
            found = [row["attacks"][name] for row in rows.values()]
            near = mean_interval([float(np.mean(row[key])) for row in found])
            ends = f" ({near.low:.2f} to {near.high:.2f})" if len(found) > 1 else ""
            level, named = (np.mean([np.mean(row[name]) for row in found]) for name in ("psnr", "iip"))
            leaks = np.concatenate([row["rdlv"] for row in found])
            leak = leaks[~np.isnan(leaks)].mean() if not np.isnan(leaks).all() else np.nan
            mark = "*" if name == best else ""
            left = f"| {arm} | {len(rows)} | {utility[0]:.3f} | {utility[1]:.3f} | {name}{mark}"
            lines.append(f"{left} | {named:.2f} | {near.mean:.2f}{ends} | {leak:.2f} | {level:.1f} |")
    return "\n".join(lines)


def verdicts(cells: dict[str, dict[int, Cell]], measure: str) -> list[str]:
    """Of every arm that is no point of the noise curve, over the seeds that all arms of the comparison have."""
    curve = [arm for arm in cells if ARMS[arm].noise is not None]
    curve.sort(key=lambda arm: ARMS[arm].noise or 0.0)
    lines = []
    for arm in cells:
        shared = sorted(set.intersection(*(set(cells[name]) for name in (arm, *curve))))
        if ARMS[arm].noise is None and len(curve) > 1 and shared:
            mine, *noise = (point(n, {s: cells[n][s] for s in shared}, measure) for n in (arm, *curve))
            lines.append(against_noise(mine, noise, measure=HEADINGS[measure]).words)
    return lines


def federated(file: Path) -> list[str]:
    """Verdicts of a run over Flower, from its lines of events 'leak' and 'score': the last audit of each seed against
    noise at the arm's own accuracy. Arms of noise are 'split' and 'noise-LEVEL'."""
    events = [json.loads(line) for line in read_text(file).splitlines()]
    scores = {(e["arm"], e["seed"], e["name"]): e for e in events if e["event"] == "score"}
    drawn = [e for e in events if e["event"] == "leak" and e["attack"] != "prior"]
    rows: dict[str, dict[int, dict[str, Any]]] = {}
    for event in drawn:
        rows.setdefault(event["arm"], {}).setdefault(event["seed"], {})[event["attack"]] = event["values"]
    levels = {"split": 0.0} | {arm: float(arm.removeprefix("noise-")) for arm in rows if arm.startswith("noise-")}
    key = ssim_of({name for event in drawn for name in event["values"]})

    def of(arm: str, measure: str) -> Point:
        found = [scores.get((arm, s, "accuracy-late-on")) or scores[arm, s, "accuracy-plain-off"] for s in rows[arm]]
        names = next(iter(rows[arm].values()))
        leaks = {name: np.array([[seed[name][measure]] for seed in rows[arm].values()]) for name in names}
        return Point(arm, np.array([score["value"] for score in found]), found[0]["n"], leaks)

    curve = sorted(levels, key=lambda arm: levels[arm])
    return [
        against_noise(of(arm, measure), [of(level, measure) for level in curve], measure=HEADINGS[measure]).words
        for measure in ("iip-pixels", key, "rdlv", "psnr")
        for arm in rows
        if arm not in levels
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", help="'phantom', or a folder, CSV or .npz of real images")
    parser.add_argument("settings", nargs="*", help="data.modality=chest and other keys of [data]")
    parser.add_argument("--arms", default=",".join(name for name in ARMS if name != "peak"), help=", ".join(ARMS))
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--steps", type=int, default=120, help="mini-batches of 32")
    parser.add_argument("--images", type=int, default=16, help="of the client's, under attack")
    parser.add_argument("--iterations", type=int, default=300, help="of white-box and adaptive; 0: their own 1,000")
    parser.add_argument("--decoder", type=int, default=400, help="steps of the decoder's training")
    parser.add_argument("--train-mode", action="store_true", help="the attacked batch is normalised by itself")
    parser.add_argument("--oracle", default="pgsl", help="arms whose client answers a decoder's queries")
    parser.add_argument("--read", action="store_true", help="run nothing: the tables of what --out has")
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--shown", type=int, default=8, help="images in a strip")
    parser.add_argument("--out", type=Path, default=Path("runs/pgsl-privacy"), help="one JSON file a cell")
    parser.add_argument("--png", type=Path, help="folder for a strip a cell")
    parser.add_argument("--events", type=Path, help="run nothing: the verdicts of a run over Flower, from its events")
    options = parser.parse_intermixed_args()
    options.arms, options.seeds = options.arms.split(","), [int(word) for word in options.seeds.split(",")]
    options.oracle = options.oracle.split(",")
    torch.set_num_threads(1)
    if options.events:
        print("\n".join(federated(options.events)))
        return
    cells = run(options)
    print("\n" + table(cells) + "\n")
    print("\n".join(line for measure in ("iip", held(cells), "rdlv", "psnr") for line in verdicts(cells, measure)))


if __name__ == "__main__":
    main()
