"""Images out of one client's update, attack by attack: ``python -m studies.leakage.inversion SOURCE [key=value ...]``.

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
from itertools import product
from pathlib import Path

import numpy as np
import torch

from fedsec.errors import ProbeError
from fedsec.images import grid, save_png, to_pixels
from fedsec.log.files import write_whole
from fedsec.metrics.gallery import Gallery
from fedsec.metrics.intervals import mean_interval
from fedsec.metrics.lpips import PerceptualWeights, load_perceptual
from fedsec.metrics.measures import HEADINGS, SSIM
from fedsec.metrics.similarity import leak_scores, placed
from fedsec.models.networks import new_network
from fedsec.models.state import load_network
from fedsec.privacy.protection import PROTECTIONS
from fedsec.probes.audit import ATTACKS, Means
from fedsec.probes.released import ITERATIONS, released_together
from fedsec.types import Images, Rows
from studies.leakage.sites import Site, chosen_data, prepare, protected, shared_out, site_parser

TOGETHER = "released"
"""The attack that ``--together`` runs on all sites at once."""
ENLARGED = 3
"""Sides of a pixel in the strips."""


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
