"""Tests over TLS, where transports close and read differently."""

from __future__ import annotations

import asyncio
import gc
import random
import socket
import ssl
import struct
import weakref
from contextlib import suppress

import pytest

from fastws import ConnectionClosed, HandshakeError, WebSocketProtocol, connect, serve

# aiofastnet has transports of its own.
pytestmark = pytest.mark.loops("asyncio", "uvloop", "aiofastnet")

KIB, MIB = 1 << 10, 1 << 20
HOST = "127.0.0.1"


class Recorder(WebSocketProtocol):
    def __init__(self):
        super().__init__()
        self.calls = []

    def on_message(self, message):
        self.calls.append(message)

    def on_error(self, exc):
        self.calls.append(type(exc))

    def on_close(self, code, reason):
        self.calls.append((code, reason))


@pytest.fixture
def broken_off():
    """Ignore what asyncio reports in debug mode about clients that abort a TLS handshake."""

    def hush():
        def handle(loop, context):
            if "transport creation" not in context["message"]:
                previous(loop, context)

        loop = asyncio.get_running_loop()
        previous = loop.get_exception_handler()
        loop.set_exception_handler(handle)

    return hush


# Conversations ------------------------------------------------------------------------


async def test_echo(echo, tls, url):
    async with serve(echo, HOST, 0, ssl=tls.server) as server:
        async with connect(url(server, secure=True), ssl=tls.client) as ws:
            assert ws.get_extra_info("ssl_object") is not None
            for message in ("Hello Server!", b"\0\1", "", b"", "\U0001f600" * 20_000):
                await ws.send(message)
                assert await ws.recv() == message
            assert 0 < await ws.ping() < 5
        assert ws.close_code == 1000


async def test_callback_client(echo, tls, url, until):
    async with serve(echo, HOST, 0, ssl=tls.server) as server:
        client = await connect(url(server, secure=True), ssl=tls.client, protocol=Recorder)
        client.send("text")
        client.send(b"binary")
        await until(lambda: len(client.calls) == 2)
        client.close(4000, "bye")
        await client.wait_closed()
    assert client.calls == ["text", b"binary", (4000, "bye")]


async def test_large_messages(echo, tls, url):
    messages = [random.Random(3).randbytes(3 * MIB), "é" * (3 * MIB // 2)]
    limit = {"max_message_size": 3 * MIB}
    async with (
        serve(echo, HOST, 0, ssl=tls.server, **limit) as server,
        connect(url(server, secure=True), ssl=tls.client, **limit) as ws,
    ):
        for message in messages:
            await ws.send(message)
            assert await ws.recv() == message


async def test_many_connections_share_the_read_buffer(echo, tls, url):
    """Each connection gets its own messages, whatever the others read in between."""

    async def talk(number):
        rng = random.Random(number)
        sizes = [1, 125, 126, 16 * KIB, 70_000, *(rng.randint(1, 70_000) for _ in range(25))]
        rng.shuffle(sizes)
        messages = [rng.randbytes(size) for size in sizes]
        async with connect(url(server, secure=True), ssl=tls.client) as ws:

            async def send():
                for message in messages:
                    await ws.send(message)

            sending = asyncio.create_task(send())
            assert [await ws.recv() for _ in messages] == messages
            await sending

    async with serve(echo, HOST, 0, ssl=tls.server) as server:
        await asyncio.gather(*map(talk, range(30)))


# Trust ----------------------------------------------------------------------------------


# (aiofastnet says the same in other words, and more of it.)
@pytest.mark.loops("asyncio", "uvloop")
async def test_an_unknown_authority(echo, tls, url, broken_off):
    broken_off()
    async with serve(echo, HOST, 0, ssl=tls.server) as server:
        uri = url(server, secure=True)
        for options in ({"ssl": tls.stranger}, {}):
            client = Recorder()
            with pytest.raises(ssl.SSLCertVerificationError, match="verify failed"):
                await connect(uri, protocol=lambda client=client: client, **options)
            assert client.calls == [ssl.SSLCertVerificationError]
        with pytest.raises(ssl.SSLCertVerificationError):  # nor does waiting help
            await anext(aiter(connect(uri, ssl=tls.stranger)))


# (aiofastnet says the same in other words, and more of it.)
@pytest.mark.loops("asyncio", "uvloop")
async def test_server_hostname(echo, tls, url, broken_off):
    broken_off()
    async with serve(echo, HOST, 0, ssl=tls.server) as server:
        port = server.sockets[0].getsockname()[1]
        elsewhere = f"wss://example.invalid:{port}"
        with pytest.raises(ssl.SSLCertVerificationError, match=r"example\.invalid"):
            await connect(elsewhere, ssl=tls.client, host=HOST)
        async with connect(elsewhere, ssl=tls.client, host=HOST, server_hostname="localhost") as ws:
            await ws.send("x")
            assert await ws.recv() == "x"


# (aiofastnet does not support a callback that checks the name.)
@pytest.mark.loops("asyncio", "uvloop")
async def test_the_dot_that_ends_a_host_is_no_part_of_its_tls_name(tls, url, monkeypatch):
    seen = []
    note = lambda sock, name, context: seen.append(name)  # noqa: E731
    monkeypatch.setattr(tls.server, "sni_callback", note)

    async def handler(ws):
        await ws.send(ws.request.headers["Host"])

    async with serve(handler, HOST, 0, ssl=tls.server) as server:
        port = server.sockets[0].getsockname()[1]
        for uri, options, host in [
            (f"wss://localhost.:{port}", {}, f"localhost.:{port}"),
            (f"wss://localhost.:{port}", {"port": port}, f"localhost.:{port}"),
            (f"wss://a.invalid:{port}", {"server_hostname": "localhost."}, f"a.invalid:{port}"),
            ("wss://localhost.:443", {"port": port}, "localhost."),
        ]:
            async with connect(uri, ssl=tls.client, host=HOST, **options) as ws:
                assert await ws.recv() == host
        async with connect(f"wss://{HOST}.:{port}", ssl=tls.client, host=HOST) as ws:
            assert await ws.recv() == f"{HOST}:{port}"  # as browsers have it
    assert seen == ["localhost"] * 4 + [None]


async def test_a_client_without_tls(echo, tls, url, broken_off):
    broken_off()
    async with serve(echo, HOST, 0, ssl=tls.server) as server:
        with pytest.raises((OSError, HandshakeError)):
            await connect(url(server), open_timeout=5)


async def test_a_server_without_tls(echo, tls, url):
    async with serve(echo, HOST, 0) as server:
        with pytest.raises(ssl.SSLError):
            await connect(url(server, secure=True), ssl=tls.client, open_timeout=5)


async def test_a_client_that_never_begins_tls(echo, tls, url, broken_off):
    broken_off()
    loop = asyncio.get_running_loop()
    async with serve(echo, HOST, 0, ssl=tls.server, open_timeout=0.2) as server:
        with socket.create_connection(server.sockets[0].getsockname()) as sock:
            sock.setblocking(False)
            with suppress(ConnectionError):
                assert await asyncio.wait_for(loop.sock_recv(sock, 1), 5) == b""
        assert not server._endpoints


async def test_a_server_that_never_answers_tls(tls):
    with socket.create_server((HOST, 0)) as listener:
        uri = f"wss://{HOST}:{listener.getsockname()[1]}"
        client = Recorder()
        with pytest.raises(TimeoutError):
            await connect(uri, ssl=tls.client, open_timeout=0.2, protocol=lambda: client)
    assert client.calls == [TimeoutError]


def client_hello():
    ours, theirs = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = ssl.create_default_context().wrap_bio(ours, theirs, server_hostname="localhost")
    with suppress(ssl.SSLWantReadError):
        tls.do_handshake()
    return theirs.read()


@pytest.mark.parametrize("does", ["nothing", "trickle", "half"])
async def test_tls_that_is_not_done_is_gone_after_the_open_timeout(echo, tls, broken_off, does):
    broken_off()
    loop = asyncio.get_running_loop()
    started = loop.time()
    options = {"open_timeout": 0.3, "close_timeout": 30}
    async with serve(echo, HOST, 0, ssl=tls.server, **options) as server:
        with socket.create_connection(server.sockets[0].getsockname()) as sock:
            sock.setblocking(False)
            hello = client_hello()
            with suppress(ConnectionError):
                if does == "trickle":
                    for octet in hello * 100:
                        await loop.sock_sendall(sock, bytes([octet]))
                        await asyncio.sleep(0.005)
                elif does == "half":
                    await loop.sock_sendall(sock, hello)
                async with asyncio.timeout(20):
                    while await loop.sock_recv(sock, 4096):
                        pass
    assert loop.time() - started < 10


@pytest.mark.parametrize("does", ["nothing", "trickle", "bad", "stay"])
async def test_what_never_opens_is_gone_after_the_open_timeout(echo, tls, raw, until, does):
    """Including the 408, which the client need not answer, neither by closing nor in TLS."""
    loop = asyncio.get_running_loop()
    started = loop.time()
    options = {"open_timeout": 0.5, "close_timeout": 30}
    async with (
        serve(echo, HOST, 0, ssl=tls.server, **options) as server,
        raw(server, handshake=False, ssl=tls.client, server_hostname="localhost") as peer,
    ):
        await until(lambda: server._endpoints)
        if does == "bad":
            await peer.send(b"\0")
        if does == "stay":  # and not even read
            peer.writer.transport.pause_reading()
        while server._endpoints:
            if does == "trickle":
                with suppress(ConnectionError):
                    await peer.send(b"G")
            assert loop.time() - started < 20
            await asyncio.sleep(0.02)
        peer.reset()
    assert loop.time() - started < 10


async def test_the_open_timeout_begins_before_tls(tls, until):
    """The timeout covers TLS and the request together."""
    made = []
    loop = asyncio.get_running_loop()

    class Protocol(WebSocketProtocol):
        def __init__(self):
            super().__init__()
            made.append((self, loop.time()))

    async with serve(Protocol, HOST, 0, ssl=tls.server, open_timeout=20) as server:
        with socket.create_connection(server.sockets[0].getsockname()) as sock:
            sock.setblocking(False)
            await until(lambda: made)
            ((endpoint, begun),) = made
            await until(lambda: loop.time() > begun + 0.5)
            assert endpoint._timer is None
            _, writer = await asyncio.open_connection(
                sock=sock, ssl=tls.client, server_hostname="localhost"
            )
            await until(lambda: endpoint._timer is not None)
            # loop.time() is the time of the current turn.
            assert endpoint._timer.when() < begun + 20.4
            writer.transport.abort()
            await until(lambda: not server._endpoints)


@pytest.mark.parametrize(
    ("within_tls", "begins"),
    [
        (False, b"\x16\x03\x03\x3f\xff"),
        (True, b"HTTP/1.1 101 x\r\nX: "),
        (True, b"HTTP/1.1 500 x\r\nContent-Length: 60000\r\n\r\n"),
    ],
    ids=["TLS", "header", "body"],
)
async def test_a_server_that_trickles_is_given_up(tls, raw_server, within_tls, begins):
    async def play(peer):
        await peer.send(begins)
        while True:
            await peer.send(b"\0" if begins[0] == 0x16 else b"x")
            await asyncio.sleep(0.01)

    loop = asyncio.get_running_loop()
    context = tls.server if within_tls else None
    async with raw_server(play, handshake=False, ssl=context) as server:
        uri = f"wss://localhost:{server.sockets[0].getsockname()[1]}"
        started = loop.time()
        client = Recorder()
        with pytest.raises(TimeoutError):
            await connect(uri, host=HOST, ssl=tls.client, protocol=lambda: client, open_timeout=0.3)
        assert client.calls == [TimeoutError]
    assert loop.time() - started < 10


# Ends -----------------------------------------------------------------------------------


@pytest.mark.parametrize("closer", ["client", "server"])
@pytest.mark.parametrize(
    ("code", "reason"), [(1000, ""), (1001, "away"), (4999, "ü" * 61), (None, "")]
)
async def test_close_codes(closer, code, reason, tls, url):
    accepted = asyncio.get_running_loop().create_future()

    async def handler(ws):
        accepted.set_result(ws)
        await ws.wait_closed()

    async with serve(handler, HOST, 0, ssl=tls.server) as listener:
        client = await connect(url(listener, secure=True), ssl=tls.client)
        server = await accepted
        this, other = (client, server) if closer == "client" else (server, client)
        await this.send(b"x" * 200_000)
        await asyncio.wait_for(this.close(code, reason), 5)
        await asyncio.wait_for(other.wait_closed(), 5)
        for ws in (this, other):
            assert (ws.close_code, ws.close_reason) == (code or 1005, reason)
        assert await other.recv() == b"x" * 200_000


async def test_the_close_frame_reaches_a_client_that_still_sends(echo, tls, raw, frame):
    header = b"\x82\xff" + (4 * MIB).to_bytes(8, "big") + b"\0\0\0\0"
    options = {"ssl": tls.client, "server_hostname": "localhost"}
    async with serve(echo, HOST, 0, ssl=tls.server) as server, raw(server, **options) as peer:
        await peer.send(frame(1, b"before") + header)
        for _ in range(20):
            await peer.send(b"\0" * 32 * KIB)
            await asyncio.sleep(0.05)
        assert await peer.frame() == (0x81, b"before")
        assert (await peer.close_frame())[0] == 1009
        assert await peer.rest() == b""


async def test_a_close_timeout_that_is_short(echo, tls, raw, frame, until):
    """A client that goes on sending is dropped after the timeout, and no later."""
    options = {"ssl": tls.client, "server_hostname": "localhost"}
    async with (
        serve(echo, HOST, 0, ssl=tls.server, close_timeout=0.1) as server,
        raw(server, **options) as peer,
    ):
        (ws,) = server.connections
        await peer.send(frame(3))
        await until(lambda: ws.close_code == 1002)
        assert ws._timer.when() < ws._loop.time() + 0.5  # and not 1.0
        await until(lambda: not server._endpoints)


async def test_a_server_that_closes(echo, tls, url):
    server = await serve(echo, HOST, 0, ssl=tls.server)
    clients = [await connect(url(server, secure=True), ssl=tls.client) for _ in range(5)]
    await clients[0].send("busy" * 10_000)
    await asyncio.wait_for(server.close(), 5)
    for ws in clients:
        await asyncio.wait_for(ws.wait_closed(), 5)
    assert [ws.close_code for ws in clients] == [1001] * 5


async def test_a_connection_cut_off(echo, tls, url):
    async with serve(echo, HOST, 0, ssl=tls.server) as server:
        ws = await connect(url(server, secure=True), ssl=tls.client)
        (peer,) = server.connections
        peer._transport.abort()
        with pytest.raises(ConnectionClosed) as caught:
            await ws.recv()
        await ws.wait_closed()
    assert caught.value.code == 1006


@pytest.mark.loops("asyncio", "uvloop")  # aiofastnet's engine does not support weak references
@pytest.mark.parametrize("how", ["closed", "aborted", "reset"])
async def test_nothing_is_left_to_the_garbage_collector(echo, tls, url, until, how):
    """A TLS transport has several 100 KiB of buffers, and refers to its protocol."""
    kept = []

    class Client(WebSocketProtocol):
        pass

    gc.collect()
    gc.disable()
    try:
        for style in (None, Client):
            async with serve(echo, HOST, 0, ssl=tls.server) as server:
                options = {} if style is None else {"protocol": style}
                ws = await connect(url(server, secure=True), ssl=tls.client, **options)
                (theirs,) = server.connections
                held = [weakref.ref(end.get_extra_info("ssl_object")) for end in (ws, theirs)]
                if how == "closed":
                    closing = ws.close()
                    await (ws.wait_closed() if closing is None else closing)
                else:
                    (ws if how == "aborted" else theirs)._transport.abort()
                    await ws.wait_closed()
                await theirs.wait_closed()
                # The connections still exist, and know how they were secured.
                assert ws.get_extra_info("cipher") is not None
                assert ws.get_extra_info("ssl_object") is None
                kept += ws, theirs
                await until(lambda held=held: all(one() is None for one in held))
    finally:
        gc.enable()


@pytest.mark.parametrize("options", [{}, {"write_limit": 5000}])
async def test_the_write_limit_holds_over_tls(echo, tls, url, options):
    """Event loops have another default there."""
    async with (
        serve(echo, HOST, 0, ssl=tls.server, **options) as server,
        connect(url(server, secure=True), ssl=tls.client, **options) as ws,
    ):
        (theirs,) = server.connections
        for end in (ws, theirs):
            _, most = end._transport.get_write_buffer_limits()
            assert most == options.get("write_limit", 64 * KIB)


@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
async def test_a_sender_waits_for_an_empty_transport_without_a_write_limit(tls, url, secure):
    async def handler(ws):
        for number in range(100):
            await ws.send(bytes(number))
            await asyncio.sleep(0)

    context = tls.server if secure else None
    async with (
        serve(handler, HOST, 0, ssl=context, write_limit=0) as server,
        connect(url(server, secure=secure), ssl=tls.client if secure else None) as ws,
    ):
        assert [len(message) async for message in ws] == list(range(100))


async def test_a_large_message_to_a_peer_that_has_just_gone_is_no_warning(tls, raw, until, caplog):
    members = []

    class Member(WebSocketProtocol):
        def on_open(self):
            members.append(self)

    options = {"ssl": tls.client, "server_hostname": "localhost"}
    async with serve(Member, HOST, 0, ssl=tls.server) as server:
        async with raw(server, **options) as peer:
            await until(lambda: members)
            sock = peer.writer.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            peer.reset()
            await asyncio.sleep(0)  # The event loop of the server has not seen the reset yet.
            with suppress(ConnectionClosed):
                members[0].send(bytes(1 << 20))
        await until(lambda: members[0].close_code == 1006)
    assert [record.getMessage() for record in caplog.records if record.name == "asyncio"] == []
