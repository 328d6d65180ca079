"""The measures of today, on kept strips of pictures:
``python -m studies.measures.remeasure [--chest DIR] [--skin DIR]``.

docs/results keeps strips of truth, public prior and reconstructions in 8 bits. Each is cut into its images and
measured: SSIM of today's setting, RDLV, PSNR and, where the data set is at hand, the rank of the true image among all
images of its label, by pixels. Strips show some of the images that were attacked, so a row is of those and no other;
levels of 1/256 move an SSIM by less than 0.002. split-attacks/skin-cut-2.png has a palette of 256 colours,
which costs it more. A strip that was resized (leakage/federation-site-8-noise-0.01.png) is left out.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from fedsec.config import RunConfig
from fedsec.datasets import load
from fedsec.errors import ConfigError
from fedsec.images import to_images
from fedsec.metrics.iip import iip, pixels
from fedsec.metrics.measures import HEADINGS, SSIM
from fedsec.metrics.similarity import psnr, rdlv, ssim
from fedsec.types import Dataset, Images, Pixels, Vector

RESULTS = Path(__file__).parents[2] / "docs/results"
SETS = {"chest": ("data.modality=chest", "data.grouping=classes"), "skin": ("data.modality=skin",)}
"""Settings of each data set under which the strips' images were made."""
SPLIT = ("truth", "unsplit", "fsha", "white-box", "decoder")
PGSL = ("truth", "prior", "white-box", "adaptive", "adaptive-joint", "decoder", "decoder-oracle")
SAME = 5 / 127.5
"""Mean difference of two images that are one and the same: 5 levels, which a palette of 256 colours needs."""
DRAWN = ("truth", "prior", "row-space")


@dataclass(frozen=True)
class Strip:
    """A picture of docs/results: ``names`` of its rows, of ``size`` px images drawn ``enlarged``; ``across``: they are
    its columns, an image a row. ``of``: the data set."""

    file: str
    names: tuple[str, ...]
    size: int
    enlarged: int = 3
    across: bool = False
    of: str = "chest"


STRIPS = (
    Strip("leakage/one-image-site-0.png", (*DRAWN, "bn-only", "bn-update"), 64, across=True),
    Strip("leakage/one-image-released.png", ("truth", "prior", "released"), 64, across=True),
    Strip("leakage/one-image-128px.png", (*DRAWN, "bn-update"), 128, across=True),
    Strip("leakage/one-image-224px.png", (*DRAWN, "bn-update", "released"), 224, 1, across=True),
    *(Strip(f"leakage/one-batch-of-{n}-site-{site}.png", DRAWN, 64) for n in ("four", "eight") for site in (0, 1)),
    *(Strip(f"leakage/two-steps-of-four-site-{site}.png", DRAWN, 64) for site in (0, 1)),
    Strip("leakage/federation-site-4.png", DRAWN, 64, 1),
    Strip("pgsl/chest-pgsl.png", PGSL, 32),
    Strip("pgsl/chest-noise-1.png", (*PGSL[:3], "decoder"), 32),
    Strip("pgsl/skin-pgsl.png", PGSL, 32, of="skin"),
    Strip("pgsl/skin-no-peek-5.png", (*PGSL[:3], "decoder"), 32, of="skin"),
    Strip("split-attacks/chest-cut-2.png", SPLIT, 32),
    Strip("split-attacks/skin-cut-2.png", SPLIT, 32, of="skin"),
    Strip("split-attacks/chest-random-map.png", ("truth", "white-box", "adaptive", "adaptive-joint", "decoder"), 32),
)


@dataclass(frozen=True, eq=False)
class Measured:
    """One row of one strip: scores image by image; ``ranks`` None without the data set, ``leaks`` without a prior."""

    name: str
    near: Vector
    noise: Vector
    leaks: Vector | None
    ranks: Vector | None
    searched: float


def cut(strip: Strip, picture: Path) -> dict[str, Images]:
    """Name -> (n, c, s, s) in [-1, 1]. Raises ConfigError for a picture of another layout."""
    with Image.open(picture) as opened:
        shown = np.asarray(opened.convert("L" if strip.of == "chest" else "RGB"))
    shown = shown.reshape(*shown.shape[:2], -1)
    enlarged = strip.enlarged
    sheet = shown[::enlarged, ::enlarged]
    whole = all(
        np.array_equal(sheet, shown[down::enlarged, right::enlarged]) for down, right in np.ndindex(enlarged, enlarged)
    )
    step = strip.size + 1
    rows, columns = ((side - 1) // step for side in sheet.shape[:2])
    if (
        not whole
        or (columns if strip.across else rows) != len(strip.names)
        or sheet.shape[:2] != (rows * step + 1, columns * step + 1)
    ):
        raise ConfigError(f"{picture}: no strip of {len(strip.names)} times {strip.size} px at {enlarged}; mend STRIPS")
    tiles: Pixels = np.stack(
        [
            [sheet[1 + r * step : (r + 1) * step, 1 + c * step : (c + 1) * step] for c in range(columns)]
            for r in range(rows)
        ]
    )
    tiles = tiles.swapaxes(0, 1) if strip.across else tiles
    return {name: to_images(row) for name, row in zip(strip.names, tiles, strict=True)}


def measured(strip: Strip, images: dict[str, Images], data: Dataset | None) -> list[Measured]:
    """A row for all but the truth, in the strip's order; images are in the truth's order."""
    truth, found = images["truth"], []
    for name, drawn in images.items():
        if name == "truth":
            continue
        leaks = rdlv(truth, drawn, images["prior"][:1], pairing="matched").values if "prior" in images else None
        ranks, searched = (None, float("nan")) if data is None else ranked(truth, drawn, data)
        found.append(Measured(name, ssim(truth, drawn), psnr(truth, drawn), leaks, ranks, searched))
    return found


def ranked(truth: Images, drawn: Images, data: Dataset) -> tuple[Vector, float]:
    """(n,) rank of each true image among all of its label, and how many those are on average. Raises ConfigError where
    the data set does not hold it."""
    crowd = to_images(data.pixels)
    away = np.stack([np.abs(crowd - image).mean(axis=(1, 2, 3)) for image in truth])
    sources = away.argmin(axis=1)
    if away.min(axis=1).max() > SAME:
        raise ConfigError("a true image of the strip is not in the data set: give the one that it was made from")
    search = iip(drawn, crowd, data.labels, sources, pixels)
    return search.ranks, 1 / search.chance


def table(strips: dict[str, list[Measured]]) -> list[str]:
    lines = [
        f"| strip | attack | images | identified | rank of the true image, of | {HEADINGS[SSIM]} | RDLV | PSNR, dB |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, rows in strips.items():
        for row in rows:
            ranks = "not searched | "
            if row.ranks is not None:
                ranks = f"{100 * np.mean(row.ranks == 1):.0f} % | {listed(row.ranks, 0)} of {row.searched:.0f}"
            leaks = "no prior" if row.leaks is None else f"{np.nanmean(row.leaks):.2f}"
            near = f"{row.near.mean():.2f}" + (
                f" ({row.near.min():.2f} to {row.near.max():.2f})" if len(row.near) > 1 else ""
            )
            lines.append(
                f"| {name} | {row.name} | {len(row.near)} | {ranks} | {near} | {leaks} | {row.noise.mean():.1f} |"
            )
    return lines


def listed(values: Vector, digits: int) -> str:
    return ", ".join(f"{value:.{digits}f}" for value in values)


def remeasured(
    strips: tuple[Strip, ...], sources: dict[str, Path], folder: Path = RESULTS
) -> dict[str, list[Measured]]:
    """Every strip; ``sources``: where data sets lie, those not named are not searched."""
    found, read = {}, {}
    for strip in strips:
        key = strip.of, strip.size
        if strip.of in sources and key not in read:
            flat = {"data.source": str(sources[strip.of]), "data.size": strip.size, "train.task": "classifier"}
            flat |= dict(word.split("=") for word in SETS[strip.of])
            read[key] = load(RunConfig.from_flat(flat).data)
        found[strip.file] = measured(strip, cut(strip, folder / strip.file), read.get(key))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in SETS:
        parser.add_argument(f"--{name}", type=Path, help=f"the data set of the {name} strips, to search it")
    options = vars(parser.parse_args())
    sources = {name: path for name in SETS if (path := options[name])}
    print("\n".join(table(remeasured(STRIPS, sources))))
    print("\nIn brackets: the least and the largest of the images.")


if __name__ == "__main__":
    main()
