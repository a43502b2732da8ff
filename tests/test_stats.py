"""What decoders, encoders and connections count, compared with what went through them."""

from __future__ import annotations

import copy
import pickle
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastws import Connection, Opcode, Role, Session, Stats, Text, encode_frame, prepare
from fastws.deflate import Inflater, PartInflater

from .wire import agreement, compressed, pieces

if TYPE_CHECKING:
    from types import SimpleNamespace

KEY = b"\x01\x02\x03\x04"
FIELDS = ("messages", "frames", "bytes", "payload", "pings", "pongs")

# Opcode, payload, FIN; the sizes have headers of all lengths.
CONVERSATION = [
    (1, "täxt".encode(), True),
    (2, b"", True),
    (9, b"ping", True),
    (2, bytes(125), True),
    (2, bytes(126), True),
    (1, b"a" * 65535, True),
    (2, bytes(65536), True),
    (1, b"begun, ", False),
    (10, b"", True),
    (0, b"and ", False),
    (9, b"", True),
    (0, b"done", True),
    (2, b"", False),
    (0, b"", True),
    (8, b"\x03\xe8", True),
]
MESSAGES = 8
PAYLOAD = sum(len(payload) for opcode, payload, _ in CONVERSATION if opcode < 8)


def wire(key: bytes | None = KEY) -> bytes:
    return b"".join(
        encode_frame(Opcode(opcode), payload, fin=fin, key=key)
        for opcode, payload, fin in CONVERSATION
    )


def counted(**counts: int) -> dict[str, int]:
    return dict.fromkeys(FIELDS, 0) | counts


EVERYTHING = counted(
    messages=MESSAGES,
    frames=len(CONVERSATION),
    bytes=len(wire()),
    payload=PAYLOAD,
    pings=2,
    pongs=1,
)


def counts_of(coder: Any) -> dict[str, int]:
    return dict(zip(FIELDS, coder._counts(), strict=True))


# The codec ---------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("size", [1 << 20, 50_000, 100])
def test_what_a_decoder_counts(twin: SimpleNamespace, size: int, stream: bool) -> None:
    decoder = twin.MessageDecoder(masked=True, stream=stream)
    assert counts_of(decoder) == counted()
    data = wire()
    for start in range(0, len(data), size):
        decoder.feed(data[start : start + size])
    assert counts_of(decoder) == EVERYTHING
    decoder.feed(data)  # after a close frame, nothing counts
    assert counts_of(decoder) == EVERYTHING


def test_what_is_incomplete(twin: SimpleNamespace) -> None:
    decoder = twin.MessageDecoder(masked=False)
    decoder.feed(b"\x82\x05ab")
    assert counts_of(decoder) == counted(bytes=4, payload=2)
    decoder.feed(b"cde\x89\x02p")
    assert counts_of(decoder) == counted(messages=1, frames=1, bytes=10, payload=5)
    decoder.feed(b"p\x01")
    assert counts_of(decoder) == counted(messages=1, frames=2, bytes=12, payload=5, pings=1)
    decoder.feed(b"\x01a")
    assert counts_of(decoder) == counted(messages=1, frames=3, bytes=14, payload=6, pings=1)


def test_what_violates_the_protocol(twin: SimpleNamespace) -> None:
    decoder = twin.MessageDecoder(masked=False)
    decoder.feed(b"\x81\x01a\x83\x00" + b"\x81\x01a")
    assert decoder.error is not None
    assert counts_of(decoder) == counted(messages=1, frames=1, bytes=8, payload=1)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("size", [1 << 20, 100])
def test_what_is_inflated(twin: SimpleNamespace, stream: bool, size: int) -> None:
    payload = b"again and " * 30_000
    coded = compressed(payload)
    data = encode_frame(Opcode.TEXT, coded[:50], rsv1=True, fin=False, key=KEY)
    data += encode_frame(Opcode.CONTINUATION, coded[50:], key=KEY)
    inflater = (PartInflater if stream else Inflater)(agreement())
    decoder = twin.MessageDecoder(masked=True, inflater=inflater, step=1000, stream=stream)
    for piece in [data[start : start + size] for start in range(0, len(data), size)]:
        decoder.feed(piece)
        while decoder.has_pending:
            decoder.feed(b"")
    assert decoder.error is None
    assert counts_of(decoder) == counted(
        messages=1, frames=2, bytes=len(data), payload=len(payload)
    )


@pytest.mark.parametrize("key", [None, KEY], ids=["server", "client"])
def test_what_an_encoder_counts(twin: SimpleNamespace, key: bytes | None) -> None:
    encoder = twin.MessageEncoder()
    assert counts_of(encoder) == counted()
    for opcode, payload, fin in CONVERSATION:
        encoder.frame(opcode, payload, fin=fin, key=key)
    assert counts_of(encoder) == EVERYTHING | {"bytes": 0}
    assert encoder.take() == wire(key)
    assert counts_of(encoder) == EVERYTHING | {"bytes": len(wire(key))}
    encoder.text("äh", key)
    encoder.text(Text(b"more"), key, fin=False)
    encoder.continuation("!", key)
    encoder.ping(b"", key)
    encoder.pong(b"1", key)
    encoder.raw(b"\x81\x00")  # only its bytes are known
    size = len(encoder)
    encoder.take_buffers()
    assert counts_of(encoder) == EVERYTHING | {
        "messages": MESSAGES + 2,
        "frames": len(CONVERSATION) + 5,
        "bytes": len(wire(key)) + size,
        "payload": PAYLOAD + 8,
        "pings": 3,
        "pongs": 2,
    }


def test_what_is_refused_does_not_count(twin: SimpleNamespace) -> None:
    encoder = twin.MessageEncoder()
    encoder.text("begun", fin=False)
    before = counts_of(encoder)
    for call in (
        lambda: encoder.text("not now"),
        lambda: encoder.ping(bytes(126)),
        lambda: encoder.binary(b"", key=b"123"),
        lambda: encoder.continuation(None),
    ):
        with pytest.raises(Exception, match=r"."):
            call()
    assert counts_of(encoder) == before


# Connections ---------------------------------------------------------------------------------

messages = st.text(max_size=200) | st.binary(max_size=200) | st.integers(65534, 65537).map(bytes)


@settings(deadline=None)
@given(sent=st.lists(messages, max_size=6), role=st.sampled_from(Role), data=st.data())
def test_both_ends_count_the_same(sent: list[str | bytes], role: Role, data: st.DataObject) -> None:
    sender, receiver = Connection(role), Connection(Role(1 - role))
    assert sender.stats == receiver.stats == Stats()
    sizes = []
    for message in sent:
        octets = message.encode() if isinstance(message, str) else message
        sizes.append(len(octets))
        how = data.draw(st.sampled_from(["send", "prepared", "fragments", "text"]))
        if how == "prepared":
            sender.send(prepare(message))
        elif how == "fragments":
            sender.send(message[:5], fin=False)
            sender.ping()
            sender.continuation(message[5:])
        elif how == "text" and isinstance(message, str):
            sender.send_text(octets)
        else:
            sender.send(message)
    assert sender.stats.unsent == sender.bytes_queued
    assert sender.stats.bytes_sent == 0
    buffers = sender.buffers_to_send()
    size = sum(map(len, buffers))
    for piece in pieces(b"".join(buffers), 7):
        receiver.receive_data(piece)
    one, other = asdict(sender.stats), asdict(receiver.stats)
    assert one["bytes_sent"] == other["bytes_received"] == size
    assert one["payload_sent"] == other["payload_received"] == sum(sizes)
    assert one["messages_sent"] == other["messages_received"] == len(sent)
    for name in FIELDS:
        assert one[f"{name}_sent"] == other[f"{name}_received"]
    assert other["pongs_sent"] == one["pings_sent"]
    assert one["unsent"] == one["frames_received"] == 0


def test_close_frames_are_frames() -> None:
    client, server = Connection(Role.CLIENT), Connection(Role.SERVER)
    client.close(1000, "bye")
    server.receive_data(client.data_to_send())
    client.receive_data(server.data_to_send())
    assert (client.stats.frames_sent, client.stats.frames_received) == (1, 1)
    assert (server.stats.frames_sent, server.stats.frames_received) == (1, 1)
    assert client.stats.messages_sent == client.stats.payload_sent == 0


@pytest.mark.parametrize("takeover", [True, False])
def test_the_payload_is_that_before_compression(takeover: bool) -> None:
    agreed = agreement(context_takeover=takeover)
    sender, receiver = (Connection(role, deflate=agreed) for role in (Role.SERVER, Role.CLIENT))
    text = "again and " * 1000
    random = bytes(range(256)) * 2
    sender.send(text)
    sender.send(prepare(text))
    sender.send(random)  # does not become smaller ...
    sender.send(b"x", compress=True)  # ... or even becomes larger
    sender.send(text, fin=False)
    sender.continuation(text)
    sender.send(text, compress=False)
    data = sender.data_to_send()
    receiver.receive_data(data)
    while receiver.has_pending:
        receiver.receive_data(b"")
    assert sender.stats.messages_sent == receiver.stats.messages_received == 6
    assert sender.stats.frames_sent == receiver.stats.frames_received == 7
    assert sender.stats.payload_sent == receiver.stats.payload_received == 5 * len(text) + 513
    assert sender.stats.bytes_sent == receiver.stats.bytes_received == len(data)
    assert len(data) < 2 * len(text)


def test_a_session_counts_what_its_connection_does() -> None:
    session = Session.server()
    assert session.stats == Stats()


def test_a_snapshot_stays_as_it_is() -> None:
    connection = Connection(Role.SERVER)
    before = connection.stats
    connection.send("one")
    assert before == Stats() != connection.stats
    with pytest.raises(AttributeError):
        before.messages_sent = 1  # type: ignore[misc]
    after = connection.stats
    assert copy.copy(after) == pickle.loads(pickle.dumps(after)) == after
    assert after.latency is None
