"""Messages of any size through an endpoint: received in parts, sent from files."""

from __future__ import annotations

import asyncio
import io
import os
import tracemalloc
from contextlib import suppress

import pytest

from fastws import (
    ConnectionClosed,
    MessageTooBigError,
    StateError,
    Text,
    WebSocket,
    WebSocketProtocol,
    connect,
    serve,
)
from fastws.aio.fragments import as_fragments
from fastws.codec import encode_frame
from fastws.spec import Opcode

KIB, MIB = 1 << 10, 1 << 20
STREAM = {"stream": True}

either_way = pytest.mark.parametrize("deflate", [False, True], ids=["plain", "compressed"])


async def parts_of(ws):
    return [part async for part in ws.recv_stream()]


def in_chunks(chunk, count):
    for _ in range(count):
        yield chunk


async def in_order(items):
    for item in items:
        yield item


# Receiving ------------------------------------------------------------------------------------


@either_way
async def test_a_message_is_received_in_parts(pair, deflate):
    text = "aé€😀" * 100_000
    async with pair({"deflate": deflate}, {"deflate": deflate, **STREAM}) as (client, server):
        for message in (text, text.encode(), "", b"", "a"):
            await client.send(message)
            parts = await parts_of(server)
            assert type(message)().join(parts) == message
            assert all(parts) or len(parts) == 1
            if message == text:
                assert len(parts) > 1


async def test_text_as_bytes_is_received_in_parts(pair):
    text = Text(("aé€😀" * 100_000).encode())
    as_bytes = STREAM | {"decode_text": False}
    async with pair(as_bytes | {"protocol": WebSocket[Text]}, as_bytes) as (client, server):
        for _ in range(4):
            await client.send(text)
        parts = await parts_of(server)
        assert len(parts) > 1
        assert {type(part) for part in parts} == {Text}
        assert b"".join([part.data for part in parts]) == text.data
        assert await server.recv() == text
        assert await server.recv(decode_text=True) == str(text)
        assert await server.recv(decode_text=False) == text
        await server.send("é")
        assert await client.recv() == Text("é".encode())


async def test_a_message_is_one_part_without_the_option(pair):
    async with pair() as (client, server):
        await client.send("a" * MIB)
        assert await parts_of(server) == ["a" * MIB]


async def test_the_same_iterator_goes_on_without_the_option(pair):
    async with pair() as (client, server):
        stream = server.recv_stream()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.02):
                await anext(stream)
        await client.send("a")
        assert [part async for part in stream] == ["a"]
        assert [part async for part in stream] == []
        stream = server.recv_stream()
        await client.close()
        for _ in range(2):
            with pytest.raises(ConnectionClosed):
                await anext(stream)


async def test_parts_arrive_before_the_message_is_complete(pair):
    async with pair(server=STREAM) as (client, server):
        more = asyncio.Event()

        async def fragments():
            yield "é"
            await more.wait()
            yield "b"

        sending = asyncio.create_task(client.send(fragments()))
        stream = server.recv_stream()
        assert await anext(stream) == "é"
        assert await server.ping() > 0
        more.set()
        assert [part async for part in stream] == ["b"]
        assert [part async for part in stream] == []
        await sending


async def test_whole_messages_are_put_together(pair):
    async with pair(STREAM, STREAM) as (client, server):
        text = "é" * 400_000
        await client.send(text)
        await client.send(b"abc")
        assert await server.recv() == text
        await server.send(bytes(MIB))
        await server.send(["f", "r"])
        await server.close()
        assert await server.recv() == b"abc"
        assert [message async for message in client] == [bytes(MIB), "fr"]


@pytest.mark.parametrize("kind", ["text", "binary"])
async def test_a_message_that_is_received_whole_has_a_limit(pair, kind):
    async with pair(server=STREAM | {"max_message_size": 10}) as (client, server):
        fitting, more = ("é" * 5, "é") if kind == "text" else (bytes(10), b"a")
        await client.send(fitting)
        assert await server.recv() == fitting
        await client.send([fitting, more])
        await client.send("later")
        with pytest.raises(ConnectionClosed) as caught:
            await server.recv()
        assert (caught.value.code, caught.value.reason) == (1009, "message over 10 bytes")
        assert type(caught.value.__cause__) is MessageTooBigError
        await client.wait_closed()
        assert (client.close_code, client.close_reason) == (1009, "message over 10 bytes")
        for receive in (server.recv, server.recv_stream().__anext__):
            with pytest.raises(ConnectionClosed):
                await receive()


@pytest.mark.parametrize("whose", ["theirs", "ours"])
async def test_a_message_that_is_too_big_is_refused_after_the_close_frame(pair, whose):
    async with pair(server=STREAM | {"max_message_size": 10}) as (client, server):
        await client.send([bytes(10), b"a"])
        await client.send("later")
        await client.ping()
        await (client if whose == "theirs" else server).close()
        with pytest.raises(ConnectionClosed, match="message over 10 bytes") as caught:
            async for _ in server:
                pass
        assert caught.value.code == 1009
        assert isinstance(caught.value.__cause__, MessageTooBigError)
        with pytest.raises(ConnectionClosed, match="1000"):
            await server.recv()


async def test_a_stream_has_a_limit_of_its_own(pair):
    options = STREAM | {"max_stream_size": 10, "max_message_size": 1}
    async with pair(server=options) as (client, server):
        await client.send(bytes(10))
        assert await parts_of(server) == [bytes(10)]
        await client.send([bytes(10), b"a"])
        with pytest.raises(ConnectionClosed, match="1009"):
            await parts_of(server)


# Leaving early ----------------------------------------------------------------------------------


@pytest.mark.parametrize("then", ["recv", "recv_stream", "iteration"])
async def test_the_rest_of_a_message_is_dropped_when_another_is_received(pair, then):
    async with pair(server=STREAM) as (client, server):
        sending = asyncio.create_task(client.send(in_chunks(bytes(100 * KIB), 40)))
        stream = server.recv_stream()
        async for part in stream:
            assert part
            break
        next_one = asyncio.create_task(client.send("next"))
        if then == "recv":
            assert await server.recv() == "next"
        elif then == "iteration":
            assert await anext(server) == "next"
        else:
            assert await parts_of(server) == ["next"]
        with pytest.raises(StateError, match="the rest of this message was dropped"):
            await anext(stream)
        await asyncio.gather(sending, next_one)


async def test_the_same_iterator_goes_on(pair):
    async with pair(server=STREAM) as (client, server):
        stream = server.recv_stream()
        unused = server.recv_stream()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await anext(stream)  # cancelled before the message begins
        sending = asyncio.create_task(client.send(in_chunks(b"a" * (100 * KIB), 10)))
        received = await anext(stream)
        async for part in stream:
            received += part
            break
        received += b"".join([part async for part in stream])
        assert received == b"a" * (1000 * KIB)
        await sending
        await client.send("next")
        assert [part async for part in unused] == ["next"]


async def test_a_cancelled_recv_loses_nothing(pair):
    async with pair(server=STREAM) as (client, server):
        for again in ("recv", "recv_stream"):
            more = asyncio.Event()

            async def fragments(more=more):
                yield "a"
                yield "b"
                await more.wait()
                yield "c"

            sending = asyncio.create_task(client.send(fragments()))
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await server.recv()
            more.set()
            if again == "recv":
                assert await server.recv() == "abc"
            else:
                assert await parts_of(server) == ["ab", "c"]
            await sending


async def test_a_message_that_is_cut_off(pair):
    for code in (1000, 1011):
        async with pair(server=STREAM) as (client, server):

            async def fragments(client=client, code=code):
                yield b"a"
                await asyncio.sleep(0.01)
                client._begin_closing(code, "")
                yield b"b"

            sending = asyncio.create_task(client.send(fragments()))
            stream = server.recv_stream()
            assert await anext(stream) == b"a"
            for _ in range(2):
                with pytest.raises(ConnectionClosed, match=str(code)):
                    await anext(stream)
            with pytest.raises(ConnectionClosed):
                await sending


@pytest.mark.parametrize("first", ["recv", "recv_stream"])
@pytest.mark.parametrize("second", ["recv", "recv_stream"])
async def test_only_one_task_waits(pair, first, second):
    receive = {"recv": lambda ws: ws.recv(), "recv_stream": parts_of}
    async with pair(server=STREAM) as (_, server):
        waiting = asyncio.create_task(receive[first](server))
        for opcode, data in (Opcode.TEXT, b"a"), (Opcode.CONTINUATION, b"b"):
            await asyncio.sleep(0)
            with pytest.raises(StateError, match="another task is waiting"):
                await receive[second](server)
            last = opcode is Opcode.CONTINUATION
            server.data_received(encode_frame(opcode, data, fin=last, key=bytes(4)))
        # A part is there, and the task that waits for it has not had its turn yet.
        with pytest.raises(StateError, match="another task is waiting"):
            await receive[second](server)
        assert "".join(await waiting) == "ab"


async def test_closing_leaves_no_gap_in_a_message(raw, frame):
    """If nothing is received while we close, what arrives is dropped: from then on, all of it."""
    done = asyncio.Event()
    accepted = asyncio.get_running_loop().create_future()

    async def handler(ws):
        accepted.set_result(ws)
        await done.wait()

    async with serve(handler, "127.0.0.1", 0, max_queue=1, **STREAM) as server, raw(server) as peer:
        ws = await accepted
        ws.data_received(frame(Opcode.TEXT, b"a", fin=False))
        ws.data_received(frame(Opcode.CONTINUATION, b"b", fin=False))
        ws._begin_closing(1000, "")
        await asyncio.sleep(0.15)
        ws.data_received(frame(Opcode.CONTINUATION, b"c", fin=False))
        stream = ws.recv_stream()
        assert [await anext(stream), await anext(stream)] == ["a", "b"]
        ws.data_received(frame(Opcode.CONTINUATION, b"d"))
        await peer.send(frame(Opcode.CLOSE, b"\x03\xe8"))
        with pytest.raises(ConnectionClosed):
            await anext(stream)
        done.set()


def test_no_other_kind_of_websocket_receives_parts():
    class Mine(WebSocket):
        pass

    with pytest.raises(TypeError, match="subclass of WebSocket"):
        connect("ws://127.0.0.1:9", protocol=Mine, stream=True)


@pytest.mark.parametrize("text", [False, True], ids=["binary", "text"])
async def test_a_message_in_crumbs_is_put_together_as_it_comes(pair, text):
    crumb, count = "€" if text else b"abc", 1000
    async with pair(server=STREAM) as (_, server):
        receiving = asyncio.create_task(server.recv())
        opcode = Opcode.TEXT if text else Opcode.BINARY
        for number in range(count):
            octets = crumb.encode() if text else crumb
            last = number == count - 1
            server.data_received(encode_frame(opcode, octets, fin=last, key=bytes(4)))
            await asyncio.sleep(0)
            assert len(server._begun) <= 256
            opcode = Opcode.CONTINUATION
        assert await receiving == crumb * count


async def test_parts_are_small(pair):
    async with pair(server=STREAM) as (client, server):
        await client.send(bytes(MIB))
        assert max(map(len, await parts_of(server))) <= 128 * KIB


# Hooks ----------------------------------------------------------------------------------------


@either_way
async def test_a_hook_gets_the_parts(url, deflate):
    class Digest(WebSocketProtocol):
        size = 0

        def on_message(self, message):
            raise AssertionError

        def on_message_part(self, part):
            self.size += len(part.data)
            if part.last:
                self.send(str(self.size))
                self.size = 0

    async with (
        serve(Digest, "127.0.0.1", 0, deflate=deflate, stream=True) as server,
        connect(url(server), deflate=deflate) as ws,
    ):
        for size in (0, 1, 3 * MIB):
            await ws.send(bytes(size))
            assert await ws.recv() == str(size)


async def test_a_hook_that_fails_closes_the_connection(url, caplog):
    class Failing(WebSocketProtocol):
        calls = 0

        def on_message_part(self, part):
            self.calls += 1
            raise ZeroDivisionError

    async with (
        serve(Failing, "127.0.0.1", 0, stream=True) as server,
        connect(url(server)) as ws,
    ):
        (protocol,) = server.connections
        await ws.send(["a", "b"])
        await ws.wait_closed()
        assert (ws.close_code, protocol.calls) == (1011, 1)
    assert "a hook of Failing failed" in caplog.text


# Back pressure ------------------------------------------------------------------------------


async def test_a_slow_reader_slows_down_its_peer(pair, settled):
    async with pair(server=STREAM | {"read_limit": 256 * KIB}) as (client, server):
        sent = 0

        async def fragments():
            nonlocal sent
            while sent < 64 * MIB:
                sent += 64 * KIB
                yield bytes(64 * KIB)

        sending = asyncio.create_task(client.send(fragments()))
        stream = server.recv_stream()
        await anext(stream)
        # (What the operating system buffers is in `sent`, too.)
        assert await settled(lambda: sent, quiet=0.3) < 48 * MIB
        assert sum(len(part.data) for part in server._sink.messages or ()) < MIB
        sending.cancel()
        await asyncio.wait([sending])
        await server.close()


@either_way
async def test_memory_does_not_depend_on_the_size(pair, deflate):
    # bench/streams.py does the same with 4 GiB.
    chunk, count = os.urandom(KIB) * 256, 128
    async with pair({"deflate": deflate}, {"deflate": deflate, **STREAM}) as (client, server):

        async def transfer():
            sending = asyncio.create_task(client.send(in_chunks(chunk, count)))
            size = 0
            async for part in server.recv_stream():
                size += len(part)
            await sending
            assert size == count * len(chunk)

        tracemalloc.start()
        try:
            before = tracemalloc.get_traced_memory()[0]
            await transfer()
            peak = tracemalloc.get_traced_memory()[1] - before
        finally:
            tracemalloc.stop()
    assert peak < 4 * MIB


# The source of a message -----------------------------------------------------------------------


@pytest.mark.parametrize("end", ["theirs", "ours", "lost"])
@pytest.mark.parametrize("begun", [False, True])
async def test_a_source_that_has_nothing_more_does_not_outlive_the_connection(pair, end, begun):
    cleaned_up = False

    async def fragments():
        nonlocal cleaned_up
        try:
            if begun:
                yield "a"
            await asyncio.Event().wait()
        finally:
            cleaned_up = True

    async with pair(server=STREAM) as (client, server):
        sending = asyncio.create_task(client.send(fragments()))
        if begun:
            assert await anext(server.recv_stream()) == "a"
        else:
            await client.ping()
        if end == "lost":
            server._transport.abort()
        else:
            await (client if end == "ours" else server).close()
        with pytest.raises(ConnectionClosed, match="1006" if end == "lost" else "1000"):
            await sending
        assert cleaned_up


async def test_a_source_that_is_interrupted_twice(pair):
    """A task that is cancelled while the connection ends stays cancelled."""

    async def fragments():
        await asyncio.Event().wait()
        yield ""

    async with pair() as (client, _):
        sending = asyncio.create_task(client.send(fragments()))
        await client.ping()
        client._begin_closing(1000, "")
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending


async def test_a_source_may_run_out_of_time(pair):
    async def fragments():
        async with asyncio.timeout(0):
            await asyncio.Event().wait()
        yield ""

    async with pair() as (client, server):
        with pytest.raises(TimeoutError):
            await client.send(fragments())
        await client.send("goes on")
        assert await server.recv() == "goes on"


@pytest.mark.parametrize("kind", [bytes, bytearray, bytes.decode])
async def test_others_run_while_fragments_are_compressed(pair, kind):
    loop, turns, seen = asyncio.get_running_loop(), 0, []
    ticking = True

    def tick():
        nonlocal turns
        turns += 1
        if ticking:
            loop.call_soon(tick)

    def fragments():
        for _ in range(24):
            seen.append(turns)
            yield kind(bytes(64 * KIB))

    async with pair({"deflate": True}, {"deflate": True, **STREAM}) as (client, server):
        loop.call_soon(tick)
        await client.send(fragments())
        ticking = False
        assert sum([len(part) async for part in server.recv_stream()]) == 24 * 64 * KIB
    assert max(seen.count(turn) for turn in seen) <= 5


# Files ------------------------------------------------------------------------------------------


@either_way
@pytest.mark.parametrize("size", [0, 1, 600 * KIB])
async def test_files_are_sent(pair, tmp_path, deflate, size):
    path = tmp_path / "file"
    path.write_text("aé\n" * (size // 4) + "a" * (size % 4), encoding="utf-8", newline="")
    text = path.read_text("utf-8")
    async with pair({"deflate": deflate}, {"deflate": deflate}) as (client, server):
        with (
            path.open("rb") as binary,
            path.open("rb", buffering=0) as unbuffered,
            path.open(encoding="utf-8", newline="") as characters,
        ):
            for file, expected in (
                (binary, path.read_bytes()),
                (unbuffered, path.read_bytes()),
                (characters, text),
                (io.BytesIO(text.encode()), text.encode()),
                (io.StringIO(text, newline=""), text),
            ):
                await client.send(file)
                assert await server.recv() == expected
                assert not file.closed


async def test_a_binary_file_is_sent_as_text(pair):
    text = "é" * (300 * KIB) + "a"
    async with pair() as (client, server):
        await client.send_text(io.BytesIO(b"a" + text.encode()))
        assert await server.recv() == "a" + text
        with pytest.raises(ValueError, match="not UTF-8"):
            await client.send_text(io.BytesIO(text.encode()[:-2]))
        with pytest.raises(ConnectionClosed, match="1011"):
            await server.recv()


async def test_a_message_is_echoed_while_it_arrives(url):
    async def handler(ws):
        with suppress(ConnectionClosed):
            while True:
                await ws.send(ws.recv_stream())

    async with (
        serve(handler, "127.0.0.1", 0, stream=True) as server,
        connect(url(server), stream=True) as ws,
    ):
        await ws.send("é" * 100_000)
        assert await ws.recv() == "é" * 100_000
        sending = asyncio.create_task(ws.send(in_chunks(b"a" * (64 * KIB), 64)))
        assert b"".join(await parts_of(ws)) == b"a" * (4 * MIB)
        await sending


async def test_a_file_is_sent_from_its_position_in_large_fragments(raw, url):
    async def handler(ws):
        file = io.BytesIO(bytes(10) + b"a" * (600 * KIB))
        file.seek(10)
        await ws.send(file)

    async with serve(handler, "127.0.0.1", 0) as server, raw(server) as peer:
        sizes = []
        while (frame := await peer.frame())[0] != 0x88:
            sizes.append((frame[0], len(frame[1])))
        assert sizes == [(0x02, 64 * KIB), (0x00, 512 * KIB), (0x00, 24 * KIB), (0x80, 0)]


async def test_a_stream_reader_is_sent(pair):
    async with pair() as (client, server):
        reader = asyncio.StreamReader()
        sending = asyncio.create_task(client.send(reader))
        reader.feed_data(b"one line\nand ")
        await asyncio.sleep(0)
        reader.feed_data(b"another")
        reader.feed_eof()
        await sending
        assert await server.recv() == b"one line\nand another"


async def test_what_read_returns_may_be_awaitable(pair):
    pieces = iter([b"a", b"b", b""])

    class Remote:
        def read(self, size):
            return asyncio.sleep(0, next(pieces))

    async with pair() as (client, server):
        await client.send(Remote())
        assert await server.recv() == b"ab"


async def test_a_thread_reads_ahead_one_piece(pair):
    """While a piece is sent, the next one is read; no more, and nothing after the end."""
    reads = []

    class File:
        def read(self, size):
            reads.append(size)
            return bytes(64) if len(reads) < 4 else b""

    async with pair(server=STREAM) as (client, server):
        await client.send(File())
        assert await server.recv() == bytes(3 * 64)
    assert reads == [64 * KIB] + [512 * KIB] * 3


async def test_what_is_read_ahead_may_fail_when_nobody_wants_it():
    loop, failed = asyncio.get_running_loop(), asyncio.Event()

    class Failing:
        pieces = 0

        def read(self, size):
            self.pieces += 1
            if self.pieces == 1:
                return b"a"
            loop.call_soon_threadsafe(loop.call_later, 0, failed.set)
            raise OSError("unplugged")

    fragments = as_fragments(Failing(), compressed=False)
    assert await anext(fragments) == b"a"
    await failed.wait()
    await loop.shutdown_default_executor()
    await asyncio.sleep(0)
    await fragments.aclose()  # (The loop would report an exception that nobody has seen.)


@pytest.mark.parametrize("kind", ["text", "ascii", "binary", "compressed"])
async def test_what_is_compressed_or_text_is_sent_in_smaller_pieces(pair, kind):
    is_text = kind in ("text", "ascii")
    content = ("\u0436" if kind == "text" else "a") * (150 * KIB)
    file = io.StringIO(content) if is_text else io.BytesIO(content.encode())
    sizes = []

    class File:
        def read(self, size):
            sizes.append(size)
            return file.read(size)

    deflate = {"deflate": kind == "compressed"}
    async with pair(deflate, deflate) as (client, server):
        await client.send(File())
        assert await server.recv() == (content if is_text else content.encode())
        first, large = 64 * KIB, 256 * KIB if is_text else 512 * KIB
        assert sizes == ([first] * 4 if kind == "compressed" else [first, large, large])
        # What is not ASCII takes more memory while it is encoded than to read it.
        assert server.stats.frames_received == (4 if kind in ("compressed", "text") else 3)


@pytest.mark.parametrize("asynchronous", [True, False])
async def test_large_items_of_text_are_cut_if_they_are_not_ascii(pair, asynchronous):
    items = ["\u0436" * (150 * KIB), "a" * (150 * KIB), "\U0001f600"]
    async with pair() as (client, server):
        await client.send(in_order(items) if asynchronous else items)
        assert await server.recv() == "".join(items)
        assert server.stats.frames_received == 3 + 1 + 1 + 1


@pytest.mark.parametrize(("result", "error"), [(None, TypeError), (1, TypeError)])
async def test_what_read_must_return(pair, result, error):
    class Broken:
        def read(self, size):
            return result

    async with pair() as (client, server):
        with pytest.raises(error):
            await client.send(Broken())
        await client.send("goes on")
        assert await server.recv() == "goes on"


async def test_a_file_that_has_nothing_yet_is_not_at_its_end(pair):
    pieces = iter([b"a", None])

    class NotBlocking(io.RawIOBase):
        def read(self, size=-1):
            return next(pieces)

    async with pair() as (client, server):
        with pytest.raises(TypeError):
            await client.send(NotBlocking())
        with pytest.raises(ConnectionClosed, match="1011"):
            await server.recv()


async def test_a_file_that_fails_ends_the_connection(pair):
    class Failing(io.RawIOBase):
        pieces = 0

        def read(self, size=-1):
            self.pieces += 1
            if self.pieces == 2:
                raise OSError("disk on fire")
            return b"a"

    async with pair() as (client, server):
        with pytest.raises(OSError, match="disk on fire"):
            await client.send(Failing())
        with pytest.raises(ConnectionClosed, match="1011"):
            await server.recv()


async def test_a_callback_cannot_send_a_file(url):
    async with (
        serve(WebSocketProtocol, "127.0.0.1", 0) as server,
        connect(url(server), protocol=WebSocketProtocol) as protocol,
    ):
        with pytest.raises(TypeError, match="bytes-like"):
            protocol.send(io.BytesIO(b"a"))
