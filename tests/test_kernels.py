"""Compares every set of kernels that this CPU can run to Python itself.

The other tests use the set that `FASTWS_KERNEL` names, or the best one; these use all sets of this
build, and skip those that this CPU cannot run. (No emulator that we know runs `avx512`.)
"""

from __future__ import annotations

import random
import sys
from itertools import cycle, islice, product
from operator import xor
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastws._c import kernel
from fastws._c.masking import apply_mask, apply_mask_inplace
from fastws._c.messages import MessageDecoder
from fastws._c.utf8 import Utf8Validator, decode_utf8, is_utf8
from fastws._py.frames import encode_frame
from fastws.spec import Opcode

if TYPE_CHECKING:
    from collections.abc import Iterator

KEY = b"\x37\xfa\x21\x3d"
NOISE = random.Random(1).randbytes(20_000)
PAD = bytes(islice(cycle(KEY), len(NOISE) + 4))

# A character of each size, and the first and last characters of that size.
CHARACTERS = {
    1: "a\0\x7f",
    2: "é\x80\xbf\xc0\xff\u0100п\u07ff",
    3: "漢\u0800\ud7ff\ue000\uffff",
    4: "😀\U00010000\U0010ffff",
}
# Invalid UTF-8; each item violates one rule (table 3-7).
WRONG = [
    "80", "bf", "c0 80", "c1 bf", "c2", "c2 41", "c2 c2", "c3 a9 a9", "e0 80 80", "e0 9f bf",
    "e1", "e1 80", "e1 80 41", "e1 41", "e1 80 c2", "ed a0 80", "ed bf bf", "ef bf bf bf",
    "f0 80 80 80", "f0 8f bf bf", "f1", "f1 80", "f1 80 80", "f1 80 80 41", "f1 80 80 c2",
    "f3 80 80 80 80", "f4 90 80 80", "f4 bf bf bf", "f5 80 80 80", "f8 88 80 80 80",
    "fc 84 80 80 80 80", "fe", "ff", "ff ff ff ff",
]  # fmt: skip
AROUND = ["a", "é", "漢", "😀"]


@pytest.fixture(params=kernel.compiled(), scope="module", autouse=True)
def _use(request: pytest.FixtureRequest) -> Iterator[None]:
    if request.param not in kernel.available():
        pytest.skip(f"the kernels {request.param} are not on this CPU")
    before = kernel.current()
    kernel.use(request.param)
    assert kernel.current() == request.param
    yield
    kernel.use(before)


def test_another_name_is_refused() -> None:
    names = ", ".join(kernel.available())
    with pytest.raises(ValueError, match=f"^kernel must be one of {names}, not 'mmx'$"):
        kernel.use("mmx")


def test_the_best_ones_come_first() -> None:
    order = ("avx512", "avx2", "sse", "neon", "scalar")
    for names in (kernel.available(), kernel.compiled()):
        assert names == tuple(name for name in order if name in names)
        assert names[-1] == "scalar"
    assert set(kernel.available()) <= set(kernel.compiled())


# Masking ----------------------------------------------------------------------------------


@pytest.mark.parametrize("start", range(0, 65, 3))
def test_masking(start: int) -> None:
    for size in [*range(300), 1000, *range(2040, 2056), 4095, 4096, 4097]:
        for offset in range(4) if size < 200 else [size % 4]:
            source = NOISE[start : start + size]
            expected = bytes(map(xor, source, PAD[offset:]))
            assert apply_mask(memoryview(NOISE)[start : start + size], KEY, offset) == expected
            target = bytearray(NOISE[: start + size + 40])
            with memoryview(target)[start : start + size] as view:
                apply_mask_inplace(view, KEY, offset)
            assert target == NOISE[:start] + expected + NOISE[start + size :][:40]


# UTF-8 --------------------------------------------------------------------------------------


def check(octets: bytes) -> None:
    """The same as `bytes.decode`, whole, masked, as a message, and validated in pieces."""
    decoder = MessageDecoder(masked=True)
    messages = decoder.feed(encode_frame(Opcode.TEXT, octets, key=KEY))
    try:
        expected = octets.decode()
    except UnicodeDecodeError as exc:
        error = exc
    else:
        error = None
    assert is_utf8(octets) is (error is None)
    if error is not None:
        assert messages == []
        assert decoder.error is not None
        with pytest.raises(UnicodeDecodeError) as caught:
            decode_utf8(octets)
        assert (caught.value.start, caught.value.reason) == (error.start, error.reason)
        return
    assert messages == [expected]
    for text in (decode_utf8(octets), decode_utf8(apply_mask(octets, KEY, 3), KEY, 3)):
        assert text == expected
        # As narrow as possible: an equal string may be stored in more bytes.
        assert sys.getsizeof(text) == sys.getsizeof(expected)


def check_pieces(octets: bytes, cut: int) -> None:
    """Invalid bytes are distinguished from incomplete ones."""
    validator = Utf8Validator()
    for piece in (octets[:cut], octets[cut:]):
        validator.feed(piece)
    try:
        octets.decode()
        expected = (True, True)
    except UnicodeDecodeError as exc:
        expected = (exc.reason == "unexpected end of data", False)
    assert (validator.feed(b""), validator.complete) == expected


@pytest.mark.parametrize("around", AROUND)
@pytest.mark.parametrize("wrong", WRONG)
def test_what_is_wrong_is_found_anywhere(wrong: str, around: str) -> None:
    octets = bytes.fromhex(wrong)
    for before in range(0, 140, 1 if around == "a" else 3):
        for after in (0, 1, 70):
            check(around.encode() * before + octets + around.encode() * after)


@pytest.mark.parametrize("around", AROUND)
def test_what_is_right_is_right_anywhere(around: str) -> None:
    for character in "".join(CHARACTERS.values()):
        for before in range(140):
            check((around * before + character + around * (before % 70)).encode())


def test_all_pairs_of_bytes() -> None:
    """In the middle of a block, and at its end."""
    for first, second in product(range(0x7F, 0x100), range(0x7E, 0x100)):
        pair = bytes([first, second])
        for octets in (b"a" * 62 + pair + b"\x80\x80a" * 3, b"\xe1\x80" * 31 + b"a" + pair):
            try:
                octets.decode()
            except UnicodeDecodeError:
                assert not is_utf8(octets)
            else:
                assert is_utf8(octets)


@pytest.mark.parametrize("wrong", ["", *WRONG])
def test_pieces(wrong: str) -> None:
    octets = "漢a😀é".encode() * 12 + bytes.fromhex(wrong) + "é漢".encode() * 2
    for end in (len(octets), len(octets) - 1, len(octets) - 4):
        for cut in range(end + 1):
            check_pieces(octets[:end], cut)


def test_every_sequence_of_sizes() -> None:
    """Any 12 bytes, at each place in a block."""
    draw = random.Random(2)
    for largest in (2, 3, 4):
        sequences = list(product(range(1, largest + 1), repeat=6))
        draw.shuffle(sequences)
        for start in range(0, len(sequences), 64):
            sizes = [size for sequence in sequences[start : start + 64] for size in sequence]
            text = "".join(draw.choice(CHARACTERS[size]) for size in sizes)
            check(text.encode())


@pytest.mark.parametrize("size", [2, 3, 4])
def test_runs(size: int) -> None:
    for count in range(120):
        for other in AROUND:
            text = CHARACTERS[size][0] * count + other * (count % 7) + CHARACTERS[size][-1] * count
            check(text.encode())


def test_latin_1() -> None:
    draw = random.Random(3)
    for size in range(300):
        check("".join(draw.choice("aé\xff\x80 ") for _ in range(size)).encode())


@given(st.text(max_size=300))
def test_any_text(text: str) -> None:
    check(text.encode("utf-8", "surrogatepass"))


@given(st.binary(max_size=300), st.integers(0, 300))
def test_any_bytes(octets: bytes, cut: int) -> None:
    check(octets)
    check_pieces(octets, cut)


# A text that arrives in reads -----------------------------------------------------------------


@pytest.mark.parametrize("character", AROUND)
@pytest.mark.parametrize("where", [0, 70_000, 199_990])
def test_a_large_text_in_pieces(where: int, character: str) -> None:
    text = "a" * where + character + "b" * (200_000 - where)
    frame = encode_frame(Opcode.TEXT, text.encode(), key=KEY)
    for size in (1460, 65_536, 100_001):
        decoder = MessageDecoder(masked=True)
        messages = [
            message
            for start in range(0, len(frame), size)
            for message in decoder.feed(frame[start : start + size])
        ]
        assert messages == [text]
        assert sys.getsizeof(messages[0]) == sys.getsizeof(text)
