"""Which source gives away how much of one update: ``python -m studies.leakage.ladder SOURCE [key=value ...]``.

The sites of ``studies.leakage.inversion``; each site's one update is attacked rung by rung (fedsec.probes.ladder.RUNGS)
with the same number of iterations. Two tables: the rungs, and what each source is worth, as differences of two rungs
site by site with 95 % intervals over sites, which share one global model: they say nothing of another seed's. Finished
pairs of site and rung in ``--json`` are not run again.
"""

from __future__ import annotations

import argparse
import json
import time
from typing import Any

import numpy as np
import torch

from fedsec.errors import ProbeError
from fedsec.images import to_images
from fedsec.log.files import write_whole
from fedsec.metrics.intervals import Interval, mean_interval, paired_difference
from fedsec.metrics.measures import HEADINGS, SSIM
from fedsec.metrics.similarity import placed, psnr, rdlv, ssim
from fedsec.probes.ladder import RUNGS, climb
from fedsec.reports.sources import LEAKS
from fedsec.types import Images
from studies.leakage.sites import Site, prepare, site_parser

PUBLIC = 64
"""Test images that the attacker has as proxy data."""
MEASURES = (SSIM, "rdlv", "psnr")

Results = dict[str, dict[str, Any]]


def score(truth: Images, images: Images, prior: Images) -> dict[str, list[float]]:
    """Each image against the reconstruction that it is matched with; RDLV with the likest of all, as defined."""
    own = placed(truth, images)
    values = {SSIM: ssim(truth, own), "psnr": psnr(truth, own), "rdlv": rdlv(truth, images, prior).values}
    return {name: [float(value) for value in row] for name, row in values.items()}


def of_rung(results: Results, rung: str, measure: str) -> dict[int, float]:
    """Site -> mean over its images."""
    return {
        int(key.split(" ")[1]): float(np.mean(row[measure]))
        for key, row in results.items()
        if key.split(" ")[0] == rung
    }


def leak(results: Results, name: str, measure: str) -> Interval | None:
    """The paired difference over the sites that have both rungs; None below two."""
    with_it, without = (of_rung(results, rung, measure) for rung in LEAKS[name])
    both = sorted(set(with_it) & set(without))
    if len(both) < 2:
        return None
    return paired_difference([with_it[site] for site in both], [without[site] for site in both])


def tables(results: Results, rungs: list[str]) -> str:
    heads = " | ".join(HEADINGS[measure] for measure in MEASURES)
    lines = [f"| rung | sites | {heads} | seconds a site |", "|---|---|---|---|---|---|"]
    for rung in rungs:
        seconds = list(of_rung(results, rung, "seconds").values())
        if seconds:
            cells = [_cell(mean_interval(list(of_rung(results, rung, m).values()))) for m in MEASURES]
            lines.append(f"| {rung} | {len(seconds)} | {' | '.join(cells)} | {np.mean(seconds):.0f} |")
    lines += ["", f"| source | rungs | sites | {heads} |", "|---|---|---|---|---|---|"]
    for name, pair in LEAKS.items():
        found = [leak(results, name, measure) for measure in MEASURES]
        cells = [_cell(interval, "+") for interval in found if interval is not None]
        if cells:
            lines.append(f"| {name} | {pair[0]} - {pair[1]} | {len(found[0].values)} | {' | '.join(cells)} |")  # type: ignore[union-attr]
    return "\n".join(lines)


def _cell(found: Interval, sign: str = "") -> str:
    return f"{found.mean:{sign}.2f} ({found.low:{sign}.2f} to {found.high:{sign}.2f})"


def climbed(rung: str, site: Site, public: Images, prior: Images, options: argparse.Namespace) -> Any:
    started = time.monotonic()
    images, told = climb(
        rung,
        site.view,
        prior=prior,
        public=public,
        seed=options.seed,
        iterations=options.iterations,
        device=options.device,
    )
    seconds = time.monotonic() - started
    return {**score(site.truth, images, prior), **told, "seconds": seconds, "iterations": options.iterations}


def main() -> None:
    parser = site_parser(__doc__)
    parser.add_argument("--rungs", default=",".join(RUNGS), help="of fedsec.probes.ladder.RUNGS")
    parser.add_argument("--iterations", type=int, default=300, help="of every rung alike")
    options = parser.parse_intermixed_args()
    rungs = options.rungs.split(",")
    torch.set_num_threads(1)
    rows, prior, found = prepare(options)
    public = to_images(rows.pixels[:PUBLIC])
    results: Results = json.loads(options.json.read_text()) if options.json and options.json.is_file() else {}
    for place, site in enumerate(found):
        for rung in rungs:
            key = f"{rung} {place}"
            if key not in results:
                try:
                    results[key] = climbed(rung, site, public, prior, options)
                except ProbeError as error:  # it has no score, and is never given the prior's
                    print(f"site {place} {rung}: {error}", flush=True)
                    continue
                if options.json:
                    write_whole(options.json, json.dumps(results, indent=1) + "\n")
            print(
                f"site {place} {rung}: " + ", ".join(f"{m} {np.mean(results[key][m]):.3f}" for m in MEASURES),
                flush=True,
            )
    print(tables(results, rungs))


if __name__ == "__main__":
    main()
