"""Sites that train one round of a classifier on a global model, for studies of what their updates give away."""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from clients.classifier import ClassifierClient
from fedsec.config import RunConfig
from fedsec.config.files import parse_settings
from fedsec.datasets import load
from fedsec.images import to_images
from fedsec.models.networks import NETWORKS, NORMS, new_network
from fedsec.models.state import network_arrays
from fedsec.privacy.protection import parsed
from fedsec.probes.view import Recipe, ServerView
from fedsec.seeds import stream
from fedsec.types import Dataset, Images, Indices, Rows

WARM_BATCH = 16


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


def chosen_data(options: argparse.Namespace) -> Dataset:
    """The data set that is named; SystemExit where none is."""
    if not options.source:
        raise SystemExit("SOURCE is missing: name 'phantom', or a folder, CSV or .npz of real images")
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


def site_parser(description: str | None) -> argparse.ArgumentParser:
    """What decides the sites."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", nargs="?", default="", help="'phantom', or a folder, CSV or .npz of real images")
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
