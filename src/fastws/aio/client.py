"""A WebSocket client, which connects once or repeatedly.

This module knows attempts, redirects and when to try again. It does not know what a connection
does: that is the job of `Endpoint`.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from inspect import isawaitable
from time import monotonic
from typing import TYPE_CHECKING, Any, Generic

from fastws import rules, spec
from fastws.deflate import deflate_extensions
from fastws.handshake import ClientHandshake
from fastws.http import Headers
from fastws.spec import CloseCode
from fastws.uri import parse_uri

from .endpoint import Endpoint, as_endpoint
from .opening import ClientOpeningHandshake
from .places import Place
from .redirects import Redirection, Route
from .retries import RetryPolicy
from .settings import Settings
from .streaming import factory_of
from .view import logger
from .websocket import WebSocket

if TYPE_CHECKING:
    import socket
    import ssl as ssl_module
    from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Sequence

    from typing_extensions import TypeVar

    from fastws.deflate import PerMessageDeflate
    from fastws.http import HeadersLike

    P = TypeVar("P", bound=Endpoint, default=WebSocket)
else:
    from typing import TypeVar

    P = TypeVar("P", bound=Endpoint)

__all__ = ["connect"]

# If the server ends a connection within this time, in seconds, the attempt counts as failed.
_SHORT = 1.0

_RETRY_POLICY = RetryPolicy()


class connect(Generic[P]):  # noqa: N801 - it is called like a function
    """Connect to a WebSocket server.

        async with connect("ws://localhost:8080") as ws:
            await ws.send("Hello Server!")
            print(await ws.recv())

    `await connect(…)` also returns the connection; call its `close` when you are done.
    `async for ws in connect(…)` connects again after each iteration of the loop. If the server
    cannot be reached, or ends the connection at once, the next attempt is delayed, longer each
    time. If an attempt fails and waiting would not help, the loop raises the exception.

    Args:
        uri: a ws:// or wss:// URI (RFC 6455 §3), or an http:// or https:// URL, which is read as
            in browsers. A user name and a password in it are sent with Basic authentication.
            ws+unix:///path/of/socket:/target connects to a Unix socket.
        protocol: a `WebSocketProtocol` subclass, or another function without arguments that
            returns an instance of one, if the connection should call your methods. It is called
            for each attempt, and for each redirect. By default, the connection is a
            `WebSocket`, whose methods you await.

    Where to connect:

    Args:
        host: the host to connect to, instead of the URI's host.
        port: the port to connect to, instead of the URI's port.
        path: the path of a Unix socket to connect to, instead of a host and a port.
        sock: a connected socket to use, instead of a host and a port; not for `async for`, which
            would need more than one.
        ssl: the TLS context for wss://; by default `ssl.create_default_context()`.
        server_hostname: the name that the server's certificate must contain, if it is not the
            URI's host.
        proxy: the URL of a proxy, with a user name and a password if it needs them. The schemes
            are http, https, socks4, socks4a, socks5 and socks5h; with socks4a and socks5h, the
            proxy looks up the host name. SOCKS needs the extra `proxy`.
            True: the proxy that the environment names (WSS_PROXY, WS_PROXY, SOCKS_PROXY,
            HTTPS_PROXY, HTTP_PROXY, ALL_PROXY, NO_PROXY, or the system's settings), but none for
            loopback addresses. None: no proxy.
        proxy_ssl: the TLS context for an https:// proxy; by default
            `ssl.create_default_context()`.

    The opening handshake:

    Args:
        origin: the value of the Origin header field; None to leave it out.
        max_redirects: how many redirects to follow; None for no limit. They never lead from
            wss:// to ws://. Of `headers`, another origin gets only User-Agent, Accept and the
            like, and neither the user name nor the password of the URI; but `origin`,
            `subprotocols` and a client certificate of `ssl` are for all. If `host`, `port` or
            `path` are given, redirects to another origin are errors, and with `sock`, all are.
        subprotocols: the subprotocols to ask for, in order of preference.
        deflate: whether to compress messages (RFC 7692) if the server supports it, or a
            `PerMessageDeflate` that says how.
        headers: header fields to add to the request; or a function, or coroutine function,
            without arguments that returns them. It is called for each attempt.
        retry: which failures `async for` retries, and when.
        open_timeout: how long connecting may take, in seconds, including the name lookup, TLS,
            the opening handshake and redirects; None for no timeout.

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
        max_header_size: the maximum size of the response's header block, in bytes.

    Keepalive and closing:

    Args:
        ping_interval: the time between two pings, in seconds; None for no pings.
        ping_timeout: how long the server may be silent after a ping, in seconds. Then the
            connection is closed with 1011. None for no timeout.
        close_timeout: how long to wait for the server when closing, in seconds.

    Flow control:

    Args:
        max_queue: how many messages may wait to be received before reading slows down; None for
            no limit. (A `WebSocketProtocol` has no such queue.)
        read_limit: how much memory these messages may take, in bytes, before reading slows down;
            None for no limit. Slow reading still handles pings, pongs and the close frame; it
            stops when as many bytes again have arrived. If the application then receives no
            message for 60 seconds, keepalive closes the connection with 1011.
        write_limit: how many bytes may wait to be sent before `send` waits.
        max_unsent_size: the maximum number of bytes that wait to be sent; None for no limit. If
            a `WebSocketProtocol` sends a message while there are more, the connection is closed
            with 1008. The `send` of a `WebSocket` waits until there is room for its message.

    Everything else:

    Args:
        **options: those of `loop.create_connection` or `loop.create_unix_connection`. If there is
            a proxy, those about TLS are for the server, and the others for the proxy.
            `happy_eyeballs_delay` is 0.25 by default, on every event loop: if a host has several
            addresses, an attempt to connect begins when the one before it has failed, or has not
            succeeded for so long (RFC 8305). None: only when it has failed, and IPv6 and IPv4
            addresses are looked up together.

    Raises:
        InvalidURIError: if `uri` is not a WebSocket URI.
        TypeError, ValueError: if another argument is invalid.
        OSError: when awaited, if connecting fails.
        TimeoutError: when awaited, if connecting takes too long.
        ProxyError: when awaited, if the proxy cannot be reached, or refuses.
        ResponseError: when awaited, if the server's response does not open a connection, and is
            no redirect that can be followed.
    """

    def __init__(
        self,
        uri: str,
        *,
        protocol: Callable[[], P] = WebSocket,  # type: ignore[assignment]
        host: str | None = None,
        port: int | None = None,
        path: str | None = None,
        sock: socket.socket | None = None,
        ssl: ssl_module.SSLContext | None = None,
        server_hostname: str | None = None,
        proxy: str | bool | None = True,
        proxy_ssl: ssl_module.SSLContext | None = None,
        max_redirects: int | None = spec.DEFAULT_MAX_REDIRECTS,
        origin: str | None = None,
        subprotocols: Sequence[str] = (),
        deflate: PerMessageDeflate | bool = False,
        headers: HeadersLike | Callable[[], HeadersLike | Awaitable[HeadersLike]] = (),
        retry: RetryPolicy = _RETRY_POLICY,
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
        **options: Any,
    ) -> None:
        address = parse_uri(uri)
        self._place = place = Place(
            address,
            host=host,
            port=port,
            path=path,
            sock=sock,
            ssl=ssl,
            server_hostname=server_hostname,
            proxy=proxy,
            proxy_ssl=proxy_ssl,
            options=options,
        )
        rules.check_limit("max_redirects", max_redirects, 0)
        if place.has_socket:
            max_redirects = 0  # there is no second socket
        if not isinstance(retry, RetryPolicy):
            raise TypeError(f"retry must be a RetryPolicy, not {type(retry).__name__!r}")
        self._make_headers = headers if callable(headers) else None
        fields = Headers(() if callable(headers) else headers)
        self._route = Route(address, fields, max_redirects, is_fixed=place.is_fixed)
        self._retry = retry

        def make_opening(route: Route) -> ClientOpeningHandshake:
            return ClientOpeningHandshake(
                ClientHandshake(
                    route.uri,
                    origin=origin,
                    subprotocols=subprotocols,
                    extensions=deflate_extensions(deflate),
                    headers=route.headers,
                    max_header_size=max_header_size,
                ),
                route,
            )

        make_opening(self._route)  # so that invalid arguments raise now
        self._make_opening = make_opening
        self._make_protocol: Callable[[], P] = factory_of(protocol, stream)
        self._open_timeout = open_timeout
        self._settings = Settings(
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
        self._endpoint: P | None = None

    def __await__(self) -> Generator[Any, None, P]:
        return self._connect().__await__()

    async def __aenter__(self) -> P:
        self._endpoint = await self._connect()
        return self._endpoint

    async def __aexit__(self, exc_type: type[BaseException] | None, *_: object) -> None:
        assert self._endpoint is not None
        code = CloseCode.NORMAL_CLOSURE if exc_type is None else CloseCode.INTERNAL_ERROR
        try:
            await self._endpoint._finish_sends()
        finally:
            self._endpoint._begin_closing(code, "")
        await self._endpoint._wait_closed()

    async def __aiter__(self) -> AsyncIterator[P]:
        if self._place.has_socket:
            raise ValueError("sock is for one connection: use `async with`, not `async for`")
        retry = self._retry
        delays = retry.delays()
        while True:
            try:
                endpoint = await self._connect()
            except Exception as exc:
                if not retry.may_pass(exc):
                    raise
                delay = next(delays) + retry.retry_after(exc)
                logger.info("could not connect, next try in %.1f s: %s", delay, exc)
                await asyncio.sleep(delay)
                continue
            connected = monotonic()
            try:
                yield endpoint
            finally:
                dropped = endpoint.close_code is not None and not _was_asked_for(endpoint)
                endpoint._begin_closing(CloseCode.NORMAL_CLOSURE, "")
                await endpoint._wait_closed()
            if dropped and monotonic() - connected < _SHORT:
                delay = next(delays)
                logger.info("the server closed the connection at once, next try in %.1f s", delay)
                await asyncio.sleep(delay)
            else:
                delays = retry.delays()

    async def _connect(self) -> P:
        attempt: _Attempt[P] | None = None
        try:
            async with asyncio.timeout(self._open_timeout):
                route = self._route
                if self._make_headers is not None:
                    headers = self._make_headers()
                    if isawaitable(headers):
                        headers = await headers
                    route = replace(route, headers=Headers(headers))
                while True:
                    previous, attempt = attempt, self._begin(route)
                    if previous is not None and previous.endpoint is attempt.endpoint:
                        raise RuntimeError("protocol must return a new object for each redirect")
                    try:
                        await self._place.connect(attempt.endpoint, route)
                        await attempt.opened
                    except Redirection as redirection:
                        attempt.endpoint._discard()
                        route = redirection.route
                    else:
                        return attempt.endpoint
                    finally:
                        attempt.forget()
        except BaseException as exc:
            if isinstance(exc, TimeoutError) and not exc.args:
                exc = TimeoutError("the opening handshake took too long")
            elif isinstance(exc, ConnectionError) and not exc.args:
                exc = type(exc)("connection lost during the TLS handshake")
            if attempt is not None:
                attempt.endpoint._discard()
                if isinstance(exc, Exception) and not attempt.reported:
                    attempt.endpoint._failed(exc)
            raise exc from exc.__cause__

    def _begin(self, route: Route) -> _Attempt[P]:
        endpoint = self._make_protocol()
        attempt = _Attempt(asyncio.get_running_loop(), endpoint)
        as_endpoint(endpoint)._configure(self._settings, self._make_opening(route), attempt)
        return attempt


def _was_asked_for(endpoint: Endpoint) -> bool:
    """Return whether the application closed a connection, and not the server or an error."""
    closed = endpoint._closed_error()
    return closed.by_peer is False and closed.__cause__ is None


class _Attempt(Generic[P]):
    """One attempt to connect: the owner of an endpoint until it is open."""

    told, observers = None, ()

    def __init__(self, loop: asyncio.AbstractEventLoop, endpoint: P) -> None:
        self.endpoint = endpoint
        self.opened: asyncio.Future[None] = loop.create_future()
        self.reported = False

    def forget(self) -> None:
        """Drop the result, so that asyncio does not log an exception that nobody retrieved."""
        if not self.opened.cancel() and not self.opened.cancelled():
            self.opened.exception()

    def endpoint_made(self, endpoint: Endpoint) -> None:
        pass

    def endpoint_opened(self, endpoint: Endpoint) -> None:
        if not self.opened.done():
            self.opened.set_result(None)

    def endpoint_failed(self, endpoint: Endpoint, exc: Exception) -> None:
        self.reported = True
        if not self.opened.done():
            self.opened.set_exception(exc)

    def endpoint_lost(self, endpoint: Endpoint) -> None:
        pass
