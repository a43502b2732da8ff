"""Addresses: ws and wss URIs (RFC 6455 §3), proxies, and origins (RFC 6454).

This module knows how an address is written, and what its parts are. It does not know
HTTP, DNS or sockets: it looks up no name and opens no connection.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address
from typing import TYPE_CHECKING, Final, cast
from unicodedata import bidirectional
from urllib.parse import quote, unquote

from .exceptions import InvalidURIError

if TYPE_CHECKING:
    from types import ModuleType

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
_AUTHORITY = r"""
    (?: (?P<userinfo> [^/?@\\]* ) @ )?
    (?: \[ (?P<ipv6> [0-9A-Fa-f:.]+ ) \] | (?P<name> [^/?@:\[\]\\]+ ) )
    (?: : (?P<port> [0-9]{0,5} ) )?
"""
_URI = re.compile(
    rf"""
    (?: [Ww] [Ss] | [Hh] [Tt] [Tt] [Pp] ) (?P<secure>[Ss]?) ://
    {_AUTHORITY}
    (?P<path> / [^?]* )?
    (?: \? (?P<query> .* ) )?
    """,
    re.VERBOSE,
)
# As Node's ws has it: the first colon ends the path of the socket.
_UNIX_URI = re.compile(
    r"""
    [Ww] [Ss] \+ [Uu] [Nn] [Ii] [Xx] : (?: // )?
    (?P<file> / [^/:?] [^:?]* )
    (?: : (?P<path> / [^?]* ) (?: \? (?P<query> .* ) )? )?
    """,
    re.VERBOSE,
)
_NAME = re.compile(r"[a-z0-9._-]+")
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


def parse_uri(text: str) -> URI:
    """Parse a ws:// or wss:// URI (RFC 6455 §3), or an IRI, encoding non-ASCII characters.

    As in browsers (https://websockets.spec.whatwg.org/#dom-websocket-websocket), http:// means
    ws://, https:// means wss://, and a fragment is an error. ws+unix:///path/of/socket:/target
    is for a Unix socket; a colon in its path is %3A.

    Args:
        text: the URI. It may contain a percent-encoded user name and password.

    Raises:
        InvalidURIError: if this is not such a URI. The message never quotes the URI, which
            may contain a password.
    """
    if _BLANK_OR_CONTROL.search(text):
        raise InvalidURIError("white space or a control character in a URI")
    if "#" in text:
        # §3: "Fragment identifiers are meaningless [...] and MUST NOT be used".
        raise InvalidURIError("fragment in a WebSocket URI; a # of another meaning is %23")
    if match := _UNIX_URI.fullmatch(text):
        target = _join_target(match["path"], match["query"])
        path = unquote(match["file"], errors="surrogateescape")  # as os.fsdecode
        if "\0" in path:
            raise InvalidURIError("NUL in the path of a Unix socket")
        return URI(False, "localhost", 80, target, unix_path=path)
    match = _URI.fullmatch(text)
    if match is None:
        raise InvalidURIError("not of the form ws[s]://host[:port][/path][?query]")
    secure = bool(match["secure"])
    try:
        host = _parse_host(match["name"], match["ipv6"])
        port = _parse_port(match["port"], _DEFAULT_PORTS[secure])
        target = _join_target(match["path"], match["query"])
        return URI(secure, host, port, target, *_parse_userinfo(match["userinfo"]))
    except ValueError as error:
        raise InvalidURIError(str(error)) from None


def _join_target(path: str | None, query: str | None) -> str:
    target = quote(path or "/", _SAFE)
    return f"{target}?{quote(query, _SAFE)}" if query else target


def _parse_host(name: str | None, ipv6: str | None) -> str:
    if ipv6 is not None:
        IPv6Address(ipv6)
        return ipv6.lower()
    # The codec turns other names into those of IDNA 2003, and checks the lengths of all.
    ascii_name = _to_idna_2008(cast("str", name)).encode("idna").decode("ascii").lower()
    # Check this last: normalisation turns some characters into a slash or a question mark.
    if not _NAME.fullmatch(ascii_name):
        raise ValueError("not a host name")
    return ascii_name


def _to_idna_2008(name: str) -> str:
    """Return the name that browsers look up: UTS #46, not transitional, in ASCII.

    This needs the library idna; without it, and for names in ASCII, return the name unchanged.
    """
    if name.isascii():
        return name
    try:
        import idna
    except ImportError:
        return name
    # https://url.spec.whatwg.org/#concept-domain-to-ascii. It allows more than IDNA 2008, such as
    # symbols, which idna.encode refuses.
    try:
        labels = idna.uts46_remap(name, std3_rules=False, transitional=False).split(".")
        _encode_labels(labels, idna)
    except UnicodeError:  # which quotes the name
        raise ValueError("not a host name") from None
    return ".".join(labels)


def _encode_labels(labels: list[str], idna: ModuleType) -> None:
    is_bidi = any(bidirectional(char) in ("R", "AL", "AN") for label in labels for char in label)
    for index, label in enumerate(labels):
        if label.startswith("xn--"):
            unicode_label = label[4:].encode("ascii").decode("punycode")
            if idna.uts46_remap(unicode_label, std3_rules=False) != unicode_label:
                raise ValueError("not a host name")
        elif not label.isascii():
            idna.check_initial_combiner(label)
            if is_bidi:
                idna.check_bidi(label, check_ltr=True)
            for position, char in enumerate(label):
                if char in "\u200c\u200d" and not idna.valid_contextj(label, position):
                    raise ValueError("not a host name")
            labels[index] = "xn--" + label.encode("punycode").decode("ascii")


def _parse_port(text: str | None, default: int) -> int:
    port = int(text or default)
    if not 1 <= port <= 65535:
        raise ValueError("port out of range")
    return port


def _parse_userinfo(userinfo: str | None) -> tuple[str | None, str | None]:
    if not userinfo:
        return None, None
    user, colon, secret = userinfo.partition(":")
    username, password = unquote(user, errors="strict"), unquote(secret, errors="strict")
    # RFC 7617 §2: a colon separates the two, and control characters are forbidden.
    if ":" in username or _CONTROL.search(username + password):
        raise ValueError("colon or control character in a user name or password")
    return username, password if colon else None


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
        raise InvalidURIError(f"proxy: {error}") from None


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
