"""How a WebSocket server is set up: `serve`.

This module knows the arguments of a server and how they come together, how to listen, and how that
ends. It does not know what a server does meanwhile.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from fastws import rules, spec
from fastws.deflate import deflate_extensions
from fastws.handshake import ServerHandshake
from fastws.http import Headers

from . import admission
from .admission import Admission
from .facts import note_server_names
from .opening import ServerOpeningHandshake
from .protocol import check_handler
from .server import Server
from .settings import Settings

if TYPE_CHECKING:
    import re
    import ssl as ssl_module
    from collections.abc import Awaitable, Callable, Generator

    from fastws.deflate import PerMessageDeflate
    from fastws.http import HeadersLike

    from .opening import ProcessRequest
    from .protocol import WebSocketProtocol
    from .websocket import WebSocket

__all__ = ["serve"]

# The default of `loop.create_server`.
_BACKLOG = 100


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
        sock: a bound socket to use, or several, instead of a host and a port.
        ssl: the TLS context for a wss:// server; None for a ws:// server. While a
            server with a `process_request` listens, the context has a `sni_callback` of fastws,
            which calls the one before.
        proxy_protocol: whether all connections come from a proxy that sends a header of the PROXY
            protocol, version 1 or 2, before everything else, TLS included. `remote_address` and
            `local_address` are those in it, and a connection without one ends. Clients must not
            be able to connect past the proxy: they could send any address.

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
            before it is answered; `request.peer` says who sent it. If it returns a `Response`,
            that is sent instead of the handshake's response, as a health check or a refusal. If it
            returns None, the handshake continues. So it does with an `Accept`, which adds header
            fields to the response, and sets the connection's `context`. If it raises a
            `RequestError`, the request is refused.
        open_timeout: how long the opening handshake may take, in seconds, including TLS. If the
            connection is not open by then, the client gets a 408, and the connection ends shortly
            afterwards. None for no timeout.

    How many connections:

    Args:
        max_connections: the maximum number of connections; None for no limit. Those beyond it get
            a 503 with Retry-After as soon as they send something (over TLS, after its handshake).
        max_connections_per_address: the same for the connections from one address. IPv6 addresses
            count by their first 64 bits, and Unix sockets do not count.
        max_lifetime: how long a connection may be open, in seconds; None for no limit. It is
            closed with 1012 after a random time between 80 and 100 % of this, so that the
            connections of several servers spread again.

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
        sock: socket.socket | Sequence[socket.socket] | None = None,
        ssl: ssl_module.SSLContext | None = None,
        proxy_protocol: bool = False,
        origins: Sequence[str | re.Pattern[str] | None] | None = None,
        subprotocols: Sequence[str] = (),
        deflate: PerMessageDeflate | bool = False,
        headers: HeadersLike = (),
        process_request: ProcessRequest | None = None,
        decode_text: bool = True,
        max_connections: int | None = None,
        max_connections_per_address: int | None = None,
        max_lifetime: float | None = None,
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
        check_handler(handler)
        if (path is not None or sock is not None) and (host is not None or port is not None):
            raise ValueError("host and port cannot be used with path or sock")
        if path is not None and sock is not None:
            raise ValueError("path cannot be used with sock")
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
        limits = (max_connections, max_connections_per_address)
        Admission(*limits)
        rules.check_timeout("max_lifetime", max_lifetime)
        handshake = ServerHandshake(
            origins=origins,
            subprotocols=subprotocols,
            extensions=deflate_extensions(deflate),
            headers=Headers(headers),
            max_header_size=max_header_size,
        )
        self._make_server = partial(
            Server,
            handler,
            settings,
            lambda: ServerOpeningHandshake(handshake._again(), process_request),
            shutdown_timeout,
            limits,
            max_lifetime,
        )
        if ssl is not None:
            options["ssl"] = ssl
            options.setdefault("ssl_handshake_timeout", open_timeout)
        self._notes_names = process_request is not None
        self._proxy_protocol = proxy_protocol
        # What to listen on.
        self._places: list[dict[str, Any]]
        if sock is None:
            self._places = [{"host": host, "port": port} if path is None else {"path": path}]
        else:
            self._places = [
                {"sock": each} for each in (sock if isinstance(sock, Sequence) else [sock])
            ]
            if not self._places:
                raise ValueError("sock must not be empty")
        self._is_unix = path is not None
        self._options = options
        self._server: Server | None = None

    async def _start(self) -> Server:
        loop = asyncio.get_running_loop()
        server = self._make_server()
        create = loop.create_unix_server if self._is_unix else loop.create_server
        make, options = server._make_endpoint, self._options
        if self._proxy_protocol:
            from .proxied import behind_proxy

            make, options = behind_proxy(server, options)
        context = self._options.get("ssl")
        if self._notes_names and context is not None:
            server._exits.callback(note_server_names(loop, context))
        try:
            for place in self._places:
                listener = await create(make, **options, **place)
                server._exits.callback(listener.close)
                server._listeners.append(listener)
                if "sock" not in place:  # others may have that one, too
                    accept = partial(_accept_waiting, server, listener, make, options)
                    server._acceptors.append(accept)
        except BaseException:
            # Those before may have connections already, for which nobody waits.
            server._hurried = True
            await server.close()
            raise
        self._server = server
        return server

    def __await__(self) -> Generator[Any, None, Server]:
        return self._start().__await__()

    async def __aenter__(self) -> Server:
        return await self._start()

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        await self._server.close()


def _accept_waiting(
    server: Server,
    listener: asyncio.Server,
    make: Callable[[], asyncio.BaseProtocol],
    options: dict[str, Any],
) -> None:
    """Accept all connections that wait, before the listener is closed: the system would reset them,
    although their clients believe to be connected. (One that comes in the very moment between the
    two is reset.)

    Args:
        server: the server.
        listener: what listens.
        make: makes their protocols.
        options: those of `loop.create_server`.
    """
    loop = asyncio.get_running_loop()
    tls = {name: value for name, value in options.items() if name.startswith("ssl")}
    if tls:
        tls["ssl_handshake_timeout"] = admission.PATIENCE
    for listening in listener.sockets:
        with (
            suppress(OSError),
            socket.fromfd(listening.fileno(), listening.family, listening.type) as sock,
        ):
            sock.setblocking(False)
            # (Two more than the backlog may wait.)
            for _ in range(options.get("backlog", _BACKLOG) + 2):
                try:
                    accepted, _ = sock.accept()
                except ConnectionAbortedError:
                    continue  # this client is gone already
                accepted.setblocking(False)
                task = loop.create_task(loop.connect_accepted_socket(make, accepted, **tls))
                server._arriving[task] = accepted
                task.add_done_callback(server._arrived)
