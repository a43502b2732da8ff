"""Fuzzes addresses: URIs, proxies, origins, redirects, and how long a server asks to wait.

python fuzz/addresses.py [libFuzzer's options] [corpus]
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

import h11
from common import Input, fuzz, instrumented

with instrumented():
    from fastws.aio.redirects import Route
    from fastws.aio.retries import RetryPolicy
    from fastws.exceptions import InvalidURIError, ResponseError
    from fastws.handshake import ClientHandshake, ServerHandshake
    from fastws.http import Headers, Response
    from fastws.tunnels import TunnelHandshake, is_loopback
    from fastws.uri import URI, Proxy, is_origin, join_host, parse_proxy, parse_uri

if TYPE_CHECKING:
    from collections.abc import Callable

Place = TypeVar("Place", URI, Proxy)

NAME = re.compile(r"[a-z0-9._-]{1,254}|[0-9a-f:]{2,39}")
TARGET = re.compile(r"/[!-~]*")
AROUND = "".join(map(chr, range(33)))
HERE = parse_uri("wss://user:secret@here/path?query")
CREDENTIALS = Headers({"Authorization": "secret", "Cookie": "secret", "User-Agent": "me"})


def check_place(place: URI | Proxy) -> None:
    """The host, the port and the credentials of a URI or a proxy."""
    assert NAME.fullmatch(place.host), place.host
    assert 1 <= place.port <= 65535
    for text in (place.username, place.password):
        assert text is None or not re.search(r"[\x00-\x1f\x7f]", text)
    is_loopback(place.host)


def parsed(parse: Callable[[str], Place], text: str) -> Place | None:
    """Return what is parsed, or None if it is refused."""
    try:
        place = parse(text)
    except InvalidURIError as exc:
        # Messages are for logs, and never quote what may be a password.
        assert len(str(exc)) < 120
        assert str(exc).isascii()
        assert str(exc).isprintable()
        return None
    check_place(place)
    return place


def read_by_h11(octets: bytes) -> h11.Request:
    """Return the request, after which there is nothing."""
    peer = h11.Connection(h11.SERVER)
    peer.receive_data(octets)
    event = peer.next_event()
    assert isinstance(event, h11.Request)
    assert peer.trailing_data[0] == b""
    return event


def check_uri(text: str) -> None:
    uri = parsed(parse_uri, text)
    if uri is None:
        return
    assert TARGET.fullmatch(uri.target), uri.target
    assert "#" not in uri.target
    # What it means is written in one way, which means the same.
    if uri.unix_path is None:
        scheme = "http" if text.lstrip(AROUND)[0] in "hH" else "ws"
        place = join_host(uri.host, uri.port)
        again = parse_uri(f"{scheme}{'s' * uri.secure}://{place}{uri.target}")
        assert again == replace(uri, username=None, password=None), (uri, again)
    # It cannot break out of its line; our server and h11 read the same.
    octets = ClientHandshake(uri).request()
    request = ServerHandshake().receive_data(octets)
    assert request is not None
    assert request.target == uri.target
    assert read_by_h11(octets).target == uri.target.encode()


def check_proxy(text: str) -> None:
    proxy = parsed(parse_proxy, text)
    if proxy is None or not proxy.is_http:
        return
    event = read_by_h11(TunnelHandshake(proxy, "host", 443).request())
    assert event.target == b"host:443"
    assert len(event.headers) == 2 + (proxy.username is not None)


def check_location(text: str) -> None:
    try:
        response = Response(302, Headers({"Location": text.encode().decode("latin-1")}))
    except ValueError:
        return  # no header field
    route = Route(HERE, CREDENTIALS, 5)
    try:
        there = route.follow(ResponseError("found", response))
    except ResponseError as exc:
        assert "secret" not in str(exc) or "secret" in text
        return
    assert there is not None
    check_place(there.uri)
    assert there.uri.secure
    assert there.uri.unix_path is None
    if (there.uri.host, there.uri.port) != (HERE.host, HERE.port):
        assert there.is_elsewhere
        assert "secret" not in str(there.headers.items())
        assert there.uri.password != "secret" or "secret" in text
    else:
        assert there.headers == CREDENTIALS


def check_delay(text: str) -> None:
    try:
        response = Response(503, Headers({"Retry-After": text}))
    except ValueError:
        return  # no header field
    policy = RetryPolicy()
    delay = policy.retry_after(ResponseError("busy", response))
    assert 0.0 <= delay <= policy.max_retry_after


def check_origin(text: str) -> None:
    if is_origin(text):
        assert text.isprintable()
        assert not re.search(r"[\s/?#@*]", text.partition("://")[2])
        ServerHandshake(origins=[text])


CHECKS = (check_uri, check_proxy, check_location, check_delay, check_origin)


def check(data: bytes) -> None:
    source = Input(data)
    how = source.choice(CHECKS)
    how(source.rest().decode(errors="surrogateescape"))


if __name__ == "__main__":
    fuzz(check)
