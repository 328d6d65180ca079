"""Attacks of ``studies.leakage.inversion`` over several seeds:
``python -m studies.leakage.pooled FILE FILE ...``, one a seed.

The sites of one seed share a global model, so a seed counts once: Student's 95 % interval over the seeds' means; no
interval for one seed. An older file's SSIM stands under its own name, and never beside the new one's.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Sequence
from pathlib import Path

from fedsec.errors import ConfigError
from fedsec.metrics.intervals import by_seed
from fedsec.metrics.measures import HEADINGS, ssim_of

Row = dict[str, float]
DIGITS = {"psnr": 1}


def rows_of(files: Sequence[Path]) -> dict[str, list[list[Row]]]:
    """Attack -> the rows of each seed, one a site; a seed that lacks the attack is left out."""
    found: dict[str, list[list[Row]]] = {}
    for file in files:
        kept: dict[str, Row] = json.loads(file.read_text(encoding="utf-8"))
        attacks = dict.fromkeys(key.rsplit(" ", 1)[0] for key in kept)
        for attack in attacks:
            found.setdefault(attack, []).append([row for key, row in kept.items() if key.rsplit(" ", 1)[0] == attack])
    return found


def table(found: dict[str, list[list[Row]]]) -> list[str]:
    """A line an attack. Raises ConfigError where files hold two measures of SSIM."""
    measures = {ssim_of(row) for seeds in found.values() for rows in seeds for row in rows}
    if len(measures) > 1:
        raise ConfigError("the files hold two measures of SSIM, which are not comparable: give those of one")
    keys = ("iip-pixels", *measures, "rdlv", "psnr")
    heads = " | ".join(HEADINGS[key] for key in keys)
    lines = [
        f"| attack | seeds | sites | {heads} | lowest RDLV of a site |",
        "|---|---|---|" + "---|" * (len(keys) + 1),
    ]
    for attack, seeds in found.items():
        cells = [cell(key, seeds) for key in keys]
        least = min(row["rdlv"] for rows in seeds for row in rows)
        sites = sum(map(len, seeds))
        lines.append(f"| {attack} | {len(seeds)} | {sites} | {' | '.join(cells)} | {least:.2f} |")
    return lines


def cell(key: str, seeds: list[list[Row]]) -> str:
    """'0.94 (0.78 to 1.09)'; the mean of the seeds' means."""
    over, digits = by_seed([[row.get(key, math.nan) for row in rows] for rows in seeds]), DIGITS.get(key, 2)
    if math.isnan(over.mean):
        return "not measured"
    ends = "" if math.isnan(over.low) else f" ({over.low:.{digits}f} to {over.high:.{digits}f})"
    return f"{over.mean:.{digits}f}{ends}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path, help="--json files of studies.leakage.inversion, one a seed")
    print("\n".join(table(rows_of(parser.parse_args().files))))


if __name__ == "__main__":
    main()
