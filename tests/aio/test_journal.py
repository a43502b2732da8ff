"""What the log says about connections."""

from __future__ import annotations

import logging
import re
from itertools import count

import pytest

from fastws import ConnectionClosed, WebSocket, WebSocketProtocol, connect, serve
from fastws.aio import journal, view

from ..wire import upgrade_request

KIB = 1 << 10


@pytest.fixture
def lines(caplog):
    """The lines so far, without addresses and times, those of a level and more."""

    def said(level=logging.DEBUG):
        return [
            re.sub(r"\('127\.0\.0\.1', \d+\)|\d+\.\d(?= s)", "*", record.getMessage())
            for record in caplog.records
            if record.levelno >= level
        ]

    return said


@pytest.fixture
def payloads():
    """Switch the logging of payloads on."""
    logger = logging.getLogger("fastws.payloads")
    logger.setLevel(logging.DEBUG)
    yield
    logger.setLevel(logging.INFO)


async def echo_once(ws):
    await ws.send(await ws.recv())


async def test_a_connection_has_a_number_of_its_own(pair):
    async with pair() as (ws, theirs), pair() as (other, _):
        assert len({ws.id, theirs.id, other.id}) == 3
        number = ws.id
        assert isinstance(number, int)
        assert 0 < number < theirs.id < other.id
    assert ws.id == number
    assert WebSocket().id != WebSocketProtocol().id


def test_numbers_begin_again_when_there_are_no_more(monkeypatch):
    monkeypatch.setattr(view, "_numbers", count((1 << 32) - 3))
    assert [WebSocket().id for _ in range(4)] == [(1 << 32) - 2, (1 << 32) - 1, 1, 2]


async def test_nothing_is_said_by_default(echo, url, lines, caplog, until):
    async with serve(echo, "127.0.0.1", 0) as server, connect(url(server)) as ws:
        await ws.send("one")
        await ws.recv()
        assert not ws._number
        assert ws._transport.get_protocol() is ws
    assert lines() == []
    assert not journal._begun


async def test_the_open_and_the_close(url, lines, caplog):
    caplog.set_level(logging.INFO, "fastws")
    options = {"subprotocols": ["chat"], "deflate": True}
    async with (
        serve(echo_once, "127.0.0.1", 0, **options) as server,
        connect(url(server, "/chat?token=secret"), **options) as ws,
    ):
        await ws.send("one")
        await ws.recv()
        assert ws._transport.get_protocol() is ws
        with pytest.raises(ConnectionClosed):
            await ws.recv()
    # The numbers are those of the server's connection and of the client's.
    said = sorted(re.sub(r"#\d+", "theirs", line.replace(f"#{ws.id}", "ours")) for line in lines())
    by_peer = "1000 normal_closure; the peer closed with 1000, we answered with 1000"
    by_us = "1000 normal_closure; we closed with 1000, the peer answered with 1000"
    end = "peer last heard * s before; no bytes unsent; received 1 messages, "
    assert said == [
        f"connection closed (*) ours after * s: {by_peer}; {end}9 bytes; sent 1 messages, 17 bytes",
        f"connection closed (*) theirs after * s: {by_us}; {end}17 bytes; sent 1 messages, 9 bytes",
        "connection open (*) ours: /chat, subprotocol chat, permessage-deflate",
        "connection open (*) theirs: /chat, subprotocol chat, permessage-deflate",
    ]
    assert not journal._begun


async def test_frames(url, lines, caplog, until):
    caplog.set_level(logging.DEBUG, "fastws")
    async with serve(echo_once, "127.0.0.1", 0) as server, connect(url(server)) as ws:
        await ws.send(["one", "secret"])
        assert await ws.recv() == "onesecret"
        await ws.wait_closed()
        await until(lambda: not server.connections)
    ours = [line for line in lines() if line.startswith(f"#{ws.id} ")]
    assert [line.removeprefix(f"#{ws.id} ") for line in ours] == [
        "sent TEXT, 3 bytes",
        "sent CONTINUATION, 6 bytes",
        "sent CONTINUATION (FIN), 0 bytes",
        "received TEXT (FIN), 9 bytes",
        "received CLOSE (FIN), 2 bytes",
        "sent CLOSE (FIN), 2 bytes",
    ]
    assert len([line for line in lines() if re.match("#\\d+ received", line)]) == 6
    assert "secret" not in caplog.text


@pytest.mark.loops("asyncio", "uvloop", "aiofastnet")
async def test_frames_of_any_size(url, lines, caplog, until):
    caplog.set_level(logging.DEBUG, "fastws")
    sizes = [0, 125, 126, 65535, 65536, 300 * KIB]

    async def sending(ws):
        for size in sizes:
            await ws.send(bytes(size))
        for _ in sizes:
            await ws.recv()

    async def echoing(ws):
        async for message in ws:
            await ws.send(message)

    for handler, other in ((sending, echoing), (echoing, sending)):
        caplog.clear()
        async with serve(handler, "127.0.0.1", 0) as server, connect(url(server)) as ws:
            await other(ws)
        await until(lambda: sum("connection closed" in line for line in lines()) == 2)
        for verb in ("sent", "received"):
            for end in (f"#{ws.id}", rf"#(?!{ws.id}\b)\d+"):
                found = re.findall(rf"{end} {verb} BINARY \(FIN\), (\d+) bytes", caplog.text)
                assert list(map(int, found)) == sizes


async def test_payloads_if_somebody_asks_for_them(url, lines, caplog, payloads):
    caplog.set_level(logging.DEBUG, "fastws")
    async with serve(echo_once, "127.0.0.1", 0) as server, connect(url(server)) as ws:
        await ws.send("täxt\n")
        await ws.recv()
        await ws.wait_closed()
    assert f"#{ws.id} sent TEXT (FIN), 6 bytes: b't\\xc3\\xa4xt\\n'" in lines()
    assert f"#{ws.id} received TEXT (FIN), 6 bytes: b't\\xc3\\xa4xt\\n'" in lines()


async def test_only_the_beginning_of_a_payload(url, lines, caplog, payloads):
    caplog.set_level(logging.DEBUG, "fastws")
    async with serve(echo_once, "127.0.0.1", 0) as server, connect(url(server)) as ws:
        await ws.send(b"a" * 100 * KIB)
        await ws.recv()
        await ws.wait_closed()
    found = [line for line in lines() if "BINARY" in line]
    assert len(found) == 4
    assert {line.partition(", ")[2] for line in found} == {f"102400 bytes: b'{'a' * 64}'…"}


def test_the_level_of_payloads_is_not_inherited():
    logger = logging.getLogger("fastws.payloads")
    assert logger.level == logging.INFO


@pytest.mark.loops("asyncio", "uvloop", "aiofastnet")
async def test_frames_over_tls(tls, url, lines, caplog, echo):
    caplog.set_level(logging.DEBUG, "fastws")
    async with (
        serve(echo, "localhost", 0, ssl=tls.server) as server,
        connect(url(server, secure=True), ssl=tls.client) as ws,
    ):
        await ws.send("one")
        assert await ws.recv() == "one"
    for verb in ("sent", "received"):
        assert f"#{ws.id} {verb} TEXT (FIN), 3 bytes" in lines()
    assert any(line.startswith(f"connection closed (*) #{ws.id} ") for line in lines())


async def test_what_comes_with_the_request(raw, frame, lines, caplog, until):
    caplog.set_level(logging.DEBUG, "fastws")
    async with serve(echo_once, "127.0.0.1", 0) as server:
        async with raw(server, handshake=False) as peer:
            await peer.request(upgrade_request() + frame(1, b"early"))
            assert await peer.frame() == (0x81, b"early")
            await peer.send(frame(8))
        await until(lambda: any("connection closed" in line for line in lines()))
    frames = [line.partition(" ")[2] for line in lines() if line.startswith("#")]
    assert frames[:2] == ["received TEXT (FIN), 5 bytes", "sent TEXT (FIN), 5 bytes"]


async def test_errors_name_the_connection(url, lines, caplog):
    async def failing(ws):
        numbers.append(ws.id)
        raise ZeroDivisionError

    class Failing(WebSocketProtocol):
        def on_open(self):
            numbers.append(self.id)
            raise ZeroDivisionError

    for handler, words in ((failing, "handler failed"), (Failing, "a hook of Failing failed")):
        numbers = []
        caplog.clear()
        async with serve(handler, "127.0.0.1", 0) as server, connect(url(server)) as ws:
            with pytest.raises(ConnectionClosed):
                await ws.recv()
        assert lines(logging.ERROR) == [f"{words} (*) #{numbers[0]}"]
