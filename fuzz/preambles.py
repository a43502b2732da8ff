"""Fuzzes what stands before other bytes: PROXY protocol, answers to CONNECT, envelopes of a bus.

python fuzz/preambles.py [libFuzzer's options] [corpus]
"""

from __future__ import annotations

from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

from common import Input, fuzz, instrumented

with instrumented():
    from fastws.bus import _envelope
    from fastws.exceptions import HandshakeError, ProxyError
    from fastws.proxy_protocol import ProxyHeader, ProxyHeaderReader
    from fastws.tunnels import TunnelHandshake
    from fastws.uri import parse_proxy

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_SIZES = (4096, 232, None)
PROXY = parse_proxy("http://user:secret@proxy:3128")


# The PROXY protocol ------------------------------------------------------------------------


def read_header(pieces: list[bytes], max_size: int | None) -> tuple[Any, bytes]:
    """Return the header, or the error as a string, and the bytes after it."""
    reader = ProxyHeaderReader(max_size=max_size)
    for number, piece in enumerate(pieces, 1):
        try:
            header = reader.receive_data(piece)
        except HandshakeError as exc:
            return str(exc), b""
        if header is not None:
            assert reader.missing == 0
            return header, reader.rest + b"".join(pieces[number:])
        assert reader.missing > 0
    return None, b""


def read_exactly(stream: bytes, max_size: int | None) -> tuple[Any, bytes]:
    """The same, but never read more than what is missing."""
    reader = ProxyHeaderReader(max_size=max_size)
    position = 0
    while position < len(stream):
        end = position + reader.missing
        assert end > position
        try:
            header = reader.receive_data(stream[position:end])
        except HandshakeError as exc:
            return str(exc), b""
        position = end
        if header is not None:
            assert reader.rest == b""
            return header, stream[position:]
    return None, b""


def check_header(stream: bytes, cut: Callable[[bytes], list[bytes]], max_size: int | None) -> None:
    header, rest = whole = read_header([stream], max_size)
    assert read_header(cut(stream), max_size) == whole
    assert read_exactly(stream, max_size) == whole
    if not isinstance(header, ProxyHeader):
        return
    assert stream.endswith(rest)
    for end in (header.source, header.destination):
        if isinstance(end, tuple):
            address = ip_address(end[0])
            assert end[2:] == (() if address.version == 4 else (0, 0))
            assert str(address) == end[0]
            assert 0 <= end[1] <= 0xFFFF
        else:
            assert end is None or isinstance(end, (str, bytes))
    size = sum(3 + len(value) for _, value in header.tlvs)
    assert size < len(stream) - len(rest)


# Tunnels -------------------------------------------------------------------------------------


def open_tunnel(pieces: list[bytes]) -> str:
    """Return how it went."""
    handshake = TunnelHandshake(PROXY, "host", 443)
    try:
        for piece in pieces:
            if piece and handshake.receive_data(piece):
                return "open"
        handshake.receive_eof()
    except ProxyError as exc:
        assert "secret" not in str(exc)
        assert str(exc).isprintable()
        # (What h11 says about that depends on how the stream is split.)
        return "not HTTP" if str(exc).startswith("bad response") else str(exc)
    raise AssertionError("an end without an error")


def check_tunnel(stream: bytes, cut: Callable[[bytes], list[bytes]], _: int | None) -> None:
    whole = open_tunnel([stream])
    if "nobody asked for" not in whole:  # which cannot be seen before it arrives
        assert open_tunnel(cut(stream)) == whole


# A bus ----------------------------------------------------------------------------------------


def check_envelope(data: bytes, cut: Callable[[bytes], list[bytes]], _: int | None) -> None:
    try:
        origin, message = _envelope.open_envelope(data)
    except ValueError:
        return
    if isinstance(message, (str, bytes)):
        assert _envelope.seal(origin, message) == data
    else:
        assert _envelope.seal_gap(origin) == data


CHECKS = (check_header, check_tunnel, check_envelope)


def check(data: bytes) -> None:
    source = Input(data)
    how, max_size = source.choice(CHECKS), source.choice(MAX_SIZES)
    cut = source.cut()
    how(source.rest(), cut, max_size)


if __name__ == "__main__":
    fuzz(check)
