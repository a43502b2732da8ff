"""Tests `masking` against RFC 6455 §5.3, byte by byte, and its documented arguments."""

from __future__ import annotations

import mmap
import sys
from array import array
from contextlib import suppress
from ctypes import c_uint16
from itertools import cycle, islice
from operator import xor
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import SimpleNamespace

KEY = b"\x37\xfa\x21\x3d"
NOISE = bytes(i * 167 % 251 for i in range(70_000))


def masked(data: bytes, key: bytes, offset: int = 0) -> bytes:
    """RFC 6455 §5.3: "transformed-octet-i = original-octet-i XOR masking-key-octet-j"."""
    return bytes(map(xor, data, islice(cycle(key), offset % 4, None)))


def check(twin: SimpleNamespace, start: int, size: int, offset: int) -> None:
    """Mask NOISE[start:][:size], copied and in place; the bytes around it stay unchanged."""
    source = memoryview(NOISE)[start : start + size]
    expected = masked(source, KEY, offset)
    result = twin.apply_mask(source, KEY, offset)
    assert result == expected
    assert type(result) is bytes

    target = bytearray(NOISE[: start + size + 9])
    with memoryview(target) as whole, whole[start : start + size] as view:
        assert twin.apply_mask_inplace(view, KEY, offset) is None
    assert target == NOISE[:start] + expected + NOISE[start + size :][:9]


def test_the_examples_of_rfc_6455(twin: SimpleNamespace) -> None:
    assert twin.apply_mask(b"Hello", KEY) == b"\x7f\x9f\x4d\x51\x58"
    assert twin.apply_mask(b"\x7f\x9f\x4d\x51\x58", KEY) == b"Hello"


@pytest.mark.parametrize("start", range(8), ids="start={}".format)
def test_every_small_size_at_every_offset_and_alignment(twin: SimpleNamespace, start: int) -> None:
    for size in range(71):
        for offset in range(8):
            check(twin, start, size, offset)


@pytest.mark.parametrize("size", [4096, 65536])
@pytest.mark.parametrize("around", range(-5, 6), ids="{:+}".format)
def test_sizes_around_thresholds(twin: SimpleNamespace, size: int, around: int) -> None:
    for offset in range(4):
        check(twin, offset + 1, size + around, offset)


@pytest.mark.parametrize(
    "offset", [2**31 - 1, 2**32, 2**32 + 1, 2**63 - 1, 2**64 + 2, 2**70 + 3, True]
)
def test_offset_may_be_any_number(twin: SimpleNamespace, offset: int) -> None:
    check(twin, 0, 23, offset)


@pytest.mark.parametrize("key", [bytes(4), b"\xff\xff\xff\xff", b"\x00\x00\x00\x80"], ids=bytes.hex)
def test_key_may_be_any_four_bytes(twin: SimpleNamespace, key: bytes) -> None:
    assert twin.apply_mask(NOISE[:37], key, 3) == masked(NOISE[:37], key, 3)


@given(data=st.binary(max_size=300), key=st.binary(min_size=4, max_size=4), cut=st.integers(0, 300))
def test_in_pieces_as_in_one(twin: SimpleNamespace, data: bytes, key: bytes, cut: int) -> None:
    whole = twin.apply_mask(data, key)
    head, tail = data[:cut], data[cut:]
    assert twin.apply_mask(head, key) + twin.apply_mask(tail, key, len(head)) == whole
    assert twin.apply_mask(whole, key) == data
    target = bytearray(whole)
    with memoryview(target) as view:
        twin.apply_mask_inplace(view[cut:], key, len(head))
        twin.apply_mask_inplace(view[:cut], key)
    assert target == data


def test_arguments_have_names(twin: SimpleNamespace) -> None:
    target = bytearray(b"abc")
    twin.apply_mask_inplace(buffer=target, key=KEY, offset=1)
    assert target == twin.apply_mask(data=b"abc", key=KEY, offset=1) == masked(b"abc", KEY, 1)


# Buffers of all kinds -----------------------------------------------------------


class Misleading(bytes):
    """Only the bytes themselves count."""

    def __bytes__(self) -> bytes:
        return b"wrong"

    def __len__(self) -> int:
        return 99

    def __iter__(self) -> Any:
        return iter(b"wrong")


def anonymous_map(content: bytes) -> mmap.mmap:
    mapped = mmap.mmap(-1, len(content))
    mapped[:] = content
    return mapped


WRITABLE: dict[str, Callable[[], Any]] = {
    "bytearray": lambda: bytearray(NOISE[:37]),
    "memoryview": lambda: memoryview(bytearray(NOISE[:37])),
    "array-of-bytes": lambda: array("B", NOISE[:37]),
    "array-of-int32": lambda: array("i", NOISE[:36]),
    "array-of-double": lambda: array("d", NOISE[:40]),
    "ctypes-array": lambda: (c_uint16 * 19).from_buffer_copy(NOISE),
    "ctypes-scalar": lambda: c_uint16(0x1234),
    "mmap": lambda: anonymous_map(NOISE[:37]),
    "view-of-int64": lambda: memoryview(bytearray(NOISE[:40])).cast("q"),
    "two-dimensional": lambda: memoryview(bytearray(NOISE[:40])).cast("B", [5, 8]),
    "three-dimensional": lambda: memoryview(bytearray(NOISE[:48])).cast("h", [2, 3, 4]),
    "zero-dimensional": lambda: memoryview(bytearray(NOISE[:4])).cast("i", []),
    "empty-bytearray": bytearray,
    "empty-view": lambda: memoryview(bytearray(8))[3:3],
    "empty-array": lambda: array("d"),
    "empty-ctypes-array": lambda: (c_uint16 * 0)(),
}
NOT_CONTIGUOUS: dict[str, Callable[[], Any]] = {
    "every-third": lambda: memoryview(bytearray(NOISE[:50]))[::3],
    "backwards": lambda: memoryview(bytearray(NOISE[:37]))[::-1],
    "every-second-int32": lambda: memoryview(array("i", NOISE[:40]))[::2],
}
READ_ONLY: dict[str, Callable[[], Any]] = {
    "bytes": lambda: NOISE[:37],
    "bytes-subclass": lambda: Misleading(NOISE[:37]),
    "empty-bytes": bytes,
    "read-only-view": lambda: memoryview(bytearray(NOISE[:37])).toreadonly(),
    "read-only-and-not-contiguous": lambda: memoryview(NOISE[:37])[::-1],
}


def kinds(*groups: dict[str, Callable[[], Any]]) -> Any:
    rows = [row for group in groups for row in group.items()]
    return pytest.mark.parametrize("make", [make for _, make in rows], ids=[id_ for id_, _ in rows])


@kinds(WRITABLE, NOT_CONTIGUOUS, READ_ONLY)
def test_data_of_any_kind_is_masked_into_bytes(
    twin: SimpleNamespace, make: Callable[[], Any]
) -> None:
    data = make()
    content = memoryview(data).tobytes()
    assert twin.apply_mask(data, KEY, 1) == masked(content, KEY, 1)
    assert memoryview(data).tobytes() == content


@kinds(WRITABLE)
def test_writable_buffer_of_any_kind_is_masked_in_place(
    twin: SimpleNamespace, make: Callable[[], Any]
) -> None:
    target = make()
    content = memoryview(target).tobytes()
    twin.apply_mask_inplace(target, KEY, 1)
    assert memoryview(target).tobytes() == masked(content, KEY, 1)


@kinds(READ_ONLY)
def test_read_only_buffer_is_not_masked_in_place(
    twin: SimpleNamespace, make: Callable[[], Any]
) -> None:
    target = make()
    content = memoryview(target).tobytes()
    words = f"a writable bytes-like object is required, not {type(target).__name__!r}"
    with pytest.raises(TypeError, match=f"^{words}$"):
        twin.apply_mask_inplace(target, KEY)
    assert memoryview(target).tobytes() == content


@kinds(NOT_CONTIGUOUS)
def test_buffer_with_gaps_is_not_masked_in_place(
    twin: SimpleNamespace, make: Callable[[], Any]
) -> None:
    target = make()
    content = target.tobytes()
    with pytest.raises(BufferError, match=r"^a C-contiguous buffer is required$"):
        twin.apply_mask_inplace(target, KEY)
    assert target.tobytes() == content


@pytest.mark.parametrize(
    "key",
    [
        bytearray(KEY),
        memoryview(KEY),
        memoryview(KEY[::-1])[::-1],
        array("B", KEY),
        array("i", KEY),
        Misleading(KEY),
    ],
    ids=["bytearray", "memoryview", "backwards", "array", "one-int32", "bytes-subclass"],
)
def test_key_may_be_any_buffer_of_four_bytes(twin: SimpleNamespace, key: Any) -> None:
    assert twin.apply_mask(NOISE[:9], key, 1) == masked(NOISE[:9], KEY, 1)
    target = bytearray(NOISE[:9])
    twin.apply_mask_inplace(target, key, 1)
    assert target == masked(NOISE[:9], KEY, 1)


def test_key_may_stand_in_the_buffer_that_it_masks(twin: SimpleNamespace) -> None:
    target = bytearray(KEY + NOISE[:20])
    twin.apply_mask_inplace(target, memoryview(target)[:4])
    assert target == masked(KEY + NOISE[:20], KEY)


def test_column_major_buffer_is_read_in_logical_order(twin: SimpleNamespace) -> None:
    exporter = pytest.importorskip("_testbuffer", reason="comes with CPython's own tests")
    flags = exporter.ND_FORTRAN | exporter.ND_WRITABLE
    data = exporter.ndarray([1, 2, 3, 4, 5, 6], shape=[2, 3], flags=flags)
    assert twin.apply_mask(data, KEY) == masked(memoryview(data).tobytes(), KEY)
    with pytest.raises(BufferError, match=r"^a C-contiguous buffer is required$"):
        twin.apply_mask_inplace(data, KEY)


class LikeNumPy:
    """An exporter that raises ValueError where the standard library raises BufferError."""

    def __init__(self, view: memoryview) -> None:
        self.view = view

    def __buffer__(self, flags: int) -> memoryview:
        import inspect

        if flags & inspect.BufferFlags.WRITABLE and self.view.readonly:
            raise ValueError("buffer source array is read-only")
        if not flags & inspect.BufferFlags.STRIDES and not self.view.c_contiguous:
            raise ValueError("ndarray is not C-contiguous")
        return self.view


@pytest.mark.skipif(sys.version_info < (3, 12), reason="PEP 688 came with Python 3.12")
def test_exporter_may_refuse_by_value_error(twin: SimpleNamespace) -> None:
    gaps = LikeNumPy(memoryview(bytearray(NOISE[:40]))[::2])
    assert twin.apply_mask(gaps, KEY) == masked(NOISE[:40:2], KEY)
    with pytest.raises(BufferError, match=r"^a C-contiguous buffer is required$"):
        twin.apply_mask_inplace(gaps, KEY)
    with pytest.raises(TypeError, match=r"^a writable bytes-like object is required, not"):
        twin.apply_mask_inplace(LikeNumPy(memoryview(NOISE[:40])), KEY)


# Wrong arguments -----------------------------------------------------------------

BYTES_LIKE = "a bytes-like object is required, not {!r}"
WRITABLE_BYTES_LIKE = "a writable bytes-like object is required, not {!r}"
FOUR_BYTES = "mask key must be 4 bytes, not {}"
NOT_NEGATIVE = "offset must be at least 0, not {}"


def refusal(call: Callable[..., object], *args: object) -> tuple[str, str]:
    with pytest.raises((TypeError, ValueError)) as caught:
        call(*args)
    return caught.type.__name__, str(caught.value)


@pytest.mark.parametrize("data", ["abc", None, 5, [1, 2], object()], ids=lambda x: type(x).__name__)
def test_data_that_is_no_buffer_is_refused(twin: SimpleNamespace, data: object) -> None:
    name = type(data).__name__
    assert refusal(twin.apply_mask, data, KEY) == ("TypeError", BYTES_LIKE.format(name))
    assert refusal(twin.apply_mask_inplace, data, KEY) == (
        "TypeError",
        WRITABLE_BYTES_LIKE.format(name),
    )


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("abcd",), ("TypeError", BYTES_LIKE.format("str"))),
        ((None,), ("TypeError", BYTES_LIKE.format("NoneType"))),
        ((4,), ("TypeError", BYTES_LIKE.format("int"))),
        ((b"",), ("ValueError", FOUR_BYTES.format(0))),
        ((b"abc",), ("ValueError", FOUR_BYTES.format(3))),
        ((b"abcde",), ("ValueError", FOUR_BYTES.format(5))),
        ((array("i", [1, 2]),), ("ValueError", FOUR_BYTES.format(8))),
        ((KEY, -1), ("ValueError", NOT_NEGATIVE.format(-1))),
        ((KEY, -(2**70)), ("ValueError", NOT_NEGATIVE.format(-(2**70)))),
        ((KEY, -0.5), ("ValueError", NOT_NEGATIVE.format(-0.5))),
        ((KEY, 1.5), ("TypeError", "unsupported operand type(s) for &: 'float' and 'int'")),
        (
            (KEY, None),
            ("TypeError", "'<' not supported between instances of 'NoneType' and 'int'"),
        ),
        ((KEY, "1"), ("TypeError", "'<' not supported between instances of 'str' and 'int'")),
        # The error is about the first wrong argument.
        ((None, -1), ("TypeError", BYTES_LIKE.format("NoneType"))),
        ((b"abc", -1), ("ValueError", FOUR_BYTES.format(3))),
    ],
    ids=repr,
)
def test_wrong_key_or_offset_is_refused_and_nothing_is_masked(
    twin: SimpleNamespace, arguments: tuple[object, ...], expected: tuple[str, str]
) -> None:
    assert refusal(twin.apply_mask, NOISE[:9], *arguments) == expected
    assert refusal(twin.apply_mask, b"", *arguments) == expected
    target = bytearray(NOISE[:9])
    assert refusal(twin.apply_mask_inplace, target, *arguments) == expected
    assert target == NOISE[:9]


def test_data_is_complained_about_before_the_key(twin: SimpleNamespace) -> None:
    assert refusal(twin.apply_mask, 1, 2, -3) == ("TypeError", BYTES_LIKE.format("int"))
    assert refusal(twin.apply_mask_inplace, b"", 2, -3) == (
        "TypeError",
        WRITABLE_BYTES_LIKE.format("bytes"),
    )


def test_released_view_is_refused(twin: SimpleNamespace) -> None:
    view = memoryview(bytearray(4))
    view.release()
    words = "operation forbidden on released memoryview object"
    for call in (twin.apply_mask, twin.apply_mask_inplace):
        assert refusal(call, view, KEY) == ("ValueError", words)
    assert refusal(twin.apply_mask, b"", view) == ("ValueError", words)


@pytest.mark.parametrize(
    ("key", "offset"),
    [(KEY, 1), (b"abc", 0), (None, 0), (KEY, -1), (KEY, None)],
    ids=["success", "short-key", "no-key", "negative-offset", "no-offset"],
)
def test_no_buffer_is_held_afterwards(twin: SimpleNamespace, key: Any, offset: Any) -> None:
    data = bytearray(NOISE[:70])
    key = bytearray(key) if key else key
    for call in (twin.apply_mask, twin.apply_mask_inplace):
        with suppress(TypeError, ValueError):
            call(data, key, offset)
        # This raises BufferError if there is still a view.
        data.append(0)
        if key:
            key.append(0)
            key.pop()
