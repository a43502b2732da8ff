"""A connection whose methods are awaited: `recv`, `send`, `async for`.

This module knows tasks: which task waits for what, and that a task may be cancelled. It does not
know bytes: they are the job of `Endpoint`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Mapping
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Literal, Self, TypeAlias, Union

from fastws import errors, rules
from fastws.exceptions import ConnectionClosed
from fastws.prepared import PreparedMessage, prepare
from fastws.rules import memory_of
from fastws.spec import CloseCode

from .endpoint import Endpoint
from .phases import RECEIVING
from .twin import Queue
from .view import logger

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from typing import TypeGuard

    from typing_extensions import Buffer

    _Kind: TypeAlias = Literal["text", "binary"]

__all__ = ["Message", "WebSocket"]

# The argument of `WebSocket.send`. Each item of an iterable becomes a fragment.
# (Buffer is for the type checker: Python has it since 3.12.)
Message: TypeAlias = Union[
    str,
    "Buffer",
    PreparedMessage,
    Iterable[str],
    Iterable["Buffer"],
    AsyncIterable[str],
    AsyncIterable["Buffer"],
]


# From this size on, in bytes, compressing a message takes milliseconds.
_LARGE = 256 << 10


class WebSocket(Endpoint):
    """A connection, as `serve` passes it to a handler and `connect` returns it.

    `async for message in ws` yields messages until the connection is closed.

    While messages wait to be received, reading slows down and finally stops, so that a slow
    handler slows down its peer: see the arguments `max_queue` and `read_limit` of `serve` and
    `connect`. Pings, pongs and the close frame are handled even if the application receives no
    messages.

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

    async def recv(self) -> str | bytes:
        """Wait for the next message: a `str` if it is text, `bytes` if it is binary.

        Cancelling this coroutine loses no message.

        Raises:
            ConnectionClosed: if the connection is closed and all messages have been received.
            StateError: if another task is waiting for a message.
        """
        message = self._next_message()
        while message is None:
            waiter = self._wait_for_message()
            try:
                await waiter
            except BaseException:
                self._stop_waiting()
                raise
            message = self._waited()
        return message

    def __aiter__(self) -> AsyncIterator[str | bytes]:
        return self

    async def __anext__(self) -> str | bytes:
        """Return the next message.

        Raises:
            StopAsyncIteration: if the connection was closed with 1000, 1001 or 1005.
            ConnectionClosed: if it ended in any other way.
            StateError: if another task is waiting for a message.
        """
        # (The same as `recv`. Calling that would create another coroutine for each message.)
        message = self._next_message()
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
            message = self._waited()
        return message

    # Sending ----------------------------------------------------------------------------

    async def send(self, message: Message, *, compress: bool | None = None) -> None:
        """Send a message: text if it is a `str`, binary if it is bytes-like.

        The items of an iterable or asynchronous iterable are sent as the fragments of one message;
        they must be of the same type. An empty iterable sends nothing. Messages are sent in the
        order of the calls.

        This waits while too much of what was sent before has not reached the peer.

        Args:
            message: the message, or a prepared message (see `prepare`).
            compress: whether to compress the message, if compression was negotiated; None to
                decide by its size. A large message is compressed piece by piece, and the event
                loop runs between the pieces.

        Raises:
            TypeError: if `message` is none of these.
            ValueError: if a text has lone surrogates.
            ConnectionClosed: if the connection is closed or closing, or is lost during the call.
        """
        if self._fast_send(message):
            pass  # as most are
        elif isinstance(message, (str, bytes, PreparedMessage)) or _is_buffer(message):
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
        elif isinstance(message, Mapping):  # an iterable by accident
            raise errors.message_required(message)
        elif isinstance(message, (Iterable, AsyncIterable)):
            self._require_connection().check_open()
            async with self._waiting_senders().turn(endless=True):
                await self._send_fragments(message, compress)
        else:
            raise errors.message_required(message)
        if self._must_yield or self._write_paused:
            await self._give_way()

    async def _give_way(self) -> None:
        """Wait after sending, if the peer or the other tasks need time."""
        if self._must_yield:
            await self._yield_to_loop()
        if self._write_paused:
            await self._drain()
            if self._phase not in RECEIVING:
                raise self._closed_error()

    def _takes_long(self, message: str | Buffer | PreparedMessage, compress: bool | None) -> bool:
        """Return whether compressing the message would block the event loop for long."""
        deflate = self._require_connection().deflate
        if compress is False or deflate is None:
            return False
        if isinstance(message, PreparedMessage):
            size = len(message.payload)
        elif isinstance(message, (str, bytes)):
            size = memory_of(message)
        else:
            size = memoryview(message).nbytes
        return size >= _LARGE and (compress is True or size >= deflate.config.threshold)

    async def _wait_for_room(self) -> None:
        """Wait until there is room to send, when it is our turn."""
        while self._write_paused and self._phase in RECEIVING and self._has_no_room():
            await self._drain()

    async def _compressed(self, message: str | Buffer | PreparedMessage) -> PreparedMessage:
        """Compress a large message piece by piece, and let the event loop run in between."""
        connection = self._require_connection()
        prepared = message if isinstance(message, PreparedMessage) else prepare(message)
        if (compressor := connection.compressor) is not None:
            for _ in prepared.compress(compressor):
                connection.check_open()
                await asyncio.sleep(0)
        return prepared

    async def _send_fragments(
        self, fragments: Iterable[Any] | AsyncIterable[Any], compress: bool | None
    ) -> None:
        connection = self._require_connection()
        connection.check_open()
        kind: _Kind | None = None
        try:
            async with aclosing(_iterate(fragments)) as iterator:
                async for fragment in iterator:
                    await self._wait_for_room()
                    this: _Kind = "text" if isinstance(fragment, str) else "binary"
                    if kind is None:
                        connection.send(fragment, fin=False, compress=compress)
                        kind = this
                    elif kind == this:
                        connection.continuation(fragment, fin=False)
                    else:
                        raise errors.fragment_of_other_kind(kind, fragment)
                    self._schedule_flush()
                    if self._must_yield:
                        await self._yield_to_loop()
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
        await self._give_way()

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

    def __repr__(self) -> str:
        state = "opening" if self.state is None else self.state.name.lower()
        return f"<{type(self).__name__} {self.remote_address} {state}>"

    # For Endpoint ---------------------------------------------------------------------------

    def _failed(self, exc: Exception) -> None:
        logger.debug("connection failed (%s): %s", self.remote_address, exc)


def _is_buffer(message: Message) -> TypeGuard[Buffer]:
    try:
        memoryview(message).release()  # type: ignore[arg-type]
    except TypeError:
        return False
    return True


async def _iterate(fragments: Iterable[Any] | AsyncIterable[Any]) -> AsyncGenerator[Any]:
    if isinstance(fragments, AsyncIterable):
        async for fragment in fragments:
            yield fragment
    else:
        for fragment in fragments:
            yield fragment
