"""What the tests of the asyncio layer share: event loops, real sockets, raw peers.

A test that is a coroutine function runs on asyncio's event loop and on uvloop's
(`@pytest.mark.loops` names others), in debug mode. It fails if a task is left over, if
something reached the loop's exception handler, or if fastws logged an error in a test that
does not look for it (`caplog`).
"""

from __future__ import annotations

import asyncio
import gc
import inspect
import logging
import ssl
import sys
import time
from base64 import b64encode
from contextlib import asynccontextmanager, suppress
from hashlib import sha1
from types import SimpleNamespace

import pytest

from fastws import WebSocketProtocol, connect, serve

from ..tools import FREE_THREADED, optional
from ..wire import upgrade_request

LOOPS = {"asyncio": asyncio.new_event_loop}
if sys.platform != "win32" and sys.implementation.name == "cpython" and not FREE_THREADED:
    import aiofastnet
    import uvloop

    LOOPS["uvloop"] = uvloop.new_event_loop
    LOOPS["aiofastnet"] = aiofastnet.loop_factory(uvloop.new_event_loop)


# Coroutine tests ------------------------------------------------------------------------


def pytest_configure(config):
    config.addinivalue_line("markers", "loops(*names): the event loops that a test runs on")


def pytest_generate_tests(metafunc):
    if inspect.iscoroutinefunction(metafunc.function):
        marker = metafunc.definition.get_closest_marker("loops")
        wanted = ("asyncio", "uvloop") if marker is None else marker.args
        names = [name for name in LOOPS if name in wanted]
        metafunc.parametrize("runner", names, indirect=True)


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem):
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    names = inspect.signature(pyfuncitem.obj).parameters
    arguments = {name: pyfuncitem.funcargs[name] for name in names}
    pyfuncitem.funcargs["runner"](pyfuncitem.obj(**arguments))
    return True


@pytest.fixture(autouse=True)
def runner(request):
    """Run a coroutine on the loop of this parameter, and check what it left behind."""
    problems = []
    handler = logging.Handler(logging.ERROR)
    handler.emit = lambda record: problems.append(record.getMessage())
    expects_errors = "caplog" in request.fixturenames
    if not expects_errors:
        logging.getLogger("fastws").addHandler(handler)

    def run(main):
        with asyncio.Runner(debug=True, loop_factory=LOOPS[request.param]) as loop_runner:
            loop = loop_runner.get_loop()
            loop.set_exception_handler(lambda _, context: problems.append(context))
            # A busy machine is not worth a line in the log, of which some tests count the lines.
            loop.slow_callback_duration = 60
            loop_runner.run(_limited(main, _limit(request)))
            problems.extend(loop_runner.run(_left_over()))

    try:
        yield run
    finally:
        logging.getLogger("fastws").removeHandler(handler)
    assert not problems


def _limit(request):
    """Return how long a test may take: a little less than pytest-timeout lets it, or None."""
    marker = request.node.get_closest_marker("timeout")
    seconds = float(marker.args[0] if marker else request.config.getini("timeout"))
    return seconds - 10 if seconds else None  # (0 is pytest-timeout's word for no timeout.)


async def _limited(main, seconds):
    # (uvloop does not let pytest-timeout's signal through.)
    async with asyncio.timeout(seconds):
        await main


async def _left_over():
    """Return the tasks that do not end on their own."""
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    if not tasks:
        return ()
    return (await asyncio.wait(tasks, timeout=10))[1]


@pytest.fixture(autouse=True, scope="module")
def _collected():
    """Find transports that were never closed in the file that created them."""
    yield
    gc.collect()


@pytest.fixture
def until():
    """Wait until a condition holds."""

    async def wait(condition, timeout=20.0):
        deadline = time.monotonic() + timeout
        while not condition():
            assert time.monotonic() < deadline, "it never came to be"
            await asyncio.sleep(0.002)

    return wait


@pytest.fixture
def settled():
    """Wait until a value stops changing; return it."""

    async def wait(value, quiet=0.1):
        # (Looks are counted, not seconds: the machine may stop for as long as that.)
        last, same = value(), 0
        while same < quiet / 0.01:
            await asyncio.sleep(0.01)
            last, same = (last, same + 1) if value() == last else (value(), 0)
        return last

    return wait


# Servers and where they are ---------------------------------------------------------------


@pytest.fixture
def names(monkeypatch):
    """Names and what they are looked up as, on the running loop."""

    def know(table):
        loop = asyncio.get_running_loop()
        lookup = loop.getaddrinfo

        async def getaddrinfo(host, port, *, family=0, **hints):
            if host not in table:
                return await lookup(host, port, family=family, **hints)
            return [info for info in table[host] if family in (0, info[0])]

        monkeypatch.setattr(loop, "getaddrinfo", getaddrinfo)

    return know


async def echo_handler(ws):
    async for message in ws:
        await ws.send(message)


class EchoProtocol(WebSocketProtocol):
    def on_message(self, message):
        self.send(message)


@pytest.fixture(params=[echo_handler, EchoProtocol], ids=["coroutine", "callback"])
def echo(request):
    """A handler that echoes, in both styles."""
    return request.param


@pytest.fixture
def url():
    """The URI at which a server listens."""

    def make(server, path="/", *, secure=False):
        host, port = server.sockets[0].getsockname()[:2]
        host = f"[{host}]" if ":" in host else host
        return f"ws{'s' * secure}://{host}:{port}{path}"

    return make


@pytest.fixture
def pair(url):
    """A client's and a server's WebSocket, connected to each other."""

    @asynccontextmanager
    async def connected(client=None, server=None):
        accepted = asyncio.get_running_loop().create_future()
        done = asyncio.Event()

        async def handler(ws):
            accepted.set_result(ws)
            await done.wait()

        async with (
            serve(handler, "127.0.0.1", 0, **(server or {})) as listener,
            connect(url(listener), **(client or {})) as ws,
        ):
            try:
                yield ws, await accepted
            finally:
                done.set()

    return connected


@pytest.fixture(scope="session")
def tls():
    """Contexts for a server at localhost, and for clients that trust it or do not; and what
    another program needs to be such a server."""
    authority = optional("trustme").CA()
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    cert = authority.issue_cert("localhost", "127.0.0.1", "::1")
    cert.configure_cert(server)
    client = ssl.create_default_context()
    authority.configure_trust(client)
    pem = cert.private_key_and_cert_chain_pem.bytes().decode("ascii")
    root = authority.cert_pem.bytes().decode("ascii")
    return SimpleNamespace(
        server=server, client=client, stranger=ssl.create_default_context(), pem=pem, root=root
    )


# Peers that nobody checks --------------------------------------------------------------------


GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


def make_frame(opcode, payload=b"", *, fin=True, rsv=0, key=b"\x01\x02\x03\x04", length=None):
    """Write any frame, valid or not.

    Args:
        length: the length as bytes, without the MASK bit of the first one; correct by
            default.
    """
    size = len(payload)
    if length is None:
        if size < 126:
            length = bytes([size])
        elif size < 1 << 16:
            length = b"\x7e" + size.to_bytes(2, "big")
        else:
            length = b"\x7f" + size.to_bytes(8, "big")
    mask = 0x80 if key else 0
    head = bytes([fin << 7 | rsv << 4 | opcode, length[0] | mask]) + length[1:]
    return head + key + xor(payload, key) if key else head + payload


def xor(payload, key):
    size = len(payload)
    pad = (key * (size // 4 + 1))[:size]
    return (int.from_bytes(payload, "big") ^ int.from_bytes(pad, "big")).to_bytes(size, "big")


@pytest.fixture
def frame():
    return make_frame


REQUEST = upgrade_request()


class RawPeer:
    """A peer that sends any bytes, and reads frames."""

    def __init__(self, reader, writer):
        self.reader = reader
        self.writer = writer

    async def send(self, data):
        self.writer.write(data)
        await self.writer.drain()

    async def request(self, request=REQUEST):
        """Send a request; return the status and the header block."""
        await self.send(request)
        return await self.head()

    async def head(self):
        head = await self.reader.readuntil(b"\r\n\r\n")
        return int(head.split()[1]), head

    async def frame(self):
        """Read a frame: its first byte and its payload, unmasked."""
        first, second = await self.reader.readexactly(2)
        size = second & 127
        if size > 125:
            size = int.from_bytes(await self.reader.readexactly(2 if size == 126 else 8), "big")
        key = await self.reader.readexactly(4) if second & 128 else b""
        payload = await self.reader.readexactly(size)
        return first, xor(payload, key) if key else payload

    async def close_frame(self):
        """Skip everything up to the close frame; return its code and its reason."""
        while True:
            first, payload = await self.frame()
            if first == 0x88:
                return int.from_bytes(payload[:2], "big"), payload[2:].decode()

    async def rest(self):
        """Read to the end of the stream; a reset before that is an error."""
        return await self.reader.read()

    async def accept(self):
        """Answer a client's request as a server does."""
        head = await self.reader.readuntil(b"\r\n\r\n")
        lines = dict(line.split(b": ", 1) for line in head.split(b"\r\n")[1:-2])
        digest = b64encode(sha1(lines[b"Sec-WebSocket-Key"] + GUID).digest())
        await self.send(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: " + digest + b"\r\n\r\n"
        )
        return head

    def reset(self):
        """Drop the connection: the other side gets a reset."""
        self.writer.transport.abort()

    async def aclose(self):
        self.writer.close()
        with suppress(OSError):
            await self.writer.wait_closed()


@pytest.fixture
def raw():
    """Connect a RawPeer to a server, and do the handshake unless told otherwise."""

    @asynccontextmanager
    async def connect(server, *, handshake=True, **options):
        address = server.sockets[0].getsockname()
        if isinstance(address, str):
            streams = await asyncio.open_unix_connection(address, **options)
        else:
            streams = await asyncio.open_connection(*address[:2], **options)
        peer = RawPeer(*streams)
        try:
            if handshake:
                status, _ = await peer.request()
                assert status == 101
            yield peer
        finally:
            await peer.aclose()

    return connect


@pytest.fixture
def raw_server():
    """Listen, and call a function with a RawPeer to act as the server of each connection."""

    @asynccontextmanager
    async def listen(play, *, handshake=True, **options):
        tasks = set()

        async def run(peer):
            try:
                if handshake:
                    await peer.accept()
                await play(peer)
            except (asyncio.IncompleteReadError, ConnectionError):
                pass
            finally:
                await peer.aclose()

        def connected(reader, writer):
            tasks.add(asyncio.get_running_loop().create_task(run(RawPeer(reader, writer))))

        server = await asyncio.start_server(connected, "127.0.0.1", 0, **options)
        try:
            yield server
        finally:
            server.close()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    return listen
