"""Messages that are sent in fragments, because they are not in memory as a whole.

This module knows what such a message can be: an iterable, an asynchronous iterable or a file; and
how to read files without blocking the event loop. It does not know how fragments are sent.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, Iterable, Mapping
from inspect import isawaitable, iscoroutinefunction
from io import BytesIO, StringIO
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator

__all__ = ["File", "as_fragments"]

# How much of a file is read at once, in bytes or characters, and how much of that is a fragment.
# Reading in a thread costs the same for any size. But a fragment is copied a few times until it is
# sent, and one that is compressed keeps the event loop from other work meanwhile.
_READ = 256 << 10
_FRAGMENT = 128 << 10
_COMPRESSED_FRAGMENT = 64 << 10


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
        size = _COMPRESSED_FRAGMENT if compressed else _FRAGMENT
        return _read(read, size, in_memory=isinstance(message, (BytesIO, StringIO)))
    if isinstance(message, AsyncIterable):
        return _follow(message)
    if isinstance(message, Iterable) and not isinstance(message, Mapping):  # that is a mistake
        return _walk(message)
    return None


async def _read(read: Any, size: int, *, in_memory: bool) -> AsyncGenerator[Any]:
    loop = asyncio.get_running_loop()
    is_empty = True
    while True:
        if in_memory or iscoroutinefunction(read):
            piece = read(_READ)
        else:
            # Disks, pipes and network drives can take any time.
            piece = await loop.run_in_executor(None, read, _READ)
        if isawaitable(piece):
            piece = await piece
        # (None: there is nothing yet. That is no end, and who sends it will say so.)
        if piece or piece is None or is_empty:
            for fragment in _cut(piece, size):
                yield fragment
        if not piece:
            return
        is_empty = False


def _cut(piece: Any, size: int) -> Iterator[Any]:
    if not isinstance(piece, (bytes, str)) or len(piece) <= size:
        yield piece
        return
    for start in range(0, len(piece), size):
        yield piece[start : start + size]


async def _follow(fragments: AsyncIterable[Any]) -> AsyncGenerator[Any]:
    async for fragment in fragments:
        yield fragment


async def _walk(fragments: Iterable[Any]) -> AsyncGenerator[Any]:
    for fragment in fragments:
        yield fragment
