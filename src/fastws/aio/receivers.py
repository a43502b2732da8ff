"""What a message can be published to: the connections of fastws, and other objects with `send`.

This module knows how to see a connection of somebody else, which has nothing but `send`, as one
of ours. It does not know what is published, or what happens if a receiver is slow.
"""

from __future__ import annotations

import asyncio
from asyncio.events import _get_running_loop
from inspect import isawaitable
from typing import TYPE_CHECKING, Any, Protocol
from weakref import WeakValueDictionary

from fastws.connection import Connection
from fastws.exceptions import ConnectionClosed
from fastws.spec import DEFAULT_WRITE_LIMIT, CloseCode, Opcode

from .endpoint import Endpoint
from .outbox import Outbox
from .senders import Senders
from .view import logger

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from fastws.prepared import PreparedMessage

__all__ = ["Receiver", "SupportsSend", "ended", "receiver_of"]

# How often to look whether an object that does not tell has room again, in seconds.
_PAUSE = 0.05


class SupportsSend(Protocol):
    """A connection, or anything else that messages can be published to."""

    def send(self, message: Any, /) -> Any:
        """Send a message, which is a str or bytes. May be a coroutine function.

        Raises:
            ConnectionClosed: if the connection has ended; so may any other exception.
        """


class Receiver(Protocol):
    """What publishing needs of a receiver. `Endpoint` is one."""

    _senders: Any
    _must_yield: bool

    @property
    def _write_paused(self) -> bool:
        """Whether it takes too little of what is sent."""

    def _watch(self, callback: Callable[[Any], None]) -> None:
        """Call a function when nothing can be sent any more."""

    def _unwatch(self, callback: Callable[[Any], None]) -> None:
        """Do not call that function."""

    def _is_open(self) -> bool:
        """Return whether messages can be sent."""

    def _is_elsewhere(self) -> bool:
        """Return whether messages can not be sent from here: this is another thread."""

    def _fast_send(self, message: PreparedMessage) -> bool:
        """Send a message if nothing has to be done or waited for before; return whether it was
        sent."""

    def _offer(
        self, message: PreparedMessage, *, compress: bool | None = None
    ) -> Awaitable[object] | None:
        """Send a message, whatever is unsent. Return what to await before the next one."""

    async def _finish(self, running: Awaitable[object]) -> None:
        """Await what `_offer` returned.

        Raises:
            ConnectionClosed: if it raises an exception.
        """

    def _unsent(self) -> int:
        """Return how many bytes wait to be sent."""

    def _most_unsent(self) -> int | None:
        """Return the maximum of that; None for no limit."""

    def _waiting_senders(self) -> Senders:
        """Return the line of those who send."""

    async def _drain(self) -> None:
        """Wait until there is room, or nothing can be sent any more."""

    async def _yield_to_loop(self) -> None:
        """End this turn of the event loop."""

    def _drop_peer(self, reason: str) -> None:
        """End the connection."""

    def _log_error(self, message: str, exc: BaseException) -> None:
        """Log an error."""


class Other:
    """An object with `send`, as a receiver.

    It has ended when its `send` raises. How much is unsent is known if it has `bytes_queued`, as
    `Connection` does. But nothing tells when that becomes less.
    """

    __slots__ = ("__weakref__", "_connection", "_ended", "_loop", "_senders", "_watchers")

    _must_yield = False

    def __init__(self, connection: SupportsSend) -> None:
        self._connection = connection
        self._loop = _get_running_loop()
        self._senders: Senders | None = None
        self._watchers: list[Callable[[Any], None]] = []
        self._ended: Exception | None = None

    def _watch(self, callback: Callable[[Any], None]) -> None:
        if self._ended is not None:
            raise ConnectionClosed(CloseCode.ABNORMAL_CLOSURE, "") from self._ended
        self._watchers.append(callback)

    def _unwatch(self, callback: Callable[[Any], None]) -> None:
        if callback in self._watchers:
            self._watchers.remove(callback)

    def _is_open(self) -> bool:
        return self._ended is None

    def _is_elsewhere(self) -> bool:
        # (It may know how to send from the thread of another event loop.)
        return self._loop is not None and _get_running_loop() is None

    @property
    def _write_paused(self) -> bool:
        return self._queued() > DEFAULT_WRITE_LIMIT

    def _queued(self) -> int:
        size: int = getattr(self._connection, "bytes_queued", 0)
        return size

    def _fast_send(self, message: PreparedMessage) -> bool:
        if self._write_paused or (self._senders is not None and self._senders.is_busy):
            return False
        running = self._offer(message)
        if running is not None:
            Outbox(self, running)
        return True

    def _offer(
        self, message: PreparedMessage, *, compress: bool | None = None
    ) -> Awaitable[object] | None:
        try:
            if isinstance(self._connection, Connection):
                self._connection.send(message, compress=compress)
                return None
            text = message.opcode is Opcode.TEXT
            running = self._connection.send(message.payload.decode() if text else message.payload)
        except Exception as exc:
            raise self._end(exc) from exc
        return running if isawaitable(running) else None

    async def _finish(self, running: Awaitable[object]) -> None:
        try:
            await running
        except Exception as exc:
            raise self._end(exc) from exc

    def _end(self, exc: Exception) -> ConnectionClosed:
        self._ended = exc
        if not isinstance(exc, (ConnectionClosed, OSError)):
            self._log_error("send failed", exc)
        watchers, self._watchers = self._watchers, []
        for callback in watchers:
            callback(self)
        return ConnectionClosed(CloseCode.ABNORMAL_CLOSURE, "")

    def _unsent(self) -> int:
        size = self._queued()
        if self._senders is not None:
            size += sum(outbox.size for outbox in self._senders.outboxes)
        return size

    def _most_unsent(self) -> None:
        return None

    def _waiting_senders(self) -> Senders:
        if self._senders is None:
            self._senders = Senders()
        return self._senders

    async def _drain(self) -> None:
        await asyncio.sleep(_PAUSE)

    async def _yield_to_loop(self) -> None:
        pass

    def _leave(self, reason: ConnectionClosed) -> None:
        """Nothing more must be sent."""
        self._end(reason)
        if self._senders is not None:
            for outbox in list(self._senders.outboxes):
                outbox.cancel()

    def _drop_peer(self, reason: str) -> None:
        self._leave(ConnectionClosed(CloseCode.POLICY_VIOLATION, reason))
        close = getattr(self._connection, "close", None)
        if close is None:
            return
        try:
            running = close(CloseCode.POLICY_VIOLATION, reason)
        except Exception as exc:
            self._close_failed(exc)
            return
        if isawaitable(running):
            task = asyncio.ensure_future(running)
            _closing.add(task)
            task.add_done_callback(self._closed)

    def _closed(self, task: asyncio.Future[object]) -> None:
        _closing.discard(task)
        if not task.cancelled() and (exc := task.exception()) is not None:
            self._close_failed(exc)

    def _close_failed(self, exc: BaseException) -> None:
        if not isinstance(exc, (ConnectionClosed, OSError)):
            self._log_error("close failed", exc)

    def _log_error(self, message: str, exc: BaseException) -> None:
        logger.error("%s (%r)", message, self._connection, exc_info=exc)


# By the id of the connection, which an `Other` keeps alive. The same one is used as long as it
# receives something, so that the order of the messages is kept.
_others: WeakValueDictionary[int, Other] = WeakValueDictionary()

# An event loop does not keep its tasks alive.
_closing: set[asyncio.Future[object]] = set()


def receiver_of(connection: SupportsSend) -> Receiver:
    """Return a connection as a receiver.

    Raises:
        TypeError: if it has no method `send`.
    """
    if isinstance(connection, Endpoint):
        return connection
    receiver = _others.get(id(connection))
    if receiver is None:
        name = type(connection).__name__
        if not callable(getattr(connection, "send", None)):
            raise TypeError(f"connection must have the method send(); {name!r} does not")
        scope = getattr(connection, "scope", None)
        if isinstance(scope, dict) and scope.get("type") == "websocket":
            raise TypeError(
                f"connection must not be the ASGI {name} itself, whose send() takes no messages, "
                "but what fastws.integrations.asgi.connection_of() returns for it"
            )
        receiver = _others[id(connection)] = Other(connection)
    return receiver


def ended(connection: SupportsSend) -> None:
    """A connection that is not ours has ended: nothing more is sent to it."""
    receiver = _others.get(id(connection))
    if receiver is not None:
        receiver._leave(ConnectionClosed(CloseCode.ABNORMAL_CLOSURE, ""))
