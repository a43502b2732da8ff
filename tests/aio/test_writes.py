"""When what is sent outside of a read is written: at once, or at the end of the turn of the event
loop, together with what else is sent in that turn."""

from __future__ import annotations

import asyncio
import gc
import sys
import weakref

import pytest

from fastws import PerMessageDeflate, WebSocket, WebSocketProtocol, connect, prepare, serve
from fastws.codec import FrameDecoder

from ..wire import upgrade_request
from .conftest import LOOPS

KIB = 1 << 10


class Transport(asyncio.Transport):
    """A transport that keeps what is written."""

    def __init__(self):
        super().__init__()
        self.writes = []
        self.closing = False

    def write(self, data):
        self.writes.append(data)

    def is_closing(self):
        return self.closing

    def close(self):
        self.closing = True

    def abort(self):
        self.closing = True

    def can_write_eof(self):
        return True

    def write_eof(self):
        pass

    def pause_reading(self):
        pass

    def resume_reading(self):
        pass

    def get_write_buffer_size(self):
        return 0


class Recorder(WebSocketProtocol):
    def __init__(self):
        super().__init__()
        self.ends = []
        self.answers = ()

    def on_message(self, message):
        for answer in self.answers:
            self.send(answer)

    def on_close(self, code, reason):
        self.ends.append(code)


def opened(cls=Recorder):
    """Return a connection on a transport, after the opening handshake, and what is written."""
    ws, transport = cls(), Transport()
    ws.connection_made(transport)
    ws.data_received(upgrade_request())
    assert transport.writes.pop().startswith(b"HTTP/1.1 101 ")
    return ws, transport.writes


def lose(*connections):
    for ws in connections:
        ws.connection_lost(None)


def plain(message):
    return b"\x81" + bytes([len(message)]) + message.encode()


@pytest.fixture(params=[str, prepare], ids=["str", "prepared"])
def kind(request):
    """What is sent: a string, or a prepared message."""
    return request.param


# At once, or at the end of the turn ---------------------------------------------------------


async def test_one_message_a_turn_never_waits(kind):
    connections = [opened() for _ in range(3)]
    for number in range(5):
        for ws, writes in connections:
            ws.send(kind(str(number)))
            assert writes == [plain(str(number))]
            writes.clear()
        await asyncio.sleep(0)
    assert not any(writes for _, writes in connections)
    lose(*(ws for ws, _ in connections))


async def test_many_messages_of_one_turn_leave_in_two_writes(kind):
    connections = [opened() for _ in range(3)]
    for turn in range(3):
        words = [f"{turn}.{number}" for number in range(50)]
        message = [kind(word) for word in words]
        for one in message:
            for ws, _ in connections:
                ws.send(one)
        await asyncio.sleep(0)
        for _, writes in connections:
            assert writes == [plain(words[0]), b"".join(map(plain, words[1:]))]
            writes.clear()
    lose(*(ws for ws, _ in connections))


async def test_connections_share_one_callback_a_turn():
    class Loop:
        """The event loop, which counts callbacks."""

        def __init__(self):
            self.calls = 0

        def call_soon(self, *args):
            self.calls += 1
            return loop.call_soon(*args)

        def __getattr__(self, name):
            return getattr(loop, name)

    loop = asyncio.get_running_loop()
    connections = [opened() for _ in range(100)]
    counting = Loop()
    for ws, _ in connections:
        ws._loop = counting
    for turn in range(1, 4):
        for _ in range(3):
            for ws, _ in connections:
                ws.send("a")
        assert counting.calls == turn
        await asyncio.sleep(0)
        assert all(len(writes) == 2 * turn for _, writes in connections)
    await asyncio.sleep(0)
    assert counting.calls == 3
    lose(*(ws for ws, _ in connections))


async def test_much_does_not_wait_for_the_end_of_the_turn():
    ws, writes = opened()
    ws.send("a")
    for _ in range(5):
        ws.send(bytes(20 * KIB))
    assert [len(data) // KIB for data in writes] == [0, 80]
    await asyncio.sleep(0)
    assert [len(data) // KIB for data in writes] == [0, 80, 20]
    lose(ws)


async def test_what_is_sent_after_a_read_leaves_after_the_answers(frame):
    ws, writes = opened()
    ws.answers = ["b", prepare("c")]
    ws.send("a")
    ws.data_received(frame(1, b"") * 2)
    ws.send("d")
    ws.send("e")
    assert writes == [plain("a"), (plain("b") + plain("c")) * 2]
    await asyncio.sleep(0)
    assert writes[2:] == [plain("d") + plain("e")]
    lose(ws)


async def test_what_waits_leaves_with_the_answers_of_a_read(frame):
    ws, writes = opened()
    ws.answers = ["c"]
    ws.send("a")
    ws.send("b")
    ws.data_received(frame(1, b""))
    await asyncio.sleep(0)
    assert b"".join(writes) == plain("a") + plain("b") + plain("c")
    assert len(writes) == 2
    lose(ws)


async def test_the_close_frame_comes_after_what_waits():
    ws, writes = opened()
    for word in "abc":
        ws.send(word)
    ws.close()
    await asyncio.sleep(0)
    assert b"".join(writes) == plain("a") + plain("b") + plain("c") + b"\x88\x02\x03\xe8"
    lose(ws)


async def test_a_close_frame_is_answered_after_what_waits(frame):
    ws, writes = opened()
    for word in "abc":
        ws.send(word)
    ws.data_received(frame(8, b"\x03\xe8"))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert b"".join(writes) == plain("a") + plain("b") + plain("c") + b"\x88\x02\x03\xe8"
    lose(ws)
    assert ws.ends == [1000]


async def test_a_connection_that_is_lost_in_the_middle_of_a_turn():
    connections = [opened() for _ in range(3)]
    for _ in range(3):
        for ws, _ in connections:
            ws.send("a")
    lost = connections[1][0]
    lose(lost)
    await asyncio.sleep(0)
    assert [len(writes) for _, writes in connections] == [2, 1, 2]
    assert lost.ends == [1006]
    lose(connections[0][0], connections[2][0])


async def test_a_write_that_fails_does_not_keep_others_from_theirs():
    loop = asyncio.get_running_loop()
    reported = []
    before = loop.get_exception_handler()
    loop.set_exception_handler(lambda _, context: reported.append(context["exception"]))
    connections = [opened() for _ in range(5)]
    failures = [OSError(), MemoryError()]

    def failing(failure):
        def write(data):
            raise failure

        return write

    try:
        for _ in range(3):
            for ws, _ in connections:
                ws.send("a")
        for (ws, _), failure in zip(connections[1::2], failures, strict=True):
            ws._transport.write = failing(failure)
        for _ in range(4):
            await asyncio.sleep(0)
    finally:
        loop.set_exception_handler(before)
    assert reported == failures
    assert [len(writes) for _, writes in connections] == [2, 1, 2, 1, 2]
    # What follows is not affected.
    for ws, writes in connections[::2]:
        writes.clear()
        ws.send("b")
        assert writes == [plain("b")]
    lose(*(ws for ws, _ in connections))


@pytest.mark.skipif(sys.implementation.name != "cpython", reason="counts references")
async def test_a_turn_keeps_no_connection_alive():
    ws, _ = opened()
    for word in "abc":
        ws.send(word)
    lose(ws)
    gone = weakref.ref(ws)
    gc.disable()
    try:
        del ws
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert gone() is None
    finally:
        gc.enable()


# (Something of aiofastnet's keeps its event loops, with or without a connection.)
@pytest.mark.parametrize("loop", [name for name in LOOPS if name != "aiofastnet"])
def test_a_closed_event_loop_is_not_kept_alive_by_what_waits(loop):
    gone = []

    def send(loop):
        ws, writes = opened()
        for word in "abc":
            ws.send(word)
        assert writes == [plain("a")]
        gone.append(weakref.ref(ws))
        loop.stop()

    def run(loop):
        loop.call_soon(send, loop)
        loop.run_forever()
        loop.close()
        gone.append(weakref.ref(loop))

    run(LOOPS[loop]())
    for _ in range(3):
        gc.collect()
    assert [held() for held in gone] == [None, None]


# Over TLS ---------------------------------------------------------------------------------------


def opened_over_tls():
    ws, writes = opened()
    ws._transport._extra["sslcontext"] = object()
    return ws, writes


@pytest.mark.parametrize("size", [64 * KIB, 64 * KIB + 1, 300 * KIB, 1 << 20])
@pytest.mark.parametrize("many", [True, False], ids=["small ones", "one"])
async def test_what_is_large_leaves_in_a_few_parts(size, many):
    ws, writes = opened_over_tls()
    messages = [bytes(10 * KIB)] * (size // (10 * KIB)) if many else [bytes(size)]
    for message in messages:
        ws.send(message)
    await asyncio.sleep(0)
    octets = b"".join(writes)
    lose(ws)
    frames = FrameDecoder(masked=False).feed(octets)
    assert [frame.payload for frame in frames] == messages
    assert max(map(len, writes)) <= max(64 * KIB, size / 4)
    assert many or len(writes) <= 5


async def test_nothing_follows_a_part_of_a_frame():
    """A transport may run out of memory."""
    ws, writes = opened_over_tls()

    def write(data):
        if writes:
            raise MemoryError
        writes.append(data)

    ws.send("a")
    writes.clear()
    ws._transport.write = write
    for _ in range(6):
        ws.send(bytes(10 * KIB))
    with pytest.raises(MemoryError):
        ws.send(bytes(10 * KIB))
    assert [len(data) for data in writes] == [64 * KIB]
    assert ws._transport.closing
    lose(ws)


# Tasks ----------------------------------------------------------------------------------------


async def test_a_task_that_only_sends_never_waits_for_the_next_turn(kind):
    ws, writes = opened(WebSocket)
    for number in range(5):
        await ws.send(kind(str(number)))
        assert writes == [plain(str(number))]
        writes.clear()
        await asyncio.sleep(0)
    lose(ws)


async def test_the_answer_of_a_task_leaves_at_once_each_time(frame, kind):
    ws, writes = opened(WebSocket)
    answered = []

    async def answer():
        async for message in ws:
            await ws.send(kind(message))
            answered.append(list(writes))
            writes.clear()

    task = asyncio.create_task(answer())
    for number in range(4):
        await asyncio.sleep(0)
        ws.data_received(frame(1, str(number).encode()))
        # Nobody has answered yet, so that another task's message does not wait, either.
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert answered.pop() == [plain(str(number))]
        await ws.send(kind("news"))
        assert writes == [plain("news")]
        writes.clear()
    ws.data_received(frame(8, b"\x03\xe8"))
    await task
    lose(ws)


async def test_many_answers_of_a_task_leave_in_two_writes(frame, kind):
    ws, writes = opened(WebSocket)

    async def answer():
        async for message in ws:
            for number in range(20):
                await ws.send(kind(f"{message}.{number}"))

    task = asyncio.create_task(answer())
    for message in "abc":
        await asyncio.sleep(0)
        ws.data_received(frame(1, message.encode()))
        for _ in range(3):
            await asyncio.sleep(0)
        words = [f"{message}.{number}" for number in range(20)]
        assert writes == [plain(words[0]), b"".join(map(plain, words[1:]))]
        writes.clear()
    ws.data_received(frame(8, b"\x03\xe8"))
    await task
    lose(ws)


# Prepared messages ------------------------------------------------------------------------------


@pytest.mark.parametrize("cls", [Recorder, WebSocket])
@pytest.mark.parametrize("message", ["a", b"a" * 200, "☂" * 20_000])
async def test_connections_share_the_frame_of_a_prepared_message(cls, message):
    prepared = prepare(message)
    connections = [opened(cls) for _ in range(3)]
    for _ in range(2):
        for ws, writes in connections:
            sent = ws.send(prepared)
            if sent is not None:
                await sent
            assert len(writes) == 1
        first = connections[0][1][0]
        assert first.endswith(prepared.payload)
        assert all(writes.pop() is first for _, writes in connections)
        await asyncio.sleep(0)
    lose(*(ws for ws, _ in connections))


@pytest.mark.parametrize("deflate", [None, True, PerMessageDeflate(context_takeover=False)])
async def test_a_broadcast_reaches_all_kinds_of_connections(url, until, deflate):
    texts = ["short", "the same words " * 50, "☂" * 100 * KIB, ""]
    prepared = [prepare(text) for text in texts]
    received, joined, done = [], [], asyncio.Event()

    class Server(WebSocketProtocol):
        def on_open(self):
            joined.append(self)

        def on_message(self, message):
            received.append(message)

    async def handler(ws):
        joined.append(ws)
        async for message in ws:
            received.append(message)  # noqa: PERF401
        done.set()

    async with (
        serve(Server, "127.0.0.1", 0, deflate=deflate) as one,
        serve(handler, "127.0.0.1", 0) as other,
        connect(url(one), deflate=deflate) as compressing,
        connect(url(one)) as not_compressing,
        connect(url(other)) as served_by_a_task,
    ):
        clients = (compressing, not_compressing, served_by_a_task)
        for message in prepared * 2:
            for ws in joined:
                if isinstance(ws, WebSocket):
                    await ws.send(message)
                else:
                    ws.send(message)
        for client in clients:
            assert [await client.recv() for _ in range(8)] == texts * 2
        for client in clients:
            for message in prepared:
                await client.send(message)
        await until(lambda: len(received) == 12)
        assert sorted(received) == sorted(texts * 3)
    await done.wait()
