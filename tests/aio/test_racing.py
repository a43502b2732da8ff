"""Tests of `connect` to hosts with several addresses (RFC 8305). Nothing here asserts a time: an
attempt that should not be waited for never ends, and neither would the test."""

from __future__ import annotations

import asyncio
import errno
import socket
from contextlib import suppress

import pytest

from fastws import WebSocketProtocol, connect, serve
from fastws.aio import racing
from fastws.aio.racing import connect_socket, is_address

HOST = "127.0.0.1"
STREAM, TCP = socket.SOCK_STREAM, socket.IPPROTO_TCP
V4, V6 = socket.AF_INET, socket.AF_INET6


async def echo(ws):
    async for message in ws:
        await ws.send(message)


def info(port):
    return V4, STREAM, TCP, "", (HOST, port)


@pytest.fixture
def hole():
    """The port of a listener that lets nobody in any more: connecting to it does not end."""
    socks = [socket.socket()]
    socks[0].bind((HOST, 0))
    socks[0].listen(0)
    port = socks[0].getsockname()[1]
    for _ in range(8):  # more than its queue takes
        sock = socket.socket()
        sock.setblocking(False)
        with suppress(BlockingIOError):
            sock.connect((HOST, port))
        socks.append(sock)
    yield port
    for sock in socks:
        sock.close()


@pytest.fixture
def refusing():
    """Ports on which nobody listens."""
    socks = [socket.socket() for _ in range(2)]
    for sock in socks:
        sock.bind((HOST, 0))
    yield [sock.getsockname()[1] for sock in socks]
    for sock in socks:
        sock.close()


async def test_an_address_that_does_not_answer(names, hole):
    async with serve(echo, HOST, 0) as server:
        port = server.sockets[0].getsockname()[1]
        names({"h.example": [info(hole), info(hole), info(port), info(hole)]})
        async with connect("ws://h.example", proxy=None) as ws:
            await ws.send("hi")
            assert await ws.recv() == "hi"
            assert ws.remote_address == (HOST, port)
            # Small messages leave at once.
            sock = ws.get_extra_info("socket")
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


async def test_an_address_that_refuses(names, refusing):
    async with serve(echo, HOST, 0) as server:
        port = server.sockets[0].getsockname()[1]
        names({"h.example": [*map(info, refusing), info(port)]})
        # The next one is tried at once.
        async with connect("ws://h.example", proxy=None, happy_eyeballs_delay=3600) as ws:
            assert ws.remote_address == (HOST, port)


async def test_over_tls(names, hole, tls):
    async with serve(echo, HOST, 0, ssl=tls.server) as server:
        port = server.sockets[0].getsockname()[1]
        names({"h.example": [info(hole), info(port)]})
        options = {"ssl": tls.client, "server_hostname": "localhost", "proxy": None}
        async with connect("wss://h.example", happy_eyeballs_delay=0.01, **options) as ws:
            await ws.send("hi")
            assert await ws.recv() == "hi"


async def test_none_answers(names, refusing):
    first, second = refusing
    names({"h.example": [info(first), info(second)], "one.example": [info(first)]})
    with pytest.raises(ConnectionRefusedError) as caught:
        await connect("ws://h.example", proxy=None)
    assert caught.value.errno == errno.ECONNREFUSED
    for port in refusing:
        assert str(port) in str(caught.value)
    with pytest.raises(ConnectionRefusedError, match=str(first)):
        await connect("ws://one.example", proxy=None)
    with pytest.raises(ExceptionGroup) as group:
        await connect_socket("h.example", 80, all_errors=True)
    assert [type(exc) for exc in group.value.exceptions] == [ConnectionRefusedError] * 2
    # If they fail for different reasons, all are told.
    names({"h.example": [info(first), (V4, STREAM, TCP, "", ("255.255.255.255", 80))]})
    with pytest.raises(OSError, match=str(first)) as caught:
        await connect("ws://h.example", proxy=None)
    assert "255.255.255.255" in str(caught.value)
    with pytest.raises(socket.gaierror):
        await connect("ws://nowhere.invalid", proxy=None)


# Two questions about a name: one for its IPv6 addresses, one for IPv4 -----------------------


@pytest.fixture
def answers(monkeypatch):
    """Play the resolver: `answers(v6, v4)` takes what each question gets, which is a list, an
    exception, or a future of either. Return the families that were asked for."""
    asked = []

    def play(v6, v4):
        loop = asyncio.get_running_loop()
        lookup = loop.getaddrinfo

        async def getaddrinfo(host, port, *, family=0, **hints):
            if port != 80:  # uvloop looks up addresses, too
                return await lookup(host, port, family=family, **hints)
            asked.append(family)
            answer = v6 if family == V6 else v4
            if isinstance(answer, asyncio.Future):
                answer = await answer
            if isinstance(answer, Exception):
                raise answer
            return answer

        monkeypatch.setattr(loop, "getaddrinfo", getaddrinfo)
        return asked

    return play


def later(*answer):
    future = asyncio.get_running_loop().create_future()

    def resolve():
        if not future.done():  # nobody may be waiting for it any more
            future.set_result(*answer)

    if answer:
        asyncio.get_running_loop().call_later(0.02, resolve)
    return future


UNKNOWN = socket.gaierror(socket.EAI_NONAME, "unknown")
AGAIN = socket.gaierror(socket.EAI_AGAIN, "again")


@pytest.mark.parametrize(
    ("v6", "v4", "patience"),
    [
        # One question gets no answer, ever.
        *[("never", "good", 0.05), ("good", "never", 3600)],
        # Addresses of IPv6 come first if they come soon, ...
        *[("good", "bad", 0), ("good later", "bad", 3600), ("good", "bad later", 3600)],
        # ... and also if they come late, but no other has connected.
        *[("good later", "hole", 0), ("good later", "refusing", 0)],
        # Nothing is waited for that will not come.
        *[("unknown", "good", 3600), ("none", "good", 3600), ("unknown later", "good", 3600)],
        *[("good", "unknown", 3600), ("hole", "good later", 0), ("refusing", "good later", 3600)],
    ],
)
async def test_the_answers_may_come_in_any_order(
    v6, v4, patience, answers, hole, refusing, monkeypatch
):
    monkeypatch.setattr(racing, "RESOLUTION_DELAY", patience)
    with (
        socket.create_server((HOST, 0)) as good,
        socket.create_server((HOST, 0)) as bad,
    ):
        known = {
            "good": [info(good.getsockname()[1])],
            "bad": [info(bad.getsockname()[1])],
            "hole": [info(hole)],
            "refusing": [info(refusing[0])],
            "none": [],
            "unknown": UNKNOWN,
        }

        def answer(how):
            what, _, late = how.partition(" ")
            if what == "never":
                return later()
            return later(known[what]) if late else known[what]

        asked = answers(answer(v6), answer(v4))
        sock = await connect_socket("h.example", 80)
        with sock:
            assert sock.getpeername() == good.getsockname()
    assert sorted(asked) == sorted([V4, V6])


@pytest.mark.parametrize(
    ("v6", "v4", "error"),
    [
        (UNKNOWN, UNKNOWN, "unknown"),
        (AGAIN, UNKNOWN, "again"),
        (UNKNOWN, AGAIN, "again"),
        ([], UNKNOWN, "unknown"),
        ([], [], "no address"),
        (UnicodeError("no name"), UnicodeError("no name"), "no name"),
    ],
)
async def test_neither_question_has_an_answer(v6, v4, error, answers):
    answers(v6, v4)
    with pytest.raises((OSError, UnicodeError), match=error):
        await connect_socket("h.example", 80)


async def test_an_address_is_known_but_cannot_be_reached(answers, refusing):
    answers(UNKNOWN, [info(refusing[0])])
    with pytest.raises(ConnectionRefusedError):
        await connect_socket("h.example", 80)


@pytest.mark.parametrize("turns", range(4))
async def test_giving_up_during_the_lookups(turns, answers):
    v6, v4 = later(), later()
    answers(v6, v4)
    task = asyncio.create_task(connect_socket("h.example", 80))
    for _ in range(turns):
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    assert v6.cancelled() == v4.cancelled() == (turns > 0)


@pytest.mark.parametrize(
    ("host", "options"),
    [
        ("localhost", {}),
        ("h.example", {"family": V4}),
        ("h.example", {"happy_eyeballs_delay": None}),
        ("h.example", {"interleave": 0}),
    ],
)
async def test_when_there_is_one_question(host, options, answers):
    with socket.create_server((HOST, 0)) as listener:
        asked = answers([], [info(listener.getsockname()[1])])
        (await connect_socket(host, 80, **options)).close()
    assert asked == [options.get("family", 0)]


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_there_is_nothing_to_ask_about_an_address(host, answers):
    asked = answers([], [])
    with socket.create_server((host, 0), family=V6 if ":" in host else V4) as listener:
        (await connect_socket(host, listener.getsockname()[1])).close()
    assert asked == []


# Giving up ----------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["cancel", "timeout"])
async def test_giving_up_leaves_nothing(how, names, hole):
    """Neither a socket nor a task: see conftest.py."""
    names({"h.example": [info(hole)] * 3})
    timeout = 0.2 if how == "timeout" else None
    connecting = connect(
        "ws://h.example", proxy=None, open_timeout=timeout, happy_eyeballs_delay=0.01
    )
    task = asyncio.create_task(connecting._connect())
    await asyncio.sleep(0.05)
    if how == "cancel":
        task.cancel()
    with pytest.raises(asyncio.CancelledError if how == "cancel" else TimeoutError):
        await task


@pytest.fixture
def made(monkeypatch):
    """All sockets that `connect_socket` makes."""
    made = []

    class Socket(socket.socket):
        def __init__(self, *args, **options):
            super().__init__(*args, **options)
            if "fileno" not in options:  # of an accepted connection
                made.append(self)

    monkeypatch.setattr(racing.socket, "socket", Socket)
    return made


@pytest.mark.parametrize("races", [True, False])
async def test_giving_up_at_any_moment_leaves_nothing(races, names, hole, made):
    """Not even when one is connected, and the others are being given up."""
    with socket.create_server((HOST, 0)) as listener:
        port = listener.getsockname()[1]
        names({"h.example": [info(hole), info(port), info(hole)] if races else [info(port)]})
        for turns in range(25):
            made.clear()
            connecting = connect_socket("h.example", 80, happy_eyeballs_delay=0)
            task = asyncio.create_task(connecting)
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])
            kept = [] if task.cancelled() else [task.result()]
            assert [sock for sock in made if sock.fileno() != -1] == kept
            for sock in kept:
                sock.close()


class Failing(WebSocketProtocol):
    def connection_made(self, transport):
        raise LookupError("made")


@pytest.mark.parametrize("how", ["ok", "connection_made", "certificate", "cancel", "option"])
async def test_no_socket_is_left_to_the_garbage_collector(how, names, made, tls, until):
    """uvloop closes the descriptor itself. If a socket object did it again, later, it would close
    what somebody else has opened meanwhile."""
    asyncio.get_running_loop().set_exception_handler(lambda *_: None)
    options = {
        "ok": {"ssl": tls.client},
        "connection_made": {"protocol": Failing},
        "certificate": {},
        "cancel": {"ssl": tls.client, "open_timeout": 0.1},
        "option": {"ssl": tls.client, "ssl_colour": "blue"},
    }[how]
    is_plain = how == "connection_made"
    uri = "ws://h.example" if is_plain else "wss://h.example"
    if not is_plain:
        options["server_hostname"] = "localhost"
    server = await serve(echo, HOST, 0, ssl=None if is_plain else tls.server)
    silent = socket.create_server((HOST, 0))
    address = silent.getsockname() if how == "cancel" else server.sockets[0].getsockname()
    names({"h.example": [info(address[1])]})
    made.clear()
    if how == "ok":
        await (await connect(uri, **options)).close()
    else:
        with pytest.raises((LookupError, OSError, TypeError)):
            await connect(uri, **options)
    (sock,) = made  # (A server that closes makes some, too.)
    silent.close()
    await server.close()
    await until(lambda: sock.fileno() == -1)


async def test_the_losers_are_closed(names, made):
    """All connect in the same turn of the event loop; one is kept."""
    with socket.create_server((HOST, 0)) as listener:
        names({"h.example": [info(listener.getsockname()[1])] * 5})
        made.clear()
        kept = await connect_socket("h.example", 80, happy_eyeballs_delay=0)
        assert [sock for sock in made if sock.fileno() != -1] == [kept]
        kept.close()


async def test_the_local_address(names):
    with socket.create_server((HOST, 0)) as listener:
        port = listener.getsockname()[1]
        names({"h.example": [info(port)]})
        sock = await connect_socket("h.example", port, local_addr=("127.0.0.1", 0))
        assert sock.getsockname()[0] == "127.0.0.1"
        sock.close()
        names({"h.example": [info(port)], "there": [(V6, STREAM, TCP, "", ("::1", 0, 0, 0))]})
        with pytest.raises(OSError, match="no local address"):
            await connect_socket("h.example", port, local_addr=("there", 0))
        # 192.0.2.0/24 is for documentation; no machine has such an address.
        with pytest.raises(OSError, match=r"192\.0\.2\.1"):
            await connect_socket("h.example", port, local_addr=("192.0.2.1", 0))


@pytest.mark.parametrize("uri", ["ws://127.0.0.1:{}", "ws://localhost:{}"])
async def test_options_of_event_loops(uri):
    """Those about addresses work on every event loop; others are refused as before."""
    async with serve(echo, HOST, 0) as server:
        uri = uri.format(server.sockets[0].getsockname()[1])
        for options in (
            {"happy_eyeballs_delay": 0.1, "interleave": 1},
            {"interleave": 0},
            {"happy_eyeballs_delay": None},
            {"local_addr": (HOST, 0), "family": V4},
            {"all_errors": True},
        ):
            async with connect(uri, **options) as ws:
                assert ws.remote_address[0] == HOST
        with pytest.raises(TypeError, match="colour"):
            await connect(uri, colour="blue")


async def test_no_interleaving(names, refusing):
    """0 means the same as to asyncio, and so does no address at all."""
    first, second = refusing
    names({"h.example": [info(first), info(second)], "none.example": []})
    for interleave in (None, 0):
        with pytest.raises(ConnectionRefusedError) as caught:
            await connect_socket("h.example", 80, interleave=interleave)
        text = str(caught.value)
        assert text.index(str(first)) < text.index(str(second))
        with pytest.raises(OSError, match="no address"):
            await connect_socket("none.example", 80, interleave=interleave)
    with pytest.raises(OSError, match="no address"):
        await connect_socket("none.example", 80)


def test_the_order_of_addresses():
    def order(families, first):
        infos = [(family, number) for number, family in enumerate(families)]
        return [number for _, number in racing._interleaved(infos, first)]

    assert order([V6, V6, V6, V4, V4], 1) == [0, 3, 1, 4, 2]
    assert order([V6, V6, V6, V4, V4], 2) == [0, 1, 3, 2, 4]
    assert order([V4, V4, V6], 1) == [0, 2, 1]
    assert order([V4, V4], 1) == [0, 1]
    assert order([V6], 5) == [0]


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        *[("127.0.0.1", True), ("::1", True), ("fe80::1%1", True), ("localhost", False)],
        *[("x.example", False), ("", False), ("a" * 64, False), ("\ud800", False)],
    ],
)
def test_what_is_an_address(host, expected):
    assert is_address(host) is expected


async def test_one_address_needs_no_race():
    made = []

    def make(loop, coroutine, **options):
        made.append(coroutine)
        return asyncio.Task(coroutine, loop=loop, **options)

    loop = asyncio.get_running_loop()
    with socket.create_server((HOST, 0)) as listener:
        loop.set_task_factory(make)
        try:
            sock = await connect_socket(*listener.getsockname())
        finally:
            loop.set_task_factory(None)
        sock.close()
    assert made == []
