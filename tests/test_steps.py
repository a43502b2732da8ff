"""One call inflates a limited amount, and nothing is lost."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import pytest

from fastws import Connection, Role, encode_frame, rules
from fastws.deflate import Inflater
from fastws.events import Close, Ping
from fastws.exceptions import InternalError, ProtocolError
from fastws.spec import (
    DEFAULT_MAX_MESSAGE_SIZE,
    INFLATE_BYTE_COST,
    INFLATE_PIECE_COST,
    STEP,
    Opcode,
    State,
)

from .tools import traced
from .wire import agreement, compressed

if TYPE_CHECKING:
    from types import SimpleNamespace

MIB = 1 << 20
KEY = b"\x12\x34\x56\x78"
TEXT, BINARY = Opcode.TEXT, Opcode.BINARY

AGREED = agreement()


def make_decoder(twin: SimpleNamespace, step: int | None = STEP, **options: Any) -> Any:
    options.setdefault("inflater", Inflater(AGREED))
    return twin.MessageDecoder(masked=True, step=step, **options)


def make_frame(
    twin: SimpleNamespace, opcode: int, payload: bytes, *, fin: bool = True, rsv1: bool = True
) -> bytes:
    encoded: bytes = twin.encode_frame(opcode, payload, fin=fin, rsv1=rsv1, key=KEY)
    return encoded


def steps(decoder: Any, data: bytes) -> list[list[Any]]:
    """Feed all of it, and return the events of each step."""
    result = [decoder.feed(data)]
    while decoder.has_pending:
        result.append(decoder.feed(b""))
    return result


def held(message: Any) -> int:
    return rules.memory_of(message) if isinstance(message, (str, bytes)) else 0


# The decoder -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("opcode", "unit", "largest"),
    [
        (BINARY, b"\x00", MIB),
        (TEXT, b"a", MIB),
        # One wide character makes each of the others take 4 bytes.
        (TEXT, "😀".encode() + b"a" * 9996, 4 * MIB),
        (BINARY, random.Random(1).randbytes(10_000), MIB),
    ],
    ids=["zeros", "ascii", "wide", "noise"],
)
def test_a_step_holds_what_its_name_says(
    twin: SimpleNamespace, opcode: Opcode, unit: bytes, largest: int
) -> None:
    payload = unit * (MIB // len(unit))
    message: Any = payload.decode() if opcode == TEXT else payload
    stream = make_frame(twin, opcode, compressed(payload)) * 40
    batches = steps(make_decoder(twin), stream)
    assert [one for batch in batches for one in batch] == [message] * 40
    # The step and one more message, and the overhead of each message.
    assert all(sum(map(held, batch)) <= STEP + largest + 1000 for batch in batches)


def test_without_a_step_all_comes_at_once(twin: SimpleNamespace) -> None:
    stream = make_frame(twin, BINARY, compressed(bytes(MIB))) * 5
    decoder = make_decoder(twin, None)
    assert len(decoder.feed(stream)) == 5
    assert not decoder.has_pending


@pytest.mark.parametrize(
    "payload",
    [
        b"\x00",
        b"\x03\x00",
        b"",
        b"\x03\x00" * 1000,
        b"\x00\x00\x00\xff\xff" * 500 + b"\x00",
        b"\x4a\x04\x00",
    ],
    ids=["empty", "final", "nothing", "many final", "many blocks", "one byte"],
)
def test_what_inflates_to_next_to_nothing_is_counted_too(
    twin: SimpleNamespace, payload: bytes
) -> None:
    """Calls and blocks have a cost, which limits the bytes and messages of a step."""
    frame = make_frame(twin, BINARY, payload)
    count = (256 << 10) // len(frame)
    batches = steps(make_decoder(twin), frame * count)
    assert sum(map(len, batches)) == count
    most = STEP // max(INFLATE_PIECE_COST, len(payload) * INFLATE_BYTE_COST) + 1
    assert max(map(len, batches)) <= most


def test_a_message_may_take_several_steps(twin: SimpleNamespace) -> None:
    """A large one is decoded with pauses."""
    payload = b"\x03\x00" * 100_000 + compressed(b"Hello")
    frames = make_frame(twin, TEXT, payload[:70_000], fin=False)
    frames += make_frame(twin, Opcode.PING, b"?", rsv1=False)
    frames += make_frame(twin, 0, payload[70_000:], rsv1=False)
    batches = steps(make_decoder(twin), frames)
    assert [one for batch in batches for one in batch] == [Ping(b"?"), "Hello"]
    assert len(batches) > len(payload) * INFLATE_BYTE_COST // STEP


def test_what_is_fed_while_something_is_pending_comes_behind_it(twin: SimpleNamespace) -> None:
    stream = make_frame(twin, BINARY, compressed(bytes(MIB))) * 3
    stream += make_frame(twin, TEXT, b"plain", rsv1=False)
    decoder = make_decoder(twin)
    events = []
    for start in range(0, len(stream), 1500):
        events += decoder.feed(stream[start : start + 1500])
    events += [event for batch in steps(decoder, b"") for event in batch]
    assert events == [bytes(MIB)] * 3 + ["plain"]


@pytest.mark.parametrize(
    ("end", "last"),
    [
        ((Opcode.CLOSE, b"\x03\xe8", False), [Close(1000, "")]),
        ((Opcode.CLOSE, b"\x00", False), []),
        ((TEXT, b"\xff", False), []),
        ((BINARY, b"\x07", True), []),
    ],
    ids=["close", "bad close", "bad text", "bad stream"],
)
def test_what_ends_the_stream_comes_in_its_turn(
    twin: SimpleNamespace, end: tuple[int, bytes, bool], last: list[Any]
) -> None:
    opcode, payload, coded = end
    stream = make_frame(twin, BINARY, compressed(bytes(MIB))) * 3
    stream += make_frame(twin, opcode, payload, rsv1=coded)
    decoder = make_decoder(twin)
    events = decoder.feed(stream)
    assert decoder.error is None
    while decoder.has_pending:
        events += decoder.feed(b"")
    assert events == [bytes(MIB)] * 3 + last
    assert (decoder.error is None) is bool(last)
    assert decoder.feed(stream) == []
    assert not decoder.has_pending


def test_what_is_pending_takes_no_more_than_it_is_long(twin: SimpleNamespace) -> None:
    stream = make_frame(twin, BINARY, compressed(bytes(MIB))) * 200
    decoder = make_decoder(twin)
    decoder.feed(stream[:1000])
    with traced() as memory:
        decoder.feed(stream[1000:])
        while decoder.has_pending:
            decoder.feed(b"")
        assert memory()[1] < 6 * MIB + 2 * len(stream)


@pytest.mark.parametrize("step", [0, -1])
def test_a_step_is_at_least_one(twin: SimpleNamespace, step: int) -> None:
    with pytest.raises(ValueError, match="step must be at least 1"):
        make_decoder(twin, step)
    with pytest.raises(TypeError, match="step must be an int"):
        make_decoder(twin, "1")  # type: ignore[arg-type]


# An inflater, or memory, that fails -----------------------------------------------------------


class Failing:
    def __init__(self, error: BaseException) -> None:
        self.error = error
        self.calls = 0

    def inflate(self, data: bytes, budget: int | None, last: bool) -> bytes:
        self.calls += 1
        if self.calls > 1:
            raise self.error
        return data


@pytest.mark.parametrize(
    "error", [MemoryError(), ZeroDivisionError(), KeyboardInterrupt()], ids=repr
)
def test_whatever_the_inflater_raises_ends_the_decoder(
    twin: SimpleNamespace, error: BaseException
) -> None:
    failing = Failing(error)
    decoder = make_decoder(twin, inflater=failing)
    assert decoder.feed(make_frame(twin, BINARY, b"first")) == [b"first"]
    with pytest.raises(type(error)):
        decoder.feed(make_frame(twin, BINARY, b"second") + make_frame(twin, BINARY, b"third"))
    assert isinstance(decoder.error, InternalError)
    assert isinstance(decoder.error, ProtocolError)
    assert decoder.error.close_code == 1011
    assert decoder.feed(make_frame(twin, TEXT, b"late", rsv1=False)) == []
    assert not decoder.has_pending
    assert failing.calls == 2


def test_data_of_another_type_ends_nothing(twin: SimpleNamespace) -> None:
    decoder = make_decoder(twin)
    for data in ("text", None, 1):
        with pytest.raises(TypeError):
            decoder.feed(data)
    assert decoder.error is None
    assert decoder.feed(make_frame(twin, BINARY, b"plain", rsv1=False)) == [b"plain"]


# The connection ------------------------------------------------------------------------------


def make_connection() -> Connection:
    return Connection(Role.SERVER, deflate=AGREED)


def client_frames(*payloads: bytes, rsv1: bool = True) -> bytes:
    return b"".join(encode_frame(BINARY, one, rsv1=rsv1, key=KEY) for one in payloads)


def test_a_connection_hands_over_messages_step_by_step() -> None:
    bomb = client_frames(*[compressed(bytes(DEFAULT_MAX_MESSAGE_SIZE))] * 100)
    connection = make_connection()
    count = 0
    with traced() as memory:
        events = connection.receive_data(bomb)
        while True:
            assert len(events) <= 2
            count += len(events)
            if not connection.has_pending:
                break
            events = connection.receive_data(b"")
        assert memory()[1] < 8 * MIB
    assert count == 100


@pytest.mark.parametrize("how", ["fail", "eof", "violation"])
def test_nothing_is_pending_after_the_end(how: str) -> None:
    stream = client_frames(*[compressed(bytes(MIB))] * 5)
    connection = make_connection()
    connection.receive_data(stream)
    assert connection.has_pending
    if how == "fail":
        connection.fail(1008, "enough")
    elif how == "eof":
        connection.receive_eof()
    else:
        connection.receive_data(b"\xf1")
        while connection.has_pending:
            connection.receive_data(b"")
        assert connection.error is not None
    assert not connection.has_pending
    assert connection.receive_data(b"") == []


def test_without_compression_nothing_is_ever_pending() -> None:
    connection = Connection(Role.SERVER)
    assert len(connection.receive_data(client_frames(*[b"x" * 100_000] * 50, rsv1=False))) == 50
    assert not connection.has_pending


def test_a_decoder_that_fails_fails_the_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: Inflater, data: bytes, budget: int | None, last: bool) -> bytes:
        raise MemoryError

    connection = make_connection()
    monkeypatch.setattr(Inflater, "inflate", fail)
    with pytest.raises(MemoryError):
        connection.receive_data(client_frames(b"\x00"))
    assert (connection.close_code, connection.close_reason) == (1011, "decoding failed")
    assert isinstance(connection.error, InternalError)
    assert connection.data_to_send() == b"\x88\x11\x03\xf3decoding failed"
    assert connection.state is State.CLOSED
    assert connection.receive_data(client_frames(b"late", rsv1=False)) == []


def test_a_mistake_of_the_caller_does_not_fail_the_connection() -> None:
    connection = make_connection()
    with pytest.raises(TypeError):
        connection.receive_data("text")  # type: ignore[arg-type]
    assert connection.close_code is None
    assert connection.error is None
    assert connection.receive_data(client_frames(b"plain", rsv1=False)) == [b"plain"]
