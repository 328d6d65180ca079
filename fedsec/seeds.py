"""Randomness has an address: the same address gives the same numbers, in whatever order things run."""

from __future__ import annotations

import hashlib

import numpy as np


def address_seed(seed: int, *address: str | int) -> int:
    """A 63-bit seed for ``(seed, *address)``: BLAKE2b of its canonical text."""
    text = "\x1f".join([str(int(seed)), *(f"{type(part).__name__}:{part}" for part in address)])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 1


def stream(seed: int, *address: str | int) -> np.random.Generator:
    """A numpy generator for one address.

    >>> bool(stream(0, "client", 3).integers(100) == stream(0, "client", 3).integers(100))
    True
    """
    return np.random.default_rng(address_seed(seed, *address))
