"""Fuzzes the opening handshake of both roles, and permessage-deflate's negotiation in it.

Of each stream there are three readings: in pieces, in one piece, and in one piece by h11 alone.

python fuzz/handshake.py [libFuzzer's options] [corpus]
"""

from __future__ import annotations

import re
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import h11
from common import Input, fuzz, instrumented

with instrumented():
    from fastws import heads
    from fastws.deflate import Agreement, PerMessageDeflate
    from fastws.exceptions import RequestError, ResponseError
    from fastws.handshake import ClientHandshake, ServerHandshake
    from fastws.spec import Role

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

KEY = b"the sample nonce"
REQUEST = ClientHandshake("ws://h", key=KEY).request()


def feed(handshake: Any, pieces: list[bytes]) -> tuple[Any, bytes]:
    """Return the first result, which may be a documented error, and the bytes that follow it."""
    for number, piece in enumerate(pieces, 1):
        try:
            result = handshake.receive_data(piece)
        except RequestError as exc:
            assert exc.status in (400, 431), exc
            return exc, b""
        except ResponseError as exc:
            return exc, b""
        if result is not None:
            return result, handshake.trailing_data + b"".join(pieces[number:])
    return None, b""


@contextmanager
def h11_alone() -> Iterator[None]:
    """Take no head for a usual one."""
    readers = (heads.RequestReader, heads.ResponseReader)
    usual = [reader._USUAL for reader in readers]
    try:
        for reader in readers:
            reader._USUAL = re.compile(rb"(?!)")
        yield
    finally:
        for reader, pattern in zip(readers, usual, strict=True):
            reader._USUAL = pattern


def same(first: Any, second: Any) -> bool:
    if isinstance(first, Exception):
        # A refusal's body is read as it arrives; how much has arrived may differ.
        return type(first) is type(second) and str(first) == str(second)
    return bool(first == second)


def parse(response: bytes, trailing: bytes = b"") -> h11.InformationalResponse | h11.Response:
    """Return a response as another implementation parses it."""
    peer = h11.Connection(h11.CLIENT)
    peer.send(h11.Request(method="GET", target="/", headers=[("Host", "h"), ("Upgrade", "x")]))
    peer.send(h11.EndOfMessage())
    peer.receive_data(response + trailing)
    event = peer.next_event()
    assert isinstance(event, (h11.InformationalResponse, h11.Response)), event
    if event.status_code == 101:
        assert peer.trailing_data[0] == trailing
    else:
        while not isinstance(peer.next_event(), h11.EndOfMessage):
            pass
        assert peer.trailing_data[0] == b""
    return event


def check_server(stream: bytes, cut: Callable[[bytes], list[bytes]], deflate: Any) -> None:
    handshakes = [
        ServerHandshake(
            origins=["https://h", None],
            subprotocols=["chat", "soap"],
            extensions=[deflate],
            max_header_size=1 << 12,
            max_headers=32,
        )
        for _ in range(3)
    ]
    (request, rest), whole = feed(handshakes[0], cut(stream)), feed(handshakes[1], [stream])
    with h11_alone():
        by_h11 = feed(handshakes[2], [stream])
    assert same(request, whole[0]), (request, whole[0])
    assert same(whole[0], by_h11[0]), (whole[0], by_h11[0])
    assert whole[1] == by_h11[1]
    if request is None:
        return
    handshake = handshakes[0]
    try:
        if isinstance(request, RequestError):
            raise request
        assert rest == whole[1]
        assert stream.endswith(rest)
        response = handshake.accept(request)
    except RequestError as exc:
        event = parse(handshake.reject(exc))
        assert event.status_code == exc.status >= 400
        assert b"close" in dict(event.headers)[b"connection"]
    else:
        event = parse(response, rest)
        assert event.status_code == 101
        for agreed in handshake.extensions:
            assert isinstance(agreed, Agreement)
            check_agreement(agreed, Role.SERVER)


def check_client(stream: bytes, cut: Callable[[bytes], list[bytes]], deflate: Any) -> None:
    handshakes = [
        ClientHandshake(
            "ws://h",
            key=KEY,
            subprotocols=["chat", "soap"],
            extensions=[deflate],
            max_header_size=1 << 12,
            max_headers=32,
            max_body_size=1 << 10,
        )
        for _ in range(3)
    ]
    (response, rest), whole = feed(handshakes[0], cut(stream)), feed(handshakes[1], [stream])
    with h11_alone():
        by_h11 = feed(handshakes[2], [stream])
    assert same(response, whole[0]), (response, whole[0])
    assert same(whole[0], by_h11[0]), (whole[0], by_h11[0])
    assert whole[1] == by_h11[1]
    if response is None:
        try:
            handshakes[0].receive_eof()
        except ResponseError:
            return
        raise AssertionError("an end without an error")
    if isinstance(response, ResponseError):
        assert response.response is None or len(response.response.body) <= 1 << 10
        return
    assert response.status == 101
    assert rest == whole[1]
    assert stream.endswith(rest)
    for agreed in handshakes[0].extensions:
        assert isinstance(agreed, Agreement)
        check_agreement(agreed, Role.CLIENT)


def check_agreement(agreed: Agreement, role: Role) -> None:
    assert agreed.role is role
    assert 8 <= agreed.max_window_bits <= agreed.config.max_window_bits
    assert 8 <= agreed.peer_max_window_bits <= 15
    assert agreed.context_takeover <= agreed.config.context_takeover
    assert agreed.peer_context_takeover <= agreed.config.peer_context_takeover


def check(data: bytes) -> None:
    source = Input(data)
    flags = source.byte()
    cut = source.cut()
    deflate = PerMessageDeflate(
        context_takeover=not flags & 2,
        peer_context_takeover=not flags & 4,
        max_window_bits=15 if flags & 8 else 10,
        peer_max_window_bits=15 if flags & 16 else 10,
    )
    (check_client if flags & 1 else check_server)(source.rest(), cut, deflate)


if __name__ == "__main__":
    fuzz(check)
