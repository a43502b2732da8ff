"""Tests of `connect` if the connection ends at any stage of the opening: it raises the
documented errors, tries again, and leaves nothing behind when it is cancelled."""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
import threading
from base64 import b64encode
from contextlib import suppress
from hashlib import sha1
from itertools import repeat

import pytest

import fastws
from fastws import Response, ResponseError, RetryPolicy, connect, serve

from .conftest import GUID

HOST = "127.0.0.1"
WAIT = 20.0  # seconds; everything takes far less
ALERT = b"\x15\x03\x03\x00\x02\x02\x28"  # handshake failure


@pytest.fixture
def swift(monkeypatch):
    """Try again without delay."""
    monkeypatch.setattr(RetryPolicy, "delays", lambda _: repeat(0.01))


# A server by hand, as the event loops' own would end connections in their own ways -------------


def read_head(sock):
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        data = sock.recv(65536)
        if not data:
            raise EOFError
        head += data
    return head


def accept(sock):
    """Do the handshake, and wait for the client to disconnect."""
    head = read_head(sock)
    lines = dict(line.split(b": ", 1) for line in head.split(b"\r\n")[1:-2])
    digest = b64encode(sha1(lines[b"Sec-WebSocket-Key"] + GUID).digest())
    sock.sendall(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: " + digest + b"\r\n\r\n"
    )
    sock.sendall(b"\x81\x05hello")
    with suppress(OSError):
        while sock.recv(65536):
            pass


def nothing(sock):
    pass


def some(sock):
    sock.recv(10)


def half_a_server_hello(sock):
    sock.recv(65536)
    sock.sendall(b"\x16\x03\x03\x00\x7a\x02\x00")


def an_alert(sock):
    sock.recv(65536)
    sock.sendall(ALERT)


def plain_http(sock):
    sock.recv(65536)
    sock.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")


def the_request(sock):
    read_head(sock)


def half_the_head(sock):
    read_head(sock)
    sock.sendall(b"HTTP/1.1 101 Sw")


def end(sock, how):
    if how == "shutdown":
        with suppress(OSError):
            sock.unwrap()
    if how == "reset":
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    # Closing an SSLSocket sends no more to the peer than closing any other socket.
    sock.close()


BEFORE_TLS = [nothing, some, half_a_server_hello]
WITHIN = [nothing, some, the_request, half_the_head]
STAGES = [
    *[("plain", play, how) for play in WITHIN for how in ("close", "reset")],
    *[("before", play, how) for play in BEFORE_TLS for how in ("close", "reset")],
    *[("within", play, how) for play in WITHIN for how in ("close", "reset", "shutdown")],
]


class Server:
    """Ends the first connections at one stage, and handles the next one properly."""

    def __init__(self, context, where, play, how, *, failures=1, then=None):
        self.listener = socket.create_server((HOST, 0))
        self.listener.settimeout(WAIT)
        self.context = context
        self.stage = where, play, how
        self.failures = failures
        self.then = then
        self.thread = threading.Thread(target=self.run)
        port = self.listener.getsockname()[1]
        self.uri = f"ws{'s' * (where != 'plain')}://localhost:{port}"

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.listener.close()
        self.thread.join()

    def run(self):
        where, play, how = self.stage
        for _ in range(self.failures):
            sock = self.next()
            with suppress(OSError, EOFError):
                if where == "within":
                    sock = self.secure(sock)
                play(sock)
            end(sock, how)
        if self.then is not None:
            sock = self.next()
            with sock if where == "plain" else self.secure(sock) as sock:
                self.then(sock)

    def next(self):
        sock, _ = self.listener.accept()
        sock.settimeout(WAIT)
        return sock

    def secure(self, sock):
        return self.context.wrap_socket(sock, server_side=True)


@pytest.mark.parametrize(("where", "play", "how"), STAGES)
async def test_a_connection_that_ends_too_early_is_tried_again(where, play, how, tls, swift):
    errors = []

    class Recorder(fastws.WebSocketProtocol):
        def on_error(self, exc):
            errors.append(exc)

        def on_message(self, message):
            received.set_result(message)

    received = asyncio.get_running_loop().create_future()
    options = {} if where == "plain" else {"ssl": tls.client}
    with Server(tls.server, where, play, how, failures=2, then=accept) as server:
        options |= {"host": HOST, "open_timeout": WAIT}
        async for protocol in connect(server.uri, protocol=Recorder, **options):
            assert await asyncio.wait_for(received, WAIT) == "hello"
            protocol._transport.abort()
            await protocol.wait_closed()  # or we and the server's thread wait for each other
            break
    assert len(errors) == 2
    for exc in errors:
        # TimeoutError is an OSError too, but there was no time for a timeout.
        assert isinstance(exc, (OSError, ResponseError))
        assert not isinstance(exc, TimeoutError)
        assert str(exc)


async def test_nobody_listens(swift, tls):
    with socket.socket() as sock:
        sock.bind((HOST, 0))
        port = sock.getsockname()[1]
        for uri, options in ((f"ws://{HOST}", {}), (f"wss://{HOST}", {"ssl": tls.client})):
            with pytest.raises(ConnectionRefusedError):
                await connect(f"{uri}:{port}", **options)


async def test_what_does_not_pass_is_not_tried_again(tls, swift):
    """A bad certificate, a server without TLS, and one that refuses, however the connection ends
    after that."""

    async def first(uri, **options):
        async for _ in connect(uri, host=HOST, **options):
            pytest.fail("connected")

    async def refuse(request):
        return Response.text("go away", 403)

    # In debug mode, asyncio's servers report failed handshakes.
    asyncio.get_running_loop().set_exception_handler(lambda *_: None)
    async with serve(print, HOST, 0, ssl=tls.server, process_request=refuse) as server:
        uri = f"wss://localhost:{server.sockets[0].getsockname()[1]}"
        with pytest.raises(ssl.SSLCertVerificationError):
            await first(uri, ssl=tls.stranger)
        with pytest.raises(ResponseError, match="403"):
            await first(uri, ssl=tls.client)

    def half_a_refusal(sock):
        read_head(sock)
        sock.sendall(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 100\r\n\r\nbecause")

    # It is no server for TLS, or does not want to speak it with us.
    for play in (an_alert, plain_http):
        with Server(tls.server, "before", play, "close") as server, pytest.raises(ssl.SSLError):
            await first(server.uri, ssl=tls.client)
    for how in ("close", "shutdown"):
        with Server(tls.server, "within", half_a_refusal, how) as server:
            with pytest.raises(ResponseError, match="403") as caught:
                await first(server.uri, ssl=tls.client)
            assert caught.value.response.body == b"because"


# Cancelling --------------------------------------------------------------------------------


SILENT = [("plain", nothing), ("plain", the_request), ("plain", half_the_head)]
SILENT += [("before", nothing), ("before", some), ("before", half_a_server_hello)]
SILENT += [("within", nothing), ("within", the_request), ("within", half_the_head)]


@pytest.mark.parametrize(("where", "play"), SILENT)
@pytest.mark.parametrize("how", ["cancel", "timeout"])
async def test_giving_up_leaves_nothing(where, play, how, tls, until):
    """No task (see conftest.py), no timer and no TCP connection, whatever the stage."""
    reached, left = threading.Event(), []

    def wait(sock):
        play(sock)
        reached.set()
        with suppress(ConnectionError):
            while sock.recv(65536):
                pass
        left.append(sock)

    options = {} if where == "plain" else {"ssl": tls.client}
    with Server(tls.server, where, wait, "close") as server:
        # (So long that a busy machine gets to that stage.)
        timeout = 1.0 if how == "timeout" else None
        options |= {"host": HOST, "open_timeout": timeout}
        attempt = asyncio.create_task(connect(server.uri, **options)._connect())
        await until(reached.is_set)
        if how == "cancel":
            attempt.cancel()
            with pytest.raises(asyncio.CancelledError):
                await attempt
        else:
            with pytest.raises(TimeoutError):
                await attempt
        await until(lambda: left)
    timers = getattr(asyncio.get_running_loop(), "_scheduled", ())
    # (The remaining one ends this test if it takes too long.)
    await until(lambda: len([timer for timer in timers if not timer.cancelled()]) <= 1)


@pytest.mark.parametrize("secure", [False, True], ids=["ws", "wss"])
async def test_cancelling_at_any_moment_leaves_nothing(secure, tls, until):
    """From the first turn of the event loop to the last one before the connection is open."""

    async def handler(ws):
        await ws.wait_closed()

    # In debug mode, asyncio's servers report failed handshakes.
    asyncio.get_running_loop().set_exception_handler(lambda *_: None)
    async with serve(handler, HOST, 0, ssl=tls.server if secure else None) as server:
        uri = f"ws{'s' * secure}://localhost:{server.sockets[0].getsockname()[1]}"
        options = {"host": HOST} | ({"ssl": tls.client} if secure else {})
        for turns in range(1000):
            attempt = asyncio.create_task(connect(uri, **options)._connect())
            for _ in range(turns):
                await asyncio.sleep(0)
            if attempt.done():
                await attempt.result().close()
                break
            attempt.cancel()
            with suppress(asyncio.CancelledError):
                ws = await attempt  # then only the caller can close it
                await ws.close()
        else:
            pytest.fail("never connected")
        await until(lambda: not server._endpoints)
    assert asyncio.all_tasks() == {asyncio.current_task()}
