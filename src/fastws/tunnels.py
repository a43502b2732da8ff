"""Tunnels through HTTP proxies (RFC 9110 §9.3.6), and which proxy the environment names.

This module knows how to ask a proxy for a connection, what to make of its answer, and which
proxy is for which server. It does not know connections, TLS or SOCKS. Bytes go in; bytes come
out.
"""

from __future__ import annotations

from contextlib import suppress
from functools import lru_cache
from ipaddress import ip_address, ip_network
from typing import Final, cast

import h11

from .exceptions import InvalidURIError, ProxyError
from .heads import headers_of, reason_of
from .http import USER_AGENT, Response, basic_credentials
from .uri import Proxy, join_host, parse_proxy

__all__ = ["TunnelHandshake", "is_loopback", "proxy_from_environment"]

_MAX_HEADER_SIZE: Final = 32 << 10
_MAX_BODY_SIZE: Final = 64 << 10


class TunnelHandshake:
    """The client's side of a CONNECT request.

    Send what `request` returns, then feed `receive_data` until it returns True. Call
    `receive_eof` if the stream ends before that.

    Args:
        proxy: the proxy, with the user name and the password to send.
        host: the host to be connected to.
        port: its port.
    """

    def __init__(self, proxy: Proxy, host: str, port: int) -> None:
        # RFC 9112 §3.2.3: the target always has a port.
        target = join_host(host, port)
        fields = [("Host", target), ("User-Agent", USER_AGENT)]
        if proxy.username is not None:
            credentials = basic_credentials(proxy.username, proxy.password)
            fields.append(("Proxy-Authorization", credentials))
        self._proxy = proxy
        self._h11 = h11.Connection(h11.CLIENT, max_incomplete_event_size=_MAX_HEADER_SIZE)
        request = h11.Request(method=b"CONNECT", target=target, headers=fields)
        self._request = self._h11.send(request) + self._h11.send(h11.EndOfMessage())
        self._is_silent = True
        self._refusal: Response | None = None
        self._body = bytearray()

    def request(self) -> bytes:
        """Return the request to send."""
        return self._request

    def receive_data(self, data: bytes) -> bool:
        """Receive bytes from the proxy.

        Returns:
            Whether the tunnel is open.

        Raises:
            ProxyError: if the proxy refuses, or its answer is not HTTP.
        """
        # h11 would wait for a blank line, which other protocols may never send.
        if self._is_silent and not data.startswith(b"H"):
            raise ProxyError("bad response of the proxy: not HTTP")
        self._is_silent = False
        self._h11.receive_data(data)
        try:
            return self._next_events()
        except h11.RemoteProtocolError as error:
            if self._refusal is not None:
                # A refusal remains a refusal even if its body is malformed.
                raise self._refused(self._refusal) from None
            raise ProxyError(f"bad response of the proxy: {reason_of(error)}") from None

    def receive_eof(self) -> None:
        """Tell the handshake that the proxy will send nothing more.

        Raises:
            ProxyError: always.
        """
        if self._refusal is not None:
            raise self._refused(self._refusal)
        message = "the proxy closed the connection before its response was whole"
        raise ProxyError(message) from ConnectionResetError("connection closed")

    def _next_events(self) -> bool:
        while True:
            event = self._h11.next_event()
            if event is h11.NEED_DATA:
                return False
            if isinstance(event, h11.InformationalResponse):
                continue
            if isinstance(event, h11.Response):
                if 200 <= event.status_code < 300:
                    # The client speaks first, so that nothing can follow yet.
                    if self._h11.trailing_data[0]:
                        raise ProxyError("the proxy sent data that nobody asked for")
                    return True
                reason = event.reason.decode("latin-1")
                self._refusal = Response(event.status_code, headers_of(event), reason=reason)
            elif isinstance(event, h11.Data) and len(self._body) < _MAX_BODY_SIZE:
                self._body += event.data
            else:
                raise self._refused(cast("Response", self._refusal))

    def _refused(self, refusal: Response) -> ProxyError:
        status, reason = refusal.status, refusal.reason
        body = bytes(self._body[:_MAX_BODY_SIZE])
        message = f"the proxy {self._proxy.address} refused: HTTP {status}"
        if reason.isprintable():  # this is logged, and printed on terminals
            message = f"{message} {reason}".rstrip()
        return ProxyError(message, status, Response(status, refusal.headers, body, reason))


# The environment ------------------------------------------------------------------------

# RFC 6455 §4.1: SOCKS5 is preferred, then the proxy for HTTPS.
_KEYS: Final = {
    True: ("wss", "socks", "https", "all"),
    False: ("ws", "socks", "https", "http", "all"),
}


def proxy_from_environment(host: str, port: int, *, secure: bool) -> Proxy | None:
    """Return the proxy that the environment names for a server; None for none.

    The environment is that of `urllib.request`: the variables WSS_PROXY, WS_PROXY, SOCKS_PROXY,
    HTTPS_PROXY, HTTP_PROXY, ALL_PROXY and NO_PROXY, in either case, or the system's settings on
    macOS and Windows. As in browsers, a loopback address has no proxy.

    Raises:
        InvalidURIError: if what the environment says is no proxy.
    """
    if _is_loopback(host):
        return None
    # Importing this takes as long as importing fastws.
    from urllib.request import getproxies, proxy_bypass

    proxies = getproxies()
    for key in _KEYS[secure]:
        if value := proxies.get(key):
            if ":" in host:
                bypass = proxy_bypass(host) or proxy_bypass(f"[{host}]:{port}")
            else:
                bypass = proxy_bypass(f"{host.removesuffix('.')}:{port}")
            if bypass or _is_in_networks(host, proxies.get("no", "")):
                return None
            try:
                if key == "socks":
                    # macOS and Windows write http:// here.
                    return parse_proxy(value.removeprefix("http://"), "socks5h")
                return parse_proxy(value)
            except InvalidURIError as error:
                raise InvalidURIError(f"{key}_proxy: {error}") from None
    return None


def _is_in_networks(host: str, exceptions: str) -> bool:
    """Return whether a host is an address in one of the networks among the exceptions."""
    try:
        address = ip_address(host)
    except ValueError:
        return False
    for exception in exceptions.split(","):
        if "/" in exception:
            with suppress(ValueError):
                if address in ip_network(exception.strip(), strict=False):
                    return True
    return False


def is_loopback(host: str) -> bool:
    """Return whether a host is this machine, by its name or address."""
    # RFC 6761 §6.3
    if f".{host.removesuffix('.')}".endswith(".localhost"):
        return True
    try:
        address = ip_address(host)
    except ValueError:
        return False
    return (getattr(address, "ipv4_mapped", None) or address).is_loopback


# A client connects to the same few hosts again and again.
_is_loopback = lru_cache(256)(is_loopback)
