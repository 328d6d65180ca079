"""Decode foreign image files once: check, crop to the central square, resize with a Lanczos filter, in parallel.

Threads, not processes: Pillow and hashlib release the interpreter lock, and a thread costs no start-up.
A file that Pillow cannot turn into 8-bit gray or RGB without guessing is a problem, never an exception:
palettes and 1-bit become RGB or gray, a fully opaque alpha channel is dropped, the camera's orientation is applied;
transparency, CMYK, LAB, 16-bit gray, floating-point and multi-frame files are refused (a 16-bit colour PNG is
read by its high bytes).
"""

from __future__ import annotations

import hashlib
import io
import os
import stat
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from fedsec.datasets.problems import BOMB, CHANNELS, MODE, NOT_AN_IMAGE, UNREADABLE, Problem
from fedsec.datasets.progress import bar
from fedsec.datasets.raw import Raw, Survey
from fedsec.types import Pixels

FORMATS = ("JPEG", "PNG", "BMP", "TIFF")
MAX_SIDE_PRODUCT = 64_000_000
"""Pixels of the largest image taken (a 24-megapixel camera fits); below Pillow's own bomb warning."""
MAX_BYTES = 256 << 20

S = TypeVar("S")
T = TypeVar("T")


def file_hashes(survey: Survey) -> list[str]:
    """BLAKE2b of each item's bytes, '' when unreadable or too large. 4,000 small files take a fraction of a second."""

    def digest(file: str) -> str:
        content, _ = _bytes(survey.root / file, file)
        return hashlib.blake2b(content, digest_size=16).hexdigest() if content else ""

    return list(_in_threads(digest, [item.file for item in survey.items]))


def decode_all(survey: Survey, hashes: list[str], size: int, progress: bool) -> tuple[Raw, list[Problem]]:
    """Decode every item. Returns the good ones in order, and every problem, the survey's first.

    ``hashes``: the contents of each item (see file_hashes).
    """
    found = list(survey.problems)
    kept: list[int] = []
    pixels: Pixels = np.empty((len(survey.items), size, size, 3), np.uint8)
    gray: list[bool] = []
    with warnings.catch_warnings(), bar("decoding", len(survey.items), progress) as step:
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        results = _in_threads(lambda item: decode(survey.root / item.file, item.file, size), survey.items)
        for i, result in enumerate(results):
            if isinstance(result, Problem):
                found.append(result)
            else:
                pixels[len(kept)] = result
                kept.append(i)
                gray.append(bool((result == result[:, :, :1]).all()))
            step(i + 1)
    odd = _odd_channels(gray)
    found += [Problem(CHANNELS, survey.items[kept[k]].file, _kind(gray[k])) for k in odd]
    good = np.setdiff1d(np.arange(len(kept)), odd)
    chosen = [kept[k] for k in good]
    items = [survey.items[i] for i in chosen]
    channels = 1 if gray and gray[good[0]] else 3
    raw = Raw(
        pixels=pixels[good, :, :, :channels] if odd else pixels[: len(kept), :, :, :channels],
        labels=[item.label for item in items],
        groups=[item.group for item in items],
        sites=[item.site for item in items],
        splits=[item.split for item in items],
        contents=[hashes[i] for i in chosen],
    )
    return raw, found


def decode(path: Path, name: str, size: int) -> Pixels | Problem:
    """One file as (size, size, 3) uint8, or what is wrong with it."""
    content, problem = _bytes(path, name)
    if problem:
        return problem
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            if image.width * image.height > MAX_SIDE_PRODUCT:
                return Problem(BOMB, name, f"{image.width} x {image.height} pixels")
            frames = int(getattr(image, "n_frames", 1))
            if frames > 1:
                return Problem(MODE, name, f"{frames} frames")
            image.load()
            upright = ImageOps.exif_transpose(image)
            plain = _plain(upright)
            if plain is None:
                return Problem(MODE, name, f"mode {image.mode}")
            return np.asarray(squared(plain, size).convert("RGB"))
    except UnidentifiedImageError:
        return Problem(NOT_AN_IMAGE, name)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        return Problem(BOMB, name, str(error))
    except (
        Exception
    ) as error:  # Pillow's decoders raise almost anything on a broken file; each becomes a listed problem
        return Problem(UNREADABLE, name, f"{type(error).__name__}: {error}")


def squared(image: Image.Image, size: int) -> Image.Image:
    """The largest central square, resized with a Lanczos filter.

    Cropped first: Pillow's ``resize(box=...)`` lets pixels outside the box bleed into the edge.
    """
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    return image.crop((left, top, left + side, top + side)).resize((size, size), Image.Resampling.LANCZOS)


def _plain(image: Image.Image) -> Image.Image | None:
    """The image in mode L or RGB when that loses nothing, else None."""
    if image.mode in ("L", "RGB"):
        return image
    if image.mode == "1":
        return image.convert("L")
    if image.mode == "P" and "transparency" not in image.info:
        return image.convert("RGB")
    if image.mode in ("LA", "RGBA", "PA", "P"):
        full = image.convert("RGBA")
        lowest, _ = full.getchannel("A").getextrema()
        return full.convert("RGB") if lowest == 255 else None
    return None


def _bytes(path: Path, name: str) -> tuple[bytes, Problem | None]:
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            return b"", Problem(UNREADABLE, name, "not a regular file")
        if status.st_size > MAX_BYTES:
            return b"", Problem(BOMB, name, f"{status.st_size >> 20} MiB")
        content = path.read_bytes()
    except OSError as error:
        return b"", Problem(UNREADABLE, name, error.strerror or type(error).__name__)
    return content, None if content else Problem(UNREADABLE, name, "empty file")


def _odd_channels(gray: list[bool]) -> list[int]:
    """Positions of the images whose channel count is the rarer one; colour wins a tie."""
    counts = Counter(gray)
    usual = counts[True] > counts[False]
    return [k for k, is_gray in enumerate(gray) if is_gray != usual]


def _kind(gray: bool) -> str:
    return "gray among RGB" if gray else "RGB among gray"


def _in_threads(work: Callable[[S], T], items: Iterable[S]) -> Iterator[T]:
    """``work`` over ``items``, results in order; what has not begun is dropped when the reader stops."""
    pool = ThreadPoolExecutor(os.cpu_count() or 1)
    try:
        yield from pool.map(work, items)
    finally:
        pool.shutdown(cancel_futures=True)
