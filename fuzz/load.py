"""Clients of many kinds for the servers of `soak.py`, a thousand in each process.

    python fuzz/load.py '{"number": 1, "connections": 1000, "ports": [8001, 8002]}'

Honest clients number their messages, and expect each one back once and in order. If a connection
ends that they did not close, they report it, and how many echoes they have received, as a line
of JSON on stdout. The other clients misbehave, and accept any answer.

A line "avoid 2" on stdin keeps new connections away from the third server; "return 2" allows
them again. "go 10" begins a phase: all clients start within ten seconds. "drain" ends it: honest
clients finish what they have begun and close, the others just disconnect. Then the counts of
everything are printed.
"""

from __future__ import annotations

import asyncio
import json
import random
import socket
import struct
import sys
import time
from collections import Counter, deque
from contextlib import suppress
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Any

from children import KIB, MIB, hear, say
from leaks import COMPRESSED, REQUEST, STREAMS, deflated, frame

from fastws.connection import Connection
from fastws.deflate import PerMessageDeflate
from fastws.events import Close, Pong
from fastws.exceptions import HandshakeError
from fastws.handshake import ClientHandshake
from fastws.spec import Role

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

# In seconds. An honest client must be served within PATIENCE even on a busy machine.
PATIENCE = 60.0
DRAIN_PATIENCE = 30.0

READ = 64 * KIB
BATCH_SIZE = 256 * KIB  # messages in flight of an honest client
RESET = struct.pack("ii", 1, 0)  # SO_LINGER: close without a FIN

TEXTS = ["", "plain", "aé€😀", '{"temperature": 21.5, "unit": "°C"}' * 5, "and so on " * 300]
NOISE = random.Random(0).randbytes(400 * KIB)
OFFERS: list[tuple[PerMessageDeflate, ...]] = [
    (),
    (PerMessageDeflate(),),
    (PerMessageDeflate(context_takeover=False, peer_context_takeover=False),),
]


class Ended(Exception):
    """The server ended the connection of an honest client."""

    def __init__(self, code: int | None) -> None:
        super().__init__(code)
        self.code = code


class Load:
    """All clients of this process.

    Attributes:
        draining: whether the phase is over.
        avoided: the numbers of servers that no client must connect to.
        lag: by how many seconds this process is currently late.
        counts: how many lives and echoes each kind had, and how they ended.
    """

    def __init__(self, number: int, ports: Sequence[int], connections: int) -> None:
        self.number = number
        self.ports = ports
        self.draining = asyncio.Event()
        self.avoided: set[int] = set()
        self.lag = 0.0
        self.counts: Counter[str] = Counter()
        self.random = random.Random(number)
        self.names = (f"{number}-{index}" for index in count())
        self.kinds = self._cast(connections)
        self.proxies: list[asyncio.Server] = []
        self._slots: list[tuple[asyncio.Task[None], bool]] = []

    def _cast(self, connections: int) -> list[str]:
        """Return the kind of each client: at least one of each kind."""
        whole = sum(weight for _, weight in KINDS.values())
        kinds = [
            name
            for name, (_, weight) in KINDS.items()
            for _ in range(max(1, round(weight * connections / whole)))
        ]
        self.random.shuffle(kinds)
        return kinds

    async def obey(self, command: str) -> None:
        loop = asyncio.get_running_loop()
        command, _, argument = command.partition(" ")
        if command == "go":
            self.draining.clear()
            ramp = float(argument)
            self._slots = [
                (loop.create_task(self._live(index, kind, ramp)), kind in HONEST)
                for index, kind in enumerate(self.kinds)
            ]
        elif command == "drain":
            await self._drain()
        elif command == "avoid":
            self.avoided.add(int(argument))
        elif command == "return":
            self.avoided.discard(int(argument))
        else:
            raise ValueError(command)

    async def _drain(self) -> None:
        self.draining.set()
        for task, honest in self._slots:
            if not honest:
                task.cancel()
        tasks = [task for task, _ in self._slots]
        _, late = await asyncio.wait(tasks, timeout=DRAIN_PATIENCE)
        for task in late:
            self.fail("an honest client does not come to its end")
            task.cancel()
        for result in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(result, Exception):
                raise result  # a mistake in this file
        say({"drained": self.counts})
        self.counts.clear()

    async def _live(self, index: int, kind: str, ramp: float) -> None:
        """Run one life after the other, with each server in turn."""
        await asyncio.sleep(self.random.uniform(0, ramp))
        while not self.draining.is_set():
            server = index % len(self.ports)
            index += 1
            if server in self.avoided:
                await self.rest(0.05)
                continue
            life = Life(self, kind, server)
            try:
                await KINDS[kind][0](life)
            except (OSError, EOFError, asyncio.LimitOverrunError):
                self.counts["cut short"] += 1
            finally:
                life.drop()
                self.counts[kind] += 1
            await self.rest(self.random.uniform(0.05, 0.5))

    async def rest(self, seconds: float) -> None:
        """Sleep; longer if the machine is overloaded."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds * (1 + 50 * self.lag)):
                await self.draining.wait()

    def fail(self, text: str) -> None:
        say({"failed": text})

    async def watch_lag(self) -> None:
        while True:
            due = time.monotonic() + 0.1
            await asyncio.sleep(0.1)
            self.lag += (time.monotonic() - due - self.lag) / 10

    async def start_proxies(self) -> None:
        for port in self.ports:
            self.proxies.append(
                await asyncio.start_server(partial(self._proxy, port), "127.0.0.1", 0, limit=READ)
            )

    async def _proxy(
        self, port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        try:
            try:
                streams = await asyncio.open_connection("127.0.0.1", port, limit=READ)
            except OSError:
                return
            try:
                await asyncio.gather(
                    self._carry(reader, streams[1]), self._carry(streams[0], writer)
                )
            finally:
                streams[1].transport.abort()
        except OSError:
            pass  # one side was reset: so is the other
        finally:
            writer.transport.abort()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Pass on what arrives, in pieces, some of them late."""
        rng = self.random
        while data := await reader.read(READ):
            if len(data) < 100 and rng.random() < 0.2:
                cuts = list(range(1, len(data)))
            else:
                cuts = sorted(rng.randrange(len(data)) for _ in range(rng.choice((0, 1, 2, 7))))
            for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True):
                writer.write(data[start:end])
                if rng.random() < 0.3:
                    await asyncio.sleep(rng.uniform(0, 0.02))
                await writer.drain()
        writer.write_eof()
        # Until it is taken: the direction that finishes aborts both.
        while writer.transport.get_write_buffer_size():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


class Life:
    """One connection of one client."""

    def __init__(self, load: Load, kind: str, server: int) -> None:
        self.load = load
        self.kind = kind
        self.random = load.random
        self.server = server
        self.port = load.ports[server]
        self.writer: asyncio.StreamWriter | None = None

    async def connect(
        self, *, port: int | None = None, resets: bool = False, narrow: bool = False
    ) -> None:
        """Connect.

        Args:
            port: where, if not to the server itself.
            resets: whether `drop` makes the server get a reset.
            narrow: whether to make all buffers on our side small.
        """
        sock = socket.socket()
        try:
            sock.setblocking(False)
            if resets:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            if narrow:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 * KIB)
            loop = asyncio.get_running_loop()
            await loop.sock_connect(sock, ("127.0.0.1", port or self.port))
        except BaseException:
            sock.close()
            raise
        limit = KIB if narrow else READ
        self.reader, self.writer = await asyncio.open_connection(sock=sock, limit=limit)

    async def open(self, what: str, **options: Any) -> None:
        """Connect and shake hands, with compression."""
        await self.connect(**options)
        self.write(REQUEST.replace(b"/leaks", b"/" + what.encode()))
        await self.reader.readuntil(b"\r\n\r\n")

    def write(self, data: bytes) -> None:
        assert self.writer is not None
        self.writer.write(data)

    @property
    def unsent(self) -> int:
        """The number of bytes that the server has not taken."""
        assert self.writer is not None
        return self.writer.transport.get_write_buffer_size()

    async def drain(self) -> None:
        assert self.writer is not None
        await self.writer.drain()

    async def skim(self, seconds: float) -> bool:
        """Read and drop what arrives; return whether the server ended the connection."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while await self.reader.read(READ):
                    pass
                return True
        return False

    def drop(self) -> None:
        if self.writer is not None:
            self.writer.transport.abort()

    def pick(self, *choices: Any) -> Any:
        return self.random.choice(choices)


# Honest clients -------------------------------------------------------------------------------


class Conversation:
    """An honest client's connection.

    Attributes:
        expected: what has been sent and has not come back yet.
        echoes: the number of messages that came back.
        pongs: the data of the pongs received.
    """

    def __init__(self, life: Life, name: str) -> None:
        self.life = life
        self.name = name
        self.expected: deque[str | bytes] = deque()
        self.sent = 0
        self.echoes = 0
        self.pongs: list[bytes] = []

    async def open(self, path: str, **options: Any) -> str | None:
        """Connect and shake hands; return why that failed."""
        life = self.life
        shake = ClientHandshake(f"ws://127.0.0.1{path}", extensions=life.pick(*OFFERS))
        try:
            await life.connect(**options)
            life.write(shake.request())
            while shake.receive_data(await life.reader.read(READ)) is None:
                if life.reader.at_eof():
                    return "no response"
        except (OSError, HandshakeError) as exc:
            return repr(exc)
        deflate: Any = shake.extensions[0] if shake.extensions else None
        self.connection = Connection(Role.CLIENT, max_message_size=4 * MIB, deflate=deflate)
        self.take(shake.trailing_data)
        return None

    def take(self, data: bytes) -> None:
        """Process what has arrived.

        Raises:
            Ended: if it contains the server's close frame.
        """
        connection = self.connection
        events = connection.receive_data(data)
        while connection.has_pending:
            events += connection.receive_data(b"")
        for event in events:
            if isinstance(event, (str, bytes)):
                wanted = self.expected.popleft() if self.expected else None
                if event != wanted:
                    self.life.load.fail(
                        f"{self.name} on {self.life.port} got {event[:60]!r} ({len(event):,}) "
                        f"for its message {self.echoes}, {wanted and wanted[:60]!r}"
                    )
                    raise Ended(None)
                self.echoes += 1
            elif isinstance(event, Pong):
                self.pongs.append(event.data)
            elif isinstance(event, Close):
                self.flush()
                raise Ended(event.code)
        if connection.error is not None:
            self.life.load.fail(f"{self.name}: the server broke the protocol: {connection.error}")
            raise Ended(None)
        self.flush()

    def flush(self) -> None:
        if self.connection.bytes_queued:
            self.life.write(self.connection.data_to_send())

    async def read(self, done: Callable[[], bool], seconds: float) -> bool:
        """Process what arrives until this holds; return whether it did in time.

        Raises:
            Ended: if the server ends the connection.
        """
        try:
            async with asyncio.timeout(seconds):
                while not done():
                    data = await self.life.reader.read(READ)
                    if not data:
                        raise Ended(None)
                    self.take(data)
        except TimeoutError:
            return False
        except OSError:
            raise Ended(None) from None
        return True

    def send(self) -> int:
        """Send a message of a random kind; return its size."""
        rng = self.life.random
        dice = rng.random()
        if dice < 0.8:
            size = 0
        elif dice < 0.9:
            size = rng.randrange(10 * KIB)
        elif dice < 0.98:
            size = rng.randrange(64 * KIB)
        else:
            size = rng.randrange(300 * KIB)
        number = f"{self.name}:{self.sent}:"
        self.sent += 1
        message: str | bytes
        if rng.random() < 0.5:
            text = rng.choice(TEXTS)
            message = number + text * (size // len(text.encode() or b" "))
        else:
            start = rng.randrange(100 * KIB)
            message = number.encode() + NOISE[start : start + size]
        self.expected.append(message)
        connection = self.connection
        compress = rng.choice((None, None, False, True if size < 10 * KIB else None))
        if rng.random() < 0.2:
            cut = rng.randrange(len(message))
            connection.send(message[:cut], fin=False, compress=compress)
            if rng.random() < 0.3:
                connection.ping(b"within")
            connection.continuation(message[cut:])
        else:
            connection.send(message, compress=compress)
        return size

    async def converse(self, batches: int, pause: float) -> None:
        """Send and check everything, then close."""
        life, load = self.life, self.life.load
        rng = life.random
        for batch in range(batches):
            room = BATCH_SIZE
            for _ in range(rng.choice((1, 1, 2, 5, 20))):
                if room > 0:
                    room -= self.send()
            if rng.random() < 0.2:
                self.connection.ping(b"%d" % batch)
                pinged: bytes | None = b"%d" % batch
            else:
                pinged = None
            self.flush()
            if not await self.read(lambda: not self.expected, PATIENCE):
                load.fail(
                    f"{self.name} on {life.port}: message {self.echoes} of {self.sent} did not "
                    f"come back within {PATIENCE:g} s"
                )
                return
            if pinged is not None and not await self.read(
                lambda data=pinged: data in self.pongs,  # type: ignore[misc]
                PATIENCE,
            ):
                load.fail(f"{self.name} on {life.port}: no pong within {PATIENCE:g} s")
                return
            self.pongs.clear()
            deadline = time.monotonic() + rng.expovariate(1 / pause) * (1 + 20 * load.lag)
            # In steps, to notice the end of the phase.
            while not load.draining.is_set() and (left := deadline - time.monotonic()) > 0:
                await self.read(lambda: False, min(left, 0.5))
            if load.draining.is_set():
                break
        self.connection.close(1000)
        self.flush()
        try:
            await self.read(lambda: False, PATIENCE)
        except Ended as end:
            # Our close frame and that of a stopping server may have crossed.
            if end.code is None:
                raise
        else:
            load.fail(f"{self.name} on {life.port}: no answer to its close frame")
            return
        if not await life.skim(PATIENCE):
            load.fail(f"{self.name} on {life.port}: the connection does not end")


async def honest(
    life: Life, *, batches: int = 20, pause: float = 2.0, proxied: bool = False
) -> None:
    """Have a conversation, and report how it ended if the server ended it."""
    load = life.load
    name = next(load.names)
    conversation = Conversation(life, name)
    port = load.proxies[life.server].sockets[0].getsockname()[1] if proxied else None
    report: dict[str, Any] = {"server": life.server, "name": name, "kind": life.kind}
    try:
        if why := await conversation.open(f"/count/{name}", port=port):
            say({"unopened": report | {"why": why, "at": time.monotonic()}})
            await load.rest(0.2)
            return
        await conversation.converse(life.random.randrange(1, batches + 1), pause)
    except Ended as end:
        report |= {"code": end.code, "echoes": conversation.echoes, "at": time.monotonic()}
        say({"ended": report})
        if end.code is not None and not await life.skim(PATIENCE):
            load.fail(f"{name} on {life.port}: the connection does not end")
    load.counts["echoes"] += conversation.echoes


async def slow(life: Life) -> None:
    """Like an honest one, but it reads so slowly that the server may give up."""
    conversation = Conversation(life, next(life.load.names))
    with suppress(Ended):
        if await conversation.open("/echo", narrow=True):
            return
        while True:
            for _ in range(5):
                conversation.send()
            conversation.flush()
            while conversation.expected:
                data = await life.reader.read(2 * KIB)
                if not data:
                    return
                conversation.take(data)
                await life.load.rest(0.02)


# Others ----------------------------------------------------------------------------------------

HELLO = frame(1, b"Hello")
CLOSE = frame(8, b"\x03\xe8bye")
LARGE = frame(2, NOISE[: 64 * KIB])
PINGS = frame(9) * 500 + frame(9, b"x" * 125) * 500
JUST_UNDER = frame(2, deflated(bytes(MIB - 1)), rsv1=True)
# (In a `str`, all characters take as much memory as the widest.)
JUST_UNDER_TEXT = frame(1, deflated(b"a" * (MIB - 5) + "😀".encode()), rsv1=True)
FAR_OVER = frame(2, deflated(bytes(64 * MIB)), rsv1=True)
SMALL_BOMBS = frame(2, deflated(bytes(1000)), rsv1=True) * 1000
FRAGMENTS = frame(1, b"", False) + frame(0, b"a", False) * 3000 + frame(0, b"")


async def resetting(life: Life) -> None:
    await life.open("echo", resets=True)
    life.write(HELLO * life.random.randrange(20))
    if life.random.random() < 0.5:
        life.write(LARGE[: life.random.randrange(len(LARGE))])
    await life.load.rest(life.random.random() * 2)


async def leaving(life: Life) -> None:
    await life.open("echo")
    life.write(HELLO + life.pick(b"", LARGE, LARGE[:1000], JUST_UNDER[:100]))
    await life.load.rest(life.random.random() * 2)


async def deaf(life: Life) -> None:
    """Send and never read, until the server gives up."""
    await life.open("echo", narrow=True)
    while not life.load.draining.is_set():
        if life.unsent < 128 * KIB:
            life.write(life.pick(LARGE, HELLO * 1000, PINGS))
            await life.load.rest(0.2)
        else:
            await life.load.rest(1)


async def ping_flood(life: Life) -> None:
    reads = life.random.random() < 0.5
    await life.open("echo", narrow=not reads)
    for _ in range(10):
        if life.unsent < 256 * KIB:
            life.write(PINGS)
        if reads:
            await life.skim(0.05)
        await life.load.rest(0.5)


async def close_flood(life: Life) -> None:
    await life.open("echo")
    life.write(HELLO + CLOSE * 5000 + life.pick(b"", LARGE, PINGS))
    await life.skim(1)
    life.write(CLOSE * 1000)
    await life.load.rest(1)


async def half_closing(life: Life) -> None:
    """Send a FIN after some messages; the server must end its side too."""
    await life.open("echo")
    life.write(HELLO * 10 + life.pick(b"", LARGE, LARGE[:50], CLOSE))
    assert life.writer is not None
    life.writer.write_eof()
    if life.random.random() < 0.7:
        if not await life.skim(PATIENCE):
            life.load.fail(f"half-closed connection to {life.port} does not end")
    else:
        await life.load.rest(3)


async def bombing(life: Life) -> None:
    """Send many messages that each inflate to just under the limit, in one write."""
    await life.open(life.pick("sink", "sink", "sink", "echo"))
    life.write(life.pick(JUST_UNDER, JUST_UNDER_TEXT) * 16)
    await life.skim(2)
    await life.load.rest(life.random.uniform(2, 6))


async def bombing_over(life: Life) -> None:
    await life.open("echo")
    life.write(FAR_OVER)
    if not await life.skim(PATIENCE):
        life.load.fail(f"a bomb does not end its connection to {life.port}")
    await life.load.rest(life.random.uniform(2, 6))


async def bombing_small(life: Life) -> None:
    await life.open("echo")
    life.write(SMALL_BOMBS)
    await life.skim(2)
    await life.load.rest(life.random.uniform(1, 3))


async def fragmenting(life: Life) -> None:
    await life.open("echo")
    life.write(FRAGMENTS)
    await life.skim(1)
    await life.load.rest(1)


async def trickling(life: Life) -> None:
    """Send the handshake and what follows byte by byte."""
    await life.connect()
    everything = REQUEST.replace(b"leaks", b"echo") + HELLO * 10
    step = life.pick(1, 1, 5, 40)
    for start in range(0, len(everything), step):
        life.write(everything[start : start + step])
        if await life.skim(life.random.uniform(0.01, 0.1)):
            return


async def half_asking(life: Life) -> None:
    await life.connect()
    life.write(REQUEST[: life.random.randrange(len(REQUEST))])
    await life.skim(life.random.uniform(1, 45))


async def babbling(life: Life) -> None:
    """Send garbage, instead of the handshake or after it."""
    if life.random.random() < 0.5:
        await life.connect()
    else:
        await life.open("echo")
    for _ in range(5):
        start = life.random.randrange(300 * KIB)
        life.write(NOISE[start : start + life.random.randrange(10 * KIB)])
        if await life.skim(0.3):
            return


async def pushing(life: Life) -> None:
    """Send as much as the server takes, without pause, and read all of it."""
    await life.open("echo")
    skimming = asyncio.create_task(life.skim(PATIENCE))
    try:
        for _ in range(30):
            life.write(life.pick(LARGE, HELLO * 1000))
            await life.drain()
    finally:
        skimming.cancel()
        await asyncio.wait([skimming])
    await life.load.rest(life.random.uniform(1, 3))


async def violating(life: Life) -> None:
    await life.open("echo")
    for stream in life.random.choices([*STREAMS.values(), *COMPRESSED.values()], k=3):
        life.write(stream)
        if await life.skim(0.2):
            return


# What the kinds do, and how many there are of each among 2,000.
KINDS: dict[str, tuple[Callable[[Life], Awaitable[None]], int]] = {
    "honest": (honest, 900),
    "proxied": (partial(honest, proxied=True), 240),
    "idle": (partial(honest, batches=3, pause=20.0), 200),
    "slow": (slow, 100),
    "resetting": (resetting, 90),
    "leaving": (leaving, 40),
    "deaf": (deaf, 80),
    "ping flood": (ping_flood, 50),
    "close flood": (close_flood, 30),
    "half-closing": (half_closing, 50),
    "bombing": (bombing, 20),
    "bombing over": (bombing_over, 10),
    "bombing small": (bombing_small, 20),
    "fragmenting": (fragmenting, 20),
    "trickling": (trickling, 50),
    "half-asking": (half_asking, 40),
    "babbling": (babbling, 20),
    "pushing": (pushing, 20),
    "violating": (violating, 20),
}
HONEST = {"honest", "proxied", "idle"}


async def main() -> None:
    load = Load(**json.loads(sys.argv[1]))
    await load.start_proxies()
    watching = asyncio.create_task(load.watch_lag())
    commands: asyncio.Queue[str] = asyncio.Queue()
    hear(commands.put_nowait)
    say({"ready": len(load.kinds)})
    while not watching.done():
        await load.obey(await commands.get())


if __name__ == "__main__":
    asyncio.run(main())
