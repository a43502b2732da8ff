"""Fuzzes permessage-deflate: the output is right, and never exceeds the limit.

python fuzz/deflate.py [libFuzzer's options] [corpus]
"""

from __future__ import annotations

from importlib.util import find_spec

from common import Input, agreement, fuzz, instrumented
from reference import inflate_message

with instrumented():
    from fastws.deflate import Deflater, Inflater
    from fastws.exceptions import InvalidPayloadError

BACKENDS = ["zlib"] + [
    name for name in ("zlib-ng", "isal") if find_spec(name.replace("-", "_")) is not None
]
MOST = 1 << 14


def inflate(inflater: Inflater, pieces: list[bytes], budget: int | None) -> bytes | None:
    """Inflate a message; None if it is not DEFLATE."""
    result = b""
    for number, piece in enumerate(pieces, 1):
        left = None if budget is None else budget - len(result)
        try:
            result += inflater.inflate(piece, left, number == len(pieces))
        except InvalidPayloadError as exc:
            assert exc.__context__ is None
            return None
        if budget is not None and len(result) > budget:
            assert len(result) == budget + 1
            break
    return result


def check(data: bytes) -> None:
    source = Input(data)
    flags = source.byte()
    backend = source.choice(BACKENDS)
    budget = source.choice((MOST, 0, 1, 100, 5000))
    cut = source.cut()
    payload = source.rest()
    agreed = agreement(bool(flags & 1), backend=backend)

    # What a peer sends
    inflater = Inflater(agreed)
    result = inflate(inflater, cut(payload), budget)
    assert result is None or len(result) <= budget + 1
    right = inflate_message(payload, MOST) if payload else b""
    if right is None:
        # The limit may be exceeded before the error. isal allows other things, and notices that
        # the end of a message is missing only with the next message.
        assert result is None or len(result) > budget or backend == "isal"
    elif len(right) > budget:
        # The data after the limit may be decompressed already, and be invalid.
        assert result is None or result == right[: budget + 1]
    else:
        assert result == right, (result, right)
        # Nothing is kept that affects a fresh start.
        assert inflate(inflater, [b"\xf2\x48\xcd\xc9\xc9\x07\x00"], 5) == b"Hello"

    # What we send
    agreed = agreement(bool(flags & 1), 9 + (flags >> 1) % 7, backend)
    deflater, inflater = Deflater(agreed), Inflater(agreed)
    pieces = cut(payload)
    for _ in range(2):
        fragments = [
            deflater.deflate(piece, number == len(pieces)) for number, piece in enumerate(pieces, 1)
        ]
        assert inflate(inflater, fragments, len(payload)) == payload


if __name__ == "__main__":
    fuzz(check)
