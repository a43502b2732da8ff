"""Fuzzes what `fastws inspect` reads: captures, dumps, and both directions of a connection.

python fuzz/captures.py [libFuzzer's options] [corpus]
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from common import Input, fuzz, instrumented

with instrumented():
    from fastws.cli._captures import find_format, from_hex, from_packets
    from fastws.cli._inspecting import Conversation, Frame, Head, Rest
    from fastws.spec import Role

if TYPE_CHECKING:
    from collections.abc import Callable


def check_file(data: bytes, cut: Callable[[bytes], list[bytes]], role: Role) -> None:
    kind = find_format(data)
    if kind == "hex":
        assert from_hex(data.decode("ascii"))
    if kind == "pcap":
        try:
            flows = from_packets(data)
        except ValueError:
            return
        assert sum(len(chunk.data) for flow in flows for chunk in flow.chunks) <= len(data)


def items(pieces: list[bytes], role: Role) -> list[Any]:
    conversation = Conversation()
    found = [item for piece in pieces for item in conversation.feed(role, piece)]
    return [*found, *conversation.end()]


def size_of(item: Any) -> int:
    match item:
        case Head():
            return len(item.octets)
        case Frame():
            return len(item.header) + len(item.key) + len(item.octets)
        case Rest():
            return item.size
    raise AssertionError(item)


def check_direction(data: bytes, cut: Callable[[bytes], list[bytes]], role: Role) -> None:
    whole = items([data], role)
    position = 0
    for item in whole:
        assert item.sender is role
        assert item.offset == position
        position += size_of(item)
    assert position == len(data)
    # However the stream was split, it reads the same.
    assert items(cut(data), role) == whole


CHECKS = (check_file, check_direction)


def check(data: bytes) -> None:
    source = Input(data)
    flags = source.byte()
    cut = source.cut()
    CHECKS[flags & 1](source.rest(), cut, Role(flags >> 1 & 1))


if __name__ == "__main__":
    fuzz(check)
