"""What a peer sends, as bytes: requests, compressed messages, and pieces of a stream.

The code under test writes none of it: it is written by hand or by zlib.
"""

from __future__ import annotations

import random
import zlib
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from fastws.deflate import Agreement, PerMessageDeflate
from fastws.events import MessagePart, Text
from fastws.rules import join
from fastws.spec import Role

if TYPE_CHECKING:
    from collections.abc import Iterator

# The end of each flush, which is removed from a message (RFC 7692 §7.2.1).
FLUSHED = b"\x00\x00\xff\xff"


def upgrade_request(*fields: str) -> bytes:
    """A valid request for a WebSocket, with additional header fields."""
    lines = [
        "GET / HTTP/1.1",
        "Host: localhost",
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        "Sec-WebSocket-Version: 13",
        *fields,
    ]
    return "\r\n".join([*lines, "", ""]).encode()


OFFER = upgrade_request("Sec-WebSocket-Extensions: permessage-deflate")


def agreement(backend: str = "zlib", **changes: Any) -> Agreement:
    """A server's agreement on all that permessage-deflate allows, except for these changes."""
    of_agreement = Agreement.__dataclass_fields__
    config = {name: changes.pop(name) for name in list(changes) if name not in of_agreement}
    agreed = Agreement(
        role=Role.SERVER,
        config=PerMessageDeflate(backend=backend, **config),
        context_takeover=True,
        peer_context_takeover=True,
        max_window_bits=15,
        peer_max_window_bits=15,
    )
    return replace(agreed, **changes)


def compressed(
    data: bytes, flush: int = zlib.Z_SYNC_FLUSH, level: int = 6, strategy: int = 0, mem: int = 8
) -> bytes:
    """The payload of a message that refers to no other message."""
    stream = zlib.compressobj(level, zlib.DEFLATED, -15, mem, strategy)
    return (stream.compress(data) + stream.flush(flush)).removesuffix(FLUSHED)


def pieces(data: bytes, how: str | int) -> Iterator[bytes]:
    """Split data: not at all, into single bytes, or at random, with a number as the seed."""
    if how == "whole":
        yield data
    elif how == "bytewise":
        yield from (data[i : i + 1] for i in range(len(data)))
    else:
        draw = random.Random(how)
        cuts = sorted(draw.choices(range(len(data) + 1), k=draw.randint(1, 12)))
        for start, end in pairwise([0, *cuts, len(data)]):
            yield data[start:end]


def joined(events: list[Any]) -> tuple[list[Any], str | Text | bytes | None]:
    """Join parts of messages: return the events, and the beginning of an incomplete message."""
    result, parts = [], []
    for event in events:
        if not isinstance(event, MessagePart):
            result.append(event)
            continue
        assert event.data or event.last
        parts.append(event.data)
        if event.last:
            result.append(join(parts))
            parts = []
    return result, join(parts) if parts else None
