"""Where a client connects to: a host, perhaps through a proxy, a Unix socket, or a given socket.

This module knows which arguments of `connect` go together, and which way leads to a transport,
with TLS or without. It does not know what a connection is for, how a host with several addresses
is reached, or how proxies work.
"""

from __future__ import annotations

import asyncio
import ssl as ssl_module
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from fastws import rules
from fastws.hosts import parse_name
from fastws.tunnels import is_loopback, proxy_from_environment
from fastws.uri import Proxy, parse_proxy

from .proxies import check_proxy, connect_through
from .racing import CHOICES, connect_socket, hand_over, is_address

if TYPE_CHECKING:
    import socket

    from fastws.uri import URI

    from .redirects import Route

__all__ = ["Place"]

# A client connects to the same few hosts again and again.
_is_address = lru_cache(256)(is_address)
_is_loopback = lru_cache(256)(is_loopback)


class Place:
    """Where and how to connect; `connect` documents the arguments.

    Attributes:
        is_fixed: whether the application said how to connect, instead of the URI's host and port.
        has_socket: whether this is a given socket, which makes one connection.

    Raises:
        TypeError: if an argument has the wrong type.
        ValueError: if an argument is invalid, or excludes another one.
        ProxyError: if the proxy needs a library that is missing.
    """

    def __init__(
        self,
        uri: URI,
        *,
        host: str | None,
        port: int | None,
        path: str | None,
        sock: socket.socket | None,
        ssl: ssl_module.SSLContext | None,
        server_hostname: str | None,
        proxy: str | bool | None,
        proxy_ssl: ssl_module.SSLContext | None,
        options: dict[str, Any],
    ) -> None:
        where = {"host": host, "port": port, "path": path, "sock": sock}
        given = [name for name, value in where.items() if value is not None]
        if uri.unix_path is not None:
            if given:
                raise ValueError(f"{given[0]} cannot be used with a ws+unix:// URI")
            path = uri.unix_path
        elif given and given[-1] in ("path", "sock") and len(given) > 1:
            raise ValueError(f"{given[0]} cannot be used with {given[-1]}")
        self.is_fixed = any(value is not None for value in (host, port, path))
        self.has_socket = sock is not None
        rules.check_limit("port", port, 1)
        if port is not None and port > 65535:  # getaddrinfo would take a part of it
            raise ValueError(f"port must be at most 65535, not {port}")
        self._host = host if host is None else _read_host(host)
        self._port = port
        self._options = options
        if path is not None:
            options["path"] = path
        elif sock is not None:
            options["sock"] = sock
        _check_context("ssl", ssl)
        _check_context("proxy_ssl", proxy_ssl)
        if not uri.secure and ssl is not None:
            raise ValueError("ssl needs a wss:// URI")
        self._tls = {name: options.pop(name) for name in list(options) if name.startswith("ssl_")}
        if self._tls and not uri.secure:
            raise ValueError(f"{next(iter(self._tls))} needs a wss:// URI")
        self._ssl = ssl_module.create_default_context() if ssl is None and uri.secure else ssl
        self._server_hostname = server_hostname
        self._proxy: Proxy | bool = proxy is True
        if isinstance(proxy, str):
            self._proxy = parse_proxy(proxy)
            if path is not None or sock is not None:
                raise ValueError("proxy cannot be used with path or sock")
            check_proxy(self._proxy)
        elif proxy is not None and not isinstance(proxy, bool):
            raise TypeError(f"proxy must be a str, a bool or None, not {type(proxy).__name__!r}")
        if proxy_ssl is not None and proxy is not True and not _is_https(self._proxy):
            raise ValueError("proxy_ssl needs an https:// proxy")
        self._proxy_ssl = proxy_ssl

    async def connect(self, endpoint: asyncio.BaseProtocol, route: Route) -> None:
        """Connect an endpoint's transport.

        Args:
            endpoint: gets the transport.
            route: where to; if it leads elsewhere, the host and port are the URI's.

        Raises:
            ProxyError: if the proxy cannot be reached, or refuses.
            OSError: if connecting or TLS fails.
        """
        loop = asyncio.get_running_loop()
        uri, options = route.uri, self._options
        tls = self._tls_with(route) if uri.secure else {}
        if "path" in options:
            await loop.create_unix_connection(lambda: endpoint, **options, **tls)
            return
        if "sock" in options:
            await loop.create_connection(lambda: endpoint, **options, **tls)
            return
        host, port = uri.host, uri.port
        if not route.is_elsewhere:
            host, port = self._host or host, self._port or port
        proxy = self._proxy
        if proxy is True:
            proxy = proxy_from_environment(host, port, secure=uri.secure) or False
        if isinstance(proxy, Proxy):
            ssl = self._proxy_ssl
            await connect_through(
                proxy, host, port, endpoint, tls=tls, proxy_ssl=ssl, options=options
            )
            return
        if _is_address(host) or _is_loopback(host):
            # There is nothing to choose from, or the wrong address refuses at once.
            if options:
                options = {key: options[key] for key in options.keys() - CHOICES}
            await loop.create_connection(lambda: endpoint, host, port, **options, **tls)
            return
        # uvloop tries the addresses one after the other, however long each takes.
        sock = await connect_socket(host, port, **options)
        await hand_over(sock, endpoint, tls)

    def _tls_with(self, route: Route) -> dict[str, Any]:
        if self._ssl is None:  # the first URI was ws://
            self._ssl = ssl_module.create_default_context()
        name = route.uri.host
        if self._server_hostname is not None and not route.is_elsewhere:
            name = self._server_hostname
        # The final dot of "host." is only for DNS. The server name in TLS is without it (RFC 6066
        # §3), and so are certificates. Host keeps the dot, as in browsers.
        return self._tls | {"ssl": self._ssl, "server_hostname": name.removesuffix(".")}


def _read_host(host: str) -> str:
    if _is_address(host):  # perhaps one with a zone, which no URI has
        return host
    try:
        return parse_name(host)
    except ValueError as exc:
        raise ValueError(f"host: {exc}") from None


def _check_context(name: str, value: ssl_module.SSLContext | None) -> None:
    """Raise TypeError for another type: asyncio takes some for no TLS, or for the default."""
    if value is not None and not isinstance(value, ssl_module.SSLContext):
        kind = type(value).__name__
        raise TypeError(f"{name} must be an ssl.SSLContext or None, not {kind!r}")


def _is_https(proxy: Proxy | bool) -> bool:
    return isinstance(proxy, Proxy) and proxy.scheme == "https"
