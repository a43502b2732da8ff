"""Fuzzes FrameDecoder and encode_frame: the twins agree, and decoded frames encode back.

python fuzz/frames.py [libFuzzer's options] [corpus]
"""

from __future__ import annotations

from typing import Any

from common import LIMITS, TWINS, Input, fuzz, verdict

FIELDS = ("opcode", "payload", "fin", "rsv1", "rsv2", "rsv3")


def fields(frame: Any) -> tuple[tuple[type, Any], ...]:
    return tuple((type(value), value) for name in FIELDS for value in [getattr(frame, name)])


def encode(twin: Any, frame: Any, key: bytes | None) -> bytes:
    encoded: bytes = twin.encode_frame(
        frame.opcode,
        frame.payload,
        fin=frame.fin,
        rsv1=frame.rsv1,
        rsv2=frame.rsv2,
        rsv3=frame.rsv3,
        key=key,
    )
    return encoded


def check(data: bytes) -> None:
    source = Input(data)
    flags = source.byte()
    options = {
        "masked": (None, True, False)[flags % 3],
        "max_payload_size": source.choice(LIMITS),
        "rsv1": bool(flags & 16),
        "rsv2": bool(flags & 32),
        "rsv3": bool(flags & 64),
    }
    cut = source.cut()
    stream = source.rest()

    outcomes = []
    for twin in TWINS.values():
        decoder = twin.FrameDecoder(**options)
        frames: list[Any] = []
        feeds = []
        for piece in cut(stream):
            new = decoder.feed(piece)
            frames += new
            feeds.append(([fields(frame) for frame in new], verdict(decoder)))
        outcomes.append(feeds)
        whole = twin.FrameDecoder(**options)
        assert whole.feed(stream) == frames
        assert verdict(whole) == verdict(decoder)
        if decoder.error is not None:
            assert decoder.feed(stream) == []

        # There is one way to write a frame, except for its mask key, which is not kept.
        position = 0
        for frame in frames:
            head = len(encode(twin, frame, None)) - len(frame.payload)
            masked = stream[position + 1] & 0x80
            key = stream[position + head : position + head + 4] if masked else None
            encoded = encode(twin, frame, key)
            assert stream.startswith(encoded, position), (position, encoded)
            position += len(encoded)
    for outcome in outcomes:
        assert outcome == outcomes[0]


if __name__ == "__main__":
    fuzz(check)
