"""Measures what one peer can use: memory, and the time of everybody else.

    python fuzz/bounds.py [--only NAME] [--style STYLE] [--loop LOOP] [--src DIR]

Each measurement uses a new server (or client) process, in each style on each loop. It reports:

MiB   by how much its memory (RSS) grew at most, compared to an idle process.
ms    the longest time that an honest connection of another process, which sends a few bytes
      every 5 ms, had to wait for its echo. On a busy machine this is mostly about the machine.
s     how long it took, or that it did not happen while we waited.

The result is a table in Markdown. With --src, it is about the fastws in the directory DIR (the
`src` of another checkout, compiled in place) instead of the installed one, to compare before and
after. FASTWS_IMPL chooses the twin.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import os
import select
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from children import (
    KIB,
    LOOPS,
    MIB,
    PING_AFTER,
    PUSH_AT_MOST,
    PUSH_SIZE,
    STYLES,
    Child,
    ChildError,
    ServerChild,
    forget_peak,
    memory,
    peak_memory,
    push_on,
    pushed,
    say,
)
from leaks import REQUEST, deflated, frame

from fastws import WebSocketProtocol, connect
from fastws.exceptions import ConnectionClosed
from fastws.handshake import ServerHandshake

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Row = dict[str, str]

CHUNK = 64 * KIB
REST = 0.5  # idle time before and after, in seconds
STUCK = 1.0  # after this many seconds without progress, a peer takes no more

DONE = b"done"
HELLO = frame(1, b"Hello")
LARGE = frame(2, pushed())
CLOSE = frame(8, b"\x03\xe8")


# Peers ---------------------------------------------------------------------------------------


class Peer:
    """A raw client that sends anything, and reads or not.

    Args:
        port: where the server is.
        what: the path, which selects what the server does (see children.py).
        request: what to send instead of the handshake's request.
        context: the context for TLS.

    Attributes:
        received: all data that was read after the handshake.
        ended: whether the server ended the connection.
        got_close: whether there was a close frame among the `frames` taken.
    """

    def __init__(
        self,
        port: int,
        what: str,
        *,
        request: bytes | None = None,
        context: ssl.SSLContext | None = None,
    ) -> None:
        self.sock: Any = socket.create_connection(("127.0.0.1", port))
        if context is not None:
            self.sock = context.wrap_socket(self.sock, server_hostname="localhost")
        self.received = bytearray()
        self.ended = False
        self.got_close = False
        self._outgoing = bytearray()
        self._parsed = 0
        if request is not None:
            self.sock.setblocking(False)
            self.send(request)
            return
        self.sock.sendall(REQUEST.replace(b"/leaks", b"/" + what.encode()))
        while b"\r\n\r\n" not in self.received:
            data = self.sock.recv(CHUNK)
            assert data, "no handshake"
            self.received += data
        head, _, rest = self.received.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101 "), head
        self.received = rest
        self.sock.setblocking(False)

    def send(self, data: bytes) -> None:
        """Queue this for `pump`, which sends some of it now."""
        self._outgoing += data
        self.pump(0, reads=False)

    def pump(self, seconds: float, *, reads: bool = True, pongs: bool = False) -> None:
        """Send what is queued, and read or not, for this long or until something was read.

        Args:
            pongs: whether to answer pings.
        """
        writers = [self.sock] if self._outgoing else []
        readers = [self.sock] if reads and not self.ended else []
        if not (readers or writers):
            time.sleep(seconds)
            return
        readable, writable, _ = select.select(readers, writers, [], seconds)
        try:
            if writable:
                with memoryview(self._outgoing) as view:
                    sent = self.sock.send(view[: 256 * KIB])
                del self._outgoing[:sent]
            if readable:
                data = self.sock.recv(CHUNK)
                self.ended = not data
                self.received += data
        except (BlockingIOError, ssl.SSLWantReadError):
            pass
        except OSError:
            self.ended = True
            self._outgoing.clear()
        if pongs:
            for opcode, payload in self.frames():
                if opcode == 9:
                    self.send(frame(10, payload))

    @property
    def unsent(self) -> int:
        return len(self._outgoing)

    def push(self, unit: bytes, most: int, patience: float = STUCK) -> int:
        """Send this repeatedly, up to so many bytes or until the server is stuck, and read
        nothing; return how many bytes it took."""
        total = 0
        since = time.monotonic()
        while not self.ended and time.monotonic() - since < patience:
            while len(self._outgoing) < 256 * KIB and total < most:
                self._outgoing += unit
                total += len(unit)
            before = len(self._outgoing)
            if not before:
                break
            self.pump(0.05, reads=False)
            if len(self._outgoing) < before:
                since = time.monotonic()
        return total - len(self._outgoing)

    def frames(self) -> Iterator[tuple[int, bytes]]:
        """Return the frames that have been completed since the last call."""
        while len(self.received) >= self._parsed + 2:
            start = self._parsed + 2
            size = self.received[start - 1]
            if size > 125:
                width = 2 if size == 126 else 8
                size = int.from_bytes(self.received[start : start + width], "big")
                start += width
            if len(self.received) < start + size:
                return
            opcode = self.received[self._parsed] & 15
            self._parsed = start + size
            self.got_close = self.got_close or opcode == 8
            yield opcode, bytes(self.received[start : start + size])

    def until(self, done: Callable[[], bool], seconds: float, **options: Any) -> float | None:
        """Pump until this holds; return how long that took, or None if it never did."""
        start = time.monotonic()
        while not done():
            if time.monotonic() - start > seconds:
                return None
            self.pump(0.01, **options)
        return time.monotonic() - start

    def until_done(self, seconds: float) -> float | None:
        """Pump until DONE comes back, or the server ends the connection."""
        return self.until(lambda: self.ended or DONE in self.received, seconds)

    def hang_up(self) -> None:
        """Send a FIN."""
        with suppress(OSError):
            self.sock.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        self.sock.close()


def probe(port: int) -> None:
    """An honest connection; for each line on stdin it prints its longest wait in ms, and starts
    over."""
    peer = Peer(port, "sink")
    message = frame(1, b"x" * 16)
    worst = 0.0
    sent: float | None = None
    due = time.monotonic()
    say("ready")
    while True:
        now = time.monotonic()
        if sent is None and now >= due:
            sent = now
            peer.received.clear()
            peer.send(message)
        wait = max(0.0, due - now) if sent is None else 10.0
        readers = [sys.stdin, peer.sock]
        if sys.stdin in (ready := select.select(readers, [], [], wait)[0]):
            if not sys.stdin.readline():
                return
            if sent is not None:
                worst = max(worst, time.monotonic() - sent)
            say(worst * 1000)
            worst = 0.0
        if peer.sock in ready:
            peer.pump(0)
            assert not peer.ended, "the server ended the honest connection"
            if sent is not None and len(peer.received) >= 18:
                worst = max(worst, time.monotonic() - sent)
                sent, due = None, time.monotonic() + 0.005


# The other way round: clients whose server never reads -------------------------------------------


class PushingClient(WebSocketProtocol):
    def on_open(self) -> None:
        push_on(self)


async def push_as_client(style: str, port: int) -> None:
    say("ready")
    await asyncio.sleep(REST)
    uri = f"ws://127.0.0.1:{port}"
    if style == "callback":
        await connect(uri, protocol=PushingClient)
    else:
        ws = await connect(uri)
        with suppress(ConnectionClosed):
            for _ in range(PUSH_AT_MOST // PUSH_SIZE):
                await ws.send(pushed())
    await asyncio.sleep(3600)  # until it has been measured


# What is measured --------------------------------------------------------------------------------


@dataclass
class Column:
    style: str
    loop: str
    env: dict[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return f"{self.style}, {self.loop}"

    @contextmanager
    def serving(
        self, settings: dict[str, Any], tls: tuple[str, str] | None = None
    ) -> Iterator[ServerChild]:
        child = ServerChild(self.style, self.loop, settings=settings, tls=tls, env=self.env)
        try:
            yield child
        finally:
            child.kill()


def in_mib(size: float) -> str:
    return f"{max(size, 0) / MIB:.1f}"


def in_s(seconds: float | None, most: float) -> str:
    return f"never (> {most:g} s)" if seconds is None else f"{seconds:.2f} s"


def growth_and_wait(
    column: Column,
    attack: Callable[[int], str],
    *,
    deflate: bool,
) -> Row:
    """Attack a server; the attack may report more."""
    with column.serving({"deflate": deflate}) as server:
        prober = Child("probe", __file__, "probe", str(server.port))
        try:
            prober.line()
            with closing(Peer(server.port, "sink")) as warm:
                warm.send(frame(1, b"x" * 500) + frame(1, DONE))
                warm.until_done(10)
            time.sleep(REST)
            prober.ask("")
            forget_peak(server.pid)
            before = memory(server.pid)
            told = attack(server.port)
            time.sleep(REST)
            growth = peak_memory(server.pid) - before
            wait = prober.ask("", 60)
        finally:
            prober.kill()
    row = {"MiB": in_mib(growth), "ms": f"{wait:.0f}"}
    return row | ({"s": told} if told else {})


# Inflating.

JUST_UNDER = frame(2, deflated(bytes(MIB - 1)), rsv1=True)
# (In a `str`, all characters take as much memory as the widest.)
JUST_UNDER_TEXT = frame(1, deflated(b"a" * (MIB - 5) + "😀".encode()), rsv1=True)
INFLATE_PATIENCE = 60.0


def attack_inflating(port: int, *, unit: bytes, peers: int, size: int) -> str:
    start = time.monotonic()
    opened = [Peer(port, "sink") for _ in range(peers)]
    try:
        for peer in opened:
            peer.send(unit * (size // len(unit)) + frame(1, DONE))
        for peer in opened:
            left = INFLATE_PATIENCE - (time.monotonic() - start)
            if peer.until_done(left) is None:
                return in_s(None, INFLATE_PATIENCE)
            if DONE not in peer.received:
                return "ended by the server"
    finally:
        for peer in opened:
            peer.close()
    return in_s(time.monotonic() - start, INFLATE_PATIENCE)


# Unread data.


def attack_deaf(port: int, *, what: str, unit: bytes, most: int) -> str:
    with closing(Peer(port, what)) as peer:
        peer.push(unit, most)
        # It may take a while to see the outcome.
        peer.until(lambda: False, REST, reads=False)
    return ""


def attack_by_waiting(port: int) -> str:
    """Let the server push, and never read."""
    with closing(Peer(port, "push")) as peer:
        peer.until(lambda: False, 4.0, reads=False)
    return ""


def client_growth(column: Column) -> Row:
    """A client pushes to a server that never reads."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        arguments = (__file__, "client", column.style, column.loop, str(port))
        client = Child("client", *arguments, env=column.env)
        try:
            client.line()
            before = memory(client.pid)
            listener.settimeout(10)
            sock, _ = listener.accept()
            with sock:
                sock.settimeout(10)
                shake = ServerHandshake()
                while (request := shake.receive_data(sock.recv(CHUNK))) is None:
                    pass
                sock.sendall(shake.accept(request))
                forget_peak(client.pid)
                time.sleep(4.0)
                if client.ended is not None:
                    client.line()  # which raises
                growth = peak_memory(client.pid) - before
        finally:
            client.kill()
    return {"MiB": in_mib(growth)}


# Costs per byte.


def attack_once(port: int, *, data: bytes) -> str:
    with closing(Peer(port, "sink")) as peer:
        peer.send(data + frame(1, DONE))
        peer.until_done(20)
    return ""


def attack_header(port: int, *, value: bytes) -> str:
    start = REQUEST.index(b"permessage-deflate")
    request = REQUEST[:start] + value + b"\r\n\r\n"
    with closing(Peer(port, "sink", request=request)) as peer:
        peer.until(lambda: peer.ended or b"\r\n\r\n" in peer.received, 5)
    return ""


OFFERS = b", ".join([b"permessage-deflate; server_max_window_bits=7"] * (MIB // 48))


# What an ended connection leaves behind.

ENDED = 200


def left_of_ended(column: Column, *, secure: bool) -> Row:
    with tempfile.TemporaryDirectory() as folder:
        tls, context = certificate(Path(folder)) if secure else (None, None)
        with column.serving({"deflate": False, "close_timeout": 5.0}, tls) as server:

            def talk(times: int) -> None:
                for _ in range(times):
                    with closing(Peer(server.port, "echo", context=context)) as peer:
                        peer.send(frame(1, DONE) + CLOSE)
                        peer.until(lambda peer=peer: peer.ended, 10)  # type: ignore[misc]
                deadline = time.monotonic() + 20
                while server.ask("measure")["connections"]:
                    if time.monotonic() > deadline:
                        raise ChildError("connections do not end")
                    time.sleep(0.02)

            talk(20)
            server.ask("settle")
            server.ask("gc off")
            before = server.ask("measure")["rss"]
            talk(ENDED)
            after = server.ask("measure")["rss"]
    return {"KiB": f"{(after - before) / KIB / ENDED:.0f}"}


def certificate(folder: Path) -> tuple[tuple[str, str], ssl.SSLContext]:
    import trustme

    authority = trustme.CA()
    issued = authority.issue_cert("localhost")
    names = str(folder / "cert.pem"), str(folder / "key.pem")
    issued.cert_chain_pems[0].write_to_path(names[0])
    issued.private_key_pem.write_to_path(names[1])
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return names, context


# Keepalive, and what the server notices while messages are unread.

# Unread data, in pieces that arrive one after the other.
UNREAD = {
    "2": [HELLO] * 2,
    "100": [HELLO * 50] * 2,
    "4 MiB": [frame(2, bytes(512 * KIB))] * 8,
}
EAGER = {"ping_interval": 0.2, "ping_timeout": 0.2, "close_timeout": 1.0}
CALM = {"close_timeout": 1.0}
WAIT = 5.0
# uvicorn has no option for its close timeout of 10 s, which may have to elapse too.
DROP_WAIT = 15.0


def each_unread(measure: Callable[[Column, list[bytes]], str], column: Column) -> Row:
    """The same with few, many, and large unread messages."""
    return {"": " / ".join(measure(column, unread) for unread in UNREAD.values())}


def leave_unread(peer: Peer, unread: list[bytes]) -> None:
    for piece in unread:
        peer.send(piece)
        peer.until(lambda: False, 0.05, pongs=True)


def gone(server: ServerChild, peer: Peer, seconds: float, **options: Any) -> float | None:
    """How long until the server has no connection left."""
    asked = 0.0

    def check() -> bool:
        nonlocal asked
        if time.monotonic() - asked < 0.02:
            return False
        if peer.ended:
            peer.hang_up()
        asked = time.monotonic()
        return server.ask("measure")["connections"] == 0

    return peer.until(check, seconds, **options)


def alive(column: Column, unread: list[bytes]) -> str:
    with column.serving(EAGER) as server, closing(Peer(server.port, "deaf")) as peer:
        leave_unread(peer, unread)
        dropped = peer.until(lambda: peer.ended or peer.got_close, 3, pongs=True)
    return "stays" if dropped is None else f"dropped after {dropped:.2f} s"


def dead(column: Column, unread: list[bytes]) -> str:
    with column.serving(EAGER) as server, closing(Peer(server.port, "deaf")) as peer:
        leave_unread(peer, unread)
        return in_s(gone(server, peer, DROP_WAIT, reads=False), DROP_WAIT)


def trickling(column: Column) -> Row:
    """The server pushes; the client never reads, and sends a byte of a message now and then."""
    with column.serving(EAGER) as server, closing(Peer(server.port, "push")) as peer:
        peer.send(frame(2, bytes(1000))[:10])
        start = time.monotonic()
        while time.monotonic() - start < DROP_WAIT:
            peer.send(b"\0")
            peer.pump(0.05, reads=False)
            time.sleep(0.05)
            if server.ask("measure")["connections"] == 0:
                return {"": in_s(time.monotonic() - start, DROP_WAIT)}
    return {"": in_s(None, DROP_WAIT)}


def end_noticed(column: Column, unread: list[bytes], *, by: str) -> str:
    with column.serving(CALM) as server, closing(Peer(server.port, "deaf")) as peer:
        leave_unread(peer, unread)
        start = time.monotonic()
        if by == "close":
            peer.send(CLOSE)
        else:
            peer.until(lambda: not peer.unsent, 0.5)
            peer.hang_up()
        seconds = gone(server, peer, WAIT)
        if seconds is not None and column.style == "coroutine":
            noted = server.ask("noted")
            seconds = noted[0] - start if noted else None
    return in_s(seconds, WAIT)


def ping_returns(column: Column, unread: list[bytes]) -> str:
    with column.serving(CALM) as server, closing(Peer(server.port, "ping")) as peer:
        leave_unread(peer, unread)
        seconds = peer.until(lambda: b"there it is" in peer.received, WAIT, pongs=True)
    return in_s(None if seconds is None else max(0.0, seconds - PING_AFTER), WAIT)


def pong_comes(column: Column, unread: list[bytes]) -> str:
    with column.serving(CALM) as server, closing(Peer(server.port, "deaf")) as peer:
        leave_unread(peer, unread)
        peer.send(frame(9, b"well?"))
        return in_s(peer.until(lambda: b"\x8a\x05well?" in peer.received, WAIT), WAIT)


@dataclass
class Measure:
    """A measurement, and the styles that it applies to.

    `run` returns the results by unit: each is a row of the table.
    """

    name: str
    title: str
    run: Callable[[Column], Row]
    styles: tuple[str, ...] = STYLES


def attack_of(attack: Callable[..., str], *, deflate: bool = False, **options: Any) -> Any:
    return partial(growth_and_wait, attack=partial(attack, **options), deflate=deflate)


def inflating(unit: bytes, peers: int, size: int) -> Any:
    return attack_of(attack_inflating, deflate=True, unit=unit, peers=peers, size=size)


def deaf(what: str, unit: bytes, most: int, *, deflate: bool = False) -> Any:
    return attack_of(attack_deaf, deflate=deflate, what=what, unit=unit, most=most)


TAKING = ("coroutine", "uvicorn")  # styles in which messages can be queued
TINY = frame(2, deflated(bytes(1000)), rsv1=True)
BLOCKS = frame(2, b"\x03\x00" * (MIB // 2 - 1), rsv1=True)
EMPTIES = frame(2, b"\x00", rsv1=True) * (MIB // 7)

MEASURES = [
    Measure("inflate", "1 MiB sent, inflates 1,000:1, binary", inflating(JUST_UNDER, 1, MIB)),
    Measure("inflate-text", "the same, text that takes 4:1", inflating(JUST_UNDER_TEXT, 1, MIB)),
    Measure("inflate-8", "the same, 8 connections of 300 kB", inflating(JUST_UNDER, 8, 300_000)),
    Measure("echo-deaf", "echo: 64 MiB pushed, none read", deaf("echo", LARGE, 64 * MIB)),
    Measure("push-deaf", "server pushes, client never reads", attack_of(attack_by_waiting)),
    Measure(
        "client-push-deaf",
        "client pushes, server never reads",
        client_growth,
        ("callback", "coroutine"),
    ),
    Measure(
        "pings-deaf-empty",
        "empty pings, 32 MiB, none read",
        deaf("sink", frame(9) * 1000, 32 * MIB),
    ),
    Measure(
        "pings-deaf", "pings, 32 MiB, none read", deaf("sink", frame(9, b"x" * 125) * 100, 32 * MIB)
    ),
    Measure("pongs", "empty pongs, 32 MiB", deaf("drop", frame(10) * 1000, 32 * MIB)),
    Measure(
        "tiny-messages", "1-byte messages, 32 MiB", deaf("drop", frame(2, b"x") * 1000, 32 * MIB)
    ),
    Measure(
        "unread-small",
        "not taken: 1-byte messages",
        deaf("deaf", frame(2, b"x") * 1000, 8 * MIB),
        TAKING,
    ),
    Measure(
        "unread-large",
        "not taken: 64 KiB messages",
        deaf("deaf", LARGE, 64 * MIB),
        TAKING,
    ),
    Measure(
        "unread-compressed",
        "not taken: 1 MiB messages of 1 KiB",
        deaf("deaf", JUST_UNDER, MIB, deflate=True),
        TAKING,
    ),
    Measure(
        "unread-tiny",
        "not taken: 1,000-byte messages of 15 bytes",
        deaf("deaf", TINY * 100, MIB, deflate=True),
        TAKING,
    ),
    Measure(
        "final-blocks",
        "a message of 500,000 final blocks",
        attack_of(attack_once, deflate=True, data=BLOCKS),
    ),
    Measure(
        "empties",
        "1 MiB of empty compressed messages",
        attack_of(attack_once, deflate=True, data=EMPTIES),
    ),
    Measure(
        "header-commas",
        "1 MiB of extension header: commas",
        attack_of(attack_header, deflate=True, value=b"," * MIB),
    ),
    Measure(
        "header-offers",
        "1 MiB of extension header: offers",
        attack_of(attack_header, deflate=True, value=OFFERS),
    ),
    Measure(
        "ended-tls",
        "left of an ended TLS connection, without gc",
        partial(left_of_ended, secure=True),
    ),
    Measure(
        "ended-tcp",
        "left of an ended TCP connection, without gc",
        partial(left_of_ended, secure=False),
    ),
    Measure("alive", "keepalive, the peer answers: it stays", partial(each_unread, alive), TAKING),
    Measure(
        "dead", "keepalive, the peer is dead: dropped after", partial(each_unread, dead), TAKING
    ),
    Measure("trickling", "keepalive, the peer is deaf but trickles: dropped after", trickling),
    Measure(
        "close-frame",
        "the peer's close frame is noticed after",
        partial(each_unread, partial(end_noticed, by="close")),
        TAKING,
    ),
    Measure(
        "fin",
        "the peer's FIN is noticed after",
        partial(each_unread, partial(end_noticed, by="fin")),
        TAKING,
    ),
    Measure("ping", "ws.ping() returns after", partial(each_unread, ping_returns), ("coroutine",)),
    Measure("pong", "the peer's ping is answered after", partial(each_unread, pong_comes), TAKING),
]


def tell(measure: Measure, column: Column) -> Row:
    try:
        return measure.run(column)
    except (ChildError, OSError, AssertionError, subprocess.SubprocessError) as exc:
        print(f"{measure.name} ({column.name}): {exc}", file=sys.stderr)
        return {"": "failed"}


def implementation(env: dict[str, str]) -> str:
    argv = [sys.executable, "-c", "import fastws.codec as c; print(c.implementation, c.__file__)"]
    result = subprocess.run(argv, env=os.environ | env, check=True, capture_output=True, text=True)
    return result.stdout.strip()


def table(rows: dict[str, dict[str, str]], columns: list[Column]) -> str:
    names = [column.name for column in columns]
    lines = [f"| | {' | '.join(names)} |", f"|---|{'---|' * len(names)}"]
    for title, cells in rows.items():
        lines.append(f"| {title} | {' | '.join(cells.get(name, '') for name in names)} |")
    return "\n".join(lines)


def run() -> None:
    parser = argparse.ArgumentParser(description="Measure what one peer can take of a server.")
    names = [measure.name for measure in MEASURES]
    parser.add_argument("--only", action="append", metavar="NAME", help=f"of {', '.join(names)}")
    parser.add_argument("--style", action="append", choices=STYLES)
    parser.add_argument("--loop", action="append", choices=LOOPS)
    parser.add_argument("--src", metavar="DIR", help="where there is another fastws")
    options = parser.parse_args()
    if unknown := set(options.only or ()) - set(names):
        parser.error(f"no measure {min(unknown)!r} (choose from {', '.join(names)})")
    env = {"PYTHONPATH": str(Path(options.src).resolve())} if options.src else {}
    columns = [
        Column(style, loop, env)
        for style in options.style or STYLES
        for loop in options.loop or LOOPS
    ]
    print(f"twin: {implementation(env)}", file=sys.stderr)
    rows: dict[str, dict[str, str]] = {}
    for measure in MEASURES:
        if options.only and measure.name not in options.only:
            continue
        for column in columns:
            if column.style not in measure.styles:
                continue
            found = tell(measure, column)
            print(f"{measure.name} ({column.name}): {found}", file=sys.stderr, flush=True)
            for unit, value in found.items():
                title = f"{measure.title}{unit and f', {unit}'}"
                rows.setdefault(title, {})[column.name] = value
    print(table(rows, columns))
    print(f"\nWhere a cell has three values: with {' / '.join(UNREAD)} of messages unread.")


def main() -> None:
    if not Path("/proc/self/statm").exists():
        sys.exit("this reads what processes take from /proc, which there is on Linux only")
    if sys.argv[1:2] == ["probe"]:
        probe(int(sys.argv[2]))
    elif sys.argv[1:2] == ["client"]:
        style, loop, port = sys.argv[2:]
        factory = importlib.import_module(loop).new_event_loop
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(push_as_client(style, int(port)))
    else:
        run()


if __name__ == "__main__":
    main()
