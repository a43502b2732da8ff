"""What endpoints need of transports beyond asyncio's interface.

This module knows buffers to read into, how to see what is written, and what is left of a transport
that is gone. It does not know connections.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, cast
from weakref import WeakKeyDictionary

if TYPE_CHECKING:
    from collections.abc import Callable

    from typing_extensions import Buffer

__all__ = ["Dropper", "LostTransport", "Tap", "close_transport", "read_buffer"]

# One read buffer for all connections of a loop: a transport calls get_buffer and
# buffer_updated back to back, so an idle connection needs no buffer of its own.
_READ_BUFFER_SIZE = 256 << 10
# A part of a message is what was read at once: it takes four times as much memory if it is text
# with emoji, and some parts wait. Half of the buffer is as fast.
_PART_SIZE = 128 << 10
_read_buffers: WeakKeyDictionary[asyncio.AbstractEventLoop, tuple[memoryview, memoryview]] = (
    WeakKeyDictionary()
)


def read_buffer(loop: asyncio.AbstractEventLoop, *, parts: bool) -> memoryview:
    """Return the buffer, a bytearray's, that all connections of an event loop read into.

    Args:
        loop: the event loop.
        parts: whether messages are received in parts.
    """
    buffers = _read_buffers.get(loop)
    if buffers is None:
        whole = memoryview(bytearray(_READ_BUFFER_SIZE))
        buffers = _read_buffers[loop] = whole, whole[:_PART_SIZE]
    return buffers[parts]


def close_transport(transport: asyncio.Transport) -> None:
    """Close a transport that may be closing already.

    If one over TLS is closed twice, it forgets even that it is closing.
    """
    if not transport.is_closing():
        transport.close()


class Dropper(asyncio.Protocol):
    """Drops a connection for which no protocol could be created."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        cast("asyncio.Transport", transport).abort()


class Tap:
    """A transport that tells what is written to it, before it is.

    Args:
        transport: the transport.
        written: called with what is written.
    """

    __slots__ = ("_transport", "_written")

    def __init__(
        self, transport: asyncio.BaseTransport, written: Callable[[Buffer], object]
    ) -> None:
        self._transport = transport
        self._written = written

    def write(self, data: Buffer) -> None:
        self._written(data)
        cast("asyncio.Transport", self._transport).write(data)  # type: ignore[arg-type]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


class LostTransport(asyncio.Transport):
    """What is left of a TLS transport that is gone.

    The transport itself refers to its protocol, and has buffers of several 100 KiB, which would
    stay until the garbage collector comes along.
    """

    def __init__(self, transport: asyncio.Transport) -> None:
        names = ("sslcontext", "peercert", "cipher", "compression")
        super().__init__({name: transport.get_extra_info(name) for name in names})

    def is_closing(self) -> bool:
        return True

    def close(self) -> None:
        pass

    def abort(self) -> None:
        pass

    def get_write_buffer_size(self) -> int:
        return 0
