"""wsproto with fastws: the same frames, errors and bytes as without, however data is split."""

from __future__ import annotations

import os
import random
import struct
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wsproto import connection, events
from wsproto import frame_protocol as host
from wsproto.extensions import Extension, PerMessageDeflate
from wsproto.frame_protocol import Opcode, RsvBits

import fastws.integrations.wsproto as integration
from fastws import integrations
from fastws.integrations.wsproto import FrameProtocol

Theirs = host.FrameProtocol
KEY = b"\x8fK\x00\xd5"


@pytest.fixture(autouse=True)
def same_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "urandom", lambda size: KEY[:size])


# Installing -----------------------------------------------------------------------------


def test_installs_and_uninstalls() -> None:
    process = host.XorMaskerSimple.process
    with integration.install() as handle:
        assert handle.active
        assert integrations.installed() == ["wsproto"]
        ours = connection.Connection(connection.SERVER)
        assert type(ours._proto) is FrameProtocol
        assert integration.install() is handle
    assert connection.FrameProtocol is Theirs
    assert host.XorMaskerSimple.process is process
    assert type(connection.Connection(connection.SERVER)._proto) is Theirs
    # Open connections go on.
    ours.receive_data(b"\x89\x80" + KEY)
    assert list(ours.events()) == [events.Ping(payload=b"")]


def test_is_their_class() -> None:
    assert issubclass(FrameProtocol, Theirs)


def test_fails_the_check(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(integration, "decode_utf8", lambda data, key: "something else")
    with pytest.raises(integrations.IntegrationError, match="does not work in wsproto"):
        integration.install()
    assert connection.FrameProtocol is Theirs


# Receiving ------------------------------------------------------------------------------


class Recorder(Extension):
    """An extension that uses a bit, changes the data, and records how it is called."""

    name = "x-recorder"

    def __init__(self, bit: int, fails: str = "") -> None:
        self.calls: list[Any] = []
        self.bit = bit
        self.fails = fails

    def enabled(self) -> bool:
        return True

    def offer(self) -> bool:
        return True

    def frame_inbound_header(self, proto: Any, opcode: Any, rsv: Any, length: int) -> Any:
        self.calls.append(("header", proto.client, opcode, rsv, length))
        if self.fails == "header" and length == 2:
            return host.CloseReason.POLICY_VIOLATION
        return RsvBits(*(bit == self.bit for bit in range(3)))

    def frame_inbound_payload_data(self, proto: Any, data: bytes) -> Any:
        self.calls.append(("payload", type(data), bytes(data)))
        if self.fails == "payload" and len(data) == 2:
            return host.CloseReason.POLICY_VIOLATION
        return data[::-1]

    def frame_inbound_complete(self, proto: Any, fin: bool) -> Any:
        self.calls.append(("complete", fin))
        if self.fails == "complete" and not fin:
            return host.CloseReason.POLICY_VIOLATION
        return b"!" if fin else None

    def frame_outbound(self, proto: Any, opcode: Any, rsv: Any, data: bytes, fin: bool) -> Any:
        self.calls.append(("outbound", proto.client, opcode, rsv, type(data), bytes(data), fin))
        return RsvBits(*(bit == self.bit for bit in range(3))), data + b"?"


def deflate() -> PerMessageDeflate:
    extension = PerMessageDeflate()
    extension.finalize("permessage-deflate")
    return extension


EXTENSIONS = {
    "none": list,
    "disabled": lambda: [PerMessageDeflate()],
    "deflate": lambda: [deflate()],
    "foreign": lambda: [Recorder(1)],
    "failing": lambda: [Recorder(2, "payload"), Recorder(0, "header"), Recorder(1, "complete")],
    "several": lambda: [Recorder(1), deflate()],
}


def outcomes(protocol: Any, chunks: list[bytes], takes: list[int | None]) -> list[Any]:
    """Return the results of feeding chunks to a protocol, taking some frames after each."""
    found: list[Any] = []
    for index, chunk in enumerate(chunks):
        protocol.receive_bytes(chunk)
        found.append("received")
        count = takes[index % len(takes)]
        frames = protocol.received_frames()
        try:
            while count is None or count > 0:
                frame = next(frames, None)
                if frame is None:
                    break
                found.append((type(frame), *map(kind, frame)))
                count = None if count is None else count - 1
        except Exception as exc:  # whatever it is, it has to be the same
            found.append((type(exc), str(exc), kind(getattr(exc, "code", None))))
    return found


def kind(value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(map(kind, value))
    return type(value), value


def assert_same(
    data: bytes, cuts: list[int], client: bool, extensions: str, takes: list[int | None]
) -> None:
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    chunks = [data[a:b] for a, b in pairwise(edges)] + [b"", b"\x8a\x00"]
    theirs, ours = EXTENSIONS[extensions](), EXTENSIONS[extensions]()
    expected = outcomes(Theirs(client, theirs), chunks, takes)
    with integration.install():
        assert outcomes(FrameProtocol(client, ours), chunks, takes) == expected
    assert [getattr(ext, "calls", None) for ext in ours] == [
        getattr(ext, "calls", None) for ext in theirs
    ]


TEXTS = st.one_of(
    st.text(max_size=8).map(str.encode),
    st.text(alphabet="aé€𝄞", max_size=140).map(str.encode),
    st.sampled_from(
        [b"\xff", b"a\xe2\x82", b"\xe2\x28\xa1", b"\xed\xa0\x80", b"\xf4\x90", b"\xc0"]
    ),
)
PAYLOADS = st.one_of(
    TEXTS,
    st.binary(max_size=5),
    st.sampled_from([0, 2, 125, 126, 127, 65535, 65536]).map(bytes),
)
CLOSES = st.one_of(
    st.just(b""),
    st.builds(
        lambda code, reason: struct.pack("!H", code) + reason,
        st.sampled_from([0, 999, 1000, 1004, 1005, 1006, 1012, 1015, 1016, 2999, 3000, 4999, 5000]),
        TEXTS,
    ),
)


@st.composite
def frame(draw: st.DrawFn, mask: int) -> bytes:
    """A frame, usually valid."""
    odd = draw(st.integers(0, 30))
    opcode = draw(st.sampled_from([0, 0, 1, 1, 1, 2, 2, 8, 9, 10] if odd else [3, 7, 11, 15]))
    payload = draw(CLOSES if opcode == 8 else PAYLOADS)
    if opcode > 7 and odd != 1:
        payload = payload[:125]
    fin = draw(st.booleans()) if opcode < 8 or odd == 2 else True
    rsv = draw(st.sampled_from([0x10, 0x20, 0x40])) if odd in (3, 4, 5) else 0
    length = len(payload)
    size = 0 if length < 126 else 1 if length < 1 << 16 else 2
    if odd == 6:
        size = draw(st.integers(size, 2))
    if odd == 7:
        length, size = 1 << 63, 2
    mask = mask ^ 0x80 if odd == 8 else mask
    short = [length, 126, 127][size]
    header = bytes([fin << 7 | rsv | opcode, mask | short])
    header += [b"", struct.pack("!H", length % 65536), struct.pack("!Q", length)][size]
    if mask:
        header += KEY
        masker = bytes(a ^ b for a, b in zip(payload, KEY * (len(payload) // 4 + 1), strict=False))
        payload = masker
    return header + payload


@st.composite
def streams(draw: st.DrawFn) -> tuple[bytes, bool]:
    client = draw(st.booleans())
    frames = draw(st.lists(frame(0 if client else 0x80), max_size=6))
    junk = draw(st.binary(max_size=12)) if draw(st.integers(0, 5)) == 0 else b""
    return b"".join(frames) + junk, client


@given(
    streams(),
    st.lists(st.integers(0, 1 << 20), max_size=6),
    st.sampled_from(sorted(EXTENSIONS)),
    st.lists(st.sampled_from([None, None, 0, 1, 2]), min_size=1, max_size=4),
)
def test_same_outcome_for_any_stream(
    stream: tuple[bytes, bool], cuts: list[int], extensions: str, takes: list[int | None]
) -> None:
    data, client = stream
    assert_same(data, cuts, client, extensions, takes)


def test_same_outcome_byte_by_byte() -> None:
    data = b"".join(
        host_frame(opcode, payload, fin)
        for opcode, payload, fin in [
            (Opcode.TEXT, "a€".encode(), True),
            (Opcode.TEXT, "𝄞€".encode()[:5], False),
            (Opcode.PING, b"ping", True),
            (Opcode.CONTINUATION, b"", False),
            (Opcode.CONTINUATION, "𝄞€".encode()[5:], True),
            (Opcode.BINARY, bytes(300), True),
            (Opcode.BINARY, b"", True),
            (Opcode.CLOSE, b"\x03\xe8bye", True),
            (Opcode.TEXT, b"after the end", True),
        ]
    )
    for extensions in EXTENSIONS:
        assert_same(data, list(range(len(data))), False, extensions, [None])
        assert_same(data, [], False, extensions, [1])


def host_frame(opcode: Opcode, payload: bytes, fin: bool) -> bytes:
    return bytes(Theirs(True, [])._serialize_frame(opcode, payload, fin))


@pytest.mark.parametrize("client", [True, False])
def test_takes_what_is_like_bytes(client: bool) -> None:
    data = b"\x82\x03abc" if client else b"\x82\x83" + bytes(4) + b"abc"
    for chunk in bytearray(data), memoryview(data):
        both = [outcomes(cls(client, []), [chunk], [None]) for cls in (Theirs, FrameProtocol)]
        assert both[0] == both[1]
        assert len(both[0]) == 2
    for wrong in "text", "", None, list(data), memoryview(data)[::2]:
        errors = []
        for cls in Theirs, FrameProtocol:
            with pytest.raises((TypeError, BufferError)) as caught:
                cls(client, []).receive_bytes(wrong)
            errors.append((caught.type, str(caught.value)))
        assert errors[0] == errors[1]


def test_keeps_no_view_of_what_it_was_given() -> None:
    protocol = FrameProtocol(True, [])
    data = bytearray(b"\x82\x03abc")
    protocol.receive_bytes(data)
    data[2:] = b"xyz"
    assert [bytes(frame.payload) for frame in protocol.received_frames()] == [b"abc"]


@given(
    st.binary(max_size=40),
    st.binary(min_size=4, max_size=4),
    st.lists(st.integers(0, 40), max_size=3),
)
def test_same_masks(data: bytes, key: bytes, cuts: list[int]) -> None:
    edges = [0, *sorted(cuts), len(data)]
    chunks = [bytearray(data[a:b]) for a, b in pairwise(edges)]
    theirs = host.XorMaskerSimple(key)
    expected = [theirs.process(chunk) for chunk in chunks]
    with integration.install():
        ours = host.XorMaskerSimple(bytearray(key))
        found = [ours.process(chunk) for chunk in chunks]
    assert found == expected
    assert list(map(type, found)) == list(map(type, expected))
    assert not any(a and a is b for a, b in zip(found, chunks, strict=True))


# Sending --------------------------------------------------------------------------------


CALLS: list[tuple[str, tuple[Any, ...]]] = [
    ("send_data", ()),
    ("send_data", ("text €",)),
    ("send_data", ("\ud800",)),
    ("send_data", (b"bytes",)),
    ("send_data", (b"", False)),
    ("send_data", (bytearray(126), False)),
    ("send_data", ("not binary", True)),
    ("send_data", (bytes(1023), True)),
    ("send_data", ("€" * 1024, True)),
    ("send_data", (bytearray(65535), False)),
    ("send_data", (bytes(65536), False)),
    ("send_data", (bytes(65535), 1)),
    ("send_data", (bytes(65536), True)),
    ("send_data", (memoryview(b"abcdef"),)),
    ("send_data", (memoryview(b"abcdef")[::2],)),
    ("send_data", (memoryview(b"abcdef").cast("H"),)),
    ("send_data", (None,)),
    ("send_data", (3,)),
    ("send_data", (b"done", 0)),
    ("send_data", (b"done", None)),
    ("send_data", (b"done", True)),
    ("ping", ()),
    ("ping", (bytes(125),)),
    ("ping", (bytearray(b"ping"),)),
    ("ping", (bytes(126),)),
    ("ping", ("text",)),
    ("pong", (b"pong",)),
    ("pong", (bytes(70_000),)),
    ("pong", (memoryview(b"pong"),)),
    ("close", ()),
    ("close", (1000,)),
    ("close", (1000, "bye")),
    ("close", (1000, "€" * 70)),
    ("close", (None, "bye")),
    ("close", (host.CloseReason.NO_STATUS_RCVD,)),
    ("close", (1006, "gone")),
    ("close", (70_000,)),
]


def call(protocol: Any, name: str, arguments: tuple[Any, ...]) -> Any:
    try:
        result = getattr(protocol, name)(*arguments)
    except Exception as exc:  # whatever it is, it has to be the same
        return type(exc), str(exc)
    return type(result), result


@pytest.mark.parametrize("extensions", sorted(EXTENSIONS))
@pytest.mark.parametrize("client", [True, False])
def test_sends_the_same(client: bool, extensions: str) -> None:
    calls = CALLS + random.Random(5).choices(CALLS, k=300)
    theirs, ours = EXTENSIONS[extensions](), EXTENSIONS[extensions]()
    protocol = Theirs(client, theirs)
    expected = [call(protocol, *each) for each in calls]
    with integration.install():
        protocol = FrameProtocol(client, ours)
        assert [call(protocol, *each) for each in calls] == expected
    assert [getattr(ext, "calls", None) for ext in ours] == [
        getattr(ext, "calls", None) for ext in theirs
    ]
