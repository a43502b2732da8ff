"""Redirects in the opening handshake (RFC 6455 §4.1, RFC 9110 §15.4).

This module knows which responses are redirects, where they lead, and what another origin must
not get. It does not know how to connect there.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final
from urllib.parse import urldefrag, urljoin

from fastws.exceptions import InvalidURIError, ResponseError
from fastws.http import Headers
from fastws.uri import parse_uri

if TYPE_CHECKING:
    from fastws.uri import URI

__all__ = ["Redirection", "Route"]

_STATUSES: Final = frozenset({301, 302, 303, 307, 308})

# The header fields that another origin gets as well. All others may be credentials: not only
# Authorization and Cookie, but also X-Api-Key and its kin.
_HARMLESS: Final = frozenset(
    {"accept", "accept-encoding", "accept-language", "cache-control", "pragma", "user-agent"}
)


class Redirection(Exception):
    """The server's response leads to another place.

    Attributes:
        route: where to go.
    """

    def __init__(self, route: Route) -> None:
        super().__init__(route)
        self.route = route


@dataclass(frozen=True, slots=True)
class Route:
    """Where to connect to, and what to send there.

    Attributes:
        uri: the URI.
        headers: the application's header fields.
        max_redirects: how many redirects to follow; None for no limit.
        followed: how many were followed already.
        is_elsewhere: whether this is another origin than the application named.
        is_fixed: whether the application said how to connect, instead of the URI's host and port.
    """

    uri: URI
    headers: Headers = field(repr=False)  # which may be secret
    max_redirects: int | None
    followed: int = 0
    is_elsewhere: bool = False
    is_fixed: bool = False

    def follow(self, error: ResponseError) -> Route | None:
        """Return the route that a response names; None if the response is no redirect.

        Raises:
            ResponseError: if the redirect must not be followed.
        """
        response = error.response
        if response is None or response.status not in _STATUSES or self.max_redirects == 0:
            return None
        locations = response.headers.get_all("Location")
        if len(locations) != 1:
            return None

        def refuse(why: str) -> ResponseError:
            return ResponseError(f"cannot follow the redirect: {why}", response)

        uri = self.uri
        here = f"ws{'s' * uri.secure}://{uri.host_header}{uri.target}"
        location = _as_utf8(locations[0])
        try:
            there = parse_uri(urldefrag(urljoin(here, location)).url)
        except (InvalidURIError, ValueError) as exc:
            raise refuse(str(exc)) from None
        if there.unix_path is not None:
            raise refuse("it leads to a Unix socket")
        if uri.secure and not there.secure:
            raise refuse("it leads from wss:// to ws://")
        if self.followed == self.max_redirects:
            raise refuse(f"there were {self.followed} before")
        followed = self.followed + 1
        if _origin(there) == _origin(uri):
            if there.username is None:
                there = replace(there, username=uri.username, password=uri.password)
            return replace(self, uri=there, followed=followed)
        if self.is_fixed:
            raise refuse("it leads to another origin, but host, port or path are given")
        headers = Headers(
            (name, value) for name, value in self.headers.items() if name.lower() in _HARMLESS
        )
        return Route(there, headers, self.max_redirects, followed, is_elsewhere=True)


def _as_utf8(value: str) -> str:
    """Return the value of a header field, whose bytes may be UTF-8 instead of latin-1."""
    try:
        return value.encode("latin-1").decode("utf-8")
    except UnicodeDecodeError:
        return value


def _origin(uri: URI) -> tuple[bool, str, int]:
    """The origin of a URI (RFC 6454 §4). "host." is another one than "host", as in browsers."""
    return uri.secure, uri.host, uri.port
