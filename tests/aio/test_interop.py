"""Conversations with clients and servers of other projects: websockets, aiohttp and
websocket-client."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

import aiohttp
import pytest
import websocket
import websockets
from aiohttp import web

from fastws import State, connect, serve

HOST = "127.0.0.1"
PROTOCOLS = ["chat", "superchat"]
KINDS = [
    "websockets client",
    "websockets server",
    "aiohttp client",
    "aiohttp server",
    "websocket-client client",
]
DEFLATING = [kind for kind in KINDS if not kind.startswith("websocket-client")]


# The others, with one face ----------------------------------------------------------------


class Websockets:
    def __init__(self, ws):
        self.ws = ws
        self.subprotocol = ws.subprotocol
        self.deflates = bool(ws.protocol.extensions)
        self.send = ws.send  # an iterable as fragments
        self.recv = ws.recv
        self.close = ws.close

    async def ping(self):
        await (await self.ws.ping(b"?"))

    async def closed(self):
        await self.ws.wait_closed()
        return self.ws.close_code, self.ws.close_reason

    @classmethod
    @asynccontextmanager
    async def client(cls, uri, deflate, **options):
        options |= {"subprotocols": PROTOCOLS[::-1], "compression": "deflate" if deflate else None}
        async with websockets.connect(uri, **options) as ws:
            yield cls(ws)

    @classmethod
    @asynccontextmanager
    async def server(cls, deflate, accepted, **options):
        async def handler(ws):
            accepted.set_result(cls(ws))
            await ws.wait_closed()

        options |= {"subprotocols": PROTOCOLS, "compression": "deflate" if deflate else None}
        async with websockets.serve(handler, HOST, 0, **options) as server:
            yield server.sockets[0].getsockname()[1]


class Aiohttp:
    def __init__(self, ws, subprotocol):
        self.ws = ws
        self.subprotocol = subprotocol
        self.deflates = bool(ws.compress)

    async def send(self, message):
        if isinstance(message, list):
            message = message[0][:0].join(message)  # it cannot send fragments
        send = self.ws.send_str if isinstance(message, str) else self.ws.send_bytes
        await send(message)

    async def recv(self):
        message = await self.ws.receive()
        if message.type is aiohttp.WSMsgType.PING:
            await self.ws.pong(message.data)
            return await self.recv()
        assert message.type in (aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.BINARY)
        return message.data

    async def ping(self):
        await self.ws.ping(b"?")
        message = await self.ws.receive()
        assert (message.type, message.data) == (aiohttp.WSMsgType.PONG, b"?")

    async def close(self, code, reason):
        await self.ws.close(code=code, message=reason.encode())

    async def closed(self):
        message = await self.ws.receive()
        assert message.type is aiohttp.WSMsgType.CLOSE
        return message.data, message.extra

    @classmethod
    @asynccontextmanager
    async def client(cls, uri, deflate):
        options = {"protocols": PROTOCOLS[::-1], "compress": 15 if deflate else 0}
        async with (
            aiohttp.ClientSession() as session,
            session.ws_connect(uri, autoping=False, **options) as ws,
        ):
            yield cls(ws, ws.protocol)

    @classmethod
    @asynccontextmanager
    async def server(cls, deflate, accepted):
        done = asyncio.Event()

        async def handler(request):
            ws = web.WebSocketResponse(protocols=PROTOCOLS, compress=deflate, autoping=False)
            await ws.prepare(request)
            accepted.set_result(cls(ws, ws.ws_protocol))
            await done.wait()
            return ws

        app = web.Application()
        app.router.add_get("/", handler)
        runner = web.AppRunner(app)
        await runner.setup()
        try:
            await web.TCPSite(runner, HOST, 0).start()
            yield runner.addresses[0][1]
        finally:
            done.set()
            await runner.cleanup()


class WebsocketClient:
    """It blocks, so each call runs in a thread."""

    deflates = False

    def __init__(self, ws):
        self.ws = ws
        self.subprotocol = ws.getsubprotocol()

    async def send(self, message):
        fragments = message if isinstance(message, list) else [message]
        for i, fragment in enumerate(fragments):
            opcode = websocket.ABNF.OPCODE_CONT
            if i == 0:
                is_text = isinstance(fragment, str)
                opcode = websocket.ABNF.OPCODE_TEXT if is_text else websocket.ABNF.OPCODE_BINARY
            fin = int(i == len(fragments) - 1)
            data = fragment.encode() if isinstance(fragment, str) else fragment
            frame = websocket.ABNF(fin, 0, 0, 0, opcode, 1, data)
            await asyncio.to_thread(self.ws.send_frame, frame)

    async def recv(self):
        return await asyncio.to_thread(self.ws.recv)

    async def ping(self):
        await asyncio.to_thread(self.ws.ping, "?")
        opcode, frame = await asyncio.to_thread(self.ws.recv_data_frame, control_frame=True)
        assert (opcode, frame.data) == (websocket.ABNF.OPCODE_PONG, b"?")

    async def close(self, code, reason):
        await asyncio.to_thread(self.ws.close, code, reason.encode())

    async def closed(self):
        opcode, data = await asyncio.to_thread(self.ws.recv_data)
        assert opcode == websocket.ABNF.OPCODE_CLOSE
        return int.from_bytes(data[:2], "big"), data[2:].decode()

    @classmethod
    @asynccontextmanager
    async def client(cls, uri, deflate):
        options = {"subprotocols": PROTOCOLS[::-1], "timeout": 20}
        ws = await asyncio.to_thread(websocket.create_connection, uri, **options)
        try:
            yield cls(ws)
        finally:
            await asyncio.to_thread(ws.shutdown)


LIBRARIES = {"websockets": Websockets, "aiohttp": Aiohttp, "websocket-client": WebsocketClient}


@pytest.fixture
def meet(url):
    """Connect one of our WebSockets to one of theirs."""

    @asynccontextmanager
    async def connected(kind, *, deflate=False, tls=None):
        library, role = kind.split()
        library = LIBRARIES[library]
        accepted = asyncio.get_running_loop().create_future()
        ours = {"deflate": deflate, "subprotocols": PROTOCOLS}
        server = {"ssl": tls.server} if tls else {}
        client = {"ssl": tls.client} if tls else {}

        async def handler(ws):
            accepted.set_result(ws)
            await ws.wait_closed()

        if role == "client":
            async with serve(handler, HOST, 0, **ours, **server) as listener:
                uri = url(listener, secure=tls is not None)
                async with library.client(uri, deflate, **client) as peer:
                    yield await accepted, peer
        else:
            async with library.server(deflate, accepted, **server) as port:
                uri = f"ws{'s' * bool(tls)}://{HOST}:{port}/"
                async with connect(uri, **ours, **client) as ws:
                    peer = await accepted
                    yield ws, peer
                    if ws.state is State.OPEN:  # some answer only while they read
                        await asyncio.gather(ws.close(), peer.closed())

    return connected


async def hand_over(sender, receiver, message, expected=None):
    _, received = await asyncio.gather(sender.send(message), receiver.recv())
    expected = message if expected is None else expected
    assert type(received) is type(expected)
    assert received == expected


# Conversations ------------------------------------------------------------------------

MESSAGES = {
    "text": "Hello Server! \u00e9 \u20ac \U0001f600",
    "binary": bytes(range(256)),
    "empty text": "",
    "empty binary": b"",
    "length of 16 bits": "x" * 126,
    "1 MiB text": "0123456789abcdef" * (1 << 16),
    "1 MiB binary": bytes(range(256)) * (1 << 12),
    "another text": "Hello Server! " * 40,
}


async def talk(ours, theirs):
    for sender, receiver in ((ours, theirs), (theirs, ours)):
        for message in MESSAGES.values():
            await hand_over(sender, receiver, message)
        await hand_over(sender, receiver, ["Hel", "", "lo \u20ac", "!"], "Hello \u20ac!")
        await hand_over(sender, receiver, [b"x" * 70_000, b"y"], b"x" * 70_000 + b"y")
    # Both at once, with many messages in flight.
    numbers = [f"message {i}" for i in range(100)]
    for sender, receiver in ((ours, theirs), (theirs, ours)):
        for message in numbers:
            await sender.send(message)
        assert [await receiver.recv() for _ in numbers] == numbers


@pytest.mark.parametrize("kind", KINDS)
async def test_messages(kind, meet):
    async with meet(kind) as (ours, theirs):
        assert not theirs.deflates
        await talk(ours, theirs)


@pytest.mark.parametrize("kind", DEFLATING)
async def test_compressed_messages(kind, meet):
    async with meet(kind, deflate=True) as (ours, theirs):
        assert theirs.deflates
        await talk(ours, theirs)


@pytest.mark.parametrize("kind", KINDS[:2])
async def test_over_tls(kind, meet, tls):
    async with meet(kind, tls=tls, deflate=True) as (ours, theirs):
        assert ours.get_extra_info("ssl_object") is not None
        await talk(ours, theirs)
        await asyncio.gather(ours.close(4000, "bye"), theirs.closed())
    assert ours.close_code == 4000


@pytest.mark.parametrize("kind", KINDS)
async def test_subprotocol(kind, meet):
    async with meet(kind) as (ours, theirs):
        assert ours.subprotocol == theirs.subprotocol
        assert ours.subprotocol in PROTOCOLS


@pytest.mark.parametrize("kind", KINDS)
async def test_pings(kind, meet):
    async with meet(kind) as (ours, theirs):
        await asyncio.wait_for(theirs.ping(), 5)
        receiving = asyncio.create_task(theirs.recv())  # some answer only while they read
        assert 0 < await asyncio.wait_for(ours.ping(), 5) < 5
        assert 0 < await asyncio.wait_for(ours.ping(b"x" * 125), 5) < 5
        await ours.send("last")
        assert await receiving == "last"


CLOSINGS = [(1000, ""), (1001, "going away"), (3000, ""), (4999, "\u00fc" * 61)]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("code", "reason"), CLOSINGS)
async def test_we_close(code, reason, kind, meet):
    async with meet(kind) as (ours, theirs):
        await ours.send("last")
        closing = asyncio.create_task(ours.close(code, reason))
        assert await theirs.recv() == "last"
        closed = await asyncio.wait_for(theirs.closed(), 5)
        assert (closed[0], closed[1] or "") == (code, reason)
        if not kind.startswith("websocket-client"):  # it neither waits nor closes
            await asyncio.wait_for(closing, 5)
    await closing
    assert ours.state is State.CLOSED


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("code", "reason"), CLOSINGS)
async def test_they_close(code, reason, kind, meet):
    async with meet(kind) as (ours, theirs):
        await theirs.send("last")
        await asyncio.wait_for(theirs.close(code, reason), 5)
        await asyncio.wait_for(ours.wait_closed(), 5)
        assert (ours.close_code, ours.close_reason) == (code, reason)
        assert await ours.recv() == "last"
