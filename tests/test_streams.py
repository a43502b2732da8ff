"""Messages in parts: the same messages, errors and close codes, without the memory for them."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastws import Connection, Role, State
from fastws.deflate import Inflater, PartInflater
from fastws.events import Close, MessagePart, Ping, Text
from fastws.exceptions import InvalidPayloadError, MessageTooBigError, ProtocolError
from fastws.spec import INFLATE_PART, STEP, Opcode

from .conftest import TWINS
from .tools import traced
from .wire import FLUSHED, agreement, compressed, joined, pieces

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import SimpleNamespace

MIB = 1 << 20
KEY = b"\x12\x34\x56\x78"
CONTINUATION, TEXT, BINARY = Opcode.CONTINUATION, Opcode.TEXT, Opcode.BINARY

AGREED = agreement()


def make_decoder(twin: SimpleNamespace, *, stream: bool = True, **options: Any) -> Any:
    kind = PartInflater if stream else Inflater
    return twin.MessageDecoder(masked=True, inflater=kind(AGREED), stream=stream, **options)


def fed(decoder: Any, chunks: Any) -> list[Any]:
    """Feed all chunks, each of them to its end; return the events."""
    events = []
    for chunk in chunks:
        events += decoder.feed(chunk)
        while decoder.has_pending:
            events += decoder.feed(b"")
    return events


def verdict(decoder: Any) -> Any:
    error = decoder.error
    return error and (type(error), str(error), error.close_code)


def frame(opcode: int, payload: bytes, **options: Any) -> bytes:
    encoded: bytes = TWINS[0].encode_frame(opcode, payload, key=KEY, **options)
    return encoded


def frames(opcode: int, payload: bytes, cuts: list[int], rsv1: bool, ping: bool) -> bytes:
    """A message in fragments, with pings between them."""
    ends = sorted(min(cut, len(payload)) for cut in cuts)
    encoded, start = b"", 0
    for end in [*ends, len(payload)]:
        last = end == len(payload) and start >= (ends[-1] if ends else 0)
        encoded += frame(opcode, payload[start:end], fin=last, rsv1=rsv1)
        if last:
            break
        if ping:
            encoded += frame(Opcode.PING, b"p")
        opcode, rsv1, start = CONTINUATION, False, end
    return encoded


@st.composite
def messages(draw: Callable[[Any], Any]) -> bytes:
    """The frames of one message, valid or not."""
    text = draw(st.booleans())
    payload = draw(
        st.text("aé€😀", max_size=40).map(str.encode)
        | st.sampled_from(["€".encode() * 3000, b"a" * 70_000, b"ab\xff", b"\xf0\x9f\x98", b""])
        if text
        else st.binary(max_size=40) | st.just(bytes(100_000))
    )
    squeeze = draw(st.booleans())
    if squeeze:
        payload = compressed(payload)
    cuts = draw(st.lists(st.integers(0, len(payload) + 1), max_size=4))
    return frames(TEXT if text else BINARY, payload, cuts, squeeze, draw(st.booleans()))


@settings(deadline=None)
@given(
    data=st.lists(messages(), max_size=4).map(b"".join),
    how=st.sampled_from(["whole", *range(100)]),
    cut=st.integers(0, 10) | st.none(),
    limit=st.none() | st.sampled_from([0, 10, 70_000]),
    step=st.sampled_from([None, 1, 5000, STEP]),
    decode_text=st.booleans(),
)
def test_parts_are_the_message(
    data: bytes,
    how: str | int,
    cut: int | None,
    limit: int | None,
    step: int | None,
    decode_text: bool,
) -> None:
    data = data[: len(data) - (cut or 0)]
    chunks = list(pieces(data, how))
    feeds = []
    for twin in TWINS:
        options = {"step": step, "decode_text": decode_text}
        whole = make_decoder(
            twin, stream=False, max_message_size=limit, max_fragments=None, **options
        )
        parts = make_decoder(twin, max_stream_size=limit, **options)
        expected = fed(whole, chunks)
        events = fed(parts, chunks)
        feeds.append(events)
        complete, rest = joined(events)
        assert [(type(event), event) for event in complete] == [
            (type(event), event) for event in expected
        ]
        assert verdict(parts) == verdict(whole)
        if cut is None and verdict(whole) is None:
            assert rest is None
    assert feeds[-1] == feeds[0]


# What a part is --------------------------------------------------------------------------


def test_text_is_cut_between_characters(twin: SimpleNamespace) -> None:
    data = frame(TEXT, "aé😀".encode())
    parts = fed(make_decoder(twin), pieces(data, "bytewise"))
    assert parts == [MessagePart("a", False), MessagePart("é", False), MessagePart("😀", True)]


def test_text_as_bytes_is_cut_between_characters_too(twin: SimpleNamespace) -> None:
    data = frame(TEXT, "aé😀".encode())
    parts = fed(make_decoder(twin, decode_text=False), pieces(data, "bytewise"))
    assert [(part.data, part.last) for part in parts] == [
        (Text(b"a"), False),
        (Text("é".encode()), False),
        (Text("😀".encode()), True),
    ]


def test_ascii_before_a_character_that_is_cut_stays_ascii(twin: SimpleNamespace) -> None:
    data = frame(TEXT, "ab€".encode())
    parts = fed(make_decoder(twin), [data[:-1], data[-1:]])
    assert parts == [MessagePart("ab", False), MessagePart("€", True)]
    assert parts[0].data.isascii()


def test_fragments_are_not_seen(twin: SimpleNamespace) -> None:
    data = frames(BINARY, b"abcdef", [1, 2, 3, 4], False, False)
    assert make_decoder(twin).feed(data) == [MessagePart(b"abcdef", True)]
    data = frames(BINARY, b"abcd", [1, 2, 4], False, False)
    head = data[:-3]
    decoder = make_decoder(twin)
    assert decoder.feed(head) == [MessagePart(b"abcd", False)]
    assert decoder.feed(data[-3:]) == [MessagePart(b"", True)]


def test_control_frames_come_between_parts(twin: SimpleNamespace) -> None:
    data = frames(TEXT, b"ab", [1], False, True) + frame(Opcode.CLOSE, b"\x03\xe8")
    parts = [MessagePart("a", False), Ping(b"p"), MessagePart("b", True), Close(1000)]
    assert make_decoder(twin).feed(data) == parts


def test_an_empty_message_is_one_part(twin: SimpleNamespace) -> None:
    data = frame(TEXT, b"") + frames(BINARY, b"", [0], False, False) + frame(TEXT, b"", rsv1=True)
    parts = [MessagePart("", True), MessagePart(b"", True), MessagePart("", True)]
    assert make_decoder(twin).feed(data) == parts


@pytest.mark.parametrize(
    ("data", "before", "error"),
    [
        (
            frames(TEXT, b"ab\xff", [2], False, False),
            [MessagePart("ab", False)],
            InvalidPayloadError,
        ),
        (
            frame(BINARY, b"ab", fin=False) + frame(BINARY, b"c"),
            [MessagePart(b"ab", False)],
            ProtocolError,
        ),
        (
            frame(TEXT, b"ab", fin=False) + frame(CONTINUATION, b"c" * 9),
            [MessagePart("ab", False)],
            MessageTooBigError,
        ),
        (
            frame(BINARY, compressed(b"a" * 11), rsv1=True),
            [],
            MessageTooBigError,
        ),
    ],
    ids=["utf-8", "order", "size", "inflated"],
)
def test_what_came_before_a_violation(
    twin: SimpleNamespace, data: bytes, before: list[Any], error: type[ProtocolError]
) -> None:
    decoder = make_decoder(twin, max_stream_size=10)
    assert decoder.feed(data) == before
    assert type(decoder.error) is error
    assert not decoder.has_pending


# Bounds ----------------------------------------------------------------------------------


def test_neither_size_nor_fragments_are_limited(twin: SimpleNamespace) -> None:
    decoder = make_decoder(twin, max_message_size=10, max_fragments=2)
    data = frames(BINARY, bytes(100), [20, 40, 60, 80], False, False)
    assert decoder.feed(data) == [MessagePart(bytes(100), True)]


@pytest.mark.parametrize("text", [False, True])
def test_a_bomb_is_inflated_in_parts(twin: SimpleNamespace, text: bool) -> None:
    size = 16 * MIB
    data = frame(TEXT if text else BINARY, compressed(b"a" * size), rsv1=True)
    decoder = make_decoder(twin, step=STEP)
    with traced() as memory:
        parts, received = decoder.feed(data), 0
        while parts:
            assert all(len(part.data) <= STEP + INFLATE_PART for part in parts)
            received += sum(len(part.data) for part in parts)
            last = parts[-1].last
            parts = decoder.feed(b"")
        assert memory()[1] < 8 * STEP
    assert (received, last, decoder.has_pending) == (size, True, False)


def test_a_pending_part_comes_before_later_data(twin: SimpleNamespace) -> None:
    decoder = make_decoder(twin, step=1)
    data = frame(BINARY, compressed(bytes(300_000)), rsv1=True)
    events = decoder.feed(data)
    assert decoder.has_pending
    events += decoder.feed(frame(TEXT, b"next"))
    events += fed(decoder, [b""])
    assert joined(events) == ([bytes(300_000), "next"], None)


@pytest.mark.parametrize("limit", [1, 300, MIB])
def test_the_inflater_returns_no_more_than_it_may(backend: str, limit: int) -> None:
    first, second = bytes(1000 + 100 * limit % 100_000) + bytes(range(256)), b"more" * 100
    inflater = PartInflater(agreement(backend))
    for payload in (
        compressed(first),
        compressed(first) + FLUSHED + compressed(second),
        compressed(first, zlib.Z_FINISH) + compressed(second),
        compressed(first, zlib.Z_FINISH) * 30 + compressed(second, zlib.Z_FINISH),
        b"\x03\x00" * 1000,
        b"\x00",
        b"",
    ):
        output = b""
        for data, last in ((payload[:50], False), (payload[50:60], False), (payload[60:], True)):
            part, more = inflater.inflate_part(data, limit, last)
            while more:
                assert len(part) == limit
                output += part
                part, more = inflater.inflate_part(b"", limit, last)
            assert len(part) < limit
            output += part
        assert output == Inflater(agreement(backend)).inflate(payload, None, True)


def test_what_is_not_deflate_is_refused_in_parts_too(twin: SimpleNamespace) -> None:
    for payload in (b"\xff", compressed(bytes(500_000))[:-3], b"\x01\x01"):
        decoder = make_decoder(twin)
        fed(decoder, [frame(BINARY, payload, rsv1=True)])
        assert verdict(decoder)[1:] == ("compressed message is not DEFLATE", 1007)


# Arguments ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"max_stream_size": 1}, ValueError, "max_stream_size needs stream=True"),
        ({"stream": True, "max_stream_size": -1}, ValueError, "must be at least 0"),
        ({"stream": True, "max_stream_size": "1"}, TypeError, "must be an int or None"),
        (
            {"stream": True, "inflater": Inflater(AGREED)},
            TypeError,
            r"inflate_part.*'Inflater' does not",
        ),
    ],
)
def test_wrong_arguments(
    twin: SimpleNamespace, options: dict[str, Any], error: type[Exception], match: str
) -> None:
    with pytest.raises(error, match=match):
        twin.MessageDecoder(masked=True, **options)


# Connections --------------------------------------------------------------------------------


@pytest.mark.parametrize("deflate", [None, AGREED], ids=["plain", "compressed"])
def test_a_connection_passes_on_parts(deflate: Any) -> None:
    connection = Connection(Role.SERVER, deflate=deflate, stream=True, max_stream_size=3 * MIB)
    payload = bytes(2 * MIB)
    data = frame(BINARY, compressed(payload) if deflate else payload, rsv1=deflate is not None)
    events: list[Any] = connection.receive_data(frame(Opcode.PING, b"") + data)
    assert events[0] == Ping()
    while connection.has_pending:
        events += connection.receive_data(b"")
    assert joined(events[1:]) == ([payload], None)
    data = frame(BINARY, bytes(3 * MIB), fin=False) + frame(CONTINUATION, b"a")
    connection.receive_data(data)
    assert (connection.close_code, connection.state) == (1009, State.OPEN)
