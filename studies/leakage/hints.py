"""What statistics alone say of a site's images:
``python -m studies.leakage.hints SOURCE [key=value ...] --by class|site``.

Sites as of ``studies.leakage.inversion``. For each the share of every group (its classes, or the acquisition sites
that the data set names) among its training images, as read from the running statistics that it sent by a server with
public images (the test images), and the truth. Beside the error: that of who answers the public shares without looking.
"""

from __future__ import annotations

import argparse
import json

import numpy as np
import torch

from fedsec.images import to_images
from fedsec.log.files import write_whole
from fedsec.probes.hints import ROUNDS, GroupReader
from fedsec.probes.replica import Replica
from fedsec.types import Dataset, Features, Indices, Vector
from studies.leakage.sites import Site, chosen_data, shared_out, site_parser, sites


def groups_of(data: Dataset, index: Indices, by: str) -> Indices:
    """Which group each image is of."""
    return np.asarray((data.labels if by == "class" else data.sites)[index])


def read(data: Dataset, found: list[Site], options: argparse.Namespace) -> tuple[Features, Features, Vector]:
    """(sites, groups) true shares and those read, and (groups,) the public ones."""
    public = groups_of(data, data.test, options.by)
    own, _ = shared_out(data, options)
    count = int(public.max()) + 1
    replica = Replica(found[0].view.recipe, found[0].view.before)
    images = to_images(data.rows(data.test).pixels)
    reader = GroupReader(replica, images, public, examples=options.images, rounds=options.rounds, seed=options.seed)
    truth = [
        np.bincount(groups_of(data, mine, options.by), minlength=count) / options.images
        for mine in own.reshape(options.sites, options.images)
    ]
    return np.stack(truth), np.stack([reader(site.view) for site in found]), np.bincount(public) / len(public)


def main() -> None:
    parser = site_parser(__doc__)
    parser.add_argument("--by", default="class", choices=("class", "site"), help="what the groups are")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="rounds of public images to learn from")
    options = parser.parse_intermixed_args()
    torch.set_num_threads(1)
    data = chosen_data(options)
    if options.by == "site" and len(data.site_names) < 2:
        parser.error("--by site: this data set names no acquisition sites; take --by class")
    truth, found, public = read(data, sites(data, options), options)
    error, blind = np.abs(found - truth).mean(), np.abs(public - truth).mean()
    right = (found.argmax(axis=1) == truth.argmax(axis=1)).mean()
    likely = (public.argmax() == truth.argmax(axis=1)).mean()
    alike = np.corrcoef((found - public).ravel(), (truth - public).ravel())[0, 1]
    print("| groups | images, batch, steps | sites | error | blind | correlation | largest group right | blind |")
    print("|---|---|---|---|---|---|---|---|")
    trained = f"{options.images}, {options.batch}, {options.images // options.batch}"
    scores = f"{error:.3f} | {blind:.3f} | {alike:.2f} | {right:.0%} | {likely:.0%}"
    print(f"| {options.by} ({len(public)}) | {trained} | {options.sites} | {scores} |")
    if options.json:
        write_whole(
            options.json,
            json.dumps({"truth": truth.tolist(), "read": found.tolist(), "public": public.tolist()}) + "\n",
        )


if __name__ == "__main__":
    main()
