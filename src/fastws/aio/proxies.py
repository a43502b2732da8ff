"""Connections through proxies: HTTP and HTTPS (RFC 9110 §9.3.6), SOCKS4, 4a and 5.

This module knows how to connect to a proxy, and how to put an endpoint on the connection that
the proxy makes. It does not know which proxy to use, nor HTTP, which `fastws.tunnels` does, nor
SOCKS, which python-socks does.
"""

from __future__ import annotations

import asyncio
import socket
import ssl as ssl_module
from typing import TYPE_CHECKING, Any

from fastws.exceptions import ProxyError
from fastws.tunnels import TunnelHandshake

from .racing import connect_socket, hand_over

if TYPE_CHECKING:
    from fastws.uri import Proxy

__all__ = ["check_proxy", "connect_through"]

# "Address type not supported" (RFC 1928 §6).
_NOT_THIS_FAMILY = 8


def check_proxy(proxy: Proxy) -> None:
    """Raise ProxyError if this proxy needs a library that is missing."""
    if not proxy.is_http:
        try:
            import python_socks.async_.asyncio  # noqa: F401
        except ImportError as exc:
            raise ProxyError(
                f"a {proxy.scheme}:// proxy needs python-socks: install fastws-codec[proxy]"
            ) from exc


async def connect_through(
    proxy: Proxy,
    host: str,
    port: int,
    endpoint: asyncio.BaseProtocol,
    *,
    tls: dict[str, Any],
    proxy_ssl: ssl_module.SSLContext | None,
    options: dict[str, Any],
) -> None:
    """Connect an endpoint to a host and port through a proxy.

    Args:
        proxy: the proxy.
        host: the host that the proxy connects to.
        port: its port.
        endpoint: what to connect.
        tls: the arguments of `loop.start_tls` for TLS with the host; empty for no TLS.
        proxy_ssl: the TLS context for an https:// proxy; None for the default.
        options: the arguments of `connect_socket`, to connect to the proxy.

    Raises:
        ProxyError: if the proxy cannot be reached, or refuses.
        OSError: if TLS with the host fails.
    """
    check_proxy(proxy)
    options = options | {"all_errors": False}  # one ProxyError says it all
    if proxy.is_http:
        await _connect_http(proxy, host, port, endpoint, tls, proxy_ssl, options)
        return
    sock = await _connect_socks(proxy, host, port, options)
    await hand_over(sock, endpoint, tls)


# HTTP ---------------------------------------------------------------------------------------


async def _connect_http(
    proxy: Proxy,
    host: str,
    port: int,
    endpoint: asyncio.BaseProtocol,
    tls: dict[str, Any],
    proxy_ssl: ssl_module.SSLContext | None,
    options: dict[str, Any],
) -> None:
    tunnel = _Tunnel(TunnelHandshake(proxy, host, port))
    outer: dict[str, Any] = {}
    if proxy.scheme == "https":
        outer["ssl"] = proxy_ssl or ssl_module.create_default_context()
        outer["server_hostname"] = proxy.host.removesuffix(".")
    try:
        sock = await connect_socket(proxy.host, proxy.port, **options)
        await hand_over(sock, tunnel, outer)
    except BaseException as exc:
        tunnel.opened.cancel()
        if isinstance(exc, OSError):
            raise _unreachable(proxy, exc) from exc
        raise
    transport = tunnel.transport
    assert transport is not None
    try:
        await tunnel.opened
        if tls:
            # Nobody but the tunnel knows of a connection that ends meanwhile: the endpoint has
            # no transport yet.
            transport = await _start_tls(tunnel, **tls)
        tunnel.check()
    except BaseException:
        transport.abort()
        raise
    transport.set_protocol(endpoint)
    endpoint.connection_made(transport)
    transport.resume_reading()


async def _start_tls(tunnel: _Tunnel, ssl: ssl_module.SSLContext, **options: Any) -> Any:
    loop = asyncio.get_running_loop()
    try:
        return await loop.start_tls(tunnel.transport, tunnel, ssl, **options)
    except (AttributeError, TypeError) as exc:
        # If TLS inside of TLS fails, asyncio before 3.11.8 and 3.12.2 fails to say so (gh-113214).
        if isinstance(exc.__context__, OSError):
            raise exc.__context__ from None
        raise


class _Tunnel(asyncio.Protocol):
    """The protocol of a connection to an HTTP proxy, until the endpoint takes over.

    Attributes:
        transport: the transport, once there is one.
        opened: done when the proxy has connected us, or will not.
    """

    def __init__(self, handshake: TunnelHandshake) -> None:
        self.transport: Any = None
        self.opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._handshake = handshake
        self._error: Exception | None = None

    def check(self) -> None:
        """Raise the exception that ended the connection, if one did."""
        if self._error is not None:
            raise self._error

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.transport.write(self._handshake.request())

    def data_received(self, data: bytes) -> None:
        if self.opened.done():
            self._end(ProxyError("the proxy sent data that nobody asked for"))
            return
        try:
            if self._handshake.receive_data(data):
                # What comes now is not for us.
                self.transport.pause_reading()
                self.opened.set_result(None)
        except ProxyError as exc:
            self._end(exc)

    def eof_received(self) -> None:
        if not self.opened.done():
            try:
                self._handshake.receive_eof()
            except ProxyError as exc:
                self._end(exc)

    def connection_lost(self, exc: Exception | None) -> None:
        if exc is None and not self.opened.done():
            self.eof_received()  # uvloop calls only this if TLS was not shut down before TCP
        self._end(exc or ConnectionResetError("the proxy closed the connection"))

    def _end(self, exc: Exception) -> None:
        if self._error is None:
            self._error = exc
        if self.opened.cancelled() or self.opened.done():
            return
        self.opened.set_exception(exc)


# SOCKS --------------------------------------------------------------------------------------


class _Connector:
    """Stands for a proxy before the proxy, as python-socks takes one: so it uses our socket, to
    the address that was reached first."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    async def connect(self, **_: object) -> socket.socket:
        return self._sock


class _Refusal(Exception):
    """A proxy does not connect us to an address.

    Attributes:
        status: its answer (RFC 1928 §6), if this is about the address.
    """

    def __init__(self, reason: str, status: int | None) -> None:
        super().__init__(reason)
        self.status = status


async def _connect_socks(
    proxy: Proxy, host: str, port: int, options: dict[str, Any]
) -> socket.socket:
    version = proxy.scheme[: len("socks5")]
    addresses = [host]
    if version == proxy.scheme:  # the name is looked up here
        family = socket.AF_INET if version == "socks4" else socket.AF_UNSPEC
        lookup = asyncio.get_running_loop().getaddrinfo
        infos = await lookup(host, port, type=socket.SOCK_STREAM, family=family)
        addresses = [str(info[4][0]) for info in infos]
        if not addresses:
            raise OSError(f"no address of {host}")
    refusals: dict[str, _Refusal] = {}
    for address in addresses:
        try:
            return await _ask_socks(proxy, version, address, port, options)
        except _Refusal as exc:
            refusals[address] = exc
            if exc.status is None:  # it would refuse every address
                break
    reasons = [f"{address}: {refusal}" for address, refusal in refusals.items()]
    reason = "; ".join(reasons if len(reasons) > 1 else map(str, refusals.values()))
    statuses = [refusal.status for refusal in refusals.values()]
    # That the proxy knows no IPv6 says less than its answer about an IPv4 address.
    status = next((one for one in statuses if one != _NOT_THIS_FAMILY), statuses[0])
    raise ProxyError(f"the proxy {proxy.address} refused: {reason}", status)


async def _ask_socks(
    proxy: Proxy, version: str, host: str, port: int, options: dict[str, Any]
) -> socket.socket:
    """Return a new connection to the proxy that is one to the host now."""
    from python_socks import ProxyType
    from python_socks.async_.asyncio import Proxy as Socks

    try:
        sock = await connect_socket(proxy.host, proxy.port, **options)
    except OSError as exc:
        raise _unreachable(proxy, exc) from exc
    try:
        socks = Socks(
            ProxyType[version.upper()],
            proxy.host,
            proxy.port,
            proxy.username,
            proxy.password,
            rdns=True,
            forward=_Connector(sock),  # type: ignore[arg-type]
        )
        # The caller has a timeout.
        await socks.connect(host, port, timeout=86400.0)
    except OSError as exc:
        sock.close()
        raise ProxyError(f"connection to the proxy {proxy.address} lost: {exc}") from exc
    except Exception as exc:
        # (It also asserts what a proxy may or may not answer.)
        sock.close()
        if type(exc.__cause__).__name__ == "IncompleteReadError":
            # (This name of python-socks is private.)
            lost = ConnectionResetError("connection closed")
            raise ProxyError(f"connection to the proxy {proxy.address} lost: {lost}") from lost
        raise _Refusal(str(exc), getattr(exc, "error_code", None)) from None
    except BaseException:
        sock.close()
        raise
    return sock


def _unreachable(proxy: Proxy, exc: OSError) -> ProxyError:
    why = str(exc) or "connection lost during the TLS handshake"
    return ProxyError(f"the proxy {proxy.address} cannot be reached: {why}")
