"""Tests what the twins do not show of `fastws.rules`: RSV1 within the sequence of frames.

The rest is tested through the twins, in test_frames.py and test_messages.py.
"""

from __future__ import annotations

import pytest

from fastws import rules

RSV1, RSV2, RSV3 = 0x40, 0x20, 0x10
DATA, CONTROL = (0, 1, 2), (8, 9, 10)


def expected(byte: int, rsv: int, in_message: bool | None) -> str | None:
    """What RFC 6455 §5.2, §5.4, §5.5 and RFC 7692 §6.1 say about a first byte."""
    opcode = byte % 16
    allowed = [
        rsv & RSV1 and opcode not in (0, *CONTROL) and opcode < 8,
        rsv & RSV2,
        rsv & RSV3,
    ]
    names = [
        f"RSV{i}"
        for i, (bit, good) in enumerate(zip((RSV1, RSV2, RSV3), allowed, strict=True), 1)
        if byte & bit and not good
    ]
    if names:
        return "reserved bit set: " + " ".join(names)
    if opcode not in DATA + CONTROL:
        return f"reserved opcode: 0x{opcode:X}"
    if opcode in CONTROL and byte < 128:
        return "fragmented control frame: " + {8: "CLOSE", 9: "PING", 10: "PONG"}[opcode]
    if opcode in (1, 2) and in_message:
        return f"new {'TEXT' if opcode == 1 else 'BINARY'} message inside a fragmented one"
    if opcode == 0 and in_message is False:
        return "continuation frame without a message to continue"
    return None


@pytest.mark.parametrize("in_message", [True, False, None], ids=["inside", "outside", "any"])
@pytest.mark.parametrize("rsv", range(0, 0x80, 0x10), ids=hex)
def test_every_first_byte(rsv: int, in_message: bool | None) -> None:
    for byte in range(256):
        error = rules.first_byte_error(byte, rsv, in_message)
        assert (error and str(error)) == expected(byte, rsv, in_message), hex(byte)


@pytest.mark.parametrize(
    ("payload", "text"),
    [
        (b"", None),
        (b"\x00", None),
        (b"\x03\xe8", None),
        (b"\x03\xed", "close code 1005 may not be used in a close frame"),
        (b"\x03\xe8\xe2\x82", None),
        (b"\x03\xe8\xe2\x28", "close reason is not UTF-8"),
    ],
)
def test_the_beginning_of_a_close_payload_is_judged_as_far_as_it_goes(
    payload: bytes, text: str | None
) -> None:
    error = rules.close_payload_error(payload)
    assert (error and str(error)) == text
