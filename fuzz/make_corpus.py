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


def streams(draw: random.Random) -> bytes:
    data = decoder(draw)
    return data[:3] + bytes([draw.randrange(4)]) + data[3:]


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
    if client:
        tail = draw.choice([b"", b"\x81\x02hi", b"2\r\nhi\r\n0\r\n\r\n"])
    else:
        tail = draw.choice([b"", b"\x81\x82keykeyhi"])
    flags = draw.randrange(0, 32, 2) + client
    return bytes([flags]) + cuts(draw) + head(draw, client) + tail


def session(draw: random.Random) -> bytes:
    flags = draw.randrange(32)
    client, deflate = bool(flags & 1), bool(flags & 2)
    options = bytes([flags, draw.choice([0, 0, 1, 2, 3]), draw.choice([0, 0, draw.randrange(256)])])
    return options + cuts(draw) + head(draw, client) + stream_of_frames(draw, not client, deflate)


def head(draw: random.Random, client: bool) -> bytes:
    """A response for a client, a request for a server."""
    headers = {"Sec-WebSocket-Extensions": draw.choice(OFFERS)}
    if client:
        headers |= {
            "Upgrade": "websocket",
            "Connection": "Upgrade",
            "Sec-WebSocket-Accept": accept_key("dGhlIHNhbXBsZSBub25jZQ=="),
        }
        status = draw.choice(["101 Switching Protocols", "403 Forbidden", "100 Continue"])
        start = f"HTTP/1.1 {status}\r\n".encode()
        if draw.random() < 0.3:
            headers["Transfer-Encoding"] = "chunked"
        if draw.random() < 0.3:
            headers["Sec-WebSocket-Protocol"] = "chat"
    else:
        request = ClientHandshake(
            "ws://h/a?b",
            key=draw.randbytes(16),
            origin=draw.choice([None, "https://h", "null"]),
            subprotocols=draw.choice([(), ("chat",), ("x", "soap")]),
        ).request()
        start = request.removesuffix(b"\r\n")
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return start + lines.encode() + b"\r\n"


def cuts(draw: random.Random) -> bytes:
    return bytes([draw.choice([1, 3, 9]), draw.choice([1, 2, 100]), draw.randrange(4)])


V2 = b"\r\n\r\n\x00\r\nQUIT\n"
ADDRESSES = {0x11: 12, 0x21: 36, 0x31: 216, 0x00: 0}
PREAMBLES = (
    b"PROXY TCP4 192.0.2.1 192.0.2.2 56324 443\r\n",
    b"PROXY TCP6 2001:db8::1 ::ffff:192.0.2.2 1 65535\r\n",
    b"PROXY UNKNOWN ffff:f...f:ffff 65535\r\n",
)
ANSWERS = (
    b"HTTP/1.1 200 Connection established\r\n\r\n",
    b"HTTP/1.0 200 OK\r\nVia: 1.1 p\r\n\r\n",
    b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 2\r\n\r\nno",
    b"HTTP/1.1 503 Busy\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nno\r\n0\r\n\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 502 Bad Gateway\r\n\r\nno",
    b"HTTP/1.1 100 Continue\r\n\r\n\r\r\n\r\n",
)


def preambles(draw: random.Random) -> bytes:
    kind = draw.randrange(3)
    options = bytes([kind, draw.randrange(3)]) + cuts(draw)
    if kind == 1:
        return options + draw.choice(ANSWERS)
    if kind == 2:
        return options + draw.choice(b"tbgx").to_bytes() + draw.randbytes(8) + payload(draw)
    if draw.random() < 0.5:
        return options + draw.choice(PREAMBLES) + b"GET /"
    family = draw.choice(list(ADDRESSES))
    block = draw.randbytes(ADDRESSES[family])
    for _ in range(draw.randrange(3)):
        value = draw.randbytes(draw.choice([0, 4, 40]))
        block += bytes([draw.choice([1, 2, 4, 0x20])]) + len(value).to_bytes(2, "big") + value
    command = bytes([0x20 | draw.randrange(2), family])
    return options + V2 + command + len(block).to_bytes(2, "big") + block + b"GET /"


SCHEMES = ("ws://", "wss://", "http:", "https:\\\\", "ws+unix://", "socks5h://", "//", "")
USERS = ("", "", "user@", "user:pass@", "a%3Ab:%C3%A9@", ":secret@", "%ff@")
HOSTS = ("h", "127.1", "0x7f000001", "[::1]", "[::ffff:1.2.3.4]", "1.2.3.4.5", "localhost.", "a..b")
HOSTS += ("b\u00fccher.example", "%6c%c3%bc", "xn--bcher-kva.example", "\u05d0.example", "/socket:")
PATHS = ("", "/", "/a/../%2e%2E/b?c=d", "\\a\\.", "?q=\u00e9%zz", "/[|]{}^`", "/a#b", "/ a", "/:")
DELAYS = ("120", "Fri, 27 Nov 2026 02:00:00 GMT", "Fri, 27 Nov 26 2:0:0 -2459", "9" * 400, "0 1 2")


def addresses(draw: random.Random) -> bytes:
    kind = draw.randrange(5)
    if kind == 3:
        return bytes([kind]) + draw.choice(DELAYS).encode()
    port = draw.choice(["", "", ":", ":80", ":0443", ":65536"])
    parts = (draw.choice(choices) for choices in (SCHEMES, USERS, HOSTS, [port], PATHS))
    return bytes([kind]) + "".join(parts).encode()


DUMPS = (b"81 85 37 fa 21 3d", b"0x81, 0x00", b'b"\\x81\\x00"', b"00000000: 8105 4865  ..He\n")
DUMPS += (b"b''", b"b'\\\r'")


def packet(draw: random.Random, data: bytes, sequence: int, flags: int) -> bytes:
    """An IP packet with a TCP segment."""
    tcp = b"\x04\xd2\x00P" + sequence.to_bytes(4, "big") + bytes([0, 0, 0, 0, 0x50, flags])
    tcp += bytes(6) + data
    if draw.random() < 0.5:
        size = (20 + len(tcp)).to_bytes(2, "big")
        return b"E\x00" + size + bytes(5) + b"\x06" + bytes(2) + b"\x7f\0\0\x01\x7f\0\0\x02" + tcp
    return b"\x60\0\0\0" + len(tcp).to_bytes(2, "big") + b"\x06\xff" + bytes(32) + tcp


def pcap(draw: random.Random, data: bytes) -> bytes:
    sequences, packets = [0, *sorted(draw.sample(range(len(data) + 1), min(3, len(data))))], []
    for start, end in pairwise([*sequences, len(data)]):
        packets.append(packet(draw, data[start:end], start + 1, 0x10))
    packets.insert(0, packet(draw, b"", 0, 2))
    if draw.random() < 0.3:
        packets.reverse()
    if draw.random() < 0.5:
        result = b"\xd4\xc3\xb2\xa1" + bytes(16) + (101).to_bytes(4, "little")
        for one in packets:
            result += bytes(8) + 2 * len(one).to_bytes(4, "little") + one
        return result

    def block(kind: int, content: bytes) -> bytes:
        content += bytes(-len(content) % 4)
        size = (12 + len(content)).to_bytes(4, "little")
        return kind.to_bytes(4, "little") + size + content + size

    result = block(0x0A0D0D0A, b"\x4d\x3c\x2b\x1a\x01\0\0\0" + bytes(8)) + block(1, b"e" + bytes(7))
    for one in packets:
        result += block(6, bytes(12) + 2 * len(one).to_bytes(4, "little") + one)
    return result


def captures(draw: random.Random) -> bytes:
    flags = draw.randrange(4)
    client = bool(flags & 2)
    data = stream_of_frames(draw, client, True)
    if draw.random() < 0.3:
        data = head(draw, not client) + data
    if not flags & 1:
        data = draw.choice(DUMPS) if draw.random() < 0.3 else pcap(draw, data)
    return bytes([flags]) + cuts(draw) + data


def kernels(draw: random.Random) -> bytes:
    characters = draw.sample("aé€😀\u07ff\ufffd\U0010ffff\x7f", draw.randint(1, 8))
    weights = [10 ** -draw.randrange(3) for _ in characters]  # runs are faster to read
    text = "".join(draw.choices(characters, weights, k=draw.choice([3, 9, 40, 200, 1000])))
    return draw.randbytes(6) + text.encode()[draw.randrange(2) :]


TARGETS = {
    "decoder": decoder,
    "differential": decoder,
    "deflate": deflate,
    "streams": streams,
    "handshake": handshake,
    "session": session,
    "frames": frames,
    "preambles": preambles,
    "addresses": addresses,
    "captures": captures,
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
