"""One tensor as numpy writes it to an .npy file, read from a stranger's bytes. No Flower, no torch."""

from __future__ import annotations

import math
import re

import numpy as np
import numpy.typing as npt

from fedsec.errors import ReplyError

ROOM = 4096
"""Bytes a header may take."""
MAGIC = b"\x93NUMPY\x01\x00"
"""Of format 1.0, which numpy writes whenever a header is shorter than 64 KiB."""
HEADER = re.compile(rb"\{'descr': '([^']{1,64})', 'fortran_order': (True|False), 'shape': (\([0-9, ]*\)), \} *\n")


def read_tensor(data: bytes, shape: tuple[int, ...], dtype: str) -> npt.NDArray[np.generic]:
    """The tensor of ``shape`` and ``dtype`` (as ``numpy.dtype.str`` says it) in ``data``; a new array.

    Guarantee: raises ReplyError, and nothing else, for any other bytes, and allocates nothing before it knows that
    they are those of this tensor. The header is held against the text numpy writes and never evaluated: numpy's own
    reader evaluates it, believes the dtype it names, and lets seven kinds of exception out. Departure: other spellings
    of the same header, versions 2.0 and 3.0, Fortran order and bytes after the tensor are refused too.
    """
    nbytes = math.prod(shape) * np.dtype(dtype).itemsize
    if len(data) > nbytes + ROOM:
        raise ReplyError(f"takes {len(data)} bytes, expected at most {nbytes + ROOM}")
    if data[: len(MAGIC)] != MAGIC:
        raise ReplyError("does not begin as an .npy file of version 1.0 does")
    begin = len(MAGIC) + 2
    start = begin + int.from_bytes(data[len(MAGIC) : begin], "little")
    found = HEADER.fullmatch(data[begin:start]) if start <= len(data) else None
    if found is None:
        raise ReplyError("has no .npy header as numpy writes it")
    its_dtype, column_order, its_shape = (text.decode("latin-1") for text in found.groups())
    if its_dtype != dtype:
        raise ReplyError(f"declares dtype {its_dtype}, expected {dtype}")
    if its_shape != str(shape):
        raise ReplyError(f"declares shape {its_shape}, expected {shape}")
    if column_order == "True":
        raise ReplyError("is stored column by column, expected row by row")
    if len(data) != start + nbytes:
        raise ReplyError(f"holds {len(data) - start} bytes after its header, expected {nbytes}")
    return np.frombuffer(data, dtype, math.prod(shape), start).reshape(shape).copy()
