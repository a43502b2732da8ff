"""A WebSocket server, which runs a handler for each connection, and shuts down cleanly.

This module knows connections, handler tasks and signals. It does not know how a server is set up,
nor what a connection does: that is the job of `Endpoint`.
"""

from __future__ import annotations

import asyncio
import logging
import signal
from contextlib import ExitStack, suppress
from contextvars import Context, ContextVar
from functools import partial
from socket import SHUT_RDWR
from typing import TYPE_CHECKING, Any, cast

from fastws import rules
from fastws.exceptions import RequestError
from fastws.spec import CloseCode

from .admission import Admission, Lifetimes, turn_away
from .draining import drain
from .endpoint import Endpoint, as_endpoint
from .phases import Phase
from .protocol import WebSocketProtocol, is_protocol_factory
from .signals import heed
from .streaming import StreamingWebSocket
from .transports import Dropper
from .view import logger
from .websocket import WebSocket

if TYPE_CHECKING:
    import socket
    from collections.abc import Awaitable, Callable, Iterable, Sequence

    from .creation import Observer
    from .opening import ServerOpeningHandshake
    from .settings import Settings

__all__ = ["Server"]

SHUTDOWN_SIGNALS = (signal.SIGINT, signal.SIGTERM)

# How long handlers may take to end after they are cancelled, in seconds.
_LAST_MOMENT = 1.0

# How many turns of an event loop it takes, at most, until there is an endpoint for a connection
# that was accepted.
_TURNS = 3

# The task of the handler that is running, or that has started the running task.
_current_handler: ContextVar[asyncio.Task[Any] | None] = ContextVar(
    "_current_handler", default=None
)


class Server:
    """A running server, as `serve` returns it."""

    told = None

    def __init__(
        self,
        handler: Callable[[WebSocket[Any]], Awaitable[None]] | Callable[[], WebSocketProtocol[Any]],
        settings: Settings,
        make_opening: Callable[[], ServerOpeningHandshake],
        shutdown_timeout: float | None,
        limits: tuple[int | None, int | None] = (None, None),
        max_lifetime: float | None = None,
    ) -> None:
        # All that have a transport, including those in their opening handshake.
        self._endpoints: set[Endpoint] = set()
        self._listeners: list[asyncio.Server] = []
        # The last ones, of which there is no endpoint yet, and their sockets.
        self._arriving: dict[asyncio.Task[Any], socket.socket] = {}
        self._acceptors: list[Callable[[], None]] = []  # of what waits when it stops listening
        self._exits = ExitStack()  # what to undo then
        self.observers: list[Observer] = []
        self._admission = None if limits == (None, None) else Admission(*limits)
        self._lifetimes = None if max_lifetime is None else Lifetimes(max_lifetime)
        self._handler = handler
        self._settings = settings
        self._make_opening = make_opening
        self._shutdown_timeout = shutdown_timeout
        self._calls_back = is_protocol_factory(handler)
        self._make_websocket = StreamingWebSocket if settings.stream else WebSocket
        self._tasks: dict[asyncio.Task[None], WebSocket[Any]] = {}
        # Made once, as there may be very many handlers.
        self._when_done = self._handler_done
        self._context = Context()
        self._closing: asyncio.Task[None] | None = None
        # Tasks that wait in `close`, and the handlers that have started such a task.
        self._closers: set[asyncio.Task[Any] | None] = set()
        self._insiders: set[asyncio.Task[Any] | None] = set()
        self._signalled = False
        self._hurried = False  # by a second signal
        self._stopping = asyncio.Event()
        self._changed = asyncio.Event()  # a connection or a handler has ended
        self._closed = asyncio.Event()

    @property
    def connections(self) -> frozenset[WebSocket | WebSocketProtocol]:
        """The connections that are open at this moment. Those in their opening handshake, or
        closing, are not among them."""
        endpoints = [each for each in self._endpoints if each._phase is Phase.OPEN]
        return cast("frozenset[WebSocket | WebSocketProtocol]", frozenset(endpoints))

    @property
    def sockets(self) -> Sequence[socket.socket]:
        """The sockets that the server listens on."""
        return [sock for listener in self._listeners for sock in listener.sockets]

    async def serve_forever(
        self,
        *,
        signals: Iterable[signal.Signals] = SHUTDOWN_SIGNALS,
        drain: float | None = None,
    ) -> None:
        """Serve until a signal arrives, `close` is called or the task is cancelled. Then shut
        down as `close` does.

        Several servers may run at the same time; a signal stops all of them. Until the last of
        them has shut down, they replace a handler that was set with `signal.signal`. A handler
        that was added to the event loop with `loop.add_signal_handler` is called as well.

        Args:
            signals: the signals that stop the server. A second signal ends the wait for clients
                and handlers. Signals are handled only in the main thread, not on Windows, and
                not if C code has installed the current handler.
            drain: the time over which connections are closed after a signal, in seconds, as
                `drain` does; None to close all at once.

        Raises:
            OSError: if one of `signals` cannot be caught.
            ValueError: if `drain` is not positive.
        """
        rules.check_timeout("drain", drain)
        with heed(signals, self._on_signal):
            try:
                await self._stopping.wait()
                if drain is not None:
                    await self.drain(drain)
                await self.close()
            except asyncio.CancelledError:
                await self.close()
                raise

    async def close(self, code: int = CloseCode.GOING_AWAY, reason: str = "") -> None:
        """Stop listening, close all connections and wait for their handlers.

        After the shutdown timeout, connections are aborted and handlers are cancelled. A handler
        that does not end within a second after that is logged and left running. A handler that
        calls this does not wait for itself.

        Args:
            code: the close code for the clients.
            reason: at most 123 bytes in UTF-8.

        Raises:
            ValueError: if the code may not be sent or the reason is too long.
        """
        rules.close_payload(code, reason)
        # The task may have been cancelled together with all other tasks.
        if self._closing is None or (self._closing.done() and not self._closed.is_set()):
            # (A task created by an eager task factory would run before it is stored here.)
            loop = asyncio.get_running_loop()
            self._closing = asyncio.Task(self._close(code, reason), loop=loop)
            self._stopping.set()
        task, handler = asyncio.current_task(), _current_handler.get()
        self._closers.add(task)
        self._insiders.add(handler)
        self._changed.set()
        try:
            await asyncio.shield(self._closing)
        finally:
            self._closers.discard(task)
            self._insiders.discard(handler)

    async def drain(
        self, over: float, code: int = CloseCode.SERVICE_RESTART, reason: str = ""
    ) -> None:
        """Stop listening, and close the connections one after the other, so that their clients do
        not all connect to another server at the same time. Then shut down as `close` does.

        Idle connections are closed first: those where no message waits to be received or sent, none
        has arrived in part, and whose handler waits for the next one. Opening handshakes go on. A
        second signal in `serve_forever`, or a call of `close`, closes the rest at once.

        Args:
            over: the time over which to spread this, in seconds.
            code: the close code for the clients.
            reason: at most 123 bytes in UTF-8.

        Raises:
            TypeError: if `over` is not a number.
            ValueError: if `over` is not positive, the code may not be sent or the reason is too
                long.
        """
        if over is None:
            raise TypeError("over must be a number, not None")
        rules.check_timeout("over", over)
        rules.close_payload(code, reason)
        await self._stop_listening()
        await drain(
            self._endpoints,
            over,
            lambda endpoint: self._say_goodbye(endpoint, code, reason),
            lambda: self._closing is not None or self._hurried,
        )
        await self.close(code, reason)

    async def wait_closed(self) -> None:
        """Wait until a call of `close` has shut the server down."""
        await self._closed.wait()

    async def _close(self, code: int, reason: str) -> None:
        try:
            await self._stop_listening()
            for endpoint in list(self._endpoints):
                if endpoint._phase is Phase.OPENING:
                    self._turn_away(endpoint)
                else:
                    self._say_goodbye(endpoint, code, reason)
            if await self._ended(0 if self._hurried else self._shutdown_timeout, self._rest):
                # The remaining handlers may be waiting for us, which cannot be known.
                await self._ended(_LAST_MOMENT, lambda: self._tasks.keys() - self._closers)
        finally:
            self._abort()
        await self._ended(_LAST_MOMENT, self._rest)
        for task in self._rest():
            name = getattr(self._handler, "__qualname__", None) or repr(self._handler)
            ws = self._tasks[task]
            line = "handler %s did not end when it was cancelled (%s) #%d"
            logger.error(line, name, ws.remote_address, ws.id)
        self._closed.set()

    async def _stop_listening(self) -> None:
        loop = asyncio.get_running_loop()
        sockets = self.sockets
        removed: list[bool] = []
        with suppress(NotImplementedError):  # the event loop of Windows
            removed = [loop.remove_reader(sock.fileno()) for sock in sockets]
        try:
            if any(removed):
                # asyncio drops what it has accepted if the listener is closed too soon. (uvloop
                # does not, and would accept more.)
                await _let_run()
            for accept in self._acceptors:
                accept()
        finally:
            self._exits.close()
        if sockets:
            await _let_run()

    def _say_goodbye(self, endpoint: Endpoint, code: int, reason: str) -> None:
        try:
            endpoint._begin_closing(code, reason)
        except Exception as exc:
            endpoint._log_error("could not close a connection", exc)

    def _turn_away(self, endpoint: Endpoint) -> None:
        drop = partial(self._say_goodbye, endpoint, CloseCode.GOING_AWAY, "")
        if self._hurried:
            drop()
        else:
            turn_away(endpoint, drop)

    def _rest(self) -> set[asyncio.Task[None]]:
        """Return the handlers to wait for, without those that wait for `close`."""
        return self._tasks.keys() - self._closers - self._insiders

    async def _ended(
        self, timeout: float | None, handlers: Callable[[], set[asyncio.Task[None]]]
    ) -> bool:
        """Wait until all connections and these handlers have ended, a second signal arrives, or
        the timeout expires. Return whether they have ended."""
        hurried = self._hurried
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                while (
                    self._endpoints or self._arriving or handlers()
                ) and self._hurried == hurried:
                    self._changed.clear()
                    await self._changed.wait()
        return not (self._endpoints or self._arriving or handlers())

    def _abort(self) -> None:
        for task in self._rest():
            task.cancel()
        for endpoint in list(self._endpoints):
            endpoint._transport.abort()
        for sock in self._arriving.values():
            with suppress(OSError):
                # (uvloop would never close it if its task were cancelled.)
                sock.shutdown(SHUT_RDWR)

    def _on_signal(self) -> None:
        self._stop(hurry=self._signalled)

    def _stop(self, *, hurry: bool = False) -> None:
        self._hurried |= hurry
        self._signalled = True
        self._stopping.set()
        self._changed.set()

    # Connections: the owner of endpoints --------------------------------------------------

    def _make_endpoint(self) -> asyncio.BaseProtocol:
        try:
            make: Any = self._handler if self._calls_back else self._make_websocket
            made = as_endpoint(make())
            made._configure(self._settings, self._make_opening(), self)
            return made
        except BaseException as exc:
            # asyncio would report nothing, and keep the client waiting.
            logger.exception("could not make a protocol: %s", exc)
            if isinstance(exc, (SystemExit, KeyboardInterrupt)):
                raise
            return Dropper()

    # (There is a transport, but who is at its other end may not be known yet.)
    def endpoint_expected(self, endpoint: Endpoint) -> None:
        self._endpoints.add(endpoint)
        if self._closed.is_set():
            endpoint._transport.abort()
        elif self._closing is not None:
            self._turn_away(endpoint)

    def endpoint_made(self, endpoint: Endpoint) -> None:
        self.endpoint_expected(endpoint)
        self.endpoint_identified(endpoint)

    def endpoint_identified(self, endpoint: Endpoint) -> None:
        # It is known who is at the other end: count the connection, or refuse it.
        if self._admission is not None:
            limit = self._admission.admit(endpoint)
            if limit is not None:
                for observer in self.observers:
                    observer.connection_refused(limit)

    def endpoint_opened(self, endpoint: Endpoint) -> None:
        if self._lifetimes is not None:
            self._lifetimes.begin(endpoint)
        for observer in self.observers:
            observer.connection_opened(endpoint)
        if isinstance(endpoint, WebSocket):
            task = asyncio.get_running_loop().create_task(self._run_handler(endpoint))
            self._tasks[task] = endpoint
            # (Without a context, each task would hold one more.)
            task.add_done_callback(self._when_done, context=self._context)

    def endpoint_failed(self, endpoint: Endpoint, exc: Exception) -> None:
        if logger.isEnabledFor(logging.DEBUG):
            line = "opening handshake failed (%s) #%d: %s"
            logger.debug(line, endpoint.remote_address, endpoint.id, exc)
        if not isinstance(exc, RequestError):  # which are answered
            for observer in self.observers:
                observer.handshake_lost()

    def endpoint_lost(self, endpoint: Endpoint) -> None:
        self._endpoints.discard(endpoint)
        for observer in self.observers:
            observer.connection_lost(endpoint)
        if self._admission is not None:
            self._admission.leave(endpoint)
        if self._lifetimes is not None:
            self._lifetimes.end(endpoint)
        self._changed.set()

    def _arrived(self, task: asyncio.Task[Any]) -> None:
        del self._arriving[task]
        if not task.cancelled():
            task.exception()  # the client is gone, or its TLS failed
        self._changed.set()

    def _handler_done(self, task: asyncio.Task[None]) -> None:
        del self._tasks[task]
        self._changed.set()

    async def _run_handler(self, ws: WebSocket) -> None:
        code = CloseCode.INTERNAL_ERROR
        _current_handler.set(asyncio.current_task())
        try:
            await _required(self._handler(ws))  # type: ignore[call-arg]
            code = CloseCode.NORMAL_CLOSURE
            await ws._finish_sends()
        except asyncio.CancelledError:
            code = CloseCode.GOING_AWAY
            raise
        except (SystemExit, KeyboardInterrupt, GeneratorExit):
            raise
        except BaseException as exc:
            if ws._blames_peer(exc):
                code = CloseCode.POLICY_VIOLATION
                logger.debug("handler ended (%s) #%d: %s", ws.remote_address, ws.id, exc)
            else:
                ws._log_error("handler failed", exc)
        finally:
            ws._begin_closing(code, "")


def _required(running: Any) -> Any:
    """Return what a handler returned; raise TypeError if that is nothing to await."""
    if running is None:
        raise TypeError("handler must be a coroutine function ('async def')")
    return running


async def _let_run() -> None:
    """Wait until there are endpoints for the connections that were accepted."""
    for _ in range(_TURNS):
        await asyncio.sleep(0)
