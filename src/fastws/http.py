"""HTTP's values: header fields, a request, a response (RFC 9110, RFC 9112).

This module knows what a header field and a request target may contain, and how fields are
looked up. It does not know how requests and responses travel, nor what any field means to a
WebSocket.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from operator import index
from typing import TYPE_CHECKING, Final, TypeAlias, overload

from .exceptions import FieldError, MissingFieldError

if TYPE_CHECKING:
    from .peers import Peer

__all__ = [
    "TCHAR",
    "USER_AGENT",
    "Headers",
    "HeadersLike",
    "Request",
    "Response",
    "basic_credentials",
    "is_token",
]

# What our requests say.
USER_AGENT: Final = "fastws"

# The characters of a token (RFC 9110 §5.6.2), as part of a regular expression.
TCHAR: Final = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]"

_TOKEN = re.compile(rf"{TCHAR}+")
# A field value or a reason phrase: latin-1, except for what could end a line or a C string.
# Other control characters are invalid, but occur in cookies, and RFC 9110 §5.5 lets a recipient
# keep them. This accepts exactly what h11 accepts.
_TEXT = re.compile(r"[\x01-\x09\x0e-\xff]*")


def is_token(text: str) -> bool:
    """Return whether this is a token (RFC 9110 §5.6.2)."""
    return _TOKEN.fullmatch(text) is not None


def basic_credentials(username: str, password: str | None) -> str:
    """Return the value of Authorization or Proxy-Authorization (RFC 7617)."""
    credentials = b64encode(f"{username}:{password or ''}".encode())
    return f"Basic {credentials.decode('ascii')}"


class Headers:
    """Immutable header fields, in the order they were sent. Names are case-insensitive.

    No name and no value can break out of its line on the wire.

    Iteration yields the name of each field; a name appears as often as there are fields with
    it. `a | b` has the fields of `a` and `b`, without the fields of `a` whose names are in `b`.

    Args:
        fields: (name, value) pairs, a mapping, or other Headers.

    Raises:
        TypeError: if `fields` is none of these, or a name or value is not a string.
        ValueError: if a name is not a token, or a value is not latin-1 text or contains
            CR, LF or NUL (RFC 9110 §5.1, §5.5).
    """

    # Each can be made from another, and is when it is asked for: the fields; the values by
    # lower-case name; the fields as lines, which take the least memory.
    __slots__ = ("_by_name", "_lines", "_pairs")

    _by_name: dict[str, list[str]] | None
    _lines: str | None
    _pairs: tuple[tuple[str, str], ...] | None

    def __init__(self, fields: HeadersLike = ()) -> None:
        if isinstance(fields, Headers):
            # In this order: another thread may call _pack meanwhile.
            self._pairs = fields._pairs
            self._lines = fields._lines
            self._by_name = fields._by_name
            return
        pairs = fields.items() if isinstance(fields, Mapping) else fields
        if isinstance(pairs, (str, bytes)) or not isinstance(pairs, Iterable):
            kind = type(fields).__name__
            raise TypeError(f"header fields must be a mapping or pairs, not {kind!r}")
        self._by_name = self._lines = None
        self._pairs = tuple([_checked(field) for field in pairs])

    @classmethod
    def _of_lines(cls, lines: str) -> Headers:
        """Return the fields of a head that is known to be valid.

        Args:
            lines: the lines of the fields, with CRLF between them.
        """
        headers = cls.__new__(cls)
        headers._by_name, headers._lines, headers._pairs = None, lines, None
        return headers

    def _pack(self) -> None:
        """Use less memory, at the cost of a slower next lookup."""
        if self._lines is None:
            self._lines = "\r\n".join([f"{name}:{value}" for name, value in self._fields])
        self._by_name = self._pairs = None

    @property
    def _fields(self) -> tuple[tuple[str, str], ...]:
        pairs = self._pairs
        if pairs is None:
            parts = [line.partition(":") for line in self._split_lines()]
            self._pairs = pairs = tuple([(name, value.strip(" \t")) for name, _, value in parts])
        return pairs

    @property
    def _values(self) -> dict[str, list[str]]:
        values = self._by_name
        if values is None:
            values = {}
            pairs = self._pairs  # once: another thread may call _pack meanwhile
            if pairs is None:  # as when a request has just arrived
                for line in self._split_lines():
                    name, _, value = line.partition(":")
                    values.setdefault(name.lower(), []).append(value.strip(" \t"))
            else:
                for name, value in pairs:
                    values.setdefault(name.lower(), []).append(value)
            self._by_name = values
        return values

    def _split_lines(self) -> list[str]:
        # Neither name nor value can contain a line break, nor a name a colon.
        return self._lines.split("\r\n") if self._lines else []

    def __getitem__(self, name: str) -> str:
        """Return the value of the only field with this name.

        Raises:
            MissingFieldError: if there is none. It is a KeyError.
            FieldError: if there are several. Choosing one would be a guess, and if two
                programs guess differently, a request can bypass the checks of one of them.
        """
        values = self._values.get(name.lower())
        if values is None:
            raise MissingFieldError(name)
        if len(values) > 1:
            raise FieldError(name, len(values))
        return values[0]

    @overload
    def get(self, name: str, default: None = None) -> str | None: ...
    @overload
    def get(self, name: str, default: str) -> str: ...
    def get(self, name: str, default: str | None = None) -> str | None:
        """Return the value of the only field with this name, or `default` if there is none.

        Raises:
            FieldError: if there are several.
        """
        try:
            return self[name]
        except MissingFieldError:
            return default

    def get_all(self, name: str) -> list[str]:
        """Return the values of all fields with this name, in order."""
        return list(self._values.get(name.lower(), ()))

    def tokens(self, name: str) -> list[str]:
        """Return the members of a comma-separated list, which may span several fields.

        Empty members are dropped (RFC 9110 §5.6.1.2). Quoted strings are not recognized.
        """
        members = ",".join(self.get_all(name)).split(",")
        return [member for text in members if (member := text.strip(" \t"))]

    def items(self) -> tuple[tuple[str, str], ...]:
        """Return all fields as (name, value) pairs."""
        return self._fields

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name.lower() in self._values

    def __iter__(self) -> Iterator[str]:
        return (name for name, _ in self._fields)

    def __len__(self) -> int:
        return len(self._fields)

    def __or__(self, other: HeadersLike) -> Headers:
        other = Headers(other)
        if not other:
            return self
        kept = [(name, value) for name, value in self._fields if name not in other]
        return Headers([*kept, *other.items()])

    def __eq__(self, other: object) -> bool:
        # RFC 9110 §5.3: order matters only among fields with the same name.
        return self._values == other._values if isinstance(other, Headers) else NotImplemented

    def __hash__(self) -> int:
        return hash(frozenset((name, *values) for name, values in self._values.items()))

    def __repr__(self) -> str:
        return f"Headers({list(self._fields)!r})"


def _checked(field: tuple[str, str]) -> tuple[str, str]:
    if isinstance(field, str):  # with two characters, it would look like a pair
        raise TypeError("header field must be a pair of name and value, not 'str'")
    name, value = field
    for what, text in (("name", name), ("value", value)):
        if not isinstance(text, str):
            raise TypeError(f"header field {what} must be a str, not {type(text).__name__!r}")
    if not is_token(name):
        raise ValueError(f"invalid header field name: {name!r}")
    # RFC 9110 §5.5: whitespace around a value is not part of it.
    value = value.strip(" \t")
    if not _TEXT.fullmatch(value):
        raise ValueError(f"invalid value of header field {name}: {value!r}")
    return name, value


HeadersLike: TypeAlias = Headers | Mapping[str, str] | Iterable[tuple[str, str]]


# The maximum number of separators in a list. Legitimate lists have far fewer.
MAX_SEPARATORS: Final = 128


def list_members(headers: Headers, name: str) -> list[str]:
    """Return the members of a list, like `Headers.tokens`, which has no limit.

    Raises:
        ValueError: if there are too many.
    """
    if count_separators(headers.get_all(name), ",") > MAX_SEPARATORS:
        raise ValueError(f"too many members in {name}")
    return headers.tokens(name)


def count_separators(values: Sequence[str], characters: str) -> int:
    """Count the separators in a list, including those between its fields."""
    return sum(value.count(one) for value in values for one in characters) + len(values) - 1


_HOST = r"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._~%!$&'()*+,;=-]+)"
# RFC 9112 §3.2; the form depends on the method. In practice, paths and queries contain more than
# RFC 3986 allows; only a fragment is part of neither.
_TARGET = re.compile(
    rf"(?:(?i:https?|wss?)://{_HOST}(?::[0-9]{{0,5}})?(?=[/?]|\Z)|(?=/))[^#]*", re.ASCII
)
_TARGETS = {
    "CONNECT": re.compile(rf"{_HOST}:[0-9]{{1,5}}"),
    "OPTIONS": re.compile(rf"\*|{_TARGET.pattern}"),
}


def is_target(method: str, target: str) -> bool:
    """Return whether the target has the form that the method requires (RFC 9112 §3.2)."""
    # RFC 9110 §4.2.4: user information is an error.
    return _TARGETS.get(method, _TARGET).fullmatch(target) is not None


# The beginning of a target in absolute form (RFC 9112 §3.2.2), up to the path.
_ABSOLUTE_FORM = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://([^/?#]*)")


@dataclass(frozen=True, slots=True)
class Request:
    """A request without its body.

    Attributes:
        method: the method, as in "GET"; it is case-sensitive.
        target: the request target as it was sent (RFC 9112 §3.2), in ASCII.
        headers: the header fields.
        http_version: the version, as in "1.1".
        peer: what is known about the client; None if nobody said. `serve` says it if there is
            a `process_request`, and a `ServerHandshake` if it was told. It does not matter when
            requests are compared.
    """

    method: str
    target: str
    headers: Headers
    http_version: str = "1.1"
    peer: Peer | None = field(default=None, compare=False, repr=False)

    @property
    def path(self) -> str:
        """The target's path as it was sent: still percent-encoded, and not normalized.

        If the target is a complete URI (RFC 9112 §3.2.2), this is the path in it, or "/" if
        that is empty.
        """
        return self._split_target()[1].partition("?")[0] or "/"

    @property
    def query(self) -> str:
        """The target's query as it was sent, without the question mark."""
        return self._split_target()[1].partition("?")[2]

    @property
    def host(self) -> str:
        """The host that the request is for, with the port if one is given.

        It is the value of Host, unless the target is a complete URI; then it is taken from the
        URI, and Host is ignored (RFC 9112 §3.2.2).

        Raises:
            FieldError: if Host is needed, and is missing or appears more than once.
        """
        return self._split_target()[0] or self.headers["Host"]

    def _split_target(self) -> tuple[str, str]:
        """Return the authority in the target, if any, and the rest."""
        if self.target.startswith("/"):
            return "", self.target
        uri = _ABSOLUTE_FORM.match(self.target)
        return ("", self.target) if uri is None else (uri[1], self.target[uri.end() :])

    @property
    def is_websocket(self) -> bool:
        """Whether the request asks for an upgrade to WebSocket (RFC 6455 §4.2.1)."""
        return "websocket" in [protocol.lower() for protocol in self.headers.tokens("Upgrade")]


@dataclass(frozen=True, slots=True, init=False)
class Response:
    """A complete response.

    Args:
        status: the status code, 100 to 999.
        headers: the header fields. Fields that frame the body are added when it is sent.
        body: the content, as bytes.
        reason: the reason phrase; if empty, the registered one is sent.

    Raises:
        TypeError: if an argument has the wrong type.
        ValueError: if an argument cannot be sent.
    """

    status: int
    headers: Headers
    body: bytes
    reason: str

    def __init__(
        self, status: int, headers: HeadersLike = (), body: bytes = b"", reason: str = ""
    ) -> None:
        status = index(status)
        if not 100 <= status <= 999:
            raise ValueError(f"status must be 100 to 999, not {status}")
        if not isinstance(reason, str):
            raise TypeError(f"reason must be a str, not {type(reason).__name__!r}")
        if not _TEXT.fullmatch(reason):
            raise ValueError(f"invalid reason phrase: {reason!r}")
        object.__setattr__(self, "status", status)
        object.__setattr__(self, "headers", Headers(headers))
        object.__setattr__(self, "body", bytes(memoryview(body)))  # bytes(5) would be zeros
        object.__setattr__(self, "reason", reason)

    @classmethod
    def text(cls, text: str, status: int = 200, headers: HeadersLike = ()) -> Response:
        """Return a plain-text response."""
        return cls._of_type("text/plain", text, status, headers)

    @classmethod
    def html(cls, html: str, status: int = 200, headers: HeadersLike = ()) -> Response:
        """Return an HTML response."""
        return cls._of_type("text/html", html, status, headers)

    @classmethod
    def _of_type(cls, media: str, text: str, status: int, headers: HeadersLike) -> Response:
        content_type = Headers([("Content-Type", f"{media}; charset=utf-8")])
        return cls(status, content_type | headers, text.encode())
