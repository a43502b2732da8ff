"""What endpoints need of transports beyond asyncio's interface.

This module knows buffers to read into, how to see what is written, how to keep a transport from
copying it, and what is left of a transport that is gone. It does not know connections.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Any, cast
from weakref import WeakKeyDictionary

if TYPE_CHECKING:
    from collections.abc import Callable

    from typing_extensions import Buffer

__all__ = [
    "Dropper",
    "Holder",
    "LostTransport",
    "Tap",
    "close_transport",
    "copies_writes",
    "read_buffer",
]

# How much is written at once to a transport that copies what it cannot send, in bytes.
WRITE_STEP = 256 << 10
# So much of what waits in small pieces leaves in one write.
_JOINED = 64 << 10
# A piece that waits takes some 40 bytes beside its own: so small ones are copied into one.
_SMALL = 256

# One read buffer for all connections of a loop: a transport calls get_buffer and
# buffer_updated back to back, so an idle connection needs no buffer of its own.
_READ_BUFFER_SIZE = 256 << 10
# A part of a message is what was read at once: it takes four times as much memory if it is text
# with emoji, and some parts wait. Half of the buffer is as fast.
_PART_SIZE = 128 << 10
_read_buffers: WeakKeyDictionary[asyncio.AbstractEventLoop, memoryview] = WeakKeyDictionary()


def read_buffer(loop: asyncio.AbstractEventLoop, *, parts: bool) -> memoryview:
    """Return the buffer, a bytearray's, that all connections of an event loop read into.

    Args:
        loop: the event loop.
        parts: whether messages are received in parts.
    """
    buffer = _read_buffers.get(loop)
    if buffer is None:
        buffer = _read_buffers[loop] = memoryview(bytearray(_READ_BUFFER_SIZE))
    return buffer[:_PART_SIZE] if parts else buffer


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


def copies_writes(transport: asyncio.Transport) -> bool:
    """Return whether a transport may copy what it cannot send at once. Those of asyncio do before
    Python 3.12, and those that encrypt. Those of uvloop keep references."""
    is_plain = transport.get_extra_info("sslcontext") is None
    return not (is_plain and type(transport).__module__.startswith("uvloop."))


class Holder:
    """A transport that takes no more at the moment: what is written waits here.

    So a message to many connections waits once for all of them, and not as a copy in each of their
    transports. What ends the transport waits for that, except `abort`.

    Args:
        transport: the transport, which has just called `pause_writing`.

    Attributes:
        transport: the transport.
        is_full: whether the transport takes no more; `pause_writing` sets it.
    """

    __slots__ = ("_held", "_is_closing", "_is_ending", "_size", "is_full", "transport")

    def __init__(self, transport: asyncio.Transport) -> None:
        self.transport = transport
        self.is_full = True
        self._held: deque[bytes | bytearray | memoryview] = deque()
        self._size = 0
        self._is_ending = False  # after that, the transport is to close, or to write EOF
        self._is_closing = False

    def write(self, data: bytes | memoryview) -> None:
        held = self._held
        self._size += len(data)
        if len(data) > _SMALL:
            held.append(data)
        elif held and isinstance(held[-1], bytearray) and len(held[-1]) < _JOINED:
            held[-1] += data
        else:
            held.append(bytearray(data))

    def get_write_buffer_size(self) -> int:
        return self.transport.get_write_buffer_size() + self._size

    def release(self) -> bool:
        """The transport takes more: write what is held, until it is full. Return whether it takes
        more than that, and more may come."""
        self.is_full = False
        self._write_held()
        if self._is_ending and not self._held:
            # (Not at once: the transport, which has called, looks whether it is closing.)
            asyncio.get_running_loop().call_soon(self._finish)
        return not (self.is_full or self._held or self._is_ending)

    def hand_over(self) -> None:
        """Write all that is held, though the transport is full: soon, it will take nothing."""
        self._write_held(everything=True)

    def _write_held(self, *, everything: bool = False) -> None:
        try:
            while self._held and (everything or not self.is_full):
                data = self._next()
                self._size -= len(data)
                self.transport.write(data)
        except BaseException:
            self.abort()  # what follows would be taken for the rest of a frame
            raise

    def _next(self) -> bytes | bytearray | memoryview:
        """Take what to write next: a part of something large, or all that is small."""
        held = self._held
        first = held.popleft()
        if len(first) > WRITE_STEP:
            rest = memoryview(first)
            held.appendleft(rest[WRITE_STEP:])
            return rest[:WRITE_STEP]
        size, several = len(first), [first]
        while held and size + len(held[0]) <= _JOINED:
            size += len(held[0])
            several.append(held.popleft())
        return first if len(several) == 1 else b"".join(several)

    def write_eof(self) -> None:
        if not self._held:
            self.transport.write_eof()
        else:
            self._is_ending = True

    def close(self) -> None:
        if not self._held:
            self.transport.close()
        elif not self._is_closing:
            self._is_ending = self._is_closing = True
            self.transport.pause_reading()

    def is_closing(self) -> bool:
        return self._is_closing or self.transport.is_closing()

    def _finish(self) -> None:
        if self.transport.is_closing():
            return
        if self._is_closing:
            self.transport.close()
            return
        try:
            self.transport.write_eof()
        except OSError:  # the peer answered the last write with a reset
            self.transport.abort()

    def abort(self) -> None:
        self._held.clear()
        self._size = 0
        self.transport.abort()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.transport, name)


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
