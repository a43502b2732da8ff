"""Extensions in the opening handshake (RFC 6455 §9.1): how they are listed and negotiated.

This module knows the syntax of Sec-WebSocket-Extensions, and how the two ends agree on a list
of extensions. It does not know any extension, nor what its parameters mean: each extension
judges its own.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol, TypeAlias, TypeVar

from .http import MAX_SEPARATORS, TCHAR, count_separators, is_token

__all__ = [
    "ClientExtension",
    "Params",
    "ServerExtension",
    "format_extension",
    "parse_extensions",
]

Params: TypeAlias = Sequence[tuple[str, str | None]]


# Lists --------------------------------------------------------------------------------------

# §9.1 uses the grammar of RFC 2616, which allows white space between any two tokens.
_PARAM = re.compile(
    rf'(?P<name>{TCHAR}+)[ \t]*(?:=[ \t]*(?:(?P<token>{TCHAR}+)|"(?P<quoted>(?:\\?{TCHAR})+)"))?'
)


def parse_extensions(values: Iterable[str]) -> list[tuple[str, list[tuple[str, str | None]]]]:
    """Parse Sec-WebSocket-Extensions (RFC 6455 §9.1).

    Args:
        values: the values of all fields with that name, in order.

    Returns:
        A (name, parameters) pair for each extension. A parameter without a value is paired
        with None.

    Raises:
        ValueError: if a value is malformed, or there are more than 129 extensions and
            parameters in total.
    """
    extensions = []
    values = list(values)
    # Count before splitting, which takes long if there are many.
    if count_separators(values, ",;") > MAX_SEPARATORS:
        raise ValueError("too many extensions")
    for value in values:
        # A quoted value must be a token once unquoted (§9.1), so a valid list has no separator
        # inside quotes. In an invalid one, the split leaves a single quote, which never matches.
        for item in value.split(","):
            name, *params = (part.strip(" \t") for part in item.split(";"))
            if is_token(name):
                extensions.append((name, [_parse_param(param) for param in params]))
            elif name or params:
                raise ValueError(f"not an extension: {item!r}")
    return extensions


def _parse_param(text: str) -> tuple[str, str | None]:
    match = _PARAM.fullmatch(text)
    if match is None:
        raise ValueError(f"not an extension parameter: {text!r}")
    if match["quoted"]:
        return match["name"], match["quoted"].replace("\\", "")
    return match["name"], match["token"]


def format_extension(name: str, params: Params = ()) -> str:
    """Write one extension for Sec-WebSocket-Extensions (RFC 6455 §9.1).

    Args:
        name: the extension's name.
        params: its parameters. If a value is None, only the name is written.

    Raises:
        ValueError: if a name or value is not a token.
    """
    words = [name, *(word for param in params for word in param if word is not None)]
    for word in words:
        if not is_token(word):
            raise ValueError(f"not a token: {word!r}")
    return "; ".join([name, *(key if value is None else f"{key}={value}" for key, value in params)])


# Negotiation -----------------------------------------------------------------------------------


class ServerExtension(Protocol):
    """An extension that a server can negotiate (RFC 6455 §9.1)."""

    @property
    def name(self) -> str:
        """The extension's registered name."""

    def accept_offer(self, params: Params) -> tuple[Params, object] | None:
        """Judge one offer.

        Args:
            params: the offer's parameters.

        Returns:
            The parameters of the response, and the agreement, which `ServerHandshake` puts
            into its `extensions`; None to decline.
        """


class ClientExtension(Protocol):
    """An extension that a client can negotiate (RFC 6455 §9.1)."""

    @property
    def name(self) -> str:
        """The extension's registered name."""

    def offers(self) -> Sequence[Params]:
        """Return the parameters of each offer, in order of preference."""

    def accept_response(self, params: Params) -> object:
        """Judge the server's answer to the offers.

        Args:
            params: the response's parameters.

        Returns:
            The agreement, which `ClientHandshake` puts into its `extensions`.

        Raises:
            ValueError: if the answer does not match an offer.
        """


_Extension = TypeVar("_Extension", ServerExtension, ClientExtension)


def by_name(extensions: Sequence[_Extension]) -> dict[str, _Extension]:
    """Return the extensions in a dictionary, by name.

    Raises:
        ValueError: if two have the same name.
    """
    table = {extension.name: extension for extension in extensions}
    if len(table) < len(extensions):
        raise ValueError("extensions must have different names")
    return table


def make_offers(extensions: Mapping[str, ClientExtension]) -> list[str]:
    """Return a client's offers, as items of Sec-WebSocket-Extensions."""
    return [
        format_extension(name, params)
        for name, extension in extensions.items()
        for params in extension.offers()
    ]


def answer_offers(
    extensions: Mapping[str, ServerExtension], offers: Iterable[tuple[str, Params]]
) -> tuple[list[str], list[object]]:
    """Choose among a client's offers.

    Returns:
        The answers, as items of Sec-WebSocket-Extensions, and the agreements in the same
        order.
    """
    answers, agreed = [], []
    left = dict(extensions)
    for name, params in offers:
        accepted = left[name].accept_offer(params) if name in left else None
        if accepted is not None:
            # Further offers with the same name are alternatives (§9.1).
            del left[name]
            answers.append(format_extension(name, accepted[0]))
            agreed.append(accepted[1])
    return answers, agreed


def accept_answers(
    extensions: Mapping[str, ClientExtension], answers: Iterable[tuple[str, Params]]
) -> list[object]:
    """Judge a server's answers to the offers.

    Returns:
        The agreements, in the order of the answers.

    Raises:
        ValueError: if an answer matches no offer, or an extension is answered twice.
    """
    agreed = []
    left = dict(extensions)
    for name, params in answers:
        if name not in left:
            raise ValueError(f"{name} was not offered, or appears twice")
        agreed.append(left.pop(name).accept_response(params))
    return agreed
