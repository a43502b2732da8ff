"""A WebSocket server, which listens, runs a handler for each connection, and shuts down cleanly.

This module knows listening sockets, handler tasks and signals. It does not know what a connection
does: that is the job of `Endpoint`.
"""

from __future__ import annotations

import asyncio
import signal
from contextlib import suppress
from contextvars import ContextVar
from functools import partial
from typing import TYPE_CHECKING, Any

from fastws import rules, spec
from fastws.deflate import deflate_extensions
from fastws.handshake import ServerHandshake
from fastws.http import Headers
from fastws.spec import CloseCode

from .endpoint import Endpoint, as_endpoint
from .opening import ServerOpeningHandshake
from .protocol import WebSocketProtocol, is_protocol_factory
from .settings import Settings
from .signals import heed
from .streaming import StreamingWebSocket
from .transports import Dropper
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

# How long handlers may take to end after they are cancelled, in seconds.
_LAST_MOMENT = 1.0

# The task of the handler that is running, or that has started the running task.
_current_handler: ContextVar[asyncio.Task[Any] | None] = ContextVar(
    "_current_handler", default=None
)


class Server:
    """A running server, as `serve` returns it.

    Attributes:
        connections: the current connections, including those in their opening handshake.
    """

    _listener: asyncio.Server

    def __init__(
        self,
        handler: Callable[[WebSocket[Any]], Awaitable[None]] | Callable[[], WebSocketProtocol[Any]],
        settings: Settings,
        make_opening: Callable[[], ServerOpeningHandshake],
        shutdown_timeout: float | None,
    ) -> None:
        self.connections: set[Endpoint] = set()
        self._handler = handler
        self._settings = settings
        self._make_opening = make_opening
        self._shutdown_timeout = shutdown_timeout
        self._calls_back = is_protocol_factory(handler)
        self._make_websocket = StreamingWebSocket if settings.stream else WebSocket
        self._tasks: dict[asyncio.Task[None], WebSocket[Any]] = {}
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
    def sockets(self) -> Sequence[socket.socket]:
        """The sockets that the server listens on."""
        return self._listener.sockets

    async def serve_forever(self, *, signals: Iterable[signal.Signals] = SHUTDOWN_SIGNALS) -> None:
        """Serve until a signal arrives, `close` is called or the task is cancelled. Then shut
        down as `close` does.

        Several servers may run at the same time; a signal stops all of them. Until the last of
        them has shut down, they replace a handler that was set with `signal.signal`. A handler
        that was added to the event loop with `loop.add_signal_handler` is called as well.

        Args:
            signals: the signals that stop the server. A second signal ends the wait for clients
                and handlers. Signals are handled only in the main thread, not on Windows, and
                not if C code has installed the current handler.

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

    async def wait_closed(self) -> None:
        """Wait until a call of `close` has shut the server down."""
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
                # The remaining handlers may be waiting for us, which cannot be known.
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


class serve:  # noqa: N801 - it is called like a function
    """Start a WebSocket server.

        async with serve(handler, "localhost", 8080) as server:
            await server.serve_forever()

    `await serve(…)` also returns the server; call its `close` to stop it.

    Args:
        handler: a coroutine function, which is called with a `WebSocket` for each connection.
            When it returns, the connection is closed. Or a `WebSocketProtocol` subclass (or a
            functools.partial of one): fastws creates one instance per connection.

    Where to listen:

    Args:
        host: the host to listen on, or several, as for `loop.create_server`; None for all
            interfaces.
        port: the TCP port; 0 lets the operating system choose one.
        path: the path of a Unix socket to listen on, instead of a host and a port.
        sock: a bound socket to use, instead of a host and a port.
        ssl: the TLS context for a wss:// server; None for a ws:// server.

    The opening handshake:

    Args:
        origins: the origins that may connect (RFC 6455 §10.2): strings, compiled patterns, and
            None for clients that send no Origin. If this is None instead of a sequence, all
            origins may connect: browsers can connect from any web page.
        subprotocols: the supported subprotocols, in order of preference.
        deflate: whether to compress messages (RFC 7692) if the client supports it, or a
            `PerMessageDeflate` that says how.
        headers: header fields to add to every response.
        process_request: a function or coroutine function that is called with each HTTP request
            before it is answered. If it returns a `Response`, that is sent instead of the
            handshake's response, as a health check or a refusal. If it returns None, the handshake
            continues. If it raises a `RequestError`, the request is refused.
        open_timeout: how long the opening handshake may take, in seconds, including TLS. If the
            connection is not open by then, the client gets a 408, and the connection ends shortly
            afterwards. None for no timeout.

    Received data:

    Args:
        decode_text: whether text messages are received as `str`. If not, they are received as
            `Text`, which has their UTF-8 as bytes.
        max_message_size: the maximum size of a message, in bytes; None for no limit.
        max_fragments: the maximum number of frames in a message; None for no limit.
        stream: whether to receive messages in parts, as they arrive: see `WebSocket.recv_stream`
            and `WebSocketProtocol.on_message_part`. `max_message_size` limits only what
            `WebSocket.recv` returns then, and `max_fragments` nothing.
        max_stream_size: the maximum size of a message that is received in parts, in bytes; None
            for no limit.
        max_header_size: the maximum size of the request's header block, in bytes.

    Keepalive and closing:

    Args:
        ping_interval: the time between two pings, in seconds; None for no pings.
        ping_timeout: how long a client may be silent after a ping, in seconds. Then the
            connection is closed with 1011. None for no timeout.
        close_timeout: how long to wait for the client when closing, in seconds.
        shutdown_timeout: how long `Server.close` waits for clients and handlers, in seconds.

    Flow control, for each connection:

    Args:
        max_queue: how many messages may wait to be received before reading slows down; None for
            no limit. (A `WebSocketProtocol` has no such queue.)
        read_limit: how much memory these messages may take, in bytes, before reading slows down;
            None for no limit. Slow reading still handles pings, pongs and the close frame; it
            stops when as many bytes again have arrived. If the application then receives no
            message for 60 seconds, keepalive closes the connection with 1011.
        write_limit: how many bytes may wait to be sent before `send` waits and reading pauses.
        max_unsent_size: the maximum number of bytes that wait to be sent; None for no limit. If
            a `WebSocketProtocol` sends a message while there are more, the connection is closed
            with 1008. The `send` of a `WebSocket` waits until there is room for its message.

    Everything else:

    Args:
        **options: passed to `loop.create_server` or `loop.create_unix_server`: backlog,
            reuse_port, …

    Raises:
        TypeError, ValueError: if an argument is invalid.
        OSError: when awaited, if the server cannot listen.
    """

    def __init__(
        self,
        handler: Callable[[WebSocket[Any]], Awaitable[None]] | Callable[[], WebSocketProtocol[Any]],
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
        decode_text: bool = True,
        max_message_size: int | None = spec.DEFAULT_MAX_MESSAGE_SIZE,
        max_fragments: int | None = spec.DEFAULT_MAX_FRAGMENTS,
        stream: bool = False,
        max_stream_size: int | None = None,
        max_header_size: int = spec.DEFAULT_MAX_HEADER_SIZE,
        open_timeout: float | None = spec.DEFAULT_OPEN_TIMEOUT,
        close_timeout: float | None = spec.DEFAULT_CLOSE_TIMEOUT,
        ping_interval: float | None = spec.DEFAULT_PING_INTERVAL,
        ping_timeout: float | None = spec.DEFAULT_PING_TIMEOUT,
        max_queue: int | None = spec.DEFAULT_MAX_QUEUE,
        read_limit: int | None = spec.DEFAULT_READ_LIMIT,
        write_limit: int = spec.DEFAULT_WRITE_LIMIT,
        max_unsent_size: int | None = spec.DEFAULT_MAX_UNSENT_SIZE,
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
            stream=stream,
            max_stream_size=max_stream_size,
            open_timeout=open_timeout,
            close_timeout=close_timeout,
            ping_interval=ping_interval,
            ping_timeout=ping_timeout,
            max_queue=max_queue,
            read_limit=read_limit,
            write_limit=write_limit,
            max_unsent_size=max_unsent_size,
            decode_text=decode_text,
        )
        # So invalid arguments raise now, not when the first client connects.
        handshake = ServerHandshake(
            origins=origins,
            subprotocols=subprotocols,
            extensions=deflate_extensions(deflate),
            headers=Headers(headers),
            max_header_size=max_header_size,
        )
        self._start = partial(
            self._listen,
            handler,
            settings,
            lambda: ServerOpeningHandshake(handshake._again(), process_request),
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
