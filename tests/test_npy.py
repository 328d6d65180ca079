"""What a tensor of a reply may say of itself: any bytes are that tensor or a ReplyError, nothing else."""

from __future__ import annotations

import io
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, MetricRecord, RecordDict
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from fedsec.errors import ReplyError
from fedsec.flower.messages import Enrolled, read_replies, to_record
from fedsec.npy import ROOM, read_tensor
from fedsec.weights import Layout

SHAPE = (3, 4)
TRUE = np.arange(12, dtype=np.float32).reshape(SHAPE)


def file_of(value: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, value)
    return stream.getvalue()


def npy(header: bytes, body: bytes = TRUE.tobytes()) -> bytes:
    """``header`` as it stands, behind a true beginning, before a true tensor."""
    return b"\x93NUMPY\x01\x00" + (len(header) + 1).to_bytes(2, "little") + header + b"\n" + body


def saying(descr: str = "'<f4'", order: str = "False", shape: str = "(3, 4)") -> bytes:
    return npy(f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}".encode())


LIES: dict[str, bytes] = {
    "elements of 2 GiB": saying("'|V2147483647'"),
    "texts of 2 GiB": saying("'|S2147483647'"),
    "texts of 2e9": saying("'|S2000000000'"),
    "texts of no length": saying("'|S0'"),
    "objects": saying("'|O'"),
    "structured": saying("[('a', '<f4')]"),
    "structured, huge": saying("[('a', '<f4', (1000000000,))]"),
    "a dtype with a shape": saying("('<f4', (1000000,))"),
    "no dtype": saying("()"),
    "dtype of no word": saying("''"),
    "dtype None": saying("None"),
    "another byte order": saying("'>f4'"),
    "numbers of 8 bytes": saying("'<f8'"),
    "never closed": npy(b"{'descr': ("),
    "text never closed": npy(b"{'descr': '<f4"),
    "bad indent": npy(b"  {\n 'a'\n   "),
    "keys of two types": npy(b"{1: 2, 'descr': '<f4', (1,): 3}"),
    "a key that cannot be hashed": npy(b"{[]: 1}"),
    "not a dict": npy(b"[1, 2, 3]"),
    "deep": npy(b"(" * 3000),
    "deeper": npy(b"-" * 3000 + b"1"),
    "a long number": npy(b"{'descr': '<f4', 'fortran_order': False, 'shape': (" + b"9" * 3900 + b",), }"),
    "no bytes of text": npy(b"\xff\xfe\x00"),
    "empty header": npy(b""),
    "a key too many": npy(b"{'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), 'x': 1, }"),
    "column by column": saying(order="True"),
    "an order that is no truth": saying(order="2"),
    "elements without end": saying(shape="(4000000000000,)"),
    "below zero": saying(shape="(-3, -4)"),
    "another shape of as many": saying(shape="(4, 3)"),
    "version 2": b"\x93NUMPY\x02\x00" + file_of(TRUE)[8:],
    "version 9": b"\x93NUMPY\x09\x00" + file_of(TRUE)[8:],
    "a zip": b"PK\x03\x04" + file_of(TRUE),
    "a pickle": b"\x80\x04N.",
    "nothing": b"",
    "the beginning alone": b"\x93NUMPY\x01\x00",
    "header cut short": file_of(TRUE)[:60],
    "header longer than all": b"\x93NUMPY\x01\x00\xff\xff" + file_of(TRUE)[10:],
    "tensor cut short": file_of(TRUE)[:-1],
    "a byte too many": file_of(TRUE) + b"\0",
    "much too long": file_of(TRUE) + bytes(2 * ROOM),
}


def test_a_true_file_is_read_to_the_bit_and_can_be_written_to() -> None:
    for value in (TRUE, np.float32(2.5) * np.ones(()), np.zeros((0, 4), np.float32), np.arange(3, dtype=np.int64)):
        found = read_tensor(file_of(value), value.shape, value.dtype.str)
        assert (found.dtype, found.shape, found.tobytes()) == (value.dtype, value.shape, value.tobytes())
        assert found.flags.writeable


@pytest.mark.parametrize("name", sorted(LIES))
def test_a_lying_tensor_is_refused_and_nothing_is_allocated(name: str) -> None:
    with pytest.raises(ReplyError):
        read_tensor(LIES[name], SHAPE, "<f4")


def message(node: int, data: bytes) -> Any:
    """One reply as the server meets it, with ``data`` for its only tensor."""
    record = to_record({"w": TRUE})
    record["w"] = Array("float32", SHAPE, "numpy.ndarray", data)
    content = RecordDict({"arrays": record, "metrics": MetricRecord({"num-examples": 4})})
    return SimpleNamespace(metadata=SimpleNamespace(src_node_id=node), content=content, has_error=lambda: False)


def test_whatever_header_comes_the_round_goes_on_without_its_sender() -> None:
    asked = [Enrolled(100 + i, i, f"site {i}") for i in range(len(LIES) + 1)]
    replies = [message(100 + i, data) for i, data in enumerate([file_of(TRUE), *LIES.values()])]
    fits, dropped = read_replies(replies, asked, Layout.of({"w": TRUE}))
    assert [fit.partition for fit in fits] == [0]
    np.testing.assert_array_equal(fits[0].arrays["w"], TRUE)
    assert [(d.partition, d.site) for d in dropped] == [(i, f"site {i}") for i in range(1, len(asked))]
    assert all(d.reason.startswith("w ") for d in dropped), [d.reason for d in dropped]


def agrees(data: bytes, shape: tuple[int, ...], dtype: str) -> None:
    """Either a ReplyError, or what numpy reads too."""
    try:
        found = read_tensor(data, shape, dtype)
    except ReplyError:
        return
    expected = np.load(io.BytesIO(data), allow_pickle=False)
    assert (found.dtype.str, found.shape) == (dtype, shape)
    assert found.tobytes() == expected.tobytes()


@given(st.binary(max_size=300), st.booleans())
@settings(max_examples=200, deadline=None)
def test_any_bytes_are_the_tensor_or_a_reply_error(junk: bytes, begun: bool) -> None:
    agrees(npy(junk) if begun else junk, SHAPE, "<f4")


SIGNS = ["{", "}", "(", ")", "[", "]", ": ", ", ", "\n", "  ", "'", "\\", "#", "lambda: 0"]
VALUES = ["'<f4'", "'|S2147483647'", "'|O'", "False", "True", "None", "3", "(3, 4)", "-1", "10**9"]
WORDS = st.sampled_from(["'descr'", "'fortran_order'", "'shape'", *SIGNS, *VALUES])
"""What headers are made of, and what they should not be."""


@given(st.lists(WORDS, max_size=16), st.binary(max_size=60))
@example(["{", "'descr'", ": ", "'<f4'", ", ", "'fortran_order'", ": ", "False", ", ", "'shape'", ": ", "(3, 4)"], b"")
@settings(max_examples=300, deadline=None)
def test_any_words_of_a_header_are_the_tensor_or_a_reply_error(words: list[str], body: bytes) -> None:
    agrees(npy("".join(words).encode(), body), SHAPE, "<f4")


@given(
    arrays(st.sampled_from(["<f4", "<f8", "<i8", "|u1"]), array_shapes(min_dims=0, max_side=4)),
    st.integers(0, 200),
    st.binary(max_size=4),
    st.integers(0, 4),
)
@settings(max_examples=300, deadline=None)
def test_a_true_file_with_some_bytes_changed_is_the_tensor_or_a_reply_error(
    value: np.ndarray, place: int, put: bytes, taken: int
) -> None:
    data = file_of(value)
    agrees(data, value.shape, value.dtype.str)
    agrees(data[:place] + put + data[place + taken :], value.shape, value.dtype.str)
