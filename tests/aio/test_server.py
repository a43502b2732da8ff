"""Tests of `serve`: handlers, plain HTTP, where it listens, and how it stops in order."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import random
import re
import signal
import socket
import subprocess
import sys
import threading
from contextlib import suppress
from functools import partial

import pytest

from fastws import (
    ConnectionClosed,
    Headers,
    RequestError,
    Response,
    ResponseError,
    WebSocket,
    WebSocketProtocol,
    connect,
    serve,
)
from fastws.aio.endpoint import Endpoint

from ..tools import needs_uvloop
from ..wire import upgrade_request

PLAIN = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"
HEAD = b"HEAD /health HTTP/1.1\r\nHost: x\r\n\r\n"


async def turns(count=5):
    for _ in range(count):
        await asyncio.sleep(0)


def errors(caplog):
    return [record for record in caplog.records if record.levelno >= logging.ERROR]


# Handlers -----------------------------------------------------------------------------


async def test_a_handler_that_returns_closes_with_1000(url):
    async def handler(ws):
        assert isinstance(ws, WebSocket)
        await ws.send("bye")

    async with serve(handler, "127.0.0.1", 0) as server, connect(url(server)) as ws:
        assert [message async for message in ws] == ["bye"]
        assert ws.close_code == 1000


async def test_a_handler_that_raises_closes_with_1011_and_is_logged(url, caplog):
    async def handler(ws):
        raise ZeroDivisionError("oops")

    async with serve(handler, "127.0.0.1", 0) as server, connect(url(server)) as ws:
        with pytest.raises(ConnectionClosed) as info:
            await ws.recv()
        assert info.value.code == 1011
    (record,) = errors(caplog)
    assert record.name == "fastws"
    assert record.getMessage().startswith("handler failed (('127.0.0.1', ")
    assert record.exc_info[0] is ZeroDivisionError
    assert record.exc_info[2] is not None


async def test_a_handler_whose_client_is_gone_is_not_logged(raw, caplog, until):
    async def handler(ws):
        await ws.recv()

    async with serve(handler, "127.0.0.1", 0) as server:
        async with raw(server):
            pass
        await until(lambda: not server._endpoints)
    assert not errors(caplog)


async def test_a_handler_that_forwards_to_a_closed_connection_is_logged(url, caplog):
    async def handler(ws):
        raise ConnectionClosed(1006)  # of another connection

    async with serve(handler, "127.0.0.1", 0) as server, connect(url(server)) as ws:
        with pytest.raises(ConnectionClosed) as info:
            await ws.recv()
        assert info.value.code == 1011
    assert len(errors(caplog)) == 1


async def test_a_handler_may_be_any_callable(url):
    class Handler:
        async def __call__(self, ws):
            await ws.send("instance")

    async def with_argument(word, ws):
        await ws.send(word)

    for handler in (Handler(), partial(with_argument, "instance")):
        async with serve(handler, "127.0.0.1", 0) as server, connect(url(server)) as ws:
            assert await ws.recv() == "instance"


async def test_a_protocol_class_may_be_partial(url):
    class Greeter(WebSocketProtocol):
        def __init__(self, word, more=""):
            super().__init__()
            self.word = word + more

        def on_open(self):
            self.send(self.word)

    handler = partial(partial(Greeter, "Hel"), more="lo")
    async with serve(handler, "127.0.0.1", 0) as server, connect(url(server)) as ws:
        assert await ws.recv() == "Hello"


async def test_a_handler_may_hand_its_connection_to_other_tasks(url):
    async def handler(ws):
        async def answer():
            await ws.send((await ws.recv()).upper())

        await asyncio.gather(answer(), ws.ping())

    async with serve(handler, "127.0.0.1", 0) as server, connect(url(server)) as ws:
        await ws.send("a")
        assert [message async for message in ws] == ["A"]


async def test_a_protocol_that_cannot_be_made_is_logged(raw, caplog):
    class Faulty(WebSocketProtocol):
        def __init__(self):
            raise ZeroDivisionError

    async with serve(Faulty, "127.0.0.1", 0) as server:
        with pytest.raises((asyncio.IncompleteReadError, OSError)):
            async with raw(server):
                pass
    assert [record.exc_info[0] for record in errors(caplog)] == [ZeroDivisionError]


# Requests -----------------------------------------------------------------------------


def health(request):
    return Response.text("OK\n") if request.path == "/health" else None


async def health_later(request):
    await turns()
    return health(request)


each_health = pytest.mark.parametrize("process_request", [health, health_later])


@each_health
async def test_a_health_check_beside_websocket(echo, raw, url, process_request):
    async with serve(echo, "127.0.0.1", 0, process_request=process_request) as server:
        async with raw(server, handshake=False) as peer:
            status, head = await peer.request(PLAIN)
            assert status == 200
            assert b"Content-Length: 3\r\n" in head
            assert await peer.rest() == b"OK\n"
        async with raw(server, handshake=False) as peer:
            status, head = await peer.request(HEAD)
            assert status == 200
            assert b"Content-Length: 3\r\n" in head
            assert await peer.rest() == b""
        async with connect(url(server)) as ws:
            await ws.send("x")
            assert await ws.recv() == "x"


async def test_a_plain_get_is_told_that_this_is_a_websocket_server(echo, raw):
    async with serve(echo, "127.0.0.1", 0) as server, raw(server, handshake=False) as peer:
        status, head = await peer.request(PLAIN)
        assert status == 426
        assert b"Upgrade: websocket\r\n" in head
        assert await peer.rest() == b"this is a WebSocket server\n"


async def test_a_large_page_arrives_whole(echo, raw):
    page = bytes(range(256)) * 20_000

    def process_request(request):
        return Response(200, body=page)

    async with (
        serve(echo, "127.0.0.1", 0, process_request=process_request) as server,
        raw(server, handshake=False) as peer,
    ):
        assert (await peer.request(PLAIN))[0] == 200
        assert await peer.rest() == page


@pytest.mark.parametrize("how", ["sync", "async", "awaitable"])
async def test_process_request_sees_the_request(echo, url, how):
    seen = []

    def process_request(request):
        seen.append((request.method, request.target, request.headers["X"], request.is_websocket))

    async def process_request_later(request):
        process_request(request)

    def process_request_as_future(request):
        process_request(request)
        future = asyncio.get_running_loop().create_future()
        future.set_result(None)
        return future

    function = {
        "sync": process_request,
        "async": process_request_later,
        "awaitable": process_request_as_future,
    }[how]
    async with (
        serve(echo, "127.0.0.1", 0, process_request=function) as server,
        connect(url(server, "/a?b=c"), headers={"X": "y"}) as ws,
    ):
        await ws.send("x")
        assert await ws.recv() == "x"
    assert seen == [("GET", "/a?b=c", "y", True)]


def refuse(request):
    raise ZeroDivisionError


async def refuse_later(request):
    await turns()
    raise ZeroDivisionError


def nonsense(request):
    return "no response"


def not_final(request):
    return Response(101)


async def cancelled(request):
    asyncio.current_task().cancel()
    await asyncio.sleep(0)


async def answered_with_500(echo, raw, caplog, process_request):
    """Serve with a `process_request` that fails; return the error that is logged."""
    async with (
        serve(echo, "127.0.0.1", 0, process_request=process_request) as server,
        raw(server, handshake=False) as peer,
    ):
        assert (await peer.request())[0] == 500
        assert await peer.rest() == b"internal server error\n"
    (record,) = errors(caplog)
    assert "process_request failed" in record.getMessage()
    return record


@pytest.mark.parametrize("function", [refuse, refuse_later, nonsense, not_final])
async def test_a_process_request_that_fails_is_logged_and_answered_with_500(
    echo, raw, caplog, function
):
    record = await answered_with_500(echo, raw, caplog, function)
    assert record.exc_info is not None


TWICE = upgrade_request("X-Twice: a", "X-Twice: b")


async def look_up_in_a_group(headers):
    async with asyncio.TaskGroup() as group:
        group.create_task(asyncio.sleep(0))
        group.create_task(asyncio.to_thread(headers.get, "X-Twice"))


# How an application looks up a header, and what the client gets if the handler does no more.
LOOKUPS = {
    "get": (lambda headers: headers.get("x-twice"), b"2 header fields named x-twice\n"),
    "item": (lambda headers: headers["X-Twice"], b"2 header fields named X-Twice\n"),
    "missing": (lambda headers: headers["X-None"], b"no header field named X-None\n"),
    "copy": (
        lambda headers: (headers | {"A": "b"}).get("X-Twice"),
        b"2 header fields named X-Twice\n",
    ),
    "group": (look_up_in_a_group, b"bad header fields\n"),
}


@pytest.mark.parametrize("later", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize("how", LOOKUPS)
async def test_no_header_makes_process_request_fail(echo, raw, caplog, how, later):
    look_up, answer = LOOKUPS[how]

    async def process_request_later(request):
        await turns()
        found = look_up(request.headers)
        if asyncio.iscoroutine(found):
            await found

    def process_request(request):
        return process_request_later(request) if how == "group" else look_up(request.headers)

    function = process_request_later if later else process_request
    caplog.set_level(logging.DEBUG, "fastws")
    async with (
        serve(echo, "127.0.0.1", 0, process_request=function) as server,
        raw(server, handshake=False) as peer,
    ):
        assert (await peer.request(TWICE))[0] == 400
        assert await peer.rest() == answer
    records = [record for record in caplog.records if record.name == "fastws"]
    assert {(record.levelno, record.exc_info) for record in records} == {(logging.DEBUG, None)}


async def test_what_is_missing_elsewhere_is_not_the_clients_doing(echo, raw, caplog):
    """Even if the request itself does have the field."""

    def process_request(request):
        return Headers()["Host"]

    async with (
        serve(echo, "127.0.0.1", 0, process_request=process_request) as server,
        raw(server, handshake=False) as peer,
    ):
        assert (await peer.request(TWICE))[0] == 500
    assert len(errors(caplog)) == 1


@pytest.mark.parametrize("later", [False, True], ids=["sync", "async"])
async def test_process_request_may_raise_a_request_error(echo, raw, caplog, later):
    def process_request(request):
        raise RequestError("not today", 403, (("X-Why", "closed"),))

    async def process_request_later(request):
        process_request(request)

    function = process_request_later if later else process_request
    async with (
        serve(echo, "127.0.0.1", 0, process_request=function) as server,
        raw(server, handshake=False) as peer,
    ):
        status, head = await peer.request()
        assert (status, b"\r\nX-Why: closed\r\n" in head) == (403, True)
        assert await peer.rest() == b"not today\n"
    assert errors(caplog) == []


@pytest.mark.parametrize("arguments", [(101,), (99,), (403, (("X", 5),)), (403, (("X\n", "y"),))])
async def test_a_request_error_that_cannot_be_sent_is_a_mistake(echo, raw, caplog, arguments):
    def process_request(request):
        raise RequestError("oops", *arguments)

    await answered_with_500(echo, raw, caplog, process_request)


@pytest.mark.parametrize("how", LOOKUPS)
async def test_no_header_makes_a_handler_fail(raw, caplog, how):
    async def handler(ws):
        found = LOOKUPS[how][0](ws.request.headers)
        if asyncio.iscoroutine(found):
            await found

    async with serve(handler, "127.0.0.1", 0) as server, raw(server, handshake=False) as peer:
        assert (await peer.request(TWICE))[0] == 101
        assert await peer.close_frame() == (1008, "")
    assert errors(caplog) == []


@pytest.mark.parametrize("hook", ["on_open", "on_message", "on_close"])
@pytest.mark.parametrize("how", sorted({*LOOKUPS} - {"group"}))
async def test_no_header_makes_a_hook_fail(raw, frame, caplog, hook, how):
    def look_up(self, *_):
        LOOKUPS[how][0](self.request.headers)

    protocol = type("Looking", (WebSocketProtocol,), {hook: look_up})
    async with serve(protocol, "127.0.0.1", 0) as server, raw(server, handshake=False) as peer:
        assert (await peer.request(TWICE))[0] == 101
        await peer.send(frame(1, b"x"))
        if hook == "on_close":
            await peer.send(frame(8, b""))
            assert await peer.frame() == (0x88, b"")
        else:
            assert await peer.close_frame() == (1008, "")
    assert errors(caplog) == []


async def test_a_client_that_goes_does_not_make_a_group_fail(raw, caplog, until):
    """A TaskGroup raises ConnectionClosed in an ExceptionGroup."""
    ended = []

    async def handler(ws):
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(ws.recv())
                group.create_task(ws.wait_closed())
        finally:
            ended.append(ws)

    async with serve(handler, "127.0.0.1", 0) as server:
        for _ in range(3):
            async with raw(server) as peer:
                peer.reset()
        await until(lambda: len(ended) == 3)
    assert errors(caplog) == []


async def test_one_mistake_in_a_group_is_logged(raw, caplog):
    async def handler(ws):
        async def fail():
            raise ZeroDivisionError

        async with asyncio.TaskGroup() as group:
            group.create_task(fail())
            group.create_task(look_up_in_a_group(ws.request.headers))

    async with serve(handler, "127.0.0.1", 0) as server, raw(server, handshake=False) as peer:
        assert (await peer.request(TWICE))[0] == 101
        assert await peer.close_frame() == (1011, "")
    assert len(errors(caplog)) == 1


async def test_a_process_request_that_is_cancelled_is_answered_with_500(echo, raw):
    async with (
        serve(echo, "127.0.0.1", 0, process_request=cancelled) as server,
        raw(server, handshake=False) as peer,
    ):
        assert (await peer.request())[0] == 500


async def test_a_client_that_goes_cancels_process_request(echo, raw, until):
    states = []

    async def process_request(request):
        states.append("begun")
        try:
            await asyncio.Event().wait()
        finally:
            states.append("ended")

    async with serve(echo, "127.0.0.1", 0, process_request=process_request) as server:
        async with raw(server, handshake=False) as peer:
            await peer.send(PLAIN)
            await until(lambda: states)
            (endpoint,) = server._endpoints
            # (While reading is paused, only an error or a timeout shows that it is gone.)
            endpoint._transport.abort()
        await until(lambda: states == ["begun", "ended"])


@pytest.mark.parametrize("stubborn", ["returns", "raises", "dies"])
async def test_process_request_is_ended_by_the_open_timeout(echo, raw, caplog, stubborn):
    async def process_request(request):
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            if stubborn == "raises":
                raise ZeroDivisionError from None
            if stubborn == "dies":
                raise

    settings = {"process_request": process_request, "open_timeout": 0.5}
    async with (
        serve(echo, "127.0.0.1", 0, **settings) as server,
        raw(server, handshake=False) as peer,
    ):
        assert (await peer.request())[0] == 408
        assert await peer.rest() == b"the opening handshake took too long\n"
    assert len(errors(caplog)) == (stubborn == "raises")


async def test_a_client_that_went_during_process_request_does_no_harm(echo, until):
    """The response goes to a socket that answers with a reset."""
    go_on = asyncio.Event()
    states = []

    async def process_request(request):
        states.append("begun")
        await go_on.wait()
        return Response.text("late")

    loop = asyncio.get_running_loop()
    async with serve(echo, "127.0.0.1", 0, process_request=process_request) as server:
        sock = socket.socket()
        with sock:
            sock.setblocking(False)
            await loop.sock_connect(sock, server.sockets[0].getsockname())
            await loop.sock_sendall(sock, PLAIN)
            await until(lambda: states)
        go_on.set()
        await until(lambda: not server._endpoints)


async def test_what_a_client_sends_during_process_request_waits(raw, frame, echo):
    go_on = asyncio.Event()

    async def process_request(request):
        await go_on.wait()

    async with (
        serve(echo, "127.0.0.1", 0, process_request=process_request) as server,
        raw(server, handshake=False) as peer,
    ):
        from_start = asyncio.create_task(peer.request())
        await turns()
        sending = asyncio.create_task(peer.send(frame(2, bytes(500_000)) + frame(1, b"end")))
        await turns()
        go_on.set()
        assert (await from_start)[0] == 101
        assert len((await peer.frame())[1]) == 500_000
        assert await peer.frame() == (0x81, b"end")
        await sending


async def test_subprotocols_are_the_servers_choice(echo, url):
    async with serve(echo, "127.0.0.1", 0, subprotocols=["b", "a"]) as server:
        for asked, chosen in ((["a", "b"], "b"), (["a"], "a"), (["c"], None), ([], None)):
            async with connect(url(server), subprotocols=asked) as ws:
                assert ws.subprotocol == chosen


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        ("https://good.example", 101),
        ("https://a.b.example", 101),
        ("https://evil.example", 403),
        (None, 403),
    ],
)
async def test_origins(echo, url, origin, status):
    origins = ["https://good.example", re.compile(r"https://.*\.b\.example")]
    async with serve(echo, "127.0.0.1", 0, origins=origins) as server:
        if status == 101:
            async with connect(url(server), origin=origin) as ws:
                await ws.ping()
        else:
            with pytest.raises(ResponseError) as info:
                await connect(url(server), origin=origin)
            assert info.value.response.status == 403


async def test_extra_headers_are_in_every_response(echo, url, raw):
    async with serve(echo, "127.0.0.1", 0, headers={"Server": "mine"}) as server:
        async with connect(url(server)) as ws:
            assert ws.response.headers["Server"] == "mine"
        async with raw(server, handshake=False) as peer:
            assert b"\r\nServer: mine\r\n" in (await peer.request(PLAIN))[1]


async def test_limits_are_respected(url, raw):
    async def handler(ws):
        with suppress(ConnectionClosed):
            async for message in ws:
                await ws.send(str(len(message)))

    async with serve(handler, "127.0.0.1", 0, max_message_size=10, max_fragments=2) as server:
        for too_much in (bytes(11), [b"a", b"b"]):  # the fragments end with an empty one
            async with connect(url(server)) as ws:
                await ws.send(bytes(10))
                assert await ws.recv() == "10"
                await ws.send(too_much)
                with pytest.raises(ConnectionClosed) as info:
                    await ws.recv()
                assert info.value.code == 1009
    async with (
        serve(handler, "127.0.0.1", 0, max_message_size=None) as server,
        connect(url(server), max_message_size=0) as ws,
    ):
        await ws.send(bytes(2 << 20))
        with pytest.raises(ConnectionClosed) as info:
            await ws.recv()
        assert info.value.code == 1009
    async with (
        serve(handler, "127.0.0.1", 0, max_header_size=100) as server,
        raw(server, handshake=False) as peer,
    ):
        assert (await peer.request())[0] == 431


# Arguments ----------------------------------------------------------------------------


async def idle(ws):
    pass


@pytest.mark.parametrize(
    ("arguments", "options", "error"),
    [
        ((None,), {}, TypeError),
        (("handler",), {}, TypeError),
        ((idle,), {"origins": "https://x.example"}, TypeError),
        ((idle,), {"origins": ["x.example"]}, ValueError),
        ((idle,), {"origins": ["https://x.example/"]}, ValueError),
        ((idle,), {"origins": ["https://x.example:443"]}, ValueError),
        ((idle,), {"origins": [re.compile(b".*")]}, TypeError),
        ((idle,), {"origins": [b"https://x.example"]}, TypeError),
        ((idle,), {"subprotocols": "chat"}, TypeError),
        ((idle,), {"subprotocols": ["a b"]}, ValueError),
        ((idle,), {"headers": {"Bad Name": "x"}}, ValueError),
        ((idle,), {"headers": {"Connection": "x"}}, ValueError),
        ((idle,), {"headers": {"X": 5}}, TypeError),
        ((idle,), {"headers": [("X", b"y")]}, TypeError),
        ((idle,), {"headers": "X: y"}, TypeError),
        ((idle,), {"max_message_size": -1}, ValueError),
        ((idle,), {"max_fragments": 0}, ValueError),
        ((idle,), {"max_fragments": "9"}, TypeError),
        ((idle,), {"open_timeout": 0}, ValueError),
        ((idle,), {"close_timeout": -1}, ValueError),
        ((idle,), {"ping_interval": 0}, ValueError),
        ((idle,), {"ping_timeout": float("nan")}, ValueError),
        ((idle, "localhost"), {"path": "/tmp/x"}, ValueError),
        ((idle, None, 0), {"path": "/tmp/x"}, ValueError),
        ((idle, None, 0), {"sock": object()}, ValueError),
    ],
)
def test_wrong_arguments_are_told_by_the_call(arguments, options, error):
    with pytest.raises(error):
        serve(*arguments, **options)


async def test_an_address_in_use_is_told_when_awaited(echo, url):
    async with serve(echo, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(OSError, match="in use"):
            await serve(echo, "127.0.0.1", port)


# Where it listens -----------------------------------------------------------------------


async def converse(ws, peer=None):
    await ws.send("Hello Server!")
    assert await ws.recv() == "Hello Server!"
    await ws.close()
    assert ws.close_code == 1000


async def test_ipv6(echo, url):
    async with serve(echo, "::1", 0) as server:
        assert url(server).startswith("ws://[::1]:")
        await converse(await connect(url(server)))


async def test_localhost_in_both_families(echo):
    async with serve(echo, "localhost", 0) as server:
        families = {sock.family for sock in server.sockets}
        assert socket.AF_INET in families
        for sock in server.sockets:
            host, port = sock.getsockname()[:2]
            await converse(await connect("ws://localhost", host=host, port=port))


@pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="no Unix sockets")
async def test_a_unix_socket(echo, tmp_path):
    path = str(tmp_path / "socket")
    async with serve(echo, path=path) as server:
        assert server.sockets[0].getsockname() == path
        ws = await connect("ws://localhost/", path=path)
        assert not server._endpoints or {e.local_address for e in server._endpoints} == {path}
        await converse(ws)


async def test_a_socket_of_your_own(echo, url):
    sock = socket.create_server(("127.0.0.1", 0))
    async with serve(echo, sock=sock, backlog=5) as server:
        assert server.sockets[0].getsockname() == sock.getsockname()
        await converse(await connect(url(server)))


async def test_awaited_it_is_closed_by_hand(echo, url):
    server = await serve(echo, "127.0.0.1", 0)
    await converse(await connect(url(server)))
    await server.close()
    assert not server.sockets
    await server.close()
    await server.wait_closed()


# Stopping -----------------------------------------------------------------------------


async def test_close_says_1001_to_every_client_and_waits_for_the_handlers(url):
    done = []

    async def handler(ws):
        async for _ in ws:
            pass
        await turns()
        done.append(ws.close_code)

    async with serve(handler, "127.0.0.1", 0) as server:
        clients = [await connect(url(server)) for _ in range(5)]
        receiving = [asyncio.create_task(ws.recv()) for ws in clients]
        await turns()
        await server.close()
        assert done == [1001] * 5
        for result in await asyncio.gather(*receiving, return_exceptions=True):
            assert result.code == 1001
        with pytest.raises(OSError, match=r"onnect"):
            await connect(f"ws://127.0.0.1:{clients[0].remote_address[1]}")
        for ws in clients:
            await ws.close()
    assert not server._endpoints


async def test_close_says_what_you_tell_it(url, raw):
    async with serve(idle_forever, "127.0.0.1", 0, shutdown_timeout=0.1) as server:
        ws = await connect(url(server))
        for args in ((1005,), (1001, "x" * 124)):
            with pytest.raises(ValueError, match="close"):
                await server.close(*args)
        await ws.ping()  # nothing has happened yet
        closing = asyncio.create_task(server.close(1012, "back soon"))
        with pytest.raises(ConnectionClosed) as info:
            await ws.recv()
        assert (info.value.code, info.value.reason) == (1012, "back soon")
        await closing
        await ws.close()


async def idle_forever(ws):
    await asyncio.Event().wait()


async def test_what_does_not_end_is_cancelled_after_the_shutdown_timeout(url, raw):
    ends = []

    async def handler(ws):
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            ends.append("cancelled")
            raise

    async with (
        serve(handler, "127.0.0.1", 0, shutdown_timeout=0.1) as server,
        raw(server),  # it does not answer the close frame either
    ):
        ws = await connect(url(server))
        await server.close()
        assert ends == ["cancelled"] * 2
        await ws.close()
    assert not server._endpoints


async def test_a_silent_client_does_not_keep_a_server_of_hooks(raw):
    async with (
        serve(WebSocketProtocol, "127.0.0.1", 0, shutdown_timeout=0.1) as server,
        raw(server),
    ):
        await asyncio.wait_for(server.close(), 5)


@pytest.mark.parametrize("sent", [b"", b"GET / HT"])
async def test_a_handshake_in_progress_is_dropped(echo, raw, until, sent):
    async with serve(echo, "127.0.0.1", 0) as server, raw(server, handshake=False) as peer:
        await peer.send(sent)
        await until(lambda: server._endpoints)
        await asyncio.wait_for(server.close(), 5)
        with suppress(ConnectionResetError):  # what it did not read yet
            assert await peer.rest() == b""


async def test_a_process_request_in_progress_is_cancelled(echo, raw):
    cancelled = asyncio.Event()
    begun = asyncio.Event()

    async def process_request(request):
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    async with (
        serve(echo, "127.0.0.1", 0, process_request=process_request) as server,
        raw(server, handshake=False) as peer,
    ):
        await peer.send(PLAIN)
        await begun.wait()
        await asyncio.wait_for(server.close(), 5)
        assert cancelled.is_set()
        assert (await peer.rest()).startswith(b"HTTP/1.1 503 ")


async def test_who_comes_too_late_is_sent_away(echo, until):
    """A connection accepted before the listening socket was closed, made after it."""
    server = await serve(echo, "127.0.0.1", 0)
    await server.close()
    loop = asyncio.get_running_loop()
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    await loop.connect_accepted_socket(server._make_endpoint, theirs)
    assert await loop.sock_recv(ours, 100) == b""
    ours.close()
    await until(lambda: not server._endpoints)


async def test_a_handler_may_close_its_server(url):
    """A handler that stops the server does not wait for itself."""
    went_on = asyncio.get_running_loop().create_future()

    async def handler(ws):
        assert await ws.recv() == "stop"
        await server.close()
        went_on.set_result(ws.close_code)

    async with serve(handler, "127.0.0.1", 0) as server, connect(url(server)) as ws:
        await ws.send("stop")
        assert await asyncio.wait_for(went_on, 5) == 1001


async def test_serve_forever_ends_with_close(url):
    async with serve(idle_forever, "127.0.0.1", 0, shutdown_timeout=0.1) as server:
        serving = asyncio.create_task(server.serve_forever())
        waiting = asyncio.create_task(server.wait_closed())
        await turns()
        assert not serving.done()
        assert not waiting.done()
        await server.close()
        await asyncio.wait_for(asyncio.gather(serving, waiting), 5)
        await server.serve_forever()


async def test_serve_forever_that_is_cancelled_closes(url):
    async with serve(idle_forever, "127.0.0.1", 0, shutdown_timeout=0.1) as server:
        ws = await connect(url(server))
        serving = asyncio.create_task(server.serve_forever())
        await turns()
        serving.cancel()
        with pytest.raises(ConnectionClosed) as info:
            await ws.recv()
        assert info.value.code == 1001
        with pytest.raises(asyncio.CancelledError):
            await serving
        assert not server.sockets
        await ws.close()


@pytest.mark.parametrize("first", ["wait_closed", "serve_forever"])
async def test_a_signal_wakes_who_waits_for_the_end(first):
    async with serve(idle, "127.0.0.1", 0) as server:
        tasks = [asyncio.create_task(getattr(server, first)())]
        tasks.append(asyncio.create_task(server.serve_forever()))
        tasks.append(asyncio.create_task(server.wait_closed()))
        await turns()
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.wait_for(asyncio.gather(*tasks), 5)


async def test_a_second_signal_does_not_wait(url):
    async with (
        serve(idle_forever, "127.0.0.1", 0, shutdown_timeout=None) as server,
        connect(url(server)) as ws,
    ):
        before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
        serving = asyncio.create_task(server.serve_forever())
        await turns()
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(ConnectionClosed) as info:
            await ws.recv()
        assert info.value.code == 1001
        assert not serving.done()
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.wait_for(serving, 5)
        # The signals are as they were before.
        after = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
        assert after == before


@pytest.mark.loops("asyncio")
async def test_without_signals_in_another_thread():
    ended = []

    async def main():
        async with serve(idle, "127.0.0.1", 0) as server:
            serving = asyncio.create_task(server.serve_forever())
            await turns()
            await server.close()
            await serving
            ended.append(True)

    thread = threading.Thread(target=asyncio.run, args=[main()])
    thread.start()
    await asyncio.to_thread(thread.join)
    assert ended


PROGRAM = """
import asyncio, sys
import fastws

async def handler(ws):
    try:
        async for message in ws:
            await ws.send(message)
        if "slow" in sys.argv:
            await asyncio.sleep(3600)
        print("handler done", ws.close_code, flush=True)
    except asyncio.CancelledError:
        print("handler cancelled", flush=True)
        raise

async def main():
    # How long a busy machine takes is no problem of the server's.
    asyncio.get_running_loop().slow_callback_duration = 60
    async with fastws.serve(handler, "127.0.0.1", 0) as server:
        print(server.sockets[0].getsockname()[1], flush=True)
        await server.serve_forever()
        print("served", flush=True)

if "uvloop" in sys.argv:
    import uvloop
    uvloop.run(main())
else:
    asyncio.run(main())
print("end", flush=True)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no signals")
@pytest.mark.loops("asyncio")
@pytest.mark.parametrize("loop", ["asyncio", pytest.param("uvloop", marks=needs_uvloop)])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda n: n.name)
@pytest.mark.parametrize("slow", [False, True], ids=["once", "twice"])
async def test_signals_stop_a_server_in_order(loop, number, slow):
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-X", "dev", "-W", "error", "-c", PROGRAM, loop, "slow" * slow,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    port = int(await process.stdout.readline())
    ws = await connect(f"ws://127.0.0.1:{port}")
    await ws.send("x")
    assert await ws.recv() == "x"
    process.send_signal(number)
    with pytest.raises(ConnectionClosed) as info:
        await ws.recv()
    assert info.value.code == 1001
    await ws.close()
    if slow:
        process.send_signal(number)
    output, problems = await process.communicate()
    word = "handler cancelled" if slow else "handler done 1001"
    assert (output.decode().splitlines(), problems) == ([word, "served", "end"], b"")
    assert process.returncode == 0


# Many connections ---------------------------------------------------------------------


async def talk(uri, seed):
    """Send messages of all sizes, and get exactly these as answers."""
    chance = random.Random(seed)
    async with connect(uri, max_message_size=None) as ws:
        for number in range(10):
            size = chance.choice([0, 1, 20, 125, 126, 1000, 65_536, 100_000])
            message = f"{seed}:{number}:" + chr(97 + seed % 26) * size
            if chance.random() < 0.3:
                half = len(message) // 2
                await ws.send([message[:half], message[half:]])
            else:
                await ws.send(message)
            if chance.random() < 0.2:
                await ws.ping()
            assert await ws.recv() == message


async def test_many_connections_do_not_get_in_each_others_way(echo, url):
    async with serve(echo, "127.0.0.1", 0, backlog=500) as server:
        await asyncio.gather(*(talk(url(server), seed) for seed in range(200)))


@pytest.mark.parametrize("kind", ["asyncio", pytest.param("uvloop", marks=needs_uvloop)])
def test_two_loops_in_two_threads_do_not_get_in_each_others_way(echo, url, kind):
    failures = []

    async def main(first):
        async with serve(echo, "127.0.0.1", 0, backlog=500) as server:
            await asyncio.gather(*(talk(url(server), seed) for seed in range(first, first + 50)))

    def run(first):
        factory = None if kind == "asyncio" else pytest.importorskip("uvloop").new_event_loop
        try:
            with asyncio.Runner(loop_factory=factory) as runner:
                runner.run(main(first))
        except BaseException as exc:
            failures.append(exc)

    threads = [threading.Thread(target=run, args=[first]) for first in (0, 50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


# Nothing stays behind -------------------------------------------------------------------


async def test_nothing_stays_behind(raw, frame, url, until, echo):
    """300 connections, used and dropped in various ways."""
    chance = random.Random(1)
    options = {"open_timeout": 5, "ping_interval": 1, "close_timeout": 5}

    def endpoints():
        gc.collect()
        return {id(thing): thing for thing in gc.get_objects() if isinstance(thing, Endpoint)}

    # Tracebacks of failed tests keep objects alive.
    earlier = endpoints()

    async def one(server, kind):
        if kind < 4:
            async with raw(server, handshake=kind != 0) as peer:
                if kind == 1:
                    await peer.send(frame(1, b"\xff"))
                elif kind == 2:
                    await peer.send(frame(2, bytes(100_000))[:-1])
                elif kind == 3:
                    await peer.send(frame(2, bytes(100_000)))
                    peer.reset()
            return
        ws = await connect(url(server), protocol=WebSocketProtocol if kind == 4 else WebSocket)
        if kind == 4:
            ws.ping()
            ws.send("x")
            ws.close()
            await ws.wait_closed()
        elif kind == 5:
            await ws.send(["a", "b"])
            await ws.recv()
            await ws.close(4000)
        elif kind == 6:
            with suppress(TimeoutError):
                async with asyncio.timeout(0.001):
                    await asyncio.gather(ws.recv(), ws.ping())
            await ws.close()
        else:
            ws._transport.abort()
            await ws.wait_closed()

    async with serve(echo, "127.0.0.1", 0, backlog=500, **options) as server:
        kinds = [chance.randrange(8) for _ in range(300)]
        for start in range(0, 300, 50):
            await asyncio.gather(*(one(server, kind) for kind in kinds[start : start + 50]))
        await until(lambda: not server._endpoints)
        assert asyncio.all_tasks() == {asyncio.current_task()}
        await turns()

        # A cancelled timer keeps its callback alive until it is due, or until the loop cleans up.
        await until(lambda: endpoints().keys() <= earlier.keys(), timeout=20)
        timers = getattr(asyncio.get_running_loop(), "_scheduled", ())
        # (The remaining one ends this test if it takes too long.)
        assert len([timer for timer in timers if not timer.cancelled()]) <= 1


async def test_an_idle_connection_keeps_no_buffer(pair):
    async with pair() as (client, server):
        await client.send(bytes(500_000))
        assert len(await server.recv()) == 500_000
        assert server._sink.messages is None
        assert server._buffer is client._buffer  # the loop's
