"""Fuzzes Session: whatever a peer sends, and whenever, the connection ends in order.

python fuzz/session.py [libFuzzer's options] [corpus]
"""

from __future__ import annotations

from itertools import chain, repeat
from typing import Any

from common import Input, fuzz, instrumented
from handshake import KEY, parse

with instrumented():
    from fastws.connection import Connection
    from fastws.deflate import PerMessageDeflate
    from fastws.events import MessagePart, Text
    from fastws.exceptions import HandshakeError, ProtocolError, RequestError
    from fastws.handshake import ClientHandshake, ServerHandshake
    from fastws.http import Request, Response
    from fastws.session import HalfClose, Opened, Read, Session, Write
    from fastws.spec import Role, State

LIMIT = 1 << 14
MOST_EVENTS = 100_000
ANSWERS = ("nothing", "accept", "respond", "reject")


class Life:
    """The life of one session, by a clock that only silence moves."""

    def __init__(self, flags: int, answer: str, silences: int, pieces: list[bytes]) -> None:
        self.now = 0.0
        deflate = [PerMessageDeflate()] if flags & 2 else []
        limits: dict[str, Any] = {"max_message_size": LIMIT}
        if flags & 4:
            limits = {"stream": True, "max_stream_size": LIMIT}
        self.is_client = bool(flags & 1)
        self.session = Session(
            ClientHandshake("ws://h", key=KEY, extensions=deflate)
            if self.is_client
            else ServerHandshake(extensions=deflate),
            **limits,
            decode_text=not flags & 8,
            half_close=not flags & 16,
            clock=lambda: self.now,
        )
        self.answer = answer
        self.silences = chain((bool(silences >> i & 1) for i in range(8)), repeat(False))
        self.pieces = pieces
        self.messages: list[Any] = []
        self.echoed: list[Any] = []
        self.sent = b""
        self.has_opened = self.has_ended = self.is_half_closed = False

    def run(self) -> None:
        for number, event in enumerate(self.session):
            assert number < MOST_EVENTS, "it does not end"
            self.handle(event)
        session = self.session
        assert session.data_to_send() == b""
        assert list(session) == []
        assert session.state is (State.CLOSED if self.has_opened else None)
        assert (session.close_code is not None) is self.has_opened
        error = session.error
        if self.has_opened:
            assert error is None or isinstance(error, ProtocolError), error
        elif self.is_client:
            assert isinstance(error, (HandshakeError, TimeoutError)), error

    def handle(self, event: Any) -> None:
        session = self.session
        match event:
            case Write(timeout):
                assert timeout > 0
                self.write()
            case Read(timeout):
                assert timeout > 0
                assert not self.has_ended, "a Read after the end of the stream"
                self.read(timeout)
            case HalfClose():
                assert not self.is_half_closed
                self.is_half_closed = True
            case Request():
                self.decide()
            case Opened():
                assert not self.has_opened
                self.has_opened = True
            case _:
                assert self.has_opened
                self.messages.append(event)
                if isinstance(event, (str, bytes, Text)) and session.state is State.OPEN:
                    self.echo(event)

    def write(self) -> None:
        octets = self.session.data_to_send()
        assert not (octets and self.is_half_closed), "bytes after HalfClose"
        self.sent += octets

    def read(self, timeout: float) -> None:
        if next(self.silences) or not self.pieces:
            self.now += timeout
        else:
            piece = self.pieces.pop(0)
            self.has_ended = not piece
            self.session.receive_data(piece)

    def decide(self) -> None:
        match self.answer:
            case "accept":
                self.session.accept(context="found")
            case "respond":
                self.session.respond(Response(404, body=b"no"))
            case "reject":
                self.session.reject(RequestError("no", 403))

    def echo(self, message: Any) -> None:
        if self.session.close_code is None:
            self.session.send(message, compress=False)
            self.echoed.append(str(message) if isinstance(message, Text) else message)


def check_sent(life: Life) -> None:
    """Another implementation, or our other end, must understand what was sent."""
    head, blank, frames = life.sent.partition(b"\r\n\r\n")
    if life.is_client:
        assert ServerHandshake().receive_data(head + blank) is not None
    elif life.has_opened:
        assert parse(head + blank, frames).status_code == 101
    elif life.sent:
        assert parse(life.sent).status_code != 101
        return
    peer = Connection(Role.SERVER if life.is_client else Role.CLIENT)
    events = peer.receive_data(frames)
    while peer.has_pending:
        events += peer.receive_data(b"")
    assert peer.error is None, peer.error
    messages = [event for event in events if isinstance(event, (str, bytes))]
    assert messages == life.echoed[: len(messages)]


def check(data: bytes) -> None:
    source = Input(data)
    flags, answer, silences = source.byte(), source.choice(ANSWERS), source.byte()
    cut = source.cut()
    stream = source.rest()
    life = Life(flags, answer, silences, cut(stream))
    life.run()
    check_sent(life)
    if not silences:
        # However the stream is split, the messages are the same.
        whole = Life(flags, answer, 0, [stream, b""] if stream else [b""])
        whole.run()
        assert content(life.messages) == content(whole.messages)


def content(events: list[Any]) -> list[Any]:
    """Whole messages, as bytes, and all other events. (Where a message is cut differs, and so does
    what was received of one that breaks the rules.)"""
    result, message = [], b""
    for event in events:
        if not isinstance(event, MessagePart):
            result.append(event)
            continue
        data = event.data
        message += data.encode() if isinstance(data, str) else bytes(data)
        if event.last:
            result.append(message)
            message = b""
    return result


if __name__ == "__main__":
    fuzz(check)
