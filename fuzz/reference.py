"""DEFLATE as RFC 1951 describes it, bit by bit: slow, and too simple to be wrong.

The deflate target compares the libraries to this. It knows exactly where a message ends, which
the libraries do not report.
"""

from __future__ import annotations

WINDOW = 1 << 15
MAX_BITS = 15

# §3.2.5: the base and the number of extra bits of lengths (257...) and distances (0...).
LENGTHS = [
    *((size, 0) for size in range(3, 11)),
    *((11 + (i << 1), 1) for i in range(4)),
    *((19 + (i << 2), 2) for i in range(4)),
    *((35 + (i << 3), 3) for i in range(4)),
    *((67 + (i << 4), 4) for i in range(4)),
    *((131 + (i << 5), 5) for i in range(4)),
    (258, 0),
]
DISTANCES = [
    *((distance, 0) for distance in range(1, 5)),
    *((((2 + i % 2) << (i // 2)) + 1, i // 2) for i in range(2, 28)),
]
# §3.2.7
ORDER = (16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15)


class NotDeflateError(Exception):
    """The data is invalid, or ends too early."""


class TooLargeError(Exception):
    """There is more output than wanted."""


class Bits:
    """Data, bit by bit, the least significant bit of a byte first (§3.1.1)."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.position = 0
        self.end = 8 * len(data)

    def take(self, count: int) -> int:
        if self.position + count > self.end:
            raise NotDeflateError
        value = 0
        for i in range(count):
            value |= (self._data[self.position >> 3] >> (self.position & 7) & 1) << i
            self.position += 1
        return value

    def align(self) -> None:
        self.position = -(-self.position // 8) * 8


class Code:
    """A Huffman code, given by the lengths of its symbols' codes (§3.2.2)."""

    def __init__(self, lengths: list[int], may_be_incomplete: bool) -> None:
        counts = [lengths.count(size) for size in range(MAX_BITS + 1)]
        counts[0] = 0
        left, code = 1, 0
        self._symbols: dict[tuple[int, int], int] = {}
        for size in range(1, MAX_BITS + 1):
            left = 2 * left - counts[size]
            if left < 0:
                raise NotDeflateError  # more codes than possible
            code = (code + counts[size - 1]) << 1
            members = [symbol for symbol, length in enumerate(lengths) if length == size]
            self._symbols |= {(size, code + i): symbol for i, symbol in enumerate(members)}
        # A code with one symbol, or none, has one bit, of which one value is unused. (§3.2.7
        # says so for distances; zlib allows it for literals and lengths.)
        if left and not (may_be_incomplete and sum(counts[2:]) == 0):
            raise NotDeflateError

    def symbol(self, bits: Bits) -> int:
        code = 0
        for size in range(1, MAX_BITS + 1):
            code = code << 1 | bits.take(1)
            if (size, code) in self._symbols:
                return self._symbols[size, code]
        raise NotDeflateError


FIXED = (
    Code([8] * 144 + [9] * 112 + [7] * 24 + [8] * 8, False),
    Code([5] * 32, False),
)


def dynamic_codes(bits: Bits) -> tuple[Code, Code]:
    literals, distances, sizes = bits.take(5) + 257, bits.take(5) + 1, bits.take(4) + 4
    if literals > 286 or distances > 30:
        raise NotDeflateError
    lengths = [0] * 19
    for symbol in ORDER[:sizes]:
        lengths[symbol] = bits.take(3)
    code = Code(lengths, False)
    lengths = []
    while len(lengths) < literals + distances:
        symbol = code.symbol(bits)
        if symbol < 16:
            lengths.append(symbol)
        elif symbol == 16:
            if not lengths:
                raise NotDeflateError
            lengths += lengths[-1:] * (3 + bits.take(2))
        else:
            lengths += [0] * (3 + bits.take(3) if symbol == 17 else 11 + bits.take(7))
    # The end of a block must have a code.
    if len(lengths) > literals + distances or not lengths[256]:
        raise NotDeflateError
    return Code(lengths[:literals], True), Code(lengths[literals:], True)


def block(bits: Bits, window: bytearray, most: int) -> bool:
    """Decode a block to the end of `window`; return whether it is marked as the last."""
    final, kind = bits.take(1), bits.take(2)
    if kind == 0:
        bits.align()
        size = bits.take(16)
        if bits.take(16) != size ^ 0xFFFF:
            raise NotDeflateError
        for _ in range(size):
            window.append(bits.take(8))
            if len(window) > most:
                raise TooLargeError
        return bool(final)
    if kind == 3:
        raise NotDeflateError
    literals, distances = FIXED if kind == 1 else dynamic_codes(bits)
    while (symbol := literals.symbol(bits)) != 256:
        if symbol < 256:
            window.append(symbol)
        else:
            if symbol > 285:
                raise NotDeflateError
            base, more = LENGTHS[symbol - 257]
            size = base + bits.take(more)
            symbol = distances.symbol(bits)
            if symbol > 29:
                raise NotDeflateError
            base, more = DISTANCES[symbol]
            distance = base + bits.take(more)
            if distance > min(len(window), WINDOW):
                raise NotDeflateError
            for _ in range(size):
                window.append(window[-distance])
        if len(window) > most:
            raise TooLargeError
    return bool(final)


def inflate_message(payload: bytes, most: int) -> bytes | None:
    """Decompress a first message (RFC 7692 §7.2.2).

    Returns:
        its content, or the first `most` + 1 bytes if there are more; None if it is not valid
        DEFLATE up to there.
    """
    bits = Bits(payload + b"\x00\x00\xff\xff")
    result, window = b"", bytearray()
    try:
        while bits.position < bits.end:
            if block(bits, window, most - len(result)):
                bits.align()
                result += window
                window.clear()
                if bits.position == 8 * len(payload):
                    break  # some peers remove nothing after a final block
    except NotDeflateError:
        return None
    except TooLargeError:
        return (result + window)[: most + 1]
    return result + window
