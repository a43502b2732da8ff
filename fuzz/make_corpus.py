"""Writes the small corpora that the fuzz targets start with.

    python fuzz/make_corpus.py [--seed N] [directory]

The same seed gives the same files. They go to .cache/fuzz/corpus, which is not in git; what the
fuzzers add there stays until it is deleted.
"""

from __future__ import annotations

import argparse
import random
import zlib
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from fastws._py.frames import encode_frame
from fastws.handshake import ClientHandshake, accept_key

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parent.parent
CORPUS = ROOT / ".cache" / "fuzz" / "corpus"
SEED = 7692

FLUSHED = b"\x00\x00\xff\xff"
TEXTS = ("", "Hello", "aé€😀", "x" * 126, "\ufffd\x00" * 40)
# Not UTF-8, by their last byte: surrogates, overlong forms, beyond U+10FFFF
BAD_TEXTS = (b"\xed\xa0", b"\xc0", b"\xe0\x80", b"\xf0\x8f", b"\xf4\x90", b"\xf5", b"\xe2\x82a")


def compressed(data: bytes, draw: random.Random) -> bytes:
    """A message as a peer may compress it: one stream or several, of any kind."""
    stream = zlib.compressobj(
        draw.choice([0, 1, 6, 9]), zlib.DEFLATED, -15, draw.choice([1, 8]), draw.choice([0, 2, 4])
    )
    flush = draw.choice([zlib.Z_SYNC_FLUSH, zlib.Z_SYNC_FLUSH, zlib.Z_FULL_FLUSH, zlib.Z_FINISH])
    half = len(data) // 2
    result = stream.compress(data[:half])
    if draw.random() < 0.3:
        result += stream.flush(zlib.Z_SYNC_FLUSH)
    return (result + stream.compress(data[half:]) + stream.flush(flush)).removesuffix(FLUSHED)


def payload(draw: random.Random) -> bytes:
    kind = draw.randrange(5)
    if kind == 0:
        return draw.choice(TEXTS).encode()
    if kind == 1:
        return draw.randbytes(draw.choice([0, 1, 5, 125, 126, 300]))
    if kind == 2:
        return bytes(draw.choice([1, 200, 2000]))
    if kind == 3:
        return draw.choice(TEXTS).encode() + draw.choice(BAD_TEXTS) + b"\x80\x80"
    return draw.choice(TEXTS).encode()[: draw.randrange(6)]


def stream_of_frames(draw: random.Random, masked: bool, deflate: bool) -> bytes:
    """Messages in fragments, with control frames between them; now and then slightly wrong."""
    result = b""

    def frame(opcode: int, data: bytes, fin: bool = True, rsv1: bool = False) -> bytes:
        key = draw.randbytes(4) if masked else None
        return encode_frame(opcode, data, fin=fin, rsv1=rsv1, key=key)

    for _ in range(draw.randint(1, 4)):
        data, rsv1 = payload(draw), deflate and draw.random() < 0.7
        if rsv1:
            data = compressed(data, draw)
        cuts = sorted(draw.choices(range(len(data) + 1), k=draw.choice([0, 0, 1, 3])))
        edges = [0, *cuts, len(data)]
        for number, (start, end) in enumerate(pairwise(edges)):
            opcode = 0 if number else draw.choice([1, 2])
            last = number == len(cuts)
            result += frame(opcode, data[start:end], last, rsv1 and not number)
            if draw.random() < 0.3:
                result += frame(draw.choice([9, 10]), draw.randbytes(draw.choice([0, 4, 125])))
    if draw.random() < 0.5:
        code = draw.choice([1000, 1001, 3000, 4999, 1005, 999])
        result += frame(8, code.to_bytes(2, "big") + draw.choice(TEXTS).encode()[:123])
    return result


def decoder(draw: random.Random) -> bytes:
    flags = draw.randrange(16)
    limits = bytes([draw.choice([0, 0, 0, 1, 2, 5, 8]), draw.choice([0, 0, 1, 2, 4])])
    rest = limits + cuts(draw) + stream_of_frames(draw, bool(flags & 1), bool(flags & 2))
    return bytes([flags | (len(rest) & 1) << 4]) + rest


def frames(draw: random.Random) -> bytes:
    flags = draw.randrange(128)
    options = bytes([flags, draw.choice([0, 0, 1, 5, 7])])
    stream = stream_of_frames(draw, flags % 3 == 1, bool(flags & 16))
    return options + cuts(draw) + stream


def deflate(draw: random.Random) -> bytes:
    options = bytes([draw.randrange(16), draw.randrange(3), draw.choice([0, 0, 1, 2, 3, 4])])
    return (
        options
        + cuts(draw)
        + b"".join(compressed(payload(draw), draw) for _ in range(draw.choice([1, 1, 2, 3])))
    )


OFFERS = (
    "permessage-deflate",
    "permessage-deflate; client_max_window_bits",
    'permessage-deflate; client_max_window_bits="10"; server_max_window_bits=10',
    "permessage-deflate; server_max_window_bits=8, permessage-deflate",
    "permessage-deflate; server_no_context_takeover; client_no_context_takeover",
    "x-other; a=b, permessage-deflate; unknown",
)


def handshake(draw: random.Random) -> bytes:
    client = draw.random() < 0.5
    headers = {"Sec-WebSocket-Extensions": draw.choice(OFFERS)}
    if client:
        headers |= {
            "Upgrade": "websocket",
            "Connection": "Upgrade",
            "Sec-WebSocket-Accept": accept_key("dGhlIHNhbXBsZSBub25jZQ=="),
        }
        status = draw.choice(["101 Switching Protocols", "403 Forbidden", "100 Continue"])
        head = f"HTTP/1.1 {status}\r\n".encode()
        if draw.random() < 0.3:
            headers["Transfer-Encoding"] = "chunked"
        if draw.random() < 0.3:
            headers["Sec-WebSocket-Protocol"] = "chat"
        tail = draw.choice([b"", b"\x81\x02hi", b"2\r\nhi\r\n0\r\n\r\n"])
    else:
        request = ClientHandshake(
            "ws://h/a?b",
            key=draw.randbytes(16),
            origin=draw.choice([None, "https://h", "null"]),
            subprotocols=draw.choice([(), ("chat",), ("x", "soap")]),
        ).request()
        head = request.removesuffix(b"\r\n")
        tail = draw.choice([b"", b"\x81\x82keykeyhi"])
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    flags = draw.randrange(0, 32, 2) + client
    return bytes([flags]) + cuts(draw) + head + lines.encode() + b"\r\n" + tail


def cuts(draw: random.Random) -> bytes:
    return bytes([draw.choice([1, 3, 9]), draw.choice([1, 2, 100]), draw.randrange(4)])


def kernels(draw: random.Random) -> bytes:
    characters = draw.sample("aé€😀\u07ff\ufffd\U0010ffff\x7f", draw.randint(1, 8))
    weights = [10 ** -draw.randrange(3) for _ in characters]  # runs are faster to read
    text = "".join(draw.choices(characters, weights, k=draw.choice([3, 9, 40, 200, 1000])))
    return draw.randbytes(6) + text.encode()[draw.randrange(2) :]


TARGETS = {
    "decoder": decoder,
    "differential": decoder,
    "deflate": deflate,
    "handshake": handshake,
    "frames": frames,
    "kernels": kernels,
}


def corpus(target: str, seed: int = SEED, count: int = 150) -> Iterator[bytes]:
    """The inputs that a target starts with; in a third of them, a byte is changed."""
    draw = random.Random(f"{seed}-{target}")
    for number in range(count):
        data = bytearray(TARGETS[target](draw))
        if number % 3 == 0 and data:
            data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
        yield bytes(data)


def write(directory: Path = CORPUS, seed: int = SEED) -> None:
    for target in TARGETS:
        folder = directory / target
        folder.mkdir(parents=True, exist_ok=True)
        for number, data in enumerate(corpus(target, seed)):
            (folder / f"seed-{number:03}").write_bytes(data)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("directory", type=Path, nargs="?", default=CORPUS)
    parser.add_argument("--seed", type=int, default=SEED)
    arguments = parser.parse_args()
    write(arguments.directory, arguments.seed)
