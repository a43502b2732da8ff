"""Negotiates compression with the installed libraries, in both roles.

Their offers and answers may change; tests/test_deflate.py has a table of the libraries that
cannot be run here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from aiohttp.http_websocket import ws_ext_gen, ws_ext_parse
from autobahn.websocket.compress_deflate import (
    PerMessageDeflateOffer,
    PerMessageDeflateOfferAccept,
    PerMessageDeflateResponse,
)
from websockets.extensions.permessage_deflate import (
    ClientPerMessageDeflateFactory,
    ServerPerMessageDeflateFactory,
)
from wsproto import extensions as wsproto

from fastws import PerMessageDeflate
from fastws.handshake import format_extension, parse_extensions

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastws import Agreement

    # The windows of client and server that a library keeps or uses; None for any window.
    Windows = tuple[int | None, int | None]

NAME = "permessage-deflate"
CONFIGS = [
    {},
    {"max_window_bits": 15},
    {"max_window_bits": 9, "peer_max_window_bits": 9},
    {"max_window_bits": 12, "peer_max_window_bits": 12},
    {"context_takeover": False, "peer_context_takeover": False},
]


def params(text: str) -> list[tuple[str, str | None]]:
    ((name, found),) = parse_extensions([text])
    assert name == NAME
    return found


def lists(text: str) -> dict[str, list[str | bool]]:
    return {name: [True if value is None else value] for name, value in params(text)}


# Clients: what they offer, and how they interpret an answer. They raise if they refuse it.


def websockets_client(**options: int) -> tuple[str, Callable[[str], Windows]]:
    factory = ClientPerMessageDeflateFactory(**options)

    def finish(answer: str) -> Windows:
        agreed = factory.process_response_params(params(answer), [])
        return agreed.local_max_window_bits, agreed.remote_max_window_bits

    return format_extension(NAME, factory.get_request_params()), finish


def wsproto_client(**options: int) -> tuple[str, Callable[[str], Windows]]:
    extension = wsproto.PerMessageDeflate(**options)

    def finish(answer: str) -> Windows:
        extension.finalize(answer)
        return extension.client_max_window_bits, extension.server_max_window_bits

    return f"{NAME}; {extension.offer()}", finish


def aiohttp_client(compress: int = 15) -> tuple[str, Callable[[str], Windows]]:
    def finish(answer: str) -> Windows:
        bits, _ = ws_ext_parse(answer, isserver=False)
        assert bits
        return bits, None

    return ws_ext_gen(compress), finish


def autobahn_client(**options: int) -> tuple[str, Callable[[str], Windows]]:
    def finish(answer: str) -> Windows:
        response = PerMessageDeflateResponse.parse(lists(answer))
        return response.client_max_window_bits or 15, response.server_max_window_bits or 15

    return PerMessageDeflateOffer(**options).get_extension_string(), finish


CLIENTS = {
    "websockets": lambda: websockets_client(client_max_window_bits=True),
    "websockets 12": lambda: websockets_client(
        client_max_window_bits=12, server_max_window_bits=12
    ),
    "websockets 15": lambda: websockets_client(
        client_max_window_bits=15, server_max_window_bits=15
    ),
    "wsproto": wsproto_client,
    "wsproto 10": lambda: wsproto_client(client_max_window_bits=10, server_max_window_bits=10),
    "aiohttp": aiohttp_client,
    "aiohttp 13": lambda: aiohttp_client(13),
    "autobahn": autobahn_client,
    "autobahn 11": lambda: autobahn_client(request_max_window_bits=11),
}


@pytest.mark.parametrize("config", CONFIGS, ids=str)
@pytest.mark.parametrize("who", CLIENTS)
def test_client(who: str, config: dict[str, int]) -> None:
    offer, finish = CLIENTS[who]()
    accepted = PerMessageDeflate(**config).accept_offer(params(offer))
    assert accepted is not None
    answer, agreed = accepted
    client_bits, server_bits = finish(format_extension(NAME, answer))
    hold_together(agreed, theirs=client_bits, kept=server_bits)


def hold_together(agreed: Agreement, *, theirs: int | None, kept: int | None) -> None:
    """The peer refers back no farther than our window, and we no farther than its window."""
    assert theirs is None or theirs <= agreed.peer_max_window_bits
    assert kept is None or agreed.max_window_bits <= kept


# Servers: what they answer to an offer.


def websockets_server(offer: str, **options: int | bool) -> tuple[str, Windows]:
    factory = ServerPerMessageDeflateFactory(**options)
    answer, agreed = factory.process_request_params(params(offer), [])
    text = format_extension(NAME, answer)
    return text, (agreed.remote_max_window_bits, agreed.local_max_window_bits)


def wsproto_server(offer: str, **options: int) -> tuple[str, Windows]:
    extension = wsproto.PerMessageDeflate(**options)
    answer = extension.accept(offer)
    assert isinstance(answer, str)
    text = f"{NAME}; {answer}".removesuffix("; ")
    return text, (extension.client_max_window_bits, extension.server_max_window_bits)


def aiohttp_server(offer: str) -> tuple[str, Windows]:
    bits, no_takeover = ws_ext_parse(offer, isserver=True)
    assert bits
    return ws_ext_gen(bits, isserver=True, server_notakeover=no_takeover), (None, bits)


def autobahn_server(offer: str, **options: int) -> tuple[str, Windows]:
    parsed = PerMessageDeflateOffer.parse(lists(offer))
    text = PerMessageDeflateOfferAccept(parsed, **options).get_extension_string()
    bits = options.get("request_max_window_bits", 15)
    return text, (bits, parsed.request_max_window_bits or 15)


SERVERS = {
    "websockets": websockets_server,
    "websockets 12": lambda offer: websockets_server(
        offer, server_max_window_bits=12, client_max_window_bits=12
    ),
    "websockets 14": lambda offer: websockets_server(
        offer, client_max_window_bits=14, require_client_max_window_bits=True
    ),
    "wsproto": wsproto_server,
    "wsproto 13": lambda offer: wsproto_server(offer, client_max_window_bits=13),
    "aiohttp": aiohttp_server,
    "autobahn": autobahn_server,
    "autobahn 13": lambda offer: autobahn_server(offer, request_max_window_bits=13),
    "autobahn 9": lambda offer: autobahn_server(offer, request_max_window_bits=9),
}


@pytest.mark.parametrize("config", CONFIGS, ids=str)
@pytest.mark.parametrize("who", SERVERS)
def test_server(who: str, config: dict[str, int]) -> None:
    ours = PerMessageDeflate(**config)
    answer, (client_bits, server_bits) = SERVERS[who](format_extension(NAME, ours.offers()[0]))
    agreed = ours.accept_response(params(answer))
    hold_together(agreed, theirs=server_bits, kept=client_bits)
