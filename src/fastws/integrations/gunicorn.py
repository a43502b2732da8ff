"""fastws in gunicorn's own ASGI worker, `-k asgi`.

    gunicorn -c python:fastws.integrations.gunicorn -k asgi app:app

or, in your own configuration file:

    from fastws.integrations.gunicorn import post_fork

And uvicorn's worker, with fastws in place of uvicorn's WebSocket class:

    gunicorn -k fastws.integrations.gunicorn.UvicornWorker app:app

This module knows how gunicorn takes frames out of its buffer, unmasks and builds them. It does
not know what they mean: gunicorn's own code handles that, and every unusual frame.

Since the module serves as a configuration, the hook is the only name in it that may be the name of
a setting of gunicorn.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

from fastws.codec import apply_mask, encode_frame, read_header
from fastws.exceptions import ProtocolError

from ._hosts import HOSTS
from ._install import Installation, IntegrationError, UntestedHostWarning

HOST = HOSTS["gunicorn"]

try:
    import gunicorn  # type: ignore[import-untyped]  # noqa: F401
except ImportError as exc:
    raise HOST.missing() from exc

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

    from ._uvicorn_worker import UvicornWorker

    Frame = tuple[int, bytes] | None

__all__ = ["UvicornWorker", "install", "post_fork"]


def install(*, untested: bool = False) -> Installation:
    """Let gunicorn's ASGI worker read and write frames with fastws, in this process.

    Args:
        untested: whether to do so in a version of gunicorn that was not tested.

    Returns:
        an object that undoes it.

    Raises:
        IntegrationError: if it does not work.
    """
    return HOST.install(_patch, _check, untested=untested)


def post_fork(server: Any, worker: Any) -> None:
    """Install fastws in a new worker; this is gunicorn's hook of that name.

    If that fails, the worker runs without fastws, and its log says so.
    """
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", UntestedHostWarning)
            installation = install()
            installation.release()  # nobody else can uninstall it
    except IntegrationError:
        worker.log.exception("This worker works without fastws")
        return
    for warning in caught:
        worker.log.warning("%s", warning.message)
    worker.log.info("%r", installation)


def __getattr__(name: str) -> Any:
    if name == "UvicornWorker":
        from ._uvicorn_worker import UvicornWorker

        return UvicornWorker
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


# What is replaced ---------------------------------------------------------------------

_DATA = (0x81, 0x82)  # first bytes of whole messages, text and binary
_ORDINARY = (*_DATA, 0x89, 0x8A)  # ... and of pings and pongs
_MAX_CONTROL_PAYLOAD = 125
_MAX_HEADER = 14
_OPCODES = (0, 1, 2, 8, 9, 10)


def _patch(installation: Installation) -> None:
    from gunicorn.asgi.websocket import WebSocketProtocol  # type: ignore[import-untyped]

    installation.replace(WebSocketProtocol, "_unmask", _unmask)
    send_frame = _sender(WebSocketProtocol._send_frame)
    installation.replace(WebSocketProtocol, "_send_frame", send_frame)
    # Before 25.2, gunicorn read from a stream, which has no accessible buffer.
    if hasattr(WebSocketProtocol, "feed_data"):
        read_frame = _reader(WebSocketProtocol._read_frame)
        installation.replace(WebSocketProtocol, "_read_frame", read_frame)


def _unmask(self: Any, payload: bytes, masking_key: bytes) -> bytes:
    return apply_mask(payload, masking_key)


def _sender(
    theirs: Callable[[Any, int, Any], Awaitable[None]],
) -> Callable[[Any, int, Any], Coroutine[Any, Any, None]]:
    async def send_frame(self: Any, opcode: int, payload: Any) -> None:
        # gunicorn has always sent control frames that are too long.
        if (
            type(payload) is bytes
            and opcode in _OPCODES
            and (opcode < 8 or len(payload) <= _MAX_CONTROL_PAYLOAD)
        ):
            self.transport.write(encode_frame(opcode, payload))
        else:
            await theirs(self, opcode, payload)

    return send_frame


def _reader(
    theirs: Callable[[Any], Awaitable[Frame]],
) -> Callable[[Any], Coroutine[Any, Any, Frame]]:
    async def read_frame(self: Any) -> Frame:
        """Read a frame if it is complete and ordinary; leave all others to gunicorn."""
        buffer: bytearray = self._buffer
        try:
            header = read_header(bytes(buffer[:_MAX_HEADER]), 0, True, 0, None)
        except ProtocolError:
            return await theirs(self)
        if header is None:
            return await theirs(self)
        first, length, key, start = header
        stop = start + length
        if key is None or stop > len(buffer) or first not in _ORDINARY:
            return await theirs(self)
        if first in _DATA:
            # gunicorn has a limit since 27; 0 means no limit.
            limit = getattr(self, "max_message_size", 0)
            if self._fragment_opcode is not None or (limit and length > limit):
                return await theirs(self)
        with memoryview(buffer) as view, view[start:stop] as masked:
            payload = apply_mask(masked, key)
        del buffer[:stop]
        if getattr(self, "_reading_paused", False):
            await self._read_exact(0)  # which resumes reading if there is room
        return first & 0x0F, payload

    return read_frame


# The check ----------------------------------------------------------------------------


def _check() -> None:
    from gunicorn.asgi.websocket import WebSocketProtocol

    written: list[bytes] = []
    made = _Stub(written)
    if hasattr(WebSocketProtocol, "feed_data"):
        ours = WebSocketProtocol(made, {}, None, None)
    else:
        ours = WebSocketProtocol(made, made, {}, None, None)
    for payload in (b"", b"fastws", b"x" * 126, bytes(range(256)) * 300):
        sent = encode_frame(2, payload, key=b"\x01\xfe\x80\x7f")
        made.sent = sent
        if hasattr(WebSocketProtocol, "feed_data"):
            ours.feed_data(sent)
        if _run(ours._read_frame()) != (2, payload):
            raise RuntimeError("a frame is not what was sent")
        _run(ours._send_frame(2, payload))
        if written.pop() != encode_frame(2, payload):
            raise RuntimeError("a frame is not written as it should be")


def _run(coroutine: Any) -> Any:
    """Run a coroutine that does not wait, and return its result."""
    try:
        coroutine.send(None)
    except StopIteration as exc:
        return exc.value
    coroutine.close()
    raise RuntimeError("a frame is not read as a whole")


class _Stub:
    """A transport, and the stream that gunicorn used before 25.2."""

    def __init__(self, written: list[bytes]) -> None:
        self.write = written.append
        self.sent = b""

    async def readexactly(self, size: int) -> bytes:
        data, self.sent = self.sent[:size], self.sent[size:]
        return data
