"""A connection whose methods are awaited: `recv`, `send`, `async for`.

This module knows tasks: which task waits for what, and that a task may be cancelled. It does not
know bytes: they are the job of `Endpoint`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterable, AsyncIterator, Iterable
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Generic, Literal, Self, TypeAlias, Union, overload

from fastws import errors, rules
from fastws.events import Text
from fastws.exceptions import ConnectionClosed
from fastws.prepared import PreparedMessage, prepare
from fastws.rules import memory_of
from fastws.spec import CloseCode
from fastws.text import as_text

from .endpoint import Endpoint
from .fragments import File, as_fragments
from .phases import RECEIVING
from .senders import while_open
from .twin import Queue
from .view import T, logger

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from typing import TypeGuard

    from typing_extensions import Buffer

    from fastws.connection import Connection

    _Kind: TypeAlias = Literal["text", "binary"]

__all__ = ["Message", "TextMessage", "WebSocket"]

# The argument of `WebSocket.send`. Each item of an iterable, or piece of a file, is a fragment.
# (Buffer is for the type checker: Python has it since 3.12.)
Message: TypeAlias = Union[
    str,
    Text,
    "Buffer",
    PreparedMessage,
    Iterable[str | Text],
    Iterable["Buffer"],
    # (So that what `recv_stream` returns can be sent.)
    AsyncIterable[Union[str, Text, "Buffer"]],
    File,
]

# The argument of `WebSocket.send_text`.
TextMessage: TypeAlias = Union[
    str,
    Text,
    "Buffer",
    Iterable[Union[str, Text, "Buffer"]],
    AsyncIterable[Union[str, Text, "Buffer"]],
    File,
]

# From this size on, in bytes, compressing a message takes milliseconds.
_LARGE = 256 << 10


class WebSocket(Endpoint, Generic[T]):
    """A connection, as `serve` passes it to a handler and `connect` returns it.

    `async for message in ws` yields messages until the connection is closed.

    While messages wait to be received, reading slows down and finally stops, so that a slow
    handler slows down its peer: see the arguments `max_queue` and `read_limit` of `serve` and
    `connect`. Pings, pongs and the close frame are handled even if the application receives no
    messages.

    For type checkers, a `WebSocket` receives text as `str`, and a `WebSocket[Text]` as `Text` (see
    the argument `decode_text` of `serve` and `connect`).

    Attributes:
        request: the client's request; None on a client.
        response: the server's response; None on a server.
        subprotocol: the subprotocol agreed on; None if there is none.
        context: what `process_request` passed to `Accept`; yours to set. None by default.
    """

    __slots__ = ()

    _sink: Queue

    def __init__(self) -> None:
        super().__init__(Queue())

    # Receiving -----------------------------------------------------------------------

    @overload
    async def recv(self, *, decode_text: None = None) -> T | bytes: ...
    @overload
    async def recv(self, *, decode_text: Literal[True]) -> str | bytes: ...
    @overload
    async def recv(self, *, decode_text: Literal[False]) -> Text | bytes: ...
    @overload
    async def recv(self, *, decode_text: bool | None = None) -> str | Text | bytes: ...
    async def recv(self, *, decode_text: bool | None = None) -> str | Text | bytes:
        """Wait for the next message: a `str` or `Text` if it is text, `bytes` if it is binary.

        Cancelling this coroutine loses no message.

        Args:
            decode_text: whether a text message is returned as a `str`. If not, it is returned as a
                `Text`. None: as the argument `decode_text` of `serve` or `connect` says. Messages
                that have arrived in the other form are converted.

        Raises:
            ConnectionClosed: if the connection is closed and all messages have been received.
            StateError: if another task is waiting for a message.
        """
        message: str | Text | bytes | None = self._next_message(decode_text)
        while message is None:
            waiter = self._wait_for_message()
            try:
                await waiter
            except BaseException:
                self._stop_waiting()
                raise
            message = self._waited(decode_text)
        return message

    def __aiter__(self) -> AsyncIterator[T | bytes]:
        return self

    async def __anext__(self) -> T | bytes:
        """Return the next message.

        Raises:
            StopAsyncIteration: if the connection was closed with 1000, 1001 or 1005.
            ConnectionClosed: if it ended in any other way.
            StateError: if another task is waiting for a message.
        """
        # (The same as `recv`. Calling that would create another coroutine for each message.)
        message: T | bytes | None = self._next_message(None)
        while message is None:
            try:
                waiter = self._wait_for_message()
            except ConnectionClosed as exc:
                if exc.is_normal:
                    raise StopAsyncIteration from None
                raise
            try:
                await waiter
            except BaseException:
                self._stop_waiting()
                raise
            message = self._waited(None)
        return message

    def recv_stream(self) -> AsyncIterator[T | bytes]:
        """Iterate over the parts of the next message as they arrive, instead of waiting for all of
        it: `async for part in ws.recv_stream()`.

        With the argument `stream` of `serve` and `connect`, a message can have any size: only
        its parts need memory, and a slow reader slows down its peer. Without it, the message has
        one part. Parts are of the types that `recv` returns. They are empty only if the message is.

        Cancelling the iteration loses nothing: the same iterator goes on with the next part. If it
        is not iterated to the end, the rest of the message is dropped as soon as another message is
        received, by `recv`, `async for` or another `recv_stream`.

        Raises:
            ConnectionClosed: if the connection ends before the message does.
            StateError: if another task is waiting for a message, or the rest of this one was
                dropped.
        """
        return _OnePart(self)

    def _awaits_message(self) -> bool:
        """Return whether the application waits for the next message."""
        return self._sink.waiter is not None

    # Sending ----------------------------------------------------------------------------

    async def send(self, message: Message, *, compress: bool | None = None) -> None:
        """Send a message: text if it is a `str` or `Text`, binary if it is bytes-like.

        The items of an iterable or asynchronous iterable are sent as the fragments of one message;
        they must all be text, or all be binary. Large items of text are cut if they are not ASCII.
        An empty iterable sends nothing. If the connection ends, what waits for the next item is
        cancelled. A file is sent in fragments, too, as text if `read` returns `str`, from its
        position to its end. It is read in pieces, each in a thread, unless it is in memory
        (`io.BytesIO`, `io.StringIO`) or its `read` is a coroutine function, as that of
        `asyncio.StreamReader` is. Messages are sent in the order of the calls.

        This waits while too much of what was sent before has not reached the peer.

        Args:
            message: the message, a prepared message (see `prepare`), an iterable or a file.
            compress: whether to compress the message, if compression was negotiated; None to
                decide by its size, or by its first fragment. A large message is compressed piece
                by piece, and the event loop runs between the pieces.

        Raises:
            TypeError: if `message` is none of these.
            ValueError: if a text has lone surrogates.
            ConnectionClosed: if the connection is closed or closing, or is lost during the call.
        """
        if self._fast_send(message):
            pass  # as most are
        elif isinstance(message, (str, bytes, Text, PreparedMessage)) or _is_buffer(message):
            connection = self._require_connection()
            connection.check_open()
            long = self._takes_long(message, compress)
            if long or self._is_sending() or (self._write_paused and self._has_no_room()):
                async with self._waiting_senders().turn():
                    await self._wait_for_room()
                    if long:
                        message = await self._compressed(message)
                    connection.send(message, compress=compress)
                    self._schedule_flush()
            else:
                connection.send(message, compress=compress)
                self._schedule_flush()
        else:
            await self._send_fragments(message, compress, utf8=False)
        if self._must_yield or self._write_paused:
            await self._relax()

    async def send_text(self, data: TextMessage, *, compress: bool | None = None) -> None:
        """Send a text message that is given in UTF-8.

        This is `send` for programs that have text as bytes. The items of an iterable or
        asynchronous iterable, and the pieces of a file, are sent as the fragments of one message,
        and may be cut inside of a character.

        Args:
            data: the message in UTF-8 (bytes-like), a `str`, a `Text`, an iterable of these, or a
                file.
            compress: as for `send`.

        Raises:
            TypeError: if `data` is none of these.
            ValueError: if `data` is not UTF-8, or has lone surrogates. If a message in fragments
                has begun, the connection is closed with 1011.
            ConnectionClosed: if the connection is closed or closing, or is lost during the call.
        """
        if isinstance(data, (bytes, str, Text)) or _is_buffer(data):
            await self.send(as_text(data), compress=compress)
        else:
            await self._send_fragments(data, compress, utf8=True)
            await self._relax()

    async def _relax(self) -> None:
        """Let other tasks run, and wait while too much is not sent yet."""
        if self._must_yield:
            await self._yield_to_loop()
        if self._write_paused:
            await self._drain()
            if self._phase not in RECEIVING:
                raise self._closed_error()

    def _takes_long(
        self, message: str | Text | Buffer | PreparedMessage, compress: bool | None
    ) -> bool:
        """Return whether compressing the message would block the event loop for long."""
        deflate = self._require_connection().deflate
        if compress is False or deflate is None:
            return False
        size = _size_of(message)
        return size >= _LARGE and (compress is True or size >= deflate.config.threshold)

    async def _wait_for_room(self) -> None:
        """Wait until there is room to send, when it is our turn."""
        while self._write_paused and self._phase in RECEIVING and self._has_no_room():
            await self._drain()

    async def _compressed(self, message: str | Text | Buffer | PreparedMessage) -> PreparedMessage:
        """Compress a large message piece by piece, and let the event loop run in between."""
        connection = self._require_connection()
        prepared = message if isinstance(message, PreparedMessage) else prepare(message)
        if (compressor := connection.compressor) is not None:
            for _ in prepared.compress(compressor):
                connection.check_open()
                await asyncio.sleep(0)
        return prepared

    async def _send_fragments(self, message: object, compress: bool | None, *, utf8: bool) -> None:
        deflate = self._connection is not None and self._connection.deflate
        fragments = as_fragments(message, compressed=bool(deflate) and compress is not False)
        if fragments is None:
            raise errors.message_required(message)
        connection = self._require_connection()
        connection.check_open()
        turn = self._waiting_senders().turn(endless=True)
        async with turn, while_open(self), aclosing(fragments):
            await self._send_each(connection, fragments, compress, utf8)

    async def _send_each(
        self,
        connection: Connection,
        fragments: AsyncGenerator[Any],
        compress: bool | None,
        utf8: bool,
    ) -> None:
        kind: _Kind | None = None
        compressed = 0  # since others had their turn, in bytes
        try:
            async for fragment in fragments:
                await self._wait_for_room()
                is_text = utf8 or isinstance(fragment, (str, Text))
                this: _Kind = "text" if is_text else "binary"
                if kind is None:
                    send = connection.send_text if utf8 else connection.send
                    send(fragment, fin=False, compress=compress)
                    kind = this
                elif kind == this:
                    connection.continuation(fragment, fin=False)
                else:
                    raise errors.fragment_of_other_kind(kind, fragment)
                self._schedule_flush()
                if compress is not False and connection.deflate is not None:
                    compressed += _size_of(fragment)
                if self._must_yield or compressed >= _LARGE:
                    await self._yield_to_loop()
                    compressed = 0
                if self._write_paused:
                    await self._drain()
            if kind is not None:
                connection.continuation(b"", fin=True)
                self._schedule_flush()
        except BaseException:
            # A message that has begun cannot be withdrawn.
            if kind is not None:
                self._begin_closing(CloseCode.INTERNAL_ERROR, "")
            raise

    async def ping(self, data: Buffer | None = None) -> float:
        """Send a ping and wait for the pong (RFC 6455 §5.5.2).

        Args:
            data: at most 125 bytes, different from those of all pings that have no answer yet;
                by default, fastws chooses them.

        Returns:
            the time until the pong arrived, in seconds.

        Raises:
            TypeError: if `data` is not bytes-like.
            ValueError: if `data` is too long, or another ping with it has no answer yet.
            ConnectionClosed: if the connection is closed, or ends before the pong arrives.
        """
        return await self._send_ping(data)

    async def pong(self, data: Buffer = b"") -> None:
        """Send a pong that answers no ping (RFC 6455 §5.5.3): a sign of life, which the peer does
        not answer. fastws itself answers pings.

        This waits while too much of what was sent before has not reached the peer.

        Args:
            data: at most 125 bytes.

        Raises:
            TypeError: if `data` is not bytes-like.
            ValueError: if `data` is too long.
            ConnectionClosed: if the connection is closed or closing, or is lost during the call.
        """
        self._require_connection().check_open()
        await self._wait_for_room()
        self._send_pong(data)
        await self._relax()

    # Closing --------------------------------------------------------------------------

    async def close(self, code: int | None = CloseCode.NORMAL_CLOSURE, reason: str = "") -> None:
        """Close the connection and wait until it has ended.

        Messages that other tasks are sending are sent first, unless that takes longer than the
        close timeout; but a message in fragments is cut off. Messages that have arrived before
        can still be received. If the connection is already closing, this only waits.

        Args:
            code: a close code that may be sent (RFC 6455 §7.4); None for no code.
            reason: at most 123 bytes in UTF-8; must be empty without a code.

        Raises:
            ValueError: if the code may not be sent or the reason is too long.
        """
        rules.close_payload(code, reason)
        try:
            await self._finish_sends()
        finally:
            self._begin_closing(code, reason)
        await self._wait_closed()

    async def wait_closed(self) -> None:
        """Wait until the connection has ended."""
        await self._wait_closed()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, exc_type: type[BaseException] | None, *_: object) -> None:
        await self.close(CloseCode.NORMAL_CLOSURE if exc_type is None else CloseCode.INTERNAL_ERROR)

    # For Endpoint ---------------------------------------------------------------------------

    def _failed(self, exc: Exception) -> None:
        if logger.isEnabledFor(logging.DEBUG):
            logger.debug("connection failed (%s) #%d: %s", self.remote_address, self.id, exc)


class _OnePart(Generic[T]):
    """Iterates over the next message as one part."""

    __slots__ = ("_is_done", "_ws")

    def __init__(self, ws: WebSocket[T]) -> None:
        self._ws = ws
        self._is_done = False

    def __aiter__(self) -> AsyncIterator[T | bytes]:
        return self

    async def __anext__(self) -> T | bytes:
        if self._is_done:
            raise StopAsyncIteration
        message = await self._ws.recv()
        self._is_done = True
        return message


def _size_of(message: str | Text | Buffer | PreparedMessage) -> int:
    if isinstance(message, PreparedMessage):
        return len(message.payload)
    if isinstance(message, (str, bytes, Text)):
        return memory_of(message)
    return memoryview(message).nbytes


def _is_buffer(message: Message | TextMessage) -> TypeGuard[Buffer]:
    try:
        memoryview(message).release()  # type: ignore[arg-type]
    except TypeError:
        return False
    return True
