"""Files that are there whole or not at all, and files that are kept packed beside where they would be."""

from __future__ import annotations

import lzma
import os
from pathlib import Path

from fedsec.errors import RunError

PACKED = ".xz"


def write_whole(path: Path, text: str) -> None:
    """Write beside, then rename: a reader sees the old file or the new one, never half of it."""
    write_bytes_whole(path, text.encode("utf-8"))


def write_bytes_whole(path: Path, content: bytes) -> None:
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        beside.write_bytes(content)
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def packed(path: Path) -> Path:
    """Where ``path`` is kept packed: ``events.jsonl.xz`` for ``events.jsonl``."""
    return path.with_name(path.name + PACKED)


def is_there(path: Path) -> bool:
    """Whether ``path`` is a file, as it is or packed."""
    return path.is_file() or packed(path).is_file()


def read_bytes(path: Path) -> bytes:
    """Of ``path`` as it is, or of what is packed where there is no such file. Raises OSError where neither is there,
    RunError for what cannot be unpacked."""
    if path.is_file() or not packed(path).is_file():
        return path.read_bytes()
    try:
        return lzma.decompress(packed(path).read_bytes())
    except lzma.LZMAError as error:
        raise RunError(f"{packed(path)}: not an xz file ({error}); restore it") from error


def read_text(path: Path) -> str:
    return read_bytes(path).decode("utf-8")


def write_packed(path: Path, content: bytes) -> None:
    """``content`` as what ``path`` would hold, packed; the same bytes whenever it is packed."""
    write_bytes_whole(packed(path), lzma.compress(content, preset=9 | lzma.PRESET_EXTREME))


def pack(path: Path) -> None:
    """``path`` packed in its place."""
    write_packed(path, path.read_bytes())
    path.unlink()


def unpack(path: Path) -> None:
    """``path`` as it was in place of what is packed, where it is packed alone: to be written to."""
    if not path.is_file() and packed(path).is_file():
        write_bytes_whole(path, read_bytes(path))
        packed(path).unlink()
