"""A WebSocket server: it listens, runs a handler for each connection, and stops in order.

This module knows listening sockets, handler tasks and signals. It does not know what a
connection does; that is for `Endpoint`.
"""

from __future__ import annotations

import asyncio
import signal
from contextlib import suppress
from contextvars import ContextVar
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from fastws import rules
from fastws.handshake import ServerHandshake
from fastws.http import Headers
from fastws.spec import (
    DEFAULT_CLOSE_TIMEOUT,
    DEFAULT_MAX_FRAGMENTS,
    DEFAULT_MAX_HEADER_SIZE,
    DEFAULT_MAX_MESSAGE_SIZE,
    DEFAULT_MAX_QUEUE,
    DEFAULT_MAX_UNSENT_SIZE,
    DEFAULT_OPEN_TIMEOUT,
    DEFAULT_PING_INTERVAL,
    DEFAULT_PING_TIMEOUT,
    DEFAULT_READ_LIMIT,
    DEFAULT_WRITE_LIMIT,
    CloseCode,
)

from .endpoint import Endpoint, as_endpoint
from .opening import ServerOpeningHandshake
from .protocol import WebSocketProtocol
from .settings import Settings, deflate_extensions
from .signals import heed
from .view import logger
from .websocket import WebSocket

if TYPE_CHECKING:
    import re
    import socket
    import ssl as ssl_module
    from collections.abc import Awaitable, Callable, Generator, Iterable, Sequence

    from fastws.deflate import PerMessageDeflate
    from fastws.http import HeadersLike

    from .opening import ProcessRequest

__all__ = ["Server", "serve"]

SHUTDOWN_SIGNALS = (signal.SIGINT, signal.SIGTERM)

# How long handlers have to end once they are cancelled, in seconds.
_LAST_MOMENT = 1.0

# The handler's task that runs, or started what runs.
_current_handler: ContextVar[asyncio.Task[Any] | None] = ContextVar(
    "_current_handler", default=None
)


class Server:
    """A running server, as `serve` returns it.

    Attributes:
        connections: the connections there are, those still in their handshake included.
    """

    _listener: asyncio.Server

    def __init__(
        self,
        handler: Callable[[WebSocket], Awaitable[None]] | Callable[[], WebSocketProtocol],
        settings: Settings,
        make_opening: Callable[[], ServerOpeningHandshake],
        shutdown_timeout: float | None,
    ) -> None:
        self.connections: set[Endpoint] = set()
        self._handler = handler
        self._settings = settings
        self._make_opening = make_opening
        self._shutdown_timeout = shutdown_timeout
        self._calls_back = _is_protocol_factory(handler)
        self._tasks: dict[asyncio.Task[None], WebSocket] = {}
        self._closing: asyncio.Task[None] | None = None
        # Handlers that wait for us, and those of which a task that they started does.
        self._closers: set[asyncio.Task[Any] | None] = set()
        self._insiders: set[asyncio.Task[Any] | None] = set()
        self._signalled = False
        self._hurried = False  # by a second signal
        self._stopping = asyncio.Event()
        self._changed = asyncio.Event()  # a connection or a handler has ended
        self._closed = asyncio.Event()

    @property
    def sockets(self) -> Sequence[socket.socket]:
        """The sockets that the server listens on."""
        return self._listener.sockets

    async def serve_forever(self, *, signals: Iterable[signal.Signals] = SHUTDOWN_SIGNALS) -> None:
        """Serve until a signal arrives, `close` is called or the task is cancelled; then
        shut down as `close` does.

        Any number of servers may serve at the same time: a signal is for all of them. While
        they do, a handler that was set by `signal.signal` is replaced, and put back when the
        last of them has shut down. One that was added to the event loop by
        `loop.add_signal_handler` is called as well.

        Args:
            signals: the signals that mean "stop". A second one does not wait any longer.
                They are heeded in the main thread, but not on Windows, nor if C code
                installed the handler that there is.

        Raises:
            OSError: if one of `signals` cannot be caught.
        """
        with heed(signals, self._on_signal):
            try:
                await self._stopping.wait()
                await self.close()
            except asyncio.CancelledError:
                await self.close()
                raise

    async def close(self, code: int = CloseCode.GOING_AWAY, reason: str = "") -> None:
        """Stop accepting, close every connection and wait for their handlers. After the
        shutdown timeout, connections are dropped and handlers are cancelled; one that has not
        ended a second later is logged and left to itself. A handler that calls this does not
        wait for itself.

        Args:
            code: the close code for the clients.
            reason: at most 123 bytes in UTF-8.

        Raises:
            ValueError: if the code may not travel or the reason is too long.
        """
        rules.close_payload(code, reason)
        # It may have been cancelled, with all other tasks there were.
        if self._closing is None or (self._closing.done() and not self._closed.is_set()):
            # (A task that was made by an eager task factory would run before it is known.)
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

    async def wait_closed(self) -> None:
        """Wait until somebody else's `close` is done."""
        await self._closed.wait()

    async def _close(self, code: int, reason: str) -> None:
        self._listener.close()
        for endpoint in list(self.connections):
            try:
                endpoint._begin_closing(code, reason)
            except Exception as exc:
                endpoint._log_error("could not close a connection", exc)
        try:
            if await self._ended(0 if self._hurried else self._shutdown_timeout, self._rest):
                # Whether these wait for us cannot be known.
                await self._ended(_LAST_MOMENT, lambda: self._tasks.keys() - self._closers)
        finally:
            self._abort()
        await self._ended(_LAST_MOMENT, self._rest)
        for task in self._rest():
            name = getattr(self._handler, "__qualname__", None) or repr(self._handler)
            address = self._tasks[task].remote_address
            logger.error("handler %s did not end when it was cancelled (%s)", name, address)
        self._closed.set()

    def _rest(self) -> set[asyncio.Task[None]]:
        """Return the handlers to wait for: not those that wait for us."""
        return self._tasks.keys() - self._closers - self._insiders

    async def _ended(
        self, timeout: float | None, handlers: Callable[[], set[asyncio.Task[None]]]
    ) -> bool:
        """Wait until all connections and these handlers have ended, a signal says to hurry, or
        time is up; return whether they have."""
        hurried = self._hurried
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                while (self.connections or handlers()) and self._hurried == hurried:
                    self._changed.clear()
                    await self._changed.wait()
        return not self.connections and not handlers()

    def _abort(self) -> None:
        for task in self._rest():
            task.cancel()
        for endpoint in list(self.connections):
            endpoint._transport.abort()

    def _on_signal(self) -> None:
        self._hurried = self._signalled
        self._signalled = True
        self._stopping.set()
        self._changed.set()

    # Connections: the owner of endpoints --------------------------------------------------

    def _make_endpoint(self) -> asyncio.BaseProtocol:
        try:
            endpoint = self._handler() if self._calls_back else WebSocket()  # type: ignore[call-arg]
            made = as_endpoint(endpoint)
            made._configure(self._settings, self._make_opening(), self)
            return made
        except BaseException as exc:
            # asyncio would say nothing, and let the client wait.
            logger.exception("could not make a protocol: %s", exc)
            if isinstance(exc, (SystemExit, KeyboardInterrupt)):
                raise
            return _Nobody()

    def endpoint_made(self, endpoint: Endpoint) -> None:
        self.connections.add(endpoint)
        if self._closing is not None:
            endpoint._transport.abort()

    def endpoint_opened(self, endpoint: Endpoint) -> None:
        if isinstance(endpoint, WebSocket):
            task = asyncio.get_running_loop().create_task(self._run_handler(endpoint))
            self._tasks[task] = endpoint
            task.add_done_callback(self._handler_done)

    def endpoint_failed(self, endpoint: Endpoint, exc: Exception) -> None:
        logger.debug("opening handshake failed (%s): %s", endpoint.remote_address, exc)

    def endpoint_lost(self, endpoint: Endpoint) -> None:
        self.connections.discard(endpoint)
        self._changed.set()

    def _handler_done(self, task: asyncio.Task[None]) -> None:
        del self._tasks[task]
        self._changed.set()

    async def _run_handler(self, ws: WebSocket) -> None:
        code = CloseCode.INTERNAL_ERROR
        _current_handler.set(asyncio.current_task())
        try:
            await self._handler(ws)  # type: ignore[call-arg, misc]
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
                logger.debug("handler ended (%s): %s", ws.remote_address, exc)
            else:
                ws._log_error("handler failed", exc)
        finally:
            ws._begin_closing(code, "")


class _Nobody(asyncio.Protocol):
    """For a client that nobody can talk to."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        cast("asyncio.Transport", transport).abort()


class serve:  # noqa: N801 - it is called like a function
    """Start a WebSocket server.

        async with serve(handler, "localhost", 8080) as server:
            await server.serve_forever()

    `await serve(…)` returns the server too, to be closed by its `close`.

    Args:
        handler: a coroutine function, called with a `WebSocket` for each connection, which
            is closed when it returns; or a `WebSocketProtocol` subclass (or a
            functools.partial of one), of which an instance is made for each.
        host: what to listen on, as for `loop.create_server`; None for all interfaces.
        port: the TCP port; 0 lets the operating system choose one.
        path: the path of a Unix socket, in place of host and port.
        sock: a bound socket, in place of host and port.
        ssl: the context that makes this a wss:// server.
        origins: the origins that may connect (RFC 6455 §10.2): strings, compiled patterns,
            None for a client that sends none. None in place of a list lets in all; browsers
            then connect from any page.
        subprotocols: the subprotocols spoken, the preferred one first.
        deflate: whether to compress messages (RFC 7692) where the peer can, or how.
        headers: more header fields for each response.
        process_request: a function, or coroutine function, that sees each HTTP request
            before it is answered: it returns a `Response` to be sent in place of the
            handshake's, for a health check or to refuse; or None to go on. A `RequestError`
            that it raises refuses, too.
        max_message_size: the largest message received, in bytes; None for no limit.
        max_fragments: the largest number of frames of one message; None for no limit.
        max_header_size: the longest header block of a request, in bytes.
        open_timeout: how long an opening handshake may take, in seconds, with TLS and all:
            a connection that is not open by then gets a 408, and is gone a moment after.
            None: no timeout.
        close_timeout: how long to wait for the peer when closing, in seconds.
        ping_interval: how often to ping, in seconds; None for never.
        ping_timeout: how long a peer may be silent after a ping, in seconds, before the
            connection is closed with 1011; None for ever.
        max_queue: how many messages may wait to be received before reading slows down; None for
            no limit. (Connections that call you have no such queue.)
        read_limit: how many bytes of memory these messages may take before it does; None for no
            limit. Reading goes on slowly then, for the sake of pings, pongs and the close frame,
            and stops when as much again has arrived. If no message is received for 60 seconds
            then, keepalive closes the connection with 1011.
        write_limit: how many bytes a connection holds that the peer did not take yet, before
            `send` waits and reading pauses.
        max_unsent_size: how many bytes it holds at most; None for no limit. A connection that
            calls you is closed with 1008 when it has more and is to send a message on top of it.
            A coroutine's `send` waits until there is room for its message.
        shutdown_timeout: how long `Server.close` waits for clients and handlers, in seconds.
        **options: passed on to `loop.create_server` or `loop.create_unix_server`: backlog,
            reuse_port, …

    Raises:
        TypeError, ValueError: if an argument is wrong.
        OSError: when awaited, if the server cannot listen there.
    """

    def __init__(
        self,
        handler: Callable[[WebSocket], Awaitable[None]] | Callable[[], WebSocketProtocol],
        host: str | Sequence[str] | None = None,
        port: int | None = None,
        *,
        path: str | None = None,
        sock: socket.socket | None = None,
        ssl: ssl_module.SSLContext | None = None,
        origins: Sequence[str | re.Pattern[str] | None] | None = None,
        subprotocols: Sequence[str] = (),
        deflate: PerMessageDeflate | bool = False,
        headers: HeadersLike = (),
        process_request: ProcessRequest | None = None,
        max_message_size: int | None = DEFAULT_MAX_MESSAGE_SIZE,
        max_fragments: int | None = DEFAULT_MAX_FRAGMENTS,
        max_header_size: int = DEFAULT_MAX_HEADER_SIZE,
        open_timeout: float | None = DEFAULT_OPEN_TIMEOUT,
        close_timeout: float | None = DEFAULT_CLOSE_TIMEOUT,
        ping_interval: float | None = DEFAULT_PING_INTERVAL,
        ping_timeout: float | None = DEFAULT_PING_TIMEOUT,
        max_queue: int | None = DEFAULT_MAX_QUEUE,
        read_limit: int | None = DEFAULT_READ_LIMIT,
        write_limit: int = DEFAULT_WRITE_LIMIT,
        max_unsent_size: int | None = DEFAULT_MAX_UNSENT_SIZE,
        shutdown_timeout: float | None = 10.0,
        **options: Any,
    ) -> None:
        if not callable(handler):
            raise TypeError(f"handler must be callable, not {type(handler).__name__!r}")
        if (path is not None or sock is not None) and (host is not None or port is not None):
            raise ValueError("a path or a sock takes the place of host and port")
        settings = Settings(
            max_message_size=max_message_size,
            max_fragments=max_fragments,
            open_timeout=open_timeout,
            close_timeout=close_timeout,
            ping_interval=ping_interval,
            ping_timeout=ping_timeout,
            max_queue=max_queue,
            read_limit=read_limit,
            write_limit=write_limit,
            max_unsent_size=max_unsent_size,
        )
        make_handshake = partial(
            ServerHandshake,
            origins=origins,
            subprotocols=subprotocols,
            extensions=deflate_extensions(deflate),
            headers=Headers(headers),
            max_header_size=max_header_size,
        )
        make_handshake()  # wrong arguments are told now, not to the first client
        self._start = partial(
            self._listen,
            handler,
            settings,
            lambda: ServerOpeningHandshake(make_handshake(), process_request),
            shutdown_timeout,
        )
        if ssl is not None:
            options["ssl"] = ssl
            options.setdefault("ssl_handshake_timeout", open_timeout)
        if sock is not None:
            options["sock"] = sock
        if path is None:
            options |= {"host": host, "port": port} if sock is None else {}
        else:
            options["path"] = path
        self._is_unix = path is not None
        self._options = options
        self._server: Server | None = None

    async def _listen(self, *args: Any) -> Server:
        loop = asyncio.get_running_loop()
        server = Server(*args)
        create = loop.create_unix_server if self._is_unix else loop.create_server
        server._listener = await create(server._make_endpoint, **self._options)
        self._server = server
        return server

    def __await__(self) -> Generator[Any, None, Server]:
        return self._start().__await__()

    async def __aenter__(self) -> Server:
        return await self._start()

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        await self._server.close()


def _is_protocol_factory(handler: object) -> bool:
    while isinstance(handler, partial):
        handler = handler.func
    return isinstance(handler, type) and issubclass(handler, WebSocketProtocol)
