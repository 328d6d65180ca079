"""Make docs/results small: ``python -m studies.pack docs/results``. Nothing that a number rests on is lost.

Run logs and lines of events (*.jsonl, but those that a study appends to) become .jsonl.xz, the cells of a matrix one
file a folder; every reader opens both. Pictures of at most 256 colours become palette images of the same pixels, the
others of 256 colours, but for the strips in MEASURED, whose pixels stay.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from PIL import Image

from fedsec.log import cells, files

APPENDED = ("adaptive",)
"""Folders whose lines a study goes on from, in the open."""
MEASURED = ("leakage", "pgsl", "pgsl-privacy", "split-attacks")
"""Folders whose pictures are strips that ``studies.measures.remeasure`` reads: their pixels stay."""
LEAST = 20_000
"""Bytes below which a picture is left as it is."""


def pack(root: Path) -> None:
    for folder in sorted({path.parent for path in root.rglob("*.jsonl")}):
        if folder.name in APPENDED:
            continue
        if folder.parent.parent.name == "matrix":
            cells.pack(folder)
        else:
            for path in folder.glob("*.jsonl"):
                files.pack(path)
    for path in sorted(root.rglob("*.png")):
        if path.stat().st_size > LEAST:
            shrink(path, exact=bool({*path.relative_to(root).parts} & {*MEASURED}))


def shrink(path: Path, *, exact: bool) -> None:
    """Write ``path`` anew where that makes it smaller. ``exact``: with the same pixels or not at all."""
    with Image.open(path) as opened:
        picture = opened.convert("RGBA" if opened.mode in ("RGBA", "LA") else "RGB")
    if picture.mode == "RGBA" and picture.getchannel("A").getextrema() == (255, 255):
        picture = picture.convert("RGB")
    few = picture.getcolors(256) is not None
    if picture.mode != "RGB" or (exact and not few):
        return
    beside = path.with_suffix(".new.png")
    picture.quantize(256, dither=Image.Dither.NONE if few else Image.Dither.FLOYDSTEINBERG).save(beside, optimize=True)
    with Image.open(beside) as written:
        same = written.convert("RGB").tobytes() == picture.tobytes()
    if beside.stat().st_size < path.stat().st_size and (same or not exact):
        beside.replace(path)
    beside.unlink(missing_ok=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path)
    pack(parser.parse_args().root)


if __name__ == "__main__":
    main()
