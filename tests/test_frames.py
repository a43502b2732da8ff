"""Tests `frames` against RFC 6455 §5.2, §5.5, §5.7 and the rows of limits.md about a header."""

from __future__ import annotations

import copy
import pickle
import re
from array import array
from contextlib import suppress
from importlib import import_module
from itertools import cycle, product
from operator import xor
from typing import TYPE_CHECKING, Any

import pytest

from fastws.exceptions import MessageTooBigError, ProtocolError
from fastws.spec import Opcode

from .tools import traced
from .wire import pieces

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import SimpleNamespace

KEY = b"\x37\xfa\x21\x3d"
DATA, CONTROL = (0, 1, 2), (8, 9, 10)
RESERVED = (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)
SIZES = [0, 1, 7, 124, 125, 126, 127, 65534, 65535, 65536, 65537]
NOISE = bytes(i * 167 % 251 for i in range(70_000))


def wire(first: int, payload: bytes = b"", key: bytes | None = KEY) -> bytes:
    """Write a frame as shown in RFC 6455 §5.2."""
    mask, size = (0 if key is None else 0x80), len(payload)
    if size < 126:
        head = bytes([first, mask | size])
    elif size < 2**16:
        head = bytes([first, mask | 126, *size.to_bytes(2, "big")])
    else:
        head = bytes([first, mask | 127, *size.to_bytes(8, "big")])
    if key is None:
        return head + payload
    return head + key + bytes(map(xor, payload, cycle(key)))


# Frame ------------------------------------------------------------------------------


def test_frame_has_the_defaults_of_a_whole_message(twin: SimpleNamespace) -> None:
    frame = twin.Frame(1)
    assert (frame.opcode, frame.payload) == (Opcode.TEXT, b"")
    assert (frame.fin, frame.rsv1, frame.rsv2, frame.rsv3) == (True, False, False, False)


def test_frame_takes_its_fields_in_order_and_by_name(twin: SimpleNamespace) -> None:
    frame = twin.Frame(2, b"a", False, True, False, True)
    assert frame == twin.Frame(opcode=2, payload=b"a", fin=False, rsv1=True, rsv2=False, rsv3=True)
    assert (frame.opcode, frame.payload) == (2, b"a")
    assert (frame.fin, frame.rsv1, frame.rsv2, frame.rsv3) == (False, True, False, True)


@pytest.mark.parametrize("opcode", [0, 1, 2, 8, 9, 10, Opcode.TEXT, True, 1.0])
def test_opcode_of_a_frame_is_the_member_of_the_enum(twin: SimpleNamespace, opcode: int) -> None:
    assert twin.Frame(opcode).opcode is Opcode(opcode)


@pytest.mark.parametrize("flag", [0, 1, "", "a", [], None], ids=repr)
def test_flags_of_a_frame_are_bools(twin: SimpleNamespace, flag: Any) -> None:
    frame = twin.Frame(1, b"", flag, flag, flag, flag)
    assert {frame.fin, frame.rsv1, frame.rsv2, frame.rsv3} == {bool(flag)}
    assert type(frame.fin) is bool


@pytest.mark.parametrize(
    "payload",
    [
        bytearray(b"abcd"),
        memoryview(b"abcd"),
        memoryview(b"dcba")[::-1],
        array("i", b"abcd"),
        type("Bytes", (bytes,), {"__bytes__": lambda self: b"wrong"})(b"abcd"),
    ],
    ids=["bytearray", "memoryview", "backwards", "array", "bytes-subclass"],
)
def test_payload_of_a_frame_is_bytes(twin: SimpleNamespace, payload: Any) -> None:
    frame = twin.Frame(2, payload)
    assert (type(frame.payload), frame.payload) == (bytes, b"abcd")


def test_frame_does_not_share_its_payload(twin: SimpleNamespace) -> None:
    data = bytearray(b"abcd")
    frame = twin.Frame(2, data)
    data[:] = b"x"
    assert frame.payload == b"abcd"


@pytest.mark.parametrize("opcode", [*RESERVED, -1, 16, 2**70, "1", None, 1.5, []], ids=repr)
def test_frame_with_a_reserved_opcode_is_refused(twin: SimpleNamespace, opcode: Any) -> None:
    with pytest.raises(ValueError, match=r" is not a valid Opcode$"):
        twin.Frame(opcode)


@pytest.mark.parametrize("payload", ["a", None, 1], ids=repr)
def test_frame_with_a_payload_that_is_no_buffer_is_refused(
    twin: SimpleNamespace, payload: Any
) -> None:
    with pytest.raises(TypeError, match=r"^a bytes-like object is required, not '\w+'$"):
        twin.Frame(1, payload)


def variants(twin: SimpleNamespace) -> Iterator[Any]:
    """Frames that differ from the first in one field each, and a few more."""
    yield twin.Frame(1, b"a")
    yield twin.Frame(2, b"a")
    yield twin.Frame(1, b"b")
    for i in range(4):
        flags = [True, False, False, False]
        flags[i] = not flags[i]
        yield twin.Frame(1, b"a", *flags)
    yield twin.Frame(0, b"", False, True, True, True)


def test_frames_are_equal_if_all_fields_are(twin: SimpleNamespace) -> None:
    frames, again = list(variants(twin)), list(variants(twin))
    for (i, one), (j, other) in product(enumerate(frames), enumerate(again)):
        assert (one == other) is (i == j)
        assert (one != other) is (i != j)
    assert len({*frames, *again}) == len(frames)
    assert frames[0] != (1, b"a", True, False, False, False)
    assert frames[0].__eq__(b"a") is NotImplemented


@pytest.mark.parametrize("name", ["opcode", "payload", "fin", "rsv1", "rsv2", "rsv3", "new"])
def test_frame_is_immutable(twin: SimpleNamespace, name: str) -> None:
    frame = twin.Frame(1, b"a")
    words = f"^a Frame is immutable: cannot set or delete '{name}'$"
    with pytest.raises(AttributeError, match=words):
        setattr(frame, name, 0)
    with pytest.raises(AttributeError, match=words):
        delattr(frame, name)
    assert frame == twin.Frame(1, b"a")
    assert not hasattr(frame, "__dict__")


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_frame_survives_pickling(twin: SimpleNamespace, protocol: int) -> None:
    for frame in variants(twin):
        assert pickle.loads(pickle.dumps(frame, protocol)) == frame


def test_frame_can_be_copied(twin: SimpleNamespace) -> None:
    for frame in variants(twin):
        assert copy.copy(frame) == copy.deepcopy(frame) == frame


def test_repr_of_a_frame_is_the_call_that_makes_it(twin: SimpleNamespace) -> None:
    for frame in variants(twin):
        assert eval(repr(frame), {"Frame": twin.Frame, "Opcode": Opcode}) == frame


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ((1,), "Frame(Opcode.TEXT, b'')"),
        ((9, b"a"), "Frame(Opcode.PING, b'a')"),
        ((2, b"a", False, True), "Frame(Opcode.BINARY, b'a', fin=False, rsv1=True)"),
        (
            (0, b"", True, False, True, True),
            "Frame(Opcode.CONTINUATION, b'', rsv2=True, rsv3=True)",
        ),
    ],
)
def test_repr_of_a_frame(twin: SimpleNamespace, fields: tuple[Any, ...], text: str) -> None:
    assert repr(twin.Frame(*fields)) == text


def test_frame_can_be_matched(twin: SimpleNamespace) -> None:
    match twin.Frame(8, b"\x03\xe8"):
        case twin.Frame(Opcode.PING):
            pytest.fail("a close frame is no ping")
        case twin.Frame(Opcode.CLOSE, payload, True, rsv1=False):
            assert payload == b"\x03\xe8"
        case _:
            pytest.fail("did not match")


# encode_frame: layout -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("encoded", "arguments", "options"),
    [
        ("81 05 48 65 6c 6c 6f", (1, b"Hello"), {}),
        ("81 85 37 fa 21 3d 7f 9f 4d 51 58", (1, b"Hello"), {"key": KEY}),
        ("01 03 48 65 6c", (1, b"Hel"), {"fin": False}),
        ("80 02 6c 6f", (0, b"lo"), {}),
        ("89 05 48 65 6c 6c 6f", (9, b"Hello"), {}),
        ("8a 85 37 fa 21 3d 7f 9f 4d 51 58", (10, b"Hello"), {"key": KEY}),
        ("82 7e 01 00" + " 00" * 256, (2, bytes(256)), {}),
        ("82 7f 00 00 00 00 00 01 00 00" + " 00" * 65536, (2, bytes(65536)), {}),
        ("88 00", (8,), {}),
        ("88 80 37 fa 21 3d", (8,), {"key": KEY}),
        ("c1 00", (1,), {"rsv1": True}),
        ("a2 00", (2,), {"rsv2": True}),
        ("10 00", (0,), {"rsv3": True, "fin": False}),
        ("f1 00", (1,), {"rsv1": 1, "rsv2": "a", "rsv3": [0], "fin": 1}),
        ("f9 00", (9,), {"rsv1": True, "rsv2": True, "rsv3": True}),
    ],
    ids=lambda x: x[:24] if isinstance(x, str) else "",
)
def test_the_examples_of_rfc_6455_and_every_header_bit(
    twin: SimpleNamespace, encoded: str, arguments: tuple[Any, ...], options: dict[str, Any]
) -> None:
    result = twin.encode_frame(*arguments, **options)
    assert result == bytes.fromhex(encoded)
    assert type(result) is bytes


@pytest.mark.parametrize("key", [None, KEY, bytes(4)], ids=["unmasked", "masked", "zero-key"])
@pytest.mark.parametrize("size", SIZES)
def test_length_is_encoded_in_the_fewest_bytes(
    twin: SimpleNamespace, size: int, key: bytes | None
) -> None:
    assert twin.encode_frame(2, NOISE[:size], key=key) == wire(0x82, NOISE[:size], key)


@pytest.mark.parametrize(
    "make",
    [bytearray, memoryview, lambda b: memoryview(b[::-1])[::-1], lambda b: array("i", b)],
    ids=["bytearray", "memoryview", "backwards", "array"],
)
def test_payload_and_key_may_be_any_buffer(
    twin: SimpleNamespace, make: Callable[[bytes], Any]
) -> None:
    assert twin.encode_frame(2, make(NOISE[:40]), key=make(KEY)) == wire(0x82, NOISE[:40])


def test_arguments_of_encode_frame_have_names(twin: SimpleNamespace) -> None:
    assert twin.encode_frame(opcode=2, payload=b"a", key=KEY) == wire(0x82, b"a")


def test_encoding_holds_no_buffer(twin: SimpleNamespace) -> None:
    payload, key = bytearray(126), bytearray(4)
    twin.encode_frame(2, payload, key=key)
    with pytest.raises(ValueError, match="payload of PING"):
        twin.encode_frame(9, payload, key=key)
    with pytest.raises(ValueError, match="mask key"):
        twin.encode_frame(2, payload, key=memoryview(key)[:3])
    payload.append(0)
    key.append(0)


# encode_frame: wrong arguments ---------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "options", "cls", "words"),
    [
        *(
            ((opcode,), {}, ValueError, f"{opcode!r} is not a valid Opcode")
            for opcode in [*RESERVED, -1, 16, 2**70, "1", None, 1.5, []]
        ),
        *(
            ((opcode, b""), {"fin": fin}, ValueError, "control frame must not be fragmented")
            for opcode in CONTROL
            for fin in (False, 0, None)
        ),
        *(
            (
                (op, bytes(size)),
                {},
                ValueError,
                f"payload of {op.name} must be at most 125 bytes, not {size}",
            )
            for op in (Opcode.CLOSE, Opcode.PING, Opcode.PONG)
            for size in (126, 70_000)
        ),
        *(
            (
                (1, b""),
                {"key": key},
                ValueError,
                f"mask key must be 4 bytes, not {memoryview(key).nbytes}",
            )
            for key in (b"", b"abc", b"abcde", array("i", [1, 2]))
        ),
        ((1, "a"), {}, TypeError, "a bytes-like object is required, not 'str'"),
        ((1, None), {}, TypeError, "a bytes-like object is required, not 'NoneType'"),
        ((1, 5), {}, TypeError, "a bytes-like object is required, not 'int'"),
        ((1, b""), {"key": "abcd"}, TypeError, "a bytes-like object is required, not 'str'"),
        ((1, b""), {"key": 0}, TypeError, "a bytes-like object is required, not 'int'"),
        # The error is about the first wrong argument.
        ((3, "a"), {"key": 0}, ValueError, "3 is not a valid Opcode"),
        ((8, 5), {"fin": False}, TypeError, "a bytes-like object is required, not 'int'"),
        (
            (8, bytes(126)),
            {"fin": False, "key": 0},
            ValueError,
            "control frame must not be fragmented",
        ),
        (
            (8, bytes(126)),
            {"key": 0},
            ValueError,
            "payload of CLOSE must be at most 125 bytes, not 126",
        ),
    ],
    ids=lambda x: repr(x)[:40],
)
def test_what_cannot_be_encoded_is_refused(
    twin: SimpleNamespace,
    arguments: tuple[Any, ...],
    options: dict[str, Any],
    cls: type[Exception],
    words: str,
) -> None:
    with pytest.raises(cls) as caught:
        twin.encode_frame(*arguments, **options)
    assert (caught.type, str(caught.value)) == (cls, words)


@pytest.mark.parametrize("opcode", CONTROL)
def test_control_frame_of_125_bytes_is_encoded(twin: SimpleNamespace, opcode: int) -> None:
    assert twin.encode_frame(opcode, bytes(125)) == wire(0x80 | opcode, bytes(125), None)


# FrameDecoder: good frames -------------------------------------------------------------


def feed_all(decoder: Any, data: bytes, how: str | int) -> list[Any]:
    return [frame for piece in pieces(data, how) for frame in decoder.feed(piece)]


cut = pytest.mark.parametrize("how", ["whole", "bytewise", 1, 2, 3], ids=str)


@cut
@pytest.mark.parametrize("masked", [True, False, None])
def test_frames_of_all_types_and_sizes_are_decoded(
    twin: SimpleNamespace, masked: bool | None, how: str | int
) -> None:
    keys = {True: [KEY], False: [None], None: [KEY, None]}[masked]
    frames = [
        (opcode, fin, NOISE[:size])
        for opcode in DATA
        for fin in (True, False)
        for size in (0, 1, 125, 126, 300)
    ] + [(opcode, True, NOISE[:size]) for opcode in CONTROL for size in (0, 2, 125)]
    stream = b"".join(
        wire(0x80 * fin | opcode, payload, key) for opcode, fin, payload in frames for key in keys
    )
    decoder = twin.FrameDecoder(masked=masked)
    assert feed_all(decoder, stream, how) == [
        twin.Frame(opcode, payload, fin) for opcode, fin, payload in frames for _ in keys
    ]
    assert decoder.error is None


@cut
@pytest.mark.parametrize("size", SIZES[-4:])
def test_long_frames_are_decoded(twin: SimpleNamespace, size: int, how: str | int) -> None:
    for key in (KEY, None):
        decoder = twin.FrameDecoder(masked=key is not None)
        (frame, ping) = feed_all(decoder, wire(0x82, NOISE[:size], key) + wire(0x89, b"", key), how)
        assert frame == twin.Frame(2, NOISE[:size])
        assert ping == twin.Frame(9)


def test_decoded_frame_has_the_types_of_one_made_by_hand(twin: SimpleNamespace) -> None:
    (frame,) = twin.FrameDecoder(masked=False).feed(b"\x01\x01a")
    assert frame.opcode is Opcode.TEXT
    assert type(frame.payload) is bytes
    assert frame.fin is False
    assert repr(frame) == "Frame(Opcode.TEXT, b'a', fin=False)"


@pytest.mark.parametrize("rsv", range(8))
def test_negotiated_bits_are_handed_on(twin: SimpleNamespace, rsv: int) -> None:
    flags = {"rsv1": bool(rsv & 4), "rsv2": bool(rsv & 2), "rsv3": bool(rsv & 1)}
    decoder = twin.FrameDecoder(masked=False, **flags)
    (frame,) = decoder.feed(bytes([0x81 | rsv << 4, 0]))
    assert frame == twin.Frame(1, **flags)


def test_text_is_not_validated_and_fragments_are_not_judged(twin: SimpleNamespace) -> None:
    decoder = twin.FrameDecoder(masked=False)
    stream = b"\x80\x01\xff" + b"\x01\x01\xff" + b"\x81\x00" + b"\x88\x02\x00\x00"
    assert decoder.feed(stream) == [
        twin.Frame(0, b"\xff"),
        twin.Frame(1, b"\xff", False),
        twin.Frame(1),
        twin.Frame(8, bytes(2)),
    ]


def test_frames_after_a_close_frame_are_decoded(twin: SimpleNamespace) -> None:
    decoder = twin.FrameDecoder(masked=False)
    assert decoder.feed(b"\x88\x00\x89\x00") == [twin.Frame(8), twin.Frame(9)]


def test_nothing_fed_is_nothing_decoded(twin: SimpleNamespace) -> None:
    decoder = twin.FrameDecoder(masked=True)
    assert decoder.feed(b"") == []
    for octet in wire(0x81, b"a")[:-1]:
        assert decoder.feed(bytes([octet])) == []
        assert decoder.feed(b"") == []
    assert decoder.feed(wire(0x81, b"a")[-1:]) == [twin.Frame(1, b"a")]


@pytest.mark.parametrize(
    "make",
    [bytearray, memoryview, lambda b: memoryview(b[::-1])[::-1], lambda b: array("B", b)],
    ids=["bytearray", "memoryview", "backwards", "array"],
)
def test_any_buffer_may_be_fed_and_none_is_kept(
    twin: SimpleNamespace, make: Callable[[bytes], Any]
) -> None:
    stream = wire(0x82, NOISE[:200]) + wire(0x89, b"ab")
    for where in (3, 6, 100, 208, 211):
        decoder = twin.FrameDecoder(masked=True)
        first = bytearray(stream[:where])
        with memoryview(first) as view:
            frames = decoder.feed(view)
        first[:] = bytes(500)
        frames += decoder.feed(make(stream[where:]))
        assert frames == [twin.Frame(2, NOISE[:200]), twin.Frame(9, b"ab")]


# FrameDecoder: every header ---------------------------------------------------------------


def header_error(first: int, second: int, masked: bool | None, rsv: int) -> tuple[int, str] | None:
    """Return which of the first two bytes makes a header invalid, and the error message."""
    opcode = first & 15
    name = {8: "CLOSE", 9: "PING", 10: "PONG"}.get(opcode)
    refused = [
        f"RSV{i}"
        for i, bit in enumerate((0x40, 0x20, 0x10), 1)
        if first & bit and (not rsv & bit or (i == 1 and not 0 < opcode < 8))
    ]
    if refused:
        return 1, "reserved bit set: " + " ".join(refused)
    if opcode in RESERVED:
        return 1, f"reserved opcode: 0x{opcode:X}"
    if name and first < 0x80:
        return 1, f"fragmented control frame: {name}"
    if masked is True and second < 0x80:
        return 2, "frame from a client is not masked"
    if masked is False and second >= 0x80:
        return 2, "frame from a server is masked"
    if name and second % 128 > 125:
        return 2, f"control frame over 125 bytes: {name}"
    if name == "CLOSE" and second % 128 == 1:
        return 2, "close frame with a payload of 1 byte"
    return None


def check_header(
    twin: SimpleNamespace, first: int, second: int, masked: bool | None, rsv: int
) -> None:
    expected = header_error(first, second, masked, rsv)
    flags = {"rsv1": rsv & 0x40, "rsv2": rsv & 0x20, "rsv3": rsv & 0x10}
    for steps in ([bytes([first]), bytes([second])], [bytes([first, second])]):
        decoder = twin.FrameDecoder(masked=masked, **flags)
        seen = 0
        for step in steps:
            decoder.feed(step)
            seen += len(step)
            if expected is None or seen < expected[0]:
                assert decoder.error is None, (first, second, masked, rsv)
            else:
                assert type(decoder.error) is ProtocolError, (first, second, masked, rsv)
                assert str(decoder.error) == expected[1]


@pytest.mark.parametrize("masked", [True, False, None])
def test_every_first_byte_with_every_set_of_negotiated_bits(
    twin: SimpleNamespace, masked: bool | None
) -> None:
    for first in range(256):
        for rsv in range(0, 0x80, 0x10):
            check_header(twin, first, 0x80 if masked else 0, masked, rsv)


@pytest.mark.parametrize("masked", [True, False, None])
@pytest.mark.parametrize("first", [0x00, 0x81, 0x82, 0x88, 0x89, 0x8A, 0x08, 0x83, 0xC1], ids=hex)
def test_every_second_byte(twin: SimpleNamespace, first: int, masked: bool | None) -> None:
    for second in range(256):
        check_header(twin, first, second, masked, 0)


@pytest.mark.parametrize("mask", [0, 0x80], ids=["unmasked", "masked"])
@pytest.mark.parametrize(
    ("width", "length", "words"),
    [
        *((2, n, f"length {n} is not encoded in the fewest bytes") for n in (0, 1, 124, 125)),
        *((2, n, None) for n in (126, 127, 65535)),
        *((8, n, f"length {n} is not encoded in the fewest bytes") for n in (0, 125, 126, 65535)),
        *((8, n, None) for n in (65536, 65537, 2**31 - 1, 2**31, 2**31 + 1, 2**32)),
        *((8, n, None) for n in (2**62, 2**63 - 1)),
    ],
)
def test_every_kind_of_length(
    twin: SimpleNamespace, width: int, length: int, words: str | None, mask: int
) -> None:
    header = bytes([0x82, mask | {2: 126, 8: 127}[width], *length.to_bytes(width, "big")])
    for how in ("whole", "bytewise"):
        decoder = twin.FrameDecoder(masked=None, max_payload_size=None)
        assert feed_all(decoder, header[:-1], how) == []
        assert decoder.error is None
        assert decoder.feed(header[-1:]) == []
        assert (decoder.error and str(decoder.error)) == words
        assert words is None or type(decoder.error) is ProtocolError


@pytest.mark.parametrize("length", [2**63, 2**63 + 1, 2**64 - 1])
def test_length_with_its_top_bit_set_is_refused_at_its_first_byte(
    twin: SimpleNamespace, length: int
) -> None:
    header = b"\x82\x7f" + length.to_bytes(8, "big")
    decoder = twin.FrameDecoder(masked=False, max_payload_size=None)
    decoder.feed(header[:2])
    assert decoder.error is None
    decoder.feed(header[2:3])
    assert str(decoder.error) == "64-bit length with its most significant bit set"
    whole = twin.FrameDecoder(masked=False)  # detected before the limit is checked
    whole.feed(header)
    assert str(whole.error) == str(decoder.error)


@pytest.mark.parametrize("length", [2**31 - 1, 2**31, 2**31 + 1, 2**63 - 1])
def test_announced_payload_takes_no_memory(twin: SimpleNamespace, length: int) -> None:
    decoder = twin.FrameDecoder(masked=True, max_payload_size=None)
    with traced() as memory:
        assert decoder.feed(b"\x82\xff" + length.to_bytes(8, "big") + KEY) == []
        assert decoder.feed(NOISE[:1000]) == []
        peak = memory()[1]
    assert decoder.error is None
    assert peak < 4 << 20


# read_header, which the integrations use -------------------------------------------------


def read_header(twin: SimpleNamespace, *arguments: Any) -> Any:
    return import_module(f"fastws._{twin.name}.frames").read_header(*arguments)


@pytest.mark.parametrize("key", [KEY, b""], ids=["masked", "plain"])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("before", [b"", b"\xff\xff\xff"], ids=["alone", "behind"])
def test_header_is_read_as_far_as_it_is_there(
    twin: SimpleNamespace, key: bytes, size: int, before: bytes
) -> None:
    header = wire(0x82, bytes(size), key or None)[: -size or None]
    known = len(header) - len(key)
    start = len(before) + len(header)
    for masked in (None, key != b""):
        for end in range(len(header)):
            data = before + header[:end]
            expected: Any = None if end < known else (0x82, size, None, start)
            assert read_header(twin, data, len(before), masked, 0, None) == expected
        for more in (b"", b"more"):
            data = before + header + more
            expected = 0x82, size, key, start
            assert read_header(twin, data, len(before), masked, 0, False) == expected


def test_header_outside_of_the_data_is_none(twin: SimpleNamespace) -> None:
    for position in (-1, 2, 3, 1000):
        assert read_header(twin, b"\x82\x00", position, None, 0, None) is None


@pytest.mark.parametrize("masked", [True, False, None])
@pytest.mark.parametrize("rsv", [0, 0x40, 0x30, 0x70], ids=hex)
def test_bad_header_is_an_error(twin: SimpleNamespace, rsv: int, masked: bool | None) -> None:
    for first, second in product(range(256), (0, 1, 125, 126, 128, 129, 253, 254)):
        expected = header_error(first, second, masked, rsv)
        for end in (1, 2):
            arguments = bytes([first, second])[:end], 0, masked, rsv, None
            if expected is None or end < expected[0]:
                read_header(twin, *arguments)
            else:
                with pytest.raises(ProtocolError, match=f"^{re.escape(expected[1])}$"):
                    read_header(twin, *arguments)


@pytest.mark.parametrize(
    ("header", "in_message", "text"),
    [
        (b"\x80", False, "continuation frame without a message to continue"),
        (b"\x81", True, "new TEXT message inside a fragmented one"),
        (b"\x82\x7e\x00\x7d", None, "length 125 is not encoded in the fewest bytes"),
        (b"\x82\x7f\x80", None, "64-bit length with its most significant bit set"),
    ],
)
def test_header_is_judged_like_that_of_a_message(
    twin: SimpleNamespace, header: bytes, in_message: bool | None, text: str
) -> None:
    with pytest.raises(ProtocolError, match=text):
        read_header(twin, header, 0, None, 0, in_message)


# FrameDecoder: limit -----------------------------------------------------------------------


@cut
@pytest.mark.parametrize("limit", [0, 1, 125, 126, 300, 65535, 65536])
def test_payload_up_to_the_limit_passes(twin: SimpleNamespace, limit: int, how: str | int) -> None:
    decoder = twin.FrameDecoder(masked=True, max_payload_size=limit)
    assert feed_all(decoder, wire(0x82, NOISE[:limit]), how) == [twin.Frame(2, NOISE[:limit])]
    assert decoder.error is None


@pytest.mark.parametrize("key", [None, KEY], ids=["unmasked", "masked"])
@pytest.mark.parametrize("limit", [0, 1, 124, 125, 126, 300, 65535, 65536])
def test_payload_over_the_limit_is_refused_as_soon_as_it_is_announced(
    twin: SimpleNamespace, limit: int, key: bytes | None
) -> None:
    header = wire(0x82, bytes(limit + 1), None)[: -limit - 1]
    header = bytes([header[0], header[1] | (0x80 if key else 0)]) + header[2:]
    decoder = twin.FrameDecoder(masked=key is not None, max_payload_size=limit)
    assert feed_all(decoder, header[:-1], "bytewise") == []
    assert decoder.error is None
    assert decoder.feed(header[-1:]) == []
    assert type(decoder.error) is MessageTooBigError
    assert str(decoder.error) == f"frame payload over {limit} bytes"


def test_limit_holds_for_control_frames(twin: SimpleNamespace) -> None:
    decoder = twin.FrameDecoder(masked=False, max_payload_size=2)
    assert decoder.feed(b"\x89\x02ab\x89\x03abc") == [twin.Frame(9, b"ab")]
    assert type(decoder.error) is MessageTooBigError


def test_limit_is_1_mib_by_default(twin: SimpleNamespace) -> None:
    decoder = twin.FrameDecoder(masked=False)
    (frame,) = decoder.feed(wire(0x82, bytes(1 << 20), None))
    assert len(frame.payload) == 1 << 20
    decoder.feed(b"\x82\x7f" + ((1 << 20) + 1).to_bytes(8, "big"))
    assert str(decoder.error) == "frame payload over 1048576 bytes"


@pytest.mark.parametrize("limit", [2**63 - 1, 2**64, 2**70])
def test_limit_may_be_larger_than_any_length(twin: SimpleNamespace, limit: int) -> None:
    decoder = twin.FrameDecoder(masked=False, max_payload_size=limit)
    assert decoder.feed(b"\x82\x7f\x7f" + b"\xff" * 7) == []
    assert decoder.error is None


@pytest.mark.parametrize(
    ("limit", "cls", "words"),
    [
        (-1, ValueError, "max_payload_size must be at least 0, not -1"),
        (-(2**70), ValueError, f"max_payload_size must be at least 0, not {-(2**70)}"),
        (1.0, TypeError, "max_payload_size must be an int or None, not 'float'"),
        ("1", TypeError, "max_payload_size must be an int or None, not 'str'"),
    ],
)
def test_wrong_limit_is_refused(
    twin: SimpleNamespace, limit: Any, cls: type[Exception], words: str
) -> None:
    with pytest.raises(cls, match=f"^{words}$"):
        twin.FrameDecoder(masked=True, max_payload_size=limit)


def test_masked_must_be_said_and_by_name(twin: SimpleNamespace) -> None:
    with pytest.raises(TypeError):
        twin.FrameDecoder()
    with pytest.raises(TypeError):
        twin.FrameDecoder(True)


# FrameDecoder: errors ------------------------------------------------------------------------


@cut
def test_frames_before_an_error_are_returned(twin: SimpleNamespace, how: str | int) -> None:
    decoder = twin.FrameDecoder(masked=True)
    good = wire(0x81, b"a") + wire(0x82, NOISE[:200]) + wire(0x89)
    assert feed_all(decoder, good + b"\x83" + wire(0x81, b"b"), how) == [
        twin.Frame(1, b"a"),
        twin.Frame(2, NOISE[:200]),
        twin.Frame(9),
    ]
    assert str(decoder.error) == "reserved opcode: 0x3"


def test_error_is_final(twin: SimpleNamespace) -> None:
    decoder = twin.FrameDecoder(masked=True)
    decoder.feed(b"\x83")
    error = decoder.error
    for data in (b"", b"\x84", wire(0x81, b"a")):
        assert decoder.feed(data) == []
        assert decoder.error is error
    assert error.close_code == 1002
    assert error.__traceback__ is error.__context__ is None


@pytest.mark.parametrize("data", ["a", None, 5, [1]], ids=repr)
def test_what_is_no_buffer_is_refused_and_changes_nothing(twin: SimpleNamespace, data: Any) -> None:
    decoder = twin.FrameDecoder(masked=False)
    words = f"^a bytes-like object is required, not '{type(data).__name__}'$"
    decoder.feed(b"\x81")
    with pytest.raises(TypeError, match=words):
        decoder.feed(data)
    assert decoder.feed(b"\x01a\x83") == [twin.Frame(1, b"a")]
    with pytest.raises(TypeError, match=words):
        decoder.feed(data)


def test_subclass_that_forgets_to_initialise_does_no_harm(twin: SimpleNamespace) -> None:
    class Forgetful(twin.FrameDecoder):
        def __init__(self) -> None:
            pass

    for first in range(256):
        with suppress(AttributeError):
            frames = Forgetful().feed(bytes([first, 0]))
            assert [frame.opcode for frame in frames] in ([], [first & 15])
