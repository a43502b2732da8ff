"""Servers and clients based on wsproto, as processes: with fastws they send the same."""

from __future__ import annotations

import os
import re
import signal
import socket
import struct
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self
from urllib.request import urlopen

import pytest
from websockets.sync.client import connect

from ..tools import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = Path(__file__).parent
APPS = str(HERE / "wsproto_apps.py")
TIMEOUT = 20.0
MAX_SIZE = 100_000  # bytes, as in the apps
BIND = "127.0.0.1:{port}"
SIZE = str(MAX_SIZE)

SERVERS = {
    "hypercorn": ["hypercorn", "-c", "{config}", "wsproto_apps:asgi", "--bind", BIND],
    "hypercorn-trio": [
        "hypercorn",
        "-c",
        "{config}",
        "-k",
        "trio",
        "wsproto_apps:asgi",
        "-b",
        BIND,
    ],
    "quart": ["hypercorn", "-c", "{config}", "wsproto_apps:quart()", "--bind", BIND],
    "uvicorn": [
        *["uvicorn", "wsproto_apps:asgi", "--ws", "wsproto", "--port", "{port}"],
        *["--ws-max-size", SIZE],
    ],
    "trio-websocket": [APPS, "serve_trio_websocket", "{port}"],
    "simple-websocket": [APPS, "serve_simple_websocket", "{port}"],
}
# It has no echo: it serves a page of its own.
NICEGUI = {"nicegui": [APPS, "serve_nicegui", "{port}"]}
CLIENTS = ["talk_httpx_ws", "talk_simple_websocket", "talk_trio_websocket"]
KEY = b"\x8fK\x00\xd5"


class Server:
    """A server as a process.

    Attributes:
        port: where it listens.
    """

    def __init__(self, name: str, folder: Path, *, ours: bool) -> None:
        self.name = f"{name} with fastws" if ours else name
        self.port = free_port()
        self.log = folder / self.name
        config = folder / "hypercorn.toml"
        config.write_text(f"websocket_max_message_size = {MAX_SIZE}\n")
        argv = [part.format(port=self.port, config=config) for part in (SERVERS | NICEGUI)[name]]
        if ours:
            argv = [sys.executable, "-m", "fastws", "run", "--with", "wsproto", "--", *argv]
        elif argv[0] == APPS:
            argv.insert(0, sys.executable)
        else:
            argv[0] = str(Path(sys.executable).with_name(argv[0]))
        environ = os.environ | {"PYTHONPATH": str(HERE)}
        environ.pop("PYTEST_CURRENT_TEST", None)  # NiceGUI starts differently if it is set
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                argv, env=environ, stdout=log, stderr=log, start_new_session=True
            )

    def wait(self) -> None:
        """Wait until it listens."""
        deadline = time.monotonic() + TIMEOUT
        while self.process.poll() is None and time.monotonic() < deadline:
            try:
                socket.create_connection(("127.0.0.1", self.port), TIMEOUT).close()
            except OSError:
                time.sleep(0.05)
            else:
                return
        pytest.fail(f"{self.name}: {self.process.returncode}\n{self.log.read_text()}")

    def stop(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)  # with its workers
        self.process.wait()


class Servers(dict[str, tuple[int, int]]):
    """The ports of each server without fastws and with it; a server starts when first needed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.started: list[Server] = []

    def __missing__(self, name: str) -> tuple[int, int]:
        both = [Server(name, self.folder, ours=ours) for ours in (False, True)]
        self.started += both
        for server in both:
            server.wait()
        self[name] = ports = (both[0].port, both[1].port)
        return ports


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    servers = Servers(tmp_path_factory.mktemp("servers"))
    yield servers
    for server in servers.started:
        server.stop()


# Ordinary traffic -----------------------------------------------------------------------


@pytest.mark.parametrize("compression", [None, "deflate"])
@pytest.mark.parametrize("name", SERVERS)
def test_echoes(servers: Servers, name: str, compression: Any) -> None:
    url = f"ws://127.0.0.1:{servers[name][1]}/"
    with connect(url, compression=compression, proxy=None, max_size=None) as ws:
        for message in "text €", b"bytes", "", b"", "x" * 126, "€" * 20_000, bytes(65_536):
            if message == b"" and name == "quart":
                continue  # which does not treat it as a message, even without fastws
            ws.send(message)
            assert ws.recv(TIMEOUT) == message
        ws.send(["in ", "", "parts €"])
        assert ws.recv(TIMEOUT) == "in parts €"
        assert ws.ping(b"ping").wait(TIMEOUT)
        ws.close(4000, "bye")
    assert ws.close_code == 4000


@pytest.mark.parametrize("compression", [None, "deflate"])
def test_nicegui(servers: Servers, compression: Any) -> None:
    for port in servers["nicegui"]:
        page = urlopen(f"http://127.0.0.1:{port}/", timeout=TIMEOUT).read().decode()
        (client,) = set(re.findall(r"client_id'?: '([0-9a-f-]{36})'", page))
        url = f"ws://127.0.0.1:{port}/_nicegui_ws/socket.io/?EIO=4&transport=websocket"
        url += f"&client_id={client}"
        with connect(url, compression=compression, proxy=None) as ws:
            assert str(ws.recv(TIMEOUT)).startswith('0{"sid"')
            ws.send("40{}")
            assert str(ws.recv(TIMEOUT)).startswith('40{"sid"')


@pytest.mark.parametrize("client", CLIENTS)
def test_clients(servers: Servers, client: str) -> None:
    # The client, which has fastws, talks to a server with fastws and to one without.
    for port in servers["hypercorn"]:
        argv = [sys.executable, "-m", "fastws", "run", "--with", "wsproto", APPS, client]
        argv.append(f"ws://127.0.0.1:{port}/")
        done = subprocess.run(argv, capture_output=True, text=True, timeout=TIMEOUT)
        assert (done.returncode, done.stdout) == (0, "wsproto\n"), done.stderr


# Odd traffic ----------------------------------------------------------------------------


def frame(opcode: int, payload: bytes = b"", fin: bool = True, rsv: int = 0) -> bytes:
    """A client's frame."""
    header = answer(opcode, payload)
    key = KEY * (len(payload) // 4 + 1)
    masked = bytes(a ^ b for a, b in zip(payload, key, strict=False))
    size = len(header) - len(payload)
    first = fin << 7 | rsv | opcode
    return bytes([first, header[1] | 0x80]) + header[2:size] + KEY + masked


def answer(opcode: int, payload: bytes = b"") -> bytes:
    """A server's frame."""
    length = len(payload)
    if length < 126:
        return bytes([0x80 | opcode, length]) + payload
    if length < 65536:
        return bytes([0x80 | opcode, 126]) + struct.pack("!H", length) + payload
    return bytes([0x80 | opcode, 127]) + struct.pack("!Q", length) + payload


class Peer:
    """A client that can send anything."""

    def __init__(self, port: int) -> None:
        self.sock = socket.create_connection(("127.0.0.1", port), TIMEOUT)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock.sendall(
            b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += self.read(1)
        assert head.startswith(b"HTTP/1.1 101 ")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()

    def send(self, data: bytes, step: int = 0) -> None:
        step = step or len(data)
        for position in range(0, len(data), step):
            self.sock.sendall(data[position : position + step])

    def read(self, size: int) -> bytes:
        data = b""
        while len(data) < size and (part := self.sock.recv(size - len(data))):
            data += part
        return data

    def rest(self) -> bytes:
        return self.read(1 << 16)


TEXT = "größer €𝄞".encode()
END = frame(8, b"\x03\xe8bye")
RIGHT = {
    "pipelined": (
        b"".join(frame(1, b"%d" % number) for number in range(100)),
        [answer(1, b"%d" % number) for number in range(100)],
    ),
    "fragments": (
        frame(1, TEXT[:4], False) + frame(9, b"ping") + frame(0, TEXT[4:11], False)
        + frame(0, b"", False) + frame(0, TEXT[11:]),
        [answer(10, b"ping"), answer(1, TEXT)],
    ),
    "empty": (frame(1), [answer(1)]),
    "pings": (frame(9) + frame(10, b"what?") + frame(9, TEXT), [answer(10), answer(10, TEXT)]),
}  # fmt: skip


@pytest.mark.parametrize("step", [0, 1])
@pytest.mark.parametrize("case", RIGHT)
@pytest.mark.parametrize("name", SERVERS)
def test_answers(servers: Servers, name: str, case: str, step: int) -> None:
    data, answers = RIGHT[case]
    # A thread of simple-websocket may answer a message before a ping inside it.
    possible = [b"".join(answers), b"".join(answers[::-1])]
    with Peer(servers[name][1]) as peer:
        peer.send(data, step)
        assert peer.read(len(possible[0])) in possible[: 2 if case == "fragments" else 1]
        peer.send(END, step)
        assert peer.rest() == answer(8, b"\x03\xe8bye")


# What ends a connection, and the answer that the host gives without fastws.
LAST = {
    "close without a code": frame(8),
    "close with a reason": frame(8, b"\x0f\xa0" + TEXT),
    "close of one byte": frame(8, b"\x03"),
    "close with a bad code": frame(8, b"\x03\xed"),
    "invalid UTF-8": frame(1, b"\xc3("),
    "invalid UTF-8 in a fragment": frame(1, TEXT[:9], False) + frame(0, b"\xff"),
    "invalid UTF-8 in a reason": frame(8, b"\x03\xe8\xc3("),
    "incomplete UTF-8": frame(1, TEXT[:-1]),
    "reserved bit": frame(1, b"text", rsv=0x40),
    "reserved opcode": frame(3, b"what?"),
    "fragmented ping": frame(9, b"ping", False),
    "long ping": frame(9, bytes(126)),
    "continuation of nothing": frame(0, b"text"),
    "message in a message": frame(1, b"one", False) + frame(1, b"two"),
    "unmasked": b"\x81\x02hi",
    "length not minimal": b"\x81\xfe\x00\x02" + KEY + b"hi",
}


@pytest.mark.parametrize("case", LAST)
@pytest.mark.parametrize("name", SERVERS)
def test_ends_the_same(servers: Servers, name: str, case: str) -> None:
    said = []
    for port in servers[name]:
        with Peer(port) as peer:
            peer.send(LAST[case])
            said.append(peer.rest())
    assert said[0] == said[1]


@pytest.mark.parametrize(
    "data",
    [frame(2, bytes(MAX_SIZE + 1)), frame(2, bytes(60_000), False) + frame(0, bytes(40_001))],
    ids=["one frame", "two frames"],
)
@pytest.mark.parametrize("name", SERVERS)
def test_enforces_the_limit(servers: Servers, name: str, data: bytes) -> None:
    said = []
    for port in servers[name]:
        with Peer(port) as peer:
            peer.send(data)
            head = peer.read(4)
            assert head[::2] == b"\x88\x03"
            assert head[3] == 1009 & 0xFF
            said.append(head + peer.read(head[1] - 2))
    assert said[0] == said[1]
