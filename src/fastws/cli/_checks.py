"""What `fastws probe` sends, and which answers are right.

This module knows what a client must not send, and what RFC 6455 and RFC 7692 require a server to
answer. It does not know how data is sent or answers are read.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from fastws.codec import encode_frame
from fastws.rules import close_payload
from fastws.spec import FIN, LENGTH_16, LENGTH_64, MASK, RSV1, RSV2, RSV3, Opcode

__all__ = ["CHECKS", "Check"]

# A key of RFC 6455's examples; it need not be unpredictable here.
_KEY: Final = b"\x37\xfa\x21\x3d"


@dataclass(frozen=True, slots=True)
class Check:
    """One thing to try.

    Attributes:
        name: what is sent.
        section: the section of an RFC that has the rule.
        rule: the rule, in short.
        expected: the answers that follow the rule, such as "close 1002" or "HTTP 426".
        data: what to send once the connection is open.
        request: the request to send instead, with {target} and {host} in place of the server's.
        deflate: whether permessage-deflate must be negotiated first.
    """

    name: str
    section: str
    rule: str
    expected: tuple[str, ...]
    data: bytes = b""
    request: str = ""
    deflate: bool = False


def _frame(
    opcode: int, payload: bytes = b"", *, fin: bool = True, key: bytes | None = _KEY
) -> bytes:
    return encode_frame(opcode, payload, fin=fin, key=key)


def _header(first: int, length: int, *octets: int) -> bytes:
    """Return a header that `encode_frame` would refuse to write, with its mask key."""
    return bytes((first, MASK | length, *octets)) + _KEY


_TEXT, _PING = FIN | Opcode.TEXT, FIN | Opcode.PING
_CLOSE, _CONTINUATION = FIN | Opcode.CLOSE, FIN | Opcode.CONTINUATION
_1002, _1007, _1009 = ("close 1002",), ("close 1007",), ("close 1009",)


def _close(payload: bytes) -> bytes:
    return _frame(Opcode.CLOSE, payload)


_FRAMES = (
    Check("ping", "6455 §5.5.2", "a ping is answered with a pong of the same data",
          ("pong 'Hello'",), _frame(Opcode.PING, b"Hello")),
    Check("ping inside a fragmented message", "6455 §5.4", "control frames may come in between",
          ("pong 'Hello'",), _frame(Opcode.TEXT, b"a", fin=False) + _frame(Opcode.PING, b"Hello")),
    Check("close 1000", "6455 §5.5.1", "a close frame is answered, typically with its code",
          ("close 1000", "close without a code"), _close(close_payload(1000, "bye"))),
    Check("close without a code", "6455 §5.5.1", "a close frame is answered",
          ("close without a code", "close 1000"), _close(b"")),
    Check("close 4999", "6455 §7.4.2", "applications may use 4000 to 4999",
          ("close 4999", "close 1000", "close without a code"), _close(close_payload(4999, ""))),
    Check("nonsense after a close frame", "6455 §5.5.1", "data after a close frame is dropped",
          ("close 1000", "close without a code"), _close(close_payload(1000, "")) + b"\xff" * 64),
    *(
        Check(f"{name} set", "6455 §5.2", "reserved bits are 0 unless an extension is negotiated",
              _1002, _header(_TEXT | bit, 0))
        for name, bit in (("RSV1", RSV1), ("RSV2", RSV2), ("RSV3", RSV3))
    ),
    *(
        Check(f"opcode 0x{opcode:X}", "6455 §5.2", "reserved opcodes fail the connection",
              _1002, _header(FIN | opcode, 0))
        for opcode in (0x3, 0x7, 0xB, 0xF)
    ),
    Check("frame without a mask", "6455 §5.1", "a client masks every frame",
          _1002, _frame(Opcode.TEXT, b"Hello", key=None)),
    Check("16-bit length of 125", "6455 §5.2", "lengths use as few bytes as possible",
          _1002, _header(_TEXT, LENGTH_16, 0, 125)),
    Check("64-bit length of 65535", "6455 §5.2", "lengths use as few bytes as possible",
          _1002, _header(_TEXT, LENGTH_64, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF)),
    Check("64-bit length with the top bit", "6455 §5.2", "the most significant bit is 0",
          _1002, _header(_TEXT, LENGTH_64, 0x80, 0, 0, 0, 0, 0, 0, 0)),
    Check("fragmented ping", "6455 §5.5", "control frames are not fragmented",
          _1002, _header(Opcode.PING, 0)),
    Check("ping of 126 bytes", "6455 §5.5", "control frames carry at most 125 bytes",
          _1002, _header(_PING, LENGTH_16, 0, 126) + b"a" * 126),
    Check("continuation of nothing", "6455 §5.4", "a continuation follows a fragment",
          _1002, _header(_CONTINUATION, 0)),
    Check("message inside a fragmented one", "6455 §5.4", "fragments are not interleaved",
          _1002, _frame(Opcode.TEXT, b"a", fin=False) + _frame(Opcode.TEXT, b"b")),
    Check("close frame of 1 byte", "6455 §5.5.1", "a body begins with a 2-byte code",
          _1002, _header(_CLOSE, 1) + b"a"),
    *(
        Check(f"close {code}", "6455 §7.4", "this code must not be sent",
              _1002, _close(code.to_bytes(2, "big")))
        for code in (0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65535)
    ),
    Check("close reason that is not UTF-8", "6455 §5.5.1", "the reason is UTF-8",
          ("close 1007", "close 1002"), _close(close_payload(1000, "") + b"\xce\xba\xff")),
    Check("text that is not UTF-8", "6455 §8.1", "text is UTF-8",
          _1007, _frame(Opcode.TEXT, b"Hello \xff")),
    Check("text that ends in a code point", "6455 §8.1", "text is UTF-8",
          _1007, _frame(Opcode.TEXT, b"Hello \xe2\x82")),
    Check("text with a surrogate", "6455 §8.1, 3629 §3", "text is UTF-8",
          _1007, _frame(Opcode.TEXT, b"Hello \xed\xa0\x80")),
    Check("text beyond U+10FFFF", "6455 §8.1, 3629 §3", "text is UTF-8",
          _1007, _frame(Opcode.TEXT, b"Hello \xf4\x90\x80\x80")),
    Check("bad UTF-8 in the first fragment", "6455 §8.1", "text fails where it cannot become valid",
          _1007, _frame(Opcode.TEXT, b"Hello \xff", fin=False)),
    Check("a frame of 2^62 bytes announced", "6455 §10.4", "the size of messages is limited",
          _1009, _header(_TEXT, LENGTH_64, 0x40, 0, 0, 0, 0, 0, 0, 0)),
)  # fmt: skip

_DEFLATED = (
    Check("RSV1 on a ping", "7692 §6", "control frames are not compressed",
          _1002, _header(_PING | RSV1, 0), deflate=True),
    Check("RSV1 on a continuation", "7692 §6.1", "RSV1 is for a message's first frame",
          _1002, _frame(Opcode.TEXT, fin=False) + _header(_CONTINUATION | RSV1, 0), deflate=True),
    Check("a compressed message that is not DEFLATE", "7692 §7.2.2, 6455 §7.1.7",
          "data that cannot be inflated fails the connection",
          ("close 1007", "close 1002", "close 1003"),
          encode_frame(Opcode.TEXT, b"\xff" * 8, rsv1=True, key=_KEY), deflate=True),
    Check("compressed text that is not UTF-8", "6455 §8.1", "text is UTF-8, compressed or not",
          _1007, encode_frame(Opcode.TEXT, b"\x00\x01\x00\xfe\xff\xff\x00", rsv1=True, key=_KEY),
          deflate=True),
)  # fmt: skip


def _request(*left_out: str, method: str = "GET", version: str = "1.1", **other: str) -> str:
    fields = {
        "Host": "{host}",
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
        "Sec-WebSocket-Version": "13",
    } | {name.replace("_", "-"): value for name, value in other.items()}
    lines = [f"{name}: {value}" for name, value in fields.items() if name not in left_out]
    return "\r\n".join([f"{method} {{target}} HTTP/{version}", *lines, "", ""])


_4XX = ("HTTP 4xx",)
_HANDSHAKES = (
    Check("handshake in mixed case", "6455 §4.2.1", "names and tokens are case-insensitive",
          ("HTTP 101",), request=_request(Upgrade="WebSocket", Connection="keep-alive, UPGRADE")),
    Check("POST", "6455 §4.2.1", "the method is GET", _4XX, request=_request(method="POST")),
    Check("HTTP/1.0", "6455 §4.2.1", "HTTP/1.1 or higher",
          (*_4XX, "HTTP 505"), request=_request(version="1.0")),
    Check("no Host", "6455 §4.2.1", "Host is required", _4XX, request=_request("Host")),
    Check("no Sec-WebSocket-Key", "6455 §4.2.1", "the key is required",
          _4XX, request=_request("Sec-WebSocket-Key")),
    Check("key of 15 bytes", "6455 §4.2.1", "the key decodes to 16 bytes",
          _4XX, request=_request(Sec_WebSocket_Key="dGhlIHNhbXBsZSBub25j")),
    Check("no Sec-WebSocket-Version", "6455 §4.2.1", "the version is required",
          _4XX, request=_request("Sec-WebSocket-Version")),
    Check("version 99", "6455 §4.4", "426, with the supported versions",
          ("HTTP 426", "HTTP 400"), request=_request(Sec_WebSocket_Version="99")),
)  # fmt: skip

CHECKS: Final = (*_HANDSHAKES, *_FRAMES, *_DEFLATED)
