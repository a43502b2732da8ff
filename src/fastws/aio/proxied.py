"""Connections that begin with a PROXY protocol header, before TLS and the opening handshake.

This module knows how to read the header, and no more than that, and how an endpoint gets its
connection after it. It does not know what is in a header, which `fastws.proxy_protocol` does.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, cast

from fastws.exceptions import HandshakeError
from fastws.proxy_protocol import ProxyHeaderReader

from .endpoint import Endpoint

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from fastws.proxy_protocol import ProxyHeader

    from .creation import Observer
    from .server import Server

__all__ = ["behind_proxy"]

# How much to read at a time if what follows the header may be read too, in bytes.
_READ_SIZE = 4096


def behind_proxy(
    server: Server, options: dict[str, Any]
) -> tuple[Callable[[], asyncio.BaseProtocol], dict[str, Any]]:
    """Return how to make protocols for `loop.create_server`, and its options without those of TLS.

    Raises:
        NotImplementedError: if TLS cannot begin after the header in this event loop.
    """
    tls: dict[str, Any] = {}
    if "ssl" in options:
        tls = {name: value for name, value in options.items() if name.startswith("ssl")}
        options = {name: value for name, value in options.items() if name not in tls}
        proactor = getattr(asyncio, "ProactorEventLoop", None)  # of Windows
        if proactor is not None and isinstance(asyncio.get_running_loop(), proactor):
            # It reads ahead, and `start_tls` cannot take what was read.
            raise NotImplementedError("proxy_protocol with TLS needs a SelectorEventLoop")

    def make() -> asyncio.BaseProtocol:
        protocol = server._make_endpoint()
        return _Gate(protocol, server, tls) if isinstance(protocol, Endpoint) else protocol

    return make, options


class _Told:
    """A server, as an endpoint sees it whose proxy has told where its client is."""

    __slots__ = ("_server", "told")

    def __init__(self, server: Server, told: ProxyHeader) -> None:
        self._server = server
        self.told = told

    @property
    def observers(self) -> Sequence[Observer]:
        return self._server.observers

    def endpoint_made(self, endpoint: Endpoint) -> None:
        self._server.endpoint_expected(endpoint)  # it is counted already

    def endpoint_opened(self, endpoint: Endpoint) -> None:
        self._server.endpoint_opened(endpoint)

    def endpoint_failed(self, endpoint: Endpoint, exc: Exception) -> None:
        self._server.endpoint_failed(endpoint, exc)

    def endpoint_lost(self, endpoint: Endpoint) -> None:
        self._server.endpoint_lost(endpoint)


class _Gate(asyncio.BufferedProtocol):
    """Reads the header of one connection, sees to TLS, and then the endpoint takes over."""

    def __init__(self, endpoint: Endpoint, server: Server, tls: dict[str, Any]) -> None:
        self._endpoint = endpoint
        self._server = server
        self._tls = tls
        self._reader: ProxyHeaderReader | None = ProxyHeaderReader()
        self._buffer = bytearray()
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None
        # What arrives over TLS before the endpoint has taken over. (The end of the TLS handshake
        # and the request may come in one read.)
        self._early = bytearray()
        self._has_ended = False
        self._is_lost = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("Any", transport)
        endpoint = self._endpoint
        loop = asyncio.get_running_loop()
        # So that the server can close it.
        endpoint._transport, endpoint._loop = self._transport, loop
        self._server.endpoint_expected(endpoint)
        if endpoint._open_by is not None:
            self._timer = loop.call_at(endpoint._open_by, self._timed_out)

    def get_buffer(self, sizehint: int) -> memoryview:
        size = _READ_SIZE
        if self._reader is not None and self._tls:
            size = self._reader.missing  # the rest is for `start_tls`
        self._buffer = bytearray(size)
        return memoryview(self._buffer)

    def buffer_updated(self, nbytes: int) -> None:
        octets = bytes(memoryview(self._buffer)[:nbytes])
        reader = self._reader
        if reader is None:
            self._pass_on(octets)
            return
        try:
            header = reader.receive_data(octets)
        except HandshakeError as exc:
            self._give_up(exc)
            return
        if header is None:
            return
        self._reader = None
        endpoint = self._endpoint
        endpoint._creator = _Told(self._server, header)
        # Before TLS, which takes time and memory.
        was_closing = self._transport.is_closing()  # because the client has ended its side
        self._server.endpoint_identified(endpoint)
        if self._transport.is_closing() and not was_closing:
            return  # dropped: nobody must see its request
        if self._tls:
            self._transport.pause_reading()
            self._task = asyncio.get_running_loop().create_task(self._start_tls())
        else:
            self._hand_over(self._transport, reader.rest)

    def _pass_on(self, octets: bytes) -> None:
        if self._tls:
            self._early += octets
        else:
            # Only the event loop of Windows: it has read them before the endpoint took over.
            self._endpoint.data_received(octets)

    def eof_received(self) -> bool | None:
        if self._reader is not None:
            self._give_up(HandshakeError("connection closed before the PROXY protocol header"))
        self._has_ended = True
        return None

    def connection_lost(self, exc: Exception | None) -> None:
        self._lose(exc)

    async def _start_tls(self) -> None:
        loop = asyncio.get_running_loop()
        options = dict(self._tls)
        context = options.pop("ssl")
        if self._endpoint._open_by is not None:
            left = max(self._endpoint._open_by - loop.time(), 0.001)
            options["ssl_handshake_timeout"] = min(options["ssl_handshake_timeout"] or left, left)
        try:
            transport = await loop.start_tls(
                self._transport, self, context, server_side=True, **options
            )
        except Exception as exc:
            self._transport.abort()
            self._lose(exc)
            return
        except BaseException:  # the task was cancelled, with all others
            self._transport.abort()
            self._lose(HandshakeError("the TLS handshake was cancelled"))
            raise
        # If we close the connection meanwhile, event loops raise nothing and tell nobody: asyncio
        # returns None, and uvloop a transport that is closed.
        if transport is None or self._is_lost or (transport.is_closing() and not self._has_ended):
            self._lose(None)
            return
        self._hand_over(transport, bytes(self._early))
        if self._has_ended:
            self._endpoint.eof_received()

    def _hand_over(self, transport: asyncio.Transport, received: bytes) -> None:
        """Let the endpoint take over, and give it what was received for it."""
        self._cancel_timer()
        was_closing = transport.is_closing()
        transport.set_protocol(self._endpoint)
        self._endpoint.connection_made(transport)
        # The server may have dropped the connection here, too.
        if received and (was_closing or not transport.is_closing()):
            self._endpoint.data_received(received)

    def _timed_out(self) -> None:
        if self._task is None:
            self._give_up(TimeoutError("no PROXY protocol header in time"))

    def _give_up(self, exc: Exception) -> None:
        self._reader = None
        self._cancel_timer()
        self._endpoint._discard()
        self._endpoint._report(exc)

    def _lose(self, exc: Exception | None) -> None:
        if not self._is_lost:
            self._is_lost = True
            self._cancel_timer()
            self._endpoint.connection_lost(exc)

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
