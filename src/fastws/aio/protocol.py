"""A connection that calls your methods: `on_open`, `on_message`, `on_close`, `on_error`.

This module knows hooks, and what to do if one fails. It does not know bytes or timers: they are
the job of `Endpoint`.
"""

from __future__ import annotations

import asyncio
import inspect
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, NoReturn

from fastws.events import MessagePart
from fastws.exceptions import ConnectionClosed
from fastws.spec import CloseCode, State
from fastws.text import as_text

from . import twin
from .endpoint import Endpoint
from .twin import Hooks, Sink
from .view import T, logger

if TYPE_CHECKING:
    from collections.abc import Callable

    from typing_extensions import Buffer

    from fastws.events import Event, Text
    from fastws.prepared import PreparedMessage

__all__ = ["WebSocketProtocol", "check_handler", "is_protocol_factory"]

_HOOK_NAMES = ("on_open", "on_message", "on_message_part", "on_close", "on_error")


class _PartHooks(Hooks):
    """The protocol's own `on_message_part`."""

    __slots__ = ()

    def take(self, endpoint: Any, events: list[Event], only_messages: bool) -> None:
        for event in events:
            if isinstance(event, MessagePart):
                try:
                    endpoint.on_message_part(event)
                except BaseException as exc:
                    endpoint._hook_failed(exc)
                    if not isinstance(exc, ConnectionClosed):
                        return


# None of them has any state.
_HOOKS = Hooks()
_PART_HOOKS = _PartHooks()
_NOBODY = Sink()


class WebSocketProtocol(Endpoint, Generic[T]):
    """A connection that calls your methods: override the hooks that you need.

    The hooks are called in the event loop, one at a time. If one of them raises an exception, it
    is logged, and the connection is closed with 1011. They are functions, not coroutine functions:
    nobody awaits them. Creating a class with `async def on_message` raises TypeError.

    The class is a protocol factory for `loop.create_server`. You can also pass it to
    `fastws.serve` and `fastws.connect`, which add what a bare transport does not provide.

    For type checkers, `WebSocketProtocol` receives text as `str`, and `WebSocketProtocol[Text]` as
    `Text` (see the argument `decode_text` of these two).

    Attributes:
        request: the client's request; None on a client.
        response: the server's response; None on a server.
        subprotocol: the subprotocol agreed on; None if there is none.
        context: what `process_request` passed to `Accept`, from `on_open` on; yours to set on a
            client. None by default.
    """

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__(_HOOKS)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for name in _HOOK_NAMES:
            if _is_asynchronous(getattr(cls, name)):
                raise TypeError(
                    f"{cls.__qualname__}.{name} must not be asynchronous: hooks are called, not "
                    f"awaited. Use 'def {name}', and start a task for what takes time; or pass "
                    "serve() a coroutine function instead of a class"
                )

    # Hooks ----------------------------------------------------------------------------

    def on_open(self) -> None:
        """Called when the connection is open."""

    def on_message(self, message: T | bytes) -> None:
        """Called when a message arrives.

        Args:
            message: a `str` (or a `Text`, see `decode_text`) if it is text, `bytes` if it is
                binary.
        """

    def on_message_part(self, part: MessagePart) -> None:
        """Called when a part of a message arrives, instead of `on_message`, on a connection with
        the argument `stream` of `serve` and `connect`.

        Args:
            part: the part; its `last` says whether the message is complete now.
        """

    def on_close(self, code: int, reason: str) -> None:
        """Called when the connection has ended, once for each `on_open`.

        Args:
            code: the peer's close code (1005 if it sent none), our own if the peer broke the
                protocol, or 1006 if the connection was lost without a close frame.
            reason: the reason that belongs to the code.
        """

    def on_error(self, exc: Exception) -> None:
        """Called when the connection cannot be opened, or ends, because of an error.

        Args:
            exc: a HandshakeError, ProtocolError, OSError or TimeoutError.
        """

    # Methods ----------------------------------------------------------------------------

    if TYPE_CHECKING:
        # The type checker may need it before it has seen the decorator of the function.
        def send(
            self, message: str | Text | Buffer | PreparedMessage, *, compress: bool | None = None
        ) -> None: ...

    else:
        send = twin.send

    def send_text(self, data: str | Text | Buffer, *, compress: bool | None = None) -> None:
        """Send a text message that is given in UTF-8. What the peer does not take yet is buffered.

        Args:
            data: the message in UTF-8 (bytes-like), a `str` or a `Text`.
            compress: as for `send`.

        Raises:
            TypeError: if `data` is none of these.
            ValueError: if `data` is not UTF-8, or has lone surrogates.
            ConnectionClosed: if the connection is closed or closing.
        """
        self.send(as_text(data), compress=compress)

    def ping(self, data: Buffer | None = None) -> asyncio.Future[float]:
        """Send a ping (RFC 6455 §5.5.2).

        Args:
            data: at most 125 bytes, different from those of all pings that have no answer yet;
                by default, fastws chooses them.

        Returns:
            a future for the time until the pong arrives, in seconds. Its exception is
            ConnectionClosed if the connection ends first. It need not be awaited.

        Raises:
            TypeError: if `data` is not bytes-like.
            ValueError: if `data` is too long, or another ping with it has no answer yet.
            ConnectionClosed: if the connection is closed or closing.
        """
        return self._send_ping(data)

    def pong(self, data: Buffer = b"") -> None:
        """Send a pong that answers no ping (RFC 6455 §5.5.3): a sign of life, which the peer does
        not answer. fastws itself answers pings.

        Args:
            data: at most 125 bytes.

        Raises:
            TypeError: if `data` is not bytes-like.
            ValueError: if `data` is too long.
            ConnectionClosed: if the connection is closed or closing.
        """
        self._send_pong(data)

    def close(self, code: int | None = CloseCode.NORMAL_CLOSURE, reason: str = "") -> None:
        """Close the connection; `on_close` is called later. Does nothing if the connection is
        already closing.

        Args:
            code: a close code that may be sent (RFC 6455 §7.4); None for no code.
            reason: at most 123 bytes in UTF-8; must be empty without a code.

        Raises:
            ValueError: if the code may not be sent or the reason is too long.
        """
        self._begin_closing(code, reason)

    async def wait_closed(self) -> None:
        """Wait until the connection has ended."""
        await self._wait_closed()

    # For Endpoint ---------------------------------------------------------------------------

    def _opened(self) -> None:
        if self._settings.stream:
            self._sink = _PART_HOOKS
        self._call(self.on_open)

    def _failed(self, exc: Exception) -> None:
        self._call(self.on_error, exc)

    def _lost(self) -> None:
        if self.close_code is not None:  # it was open
            self._call(self.on_close, self.close_code, self.close_reason)

    def _call(self, hook: Callable[..., None], *args: Any) -> None:
        try:
            hook(*args)
        except BaseException as exc:
            self._hook_failed(exc)

    def _hook_failed(self, exc: BaseException) -> None:
        code = CloseCode.INTERNAL_ERROR
        if self._blames_peer(exc):
            code = CloseCode.POLICY_VIOLATION
            line = "a hook of %s ended (%s) #%d: %s"
            logger.debug(line, type(self).__name__, self.remote_address, self.id, exc)
        elif isinstance(exc, (SystemExit, KeyboardInterrupt)):
            # These two must end the event loop, but uvloop's transports would suppress them.
            asyncio.get_running_loop().call_soon(_raise, exc)
        else:
            self._log_error(f"a hook of {type(self).__name__} failed", exc)
        if self.state is State.OPEN:
            self._sink = _NOBODY
            self._begin_closing(code, "")


def check_handler(handler: Any) -> None:
    """Check that a function can handle a server's connections, as far as can be seen.

    Raises:
        TypeError: if it cannot.
    """
    if isinstance(handler, Endpoint):
        name = type(handler).__name__
        raise TypeError(f"handler must be the class {name}, not an instance of it")
    if not callable(handler):
        raise TypeError(f"handler must be callable, not {type(handler).__name__!r}")
    if isinstance(handler, type) and issubclass(handler, Endpoint):
        if not issubclass(handler, WebSocketProtocol):
            raise TypeError(
                "handler must be a coroutine function or a WebSocketProtocol subclass, not the "
                f"class {handler.__name__}"
            )
    elif inspect.isasyncgenfunction(handler):
        name = getattr(handler, "__qualname__", repr(handler))
        raise TypeError(f"handler must be a coroutine function, but {name} contains 'yield'")


def is_protocol_factory(handler: object) -> bool:
    """Return whether a function makes protocols, as their classes do."""
    while isinstance(handler, partial):
        handler = handler.func
    handler = getattr(handler, "__origin__", handler)  # of `WebSocketProtocol[Text]`
    return isinstance(handler, type) and issubclass(handler, WebSocketProtocol)


def _is_asynchronous(function: object) -> bool:
    return inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function)


def _raise(exc: BaseException) -> NoReturn:
    raise exc
