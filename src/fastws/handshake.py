"""The opening handshake of both roles (RFC 6455 §4).

This module knows what a request must say to become a WebSocket connection, what the
response must say, and how to refuse either. It does not know sockets, timeouts or frames,
nor what an extension's parameters mean. Bytes go in; bytes and values come out. Bytes that
follow the handshake are passed on unchanged.
"""

from __future__ import annotations

import os
import re
from base64 import b64encode
from binascii import b2a_base64
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from hashlib import sha1
from typing import TYPE_CHECKING, Any, Final, cast

import h11

from .deflate import Agreement
from .exceptions import IncompleteResponseError, RequestError, ResponseError, StateError
from .extensions import (
    ClientExtension,
    Params,
    ServerExtension,
    accept_answers,
    answer_offers,
    by_name,
    format_extension,
    make_offers,
    parse_extensions,
)
from .heads import (
    HeadError,
    RequestReader,
    ResponseReader,
    date,
    write_fields,
    write_request_head,
    write_response_head,
)
from .http import (
    USER_AGENT,
    Headers,
    HeadersLike,
    Request,
    Response,
    basic_credentials,
    is_target,
    is_token,
    list_members,
)
from .spec import DEFAULT_MAX_HEADER_SIZE
from .uri import URI, is_origin, parse_uri

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from .peers import Peer

__all__ = [
    "URI",
    "Accept",
    "ClientExtension",
    "ClientHandshake",
    "Params",
    "ServerExtension",
    "ServerHandshake",
    "accept_key",
    "format_extension",
    "parse_extensions",
    "parse_uri",
]

DEFAULT_MAX_HEADERS: Final = 128
DEFAULT_MAX_BODY_SIZE: Final = 64 << 10

_VERSION = "13"
# The characters of a host and a port (RFC 3986 §3.2.2, §3.2.3).
_is_host = re.compile(r"[\w.~!$&'()*+,;=%:\[\]-]+", re.ASCII).fullmatch
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"

# 16 bytes in base64 (§4.2.1). The four unused bits at the end may have any value: the example in
# §4.1 has some of them set, and clients send it.
_KEY = re.compile(r"[A-Za-z0-9+/]{22}==")


def accept_key(key: str) -> str:
    """Return the Sec-WebSocket-Accept that answers a Sec-WebSocket-Key (RFC 6455 §4.2.2).

    Args:
        key: the value of the header field.
    """
    digest = sha1(key.encode("latin-1") + _GUID, usedforsecurity=False).digest()
    return b2a_base64(digest, newline=False).decode("ascii")


# The server's side (§4.2) --------------------------------------------------------

_UPGRADE = (("Upgrade", "websocket"), ("Connection", "Upgrade"))
_SWITCHING = f"HTTP/1.1 101 Switching Protocols\r\n{write_fields(_UPGRADE)}"
_PERSISTENCE = ("close", "keep-alive")


@dataclass(frozen=True, slots=True, init=False)
class Accept:
    """The answer of a `process_request` that lets the handshake continue, and has more to say.

    Args:
        headers: header fields to add to this 101 response, such as Set-Cookie. They replace
            fields of the same name that all responses have.
        context: what was found out about the client, a user for example. It becomes the
            attribute `context` of the connection.
        subprotocol: the subprotocol to agree on, instead of a choice among those of the server.
            A client that does not offer it is refused with a 400. None to let the server
            choose.

    Raises:
        TypeError: if an argument has the wrong type.
        ValueError: if a field cannot be sent, is about one hop only (RFC 9110 §7.6.1) or is set
            by the handshake itself, or if `subprotocol` is not a token.
    """

    headers: Headers
    context: Any
    subprotocol: str | None

    def __init__(
        self, headers: HeadersLike = (), context: Any = None, subprotocol: str | None = None
    ) -> None:
        headers = _checked_headers(headers)
        for name in headers:
            if name.lower() in _HOP_BY_HOP:
                raise ValueError(f"header field {name} is about one hop only (RFC 9110 §7.6.1)")
        if subprotocol is not None:
            _checked_subprotocols((subprotocol,))
        object.__setattr__(self, "headers", headers)
        object.__setattr__(self, "context", context)
        object.__setattr__(self, "subprotocol", subprotocol)


class ServerHandshake:
    """The server's side of one opening handshake (RFC 6455 §4.2).

    Feed `receive_data` until it returns a request, then send what `accept`, `respond` or
    `reject` returns. `accept` opens the WebSocket connection; after either of the others,
    close the TCP connection.

    Args:
        origins: the origins that may connect (§10.2), or None to allow every origin. Strings
            are compared case-insensitively, patterns must match the whole origin, and a None
            in the list stands for a request without Origin. Write strings as browsers do
            (RFC 6454 §6.2): "https://example.com", "null", without a path or a default
            port, and non-ASCII names in their xn-- form.
        subprotocols: the supported subprotocols, in order of preference.
        extensions: the supported extensions. The client's order decides.
        headers: header fields to add to every response.
        max_header_size: the maximum size of the header block, in bytes.
        max_headers: the maximum number of header fields.
        peer: what is known about the client; it becomes the `peer` of the request.

    Attributes:
        subprotocol: the subprotocol that `accept` chose; None if there is none.
        extensions: the extensions that `accept` agreed on, in the order of the response.
        trailing_data: the bytes after the request: frames that were sent early.

    Raises:
        TypeError: if `origins` or `subprotocols` is a single string, or an item of
            `origins`, `subprotocols` or `headers` has the wrong type.
        ValueError: if a string is not an origin or not a token, two extensions have the
            same name, or `headers` contains a field that the handshake itself sets.
    """

    subprotocol: str | None = None
    trailing_data: bytes = b""
    _done = False
    _is_head = False

    def __init__(
        self,
        *,
        origins: Sequence[str | re.Pattern[str] | None] | None = None,
        subprotocols: Sequence[str] = (),
        extensions: Sequence[ServerExtension] = (),
        headers: HeadersLike = (),
        max_header_size: int = DEFAULT_MAX_HEADER_SIZE,
        max_headers: int = DEFAULT_MAX_HEADERS,
        peer: Peer | None = None,
    ) -> None:
        self.extensions: list[object] = []
        self._peer = peer
        self._origins = None if origins is None else _checked_origins(origins)
        self._subprotocols = _checked_subprotocols(subprotocols)
        self._supported = by_name(extensions)
        self._headers = _checked_headers(headers)
        self._reader = RequestReader(max_header_size, max_headers)

    def _again(self) -> ServerHandshake:
        """Return a handshake for another connection, by the same rules. This one must not have
        received anything. (To create another would be to check the arguments again.)"""
        another = type(self).__new__(type(self))
        another.__dict__.update(self.__dict__)
        another.extensions = []
        another._reader = self._reader.again()
        return another

    @property
    def deflate(self) -> Agreement | None:
        """The agreement of `accept` on permessage-deflate, to be passed to `Connection`; None
        if messages are not compressed."""
        return _deflate(self.extensions)

    def receive_data(self, data: Buffer) -> Request | None:
        """Receive bytes from the client.

        Args:
            data: any number of bytes; a request may arrive in pieces of any size.

        Returns:
            The request once its header block is complete, None until then. It may ask for
            something other than an upgrade: see `Request.is_websocket`. Empty lines before
            it are skipped (RFC 9112 §2.2), but count towards the size of the header block.

        Raises:
            RequestError: if this is not HTTP/1, or the target is neither a path nor an http,
                https, ws or wss URI (400); if a limit is exceeded (431).
            StateError: if a request was returned, or an error raised, before.
        """
        if self._done:
            raise StateError("the request has already been read")
        self._reader.receive_data(data)
        try:
            request = self._reader.next_request()
        except HeadError as error:
            self._done = True
            raise RequestError(str(error), error.status) from None
        if request is None:
            return None
        self._done = True
        self._is_head = request.method == "HEAD"
        self.trailing_data = self._reader.rest
        # Check this before anybody reads the path.
        _check_target(request)
        return request if self._peer is None else replace(request, peer=self._peer)

    def accept(
        self, request: Request, *, headers: HeadersLike = (), subprotocol: str | None = None
    ) -> bytes:
        """Accept the request (RFC 6455 §4.2.2).

        Args:
            request: what `receive_data` returned.
            headers: header fields to add. They replace fields of the same name in the
                handshake's `headers`.
            subprotocol: the subprotocol to agree on; None to choose among the handshake's
                `subprotocols`.

        Returns:
            The 101 response. The connection is open once it is sent.

        Raises:
            RequestError: if the request violates §4.2.1, its origin is not allowed or it does not
                offer `subprotocol`. Pass the error to `reject` to get a response.
            ValueError: if `headers` contains a field that the handshake itself sets, or
                `subprotocol` is not a token.
        """
        if subprotocol is not None:
            self._subprotocols = _checked_subprotocols((subprotocol,))
        extra = self._headers if headers == () else self._headers | _checked_headers(headers)
        head = self._agree(request)
        if subprotocol is not None and self.subprotocol is None:
            raise RequestError(f"the client does not offer the subprotocol {subprotocol}")
        if "Date" not in extra:
            head += f"Date: {date()}\r\n"
        return f"{head}{write_fields(extra.items())}\r\n".encode("latin-1")

    def _agree(self, request: Request) -> str:
        """Return the beginning of the accepting response: all that RFC 6455 requires."""
        try:
            key = _check_request(request)
            self._check_origin(request)
            self.subprotocol = self._choose_subprotocol(request)
        except ValueError as error:
            raise RequestError(str(error)) from None
        try:
            offers = _parse_offers(request.headers._values.get("sec-websocket-extensions", ()))
        except ValueError:
            raise RequestError("malformed Sec-WebSocket-Extensions") from None
        answers, self.extensions = answer_offers(self._supported, offers)

        head = f"{_SWITCHING}Sec-WebSocket-Accept: {accept_key(key)}\r\n"
        if self.subprotocol is not None:
            head += f"Sec-WebSocket-Protocol: {self.subprotocol}\r\n"
        if answers:
            head += f"Sec-WebSocket-Extensions: {', '.join(answers)}\r\n"
        return head

    def respond(self, response: Response) -> bytes:
        """Answer with plain HTTP, whatever the request was, and even if there was none.

        Args:
            response: the response. Content-Length, Date and `Connection: close` are added;
                the body is left out if the request's method is HEAD.

        Returns:
            The bytes to send before the TCP connection is closed.

        Raises:
            ValueError: if the status is not final, or the response has a Transfer-Encoding.
        """
        if response.status < 200:
            raise ValueError(f"status must be 200 to 999, not {response.status}")
        if "Transfer-Encoding" in response.headers:
            raise ValueError(
                "response must not have Transfer-Encoding: its body is sent as a whole"
            )
        headers = Headers([("Date", date())]) | self._headers | response.headers
        options = [o for o in headers.tokens("Connection") if o.lower() not in _PERSISTENCE]
        headers |= {"Connection": ", ".join([*options, "close"])}
        # RFC 9110 §8.6, §15.4.5: these have no content.
        if response.status in (204, 304):
            return write_response_head(response.status, response.reason, headers)
        headers |= {"Content-Length": str(len(response.body))}
        head = write_response_head(response.status, response.reason, headers)
        return head if self._is_head else head + response.body

    def reject(self, error: RequestError) -> bytes:
        """Answer with a response that says what is wrong with the request.

        Args:
            error: an error raised by `receive_data` or `accept`, or one of your own.

        Returns:
            The bytes to send before the TCP connection is closed.
        """
        return self.respond(Response.text(f"{error}\n", error.status, error.headers))

    def _check_origin(self, request: Request) -> None:
        if self._origins is None:
            return
        values = request.headers.get_all("Origin")
        if len(values) > 1:
            raise RequestError("more than one Origin")
        origin = values[0] if values else None
        if not any(_is_origin(allowed, origin) for allowed in self._origins):
            raise RequestError("origin not allowed", 403)

    def _choose_subprotocol(self, request: Request) -> str | None:
        if "sec-websocket-protocol" not in request.headers._values:
            return None
        offered = list_members(request.headers, "Sec-WebSocket-Protocol")
        # §4.1: "The elements [...] MUST all be unique strings".
        if len(set(offered)) < len(offered) or not all(map(is_token, offered)):
            raise RequestError("malformed Sec-WebSocket-Protocol")
        return next((name for name in self._subprotocols if name in offered), None)


def _check_target(request: Request) -> None:
    """Raise RequestError if the target does not have the form that the method asks for."""
    if not is_target(request.method, request.target):
        raise RequestError("the request target is neither a path nor a URI")


def _check_request(request: Request) -> str:
    """Return the key. Raise RequestError if the request violates §4.2.1, or ValueError if a
    list has too many members."""
    headers = request.headers
    if request.method != "GET":
        raise RequestError("the method must be GET", 405, (("Allow", "GET"),))
    _check_target(request)
    # RFC 9110 §7.8: Upgrade is ignored in HTTP/1.0, and was not meant for us if Connection does
    # not name it. Either way this request asks for no upgrade, and 426 says how to ask for one.
    if not "1.1" <= request.http_version < "2":
        raise RequestError("WebSocket takes HTTP/1.1", 426, _UPGRADE)
    values = headers._values
    if not _has_member(headers, "upgrade", "websocket"):
        raise RequestError("this is a WebSocket server", 426, _UPGRADE)
    if not _has_member(headers, "connection", "upgrade"):
        raise RequestError("Connection does not say Upgrade", 426, _UPGRADE)
    hosts = values.get("host", ())
    if len(hosts) != 1 or not hosts[0]:
        raise RequestError("no Host, or more than one")
    if not _is_host(hosts[0]):
        raise RequestError("Host is not a host")
    # The bytes of a body would be read as frames.
    if "transfer-encoding" in values or (
        "content-length" in values and set(list_members(headers, "Content-Length")) - {"0"}
    ):
        raise RequestError("the request must have no body")
    versions = values.get("sec-websocket-version", ())
    if len(versions) != 1:
        raise RequestError("no Sec-WebSocket-Version, or more than one")
    if versions[0] != _VERSION:
        # §4.4, and RFC 9110 §15.5.22: a 426 names the protocol.
        version = ("Sec-WebSocket-Version", _VERSION)
        raise RequestError("the only version spoken here is 13", 426, (*_UPGRADE, version))
    keys = values.get("sec-websocket-key", ())
    if len(keys) != 1:
        raise RequestError("no Sec-WebSocket-Key, or more than one")
    if not _KEY.fullmatch(keys[0]):
        raise RequestError("Sec-WebSocket-Key is not 16 bytes in base64")
    return keys[0]


def _has_member(headers: Headers, name: str, member: str) -> bool:
    """Return whether a list contains a member. Raise ValueError if it has too many.

    Args:
        headers: the header fields.
        name: the name of the list, in lower case.
        member: the member, in lower case; the case of the list's members does not matter.
    """
    values = headers._values.get(name)
    if values is None:
        return False
    if len(values) == 1 and values[0].lower() == member:
        return True  # as it is in most requests
    return member in [each.lower() for each in list_members(headers, name)]


# Most clients send one of a few lists.
_MAX_CACHED = 256


def _parse_offers(values: Sequence[str]) -> Iterable[tuple[str, Params]]:
    if len(values) == 1 and len(values[0]) <= _MAX_CACHED:
        return [(name, list(params)) for name, params in _parse_again(values[0])]
    return parse_extensions(values)


def _parse_one(value: str) -> list[tuple[str, list[tuple[str, str | None]]]]:
    return parse_extensions([value])


_parse_again = lru_cache(64)(_parse_one)


def _is_origin(allowed: str | re.Pattern[str] | None, origin: str | None) -> bool:
    if allowed is None or origin is None:
        return allowed is origin
    if isinstance(allowed, str):
        return allowed.lower() == origin.lower()
    return allowed.fullmatch(origin) is not None


# All handshakes of a server check the same few origins.
_may_be_origin = lru_cache(256)(is_origin)


def _checked_origins(
    origins: Sequence[str | re.Pattern[str] | None],
) -> tuple[str | re.Pattern[str] | None, ...]:
    if isinstance(origins, (str, bytes)) or not isinstance(origins, Collection):
        kind = type(origins).__name__
        raise TypeError(f"origins must be a sequence of strings and patterns, not {kind!r}")
    for origin in origins:
        if isinstance(origin, str):
            # Such a string would never match, and the reason would be hard to find.
            if not _may_be_origin(origin):
                wanted = "scheme://host[:port] without a default port"
                raise ValueError(f"origin must be {wanted}, not {origin!r}")
        elif isinstance(origin, re.Pattern):
            if not isinstance(origin.pattern, str):
                raise TypeError(f"pattern of an origin must be a str, not {origin.pattern!r}")
        elif origin is not None:
            kind = type(origin).__name__
            raise TypeError(f"origin must be a str, a pattern or None, not {kind!r}")
    return tuple(origins)


# The client's side (§4.1) --------------------------------------------------------


class ClientHandshake:
    """The client's side of one opening handshake (RFC 6455 §4.1).

    Send what `request` returns, then feed `receive_data` until it returns the response. Call
    `receive_eof` if the stream ends before that.

    Args:
        uri: the URI to connect to.
        origin: the value of Origin; None to leave it out.
        subprotocols: the subprotocols to ask for, in order of preference.
        extensions: the extensions to offer, in order of preference.
        headers: header fields to add. They replace fields of the same name that the
            handshake would send: Host, User-Agent, Origin, Authorization.
        key: the 16 bytes of Sec-WebSocket-Key; random by default.
        max_header_size: the maximum size of the header block, in bytes, including
            informational responses before it.
        max_headers: the maximum number of header fields in the response.
        max_body_size: how much of a refusal's body to keep, in bytes.

    Attributes:
        uri: the URI to connect to.
        subprotocol: the subprotocol that the server chose; None if there is none.
        extensions: the extensions agreed on, in the order of the response.
        trailing_data: the bytes after the response: the first frames.

    Raises:
        InvalidURIError: if `uri` is a string and not a WebSocket URI.
        TypeError: if `subprotocols` is a single string, or `uri`, `origin` or an item of
            `subprotocols` or `headers` has the wrong type.
        ValueError: if a subprotocol is not a token or appears twice, the key is not 16 bytes
            long, two extensions have the same name, or `headers` contains a field that the
            handshake itself sets.
    """

    def __init__(
        self,
        uri: URI | str,
        *,
        origin: str | None = None,
        subprotocols: Sequence[str] = (),
        extensions: Sequence[ClientExtension] = (),
        headers: HeadersLike = (),
        key: bytes | None = None,
        max_header_size: int = DEFAULT_MAX_HEADER_SIZE,
        max_headers: int = DEFAULT_MAX_HEADERS,
        max_body_size: int = DEFAULT_MAX_BODY_SIZE,
    ) -> None:
        self.uri = uri if isinstance(uri, URI) else parse_uri(uri)
        self.subprotocol: str | None = None
        self.extensions: list[object] = []
        self.trailing_data = b""
        self._subprotocols = _checked_subprotocols(subprotocols)
        self._offered = by_name(extensions)
        if key is None:
            key = os.urandom(16)
        elif len(key) != 16:
            raise ValueError(f"key must be 16 bytes, not {len(key)}")
        self._key = b64encode(key).decode("ascii")
        self._reader = ResponseReader(max_header_size, max_headers)
        self._max_body_size = max_body_size
        self._done = False
        self._refusal: Response | None = None
        self._body = bytearray()
        self._request = self._write_request(origin, _checked_headers(headers))

    @property
    def deflate(self) -> Agreement | None:
        """The agreement on permessage-deflate, to be passed to `Connection`; None if messages
        are not compressed."""
        return _deflate(self.extensions)

    def request(self) -> bytes:
        """Return the request to send (RFC 6455 §4.1)."""
        return self._request

    def receive_data(self, data: Buffer) -> Response | None:
        """Receive bytes from the server.

        Args:
            data: any number of bytes; a response may arrive in pieces of any size.

        Returns:
            The 101 response once its header block is complete, None until then. The
            connection is open now.

        Raises:
            ResponseError: if the server refuses, as soon as the body has been read, which
                may say why; if the response violates §4.1; if it is not HTTP/1 or exceeds a
                limit.
            StateError: if a response was returned, or an error raised, before.
        """
        if self._done:
            raise StateError("the response has already been read")
        if self._refusal is not None:
            self._receive_body(data)
            return None
        self._reader.receive_data(data)
        try:
            found = self._reader.next_response()
            # RFC 9110 §15.2: a client skips informational responses.
            while found is not None and found[0].status < 200 and found[0].status != 101:
                found = self._reader.next_response()
        except HeadError as error:
            self._done = True
            raise ResponseError(f"bad response: {error}") from None
        if found is None:
            return None
        response, version = found
        if response.status != 101:
            self._refusal = response
            self._receive_body(self._reader.rest)
            return None
        self._done = True
        if version != "1.1":
            raise ResponseError("upgrade in HTTP/1.0", response)
        try:
            self._check_response(response)
        except ValueError as error:
            raise ResponseError(str(error), response) from None
        self.trailing_data = self._reader.rest
        return response

    def receive_eof(self) -> None:
        """Tell the handshake that the server will send nothing more.

        Raises:
            ResponseError: always. It is the server's refusal if the end of the stream is the
                end of its body.
            StateError: if a response was returned, or an error raised, before.
        """
        if self._done:
            raise StateError("the response has already been read")
        self._done = True
        if self._refusal is not None:
            raise self._refused(self._refusal)
        raise IncompleteResponseError("connection closed before the response was whole")

    def _write_request(self, origin: str | None, extra: Headers) -> bytes:
        uri = self.uri
        fields = [
            ("Host", uri.host_header),
            *_UPGRADE,
            ("Sec-WebSocket-Key", self._key),
            ("Sec-WebSocket-Version", _VERSION),
        ]
        if self._subprotocols:
            fields.append(("Sec-WebSocket-Protocol", ", ".join(self._subprotocols)))
        if offers := make_offers(self._offered):
            fields.append(("Sec-WebSocket-Extensions", ", ".join(offers)))
        if origin is not None:
            fields.append(("Origin", origin))
        if uri.username is not None:
            fields.append(("Authorization", basic_credentials(uri.username, uri.password)))
        fields.append(("User-Agent", USER_AGENT))
        return write_request_head(uri.target, Headers(fields) | extra)

    def _check_response(self, response: Response) -> None:
        headers = response.headers
        if [protocol.lower() for protocol in list_members(headers, "Upgrade")] != ["websocket"]:
            raise ResponseError("Upgrade does not say websocket", response)
        if not _has_member(headers, "connection", "upgrade"):
            raise ResponseError("Connection does not say Upgrade", response)
        if headers.get_all("Sec-WebSocket-Accept") != [accept_key(self._key)]:
            raise ResponseError("Sec-WebSocket-Accept does not answer the key", response)
        protocols = headers.get_all("Sec-WebSocket-Protocol")
        if len(protocols) > 1:
            raise ResponseError("more than one Sec-WebSocket-Protocol", response)
        for protocol in protocols:
            if protocol not in self._subprotocols:
                raise ResponseError(f"subprotocol not asked for: {protocol!r}", response)
            self.subprotocol = protocol
        try:
            answers = parse_extensions(headers.get_all("Sec-WebSocket-Extensions"))
            self.extensions = accept_answers(self._offered, answers)
        except ValueError as error:
            raise ResponseError(f"bad Sec-WebSocket-Extensions: {error}", response) from error

    def _receive_body(self, data: Buffer) -> None:
        refusal = cast("Response", self._refusal)
        parser = cast("h11.Connection", self._reader.connection)
        # h11 takes empty data for the end of the stream.
        if piece := bytes(data):
            parser.receive_data(piece)
        try:
            while len(self._body) <= self._max_body_size:
                event = parser.next_event()
                if event is h11.NEED_DATA:
                    return
                if not isinstance(event, h11.Data):
                    break
                self._body += event.data
        except h11.RemoteProtocolError:
            # A refusal remains a refusal even if its body is malformed.
            pass
        self._done = True
        raise self._refused(refusal)

    def _refused(self, refusal: Response) -> ResponseError:
        body = bytes(self._body[: self._max_body_size])
        return ResponseError(
            f"server rejected the connection: HTTP {refusal.status}",
            Response(refusal.status, refusal.headers, body, refusal.reason),
        )


# What both sides need ------------------------------------------------------------


# The handshake sets these fields itself, or they would announce a body (RFC 9110 §8.6 and
# RFC 9112 §6.1 forbid that in a 101, too).
_RESERVED = ("connection", "content-length", "transfer-encoding", "upgrade")
# These are about one hop (RFC 9110 §7.6.1), but not about the response to an upgrade.
_HOP_BY_HOP = ("keep-alive", "proxy-connection", "te", "trailer")


_NO_HEADERS = Headers()


def _checked_headers(fields: HeadersLike) -> Headers:
    if isinstance(fields, tuple) and not fields:
        return _NO_HEADERS
    headers = Headers(fields)
    for name in headers:
        if name.lower().startswith("sec-websocket-") or name.lower() in _RESERVED:
            raise ValueError(f"header field {name} is set by the handshake itself")
    return headers


def _checked_subprotocols(names: Sequence[str]) -> tuple[str, ...]:
    if isinstance(names, str):
        raise TypeError("subprotocols must be a sequence of strings, not 'str'")
    if isinstance(names, tuple) and not names:
        return ()
    for name in names:
        if not is_token(name):
            raise ValueError(f"subprotocol must be a token, not {name!r}")
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"duplicate subprotocol: {twice!r}")
    return tuple(names)


def _deflate(agreed: list[object]) -> Agreement | None:
    return next((extension for extension in agreed if isinstance(extension, Agreement)), None)
