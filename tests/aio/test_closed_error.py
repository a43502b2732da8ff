"""What `ConnectionClosed` says about a connection on a transport."""

from __future__ import annotations

import asyncio
import copy
import pickle
import socket
import sys

import pytest

from fastws import Close, ConnectionClosed, connect, serve

MIB = 1 << 20

not_on_windows = pytest.mark.skipif(sys.platform == "win32", reason="Windows differs")
only_linux_knows = pytest.mark.skipif(sys.platform != "linux", reason="only Linux knows this")


async def error_of(ws):
    """What recv raises; what the other methods raise must say the same."""
    while True:
        try:
            await asyncio.wait_for(ws.recv(), 10)
        except ConnectionClosed as exc:
            error = exc
            break
    assert vars(copy.copy(error)) == vars(pickle.loads(pickle.dumps(error))) == vars(error)
    for call in (ws.send, ws.ping, ws.pong):
        with pytest.raises(ConnectionClosed) as caught:
            await call(b"")
        assert (vars(caught.value), str(caught.value)) == (vars(error), str(error))
        assert caught.value.__cause__ is error.__cause__
    assert "\n" not in str(error)
    return error


async def test_both_ends_of_a_close_handshake(pair):
    async with pair() as (ws, theirs):
        closing = asyncio.ensure_future(ws.close(4000, "bye"))
        error = await error_of(theirs)
        assert (error.sent, error.received, error.by_peer) == (Close(4000, "bye"),) * 2 + (True,)
        assert error.unsent == 0
        await closing
        error = await error_of(ws)
        assert (error.sent, error.received, error.by_peer) == (Close(4000, "bye"),) * 2 + (False,)
        assert error.unsent == 0
        assert error.__cause__ is None


@only_linux_knows
async def test_when_the_peer_was_last_heard(raw):
    errors = []

    async def handler(ws):
        errors.append(await error_of(ws))

    async with serve(handler, "127.0.0.1", 0) as server, raw(server):
        await asyncio.sleep(0.2)
    (error,) = errors
    assert (error.code, error.sent, error.received, error.by_peer) == (1006, None, None, None)
    assert 0.1 < error.last_heard < 5
    assert "no close frame was sent or received; peer last heard 0." in str(error)


@not_on_windows
async def test_over_a_unix_socket_nobody_knows_when(tmp_path):
    async def handler(ws):
        await ws.close()

    path = str(tmp_path / "socket")
    async with serve(handler, path=path), connect("ws://localhost", path=path) as ws:
        error = await error_of(ws)
        assert (error.by_peer, error.last_heard, error.unsent) == (True, None, 0)


@not_on_windows
async def test_a_reset_is_the_cause(pair):
    async with pair() as (ws, theirs):
        sock = ws.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        ws._transport.abort()
        error = await error_of(theirs)
        assert (error.code, error.by_peer, error.unsent) == (1006, None, None)
        assert isinstance(error.__cause__, ConnectionResetError)
        assert error.__cause__.__traceback__ is None


async def test_what_was_unsent_when_the_peer_went_silent(pair):
    timeouts = {"ping_interval": 0.1, "ping_timeout": 0.1, "max_unsent_size": None}
    async with pair({"close_timeout": 0.1}, timeouts) as (ws, theirs):
        ws._transport.pause_reading()
        sending = asyncio.ensure_future(theirs.send(bytes(16 * MIB)))
        error = await error_of(theirs)
        with pytest.raises(ConnectionClosed):
            await sending
        assert (error.code, error.reason) == (1011, "keepalive ping timeout")
        assert (error.sent, error.by_peer) == (Close(1011, "keepalive ping timeout"), False)
        assert MIB < error.unsent < 17 * MIB
        assert f"{error.unsent} bytes unsent" in str(error)


async def test_while_closing_the_end_is_not_known(pair):
    async with pair() as (ws, _):
        ws._begin_closing(1001, "")
        with pytest.raises(ConnectionClosed) as caught:
            await ws.send("more")
        error = caught.value
        assert (error.code, error.sent, error.received) == (1001, Close(1001), None)
        assert error.last_heard is error.unsent is None
