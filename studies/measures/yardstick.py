"""How far a Fréchet distance moves with the classifier it is measured on: ``python -m studies.measures.yardstick RUN``.

Scores the kept generators of a run folder on the features of several domain extractors, which differ in their seed
alone (each has ``--networks`` classifiers side by side; 1 shows why there are three), and prints for each cell the mean
distance and its coefficient of variation over extractors, and the ratio to the reference arm of the same training seed
(geometric mean over extractors, 95 % interval of that mean). docs/metrics.md quotes it.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import load_file

from fedsec.config.files import read_experiment
from fedsec.config.toml import CONFIG
from fedsec.images import to_images
from fedsec.log import runlog
from fedsec.metrics.features import NETWORKS, domain_extractor
from fedsec.metrics.frechet import frechet_distance
from fedsec.metrics.intervals import mean_interval
from fedsec.models.gan.sampling import balanced_labels, generate
from fedsec.models.gan.steps import spec
from fedsec.run.plan import Plan, plan_run
from fedsec.run.versions import rules
from fedsec.types import Images


def drawn(plan: Plan, arm: str, seed: int) -> Images:
    """The images the run itself scored."""
    data, config = plan.dataset, plan.config.arm(arm)
    labels = balanced_labels(data.labels[data.train], config.measure.samples)
    shape = spec(config, channels=data.channels, classes=len(data.class_names))
    arrays = load_file(plan.folder / f"generator-{arm}-{seed}.safetensors")
    return generate(arrays, shape, labels, seed=config.data.seed, statistics=config.gan.statistics)


def distances(
    plan: Plan, cells: list[tuple[str, int]], extractors: int, networks: int
) -> dict[tuple[str, int], list[float]]:
    data = plan.dataset
    train = data.rows(data.train)
    images = {cell: drawn(plan, *cell) for cell in cells}
    found: dict[tuple[str, int], list[float]] = {cell: [] for cell in cells}
    for seed in range(extractors):
        extract = domain_extractor(train, classes=len(data.class_names), seed=seed, networks=networks)
        real = extract(to_images(train.pixels))
        for cell in cells:
            found[cell].append(frechet_distance(real, extract(images[cell])))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="run folder with its generators")
    parser.add_argument("--extractors", type=int, default=6)
    parser.add_argument("--networks", type=int, default=NETWORKS, help="classifiers side by side in one extractor")
    parser.add_argument("--reference", default="vanilla", help="arm the ratios refer to")
    options = parser.parse_args()
    torch.set_num_threads(1)
    plan = plan_run(read_experiment(options.run / CONFIG, "", [f"run.out={options.run.parent}"]), rules=rules())
    done = runlog.finished_cells(options.run)
    cells = [c for c in plan.cells if c in done and (options.run / f"generator-{c[0]}-{c[1]}.safetensors").exists()]
    found = distances(plan, cells, options.extractors, options.networks)
    print("| arm | seed | frechet-domain | variation | ratio to the reference |\n|---|---|---|---|---|")
    for (arm, seed), values in found.items():
        ratio = ""
        if (options.reference, seed) in found:
            over = mean_interval(list(np.log(values) - np.log(found[options.reference, seed])))
            ratio = f"{np.exp(over.mean):.2f} ({np.exp(over.low):.2f} to {np.exp(over.high):.2f})"
        print(f"| {arm} | {seed} | {np.mean(values):.2f} | {np.std(np.log(values), ddof=1):.2f} | {ratio} |")


if __name__ == "__main__":
    main()
