"""Usual heads are read in the same way as by h11, and all others by h11."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import TYPE_CHECKING

import h11
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fastws import heads
from fastws.http import Headers, Request, Response

if TYPE_CHECKING:
    from collections.abc import Iterable

REQUEST = (
    b"GET /chat?room=1 HTTP/1.1\r\n"
    b"Host: server.example\r\n"
    b"Connection: keep-alive, Upgrade\r\n"
    b"Upgrade: websocket\r\n"
    b"User-Agent: Mozilla/5.0 (X11; Linux x86_64) \xe9\r\n"
    b"Sec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key:\t dGhlIHNhbXBsZSBub25jZQ== \t\r\n"
    b"Cookie: a=b:c; d=e\r\n"
    b"cookie:f\r\n"
    b"X-Empty:\r\n"
    b"\r\n"
)
RESPONSE = (
    b"HTTP/1.1 101 Switching Protocols\r\n"
    b"Upgrade: websocket\r\n"
    b"Connection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"
    b"Set-Cookie: a=b\r\n"
    b"Set-Cookie:\r\n"
    b"\r\n"
)


class RequestsByH11(heads.RequestReader):
    _USUAL = re.compile(rb"(?!)")


class ResponsesByH11(heads.ResponseReader):
    _USUAL = re.compile(rb"(?!)")


def requests(reader: heads.RequestReader, pieces: list[bytes]):
    """Return a request with its fields as they were sent, or an error; and what follows it."""
    for number, piece in enumerate(pieces, 1):
        reader.receive_data(piece)
        try:
            request = reader.next_request()
        except heads.HeadError as exc:
            return str(exc), exc.status
        if request is not None:
            return request, request.headers.items(), reader.rest + b"".join(pieces[number:])
    return None


def responses(reader: heads.ResponseReader, pieces: list[bytes]):
    """Return all responses of this kind, up to an error or a response that is no 1xx."""
    found = []
    for number, piece in enumerate(pieces, 1):
        reader.receive_data(piece)
        try:
            while (response := reader.next_response()) is not None:
                found.append((response, response[0].headers.items()))
                if response[0].status == 101 or response[0].status >= 200:
                    return found, reader.rest + b"".join(pieces[number:])
        except heads.HeadError as exc:
            return found, str(exc), exc.status
    return found


NO_LIMITS = ((1 << 14, 128),)
LIMITS = (*NO_LIMITS, (len(REQUEST), 9), (len(REQUEST) - 1, 8))


def check(stream: bytes, pieces: list[bytes], limits: Iterable[tuple[int, int]] = LIMITS) -> None:
    """Read a stream as a request and as a response, in both ways."""
    for size, fields in limits:
        theirs = requests(RequestsByH11(size, fields), [stream])
        assert requests(heads.RequestReader(size, fields), [stream]) == theirs
        assert requests(heads.RequestReader(size, fields), pieces) == theirs
        theirs = responses(ResponsesByH11(size, fields), [stream])
        assert responses(heads.ResponseReader(size, fields), [stream]) == theirs
        if not (isinstance(theirs, tuple) and len(theirs) == 3):  # (an error comes at its time)
            assert responses(heads.ResponseReader(size, fields), pieces) == theirs


# Which heads are usual ---------------------------------------------------------------------


@pytest.fixture
def no_h11(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(role: object) -> None:
        raise AssertionError("h11 is used")

    monkeypatch.setattr(h11, "Connection", refuse)


@pytest.mark.parametrize("size", [1 << 14, 100, 1])
def test_usual_heads_need_no_h11(no_h11: None, size: int) -> None:
    def cut(data: bytes) -> list[bytes]:
        return [data[i : i + size] for i in range(0, len(data), size)]

    request, items, _ = requests(heads.RequestReader(1 << 14, 128), cut(REQUEST))
    assert (request.method, request.target, request.http_version) == ("GET", "/chat?room=1", "1.1")
    assert items[3:6] == (
        ("User-Agent", "Mozilla/5.0 (X11; Linux x86_64) \xe9"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
    )
    assert request.headers.get_all("Cookie") == ["a=b:c; d=e", "f"]
    assert request.headers["x-empty"] == ""
    found, rest = responses(heads.ResponseReader(1 << 14, 128), cut(RESPONSE))
    assert rest == b""
    [((response, version), items)] = found
    assert (response.status, response.reason, version) == (101, "Switching Protocols", "1.1")
    assert items[-2:] == (("Set-Cookie", "a=b"), ("Set-Cookie", ""))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"GET", b"POST"),
        (b"GET", b"get"),
        (b"1.1", b"1.0"),
        (b"1.1", b"1.2"),
        (b"Cookie", b"Content-Length: 0\r\nCookie"),
        (b"Cookie", b"transfer-encoding: chunked\r\nCookie"),
        (b"X-Empty:", b"X-Empty: a\r\n b"),
        (b"a=b:c", b"a=\x01"),
        (b"server.example\r\n", b"server.example\n"),
    ],
)
def test_h11_reads_other_requests(no_h11: None, old: bytes, new: bytes) -> None:
    with pytest.raises(AssertionError, match="h11 is used"):
        requests(heads.RequestReader(1 << 14, 128), [REQUEST.replace(old, new, 1)])


@pytest.mark.parametrize(
    ("old", "new"),
    [(b"101", b"200"), (b"101", b"100"), (b"1.1", b"1.0"), (b"Set-C", b"Content-Length: 0\r\nC")],
)
def test_h11_reads_other_responses(no_h11: None, old: bytes, new: bytes) -> None:
    with pytest.raises(AssertionError, match="h11 is used"):
        responses(heads.ResponseReader(1 << 14, 128), [RESPONSE.replace(old, new, 1)])


# The same as h11 -----------------------------------------------------------------------------

CHANGES = [
    (b"", b""),
    (b"GET /", b"GET  /"),
    (b"GET /", b"GET\t/"),
    (b"GET /", b" GET /"),
    (b"GET /", b"\r\nGET /"),
    (b"GET /", b"\n\r\n\nGET /"),
    (b"GET /", b"\rGET /"),
    (b"GET", b"HEAD"),
    (b"GET", b"GET\0"),
    (b"/chat", b"*"),
    (b"/chat", b"http://server.example/chat"),
    (b"/chat", b"server.example:80"),
    (b"/chat", b"/a b"),
    (b"/chat", b"/\xe9"),
    (b"/chat", b"/#"),
    (b" HTTP/1.1", b""),
    (b" HTTP/1.1", b" http/1.1"),
    (b" HTTP/1.1", b" HTTP/1.1 "),
    (b" HTTP/1.1", b" HTTP/2.0"),
    (b" HTTP/1.1", b" HTTP/1.10"),
    (b"101 ", b"101"),
    (b"101 ", b"101  "),
    (b"101 ", b"0101 "),
    (b"101 Switching Protocols", b"101"),
    (b"101 Switching Protocols", b"101 "),
    (b"Switching", b"\xe9\x01"),
    (b"HTTP/1.1 101", b"HTTP/1.1 100 \r\n\r\nHTTP/1.1 101"),
    (b"HTTP/1.1 101", b"\r\nHTTP/1.1 101"),
    (b"Host: server.example\r\n", b""),
    (b"Host: ", b"Host: a\r\nHost: "),
    (b"Host: ", b"HOST: a\r\nhost: "),
    (b"Upgrade:", b"Upgrade :"),
    (b"Upgrade:", b"Upgrade\t:"),
    (b"Upgrade:", b" Upgrade:"),
    (b"Upgrade:", b":"),
    (b"Upgrade:", b"Upgrade"),
    (b"Upgrade:", b"Up(grade:"),
    (b"Upgrade:", b"\xe9:"),
    (b"websocket\r\n", b"websocket\r\n folded\r\n"),
    (b"websocket\r\n", b"websocket\r\n\tfolded\r\n"),
    (b"websocket\r\n", b"websocket\r\n \r\n"),
    (b"websocket\r\n", b"websocket\n"),
    (b"websocket\r\n", b"websocket\r\r\n"),
    (b"websocket\r\n", b"websocket\r"),
    (b"websocket\r\n", b"websocket\n\n"),
    (b"websocket\r\n", b"websocket\n\r\n"),
    (b"websocket\r\n", b"websocket\r\n\n"),
    (b"websocket\r\n", b"websocket\r\n\r\n"),
    (b"websocket", b"web\0socket"),
    (b"websocket", b"web\rsocket"),
    (b"websocket", b"\x0bwebsocket\x0c"),
    (b"websocket", b"\x7f"),
    (b"\r\n\r\n", b"\r\n\r\nframes\r\n\r\n"),
    (b"\r\n\r\n", b"\n\r\n"),
    (b"\r\n\r\n", b"\r\n\n"),
    (b"\r\n\r\n", b"\r\n"),
    *(
        (b"Upgrade:", field + b"\r\nUpgrade:")
        for field in (
            *(b"Content-Length: " + value for value in (b"0", b"5", b"x", b"", b"1, 1", b"1, 2")),
            b"Content-Length: 99999999999999999999999",
            b"Content-Length: 1\r\nContent-Length: 1",
            b"Content-Length: 1\r\nContent-Length: 2",
            b"content-length : 1",
            b"Transfer-Encoding: chunked",
            b"Transfer-Encoding: gzip, chunked",
            b"Transfer-Encoding: CHUNKED\r\nTransfer-Encoding: chunked",
            b"Transfer-Encoding: chunked\r\nContent-Length: 1",
            b"Expect: 100-continue",
        )
    ),
]


@pytest.mark.parametrize(("old", "new"), CHANGES)
@pytest.mark.parametrize("head", [REQUEST, RESPONSE], ids=["request", "response"])
def test_the_same_as_h11(head: bytes, old: bytes, new: bytes) -> None:
    stream = head.replace(old, new, 1)
    check(stream, [stream[i : i + 1] for i in range(len(stream))])


@pytest.mark.parametrize("where", [b"GET", b"chat", b"Host", b"server", b"Switching", b"Upgrade"])
def test_any_byte_anywhere(where: bytes) -> None:
    for head in (REQUEST, RESPONSE):
        at = head.find(where) + 1
        for byte in range(256 if at else 0):
            for after in (at, at + 1):
                stream = head[:at] + bytes([byte]) + head[after:]
                check(stream, [stream[:at], stream[at:]], NO_LIMITS)


PIECES = [
    *(
        b"\r\n",
        b"\n",
        b"\r",
        b"\r\n\r\n",
        b"\r\n ",
        b"\0",
        b": ",
        b":",
        b" ",
        b"\t",
        b"101",
        b"1.0",
    ),
    *(b"Host: a\r\n", b"\r\nHost: a", b"\r\nX: y", b"GET ", b"HTTP/1.1", b"GET / HTTP/1.1\r\n"),
    *(b"\r\nContent-Length: 1", b"\r\nTransfer-Encoding: chunked"),
]
EDITS = st.lists(
    st.tuples(
        st.floats(0, 1, exclude_max=True),
        st.integers(0, 12),
        st.binary(max_size=2) | st.sampled_from(PIECES),
    ),
    max_size=4,
)


@given(st.sampled_from([REQUEST, RESPONSE]), EDITS, st.lists(st.floats(0, 1), max_size=4))
@example(REQUEST, [], [])
def test_any_head_is_read_as_by_h11(head: bytes, edits: list, cuts: list[float]) -> None:
    for position, removed, added in edits:
        at = int(position * len(head))
        head = head[:at] + added + head[at + removed :]
    positions = [0, *sorted(int(cut * len(head)) for cut in cuts), len(head)]
    check(head, [head[start:end] for start, end in pairwise(positions)])


# Writing -------------------------------------------------------------------------------------

FIELDS = [("Upgrade", "websocket"), ("host", "server.example"), ("X", "\xe9 \t\x01"), ("x", "")]


def test_a_request_is_written_as_by_h11() -> None:
    request = h11.Request(
        method="GET",
        target="/a?b",
        headers=[(name.encode(), value.encode("latin-1")) for name, value in FIELDS],
    )
    ours = heads.write_request_head("/a?b", Headers(FIELDS))
    assert ours == h11.Connection(h11.CLIENT).send(request)


@pytest.mark.parametrize("target", ["", "a b", "/\r\nX: y", "/\xe9", "/\x7f", "/\n"])
def test_a_target_that_cannot_be_sent(target: str) -> None:
    with pytest.raises(ValueError, match="invalid request target"):
        heads.write_request_head(target, Headers(FIELDS))


@pytest.mark.parametrize("hosts", [0, 2])
def test_one_host(hosts: int) -> None:
    with pytest.raises(ValueError, match="no Host, or more than one"):
        heads.write_request_head("/", Headers([("Host", "a")] * hosts))


def test_the_date_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    for now, date in [
        (784111777.9, "Sun, 06 Nov 1994 08:49:37 GMT"),
        (784111777.0, "Sun, 06 Nov 1994 08:49:37 GMT"),
        (784111778.0, "Sun, 06 Nov 1994 08:49:38 GMT"),
        (0.0, "Thu, 01 Jan 1970 00:00:00 GMT"),
    ]:
        monkeypatch.setattr(heads.time, "time", lambda now=now: now)
        assert heads.date() == date


def test_what_is_read_can_be_changed_no_more() -> None:
    """A response and a request are values, in whichever way they were read."""
    request, *_ = requests(heads.RequestReader(1 << 14, 128), [REQUEST])
    theirs, *_ = requests(RequestsByH11(1 << 14, 128), [REQUEST])
    assert request == theirs
    assert hash(request) == hash(theirs)
    assert isinstance(request, Request)
    assert Response(200, request.headers).headers == theirs.headers
