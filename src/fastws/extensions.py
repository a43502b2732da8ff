"""Extensions in the opening handshake (RFC 6455 §9.1): lists of them, and how both ends agree.

This module knows how Sec-WebSocket-Extensions is written, and which of the extensions that
are given to it are offered, answered and accepted. It does not know what any of them does,
nor what its parameters mean: each one judges its own.
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

# §9.1 uses RFC 2616's grammar: white space may stand between any two tokens.
_PARAM = re.compile(
    rf'(?P<name>{TCHAR}+)[ \t]*(?:=[ \t]*(?:(?P<token>{TCHAR}+)|"(?P<quoted>(?:\\?{TCHAR})+)"))?'
)


def parse_extensions(values: Iterable[str]) -> list[tuple[str, list[tuple[str, str | None]]]]:
    """Parse Sec-WebSocket-Extensions (RFC 6455 §9.1).

    Args:
        values: the values of all fields of that name, in order.

    Returns:
        (name, parameters) for each extension; a parameter without a value has None.

    Raises:
        ValueError: if a value is malformed, or there are more than 129 extensions and
            parameters in all.
    """
    extensions = []
    values = list(values)
    # Before anything is taken apart: it would take long.
    if count_separators(values, ",;") > MAX_SEPARATORS:
        raise ValueError("too many extensions")
    for value in values:
        # A quoted value must be a token once unquoted (§9.1), so that no separator stands
        # inside quotes in a good list, and in a bad one the quotes are torn and match nothing.
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
        params: its parameters; a value of None leaves the name alone.

    Raises:
        ValueError: if a name or value is not a token.
    """
    words = [name, *(word for param in params for word in param if word is not None)]
    for word in words:
        if not is_token(word):
            raise ValueError(f"not a token: {word!r}")
    return "; ".join([name, *(key if value is None else f"{key}={value}" for key, value in params)])


# Agreeing -----------------------------------------------------------------------------------


class ServerExtension(Protocol):
    """What a server needs to agree on an extension (RFC 6455 §9.1)."""

    @property
    def name(self) -> str:
        """The extension's registered name."""

    def accept_offer(self, params: Params) -> tuple[Params, object] | None:
        """Judge one offer.

        Args:
            params: the offer's parameters.

        Returns:
            The response's parameters and the agreed extension, which `ServerHandshake`
            passes on in `extensions`; None to decline.
        """


class ClientExtension(Protocol):
    """What a client needs to agree on an extension (RFC 6455 §9.1)."""

    @property
    def name(self) -> str:
        """The extension's registered name."""

    def offers(self) -> Sequence[Params]:
        """Return the parameters of each offer, the preferred one first."""

    def accept_response(self, params: Params) -> object:
        """Judge the server's answer to the offers.

        Args:
            params: the response's parameters.

        Returns:
            The agreed extension, which `ClientHandshake` passes on in `extensions`.

        Raises:
            ValueError: if the answer does not fit the offers.
        """


_Extension = TypeVar("_Extension", ServerExtension, ClientExtension)


def by_name(extensions: Sequence[_Extension]) -> dict[str, _Extension]:
    """Return the extensions by their names.

    Raises:
        ValueError: if two share a name.
    """
    table = {extension.name: extension for extension in extensions}
    if len(table) < len(extensions):
        raise ValueError("two extensions of one name")
    return table


def make_offers(extensions: Mapping[str, ClientExtension]) -> list[str]:
    """Return what a client offers, each offer as it goes into the list."""
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
        The answers, as they go into the list, and what was agreed on, in the same order.
    """
    answers, agreed = [], []
    left = dict(extensions)
    for name, params in offers:
        accepted = left[name].accept_offer(params) if name in left else None
        if accepted is not None:
            # Other offers of one name are alternatives (§9.1).
            del left[name]
            answers.append(format_extension(name, accepted[0]))
            agreed.append(accepted[1])
    return answers, agreed


def accept_answers(
    extensions: Mapping[str, ClientExtension], answers: Iterable[tuple[str, Params]]
) -> list[object]:
    """Judge a server's answers to what was offered.

    Returns:
        What was agreed on, in the order of the answers.

    Raises:
        ValueError: if an answer fits no offer, or there are two to one offer.
    """
    agreed = []
    left = dict(extensions)
    for name, params in answers:
        if name not in left:
            raise ValueError(f"{name} was not offered, or is there twice")
        agreed.append(left.pop(name).accept_response(params))
    return agreed
