"""Tests `utf8` against the Unicode Standard's table of well-formed UTF-8 and `bytes.decode`."""

from __future__ import annotations

import mmap
from array import array
from contextlib import suppress
from itertools import pairwise, product
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import SimpleNamespace

KEY = b"\x37\xfa\x21\x3d"

# Table 3-7 of the Unicode Standard, "Well-Formed UTF-8 Byte Sequences" (also RFC 3629 §4).
TAIL = range(0x80, 0xC0)
WELL_FORMED: list[tuple[range, ...]] = [
    (range(0x80),),
    (range(0xC2, 0xE0), TAIL),
    (range(0xE0, 0xE1), range(0xA0, 0xC0), TAIL),
    (range(0xE1, 0xED), TAIL, TAIL),
    (range(0xED, 0xEE), range(0x80, 0xA0), TAIL),
    (range(0xEE, 0xF0), TAIL, TAIL),
    (range(0xF0, 0xF1), range(0x90, 0xC0), TAIL, TAIL),
    (range(0xF1, 0xF4), TAIL, TAIL, TAIL),
    (range(0xF4, 0xF5), range(0x80, 0x90), TAIL, TAIL),
]
ROWS = {lead: row for row in WELL_FORMED for lead in row[0]}

# The ends of each range in the table, and their neighbours.
CLASSES = sorted(
    {
        byte + step
        for row in WELL_FORMED
        for cell in row
        for byte, steps in ((cell[0], (-1, 0)), (cell[-1], (0, 1)))
        for step in steps
        if byte + step >= 0
    }
    | {0xFF}
)


def scan(data: bytes) -> tuple[int | None, bool]:
    """Use the table: where is the first impossible byte, and may the data end here?"""
    awaited: tuple[range, ...] = ()
    for i, byte in enumerate(data):
        row = awaited or ROWS.get(byte, (range(0),))
        if byte not in row[0]:
            return i, False
        awaited = row[1:]
    return None, not awaited


def check(twin: SimpleNamespace, data: bytes) -> None:
    """Validate `data` whole, and one byte at a time."""
    bad, complete = scan(data)
    assert twin.is_utf8(data) is complete, data

    validator = twin.Utf8Validator()
    assert validator.feed(data) is (bad is None), data
    assert validator.complete is complete, data

    validator = twin.Utf8Validator()
    for i in range(len(data)):
        assert validator.feed(data[i : i + 1]) is (bad is None or i < bad), (data, i)
        assert validator.complete is scan(data[: i + 1])[1], (data, i)


# Every byte where it matters -----------------------------------------------------------


def test_the_table_says_what_cpython_says() -> None:
    for data in map(bytes, product(range(256), repeat=2)):
        try:
            data.decode()
        except UnicodeDecodeError:
            assert not scan(data)[1]
        else:
            assert scan(data)[1]


def test_every_single_byte(twin: SimpleNamespace) -> None:
    for byte in range(256):
        check(twin, bytes([byte]))


def test_every_pair_of_bytes(twin: SimpleNamespace) -> None:
    for first in range(256):
        for second in range(256):
            check(twin, bytes([first, second]))


def test_every_class_of_three_bytes(twin: SimpleNamespace) -> None:
    for lead in range(0xDF, 0xF1):
        for second, third in product(CLASSES, CLASSES):
            check(twin, bytes([lead, second, third]))


@pytest.mark.parametrize("lead", [0xEF, 0xF0, 0xF1, 0xF3, 0xF4, 0xF5], ids=hex)
def test_every_class_of_four_bytes(twin: SimpleNamespace, lead: int) -> None:
    for rest in product(CLASSES, repeat=3):
        data = bytes([lead, *rest])
        bad, complete = scan(data)
        validator = twin.Utf8Validator()
        assert validator.feed(data) is (bad is None), data
        assert validator.complete is twin.is_utf8(data) is complete, data


def test_every_code_point(twin: SimpleNamespace) -> None:
    text = "".join(map(chr, [*range(0xD800), *range(0xE000, 0x110000)]))
    data = text.encode()
    assert twin.is_utf8(data)
    assert twin.decode_utf8(data) == text
    assert twin.decode_utf8(twin.apply_mask(data, KEY), KEY) == text


@pytest.mark.parametrize(
    "code_point",
    [
        *(0x0, 0x7F, 0x80, 0x7FF, 0x800, 0xFFF, 0x1000, 0xCFFF, 0xD000, 0xD7FF, 0xE000),
        *(0xFFFD, 0xFFFE, 0xFFFF, 0x10000, 0x3FFFF, 0x40000, 0xFFFFF, 0x100000, 0x10FFFF),
    ],
    ids="U+{:04X}".format,
)
def test_code_point_at_a_boundary(twin: SimpleNamespace, code_point: int) -> None:
    data = chr(code_point).encode()
    check(twin, data)
    assert twin.is_utf8(data)
    assert twin.decode_utf8(data) == chr(code_point)
    for size in range(1, len(data)):
        assert not twin.is_utf8(data[:size])


IMPOSSIBLE = {
    "lone continuation byte": (b"\x80", 0),
    "overlong U+0000": (b"\xc0\x80", 0),
    "overlong U+007F": (b"\xc1\xbf", 0),
    "overlong U+07FF": (b"\xe0\x9f\xbf", 1),
    "overlong U+FFFF": (b"\xf0\x8f\xbf\xbf", 1),
    "first surrogate": (b"\xed\xa0\x80", 1),
    "last surrogate": (b"\xed\xbf\xbf", 1),
    "surrogate pair": (b"\xed\xa0\xbd\xed\xb8\x80", 1),
    "U+110000": (b"\xf4\x90\x80\x80", 1),
    "five bytes": (b"\xf8\x88\x80\x80\x80", 0),
    "six bytes": (b"\xfc\x84\x80\x80\x80\x80", 0),
    "FE": (b"\xfe", 0),
    "FF": (b"\xff", 0),
    "two bytes cut by ASCII": (b"\xc3a", 1),
    "three bytes cut by ASCII": (b"\xe2\x82a", 2),
    "four bytes cut by ASCII": (b"\xf0\x9f\x98a", 3),
    "three bytes cut by a lead byte": (b"\xe2\x82\xe2\x82\xac", 2),
    "four bytes cut by a lead byte": (b"\xf0\x9f\x98\xf0\x9f\x98\x80", 3),
    "one continuation byte too many": (b"\xe2\x82\xac\x80", 3),
}

impossible = pytest.mark.parametrize(("data", "bad"), IMPOSSIBLE.values(), ids=IMPOSSIBLE.keys())


@impossible
@pytest.mark.parametrize("filler", ["a", "é", "€", "😀"], ids=ascii)
def test_impossible_byte_is_found_wherever_it_stands(
    twin: SimpleNamespace, data: bytes, bad: int, filler: str
) -> None:
    for count in range(70):
        for before in ((filler * count).encode(), b"a" + (filler * count).encode()):
            end = len(before) + bad
            text = before + data + b"abcdefgh" * 5
            assert not twin.is_utf8(text)
            validator = twin.Utf8Validator()
            assert validator.feed(text[:end])
            assert not validator.feed(text[end : end + 1])
            assert not twin.Utf8Validator().feed(text)


@pytest.mark.parametrize("size", [4096, 65536, 70_001])
def test_impossible_byte_is_found_at_the_end_of_much_text(twin: SimpleNamespace, size: int) -> None:
    for text in (b"a" * size, "€".encode() * (size // 3)):
        assert twin.is_utf8(text)
        assert not twin.is_utf8(text + b"\xc3")
        assert not twin.is_utf8(text + b"\xff")
        assert not twin.is_utf8(b"\xff" + text)
        validator = twin.Utf8Validator()
        assert validator.feed(text + b"\xc3")
        assert not validator.complete
        assert validator.feed(b"\xa9" + text)
        assert validator.complete
        assert not validator.feed(text + b"\xff")


# Utf8Validator --------------------------------------------------------------------------

pieces = (
    st.binary() | st.text().map(str.encode) | st.sampled_from([d for d, _ in IMPOSSIBLE.values()])
)


@given(data=st.lists(pieces, max_size=4).map(b"".join), cuts=st.lists(st.integers(0, 60)))
def test_how_the_data_is_cut_does_not_matter(
    twin: SimpleNamespace, data: bytes, cuts: list[int]
) -> None:
    bad, complete = scan(data)
    validator = twin.Utf8Validator()
    places = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    for start, end in pairwise(places):
        assert validator.feed(data[start:end]) is (bad is None or end <= bad)
    assert validator.complete is complete is twin.is_utf8(data)


def test_nothing_fed_is_valid_and_complete(twin: SimpleNamespace) -> None:
    validator = twin.Utf8Validator()
    assert validator.complete is True
    assert validator.feed(b"") is True
    assert validator.complete is True


def test_nothing_fed_in_the_middle_of_a_code_point_changes_nothing(twin: SimpleNamespace) -> None:
    validator = twin.Utf8Validator()
    for octet in (b"\xf0", b"\x9f", b"\x98"):
        assert validator.feed(octet)
        assert validator.feed(b"")
        assert not validator.complete
    assert validator.feed(b"\x80")
    assert validator.complete


@impossible
def test_failure_is_final(twin: SimpleNamespace, data: bytes, bad: int) -> None:
    validator = twin.Utf8Validator()
    validator.feed(data)
    for more in (b"", b"a", b"\x80", "é".encode()):
        assert validator.feed(more) is False
        assert validator.complete is False
    with pytest.raises(TypeError):
        validator.feed("a")


def test_validators_do_not_share_their_state(twin: SimpleNamespace) -> None:
    one, other = twin.Utf8Validator(), twin.Utf8Validator()
    one.feed(b"\xc3")
    assert other.complete
    assert not other.feed(b"\xa9")
    assert one.feed(b"\xa9")


# Arguments --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data",
    [
        bytearray("a€".encode()),
        memoryview("a€".encode()),
        memoryview("a€".encode()[::-1])[::-1],
        array("i", "a€".encode()),
        memoryview("a€".encode()).cast("B", [2, 2]),
        type("Bytes", (bytes,), {"decode": None})("a€".encode()),
    ],
    ids=["bytearray", "memoryview", "backwards", "one-int32", "two-dimensional", "bytes-subclass"],
)
def test_any_buffer_will_do(twin: SimpleNamespace, data: Any) -> None:
    assert twin.is_utf8(data)
    assert twin.decode_utf8(data) == "a€"
    assert twin.Utf8Validator().feed(data)
    assert twin.decode_utf8(twin.apply_mask(data, KEY), KEY) == "a€"


def test_a_map_of_memory_will_do(twin: SimpleNamespace) -> None:
    with mmap.mmap(-1, 3) as mapped:
        mapped[:] = "€".encode()
        assert twin.is_utf8(mapped)
        assert twin.decode_utf8(mapped) == "€"
        assert twin.Utf8Validator().feed(mapped)


@pytest.mark.parametrize("data", ["abc", None, 5, ["a"]], ids=lambda x: type(x).__name__)
def test_what_is_no_buffer_is_refused(twin: SimpleNamespace, data: object) -> None:
    words = f"^a bytes-like object is required, not '{type(data).__name__}'$"
    for call in (twin.is_utf8, twin.decode_utf8, twin.Utf8Validator().feed):
        with pytest.raises(TypeError, match=words):
            call(data)


@pytest.mark.parametrize("end", [b"", b"\xff", b"\xc3"], ids=["valid", "invalid", "cut"])
def test_no_buffer_is_held_afterwards(twin: SimpleNamespace, end: bytes) -> None:
    data = bytearray(b"abc" + end)
    key = bytearray(4)
    validator = twin.Utf8Validator()
    validator.feed(data)
    twin.is_utf8(data)
    with suppress(UnicodeDecodeError):
        twin.decode_utf8(data, key)
    data.append(0)
    key.append(0)


def test_complete_is_read_only(twin: SimpleNamespace) -> None:
    with pytest.raises(AttributeError):
        twin.Utf8Validator().complete = True


# decode_utf8 ------------------------------------------------------------------------


def outcome(decode: Callable[..., str], *args: object) -> object:
    try:
        return decode(*args)
    except UnicodeDecodeError as exc:
        return exc.args  # encoding, bytes, start, end, reason


@given(
    data=st.lists(pieces, max_size=4).map(b"".join),
    key=st.binary(min_size=4, max_size=4),
    offset=st.integers(0, 9) | st.just(2**70 + 1),
)
def test_decoding_is_unmasking_and_bytes_decode(
    twin: SimpleNamespace, data: bytes, key: bytes, offset: int
) -> None:
    masked = twin.apply_mask(data, key, offset)
    calls = [(data,), (data, None, 7), (masked, key, offset)]
    for call in calls:
        assert outcome(twin.decode_utf8, *call) == outcome(bytes.decode, data)


@pytest.mark.parametrize("character", ["a", "é", "€", "😀"], ids=ascii)
def test_decoding_text_of_every_width_and_size(twin: SimpleNamespace, character: str) -> None:
    for size in (*range(35), 65535, 65536, 65537):
        for text in (character * size, "b" * size + character, character + "b" * size):
            masked = twin.apply_mask(text.encode(), KEY, 1)
            assert twin.decode_utf8(masked, KEY, 1) == twin.decode_utf8(text.encode()) == text


def test_decoded_text_is_a_str_like_any_other(twin: SimpleNamespace) -> None:
    for text in ("", "a", "abc", "é", "😀"):
        decoded = twin.decode_utf8(text.encode())
        assert type(decoded) is str
        assert {decoded: 1}[text] == 1
        assert decoded.encode() == text.encode()
        assert decoded.isascii() is text.isascii()


def test_decode_takes_its_arguments_by_name(twin: SimpleNamespace) -> None:
    masked = twin.apply_mask(b"abc", KEY, 2)
    assert twin.decode_utf8(data=masked, key=KEY, offset=2) == "abc"
    assert twin.is_utf8(data=b"abc")
    assert twin.Utf8Validator().feed(data=b"abc")


@pytest.mark.parametrize(
    ("arguments", "cls", "words"),
    [
        ((b"", b"abc"), ValueError, "mask key must be 4 bytes, not 3"),
        ((b"\xff", b"abcde"), ValueError, "mask key must be 4 bytes, not 5"),
        ((b"", "abcd"), TypeError, "a bytes-like object is required, not 'str'"),
        ((b"", 0), TypeError, "a bytes-like object is required, not 'int'"),
        ((b"\xff", KEY, -1), ValueError, "offset must be at least 0, not -1"),
        ((b"\xff", None, -1), ValueError, "offset must be at least 0, not -1"),
        ((1, 2, -1), TypeError, "a bytes-like object is required, not 'int'"),
    ],
    ids=repr,
)
def test_wrong_key_or_offset_is_refused(
    twin: SimpleNamespace, arguments: tuple[object, ...], cls: type[Exception], words: str
) -> None:
    with pytest.raises(cls) as caught:
        twin.decode_utf8(*arguments)
    assert (caught.type, str(caught.value)) == (cls, words)
