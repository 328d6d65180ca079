"""One captured update under attack: what the protocol tells everybody, and every attack by its name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from fedsec.config import RunConfig
from fedsec.config.added import Table
from fedsec.errors import ProbeError
from fedsec.images import to_images
from fedsec.probes.firstlayer import first_layer
from fedsec.probes.gaussian import GaussianPrior
from fedsec.probes.inversion import invert
from fedsec.probes.labels import label_counts, only_label, replies
from fedsec.probes.ladder import RUNGS, climb
from fedsec.probes.presets import PRESETS, Preset
from fedsec.probes.released import ITERATIONS, released
from fedsec.probes.replica import Replica
from fedsec.probes.rowspace import CLEAR, NEARLY
from fedsec.probes.span import ITERATIONS as SPANNING
from fedsec.probes.span import Observation, span
from fedsec.probes.terms import OF_THE_UPDATE, observe
from fedsec.probes.upstream import as_one_step, nearest_maps, refusal
from fedsec.probes.view import Recipe, ServerView
from fedsec.types import Images, Rows

MAPPED = 4
"""Numbers of a map for each pixel of an image where a ResNet-18's first stage ends."""
EXACT, NEAR = 1e-3, 0.5
"""Share of an update that is noise up to which it is taken for exact, and up to which 'row-space' is worth its time."""
SLOWER = 10
"""Iterations of row-space for one of span, where fewer than their own are asked for."""
CLIMBING = 300
"""Iterations of every rung of the ladder."""
Told = dict[str, float]
"""What an attack says of itself."""


@dataclass(frozen=True)
class Means:
    """What an attacker brings: a public image to start from, ``prior`` (1, c, s, s), ``public`` images of each class or
    none, and ``iterations``, 0 for the attack's own; where to compute; ``chunk``: restarts at once, None for all, which
    bounds the memory and changes nothing else."""

    prior: Images
    public: Rows | None
    seed: int
    iterations: int = 0
    device: str = "cpu"
    chunk: int | None = None


Attack = Callable[[ServerView, Means], tuple[Images, Told]]
"""As many images as the view has examples, and what the attack says of itself."""


def recipe_of(config: RunConfig, *, partition: int, images: int, channels: int, classes: int) -> Recipe:
    """How the client of ``partition``, which says that it has ``images``, trains in one round."""
    chosen, train = config.classifier, config.train
    batch = min(config.batches[partition] if config.batches else train.batch, images)
    return Recipe(
        network=chosen.network,
        norm=chosen.norm,
        channels=channels,
        classes=classes,
        size=config.data.size,
        steps=chosen.epochs * -(-images // batch) or train.steps,
        batch=batch,
        lr=train.lr,
        momentum=chosen.momentum,
        bn_momentum=chosen.bn_momentum,
    )


def inverted(view: ServerView, preset: str, means: Means) -> tuple[Images, Told]:
    """Reconstructions of all of ``view``'s images by one of PRESETS, and what the attack says of itself. Images beyond
    those that the round reached are the prior. Labels as ``known_labels`` reads them. Errors: ProbeError 'not
    attempted: ...' for an update from which 'row-space' can read no maps; that says nothing of other attacks."""
    images, told = _inverted(view.reached, preset, means)
    return np.concatenate([images, np.repeat(means.prior, view.examples - len(images), axis=0)]), told


def _inverted(view: ServerView, preset: str, means: Means, *, clear: float = CLEAR) -> tuple[Images, Told]:
    chosen, prior, seed = PRESETS[preset], means.prior, means.seed
    if means.iterations:
        chosen = replace(chosen, iterations=means.iterations)
    replica = Replica(view.recipe, view.before, device=means.device)
    maps = nearest_maps(view, replica, seed=seed, clear=clear) if "maps" in chosen.terms else None
    if maps is None and "maps" in chosen.terms:
        raise ProbeError(f"not attempted: {refusal(view)}; 'span' needs none")
    if maps is not None:
        chosen = _smoothed(chosen, values=int(np.prod(maps.maps.shape[1:])), view=view)
    trains = any(name in OF_THE_UPDATE for name in chosen.terms)
    known = known_labels(view, replica, means.public) if trains else None
    found = invert(
        replica,
        observe(view, replica, maps),
        chosen,
        count=view.examples,
        labels=known,
        prior=prior,
        seed=seed,
        chunk=means.chunk,
    )
    told = {"gap": maps.gap, "maps": float(np.prod(maps.maps.shape[1:]))} if maps else {}
    return found.images, {"loss": found.loss, **told}


def pooled(views: Sequence[ServerView], means: Means) -> tuple[Images, Told]:
    """``span`` on several rounds of one site on the same images. Where there is little noise, what 'row-space' reads of
    the last round, passes taken for one step and any gap for one, is a second answer, and the likelier is taken.

    ``nats``: how much likelier the images are than the prior mean; below 0 the attack read nothing. ``noise``: what it
    took for noise, over the update, median of the layers."""
    reached = [view.reached for view in views]
    count, public = reached[0].examples, means.prior[:0] if means.public is None else to_images(means.public.pixels)
    rounds = [Observation.of(view, device=means.device) for view in reached]
    prior = GaussianPrior.of(public, mean=means.prior, seed=means.seed, device=means.device)
    noise = float(np.median([layer.noise / layer.deviation for seen in rounds for layer in seen.layers.values()]))
    ends = [span(rounds, prior, count=count, seed=means.seed, iterations=means.iterations or SPANNING)]
    if noise < NEAR:
        with suppress(ProbeError):  # no maps; what the span says stands alone
            slower = replace(means, iterations=SLOWER * means.iterations)
            clear = CLEAR if noise < EXACT else NEARLY
            read, _ = _inverted(as_one_step(reached[-1]), "row-space", slower, clear=clear)
            start = torch.from_numpy(read).float().to(means.device)
            ends.append(span(rounds, prior, count=count, seed=means.seed, iterations=0, start=start))
    images, nats = max(ends, key=lambda end: end[1])
    rest = np.repeat(means.prior, views[0].examples - count, axis=0)
    return np.concatenate([images.cpu().numpy(), rest]), {
        "nats": nats,
        "noise": noise,
        "iterations": float(means.iterations or SPANNING),
    }


def _smoothed(preset: Preset, *, values: int, view: ServerView) -> Preset:
    """``preset`` for maps of ``values`` numbers an image. Its weight of total variation is for MAPPED numbers a pixel,
    and grows as they get fewer; since maps fit at any contrast, which smoothness then takes away, the weight of the
    statistics, which know it, grows with the square. Found on eight chest radiographs at 64 px: with one number a pixel
    SSIM 0.14 without the second, 0.68 with it; the prior's is 0.32. After several steps given moments hold it."""
    recipe = view.recipe
    sparse = max(1.0, MAPPED * recipe.channels * recipe.size**2 / values)
    grown = {"total-variation": sparse, "statistics": sparse**2 if recipe.steps == 1 else 1.0}
    return replace(preset, terms={name: weight * grown.get(name, 1.0) for name, weight in preset.terms.items()})


def known_labels(view: ServerView, replica: Replica, public: Rows | None) -> Tensor | None:
    """The labels that the last bias gives away: of one image exactly; of one batch the counts, in rising order, where
    there is a batch of ``public`` images of every class to calibrate by (fedsec.probes.labels). None otherwise, as in
    rounds of several steps, where counts do not say which step an image was in: labels are then optimised with the
    images."""
    if view.examples == 1:
        return torch.tensor([only_label(view)])
    recipe = view.recipe
    if public is None or recipe.steps > 1 or view.examples > recipe.batch:
        return None
    if np.bincount(public.labels, minlength=recipe.classes).min() < recipe.batch:
        return None
    counts = label_counts(view, replies(replica, to_images(public.pixels), public.labels))
    return torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))


def _preset(name: str) -> Attack:
    return lambda view, means: inverted(view, name, means)


def _released(view: ServerView, means: Means) -> tuple[Images, Told]:
    iterations = means.iterations or ITERATIONS
    return released(view, prior=means.prior, seed=means.seed, iterations=iterations, device=means.device), {}


def _rung(name: str) -> Attack:
    """One rung of the ladder, so that a run's report can say where a leak comes from."""

    def attack(view: ServerView, means: Means) -> tuple[Images, Told]:
        public = to_images(means.public.pixels) if means.public is not None else means.prior[:0]
        iterations = means.iterations or CLIMBING
        return climb(
            name, view, prior=means.prior, public=public, seed=means.seed, iterations=iterations, device=means.device
        )

    return attack


def _first_layer(view: ServerView, means: Means) -> tuple[Images, Told]:
    return first_layer(view), {}


ATTACKS: Table[Attack] = Table(
    "leakage.attacks",
    {
        **{name: _preset(name) for name in PRESETS},
        "span": lambda view, means: pooled([view], means),
        "released": _released,
        "first-layer": _first_layer,
        **{name: _rung(name) for name in RUNGS if name not in ("prior-only", *PRESETS)},
    },
)
