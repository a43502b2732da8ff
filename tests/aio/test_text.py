"""Tests of text as bytes: what is received as `Text`, and sent with `send_text`."""

from __future__ import annotations

import asyncio
import gc
import io
import json

import pytest

from fastws import (
    Connection,
    ConnectionClosed,
    Role,
    StateError,
    Text,
    WebSocket,
    WebSocketProtocol,
    connect,
    prepare,
    serve,
)
from fastws.rules import memory_of

BYTES = {"decode_text": False}
DATA = json.dumps({"name": "Łódź", "sizes": list(range(200))}, ensure_ascii=False).encode()


async def echo(ws: WebSocket[Text]):
    async for message in ws:
        await ws.send(message)


class Echo(WebSocketProtocol[Text]):
    def on_message(self, message):
        self.send(message)


class EchoOfBytes(WebSocketProtocol[Text]):
    def on_message(self, message):
        match message:
            case Text(data):
                self.send_text(data)
            case bytes():
                self.send(message)


@pytest.mark.parametrize("handler", [echo, Echo, EchoOfBytes], ids=lambda made: made.__name__)
@pytest.mark.parametrize("deflate", [False, True], ids=["plain", "deflate"])
async def test_an_echo_of_text_and_bytes(url, handler, deflate):
    sent = ["", "a", "é", DATA.decode(), b"\xff", "é" * 100_000, b""]
    async with (
        serve(handler, "127.0.0.1", 0, decode_text=False, deflate=deflate) as server,
        connect(url(server), deflate=deflate) as client,
        connect(
            url(server), deflate=deflate, decode_text=False, protocol=WebSocket[Text]
        ) as reader,
    ):
        for ws in (client, reader):
            for message in sent:
                await ws.send(message)
        assert [await client.recv() for _ in sent] == sent
        expected = [Text(m.encode()) if isinstance(m, str) else m for m in sent]
        assert [await reader.recv() for _ in sent] == expected


async def test_text_that_is_not_utf8_is_1007_as_ever(raw, frame):
    for handler in (echo, Echo):
        async with serve(handler, "127.0.0.1", 0, decode_text=False) as server, raw(server) as peer:
            await peer.send(frame(1, b"a") + frame(1, b"\xe2\x82", fin=False) + frame(0, b"a")[:-1])
            assert await peer.frame() == (0x81, b"a")
            await peer.send(frame(0, b"a")[-1:])
            assert await peer.close_frame() == (1007, "text message is not UTF-8")


# recv(decode_text=...) ------------------------------------------------------------------------


@pytest.mark.parametrize("default", [True, False])
async def test_each_recv_chooses_whatever_came_before(pair, default):
    async with pair(server={"decode_text": default}) as (client, server):

        async def send():
            for message in ("é", b"b"):
                await client.send(message)
            await client.ping()  # they have arrived

        for decode_text in (None, True, False, None, False, True, None):
            wanted = default if decode_text is None else decode_text
            text = "é" if wanted else Text("é".encode())
            await send()
            assert await server.recv(decode_text=decode_text) == text
            assert await server.recv(decode_text=decode_text) == b"b"
            # And if the task waits for it.
            task = asyncio.create_task(server.recv(decode_text=decode_text))
            await asyncio.sleep(0)
            await send()
            assert await task == text
            assert await server.recv() == b"b"
        # What has arrived in one form is received in the other.
        forms = {True: "é", False: Text("é".encode())}
        for _ in range(3):
            await send()
        assert await server.recv(decode_text=not default) == forms[not default]
        assert await server.recv() == b"b"
        assert await server.recv() == forms[default]
        assert await anext(server) == b"b"
        assert await anext(server) == forms[default]


async def test_a_message_may_have_begun_in_the_other_form(raw, frame):
    received = []

    async def handler(ws):
        for decode_text in (None, False, None, True):
            received.append(await ws.recv(decode_text=decode_text))
            await ws.send("next")

    async with serve(handler, "127.0.0.1", 0) as server, raw(server) as peer:
        begin = frame(1, b"\xc3", fin=False)
        end = frame(0, b"\xa9")
        await peer.send(begin)
        for more in (True, True, True, False):
            await peer.send(end + begin if more else end)
            await peer.frame()
        assert received == ["é", Text(b"\xc3\xa9"), "é", "é"]


async def test_decoding_follows_the_last_call(pair):
    async with pair() as (client, server):
        decoded = []
        for decode_text in (None, False, False, None, None):
            task = asyncio.create_task(server.recv(decode_text=decode_text))
            await asyncio.sleep(0)
            await client.send("a")
            decoded.append(type(await task))
        assert decoded == [str, Text, Text, str, str]


async def test_what_arrives_after_a_call_has_the_form_it_asked_for(pair, settled):
    async with pair() as (client, server):
        for decode_text in (False, True):
            await client.send("a")
            await server.recv(decode_text=decode_text)
            await client.send("b")
            assert await settled(lambda: len(server._sink.messages or ())) == 1
            assert type(server._sink.messages[0]) is (str if decode_text else Text)
            await server.recv()


async def test_recv_of_a_message_that_comes_in_parts(pair):
    async with pair(server={"stream": True}) as (client, server):
        await client.send("é" * 100_000)
        assert await server.recv(decode_text=False) == Text("é".encode() * 100_000)


async def test_recv_at_the_end_and_out_of_turn(pair):
    async with pair() as (client, server):
        task = asyncio.create_task(server.recv(decode_text=False))
        await asyncio.sleep(0)
        with pytest.raises(StateError):
            await server.recv(decode_text=False)
        await client.close()
        with pytest.raises(ConnectionClosed):
            await task
        with pytest.raises(ConnectionClosed):
            await server.recv(decode_text=True)


# Limits ---------------------------------------------------------------------------------------


async def test_text_as_bytes_counts_as_what_waits(pair, settled):
    size = 50_000
    limits = {"decode_text": False, "read_limit": 4 * size, "max_queue": None}
    async with pair(server=limits) as (client, server):

        async def send():
            while True:
                await client.send("a" * size)

        sending = asyncio.create_task(send())
        waiting = await settled(lambda: len(server._sink.messages or ()))
        assert sum(map(memory_of, server._sink.messages)) > 4 * size
        assert waiting < 60
        sending.cancel()
        await asyncio.wait([sending])


async def test_max_message_size_is_in_bytes(pair):
    async with pair(server={"decode_text": False, "max_message_size": 4}) as (client, server):
        await client.send("éé")
        assert await server.recv() == Text("éé".encode())
        await client.send("ééa")
        with pytest.raises(ConnectionClosed) as info:
            await server.recv()
        assert info.value.code == 1009


# send_text ------------------------------------------------------------------------------------


async def pieces(*parts):
    for part in parts:
        await asyncio.sleep(0)
        yield part


@pytest.mark.parametrize("deflate", [False, True], ids=["plain", "deflate"])
@pytest.mark.parametrize(
    ("make", "arrives"),
    [
        (lambda: DATA, DATA.decode()),
        (lambda: bytearray(DATA), DATA.decode()),
        (lambda: memoryview(b"xaxb")[1::2], "ab"),
        (lambda: "str ✓", "str ✓"),
        (lambda: Text(DATA), DATA.decode()),
        (lambda: b"", ""),
        (lambda: "é".encode() * 200_000, "é" * 200_000),
        (lambda: [b"\xc3", b"", b"\xa9"], "é"),
        (lambda: (bytes([byte]) for byte in "é✓😀".encode()), "é✓😀"),
        (lambda: ["é", Text(b"a"), bytearray(b"b")], "éab"),
        (lambda: pieces(b"\xe2", b"\x9c\x93", "a"), "✓a"),
    ],
)
async def test_any_form_of_text_is_sent_as_text(pair, make, arrives, deflate):
    options = {"deflate": deflate}
    async with pair(client=options, server=options) as (client, server):
        for sender, receiver in ((client, server), (server, client)):
            await sender.send_text(make())
            await sender.send_text(make(), compress=False)
            assert await receiver.recv() == arrives
            assert await receiver.recv() == arrives


async def test_text_is_compressed_as_it_is_told(pair):
    data = b"a" * 10_000
    options = {"deflate": True}
    async with pair(client=options, server=options) as (client, server):
        for make in (lambda: data, lambda: Text(data), lambda: [data], lambda: io.BytesIO(data)):
            for compress in (True, False):
                before = server.stats.bytes_received
                await client.send_text(make(), compress=compress)
                assert await server.recv() == data.decode()
                assert (server.stats.bytes_received - before < 1000) is compress


async def test_a_callback_compresses_text_as_it_is_told(url):
    class Server(WebSocketProtocol[Text]):
        def on_message(self, message):
            self.send_text(message.data * 10_000, compress=message.data == b"c")

    options = {"deflate": True}
    async with (
        serve(Server, "127.0.0.1", 0, decode_text=False, **options) as server,
        connect(url(server), **options) as client,
    ):
        for letter in "cp":
            before = client.stats.bytes_received
            await client.send(letter)
            assert await client.recv() == letter * 10_000
            assert (client.stats.bytes_received - before < 1000) is (letter == "c")


async def test_text_in_memory_is_one_frame(pair):
    async with pair() as (client, _):
        for number, form in enumerate(["ab", b"ab", bytearray(b"ab"), Text(b"ab")], 1):
            await client.send_text(form)
            assert client.stats.frames_sent == number


async def test_the_handler_may_be_the_class_as_type_checkers_know_it(url):
    async with (
        serve(WebSocketProtocol[Text], "127.0.0.1", 0) as server,
        connect(url(server), protocol=WebSocketProtocol[Text]) as client,
    ):
        assert type(client) is WebSocketProtocol


async def test_send_takes_text_in_all_ways(pair):
    async with pair() as (client, server):
        await client.send(prepare(Text(b"a")))
        await client.send(["b", Text(b"c")])
        await client.send_text([])
        await client.send(Text(b"d"), compress=True)
        assert [await server.recv() for _ in range(3)] == ["a", "bc", "d"]


@pytest.mark.parametrize("message", [None, 1, {"a": "mapping"}, b"\xff", "\ud800", [1], [b"\xff"]])
async def test_what_is_no_text_is_refused(pair, message):
    async with pair() as (client, server):
        with pytest.raises((TypeError, ValueError)):
            await client.send_text(message)
        await client.send("still here")
        assert await server.recv() == "still here"


@pytest.mark.parametrize("parts", [[b"a", b"\xff"], [b"\xc3"], ["a", 1]], ids=repr)
async def test_text_that_breaks_off_ends_the_connection(pair, parts):
    async with pair() as (client, server):
        with pytest.raises((TypeError, ValueError)):
            await client.send_text(parts)
        with pytest.raises(ConnectionClosed) as info:
            await server.recv()
        assert info.value.code == 1011


async def test_a_callback_may_send_no_wrong_text(url):
    refused = []

    class Server(WebSocketProtocol):
        def on_open(self):
            for data in (b"\xff", 5, "\ud800"):
                try:
                    self.send_text(data)
                except (TypeError, ValueError) as exc:
                    refused.append(type(exc))
            self.send_text(b"a", compress=True)
            self.send_text(bytearray(b"b"))

    async with serve(Server, "127.0.0.1", 0) as server, connect(url(server)) as ws:
        assert [await ws.recv(), await ws.recv()] == ["a", "b"]
    assert refused == [ValueError, TypeError, UnicodeEncodeError]


# Everything else ------------------------------------------------------------------------------


async def test_a_closed_connection_refuses_text_too(pair):
    async with pair() as (client, _):
        await client.close()
        for message in (b"a", [b"a"]):
            with pytest.raises(ConnectionClosed):
                await client.send_text(message)


def test_texts_are_made_outside_of_the_decoder():
    """Creating an object may run the garbage collector, and that may run anything."""
    connection = Connection(Role.CLIENT, decode_text=False)
    frame = b"\x81\x01a"
    seen = []

    class Garbage:
        def __init__(self):
            self.me = self

        def __del__(self):
            seen.extend(connection.receive_data(frame))

    threshold = gc.get_threshold()
    gc.set_threshold(1, 1, 1)
    try:
        events = []
        for _ in range(20):
            Garbage()
            events += connection.receive_data(frame * 3)
    finally:
        gc.set_threshold(*threshold)
    assert len(events) == 60
    assert {*events, *seen} == {Text(b"a")}
    assert connection.error is None
