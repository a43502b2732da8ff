"""fastws in tornado, and so in Jupyter.

    import fastws.integrations.tornado

    fastws.integrations.tornado.install()

fastws masks payloads. It also takes data that is already in a stream's buffer directly from there,
while tornado creates a future for each part of a frame; that is most of the gain. tornado still
parses the frames, with its own limits and its own answers to violations of the protocol.

fastws's pure-Python twin masks more slowly than tornado's own extension. With that twin, only
reading is faster, unless tornado is pure Python as well.

This module knows where tornado masks and how it reads a frame. It does not know frames.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastws import codec
from fastws.spec import MASK_KEY_SIZE

from ._hosts import HOSTS
from ._install import Installation

HOST = HOSTS["tornado"]

try:
    import tornado.iostream
    import tornado.websocket
except ImportError as exc:
    raise HOST.missing() from exc

iostream: Any = tornado.iostream
websocket: Any = tornado.websocket

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

__all__ = ["install"]


def install(*, untested: bool = False) -> Installation:
    """Let tornado mask with fastws, and read frames in fewer steps.

    Open connections use it too.

    Args:
        untested: whether to patch a version that was not tested.

    Returns:
        an object that undoes it.

    Raises:
        IntegrationError: if it does not work.
    """
    return HOST.install(_patch, _check, untested=untested)


def _patch(to: Installation) -> None:
    their_mask: Callable[[Any, Any], bytes] = websocket._websocket_mask

    def mask(mask: Any, data: Any) -> bytes:
        if type(mask) is bytes and len(mask) == MASK_KEY_SIZE and type(data) is bytes:
            return codec.apply_mask(data, mask)
        return their_mask(mask, data)

    their_read: Callable[[Any, int], Awaitable[bytes]] = websocket.WebSocketProtocol13._read_bytes

    async def read_bytes(self: Any, n: int) -> bytes:
        stream = self.stream
        if stream._read_buffer_size < n or stream._read_future is not None:
            return await their_read(self, n)
        data: bytes = stream._consume(n)
        self._wire_bytes_in += n
        if not stream._read_buffer_size:
            # After this, only a read could notice that the peer is gone.
            stream._maybe_add_error_listener()
        return data

    if codec.implementation == "c" or their_mask.__module__ == "tornado.util":
        to.replace(websocket, "_websocket_mask", mask)
    to.replace(websocket.WebSocketProtocol13, "_read_bytes", read_bytes)


def _check() -> None:
    key, data = b"\x12\x34\x56\x78", bytes(range(250))
    if websocket._websocket_mask(key, data) != codec.apply_mask(data, key):
        raise AssertionError("_websocket_mask")
    # A stream that needs no event loop, with a frame in its buffer.
    stream = type("Stream", (iostream.BaseIOStream,), {"__init__": lambda self: None})()
    stream._read_buffer, stream._read_buffer_size = bytearray(data), len(data)
    stream._read_future = None
    idle: list[bool] = []
    stream._maybe_add_error_listener = lambda: idle.append(True)
    handler = type("Handler", (), {"stream": stream, "_wire_bytes_in": 0})()
    read = b""
    for size in (2, 0, 4, 244):
        try:
            websocket.WebSocketProtocol13._read_bytes(handler, size).send(None)
        except StopIteration as done:
            read += done.value
    if read != data or handler._wire_bytes_in != len(data) or idle != [True]:
        raise AssertionError("_read_bytes")
