"""Images out of one client's update, attack by attack: ``python -m experiments.inversion SOURCE [key=value ...]``.

A global ResNet-18 is trained on the images of the other sites; then one site after the other, each with ``--images`` of
its own, trains one round by the public recipe, and every attack is given what the server then holds. The truth is used
for scores alone: PSNR, SSIM and RDLV with reconstructions matched to images, held against the public prior (the mean of
the test images), with 95 % intervals over sites. Finished pairs of site and attack in ``--json`` are not run again.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from clients.classifier import ClassifierClient
from fedsec.config import RunConfig
from fedsec.datasets import load
from fedsec.experiment import parse_settings
from fedsec.images import grid, save_png, to_images, to_pixels
from fedsec.metrics.intervals import mean_interval
from fedsec.metrics.similarity import leak_scores, placed
from fedsec.models.networks import NetworkSpec, new_network
from fedsec.models.training import network_arrays
from fedsec.privacy.percentile import percentile_noise
from fedsec.probes.audit import ATTACKS
from fedsec.probes.view import Recipe, ServerView
from fedsec.reports.results import write_whole
from fedsec.seeds import stream
from fedsec.types import Dataset, Images, Rows

WARM_BATCH = 16
ENLARGED = 3
"""Sides of a pixel in the strips."""


@dataclass(frozen=True)
class Site:
    """One client's round: what its server holds, and the truth for the scores."""

    view: ServerView
    truth: Images


def sites(data: Dataset, options: argparse.Namespace) -> list[Site]:
    """A global model after ``--warm`` steps on other images, and one round of each site on it."""
    order = stream(options.seed, "sites").permutation(data.train)
    own, others = np.split(order, [options.sites * options.images])
    steps = options.images // options.batch
    recipe = Recipe(norm=options.norm, channels=data.channels, classes=len(data.class_names), size=data.size)
    spec = NetworkSpec(recipe.network, recipe.norm, recipe.channels, recipe.classes)
    model = list(network_arrays(new_network(spec, seed=options.seed)).values())
    if options.warm:
        warm = replace(recipe, steps=options.warm, batch=WARM_BATCH)
        model, _, told = ClassifierClient(warm, data.rows(others), partition=0, seed=options.seed).fit(
            model, {"round": 1}
        )
        print(f"global model after {options.warm} steps: loss {float(told['loss']):.3f}", flush=True)
    found = []
    for place in range(options.sites):
        rows: Rows = data.rows(own[place * options.images : (place + 1) * options.images])
        mine = replace(recipe, steps=steps, batch=options.batch)
        client = ClassifierClient(mine, rows, partition=place + 1, seed=options.seed)
        client.fit(model, {"round": 2})
        view = client.captured
        assert view is not None
        rng = stream(options.seed, "client", place + 1, "noise")
        view = replace(view, after=percentile_noise(view.before, view.after, options.noise, rng))
        found.append(Site(view, to_images(rows.pixels)))
    return found


def attack(name: str, site: Site, prior: Images, options: argparse.Namespace) -> tuple[Images, dict[str, float]]:
    """Reconstructions, and what the attack says of itself."""
    if name == "prior":
        return np.broadcast_to(prior, site.truth.shape).copy(), {}
    return ATTACKS[name](site.view, prior, options.seed, options.iterations.get(name, 0))


def table(results: dict[str, dict[str, float]], names: list[str]) -> str:
    lines = [
        "| attack | sites | PSNR, dB | SSIM | RDLV | highest RDLV | seconds a site |",
        "|---|---|---|---|---|---|---|",
    ]
    for name in names:
        rows = [row for key, row in results.items() if key.split(" ")[0] == name]
        if rows:
            cells = [_spread([row[key] for row in rows]) for key in ("psnr", "ssim", "rdlv")]
            highest, seconds = max(row["rdlv-max"] for row in rows), np.mean([row["seconds"] for row in rows])
            lines.append(f"| {name} | {len(rows)} | {' | '.join(cells)} | {highest:.2f} | {seconds:.0f} |")
    return "\n".join(lines)


def _spread(values: list[float]) -> str:
    found = mean_interval(values)
    return f"{found.mean:.2f} ({found.low:.2f} to {found.high:.2f})"


def run(options: argparse.Namespace, say: Callable[[str], None]) -> dict[str, dict[str, float]]:
    flat = {"data.source": options.source, "data.size": options.size, **parse_settings(options.settings)}
    data = load(RunConfig.from_flat(flat).data)
    prior = to_images(data.rows(data.test).pixels).mean(axis=0, keepdims=True)
    results = json.loads(options.json.read_text()) if options.json and options.json.is_file() else {}
    for place, site in enumerate(sites(data, options)):
        strips = [site.truth]
        for name in options.attacks:
            key = f"{name} {place}"
            if key not in results or options.png:
                started = time.monotonic()
                images, told = attack(name, site, prior, options)
                seconds = time.monotonic() - started
                results[key] = {**leak_scores(site.truth, images, prior), **told, "seconds": seconds}
                strips.append(placed(site.truth, images))
                if options.json:
                    write_whole(options.json, json.dumps(results, indent=1) + "\n")
            say(f"site {place} {name}: " + ", ".join(f"{k} {v:.3g}" for k, v in results[key].items()))
        if options.png:
            columns = len(site.truth) if len(site.truth) > 1 else len(strips)
            sheet = grid(to_pixels(np.concatenate(strips)), columns)
            save_png(sheet.repeat(ENLARGED, axis=1).repeat(ENLARGED, axis=2), options.png / f"site-{place}.png")
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", help="'phantom', or a folder, CSV or .npz of real images")
    parser.add_argument("settings", nargs="*", help="data.modality=chest and other keys of [data]")
    parser.add_argument("--attacks", default="prior,released,bn-only,bn-update,row-space", help="of PRESETS, or these")
    parser.add_argument("--sites", type=int, default=8)
    parser.add_argument("--images", type=int, default=1, help="a site's training images")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--norm", default="batch", choices=["batch", "frozen", "group", "layer", "none"])
    parser.add_argument("--warm", type=int, default=60, help="steps of the global model before the round")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--iterations", default="", help="e.g. 'released=4000,bn-update=2000'; the presets' otherwise")
    parser.add_argument("--noise", type=float, default=0.0, help="sigma0: noise over the update's 95th percentile")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--png", type=Path, help="folder for a strip a site: the truth, then each attack")
    options = parser.parse_intermixed_args()
    options.attacks = options.attacks.split(",")
    pairs = [pair.split("=") for pair in options.iterations.split(",") if pair]
    options.iterations = {name: int(number) for name, number in pairs}
    torch.set_num_threads(1)
    print(table(run(options, lambda line: print(line, flush=True)), options.attacks))


if __name__ == "__main__":
    main()
