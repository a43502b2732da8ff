"""Addresses: ws and wss URIs (RFC 6455 §3), http and https URLs, proxies, origins (RFC 6454).

This module knows how an address is written, and what its parts are. It does not know HTTP, DNS
or sockets: it looks up no name and opens no connection. What a host may be, `fastws.hosts`
knows.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address
from typing import Final
from urllib.parse import quote, unquote

from .exceptions import InvalidURIError
from .hosts import parse_ipv6, parse_name

__all__ = ["URI", "parse_uri"]

# By whether the scheme is secure.
_DEFAULT_PORTS: Final = {False: 80, True: 443}


# URIs ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class URI:
    """The address of a WebSocket server, and what to ask it for (RFC 6455 §3).

    Attributes:
        secure: whether the scheme is wss.
        host: a host name in its ASCII form, or an IP address, without brackets if it is IPv6.
        port: the TCP port.
        target: the path and the query, as they appear in the request line (§3 calls them
            resource name).
        username: the decoded user name; None if there is none.
        password: the decoded password; None if there is none.
        unix_path: the path of the Unix socket of a ws+unix URI; None for TCP.
    """

    secure: bool
    host: str
    port: int
    target: str = "/"
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    unix_path: str | None = None

    @property
    def host_header(self) -> str:
        """The value of the Host header field, without a default port (RFC 6455 §4.1)."""
        is_default = self.port == _DEFAULT_PORTS[self.secure]
        return join_host(self.host, None if is_default else self.port)


def join_host(host: str, port: int | None = None) -> str:
    """Return the host, and the port if there is one, as URIs and Host have them."""
    host = f"[{host}]" if ":" in host else host
    return host if port is None else f"{host}:{port}"


# The grammar has no backslash. The user information excludes it explicitly, because browsers
# treat it as a slash and would see another host.
_HOST = r"(?: \[ (?P<ipv6> [0-9A-Fa-f:.]+ ) \] | (?P<name> [^/?@:\[\]\\]+ ) )"
_AUTHORITY = rf"""
    (?: (?P<userinfo> [^/?@\\]* ) @ )?
    {_HOST}
    (?: : (?P<port> [0-9]{{0,5}} ) )?
"""
_URI = re.compile(
    rf"""
    [Ww] [Ss] (?P<secure>[Ss]?) ://
    {_AUTHORITY}
    (?P<path> / [^?]* )?
    (?: \? (?P<query> .* ) )?
    """,
    re.VERBOSE,
)
# https://url.spec.whatwg.org/#url-parsing, for "special" schemes and without a base: slashes may
# be missing or backslashes, the last @ ends the user information, and ports may begin with zeros.
# (Few programs need it, and to compile it takes a millisecond.)
_URL = rf"""
    [Hh] [Tt] [Tt] [Pp] (?P<secure>[Ss]?) : [/\\]*
    (?: (?P<userinfo> [^/?\\]* ) @ )?
    {_HOST}
    (?: : (?P<port> [0-9]* ) )?
    (?P<path> [/\\] [^?]* )?
    (?: \? (?P<query> .* ) )?
"""
# As Node's ws has it: the first colon ends the path of the socket.
_UNIX_URI = re.compile(
    r"""
    [Ww] [Ss] \+ [Uu] [Nn] [Ii] [Xx] : (?: // )?
    (?P<file> / [^/:?] [^:?]* )
    (?: : (?P<path> / [^?]* ) (?: \? (?P<query> .* ) )? )?
    """,
    re.VERBOSE,
)
_PROXY = re.compile(
    rf"""
    (?P<scheme> [A-Za-z][A-Za-z0-9]* ) ://
    {_AUTHORITY}
    /?
    """,
    re.VERBOSE,
)
_BLANK_OR_CONTROL = re.compile(r"[\s\x00-\x1f\x7f-\x9f]")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
# Characters that RFC 3986 §3.3 and §3.4 allow in a path or query, and the % of those that are
# already encoded.
_SAFE = "%/?:@!$&'()*+,;="
_AROUND_URLS = "".join(map(chr, range(0x21)))
_NOT_IN_URLS = dict.fromkeys(map(ord, "\t\n\r"))
# What a URL may contain besides letters, digits and -._~: all but the standard's "path
# percent-encode set" and "special-query percent-encode set".
_SAFE_IN_PATHS = "%/!$&'()*+,:;=@[]|"
_SAFE_IN_QUERIES = "%/!$&()*+,:;=@[]|?\\^`{}"


def parse_uri(text: str) -> URI:
    """Parse a ws:// or wss:// URI (RFC 6455 §3), or an IRI, encoding non-ASCII characters.

    As in browsers (https://websockets.spec.whatwg.org/#dom-websocket-websocket), http:// means
    ws://, https:// means wss://, and a fragment is an error.

    A ws:// or wss:// URI must be written as RFC 3986 has it, and its path and query are sent
    as they are. An http:// or https:// URL is read as in browsers (https://url.spec.whatwg.org):
    blanks around it, tabs and line breaks are dropped, backslashes are slashes, a host may be
    percent-encoded, and "." and ".." in the path are resolved. Hosts are those of browsers in
    either case: 127.1 is 127.0.0.1.

    ws+unix:///path/of/socket:/target is for a Unix socket; a colon in its path is %3A.

    Args:
        text: the URI. It may contain a percent-encoded user name and password.

    Raises:
        TypeError: if this is not a string.
        InvalidURIError: if this is not such a URI. The message never quotes the URI, which
            may contain a password.
    """
    if not isinstance(text, str):
        raise TypeError(f"a URI must be a str, not {type(text).__name__!r}")
    # No other scheme begins with h.
    is_url = text.lstrip(_AROUND_URLS)[:1] in ("h", "H")
    if not is_url and _BLANK_OR_CONTROL.search(text):
        raise InvalidURIError("white space or a control character in a URI")
    if "#" in text:
        # §3: "Fragment identifiers are meaningless [...] and MUST NOT be used".
        raise InvalidURIError("fragment in a WebSocket URI; a # of another meaning is %23")
    try:
        if is_url:
            return _parse_url(text)
        if match := _UNIX_URI.fullmatch(text):
            return _unix_uri(match)
        if match := _URI.fullmatch(text):
            target = _join_target(quote(match["path"] or "/", _SAFE), match["query"], _SAFE)
            return _tcp_uri(match, match["name"], target)
    except ValueError as error:
        raise InvalidURIError(_reason_of(error)) from None
    raise InvalidURIError("not of the form ws[s]://host[:port][/path][?query]")


def _unix_uri(match: re.Match[str]) -> URI:
    target = _join_target(quote(match["path"] or "/", _SAFE), match["query"], _SAFE)
    path = unquote(match["file"], errors="surrogateescape")  # as os.fsdecode
    if "\0" in path:
        raise ValueError("NUL in the path of a Unix socket")
    return URI(False, "localhost", 80, target, unix_path=path)


def _parse_url(text: str) -> URI:
    text = text.strip(_AROUND_URLS).translate(_NOT_IN_URLS)
    match = re.fullmatch(_URL, text, re.VERBOSE | re.DOTALL)
    if match is None:
        raise ValueError("not of the form http[s]://host[:port][/path][?query]")
    path = quote(_without_dots(match["path"] or "/"), _SAFE_IN_PATHS)
    target = _join_target(path, match["query"], _SAFE_IN_QUERIES)
    return _tcp_uri(match, unquote(match["name"] or "", errors="strict"), target)


def _without_dots(path: str) -> str:
    """Return the path of a URL without segments that are "." or "..", encoded or not."""
    segments: list[str] = []
    for segment in path.replace("\\", "/").split("/")[1:]:
        dots = segment.replace("%2e", ".").replace("%2E", ".")
        if dots == "..":
            del segments[-1:]
        if not (is_dots := dots in (".", "..")):
            segments.append(segment)
    if is_dots:  # the last one stands for a directory
        segments.append("")
    return "/" + "/".join(segments)


def _tcp_uri(match: re.Match[str], name: str, target: str) -> URI:
    secure = bool(match["secure"])
    host = _parse_host(name, match["ipv6"])
    port = _parse_port(match["port"], _DEFAULT_PORTS[secure])
    return URI(secure, host, port, target, *_parse_userinfo(match["userinfo"]))


def _join_target(path: str, query: str | None, safe: str) -> str:
    return f"{path}?{quote(query, safe)}" if query else path


def _parse_host(name: str, ipv6: str | None) -> str:
    return parse_name(name) if ipv6 is None else parse_ipv6(ipv6)


def _parse_port(text: str | None, default: int) -> int:
    port = int(text or default)
    if not 1 <= port <= 65535:
        raise ValueError("port must be 1 to 65535")
    return port


def _parse_userinfo(userinfo: str | None) -> tuple[str | None, str | None]:
    if not userinfo:
        return None, None
    user, colon, secret = userinfo.partition(":")
    username, password = unquote(user, errors="strict"), unquote(secret, errors="strict")
    (username + password).encode()  # or raise UnicodeEncodeError, which is a ValueError
    # RFC 7617 §2: a colon separates the two, and control characters are forbidden.
    if ":" in username or _CONTROL.search(username + password):
        raise ValueError("colon or control character in a user name or password")
    return username, password if colon else None


def _reason_of(error: ValueError) -> str:
    """What an error says, unless it may quote a part of the URI."""
    return "not UTF-8" if isinstance(error, UnicodeError) else str(error)


# Proxies ------------------------------------------------------------------------------------

# By scheme. The names are curl's: those that end in a or h leave the name lookup to the proxy.
_PROXY_PORTS: Final = {"http": 80, "https": 443} | dict.fromkeys(
    ("socks4", "socks4a", "socks5", "socks5h"), 1080
)


@dataclass(frozen=True, slots=True)
class Proxy:
    """The address of a proxy.

    Attributes:
        scheme: "http", "https", "socks4", "socks4a", "socks5" or "socks5h".
        host: a host name in its ASCII form, or an IP address.
        port: the TCP port.
        username: the decoded user name; None if there is none.
        password: the decoded password; None if there is none.
    """

    scheme: str
    host: str
    port: int
    username: str | None = None
    password: str | None = field(default=None, repr=False)

    @property
    def is_http(self) -> bool:
        return self.scheme in ("http", "https")

    @property
    def address(self) -> str:
        """The host and the port, for messages."""
        return join_host(self.host, self.port)


def parse_proxy(text: str, default_scheme: str = "http") -> Proxy:
    """Parse the URL of a proxy.

    Args:
        text: the URL. It may contain a percent-encoded user name and password.
        default_scheme: the scheme if the URL has none, as in "proxy.example:3128".

    Raises:
        InvalidURIError: if this is not such a URL. The message never quotes it.
    """
    if "://" not in text:
        text = f"{default_scheme}://{text}"
    match = _PROXY.fullmatch(text)
    if match is None or _BLANK_OR_CONTROL.search(text):
        raise InvalidURIError("proxy not of the form scheme://[user:password@]host[:port]")
    scheme = match["scheme"].lower()
    if scheme == "socks":  # desktops write this
        scheme = "socks5h"
    if scheme not in _PROXY_PORTS:
        raise InvalidURIError(f"proxy scheme must be one of {', '.join(_PROXY_PORTS)}")
    try:
        host = _parse_host(match["name"], match["ipv6"])
        port = _parse_port(match["port"], _PROXY_PORTS[scheme])
        username, password = _parse_userinfo(match["userinfo"])
        if scheme.startswith("socks"):
            _check_socks(scheme, username or "", password or "")
        return Proxy(scheme, host, port, username, password)
    except ValueError as error:
        raise InvalidURIError(f"proxy: {_reason_of(error)}") from None


def _check_socks(scheme: str, username: str, password: str) -> None:
    """Raise ValueError for what SOCKS cannot send (RFC 1929 §2), or python-socks does not."""
    if scheme.startswith("socks4"):
        if password:
            raise ValueError("SOCKS4 has no passwords")
    elif bool(username) != bool(password):
        raise ValueError("SOCKS5 has no user name without a password, nor the reverse")
    if not (username + password).isascii() or max(len(username), len(password)) > 255:
        raise ValueError("SOCKS needs a user name or password of at most 255 ASCII characters")


# Origins ------------------------------------------------------------------------------------

# RFC 6454 §6.2, in the form that browsers write, in lower case. Browser extensions and apps have
# their own schemes; what follows the scheme is up to them.
_ORIGIN = re.compile(
    r"""
    null
    | (?P<scheme> https?|wss? ) ://
      (?: (?P<name> [a-z0-9._-]+ ) | \[ (?P<ipv6> [0-9a-f:]+ ) \] )
      (?: : (?P<port> [1-9][0-9]{0,4} ) )?
    | (?! https?: | wss?: ) [a-z][a-z0-9+.-]* :// [^\s/?\#@*\\\x00-\x20\x7f-\U0010ffff]*
    """,
    re.VERBOSE,
)


def is_origin(text: str) -> bool:
    """Return whether a browser may send this as an origin, ignoring case (RFC 6454 §6.2)."""
    match = _ORIGIN.fullmatch(text.lower())
    if match is None:
        return False
    scheme, name, ipv6, port = match.group("scheme", "name", "ipv6", "port")
    if port and (int(port) > 65535 or int(port) == _DEFAULT_PORTS[scheme in ("https", "wss")]):
        return False
    try:
        if ipv6:
            return IPv6Address(ipv6).compressed == ipv6 or IPv6Address(ipv6).ipv4_mapped is not None
        # https://url.spec.whatwg.org/#ends-in-a-number-checker: such a name is an IPv4 address.
        if name and name.removesuffix(".").rpartition(".")[2].isdigit():
            return str(IPv4Address(name)) == name
    except ValueError:
        return False
    return True
