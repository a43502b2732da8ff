"""Tests of `connect` if servers answer with redirects: where it goes, and what it sends there."""

from __future__ import annotations

import asyncio
import socket
import ssl
from contextlib import AsyncExitStack

import pytest

import fastws
from fastws import Response, ResponseError, connect, serve
from fastws.aio.redirects import Redirection, Route
from fastws.uri import parse_uri

from .test_client import Recorder

HOST = "127.0.0.1"


async def echo(ws):
    async for message in ws:
        await ws.send(message)


class Server:
    """A server that answers some paths with redirects, and records all requests."""

    def __init__(self, server, requests, uri):
        self.server = server
        self.requests = requests
        self.uri = uri

    @property
    def targets(self):
        return [request.target for request in self.requests]


@pytest.fixture
def listen(url):
    """Start a server with redirects: for a target, a location, or a status and a location."""

    async def start(stack, answers, **options):
        requests = []

        def process_request(request):
            requests.append(request)
            if (answer := answers.get(request.target)) is None:
                return None
            status, location = answer if isinstance(answer, tuple) else (302, answer)
            return Response(status, {"Location": location}, b"elsewhere")

        where = {"port": 0, "host": HOST} | options
        server = await stack.enter_async_context(
            serve(echo, process_request=process_request, **where)
        )
        uri = None if "path" in where else url(server, "", secure="ssl" in options)
        return Server(server, requests, uri)

    return start


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_statuses(status, listen):
    made = []

    def make():
        made.append(Recorder())
        return made[-1]

    async with AsyncExitStack() as stack:
        server = await listen(stack, {"/": (status, "/there?x=1")})
        async with connect(server.uri, protocol=make) as protocol:
            assert protocol is made[-1]
        assert server.targets == ["/", "/there?x=1"]
    # No error and no end of what never began: the first one hears nothing.
    assert [one.calls for one in made] == [[], ["open", 1000]]


@pytest.mark.parametrize(
    ("location", "target"),
    [
        ("there", "/a/there"),
        ("./there", "/a/there"),
        ("../there", "/there"),
        ("/there", "/there"),
        ("?x=2", "/a/b?x=2"),
        ("there#fragment", "/a/there"),
        ("//{host}/there", "/there"),
        ("ws://{host}/there", "/there"),
        ("http://{host}/there", "/there"),
        ("HTTP://{host}/there", "/there"),
        ("/th\u00e9re", "/th%C3%A9re"),
        ("/th\u00c3\u00a9re", "/th%C3%A9re"),  # in UTF-8, as most servers send it
    ],
)
async def test_locations(location, target, listen):
    async with AsyncExitStack() as stack:
        answers = {}
        server = await listen(stack, answers)
        answers["/a/b?x=1"] = location.format(host=server.uri.partition("//")[2])
        async with connect(f"{server.uri}/a/b?x=1") as ws:
            assert server.targets == ["/a/b?x=1", target]
            assert ws.response.status == 101


def test_no_log_shows_what_is_sent():
    """asyncio's debug log shows the exceptions of futures."""
    headers = fastws.Headers({"Authorization": "Bearer abracadabra"})
    uri = parse_uri("ws://user:abracadabra@server.example")
    assert "abracadabra" not in repr(Redirection(Route(uri, headers, 10)))


@pytest.mark.parametrize("status", [300, 304, 305, 306, 399, 200, 401])
async def test_what_is_no_redirect(status, listen):
    async with AsyncExitStack() as stack:
        server = await listen(stack, {"/": (status, "/there")})
        with pytest.raises(ResponseError, match=f"HTTP {status}"):
            await connect(server.uri)
        assert server.targets == ["/"]


async def test_no_location_or_two(raw_server, url):
    for fields in (b"", b"Location: /a\r\nLocation: /b\r\n"):

        async def play(peer, fields=fields):
            await peer.reader.readuntil(b"\r\n\r\n")
            await peer.send(b"HTTP/1.1 302 Found\r\n" + fields + b"Content-Length: 0\r\n\r\n")

        async with raw_server(play, handshake=False) as server:
            with pytest.raises(ResponseError, match="HTTP 302"):
                await connect(url(server))


async def test_a_redirect_at_the_end_of_the_stream(raw_server, listen, url):
    async def play(peer):
        await peer.reader.readuntil(b"\r\n\r\n")
        await peer.send(b"HTTP/1.1 302 Found\r\nLocation: " + target.encode() + b"\r\n\r\nhere")

    async with AsyncExitStack() as stack:
        target = (await listen(stack, {})).uri
        server = await stack.enter_async_context(raw_server(play, handshake=False))
        async with connect(url(server)) as ws:
            assert ws.response.status == 101


async def test_the_limit(listen):
    async with AsyncExitStack() as stack:
        server = await listen(stack, {f"/{n}": f"/{n + 1}" for n in range(11)} | {"/x": "/x"})
        for start, options, followed in (
            ("/1", {}, 10),
            ("/9", {"max_redirects": 2}, 2),
            ("/11", {"max_redirects": 0}, 0),
        ):
            server.requests.clear()
            async with connect(server.uri + start, **options):
                assert len(server.requests) == followed + 1
        for start, options, followed in (
            ("/0", {}, 10),
            ("/x", {}, 10),
            ("/8", {"max_redirects": 2}, 2),
            ("/10", {"max_redirects": 0}, 0),
        ):
            server.requests.clear()
            made = []

            class Kept(Recorder):
                def __init__(self):
                    super().__init__()
                    made.append(self)  # noqa: B023

            with pytest.raises(ResponseError) as caught:
                await connect(server.uri + start, protocol=Kept, **options)
            assert caught.value.response.status == 302
            assert [one.calls for one in made] == [[]] * followed + [[caught.value]]
            assert len(server.requests) == followed + 1
    for wrong in (-1, 1.5):
        with pytest.raises((TypeError, ValueError), match="max_redirects"):
            connect("ws://localhost", max_redirects=wrong)


SECRETS = {
    "Authorization": "Bearer x",
    "Cookie": "id=1",
    "Proxy-Authorization": "Basic x",
    "X-Api-Key": "x",
    "Host": "other.example",
    "User-Agent": "me",
    "Accept-Language": "de",
}


async def test_what_another_origin_gets(listen):
    async with AsyncExitStack() as stack:
        there = await listen(stack, {"/1": "/2"})
        answers = {"/here": "/leave", "/leave": f"{there.uri}/1"}
        here = await listen(stack, answers)
        # And back: what was dropped stays dropped.
        there_answers = {"/3": f"{here.uri}/end"}
        last = await listen(stack, there_answers)
        uri = f"{here.uri}/here".replace("//", "//user:pass@")
        async with connect(uri, headers=SECRETS | {"Origin": "https://x.example"}):
            pass
        async with connect(uri, subprotocols=["a"], origin="https://x.example"):
            pass
        answers["/leave"] = f"{last.uri}/3"
        async with connect(uri, headers=SECRETS):
            pass

        first, second, third, _, _, fourth = [
            request.headers for request in here.requests[:2] + there.requests[:4]
        ]
        for headers in (first, second):
            assert {name: headers.get(name) for name in SECRETS} == SECRETS
        assert "Sec-WebSocket-Key" in third
        for headers in (there.requests[0].headers, there.requests[1].headers):
            assert {name for name in SECRETS if name in headers} == {
                *("Host", "User-Agent", "Accept-Language")
            }
            assert headers["User-Agent"] == "me"
            assert headers["Host"] == there.uri.partition("//")[2]
            assert "Origin" not in headers
        # Arguments that say what the connection is for remain.
        assert fourth["Origin"] == "https://x.example"
        assert fourth["Sec-WebSocket-Protocol"] == "a"
        assert "Authorization" not in fourth
        # The user name and password are those of the first origin.
        assert here.requests[2].headers["Authorization"] == "Basic dXNlcjpwYXNz"
        assert here.requests[3].headers["Authorization"] == "Basic dXNlcjpwYXNz"
        end = here.requests[-1]
        assert end.target == "/end"
        assert {name for name in SECRETS if name in end.headers} == {
            *("Host", "User-Agent", "Accept-Language")
        }


@pytest.mark.parametrize(
    ("location", "username"),
    [
        ("ws://H.example:80/x", "user"),
        ("http://h.example", "user"),
        ("ws://me:own@h.example/", "me"),
        ("ws://h.example:81/", None),
        ("ws://h.example./", None),  # another name, as in browsers
        ("ws://x.h.example/", None),
        ("wss://h.example/", None),
        ("wss://h.example:80/", None),
        ("wss://me:own@h.example:80/", "me"),
    ],
)
def test_which_origin_is_another(location, username):
    """As in browsers: the scheme, the host and the port count (RFC 6454 §4)."""
    headers = fastws.Headers({"Cookie": "id=1", "User-Agent": "me"})
    route = Route(parse_uri("ws://user:pass@h.example/"), headers, 10)
    there = route.follow(ResponseError("", Response(302, {"Location": location})))
    assert there.uri.username == username
    assert there.uri.password == {"user": "pass", "me": "own", None: None}[username]
    is_same = parse_uri(location).host_header == "h.example" and not there.uri.secure
    assert ("Cookie" in there.headers) is is_same
    assert there.is_elsewhere is not is_same
    assert there.headers["User-Agent"] == "me"


async def test_another_origin_has_another_certificate(listen, names, tls):
    """`server_hostname` is about the first one."""
    # In debug mode, asyncio's servers report failed handshakes.
    asyncio.get_running_loop().set_exception_handler(lambda *_: None)
    async with AsyncExitStack() as stack:
        there = await listen(stack, {}, ssl=tls.server)
        port = there.server.sockets[0].getsockname()[1]
        address = socket.AF_INET, socket.SOCK_STREAM, 0, "", (HOST, port)
        names({"other.example": [address]})  # for which it has no certificate
        here = await listen(stack, {"/": "wss://other.example/x"}, ssl=tls.server)
        with pytest.raises(ssl.SSLCertVerificationError, match="mismatch"):
            await connect(here.uri, ssl=tls.client, server_hostname="localhost")
        assert here.targets == ["/"]


async def test_from_ws_to_wss_but_not_back(listen, tls):
    # In debug mode, asyncio's servers report failed handshakes.
    asyncio.get_running_loop().set_exception_handler(lambda *_: None)
    async with AsyncExitStack() as stack:
        plain_answers = {}
        plain = await listen(stack, plain_answers)
        secure = await listen(stack, {"/down": f"{plain.uri}/x", "/on": "/x"}, ssl=tls.server)
        secure_uri = secure.uri.replace(HOST, "localhost")
        plain_answers["/up"] = f"{secure_uri}/x"
        async with connect(f"{secure_uri}/on", host=HOST, ssl=tls.client):
            assert secure.targets == ["/on", "/x"]
        with pytest.raises(ResponseError, match="from wss:// to ws://") as caught:
            await connect(f"{secure_uri}/down", ssl=tls.client)
        assert caught.value.response.status == 302
        assert plain.targets == []
        # Our own certificate is not one that the default context trusts.
        with pytest.raises(ssl.SSLCertVerificationError):
            await connect(f"{plain.uri}/up")


@pytest.mark.parametrize(
    "location", ["ws+unix:///run/s:/", "http://[", "ftp://x/", "ws://x:99999/", "ws://a b/"]
)
async def test_a_location_that_is_no_uri(location, listen):
    async with AsyncExitStack() as stack:
        server = await listen(stack, {"/": location})
        with pytest.raises(ResponseError, match="cannot follow the redirect") as caught:
            await connect(server.uri)
        assert caught.value.response.headers["Location"] == location


@pytest.mark.parametrize("by", ["host", "sock", "path"])
async def test_if_the_caller_says_how_to_connect(by, listen, tmp_path):
    if by == "path" and not hasattr(socket, "AF_UNIX"):
        pytest.skip("no Unix sockets")
    async with AsyncExitStack() as stack:
        path = str(tmp_path / "s")
        listening = {"host": None, "port": None, "path": path} if by == "path" else {}
        server = await listen(stack, {"/1": "/2", "/out": "ws://other.example/"}, **listening)
        address = server.server.sockets[0].getsockname()

        def where():
            if by == "host":
                return {"host": HOST, "port": address[1]}
            if by == "path":
                return {"path": path}
            return {"sock": socket.create_connection(address)}

        if by == "sock":
            # It is closed, and there is no other.
            with pytest.raises(ResponseError, match="HTTP 302"):
                await connect("ws://example.invalid/1", **where())
            return
        async with connect("ws://example.invalid/1", **where()):
            assert server.targets == ["/1", "/2"]
        with pytest.raises(ResponseError, match="another origin"):
            await connect("ws://example.invalid/out", **where())


async def test_one_object_for_two_redirects(listen):
    async with AsyncExitStack() as stack:
        server = await listen(stack, {"/": "/there"})
        protocol = Recorder()
        with pytest.raises(RuntimeError, match="new object"):
            await connect(server.uri, protocol=lambda: protocol)


async def test_redirects_take_part_of_the_timeout(listen, settled):
    async with AsyncExitStack() as stack:
        server = await listen(stack, {"/": "/"})
        with pytest.raises(TimeoutError, match="too long"):
            await connect(server.uri, max_redirects=None, open_timeout=1.0)
        assert server.requests
        # (asyncio fails if a server is closed while it accepts a connection.)
        await settled(lambda: len(server.requests))
