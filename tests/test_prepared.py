"""Compression on a connection, and messages that are prepared once for many connections."""

from __future__ import annotations

import copy
import os
import pickle
import random
from array import array
from dataclasses import replace
from itertools import product
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastws import (
    Connection,
    Opcode,
    PerMessageDeflate,
    PreparedMessage,
    Role,
    StateError,
    Text,
    prepare,
)
from fastws.codec import FrameDecoder, encode_frame

if TYPE_CHECKING:
    from fastws.codec import Frame
    from fastws.deflate import Agreement

TEXT = "the same words, the same words, the same words " * 20
NOISE = random.Random(1).randbytes(2000)


def agree(
    client: PerMessageDeflate, server: PerMessageDeflate | None = None
) -> tuple[Agreement, Agreement]:
    """Negotiate; return what the client and the server agreed on."""
    accepted = (server or client).accept_offer(client.offers()[-1])
    assert accepted is not None
    params, agreement = accepted
    return client.accept_response(params), agreement


def pair(**options: object) -> tuple[Connection, Connection]:
    client, server = agree(PerMessageDeflate(**options))
    return Connection(Role.CLIENT, deflate=client), Connection(Role.SERVER, deflate=server)


def frame_bytes(frame: Frame) -> bytes:
    return encode_frame(frame.opcode, frame.payload, fin=frame.fin, rsv1=frame.rsv1)


def frames_of(server: Connection) -> list[Frame]:
    """Return the frames that a server has to send."""
    return FrameDecoder(masked=False, rsv1=True).feed(server.data_to_send())


# Text as bytes --------------------------------------------------------------------------------


def test_text_as_bytes_is_compressed_like_a_str() -> None:
    client, server = agree(PerMessageDeflate())
    sender = Connection(Role.SERVER, deflate=server)
    receiver = Connection(Role.CLIENT, deflate=client, decode_text=False)
    data = TEXT.encode()
    sender.send(TEXT)
    sender.send(Text(data))
    sender.send_text(data)
    sender.send_text(data, compress=False)
    sender.send(prepare(Text(data)))
    sender.send_text(data + b"\xc3", fin=False)
    with pytest.raises(ValueError, match="text is not UTF-8"):
        sender.continuation(b"")
    sender.continuation(b"\xa9" + data)
    frames = frames_of(sender)
    assert [frame.rsv1 for frame in frames] == [True, True, True, False, True, True, False]
    stream = b"".join(frame_bytes(frame) for frame in frames)
    events = receiver.receive_data(stream)
    assert events == [Text(data)] * 5 + [Text(data + "é".encode() + data)]
    sender.send_text(data, fin=False, compress=False)
    sender.continuation(data)
    assert [frame.rsv1 for frame in frames_of(sender)] == [False, False]


def test_text_is_prepared_from_bytes() -> None:
    prepared = prepare(Text(b"a"))
    assert (prepared.opcode, prepared.payload) == (Opcode.TEXT, b"a")


# Compressing, or not -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("message", "compress", "compressed"),
    [
        (TEXT, None, True),
        (TEXT.encode(), None, True),
        (array("I", range(300)), None, True),
        (TEXT, True, True),
        (TEXT, False, False),
        ("short", None, False),
        ("short", True, True),
        ("", True, True),
        (NOISE, None, False),  # compression does not pay off
        (NOISE, True, True),
    ],
    ids=str,
)
def test_a_message_is_compressed_when_it_pays_or_is_wished(
    message: str | bytes, compress: bool | None, compressed: bool
) -> None:
    client, server = pair()
    server.send(message, compress=compress)
    (frame,) = frames_of(server)
    assert frame.rsv1 is compressed
    client.send(message, compress=compress)
    expected = message if isinstance(message, str) else bytes(message)
    assert server.receive_data(client.data_to_send()) == [expected]


@pytest.mark.parametrize("gain", [-1, 0, 1])
def test_compression_pays_from_one_byte_on(gain: int) -> None:
    for repeated in range(100):
        message = NOISE[:50] + b"a" * repeated
        _, server = pair(threshold=0)
        server.send(message, compress=True)
        (frame,) = frames_of(server)
        if len(frame.payload) + gain == len(message):
            break
    else:
        pytest.fail("there is no such message")
    _, server = pair(threshold=0)
    server.send(message)
    (frame,) = frames_of(server)
    assert frame.rsv1 is (gain == 1)


@pytest.mark.parametrize("size", [255, 256])
def test_messages_are_compressed_from_the_threshold_on(size: int) -> None:
    for message in (bytes(size), "é" * (size // 2) + "e" * (size % 2)):
        _, server = pair(threshold=256)
        server.send(message)
        (frame,) = frames_of(server)
        assert frame.rsv1 is (size == 256)


def test_a_connection_says_what_was_agreed_on() -> None:
    for agreement in agree(PerMessageDeflate()):
        connection = Connection(agreement.role, deflate=agreement)
        assert connection.deflate is agreement
        assert connection.compressor == ("zlib", None, agreement.max_window_bits, 5)


@pytest.mark.parametrize("agreed", [True, False])
@pytest.mark.parametrize("compress", [None, True, False])
def test_send_returns_how_much_is_queued(agreed: bool, compress: bool | None) -> None:
    ends = pair() if agreed else (Connection(Role.CLIENT), Connection(Role.SERVER))
    for connection in ends:
        before = 0
        for message in ("short", b"short", bytearray(b"short"), TEXT, prepare("short"), NOISE):
            queued = connection.send(message, compress=compress)
            assert before < queued == connection.bytes_queued
            before = queued
        queued = connection.send(TEXT, fin=False, compress=compress)
        assert before < queued == connection.bytes_queued == len(connection.data_to_send())


def test_without_an_agreement_nothing_is_compressed() -> None:
    server = Connection(Role.SERVER)
    assert server.compressor is server.deflate is None
    server.send(TEXT, compress=True)
    server.send(prepare(TEXT), compress=True)
    assert [frame.rsv1 for frame in frames_of(server)] == [False, False]


def test_a_window_that_no_library_can_write_means_plain_messages() -> None:
    client, _ = agree(PerMessageDeflate())
    small = replace(client, max_window_bits=8)
    server = Connection(Role.SERVER, deflate=small)
    assert server.compressor is None
    server.send(TEXT, compress=True)
    server.send(prepare(TEXT), compress=True)
    assert [frame.rsv1 for frame in frames_of(server)] == [False, False]


@pytest.mark.parametrize("takeover", [True, False])
def test_fragments_of_a_compressed_message(takeover: bool) -> None:
    client, server = pair(context_takeover=takeover, peer_context_takeover=takeover)
    for _ in range(3):
        server.send("a", fin=False)
        server.continuation(TEXT, fin=False)
        server.ping(b"between")
        server.continuation("")
        server.send(TEXT, fin=False, compress=False)
        server.continuation(b"!")
        data = server.data_to_send()
        assert [event for event in client.receive_data(data) if isinstance(event, str)] == [
            "a" + TEXT,
            TEXT + "!",
        ]
    server.send("a", fin=False)
    server.continuation("b")
    assert [(frame.rsv1, frame.fin) for frame in frames_of(server)] == [
        (True, False),
        (False, True),
    ]


def test_what_was_refused_does_not_spoil_what_follows() -> None:
    client, server = pair(threshold=0)
    server.send(TEXT)
    server.send("begin", fin=False)
    with pytest.raises(StateError):
        server.send(TEXT)
    with pytest.raises(StateError):
        server.send(prepare(TEXT))
    with pytest.raises(TypeError):
        server.send(5)
    with pytest.raises(TypeError):
        server.continuation(5)
    server.continuation("end")
    server.send(TEXT)
    assert client.receive_data(server.data_to_send()) == [TEXT, "beginend", TEXT]


# Prepared messages -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("message", "opcode", "payload"),
    [
        ("é", Opcode.TEXT, "é".encode()),
        (b"\x00", Opcode.BINARY, b"\x00"),
        (bytearray(b"ab"), Opcode.BINARY, b"ab"),
        (memoryview(b"abcd")[::2], Opcode.BINARY, b"ac"),
    ],
)
def test_prepare_takes_what_send_takes(message: object, opcode: Opcode, payload: bytes) -> None:
    prepared = prepare(message)
    assert isinstance(prepared, PreparedMessage)
    assert (prepared.opcode, prepared.payload) == (opcode, payload)


@pytest.mark.parametrize("message", [5, None, ["a"], {}])
def test_prepare_refuses_what_is_no_message(message: object) -> None:
    with pytest.raises(TypeError, match="a bytes-like object is required"):
        prepare(message)


def test_prepare_refuses_lone_surrogates() -> None:
    with pytest.raises(UnicodeEncodeError):
        prepare("\ud800")


def test_a_prepared_message_is_compressed_once_for_all_that_compress_alike() -> None:
    prepared = prepare(TEXT)
    alike = [pair() for _ in range(5)]
    other = pair(max_window_bits=9)
    for client, server in (*alike, other):
        server.send(prepared)
        assert client.receive_data(server.data_to_send()) == [TEXT]
    parameters = {server.compressor for _, server in (*alike, other)}
    assert len(parameters) == 2
    first = alike[0][1].compressor
    assert first is not None
    assert prepared.compressed(first) is prepared.compressed(first)


@pytest.mark.parametrize("compress", [None, True, False])
@pytest.mark.parametrize("message", ["", "é", TEXT, NOISE, bytes(60_000)])
def test_servers_share_the_frame_of_a_prepared_message(
    message: str | bytes, compress: bool | None
) -> None:
    """It is encoded once for all connections that send it in the same way."""
    prepared = prepare(message)
    frames: set[int] = set()
    kept = []
    for make in (lambda: pair()[1], lambda: Connection(Role.SERVER)):
        for _ in range(3):
            server = make()
            for _ in range(2):
                assert server.send(prepared, compress=compress) == server.bytes_queued
                (buffer,) = server.buffers_to_send()
                assert server.bytes_queued == 0
                frames.add(id(buffer))
                kept.append(buffer)
    compresses = compress is True or (compress is None and message in (TEXT, bytes(60_000)))
    assert len(frames) == 1 + compresses
    for buffer in kept:
        client = Connection(Role.CLIENT, deflate=agree(PerMessageDeflate())[0])
        assert client.receive_data(buffer) == [message]


def test_a_shared_frame_does_not_change_when_more_follows() -> None:
    server, client = Connection(Role.SERVER), Connection(Role.CLIENT)
    prepared = prepare("prepared")
    server.send(prepared)
    frame = server.data_to_send()
    before = bytes(bytearray(frame))
    for first, then in product([prepared, "text", bytes(70_000)], repeat=2):
        for count in range(4):
            for message in (first, *[then] * count):
                server.send(message)
            server.ping(b"ping")
            queued = server.bytes_queued
            buffers = server.buffers_to_send()
            assert sum(map(len, buffers)) == queued
            received = client.receive_data(b"".join(buffers))
            expected = [first, *[then] * count]
            assert received[:-1] == [
                "prepared" if message is prepared else message for message in expected
            ]
            client.data_to_send()
    assert frame == before
    # Now nobody else has the frame.
    server.send(prepared)
    del prepared, frame
    server.send("text")
    assert client.receive_data(server.data_to_send()) == ["prepared", "text"]


def test_a_prepared_message_can_be_copied_after_it_was_sent() -> None:
    prepared = prepare(TEXT)
    ends = [pair(), (Connection(Role.CLIENT), Connection(Role.SERVER))]
    for _ in range(2):
        for client, server in ends:
            for same in (prepared, copy.copy(prepared), pickle.loads(pickle.dumps(prepared))):
                server.send(same)
                assert client.receive_data(server.data_to_send()) == [TEXT]


def test_clients_mask_a_prepared_message_each_time_anew() -> None:
    client, server = Connection(Role.CLIENT), Connection(Role.SERVER)
    prepared = prepare(os.urandom(64))
    client.send(prepared)
    one = client.data_to_send()
    client.send(prepared)
    assert client.bytes_queued == len(one)
    two = client.data_to_send()
    assert one != two
    assert server.receive_data(one + two) == [prepared.payload] * 2


def test_a_prepared_message_can_be_the_first_fragment() -> None:
    client, server = pair()
    server.send(prepare(TEXT), fin=False)
    server.continuation(" and more")
    assert client.receive_data(server.data_to_send()) == [TEXT + " and more"]


@pytest.mark.parametrize("agreed", [True, False])
@pytest.mark.parametrize("shared", [True, False])
def test_a_first_fragment_that_goes_plain_is_followed_by_plain_ones(
    agreed: bool, shared: bool
) -> None:
    ends = pair() if agreed else (Connection(Role.CLIENT), Connection(Role.SERVER))
    first = prepare(TEXT) if shared else TEXT
    for sender, receiver in (ends, ends[::-1]):
        sender.send(first, fin=False, compress=False)
        sender.continuation("and more", fin=False)
        sender.continuation(TEXT)
        data = sender.data_to_send()
        frames = FrameDecoder(masked=sender.role is Role.CLIENT, rsv1=True).feed(data)
        assert [frame.rsv1 for frame in frames] == [False] * 3
        sender.send(TEXT)
        received = receiver.receive_data(data + sender.data_to_send())
        assert received == [TEXT + "and more" + TEXT, TEXT]
        assert receiver.error is None


@pytest.mark.parametrize("takeover", [True, False])
def test_a_first_fragment_shows_whether_compression_pays(takeover: bool) -> None:
    deflate = PerMessageDeflate(context_takeover=takeover)
    ours, theirs = agree(deflate, deflate)
    ends = Connection(Role.CLIENT, deflate=ours), Connection(Role.SERVER, deflate=theirs)
    noise, rest = random.Random(1).randbytes(4 << 10), bytes(1000)
    for sender, receiver in (ends, ends[::-1]):
        for first, compress, compressed in (
            (noise, None, False),
            (noise[:-1], None, True),  # too short to tell
            (noise, True, True),
            (noise + rest, None, True),
            (prepare(noise), None, False),
        ):
            sender.send(first, fin=False, compress=compress)
            sender.continuation(rest)
            data = sender.data_to_send()
            frames = FrameDecoder(masked=sender.role is Role.CLIENT, rsv1=True).feed(data)
            assert [frame.rsv1 for frame in frames] == [compressed, False]
            assert (len(frames[1].payload) < len(rest)) is compressed
            payload = noise if isinstance(first, PreparedMessage) else first
            arrived = receiver.receive_data(data)
            while receiver.has_pending:
                arrived += receiver.receive_data(b"")
            assert arrived == [payload + rest]


@pytest.mark.parametrize("compress", [None, True, False])
def test_a_prepared_message_is_compressed_as_any_other(compress: bool | None) -> None:
    for message in (TEXT, "short", NOISE, ""):
        for sent in (message, prepare(message)):
            _, server = pair()
            server.send(sent, compress=compress)
            (one,) = frames_of(server)
            server.send(sent, compress=compress, fin=False)
            server.continuation(b"")
            assert one.rsv1 is (compress is True or (compress is None and message == TEXT))
            assert [frame.rsv1 for frame in frames_of(server)] == [compress is not False, False]


def test_a_prepared_message_out_of_turn_is_refused_without_compression_too() -> None:
    client, server = Connection(Role.CLIENT), Connection(Role.SERVER)
    server.send("begin", fin=False)
    with pytest.raises(StateError):
        server.send(prepare(TEXT))
    server.continuation("end")
    server.send(prepare(TEXT))
    assert client.receive_data(server.data_to_send()) == ["beginend", TEXT]


DEFLATES = st.builds(
    PerMessageDeflate,
    context_takeover=st.booleans(),
    peer_context_takeover=st.booleans(),
    max_window_bits=st.integers(9, 15),
    peer_max_window_bits=st.integers(9, 15),
    threshold=st.sampled_from([0, 20, 200]),
)
MESSAGES = st.one_of(
    st.text(max_size=40), st.binary(max_size=40), st.sampled_from([TEXT, TEXT.encode(), NOISE])
)


@given(
    client=DEFLATES,
    server=DEFLATES,
    messages=st.lists(
        st.tuples(MESSAGES, st.sampled_from([None, True, False]), st.sampled_from("sfp")),
        max_size=12,
    ),
)
def test_whatever_is_sent_in_whatever_manner_arrives(
    client: PerMessageDeflate,
    server: PerMessageDeflate,
    messages: list[tuple[str | bytes, bool | None, str]],
) -> None:
    ours, theirs = agree(client, server)
    ends = Connection(Role.CLIENT, deflate=ours), Connection(Role.SERVER, deflate=theirs)
    for sender, receiver in (ends, ends[::-1]):
        for message, compress, manner in messages:
            if manner == "f":
                half = len(message) // 2
                sender.send(message[:half], fin=False, compress=compress)
                sender.continuation(message[half:])
            else:
                sender.send(prepare(message) if manner == "p" else message, compress=compress)
        arrived = receiver.receive_data(sender.data_to_send())
        while receiver.has_pending:  # inflating noise is expensive
            arrived += receiver.receive_data(b"")
        assert arrived == [message for message, *_ in messages]
