"""Tests `messages` against RFC 6455 §5-§8 and every row of limits.md about a decoder.

Streams are built by hand, not by the encoder under test, for both kinds of peer: a client,
which masks, and a server, which does not.
"""

from __future__ import annotations

import subprocess
import sys
from array import array
from dataclasses import dataclass
from functools import partial
from itertools import cycle
from operator import xor
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastws.events import Close, Ping, Pong, Text
from fastws.exceptions import (
    InvalidPayloadError,
    MessageTooBigError,
    ProtocolError,
    StateError,
)
from fastws.spec import CloseCode, may_travel

from .tools import traced
from .wire import pieces

if TYPE_CHECKING:
    import random
    from collections.abc import Callable
    from types import SimpleNamespace

KEY = b"\x37\xfa\x21\x3d"
NOISE = bytes(i * 167 % 251 for i in range(70_000))
MIB = 1 << 20

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
FIN, RSV1, RSV2, RSV3 = 0x80, 0x40, 0x20, 0x10


@dataclass(frozen=True)
class Peer:
    """Writes what the other side sends, as shown in RFC 6455 §5.2."""

    key: bytes | None

    def decoder(self, twin: SimpleNamespace, **options: Any) -> Any:
        return twin.MessageDecoder(masked=self.key is not None, **options)

    def head(self, first: int, length: int, more: bytes = b"") -> bytes:
        """The first two bytes, with this peer's MASK bit, and `more`."""
        return bytes([first, length | (0x80 if self.key else 0)]) + more

    def announce(self, first: int, size: int) -> bytes:
        """A header up to the mask key."""
        if size < 126:
            return self.head(first, size)
        if size < 2**16:
            return self.head(first, 126, size.to_bytes(2, "big"))
        return self.head(first, 127, size.to_bytes(8, "big"))

    def frame(self, opcode: int, payload: bytes = b"", fin: bool = True, rsv: int = 0) -> bytes:
        header = self.announce((FIN if fin else 0) | rsv | opcode, len(payload))
        if self.key is None:
            return header + payload
        return header + self.key + bytes(map(xor, payload, cycle(self.key)))

    def text(self, text: str | bytes, fin: bool = True) -> bytes:
        return self.frame(TEXT, text.encode() if isinstance(text, str) else text, fin)

    def binary(self, payload: bytes = b"", fin: bool = True) -> bytes:
        return self.frame(BINARY, payload, fin)

    def more(self, payload: bytes = b"", fin: bool = True) -> bytes:
        return self.frame(CONTINUATION, payload, fin)

    def close(self, code: int, reason: bytes = b"") -> bytes:
        return self.frame(CLOSE, code.to_bytes(2, "big") + reason)


@pytest.fixture(params=[Peer(KEY), Peer(None)], ids=["from-client", "from-server"], scope="session")
def peer(request: pytest.FixtureRequest) -> Peer:
    return request.param


WAYS = ["whole", "bytewise", *range(1, 9)]
# How a stream is split, and whether text is decoded.
RUNS = [*((how, True) for how in WAYS), *((how, False) for how in ("whole", "bytewise", 2))]


def as_bytes(events: list[Any]) -> list[Any]:
    """What is received if text is not decoded."""
    return [Text(e.encode()) if isinstance(e, str) else e for e in events]


def decode(decoder: Any, data: bytes, how: str | int = "whole") -> list[Any]:
    events = []
    over = decoder.error is not None
    for piece in pieces(data, how):
        new = decoder.feed(piece)
        events += new
        over = over or decoder.error is not None or any(isinstance(e, Close) for e in new)
        only_messages = not over and all(isinstance(e, (str, bytes, Text)) for e in new)
        assert decoder._only_messages is only_messages
    return events


def check_good(
    twin: SimpleNamespace, peer: Peer, stream: bytes, events: list[Any], **limits: int | None
) -> None:
    """However the stream is split, it decodes to these events, of exactly these types."""
    for how, decode_text in RUNS:
        if how == "bytewise" and len(stream) > 100_000:
            continue
        expected = events if decode_text else as_bytes(events)
        decoder = peer.decoder(twin, decode_text=decode_text, **limits)
        result = decode(decoder, stream, how)
        assert (result, decoder.error) == (expected, None), how
        assert [type(event) for event in result] == [type(event) for event in expected]


def check_bad(
    twin: SimpleNamespace,
    peer: Peer,
    good: bytes,
    bad: bytes,
    events: list[Any],
    expected: tuple[type[ProtocolError], int, str],
    **limits: int | None,
) -> None:
    """The last byte of `bad` causes the error, not an earlier one; all later bytes are lost."""
    late = peer.frame(PING, b"late") + peer.text("late")
    for how, decode_text in RUNS:
        before = events if decode_text else as_bytes(events)
        decoder = peer.decoder(twin, decode_text=decode_text, **limits)
        assert decode(decoder, good + bad[:-1], how) == before, how
        assert decoder.error is None, how
        assert decoder.feed(bad[-1:]) == []
        assert verdict(decoder) == expected

        decoder = peer.decoder(twin, decode_text=decode_text, **limits)
        assert decode(decoder, good + bad + late, how) == before, how
        assert verdict(decoder) == expected, how
        assert decode(decoder, late, how) == []
        assert verdict(decoder) == expected, how


def verdict(decoder: Any) -> tuple[type[ProtocolError], int, str]:
    return type(decoder.error), decoder.error.close_code, str(decoder.error)


# What is legal ---------------------------------------------------------------------------

GOOD: dict[str, tuple[Callable[[Peer], bytes], list[Any]]] = {
    "nothing": (lambda p: b"", []),
    "text": (lambda p: p.text("Hello"), ["Hello"]),
    "binary": (lambda p: p.binary(b"\x00\xff"), [b"\x00\xff"]),
    "empty text": (lambda p: p.text(""), [""]),
    "empty binary": (lambda p: p.binary(), [b""]),
    "text of every width": (lambda p: p.text("aé€😀\0"), ["aé€😀\0"]),
    "text of 125 bytes": (lambda p: p.text("a" * 125), ["a" * 125]),
    "text of 126 bytes": (lambda p: p.text("a" * 126), ["a" * 126]),
    "binary of 127 bytes": (lambda p: p.binary(NOISE[:127]), [NOISE[:127]]),
    "ping": (lambda p: p.frame(PING, b"a"), [Ping(b"a")]),
    "empty ping": (lambda p: p.frame(PING), [Ping(b"")]),
    "longest ping": (lambda p: p.frame(PING, NOISE[:125]), [Ping(NOISE[:125])]),
    "pong": (lambda p: p.frame(PONG, b"a"), [Pong(b"a")]),
    "empty pong": (lambda p: p.frame(PONG), [Pong(b"")]),
    "longest pong": (lambda p: p.frame(PONG, NOISE[:125]), [Pong(NOISE[:125])]),
    "close without a payload": (lambda p: p.frame(CLOSE), [Close(1005, "")]),
    "close with a code": (lambda p: p.close(1000), [Close(1000, "")]),
    "close with a reason": (lambda p: p.close(4000, "tschüß".encode()), [Close(4000, "tschüß")]),
    "close with the longest reason": (
        lambda p: p.close(3000, b"a" * 123),
        [Close(3000, "a" * 123)],
    ),
    "two fragments of text": (lambda p: p.text("Hel", False) + p.more(b"lo"), ["Hello"]),
    "three fragments of binary": (
        lambda p: p.binary(b"a", False) + p.more(b"b", False) + p.more(b"c"),
        [b"abc"],
    ),
    "fragments that are all empty": (
        lambda p: p.text("", False) + p.more(b"", False) + p.more(),
        [""],
    ),
    "empty fragments around a full one": (
        lambda p: p.binary(b"", False) + p.more(b"ab", False) + p.more(),
        [b"ab"],
    ),
    "code point cut between fragments at every byte": (
        lambda p: (
            p.text(b"\xf0", False)
            + p.more(b"\x9f", False)
            + p.more(b"", False)
            + p.more(b"\x98", False)
            + p.more(b"\x80")
        ),
        ["😀"],
    ),
    "code point cut by control frames": (
        lambda p: (
            p.text(b"\xe2\x82", False)
            + p.frame(PING, b"1")
            + p.frame(PONG)
            + p.more(b"", False)
            + p.frame(PING, b"2")
            + p.more(b"\xac")
        ),
        [Ping(b"1"), Pong(b""), Ping(b"2"), "€"],
    ),
    "binary that is not UTF-8, in fragments": (
        lambda p: p.binary(b"\xff\xfe", False) + p.more(b"\xc3"),
        [b"\xff\xfe\xc3"],
    ),
    "control frames between other frames": (
        lambda p: (
            p.frame(PONG, b"1")
            + p.text("a")
            + p.frame(PING, b"2")
            + p.binary(b"b", False)
            + p.frame(PONG, b"3")
            + p.more(b"c")
            + p.frame(PING, b"4")
        ),
        [Pong(b"1"), "a", Ping(b"2"), Pong(b"3"), b"bc", Ping(b"4")],
    ),
    "text after binary after fragmented text": (
        lambda p: p.text("é", False) + p.more("é".encode()) + p.binary(b"\xff") + p.text("é"),
        ["éé", b"\xff", "é"],
    ),
    "anything after a close frame is dropped": (
        lambda p: p.text("a") + p.close(1000) + p.text("b") + p.close(1001) + b"\xff\xff",
        ["a", Close(1000, "")],
    ),
    "a close frame ends a message that is not finished": (
        lambda p: p.text(b"a\xc3", False) + p.frame(PING) + p.frame(CLOSE) + p.more(b"\xa9"),
        [Ping(b""), Close(1005, "")],
    ),
}


@pytest.mark.parametrize(("script", "events"), GOOD.values(), ids=GOOD.keys())
def test_legal_stream(
    twin: SimpleNamespace, peer: Peer, script: Callable[[Peer], bytes], events: list[Any]
) -> None:
    check_good(twin, peer, script(peer), events)


@pytest.mark.parametrize("size", [65534, 65535, 65536, 65537])
def test_message_around_the_largest_16_bit_length(
    twin: SimpleNamespace, peer: Peer, size: int
) -> None:
    check_good(twin, peer, peer.binary(NOISE[:size]) + peer.frame(PING), [NOISE[:size], Ping()])
    text = ("é" * size)[: size // 2] + "a" * (size % 2)
    check_good(twin, peer, peer.text(text), [text])


def test_every_code_that_may_travel_is_taken_and_no_other(
    twin: SimpleNamespace, peer: Peer
) -> None:
    for code in range(65536):
        decoder = peer.decoder(twin)
        events = decoder.feed(peer.close(code))
        if may_travel(code):
            assert (events, decoder.error) == ([Close(code)], None)
        else:
            assert events == []
            words = f"close code {code} may not be used in a close frame"
            assert verdict(decoder) == (ProtocolError, 1002, words)


def test_many_messages_in_one_feed(twin: SimpleNamespace, peer: Peer) -> None:
    messages: list[Any] = []
    stream = b""
    for i in range(3000):
        messages.append("€" * (i % 150) if i % 2 else NOISE[: i % 300])
        stream += peer.text(messages[-1]) if i % 2 else peer.binary(messages[-1])
    decoder = peer.decoder(twin)
    assert decoder.feed(stream) == messages
    assert decoder.error is None


def test_nothing_fed_is_nothing_decoded_anywhere(twin: SimpleNamespace, peer: Peer) -> None:
    stream = peer.text("aé", False) + peer.frame(PING, b"a") + peer.more(b"b") + peer.close(1000)
    decoder = peer.decoder(twin)
    events = []
    for octet in pieces(stream, "bytewise"):
        assert decoder.feed(b"") == []
        events += decoder.feed(octet)
    assert decoder.feed(b"") == []
    assert events == [Ping(b"a"), "aéb", Close(1000)]


@pytest.mark.parametrize("kind", ["text", "binary"])
@pytest.mark.parametrize("size", [1460, 8191])
def test_big_message_in_small_pieces(
    twin: SimpleNamespace, peer: Peer, kind: str, size: int
) -> None:
    payload = (NOISE * 120)[: 8 * MIB] if kind == "binary" else "a€😀".encode() * MIB
    assert len(payload) == 8 * MIB
    # Masked by the codec itself, which test_masking.py tests.
    stream = peer.announce(FIN | (BINARY if kind == "binary" else TEXT), len(payload))
    stream += peer.key + twin.apply_mask(payload, peer.key) if peer.key else payload
    stream += peer.frame(PING)
    decoder = peer.decoder(twin, max_message_size=8 * MIB)
    events = []
    for start in range(0, len(stream), size):
        events += decoder.feed(stream[start : start + size])
    assert events == [payload if kind == "binary" else payload.decode(), Ping()]
    assert type(events[0]) is (bytes if kind == "binary" else str)


# What is not (docs/explanation/limits.md) -----------------------------------------------------

Row = tuple[
    "Callable[[Peer], bytes]",  # a valid part
    "Callable[[Peer], bytes]",  # an invalid part, up to the byte that makes it invalid
    list[Any],
    tuple[type[ProtocolError], int, str],
]


def nothing(p: Peer) -> bytes:
    return b""


def broken(words: str) -> tuple[type[ProtocolError], int, str]:
    return ProtocolError, 1002, words


NO_TEXT = (InvalidPayloadError, 1007, "text message is not UTF-8")
NO_REASON = (InvalidPayloadError, 1007, "close reason is not UTF-8")

HEADERS: dict[str, Row] = {
    **{
        f"{length} in {8 * width} bits": (
            nothing,
            lambda p, w=width, n=length: p.head(
                FIN | BINARY, {2: 126, 8: 127}[w], n.to_bytes(w, "big")
            ),
            [],
            broken(f"length {length} is not encoded in the fewest bytes"),
        )
        for width, length in [(2, 0), (2, 1), (2, 125), (8, 0), (8, 125), (8, 126), (8, 65535)]
    },
    "length with the top bit": (
        nothing,
        lambda p: p.head(FIN | TEXT, 127, b"\x80"),
        [],
        broken("64-bit length with its most significant bit set"),
    ),
    **{
        f"reserved opcode 0x{opcode:X}": (
            lambda p: p.text("a"),
            lambda p, op=opcode: bytes([FIN | op]),
            ["a"],
            broken(f"reserved opcode: 0x{opcode:X}"),
        )
        for opcode in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)
    },
    **{
        f"RSV bits {bits:03b} on opcode {opcode}": (
            lambda p, op=opcode: b"" if op else p.text("a", False),
            lambda p, op=opcode, b=bits: bytes([FIN | op | b << 4]),
            [],
            broken(
                "reserved bit set: "
                + " ".join(f"RSV{i}" for i, bit in enumerate((4, 2, 1), 1) if bits & bit)
            ),
        )
        for opcode in (CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG)
        for bits in range(1, 8)
    },
    **{
        f"fragmented {name}": (
            nothing,
            lambda p, op=opcode: bytes([op]),
            [],
            broken(f"fragmented control frame: {name}"),
        )
        for opcode, name in ((CLOSE, "CLOSE"), (PING, "PING"), (PONG, "PONG"))
    },
    **{
        f"{name} with a length of {length}": (
            nothing,
            lambda p, op=opcode, n=length: p.head(FIN | op, n),
            [],
            broken(f"control frame over 125 bytes: {name}"),
        )
        for opcode, name in ((CLOSE, "CLOSE"), (PING, "PING"), (PONG, "PONG"))
        for length in (126, 127)
    },
    "continuation without a start": (
        nothing,
        lambda p: bytes([FIN | CONTINUATION]),
        [],
        broken("continuation frame without a message to continue"),
    ),
    "continuation after a whole message": (
        lambda p: p.text("a"),
        lambda p: bytes([CONTINUATION]),
        ["a"],
        broken("continuation frame without a message to continue"),
    ),
    "continuation after the last one": (
        lambda p: p.binary(b"a", False) + p.more(b"b"),
        lambda p: bytes([FIN]),
        [b"ab"],
        broken("continuation frame without a message to continue"),
    ),
    "text inside fragments": (
        lambda p: p.binary(b"a", False),
        lambda p: bytes([FIN | TEXT]),
        [],
        broken("new TEXT message inside a fragmented one"),
    ),
    "binary inside fragments": (
        lambda p: p.text("a", False) + p.frame(PING) + p.more(b"", False),
        lambda p: bytes([BINARY]),
        [Ping()],
        broken("new BINARY message inside a fragmented one"),
    ),
}

CLOSES: dict[str, Row] = {
    "close frame of 1 byte": (
        lambda p: p.text("a"),
        lambda p: p.head(FIN | CLOSE, 1),
        ["a"],
        broken("close frame with a payload of 1 byte"),
    ),
    **{
        f"close code {code}": (
            lambda p: p.frame(PONG),
            lambda p, c=code, r=reason: p.close(c, r)[: -len(r) or None],
            [Pong()],
            broken(f"close code {code} may not be used in a close frame"),
        )
        for code in [0, 1, 999, 1004, 1005, 1006, 1015, 1016, 2000, 2999, 5000, 65535]
        for reason in (b"", b"bye")
    },
    "close code judged before the reason": (
        nothing,
        lambda p: p.close(1005, b"\xff")[:-1],
        [],
        broken("close code 1005 may not be used in a close frame"),
    ),
    "close reason that is not UTF-8": (
        nothing,
        lambda p: p.close(1000, b"ab\xffcd")[:-2],
        [],
        NO_REASON,
    ),
    "close reason with a surrogate": (
        nothing,
        lambda p: p.close(1000, b"a\xed\xa0\x80b")[:-2],
        [],
        NO_REASON,
    ),
    "close reason with an overlong form": (
        nothing,
        lambda p: p.close(1000, b"\xe0\x80\x80")[:-1],
        [],
        NO_REASON,
    ),
    "close reason cut in a code point": (
        nothing,
        lambda p: p.close(1000, b"ab\xe2\x82"),
        [],
        NO_REASON,
    ),
}

TEXTS: dict[str, Row] = {
    "continuation byte at the start": (
        nothing,
        lambda p: p.text(b"\x80abc")[:-3],
        [],
        NO_TEXT,
    ),
    "impossible byte in the middle of a frame": (
        nothing,
        lambda p: p.text(b"abc\xffdef" + bytes(200))[:-203],
        [],
        NO_TEXT,
    ),
    "impossible byte far into a frame": (
        nothing,
        lambda p: p.text(b"a" * 3000 + b"\xff" + b"a" * 3000)[:-3000],
        [],
        NO_TEXT,
    ),
    "impossible byte at the end": (nothing, lambda p: p.text(b"abc\xff"), [], NO_TEXT),
    "surrogate": (nothing, lambda p: p.text(b"a\xed\xa0\x80")[:-1], [], NO_TEXT),
    "last surrogate": (nothing, lambda p: p.text(b"a\xed\xbf\xbfabc")[:-4], [], NO_TEXT),
    "overlong form of 2 bytes": (nothing, lambda p: p.text(b"\xc0\x80")[:-1], [], NO_TEXT),
    "overlong form of 4 bytes": (nothing, lambda p: p.text(b"\xf0\x8f\xbf\xbf")[:-2], [], NO_TEXT),
    "beyond U+10FFFF": (nothing, lambda p: p.text(b"\xf4\x90\x80\x80")[:-2], [], NO_TEXT),
    "code point cut by ASCII": (nothing, lambda p: p.text(b"\xe2\x82abc")[:-2], [], NO_TEXT),
    "code point cut by the end": (
        lambda p: p.text("é"),
        lambda p: p.text(b"ab\xe2\x82"),
        ["é"],
        NO_TEXT,
    ),
    "code point cut by the end of the last fragment": (
        lambda p: p.text(b"\xf0\x9f", False) + p.frame(PING, b"a"),
        lambda p: p.more(b"\x98"),
        [Ping(b"a")],
        NO_TEXT,
    ),
    "code point cut by an empty last fragment": (
        lambda p: p.text(b"ab\xc3", False),
        lambda p: p.more(b""),
        [],
        NO_TEXT,
    ),
    "code point continued wrongly in the next fragment": (
        lambda p: p.text(b"\xe2\x82", False) + p.more(b"", False),
        lambda p: p.more(b"abc", False)[:-2],
        [],
        NO_TEXT,
    ),
    "surrogate cut between fragments": (
        lambda p: p.text(b"\xed", False),
        lambda p: p.more(b"\xa0\x80")[:-1],
        [],
        NO_TEXT,
    ),
    "impossible byte in a fragment that is not the last": (
        lambda p: p.text(b"abc", False),
        lambda p: p.more(b"de\xc3(fg", False)[:-2],
        [],
        NO_TEXT,
    ),
}

# There are two errors: the first one in the stream counts.
PRIORITIES: dict[str, Row] = {
    "RSV before opcode": (
        nothing,
        lambda p: b"\xf3",
        [],
        broken("reserved bit set: RSV1 RSV2 RSV3"),
    ),
    "opcode before FIN": (nothing, lambda p: b"\x0b", [], broken("reserved opcode: 0xB")),
    "RSV before sequence": (nothing, lambda p: b"\xc0", [], broken("reserved bit set: RSV1")),
    "sequence before length": (
        nothing,
        lambda p: p.head(FIN, 126, b"\x00\x01")[:1],
        [],
        broken("continuation frame without a message to continue"),
    ),
    "fragmented control frame before its length": (
        nothing,
        lambda p: p.head(PING, 126)[:1],
        [],
        broken("fragmented control frame: PING"),
    ),
    "length not minimal before the limit": (
        nothing,
        lambda p: p.head(FIN | TEXT, 126, b"\x00\x7d"),
        [],
        broken("length 125 is not encoded in the fewest bytes"),
    ),
    "top bit before the limit": (
        nothing,
        lambda p: p.head(FIN | TEXT, 127, b"\xff"),
        [],
        broken("64-bit length with its most significant bit set"),
    ),
    "number of fragments before size": (
        lambda p: p.binary(b"12345", False) + p.more(b"67890", False),
        lambda p: p.announce(FIN, 11),
        [],
        (MessageTooBigError, 1009, "message of more than 2 fragments"),
    ),
    "text of a good fragment before the limit of the next": (
        lambda p: p.text("a", False),
        lambda p: p.more(b"\xffbc", False)[:-2],
        [],
        NO_TEXT,
    ),
}


@pytest.mark.parametrize(
    ("good", "bad", "events", "expected"),
    [*HEADERS.values(), *CLOSES.values(), *TEXTS.values()],
    ids=[*HEADERS, *CLOSES, *TEXTS],
)
def test_violation_is_reported_at_the_byte_that_makes_it_one(
    twin: SimpleNamespace,
    peer: Peer,
    good: Callable[[Peer], bytes],
    bad: Callable[[Peer], bytes],
    events: list[Any],
    expected: tuple[type[ProtocolError], int, str],
) -> None:
    check_bad(twin, peer, good(peer), bad(peer), events, expected)


@pytest.mark.parametrize(
    ("good", "bad", "events", "expected"), PRIORITIES.values(), ids=PRIORITIES.keys()
)
def test_of_two_violations_the_first_counts(
    twin: SimpleNamespace,
    peer: Peer,
    good: Callable[[Peer], bytes],
    bad: Callable[[Peer], bytes],
    events: list[Any],
    expected: tuple[type[ProtocolError], int, str],
) -> None:
    limits = {"max_message_size": 10, "max_fragments": 2}
    check_bad(twin, peer, good(peer), bad(peer), events, expected, **limits)


@pytest.mark.parametrize("opcode", [CONTINUATION, TEXT, BINARY])
@pytest.mark.parametrize(
    ("width", "length"),
    [*((2, n) for n in (0, 1, 124, 125)), *((8, n) for n in (0, 1, 124, 125, 126, 65535))],
)
def test_length_not_minimal_is_refused_with_its_payload_at_hand(
    twin: SimpleNamespace, peer: Peer, opcode: int, width: int, length: int
) -> None:
    """… as without it: an unfragmented message is decoded by other code."""
    payload = b"x" * length
    good = peer.text("a") + (b"" if opcode else peer.text("b", False))
    head = peer.head(FIN | opcode, {2: 126, 8: 127}[width], length.to_bytes(width, "big"))
    key = peer.key or b""
    body = bytes(map(xor, payload, cycle(key))) if key else payload
    decoder = peer.decoder(twin)
    assert decoder.feed(good + head + key + body + peer.text("late")) == ["a"]
    words = f"length {length} is not encoded in the fewest bytes"
    assert verdict(decoder) == broken(words)
    assert decoder.feed(peer.text("late")) == []


@pytest.mark.parametrize("opcode", [TEXT, BINARY, CLOSE, PING, PONG])
@pytest.mark.parametrize("length", [0, 1, 2, 125, 126, 127])
def test_wrong_mask_direction(twin: SimpleNamespace, peer: Peer, opcode: int, length: int) -> None:
    words = (
        "frame from a server is masked"
        if peer.key is None
        else ("frame from a client is not masked")
    )
    bad = bytes([FIN | opcode, length | (0x80 if peer.key is None else 0)])
    check_bad(twin, peer, peer.text("a"), bad, ["a"], broken(words))


def test_wrong_mask_direction_inside_a_message(twin: SimpleNamespace) -> None:
    for peer, other in ((Peer(KEY), Peer(None)), (Peer(None), Peer(KEY))):
        decoder = peer.decoder(twin)
        assert decoder.feed(peer.text("a", False) + other.more(b"b")) == []
        assert decoder.error.close_code == 1002


def test_data_of_a_text_is_bytes_itself(twin: SimpleNamespace, peer: Peer) -> None:
    decoder = peer.decoder(twin, decode_text=False)
    events = decoder.feed(peer.text("é") + peer.text("é", False) + peer.more(b"a") + peer.text(""))
    assert [type(event.data) for event in events] == [bytes] * 3


@pytest.mark.parametrize("value", [None, 0, "", 1, "a"], ids=repr)
def test_decode_text_is_a_truth_value(twin: SimpleNamespace, value: Any) -> None:
    decoder = twin.MessageDecoder(masked=False, decode_text=value)
    assert decoder.feed(b"\x81\x01a") == ["a" if value else Text(b"a")]


@pytest.mark.parametrize("masked", [None, 0, "", [], 1, "a"], ids=repr)
def test_masked_is_a_truth_value(twin: SimpleNamespace, masked: Any) -> None:
    decoder = twin.MessageDecoder(masked=masked)
    assert decoder.feed(Peer(KEY if masked else None).text("a")) == ["a"]


def test_error_is_one_object_and_pins_nothing(twin: SimpleNamespace, peer: Peer) -> None:
    for bad in (b"\x83", peer.text(b"\xff"), peer.text(b"a\xff", False), peer.close(1000, b"\xff")):
        decoder = peer.decoder(twin)
        assert decoder.feed(peer.text("a") + bad) == ["a"]
        error = decoder.error
        assert error.__traceback__ is error.__context__ is error.__cause__ is None
        for data in (b"", b"\x84", peer.text("b")):
            assert decoder.feed(data) == []
            assert decoder.error is error


# Limits ------------------------------------------------------------------------------------


def too_big(limit: int) -> tuple[type[ProtocolError], int, str]:
    return MessageTooBigError, 1009, f"message over {limit} bytes"


def too_many(limit: int) -> tuple[type[ProtocolError], int, str]:
    return MessageTooBigError, 1009, f"message of more than {limit} fragments"


@pytest.mark.parametrize("limit", [0, 1, 2, 125, 126, 300, 65535, 65536])
def test_message_of_exactly_the_limit_passes_and_one_byte_more_does_not(
    twin: SimpleNamespace, peer: Peer, limit: int
) -> None:
    half = limit // 2
    whole = peer.binary(NOISE[:limit])
    text = peer.text("a" * limit)
    cut = peer.binary(NOISE[:half], False) + peer.more(NOISE[half:limit], False) + peer.more()
    stream = whole + peer.frame(PING, bytes(125)) + text + cut + whole
    events = [NOISE[:limit], Ping(bytes(125)), "a" * limit, NOISE[:limit], NOISE[:limit]]
    check_good(twin, peer, stream, events, max_message_size=limit)

    for first in (FIN | TEXT, FIN | BINARY, TEXT, BINARY):
        for size in (limit + 1, limit + 70_000, 2**31, 2**63 - 1):
            decoder = peer.decoder(twin, max_message_size=limit)
            announced = peer.announce(first, size)
            assert decoder.feed(whole) == [NOISE[:limit]]
            assert decode(decoder, announced[:-1], "bytewise") == []
            assert decoder.error is None
            assert decoder.feed(announced[-1:]) == []
            assert verdict(decoder) == too_big(limit)


@pytest.mark.parametrize("fin", [0, FIN], ids=["more-to-come", "last"])
@pytest.mark.parametrize("size", [7, 125, 126, 65536, 2**63 - 1])
def test_fragments_together_may_not_pass_the_limit(
    twin: SimpleNamespace, peer: Peer, size: int, fin: int
) -> None:
    good = peer.text("aé", False) + peer.frame(PING, b"x") + peer.more(b"b", False)
    check_bad(
        twin, peer, good, peer.announce(fin, size), [Ping(b"x")], too_big(10), max_message_size=10
    )


def test_size_is_counted_in_bytes_not_in_characters(twin: SimpleNamespace, peer: Peer) -> None:
    check_good(twin, peer, peer.text("€€€"), ["€€€"], max_message_size=9)
    check_bad(twin, peer, b"", peer.announce(FIN | TEXT, 12), [], too_big(9), max_message_size=9)


def test_limit_of_0_lets_only_empty_messages_pass(twin: SimpleNamespace, peer: Peer) -> None:
    stream = peer.text("") + peer.binary(b"", False) + peer.more() + peer.frame(PING, b"a")
    check_good(twin, peer, stream, ["", b"", Ping(b"a")], max_message_size=0)
    check_bad(twin, peer, b"", peer.head(FIN | TEXT, 1), [], too_big(0), max_message_size=0)


def test_without_a_limit_any_length_is_waited_for(twin: SimpleNamespace, peer: Peer) -> None:
    for size in (2**31 - 1, 2**31, 2**31 + 1, 2**63 - 1):
        decoder = peer.decoder(twin, max_message_size=None)
        header = peer.announce(BINARY, size) + (peer.key or b"")
        assert decode(decoder, header + NOISE[:10], "bytewise") == []
        assert decoder.error is None


@pytest.mark.parametrize("limit", [2**63, 2**64 - 1, 2**64, 2**70])
def test_limits_may_be_larger_than_anything(twin: SimpleNamespace, peer: Peer, limit: int) -> None:
    stream = peer.text("a", False) + peer.more(b"b") + peer.announce(FIN | TEXT, 2**63 - 1)
    check_good(twin, peer, stream, ["ab"], max_message_size=limit, max_fragments=limit)


def test_limits_by_default_are_1_mib_and_4096_fragments(twin: SimpleNamespace, peer: Peer) -> None:
    decoder = peer.decoder(twin)
    (message,) = decoder.feed(peer.binary(bytes(MIB)))
    assert len(message) == MIB
    assert decoder.feed(peer.announce(FIN | BINARY, MIB + 1)) == []
    assert verdict(decoder) == too_big(MIB)

    decoder = peer.decoder(twin)
    first = peer.text("", False) + peer.more(b"", False) * 4094
    assert decoder.feed(first + peer.more()) == [""]
    assert decoder.feed(first + peer.more(b"", False)) == []
    assert decoder.error is None
    assert decoder.feed(peer.head(FIN, 0)) == []
    assert verdict(decoder) == too_many(4096)


@pytest.mark.parametrize("limit", [1, 2, 3, 100])
@pytest.mark.parametrize("content", [b"", b"a"], ids=["empty", "full"])
def test_number_of_fragments_up_to_the_limit_passes(
    twin: SimpleNamespace, peer: Peer, limit: int, content: bytes
) -> None:
    start = peer.binary(content, False) + peer.frame(PING)
    good = (
        peer.binary(content)
        if limit == 1
        else (start + peer.more(content, False) * (limit - 2) + peer.more(content))
    )
    events = [content] if limit == 1 else [Ping(), content * limit]
    check_good(twin, peer, good * 2, events * 2, max_fragments=limit)

    endless = start + peer.more(content, False) * (limit - 1)
    for first in (0, FIN):
        for size in (0, 125, 126, 65536):
            check_bad(
                twin,
                peer,
                endless,
                peer.announce(first, size),
                [Ping()],
                too_many(limit),
                max_fragments=limit,
            )


def test_number_of_fragments_may_be_unlimited(twin: SimpleNamespace, peer: Peer) -> None:
    stream = peer.text("a", False) + peer.more(b"b", False) * 10_000 + peer.more(b"c")
    decoder = peer.decoder(twin, max_fragments=None)
    assert decoder.feed(stream) == ["a" + "b" * 10_000 + "c"]


@pytest.mark.parametrize(
    ("limits", "cls", "words"),
    [
        ({"max_message_size": -1}, ValueError, "max_message_size must be at least 0, not -1"),
        ({"max_fragments": 0}, ValueError, "max_fragments must be at least 1, not 0"),
        (
            {"max_fragments": -(2**70)},
            ValueError,
            f"max_fragments must be at least 1, not {-(2**70)}",
        ),
        (
            {"max_message_size": 1e6},
            TypeError,
            "max_message_size must be an int or None, not 'float'",
        ),
        ({"max_fragments": "9"}, TypeError, "max_fragments must be an int or None, not 'str'"),
        (
            {"max_message_size": -1, "max_fragments": 0},
            ValueError,
            "max_message_size must be at least 0, not -1",
        ),
    ],
    ids=repr,
)
def test_wrong_limit_is_refused(
    twin: SimpleNamespace, limits: dict[str, Any], cls: type[Exception], words: str
) -> None:
    with pytest.raises(cls, match=f"^{words}$"):
        twin.MessageDecoder(masked=True, **limits)


def test_arguments_of_the_decoder_are_said_by_name(twin: SimpleNamespace) -> None:
    for arguments in ((), (True,), (True, 10, 10)):
        with pytest.raises(TypeError):
            twin.MessageDecoder(*arguments)


# What is fed, and what is kept of it ---------------------------------------------------------

MIXED = [Ping(b"ab"), "aé" * 50, NOISE[:300], Close(1000, "bye")]


def mixed(peer: Peer) -> bytes:
    """A mixed stream, whose events are MIXED."""
    text = ("aé" * 50).encode()
    return (
        peer.text(text[:50], False)
        + peer.frame(PING, b"ab")
        + peer.more(text[50:])
        + peer.binary(NOISE[:300])
        + peer.close(1000, b"bye")
    )


@pytest.mark.parametrize(
    "make",
    [
        bytearray,
        memoryview,
        lambda b: memoryview(b[::-1])[::-1],
        lambda b: memoryview(b).cast("B", [1, len(b)]),
        lambda b: array("B", b),
        type("Bytes", (bytes,), {"__bytes__": lambda self: b"wrong"}),
    ],
    ids=["bytearray", "memoryview", "backwards", "two-dimensional", "array", "bytes-subclass"],
)
def test_any_buffer_may_be_fed(
    twin: SimpleNamespace, peer: Peer, make: Callable[[bytes], Any]
) -> None:
    stream = mixed(peer)
    for size in (1, 7, 100, len(stream)):
        decoder = peer.decoder(twin)
        events = []
        for start in range(0, len(stream), size):
            events += decoder.feed(make(stream[start : start + size]))
        assert events == MIXED
        assert {type(event) for event in events} == {Ping, str, bytes, Close}


def test_items_wider_than_a_byte_are_read_as_bytes(twin: SimpleNamespace) -> None:
    decoder = twin.MessageDecoder(masked=False)
    assert decoder.feed(array("i", b"\x81\x06abcdef")) == ["abcdef"]


@pytest.mark.parametrize("how", WAYS, ids=str)
def test_one_buffer_may_serve_every_feed(twin: SimpleNamespace, peer: Peer, how: str | int) -> None:
    decoder = peer.decoder(twin)
    events = []
    buffer = bytearray(1000)
    for piece in pieces(mixed(peer), how):
        buffer[: len(piece)] = piece
        with memoryview(buffer)[: len(piece)] as view:
            events += decoder.feed(view)
        buffer[:] = b"\xff" * 1000  # overwritten
    assert events == MIXED


@pytest.mark.parametrize("how", WAYS, ids=str)
def test_what_was_fed_can_be_resized(twin: SimpleNamespace, peer: Peer, how: str | int) -> None:
    decoder = peer.decoder(twin)
    events = []
    for piece in pieces(mixed(peer) + b"\xff", how):
        data = bytearray(piece)
        events += decoder.feed(data)
        data += b"more"  # raises BufferError if there is still a view
        data.clear()
    assert events == MIXED


def test_buffer_is_released_after_an_error_too(twin: SimpleNamespace, peer: Peer) -> None:
    for bad in (b"\x83", peer.text(b"\xff"), peer.close(1000, b"\xff")):
        decoder = peer.decoder(twin)
        for _ in range(2):
            data = bytearray(bad)
            decoder.feed(data)
            assert decoder.error is not None
            data.clear()


@pytest.mark.skipif(
    not hasattr(sys, "getrefcount"), reason="counts references as only CPython does"
)
def test_decoder_keeps_no_reference_to_what_it_was_fed(twin: SimpleNamespace, peer: Peer) -> None:
    long = peer.announce(FIN | BINARY, 10_000) + (peer.key or b"")
    fed = [
        peer.binary(NOISE[:5000]) + peer.head(FIN | TEXT, 100)[:1],
        long + NOISE[:5000],
        peer.binary(NOISE[:5000], False),
        peer.text("a" * 5000) + peer.close(1000) + NOISE[:5000],
        peer.text(b"a" * 5000 + b"\xff" + b"a" * 5000),
        peer.text(b"a" * 5000 + b"\xff" + b"a" * 5000)[:-10],
        NOISE[:200] * 50,
    ]
    for data in fed:
        decoder = peer.decoder(twin)
        before = sys.getrefcount(data)
        decoder.feed(data)
        assert sys.getrefcount(data) == before


@pytest.mark.parametrize("data", ["a", None, 5, [1]], ids=repr)
def test_what_is_no_buffer_is_refused_and_changes_nothing(
    twin: SimpleNamespace, peer: Peer, data: Any
) -> None:
    words = f"^a bytes-like object is required, not '{type(data).__name__}'$"
    decoder = peer.decoder(twin)
    events = []
    for piece in pieces(mixed(peer), 7):
        events += decoder.feed(piece)
        with pytest.raises(TypeError, match=words):
            decoder.feed(data)
    assert events == MIXED


def peak_of(call: Callable[[], Any]) -> tuple[Any, int, int]:
    """Return what a call returns, how much memory is in use after it, and the peak."""
    with traced() as memory:
        kept = call()
        return kept, *memory()


def test_flood_of_tiny_fragments_pins_little_more_than_the_message(twin: SimpleNamespace) -> None:
    peer = Peer(None)
    thousand = peer.more(b"a", False) * 1000
    start = peer.binary(b"", False)
    end = peer.more(b"b")

    def flood() -> Any:
        decoder = peer.decoder(twin, max_fragments=None)
        decoder.feed(start)
        for _ in range(100):
            decoder.feed(thousand)
        return decoder

    decoder, held, peak = peak_of(flood)
    assert decoder.feed(end) == [b"a" * 100_000 + b"b"]
    assert held < 300_000
    assert peak < 500_000


def test_announced_gibibyte_takes_no_memory_before_it_comes(
    twin: SimpleNamespace, peer: Peer
) -> None:
    def announce() -> Any:
        decoder = peer.decoder(twin, max_message_size=None)
        decoder.feed(peer.announce(FIN | BINARY, 1 << 30) + (peer.key or b""))
        decoder.feed(NOISE[:1000])
        assert decoder.error is None
        return decoder

    assert peak_of(announce)[2] < 4 * MIB


def test_decoder_that_is_done_lets_go_of_its_message(twin: SimpleNamespace, peer: Peer) -> None:
    unfinished = peer.binary(bytes(MIB // 2), False)

    def fail(end: bytes) -> Any:
        decoder = peer.decoder(twin)
        decoder.feed(unfinished)
        decoder.feed(end)
        return decoder

    for end in (b"\x83", peer.close(1000), peer.announce(0, MIB)):
        assert peak_of(lambda end=end: fail(end))[1] < MIB // 8


# MessageEncoder ------------------------------------------------------------------------------


@pytest.fixture(params=[KEY, None], ids=["masked", "unmasked"])
def key(request: pytest.FixtureRequest) -> bytes | None:
    return request.param


SIZES = [0, 1, 124, 125, 126, 127, 65535, 65536, 65537]


@pytest.mark.parametrize("size", SIZES)
def test_messages_are_encoded_to_the_byte(
    twin: SimpleNamespace, key: bytes | None, size: int
) -> None:
    peer, encoder = Peer(key), twin.MessageEncoder()
    for character in ("a", "é", "€", "😀"):
        text = (character * size)[:size] if character == "a" else character * (size // 2)
        encoder.text(text, key)
        assert encoder.take() == peer.text(text)
    encoder.binary(NOISE[:size], key)
    assert encoder.take() == peer.binary(NOISE[:size])


CALLS: dict[str, tuple[Callable[[Any, Any], None], Callable[[Peer], bytes]]] = {
    "text": (lambda e, k: e.text("Hello", k), lambda p: p.text("Hello")),
    "text by name": (lambda e, k: e.text(message="Hello", key=k), lambda p: p.text("Hello")),
    "binary": (lambda e, k: e.binary(b"\x00\xff", k), lambda p: p.binary(b"\x00\xff")),
    "binary by name": (lambda e, k: e.binary(message=b"a", key=k), lambda p: p.binary(b"a")),
    "ping": (lambda e, k: e.ping(b"a", k), lambda p: p.frame(PING, b"a")),
    "ping by name": (lambda e, k: e.ping(data=b"a", key=k), lambda p: p.frame(PING, b"a")),
    "empty ping": (lambda e, k: e.ping(key=k), lambda p: p.frame(PING)),
    "longest ping": (lambda e, k: e.ping(bytes(125), k), lambda p: p.frame(PING, bytes(125))),
    "pong": (lambda e, k: e.pong(b"a", k), lambda p: p.frame(PONG, b"a")),
    "pong by name": (lambda e, k: e.pong(data=b"a", key=k), lambda p: p.frame(PONG, b"a")),
    "empty pong": (lambda e, k: e.pong(key=k), lambda p: p.frame(PONG)),
    "empty close": (lambda e, k: e.close(key=k), lambda p: p.frame(CLOSE)),
    "empty close, said so": (lambda e, k: e.close(None, "", k), lambda p: p.frame(CLOSE)),
    "close with a code": (lambda e, k: e.close(1000, key=k), lambda p: p.close(1000)),
    "close with a member": (
        lambda e, k: e.close(CloseCode.GOING_AWAY, key=k),
        lambda p: p.close(1001),
    ),
    "close with a reason": (
        lambda e, k: e.close(code=4999, reason="tschüß", key=k),
        lambda p: p.close(4999, "tschüß".encode()),
    ),
    "longest close": (
        lambda e, k: e.close(3000, "€" * 41, k),
        lambda p: p.close(3000, "€".encode() * 41),
    ),
    "fragments": (
        lambda e, k: (
            e.text("a", k, fin=False),
            e.continuation("é", k, fin=False),
            e.ping(b"", k),
            e.continuation(b"c", key=k),
        ),
        lambda p: p.text("a", False) + p.more("é".encode(), False) + p.frame(PING) + p.more(b"c"),
    ),
    "empty fragments": (
        lambda e, k: (e.binary(b"", k, fin=False), e.continuation("", k)),
        lambda p: p.binary(b"", False) + p.more(),
    ),
    "close inside fragments": (
        lambda e, k: (e.binary(b"a", k, fin=False), e.close(1001, key=k)),
        lambda p: p.binary(b"a", False) + p.close(1001),
    ),
    "frame": (
        lambda e, k: e.frame(1, b"a", key=k, rsv1=True),
        lambda p: p.frame(TEXT, b"a", rsv=RSV1),
    ),
    "frames with every bit": (
        lambda e, k: (
            e.frame(2, b"a", fin=False, rsv1=1, rsv2=1, rsv3=1, key=k),
            e.frame(9, key=k, rsv2=True),
            e.frame(opcode=0, payload=b"b", rsv3="yes", key=k),
        ),
        lambda p: (
            p.frame(BINARY, b"a", False, RSV1 | RSV2 | RSV3)
            + p.frame(PING, rsv=RSV2)
            + p.frame(CONTINUATION, b"b", rsv=RSV3)
        ),
    ),
    "text as bytes": (
        lambda e, k: (e.text_bytes("é".encode(), k), e.text_bytes(data=bytearray(b"a"), key=k)),
        lambda p: p.text("é") + p.text("a"),
    ),
    "Text": (
        lambda e, k: (e.text(Text(b"a"), k), e.text(Text(b"b"), k, fin=0)),
        lambda p: p.text("a") + p.text("b", False),
    ),
    "fragments of text as bytes, cut anywhere": (
        lambda e, k: (
            e.text_bytes(b"\xe2", k, fin=False),
            e.ping(b"", k),
            e.continuation(b"\x82", k, fin=0),
            e.continuation(b"", k, fin=False),
            e.continuation(b"\xac", k, fin=False),
            e.continuation("é", k, fin=False),
            e.continuation(Text(b"a"), k),
        ),
        lambda p: (
            p.text(b"\xe2", False)
            + p.frame(PING)
            + p.more(b"\x82", False)
            + p.more(b"", False)
            + p.more(b"\xac", False)
            + p.more("é".encode(), False)
            + p.more(b"a")
        ),
    ),
    "fragments after those of text as bytes": (
        lambda e, k: (
            e.text_bytes(b"a", k, fin=False),
            e.continuation(b"b", k),
            e.binary(b"", k, fin=False),
            e.continuation(b"\xff", k),
        ),
        lambda p: p.text("a", False) + p.more(b"b") + p.binary(b"", False) + p.more(b"\xff"),
    ),
    "fragments after a frame that ends text as bytes": (
        lambda e, k: (
            e.text_bytes(b"a", k, fin=False),
            e.frame(0, b"\xff", key=k),
            e.binary(b"", k, fin=False),
            e.continuation(b"\xff", k),
        ),
        lambda p: p.text("a", False) + p.more(b"\xff") + p.binary(b"", False) + p.more(b"\xff"),
    ),
    "fin is a truth value": (
        lambda e, k: (e.text("a", k, fin=0), e.continuation("b", k, fin=[1])),
        lambda p: p.text("a", False) + p.more(b"b"),
    ),
}


@pytest.mark.parametrize(("call", "expected"), CALLS.values(), ids=CALLS.keys())
def test_encoding_to_the_byte(
    twin: SimpleNamespace,
    key: bytes | None,
    call: Callable[[Any, Any], None],
    expected: Callable[[Peer], bytes],
) -> None:
    encoder = twin.MessageEncoder()
    call(encoder, key)
    assert len(encoder) == len(expected(Peer(key)))
    assert encoder.take() == expected(Peer(key))


def test_take_hands_over_everything_at_once(twin: SimpleNamespace) -> None:
    encoder = twin.MessageEncoder()
    assert (len(encoder), encoder.take()) == (0, b"")
    expected = b""
    for i in range(2000):
        encoder.text("é" * (i % 100), KEY)
        encoder.binary(NOISE[: i % 200], KEY)
        expected += Peer(KEY).text("é" * (i % 100)) + Peer(KEY).binary(NOISE[: i % 200])
        assert len(encoder) == len(expected)
    taken = encoder.take()
    assert (type(taken), taken) == (bytes, expected)
    assert (len(encoder), encoder.take()) == (0, b"")
    encoder.ping()
    assert encoder.take() == b"\x89\x00"


def test_each_call_tells_how_much_there_is_to_take(twin: SimpleNamespace) -> None:
    encoder = twin.MessageEncoder()
    calls = [
        partial(encoder.text, "é"),
        partial(encoder.text, "a", KEY, fin=False),
        partial(encoder.continuation, "b", fin=False),
        partial(encoder.ping, b"?"),
        partial(encoder.continuation, b"c"),
        partial(encoder.binary, bytes(300)),
        partial(encoder.frame, 2, b"", rsv1=True),
        partial(encoder.raw, b"\x81\x00"),
        partial(encoder.pong),
        partial(encoder.close, 1000),
    ]
    for call in calls * 2:
        assert call() == len(encoder)
    encoder.take()
    assert encoder.text("abc") == 5


def test_large_payloads_are_not_copied(twin: SimpleNamespace) -> None:
    encoder, joined = twin.MessageEncoder(), twin.MessageEncoder()
    large, larger = bytes(65536), bytes(100_000)
    for e in (encoder, joined):
        e.text("before")
        e.binary(large, fin=False)
        e.continuation(larger, fin=False)
        e.ping()
        e.continuation(b"after")
        e.binary(large, KEY)
        assert e.frame(2, larger, rsv2=True) == len(e)
    size = len(encoder)
    buffers = encoder.take_buffers()
    assert [b for b in buffers if len(b) >= 65536 and (b is large or b is larger)] == [
        large,
        larger,
        larger,
    ]
    assert all(type(b) is bytes and b for b in buffers)
    assert b"".join(buffers) == joined.take()
    assert sum(map(len, buffers)) == size
    assert (len(encoder), encoder.take_buffers(), encoder.take()) == (0, [], b"")
    encoder.text("a")
    assert encoder.take_buffers() == [b"\x81\x01a"]


@pytest.mark.parametrize("make", [bytearray, memoryview, lambda data: array("B", data)])
def test_what_can_be_changed_is_copied(
    twin: SimpleNamespace, make: Callable[[bytearray], Any]
) -> None:
    encoder = twin.MessageEncoder()
    payload = bytearray(70_000)
    encoder.binary(make(payload))
    payload[:] = b"x" * 70_000
    assert encoder.take()[10:] == bytes(70_000)


def test_what_was_taken_does_not_change_any_more(twin: SimpleNamespace) -> None:
    encoder = twin.MessageEncoder()
    encoder.text("aaa")
    first = encoder.take()
    encoder.text("bbb")
    assert encoder.take() == b"\x81\x03bbb"
    assert first == b"\x81\x03aaa"


def test_fragments_may_be_taken_one_by_one(twin: SimpleNamespace) -> None:
    encoder = twin.MessageEncoder()
    encoder.text("a", fin=False)
    assert encoder.take() == b"\x01\x01a"
    encoder.continuation("b", fin=False)
    assert encoder.take() == b"\x00\x01b"
    encoder.continuation("c")
    assert encoder.take() == b"\x80\x01c"
    encoder.text("d")
    assert encoder.take() == b"\x81\x01d"


def test_raw_frames_are_sent_as_they_are(twin: SimpleNamespace) -> None:
    frame = twin.encode_frame(1, NOISE[:1] * 200, key=KEY)
    encoder = twin.MessageEncoder()
    encoder.text("a")
    for data in (frame, bytearray(frame), memoryview(frame[::-1])[::-1], b"", array("B", frame)):
        encoder.raw(data)
    encoder.raw(frames=frame)
    assert len(encoder) == 3 + 5 * len(frame)
    assert encoder.take() == b"\x81\x01a" + 5 * frame


@pytest.mark.parametrize(
    "make",
    [
        bytearray,
        memoryview,
        lambda b: memoryview(b[::-1])[::-1],
        lambda b: array("i", b),
        type("Bytes", (bytes,), {"__bytes__": lambda self: b"wrong"}),
    ],
    ids=["bytearray", "memoryview", "backwards", "array", "bytes-subclass"],
)
def test_payloads_and_keys_may_be_any_buffer(
    twin: SimpleNamespace, make: Callable[[bytes], Any]
) -> None:
    peer, encoder = Peer(KEY), twin.MessageEncoder()
    encoder.binary(make(b"abcd"), make(KEY), fin=False)
    encoder.continuation(make(b"efgh"), make(KEY))
    encoder.ping(make(b"ijkl"), make(KEY))
    encoder.pong(make(b"mnop"), make(KEY))
    encoder.frame(2, make(b"qrst"), key=make(KEY))
    encoder.text("u", make(KEY))
    encoder.close(1000, "v", make(KEY))
    assert encoder.take() == (
        peer.binary(b"abcd", False)
        + peer.more(b"efgh")
        + peer.frame(PING, b"ijkl")
        + peer.frame(PONG, b"mnop")
        + peer.binary(b"qrst")
        + peer.text("u")
        + peer.close(1000, b"v")
    )


def test_encoder_holds_no_buffer(twin: SimpleNamespace) -> None:
    encoder = twin.MessageEncoder()
    payload, key = bytearray(b"abcd"), bytearray(KEY)
    encoder.binary(payload, key)
    encoder.ping(payload, key)
    encoder.raw(payload)
    with pytest.raises(StateError):
        encoder.continuation(payload, key)
    payload[:] = key[:] = b"later"
    assert encoder.take() == Peer(KEY).binary(b"abcd") + Peer(KEY).frame(PING, b"abcd") + b"abcd"


class Contrary(str):
    """Only the text itself counts."""

    __slots__ = ()

    def encode(self, *arguments: Any) -> bytes:
        return b"wrong"

    def __str__(self) -> str:
        return "wrong"

    def __len__(self) -> int:
        return 99


@pytest.mark.parametrize("text", ["", "abc", "aé€😀"], ids=ascii)
def test_subclass_of_str_is_encoded_as_the_text_it_is(twin: SimpleNamespace, text: str) -> None:
    encoder = twin.MessageEncoder()
    encoder.text(Contrary(text), fin=False)
    encoder.continuation(Contrary(text))
    encoder.close(1000, Contrary(text))
    peer, data = Peer(None), text.encode()
    assert encoder.take() == peer.text(data, False) + peer.more(data) + peer.close(1000, data)


# MessageEncoder: refusals -----------------------------------------------------------------

BYTES_LIKE = "a bytes-like object is required, not {!r}"
STR = "a str is required, not {!r}"
FOUR_BYTES = "mask key must be 4 bytes, not {}"
NOT_FINISHED = "a fragmented message is not finished; send continuation() first"
NOT_BEGUN = "continuation() without a fragmented message to continue"
MAY_NOT_TRAVEL = "close code {} may not be used in a close frame"
NOT_UTF8 = "text is not UTF-8"
LONE_SURROGATE = (
    r"'utf-8' codec can't encode character '\ud83d' in position 1: surrogates not allowed"
)

REFUSALS: list[tuple[str, tuple[Any, ...], dict[str, Any], type[Exception], str]] = [
    *(
        ("text", (text,), {}, TypeError, STR.format(type(text).__name__))
        for text in (b"a", bytearray(b"a"), None, 5)
    ),
    *(
        ("text_bytes", (data,), {"fin": fin}, ValueError, NOT_UTF8)
        for data in (b"\xff", bytearray(b"\xed\xa0"), b"a" * 100 + b"\xc0\x80")
        for fin in (True, False)
    ),
    ("text_bytes", ("é".encode()[:1],), {}, ValueError, NOT_UTF8),
    ("text", ("a\ud83d",), {}, UnicodeEncodeError, LONE_SURROGATE),
    ("text", ("a\ud83d",), {"fin": False}, UnicodeEncodeError, LONE_SURROGATE),
    *(
        (method, (data,), {}, TypeError, BYTES_LIKE.format(type(data).__name__))
        for method in ("binary", "ping", "pong", "raw", "text_bytes")
        for data in ("a", None, 5, [1])
    ),
    *(
        (
            method,
            ("a" if method == "text" else b"a", key),
            {},
            ValueError,
            FOUR_BYTES.format(len(key)),
        )
        for method in ("text", "binary", "ping", "pong")
        for key in (b"", b"abc", b"abcde")
    ),
    *(
        (method, ("a" if method == "text" else b"a", key), {}, TypeError, BYTES_LIKE.format(name))
        for method in ("text", "binary", "ping", "pong")
        for key, name in (("abcd", "str"), (0, "int"), (False, "bool"))
    ),
    ("ping", (bytes(126),), {}, ValueError, "payload of PING must be at most 125 bytes, not 126"),
    (
        "pong",
        (bytes(70_000),),
        {},
        ValueError,
        "payload of PONG must be at most 125 bytes, not 70000",
    ),
    *(
        ("close", (code,), {}, ValueError, MAY_NOT_TRAVEL.format(code))
        for code in (-1, 0, 999, 1004, 1005, 1006, 1015, 2999, 5000, 65536, 2**70)
    ),
    ("close", (True,), {}, ValueError, MAY_NOT_TRAVEL.format(1)),
    ("close", (CloseCode.NO_STATUS_RCVD,), {}, ValueError, MAY_NOT_TRAVEL.format(1005)),
    *(
        (
            "close",
            (code,),
            {},
            TypeError,
            f"'{type(code).__name__}' object cannot be interpreted as an integer",
        )
        for code in ("1000", 1000.0, float("inf"), float("nan"), b"")
    ),
    ("close", (None, "bye"), {}, ValueError, "close reason needs a close code"),
    ("close", (), {"reason": "bye"}, ValueError, "close reason needs a close code"),
    ("close", (1000, "a" * 124), {}, ValueError, "close reason must be at most 123 bytes, not 124"),
    ("close", (1000, "é" * 62), {}, ValueError, "close reason must be at most 123 bytes, not 124"),
    ("close", (1000, "a\ud83d"), {}, UnicodeEncodeError, LONE_SURROGATE),
    *(
        ("close", (code, reason), {}, TypeError, STR.format(type(reason).__name__))
        for code in (None, 1000)
        for reason in (None, b"bye", 5)
    ),
    ("close", (1000, "", b"abc"), {}, ValueError, FOUR_BYTES.format(3)),
    ("close", (1000,), {"key": "abcd"}, TypeError, BYTES_LIKE.format("str")),
    *(
        ("frame", (opcode,), {}, ValueError, f"{opcode!r} is not a valid Opcode")
        for opcode in (3, 7, 11, 15, 16, -1, 2**70, "1", None, 1.5, [])
    ),
    ("frame", (1, "a"), {}, TypeError, BYTES_LIKE.format("str")),
    ("frame", (2, b"a"), {"key": b"abc"}, ValueError, FOUR_BYTES.format(3)),
    ("frame", (9, b""), {"fin": False}, ValueError, "control frame must not be fragmented"),
    (
        "frame",
        (8, bytes(126)),
        {},
        ValueError,
        "payload of CLOSE must be at most 125 bytes, not 126",
    ),
]
OUT_OF_TURN_OUTSIDE = [
    ("continuation", ("a",), {}, StateError, NOT_BEGUN),
    ("continuation", (b"a",), {"fin": False}, StateError, NOT_BEGUN),
    ("frame", (0,), {}, StateError, NOT_BEGUN),
    # Arguments are checked before the state.
    ("continuation", (5,), {}, TypeError, BYTES_LIKE.format("int")),
    ("continuation", ("a\ud83d",), {}, UnicodeEncodeError, LONE_SURROGATE),
    ("continuation", (b"a", b"abc"), {}, ValueError, FOUR_BYTES.format(3)),
]
OUT_OF_TURN_INSIDE = [
    ("text", ("a",), {}, StateError, NOT_FINISHED),
    ("text", ("é",), {"fin": False}, StateError, NOT_FINISHED),
    ("binary", (b"a",), {}, StateError, NOT_FINISHED),
    ("binary", (b"a",), {"fin": False}, StateError, NOT_FINISHED),
    ("frame", (1,), {}, StateError, NOT_FINISHED),
    ("frame", (2, b"a"), {"fin": False, "rsv1": True}, StateError, NOT_FINISHED),
    ("continuation", (5,), {}, TypeError, BYTES_LIKE.format("int")),
    ("continuation", (None,), {}, TypeError, BYTES_LIKE.format("NoneType")),
    ("continuation", ("a\ud83d",), {"fin": False}, UnicodeEncodeError, LONE_SURROGATE),
    ("continuation", (b"a", b"abc"), {}, ValueError, FOUR_BYTES.format(3)),
    ("continuation", (b"a", "abcd"), {}, TypeError, BYTES_LIKE.format("str")),
]


def check_refusal(
    encoder: Any,
    method: str,
    arguments: tuple[Any, ...],
    options: dict[str, Any],
    cls: type[Exception],
    words: str,
) -> None:
    size = len(encoder)
    with pytest.raises(cls) as caught:
        getattr(encoder, method)(*arguments, **options)
    assert (caught.type, str(caught.value)) == (cls, words)
    assert len(encoder) == size


def refusal_id(value: object) -> str:
    return value if isinstance(value, str) else ascii(value)[:30]


@pytest.mark.parametrize(
    ("method", "arguments", "options", "cls", "words"),
    REFUSALS + OUT_OF_TURN_OUTSIDE,
    ids=refusal_id,
)
def test_refused_call_appends_nothing_and_begins_nothing(
    twin: SimpleNamespace,
    method: str,
    arguments: tuple[Any, ...],
    options: dict[str, Any],
    cls: type[Exception],
    words: str,
) -> None:
    encoder = twin.MessageEncoder()
    encoder.text("before")
    check_refusal(encoder, method, arguments, options, cls, words)
    encoder.text("after")
    assert encoder.take() == b"\x81\x06before\x81\x05after"


@pytest.mark.parametrize(
    ("method", "arguments", "options", "cls", "words"),
    REFUSALS + OUT_OF_TURN_INSIDE,
    ids=refusal_id,
)
def test_refused_call_inside_a_message_appends_nothing_and_ends_nothing(
    twin: SimpleNamespace,
    method: str,
    arguments: tuple[Any, ...],
    options: dict[str, Any],
    cls: type[Exception],
    words: str,
) -> None:
    encoder = twin.MessageEncoder()
    encoder.binary(b"before", fin=False)
    check_refusal(encoder, method, arguments, options, cls, words)
    encoder.continuation(b"after", fin=False)
    encoder.continuation(b"end")
    assert encoder.take() == b"\x02\x06before\x00\x05after\x80\x03end"


@pytest.mark.parametrize(
    ("fragment", "fin"),
    [(b"\xc3", False), (b"a", True), ("\xa9", False), (Text(b"a"), False), (b"", True)],
    ids=repr,
)
def test_refused_fragment_of_text_as_bytes_changes_nothing(
    twin: SimpleNamespace, fragment: Any, fin: bool
) -> None:
    encoder = twin.MessageEncoder()
    encoder.text_bytes(b"\xc3", fin=False)
    check_refusal(encoder, "continuation", (fragment,), {"fin": fin}, ValueError, NOT_UTF8)
    check_refusal(encoder, "continuation", (b"\xa9", b"abc"), {}, ValueError, FOUR_BYTES.format(3))
    check_refusal(encoder, "text_bytes", (b"a",), {"fin": False}, StateError, NOT_FINISHED)
    encoder.continuation(b"\xa9")
    assert encoder.take() == b"\x01\x01\xc3\x80\x01\xa9"


OUT_OF_MEMORY = """
import resource, sys
from importlib import import_module

encoder = import_module(f"fastws._{sys.argv[1]}.messages").MessageEncoder()
encoder.binary(bytes(1000))
# More than a free-threaded Python's allocator has set aside. (bytes need no memory before they are
# taken: see OUT_OF_MEMORY_LATER.)
big = bytearray(min(2 << 30, sys.maxsize >> 3))
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (64 << 20),) * 2)
try:
    encoder.binary(big, b"\\1\\2\\3\\4")
except MemoryError:
    assert len(encoder) in (0, 1004)
    assert len(encoder.take()) in (0, 1004)
    assert len(encoder) == 0
    encoder.text("a")
    assert encoder.take() == b"\\x81\\x01a"
    try:
        encoder.binary(big, b"\\1\\2\\3\\4", fin=False)
    except MemoryError:
        encoder.text("b")  # no message was begun
        assert encoder.take() == b"\\x81\\x01b"
        print("survived")
"""


OUT_OF_MEMORY_LATER = """
import resource, sys
from importlib import import_module

encoder = import_module(f"fastws._{sys.argv[1]}.messages").MessageEncoder()
big = bytes(min(2 << 30, sys.maxsize >> 3))
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (64 << 20),) * 2)
try:
    encoder.binary(big, b"\\1\\2\\3\\4")
    encoder.take()
except MemoryError:
    assert (len(encoder), encoder.take()) == (0, b"")
    encoder.text("a")
    assert encoder.take() == b"\\x81\\x01a"
    print("survived")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits and measures memory as Linux does")
@pytest.mark.parametrize("script", [OUT_OF_MEMORY, OUT_OF_MEMORY_LATER], ids=["append", "take"])
def test_encoder_survives_a_lack_of_memory(twin: SimpleNamespace, script: str) -> None:
    run = subprocess.run([sys.executable, "-c", script, twin.name], capture_output=True, text=True)
    assert (run.returncode, run.stdout, run.stderr) == (0, "survived\n", "")


# Both together -----------------------------------------------------------------------------

data = st.binary(max_size=300)
text = st.text(max_size=100)
messages = st.lists(
    st.one_of(
        text,
        data,
        st.lists(text, min_size=2, max_size=5),
        st.lists(data, min_size=2, max_size=5),
        st.binary(max_size=125).map(Ping),
        st.binary(max_size=125).map(Pong),
    ),
    max_size=8,
)


@given(messages=messages, keys=st.randoms(use_true_random=False), cut=st.integers(1, 40))
def test_what_is_encoded_is_decoded(
    twin: SimpleNamespace, peer: Peer, messages: list[Any], keys: random.Random, cut: int
) -> None:
    encoder, events = twin.MessageEncoder(), []
    for message in messages:
        key = keys.randbytes(4) if peer.key else None
        match message:
            case str():
                encoder.text(message, key)
            case bytes():
                encoder.binary(message, key)
            case Ping(payload):
                encoder.ping(payload, key)
            case Pong(payload):
                encoder.pong(payload, key)
            case [first, *rest, last]:
                begin = encoder.text if isinstance(first, str) else encoder.binary
                begin(first, key, fin=False)
                for fragment in rest:
                    encoder.continuation(fragment, key, fin=False)
                encoder.continuation(last, key)
        events.append(type(message[0])().join(message) if isinstance(message, list) else message)
    encoder.close(1000, "bye", KEY if peer.key else None)
    stream = encoder.take()
    decoder = peer.decoder(twin)
    decoded = []
    for start in range(0, len(stream), cut):
        decoded += decoder.feed(stream[start : start + cut])
    assert (decoded, decoder.error) == ([*events, Close(1000, "bye")], None)
