"""fastws in aiohttp: the frames that its client sends.

    import fastws.integrations.aiohttp

    fastws.integrations.aiohttp.install()

aiohttp reads and unmasks frames with compiled code, and its server sends a frame as a header and
the payload. fastws would not make that faster, so it does not change it. But aiohttp's client
copies, masks and joins a frame in pure Python. fastws does all of that in one step, which matters
for large messages: the documentation has figures.

With `install(zlib_backend="zlib-ng")` or `"isal"`, aiohttp compresses with that library, including
HTTP bodies. `aiohttp.set_zlib_backend` does the same, without fastws. zlib-ng is faster in both
directions. isal is even faster at compressing large messages, but gains less for small ones, which
it decompresses more slowly than zlib.

fastws's pure-Python twin would be slower than aiohttp. With that twin, aiohttp writes its frames
itself.

This module knows how aiohttp writes a frame. It does not know how aiohttp reads one.
"""

from __future__ import annotations

from typing import Any, Literal

from fastws import codec, deflate
from fastws.spec import RSV1, Opcode

from ._hosts import HOSTS
from ._install import Installation

HOST = HOSTS["aiohttp"]

try:
    import aiohttp._websocket.writer
    import aiohttp.client
    import aiohttp.compression_utils
except ImportError as exc:
    raise HOST.missing() from exc

client: Any = aiohttp.client
compression: Any = aiohttp.compression_utils
writer: Any = aiohttp._websocket.writer

__all__ = ["install"]

_DATA = (Opcode.CONTINUATION.value, Opcode.TEXT.value, Opcode.BINARY.value)


def install(
    *, zlib_backend: Literal["zlib", "zlib-ng", "isal"] | None = None, untested: bool = False
) -> Installation:
    """Let aiohttp's client write and mask frames with fastws.

    Open connections stay as they are.

    Args:
        zlib_backend: the library that new connections compress with; None for no change.
        untested: whether to patch a version that was not tested.

    Returns:
        an object that undoes it. An existing installation is returned unchanged.

    Raises:
        ValueError: if there is no such backend.
        ImportError: if the backend is not installed.
        IntegrationError: if it does not work.
    """
    if zlib_backend is not None and zlib_backend not in deflate.LIBRARIES:
        known = ", ".join(deflate.LIBRARIES)
        raise ValueError(f"zlib_backend must be one of {known}, not {zlib_backend!r}")
    backend = None if zlib_backend is None else deflate.load_library(zlib_backend)

    def patch(to: Installation) -> None:
        _patch(to)
        if backend is not None:
            to.replace(compression.ZLibBackend, "_zlib_backend", backend)

    return HOST.install(patch, _check, untested=untested)


class _Writer(writer.WebSocketWriter):  # type: ignore[misc]
    """A client's writer. A server does not mask, so this would only make it slower."""

    def _write_websocket_frame(self, message: Any, opcode: int, rsv: int) -> None:
        if (
            not self.use_mask
            or opcode not in _DATA
            or rsv not in (0, RSV1)
            or not isinstance(message, (bytes, bytearray))
        ):
            super()._write_websocket_frame(message, opcode, rsv)
            return
        if self.transport.is_closing():
            raise writer.ClientConnectionResetError("Cannot write to closing transport")
        key = writer.PACK_RANDBITS(self.get_random_bits())
        frame = codec.encode_frame(opcode, message, rsv1=rsv != 0, key=key)
        self.transport.write(frame)
        self._output_size += len(frame)


def _patch(to: Installation) -> None:
    if codec.implementation == "c":
        to.replace(client, "WebSocketWriter", _Writer)


def _check() -> None:
    written: list[bytes] = []
    transport = type(
        "Transport", (), {"write": lambda _, data: written.append(data), "is_closing": lambda _: 0}
    )()
    # Do not call the constructor, which needs an event loop on some versions of Python.
    sink = client.WebSocketWriter.__new__(client.WebSocketWriter)
    sink.transport, sink.use_mask, sink._output_size = transport, True, 0
    sink.get_random_bits = lambda: 0x12345678
    for message in (b"", b"fastws", bytes(70_000)):
        sink._write_websocket_frame(message, Opcode.BINARY.value, 0)
    decoder = codec.FrameDecoder(masked=True)
    payloads = [frame.payload for data in written for frame in decoder.feed(data)]
    if payloads != [b"", b"fastws", bytes(70_000)] or sink._output_size != 70_000 + 6 + 26:
        raise AssertionError("_write_websocket_frame")
