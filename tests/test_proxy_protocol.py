"""The PROXY protocol, versions 1 and 2: what is read, and what is refused."""

from __future__ import annotations

import re
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fastws import HandshakeError, StateError
from fastws.proxy_protocol import ProxyHeader, ProxyHeaderReader

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"


def v2(command: int, family: int, block: bytes = b"", size: int | None = None) -> bytes:
    size = len(block) if size is None else size
    return SIGNATURE + bytes([0x20 | command, family]) + size.to_bytes(2, "big") + block


def inet(source: str, destination: str, source_port: int, destination_port: int) -> bytes:
    kind = IPv6Address if ":" in source else IPv4Address
    ports = source_port.to_bytes(2, "big") + destination_port.to_bytes(2, "big")
    return kind(source).packed + kind(destination).packed + ports


def unix(source: bytes, destination: bytes) -> bytes:
    return source.ljust(108, b"\0") + destination.ljust(108, b"\0")


def tlv(kind: int, value: bytes) -> bytes:
    return bytes([kind]) + len(value).to_bytes(2, "big") + value


V4 = inet("192.0.2.1", "198.51.100.7", 56324, 443)
V6 = inet("2001:db8::1", "2001:db8::2", 1, 65535)
GOOD: list[tuple[bytes, ProxyHeader]] = [
    (
        b"PROXY TCP4 192.0.2.1 198.51.100.7 56324 443\r\n",
        ProxyHeader(1, ("192.0.2.1", 56324), ("198.51.100.7", 443)),
    ),
    (
        b"PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n",
        ProxyHeader(1, ("255.255.255.255", 65535), ("255.255.255.255", 65535)),
    ),
    (b"PROXY TCP4 0.0.0.0 0.0.0.0 0 0\r\n", ProxyHeader(1, ("0.0.0.0", 0), ("0.0.0.0", 0))),
    (
        b"PROXY TCP6 2001:DB8:0::1 ::1 1 2\r\n",
        ProxyHeader(1, ("2001:db8::1", 1, 0, 0), ("::1", 2, 0, 0)),
    ),
    (b"PROXY TCP6 :: :: 1 2\r\n", ProxyHeader(1, ("::", 1, 0, 0), ("::", 2, 0, 0))),
    (b"PROXY UNKNOWN\r\n", ProxyHeader(1)),
    (b"PROXY UNKNOWN ffff::1 what \xff\0 ever\r\n", ProxyHeader(1)),
    (b"PROXY UNKNOWN " + b"x" * 91 + b"\r\n", ProxyHeader(1)),
    (v2(1, 0x11, V4), ProxyHeader(2, ("192.0.2.1", 56324), ("198.51.100.7", 443))),
    (v2(1, 0x21, V6), ProxyHeader(2, ("2001:db8::1", 1, 0, 0), ("2001:db8::2", 65535, 0, 0))),
    (v2(1, 0x31, unix(b"/run/a", b"/run/b")), ProxyHeader(2, "/run/a", "/run/b")),
    (v2(1, 0x31, unix(b"", b"\0name")), ProxyHeader(2, None, b"\0name")),
    (v2(1, 0x31, unix(b"/" * 108, b"/b")), ProxyHeader(2, "/" * 108, "/b")),
    (
        v2(1, 0x11, V4 + tlv(0x02, b"example.com") + tlv(0x04, b"")),
        ProxyHeader(
            2, ("192.0.2.1", 56324), ("198.51.100.7", 443), ((2, b"example.com"), (4, b""))
        ),
    ),
    (v2(0, 0x00), ProxyHeader(2)),
    (v2(0, 0x11, V4), ProxyHeader(2)),  # LOCAL: addresses are ignored
    (v2(0, 0xFF, b"anything"), ProxyHeader(2)),
    (v2(1, 0x00), ProxyHeader(2)),  # UNSPEC
    (v2(1, 0x0F, b"anything"), ProxyHeader(2)),
]
BAD: list[tuple[bytes, str]] = [
    (b"GET / HTTP/1.1\r\n", "does not begin with"),
    (b"\x16\x03\x01\x02\0\x01", "does not begin with"),  # TLS
    (b"proxy TCP4 ", "does not begin with"),
    (b"PROXY\tTCP4 ", "does not begin with"),
    (SIGNATURE[:-1] + b"\r", "does not begin with"),
    (b"PROXY TCP4  192.0.2.1 192.0.2.1 1 1\r\n", "six fields"),
    (b"PROXY TCP4 192.0.2.1 192.0.2.1 1 1 \r\n", "six fields"),
    (b"PROXY TCP4 192.0.2.1 192.0.2.1 1\r\n", "six fields"),
    (b"PROXY TCP4\xb2 192.0.2.1 192.0.2.1 1 1\r\n", "six fields"),
    (b"PROXY UNKNOWNS\r\n", "six fields"),
    (b"PROXY UDP4 192.0.2.1 192.0.2.1 1 1\r\n", "unknown family 'UDP4'"),
    (b"PROXY TCP4 192.0.2.01 192.0.2.1 1 1\r\n", "not an IPv4 address"),
    (b"PROXY TCP4 192.0.2.1 ::1 1 1\r\n", "not an IPv4 address"),
    (b"PROXY TCP4 3221225985 192.0.2.1 1 1\r\n", "not an IPv4 address"),
    (b"PROXY TCP6 ::1 192.0.2.1 1 1\r\n", "not an IPv6 address"),
    (b"PROXY TCP6 fe80::1%eth0 ::1 1 1\r\n", "not an IPv6 address"),
    (b"PROXY TCP6 [::1] ::1 1 1\r\n", "not an IPv6 address"),
    (b"PROXY TCP4 192.0.2.1 192.0.2.1 65536 1\r\n", "not a port"),
    (b"PROXY TCP4 192.0.2.1 192.0.2.1 01 1\r\n", "not a port"),
    (b"PROXY TCP4 192.0.2.1 192.0.2.1 +1 1\r\n", "not a port"),
    (b"PROXY TCP4 192.0.2.1 192.0.2.1 1 1\n\r\n", "not a port"),
    (b"PROXY UNKNOWN " + b"x" * 92 + b"\r\n", "the line is too long"),
    (SIGNATURE + b"\x11\x11\0\x0c" + V4, "version 1"),
    (SIGNATURE + b"\x22\x11\0\x0c" + V4, "command 2"),
    (v2(1, 0x10, V4), "transport 0"),
    (v2(1, 0x12, V4), "transport 2"),  # UDP, on a stream
    (v2(1, 0x41, V4), "family 4"),
    (v2(1, 0x11, V4[:-1]), "cut off"),
    (v2(1, 0x21, V4), "cut off"),
    (v2(1, 0x31, unix(b"/a", b"/b")[:-1]), "cut off"),
    (v2(1, 0x11, V4 + b"\x01\0"), "a TLV is cut off"),
    (v2(1, 0x11, V4 + tlv(1, b"ab")[:-1]), "a TLV is cut off"),
    (v2(1, 0x11, b"", 4081), "4097 bytes are more than 4096"),
]


@pytest.mark.parametrize(("octets", "header"), GOOD)
@pytest.mark.parametrize("rest", [b"", b"GET / HTTP/1.1\r\n\r\n"])
def test_a_header_is_read_and_the_rest_is_kept(
    octets: bytes, header: ProxyHeader, rest: bytes
) -> None:
    reader = ProxyHeaderReader()
    assert reader.receive_data(octets + rest) == header
    assert reader.rest == rest
    assert reader.missing == 0
    with pytest.raises(StateError):
        reader.receive_data(b"more")


@pytest.mark.parametrize(("octets", "header"), GOOD)
def test_a_header_may_come_in_pieces_and_none_is_read_too_far(
    octets: bytes, header: ProxyHeader
) -> None:
    for size in (1, 7):
        reader = ProxyHeaderReader()
        pieces = [octets[at : at + size] for at in range(0, len(octets), size)]
        assert [reader.receive_data(piece) for piece in pieces[:-1]] == [None] * (len(pieces) - 1)
        assert reader.receive_data(pieces[-1]) == header
    reader, at, reads = ProxyHeaderReader(), 0, 0
    while missing := reader.missing:
        assert at + missing <= len(octets)
        reader.receive_data(octets[at : at + missing])
        at += missing
        reads += 1
    assert (at, reader.rest) == (len(octets), b"")
    assert reads <= 50


@pytest.mark.parametrize(("octets", "error"), BAD)
def test_anything_else_is_refused(octets: bytes, error: str) -> None:
    reader = ProxyHeaderReader()
    with pytest.raises(HandshakeError, match=error):
        reader.receive_data(octets)
    assert reader.missing == 0
    with pytest.raises(StateError):
        reader.receive_data(b"")
    # It does not matter how it is cut.
    reader = ProxyHeaderReader()
    with pytest.raises(HandshakeError, match=error):
        _ = [reader.receive_data(bytes([octet])) for octet in octets]


def test_a_size_is_refused_before_the_bytes_are_there() -> None:
    with pytest.raises(HandshakeError, match="65551 bytes"):
        ProxyHeaderReader().receive_data(SIGNATURE + b"\x20\0\xff\xff")
    reader = ProxyHeaderReader(max_size=None)
    assert reader.receive_data(SIGNATURE + b"\x20\0\xff\xff") is None
    assert reader.missing == 65535
    assert reader.receive_data(bytes(65535)) == ProxyHeader(2)


@pytest.mark.parametrize(("max_size", "error"), [(231, ValueError), ("232", TypeError)])
def test_a_limit_must_have_room_for_addresses(max_size: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="max_size"):
        ProxyHeaderReader(max_size=max_size)
    ProxyHeaderReader(max_size=232)


def test_what_is_received_must_be_bytes() -> None:
    reader = ProxyHeaderReader()
    with pytest.raises(TypeError):
        reader.receive_data("PROXY UNKNOWN\r\n")  # type: ignore[arg-type]
    assert reader.receive_data(memoryview(b"PROXY UNKNOWN\r\n")) == ProxyHeader(1)


BEGINNINGS = st.sampled_from([octets for octets, _ in GOOD])


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A header with some of its bytes replaced, and something after it."""
    octets = bytearray(draw(BEGINNINGS))
    for at in draw(st.lists(st.integers(0, len(octets) - 1), max_size=3)):
        octets[at] = draw(st.integers(0, 255) | st.sampled_from(b" \r\n0:."))
    return bytes(octets) + draw(st.binary(max_size=20))


@given(damaged() | st.binary(max_size=40), st.lists(st.integers(1, 60), max_size=5))
@example(b"PROXY TCP4 \r", [15])
def test_however_it_is_cut_the_result_is_the_same(octets: bytes, cuts: list[int]) -> None:
    def read(pieces: list[bytes]) -> object:
        reader, seen = ProxyHeaderReader(), 0
        try:
            for piece in pieces:
                seen += len(piece)
                assert reader.missing > 0
                header = reader.receive_data(piece)
                if header is not None:
                    return header, reader.rest + octets[seen:]
        except HandshakeError as exc:
            return str(exc)
        return "not complete"

    pieces, at = [], 0
    for cut in cuts:
        pieces.append(octets[at : at + cut])
        at += cut
    result = read([octets])
    assert read([*pieces, octets[at:]]) == result
    # Reading no more than what is missing never reads too far.
    reader, at = ProxyHeaderReader(), 0
    with suppress(HandshakeError):
        while at < len(octets) and (missing := reader.missing):
            reader.receive_data(octets[at : at + missing])
            at += missing
        assert reader.rest == b""
    if isinstance(result, tuple):
        assert octets[at:] == result[1]
        assert re.match(rb"PROXY |\r\n\r\n\0\r\nQUIT\n", octets)
