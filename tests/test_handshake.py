"""The opening handshake of both roles: each rule, each refusal, each limit."""

from __future__ import annotations

import array
import re
from contextlib import suppress
from email.utils import parsedate_to_datetime
from itertools import pairwise
from typing import TYPE_CHECKING

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastws import heads
from fastws.exceptions import (
    FieldError,
    HandshakeError,
    InvalidURIError,
    RequestError,
    ResponseError,
    StateError,
)
from fastws.handshake import (
    URI,
    Accept,
    ClientHandshake,
    ServerHandshake,
    accept_key,
    format_extension,
    parse_extensions,
    parse_uri,
)
from fastws.http import Headers, Request, Response
from fastws.peers import Peer, TLSInfo
from fastws.uri import parse_proxy

if TYPE_CHECKING:
    from collections.abc import Iterator

# RFC 6455 §1.3
KEY = "dGhlIHNhbXBsZSBub25jZQ=="
ACCEPT = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="

GOOD = {
    "Host": "server.example",
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Key": KEY,
    "Sec-WebSocket-Version": "13",
}
GOOD_ANSWER = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Accept": ACCEPT}


@pytest.fixture(params=["usual", "h11"], scope="module", autouse=True)
def parser(request: pytest.FixtureRequest) -> Iterator[None]:
    """Read usual heads as they usually are, and leave all to h11: there is no difference."""
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "h11":
            for reader in (heads.RequestReader, heads.ResponseReader):
                patch.setattr(reader, "_USUAL", re.compile(rb"(?!)"))
        yield


def block(first_line: str, fields) -> bytes:
    pairs = fields.items() if isinstance(fields, dict) else fields
    lines = [first_line, *(f"{name}: {value}" for name, value in pairs), "", ""]
    return "\r\n".join(lines).encode("latin-1")


def request_bytes(fields=GOOD, line: str = "GET /chat?a=b HTTP/1.1") -> bytes:
    return block(line, fields)


def changed(fields: dict[str, str], **changes: str | None) -> dict[str, str]:
    """Return the fields with some set, or removed (None); _ in a name stands for -."""
    fields = dict(fields)
    for name, value in changes.items():
        fields.pop(name.replace("_", "-"), None)
        if value is not None:
            fields[name.replace("_", "-")] = value
    return fields


def parse_response(data: bytes) -> tuple[int, str, Headers, bytes]:
    head, _, body = data.partition(b"\r\n\r\n")
    status_line, *lines = head.decode("latin-1").split("\r\n")
    version, status, reason = status_line.split(" ", 2)
    assert version == "HTTP/1.1"
    return int(status), reason, Headers(tuple(line.split(": ", 1)) for line in lines), body


def feed(handshake, pieces: list[bytes]):
    """Feed pieces until there is a result; return it and the bytes that follow it."""
    for number, piece in enumerate(pieces, 1):
        try:
            result = handshake.receive_data(piece)
        except HandshakeError as error:
            return type(error), error.args, b""
        if result is not None:
            return type(result), result, handshake.trailing_data + b"".join(pieces[number:])
    return None


def in_bytes(data: bytes) -> list[bytes]:
    return [data[i : i + 1] for i in range(len(data))]


class Dummy:
    """An extension for both roles that records its calls."""

    def __init__(self, name="x-dummy", offers=((),), accepts=lambda params: True, answer=()):
        self.name = name
        self._offers = offers
        self._accepts = accepts
        self._answer = answer

    def offers(self):
        return self._offers

    def accept_offer(self, params):
        return (self._answer, (self.name, params)) if self._accepts(params) else None

    def accept_response(self, params):
        if not self._accepts(params):
            raise ValueError("not what was offered")
        return (self.name, params)


def serve(fields=GOOD, line: str = "GET / HTTP/1.1", **options) -> tuple[ServerHandshake, bytes]:
    """Run a server's handshake on one request; return it and the response."""
    handshake = ServerHandshake(**options)
    request = handshake.receive_data(request_bytes(fields, line))
    return handshake, handshake.accept(request)


def refusal(fields=GOOD, line: str = "GET / HTTP/1.1", **options) -> RequestError:
    with pytest.raises(RequestError) as caught:
        serve(fields, line, **options)
    return caught.value


# URIs --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "uri"),
    [
        ("ws://localhost", URI(False, "localhost", 80)),
        ("wss://localhost", URI(True, "localhost", 443)),
        ("WSS://LocalHost/Chat", URI(True, "localhost", 443, "/Chat")),
        ("wS://h:8080/", URI(False, "h", 8080)),
        ("ws://h:/", URI(False, "h", 80)),
        ("ws://h:00080/", URI(False, "h", 80)),
        ("ws://h:1", URI(False, "h", 1)),
        ("ws://h:65535", URI(False, "h", 65535)),
        ("ws://h?a=b", URI(False, "h", 80, "/?a=b")),
        ("ws://h?", URI(False, "h", 80)),
        ("ws://h/a?b?c=d/e", URI(False, "h", 80, "/a?b?c=d/e")),
        ("ws://h/@:8", URI(False, "h", 80, "/@:8")),
        ("ws://h/%23%zz", URI(False, "h", 80, "/%23%zz")),
        ('ws://h/a|b"[c]?{d}', URI(False, "h", 80, "/a%7Cb%22%5Bc%5D?%7Bd%7D")),
        ("ws://h/\\", URI(False, "h", 80, "/%5C")),
        ("ws://h/é?ü=\U0001f389", URI(False, "h", 80, "/%C3%A9?%C3%BC=%F0%9F%8E%89")),
        ("ws://127.0.0.1:9001", URI(False, "127.0.0.1", 9001)),
        ("ws://[::1]", URI(False, "::1", 80)),
        ("wss://[2001:DB8::1]:8443/x", URI(True, "2001:db8::1", 8443, "/x")),
        ("ws://[::ffff:192.0.2.1]", URI(False, "::ffff:c000:201", 80)),
        ("ws://[2001:0DB8:0:0::0:1]", URI(False, "2001:db8::1", 80)),
        ("ws://0x7F.1", URI(False, "127.0.0.1", 80)),
        ("ws://h/a/../b/.?..", URI(False, "h", 80, "/a/../b/.?..")),
        ("ws://exa_mple.com.", URI(False, "exa_mple.com.", 80)),
        ("ws://bücher.example", URI(False, "xn--bcher-kva.example", 80)),
        ("ws://例え。テスト", URI(False, "xn--r8jz45g.xn--zckzah", 80)),
        ("ws://user@h", URI(False, "h", 80, "/", "user")),
        ("ws://user:@h", URI(False, "h", 80, "/", "user", "")),
        ("ws://:token@h", URI(False, "h", 80, "/", "", "token")),
        ("ws://u:p:q@h:81", URI(False, "h", 81, "/", "u", "p:q")),
        ("ws://%C3%BC:%40%20%2F@h", URI(False, "h", 80, "/", "ü", "@ /")),
        ("ws://@h", URI(False, "h", 80)),
        # https://websockets.spec.whatwg.org/#dom-websocket-websocket
        ("http://h", URI(False, "h", 80)),
        ("https://u:p@h:8443/a?b", URI(True, "h", 8443, "/a?b", "u", "p")),
        ("HTTPS://h", URI(True, "h", 443)),
        # https://url.spec.whatwg.org/#concept-basic-url-parser
        (" \x1fht\ntps:\\\\h\t:\r00443/ ", URI(True, "h", 443)),
        ("http:h", URI(False, "h", 80)),
        ("http:///\\h", URI(False, "h", 80)),
        ("http://%68%2E%c3%BC", URI(False, "h.xn--tda", 80)),
        ("http://u ser@a@x:p:\u00fc@h", URI(False, "h", 80, "/", "u ser@a@x", "p:\u00fc")),
        ("http://good.example\\@evil.example", URI(False, "good.example", 80, "/@evil.example")),
        ("http://h\\a\\b?c\\d", URI(False, "h", 80, "/a/b?c\\d")),
        ("http://h/a/./b/%2e%2E/.c/..d/", URI(False, "h", 80, "/a/.c/..d/")),
        ("http://h/../../a/..", URI(False, "h", 80)),
        ("http://h/a/.", URI(False, "h", 80, "/a/")),
        ("http://h/a//.././b?/../c", URI(False, "h", 80, "/a/b?/../c")),
        ("http://h/ \"<>^`{}|[]'%zz%", URI(False, "h", 80, "/%20%22%3C%3E%5E%60%7B%7D|[]'%zz%")),
        ("http://h?\x01 \"<>^`{}|[]'\x7f", URI(False, "h", 80, "/?%01%20%22%3C%3E^`{}|[]%27%7F")),
        # As Node's ws has them.
        ("ws+unix:///run/%ff", URI(False, "localhost", 80, unix_path="/run/\udcff")),
        ("ws+unix:///run/s", URI(False, "localhost", 80, unix_path="/run/s")),
        ("ws+unix:/run/s:/a?b=:", URI(False, "localhost", 80, "/a?b=:", unix_path="/run/s")),
        (
            "WS+UNIX:///r%3Au n:/%41".replace(" ", "%20"),
            URI(False, "localhost", 80, "/%41", unix_path="/r:u n"),
        ),
    ],
)
def test_uri(text: str, uri: URI) -> None:
    assert parse_uri(text) == uri


@pytest.mark.parametrize(
    "text",
    [
        "",
        "/",
        "h",
        "h:80",
        "//h",
        "ws:",
        "ws:h",
        "ws:/h",
        "ws://",
        "ws:///path",
        "ws://:80",
        "ws://u@",
        "http://h#fragment",
        "http://h/?#",
        "http:",
        "http:/:80",
        "http://u@",
        "http://u@/h",
        "http://h:0",
        "http://h:65536",
        "http://h:" + "9" * 5000,
        "http://h:8o",
        "http://%2f",
        "http://%40",
        "http://%ff",
        "http://h%00",
        "http://a b",
        "http://[::1",
        "http://h/\udc80",
        "http://u%3Av@h",
        "http://u:\udc80@h",
        "http://u\x01@h",
        "http//h",
        "h\u017fttp://h",
        "https://",
        "httpss://h",
        "htt\u1e97p://h",
        "ftp://h",
        "ws+unix://",
        "ws+unix:///",
        "ws+unix:run/s",
        "ws+unix://host/run/s",
        "ws+unix:///run/s:",
        "ws+unix:///run/s:a",
        "ws+unix:///run/s?a",
        "ws+unix:///run/s#a",
        "ws+unix:///run/s%00",
        "ws+unix:///run/s:/\udc80",
        "wss+unix:///run/s",
        "wsss://h",
        "w\u017f://h",  # its upper case is WS
        "ws://h#",
        "ws://h/#fragment",
        "ws://h?#",
        "ws://h:0",
        "ws://h:65536",
        "ws://h:99999",
        "ws://h:000080",
        "ws://h:-1",
        "ws://h:+80",
        "ws://h:8o",
        "ws://h:\u0661",
        "ws://h:80:80",
        "ws://a@b@h",
        "ws://good.example\\@evil.example",
        "ws://good.example\\.evil.example",
        "ws://::1",
        "ws://[::1",
        "ws://::1]",
        "ws://[::1]x",
        "ws://[]",
        "ws://[h]",
        "ws://[1.2.3.4]",
        "ws://[::1::]",
        "ws://[fe80::1%25eth0]",
        "ws://[v1.a]",
        "ws://a..b",
        "ws://.h",
        "ws://" + "a" * 64,
        "ws://%68",
        "ws://0x100.1",
        "ws://1.2.3.4.5",
        "ws://256.1",
        "ws://4294967296",
        "ws://1.2.08",
        "ws://h.0x",
        "ws://h.1.",
        "ws://a,b",
        "ws://a*b",
        "ws://\u2100",  # normalises to a/c
        "ws://a\uff0fb",  # normalises to a slash
        "ws://a\uff20b",  # normalises to an @
        " ws://h",
        "ws://h ",
        "ws://h/a b",
        "ws://h/\t",
        "ws://h\n",
        "ws://h/\r\nX: y",
        "ws://h/\0",
        "ws://h/\x7f",
        "ws://h/\x85",
        "ws://h/\xa0",
        "ws://h/\u2028",
        "ws://h/\udc80",
        "ws://u%3Av@h",
        "ws://u%0A@h",
        "ws://u:%00@h",
        "ws://u:%FF@h",
        "ws://\udc80@h",
        "ws://u:\udc80@h",
        f"ws://{'a.' * 126}ab",  # longer than a name can be in DNS
    ],
)
def test_bad_uri(text: str) -> None:
    with pytest.raises(InvalidURIError) as caught:
        parse_uri(text)
    assert "codec" not in str(caught.value)  # of Python, which quotes


def test_the_longest_name() -> None:
    for name in (f"{'a.' * 126}b", f"{'a.' * 126}b."):
        assert parse_uri(f"ws://{name}").host == name


def test_errors_and_repr_keep_the_password() -> None:
    assert "secret" not in repr(parse_uri("ws://u:secret@h"))
    for text in ["ws://u:secret@h#", "ws://u:secret@h:0", "ws://u:secret@a b", "ws://u:secret@"]:
        with pytest.raises(InvalidURIError) as caught:
            parse_uri(text)
        assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "host"),
    [
        ("ws://h", "h"),
        ("ws://h:80", "h"),
        ("ws://h:443", "h:443"),
        ("wss://h:443", "h"),
        ("wss://h:80", "h:80"),
        ("ws://[::1]", "[::1]"),
        ("ws://[::1]:8080", "[::1]:8080"),
        ("ws://u:p@h:8080/x", "h:8080"),
    ],
)
def test_host_header(text: str, host: str) -> None:
    assert parse_uri(text).host_header == host


@given(st.text())
def test_any_uri_is_parsed_or_refused(text: str) -> None:
    for uri in (text, "ws://" + text, "ws://h/" + text, "http:" + text, "https://h/" + text):
        try:
            parsed = parse_uri(uri)
        except InvalidURIError:
            continue
        assert re.fullmatch(r"[!-~]+", parsed.target)
        assert re.fullmatch(r"[!-~]+", parsed.host)
        # A host is written in one way.
        assert parse_uri(f"ws://{parsed.host_header}").host == parsed.host
        ClientHandshake(parsed)


@pytest.mark.parametrize(
    ("name", "host"),
    [
        ("0", "0.0.0.0"),
        ("0x", "0.0.0.0"),
        ("017700000001.", "127.0.0.1"),
        ("3232235777", "192.168.1.1"),
        ("192.0x00A80101", "192.168.1.1"),
        ("192.168.257", "192.168.1.1"),
        ("0xC0.0250.01.1", "192.168.1.1"),
        ("\uff11\u3002\uff12", "1.0.0.2"),
        ("1.h", "1.h"),
        ("1e2", "1e2"),
        ("h.0xg", "h.0xg"),
    ],
)
@pytest.mark.parametrize("scheme", ["ws", "https"])
def test_names_that_are_ipv4_addresses(scheme: str, name: str, host: str) -> None:
    assert parse_uri(f"{scheme}://{name}/").host == host
    assert parse_proxy(f"{scheme.replace('ws', 'http')}://{name}").host == host


# Keys and extension lists --------------------------------------------------------


def test_accept_key() -> None:
    assert accept_key(KEY) == ACCEPT


@pytest.mark.parametrize(
    ("values", "extensions"),
    [
        ([], []),
        ([""], []),
        ([" , ,"], []),
        (["a"], [("a", [])]),
        (["a, b", "c"], [("a", []), ("b", []), ("c", [])]),
        (["a;b;c=d"], [("a", [("b", None), ("c", "d")])]),
        (["a\t; b ; c = d ,"], [("a", [("b", None), ("c", "d")])]),
        (['a;b="c"'], [("a", [("b", "c")])]),
        ([r'a;b="\c\1\0d"'], [("a", [("b", "c10d")])]),
        (["a;b=1;b=2, a"], [("a", [("b", "1"), ("b", "2")]), ("a", [])]),
        (["A;B=C"], [("A", [("B", "C")])]),
        (
            ["permessage-deflate; client_max_window_bits; server_max_window_bits=10"],
            [
                (
                    "permessage-deflate",
                    [("client_max_window_bits", None), ("server_max_window_bits", "10")],
                )
            ],
        ),
    ],
)
def test_extensions(values: list[str], extensions: list[object]) -> None:
    assert parse_extensions(values) == extensions


@pytest.mark.parametrize(
    "value",
    [
        ";",
        "; a",
        "a;",
        "a;;b",
        "a b",
        "a;b c",
        "a=b",
        "a;=b",
        "a;b=",
        "a;b=c=d",
        "a;b==c",
        'a;b=""',
        'a;b="c',
        'a;b=c"',
        'a;b="c"d',
        'a;b="c d"',
        'a;b="c,d"',
        'a;b="c;d"',
        'a;b="c=d"',
        r'a;b="\""',
        r'a;b="\\"',
        r'a;b="c\"',
        '"a"',
        'a;"b"=c',
        "a/b",
        "é",
        "a;b=é",
        "a\x01",
        "a\n",
        "a;b\n",
    ],
)
def test_malformed_extensions(value: str) -> None:
    with pytest.raises(ValueError, match="not an extension"):
        parse_extensions([value])
    with pytest.raises(ValueError, match="not an extension"):
        parse_extensions(["good, " + value])


TOKENS = st.from_regex(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+", fullmatch=True)


@given(TOKENS, st.lists(st.tuples(TOKENS, st.none() | TOKENS)))
def test_extensions_round_trip(name: str, params: list[tuple[str, str | None]]) -> None:
    assert parse_extensions([format_extension(name, params)]) == [(name, params)]


@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("", []),
        ("a b", []),
        ("a", [("", None)]),
        ("a", [("b", "")]),
        ("a", [("b", "c, d")]),
        ("a", [("b", "c\r\nX: y")]),
        ("a\r\nX: y", []),
    ],
)
def test_extension_that_cannot_be_written(name: str, params: list[tuple[str, str | None]]) -> None:
    with pytest.raises(ValueError, match="not a token"):
        format_extension(name, params)


def test_another_handshake_by_the_same_rules() -> None:
    rules = ServerHandshake(
        origins=["https://h"],
        subprotocols=["chat"],
        extensions=[Dummy()],
        headers={"X": "y"},
        max_header_size=400,
        max_headers=9,
    )
    fields = changed(
        GOOD,
        Origin="https://h",
        Sec_WebSocket_Protocol="chat",
        Sec_WebSocket_Extensions="x-dummy",
    )
    for _ in range(2):  # what one receives does not change the next
        handshake = rules._again()
        assert handshake.receive_data(request_bytes(fields)[:9]) is None
        request = handshake.receive_data(request_bytes(fields)[9:] + b"frames")
        *_, headers, _ = parse_response(handshake.accept(request))
        assert headers["X"] == "y"
        assert handshake.trailing_data == b"frames"
        assert handshake.subprotocol == "chat"
        assert len(handshake.extensions) == 1
    for bad in (changed(fields, Origin="https://other"), changed(fields, X="x" * 400)):
        handshake = rules._again()
        with pytest.raises(RequestError):
            handshake.accept(handshake.receive_data(request_bytes(bad)))
    many = [*fields.items(), ("A", ""), ("B", "")]
    with pytest.raises(RequestError, match="more than 9 header fields"):
        rules._again().receive_data(request_bytes(many))
    assert (rules.subprotocol, rules.extensions, rules.trailing_data) == (None, [], b"")


@pytest.mark.parametrize("headers", [None, 0, False])
def test_what_is_no_header_fields_is_refused_although_it_is_empty(headers):
    handshake = ServerHandshake()
    request = handshake.receive_data(request_bytes(GOOD))
    with pytest.raises(TypeError, match="header fields must be"):
        handshake.accept(request, headers=headers)


# The server: what it accepts -----------------------------------------------------


def test_request() -> None:
    handshake = ServerHandshake()
    request = handshake.receive_data(request_bytes())
    assert request == Request("GET", "/chat?a=b", Headers(GOOD), "1.1")
    assert request.headers.items() == tuple(GOOD.items())
    assert handshake.trailing_data == b""


def test_accepted() -> None:
    handshake, response = serve()
    status, reason, headers, body = parse_response(response)
    assert (status, reason, body) == (101, "Switching Protocols", b"")
    assert set(headers) == {"Upgrade", "Connection", "Sec-WebSocket-Accept", "Date"}
    assert headers["Upgrade"] == "websocket"
    assert headers["Connection"] == "Upgrade"
    assert headers["Sec-WebSocket-Accept"] == ACCEPT
    assert headers["Date"].endswith(" GMT")
    assert parsedate_to_datetime(headers["Date"])
    assert handshake.subprotocol is None
    assert handshake.extensions == []


@pytest.mark.parametrize(
    "fields",
    [
        changed(GOOD, Connection="keep-alive, Upgrade"),
        changed(GOOD, Connection="close,UPGRADE,"),
        [*changed(GOOD, Connection="keep-alive").items(), ("Connection", "upgrade")],
        changed(GOOD, Upgrade="WebSocket"),
        changed(GOOD, Upgrade="h2c, websocket"),
        {name.lower(): value for name, value in GOOD.items()},
        {name.upper(): value for name, value in GOOD.items()},
        changed(GOOD, Host="[::1]:8080"),
        changed(GOOD, Content_Length="0"),
        changed(GOOD, Sec_WebSocket_Key=f"  {KEY}\t"),
        # The example of a key in RFC 6455 §4.1; its last four bits are not zero.
        changed(GOOD, Sec_WebSocket_Key="AQIDBAUGBwgJCgsMDQ4PEC=="),
        changed(GOOD, Sec_WebSocket_Protocol="chat, superchat"),
        changed(GOOD, Sec_WebSocket_Protocol=""),
        changed(GOOD, Sec_WebSocket_Extensions=""),
        changed(GOOD, Sec_WebSocket_Extensions="permessage-deflate; client_max_window_bits"),
        changed(GOOD, Origin="https://anywhere.example"),
        changed(GOOD, Cookie="a=\x01\xff"),
        changed(GOOD, Expect="100-continue"),
    ],
)
def test_good_request(fields) -> None:
    _, response = serve(fields)
    assert response.startswith(b"HTTP/1.1 101 Switching Protocols\r\n")


@pytest.mark.parametrize("version", ["1.1", "1.2", "1.9"])
def test_http_version_may_be_higher(version: str) -> None:
    serve(line=f"GET / HTTP/{version}")


@pytest.mark.parametrize(
    ("target", "path", "query"),
    [
        ("/", "/", ""),
        ("/a?b", "/a", "b"),
        ("//", "//", ""),
        ("//server.example/a", "//server.example/a", ""),
        ("/?", "/", ""),
        ("/a/../b;c", "/a/../b;c", ""),
        ("/%zz", "/%zz", ""),
        ('/|{}[]^`"<>\\?|{}[]^`"<>\\', '/|{}[]^`"<>\\', '|{}[]^`"<>\\'),
        ("/http://other.example/b", "/http://other.example/b", ""),
        ("/*", "/*", ""),
        # RFC 9112 §3.2.2: "A server MUST accept the absolute-form"
        ("http://server.example/a", "/a", ""),
        ("http://server.example/a?b=http://c/?d", "/a", "b=http://c/?d"),
        ("ws://server.example/a", "/a", ""),
        ("wss://server.example:443/a", "/a", ""),
        ("HTTPS://Server.Example:/a", "/a", ""),
        ("http://server.example", "/", ""),
        ("http://server.example?b", "/", "b"),
        ("http://server.example?", "/", ""),
        ("http://server.example//a", "//a", ""),
        ("http://[::1]:8080/a", "/a", ""),
        ("http://127.0.0.1/a@b:c", "/a@b:c", ""),
        ("http://a,b~%20!/c", "/c", ""),
        ("http://server.example?user@b", "/", "user@b"),
    ],
)
def test_good_target(target: str, path: str, query: str) -> None:
    handshake = ServerHandshake()
    request = handshake.receive_data(request_bytes(line=f"GET {target} HTTP/1.1"))
    assert (request.target, request.path, request.query) == (target, path, query)
    handshake.accept(request)


@pytest.mark.parametrize(
    "target",
    [
        "*",
        "chat",
        "chat?a",
        "?a",
        "host:80",
        "server.example:80",
        "[::1]:80",
        "http:",
        "http:/",
        "http:/a",
        "http://",
        "http:///a",
        "http://?a",
        "http:server.example/a",
        "http//server.example/a",
        "://server.example/a",
        "ftp://server.example/a",
        "file:///a",
        "mailto:a@b.example",
        "xhttp://server.example/a",
        "https+ws://server.example/a",
        "http://user@server.example/a",
        "http://user:secret@server.example/a",
        "http://@server.example/a",
        "http://server.example:80:80/a",
        "http://server.example:x/a",
        "http://server.example:123456/a",
        "http://:80/a",
        "http://::1/a",
        "http://[::1/a",
        "http://[::1]x/a",
        "http://[server.example]/a",
        "http://server.example\\a",
        "http://server.example\\@other.example/a",
        "http://server.example#a",
        "http://server.example/a#b",
        "http://server.example?a#b",
        "/a#b",
        "/#",
        "/?a#b",
        "#a",
        "**",
        "*/a",
        "\\a",
        "./a",
        "../a",
        "%2Fa",
    ],
)
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
def test_bad_target(target: str, method: str) -> None:
    """An invalid path reaches neither process_request nor a handler."""
    for pieces in (
        [request_bytes(line=f"{method} {target} HTTP/1.1")],
        in_bytes(request_bytes(line=f"{method} {target} HTTP/1.1")),
    ):
        kind, args, _ = feed(ServerHandshake(), pieces)
        assert kind is RequestError
        assert args == ("the request target is neither a path nor a URI", 400, ())
    with pytest.raises(RequestError):
        ServerHandshake().accept(Request(method, target, Headers(GOOD)))


@pytest.mark.parametrize(
    ("line", "status"),
    [
        # §3.2.3, §3.2.4: the forms of two other methods, which a WebSocket server does not need
        ("CONNECT server.example:80 HTTP/1.1", 405),
        ("CONNECT [::1]:80 HTTP/1.1", 405),
        ("CONNECT / HTTP/1.1", 400),
        ("CONNECT http://server.example/ HTTP/1.1", 400),
        ("CONNECT * HTTP/1.1", 400),
        ("OPTIONS * HTTP/1.1", 405),
        ("OPTIONS /a HTTP/1.1", 405),
        ("OPTIONS http://server.example HTTP/1.1", 405),
        ("OPTIONS server.example:80 HTTP/1.1", 400),
        ("OPTIONS *a HTTP/1.1", 400),
    ],
)
def test_target_of_other_methods(line: str, status: int) -> None:
    assert refusal(line=line).status == status


def test_host() -> None:
    """RFC 9112 §3.2.2: a server "MUST ignore the received Host header field" then."""
    for target, host in [
        ("/http://other.example", "server.example:80"),
        ("http://Other.example:8080/a", "Other.example:8080"),
        ("ws://[::1]?a", "[::1]"),
    ]:
        fields = changed(GOOD, Host="server.example:80")
        handshake = ServerHandshake()
        request = handshake.receive_data(request_bytes(fields, f"GET {target} HTTP/1.1"))
        assert request.host == host
        handshake.accept(request)
    with pytest.raises(FieldError):
        _ = Request("GET", "/", Headers([("Host", "a"), ("Host", "b")])).host
    # It must be present all the same.
    assert refusal(changed(GOOD, Host=None), "GET http://server.example/ HTTP/1.1").status == 400


@pytest.mark.parametrize(
    "host", ["a b", "a, b", "user@a", "a/b", "a?b", "a#b", "http://a", "a\\b", "ä", "<a>", '"a"']
)
def test_a_host_must_be_one(host: str) -> None:
    error = refusal(changed(GOOD, Host=host))
    assert (error.status, str(error)) == (400, "Host is not a host")


@pytest.mark.parametrize("host", ["a_b:80", "%41.example", "[::1]:80", "a.example.:", "(a)"])
def test_hosts_of_all_kinds(host: str) -> None:
    handshake = ServerHandshake()
    request = handshake.receive_data(request_bytes(changed(GOOD, Host=host)))
    handshake.accept(request)


@pytest.mark.parametrize("cut", [lambda data: [data], in_bytes], ids=["whole", "in bytes"])
@pytest.mark.parametrize(
    "lines", [b"\r\n", b"\n", b"\r\n\r\n", b"\n\r\n\n", b"\r\n" * 20], ids=repr
)
def test_empty_lines_before_a_request_are_skipped(cut, lines: bytes) -> None:
    kind, request, rest = feed(ServerHandshake(), cut(lines + request_bytes() + b"frames"))
    assert (kind, request.path, rest) == (Request, "/chat", b"frames")


@pytest.mark.parametrize("cut", [lambda data: [data], in_bytes], ids=["whole", "in bytes"])
@pytest.mark.parametrize("line", [b"\r\n", b"\n"])
def test_empty_lines_are_bounded(cut, line: bytes) -> None:
    request = request_bytes()
    room = (200 - len(request)) // len(line)
    handshake = ServerHandshake(max_header_size=200)
    assert feed(handshake, cut(line * room + request))[0] is Request
    for stream in (line * (room + 2) + request, line * 101, line * 300, line * 300 + b"\0"):
        kind, args, _ = feed(ServerHandshake(max_header_size=200), cut(stream + line * 100))
        assert (kind, args[1]) == (RequestError, 431)


def test_half_an_empty_line_is_waited_for() -> None:
    handshake = ServerHandshake()
    assert handshake.receive_data(b"\r\n\r") is None
    assert handshake.receive_data(b"\n") is None
    assert handshake.receive_data(request_bytes()).path == "/chat"


def test_no_empty_line_before_a_response_is_skipped() -> None:
    assert "not HTTP" in str(failure(b"\r\n" + answer_bytes()))


def test_a_request_parsed_elsewhere_is_accepted_too() -> None:
    response = ServerHandshake().accept(Request("GET", "/", Headers(GOOD)))
    assert parse_response(response)[2]["Sec-WebSocket-Accept"] == ACCEPT


@pytest.mark.parametrize(
    "kind", [bytes, bytearray, memoryview, lambda data: array.array("B", data)]
)
def test_bytes_of_any_kind(kind) -> None:
    handshake = ServerHandshake()
    data = kind(request_bytes() + b"\x81\x80")
    assert handshake.receive_data(data).path == "/chat"
    assert handshake.trailing_data == b"\x81\x80"
    assert type(handshake.trailing_data) is bytes


def test_no_bytes_are_no_end_of_the_stream() -> None:
    handshake = ServerHandshake()
    assert handshake.receive_data(b"") is None
    assert handshake.receive_data(request_bytes()[:10]) is None
    assert handshake.receive_data(b"") is None
    assert handshake.receive_data(request_bytes()[10:]) is not None


def test_text_is_no_bytes() -> None:
    with pytest.raises(TypeError):
        ServerHandshake().receive_data("GET / HTTP/1.1\r\n\r\n")


@pytest.mark.parametrize("data", [request_bytes(), b"\0"])
def test_server_handshake_is_used_once(data: bytes) -> None:
    handshake = ServerHandshake()
    with suppress(RequestError):
        handshake.receive_data(data)
    with pytest.raises(StateError):
        handshake.receive_data(b"")


# The server: what it refuses -----------------------------------------------------

UPGRADE = (("Upgrade", "websocket"), ("Connection", "Upgrade"))


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b" " + request_bytes(), 400),
        (b"\r" + request_bytes(), 400),
        (b"\r\r\n" + request_bytes(), 400),
        (b"\r\n " + request_bytes(), 400),
        (b"\r\n\0", 400),
        (b"\x0b\r\n" + request_bytes(), 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
        (b"\xff", 400),
        (request_bytes(line="GET /"), 400),
        (request_bytes(line="GET  / HTTP/1.1"), 400),
        (request_bytes(line="GET / HTTP/1.1 "), 400),
        (request_bytes(line="GET / http/1.1"), 400),
        (request_bytes(line="GET / HTTP/11"), 400),
        (request_bytes(line="GET /\xe9 HTTP/1.1"), 400),
        (request_bytes(line="GET /\t HTTP/1.1"), 400),
        (request_bytes(line="G(T / HTTP/1.1"), 400),
        (request_bytes(line="HTTP/1.1 200 OK"), 400),
        (request_bytes({"Host ": "a"}), 400),
        (request_bytes({"": "a"}), 400),
        (request_bytes({" Host": "a"}), 400),
        (request_bytes({"Host": "a", "X": "a\0b"}), 400),
        (request_bytes({"Host": "a", "X": "a\rb"}), 400),
        (request_bytes({"Host": "a", "X": "a\x0bb"}), 400),
        (request_bytes({"Host": "a", "X\xe9": "a"}), 400),
        (request_bytes({}), 400),
        (request_bytes([*GOOD.items(), ("host", "other")]), 400),
        (request_bytes(changed(GOOD, Content_Length="+1")), 400),
        (request_bytes(changed(GOOD, Content_Length="1, 2")), 400),
        (request_bytes([*GOOD.items(), ("Content-Length", "1"), ("Content-Length", "2")]), 400),
        (request_bytes(changed(GOOD, Transfer_Encoding="gzip, chunked")), 400),
    ],
)
def test_not_http(data: bytes, status: int) -> None:
    for pieces in ([data], in_bytes(data)):
        handshake = ServerHandshake()
        kind, args, _ = feed(handshake, pieces)
        assert kind is RequestError
        assert args[1] == status
        assert parse_response(handshake.reject(RequestError(*args)))[0] == status


@pytest.mark.parametrize(
    ("line", "changes", "status", "headers"),
    [
        # §4.2.1: 1, the method and the version
        ("POST / HTTP/1.1", {}, 405, (("Allow", "GET"),)),
        ("HEAD / HTTP/1.1", {}, 405, (("Allow", "GET"),)),
        ("CONNECT server.example:80 HTTP/1.1", {}, 405, (("Allow", "GET"),)),
        ("get / HTTP/1.1", {}, 405, (("Allow", "GET"),)),
        ("GET / HTTP/1.0", {}, 426, UPGRADE),
        ("GET / HTTP/0.9", {}, 426, UPGRADE),
        ("GET / HTTP/2.0", {}, 426, UPGRADE),
        # 2, Host
        (None, {"Host": None}, 400, ()),
        (None, {"Host": ""}, 400, ()),
        ("GET / HTTP/1.2", {"Host": None}, 400, ()),
        # 3, Upgrade
        (None, {"Upgrade": None}, 426, UPGRADE),
        (None, {"Upgrade": "h2c"}, 426, UPGRADE),
        (None, {"Upgrade": "websockets"}, 426, UPGRADE),
        (None, {"Upgrade": "websocket/13"}, 426, UPGRADE),
        # 4, Connection
        (None, {"Connection": None}, 426, UPGRADE),
        (None, {"Connection": "keep-alive"}, 426, UPGRADE),
        (None, {"Connection": "upgraded"}, 426, UPGRADE),
        # 5, the key
        (None, {"Sec-WebSocket-Key": None}, 400, ()),
        (None, {"Sec-WebSocket-Key": ""}, 400, ()),
        (None, {"Sec-WebSocket-Key": KEY[:-1]}, 400, ()),
        (None, {"Sec-WebSocket-Key": KEY[:-2]}, 400, ()),
        (None, {"Sec-WebSocket-Key": KEY + "="}, 400, ()),
        (None, {"Sec-WebSocket-Key": KEY + KEY}, 400, ()),
        (None, {"Sec-WebSocket-Key": KEY + ", " + KEY}, 400, ()),
        (None, {"Sec-WebSocket-Key": KEY[:8] + " " + KEY[8:]}, 400, ()),
        (None, {"Sec-WebSocket-Key": KEY + "x"}, 400, ()),
        (None, {"Sec-WebSocket-Key": KEY.replace("d", "-")}, 400, ()),
        (None, {"Sec-WebSocket-Key": KEY.replace("d", "\xe9")}, 400, ()),
        (None, {"Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAA"}, 400, ()),  # 15 bytes
        (None, {"Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAAA="}, 400, ()),  # 17 bytes
        (None, {"Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAAAA"}, 400, ()),  # 18 bytes
        # 6, the version
        (None, {"Sec-WebSocket-Version": None}, 400, ()),
        *(
            (
                None,
                {"Sec-WebSocket-Version": version},
                426,
                (*UPGRADE, ("Sec-WebSocket-Version", "13")),
            )
            for version in ["", "8", "14", "013", "13, 8", "-13", "thirteen"]
        ),
        # 8, subprotocols
        (None, {"Sec-WebSocket-Protocol": "a b"}, 400, ()),
        (None, {"Sec-WebSocket-Protocol": "a, b/c"}, 400, ()),
        (None, {"Sec-WebSocket-Protocol": "a, b, a"}, 400, ()),
        (None, {"Sec-WebSocket-Protocol": "\xe9"}, 400, ()),
        # 9, extensions
        (None, {"Sec-WebSocket-Extensions": "a;"}, 400, ()),
        (None, {"Sec-WebSocket-Extensions": 'a; b="c d"'}, 400, ()),
        # A body would be read as frames.
        (None, {"Content-Length": "1"}, 400, ()),
        (None, {"Transfer-Encoding": "chunked"}, 400, ()),
        (None, {"Transfer-Encoding": "chunked", "Content-Length": "0"}, 400, ()),
    ],
)
def test_bad_request(line, changes, status, headers) -> None:
    fields = {name: value for name, value in {**GOOD, **changes}.items() if value is not None}
    error = refusal(fields, line or "GET / HTTP/1.1")
    assert (error.status, error.headers) == (status, headers)
    assert isinstance(error, HandshakeError)


@pytest.mark.parametrize("name", ["Sec-WebSocket-Key", "Sec-WebSocket-Version"])
def test_repeated(name: str) -> None:
    assert refusal([*GOOD.items(), (name, GOOD[name])]).status == 400


def test_repeated_subprotocol_over_two_fields() -> None:
    fields = [*GOOD.items(), ("Sec-WebSocket-Protocol", "a"), ("Sec-WebSocket-Protocol", "a")]
    assert refusal(fields).status == 400


@pytest.mark.parametrize("name", ["Host", "Content-Length"])
def test_repeated_in_a_request_parsed_elsewhere(name: str) -> None:
    request = Request("GET", "/", Headers([*GOOD.items(), (name, "0"), (name, "1")]))
    with pytest.raises(RequestError):
        ServerHandshake().accept(request)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"BREW /<script> PLEASE\r\n\r\n", "illegal request line"),
        (b"GET / HTTP/1.1\r\n<script>\r\n\r\n", "illegal header line"),
        (b"GET / HTTP/1.1\r\n\r\n", "Missing mandatory Host: header"),
        (b"\0", "not HTTP"),
    ],
)
def test_the_message_says_why_and_repeats_nothing(data: bytes, message: str) -> None:
    handshake = ServerHandshake()
    with pytest.raises(RequestError) as caught:
        handshake.receive_data(data)
    assert str(caught.value) == message
    assert parse_response(handshake.reject(caught.value))[3] == f"{message}\n".encode()


# The server: origins -------------------------------------------------------------

HERE = "https://here.example"


@pytest.mark.parametrize(
    ("origins", "origin", "allowed"),
    [
        (None, None, True),
        (None, "https://evil.example", True),
        ([], None, False),
        ([], HERE, False),
        ([HERE], HERE, True),
        ([HERE], "HTTPS://Here.Example", True),
        (["HTTPS://Here.Example"], HERE, True),
        ([HERE], None, False),
        ([HERE], "", False),
        ([HERE], "null", False),
        ([HERE], "http://here.example", False),
        ([HERE], HERE + ":8443", False),
        ([HERE], HERE + "/", False),
        ([HERE], HERE + ".evil.example", False),
        ([HERE], f"{HERE}, {HERE}", False),
        ([HERE, None], None, True),
        ([HERE, None], "https://evil.example", False),
        ([None], None, True),
        ([None], "null", False),
        (["null"], "null", True),
        (["file://"], "file://", True),
        (["http://[::1]:8080"], "http://[::1]:8080", True),
        ([re.compile(r"https://(\w+\.)?here\.example")], "https://www.here.example", True),
        ([re.compile(r"https://(\w+\.)?here\.example")], HERE + ".evil.example", False),
        ([re.compile(r"here")], HERE, False),
        ([re.compile(r".*")], None, False),
        ((HERE, "https://there.example"), "https://there.example", True),
    ],
)
def test_origins(origins, origin, allowed) -> None:
    fields = changed(GOOD, Origin=origin)
    if allowed:
        serve(fields, origins=origins)
    else:
        assert refusal(fields, origins=origins).status == 403


def test_two_origins() -> None:
    fields = [*GOOD.items(), ("Origin", HERE), ("Origin", HERE)]
    assert refusal(fields, origins=[HERE]).status == 400
    serve(fields)


@pytest.mark.parametrize(
    "origin",
    [
        "*",
        "",
        "here.example",
        "//here.example",
        "here.example:8080",
        "https:",
        "https://",
        "https:here.example",
        "https:/here.example",
        HERE + "/",
        HERE + "/chat",
        HERE + "?",
        HERE + "#",
        f"{HERE} {HERE}",
        f"{HERE},{HERE}",
        f" {HERE}",
        f"{HERE}\n",
        "https://a b",
        # Browsers leave out a default port, and have one way to write any other.
        HERE + ":443",
        "HTTPS://here.example:443",
        "http://here.example:80",
        "ws://here.example:80",
        "wss://here.example:443",
        HERE + ":",
        HERE + ":0",
        HERE + ":08443",
        HERE + ":65536",
        HERE + ":*",
        HERE + ":http",
        "https://user@here.example",
        "https://*.here.example",
        "*://here.example",
        "https://zażółć.example",
        "https://here.example\\",
        "https://::1",
        "https://[::1",
        "https://[::g]",
        "https://[0:0:0:0:0:0:0:1]",
        "https://[::0001]",
        "https://127.1",
        "https://127.0.0.01",
        "https://1.2.3.4.",
        "https://2130706433",
        "chrome-extension://*",
        "chrome-extension://abc/",
        "nul",
        "none",
        "NULL ",
    ],
)
def test_origins_that_would_match_nothing(origin: str) -> None:
    with pytest.raises(ValueError, match="origin must be scheme://host"):
        ServerHandshake(origins=[HERE, origin])


@pytest.mark.parametrize(
    "origin",
    [
        "null",
        "http://here.example:443",
        "https://here.example:80",
        "http://localhost",
        "http://localhost:3000",
        "https://xn--zaz-dwa.example",
        "https://under_score.here.example",
        "https://here.example.",
        "http://127.0.0.1:8000",
        "http://[::1]",
        "http://[2001:DB8::1]:8080",
        "http://[::ffff:7f00:1]",
        "https://1.2.3.4.example",
        "file://",
        "chrome-extension://abcdefghijklmnop",
        "moz-extension://5c5f3e1a-3b1f-4c0e-9d5e-0c1b2a3d4e5f",
        "capacitor://localhost",
        "app://obsidian.md",
        "vscode-webview://1a2b3c:4",
        "tauri://localhost",
    ],
)
def test_origins_that_are_met(origin: str) -> None:
    for written in (origin, origin.upper(), origin.title()):
        serve(changed(GOOD, Origin=origin), origins=[written])


@pytest.mark.parametrize("kind", [list, tuple, set, frozenset, dict.fromkeys])
def test_origins_in_a_collection_of_any_kind(kind) -> None:
    origins = kind([HERE])
    for _ in range(2):
        serve(changed(GOOD, Origin=HERE), origins=origins)


# The server: subprotocols and extensions -----------------------------------------


@pytest.mark.parametrize(
    ("ours", "theirs", "chosen"),
    [
        ([], None, None),
        ([], "a", None),
        (["a"], None, None),
        (["a"], "", None),
        (["a"], "b", None),
        (["a"], "A", None),
        (["a"], "a", "a"),
        (["a", "b"], "b, a", "a"),
        (["a", "b"], "c,b", "b"),
        (("b", "a"), "a, b", "b"),
    ],
)
def test_subprotocol(ours, theirs, chosen) -> None:
    handshake, response = serve(changed(GOOD, Sec_WebSocket_Protocol=theirs), subprotocols=ours)
    assert handshake.subprotocol == chosen
    assert parse_response(response)[2].get("Sec-WebSocket-Protocol") == chosen


def test_subprotocols_over_two_fields() -> None:
    fields = [*GOOD.items(), ("Sec-WebSocket-Protocol", "a"), ("sec-websocket-protocol", "b, c")]
    assert serve(fields, subprotocols=["c"])[0].subprotocol == "c"


def wants(word: str):
    return lambda params: (word, None) in params


@pytest.mark.parametrize(
    ("extensions", "offers", "answer", "agreed"),
    [
        ([], "x-dummy", None, []),
        ([Dummy()], None, None, []),
        ([Dummy()], "other", None, []),
        ([Dummy()], "X-Dummy", None, []),
        ([Dummy()], "x-dummy", "x-dummy", [("x-dummy", [])]),
        ([Dummy()], "x-dummy; a=b; c", "x-dummy", [("x-dummy", [("a", "b"), ("c", None)])]),
        (
            [Dummy(answer=[("d", "1"), ("e", None)])],
            "x-dummy",
            "x-dummy; d=1; e",
            [("x-dummy", [])],
        ),
        ([Dummy(accepts=lambda _: False)], "x-dummy, x-dummy; a", None, []),
        # The client's order of preference, and the first offer that is acceptable.
        (
            [Dummy(accepts=wants("b"))],
            "x-dummy; a, x-dummy; b",
            "x-dummy",
            [("x-dummy", [("b", None)])],
        ),
        # One extension per name.
        ([Dummy()], "x-dummy; a, x-dummy; b", "x-dummy", [("x-dummy", [("a", None)])]),
        ([Dummy("one"), Dummy("two")], "two, one", "two, one", [("two", []), ("one", [])]),
        ([Dummy("one"), Dummy("two")], "two, two; a, one", "two, one", [("two", []), ("one", [])]),
    ],
)
def test_server_extensions(extensions, offers, answer, agreed) -> None:
    fields = changed(GOOD, Sec_WebSocket_Extensions=offers)
    handshake, response = serve(fields, extensions=extensions)
    assert parse_response(response)[2].get("Sec-WebSocket-Extensions") == answer
    assert handshake.extensions == agreed


def test_accepting_twice_agrees_once() -> None:
    handshake = ServerHandshake(extensions=[Dummy()])
    request = handshake.receive_data(
        request_bytes(changed(GOOD, Sec_WebSocket_Extensions="x-dummy"))
    )
    handshake.accept(request)
    handshake.accept(request)
    assert handshake.extensions == [("x-dummy", [])]


def test_extension_that_answers_nonsense() -> None:
    with pytest.raises(ValueError, match="not a token"):
        serve(
            changed(GOOD, Sec_WebSocket_Extensions="x-dummy"),
            extensions=[Dummy(answer=[("a", "b\r\nX: y")])],
        )


# The server: headers of ours -----------------------------------------------------


def test_extra_headers() -> None:
    handshake = ServerHandshake(headers={"Server": "s", "X-A": "1"})
    request = handshake.receive_data(request_bytes())
    response = handshake.accept(
        request, headers=[("Set-Cookie", "a"), ("Set-Cookie", "b"), ("x-a", "2"), ("Date", "now")]
    )
    headers = parse_response(response)[2]
    assert headers["Server"] == "s"
    assert headers["X-A"] == "2"
    assert headers["Date"] == "now"
    assert headers.get_all("Set-Cookie") == ["a", "b"]
    assert headers["Sec-WebSocket-Accept"] == ACCEPT
    plain = parse_response(handshake.respond(Response.text("x")))[2]
    assert plain["Server"] == "s"
    assert "Set-Cookie" not in plain


def test_a_subprotocol_may_be_chosen_for_one_response() -> None:
    def accept(subprotocol: str | None) -> str | None:
        handshake = ServerHandshake(subprotocols=["a", "b"])
        fields = changed(GOOD, Sec_WebSocket_Protocol="c, b, a")
        request = handshake.receive_data(request_bytes(fields))
        headers = parse_response(handshake.accept(request, subprotocol=subprotocol))[2]
        assert handshake.subprotocol == headers["Sec-WebSocket-Protocol"]
        return handshake.subprotocol

    assert [accept(name) for name in (None, "b", "c")] == ["a", "b", "c"]
    with pytest.raises(RequestError, match="does not offer the subprotocol d"):
        accept("d")
    with pytest.raises(ValueError, match="subprotocol must be a token, not 'd e'"):
        accept("d e")


def test_a_request_says_who_sent_it_and_is_equal_to_one_that_does_not() -> None:
    peer = Peer(("192.0.2.1", 1), ("192.0.2.2", 80), TLSInfo("TLSv1.3"))
    told = ServerHandshake(peer=peer).receive_data(request_bytes())
    request = ServerHandshake().receive_data(request_bytes())
    assert (told.peer, request.peer) == (peer, None)
    assert told == request
    assert repr(told) == repr(request)


def test_an_answer_that_accepts_is_a_value() -> None:
    plain, rich = Accept(), Accept({"X": "y"}, context=1, subprotocol="a")
    assert (plain.headers, plain.context, plain.subprotocol) == (Headers(), None, None)
    assert rich == Accept([("X", "y")], 1, "a")
    assert rich != plain
    with pytest.raises(AttributeError):
        plain.context = 1  # type: ignore[misc]


RESERVED = [
    "Upgrade",
    "connection",
    "Content-Length",
    "TRANSFER-ENCODING",
    "Sec-WebSocket-Accept",
    "sec-websocket-key",
    "Sec-WebSocket-Protocol",
    "Sec-WebSocket-Extensions",
    "Sec-WebSocket-Version",
]
BAD_FIELDS = [
    *([(name, "0")] for name in RESERVED),
    [("X\r\nY", "z")],
    [("X", "y\r\nZ: z")],
    [("X", "y\nZ: z")],
    [("X", "y\0")],
    [("", "y")],
    [("X", "\u0100")],
]


@pytest.mark.parametrize("fields", BAD_FIELDS)
def test_server_headers_that_are_refused(fields) -> None:
    with pytest.raises(ValueError, match="header field"):
        ServerHandshake(headers=fields)
    handshake = ServerHandshake()
    request = handshake.receive_data(request_bytes())
    with pytest.raises(ValueError, match="header field"):
        handshake.accept(request, headers=fields)
    with pytest.raises(ValueError, match="header field"):
        Accept(fields)


@pytest.mark.parametrize("name", ["Keep-Alive", "proxy-connection", "TE", "Trailer"])
def test_an_answer_has_no_fields_for_one_hop(name) -> None:
    with pytest.raises(ValueError, match=f"header field {name} is about one hop only"):
        Accept({name: "x"})


@pytest.mark.parametrize(
    "role", [ServerHandshake, lambda **options: ClientHandshake("ws://h", **options)]
)
@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"subprotocols": "chat"}, TypeError),
        ({"subprotocols": [""]}, ValueError),
        ({"subprotocols": ["a b"]}, ValueError),
        ({"subprotocols": ["a, b"]}, ValueError),
        ({"subprotocols": ["a\r\nX: y"]}, ValueError),
        ({"subprotocols": ["\xe9"]}, ValueError),
        ({"subprotocols": ["a", "a"]}, ValueError),
        ({"extensions": [Dummy(), Dummy()]}, ValueError),
    ],
)
def test_bad_arguments(role, options, error) -> None:
    with pytest.raises(error):
        role(**options)


@pytest.mark.parametrize(
    ("origins", "error"),
    [
        (HERE, TypeError),
        ("", TypeError),
        (HERE.encode(), TypeError),
        (re.compile(HERE), TypeError),
        (iter([HERE]), TypeError),  # the second handshake would find it empty
        (5, TypeError),
        (["x"], ValueError),
        ([HERE.encode()], TypeError),
        ([re.compile(HERE.encode())], TypeError),
        ([HERE, 5], TypeError),
        ([HERE, [HERE]], TypeError),
        ([HERE, re.match], TypeError),
    ],
)
def test_bad_origins(origins, error) -> None:
    with pytest.raises(error):
        ServerHandshake(origins=origins)


# The server: plain HTTP ----------------------------------------------------------


def test_plain_response() -> None:
    handshake = ServerHandshake()
    request = handshake.receive_data(b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n")
    assert not request.is_websocket
    status, reason, headers, body = parse_response(handshake.respond(Response.text("OK\n")))
    assert (status, reason, body) == (200, "OK", b"OK\n")
    assert headers["Content-Length"] == "3"
    assert headers["Connection"] == "close"
    assert headers["Content-Type"] == "text/plain; charset=utf-8"
    assert parsedate_to_datetime(headers["Date"])


@pytest.mark.parametrize(
    ("line", "response", "length", "body"),
    [
        ("HEAD / HTTP/1.1", Response.text("abc"), "3", b""),
        ("HEAD / HTTP/1.0", Response.text("abc"), "3", b""),
        ("GET / HTTP/1.0", Response.text("abc"), "3", b"abc"),
        ("POST / HTTP/1.1", Response.text("abc", 404), "3", b"abc"),
        ("CONNECT h:1 HTTP/1.1", Response.text("abc"), "3", b"abc"),
        ("GET / HTTP/1.1", Response(200), "0", b""),
        ("GET / HTTP/1.1", Response(204), None, b""),
        ("GET / HTTP/1.1", Response(304, {"ETag": '"x"'}, b"abc"), None, b""),
        ("GET / HTTP/1.1", Response(200, {"content-length": "99"}, b"abc"), "3", b"abc"),
        ("GET / HTTP/1.1", Response(200, body=b"\r\n\r\n\0"), "5", b"\r\n\r\n\0"),
    ],
)
def test_content_of_a_plain_response(line, response, length, body) -> None:
    handshake = ServerHandshake()
    handshake.receive_data(block(line, {"Host": "a"}))
    data = handshake.respond(response)
    assert parse_response(data)[2].get("Content-Length") == length
    assert parse_response(data)[3] == body
    assert parse_response(data)[0] == response.status


@pytest.mark.parametrize(
    ("connection", "sent"),
    [
        (None, "close"),
        ("close", "close"),
        ("Close", "close"),
        ("keep-alive", "close"),
        ("Upgrade", "Upgrade, close"),
        ("keep-alive, X", "X, close"),
    ],
)
def test_the_connection_is_closed(connection, sent) -> None:
    response = Response(200, changed({}, Connection=connection))
    assert parse_response(ServerHandshake().respond(response))[2]["Connection"] == sent


@pytest.mark.parametrize(
    ("status", "reason", "sent"),
    [
        (404, "", "Not Found"),
        (404, "Gone fishing", "Gone fishing"),
        (799, "", ""),
        (200, "\xe9", "\xe9"),
    ],
)
def test_reason(status: int, reason: str, sent: str) -> None:
    data = ServerHandshake().respond(Response(status, reason=reason))
    assert parse_response(data)[:2] == (status, sent)


@pytest.mark.parametrize(
    "response", [Response(100), Response(101), Response(200, {"Transfer-Encoding": "chunked"})]
)
def test_response_that_cannot_be_sent(response: Response) -> None:
    with pytest.raises(ValueError, match=r"must be 200 to 999|Transfer-Encoding"):
        ServerHandshake().respond(response)


def test_rejected() -> None:
    handshake = ServerHandshake()
    request = handshake.receive_data(request_bytes(changed(GOOD, Sec_WebSocket_Version="8")))
    with pytest.raises(RequestError) as caught:
        handshake.accept(request)
    status, reason, headers, body = parse_response(handshake.reject(caught.value))
    assert (status, reason, body) == (
        426,
        "Upgrade Required",
        b"the only version spoken here is 13\n",
    )
    assert headers["Sec-WebSocket-Version"] == "13"
    assert headers["Upgrade"] == "websocket"
    assert headers["Connection"] == "Upgrade, close"
    assert headers["Content-Type"] == "text/plain; charset=utf-8"


def test_rejected_for_a_reason_of_the_applications_own() -> None:
    error = RequestError("später", 503, (("Retry-After", "9"),))
    status, _, headers, body = parse_response(ServerHandshake().reject(error))
    assert (status, headers["Retry-After"], body) == (503, "9", "später\n".encode())


def test_h11_reads_what_we_write() -> None:
    client = h11.Connection(h11.CLIENT)
    client.send(h11.Request(method="GET", target="/", headers=[("Host", "a")]))
    client.send(h11.EndOfMessage())
    client.receive_data(ServerHandshake().respond(Response.html("<p>", 404)))
    assert client.next_event().status_code == 404
    assert client.next_event().data == b"<p>"
    assert isinstance(client.next_event(), h11.EndOfMessage)
    assert client.their_state is h11.MUST_CLOSE


# The server: limits and pieces ---------------------------------------------------


@pytest.mark.parametrize("cut", [lambda data: [data], in_bytes], ids=["whole", "in bytes"])
@pytest.mark.parametrize(
    ("excess", "outcome"), [(-1, Request), (0, Request), (1, RequestError), (100, RequestError)]
)
def test_header_block_limit(cut, excess: int, outcome: type) -> None:
    size = 1000
    data = request_bytes({"Host": "a", "X": ""})
    data = request_bytes({"Host": "a", "X": "x" * (size + excess - len(data))})
    assert len(data) == size + excess
    kind, value, _ = feed(ServerHandshake(max_header_size=size), cut(data + b"frames"))
    assert kind is outcome
    if kind is RequestError:
        assert value == ("header block over 1000 bytes", 431, ())


def test_header_block_without_end() -> None:
    handshake = ServerHandshake()
    with pytest.raises(RequestError) as caught:
        handshake.receive_data(b"GET / HTTP/1.1\r\nX: " + b"x" * (1 << 20))
    assert caught.value.status == 431
    handshake = ServerHandshake(max_header_size=0)
    with pytest.raises(RequestError) as caught:
        handshake.receive_data(b"G")
    assert caught.value.status == 431


def test_what_follows_the_header_block_is_not_counted() -> None:
    handshake = ServerHandshake()
    assert handshake.receive_data(request_bytes() + bytes(1 << 20))
    assert handshake.trailing_data == bytes(1 << 20)


@pytest.mark.parametrize("cut", [lambda data: [data], in_bytes], ids=["whole", "in bytes"])
@pytest.mark.parametrize(("count", "outcome"), [(9, Request), (10, Request), (11, RequestError)])
def test_header_field_limit(cut, count: int, outcome: type) -> None:
    data = request_bytes([("Host", "a"), *([("X", "")] * (count - 1))])
    kind, value, _ = feed(ServerHandshake(max_headers=10), cut(data))
    assert kind is outcome
    if kind is RequestError:
        assert value == ("more than 10 header fields", 431, ())


@pytest.mark.parametrize("cut", [lambda data: [data], in_bytes], ids=["whole", "in bytes"])
def test_each_line_of_a_folded_field_counts(cut) -> None:
    for lines, outcome in ((8, Request), (9, RequestError), (100, RequestError)):
        data = b"GET / HTTP/1.1\r\nHost: a\r\nX: b\r\n" + b" c\r\n" * lines + b"\r\n"
        assert feed(ServerHandshake(max_headers=10), cut(data))[0] is outcome


MANY = {
    "extensions": ("Sec-WebSocket-Extensions", "a, ", "a"),
    "parameters": ("Sec-WebSocket-Extensions", "a; ", "a"),
    "values": ("Sec-WebSocket-Extensions", "a; b=c, ", "a"),
    "no extensions": ("Sec-WebSocket-Extensions", ",", ""),
    "subprotocols": ("Sec-WebSocket-Protocol", "a{}, ", "a"),
    "no subprotocols": ("Sec-WebSocket-Protocol", ",", "a"),
    "upgrades": ("Upgrade", "a,", "websocket"),
    "connections": ("Connection", "a,", "Upgrade"),
    "no connections": ("Connection", " ,", "Upgrade"),
}


@pytest.mark.parametrize("name", MANY)
@pytest.mark.parametrize("separators", [128, 130, 200_000])
def test_lists_are_bounded(name: str, separators: int) -> None:
    """A list in a header of megabytes is refused before it is split, which takes long."""
    field, unit, last = MANY[name]
    units = separators // len(re.findall("[,;]", unit))
    value = "".join(unit.format(i) for i in range(units)) + last
    fields = changed(GOOD, **{field.replace("-", "_"): value})
    handshake = ServerHandshake(max_header_size=10 << 20)
    request = handshake.receive_data(request_bytes(fields))
    if separators == 128:
        handshake.accept(request)
        return
    with pytest.raises(RequestError) as caught:
        handshake.accept(request)
    assert caught.value.status == 400
    assert len(str(caught.value)) < 100


@pytest.mark.parametrize("field", ["Sec-WebSocket-Extensions", "Sec-WebSocket-Protocol"])
def test_members_count_together_in_however_many_fields(field: str) -> None:
    for count, good in ((129, True), (130, False)):
        fields = [*GOOD.items(), *((field, f"a{i}") for i in range(count))]
        request = Request("GET", "/", Headers(fields))
        if good:
            ServerHandshake().accept(request)
        else:
            with pytest.raises(RequestError):
                ServerHandshake().accept(request)


def test_folded_and_bare_lines_are_read_as_h11_reads_them() -> None:
    handshake = ServerHandshake()
    request = handshake.receive_data(b"GET / HTTP/1.1\nHost: a\nX: b\r\n\tc\n\r\nframes")
    assert request.headers["X"] == "b c"
    assert handshake.trailing_data == b"frames"


LINES = st.sampled_from(
    [
        *(f"{name}: {value}".encode() for name, value in GOOD.items()),
        b"GET / HTTP/1.1",
        b"X: " + b"x" * 60,
        b"X: y",
        b" folded",
        b"",
        b"\0",
        b"\r",
        b"Content-Length: 1",
        b"HTTP/1.1 101 x",
        b"HTTP/1.1 100",
        b"HTTP/1.1 200 OK",
        b"HTTP/1.1 404 Not Found",
        b"Transfer-Encoding: chunked",
        b"3",
        b"abc",
        b"0",
        *(f"{name}: {value}".encode() for name, value in GOOD_ANSWER.items()),
    ]
)
STREAMS = st.builds(
    lambda first, lines: first + b"".join(line + end for line, end in lines),
    st.sampled_from(
        [b"", b"GET / HTTP/1.1\r\nHost: a\r\n", b"HTTP/1.1 101 \r\n", b"HTTP/1.1 403 \r\n"]
    ),
    st.lists(st.tuples(LINES | st.binary(max_size=5), st.sampled_from([b"\r\n", b"\n", b""]))),
)


@given(STREAMS, st.data())
def test_pieces_make_no_difference(stream: bytes, data: st.DataObject) -> None:
    positions = st.integers(0, len(stream))
    cuts = [0, *sorted(data.draw(st.lists(positions, max_size=5))), len(stream)]
    pieces = [stream[start:end] for start, end in pairwise(cuts)]

    def server() -> ServerHandshake:
        return ServerHandshake(max_header_size=200, max_headers=6)

    def client() -> ClientHandshake:
        key = b"the sample nonce"
        return ClientHandshake(
            "ws://h", key=key, max_header_size=200, max_headers=6, max_body_size=9
        )

    for make in (server, client):
        assert feed(make(), [stream]) == feed(make(), pieces) == feed(make(), in_bytes(stream))


@given(STREAMS)
def test_whatever_comes_is_accepted_or_answered(stream: bytes) -> None:
    handshake = ServerHandshake(origins=[HERE], extensions=[Dummy()])
    try:
        request = handshake.receive_data(stream)
        response = handshake.accept(request) if request else b""
    except RequestError as error:
        response = handshake.reject(error)
    if response:
        assert parse_response(response)[0] in {101, *range(400, 500)}


# The client: its request ---------------------------------------------------------


def sent(uri: URI | str = "ws://server.example/chat", **options) -> tuple[str, Headers]:
    """Return the request line and the header fields that a client sends."""
    head, _, rest = (
        ClientHandshake(uri, **options).request().decode("latin-1").partition("\r\n\r\n")
    )
    assert rest == ""
    line, *lines = head.split("\r\n")
    return line, Headers(tuple(line.split(": ", 1)) for line in lines)


def test_client_request() -> None:
    line, headers = sent(key=b"the sample nonce")
    assert line == "GET /chat HTTP/1.1"
    assert headers.items() == (
        ("Host", "server.example"),
        ("Upgrade", "websocket"),
        ("Connection", "Upgrade"),
        ("Sec-WebSocket-Key", KEY),
        ("Sec-WebSocket-Version", "13"),
        ("User-Agent", "fastws"),
    )


def test_client_request_with_everything() -> None:
    line, headers = sent(
        "wss://us%C3%A9r:p%40ss@server.example:8443/a?b=c",
        origin=HERE,
        subprotocols=["one", "two"],
        extensions=[Dummy("a", offers=[[("b", "1")], []]), Dummy("c", offers=[[("d", None)]])],
        headers=[("Cookie", "x"), ("Cookie", "\xe9")],
    )
    assert line == "GET /a?b=c HTTP/1.1"
    assert headers["Host"] == "server.example:8443"
    assert headers["Origin"] == HERE
    assert headers["Sec-WebSocket-Protocol"] == "one, two"
    assert headers["Sec-WebSocket-Extensions"] == "a; b=1, a, c; d"
    assert headers["Authorization"] == "Basic dXPDqXI6cEBzcw=="
    assert headers.get_all("Cookie") == ["x", "\xe9"]


@pytest.mark.parametrize(
    ("uri", "authorization"),
    [
        ("ws://h", None),
        ("ws://user@h", "Basic dXNlcjo="),
        ("ws://:token@h", "Basic OnRva2Vu"),
    ],
)
def test_authorization(uri: str, authorization: str | None) -> None:
    assert sent(uri)[1].get("Authorization") == authorization


def test_client_headers_take_the_place_of_ours() -> None:
    ours = {
        "user-agent": "x",
        "host": "virtual.example",
        "origin": "null",
        "authorization": "Bearer x",
    }
    headers = sent("ws://u:p@h", origin=HERE, headers=ours)[1]
    assert {name: headers[name] for name in ours} == ours


def test_client_takes_a_uri_apart_already() -> None:
    uri = URI(True, "::1", 443, "/x")
    assert sent(uri)[1]["Host"] == "[::1]"
    assert ClientHandshake(uri).uri is uri
    assert ClientHandshake("wss://[::1]/x").uri == uri


def test_keys_are_random() -> None:
    keys = {sent()[1]["Sec-WebSocket-Key"] for _ in range(50)}
    assert len(keys) == 50
    assert all(len(key) == 24 for key in keys)


def test_the_request_stays_the_same() -> None:
    handshake = ClientHandshake("ws://h")
    assert handshake.request() == handshake.request()


@pytest.mark.parametrize("fields", BAD_FIELDS)
def test_client_headers_that_are_refused(fields) -> None:
    with pytest.raises(ValueError, match="header field"):
        ClientHandshake("ws://h", headers=fields)


@pytest.mark.parametrize(
    ("uri", "options"),
    [
        ("ws://h", {"key": b""}),
        ("ws://h", {"key": bytes(15)}),
        ("ws://h", {"key": bytes(17)}),
        ("ws://h", {"origin": "null\r\nX: y"}),
        ("ws://h", {"headers": [("Host", "a"), ("Host", "b")]}),
        ("ws://h", {"extensions": [Dummy("a\r\nX: y")]}),
        ("ws://h", {"extensions": [Dummy(offers=[[("a", "b\r\nX: y")]])]}),
        ("ftp://h", {}),
        (URI(False, "h\r\nX: y", 80), {}),
        (URI(False, "h", 80, "/ HTTP/1.1\r\nX: y"), {}),
        (URI(False, "h", 80, ""), {}),
        (URI(False, "h", 80, "/\xe9"), {}),
    ],
)
def test_nothing_can_be_injected(uri, options) -> None:
    with pytest.raises(ValueError):
        ClientHandshake(uri, **options)


# The client: the response --------------------------------------------------------


def client(**options) -> ClientHandshake:
    return ClientHandshake("ws://server.example/chat", key=b"the sample nonce", **options)


def answer_bytes(fields=GOOD_ANSWER, line: str = "HTTP/1.1 101 Switching Protocols") -> bytes:
    return block(line, fields)


def failure(data: bytes, **options) -> ResponseError:
    handshake = client(**options)
    with pytest.raises(ResponseError) as caught:
        handshake.receive_data(data)
    assert handshake.trailing_data == b""
    return caught.value


def test_connected() -> None:
    handshake = client()
    assert handshake.receive_data(b"") is None
    response = handshake.receive_data(answer_bytes() + b"\x81\x00")
    assert response == Response(101, GOOD_ANSWER, reason="Switching Protocols")
    assert handshake.trailing_data == b"\x81\x00"
    assert (handshake.subprotocol, handshake.extensions) == (None, [])


@pytest.mark.parametrize(
    "data",
    [
        answer_bytes(line="HTTP/1.1 101"),
        answer_bytes(line="HTTP/1.1 101 "),
        answer_bytes(line="HTTP/1.1 101 caf\xe9"),
        answer_bytes(changed(GOOD_ANSWER, Upgrade="WebSocket")),
        answer_bytes(changed(GOOD_ANSWER, Connection="keep-alive, UPGRADE")),
        answer_bytes({name.lower(): value for name, value in GOOD_ANSWER.items()}),
        answer_bytes(changed(GOOD_ANSWER, Sec_WebSocket_Accept=f"\t{ACCEPT} ")),
        answer_bytes(changed(GOOD_ANSWER, Sec_WebSocket_Extensions="")),
        answer_bytes(changed(GOOD_ANSWER, Server="x")),
        block("HTTP/1.1 100 Continue", {}) + answer_bytes(),
        block("HTTP/1.1 103 Early Hints", {"Link": "x"}) * 2 + answer_bytes(),
    ],
)
def test_good_response(data: bytes) -> None:
    for pieces in ([data], in_bytes(data)):
        assert feed(client(), pieces)[0] is Response


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"Upgrade": None}, "Upgrade does not say websocket"),
        ({"Upgrade": "h2c"}, "Upgrade does not say websocket"),
        ({"Upgrade": "websocket, h2c"}, "Upgrade does not say websocket"),
        ({"Connection": None}, "Connection does not say Upgrade"),
        ({"Connection": "close"}, "Connection does not say Upgrade"),
        ({"Sec-WebSocket-Accept": None}, "Sec-WebSocket-Accept does not answer the key"),
        ({"Sec-WebSocket-Accept": ""}, "Sec-WebSocket-Accept does not answer the key"),
        ({"Sec-WebSocket-Accept": ACCEPT.lower()}, "Sec-WebSocket-Accept does not answer the key"),
        ({"Sec-WebSocket-Accept": KEY}, "Sec-WebSocket-Accept does not answer the key"),
        ({"Sec-WebSocket-Protocol": "three"}, "subprotocol not asked for: 'three'"),
        ({"Sec-WebSocket-Protocol": "ONE"}, "subprotocol not asked for: 'ONE'"),
        ({"Sec-WebSocket-Protocol": "one, two"}, "subprotocol not asked for: 'one, two'"),
        ({"Sec-WebSocket-Protocol": ""}, "subprotocol not asked for: ''"),
        ({"Sec-WebSocket-Extensions": "a;"}, "bad Sec-WebSocket-Extensions"),
        ({"Sec-WebSocket-Extensions": "other"}, "other was not offered"),
        ({"Sec-WebSocket-Extensions": "X-Dummy"}, "X-Dummy was not offered"),
        ({"Sec-WebSocket-Extensions": "x-dummy; a, x-dummy; a"}, "x-dummy was not offered"),
        ({"Sec-WebSocket-Extensions": "x-dummy"}, "not what was offered"),
    ],
)
def test_bad_response(changes, message: str) -> None:
    fields = {
        name: value for name, value in {**GOOD_ANSWER, **changes}.items() if value is not None
    }
    error = failure(
        answer_bytes(fields),
        subprotocols=["one", "two"],
        extensions=[Dummy(offers=[[("a", None)]], accepts=wants("a"))],
    )
    assert message in str(error)
    assert error.response.status == 101


@pytest.mark.parametrize(
    ("name", "value", "options"),
    [
        ("Upgrade", "websocket", {}),
        ("Sec-WebSocket-Accept", ACCEPT, {}),
        ("Sec-WebSocket-Protocol", "one", {"subprotocols": ["one"]}),
        ("Sec-WebSocket-Extensions", "x-dummy", {"extensions": [Dummy()]}),
    ],
)
def test_repeated_in_the_response(name: str, value: str, options) -> None:
    once = changed(GOOD_ANSWER, **{name: value})
    assert client(**options).receive_data(answer_bytes(once))
    failure(answer_bytes([*once.items(), (name, value)]), **options)


def test_upgrade_in_http_1_0() -> None:
    assert str(failure(answer_bytes(line="HTTP/1.0 101 OK"))) == "upgrade in HTTP/1.0"


def test_chosen_by_the_server() -> None:
    handshake = client(subprotocols=["one", "two"], extensions=[Dummy("a"), Dummy("b"), Dummy("c")])
    handshake.receive_data(
        answer_bytes(
            changed(
                GOOD_ANSWER, Sec_WebSocket_Protocol="two", Sec_WebSocket_Extensions='c; d="e", a'
            )
        )
    )
    assert handshake.subprotocol == "two"
    assert handshake.extensions == [("c", [("d", "e")]), ("a", [])]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\x15\x03\x03\x00\x02\x02\x46", "bad response: not HTTP"),
        (b"220 mail.example ESMTP\r\n", "bad response: not HTTP"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "bad response: not HTTP"),
        (b"\r\n" + answer_bytes(), "bad response: not HTTP"),
        (b"Hello\r\n\r\n", "bad response: illegal status line"),
        (b"HTTP/1.1 1O1 Switching\r\n\r\n", "bad response: illegal status line"),
        (b"HTTP/1.1 099 What\r\n\r\n", "bad response: InformationalResponse status_code"),
        (b"HTTP/1.1 101 X\r\nbad line\r\n\r\n", "bad response: illegal header line"),
        (block("HTTP/1.1 100 A", {}) + b"\x81\x00", "bad response: not HTTP"),
    ],
)
def test_bad_http(data: bytes, message: str) -> None:
    for pieces in ([data], in_bytes(data)):
        kind, args, _ = feed(client(), pieces)
        assert kind is ResponseError
        assert args[0].startswith(message)
        assert args[1] is None


@pytest.mark.parametrize("name", ["extensions", "parameters", "upgrades", "connections"])
def test_lists_in_a_response_are_bounded(name: str) -> None:
    field, unit, last = MANY[name]
    fields = changed(GOOD_ANSWER, **{field.replace("-", "_"): unit * 100_000 + last})
    with pytest.raises(ResponseError, match="too many") as caught:
        client(max_header_size=1 << 20).receive_data(answer_bytes(fields))
    assert len(str(caught.value)) < 100


def test_client_limits() -> None:
    many = answer_bytes([*GOOD_ANSWER.items(), *([("X", "")] * 8)])
    assert client(max_headers=11).receive_data(many)
    assert "more than 10 header fields" in str(failure(many, max_headers=10))
    assert client(max_header_size=len(many)).receive_data(many)
    assert "header block over" in str(failure(many, max_header_size=len(many) - 1))
    # A server cannot go on forever with informational responses.
    assert "header block over" in str(failure(block("HTTP/1.1 100 A", {}) * 2000))


# The client: refusals ------------------------------------------------------------

CHUNKED = block("HTTP/1.1 403 Forbidden", {"Transfer-Encoding": "chunked"})


@pytest.mark.parametrize(
    ("data", "body"),
    [
        (block("HTTP/1.1 403 Forbidden", {"Content-Length": "0"}), b""),
        (block("HTTP/1.1 403 Forbidden", {"Content-Length": "3"}) + b"why", b"why"),
        (block("HTTP/1.1 403 Forbidden", {"Content-Length": "3"}) + b"whyHTTP/1.1 200", b"why"),
        (block("HTTP/1.1 403 Forbidden", {"Content-Length": "10"}) + b"0123456789", b"01234567"),
        (block("HTTP/1.1 403 Forbidden", {"Content-Length": "8"}) + b"01234567", b"01234567"),
        (block("HTTP/1.1 403 Forbidden", {}) + b"0123456789", b"01234567"),
        (CHUNKED + b"2\r\nab\r\n3;x=y\r\ncde\r\n0\r\n\r\n", b"abcde"),
        (CHUNKED + b"2\r\nab\r\nnonsense\r\n", b"ab"),
        (CHUNKED + b"6\r\nabcdef\r\n6\r\nghijkl\r\n", b"abcdefgh"),
        (
            block("HTTP/1.1 100 A", {}) + block("HTTP/1.1 403 Forbidden", {"Content-Length": "0"}),
            b"",
        ),
        (block("HTTP/1.0 403 Forbidden", {"Content-Length": "1"}) + b"x", b"x"),
    ],
)
def test_refused(data: bytes, body: bytes) -> None:
    for pieces in ([data], in_bytes(data)):
        handshake = client(max_body_size=8)
        kind, args, _ = feed(handshake, pieces)
        assert kind is ResponseError
        assert args[0] == "server rejected the connection: HTTP 403"
        assert (args[1].status, args[1].reason, args[1].body) == (403, "Forbidden", body)
        with pytest.raises(StateError):
            handshake.receive_data(b"")


@pytest.mark.parametrize(
    ("data", "body"),
    [
        (block("HTTP/1.1 403 Forbidden", {}), b""),
        (block("HTTP/1.1 403 Forbidden", {}) + b"why", b"why"),
        (block("HTTP/1.1 403 Forbidden", {"Content-Length": "9"}) + b"why", b"why"),
        (CHUNKED + b"3\r\nwhy\r\n", b"why"),
        (CHUNKED, b""),
    ],
)
def test_refused_until_the_end_of_the_stream(data: bytes, body: bytes) -> None:
    for pieces in ([data, b""], in_bytes(data)):
        handshake = client()
        for piece in pieces:
            assert handshake.receive_data(piece) is None
        with pytest.raises(ResponseError, match="HTTP 403") as caught:
            handshake.receive_eof()
        assert caught.value.response.body == body


@pytest.mark.parametrize("status", [200, 301, 400, 401, 426, 500, 503])
def test_every_other_status_is_a_refusal(status: int) -> None:
    data = block(f"HTTP/1.1 {status} X", {**GOOD_ANSWER, "Content-Length": "0"})
    error = failure(data)
    assert str(error) == f"server rejected the connection: HTTP {status}"
    assert error.response.headers["Upgrade"] == "websocket"


@pytest.mark.parametrize("data", [b"", b"H", answer_bytes()[:-1], block("HTTP/1.1 100 A", {})])
def test_end_of_the_stream_before_the_response(data: bytes) -> None:
    handshake = client()
    assert handshake.receive_data(data) is None
    with pytest.raises(ResponseError, match="closed before the response was whole") as caught:
        handshake.receive_eof()
    assert caught.value.response is None
    with pytest.raises(StateError):
        handshake.receive_eof()


def test_client_handshake_is_used_once() -> None:
    handshake = client()
    handshake.receive_data(answer_bytes())
    with pytest.raises(StateError):
        handshake.receive_data(b"")
    with pytest.raises(StateError):
        handshake.receive_eof()


# Both roles ----------------------------------------------------------------------


def test_round_trip() -> None:
    client = ClientHandshake(
        "wss://user:pass@server.example/é?q",
        origin=HERE,
        subprotocols=["two", "one"],
        extensions=[Dummy("a", offers=[[("bad", None)], [("good", "1")]]), Dummy("b")],
        headers={"Cookie": "c"},
    )
    server = ServerHandshake(
        origins=[HERE],
        subprotocols=["one", "two"],
        extensions=[
            Dummy("a", accepts=lambda params: ("good", "1") in params, answer=[("z", None)])
        ],
    )
    request = server.receive_data(client.request() + b"from the client")
    assert (request.path, request.query) == ("/%C3%A9", "q")
    response = client.receive_data(
        server.accept(request, headers={"X-Y": "z"}) + b"from the server"
    )
    assert response.headers["X-Y"] == "z"
    assert client.subprotocol == server.subprotocol == "one"
    assert server.extensions == [("a", [("good", "1")])]
    assert client.extensions == [("a", [("z", None)])]
    assert server.trailing_data == b"from the client"
    assert client.trailing_data == b"from the server"


def test_refusal_round_trip() -> None:
    client = ClientHandshake("ws://server.example", origin="https://evil.example")
    server = ServerHandshake(origins=[HERE])
    request = server.receive_data(client.request())
    with pytest.raises(RequestError) as refused:
        server.accept(request)
    with pytest.raises(ResponseError) as caught:
        client.receive_data(server.reject(refused.value))
    assert caught.value.response.status == 403
    assert caught.value.response.body == b"origin not allowed\n"
