"""A connection that you await and that receives messages in parts.

This module knows which parts belong to which message, and what becomes of the rest of a message
that nobody wants. It does not know where messages are cut, or how parts arrive: they are items of
the same queue that has whole messages on other connections.
"""

from __future__ import annotations

from inspect import iscoroutinefunction
from typing import TYPE_CHECKING, Any, Generic, cast, get_origin

from fastws import errors, rules
from fastws.events import Text
from fastws.exceptions import ConnectionClosed

from .endpoint import Endpoint
from .view import T
from .websocket import WebSocket

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from fastws.events import MessagePart

__all__ = ["StreamingWebSocket", "factory_of"]

# So many parts of a message that is put together may be smaller than this, in bytes.
_MANY_PARTS = 256
_SMALL_PART = 4 << 10


class StreamingWebSocket(WebSocket[T]):
    """A `WebSocket` whose messages arrive in parts."""

    __slots__ = ("_begun", "_reader", "_size")

    def __init__(self) -> None:
        super().__init__()
        # What has begun to read a message, but not read all of it: None, or a _Reader's key.
        self._reader: object = None
        # What `recv` has of the next message, and its size in bytes: it may be cancelled.
        self._begun: list[Any] = []
        self._size = 0

    async def recv(self, *, decode_text: bool | None = None) -> Any:
        """Wait for the next message: a `str` or `Text` if it is text, `bytes` if it is binary.

        Cancelling this coroutine loses no message. What is left of a message that `recv_stream`
        has begun is dropped.

        Args:
            decode_text: whether a text message is returned as a `str`. If not, it is returned as a
                `Text`. None: as the argument `decode_text` of `serve` or `connect` says.

        Raises:
            ConnectionClosed: if the connection is closed and all messages have been received; or
                if the message is larger than `max_message_size`, which closes it with 1009.
            StateError: if another task is waiting for a message.
        """
        await self._finish_reading()
        last = False
        while not last:
            part = await self._next_part()
            last = part.last
            self._begun.append(part.data)
            self._size += _size_of(part.data)
            # (A peer that sends a character at a time must not make an object of each.)
            if len(self._begun) > _MANY_PARTS + self._size // _SMALL_PART:
                self._begun = [rules.join(self._begun)]
            limit = self._settings.max_message_size
            if limit is not None and self._size > limit:
                self._refuse_message(limit)
        message = self._take_begun()
        if decode_text is True and isinstance(message, Text):
            return str(message)
        if decode_text is False and isinstance(message, str):
            return Text(message.encode())
        return message

    async def __anext__(self) -> T | bytes:
        """Return the next message.

        Raises:
            StopAsyncIteration: if the connection was closed with 1000, 1001 or 1005.
            ConnectionClosed: if it ended in any other way.
            StateError: if another task is waiting for a message.
        """
        try:
            return cast("T | bytes", await self.recv())
        except ConnectionClosed as exc:
            if exc.is_normal:
                raise StopAsyncIteration from None
            raise

    def recv_stream(self) -> AsyncIterator[T | bytes]:
        return _Reader(self)

    def _awaits_message(self) -> bool:
        return super()._awaits_message() and self._reader is None and not self._begun

    # The next part is that of the message that was begun, if there is one.

    async def _next_part(self) -> MessagePart:
        self._check_turn()
        return cast("MessagePart", await super().recv())

    def _check_turn(self) -> None:
        # Its part may have arrived already: then it is not for us.
        if self._sink.waiter is not None:
            raise errors.already_waiting()

    async def _finish_reading(self) -> None:
        """Drop the rest of the message that a `_Reader` has begun."""
        self._check_turn()
        while self._reader is not None:
            if (await self._next_part()).last:
                self._reader = None

    def _take_begun(self) -> Any:
        """Return what `recv` has of the next message."""
        begun, self._begun, self._size = self._begun, [], 0
        return rules.join(begun)

    def _refuse_message(self, limit: int) -> None:
        """The peer's message is too big for `recv`: end the connection as a decoder does.

        It may have ended before, even with 1000, but that must not hide this message.
        """
        self._take_begun()
        self._sink.messages = None
        error = errors.message_too_big(limit)
        self._require_connection()._violated(error)
        self._flush()
        raise ConnectionClosed(error.close_code, str(error)) from error


class _Reader(Generic[T]):
    """Iterates over the parts of one message, the next one."""

    __slots__ = ("_is_done", "_key", "_ws")

    def __init__(self, ws: StreamingWebSocket[T]) -> None:
        self._ws = ws
        self._key: object = None  # of our message, if it has begun
        self._is_done = False

    def __aiter__(self) -> AsyncIterator[T | bytes]:
        return self

    async def __anext__(self) -> Any:
        """Return the next part of the message.

        Raises:
            StopAsyncIteration: if the message is complete.
            ConnectionClosed: if the connection has ended before that.
            StateError: if another task is waiting, or the rest of the message was dropped.
        """
        ws = self._ws
        if self._is_done:
            raise StopAsyncIteration
        is_first = self._key is None
        if is_first:
            await ws._finish_reading()
            if ws._begun:  # by a `recv` that was cancelled
                self._key = ws._reader = object()
                return ws._take_begun()
        elif ws._reader is not self._key:
            raise errors.rest_was_dropped()
        part = await ws._next_part()
        if is_first:
            self._key = object()
        self._is_done = part.last
        ws._reader = None if part.last else self._key
        if part.data or is_first:
            return part.data
        raise StopAsyncIteration


def factory_of(protocol: Any, stream: bool) -> Any:
    """Return what makes the protocols of a client: this, or what receives parts in its place.

    Raises:
        TypeError: if it can make none; or, with `stream`, if it is a subclass of `WebSocket`: its
            `recv` would return parts.
    """
    if isinstance(protocol, Endpoint):
        name = type(protocol).__name__
        raise TypeError(f"protocol must be the class {name}, not an instance of it")
    if not callable(protocol):
        raise TypeError(f"protocol must be callable, not {type(protocol).__name__!r}")
    if not isinstance(protocol, type) and iscoroutinefunction(protocol):
        name = getattr(protocol, "__qualname__", repr(protocol))
        raise TypeError(
            f"protocol must be a WebSocketProtocol subclass, not the coroutine function {name}: "
            "without protocol, connect() returns a WebSocket to await"
        )
    if not stream:
        return protocol
    kind = get_origin(protocol) or protocol
    if kind is WebSocket:
        return StreamingWebSocket
    if isinstance(kind, type) and issubclass(kind, WebSocket):
        raise TypeError("with stream=True, protocol must not be a subclass of WebSocket")
    return protocol


def _size_of(data: str | Text | bytes) -> int:
    """Return the size of a part as it was sent, in bytes."""
    return len(data.encode()) if isinstance(data, str) and not data.isascii() else len(data)
