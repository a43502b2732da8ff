"""The codec against its peers, and against itself at twice the size.

Each case gives the time for the same bytes, so within a group the ratios are what counts.
A peer that is not installed is reported as missing, not left out.
"""

from __future__ import annotations

import random
from importlib import import_module
from typing import TYPE_CHECKING

import pytest

from fastws.spec import Opcode

if TYPE_CHECKING:
    from collections.abc import Callable

    Feed = Callable[[bytes], int]  # takes a read, tells how many messages it completed

READ = 65536
KEY = b"\x12\x34\x56\x78"
SIZES = [16, 1024, 16 << 10, 1 << 20]
TOTAL = 1 << 20  # bytes of payload for each round


# Who decodes ---------------------------------------------------------------------


def fastws_c() -> Feed:
    return _fastws("c")


def fastws_py() -> Feed:
    return _fastws("py")


def _fastws(twin: str) -> Feed:
    messages = import_module(f"fastws._{twin}.messages")
    feed = messages.MessageDecoder(masked=True, max_message_size=None).feed
    return lambda data: len(feed(data))


def websockets() -> Feed:
    protocol = import_module("websockets.protocol")
    peer = protocol.Protocol(protocol.Side.SERVER, max_size=None)

    def feed(data: bytes) -> int:
        peer.receive_data(data)
        return len(peer.events_received())

    return feed


def wsproto() -> Feed:
    connection = import_module("wsproto.connection")
    peer = connection.Connection(connection.ConnectionType.SERVER)

    def feed(data: bytes) -> int:
        peer.receive_data(data)
        return sum(event.message_finished for event in peer.events())

    return feed


PEERS = [fastws_c, fastws_py, websockets, wsproto]


def payload(kind: str, size: int) -> bytes:
    rng = random.Random(size)
    if kind == "binary":
        return rng.randbytes(size)
    alphabet = {"ascii": "abcdefghijklmnopqrstuvwxyz ", "cjk": "网络套接字编解码器消息帧"}[kind]
    text = "".join(rng.choices(alphabet, k=size)).encode()[:size]
    return text.decode(errors="ignore").encode().ljust(size)


# Cases --------------------------------------------------------------------------------


@pytest.mark.parametrize("peer", PEERS, ids=lambda peer: peer.__name__)
@pytest.mark.parametrize("kind", ["binary", "ascii", "cjk"])
@pytest.mark.parametrize("size", SIZES)
def test_decode(benchmark, peer: Callable[[], Feed], kind: str, size: int) -> None:
    benchmark.group = f"decode {size} B {kind}"
    encode_frame = import_module("fastws.codec").encode_frame
    opcode = Opcode.BINARY if kind == "binary" else Opcode.TEXT
    frame = encode_frame(opcode, payload(kind, size), key=KEY)
    count = max(1, TOTAL // size)
    stream = frame * count
    reads = [stream[i : i + READ] for i in range(0, len(stream), READ)]
    try:
        feed = peer()
    except ImportError as exc:
        pytest.skip(f"missing: {exc.name}")

    def decode() -> int:
        return sum(map(feed, reads))

    assert benchmark(decode) == count


@pytest.mark.parametrize("twin", ["c", "py"])
@pytest.mark.parametrize("size", [1 << 20, 2 << 20, 4 << 20])
@pytest.mark.parametrize("piece", [1460, READ])
def test_decode_one_message(benchmark, twin: str, size: int, piece: int) -> None:
    """Linear: twice the size takes twice the time, however it is cut."""
    benchmark.group = f"one message in pieces of {piece} B, {twin}"
    module = import_module(f"fastws._{twin}.messages")
    encoder = module.MessageEncoder()
    encoder.binary(payload("binary", size), KEY)
    stream = encoder.take()
    pieces = [stream[i : i + piece] for i in range(0, len(stream), piece)]

    def decode() -> int:
        decoder = module.MessageDecoder(masked=True, max_message_size=None)
        return sum(len(decoder.feed(piece)) for piece in pieces)

    assert benchmark(decode) == 1


@pytest.mark.parametrize("twin", ["c", "py"])
@pytest.mark.parametrize("role", ["server", "client"])
@pytest.mark.parametrize("size", SIZES)
def test_encode(benchmark, twin: str, role: str, size: int) -> None:
    benchmark.group = f"encode {size} B, {role}"
    encoder = import_module(f"fastws._{twin}.messages").MessageEncoder()
    data = payload("binary", size)
    key = KEY if role == "client" else None
    count = max(1, TOTAL // size)

    def encode() -> int:
        for _ in range(count):
            encoder.binary(data, key)
        return len(encoder.take())

    assert benchmark(encode) > count * size


@pytest.mark.parametrize("twin", ["c", "py"])
@pytest.mark.parametrize("size", [8, *SIZES])
def test_apply_mask_inplace(benchmark, twin: str, size: int) -> None:
    benchmark.group = f"mask {size} B in place"
    mask = import_module(f"fastws._{twin}.masking").apply_mask_inplace
    benchmark(mask, bytearray(size), KEY)


@pytest.mark.parametrize("twin", ["c", "py"])
@pytest.mark.parametrize("kind", ["ascii", "cjk"])
@pytest.mark.parametrize("size", SIZES)
def test_is_utf8(benchmark, twin: str, kind: str, size: int) -> None:
    benchmark.group = f"validate {size} B {kind}"
    is_utf8 = import_module(f"fastws._{twin}.utf8").is_utf8
    assert benchmark(is_utf8, payload(kind, size))
