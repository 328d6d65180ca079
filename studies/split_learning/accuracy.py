"""Does proximal gradient split learning keep its accuracy? ``python -m studies.split_learning.accuracy SOURCE
[key=value ...]``.

Everything in one process, by the functions that the Flower client and strategy call. Arms: the network in one piece,
plain split learning, PGSL, PGSL with one switch moved. Each cell (arm and seed) is a JSON file in ``--out``, and what
is there is not run again. Accuracy, balanced accuracy and AUC of every stream on the held-out images, with the
perturbation on and off at test time; bytes, and samples a second of one core; the table in the paper's form at the end.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedsec.config import RunConfig
from fedsec.config.files import parse_settings
from fedsec.datasets import load
from fedsec.defences.pgsl import Pgsl, attack
from fedsec.errors import ConfigError
from fedsec.images import to_images
from fedsec.log.files import write_whole
from fedsec.metrics.intervals import mean_interval
from fedsec.metrics.utility import classified
from fedsec.models.order import batches
from fedsec.models.split_learning.halves import SplitSpec, new_classifier, new_surrogate, probabilities
from fedsec.models.split_learning.steps import (
    LR,
    Batch,
    Desk,
    Home,
    applied,
    entered,
    held_out,
    new_desk,
    new_home,
    paced,
    sent,
    server_step,
)
from fedsec.seeds import address_seed, stream
from fedsec.types import Dataset

ARMS: dict[str, Pgsl | None] = {
    "whole": None,
    "split": None,
    "pgsl": Pgsl(),
    "recovery-off": Pgsl(recovery="off"),
    "random-map": Pgsl(perturb="random"),
    "perturb-off": Pgsl(perturb="off"),
    "fusion-off": Pgsl(fusion=False),
    "low-rank": Pgsl(recovery="low-rank"),
    "absolute": Pgsl(threshold="absolute"),
    "softmax": Pgsl(scores="softmax"),
    "peak": Pgsl(scale="peak"),
    "step-10": Pgsl(step=10.0),
    "true-label": Pgsl(label="true"),
    "no-map-channel": Pgsl(map_channel=False),
    "all-returned": Pgsl(returned="all"),
}
MAIN = "whole,split,pgsl,recovery-off,random-map,perturb-off,fusion-off"
PAPER = "14.0, 17.9 and 36.9"
CHUNK = 64
TRANSFERRED, OWN = "map of surrogate raw logits jsma", "map of own raw logits jsma"
Cell = dict[str, Any]


def tensors(data: Dataset, index: np.ndarray) -> tuple[Tensor, Tensor]:
    rows = data.rows(index)
    return torch.from_numpy(to_images(rows.pixels)), torch.from_numpy(np.array(rows.labels))


def chosen_batches(images: Tensor, labels: Tensor, options: argparse.Namespace, seed: int) -> list[Batch]:
    """The same mini-batches in the same order for every arm of a seed."""
    order = batches(len(labels), options.batch, options.steps, stream(seed, "split", "order"))
    return [Batch(images[i], labels[i], address_seed(seed, "batch", n)) for n, i in enumerate(order)]


def measured(shares: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    return {score.name: score.value for score in classified(labels, shares)}


@torch.no_grad()
def stream_scores(spec: SplitSpec, home: Home, desk: Desk, images: Tensor, labels: Tensor) -> Cell:
    """Scores of each stream on held-out images: 'on' with the perturbation, 'off' without."""
    assert desk.heads is not None
    desk.body.eval()
    found: Cell = {}
    for name, perturb in (("on", True), ("off", False)):
        parts = []
        for start in range(0, len(images), CHUNK):
            z = held_out(home, images[start : start + CHUNK], perturb=perturb, seed=start)
            parts.append(probabilities(spec, desk.heads(desk.body(z))))
        streams = {s: torch.cat([part[s] for part in parts]).numpy() for s in parts[0]}
        found[name] = {s: measured(shares, labels.numpy()) for s, shares in streams.items()}
    desk.body.train()
    return found


def strength(images: Tensor, labels: Tensor, judge: nn.Module, maker: nn.Module, chosen: Pgsl) -> dict[str, float]:
    """What the map of ``maker`` does to held-out images, as ``judge`` sees them; PSNR over the range 2."""
    rng = torch.Generator().manual_seed(0)
    moved = torch.cat([attack(part, maker, None, chosen, rng)[0] for part in torch.split(images, CHUNK)])
    with torch.no_grad():
        before, after = (torch.cat([judge(part) for part in torch.split(x, CHUNK)]).argmax(1) for x in (images, moved))
    error = (moved - images).square().flatten(1).mean(dim=1).clamp_min(1e-12)
    return {
        "clean": float((before == labels).float().mean()),
        "attacked": float((after == labels).float().mean()),
        "flipped": float((before != after).float().mean()),
        "psnr": float((10 * torch.log10(4 / error)).mean()),
        "largest": float((moved - images).abs().flatten(1).amax(dim=1).mean()),
    }


def split_cell(data: Dataset, options: argparse.Namespace, arm: str, seed: int) -> Cell:
    """Train one client and the server by exchanges of ``--k`` mini-batches, and score."""
    spec = SplitSpec(data.channels, len(data.class_names), data.size, ARMS[arm])
    train, test = tensors(data, data.train), tensors(data, data.test)
    home, desk = new_home(spec, seed=seed, own=address_seed(seed, "own")), new_desk(spec, seed=seed)
    order = chosen_batches(*train, options, seed)
    started, up, down = time.process_time(), 0, 0
    for done in range(0, len(order), options.k):
        message = order[done : done + options.k]
        paced([*home.optimisers.values(), desk.optimiser], done, len(order))
        given = entered(home, message)
        z = sent(home, given)
        answers = [server_step(desk, one, batch.labels) for one, batch in zip(z, message, strict=True)]
        gradients = torch.stack([answer.gradient for answer in answers])
        applied(home, message, given, gradients)
        up += z.nbytes + sum(batch.labels.nbytes for batch in message)
        down += gradients.nbytes
    seconds = time.process_time() - started
    samples = sum(len(batch.labels) for batch in order)
    cell: Cell = {"streams": stream_scores(spec, home, desk, *test)}
    if home.surrogate is not None and spec.pgsl is not None:
        home.surrogate.eval()
        cell["map"] = strength(*test, home.surrogate, home.surrogate, spec.pgsl)
    return {**cell, "up": up / samples, "down": down / samples, "rate": samples / seconds}


def whole_cell(data: Dataset, options: argparse.Namespace, seed: int) -> Cell:
    """The plain network in one piece on the same batches; then held-out images under the map of a surrogate trained on
    them too, as PGSL's client has it, and of the network itself."""
    spec = SplitSpec(data.channels, len(data.class_names), data.size)
    train, test = tensors(data, data.train), tensors(data, data.test)
    network, surrogate = new_classifier(spec, seed=seed), new_surrogate(spec, seed=address_seed(seed, "own"))
    adam = [torch.optim.Adam(network.parameters(), LR), torch.optim.Adam(surrogate.parameters(), LR)]
    order, seconds = chosen_batches(*train, options, seed), 0.0
    for done, batch in enumerate(order):
        paced(adam, done, len(order))
        for score, optimiser in ((network, adam[0]), (surrogate, adam[1])):
            started = time.process_time()
            optimiser.zero_grad(set_to_none=True)
            torch.autograd.backward(F.cross_entropy(score(batch.images), batch.labels))
            optimiser.step()
            seconds += time.process_time() - started if score is network else 0.0
    network.eval()
    surrogate.eval()
    with torch.no_grad():
        shares = torch.cat([network(part).double().softmax(1) for part in torch.split(test[0], CHUNK)]).numpy()
    found = measured(shares, test[1].numpy())
    cell: Cell = {"streams": {"on": {"plain": found}, "off": {"plain": found}}, "up": 0.0, "down": 0.0}
    for name, maker in (("surrogate", surrogate), ("own", network)):
        for kind in (Pgsl(), Pgsl(scale="peak"), Pgsl(scores="softmax"), Pgsl(perturb="random")):
            key = f"{name} {kind.scale} {kind.scores} {kind.perturb}"
            cell[f"map of {key}"] = strength(*test, network, maker, kind)
    return {**cell, "rate": sum(len(batch.labels) for batch in order) / seconds}


def table(cells: dict[str, Cell], arms: list[str], switch: str) -> str:
    """Accuracy of each stream, mean over seeds with its 95 % interval; then balanced accuracy and AUC of the last one
    (what the arm answers with), bytes, and samples a second of processor time, both sides together."""
    names = ["plain", "attacked", "recovered", "fused", "late"]
    lines = [
        f"perturbation {switch} at test time",
        f"| arm | seeds | {' | '.join(names)} | balanced accuracy | AUC | bytes up, down a sample | samples a second |",
        "|" + "---|" * (len(names) + 6),
    ]
    for arm in arms:
        rows = [cell for key, cell in cells.items() if key.split(" ")[0] == arm]
        if not rows:
            continue
        streams = [row["streams"][switch] for row in rows]
        shown = [spread([s[name]["accuracy"] for s in streams]) if name in streams[0] else "" for name in names]
        last = [list(s)[-1] for s in streams]
        answers = [s[n] for s, n in zip(streams, last, strict=True)]
        other = [spread([answer[key] for answer in answers]) for key in ("balanced-accuracy", "auc")]
        traffic = f"{rows[0]['up']:.0f}, {rows[0]['down']:.0f}"
        rate = float(np.mean([row["rate"] for row in rows]))
        lines.append(f"| {' | '.join([arm, str(len(rows)), *shown, *other, traffic])} | {rate:.0f} |")
    return "\n".join(lines)


def paper_table(cells: dict[str, Cell]) -> str:
    """Clean, attacked, reconstructed, PGSL, and the gains of PGSL over the middle two: in points, and in per cent."""
    seeds = sorted({key.split(" ")[1] for key in cells if f"pgsl {key.split(' ')[1]}" in cells})
    pairs = [(cells[f"whole {s}"], cells[f"pgsl {s}"]["streams"]["on"]) for s in seeds if f"whole {s}" in cells]
    if not pairs:
        return "the table in the paper's form needs the arms whole and pgsl"
    late = [p["late"]["accuracy"] for _, p in pairs]
    rows = {
        "clean: trained and tested as the images are": [w["streams"]["on"]["plain"]["accuracy"] for w, _ in pairs],
        "attacked: trained clean, tested under the clients' map": [w[TRANSFERRED]["attacked"] for w, _ in pairs],
        "attacked: trained clean, tested under its own map": [w[OWN]["attacked"] for w, _ in pairs],
        "attacked stream of PGSL": [p["attacked"]["accuracy"] for _, p in pairs],
        "reconstructed: recovered stream of PGSL": [p["recovered"]["accuracy"] for _, p in pairs],
        "PGSL, fused stream": [p["fused"]["accuracy"] for _, p in pairs],
        "PGSL, late fusion": late,
    }
    lines = ["| accuracy | ours | gain of PGSL's late fusion over it, points | per cent |", "|---|---|---|---|"]
    for name, values in rows.items():
        points = spread([100 * (a - b) for a, b in zip(late, values, strict=True)], 1)
        percent = spread([100 * (a / b - 1) for a, b in zip(late, values, strict=True)], 1)
        lines.append(f"| {name} | {spread(values)} | {points} | {percent} |")
    claim = f"The paper claims gains of {PAPER} % over reconstructed and attacked images: three numbers, two names."
    return "\n".join([*lines, "", claim])


def spread(values: list[float], digits: int = 3) -> str:
    found = mean_interval(values)
    if len(values) == 1:
        return f"{found.mean:.{digits}f}"
    return f"{found.mean:.{digits}f} ({found.low:.{digits}f} to {found.high:.{digits}f})"


def run(options: argparse.Namespace, say: Callable[[str], None]) -> dict[str, Cell]:
    """Every cell that ``--out`` lacks, then all of them. Raises ConfigError on a file of other settings."""
    flat = {"data.source": options.source, "data.size": options.size, **parse_settings(options.settings)}
    data = load(RunConfig.from_flat(flat).data)
    settings = {"steps": options.steps, "batch": options.batch, "k": options.k, "data": data.digest}
    cells: dict[str, Cell] = {}
    for seed in range(options.seeds):
        for arm in options.arms:
            file = options.out / f"{arm}-{seed}.json"
            made_by = {**settings, "switches": json.loads(json.dumps(asdict(pgsl))) if (pgsl := ARMS[arm]) else {}}
            if not file.is_file():
                found = whole_cell(data, options, seed) if arm == "whole" else split_cell(data, options, arm, seed)
                options.out.mkdir(parents=True, exist_ok=True)
                write_whole(file, json.dumps({**found, "made by": made_by}, indent=1) + "\n")
            cell = json.loads(file.read_text(encoding="utf-8"))
            if cell["made by"] != made_by:
                raise ConfigError(f"{file} was made by {cell['made by']}, asked is {made_by}; take another --out")
            cells[f"{arm} {seed}"] = cell
            shown = {name: round(s["accuracy"], 3) for name, s in cell["streams"]["on"].items()}
            say(f"{arm} seed {seed}: {shown}")
    return cells


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", help="'phantom', or a folder, CSV or .npz of real images")
    parser.add_argument("settings", nargs="*", help="data.modality=chest and other keys of [data]")
    parser.add_argument("--arms", default=MAIN, help=f"of {', '.join(ARMS)}")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=600, help="mini-batches")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--k", type=int, default=2, help="mini-batches a message")
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--out", type=Path, default=Path("runs/pgsl"), help="folder of one JSON file a cell")
    options = parser.parse_intermixed_args()
    options.arms = options.arms.split(",")
    torch.set_num_threads(1)
    cells = run(options, lambda line: print(line, flush=True))
    for switch in ("on", "off"):
        print("\n" + table(cells, options.arms, switch))
    print("\n" + paper_table(cells))


if __name__ == "__main__":
    main()
