"""How well each trigger can be told in real images: ``python -m studies.measures.power SOURCE``.

Prints the power of ``fedsec.metrics.marks`` (share of stamped real test images above the 1 % threshold of clean ones)
at the source's strength and at others. The figures of docs/attacks.md are made by this script.
"""

from __future__ import annotations

import argparse

import torch

from fedsec.attacks.triggers import trigger
from fedsec.config import Attack, RunConfig
from fedsec.datasets import load
from fedsec.metrics.marks import mark_of

STRENGTHS = {
    "patch": (0.0, 0.2),
    "blended": (0.0, 0.1),
    "frequency": (0.0, 0.3),
    "stain": (0.0, 0.2),
    "warp": (0.0, 2.0, 4.0),
}
"""Trigger -> ``attack.blend``; 0 is the source's."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", help="'phantom', or a folder, CSV or .npz of real images")
    options = parser.parse_args()
    torch.set_num_threads(1)
    data = load(RunConfig.from_flat({"data.source": options.source}).data)
    print("| trigger | attack.blend | power |\n|---|---|---|")
    for name, strengths in STRENGTHS.items():
        for blend in strengths:
            attack = Attack(name, blend=blend)  # type: ignore[arg-type]
            mark = mark_of(trigger(attack, size=data.size, channels=data.channels), data, seed=0)
            print(f"| {name} | {blend or 'source'} | {mark.power:.2f} |", flush=True)


if __name__ == "__main__":
    main()
