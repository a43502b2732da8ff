"""Tests of `Session`: two talk to each other, or one is fed what a peer would send.

The clock of these tests is a number, and nothing waits. tests/aio/test_same_answers.py compares
the session to the asyncio server and client, and tests/test_examples.py runs it on sockets.
"""

from __future__ import annotations

import copy
import pickle
import queue
import random
import socket
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fastws
from fastws import (
    ClientHandshake,
    Close,
    Connection,
    ConnectionClosed,
    FrameDecoder,
    HalfClose,
    HandshakeError,
    InternalError,
    InvalidURIError,
    MessagePart,
    MessageTooBigError,
    Opcode,
    Opened,
    Peer,
    PerMessageDeflate,
    Ping,
    Pong,
    ProtocolError,
    Read,
    Request,
    RequestError,
    Response,
    ResponseError,
    Role,
    ServerHandshake,
    Session,
    State,
    StateError,
    Text,
    Write,
    encode_frame,
)
from fastws.deflate import Inflater

from .tools import TIMEOUT, traced
from .wire import OFFER, compressed, pieces, upgrade_request

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

URI = "ws://localhost/chat"
KEY = b"\x01\x02\x03\x04"
GOOD = upgrade_request()
MIB = 1 << 20


@dataclass
class Clock:
    """Time passes only if a test says so."""

    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Driver:
    """Does what a session says, with lists in place of a socket.

    Attributes:
        session: the session.
        out: what it has written.
        events: all other events so far.
        answers: what to do about an event.
    """

    session: Session
    clock: Clock
    answers: Callable[[Session, Any], object] = lambda session, event: None
    out: bytes = b""
    events: list[Any] = field(default_factory=list)

    def run(self, arriving: Iterable[bytes] = ()) -> Any:
        """Go on until the session wants to read and nothing more arrives. Return that Read, or
        None at the end."""
        waiting = list(arriving)
        for event in self.session:
            match event:
                case Write():
                    self.out += self.session.data_to_send()
                case Read():
                    if not waiting:
                        return event
                    self.session.receive_data(waiting.pop(0))
                case _:
                    self.events.append(event)
                    self.answers(self.session, event)
        return None

    def expire(self) -> Any:
        """Let the next Read take all of its time, without result; return the one after it."""
        read = self.run()
        assert isinstance(read, Read)
        self.clock.now += read.timeout
        return self.run()

    def take(self) -> bytes:
        out, self.out = self.out, b""
        return out

    def frames(self) -> list[Any]:
        """Read what was written after the handshake."""
        masked = self.session.role is Role.CLIENT
        head, end, rest = self.take().partition(b"\r\n\r\n")
        octets = rest if head.startswith((b"HTTP/1.1 ", b"GET ")) else head + end + rest
        frames = FrameDecoder(masked=masked).feed(octets)
        return [(frame.opcode, frame.payload) for frame in frames]


def server(answers: Any = None, **options: Any) -> Driver:
    clock = Clock()
    return Driver(Session.server(clock=clock, **options), clock, answers or echo)


def client(answers: Any = None, **options: Any) -> Driver:
    clock = Clock()
    uri = options.pop("uri", URI)
    return Driver(Session.client(uri, clock=clock, **options), clock, answers or nothing)


def opened(**options: Any) -> Driver:
    driver = server(**options)
    driver.run([GOOD])
    assert driver.take().startswith(b"HTTP/1.1 101 ")
    driver.events.clear()
    return driver


def opened_client(answers: Any = None, **options: Any) -> Driver:
    driver = client(answers, **options)
    driver.run()
    handshake = ServerHandshake()
    request = handshake.receive_data(driver.take())
    assert request is not None
    driver.run([handshake.accept(request)])
    assert driver.events == [Opened()]
    driver.events.clear()
    return driver


def nothing(session: Session, event: object) -> None:
    pass


def echo(session: Session, event: object) -> None:
    if isinstance(event, (str, bytes)):
        session.send(event)


def frame(opcode: int, payload: bytes = b"", **options: Any) -> bytes:
    return encode_frame(opcode, payload, key=KEY, **options)


def close_frame(code: int = 1000, reason: bytes = b"") -> bytes:
    return frame(Opcode.CLOSE, code.to_bytes(2, "big") + reason)


TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10


def connect(one: Driver, other: Driver, size: int = 1 << 16) -> None:
    """Carry bytes between two sessions, in pieces of a size, until both have ended."""
    drivers = [(one, other), (other, one)]
    ended = [False, False]
    waits = 0
    while ended != [True, True]:
        before = (one.events[:], other.events[:], ended[:])
        moved = False
        for number, (me, peer) in enumerate(drivers):
            ended[number] = ended[number] or me.run() is None
            octets = me.take()
            moved = moved or bool(octets)
            for start in range(0, len(octets), size):
                peer.run([octets[start : start + size]])
            if ended[number] or HalfClose() in me.events:
                peer.session.receive_eof()
        if not moved and before == (one.events, other.events, ended):
            waits += 1
            one.clock.now += 0.2
            other.clock.now += 0.2
            assert waits < 3, "they never end"


# A whole life ---------------------------------------------------------------------------------


def test_a_conversation_from_the_request_to_the_end_of_tcp() -> None:
    def talk(session: Session, event: object) -> None:
        match event:
            case Opened():
                session.send("Hello")
                session.send(b"\x00\x01")
            case bytes():
                session.ping(b"?")
            case Pong():
                session.close(4000, "bye")

    one, other = (
        client(talk, deflate=True, subprotocols=["chat"]),
        server(deflate=True, subprotocols=["chat"]),
    )
    connect(one, other)
    assert one.events == [
        Opened(),
        "Hello",
        b"\x00\x01",
        Pong(b"?"),
        Close(4000, "bye"),
    ]
    assert other.events == [
        other.session.request,
        Opened(),
        "Hello",
        b"\x00\x01",
        Ping(b"?"),
        Close(4000, "bye"),
        HalfClose(),
    ]
    for session in (one.session, other.session):
        assert (session.stats.pings_sent, session.stats.pings_received) in ((1, 0), (0, 1))
        assert (session.close_code, session.close_reason) == (4000, "bye")
        assert session.error is None
        assert session.state is State.CLOSED
        assert session.subprotocol == "chat"
        assert list(session) == []
    assert one.session.uri is not None
    assert (one.session.uri.host, one.session.uri.port) == ("localhost", 80)
    assert other.session.request is not None
    assert other.session.request.path == "/chat"
    assert one.session.response is not None
    assert one.session.response.status == 101


messages = st.lists(st.text(max_size=300) | st.binary(max_size=300), max_size=8)


@settings(deadline=None)
@given(
    sent=messages,
    size=st.sampled_from([1, 7, 100, 10_000]),
    deflate=st.booleans(),
    half_close=st.booleans(),
)
def test_any_messages_come_back_however_the_stream_is_cut(
    sent: list[str | bytes], size: int, deflate: bool, half_close: bool
) -> None:
    def talk(session: Session, event: object) -> None:
        if isinstance(event, Opened):
            for message in sent:
                session.send(message)
        elif isinstance(event, (str, bytes)):
            received.append(event)
        if len(received) == len(sent):
            session.close()

    received: list[str | bytes] = []
    options: dict[str, Any] = {"deflate": deflate, "half_close": half_close}
    connect(client(talk, **options), other := server(**options), size)
    assert received == sent
    assert other.session.close_code == 1000


@pytest.mark.parametrize("how", ["whole", "bytewise", 1, 2, 3])
def test_frames_that_follow_the_handshake_at_once_are_not_lost(how: str | int) -> None:
    driver = server()
    stream = GOOD + frame(TEXT, b"early") + close_frame()
    driver.run([*pieces(stream, how), b""])
    assert driver.events[1:] == [Opened(), "early", Close(1000, ""), HalfClose()]
    assert driver.frames() == [(TEXT, b"early"), (CLOSE, b"\x03\xe8")]

    driver = client()
    driver.run()
    handshake = ServerHandshake()
    request = handshake.receive_data(driver.take())
    assert request is not None
    stream = handshake.accept(request) + encode_frame(TEXT, b"early")
    driver.run(pieces(stream, how))
    assert driver.events == [Opened(), "early"]


def test_frames_may_arrive_while_the_request_is_considered() -> None:
    session = server().session
    session.receive_data(GOOD + frame(TEXT, b"a")[:3])
    assert isinstance(next(session), Request)
    session.receive_data(frame(TEXT, b"a")[3:])
    session.accept()
    assert next(session) == Opened()
    assert isinstance(next(session), Write)
    session.data_to_send()
    assert next(session) == "a"


def test_the_caller_may_stop_and_go_on_later() -> None:
    session = opened().session
    session.receive_data(frame(TEXT, b"a") + frame(TEXT, b"b"))
    assert next(session) == "a"
    for event in session:
        assert event == "b"
        break
    assert isinstance(next(session), Read)
    assert isinstance(next(session), Read)
    assert iter(session) is session


def test_repr_says_role_and_state() -> None:
    driver = server()
    session = driver.session
    assert repr(session) == "<Session server opening>"
    session.receive_data(GOOD)
    next(session)
    assert repr(session) == "<Session server deciding>"
    driver.run()
    assert repr(session) == "<Session server open>"
    session.close()
    assert repr(session) == "<Session server closing>"
    driver.run([close_frame()])
    assert repr(session) == "<Session server closed 1000>"
    assert repr(client().session) == "<Session client opening>"

    class Subclass(Session):
        pass

    assert repr(Subclass.client(URI)) == "<Subclass client opening>"


# The opening handshake ------------------------------------------------------------------------


def test_a_server_accepts_by_default_once_the_caller_goes_on() -> None:
    driver = server(headers={"Server": "mine"})
    session = driver.session
    session.receive_data(GOOD)
    request = next(session)
    assert isinstance(request, Request)
    assert session.request is request
    assert (session.state, session.data_to_send()) == (None, b"")
    assert next(session) == Opened()
    assert session.state is State.OPEN
    assert isinstance(next(session), Write)
    assert b"Server: mine\r\n" in session.data_to_send()


def test_accept_adds_header_fields_and_the_server_may_speak_first() -> None:
    def welcome(session: Session, event: object) -> None:
        if isinstance(event, Request):
            session.accept(headers={"Set-Cookie": "a=b"})
            session.send("welcome")

    driver = server(welcome)
    assert isinstance(driver.run([GOOD]), Read)
    assert b"Set-Cookie: a=b\r\n" in driver.out
    assert driver.frames() == [(TEXT, b"welcome")]
    assert isinstance(driver.events[0], Request)
    assert driver.events[1:] == [Opened()]


def test_accept_takes_what_was_found_out_about_the_client() -> None:
    peer = Peer(("192.0.2.1", 1))
    clock = Clock()
    session = Session.server(peer=peer, subprotocols=["a"], clock=clock)
    assert session.context is None

    def accept(session: Session, event: object) -> None:
        if isinstance(event, Request):
            assert event.peer is peer
            session.accept(context="alice", subprotocol="b")
            assert session.context == "alice"

    driver = Driver(session, clock, accept)
    driver.run([upgrade_request("Sec-WebSocket-Protocol: a, b")])
    assert b"Sec-WebSocket-Protocol: b\r\n" in driver.out
    assert (session.context, session.subprotocol) == ("alice", "b")


def test_accept_refuses_a_client_that_does_not_offer_the_subprotocol() -> None:
    clock = Clock()
    session = Session.server(clock=clock)

    def accept(session: Session, event: object) -> None:
        if isinstance(event, Request):
            session.accept(context="alice", subprotocol="b")

    driver = Driver(session, clock, accept)
    driver.run([GOOD])
    assert driver.out.startswith(b"HTTP/1.1 400 ")
    assert (session.context, session.state) == (None, None)


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (lambda s: s.respond(Response.text("OK")), b"200 OK"),
        (lambda s: s.reject(RequestError("no", 403)), b"403 Forbidden"),
    ],
)
def test_a_server_may_answer_with_plain_http(answer: Any, status: bytes) -> None:
    driver = server(lambda session, event: answer(session) if event is session.request else None)
    read = driver.run([GOOD + b"more"])
    assert driver.take().startswith(b"HTTP/1.1 " + status)
    assert isinstance(driver.events[0], Request)
    assert driver.events[1:] == [HalfClose()]
    assert read == Read(10.0)
    assert driver.run([b"what is dropped", b""]) is None
    assert driver.take() == b""
    session = driver.session
    assert (session.state, session.close_code, session.close_reason) == (None, None, "")
    error = session.error
    assert error is None if status[:3] == b"200" else isinstance(error, RequestError)
    with pytest.raises(ConnectionClosed, match="never open"):
        session.send("x")


@pytest.mark.parametrize(
    ("data", "status", "asks"),
    [
        (b"\xff\r\n\r\n", b"400", False),
        (b"GET / HTTP/1.1\r\nA: " + b"b" * 20_000, b"431", False),
        (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", b"426", True),
        (GOOD.replace(b"GET", b"POST"), b"405", True),
        (upgrade_request("Origin: https://evil.example"), b"403", True),
    ],
)
def test_a_bad_request_is_refused_for_the_caller(data: bytes, status: bytes, asks: bool) -> None:
    driver = server(origins=["https://good.example", None])
    assert driver.run([data, b"and more", b""]) is None
    assert driver.out.startswith(b"HTTP/1.1 " + status)
    assert [type(event) for event in driver.events] == [Request, HalfClose][not asks :]
    assert isinstance(driver.session.error, RequestError)
    assert driver.session.error.status == int(status)


def test_accept_refuses_a_bad_request_too() -> None:
    driver = server(lambda s, event: s.accept() if isinstance(event, Request) else None)
    driver.run([GOOD.replace(b"13", b"99")])
    assert driver.take().startswith(b"HTTP/1.1 426")
    with pytest.raises(StateError, match="no request to answer"):
        driver.session.accept()


def test_a_client_gives_up_at_once_if_the_server_refuses() -> None:
    driver = client()
    driver.run()
    assert driver.take().startswith(b"GET /chat HTTP/1.1\r\nHost: localhost\r\n")
    assert driver.run([b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\n", b"no"]) is None
    error = driver.session.error
    assert isinstance(error, ResponseError)
    assert error.response is not None
    assert (error.response.status, error.response.body) == (404, b"no")
    assert driver.events == []
    assert driver.session.response is None


@pytest.mark.parametrize(
    ("data", "error"),
    [
        ([b""], ResponseError),
        ([b"HTTP/1.1 404 Not Found\r\n\r\nno", b""], ResponseError),
        ([b"HTTP/1.1 101 \r\n\r\n"], ResponseError),
        ([b"SSH-2.0"], ResponseError),
    ],
)
def test_a_client_without_a_good_response(data: list[bytes], error: type[Exception]) -> None:
    driver = client()
    assert driver.run(data) is None
    assert isinstance(driver.session.error, error)
    assert driver.session.state is None


def test_a_server_whose_client_leaves_says_nothing() -> None:
    driver = server()
    assert driver.run([GOOD[:10], b""]) is None
    assert driver.out == b""
    assert isinstance(driver.session.error, HandshakeError)


@pytest.mark.parametrize("make", [server, client])
def test_close_before_it_is_open_gives_up_without_a_word(make: Any) -> None:
    driver = make()
    driver.session.close()
    assert driver.run() is None
    assert driver.out == driver.session.data_to_send() == b""
    assert driver.session.error is None
    driver.session.receive_data(b"dropped")
    driver.session.close()

    driver = server(lambda session, event: session.close())
    assert driver.run([GOOD]) is None
    assert driver.out == b""


def test_handshakes_of_the_callers_own() -> None:
    handshake = ServerHandshake(extensions=[PerMessageDeflate()], max_headers=7)
    driver = Driver(Session(handshake), Clock(), echo)
    driver.run([OFFER])
    assert b"permessage-deflate" in driver.out
    session = Session(ClientHandshake("wss://localhost:1", key=bytes(16)))
    assert session.uri is not None
    assert session.uri.port == 1


def test_the_handshake_gets_its_arguments() -> None:
    driver = client(origin="https://a.example", headers={"X-A": "b"}, max_header_size=100)
    driver.run()
    assert b"\r\nOrigin: https://a.example\r\n" in driver.out
    assert b"\r\nX-A: b\r\n" in driver.out
    driver.run([b"HTTP/1.1 101 \r\nX: " + b"y" * 100])
    assert isinstance(driver.session.error, ResponseError)
    driver = server(max_header_size=100)
    driver.run([GOOD])
    assert driver.out.startswith(b"HTTP/1.1 431 ")


# The end of TCP (RFC 6455 §7.1.1) --------------------------------------------------------------


def test_a_server_shuts_down_its_side_first_and_reads_to_the_end() -> None:
    driver = opened()
    assert driver.run([close_frame()]) == Read(10.0)
    assert driver.frames() == [(CLOSE, b"\x03\xe8")]
    assert driver.events == [Close(1000, ""), HalfClose()]
    driver.clock.now += 4
    assert driver.run([b"\xff" * 100]) == Read(6.0)
    assert driver.expire() is None


def test_a_client_waits_for_the_server_to_close() -> None:
    driver = opened_client()
    driver.session.close(1000)
    driver.run()
    driver.clock.now += 3
    assert driver.run([encode_frame(CLOSE, b"\x03\xe8")]) == Read(10.0)
    assert driver.events == [Close(1000, "")]
    assert driver.run([b"dropped", b""]) is None


@pytest.mark.parametrize("role", Role)
def test_after_a_violation_the_peer_may_read_our_close_frame(role: Role) -> None:
    driver = opened() if role is Role.SERVER else opened_client()
    read = driver.run([b"\xff\xff"])
    assert driver.frames()[0][1][:2] == b"\x03\xea"
    assert driver.events == [HalfClose()]
    assert read == Read(10.0)
    assert isinstance(driver.session.error, ProtocolError)
    assert driver.session.close_code == 1002
    assert driver.run([b"x" * 1000, b"x" * 1000, b""]) is None


@pytest.mark.parametrize("role", Role)
def test_without_half_close_a_peer_that_may_send_is_read_until_it_is_silent(role: Role) -> None:
    options = {"half_close": False}
    driver = opened(**options) if role is Role.SERVER else opened_client(**options)
    assert driver.run([b"\xff\xff"]) == Read(1.0)
    for _ in range(3):
        driver.clock.now += 0.75
        assert driver.run([b"more"]) == Read(1.0)
    driver.clock.now += 0.25
    assert driver.run() == Read(0.75)
    assert driver.expire() is None
    assert driver.events == []


def test_without_half_close_who_is_refused_is_read_until_silent() -> None:
    driver = server(half_close=False)
    assert driver.run([b"\xff\r\n\r\n"]) == Read(1.0)
    assert driver.run([b"more"]) == Read(1.0)
    assert driver.events == []
    assert driver.expire() is None


def test_without_half_close_no_peer_sends_for_ever() -> None:
    driver = opened(half_close=False, close_timeout=5)
    assert driver.run([b"\xff\xff"]) == Read(1.0)
    for _ in range(9):
        driver.clock.now += 0.5
        read = driver.run([b"more"])
    assert read == Read(0.5)
    driver.clock.now += 0.5
    assert driver.run() is None


def test_without_half_close_a_good_end_takes_a_moment() -> None:
    driver = opened(half_close=False)
    driver.clock.now = 0
    assert driver.run([close_frame()]) == Read(0.1)
    assert driver.frames() == [(CLOSE, b"\x03\xe8")]
    assert driver.run([b"nonsense"]) == Read(0.1)
    assert driver.expire() is None


def test_a_client_over_tls_expects_no_half_close() -> None:
    driver = opened_client(uri="wss://localhost/")
    assert driver.run([b"\xff\xff"]) == Read(1.0)
    assert driver.events == []
    driver = opened_client(uri="wss://localhost/", half_close=True)
    driver.run([b"\xff\xff"])
    assert driver.events == [HalfClose()]


def test_a_peer_that_has_ended_its_side_is_not_waited_for() -> None:
    driver = opened()
    assert driver.run([frame(TEXT, b"a") + close_frame(4000, b"bye"), b""]) is None
    assert driver.frames() == [(TEXT, b"a"), (CLOSE, b"\x0f\xa0bye")]
    driver = opened()
    assert driver.run([frame(TEXT, b"a"), b""]) is None
    assert driver.frames() == [(TEXT, b"a")]
    assert driver.session.close_code == 1006
    driver = opened()
    driver.session.receive_data(frame(TEXT, b"a") + close_frame())
    driver.session.receive_eof()
    assert driver.run() is None
    assert driver.events == ["a", Close(1000, "")]
    assert driver.frames() == [(TEXT, b"a"), (CLOSE, b"\x03\xe8")]


# If reading or writing fails --------------------------------------------------------------------


@pytest.mark.parametrize("make", [opened, opened_client])
def test_abort_ends_an_open_connection_for_all_that_use_it(make: Any) -> None:
    session = make().session
    session.send(bytes(MIB))
    assert isinstance(next(session), Write)
    session.abort()
    assert list(session) == []
    assert (session.data_to_send(), session.bytes_queued) == (b"", 0)
    assert (session.state, session.close_code, session.error) == (State.CLOSED, 1006, None)
    with pytest.raises(ConnectionClosed, match="1006"):
        session.send("x")
    for _ in range(2):
        session.receive_data(b"dropped")
    session.abort()
    session.close()
    assert list(session) == []


def test_abort_while_the_last_messages_are_answered() -> None:
    """… keeps the peer's close code."""
    driver = opened()
    session = driver.session
    session.receive_data(frame(TEXT, b"a") + frame(TEXT, b"b") + close_frame(4000))
    assert next(session) == "a"
    session.send("answer")
    session.abort()
    assert list(session) == []
    assert (session.data_to_send(), session.bytes_queued) == (b"", 0)
    assert (session.state, session.close_code) == (State.CLOSED, 4000)
    with pytest.raises(ConnectionClosed, match="4000"):
        session.send("x")


def test_abort_after_our_close_frame() -> None:
    driver = opened()
    driver.session.close(4000)
    driver.session.abort()
    assert (driver.run(), driver.out, driver.session.close_code) == (None, b"", 1006)
    driver = opened()
    driver.run([close_frame(4001)])  # and now it waits for the end of TCP
    driver.session.abort()
    assert (driver.run(), driver.session.close_code) == (None, 4001)


@pytest.mark.parametrize("make", [server, client])
def test_abort_before_it_is_open(make: Any) -> None:
    driver = make()
    driver.session.abort()
    assert (driver.run(), driver.out, driver.session.bytes_queued) == (None, b"", 0)
    assert (driver.session.state, driver.session.close_code) == (None, None)
    with pytest.raises(ConnectionClosed, match="never open"):
        driver.session.send("x")
    driver = server(lambda session, event: session.abort())
    assert driver.run([GOOD]) is None
    assert driver.out == b""


# Timeouts --------------------------------------------------------------------------------------


def test_a_client_that_is_slow_to_ask_gets_a_408() -> None:
    driver = server(open_timeout=5)
    assert driver.run() == Read(5.0)
    for octet in GOOD[:9]:
        driver.clock.now += 0.5
        driver.run([bytes([octet])])
    assert driver.run() == Read(0.5)
    read = driver.expire()
    assert driver.take().startswith(b"HTTP/1.1 408 ")
    # It is gone a moment later, even if it goes on.
    assert read == Read(1.0)
    driver.clock.now += 0.75
    assert driver.run([b"more"]) == Read(0.25)
    assert driver.expire() is None
    assert isinstance(driver.session.error, RequestError)


def test_who_is_refused_is_gone_by_the_time_of_the_handshake() -> None:
    driver = server(open_timeout=5, close_timeout=3)
    assert driver.run([b"\xff\r\n\r\n"]) == Read(3.0)
    driver = server(open_timeout=5, close_timeout=None)
    driver.clock.now += 2
    assert driver.run([b"\xff\r\n\r\n"]) == Read(3.0)


def test_a_server_that_is_slow_to_answer() -> None:
    driver = client(open_timeout=5)
    assert driver.run([b"HTTP/1.1 101"]) == Read(5.0)
    assert driver.expire() is None
    assert isinstance(driver.session.error, TimeoutError)
    assert driver.events == []


def test_a_silent_peer_is_pinged_and_given_up() -> None:
    driver = opened(ping_interval=20, ping_timeout=7)
    assert driver.run() == Read(20.0)
    assert driver.expire() == Read(7.0)
    assert driver.frames() == [(PING, b"keepalive")]
    driver.clock.now += 6.5
    # Anything is a sign of life.
    assert driver.run([frame(PONG)[:1]]) == Read(20.0)
    assert driver.expire() == Read(7.0)
    assert driver.frames() == [(PING, b"keepalive")]
    assert driver.expire() == Read(10.0)
    assert driver.frames() == [(CLOSE, b"\x03\xf3keepalive ping timeout")]
    assert driver.events == [HalfClose()]
    assert (driver.session.close_code, driver.session.error) == (1011, None)
    assert driver.expire() is None


def test_a_client_gives_up_a_silent_server_too() -> None:
    driver = opened_client(ping_interval=20, ping_timeout=7, close_timeout=3)
    driver.run()
    assert driver.expire() == Read(7.0)
    assert driver.expire() == Read(3.0)
    assert driver.session.close_code == 1011
    assert driver.expire() is None


def test_a_busy_application_does_not_make_the_peer_silent() -> None:
    driver = opened(ping_interval=20, ping_timeout=7)
    session = driver.session
    session.receive_data(frame(TEXT, b"a"))
    assert next(session) == "a"
    driver.clock.now += 3600
    assert driver.run() == Read(20.0)
    driver.clock.now += 20
    # It is pinged now; the pong has its time, even if writing the ping took long.
    assert isinstance(next(session), Write)
    session.data_to_send()
    driver.clock.now += 3600
    assert driver.run() == Read(7.0)


def test_pings_without_an_answer_do_no_harm_without_a_timeout() -> None:
    driver = opened(ping_interval=20, ping_timeout=None)
    for _ in range(5):
        assert driver.expire() == Read(20.0)
        assert driver.frames() == [(PING, b"keepalive")]


def test_no_timeout_is_a_very_long_one() -> None:
    """… because not every library takes None, and none takes infinity."""
    never = dict.fromkeys(("open_timeout", "close_timeout", "ping_interval", "ping_timeout"), None)
    driver = server(**never)
    long = driver.run().timeout
    assert 10**6 <= long < 25 * 86400
    assert driver.run([GOOD]) == Read(long)
    assert driver.expire() == Read(long)
    assert driver.run([close_frame()]) == Read(long)
    assert driver.expire() == Read(long)
    assert driver.events[1:] == [Opened(), Close(1000, ""), HalfClose()]
    driver = opened(**never)
    driver.session.close()
    assert next(driver.session) == Write(long)
    driver.session.data_to_send()
    assert driver.run() == Read(long)


def test_a_peer_that_was_just_heard_has_the_whole_interval() -> None:
    """… however long the session itself takes."""
    ticks = iter(range(1000, 2000))
    session = Session.server(ping_interval=20, clock=lambda: next(ticks))
    driver = Driver(session, Clock(), echo)
    assert driver.run([GOOD]) == Read(20)
    assert driver.run([frame(TEXT, b"a")]) == Read(20)
    assert driver.run() == Read(19)


def test_a_close_frame_must_be_answered_in_time() -> None:
    driver = opened(close_timeout=5)
    driver.session.close(4000, "bye")
    assert driver.run() == Read(5.0)
    for _ in range(9):
        driver.clock.now += 0.5
        assert driver.run([frame(PONG)]) is not None
    assert driver.run() == Read(0.5)
    assert driver.expire() is None
    assert (driver.session.close_code, driver.session.state) == (1006, State.CLOSED)
    assert driver.frames() == [(CLOSE, b"\x0f\xa0bye")]
    with pytest.raises(ConnectionClosed, match="1006"):
        driver.session.send("x")


def test_the_more_is_written_the_longer_it_may_take() -> None:
    session = opened(ping_timeout=7).session
    session.send(b"x")
    assert next(session) == Write(7.0)
    session.data_to_send()
    session.send(bytes(MIB))
    assert next(session) == Write(7.0 * 17)
    session = opened(ping_timeout=10**6).session
    session.send(bytes(MIB))
    assert next(session).timeout < 25 * 86400


# Bounds ---------------------------------------------------------------------------------------


def test_answers_leave_before_our_close_frame_whatever_the_caller_flushes() -> None:
    out = b""

    def answer(session: Session, event: object) -> None:
        nonlocal out
        echo(session, event)
        out += session.data_to_send()

    driver = opened()
    driver.answers = answer
    driver.run([frame(TEXT, b"a") + frame(TEXT, b"b") + close_frame(), b""])
    assert out == b""
    assert driver.events == ["a", "b", Close(1000, ""), HalfClose()]
    assert driver.frames() == [(TEXT, b"a"), (TEXT, b"b"), (CLOSE, b"\x03\xe8")]


def test_answers_do_not_pile_up() -> None:
    def answer(session: Session, event: object) -> None:
        if isinstance(event, str):
            queued.append(session.bytes_queued)
            session.send(bytes(50_000))

    queued: list[int] = []
    driver = opened()
    driver.answers = answer
    driver.run([frame(TEXT, b"x") * 100])
    assert len(queued) == 100
    assert max(queued) < 100_000
    assert len(driver.out) > 100 * 50_000


def test_answers_to_a_peer_that_has_closed_are_bounded() -> None:
    def answer(session: Session, event: object) -> None:
        if isinstance(event, str):
            session.send(bytes(100_000))

    driver = opened()
    driver.answers = answer
    driver.run([frame(TEXT, b"x") * 100 + close_frame(), b""])
    assert driver.events == ["x"] * 11 + [Close(1000, ""), HalfClose()]
    assert driver.frames() == [(BINARY, bytes(100_000))] * 11 + [(CLOSE, b"\x03\xe8")]

    driver = opened()
    driver.answers = answer
    driver.run([frame(TEXT, b"x") * 100 + b"\xff", b""])
    assert driver.events == ["x"] * 11 + [HalfClose()]
    assert driver.frames()[-1][1][:2] == b"\x03\xea"


def test_a_bomb_is_inflated_in_steps_and_each_is_answered_before_the_next() -> None:
    message = bytes(200_000)
    bomb = frame(BINARY, compressed(message), rsv1=True) * 200
    driver = server(deflate=PerMessageDeflate(threshold=1 << 30))
    driver.run([OFFER])
    driver.take()
    session = driver.session
    session.receive_data(bomb)
    largest = count = 0
    with traced() as memory:
        for event in session:
            match event:
                case bytes():
                    count += 1
                    session.send(event)
                case Write():
                    largest = max(largest, len(session.data_to_send()))
                case Read():
                    break
        assert memory()[1] < 4 * MIB
    assert count == 200
    assert largest < MIB


def test_a_bomb_that_is_not_answered_lets_other_tasks_have_their_turn() -> None:
    driver = server(nothing, deflate=True)
    driver.run([OFFER])
    driver.take()
    session = driver.session
    session.receive_data(frame(BINARY, compressed(bytes(200_000)), rsv1=True) * 100)
    between, most = 0, 0
    for event in session:
        match event:
            case bytes():
                between += len(event)
                most = max(most, between)
            case Write():
                assert session.data_to_send() == b""
                between = 0
            case Read():
                break
    assert 0 < most < MIB


def test_a_flood_of_pings_is_answered_read_by_read() -> None:
    driver = opened()
    session = driver.session
    session.receive_data(frame(PING, b"x") * 5000)
    largest = 0
    for event in session:
        if isinstance(event, Write):
            largest = max(largest, len(session.data_to_send()))
        elif isinstance(event, Read):
            break
    assert 0 < largest < 100_000


def test_many_pongs_leave_before_the_messages_after_the_pings() -> None:
    session = opened().session
    session.receive_data(frame(PING, bytes(125)) * 1000 + frame(TEXT, b"x"))
    assert isinstance(next(session), Write)
    assert len(session.data_to_send()) > 100_000
    assert next(session) == Ping(bytes(125))


def test_limits_are_those_of_the_connection() -> None:
    driver = opened(max_message_size=10)
    driver.run([frame(TEXT, b"x" * 11)])
    assert isinstance(driver.session.error, MessageTooBigError)
    driver = opened(max_fragments=2)
    driver.run([frame(TEXT, b"x", fin=False) + frame(0, b"x", fin=False) * 2])
    assert driver.session.close_code == 1009


def test_messages_may_arrive_in_parts_up_to_a_limit_of_their_own() -> None:
    driver = opened(stream=True, max_message_size=1, max_stream_size=10)
    octets = frame(TEXT, b"0123456789")
    driver.run([octets[:9], octets[9:]])
    assert driver.events == [MessagePart("012", last=False), MessagePart("3456789", last=True)]
    driver.run([frame(TEXT, b"x" * 11)])
    assert isinstance(driver.session.error, MessageTooBigError)


def test_if_decoding_fails_the_peer_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> bytes:
        raise MemoryError("no room")

    driver = server(deflate=True)
    driver.run([OFFER])
    driver.take()
    monkeypatch.setattr(Inflater, "inflate", fail)
    driver.run([frame(TEXT, compressed(b"x"), rsv1=True), b""])
    assert driver.frames()[0][1][:2] == b"\x03\xf3"
    assert isinstance(driver.session.error, InternalError)
    assert isinstance(driver.session.error.__cause__, MemoryError)


def test_if_receiving_fails_for_another_reason_the_caller_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: object) -> list[object]:
        raise MemoryError("no room")

    driver = opened()
    monkeypatch.setattr(Connection, "receive_data", fail)
    with pytest.raises(MemoryError, match="no room"):
        driver.run([frame(TEXT, b"x")])
    assert driver.session.state is State.OPEN


def test_text_may_be_bytes_in_both_directions() -> None:
    driver = opened(decode_text=False)
    driver.run([frame(TEXT, "é".encode())])
    assert driver.events == [Text("é".encode())]
    driver.session.send(driver.events[0])
    driver.session.send_text(b"a")
    driver.session.send_text(b"\xc3", fin=False)
    driver.session.continuation(b"\xa9")
    driver.run([])
    assert driver.frames() == [
        (TEXT, "é".encode()),
        (TEXT, b"a"),
        (TEXT, b"\xc3"),
        (0, b"\xa9"),
    ]
    with pytest.raises(ValueError, match="text is not UTF-8"):
        driver.session.send_text(b"\xff")


# Mistakes --------------------------------------------------------------------------------------


def test_what_a_session_cannot_be_made_of() -> None:
    with pytest.raises(TypeError, match="handshake must be a ServerHandshake or ClientHandshake"):
        Session("server")  # type: ignore[arg-type]
    with pytest.raises(InvalidURIError):
        Session.client("ftp://localhost")
    for wrong in (b"ws://localhost", None, 5):
        with pytest.raises(TypeError, match="URI must be a str, not"):
            Session.client(wrong)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="unexpected keyword"):
        Session.server(timeout=1)  # type: ignore[call-arg]
    with pytest.raises(ValueError, match="origin must be scheme://host"):
        Session.server(origins=["localhost"])
    for name in ("open_timeout", "close_timeout", "ping_interval", "ping_timeout"):
        with pytest.raises(ValueError, match=f"{name} must be positive"):
            Session.server(**{name: 0})  # type: ignore[arg-type]
    for name, value in (("max_message_size", -1), ("max_fragments", 0)):
        with pytest.raises(ValueError, match=name):
            Session.client(URI, **{name: value})  # type: ignore[arg-type]
        with pytest.raises(TypeError, match=name):
            Session.client(URI, **{name: "1"})  # type: ignore[arg-type]


@pytest.mark.parametrize("copies", [copy.copy, copy.deepcopy, pickle.dumps])
def test_it_cannot_be_copied(copies: Any) -> None:
    with pytest.raises(TypeError, match="cannot copy or pickle 'Session' object"):
        copies(Session.server())


def test_what_is_written_must_be_taken() -> None:
    session = opened().session
    session.send("a")
    assert isinstance(next(session), Write)
    for _ in range(2):
        with pytest.raises(StateError, match="call data_to_send"):
            next(session)
    session.data_to_send()
    assert isinstance(next(session), Read)


def test_data_must_be_bytes_and_must_be_looked_at() -> None:
    session = opened().session
    for wrong in ("text", None, 5):
        with pytest.raises(TypeError, match="bytes-like"):
            session.receive_data(wrong)  # type: ignore[arg-type]
    session.receive_data(bytearray(frame(TEXT, b"a")))
    with pytest.raises(StateError, match="iterate over the session first"):
        session.receive_data(frame(TEXT, b"b"))
    assert next(session) == "a"
    session.receive_data(memoryview(frame(TEXT, b"b")))
    assert next(session) == "b"
    session.receive_eof()
    session.receive_data(b"")
    with pytest.raises(StateError, match="after the end of the stream"):
        session.receive_data(b"x")
    assert list(session) == []


def test_a_buffer_may_be_used_again_at_once() -> None:
    session = opened().session
    buffer = bytearray(frame(TEXT, b"a"))
    session.receive_data(buffer)
    buffer[:] = bytes(len(buffer))
    assert next(session) == "a"


@pytest.mark.parametrize("make", [server, client])
def test_nothing_can_be_sent_before_it_is_open(make: Any) -> None:
    session = make().session
    for call in (
        lambda: session.send("a"),
        lambda: session.continuation("a"),
        lambda: session.ping(),
        lambda: session.pong(),
    ):
        with pytest.raises(StateError, match="not open yet"):
            call()
    assert session.bytes_queued == len(session.data_to_send())


@pytest.mark.parametrize(
    "answer",
    [
        lambda session: session.accept(),
        lambda session: session.respond(Response(200)),
        lambda session: session.reject(RequestError("no")),
    ],
)
def test_there_must_be_a_request_to_answer(answer: Any) -> None:
    for session in (server().session, client().session, opened().session):
        with pytest.raises(StateError, match="no request to answer"):
            answer(session)


@pytest.mark.parametrize(
    "answer",
    [
        lambda session: session.accept(headers={"Upgrade": "x"}),
        lambda session: session.respond(Response(101)),
        lambda session: session.reject(RequestError("no", 5)),
    ],
)
def test_an_answer_that_cannot_be_sent_raises_and_another_may_follow(answer: Any) -> None:
    driver = server()
    driver.session.receive_data(GOOD)
    next(driver.session)
    with pytest.raises(ValueError):
        answer(driver.session)
    driver.session.reject(RequestError("no", 403))
    driver.run()
    assert driver.out.startswith(b"HTTP/1.1 403")


@pytest.mark.parametrize("make", [server, client, opened, opened_client])
def test_a_close_frame_must_be_valid_at_any_time(make: Any) -> None:
    session = make().session
    for _ in range(2):
        for code, reason in ((1005, ""), (1000, "x" * 124), (None, "x")):
            with pytest.raises(ValueError):
                session.close(code, reason)
        session.close()


def test_what_is_sent_is_checked_by_the_connection() -> None:
    session = opened().session
    with pytest.raises(TypeError):
        session.send(5)  # type: ignore[arg-type]
    with pytest.raises(StateError):
        session.continuation("a")
    session.send("a", fin=False)
    with pytest.raises(StateError):
        session.send("b")
    session.continuation("b", fin=False)
    session.continuation("c")
    session.pong(b"!")
    assert session.bytes_queued == 3 * 3 + 3
    session.close()
    with pytest.raises(ConnectionClosed):
        session.send("d")


def test_messages_after_our_close_frame_are_delivered_but_not_answered() -> None:
    def close(session: Session, event: object) -> None:
        if event == "a":
            session.close()
            session.close(4000)

    driver = opened()
    driver.answers = close
    driver.run([frame(TEXT, b"a") + frame(TEXT, b"b"), frame(PING) + close_frame(), b""])
    assert driver.events == ["a", "b", Ping(), Close(1000, ""), HalfClose()]
    assert driver.frames() == [(CLOSE, b"\x03\xe8")]


# Threads --------------------------------------------------------------------------------------


def test_threads_may_share_a_session() -> None:
    """Four send messages, one reads, and one writes, whatever the others wait for."""
    ours, theirs = socket.socketpair()
    count = 200
    texts = {
        name: [f"{name}{n}" * random.Random(n).randrange(1, 2000) for n in range(count)]
        for name in "abcd"
    }
    lock = threading.Lock()
    outbox: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()

    def flush() -> None:
        with lock:
            outbox.put(session.data_to_send())

    def send(name: str) -> None:
        for text in texts[name]:
            session.send(text)
            flush()

    def write() -> None:
        while (octets := outbox.get()) is not None:
            ours.sendall(octets)

    def read() -> None:
        for event in session:
            match event:
                case Opened():
                    is_open.set()
                case Write():
                    flush()
                case Read(timeout):
                    ours.settimeout(timeout)
                    with suppress(TimeoutError):
                        session.receive_data(ours.recv(65536))
                case str():
                    received.append(event)
                    if len(received) == 4 * count:
                        session.close()
        ours.shutdown(socket.SHUT_RDWR)
        outbox.put(None)

    def answer() -> None:
        other = Session.server()
        for event in other:
            match event:
                case str():
                    other.send(event)
                case Write(timeout):
                    theirs.settimeout(timeout)
                    theirs.sendall(other.data_to_send())
                case Read(timeout):
                    theirs.settimeout(timeout)
                    with suppress(TimeoutError):
                        other.receive_data(theirs.recv(65536))
                case HalfClose():
                    theirs.shutdown(socket.SHUT_WR)

    session = Session.client(URI)
    received: list[str] = []
    is_open = threading.Event()
    threads = [threading.Thread(target=target) for target in (read, write, answer)]
    threads += [threading.Thread(target=send, args=(name,)) for name in texts]
    with ours, theirs:
        for thread in threads[:3]:
            thread.start()
        assert is_open.wait(TIMEOUT)
        for thread in threads[3:]:
            thread.start()
        for thread in threads:
            thread.join(TIMEOUT)
    assert session.close_code == 1000
    for name, sent in texts.items():
        assert [text for text in received if text[0] == name] == sent


def test_a_thread_may_close_what_another_reads() -> None:
    driver = opened(close_timeout=5, ping_interval=20)
    assert driver.run() == Read(20.0)
    # Another thread, while this one reads:
    driver.session.close(1001)
    assert driver.session.data_to_send() == bytes([0x88, 2]) + b"\x03\xe9"
    driver.clock.now += 20
    assert driver.run() is None
    assert driver.session.close_code == 1006


def test_what_is_public() -> None:
    assert {"Session", "Read", "Write", "HalfClose", "Opened"} <= set(fastws.__all__)
    assert isinstance(opened().session._connection, Connection)
    assert [one for one, two in pairwise(fastws.session.__all__) if one > two] == []
