"""Tests what consumers of `fastws.events` rely on: events are values, and work with `match`."""

from __future__ import annotations

import copy
import pickle
import tracemalloc
from dataclasses import FrozenInstanceError
from typing import TYPE_CHECKING

import pytest

from fastws.codec import implementation
from fastws.events import Close, MessagePart, Ping, Pong, Text
from fastws.rules import memory_of

if TYPE_CHECKING:
    from fastws.events import Event

EVENTS = [Ping(), Ping(b"a"), Pong(), Pong(b"a"), Close(), Close(1000), Close(1000, "bye")]
EVENTS += [Text(b""), Text(b"a"), Text("é".encode())]
EVENTS += [MessagePart("", True), MessagePart("a", False), MessagePart(b"a", False)]

every_event = pytest.mark.parametrize("event", EVENTS, ids=repr)


def what(event: Event) -> tuple[object, ...]:
    match event:
        case str():
            return "text", event
        case bytes():
            return "binary", event
        case Text(data):
            return "text as bytes", data
        case MessagePart(data, last):
            return "part", data, last
        case Ping(data):
            return "ping", data
        case Pong(data):
            return "pong", data
        case Close(1000):
            return ("bye",)
        case Close(code, reason):
            return "close", code, reason


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        ("a", ("text", "a")),
        (b"a", ("binary", b"a")),
        (Text(b"a"), ("text as bytes", b"a")),
        (MessagePart("a", False), ("part", "a", False)),
        (Ping(b"a"), ("ping", b"a")),
        (Pong(b"a"), ("pong", b"a")),
        (Close(1000, "any"), ("bye",)),
        (Close(1001, "why"), ("close", 1001, "why")),
    ],
    ids=repr,
)
def test_events_are_told_apart_by_match(event: Event, expected: tuple[object, ...]) -> None:
    assert what(event) == expected


def test_events_are_made_by_keyword() -> None:
    assert Ping(data=b"a") == Ping(b"a")
    assert Pong(data=b"a") == Pong(b"a")
    assert Text(data=b"a") == Text(b"a")
    assert Close(reason="a", code=1000) == Close(1000, "a")


def test_defaults_are_those_of_an_empty_frame() -> None:
    assert Ping().data == Pong().data == b""
    assert (Close().code, Close().reason) == (1005, "")


@every_event
def test_event_equals_only_what_has_its_class_and_fields(event: Event) -> None:
    assert [other for other in EVENTS if other == event] == [event]
    assert event == copy.copy(event)
    assert event != (getattr(event, "data", None),)


def test_equal_events_hash_alike() -> None:
    assert len({*EVENTS, *map(copy.deepcopy, EVENTS)}) == len(EVENTS)


@every_event
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_event_survives_pickling(event: Event, protocol: int) -> None:
    loaded = pickle.loads(pickle.dumps(event, protocol))
    assert (type(loaded), loaded) == (type(event), event)


@every_event
def test_repr_is_the_call_that_makes_the_event(event: Event) -> None:
    assert eval(repr(event)) == event


@pytest.mark.parametrize(
    ("event", "text"),
    [
        (Ping(b"a"), "Ping(data=b'a')"),
        (Pong(b"a"), "Pong(data=b'a')"),
        (Text(b"a"), "Text(data=b'a')"),
        (Close(1000, "bye"), "Close(code=1000, reason='bye')"),
        (MessagePart("a", True), "MessagePart(data='a', last=True)"),
    ],
    ids=["ping", "pong", "text", "close", "part"],
)
def test_repr(event: Event, text: str) -> None:
    assert repr(event) == text


@every_event
def test_event_is_immutable(event: Event) -> None:
    name = event.__match_args__[0]
    with pytest.raises(FrozenInstanceError):
        setattr(event, name, None)
    with pytest.raises(FrozenInstanceError):
        delattr(event, name)
    assert event in EVENTS


@every_event
def test_event_carries_no_dict(event: Event) -> None:
    assert not hasattr(event, "__dict__")


# Text -----------------------------------------------------------------------------------------


def test_text_has_the_length_of_its_bytes_and_is_decoded_by_str() -> None:
    text = Text("é€".encode())
    assert (len(text), str(text), f"{text}") == (5, "é€", "é€")
    assert not Text(b"")
    assert bytes(Text(b"a")) == b"a"


@pytest.mark.parametrize(
    "data", [bytearray(b"abc"), memoryview(b"aabbcc")[::2]], ids=["all", "part"]
)
def test_data_of_a_text_is_bytes(data: bytearray) -> None:
    text = Text(data)
    assert (type(text.data), text.data) == (bytes, memoryview(data).tobytes())


@pytest.mark.parametrize("before", [b"", b"a" * 5000, "é".encode() * 5000], ids=["", "a", "é"])
@pytest.mark.parametrize("data", [b"\xff", b"\xc3", b"\xed\xa0\x80", b"\xc0\x80"])
def test_text_is_always_utf8(before: bytes, data: bytes) -> None:
    with pytest.raises(ValueError, match=r"^text is not UTF-8$"):
        Text(before + data)
    assert Text(before).data is before


def test_text_is_validated_without_decoding_it() -> None:
    data = "é".encode() * 500_000
    tracemalloc.start()
    try:
        text = Text(data)
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert text.data is data
    assert most < 100_000 or implementation == "py"


@pytest.mark.parametrize("data", ["a", None, 5], ids=repr)
def test_text_is_made_of_bytes(data: object) -> None:
    with pytest.raises(TypeError, match=r"^a bytes-like object is required, not '"):
        Text(data)  # type: ignore[arg-type]


def test_memory_of_a_text_includes_its_bytes() -> None:
    assert 10_000 <= memory_of(Text(bytes(10_000))) < 10_200


def test_memory_of_a_part_includes_the_part() -> None:
    assert 20 <= memory_of(MessagePart(b"a", False)) - memory_of(b"a") < 200
