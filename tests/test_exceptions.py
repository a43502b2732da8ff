"""Holds `fastws.exceptions` to its tree, close codes and pickling, `fastws.errors` to its words."""

from __future__ import annotations

import copy
import pickle
from typing import TYPE_CHECKING

import pytest

from fastws import errors, exceptions
from fastws.events import Close
from fastws.exceptions import (
    ConnectionClosed,
    FieldError,
    HandshakeError,
    IncompleteResponseError,
    InternalError,
    InvalidPayloadError,
    InvalidURIError,
    MessageTooBigError,
    MissingFieldError,
    ProtocolError,
    ProxyError,
    RequestError,
    ResponseError,
    StateError,
    WebSocketError,
)
from fastws.http import Response
from fastws.spec import CloseCode

if TYPE_CHECKING:
    from collections.abc import Callable

TREE: dict[type[Exception], tuple[type[Exception], ...]] = {
    WebSocketError: (Exception,),
    ProtocolError: (WebSocketError,),
    InvalidPayloadError: (ProtocolError,),
    MessageTooBigError: (ProtocolError,),
    InternalError: (ProtocolError,),
    HandshakeError: (WebSocketError,),
    InvalidURIError: (HandshakeError, ValueError),
    ProxyError: (HandshakeError,),
    RequestError: (HandshakeError,),
    ResponseError: (HandshakeError,),
    IncompleteResponseError: (ResponseError,),
    FieldError: (WebSocketError, LookupError),
    MissingFieldError: (FieldError, KeyError),
    StateError: (WebSocketError,),
    ConnectionClosed: (WebSocketError,),
}

SAMPLES = [
    WebSocketError("a"),
    ProtocolError("a"),
    InvalidPayloadError("a"),
    MessageTooBigError("a"),
    InternalError("a"),
    HandshakeError("a"),
    InvalidURIError("a"),
    ProxyError("a"),
    ProxyError("a", 2),
    ProxyError("a", 407, Response(407, [("X-Y", "z")], b"body")),
    RequestError("a"),
    RequestError("a", 426, (("Sec-WebSocket-Version", "13"),)),
    ResponseError("a"),
    IncompleteResponseError("a"),
    ResponseError("a", Response(404, [("X-Y", "z")], b"body")),
    FieldError("Cookie", 2),
    MissingFieldError("Cookie"),
    StateError("a"),
    ConnectionClosed(1006),
    ConnectionClosed(4000, "why"),
    ConnectionClosed(
        1001,
        received=Close(1001),
        sent=Close(),
        by_peer=True,
        last_heard=1.5,
        unsent=9,
    ),
]


def test_the_tree_holds_every_class_and_no_other() -> None:
    assert set(exceptions.__all__) == {cls.__name__ for cls in TREE}
    assert {
        value
        for value in vars(exceptions).values()
        if isinstance(value, type) and issubclass(value, Exception)
    } == set(TREE)


@pytest.mark.parametrize(("cls", "bases"), TREE.items(), ids=lambda x: getattr(x, "__name__", ""))
def test_bases(cls: type[Exception], bases: tuple[type[Exception], ...]) -> None:
    assert cls.__bases__ == bases


@pytest.mark.parametrize(
    ("cls", "code"),
    [
        (ProtocolError, 1002),
        (InvalidPayloadError, 1007),
        (MessageTooBigError, 1009),
        (InternalError, 1011),
    ],
)
def test_a_protocol_error_knows_its_close_code(cls: type[ProtocolError], code: int) -> None:
    assert cls.close_code == cls("a").close_code == code
    assert isinstance(cls.close_code, CloseCode)


def test_every_class_has_a_sample() -> None:
    assert {type(error) for error in SAMPLES} == set(TREE)


@pytest.mark.parametrize("error", SAMPLES, ids=repr)
@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_error_survives_pickling(error: Exception, protocol: int) -> None:
    for loaded in (pickle.loads(pickle.dumps(error, protocol)), copy.copy(error)):
        assert type(loaded) is type(error)
        assert str(loaded) == str(error)
        assert loaded.args == error.args
        assert vars(loaded) == vars(error)


# Errors with more than a message ----------------------------------------------------


def test_request_error_knows_what_to_answer() -> None:
    error = RequestError("no", 426, (("Sec-WebSocket-Version", "13"),))
    assert str(error) == "no"
    assert (error.status, error.headers) == (426, (("Sec-WebSocket-Version", "13"),))


def test_request_error_is_a_400_without_headers_by_default() -> None:
    assert (RequestError("no").status, RequestError("no").headers) == (400, ())


def test_field_error_knows_the_field() -> None:
    error = FieldError("Cookie", 3)
    assert (error.name, error.count, str(error)) == ("Cookie", 3, "3 header fields named Cookie")
    missing = MissingFieldError("Cookie")
    assert (missing.name, missing.count) == ("Cookie", 0)
    assert str(missing) == "no header field named Cookie"


def test_response_error_knows_the_response() -> None:
    response = Response(404)
    error = ResponseError("no", response)
    assert str(error) == "no"
    assert error.response is response
    assert ResponseError("no").response is None


@pytest.mark.parametrize(
    ("code", "reason", "text"),
    [
        (1000, "", "1000 normal_closure"),
        (1001, "bye", "1001 going_away: bye"),
        (CloseCode.ABNORMAL_CLOSURE, "lost", "1006 abnormal_closure: lost"),
        (3000, "", "3000"),
        (4999, "why", "4999: why"),
    ],
)
def test_connection_closed_says_code_name_and_reason(code: int, reason: str, text: str) -> None:
    error = ConnectionClosed(code, reason)
    assert (error.code, error.reason) == (code, reason)
    assert str(error) == text


BOTH = {"sent": Close(1000), "received": Close(1005)}


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (
            ConnectionClosed(1000, **BOTH, by_peer=True),
            "1000 normal_closure; the peer closed without a code, we answered with 1000",
        ),
        (
            ConnectionClosed(1000, "all done", **BOTH, by_peer=False, last_heard=0.04, unsent=0),
            (
                "1000 normal_closure: all done; we closed with 1000, the peer answered without a "
                "code; peer last heard 0.0 s before; no bytes unsent"
            ),
        ),
        (
            ConnectionClosed(4000, received=Close(4000), by_peer=True),
            "4000; the peer closed with 4000, we have not answered",
        ),
        (
            ConnectionClosed(1006, last_heard=61.25, unsent=4096),
            (
                "1006 abnormal_closure; no close frame was sent or received; peer last heard 61.2 "
                "s before; 4096 bytes unsent; usually: the network failed, a proxy's timeout "
                "expired, or the peer's process ended"
            ),
        ),
        (
            ConnectionClosed(1009, "message over 10 bytes", sent=Close(1009), by_peer=False),
            (
                "1009 message_too_big: message over 10 bytes; we closed with 1009, the peer has "
                "not answered; usually: a message was larger than the receiver allows "
                "(max_message_size)"
            ),
        ),
        (
            ConnectionClosed(3001, by_peer=False),
            "3001; we close, and have not said so yet",
        ),
    ],
)
def test_connection_closed_says_in_one_line_what_is_known(
    error: ConnectionClosed, text: str
) -> None:
    assert str(error) == text


def test_what_the_peer_wrote_makes_no_second_line() -> None:
    error = ConnectionClosed(4000, "a\nb\x1b[2J\u202ec")
    assert str(error) == r"4000: a\nb\x1b[2J\u202ec"
    assert error.reason == "a\nb\x1b[2J\u202ec"


def test_every_registered_code_but_1000_has_a_meaning() -> None:
    without = {code for code in CloseCode if not ConnectionClosed(code).meaning}
    assert without == {1000}
    assert ConnectionClosed(4000).meaning == ConnectionClosed(3000).meaning == ""


def test_connection_closed_is_normal_after_1000_1001_and_no_code() -> None:
    normal = [code for code in range(900, 5001) if ConnectionClosed(code).is_normal]
    assert normal == [1000, 1001, 1005]


# One constructor for each wire error ---------------------------------------------------

WIRE_ERRORS: list[tuple[Callable[..., ProtocolError], tuple[object, ...], int, str]] = [
    (errors.reserved_bits, ("RSV1 RSV3",), 1002, "reserved bit set: RSV1 RSV3"),
    (errors.reserved_opcode, (11,), 1002, "reserved opcode: 0xB"),
    (errors.fragmented_control, (8,), 1002, "fragmented control frame: CLOSE"),
    (errors.control_too_long, (9,), 1002, "control frame over 125 bytes: PING"),
    (errors.unmasked, (), 1002, "frame from a client is not masked"),
    (errors.masked, (), 1002, "frame from a server is masked"),
    (
        errors.length_not_minimal,
        (125,),
        1002,
        "length 125 is not encoded in the fewest bytes",
    ),
    (errors.length_top_bit, (), 1002, "64-bit length with its most significant bit set"),
    (
        errors.nothing_to_continue,
        (),
        1002,
        "continuation frame without a message to continue",
    ),
    (errors.message_not_finished, (1,), 1002, "new TEXT message inside a fragmented one"),
    (errors.text_not_utf8, (), 1007, "text message is not UTF-8"),
    (errors.reason_not_utf8, (), 1007, "close reason is not UTF-8"),
    (errors.close_payload_of_one_byte, (), 1002, "close frame with a payload of 1 byte"),
    (
        errors.close_code_may_not_travel,
        (1005,),
        1002,
        "close code 1005 may not be used in a close frame",
    ),
    (errors.message_too_big, (10,), 1009, "message over 10 bytes"),
    (errors.payload_too_big, (10,), 1009, "frame payload over 10 bytes"),
    (errors.too_many_fragments, (10,), 1009, "message of more than 10 fragments"),
]


@pytest.mark.parametrize(
    ("make", "args", "code", "text"), WIRE_ERRORS, ids=[row[0].__name__ for row in WIRE_ERRORS]
)
def test_wire_error(
    make: Callable[..., ProtocolError], args: tuple[object, ...], code: int, text: str
) -> None:
    error = make(*args)
    assert (error.close_code, str(error)) == (code, text)
    assert (
        type(error)
        is {
            1002: ProtocolError,
            1007: InvalidPayloadError,
            1009: MessageTooBigError,
        }[code]
    )
