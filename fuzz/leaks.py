"""Shows that nothing is kept of ended connections, and little of a flood, in either twin.

    python fuzz/leaks.py

A million decoders and connections are fed streams that are valid, invalid, incomplete or
compressed, and then dropped, with the garbage collector off: RSS must stay flat. Then each flood
of tiny frames goes to one connection in a process of its own, where no previously freed memory
can hide what it uses: RSS must stay flat too, and twice as many frames must take twice as long.
Finally, a server of each style on each event loop serves 10,000 clients that end in all possible
ways, hundreds at a time: nothing of them must be left.

LEAKS_COUNT    how many decoders and connections (default 1000000)
CLIENTS_COUNT  how many clients of a server (default 10000)
FLOOD_COUNT    how many frames in a flood (default 1000000)
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import importlib
import os
import socket
import struct
import subprocess
import sys
import time
import zlib
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastws import WebSocketProtocol, serve
from fastws.codec import MessageDecoder, encode_frame, implementation
from fastws.connection import Connection, State
from fastws.deflate import Agreement, Inflater, PerMessageDeflate
from fastws.events import Ping
from fastws.spec import Role

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fastws import WebSocket
    from fastws.events import Event

COUNT = int(os.environ.get("LEAKS_COUNT", "1000000"))
FLOOD = int(os.environ.get("FLOOD_COUNT", "1000000"))
CLIENTS_COUNT = int(os.environ.get("CLIENTS_COUNT", "10000"))

KIB, MIB = 1 << 10, 1 << 20
DROPPED_MAY_GROW = 2 * MIB
FLOOD_MAY_GROW = 1 * MIB
SERVED_MAY_GROW = 1 * MIB
# Timings are noisy; if the cost grew with earlier data, this would be 4 or more.
MOST_FOR_TWICE = 3.0
READ = 64 * KIB

KEY = b"\x37\xfa\x21\x3d"
STATM = Path("/proc/self/statm")
PAGE = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 0

failures: list[str] = []


def rss() -> int:
    """The resident memory of this process, in bytes."""
    return int(STATM.read_bytes().split()[1]) * PAGE


def say(text: str) -> None:
    print(f"{implementation:>2}: {text}", flush=True)


def verify(condition: bool, text: str) -> None:
    if not condition:
        failures.append(text)
        say(f"FAILED: {text}")


# Dropped decoders and connections ----------------------------------------------------------


def frame(opcode: int, payload: bytes = b"", fin: bool = True, rsv1: bool = False) -> bytes:
    return encode_frame(opcode, payload, fin=fin, rsv1=rsv1, key=KEY)


def deflated(payload: bytes) -> bytes:
    stream = zlib.compressobj(6, zlib.DEFLATED, -15)
    return (stream.compress(payload) + stream.flush(zlib.Z_SYNC_FLUSH))[:-4]


TEXT = "aé€😀 and so on " * 20
STREAMS = {
    "good": frame(1, b"Hello") + frame(2, b"\x00\xff" * 100) + frame(9, b"?") + frame(10),
    "fragments": frame(1, TEXT.encode(), False) + frame(9) + frame(0, b"a", False) + frame(0, b"b"),
    "closed": frame(1, b"Hello") + frame(8, b"\x03\xe8bye") + frame(1, b"late"),
    "large": frame(2, bytes(100_000)),
    "cut in a header": frame(2, bytes(300))[:3],
    "cut in a payload": frame(2, bytes(5000))[:4000],
    "cut in a message": frame(1, TEXT.encode(), False) + frame(0, b"\xe2\x82", False),
    "cut in a ping": frame(9, bytes(100))[:50],
    "cut in a large frame": frame(2, bytes(900_000))[:2000],
    "reserved bit": frame(1, b"Hello", False) + frame(0, b"", rsv1=True),
    "bad text": frame(1, b"Hello", False) + frame(0, b"\xed\xa0\x80"),
    "bad reason": frame(8, b"\x03\xe8\xff"),
    "unmasked": frame(1, b"Hello") + encode_frame(1, b"Hello"),
    "too big": frame(2, b"a" * 10, False) + frame(0, bytes(2 * MIB))[:100],
    "too many": frame(2, b"", False) + frame(0, b"", False) * 70,
}
COMPRESSED = {
    "compressed": frame(1, deflated(TEXT.encode()), rsv1=True) * 2 + frame(1, b"plain"),
    "compressed fragments": frame(2, deflated(bytes(9000))[:9], False, True) + frame(0, b""),
    "final blocks": frame(1, b"\x03\x00" * 50, rsv1=True),
    "cut in compression": frame(1, deflated(TEXT.encode())[:30], False, True),
    "corrupt": frame(1, b"\x07", rsv1=True),
    "bad inflated text": frame(1, deflated(b"\xff" * 500), rsv1=True),
    "bomb": frame(2, deflated(bytes(3 * MIB)), rsv1=True),
}


def agreement(takeover: bool) -> Agreement:
    return Agreement(
        role=Role.SERVER,
        config=PerMessageDeflate(),
        context_takeover=takeover,
        peer_context_takeover=takeover,
        max_window_bits=12,
        peer_max_window_bits=15,
    )


AGREEMENTS = agreement(True), agreement(False)


def cuts(stream: bytes, number: int) -> list[bytes]:
    """Split a stream anywhere, into one, two, three or more pieces."""
    if number % 4 == 0 or len(stream) > 10_000:
        return [stream]
    size = 1 + number % (len(stream) // (number % 4) + 1)
    size = max(size, len(stream) // 20)
    return [stream[start : start + size] for start in range(0, len(stream), size)]


def use_decoder(stream: bytes, number: int) -> None:
    inflater = Inflater(AGREEMENTS[number % 2]) if number % 3 else None
    decoder = MessageDecoder(masked=True, max_fragments=64, inflater=inflater)
    for piece in cuts(stream, number):
        decoder.feed(piece)
    decoder.feed(b"")


def received(connection: Connection, data: bytes) -> Iterator[Event]:
    """Yield all received events, step by step."""
    yield from connection.receive_data(data)
    while connection.has_pending:
        yield from connection.receive_data(b"")


def use_connection(stream: bytes, number: int) -> None:
    deflate = AGREEMENTS[number % 2] if number % 3 else None
    connection = Connection(Role.SERVER, max_fragments=64, deflate=deflate)
    for piece in cuts(stream, number):
        events = list(received(connection, piece))
        if connection.state is State.OPEN and connection.close_code is None:
            for event in events:
                if isinstance(event, (str, bytes)) and len(event) < 1000:
                    connection.send(event)
    if number % 5 == 0:
        connection.close(1001)
    if number % 7:
        connection.data_to_send()
    if number % 2:
        connection.receive_eof()


def drop(count: int) -> None:
    """Create, feed and drop them; check that RSS stays at its level after a tenth of them."""
    # Large streams spend their time copying zeros.
    streams = [
        stream
        for name, stream in (STREAMS | COMPRESSED).items()
        for _ in range(1 if name in ("large", "bomb") else 8)
    ]
    uses = (use_decoder, use_connection)
    step = count // 10
    before = first = rss()
    gc.collect()
    objects = len(gc.get_objects())
    gc.disable()
    for number in range(count):
        uses[number % 2](streams[number // 2 % len(streams)], number)
        if (number + 1) % step == 0:
            now = rss()
            say(f"{number + 1:>9,} dropped: RSS {before // KIB:,} -> {now // KIB:,} KiB")
            before = now
            if number + 1 == step:
                first = now
    gc.enable()
    garbage = gc.collect()
    objects = len(gc.get_objects()) - objects
    growth = before - first
    say(f"growth after the first tenth {growth // KIB:,} KiB; {objects} objects, {garbage} cyclic")
    verify(growth <= DROPPED_MAY_GROW, f"{count:,} dropped: RSS grew by {growth // KIB:,} KiB")
    verify(garbage == 0, f"{garbage} objects could be freed by the garbage collector only")
    verify(objects < 100, f"{objects} objects were left")


# Floods --------------------------------------------------------------------------------------


@dataclass
class Flood:
    """Frames of one kind for one connection.

    Attributes:
        name: what the flood consists of.
        start: the bytes before it.
        unit: one or more of its frames.
        frames: the number of frames in a unit.
        end: the bytes after it, which complete a message.
        judge: checks the outcome, given the connection and the number of units, of messages
            and their size, of pings, and of bytes sent.
        limits: the connection's.
        pinned: how many bytes of each unit may be in memory at the end.
    """

    name: str
    start: bytes
    unit: bytes
    frames: int
    end: bytes
    judge: Callable[[Connection, int, dict[str, int]], bool]
    limits: dict[str, Any]
    pinned: int = 0


def refused(connection: Connection, units: int, seen: dict[str, int]) -> bool:
    return (
        connection.close_code == 1009
        and connection.close_reason == "message of more than 4096 fragments"
        and seen["messages"] == 0
    )


def whole(size: int, pings: int = 0) -> Callable[[Connection, int, dict[str, int]], bool]:
    """One message of `size` bytes per unit, and pings that were all answered."""

    def judge(connection: Connection, units: int, seen: dict[str, int]) -> bool:
        return seen == {
            "messages": 1,
            "size": size * units,
            "pings": pings * units,
            "sent": pings * units * (2 + 4),
        }

    return judge


def answered(connection: Connection, units: int, seen: dict[str, int]) -> bool:
    return seen["pings"] == units and seen["sent"] == units * (2 + 4)


UNLIMITED = {"max_fragments": None, "max_message_size": 64 * MIB}
PING = frame(9, b"ping")
FLOODS = [
    Flood("empty fragments", frame(1, b"", False), frame(0, b"", False), 1, b"", refused, {}),
    Flood("1-byte fragments", frame(1, b"", False), frame(0, b"a", False), 1, b"", refused, {}),
    Flood(
        "empty fragments, as many as they like",
        frame(1, b"", False),
        frame(0, b"", False),
        1,
        frame(0),
        whole(0),
        UNLIMITED,
    ),
    Flood(
        "1-byte fragments, as many as they like",
        frame(1, b"", False),
        frame(0, b"a", False),
        1,
        frame(0),
        whole(1),
        UNLIMITED,
        pinned=4,  # the buffer, which doubles, and its copy at the end
    ),
    Flood("pings", b"", PING, 1, b"", answered, {}),
    Flood(
        "pings inside a message",
        frame(1, b"", False),
        PING,
        1,
        frame(0),
        whole(0, 1),
        {},
    ),
    Flood(
        "pings inside fragments",
        frame(1, b"", False),
        PING + frame(0, b"", False),
        2,
        frame(0),
        whole(0, 1),
        UNLIMITED,
    ),
    Flood(
        "empty compressed fragments",
        frame(1, b"\x00", False, True),
        frame(0, b"", False),
        1,
        frame(0),
        whole(0),
        UNLIMITED,
    ),
    Flood(
        "final blocks in compressed fragments",
        frame(1, b"\x03\x00", False, True),
        frame(0, b"\x03\x00", False),
        1,
        frame(0),
        whole(0),
        UNLIMITED,
    ),
]


def reads(flood: Flood, units: int) -> Iterator[bytes]:
    """Yield the flood as a socket delivers it: the same bytes, over and over."""
    per_read = max(1, READ // len(flood.unit))
    yield flood.start
    read = flood.unit * per_read
    for _ in range(units // per_read):
        yield read
    yield flood.unit * (units % per_read)
    yield flood.end


def run(flood: Flood, units: int) -> tuple[float, int, bool]:
    """Send a flood; return the CPU seconds, the maximum growth of RSS, and whether the outcome
    is right."""
    connection = Connection(Role.SERVER, deflate=AGREEMENTS[0], **flood.limits)
    seen = {"messages": 0, "size": 0, "pings": 0, "sent": 0}
    most = before = rss()
    start = time.process_time()
    for data in reads(flood, units):
        for event in received(connection, data):
            if isinstance(event, Ping):
                seen["pings"] += 1
            elif isinstance(event, (str, bytes)):
                seen["messages"] += 1
                seen["size"] += len(event)
        if connection.close_code is None:
            seen["sent"] += len(connection.data_to_send())
        most = max(most, rss())
    return time.process_time() - start, most - before, flood.judge(connection, units, seen)


def flood_with(flood: Flood, frames: int) -> None:
    units = frames // flood.frames
    run(flood, 100)  # for what every flood needs once
    full, growth, good = run(flood, units)
    half, _, _ = run(flood, units // 2)
    say(
        f"{frames:,} frames, {flood.name}: RSS +{growth // KIB:,} KiB; CPU {half:.2f} s for half,"
        f" {full:.2f} s for all"
    )
    verify(good, f"{flood.name}: not answered as it should be")
    limit = FLOOD_MAY_GROW + flood.pinned * units
    verify(growth <= limit, f"{flood.name}: RSS grew by {growth // KIB:,} KiB")
    # Refused data costs next to nothing, however much there is.
    verify(full < 0.05 or full <= MOST_FOR_TWICE * half, f"{flood.name}: CPU is not linear")


# Clients of a server ----------------------------------------------------------------------------

BATCH = 500  # how many are connected at the same time
REQUEST = (
    b"GET /leaks HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n"
)
HELLO = frame(1, b"Hello")
CLOSE = frame(8, b"\x03\xe8")
# What a client sends, and how it ends: it waits for the server to disconnect ("wait"), closes its
# socket ("drop"), or resets it ("reset").
CLIENTS = {
    "a conversation": (REQUEST + HELLO * 3 + frame(9, b"?") + CLOSE, "wait"),
    "an end without a close frame": (REQUEST + HELLO, "drop"),
    "a reset": (REQUEST + HELLO, "reset"),
    "a reset in a message": (REQUEST + frame(2, bytes(50_000))[:40_000], "reset"),
    "a compressed conversation": (REQUEST + STREAMS["good"] + COMPRESSED["compressed"], "drop"),
    "a violation": (REQUEST + STREAMS["unmasked"], "wait"),
    "a bad text": (REQUEST + STREAMS["bad text"], "wait"),
    "a corrupt compressed message": (REQUEST + COMPRESSED["corrupt"], "wait"),
    "answers that nobody reads": (REQUEST + frame(2, bytes(60_000)) * 20, "reset"),
    "silence": (REQUEST, "wait"),  # until keepalive gives up
    "half a request": (REQUEST[:60], "wait"),
    "half a request and no more": (REQUEST[:60], "drop"),
    "a bad request": (REQUEST.replace(b"13", b"12"), "wait"),
}


def play_clients(port: int, count: int) -> None:
    """Connect in batches, in a process of their own; a line on stdin requests the next batch."""
    for first in range(0, count, BATCH):
        sys.stdin.readline()
        batch: list[tuple[socket.socket, str]] = []
        for number in range(first, first + BATCH):
            sends, end = list(CLIENTS.values())[number % len(CLIENTS)]
            sock = socket.create_connection(("127.0.0.1", port))
            if end == "reset":
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            sock.setblocking(False)
            with suppress(BlockingIOError):
                sock.send(sends)
            sock.setblocking(True)
            batch.append((sock, end))
        for sock, end in batch:
            if end == "wait":
                with suppress(ConnectionError):
                    while sock.recv(65536):
                        pass
            sock.close()
        print(first, flush=True)


def ours() -> int:
    """Count the live objects that are instances of fastws' classes, or that it uses of asyncio."""
    gc.collect()
    kinds = (WebSocketProtocol, asyncio.Transport)
    return sum(
        isinstance(o, kinds) or str(type(o).__module__).startswith("fastws.")
        for o in gc.get_objects()
    )


async def serve_clients(handler: Any, count: int) -> None:
    """Serve them; check that nothing is left after each batch."""
    limits = {"open_timeout": 0.3, "close_timeout": 0.3, "ping_interval": 0.1, "ping_timeout": 0.2}
    async with serve(handler, "127.0.0.1", 0, deflate=True, backlog=BATCH, **limits) as server:
        clients = await asyncio.create_subprocess_exec(
            sys.executable, __file__, "clients", str(server.sockets[0].getsockname()[1]),
            str(count), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip
        assert clients.stdin is not None
        assert clients.stdout is not None
        objects = ours()
        tasks = len(asyncio.all_tasks())
        trim = getattr(ctypes.CDLL(None), "malloc_trim", id)  # glibc has it
        first = 0
        for number in range(BATCH, count + 1, BATCH):
            clients.stdin.write(b"\n")
            async with asyncio.timeout(60):
                await clients.stdout.readline()
                while server._endpoints or len(asyncio.all_tasks()) > tasks:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
            # The server forgets a handler in a callback, in the turn after the task is done.
            await asyncio.sleep(0)
            left = ours() - objects
            verify(left == 0, f"{left} objects were left of {number:,} clients")
            # The allocator may keep freed memory indefinitely.
            trim(0)
            if number == count // 5:
                first = rss()
        growth = rss() - first
        clients.stdin.close()
        await clients.wait()
    style = getattr(handler, "__name__", "")
    loop = type(asyncio.get_running_loop()).__module__.split(".")[0]
    say(
        f"{count:,} clients, {style}, {loop}: {left} objects left; growth after the first fifth "
        f"{growth // KIB:,} KiB of {rss() // KIB:,}"
    )
    verify(growth <= SERVED_MAY_GROW, f"{count:,} clients: RSS grew by {growth // KIB:,} KiB")


async def coroutine_style(ws: WebSocket) -> None:
    async for message in ws:
        await ws.send(message)


class CallbackStyle(WebSocketProtocol):
    def on_message(self, message: str | bytes) -> None:
        self.send(message)


def have_clients(loop: str, handler: Any) -> None:
    factory = importlib.import_module(loop).new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(serve_clients(handler, CLIENTS_COUNT))


SERVERS = {
    f"{loop} {handler.__name__}": partial(have_clients, loop, handler)
    for loop in ("asyncio", "uvloop")
    for handler in (coroutine_style, CallbackStyle)
}


def main() -> int:
    if not STATM.exists():
        sys.exit("this reads RSS from /proc/self/statm, which there is on Linux only")
    if len(sys.argv) == 4:
        play_clients(int(sys.argv[2]), int(sys.argv[3]))
        return 0
    if len(sys.argv) == 2:
        what = sys.argv[1]
        if what == "drop":
            drop(COUNT // 2)
        elif what in SERVERS:
            SERVERS[what]()
        else:
            flood_with(FLOODS[int(what)], FLOOD)
        return 1 if failures else 0
    # The twin is selected at import.
    failed = 0
    for twin in ("c", "py"):
        environment = os.environ | {"FASTWS_IMPL": twin}
        for what in ("drop", *map(str, range(len(FLOODS))), *SERVERS):
            argv = [sys.executable, __file__, what]
            failed += subprocess.run(argv, env=environment, check=False).returncode != 0
    print(f"FAILED: {failed} of these" if failed else "all is flat")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
