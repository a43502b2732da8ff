"""Servers of the hosts as processes, and conversations with them, byte by byte.

The tests compare what a host sends with and without fastws, down to the bits of a header. So
the client here uses none of the tested libraries, and judges nothing.
"""

from __future__ import annotations

import base64
import os
import random
import socket
import struct
import sys
import time
import zlib
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ..tools import TIMEOUT, Program, free_port
from ..wire import FLUSHED, compressed

if TYPE_CHECKING:
    from collections.abc import Iterator

SERVERS = Path(__file__).parent / "servers"

CONT, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
FIN, RSV1 = 0x80, 0x40


@contextmanager
def serving(server: str, *integrations: str, env: dict[str, str] | None = None) -> Iterator[int]:
    """Run a program of `servers/` with these integrations; yield its port."""
    port = free_port()
    script = str(SERVERS / f"{server}.py")
    with Program(sys.executable, script, str(port), *integrations, env=env) as program:
        program.wait_for_port(port)
        yield port


# Frames ------------------------------------------------------------------------------


def frame(first: int, payload: bytes = b"", *, masked: bool = True) -> bytes:
    """Write a client's frame, however invalid."""
    size = len(payload)
    mask = 0x80 if masked else 0
    if size < 126:
        header = struct.pack("!BB", first, mask | size)
    elif size < 1 << 16:
        header = struct.pack("!BBH", first, mask | 126, size)
    else:
        header = struct.pack("!BBQ", first, mask | 127, size)
    if not masked:
        return header + payload
    key = random.randbytes(4)
    pad = key * (size // 4 + 1)
    number = int.from_bytes(payload, "big") ^ int.from_bytes(pad[:size], "big")
    return header + key + number.to_bytes(size, "big")


def frames(stream: bytes) -> list[tuple[int, bytes]]:
    """Parse a server's frames: return the first byte and the payload of each complete one."""
    found = []
    at = 0
    while len(stream) - at >= 10 or (len(stream) - at >= 2 and stream[at + 1] < 126):
        first, size = stream[at], stream[at + 1]
        at += 2
        if size >= 126:
            width = 2 if size == 126 else 8
            size = int.from_bytes(stream[at : at + width], "big")
            at += width
        if len(stream) < at + size:
            break
        found.append((first, stream[at : at + size]))
        at += size
    return found


def inflate(data: bytes) -> bytes:
    return zlib.decompressobj(wbits=-15).decompress(data + FLUSHED)


# Conversations -------------------------------------------------------------------------


class Talk(NamedTuple):
    """What a client sends, piece by piece, and how many frames it expects.

    After that many frames, it sends a close frame. If it expects none, it reads until it gets a
    close frame, and answers it.
    """

    name: str
    pieces: list[bytes]
    replies: int = 0
    deflate: bool = False


WORDS = "fastws: ä€😀 " * 20
LONG = "".join(chr(0x400 + number % 256) for number in range(40_000))


def _cut(stream: bytes, *sizes: int) -> list[bytes]:
    pieces, at = [], 0
    for size in sizes:
        pieces.append(stream[at : at + size])
        at += size
    return [*pieces, stream[at:]]


BODY = WORDS.encode()
NOISE = bytes(range(256)) * 300
NOT_UTF8 = compressed(b"\xff" * 9)
TALKS = [
    Talk("small", [frame(FIN | TEXT, b"hello"), frame(FIN | BINARY, b"\xff\0")], 2),
    Talk("empty", [frame(FIN | BINARY) + frame(FIN | TEXT, b"after that")], 1),
    Talk("sizes", [frame(FIN | BINARY, NOISE[:n]) for n in (125, 126, 4096, 65535, 65536)], 5),
    Talk("text", [frame(FIN | TEXT, BODY), frame(FIN | TEXT, LONG.encode())], 2),
    Talk("pipelined", [b"".join(frame(FIN | TEXT, b"%d" % number) for number in range(200))], 200),
    Talk("cut in the header", _cut(frame(FIN | TEXT, b"x" * 300), 1, 1, 1, 1, 2), 1),
    Talk("cut in a code point", _cut(frame(FIN | TEXT, BODY), 17, 1, 1, 1, 1, 1, 1, 1, 1), 1),
    Talk("cut large", _cut(frame(FIN | BINARY, NOISE), 5, 1000, 33_333), 1),
    Talk(
        "fragments",
        [
            frame(TEXT, BODY[:9]) + frame(FIN | PING, b"between") + frame(CONT),
            frame(CONT, BODY[9:11]) + frame(FIN | PONG, b"unasked") + frame(FIN | CONT, BODY[11:]),
        ],
        2,
    ),
    Talk("fragments of binary", [frame(BINARY, NOISE[:5]) + frame(FIN | CONT, NOISE[5:9000])], 1),
    Talk("ping", [frame(FIN | PING, b"are you there?"), frame(FIN | PING)], 2),
    Talk("close without code", [frame(FIN | CLOSE)]),
    Talk("close with reason", [frame(FIN | CLOSE, b"\x03\xe9bye \xe2\x82\xac")]),
    Talk("close with a code of its own", [frame(FIN | CLOSE, b"\x0f\xa0")]),
    Talk("deflate", [frame(FIN | RSV1 | TEXT, compressed(BODY))], 1, deflate=True),
    Talk(
        "deflate in fragments",
        [frame(RSV1 | TEXT, compressed(BODY)[:9]) + frame(FIN | CONT, compressed(BODY)[9:])],
        1,
        deflate=True,
    ),
    Talk("deflate agreed, not used", [frame(FIN | TEXT, BODY)], 1, deflate=True),
    # Violations
    Talk("invalid text", [frame(FIN | TEXT, b"good") + frame(FIN | TEXT, b"a\xffb")]),
    Talk("invalid text in fragments", [frame(TEXT, b"\xe2\x82") + frame(FIN | CONT, b"a")]),
    Talk("text cut short", [frame(FIN | TEXT, b"abc\xe2\x82")]),
    Talk("surrogates", [frame(FIN | TEXT, b"\xed\xa0\x80")]),
    Talk("invalid reason", [frame(FIN | CLOSE, b"\x03\xe8\xff")]),
    Talk("invalid close code", [frame(FIN | CLOSE, b"\x03\xed")]),
    Talk("close of one byte", [frame(FIN | CLOSE, b"\x03")]),
    Talk("reserved bit", [frame(FIN | RSV1 | TEXT, b"abc")]),
    Talk("reserved opcode", [frame(FIN | 3, b"abc")]),
    Talk("long ping", [frame(FIN | PING, b"x" * 126)]),
    Talk("ping in fragments", [frame(PING, b"x")]),
    Talk("nothing to continue", [frame(FIN | CONT, b"x")]),
    Talk("message not finished", [frame(TEXT, b"x") + frame(FIN | TEXT, b"y")]),
    Talk("too big", [struct.pack("!BBQ", FIN | BINARY, 0xFF, 1 << 30) + b"1234"]),
    Talk("invalid deflate", [frame(FIN | RSV1 | TEXT, b"\xff" * 9)], deflate=True),
    Talk("invalid text, deflated", [frame(FIN | RSV1 | TEXT, NOT_UTF8)], deflate=True),
]


def converse(port: int, talk: Talk, path: str = "/") -> tuple[str, list[tuple[int, bytes]]]:
    """Have a conversation with a server on a new connection, until the server ends it.

    Returns:
        the extensions agreed on, and all frames that the server sent, followed by -1 in place
        of a frame if it left the connection open.
    """
    with socket.create_connection(("127.0.0.1", port), TIMEOUT / 6) as peer:
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        key = base64.b64encode(os.urandom(16)).decode()
        request = (
            f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\n"
            f"Connection: Upgrade\r\nSec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n"
        )
        if talk.deflate:
            request += (
                "Sec-WebSocket-Extensions: permessage-deflate; "
                "server_no_context_takeover; client_no_context_takeover\r\n"
            )
        peer.sendall(f"{request}\r\n".encode())
        stream = b""
        while b"\r\n\r\n" not in stream:
            read = peer.recv(1 << 16)
            assert read, stream
            stream += read
        head, _, stream = stream.partition(b"\r\n\r\n")
        lines = head.decode().split("\r\n")
        assert lines[0].split(" ")[1] == "101", lines
        extensions = [line for line in lines if line.lower().startswith("sec-websocket-ext")]
        closed = False
        try:
            for piece in talk.pieces:
                peer.sendall(piece)
                if len(talk.pieces) > 1:
                    time.sleep(0.001)  # so that they are read one by one
            while True:
                received = frames(stream)
                if not closed and (
                    0 < talk.replies <= len(received)
                    or (received and received[-1][0] & 15 == CLOSE)
                ):
                    peer.sendall(frame(FIN | CLOSE, b"\x03\xe8"))
                    closed = True
                if not (read := peer.recv(1 << 16)):
                    break
                stream += read
        except (ConnectionResetError, BrokenPipeError):
            pass
        except TimeoutError:
            return "".join(extensions), [*frames(stream), (-1, b"")]
    return "".join(extensions), frames(stream)
