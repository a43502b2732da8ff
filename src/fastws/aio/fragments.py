"""Messages that are sent in fragments, because they are not in memory as a whole.

This module knows what such a message can be: an iterable, an asynchronous iterable or a file; and
how to read files without blocking the event loop. It does not know how fragments are sent.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterable, Iterable, Mapping
from inspect import isawaitable, iscoroutinefunction
from io import BytesIO, StringIO
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

__all__ = ["File", "as_fragments"]

# How much of a file is read at once, in bytes or characters: to read in a thread takes time.
_LARGE = 512 << 10
# One emoji in a piece of text makes it take four times as much.
_LARGE_TEXT = 256 << 10
# A fragment that is compressed keeps the event loop from other work meanwhile, and text that is not
# ASCII takes several times as much memory while it is encoded: they are smaller. So is what is read
# first, as nobody knows yet what it will be.
_SMALL = 64 << 10


class File(Protocol):
    """A file, or anything else that can be read: bytes if it is binary, str if it is text. What
    `read` returns may be awaitable, as that of `asyncio.StreamReader` is."""

    def read(self, size: int, /) -> Any: ...


def as_fragments(message: object, *, compressed: bool) -> AsyncGenerator[Any] | None:
    """Return what yields the fragments of a message, or None if it has none.

    Args:
        message: the message.
        compressed: whether the fragments will be compressed.
    """
    read = getattr(message, "read", None)
    if callable(read):
        in_memory = isinstance(message, (BytesIO, StringIO))
        return _read(read, compressed, in_thread=not in_memory and not iscoroutinefunction(read))
    if isinstance(message, AsyncIterable):
        return _follow(message)
    if isinstance(message, Iterable) and not isinstance(message, Mapping):  # that is a mistake
        return _walk(message)
    return None


async def _read(read: Any, compressed: bool, *, in_thread: bool) -> AsyncGenerator[Any]:
    piece = _begin_read(read, _SMALL, in_thread)
    is_empty = True
    try:
        while True:
            while isawaitable(piece):
                piece = await piece
            ready = piece
            size = _SMALL
            if not compressed:
                size = _LARGE_TEXT if isinstance(ready, str) else _LARGE
            if ready and in_thread:
                # While this piece is sent, the thread reads the next one.
                piece = _begin_read(read, size, in_thread)
            # (None: there is nothing yet. That is no end, and who sends it will say so.)
            if ready or ready is None or is_empty:
                for fragment in _cut(ready, size):
                    yield fragment
            if not ready:
                return
            if not in_thread:
                piece = _begin_read(read, size, in_thread)
            is_empty = False
    finally:
        if isinstance(piece, asyncio.Future):
            piece.cancel()  # and if it has failed already, nobody wants to know


def _begin_read(read: Any, size: int, in_thread: bool) -> Any:
    if not in_thread:
        return read(size)
    # Disks, pipes and network drives can take any time.
    return asyncio.get_running_loop().run_in_executor(None, read, size)


async def _follow(fragments: AsyncIterable[Any]) -> AsyncGenerator[Any]:
    async for item in fragments:
        for fragment in _cut(item):
            yield fragment


async def _walk(fragments: Iterable[Any]) -> AsyncGenerator[Any]:
    for item in fragments:
        for fragment in _cut(item):
            yield fragment


def _cut(piece: Any, size: int = sys.maxsize) -> Iterable[Any]:
    """Return the fragments of a piece: of at most this size, or less if it is text that takes much
    memory while it is encoded."""
    if isinstance(piece, str) and not piece.isascii():
        size = _SMALL
    if not isinstance(piece, (bytes, str)) or len(piece) <= size:
        return (piece,)
    return (piece[start : start + size] for start in range(0, len(piece), size))
