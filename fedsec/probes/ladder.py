"""Where a leak comes from: one captured update, attacked again and again with one source exchanged. RUNGS is the index.

Every rung is the same optimisation (start, rate, priors, iterations); only what it holds the images against differs.
What a source gives away is the difference of two rungs on the same images (``fedsec.reports.sources.LEAKS``).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch

from fedsec.errors import ProbeError
from fedsec.probes.inversion import PRESETS, Preset, Reconstruction, invert
from fedsec.probes.labels import only_label
from fedsec.probes.replica import BatchMoments, Replica
from fedsec.probes.terms import Observed, observe
from fedsec.probes.upstream import nearest_maps, refusal
from fedsec.probes.view import ServerView
from fedsec.seeds import stream
from fedsec.types import Images
from fedsec.weights import STATISTICS

Source = Callable[[ServerView, Replica, Images, int], list[BatchMoments]]
"""(view, replica, public images, seed) -> mean and biased variance at each BatchNorm to hold the guess against."""


def sent(view: ServerView, replica: Replica, public: Images, seed: int) -> list[BatchMoments]:
    """The client's own batch, recovered from the statistics it sent. Raises ProbeError where it sent none."""
    found = list(observe(view, replica).moments)
    if not found:
        raise ProbeError("no running statistics came back: take a rung without them")
    return found


def global_model(view: ServerView, replica: Replica, public: Images, seed: int) -> list[BatchMoments]:
    """The running statistics that the server sent out: an average of many clients' earlier batches, unbiased
    variances as torch keeps them. Raises ProbeError where it has none: clients keep theirs (FedBN), or nobody has."""
    mean, spread = STATISTICS
    names = list(replica.counts(1))
    if not names or any(f"{name}.{mean}" not in view.before for name in names):
        raise ProbeError("the server sends out no running statistics: take a rung without them")
    return [
        (_tensor(view.before[f"{name}.{mean}"], replica), _tensor(view.before[f"{name}.{spread}"], replica))
        for name in names
    ]


def proxy(view: ServerView, replica: Replica, public: Images, seed: int) -> list[BatchMoments]:
    """Mean over train-mode batches of public images, of the client's batch size, through the model sent out."""
    if not replica.counts(1):
        raise ProbeError("no layer has batch statistics: take a rung without them")
    batch = min(view.recipe.batch, view.examples)
    whole = public[: len(public) // batch * batch]
    if not len(whole):
        raise ProbeError(f"{len(public)} public images: proxy statistics need at least one batch of {batch}")
    shown = torch.from_numpy(whole).to(replica.device)
    with torch.no_grad():
        seen = [replica.logits(replica.weights, chunk)[1] for chunk in torch.split(shown, batch)]
    return [
        (torch.stack([m for m, _ in layer]).mean(0), torch.stack([v for _, v in layer]).mean(0))
        for layer in zip(*seen, strict=True)
    ]


def random(view: ServerView, replica: Replica, public: Images, seed: int) -> list[BatchMoments]:
    """The global model's statistics with the channels of each layer shuffled: right in size, and of nobody."""
    rng = stream(seed, "random-statistics")
    shuffled = []
    for mean, spread in global_model(view, replica, public, seed):
        order = torch.from_numpy(rng.permutation(len(mean))).to(replica.device)
        shuffled.append((mean[order], spread[order]))
    return shuffled


SOURCES: dict[str, Source] = {"sent": sent, "global": global_model, "proxy": proxy, "random": random}


@dataclass(frozen=True)
class Rung:
    """``statistics``: of SOURCES, '' for none. ``update``: whether the update is matched. ``maps``: whether the maps
    read off the update are, and where the statistics were sent, with what they add to reading them."""

    statistics: str = ""
    update: bool = False
    maps: bool = False


RUNGS: dict[str, Rung] = {
    "prior-only": Rung(),
    "random": Rung("random"),
    "global": Rung("global"),
    "proxy": Rung("proxy"),
    "bn-only": Rung("sent"),
    "update-only": Rung(update=True),
    "update+random": Rung("random", update=True),
    "update+global": Rung("global", update=True),
    "update+proxy": Rung("proxy", update=True),
    "both": Rung("sent", update=True),
    "maps-only": Rung(maps=True),
    "maps+bn": Rung("sent", maps=True),
}


def climb(
    name: str, view: ServerView, *, prior: Images, public: Images, seed: int, iterations: int, device: str = "cpu"
) -> tuple[Images, dict[str, float]]:
    """Reconstructions of all of ``view``'s images by one of RUNGS, and what the attack says of itself.

    ``prior`` (1, c, s, s) is what 'prior-only' answers, untouched: priors alone would be optimised to a flat image.
    The label of one image is read from the
    view, those of several are optimised with the images.
    """
    if view.reached.examples < view.examples:
        raise ProbeError(f"a round of {view.recipe.steps} steps did not reach all of {view.examples} images: take more")
    rung, replica = RUNGS[name], Replica(view.recipe, view.before, device=device)
    nothing = np.repeat(prior, view.examples, axis=0)
    if not rung.statistics and not rung.update and not rung.maps:
        return nothing, {}
    shown = view if rung.statistics == "sent" else without_statistics(view)
    moments = SOURCES[rung.statistics](view, replica, public, seed) if rung.statistics else []
    maps = nearest_maps(shown, replica, seed=seed) if rung.maps else None
    if rung.maps and maps is None:
        raise ProbeError(f"not attempted: {refusal(shown)}")
    preset = replace(_preset(rung), iterations=iterations)
    found = _inverted(view, replica, replace(observe(shown, replica, maps), moments=moments), preset, prior, seed)
    told = {"maps": float(np.prod(maps.maps.shape[1:]))} if maps else {}
    return found.images, {"loss": found.loss, **told}


def without_statistics(view: ServerView) -> ServerView:
    """The view of a protocol in which clients keep their running statistics (FedBN)."""
    return replace(view, after={n: v for n, v in view.after.items() if n.rsplit(".", 1)[-1] not in STATISTICS})


def _preset(rung: Rung) -> Preset:
    """'bn-update' or 'row-space' less the terms that the rung lacks."""
    preset = PRESETS["row-space" if rung.maps else "bn-update"]
    dropped = {"update-layers": not rung.update, "statistics": not rung.statistics}
    return replace(preset, terms={name: weight for name, weight in preset.terms.items() if not dropped.get(name)})


def _inverted(
    view: ServerView, replica: Replica, observed: Observed, preset: Preset, prior: Images, seed: int
) -> Reconstruction:
    labels = torch.tensor([only_label(view)]) if view.examples == 1 else None
    return invert(replica, observed, preset, count=view.examples, labels=labels, prior=prior, seed=seed)


def _tensor(values: np.ndarray, replica: Replica) -> torch.Tensor:
    return torch.from_numpy(np.array(values, np.float32)).to(replica.device)
