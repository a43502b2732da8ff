"""Large payloads: they are not copied, and the bytes on the wire stay the same."""

from __future__ import annotations

import sys
import tracemalloc
from typing import TYPE_CHECKING, Any

import pytest

from fastws import Connection, Role, prepare
from fastws.exceptions import StateError
from fastws.spec import Opcode

if TYPE_CHECKING:
    from types import SimpleNamespace

KEY = b"\x0f\x80\x01\xfe"
KIB, MIB = 1 << 10, 1 << 20
# Around the sizes from which on payloads are not copied, and masked in pieces.
SIZES = [64 * KIB - 1, 64 * KIB, 112 * KIB, 112 * KIB + 1, 3 * 112 * KIB + 3, MIB]


class Str(str):
    __slots__ = ()


TEXTS = {
    "ascii": lambda size: "".join(chr(32 + i % 95) for i in range(size)),
    "subclass": lambda size: Str("s" * size),
    "latin": lambda size: "é" * (size // 2),
    "cjk": lambda size: "語" * (size // 3 + 1),
    "emoji": lambda size: "a😀" * (size // 5 + 1),
}
OCTETS = {
    "bytes": lambda size: bytes(i % 251 for i in range(size)),
    "bytearray": lambda size: bytearray(i % 251 for i in range(size)),
    "memoryview": lambda size: memoryview(bytes(i % 251 for i in range(size))),
}


@pytest.mark.parametrize("key", [None, KEY, bytes(4)], ids=["plain", "masked", "zeros"])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", [*TEXTS, *OCTETS])
def test_the_bytes_on_the_wire(
    twin: SimpleNamespace, kind: str, size: int, key: bytes | None
) -> None:
    make = TEXTS.get(kind) or OCTETS[kind]
    message = make(size)
    is_text = isinstance(message, str)
    payload = message.encode() if is_text else bytes(message)
    opcode = Opcode.TEXT if is_text else Opcode.BINARY
    expected = b"".join(
        (
            twin.encode_frame(Opcode.PING, b"before", key=key),
            twin.encode_frame(opcode, payload, fin=False, key=key),
            twin.encode_frame(Opcode.CONTINUATION, payload, key=key),
            twin.encode_frame(Opcode.PONG, b"after", key=key),
        )
    )
    for take in (lambda e: e.take(), lambda e: b"".join(e.take_buffers())):
        encoder = twin.MessageEncoder()
        encoder.ping(b"before", key)
        (encoder.text if is_text else encoder.binary)(message, key, fin=False)
        encoder.continuation(message, key)
        assert encoder.pong(b"after", key) == len(encoder) == len(expected)
        assert take(encoder) == expected
        assert (len(encoder), encoder.take()) == (0, b"")


@pytest.mark.parametrize("role", [Role.SERVER, Role.CLIENT])
@pytest.mark.parametrize("size", SIZES)
def test_connections(role: Role, size: int) -> None:
    messages = [TEXTS["ascii"](size), "short", bytes(size), prepare("p" * size)]
    expected = [*messages[:3], "p" * size]
    for join in (lambda c: c.data_to_send(), lambda c: b"".join(c.buffers_to_send())):
        sender, receiver = Connection(role), Connection(Role(1 - role))
        queued = 0
        for message in messages:
            queued = sender.send(message)
        data = join(sender)
        assert len(data) == queued
        assert receiver.receive_data(data) == expected


def test_buffers_are_bytes(twin: SimpleNamespace) -> None:
    encoder = twin.MessageEncoder()
    encoder.text("a" * MIB)
    encoder.text("b" * MIB, KEY)
    encoder.binary(bytes(MIB), KEY)
    assert {type(buffer) for buffer in encoder.take_buffers()} == {bytes}


@pytest.mark.parametrize("key", [None, KEY], ids=["plain", "masked"])
@pytest.mark.parametrize("make", [lambda n: "a" * n, bytes], ids=["ascii", "bytes"])
def test_a_large_message_is_not_copied(twin: SimpleNamespace, make: Any, key: bytes | None) -> None:
    if twin.name == "py" and (key or make is not bytes):
        return  # Python cannot look into a str, and masks at once
    message = make(MIB)
    encoder = twin.MessageEncoder()
    references = sys.getrefcount(message)
    tracemalloc.start()
    try:
        (encoder.text if isinstance(message, str) else encoder.binary)(message, key)
        assert tracemalloc.get_traced_memory()[1] < 64 * KIB
    finally:
        tracemalloc.stop()
    assert len(encoder) > MIB
    assert sys.getrefcount(message) > references
    encoder.take()
    assert sys.getrefcount(message) == references


@pytest.mark.parametrize("make", [lambda n: "a" * n, bytes], ids=["ascii", "bytes"])
def test_buffers_are_masked_into_place(twin: SimpleNamespace, make: Any) -> None:
    message = make(MIB)
    encoder, connection = twin.MessageEncoder(), Connection(Role.CLIENT)
    (encoder.text if isinstance(message, str) else encoder.binary)(message, KEY)
    connection.send(message)
    for take in (encoder.take_buffers, connection.buffers_to_send):
        tracemalloc.start()
        try:
            buffers = take()
            assert tracemalloc.get_traced_memory()[1] < MIB + 64 * KIB
        finally:
            tracemalloc.stop()
        assert sum(map(len, buffers)) == MIB + 14


def test_no_utf8_stays_with_the_text(twin: SimpleNamespace) -> None:
    text = "é" * MIB
    size = sys.getsizeof(text)
    encoder = twin.MessageEncoder()
    encoder.text(text)
    encoder.text(text, KEY)
    encoder.take()
    assert sys.getsizeof(text) == size


@pytest.mark.parametrize("key", [None, KEY], ids=["plain", "masked"])
@pytest.mark.parametrize("view", [False, True])
def test_what_may_change_is_copied(twin: SimpleNamespace, key: bytes | None, view: bool) -> None:
    data = bytearray(MIB)
    encoder = twin.MessageEncoder()
    encoder.binary(memoryview(data) if view else data, key)
    data[:] = b"x" * MIB
    assert encoder.take() == twin.encode_frame(Opcode.BINARY, bytes(MIB), key=key)


@pytest.mark.parametrize("make", [lambda n: "a" * n, bytes], ids=["ascii", "bytes"])
@pytest.mark.parametrize("key", [None, KEY], ids=["plain", "masked"])
def test_a_large_message_that_may_not_come_next(
    twin: SimpleNamespace, make: Any, key: bytes | None
) -> None:
    message = make(MIB)
    encoder = twin.MessageEncoder()
    append = encoder.text if isinstance(message, str) else encoder.binary
    with pytest.raises(StateError):
        encoder.continuation(message, key)
    for bad in (b"123", b"12345"):
        with pytest.raises(ValueError, match="mask key"):
            append(message, bad)
    encoder.text("begin", key, fin=False)
    with pytest.raises(StateError):
        append(message, key)
    assert encoder.take() == twin.encode_frame(Opcode.TEXT, b"begin", fin=False, key=key)
