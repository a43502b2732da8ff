"""A user's program, for the type checker: public names have their documented types.

Each `type: ignore` is a mistake that mypy must find: an unneeded one is an error.
"""

import asyncio
import io
import sys
from functools import partial
from typing import assert_never, assert_type

import fastws
from fastws import (
    Close,
    Connection,
    Event,
    Frame,
    FrameDecoder,
    MessagePart,
    Ping,
    Pong,
    Role,
    Text,
)


class Chat(fastws.WebSocketProtocol):
    def __init__(self, room: str) -> None:
        super().__init__()
        self.room = room

    def on_message(self, message: str | bytes) -> None:
        self.send(f"{self.room}: {message!r}", compress=False)

    def on_close(self, code: int, reason: str) -> None:
        assert_type(self.state, fastws.State | None)


class ChatOfBytes(fastws.WebSocketProtocol[Text]):
    def on_message(self, message: Text | bytes) -> None:
        match message:
            case Text(data):
                self.send_text(assert_type(data, bytes), compress=False)
            case bytes():
                self.send(message)
            case _:
                assert_never(message)
        self.send_text([b"fragments"])  # type: ignore[arg-type]


class Upload(fastws.WebSocketProtocol):
    def on_message_part(self, part: MessagePart) -> None:
        assert_type(part.last, bool)


class ChatOfBoth(fastws.WebSocketProtocol[str | Text]):
    def on_message(self, message: str | Text | bytes) -> None:
        self.send(message)


async def echo_of_bytes(ws: fastws.WebSocket[Text]) -> None:
    assert_type(await ws.recv(), Text | bytes)
    async for message in ws:
        await ws.send(assert_type(message, Text | bytes))
    async for part in ws.recv_stream():
        assert_type(part, Text | bytes)
    await ws.send_text(b"data")
    await ws.send_text([b"da", "ta", Text(bytearray())], compress=True)
    await ws.send(Text("data"))  # type: ignore[arg-type]
    await ws.send_text(1)  # type: ignore[arg-type]


async def echo(ws: fastws.WebSocket) -> None:
    assert_type(await ws.recv(), str | bytes)
    assert_type(await ws.recv(decode_text=True), str | bytes)
    assert_type(await ws.recv(decode_text=False), Text | bytes)
    async for message in ws:
        assert_type(message, str | bytes)
        await ws.send(message)
    async for part in ws.recv_stream():
        assert_type(part, str | bytes)
    await ws.send(ws.recv_stream())
    await ws.send(io.StringIO())
    await ws.send_text(sys.stdin.buffer)
    await ws.send(sys)  # type: ignore[arg-type]
    assert_type(await ws.ping(), float)
    await ws.pong(b"data")
    await ws.send(1)  # type: ignore[arg-type]


def process_request(request: fastws.Request) -> fastws.Response | None:
    assert_type(request.headers.get("Host"), str | None)
    assert_type(request.headers.get("Host", "nobody"), str)
    return fastws.Response.text("OK\n") if request.path == "/health" else None


async def run_server() -> None:
    async with fastws.serve(partial(Chat, "a"), max_connections=1, max_lifetime=6) as server:
        for connection in server.connections:
            assert_type(connection.state, fastws.State | None)
        await server.serve_forever(drain=30)
        await server.drain(1.5, 1001)


async def process_later(request: fastws.Request) -> fastws.Accept | None:
    assert_type(request.peer, fastws.Peer | None)
    if request.peer is not None and request.peer.tls is not None:
        assert_type(request.peer.tls.server_name, str | None)
    return fastws.Accept({"Set-Cookie": "a=b"}, context=request.path)


checked: fastws.ProcessRequest = process_request
checked_too: fastws.ProcessRequest = process_later
fields: fastws.HeadersLike = {"X-Name": "value"}


async def main() -> None:
    async with (
        fastws.serve(echo, "localhost", 0, process_request=process_request, deflate=True) as server,
        fastws.serve(partial(Chat, "room"), "localhost", 0),
        fastws.serve(echo_of_bytes, "localhost", 0, decode_text=False),
        fastws.serve(ChatOfBytes, "localhost", 0, decode_text=False),
        fastws.serve(Upload, "localhost", 0, stream=True, max_stream_size=1 << 40),
        fastws.connect("ws://localhost", deflate=fastws.PerMessageDeflate(level=1)) as ws,
        fastws.connect("ws://localhost", protocol=lambda: Chat("room")) as chat,
        fastws.connect(
            "ws://localhost", protocol=fastws.WebSocket[Text], decode_text=False
        ) as of_bytes,
    ):
        assert_type(of_bytes, fastws.WebSocket[Text])
        assert_type(server, fastws.Server)
        assert_type(ws, fastws.WebSocket)
        assert_type(chat, Chat)
    assert_type(await fastws.connect("ws://localhost"), fastws.WebSocket)
    async for again in fastws.connect("ws://localhost"):
        assert_type(again, fastws.WebSocket)
    await fastws.connect(b"ws://localhost")  # type: ignore[arg-type]


class Screen:
    async def send(self, message: str | bytes) -> None: ...


def publish(chat: Chat, ws: fastws.WebSocket, screen: Screen) -> None:
    topics = fastws.Topics(slow=lambda topic: "drop", max_unsent_size=None, wait_timeout=None)
    for connection in (chat, ws, screen):
        topics.subscribe(connection, "news")
    published = topics.publish("news", "text", exclude=chat, slow="latest", key=("a", 1))
    assert_type(topics.publish("news", fastws.Text(b"text")), fastws.Published)
    assert_type(fastws.broadcast([chat, ws], fastws.Text(b"text")), fastws.Published)
    assert_type(published, fastws.Published)
    assert_type(published + published.dropped, int)
    assert_type(topics.of(ws), frozenset[str])
    assert_type(list(topics), list[str])
    assert_type(fastws.broadcast([ws], memoryview(b"binary")), fastws.Published)
    fastws.broadcast([ws], Text(b"text"))
    topics.publish("news", Text(b"text"))
    topics.publish("news", 1)  # type: ignore[arg-type]
    topics.publish("news", "text", slow="gently")  # type: ignore[arg-type]
    topics.subscribe("ws", "news")  # type: ignore[arg-type]


async def wait_for_all(topics: fastws.Topics) -> None:
    assert_type(await topics.publish("news", "text", slow="wait"), fastws.Published)


def without_io(data: bytes) -> bytes:
    handshake = fastws.ServerHandshake(extensions=[fastws.PerMessageDeflate()])
    assert_type(handshake.deflate, fastws.Agreement | None)
    assert_type(fastws.ClientHandshake("ws://localhost").deflate, fastws.Agreement | None)
    connection = Connection(Role.SERVER, max_message_size=None, deflate=handshake.deflate)
    for event in assert_type(connection.receive_data(memoryview(data)), list[Event]):
        match event:
            case str() | bytes() | Text():
                connection.send(event)
            case MessagePart(part, last):
                assert_type(part, str | Text | bytes)
                connection.send(part, fin=last)
            case Ping(payload) | Pong(payload):
                assert_type(payload, bytes)
            case Close(code, reason):
                assert_type(code, int)
                assert_type(reason, str)
            case _:
                assert_never(event)
    connection.send(fastws.prepare("for all"))
    assert_type(connection.send_text(data, fin=True), int)
    fastws.prepare(Text(data))
    return assert_type(connection.data_to_send(), bytes)


def session(data: bytes) -> None:
    server = fastws.Session.server(deflate=True, ping_interval=None)
    fastws.Session.server(ping_intervall=None)  # type: ignore[call-arg]
    for event in fastws.Session.client("ws://localhost", half_close=False):
        session_event(server, event, data)
    server.abort()
    assert_type(server.error, Exception | None)


def session_event(server: fastws.Session, event: fastws.SessionEvent, data: bytes) -> None:
    match event:
        case fastws.Write(timeout) | fastws.Read(timeout):
            assert_type(timeout, float)
            server.receive_data(data)
        case str() | bytes() | Text():
            server.send(event)
        case MessagePart():
            server.send(event.data, fin=event.last)
        case fastws.Request():
            server.accept(headers={"Set-Cookie": event.path})
        case fastws.Opened() | fastws.HalfClose() | Ping() | Pong() | Close():
            assert_type(server.data_to_send(), bytes)
        case _:
            assert_never(event)


def codec(data: bytearray) -> None:
    decoder = fastws.MessageDecoder(masked=True)
    assert_type(decoder.feed(data), list[Event])
    assert_type(decoder.error, fastws.ProtocolError | None)
    encoder = fastws.MessageEncoder()
    assert_type(encoder.text("text", key=b"1234"), int)
    assert_type(encoder.text_bytes(data, fin=False), int)
    assert_type(encoder.take(), bytes)
    for frame in FrameDecoder(masked=None, max_payload_size=10).feed(data):
        assert_type(frame, Frame)
        assert_type(frame.opcode, fastws.Opcode)
    assert_type(fastws.encode_frame(fastws.Opcode.TEXT, b"text", key=None), bytes)
    assert_type(fastws.apply_mask(data, b"1234"), bytes)
    fastws.apply_mask_inplace(data, b"1234", offset=3)
    assert_type(fastws.Utf8Validator().feed(data), bool)
    assert_type(fastws.decode_utf8(data), str)
    assert_type(fastws.implementation, str)
    assert_type(fastws.kernel, str)
    assert_type(fastws.__version__, str)
    fastws.MessageDecoder(True)  # type: ignore[call-arg]
    fastws.apply_mask("text", b"1234")  # type: ignore[arg-type]


asyncio.run(main())
