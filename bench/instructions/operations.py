"""The operations whose instructions are counted, and the program that performs one of them.

This module knows what is measured, and tells callgrind when to count. It does not know what the
figures are compared with. All data is fixed, and there is no socket, clock or random number in
what is counted: the same code executes the same instructions.

python -m bench.instructions.operations OPERATION, under callgrind
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import os
import sys
from collections import deque
from dataclasses import dataclass
from functools import partial
from itertools import repeat
from typing import TYPE_CHECKING, Any

import fastws
from fastws.codec import MessageDecoder, MessageEncoder, apply_mask, encode_frame, is_utf8
from fastws.handshake import ServerHandshake
from fastws.spec import Opcode

from ..payloads import KEY, payload, size_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    # Performs the operation a number of times.
    Run = Callable[[int], object]

KIB = 1 << 10

# As a browser sends it.
REQUEST = b"""\
GET /chat HTTP/1.1\r
Host: server.example.com\r
Connection: Upgrade\r
Pragma: no-cache\r
Cache-Control: no-cache\r
User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko)\
 Chrome/140.0.0.0 Safari/537.36\r
Upgrade: websocket\r
Origin: http://server.example.com\r
Sec-WebSocket-Version: 13\r
Accept-Encoding: gzip, deflate, br, zstd\r
Accept-Language: en-US,en;q=0.9\r
Cookie: session=0123456789abcdef0123456789abcdef\r
Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r
Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r
Sec-WebSocket-Protocol: chat, superchat\r
\r
"""


@dataclass(frozen=True)
class Operation:
    """One operation.

    Attributes:
        times: how often it is performed to be counted; takes some tenths of a second.
        make: returns a function that performs it so many times.
        messages: how many messages it processes; the figures are for one.
    """

    name: str
    times: int
    make: Callable[[], Run]
    messages: int = 1

    def figure(self, counted: dict[str, int]) -> float:
        """Return the instructions for one message, from what `main` counted.

        The difference leaves out what is the same for any number of repetitions.
        """
        once, twice = (counted[str(self.times * factor)] for factor in (1, 2))
        return (twice - once) / self.times / self.messages


def calls(function: Callable[..., object], *args: object) -> Run:
    """Call a function repeatedly, without a loop in Python."""

    def run(times: int) -> None:
        deque(map(function, *[repeat(arg, times) for arg in args]), 0)

    return run


def turns(function: Callable[[], object]) -> Run:
    """The same for a function without arguments, with a loop."""

    def run(times: int) -> None:
        for _ in repeat(None, times):
            function()

    return run


# The codec ----------------------------------------------------------------------------------


def frames(kind: str, size: int, count: int = 1) -> bytes:
    """Masked messages of a client, each of them different."""
    opcode = Opcode.BINARY if kind == "binary" else Opcode.TEXT
    return b"".join(
        encode_frame(opcode, payload(kind, size, number), key=KEY) for number in range(count)
    )


def decode(kind: str, size: int, count: int) -> Run:
    return calls(MessageDecoder(masked=True).feed, frames(kind, size, count))


def encode(role: str, size: int, count: int) -> Run:
    encoder = MessageEncoder()
    args = (payload("binary", size), *([KEY] if role == "client" else []))
    batch = calls(encoder.binary, *args)

    def turn() -> None:
        batch(count)
        encoder.take()

    return turns(turn)


def mask() -> Run:
    return calls(apply_mask, payload("binary", 8), KEY)


def validate() -> Run:
    return calls(is_utf8, payload("json", 64))


# Endpoints ----------------------------------------------------------------------------------


class Handle:
    """A callback of `call_later`, which is never called."""

    def cancel(self) -> None:
        pass


class Loop(asyncio.AbstractEventLoop):
    """An event loop that only calls what is ready."""

    def __init__(self) -> None:
        self._ready: deque[Callable[[], object]] = deque()
        asyncio._set_running_loop(self)

    def call_soon(self, callback: Callable[..., object], *args: Any, context: Any = None) -> Any:
        self._ready.append(partial(callback, *args) if args else callback)
        return Handle()

    def call_later(self, *args: Any, context: Any = None) -> Any:
        return Handle()

    call_at = call_later

    def time(self) -> float:
        return 0.0

    def get_debug(self) -> bool:
        return False

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        raise AssertionError(context)

    def run_ready(self) -> None:
        ready = self._ready
        while ready:
            ready.popleft()()


class Transport(asyncio.Transport):
    """A transport whose peer takes all."""

    def __init__(self) -> None:
        super().__init__()
        self.written: deque[bytes] = deque(maxlen=1)
        self.write = self.written.append  # type: ignore[method-assign]

    def is_closing(self) -> bool:
        return False

    def pause_reading(self) -> None:
        raise AssertionError("nothing is slow here")

    def abort(self) -> None:
        raise AssertionError("the connection should stay open")


class Echo(fastws.WebSocketProtocol):
    __slots__ = ()

    def on_message(self, message: str | bytes) -> None:
        self.send(message)


async def echo(ws: fastws.WebSocket) -> None:
    async for message in ws:
        await ws.send(message)


def opened(endpoint: Any) -> Transport:
    """Open an endpoint's connection, as a server."""
    transport = Transport()
    endpoint.connection_made(transport)
    endpoint.data_received(REQUEST)
    assert transport.written[0].startswith(b"HTTP/1.1 101 ")
    return transport


def reading(endpoint: Any, loop: Loop, transport: Transport, count: int = 1) -> Run:
    """Each time, messages arrive in one read, and their echoes leave."""
    read = frames("ascii", 32, count)
    size = len(read)
    place, updated = endpoint.get_buffer(-1)[:size], endpoint.buffer_updated
    run_ready = loop.run_ready

    def turn() -> None:
        place[:] = read
        updated(size)
        run_ready()

    turn()
    texts = [payload("ascii", 32, number) for number in range(count)]
    assert transport.written[0] == b"".join(encode_frame(Opcode.TEXT, text) for text in texts)
    return turns(turn)


def callback_echo(count: int) -> Run:
    loop, endpoint = Loop(), Echo()
    return reading(endpoint, loop, opened(endpoint), count)


def coroutine_echo() -> Run:
    loop, endpoint = Loop(), fastws.WebSocket()
    transport = opened(endpoint)
    loop.task = asyncio.Task(echo(endpoint), loop=loop)
    loop.run_ready()
    return reading(endpoint, loop, transport)


def prepared_send() -> Run:
    loop, endpoint = Loop(), fastws.WebSocketProtocol()
    transport = opened(endpoint)
    message = fastws.prepare(payload("ascii", 100).decode())
    send, run_ready = endpoint.send, loop.run_ready

    def turn() -> None:
        send(message)
        run_ready()

    turn()
    assert transport.written[0] == encode_frame(Opcode.TEXT, message.payload)
    return turns(turn)


def handshake() -> Run:
    def turn() -> None:
        server = ServerHandshake()
        request = server.receive_data(REQUEST)
        assert request is not None
        server.accept(request)

    return turns(turn)


def life() -> Run:
    """A server's connection, from when the transport exists until it is lost."""
    serving = fastws.serve(fastws.WebSocketProtocol, "127.0.0.1", 0, ping_interval=None)
    loop, make = Loop(), serving._make_server()._make_endpoint

    def turn() -> None:
        endpoint = make()
        opened(endpoint)
        endpoint.connection_lost(None)
        loop.run_ready()

    return turns(turn)


# All of them --------------------------------------------------------------------------------


def _operations() -> Iterator[Operation]:
    for size, count, times in ((16, 1024, 40), (KIB, 16, 500), (16 * KIB, 4, 200)):
        for kind in ("binary", "text"):
            # (JSON with all kinds of characters.)
            make = partial(decode, "binary" if kind == "binary" else "json", size, count)
            yield Operation(f"decode {size_name(size)} {kind}", times, make, count)
    for role, size in (("server", 16), ("client", 125)):
        name = f"encode {size_name(size)} {role}"
        yield Operation(name, 500, partial(encode, role, size, 64), 64)
    yield Operation("mask 8 B", 20_000, mask)
    yield Operation("validate 64 B", 20_000, validate)
    yield Operation("callback echo", 5000, partial(callback_echo, 1))
    yield Operation("callback echo of 16", 500, partial(callback_echo, 16), 16)
    yield Operation("coroutine echo", 2000, coroutine_echo)
    yield Operation("prepared send", 5000, prepared_send)
    yield Operation("handshake", 50, handshake)
    yield Operation("connection", 50, life)


OPERATIONS = {operation.name: operation for operation in _operations()}


def main(name: str) -> None:
    operation = OPERATIONS[name]
    callgrind = ctypes.PyDLL(None)  # it is preloaded
    run = operation.make()
    # Python specializes what runs often.
    run(operation.times)
    gc.collect()
    gc.disable()
    callgrind.fastws_begin()
    run(operation.times // 10)
    for times in (operation.times, 2 * operation.times):
        callgrind.fastws_toggle()
        run(times)
        callgrind.fastws_toggle()
        callgrind.fastws_dump(str(times).encode())
    # Connections are left open: there is nothing to say about that.
    os._exit(0)


if __name__ == "__main__":
    main(*sys.argv[1:])
