"""What protections leave to attackers that know of them:
``python -m studies.leakage.protected SOURCE [key=value ...]``.

Sites of ``--images`` images each train ``--rounds`` rounds together on a global model that was trained on other
images; what each sends is protected as ``--protect`` says. The server then attacks each site's replies: ``span`` on the
first round and on all of them pooled, and with ``--candidates`` it ranks everybody's images by how well each explains
the first reply. Rows are kept in ``--json`` as they are made; a row that is there is not made again. Identification:
the rank of the site's image among all images of no site that have its label, by pixels at any contrast.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from clients.classifier import ClassifierClient
from fedsec.errors import ProbeError
from fedsec.images import grid, save_png, to_images, to_pixels
from fedsec.log.files import write_whole
from fedsec.metrics.iip import iip, named, pixels
from fedsec.metrics.intervals import by_seed
from fedsec.metrics.measures import HEADINGS, SSIM
from fedsec.metrics.similarity import leak_scores, placed
from fedsec.probes.audit import ATTACKS, Means, pooled
from fedsec.probes.candidates import likeness, rank_of
from fedsec.probes.view import ServerView
from fedsec.types import Arrays, Images, Rows
from fedsec.weights import with_proper_variances
from studies.leakage.sites import Site, chosen_data, prepare, shared_out, site_parser

Row = dict[str, Any]
MEANS = (SSIM, "rdlv")


def rounds(sites: Sequence[Site], protection: str, options: argparse.Namespace, number: int) -> list[list[ServerView]]:
    """(rounds, sites): what the server holds of each reply. The global model moves by the mean of what was sent."""
    recipe = sites[0].view.recipe
    recipe = replace(recipe, steps=recipe.steps * options.passes)
    clients = [
        ClassifierClient(recipe, site.rows, partition=place + 1, seed=options.seed, protect=protection)
        for place, site in enumerate(sites)
    ]
    model: Arrays = dict(sites[0].view.before)
    held = []
    for now in range(number):
        replies = []
        for client in clients:
            client.sends = "weights" if options.weights_alone else "everything"
            names = [n for n in model if not options.weights_alone or ("running" not in n and "num_batches" not in n)]
            client.kept = {n: v for n, v in model.items() if n not in names}
            client.fit([model[name] for name in names], {"round": 2 + now})
            assert client.captured is not None
            replies.append(replace(client.captured, before=dict(model)))
        held.append(replies)
        means = {
            name: np.mean([np.asarray(reply.after[name], np.float64) for reply in replies], axis=0).astype(value.dtype)
            for name, value in model.items()
            if name in replies[0].after
        }
        model = with_proper_variances({**model, **means})
    return held


def identified(images: Images, rows: Rows, crowd: Rows) -> Row:
    """``rank``: mean rank of the site's images, ``first``: share that came first, by the reconstructions matched to
    them, ``among`` all images of their label. ``named``: share of them that are nearest to any reconstruction, among
    images of both labels, with nothing matched."""
    own = to_images(rows.pixels)
    gallery, labels = np.concatenate([own, to_images(crowd.pixels)]), np.concatenate([rows.labels, crowd.labels])
    sources = np.arange(len(own))
    ranks = iip(placed(own, images), gallery, labels, sources, pixels).ranks
    among = float(np.mean([(labels == label).sum() for label in rows.labels]))
    told = named(images, gallery, sources, pixels)
    return {"rank": float(ranks.mean()), "first": float((ranks == 1).mean()), "among": among, "named": told}


def scored(images: Images, site: Site, prior: Images, crowd: Rows) -> Row:
    return {**identified(images, site.rows, crowd), **leak_scores(site.truth, images, prior)}


def attacks(
    held: list[list[ServerView]],
    sites: Sequence[Site],
    prior: Images,
    public: Rows,
    options: argparse.Namespace,
    done: Callable[[str, int], bool],
) -> Iterator[tuple[str, int, Images, Row]]:
    """(attack, site, images, what it says), as they are made; what is ``done`` is left out."""
    for place in range(len(sites)):
        means = Means(prior, public, options.seed, options.iterations)
        for name in options.attacks:
            if done(name, place):
                continue
            started = time.monotonic()
            try:
                if name == "span-pooled":
                    images, told = pooled([replies[place] for replies in held], means)
                else:
                    images, told = ATTACKS[name](held[0][place], means)
            except (ProbeError, FloatingPointError) as error:
                yield name, place, prior[:0], {"reason": str(error)}
                continue
            yield name, place, images, {**told, "seconds": time.monotonic() - started}


def candidates(held: Sequence[Sequence[ServerView]], sites: Sequence[Site], crowd: Rows) -> Iterator[tuple[int, Row]]:
    """For each list of the sites' first replies in turn: the rank of each site's first image among all candidates of
    its label that are no other site's."""
    first = [site.rows.take(np.array([0])) for site in sites]
    pixels_, labels = (
        np.concatenate([*[getattr(rows, part) for rows in first], getattr(crowd, part)])
        for part in ("pixels", "labels")
    )
    found = likeness([view for views in held for view in views], Rows(pixels_, labels))
    numbers = np.arange(len(labels))
    for line, likenesses in enumerate(found):
        place = line % len(sites)
        same = np.flatnonzero((labels == labels[place]) & ((numbers == place) | (numbers >= len(sites))))
        rank = rank_of(likenesses[same], int(np.flatnonzero(same == place)[0]))
        yield line, {"rank": rank, "first": float(rank == 1), "among": len(same)}


def table(files: Sequence[Path]) -> list[str]:
    """A line a protection and attack: of each seed the share of images that came first and of those that were named,
    the median rank of all sites, and the means of SSIM and RDLV with Student's interval over the seeds' means, where
    there are two seeds or more."""
    rows: dict[str, dict[str, list[Row]]] = {}
    for file in files:
        for key, row in json.loads(file.read_text(encoding="utf-8")).items():
            _, seed, *line, _ = key.split(" ")
            rows.setdefault(" ".join(line), {}).setdefault(seed, []).append(row)
    head = (
        "sent, attack",
        "sites",
        "first, %, by seed",
        "median rank, of",
        "named, %, by seed",
        HEADINGS[SSIM],
        "RDLV",
    )
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for line, seeds in sorted(rows.items()):
        groups = [[row for row in group if "rank" in row] for group in seeds.values()]
        every = [row for group in groups for row in group]
        if not every:
            lines.append(f"| {line} | 0 of {sum(map(len, seeds.values()))} | not attempted | | | | |")
            continue
        first, share = _by_seed(groups, "first"), _by_seed(groups, "named")
        among = f"{min(int(row['among']) for row in every)} to {max(int(row['among']) for row in every)}"
        rank = f"{np.median([float(row['rank']) for row in every]):g}, of {among}"
        means = [_over_seeds([[row[name] for row in group if name in row] for group in groups]) for name in MEANS]
        sites = f"{len(every)} of {sum(map(len, seeds.values()))}"
        lines.append(f"| {line} | {sites} | {first} | {rank} | {share} | {' | '.join(means)} |")
    return lines


def _by_seed(groups: Sequence[Sequence[Row]], name: str) -> str:
    """Per cent of each seed; nothing where a seed's rows do not have it."""
    if not all(group and all(name in row for row in group) for group in groups):
        return ""
    return ", ".join(f"{100 * np.mean([row[name] for row in group]):.0f}" for group in groups)


def _over_seeds(groups: list[list[float]]) -> str:
    if not groups or not all(groups):
        return ""
    found = by_seed(groups)
    return f"{found.mean:.2f}" + (f" ({found.low:.2f} to {found.high:.2f})" if len(groups) > 1 else "")


def run(options: argparse.Namespace) -> None:
    public, prior, sites = prepare(options)
    data = chosen_data(options)
    crowd = data.rows(np.concatenate([shared_out(data, options)[1], data.test]))
    results: dict[str, Row] = json.loads(options.json.read_text()) if options.json.is_file() else {}

    def keep(key: str, row: Row, picture: Images | None = None) -> None:
        results[key] = row
        write_whole(options.json, json.dumps(results, indent=1) + "\n")
        print(key, {name: round(v, 3) if isinstance(v, float) else v for name, v in row.items()}, flush=True)
        if picture is not None and options.png:
            options.png.mkdir(parents=True, exist_ok=True)
            sheet = grid(to_pixels(picture), len(picture)).repeat(2, axis=0).repeat(2, axis=1)
            save_png(sheet, options.png / f"{key.replace(' ', '-')}.png")

    def tagged(protection: str) -> str:
        return f"seed {options.seed} {protection or 'nothing'}{options.tag}"

    lacking = [p for p in options.protect if f"{tagged(p)} candidates {len(sites) - 1}" not in results]
    if options.candidates and lacking:
        held = [rounds(sites, protection, options, 1)[0] for protection in lacking]
        for line, row in candidates(held, sites, crowd):
            keep(f"{tagged(lacking[line // len(sites)])} candidates {line % len(sites)}", row)
    for protection in options.protect:
        tag = tagged(protection)
        names = [f"{tag} {name} {place}" for name in options.attacks for place in range(len(sites))]
        if all(name in results for name in names):
            continue

        def done(name: str, place: int, tag: str = tag) -> bool:
            return f"{tag} {name} {place}" in results

        held = rounds(sites, protection, options, options.rounds)
        for name, place, images, told in attacks(held, sites, prior, public, options, done):
            site = sites[place]
            if not len(images):
                keep(f"{tag} {name} {place}", told)
                continue
            row = {**scored(images, site, prior, crowd), **told}
            keep(f"{tag} {name} {place}", row, np.concatenate([site.truth, prior, placed(site.truth, images)]))
        for place, site in enumerate(sites):
            if f"seed {options.seed} prior {place}" not in results:
                keep(
                    f"seed {options.seed} prior {place}",
                    scored(np.repeat(prior, len(site.truth), 0), site, prior, crowd),
                )


def main() -> None:
    parser = site_parser(__doc__)
    parser.set_defaults(sites=6)
    parser.add_argument("--attacks", default="span,span-pooled", help="span, span-pooled, row-space and others")
    parser.add_argument("--protect", action="append", help="NAME=STRENGTH,...; again for more; '' for nothing")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--passes", type=int, default=1)
    parser.add_argument("--iterations", type=int, default=0)
    parser.add_argument("--weights-alone", action="store_true", help="running statistics stay at the sites (FedBN)")
    parser.add_argument("--candidates", action="store_true", help="also rank everybody's images by likelihood")
    parser.add_argument("--tag", default="", help="added to the names of the rows")
    parser.add_argument("--png", type=Path)
    parser.add_argument("--table", type=Path, nargs="+", help="files to print as a table, in place of a run")
    options = parser.parse_intermixed_args()
    options.attacks = [name for name in options.attacks.split(",") if name]
    options.protect = options.protect or [""]
    if options.table:
        print("\n".join(table(options.table)))
        return
    if options.json is None:
        parser.error("--json is where rows are kept: name a file")
    torch.set_num_threads(1)
    run(options)


if __name__ == "__main__":
    main()
