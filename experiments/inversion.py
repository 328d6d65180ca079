"""Images out of one client's update, attack by attack: ``python -m experiments.inversion SOURCE [key=value ...]``.

A global ResNet-18 is trained on the images of the other sites; then one site after the other, each with ``--images`` of
its own, trains one round by the public recipe, and every attack is given what the server then holds. The truth is used
for scores alone: how many are picked out among all images of no site (IIP), then SSIM, RDLV and PSNR with
reconstructions matched to images, held against the public prior (the mean of the test images). Intervals (95 %) are
over the sites of one global model: they say nothing of another seed's. In ``--json`` also LPIPS where its weights are
given. Pairs of site and attack that are there are not run again.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

import numpy as np
import torch

from clients.classifier import ClassifierClient
from fedsec.config import RunConfig
from fedsec.datasets import load
from fedsec.experiment import parse_settings
from fedsec.images import grid, save_png, to_images, to_pixels
from fedsec.metrics.gallery import Gallery
from fedsec.metrics.intervals import mean_interval
from fedsec.metrics.lpips import PerceptualWeights, load_perceptual
from fedsec.metrics.measures import HEADINGS, SSIM
from fedsec.metrics.similarity import leak_scores, placed
from fedsec.models.networks import NETWORKS, NORMS, new_network
from fedsec.models.training import load_network, network_arrays
from fedsec.privacy.protection import PROTECTIONS, parsed
from fedsec.probes.audit import ATTACKS, Means
from fedsec.probes.batchnorm import ProbeError
from fedsec.probes.released import ITERATIONS, released_together
from fedsec.probes.view import Recipe, ServerView
from fedsec.reports.results import write_whole
from fedsec.seeds import stream
from fedsec.types import Dataset, Images, Indices, Rows

WARM_BATCH = 16
TOGETHER = "released"
"""The attack that ``--together`` runs on all sites at once."""
ENLARGED = 3
"""Sides of a pixel in the strips."""


@dataclass(frozen=True)
class Site:
    """One client's round: what its server holds, and the truth for the scores: ``rows``, its training images."""

    view: ServerView
    rows: Rows

    @property
    def truth(self) -> Images:
        return to_images(self.rows.pixels)


def shared_out(data: Dataset, options: argparse.Namespace) -> tuple[Indices, Indices]:
    """The images of all sites, one site's after another's, and the others."""
    own, others = np.split(stream(options.seed, "sites").permutation(data.train), [options.sites * options.images])
    return own, others


def sites(data: Dataset, options: argparse.Namespace) -> list[Site]:
    """A global model after ``--warm`` steps on other images, and one round of each site on it."""
    own, others = shared_out(data, options)
    steps = options.images // options.batch
    recipe = Recipe(
        options.network, options.norm, channels=data.channels, classes=len(data.class_names), size=data.size
    )
    model = list(network_arrays(new_network(recipe.spec, seed=options.seed)).values())
    if options.warm:
        warm = replace(recipe, steps=options.warm, batch=WARM_BATCH)
        site = ClassifierClient(warm, data.rows(others), partition=0, seed=options.seed, device=options.device)
        model, _, told = site.fit(model, {"round": 1})
        print(f"global model after {options.warm} steps: loss {float(told['loss']):.3f}", flush=True)
    found = []
    for place in range(options.sites):
        rows: Rows = data.rows(own[place * options.images : (place + 1) * options.images])
        mine = replace(recipe, steps=steps, batch=options.batch)
        client = ClassifierClient(mine, rows, partition=place + 1, seed=options.seed, device=options.device)
        client.fit(model, {"round": 2})
        view = client.captured
        assert view is not None
        found.append(protected(Site(view, rows), f"noise={options.noise}", place, options.seed))
    return found


def protected(site: Site, protections: str, place: int, seed: int) -> Site:
    """The site, had it done ``protections`` to its update before it left; each draws from an address of its own."""
    view = site.view
    for step in parsed(protections):
        rng = stream(seed, "client", place + 1, step.name)
        view = replace(view, after=step(view.before, view.after, rng))
    return replace(site, view=view)


def attack(
    name: str, site: Site, prior: Images, public: Rows, options: argparse.Namespace
) -> tuple[Images, dict[str, float]]:
    """Reconstructions, and what the attack says of itself."""
    if name == "prior":
        return np.broadcast_to(prior, site.truth.shape).copy(), {}
    iterations, device = options.iterations.get(name, 0), options.device
    means = Means(prior, public, options.seed, iterations, device, options.chunk)
    return ATTACKS[name](site.view, means)


def together(
    found: Sequence[Site], prior: Images, options: argparse.Namespace
) -> Iterator[tuple[Images, dict[str, float]]]:
    """The released attack on every site at once; the seconds of all are shared out."""
    if not found:
        return
    views, iterations = [site.view for site in found], options.iterations.get(TOGETHER, ITERATIONS)
    started = time.monotonic()

    def say(iteration: int) -> None:
        if iteration in (10, 100) or iteration % 1000 == 0:
            print(f"{TOGETHER}: {iteration} of {iterations}, {time.monotonic() - started:.0f} s", flush=True)

    everything = released_together(
        views, prior=prior, seed=options.seed, iterations=iterations, device=options.device, say=say
    )
    for images in everything:
        yield images, {"seconds": (time.monotonic() - started) / len(found)}


def _kept(options: argparse.Namespace, place: int, line: str) -> Path | None:
    return options.png / f"site-{place}-{line}.npy" if options.png else None


def table(results: dict[str, dict[str, float]], names: list[str]) -> str:
    lines = [
        f"| attack | sites | identified | {HEADINGS[SSIM]} | RDLV | highest RDLV | PSNR, dB | seconds a site |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name in names:
        rows = [row for key, row in results.items() if key.rsplit(" ", 1)[0] == name]
        if rows:
            found = {
                key: _spread([row.get(key, math.nan) for row in rows]) for key in ("iip-pixels", SSIM, "rdlv", "psnr")
            }
            found["rdlv"] += f" | {max(row['rdlv-max'] for row in rows):.2f}"
            seconds = np.mean([row["seconds"] for row in rows])
            lines.append(f"| {name} | {len(rows)} | {' | '.join(found.values())} | {seconds:.0f} |")
        else:
            lines.append(f"| {name} | 0 | not attempted, no score | | | | | |")
    return "\n".join(lines)


def _line(attack: str, protections: str) -> str:
    return f"{attack} {protections}".strip()


def _spread(values: list[float]) -> str:
    found = mean_interval(values)
    if math.isnan(found.mean):
        return "not measured"
    return f"{found.mean:.2f} ({found.low:.2f} to {found.high:.2f})"


def chosen_data(options: argparse.Namespace) -> Dataset:
    flat = {
        "data.source": options.source,
        "data.size": options.size,
        "train.task": "classifier",
        **parse_settings(options.settings),
    }
    return load(RunConfig.from_flat(flat).data)


def prepare(options: argparse.Namespace) -> tuple[Rows, Images, list[Site]]:
    """The public test rows, the mean (1, c, s, s) of their images as prior, and the sites."""
    data = chosen_data(options)
    public = data.rows(data.test)
    return public, to_images(public.pixels).mean(axis=0, keepdims=True), sites(data, options)


def scorer(options: argparse.Namespace, prior: Images) -> Callable[[Site, Images], dict[str, float]]:
    """Scores of one site's reconstructions: ``leak_scores``; which of a crowd each points at, where there is one (all
    images of no site); LPIPS where ``--lpips`` names its weights."""
    data = chosen_data(options)
    crowd = Gallery.of(data.rows(np.concatenate([shared_out(data, options)[1], data.test])))
    distance = load_perceptual(options.lpips) if options.lpips else None

    def scores(site: Site, images: Images) -> dict[str, float]:
        network = new_network(site.view.recipe.spec, seed=0)
        load_network(network, site.view.before)
        own = placed(site.truth, images)
        found = {**leak_scores(site.truth, images, prior), **crowd.scores(site.rows, own, network.eval())}
        if distance is not None:
            found[f"lpips-{distance.network}"] = float(distance(site.truth, own).mean())
        return found

    return scores


def run(options: argparse.Namespace, say: Callable[[str], None]) -> dict[str, dict[str, float]]:
    public, prior, found = prepare(options)
    score = scorer(options, prior)
    results = json.loads(options.json.read_text()) if options.json and options.json.is_file() else {}

    def done(key: str, kept: Path | None) -> bool:
        return key in results and (kept is None or kept.is_file())

    def keep(key: str, kept: Path | None, site: Site, images: Images, told: dict[str, float]) -> None:
        results[key] = {**score(site, images), **told}
        if kept:
            kept.parent.mkdir(parents=True, exist_ok=True)
            np.save(kept, images)
        if options.json:
            write_whole(options.json, json.dumps(results, indent=1) + "\n")

    if options.together:
        places = {f"{TOGETHER} {place}": _kept(options, place, TOGETHER) for place in range(len(found))}
        lacking = [place for place, (key, kept) in enumerate(places.items()) if not done(key, kept)]
        for place, (images, told) in zip(lacking, together([found[n] for n in lacking], prior, options), strict=True):
            key = f"{TOGETHER} {place}"
            keep(key, places[key], found[place], images, told)
    for place, site in enumerate(found):
        strips = [site.truth]
        for name, protections in product(options.attacks, options.protect):
            line = _line(name, protections)
            key, kept = f"{line} {place}", _kept(options, place, line)
            if not done(key, kept):
                started = time.monotonic()
                guarded = protected(site, protections, place, options.seed)
                try:
                    images, told = attack(name, guarded, prior, public, options)
                except ProbeError as error:  # it has no score, and is never given the prior's
                    say(f"site {place} {line}: {error}")
                    continue
                keep(key, kept, site, images, {**told, "seconds": time.monotonic() - started})
            if kept:
                strips.append(placed(site.truth, np.load(kept)))
            say(f"site {place} {line}: " + ", ".join(f"{k} {v:.3g}" for k, v in results[key].items()))
        if options.png:
            columns = len(site.truth) if len(site.truth) > 1 else len(strips)
            sheet = grid(to_pixels(np.concatenate(strips)), columns)
            save_png(sheet.repeat(ENLARGED, axis=1).repeat(ENLARGED, axis=2), options.png / f"site-{place}.png")
    return results


def site_parser(description: str | None) -> argparse.ArgumentParser:
    """What decides the sites."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", help="'phantom', or a folder, CSV or .npz of real images")
    parser.add_argument("settings", nargs="*", help="data.modality=chest and other keys of [data]")
    parser.add_argument("--sites", type=int, default=8)
    parser.add_argument("--images", type=int, default=1, help="a site's training images")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--network", default="resnet18", choices=list(NETWORKS))
    parser.add_argument("--norm", default="batch", choices=list(NORMS))
    parser.add_argument("--warm", type=int, default=60, help="steps of the global model before the round")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--noise", type=float, default=0.0, help="sigma0: noise over the update's 95th percentile")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--json", type=Path, help="where finished results are kept; they are not made again")
    return parser


def main() -> None:
    parser = site_parser(__doc__)
    parser.add_argument("--attacks", default="prior,released,bn-only,bn-update,row-space", help="of PRESETS, or these")
    parser.add_argument("--iterations", default="", help="e.g. 'released=4000,bn-update=2000'; the presets' otherwise")
    parser.add_argument(
        "--protect",
        action="append",
        help=f"NAME=STRENGTH,... of {', '.join(PROTECTIONS)}, after --noise; may be given again for more lines",
    )
    parser.add_argument("--chunk", type=int, help="restarts side by side; all, unless memory is short")
    parser.add_argument(
        "--lpips",
        nargs=3,
        metavar=("NETWORK", "BACKBONE", "LINEAR"),
        help="score LPIPS too: alex or vgg, torchvision's file of it, and the linear weights of the package lpips",
    )
    parser.add_argument("--png", type=Path, help="folder for a strip a site (truth, then each attack) and its arrays")
    parser.add_argument(
        "--together", action="store_true", help="'released' on all sites in one vectorised pass, for a GPU"
    )
    options = parser.parse_intermixed_args()
    options.attacks = options.attacks.split(",")
    pairs = [pair.split("=") for pair in options.iterations.split(",") if pair]
    options.iterations = {name: int(number) for name, number in pairs}
    options.protect = options.protect or [""]
    if options.lpips:
        network, *files = options.lpips
        options.lpips = PerceptualWeights(network, *map(Path, files))
    if options.together and (TOGETHER not in options.attacks or options.protect != [""]):
        parser.error(f"--together runs {TOGETHER!r} without --protect: name it in --attacks, leave --protect out")
    if not options.images or options.images % options.batch:
        parser.error(f"--images {options.images}, --batch {options.batch}: a round is whole batches; take a multiple")
    lines = [_line(name, protections) for name, protections in product(options.attacks, options.protect)]
    torch.set_num_threads(1)
    print(table(run(options, lambda line: print(line, flush=True)), lines))


if __name__ == "__main__":
    main()
