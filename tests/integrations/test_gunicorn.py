"""gunicorn's ASGI worker with fastws and without: the same messages, and the same bytes back."""

from __future__ import annotations

import asyncio
import itertools
import os
import struct
import sys
from contextlib import contextmanager
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import gunicorn
import pytest
from gunicorn.asgi import websocket
from gunicorn.asgi.websocket import WebSocketProtocol
from gunicorn.config import Config, make_settings
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from fastws import integrations
from fastws.integrations import IntegrationError
from fastws.integrations import gunicorn as ours

from ..tools import Program, free_port
from .comparing import KEY, chunked, streams, wire

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_SIZE = 100_000


# Both ways ----------------------------------------------------------------------------


class Transport:
    """Records what is written, and when reading is paused."""

    def __init__(self) -> None:
        self.calls: list[Any] = []

    def write(self, data: bytes) -> None:
        assert type(data) is bytes
        self.calls.append(data)

    def pause_reading(self) -> None:
        self.calls.append("pause")

    def resume_reading(self) -> None:
        self.calls.append("resume")

    def close(self) -> None:
        self.calls.append("close")


class Log:
    def __init__(self) -> None:
        self.lines: list[str] = []

    def debug(self, message: str, *args: Any) -> None:
        self.lines.append(message % args)

    exception = debug


def play(chunks: list[bytes], *, eof: bool, slow: bool = False) -> tuple[Any, ...]:
    """Feed a connection; return what its application received, and what was sent."""
    received: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        while True:
            event = await receive()
            received.append(event)
            if event["type"] == "websocket.connect":
                await send({"type": "websocket.accept"})
            elif event["type"] == "websocket.receive":
                if slow:
                    await asyncio.sleep(0)
                await send(event | {"type": "websocket.send"})
            else:
                return

    async def run() -> tuple[Any, ...]:
        transport, log = Transport(), Log()
        scope = {"headers": [(b"sec-websocket-key", b"A" * 22 + b"==")]}
        options = {"max_message_size": MAX_SIZE}
        connection = WebSocketProtocol(transport, scope, app, log, **options)
        task = asyncio.create_task(connection.run())
        states = []
        for chunk in chunks:
            connection.feed_data(chunk)
            for _ in range(5):
                await asyncio.sleep(0)
            states.append((len(connection._buffer), connection._wanted, list(transport.calls)))
        if eof:
            connection.feed_eof()
            connection._close_event.set()  # do not wait seconds for the peer's close frame
            await task
        else:
            for _ in range(500 if slow else 50):
                await asyncio.sleep(0)
            connection._close_event.set()
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        return (
            received,
            [type(event.get("bytes")) for event in received],
            transport.calls,
            states,
            connection.close_code,
            connection.close_reason,
            log.lines,
        )

    # (In debug mode, most of the time goes into a traceback for each step.)
    return asyncio.run(run(), debug=False)


def compare(chunks: list[bytes], *, eof: bool = True, slow: bool = False) -> tuple[Any, ...]:
    theirs = play(chunks, eof=eof, slow=slow)
    with ours.install():
        assert play(chunks, eof=eof, slow=slow) == theirs
    return theirs


PAYLOADS = [b"", b"\x03\xe8", b"\x03\xe8bye", b"\x03\xed", b"\x0b\xb8\xff", "€".encode(), b"\xff"]
PAYLOADS += [b"a" * size for size in (125, 126, 127, 300, 65_535, 65_536, 99_999, 100_001)]
WIRES = {(first, payload): wire(first, payload) for first in range(256) for payload in PAYLOADS[:7]}

payloads = st.one_of(st.binary(max_size=12), st.sampled_from(PAYLOADS))
firsts = st.one_of(
    st.sampled_from([0x81, 0x82, 0x81, 0x82, 0x01, 0x02, 0x00, 0x80, 0x89, 0x8A]),
    st.sampled_from([0xC1, 0x88, 0x09, 0x83, 0x8B]),
    st.integers(0, 255),
)


@settings(
    max_examples=300,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(chunked(streams(firsts, payloads, mask=True)), st.booleans(), st.booleans())
def test_same_for_any_stream(chunks: list[bytes], eof: bool, slow: bool) -> None:
    compare(chunks, eof=eof, slow=slow)


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65535, 65536, 99_999, 100_000, 100_001])
@pytest.mark.parametrize("first", [0x81, 0x82, 0x01, 0x89, 0x8A, 0x88])
def test_same_for_any_size(first: int, size: int) -> None:
    data = wire(first, b"x" * size)
    for end in {1, 2, 5, 6, 8, 9, 13, 14, len(data) - 1, len(data)}:
        compare([data[:end], data[end:] + wire(0x81, b"next")])


def test_same_in_a_fragmented_message() -> None:
    begin, end = wire(0x01, b"a" * 60_000), wire(0x80, b"b" * 40_000)
    for between in (b"", wire(0x89, b"ping"), wire(0x81, b"another"), wire(0x00, b"x")):
        compare([begin + between + end])


def test_same_pauses() -> None:
    """If more arrives than the application receives."""
    many = wire(0x82, b"x" * 1000) * 300
    for slow, step in itertools.product((False, True), (50_000, 150_000)):
        chunks = [many[start : start + step] for start in range(0, len(many), step)]
        outcome = compare(chunks, slow=slow)
        paused = {"pause", "resume"} <= {call for call in outcome[2] if isinstance(call, str)}
        assert paused == (slow or step == 150_000)


# Writing ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("opcode", "payload"),
    [
        *((opcode, bytes(size)) for opcode in (0, 1, 2) for size in (0, 1, 125, 126, 65535, 65536)),
        *((opcode, bytes(size)) for opcode in (8, 9, 10) for size in (0, 125, 126, 70_000)),
        (1, "text €"),
        (2, bytearray(b"abc")),
        (2, memoryview(b"abcdef")[::2]),
        (2, [1, 2, 3]),
        (2, None),
        (3, b"abc"),
        (300, b"abc"),
    ],
)
def test_writes_the_same(opcode: int, payload: Any) -> None:
    def outcome() -> Any:
        transport = Transport()
        connection = WebSocketProtocol(transport, {}, None, None)
        try:
            asyncio.run(connection._send_frame(opcode, payload))
        except Exception as exc:
            return type(exc), str(exc)
        return transport.calls

    theirs = outcome()
    with ours.install():
        assert outcome() == theirs


@pytest.mark.parametrize("size", [0, 1, 3, 4, 1000])
def test_unmasks_the_same(size: int) -> None:
    connection = WebSocketProtocol(None, {}, None, None)
    payload = bytes(i % 256 for i in range(size))
    theirs = connection._unmask(payload, KEY)
    with ours.install():
        unmasked = connection._unmask(payload, KEY)
    assert unmasked == theirs
    assert type(unmasked) is bytes


# Installing ---------------------------------------------------------------------------


def methods() -> tuple[Any, ...]:
    kind = WebSocketProtocol
    return kind._unmask, kind._send_frame, kind._read_frame


def test_installs() -> None:
    before = methods()
    with ours.install() as handle:
        assert handle.version == gunicorn.__version__
        assert integrations.installed() == ["gunicorn"]
        assert ours.install() is handle
        assert not set(methods()) & set(before)
    assert methods() == before


class Streamed:
    """The relevant part of gunicorn before 25.2."""

    def __init__(self, transport: Any, reader: Any, scope: Any, app: Any, log: Any) -> None:
        self.transport, self.reader = transport, reader

    async def _read_frame(self) -> tuple[int, bytes]:
        first, second = await self.reader.readexactly(2)
        size = second & 127
        if size > 125:
            form = "!H" if size == 126 else "!Q"
            (size,) = struct.unpack(form, await self.reader.readexactly(struct.calcsize(form)))
        key = await self.reader.readexactly(4)
        return first & 15, self._unmask(await self.reader.readexactly(size), key)

    def _unmask(self, payload: bytes, masking_key: bytes) -> bytes:
        raise NotImplementedError

    async def _send_frame(self, opcode: int, payload: bytes) -> None:
        raise NotImplementedError


def test_installs_where_it_reads_from_a_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(websocket, "WebSocketProtocol", Streamed)
    theirs = Streamed._read_frame
    with ours.install() as handle:
        assert handle.active
        assert Streamed._read_frame is theirs
        assert Streamed._unmask is ours._unmask


@pytest.mark.parametrize("wrong", ["_unmask", "_sender", "_reader", "wait"])
def test_check_notices(wrong: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def other(self: Any, *args: Any) -> tuple[int, bytes]:
        if wrong == "wait":
            await asyncio.sleep(0)
        elif args:
            self.transport.write(b"")
        return 2, b"other"

    if wrong == "_unmask":
        monkeypatch.setattr(websocket, "WebSocketProtocol", Streamed)
        monkeypatch.setattr(ours, "_unmask", lambda self, payload, key: payload)
    else:
        monkeypatch.setattr(ours, "_reader" if wrong == "wait" else wrong, lambda theirs: other)
    before = methods()
    with pytest.raises(IntegrationError, match="fastws does not work in gunicorn"):
        ours.install()
    assert methods() == before


def test_is_a_configuration() -> None:
    """Nothing but the hook is a setting of gunicorn."""
    assert vars(ours).keys() & make_settings().keys() == {"post_fork"}
    config = Config()
    config.set("post_fork", ours.post_fork)
    assert config.post_fork is ours.post_fork


@pytest.mark.parametrize("case", ["fine", "untested", "broken"])
def test_hook_writes_to_the_log(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[str] = []

    def note(message: str, *args: Any) -> None:
        lines.append(message % args)

    if case == "untested":
        monkeypatch.setattr("fastws.integrations._install.version", lambda name: "99.1")
    elif case == "broken":
        monkeypatch.setattr(ours, "_unmask", None)
        monkeypatch.setattr(ours, "_reader", lambda theirs: None)
    log = SimpleNamespace(info=note, warning=note, exception=note)
    ours.post_fork(None, SimpleNamespace(log=log))
    if case == "fine":
        assert lines == [f"<fastws in gunicorn {gunicorn.__version__}, active>"]
        assert integrations.installed() == ["gunicorn"]
        ours.install().uninstall()
    else:
        assert integrations.installed() == []
        if case == "broken":
            assert lines == ["This worker works without fastws"]
        else:
            assert len(lines) == 2
            assert "not tested with gunicorn 99.1" in lines[0]
            assert lines[1] == "<fastws in gunicorn 99.1, not active>"


def test_has_the_worker_of_uvicorn() -> None:
    from fastws.integrations._uvicorn_worker import UvicornWorker

    assert ours.UvicornWorker is UvicornWorker


def test_has_no_other_names() -> None:
    with pytest.raises(AttributeError, match=r"'fastws\.integrations\.gunicorn' has no .* 'other'"):
        ours.other  # noqa: B018


# The server as a process --------------------------------------------------------------

APP = """
import fastws.integrations
async def app(scope, receive, send):
    if scope["type"] != "websocket":
        return
    await receive()
    await send({"type": "websocket.accept"})
    while (event := await receive())["type"] == "websocket.receive":
        text = event.get("text")
        if text == "installed?":
            text = " ".join(fastws.integrations.installed())
        elif text == "close":
            await send({"type": "websocket.close", "code": 3001, "reason": "enough"})
            return
        if text is not None:
            await send({"type": "websocket.send", "text": text})
        else:
            await send({"type": "websocket.send", "bytes": event["bytes"]})
"""


@contextmanager
def serving(directory: Any, *options: str) -> Iterator[Any]:
    """Run gunicorn; yield a function that connects to it."""
    port = free_port()
    (directory / "echo_app.py").write_text(APP)
    command = [sys.executable, "-m", "gunicorn", "-k", "asgi", "-b", f"127.0.0.1:{port}"]
    environment = {"PYTHONPATH": os.pathsep.join([str(directory), *sys.path])}
    argv = [*command, "--no-control-socket", *options, "echo_app:app"]
    with Program(*argv, cwd=directory, env=environment) as program:
        program.wait_for_port(port)

        def connected() -> Any:
            return connect(f"ws://127.0.0.1:{port}/", max_size=None, ping_interval=None)

        yield program, connected


def converse(ws: Any) -> None:
    for message in ["", "fast", "w€bsöckets 🚀" * 999, b"", b"\x00\xff" * 40_000, b"x" * 1_000_000]:
        ws.send(message)
        assert ws.recv() == message
    ws.send(["in ", "three ", "parts"])
    assert ws.recv() == "in three parts"
    for number in range(200):
        ws.send(str(number))
    assert [ws.recv() for _ in range(200)] == [str(number) for number in range(200)]
    assert ws.ping(b"are you there?").wait(10)


def test_server(tmp_path: Any) -> None:
    options = ("-c", "python:fastws.integrations.gunicorn", "--workers", "2")
    with serving(tmp_path, *options) as (program, connected):
        active = f"<fastws in gunicorn {gunicorn.__version__}, active>"
        program.wait_for_errors(active, times=2)  # both workers
        for _ in range(4):
            with connected() as ws:
                ws.send("installed?")
                assert ws.recv() == "gunicorn"
                converse(ws)
        for code, data in (
            (1000, wire(0x88, b"\x03\xe8bye")),
            (1002, wire(0x83, b"reserved")),
            (1002, wire(0x81, b"not masked", mask=False)),
            (1002, wire(0x80, b"continues nothing")),
            (1007, wire(0x81, b"\xff")),
            (1009, wire(0x82, b"", length=(16 << 20) + 1)),
            (3001, wire(0x81, b"close")),
        ):
            with connected() as ws:
                ws.send("before")
                assert ws.recv() == "before"
                ws.socket.sendall(wire(0x89, b"p") + data)
                with pytest.raises(ConnectionClosed) as caught:
                    ws.recv(timeout=10)
            assert caught.value.rcvd is not None
            assert caught.value.rcvd.code == code
        assert program.stop() == 0


def test_server_with_a_configuration_of_its_own(tmp_path: Any) -> None:
    (tmp_path / "gunicorn.conf.py").write_text(
        "from fastws.integrations.gunicorn import post_fork\nloglevel = 'warning'\n"
    )
    with serving(tmp_path) as (program, connected):
        with connected() as ws:
            ws.send("installed?")
            assert ws.recv() == "gunicorn"
        assert program.stop() == 0
        assert program.errors == ""


def test_server_without(tmp_path: Any) -> None:
    with serving(tmp_path) as (_, connected), connected() as ws:
        ws.send("installed?")
        assert ws.recv() == ""
