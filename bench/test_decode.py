"""Masked messages in reads of 64 KiB, and the cost of one message that arrives in pieces."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from .contenders import DECODERS, DECODERS_IN_PIECES, Contender
from .payloads import KINDS, READ, SIZES, stream

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.mark.parametrize("who", DECODERS, ids=str)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", SIZES)
def test_decode(made: Callable, measure: Callable, who: Contender, kind: str, size: int) -> None:
    if size == SIZES[-1] and kind not in ("binary", "cjk"):
        pytest.skip("as with those of 1 MiB")
    if who.name == ("unmask+bytes.decode" if kind == "binary" else "memcpy"):
        pytest.skip("not for this one")
    messages = stream(kind, size)
    call = made(who, messages)
    number, last = measure("decode", who, call, messages=messages.count, size=size, kind=kind)
    assert number == messages.count
    if who.name != "memcpy":
        assert last == (messages.last if kind == "binary" else messages.last.decode())


@pytest.mark.parametrize("who", DECODERS_IN_PIECES, ids=str)
@pytest.mark.parametrize("size", [1 << 20, 2 << 20, 4 << 20])
@pytest.mark.parametrize("piece", [1460, READ])
def test_decode_in_pieces(
    made: Callable, measure: Callable, who: Contender, size: int, piece: int
) -> None:
    """Linear: twice the size takes twice the time, however it is split."""
    call = made(who, stream("binary", size), piece)
    kind = f"in pieces of {piece} B"
    assert measure("decode one message", who, call, messages=1, size=size, kind=kind) == 1
