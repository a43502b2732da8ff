"""Large messages through an endpoint: how they are written, and how their parts are received."""

from __future__ import annotations

import asyncio
import random
import tracemalloc
from zlib import Z_HUFFMAN_ONLY

import pytest

from fastws import ConnectionClosed, WebSocketProtocol, connect, encode_frame, prepare, serve
from fastws.aio.opening import ServerOpeningHandshake
from fastws.aio.settings import DEFAULT_SETTINGS
from fastws.codec import implementation
from fastws.deflate import deflate_extensions
from fastws.handshake import ServerHandshake

from ..wire import OFFER, compressed, upgrade_request

HOST = "127.0.0.1"
KIB, MIB = 1 << 10, 1 << 20
KEY = b"\x0f\x80\x01\xfe"
ASCII = "".join(chr(32 + i % 95) for i in range(MIB))
MESSAGES = [
    ASCII,
    "é" * (MIB // 2),
    ASCII[: 112 * KIB + 1],
    "short",
    random.Random(1).randbytes(MIB),
    bytearray(random.Random(2).randbytes(300 * KIB)),
    ASCII[: 64 * KIB],
    b"",
]


def received(message):
    return bytes(message) if isinstance(message, bytearray) else message


class Echo(WebSocketProtocol):
    def on_message(self, message):
        self.send(message)


class Kept(asyncio.Transport):
    """A transport that keeps what is written, as it was given."""

    def __init__(self, failing=()):
        super().__init__()
        self.writes = []
        self.failing = failing  # the numbers of the writes that fail
        self.aborted = False

    def write(self, data):
        if len(self.writes) in self.failing:
            self.failing = ()
            raise MemoryError
        assert type(data) in (bytes, memoryview)
        self.writes.append(data)

    def take(self):
        taken, self.writes = self.writes, []
        return taken

    def is_closing(self):
        return self.aborted

    def abort(self):
        self.aborted = True

    def close(self):
        self.aborted = True

    def can_write_eof(self):
        return False

    def get_write_buffer_size(self):
        return sum(map(len, self.writes))

    def pause_reading(self):
        pass

    def resume_reading(self):
        pass


def feed(endpoint, data):
    buffer = endpoint.get_buffer(-1)
    buffer[: len(data)] = data
    endpoint.buffer_updated(len(data))


@pytest.fixture
def opened():
    """An open endpoint of a server on a Kept transport."""
    made = []

    def make(cls, *, deflate=False, **options):
        transport = Kept(**options)
        endpoint = cls()
        opening = ServerOpeningHandshake(ServerHandshake(extensions=deflate_extensions(deflate)))
        endpoint._configure(DEFAULT_SETTINGS, opening, None)
        endpoint.connection_made(transport)
        feed(endpoint, OFFER if deflate else upgrade_request())
        assert b"".join(transport.take()).startswith(b"HTTP/1.1 101")
        made.append(endpoint)
        return endpoint, transport

    yield make
    for endpoint in made:
        endpoint.connection_lost(None)


# Sending --------------------------------------------------------------------------------


@pytest.mark.loops("asyncio", "uvloop", "aiofastnet")
@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("prepared", [False, True], ids=["message", "prepared"])
async def test_large_messages_there_and_back(echo, tls, url, secure, prepared):
    async with (
        serve(echo, HOST, 0, ssl=tls.server if secure else None) as server,
        connect(url(server, secure=secure), ssl=tls.client if secure else None) as ws,
    ):
        for message in MESSAGES:
            await ws.send(prepare(message) if prepared else message)
            assert await ws.recv() == received(message)
        fragments = [ASCII[: MIB // 2], "é" * (MIB // 8), ASCII[: MIB // 8], "end"]
        await ws.send(iter(fragments))
        assert await ws.recv() == "".join(fragments)


@pytest.mark.loops("asyncio", "uvloop", "aiofastnet")
@pytest.mark.parametrize("role", ["server", "client"])
async def test_frames_stay_whole_while_the_peer_is_slow(raw, raw_server, url, role):
    """Pongs do not come in the middle of a message, however slowly it leaves."""
    sent = [
        (0x81, message.encode()) if isinstance(message, str) else (0x82, bytes(message))
        for message in MESSAGES * 2
    ]

    async def talk(ws):
        for message in MESSAGES * 2:
            await ws.send(message)
        await ws.wait_closed()

    async def check(peer, key):
        frames = []
        for _ in sent:
            await peer.send(encode_frame(9, b"ping", key=key))
            await asyncio.sleep(0.005)
            while (frame := await peer.frame())[0] == 0x8A:
                pass
            frames.append(frame)
        assert frames == sent

    if role == "server":
        async with serve(talk, HOST, 0) as server, raw(server) as peer:
            await check(peer, KEY)
    else:
        checked = asyncio.get_running_loop().create_future()

        async def play(peer):
            await check(peer, None)
            checked.set_result(None)

        async with raw_server(play) as server, connect(url(server)) as ws:
            talking = asyncio.create_task(talk(ws))
            await checked
        await talking


async def test_a_header_leaves_with_the_beginning_of_its_payload(opened):
    endpoint, transport = opened(Echo)
    for message in MESSAGES:
        payload = message.encode() if isinstance(message, str) else bytes(message)
        endpoint.send(message)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        writes = transport.take()
        opcode = 1 if isinstance(message, str) else 2
        assert b"".join(writes) == encode_frame(opcode, payload)
        assert all(len(data) >= 16 * KIB for data in writes) or len(payload) < 16 * KIB


@pytest.mark.skipif(implementation == "py", reason="Python cannot look into a str")
async def test_a_large_str_is_written_from_where_it_is(opened):
    endpoint, transport = opened(Echo)
    endpoint.send(ASCII)
    _, rest = transport.take()
    assert type(rest) is memoryview
    assert (rest.format, rest.readonly, rest.c_contiguous) == ("B", True, True)
    with pytest.raises(TypeError):
        rest[0] = 0
    assert bytes(rest) == ASCII[-len(rest) :].encode()


@pytest.mark.parametrize("message", [ASCII, ASCII.encode()], ids=["text", "binary"])
async def test_a_write_that_fails_inside_a_frame_ends_the_connection(opened, message):
    """What followed would be taken for the rest of the frame."""
    endpoint, transport = opened(Echo)
    transport.failing = (1,)
    if implementation == "c" or type(message) is bytes:
        with pytest.raises(MemoryError):
            endpoint.send(message)
        assert transport.aborted


@pytest.mark.parametrize("message", [ASCII, ASCII.encode()], ids=["text", "binary"])
async def test_what_is_held_counts_as_unsent(raw, until, message):
    """Of a peer that does not read."""
    calls = []

    class Flood(WebSocketProtocol):
        def on_open(self):
            self.sent = 0
            try:
                while True:
                    self.send(message)
                    self.sent += MIB
            except ConnectionClosed:
                calls.append(self.sent)

        def on_close(self, code, reason):
            calls.append(code)

    async with serve(Flood, HOST, 0, max_unsent_size=4 * MIB) as server, raw(server):
        await until(lambda: len(calls) == 2)
    sent = next(call for call in calls if call > 5000)
    assert 1008 in calls
    # The operating system takes some MiB, too.
    assert 4 * MIB < sent < 24 * MIB


# Receiving ------------------------------------------------------------------------------


SIZES = [64 * KIB - 1, 64 * KIB, 70_000, 125, 200_000, 300_000, 0, 1]


@pytest.mark.parametrize("text", [True, False], ids=["text", "binary"])
@pytest.mark.parametrize("step", [256 * KIB, 100_001, 65_550, 33_333])
async def test_messages_that_end_and_begin_in_one_read(opened, text, step):
    """The beginning of a large message is decoded after the message before has been delivered."""
    got = []

    class Recorder(WebSocketProtocol):
        def on_message(self, message):
            got.append(message)

    endpoint, _ = opened(Recorder)
    rng = random.Random(step)
    messages = []
    stream = b""
    for size in rng.choices(SIZES, k=40):
        message = rng.randbytes(size).hex()[:size]
        if rng.random() < 0.3:
            message = "é" + message
        messages.append(message if text else message.encode())
        opcode = 1 if text else 2
        payload = message.encode()
        middle = rng.randint(0, len(payload))
        if rng.random() < 0.3:
            stream += encode_frame(opcode, payload[:middle], fin=False, key=KEY)
            stream += encode_frame(9, b"", key=KEY)
            stream += encode_frame(0, payload[middle:], key=KEY)
        else:
            stream += encode_frame(opcode, payload, key=KEY)
    for start in range(0, len(stream), step):
        feed(endpoint, stream[start : start + step])
    assert got == messages


@pytest.mark.skipif(implementation == "py", reason="it decodes what it gets at once")
@pytest.mark.parametrize("text", [True, False], ids=["text", "binary"])
async def test_one_large_message_at_a_time(opened, text):
    class Drop(WebSocketProtocol):
        def on_message(self, message):
            pass

    endpoint, _ = opened(Drop)
    stream = encode_frame(1 if text else 2, b"x" * MIB, key=KEY) * 3
    tracemalloc.start()
    try:
        for start in range(0, len(stream), 256 * KIB):
            feed(endpoint, stream[start : start + 256 * KIB])
        # What is fed is a copy of 256 KiB.
        assert tracemalloc.get_traced_memory()[1] < MIB + 400 * KIB
    finally:
        tracemalloc.stop()


async def test_a_violation_at_the_beginning_of_the_next_comes_after_the_answer(opened):
    endpoint, transport = opened(Echo)
    first = encode_frame(1, b"a" * 100_000, key=KEY)
    second = encode_frame(1, b"ok \xff" + b"b" * 100_000, key=KEY)
    stream = first + second
    feed(endpoint, stream[:90_000])
    feed(endpoint, stream[90_000:150_000])
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    written = b"".join(transport.take())
    answer = encode_frame(1, b"a" * 100_000)
    assert written[: len(answer)] == answer
    assert written[len(answer) :].startswith(b"\x88")
    assert b"\x03\xef" in written[len(answer) :]  # 1007


async def test_what_the_next_inflates_to_is_decoded_in_steps(opened):
    """Even if nothing more arrives."""
    got = []

    class Recorder(WebSocketProtocol):
        def on_message(self, message):
            got.append(message)

    endpoint, transport = opened(Recorder, deflate=True)
    first = encode_frame(2, bytes(100_000), key=KEY)
    letters = random.Random(3).randbytes(100 * KIB).hex().encode()
    text = letters[:-KIB] + b"\xff" * 3 * KIB + letters[:KIB]
    payload = compressed(text, strategy=Z_HUFFMAN_ONLY)
    second = encode_frame(1, payload, rsv1=True, key=KEY)
    feed(endpoint, first[:90_000])
    feed(endpoint, first[90_000:] + second[:-10])
    for _ in range(20):
        await asyncio.sleep(0)
    assert got == [bytes(100_000)]
    written = b"".join(transport.take())
    assert (written[0], written[2:4]) == (0x88, b"\x03\xef")  # 1007


@pytest.mark.parametrize("other", [True, False])
@pytest.mark.parametrize("buffered", [True, False])
async def test_more_is_read_while_a_message_is_handed_over(opened, other, buffered):
    """A callback may run the event loop, as a modal dialog does. All connections read into the
    same buffer."""
    got = []
    messages = [bytes([number]) * 100_000 for number in range(3)]
    stream = b"".join(encode_frame(2, message, key=KEY) for message in messages)
    more = iter([stream[150_000:250_000]])

    class Nesting(WebSocketProtocol):
        def on_message(self, message):
            got.append(message)
            for data in more:
                if other:
                    read(elsewhere, stream[:200_000])
                    read(elsewhere, stream[200_000:])
                read(endpoint, data)

    class Recorder(WebSocketProtocol):
        def on_message(self, message):
            there.append(message)

    def read(endpoint, data):
        if buffered:
            feed(endpoint, data)
        else:
            endpoint.data_received(data)

    there = []
    endpoint, _ = opened(Nesting)
    elsewhere, _ = opened(Recorder)
    read(endpoint, stream[:90_000])
    read(endpoint, stream[90_000:150_000])
    read(endpoint, stream[250_000:])
    assert [bytes(set(message)) for message in got] == [b"\0", b"\1", b"\2"]
    assert got == messages
    assert there == (messages if other else [])


@pytest.mark.parametrize("how", ["close", "abort", "raise"])
async def test_the_connection_may_end_before_the_next_begins(opened, how, caplog):
    class Ending(WebSocketProtocol):
        def on_message(self, message):
            if how == "raise":
                raise RuntimeError
            if how == "abort":
                self._discard()
            else:
                self.close()

    endpoint, transport = opened(Ending)
    stream = encode_frame(2, bytes(100_000), key=KEY) + encode_frame(2, bytes(100_000), key=KEY)
    feed(endpoint, stream[:90_000])
    feed(endpoint, stream[90_000:150_000])
    feed(endpoint, stream[150_000:])
    assert transport.aborted is (how == "abort")
    assert b"".join(transport.take())[:1] == (b"" if how == "abort" else b"\x88")
    assert ("RuntimeError" in caplog.text) is (how == "raise")
