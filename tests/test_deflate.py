"""Tests `deflate`, and its use in the decoders of both twins, against RFC 7692.

Every installed backend is tested; in CI, a missing one is an error.
"""

from __future__ import annotations

import gc
import random
import sys
import threading
import time
import zlib
from importlib import import_module
from itertools import cycle, product
from operator import xor
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fastws import deflate, spec
from fastws._py.messages import MessageDecoder
from fastws.deflate import Agreement, Deflater, Inflater, PerMessageDeflate, deflate_alone
from fastws.events import Close, Ping, Pong
from fastws.exceptions import (
    InvalidPayloadError,
    MessageTooBigError,
    ProtocolError,
    RequestError,
    ResponseError,
)
from fastws.handshake import ClientHandshake, ServerHandshake, accept_key, parse_extensions
from fastws.rules import max_compressed
from fastws.spec import Role

from .tools import traced
from .wire import FLUSHED, agreement, compressed

if TYPE_CHECKING:
    from collections.abc import Iterator

MIB = 1 << 20
Z_FIXED = 4  # PyPy's zlib has no name for it.
LEVELS = {"zlib": (0, 1, 6, 9), "zlib-ng": (0, 1, 2, 6, 9), "isal": (0, 1, 2, 3)}
NOT_DEFLATE = "compressed message is not DEFLATE"

HELLO = bytes.fromhex("f248cdc9c90700")  # RFC 7692 §7.2.3.1
FINAL_HELLO = bytes.fromhex("f348cdc9c9070000")  # §7.2.3.4


def bomb(size: int, byte: bytes = b"\x00") -> bytes:
    """A message of `size` bytes, a multiple of 1 MiB, compressed to about a thousandth."""
    stream = zlib.compressobj(9, zlib.DEFLATED, -15)
    unit = stream.compress(byte * MIB) + stream.flush(zlib.Z_FULL_FLUSH)
    return (unit * (size // MIB)).removesuffix(FLUSHED)


def noise(size: int, seed: int = 0) -> bytes:
    return random.Random(seed).randbytes(size)


def cut(data: bytes, size: int) -> list[bytes]:
    return [data[i : i + size] for i in range(0, len(data), size)] or [b""]


def inflate(
    inflater: Inflater, payload: bytes, budget: int | None = None, piece: int | None = None
) -> bytes:
    """Inflate a whole message, in pieces of this size, within the room."""
    pieces = cut(payload, piece or max(len(payload), 1))
    result = b""
    for number, data in enumerate(pieces, 1):
        left = None if budget is None else budget - len(result)
        result += inflater.inflate(data, left, number == len(pieces))
        assert budget is None or len(result) <= budget + 1
        if budget is not None and len(result) > budget:
            break
    return result


# How it is wanted ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "options"),
    [
        (ValueError, {"max_window_bits": 8}),
        (ValueError, {"max_window_bits": 16}),
        (ValueError, {"peer_max_window_bits": 8}),
        (ValueError, {"peer_max_window_bits": 16}),
        (TypeError, {"max_window_bits": "12"}),
        (TypeError, {"max_window_bits": 12.0}),
        (TypeError, {"peer_max_window_bits": 12.5}),
        (TypeError, {"peer_max_window_bits": None}),
        (ValueError, {"level": -2}),
        (ValueError, {"level": 10}),
        (ValueError, {"level": 2**70}),
        (TypeError, {"level": "6"}),
        (ValueError, {"mem_level": 0}),
        (ValueError, {"mem_level": 10}),
        (TypeError, {"mem_level": None}),
        (ValueError, {"threshold": -1}),
        (TypeError, {"threshold": None}),
        (ValueError, {"backend": "zlib-nj"}),
        (ValueError, {"backend": None}),
    ],
)
def test_bad_arguments_are_refused(error: type[Exception], options: dict[str, Any]) -> None:
    with pytest.raises(error):
        PerMessageDeflate(**options)


def test_levels_are_the_backends_own() -> None:
    pytest.importorskip("isal")
    PerMessageDeflate(backend="isal", level=3)
    with pytest.raises(ValueError, match="isal does not support level=4, mem_level=5"):
        PerMessageDeflate(backend="isal", level=4)


def test_backend_that_is_not_installed_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    library = deflate.Library(lambda: import_module("no_such_module"), 6, ("no_such_module", ""))
    monkeypatch.setitem(deflate.LIBRARIES, "elsewhere", library)
    with pytest.raises(ImportError, match=r"pip install 'fastws-codec\[elsewhere\]'"):
        PerMessageDeflate(backend="elsewhere")


def test_arguments_are_taken_by_name_and_kept() -> None:
    with pytest.raises(TypeError):
        PerMessageDeflate(True)  # type: ignore[misc]
    config = PerMessageDeflate()
    with pytest.raises(AttributeError):
        config.level = 1  # type: ignore[misc]
    assert config == PerMessageDeflate()
    assert config.name == "permessage-deflate"


# Negotiation: the server (RFC 7692 §7.1) ---------------------------------------------------------

KEY = "dGhlIHNhbXBsZSBub25jZQ=="


def serve(offers: str, **config: Any) -> tuple[str, Agreement | None]:
    """Return the server's answer to offers, and what it agreed on."""
    handshake = ServerHandshake(extensions=[PerMessageDeflate(**config)])
    lines = [
        "GET / HTTP/1.1",
        "Host: example",
        "Upgrade: websocket",
        "Connection: Upgrade",
        f"Sec-WebSocket-Key: {KEY}",
        "Sec-WebSocket-Version: 13",
        f"Sec-WebSocket-Extensions: {offers}",
    ]
    request = handshake.receive_data("\r\n".join([*lines, "", ""]).encode("latin-1"))
    assert request is not None
    head = handshake.accept(request).decode("latin-1")
    answers = [
        line.partition(": ")[2]
        for line in head.split("\r\n")
        if line.startswith("Sec-WebSocket-Extensions: ")
    ]
    if not answers:
        assert handshake.extensions == []
        assert handshake.deflate is None
        return "", None
    (answer,), (agreed,) = answers, handshake.extensions
    name, _, parameters = answer.partition("; ")
    assert name == "permessage-deflate"
    assert isinstance(agreed, Agreement)
    assert handshake.deflate is agreed
    assert agreed.role is Role.SERVER
    return parameters, agreed


def terms(agreed: Agreement | None) -> tuple[bool, bool, int, int] | None:
    """Our takeover, the peer's takeover, our window, the peer's window."""
    if agreed is None:
        return None
    return (
        agreed.context_takeover,
        agreed.peer_context_takeover,
        agreed.max_window_bits,
        agreed.peer_max_window_bits,
    )


WIDE = {"max_window_bits": 15}
SMALL = {"max_window_bits": 11, "peer_max_window_bits": 10}


@pytest.mark.parametrize(
    ("config", "offer", "answer", "agreed"),
    [
        # Nothing is asked for: the client need not know that our window is smaller.
        ({}, "", "", (True, True, 12, 15)),
        (WIDE, "", "", (True, True, 15, 15)),
        # A client that does not offer to use a smaller window is not asked to.
        (SMALL, "", "", (True, True, 11, 15)),
        (SMALL, "client_max_window_bits", "client_max_window_bits=10", (True, True, 11, 10)),
        # With a value, the client says what it will use; not every client does so unconfirmed.
        (WIDE, "client_max_window_bits", "", (True, True, 15, 15)),
        (WIDE, "client_max_window_bits=15", "", (True, True, 15, 15)),
        (WIDE, "client_max_window_bits=9", "client_max_window_bits=9", (True, True, 15, 9)),
        (WIDE, "client_max_window_bits=8", "client_max_window_bits=8", (True, True, 15, 8)),
        (
            SMALL,
            "client_max_window_bits=12",
            "client_max_window_bits=10",
            (True, True, 11, 10),
        ),
        (SMALL, "client_max_window_bits=9", "client_max_window_bits=9", (True, True, 11, 9)),
        # A requested window is confirmed as requested, although we may use a smaller one.
        (WIDE, "server_max_window_bits=15", "server_max_window_bits=15", (True, True, 15, 15)),
        (WIDE, "server_max_window_bits=9", "server_max_window_bits=9", (True, True, 9, 15)),
        (SMALL, "server_max_window_bits=10", "server_max_window_bits=10", (True, True, 10, 15)),
        (SMALL, "server_max_window_bits=15", "server_max_window_bits=15", (True, True, 11, 15)),
        (SMALL, "server_max_window_bits=11", "server_max_window_bits=11", (True, True, 11, 15)),
        # No library compresses for a window of 256 bytes.
        ({}, "server_max_window_bits=8", None, None),
        # Context takeover
        (WIDE, "server_no_context_takeover", "server_no_context_takeover", (False, True, 15, 15)),
        (WIDE, "client_no_context_takeover", "client_no_context_takeover", (True, False, 15, 15)),
        # ... which we can forgo without saying so.
        (WIDE | {"context_takeover": False}, "", "", (False, True, 15, 15)),
        (
            WIDE | {"context_takeover": False},
            "server_no_context_takeover",
            "server_no_context_takeover",
            (False, True, 15, 15),
        ),
        (
            WIDE | {"peer_context_takeover": False},
            "",
            "client_no_context_takeover",
            (True, False, 15, 15),
        ),
        # All at once, in another order
        (
            {},
            (
                "client_max_window_bits=11; server_no_context_takeover; server_max_window_bits=10;"
                "client_no_context_takeover"
            ),
            (
                "server_no_context_takeover; client_no_context_takeover; server_max_window_bits=10;"
                " client_max_window_bits=11"
            ),
            (False, False, 10, 11),
        ),
        # RFC 6455 §9.1: a value may be quoted.
        (WIDE, 'server_max_window_bits="10"', "server_max_window_bits=10", (True, True, 10, 15)),
        (WIDE, r'client_max_window_bits="\9"', "client_max_window_bits=9", (True, True, 15, 9)),
        # §7.1: decline an offer if a parameter is unknown, has a bad value, or appears twice.
        *(
            ({}, bad, None, None)
            for bad in [
                "server_max_window_bits",
                "unknown",
                "unknown=1",
                "Server_no_context_takeover",
                "server_no_context_takeover=1",
                "client_no_context_takeover=true",
                "server_no_context_takeover; server_no_context_takeover",
                "client_no_context_takeover; client_no_context_takeover",
                "server_max_window_bits=10; server_max_window_bits=10",
                "server_max_window_bits=10; server_max_window_bits=11",
                "client_max_window_bits; client_max_window_bits",
                "client_max_window_bits; client_max_window_bits=10",
                *(
                    f"{side}_max_window_bits={value}"
                    for side in ("server", "client")
                    for value in ("7", "08", "09", "010", "16", "0", "-9", "+9", "9.0", "x", "1e1")
                ),
            ]
        ),
    ],
)
def test_server_answers_an_offer(
    config: dict[str, Any], offer: str, answer: str | None, agreed: tuple[Any, ...] | None
) -> None:
    offers = "permessage-deflate" + (offer and f"; {offer}")
    assert serve(offers, **config) == (answer or "", serve(offers, **config)[1])
    assert terms(serve(offers, **config)[1]) == agreed
    # §5.1: declining an offer does not affect the next one.
    fallback = "permessage-deflate; client_no_context_takeover"
    if agreed is None:
        parameters, taken = serve(f"{offers}, {fallback}", **config)
        assert parameters == "client_no_context_takeover"
        assert terms(taken) == (True, False, 12, 15)
    else:
        assert terms(serve(f"{offers}, {fallback}", **config)[1]) == agreed
        assert terms(serve(f"x-other, {offers}, {fallback}", **config)[1]) == agreed


def test_server_takes_the_first_offer_it_can() -> None:
    """With a second field line, and a window of 8 bits in front."""
    parameters, agreed = serve(
        "permessage-deflate; server_max_window_bits=8, permessage-deflate; unknown\r\n"
        "Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=10,"
        " permessage-deflate",
        **WIDE,
    )
    assert parameters == "server_max_window_bits=10"
    assert terms(agreed) == (True, True, 10, 15)


@pytest.mark.parametrize("value", ['""', '"1 0"', "", '"10', "10 11", '" 10"'])
def test_server_refuses_a_request_whose_offer_is_no_list(value: str) -> None:
    with pytest.raises(RequestError, match="malformed Sec-WebSocket-Extensions"):
        serve(f"permessage-deflate; server_max_window_bits={value}")


# Negotiation: the client -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "offers"),
    [
        # Whatever the server answers, we can use a smaller window.
        ({}, "permessage-deflate; client_max_window_bits"),
        (WIDE, "permessage-deflate; client_max_window_bits"),
        (
            {"context_takeover": False, "peer_context_takeover": False},
            (
                "permessage-deflate; server_no_context_takeover; client_no_context_takeover;"
                " client_max_window_bits"
            ),
        ),
        (
            SMALL,
            (
                "permessage-deflate; client_max_window_bits; server_max_window_bits=10,"
                " permessage-deflate; client_max_window_bits"
            ),
        ),
    ],
)
def test_client_offers(config: dict[str, Any], offers: str) -> None:
    request = ClientHandshake("ws://h", extensions=[PerMessageDeflate(**config)]).request()
    assert f"\r\nSec-WebSocket-Extensions: {offers}\r\n".encode() in request


def connect(answer: str, **config: Any) -> Agreement | None:
    """Return what a client agrees on if it gets this answer."""
    handshake = ClientHandshake(
        "ws://h", key=b"the sample nonce", extensions=[PerMessageDeflate(**config)]
    )
    lines = [
        "HTTP/1.1 101 Switching Protocols",
        "Upgrade: websocket",
        "Connection: Upgrade",
        f"Sec-WebSocket-Accept: {accept_key(KEY)}",
        f"Sec-WebSocket-Extensions: {answer}",
    ]
    handshake.receive_data("\r\n".join([*lines, "", ""]).encode("latin-1"))
    if not handshake.extensions:
        return None
    (agreed,) = handshake.extensions
    assert isinstance(agreed, Agreement)
    assert handshake.deflate is agreed
    assert agreed.role is Role.CLIENT
    return agreed


@pytest.mark.parametrize(
    ("config", "answer", "agreed"),
    [
        (WIDE, "", (True, True, 15, 15)),
        ({}, "", (True, True, 12, 15)),
        # A server may name its window, and forgo takeover, without being asked.
        (WIDE, "server_max_window_bits=15", (True, True, 15, 15)),
        (WIDE, "server_max_window_bits=8", (True, True, 15, 8)),
        (SMALL, "server_max_window_bits=10", (True, True, 11, 10)),
        (WIDE, "server_no_context_takeover", (True, False, 15, 15)),
        # It may ask us for what we offered.
        (WIDE, "client_no_context_takeover", (False, True, 15, 15)),
        (WIDE, "client_max_window_bits=15", (True, True, 15, 15)),
        (WIDE, 'client_max_window_bits="9"', (True, True, 9, 15)),
        (WIDE, "client_max_window_bits=8", (True, True, 8, 15)),
        ({}, "client_max_window_bits=12", (True, True, 12, 15)),
        ({}, "client_max_window_bits=9", (True, True, 9, 15)),
        # ... which may be more than we will use.
        ({}, "client_max_window_bits=13", (True, True, 12, 15)),
        ({}, "client_max_window_bits=15", (True, True, 12, 15)),
        (SMALL, "client_max_window_bits=12; server_max_window_bits=10", (True, True, 11, 10)),
        # It need not confirm what we do unasked.
        ({"context_takeover": False}, "", (False, True, 12, 15)),
        # The answer to our second offer, which leaves the window to the server.
        (SMALL, "", (True, True, 11, 15)),
        (SMALL, "server_max_window_bits=14", (True, True, 11, 14)),
        (
            {"peer_context_takeover": False},
            (
                "client_max_window_bits=10; server_max_window_bits=11; server_no_context_takeover;"
                "client_no_context_takeover"
            ),
            (False, False, 10, 11),
        ),
    ],
)
def test_client_takes_an_answer(
    config: dict[str, Any], answer: str, agreed: tuple[Any, ...]
) -> None:
    assert terms(connect("permessage-deflate" + (answer and f"; {answer}"), **config)) == agreed


@pytest.mark.parametrize(
    ("config", "answer"),
    [
        # §7.1.2.2: never without a value.
        ({}, "client_max_window_bits"),
        (WIDE, "client_max_window_bits"),
        # §7.1.1.1: the server must confirm what we asked for.
        ({"peer_context_takeover": False}, ""),
        ({"peer_context_takeover": False}, "client_no_context_takeover"),
        # §7.1: as in an offer
        *(
            (WIDE, bad)
            for bad in [
                "unknown",
                "server_max_window_bits",
                "server_max_window_bits=08",
                "server_max_window_bits=16",
                "client_max_window_bits=7",
                "client_max_window_bits=09",
                "client_max_window_bits=16",
                "server_no_context_takeover=0",
                "client_no_context_takeover=0",
                "server_no_context_takeover; server_no_context_takeover",
                "client_max_window_bits=9; client_max_window_bits=9",
                "server_max_window_bits=9; server_max_window_bits=10",
            ]
        ),
    ],
)
def test_client_refuses_an_answer(config: dict[str, Any], answer: str) -> None:
    with pytest.raises(ResponseError, match="bad Sec-WebSocket-Extensions"):
        connect("permessage-deflate" + (answer and f"; {answer}"), **config)


def test_client_refuses_to_be_answered_twice() -> None:
    with pytest.raises(ResponseError, match="appears twice"):
        connect("permessage-deflate, permessage-deflate")


def test_client_goes_without_when_the_server_does() -> None:
    handshake = ClientHandshake("ws://h", extensions=[PerMessageDeflate()])
    assert handshake.extensions == []


# Negotiation: what others say --------------------------------------------------------------------

# What clients offer, by default and with options.
OFFERS = {
    "Chrome, Edge, Node's ws, undici, Bun, .NET, websockets, Tornado, faye, Tomcat, Tyrus": (
        "permessage-deflate; client_max_window_bits",
        (True, True, 12, 15),
    ),
    "Firefox, Safari, OkHttp, Jetty, Mojolicious, coder's Go client": (
        "permessage-deflate",
        (True, True, 12, 15),
    ),
    "Netty, and its older names of the extension": (
        "permessage-deflate;client_max_window_bits,deflate-frame,x-webkit-deflate-frame",
        (True, True, 12, 15),
    ),
    "Netty, told to ask for a window": (
        "permessage-deflate; server_max_window_bits=13; client_max_window_bits",
        (True, True, 12, 15),
    ),
    "gorilla, gws, uWebSockets": (
        "permessage-deflate; server_no_context_takeover; client_no_context_takeover",
        (False, False, 12, 15),
    ),
    "nhooyr": (
        "permessage-deflate; client_no_context_takeover; server_no_context_takeover",
        (False, False, 12, 15),
    ),
    "gws, told to ask for windows": (
        "permessage-deflate; server_max_window_bits=10; client_max_window_bits=11",
        (True, True, 10, 11),
    ),
    "Boost.Beast": (
        "permessage-deflate; server_max_window_bits=15; client_max_window_bits=15",
        (True, True, 12, 15),
    ),
    "wsproto": (
        "permessage-deflate; client_max_window_bits=15; server_max_window_bits=15",
        (True, True, 12, 15),
    ),
    "Starscream": (
        "permessage-deflate; client_max_window_bits; server_max_window_bits=15",
        (True, True, 12, 15),
    ),
    "IXWebSocket": (
        (
            "permessage-deflate; server_no_context_takeover; client_no_context_takeover;"
            " server_max_window_bits=15; client_max_window_bits=15"
        ),
        (False, False, 12, 15),
    ),
    "Autobahn, libwebsockets, websocketpp": (
        "permessage-deflate; client_no_context_takeover; client_max_window_bits",
        (True, False, 12, 15),
    ),
    "aiohttp with compress=12": (
        "permessage-deflate; client_max_window_bits; server_max_window_bits=12",
        (True, True, 12, 15),
    ),
    "websockets before 10, .NET with smaller windows": (
        "permessage-deflate; server_max_window_bits=9; client_max_window_bits=9",
        (True, True, 9, 9),
    ),
    "Chrome's second choice of old": (
        "permessage-deflate; client_max_window_bits, x-webkit-deflate-frame",
        (True, True, 12, 15),
    ),
    "Safari of old": ("x-webkit-deflate-frame", None),
}


@pytest.mark.parametrize("who", OFFERS)
@pytest.mark.parametrize("config", [{}, {"context_takeover": False}, WIDE], ids=str)
def test_offers_that_are_met(who: str, config: dict[str, Any]) -> None:
    """No answer contains anything that the client did not ask for.

    Netty refuses a window or a server's takeover that it did not ask for, and any other window;
    nhooyr and gorilla know only two parameters.
    """
    offer, agreed = OFFERS[who]
    parameters, ours = serve(offer, **config)
    if agreed is None:
        assert ours is None
        return
    takeover, peer_takeover, bits, peer_bits = agreed
    if config == WIDE:
        bits = int(dict(parse_extensions([offer])[0][1]).get("server_max_window_bits", 15))
    takeover = takeover and config.get("context_takeover", True)
    assert terms(ours) == (takeover, peer_takeover, bits, peer_bits)

    (_, asked), *_ = parse_extensions([offer])
    (_, answered), *_ = parse_extensions([f"permessage-deflate; {parameters}".rstrip("; ")])
    confirmed = {name: value for name, value in asked if value is not None}
    for name, value in answered:
        assert (name, value) in asked or (name, confirmed.get(name)) == (name, None)
        assert name in dict(asked)
    # A server must confirm what it is asked for (§7.1.1.1, §7.1.2.1).
    for name, value in asked:
        if name.startswith("server_"):
            assert (name, value) in answered


# What servers answer to our offer, by default and with options.
ANSWERS = {
    "most": ("permessage-deflate", (True, True, 12, 15)),
    "Node's ws with clientMaxWindowBits: 13": (
        "permessage-deflate; client_max_window_bits=13",
        (True, True, 12, 15),
    ),
    "Node's ws with clientMaxWindowBits: 15, wsproto, faye": (
        "permessage-deflate; client_max_window_bits=15",
        (True, True, 12, 15),
    ),
    "Node's ws with clientMaxWindowBits: 10": (
        "permessage-deflate; client_max_window_bits=10",
        (True, True, 10, 15),
    ),
    "Node's ws with serverMaxWindowBits: 10": (
        "permessage-deflate; server_max_window_bits=10",
        (True, True, 12, 10),
    ),
    "Node's ws without takeover": (
        "permessage-deflate; server_no_context_takeover; client_no_context_takeover",
        (False, False, 12, 15),
    ),
    "websockets": (
        "permessage-deflate; server_max_window_bits=12; client_max_window_bits=12",
        (True, True, 12, 12),
    ),
    "fastws under uvicorn": (
        "permessage-deflate; client_max_window_bits=12",
        (True, True, 12, 15),
    ),
    "gorilla, gws, nhooyr, Swoole": (
        "permessage-deflate; server_no_context_takeover; client_no_context_takeover",
        (False, False, 12, 15),
    ),
    "uWebSockets with a shared compressor, Bun": (
        "permessage-deflate; client_no_context_takeover; server_no_context_takeover",
        (False, False, 12, 15),
    ),
    "uWebSockets with a dedicated compressor": (
        "permessage-deflate; client_no_context_takeover; server_max_window_bits=13",
        (False, True, 12, 13),
    ),
    "Jetty": (
        "permessage-deflate;server_no_context_takeover",
        (True, False, 12, 15),
    ),
    "Tomcat": (
        "permessage-deflate;client_max_window_bits=15",
        (True, True, 12, 15),
    ),
    "Haskell's websockets with 8 bits": (
        "permessage-deflate; server_max_window_bits=8; client_max_window_bits=8",
        (True, True, 8, 8),
    ),
    "Panda": (
        "permessage-deflate; server_max_window_bits=15; client_max_window_bits=15",
        (True, True, 12, 15),
    ),
}


@pytest.mark.parametrize("who", ANSWERS)
def test_answers_that_are_met(who: str) -> None:
    answer, agreed = ANSWERS[who]
    assert terms(connect(answer)) == agreed


def test_a_window_smaller_than_agreed_is_one_that_the_peer_can_read() -> None:
    """The peer keeps only the window agreed on, and we refer back no farther."""
    agreed = connect("permessage-deflate; client_max_window_bits=13")
    assert agreed is not None
    deflater, stream = Deflater(agreed), zlib.decompressobj(-13)
    block = noise(6000)
    for message in (block, block[::-1] * 2, block):
        assert stream.decompress(deflater.deflate(message, True) + FLUSHED) == message


configs = st.builds(
    PerMessageDeflate,
    context_takeover=st.booleans(),
    peer_context_takeover=st.booleans(),
    max_window_bits=st.integers(9, 15),
    peer_max_window_bits=st.integers(9, 15),
)


@settings(deadline=None)
@given(server=configs, client=configs, seed=st.integers(0, 9))
def test_both_ends_agree_on_the_same(
    server: PerMessageDeflate, client: PerMessageDeflate, seed: int
) -> None:
    response, here = next(filter(None, map(server.accept_offer, client.offers())))
    there = client.accept_response(response)
    # Neither end does anything that the other does not expect.
    assert here.context_takeover <= there.peer_context_takeover
    assert there.context_takeover <= here.peer_context_takeover
    assert here.max_window_bits <= there.peer_max_window_bits
    assert there.max_window_bits <= here.peer_max_window_bits
    # Neither end does more, or has to keep more, than it wanted.
    assert here.max_window_bits <= server.max_window_bits
    assert there.max_window_bits <= client.max_window_bits
    assert here.peer_max_window_bits <= server.peer_max_window_bits
    for config, agreed in ((server, here), (client, there)):
        assert agreed.context_takeover <= config.context_takeover
        assert agreed.peer_context_takeover <= config.peer_context_takeover

    ends = (Deflater(here), Inflater(there)), (Deflater(there), Inflater(here))
    block = noise(3000, seed)
    for deflater, inflater in ends:
        for message in (b"", block, block * 3, block[::-1], block):
            assert inflate(inflater, deflater.deflate(message, True), len(message)) == message


def test_client_that_may_use_256_bytes_only_cannot_compress() -> None:
    agreed = connect("permessage-deflate; client_max_window_bits=8")
    assert agreed is not None
    assert not Deflater(agreed).enabled
    assert Deflater(agreement(max_window_bits=9)).enabled
    # This does not apply to what it receives.
    assert inflate(Inflater(agreed), HELLO) == b"Hello"
    narrow = Inflater(agreement(peer_max_window_bits=8))
    assert inflate(narrow, HELLO) == b"Hello"


# Decompression -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("messages", "contents"),
    [
        (["f2 48 cd c9 c9 07 00"], ["Hello"]),  # §7.2.3.1: one block
        (["f2 48 cd c9 c9 07 00", "f2 00 11 00 00"], ["Hello", "Hello"]),  # §7.2.3.2: the window
        (["f2 48 cd c9 c9 07 00"] * 2, ["Hello", "Hello"]),
        (["00 05 00 fa ff 48 65 6c 6c 6f 00"], ["Hello"]),  # §7.2.3.3: not compressed
        (["f3 48 cd c9 c9 07 00 00"], ["Hello"]),  # §7.2.3.4: BFINAL
        (["f2 48 05 00 00 00 ff ff ca c9 c9 07 00"], ["Hello"]),  # §7.2.3.5: two blocks
        (["00"], [""]),  # §7.2.3.6: the empty message
        (["00", "f2 48 cd c9 c9 07 00", "00", "f2 00 11 00 00"], ["", "Hello", "", "Hello"]),
        # A final block without the byte that must follow it
        (["f3 48 cd c9 c9 07 00"], ["Hello"]),
        (["03 00"], [""]),
        # No bytes at all, instead of the one byte of §7.2.3.6
        (["", "f2 48 cd c9 c9 07 00", "", "", "f2 00 11 00 00"], ["", "Hello", "", "", "Hello"]),
        # Final blocks before others, and messages after them
        (["f3 48 cd c9 c9 07 00 f2 48 cd c9 c9 07 00"], ["HelloHello"]),
        (["03 00 03 00 00"], [""]),
        (["f3 48 cd c9 c9 07 00 00", "f2 48 cd c9 c9 07 00"] * 2, ["Hello"] * 4),
        (["f3 48 cd c9 c9 07 00", "f2 48 cd c9 c9 07 00", "f2 00 11 00 00"], ["Hello"] * 3),
        # The bytes that §7.2.2 appends may complete a block.
        (["00 04 00 fb ff"], ["\x00\x00\xff\xff"]),
        (["01 04 00 fb ff", "f2 48 cd c9 c9 07 00"], ["\x00\x00\xff\xff", "Hello"]),
    ],
)
def test_legal_messages(backend: str, messages: list[str], contents: list[str]) -> None:
    for piece in (None, 1, 2, 3):
        inflater = Inflater(agreement(backend))
        for message, content in zip(messages, contents, strict=True):
            expected = content.encode("latin-1")
            result = inflate(inflater, bytes.fromhex(message), len(expected), piece)
            assert result == expected
            assert type(result) is bytes


SINGLE_BLOCKS = {
    "fixed": compressed(b"Hello, hello, hello", strategy=Z_FIXED),
    "dynamic": compressed(bytes(range(60)) * 2 + b"abcabcabca" * 20),
    "stored": compressed(b"Hello, hello", level=0),
}
BROKEN = {
    "reserved type of block": "07",
    "lengths that contradict each other": "00 05 00 fb ff 48 65 6c 6c 6f 00",
    "distance beyond the beginning": "f2 00 11 00 00",
    "distance beyond a final block": "f3 48 cd c9 c9 07 00 f2 00 11 00 00",
    "what should have been left out": "f2 48 cd c9 c9 07 00 00 00 ff ff",
    "end of a final block in what was left out": "f3 48 cd c9 c9 07",
    "final block, then another without its end": "f3 48 cd c9 c9 07 00 f2 48",
    "final block that lacks a byte of what was left out": "01 05 00 fa ff",
    "final block that lacks two": "01 06 00 f9 ff",
    "zlib's format": "78 9c f3 48 cd c9 c9 07 00 05 8c 01 f5",
}


def inflate_broken(
    agreed: Agreement, message: bytes, budget: int | None = None, piece: int | None = None
) -> InvalidPayloadError:
    """Inflate an invalid message; return the error."""
    inflater = Inflater(agreed)
    # isal's streams cannot be copied to check the end; the next messages show the error.
    late = agreed.config.backend == "isal" and agreed.peer_context_takeover
    messages = [message] * (4 if late else 1)

    def run() -> None:
        for each in messages:
            inflate(inflater, each, budget, piece)

    with pytest.raises(InvalidPayloadError, match=NOT_DEFLATE) as caught:
        run()
    return caught.value


@pytest.mark.parametrize("message", BROKEN.values(), ids=BROKEN)
@pytest.mark.parametrize("takeover", [True, False])
def test_broken_messages(backend: str, message: str, takeover: bool) -> None:
    agreed = agreement(backend, peer_context_takeover=takeover)
    for piece, room in product((None, 1), (None, 20, 1000)):
        error = inflate_broken(agreed, bytes.fromhex(message), room, piece)
        # A context would keep frames alive, and those the data.
        assert error.__context__ is None


@pytest.mark.parametrize("kind", SINGLE_BLOCKS)
@pytest.mark.parametrize("takeover", [True, False])
def test_message_that_ends_inside_a_block(backend: str, kind: str, takeover: bool) -> None:
    agreed = agreement(backend, peer_context_takeover=takeover)
    message = SINGLE_BLOCKS[kind]
    # One byte of a stored block is an empty message, and the bytes appended at the end would
    # replace its last bytes.
    for end in range(2, len(message) - 5) if kind == "stored" else range(1, len(message)):
        inflate_broken(agreed, message[:end])


def test_empty_pieces_change_nothing(backend: str) -> None:
    inflater = Inflater(agreement(backend))
    for _ in range(2):
        assert inflater.inflate(b"", 5, False) == b""
        assert inflater.inflate(HELLO, 5, False) == b"Hello"
        assert inflater.inflate(b"", 0, False) == b""
        assert inflater.inflate(b"", 0, True) == b""


def test_nothing_is_remembered_without_context_takeover(backend: str) -> None:
    inflater = Inflater(agreement(backend, peer_context_takeover=False))
    assert inflate(inflater, HELLO) == b"Hello"
    assert inflate(inflater, HELLO) == b"Hello"
    with pytest.raises(InvalidPayloadError):
        inflate(inflater, bytes.fromhex("f200110000"))


def test_peer_cannot_refer_beyond_its_window() -> None:
    """It would do so if it assumed another agreement; only the window is kept."""
    block = noise(600)
    message, again = (
        (stream := zlib.compressobj(9, zlib.DEFLATED, -15)).compress(block)
        + stream.flush(zlib.Z_SYNC_FLUSH)[:-4],
        stream.compress(block) + stream.flush(zlib.Z_SYNC_FLUSH)[:-4],
    )
    wide, narrow = (Inflater(agreement(peer_max_window_bits=bits)) for bits in (10, 9))
    assert inflate(wide, message) == inflate(narrow, message) == block
    assert inflate(wide, again) == block
    with pytest.raises(InvalidPayloadError):
        inflate(narrow, again)


# Limits ----------------------------------------------------------------------------------------

CONTENTS = [b"", b"H", b"Hello", b"ab" * 700, bytes(70_000), noise(1000), noise(40_000) * 2]


@pytest.mark.parametrize("content", CONTENTS, ids=len)
@pytest.mark.parametrize("flush", [zlib.Z_SYNC_FLUSH, zlib.Z_FINISH], ids=["", "final"])
def test_message_may_be_as_large_as_the_room_and_no_larger(
    backend: str, content: bytes, flush: int
) -> None:
    agreed = agreement(backend)
    payload = compressed(content, flush)
    size = len(content)
    large = [size + 1, size + 2, 2 * size + 1000, 2**31, sys.maxsize - 1, 2**63, 2**70, None]
    for piece in (None, 100, 1 if len(payload) < 2000 else 3001):
        for budget in (size, *large):
            assert inflate(Inflater(agreed), payload, budget, piece) == content
        for budget in {size - 1, size // 2, 1, 0} & set(range(size)):
            assert inflate(Inflater(agreed), payload, budget, piece) == content[: budget + 1]


def test_no_room_is_not_all_the_room_there_is(backend: str) -> None:
    assert inflate(Inflater(agreement(backend)), b"\x00", 0) == b""
    assert inflate(Inflater(agreement(backend)), b"\x03\x00" * 5, 0) == b""
    assert inflate(Inflater(agreement(backend)), bomb(4 * MIB), 0) == b"\x00"
    # Including the bytes appended at the end
    assert inflate(Inflater(agreement(backend)), bytes.fromhex("000400fbff"), 3) == FLUSHED
    assert inflate(Inflater(agreement(backend)), bytes.fromhex("000400fbff"), 2) == FLUSHED[:3]


@pytest.mark.parametrize("piece", [None, 1, 1000])
def test_bomb_behind_a_final_block_stops_at_the_limit(backend: str, piece: int | None) -> None:
    payload = b"\x03\x00" + compressed(bytes(MIB), zlib.Z_FINISH) * 20
    assert inflate(Inflater(agreement(backend)), payload, 1000, piece) == bytes(1001)
    result = inflate(Inflater(agreement(backend)), payload, MIB + 1000, piece)
    assert result == bytes(MIB + 1001)


def peak(call: Any) -> int:
    """The peak memory of a call, in bytes."""
    gc.collect()
    with traced() as memory:
        call()
        return memory()[1]


@pytest.mark.parametrize("piece", [None, 500])
def test_bomb_takes_no_memory_beyond_the_limit(backend: str, piece: int | None) -> None:
    payload = bomb(256 * MIB)

    def explode() -> None:
        assert len(inflate(Inflater(agreement(backend)), payload, 100_000, piece)) == 100_001

    # The library doubles its output buffer, and keeps the input that it has not processed.
    assert peak(explode) < 5 * 100_000 + 2 * len(payload)


class Counting:
    """A zlib that counts its input bytes."""

    error = zlib.error

    def __init__(self) -> None:
        self.given = self.streams = 0

    def decompressobj(self, bits: int) -> Any:
        self.streams += 1
        return CountingStream(self, zlib.decompressobj(bits))


class CountingStream:
    def __init__(self, zlib: Counting, stream: Any) -> None:
        self._zlib, self._stream = zlib, stream

    def decompress(self, data: bytes, limit: int) -> bytes:
        self._zlib.given += len(data)
        result: bytes = self._stream.decompress(data, limit)
        return result

    def copy(self) -> CountingStream:
        return CountingStream(self._zlib, self._stream.copy())

    @property
    def eof(self) -> bool:
        return bool(self._stream.eof)

    @property
    def unused_data(self) -> bytes:
        return bytes(self._stream.unused_data)


@pytest.mark.parametrize("piece", [None, 1, 7, 4096])
def test_final_blocks_take_linear_time(piece: int | None) -> None:
    """Each stream that ends copies the rest of its input, so the rest must be short."""
    payload = b"\x03\x00" * 5_000
    inflater = Inflater(agreement())
    inflater._zlib = counting = Counting()
    assert inflate(inflater, payload, 0, piece) == b""
    assert counting.streams == 5_000
    assert counting.given <= len(payload) + 5_000 * deflate._SLICE


def test_flood_of_final_blocks_keeps_nothing(backend: str) -> None:
    inflater = Inflater(agreement(backend))
    inflate(inflater, b"\x03\x00")
    start = time.process_time()
    assert inflate(inflater, b"\x03\x00" * 100_000, 0) == b""
    # It takes a tenth of a second, and would take ten times the limit if each stream copied the
    # whole rest.
    assert time.process_time() - start < 5
    gc.collect()
    with traced() as memory:
        assert inflate(inflater, b"\x03\x00" * 5_000, 0) == b""
        for _ in range(5_000):
            assert inflate(inflater, b"\x03\x00", 0) == b""
        assert memory()[0] < 20_000


@pytest.mark.parametrize("takeover", [True, False])
def test_messages_leave_nothing_behind(backend: str, takeover: bool) -> None:
    """Except for the window, if later messages may refer to it."""
    inflater = Inflater(agreement(backend, peer_context_takeover=takeover))
    payload = compressed(noise(100_000))
    inflate(inflater, payload)
    gc.collect()
    with traced() as memory:
        for _ in range(50):
            inflate(inflater, payload)
            inflate(inflater, payload, 10**6, 5000)
        kept = memory()[0]
    # isal's decompressor allocates all its memory at once.
    assert kept < (100_000 if takeover else 20_000)
    assert takeover or inflater._stream is None


# Compression ---------------------------------------------------------------------------------


def strictly(payloads: list[bytes], bits: int, takeover: bool) -> list[bytes]:
    """What zlib makes of messages if it keeps exactly its window."""
    results = []
    stream = zlib.decompressobj(-bits)
    for payload in payloads:
        if not takeover:
            stream = zlib.decompressobj(-bits)
        result = bytearray()
        rest = payload + FLUSHED
        # A distance is checked against the window only if the output is in another piece.
        while rest or len(result) % 99 == 0:
            piece = stream.decompress(rest, 99)
            result += piece
            rest = stream.unconsumed_tail
            if not piece:
                break
        assert not rest
        results.append(bytes(result))
    return results


def corpus(bits: int) -> list[bytes]:
    """Messages with repetitions at, just within and just beyond the window."""
    block = noise((1 << bits) + 3)
    return [
        b"",
        b"a",
        b"Hello",
        block[:300] * 3,
        block[: 1 << bits] + block[:200],
        block[: (1 << bits) - 262] + block[:200],
        block + block[:200],
        b"\xc3\xa9" * 3000,
        b"",
        block[:300],
        bytes(range(256)) * 5,
    ]


@pytest.mark.parametrize("bits", range(9, 16))
@pytest.mark.parametrize("takeover", [True, False], ids=["takeover", "alone"])
def test_round_trips(backend: str, bits: int, takeover: bool) -> None:
    messages = corpus(bits)
    for level, mem_level in product(LEVELS[backend], (1, 5, 9)):
        agreed = agreement(
            backend,
            context_takeover=takeover,
            peer_context_takeover=takeover,
            max_window_bits=bits,
            peer_max_window_bits=bits,
            level=level,
            mem_level=mem_level,
        )
        deflater, inflater = Deflater(agreed), Inflater(agreed)
        payloads = [deflater.deflate(message, True) for message in messages]
        assert [inflate(inflater, each) for each in payloads] == messages
        assert strictly(payloads, bits, takeover) == messages


@pytest.mark.parametrize("takeover", [True, False], ids=["takeover", "alone"])
def test_round_trips_in_pieces(backend: str, takeover: bool) -> None:
    agreed = agreement(backend, context_takeover=takeover, peer_context_takeover=takeover)
    deflater, inflater = Deflater(agreed), Inflater(agreed)
    for message in corpus(12):
        for size in (1 if len(message) < 3000 else 50, 100, 1000):
            pieces = cut(message, size)
            fragments = [deflater.deflate(p, n == len(pieces)) for n, p in enumerate(pieces, 1)]
            assert inflate(inflater, b"".join(fragments), len(message), 77) == message
            # An end without more data
            fragments = [deflater.deflate(message, False), deflater.deflate(b"", False)]
            fragments.append(deflater.deflate(b"", True))
            assert inflate(inflater, b"".join(fragments), len(message)) == message


def test_empty_message_is_one_byte(backend: str) -> None:
    """Whatever came before it (§7.2.3.6). An empty fragment is no bytes at all."""
    for takeover in (True, False):
        deflater = Deflater(agreement(backend, context_takeover=takeover))
        for message in (b"", b"", b"Hello", b"", b""):
            assert (deflater.deflate(message, True) == b"\x00") is (message == b"")
            assert deflater.deflate(b"", False) == b""


def test_takeover_pays(backend: str) -> None:
    message = noise(200)
    with_it, without = (
        Deflater(agreement(backend, context_takeover=takeover)) for takeover in (True, False)
    )
    assert len(with_it.deflate(message, True)) > 200
    assert len(with_it.deflate(message, True)) < 50
    assert len(without.deflate(message, True)) == len(without.deflate(message, True)) > 200


def test_forgotten_messages_are_not_referred_to(backend: str) -> None:
    agreed = agreement(backend)
    deflater, inflater = Deflater(agreed), Inflater(agreed)
    message = noise(200)
    assert inflate(inflater, deflater.deflate(message, True)) == message
    deflater.deflate(b"not sent", True)
    deflater.forget()
    payload = deflater.deflate(message, True)
    assert len(payload) > 200
    assert inflate(inflater, payload) == message
    # Also in the middle of a message
    fragments = [deflater.deflate(message, False)]
    deflater.deflate(b"not sent", False)
    deflater.forget()
    fragments.append(deflater.deflate(message, True))
    assert inflate(inflater, b"".join(fragments)) == message * 2


def test_message_that_could_not_be_compressed_is_not_referred_to(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    agreed = agreement()
    deflater, inflater = Deflater(agreed), Inflater(agreed)
    message = noise(200)

    def fail(*_: Any) -> bytes:
        raise MemoryError

    deflater.deflate(b"Hello", True)
    with monkeypatch.context() as patch:
        patch.setattr(deflate, "_flush", fail)
        with pytest.raises(MemoryError):
            deflater.deflate(message, True)
    assert inflate(inflater, deflater.deflate(message, True)) == message


def test_what_cannot_be_compressed_grows_by_less_than_is_allowed(backend: str) -> None:
    data = noise(1 << 16)
    for level, mem_level, bits in product(LEVELS[backend], (1, 2, 5, 8, 9), (9, 12, 15)):
        for takeover in (True, False):
            agreed = agreement(
                backend,
                context_takeover=takeover,
                max_window_bits=bits,
                level=level,
                mem_level=mem_level,
            )
            deflater = Deflater(agreed)
            for size in (0, 1, 2, 3, 10, 127, 1000, 8191, 8192, 1 << 16):
                payload = deflater.deflate(data[:size], True)
                assert len(payload) <= max_compressed(size), (level, mem_level, bits, size)


@pytest.mark.parametrize("strategy", [zlib.Z_DEFAULT_STRATEGY, zlib.Z_HUFFMAN_ONLY, Z_FIXED])
@pytest.mark.parametrize("level", [0, 1, 9])
def test_what_a_peer_cannot_compress_is_taken(
    twin: SimpleNamespace, level: int, strategy: int
) -> None:
    """For any memory level, if a message of the maximum size is in one frame."""
    # All bytes that Z_FIXED writes with 9 bits
    worst = bytes(random.Random(0).choices(range(144, 256), k=50_000))
    for mem_level, size in product(range(1, 10), (0, 1, 100, 5000, 50_000)):
        payload = compressed(worst[:size], level=level, strategy=strategy, mem=mem_level)
        decoder = Peer(None).decoder(twin, max_message_size=size)
        assert decoder.feed(Peer(None).frame(BINARY, payload, rsv=RSV1)) == [worst[:size]]


def test_parameters_tell_compressors_apart() -> None:
    config = {"level": 3, "mem_level": 4, "max_window_bits": 10}
    assert Deflater(agreement(**config)).parameters == ("zlib", 3, 10, 4)
    assert Deflater(agreement()).parameters == ("zlib", None, 15, 5)
    assert Deflater(agreement(threshold=7)).threshold == 7


def test_compressors_that_keep_nothing_are_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deflate, "_shared", {})
    message = noise(200)
    ends = [Deflater(agreement(context_takeover=False)) for _ in range(10)]
    for deflater in ends:
        assert inflate(Inflater(agreement()), deflater.deflate(message, True)) == message
        assert deflater._stream is None
    [(parameters, streams)] = deflate._shared.items()
    assert parameters == ends[0].parameters
    assert len(streams) == 1
    # The pieces of one connection's message do not mix with another's.
    first, second = ends[:2]
    parts = [
        (first, b"abc" * 90, False),
        (second, b"abc" * 90, False),
        (first, b"abc" * 90, True),
        (second, message, True),
    ]
    sent: dict[Deflater, bytes] = {first: b"", second: b""}
    for deflater, part, last in parts:
        sent[deflater] += deflater.deflate(part, last)
    assert inflate(Inflater(agreement()), sent[first]) == b"abc" * 180
    assert inflate(Inflater(agreement()), sent[second]) == b"abc" * 90 + message


def test_shared_compressor_that_failed_is_not_used_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deflate, "_shared", {})
    deflater = Deflater(agreement(context_takeover=False))
    deflater.deflate(b"Hello", True)
    with pytest.raises(TypeError):
        deflater.deflate("Hello", True)  # type: ignore[arg-type]
    assert deflate._shared == {deflater.parameters: []}
    assert inflate(Inflater(agreement()), deflater.deflate(b"Hello", True)) == b"Hello"


def test_threads_never_share_a_compressor(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each message is complete and independent, and no two threads use one compressor."""
    monkeypatch.setattr(deflate, "_shared", {})
    real = deflate._flush
    busy: set[int] = set()
    met: list[Any] = []
    wrong: list[Any] = []

    def flush(stream: Any, data: bytes, mode: int, last: bool) -> bytes:
        if id(stream) in busy:
            met.append(stream)
        busy.add(id(stream))
        time.sleep(0)
        try:
            return real(stream, data, mode, last)
        finally:
            busy.discard(id(stream))

    monkeypatch.setattr(deflate, "_flush", flush)
    parameters = Deflater(agreement(backend)).parameters

    def hammer(number: int) -> None:
        # Large enough that zlib releases the GIL.
        message = noise(3000, number) + bytes([number]) * 20_000
        for _ in range(60):
            payload = deflate_alone(parameters, message)
            if zlib.decompressobj(-15).decompress(payload + FLUSHED) != message:
                wrong.append(number)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=hammer, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert (met, wrong) == ([], [])
    assert 1 <= len(deflate._shared[parameters]) <= 8


# Through the decoders of both twins --------------------------------------------------------------

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
RSV1 = spec.RSV1
REFERENCE = SimpleNamespace(MessageDecoder=MessageDecoder)


class Peer:
    """Writes frames as RFC 6455 §5.2 draws them."""

    def __init__(self, key: bytes | None) -> None:
        self.key = key

    def decoder(self, twin: Any, inflater: Any = None, **limits: int | None) -> Any:
        return twin.MessageDecoder(
            masked=self.key is not None, inflater=inflater or Inflater(agreement()), **limits
        )

    def head(self, first: int, length: int) -> bytes:
        mask = 0x80 if self.key else 0
        if length < 126:
            return bytes([first, mask | length])
        if length < 1 << 16:
            return bytes([first, mask | 126]) + length.to_bytes(2, "big")
        return bytes([first, mask | 127]) + length.to_bytes(8, "big")

    def frame(self, opcode: int, payload: bytes = b"", fin: bool = True, rsv: int = 0) -> bytes:
        head = self.head((0x80 if fin else 0) | rsv | opcode, len(payload))
        if self.key is None:
            return head + payload
        return head + self.key + bytes(map(xor, payload, cycle(self.key)))

    def message(
        self, opcode: int, payload: bytes, size: int | None = None, between: bytes = b""
    ) -> bytes:
        """A compressed message, in fragments of this size, with other frames between them."""
        pieces = cut(payload, size or max(len(payload), 1))
        frames = [
            self.frame(
                CONTINUATION if number else opcode,
                piece,
                number == len(pieces) - 1,
                0 if number else RSV1,
            )
            for number, piece in enumerate(pieces)
        ]
        return between.join(frames)


@pytest.fixture(params=[Peer(b"\x37\xfa\x21\x3d"), Peer(None)], ids=["from-client", "from-server"])
def peer(request: pytest.FixtureRequest) -> Peer:
    return request.param


def decode(decoder: Any, stream: bytes, piece: int | None = None) -> list[Any]:
    return [
        event for data in cut(stream, piece or max(len(stream), 1)) for event in decoder.feed(data)
    ]


def verdict(decoder: Any) -> tuple[type[ProtocolError], int, str] | None:
    error = decoder.error
    return error and (type(error), error.close_code, str(error))


BAD_DEFLATE = (InvalidPayloadError, 1007, NOT_DEFLATE)
NOT_UTF8 = (InvalidPayloadError, 1007, "text message is not UTF-8")


def too_big(limit: int) -> tuple[type[ProtocolError], int, str]:
    return MessageTooBigError, 1009, f"message over {limit} bytes"


def reserved(names: str) -> tuple[type[ProtocolError], int, str]:
    return ProtocolError, 1002, f"reserved bit set: {names}"


@pytest.mark.parametrize(
    ("frames", "events"),
    [
        ("c1 07 f2 48 cd c9 c9 07 00", ["Hello"]),  # §7.2.3.1
        ("41 03 f2 48 cd 80 04 c9 c9 07 00", ["Hello"]),
        ("c1 07 f2 48 cd c9 c9 07 00 c1 05 f2 00 11 00 00", ["Hello", "Hello"]),  # §7.2.3.2
        ("c1 0b 00 05 00 fa ff 48 65 6c 6c 6f 00", ["Hello"]),  # §7.2.3.3
        ("c1 08 f3 48 cd c9 c9 07 00 00", ["Hello"]),  # §7.2.3.4
        ("c1 0d f2 48 05 00 00 00 ff ff ca c9 c9 07 00", ["Hello"]),  # §7.2.3.5
        ("c1 01 00", [""]),  # §7.2.3.6
        ("c2 01 00", [b""]),
        ("41 00 00 00 80 01 00", [""]),
        ("41 01 00 80 00", [""]),
        # A mixture of compressed and plain, with control frames inside
        (
            (
                "c1 07 f2 48 cd c9 c9 07 00 81 01 61 42 02 f2 00 89 01 70 00 00 8a 00"
                " 80 03 11 00 00 01 01 62 80 01 63 88 02 03 e8 c1 05 f2 00 11 00 00"
            ),
            ["Hello", "a", Ping(b"p"), Pong(b""), b"Hello", "bc", Close(1000, "")],
        ),
    ],
)
def test_streams_of_the_rfc(twin: SimpleNamespace, frames: str, events: list[Any]) -> None:
    for piece in (None, 1, 3):
        decoder = Peer(None).decoder(twin)
        result = decode(decoder, bytes.fromhex(frames), piece)
        assert (result, decoder.error) == (events, None)
        assert [type(event) for event in result] == [type(event) for event in events]


@pytest.mark.parametrize("content", [b"", "aé€😀\0".encode() * 50, b"a" * 70_000], ids=len)
@pytest.mark.parametrize("opcode", [TEXT, BINARY])
def test_messages_of_every_cut(
    twin: SimpleNamespace, backend: str, peer: Peer, content: bytes, opcode: int
) -> None:
    message = content.decode() if opcode == TEXT else content
    payload = compressed(content)
    between = peer.frame(PING, b"1") + peer.frame(PONG)
    for fragment in (1, 50, len(payload)):
        stream = peer.message(opcode, payload, fragment, between)
        stream += peer.frame(BINARY, b"plain") + peer.message(opcode, payload, fragment)
        controls = [Ping(b"1"), Pong()] * (len(cut(payload, fragment)) - 1)
        for piece in (None, 1, 1000):
            inflater = Inflater(agreement(backend))
            decoder = peer.decoder(twin, inflater, max_message_size=len(content) + 5)
            events = decode(decoder, stream, piece)
            assert decoder.error is None
            assert events == [*controls, message, b"plain", message]


@pytest.mark.parametrize(
    ("bad", "expected"),
    [
        (lambda p: p.frame(PING, b"", rsv=RSV1), reserved("RSV1")),
        (lambda p: p.frame(PONG, b"", rsv=RSV1), reserved("RSV1")),
        (lambda p: p.frame(CLOSE, b"", rsv=RSV1), reserved("RSV1")),
        (lambda p: p.frame(CONTINUATION, HELLO, rsv=RSV1), reserved("RSV1")),
        (lambda p: p.frame(TEXT, HELLO, rsv=RSV1 | spec.RSV2), reserved("RSV2")),
        (lambda p: p.frame(TEXT, HELLO, rsv=RSV1 | spec.RSV3), reserved("RSV3")),
        (lambda p: p.frame(3, b"", rsv=RSV1), (ProtocolError, 1002, "reserved opcode: 0x3")),
    ],
)
@pytest.mark.parametrize("piece", [None, 1])
def test_rsv1_belongs_to_the_beginning_of_a_message(
    twin: SimpleNamespace, peer: Peer, bad: Any, expected: Any, piece: int | None
) -> None:
    """RFC 7692 §6.1; the first byte is already an error."""
    decoder = peer.decoder(twin)
    assert decode(decoder, peer.message(TEXT, HELLO) + bad(peer)[:1], piece) == ["Hello"]
    assert verdict(decoder) == expected


@pytest.mark.parametrize("rsv", [0, RSV1])
def test_rsv1_inside_a_message(twin: SimpleNamespace, peer: Peer, rsv: int) -> None:
    start = peer.frame(TEXT, HELLO if rsv else b"Hello", False, rsv)
    for bad, expected in (
        (CONTINUATION, reserved("RSV1")),
        (PING, reserved("RSV1")),
        (TEXT, (ProtocolError, 1002, "new TEXT message inside a fragmented one")),
    ):
        decoder = peer.decoder(twin)
        assert decode(decoder, start + peer.frame(bad, HELLO, rsv=RSV1)[:1]) == []
        assert verdict(decoder) == expected


@pytest.mark.parametrize("opcode", [CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG])
def test_rsv1_without_an_inflater(twin: SimpleNamespace, opcode: int) -> None:
    decoder = twin.MessageDecoder(masked=False)
    assert decoder.feed(bytes([0xC0 | opcode])) == []
    assert verdict(decoder) == reserved("RSV1")


def test_text_fails_where_it_cannot_become_utf8(twin: SimpleNamespace, peer: Peer) -> None:
    """In the middle of a frame, of a message, and of an inflated piece."""
    stream = zlib.compressobj(9, zlib.DEFLATED, -15)
    good = stream.compress(b"aaa\xf4\x8f") + stream.flush(zlib.Z_SYNC_FLUSH)
    bad = stream.compress(b"\xc0" + bytes(1000)) + stream.flush(zlib.Z_SYNC_FLUSH)
    frame = peer.frame(TEXT, good + bad, False, RSV1)
    decoder = peer.decoder(twin)
    assert decoder.feed(frame[: len(frame) - len(bad)]) == []
    assert decoder.error is None
    assert decoder.feed(frame[len(frame) - len(bad) : -1]) == []
    assert verdict(decoder) == NOT_UTF8


@pytest.mark.parametrize("text", [b"a\xc3", b"\xe2\x82", b"\xf0\x9f\x98"])
@pytest.mark.parametrize("fragment", [None, 1])
def test_text_must_end_with_a_code_point(
    twin: SimpleNamespace, peer: Peer, text: bytes, fragment: int | None
) -> None:
    decoder = peer.decoder(twin)
    assert decode(decoder, peer.message(TEXT, compressed(text), fragment)) == []
    assert verdict(decoder) == NOT_UTF8
    decoder = peer.decoder(twin)
    assert decode(decoder, peer.message(BINARY, compressed(text), fragment)) == [text]


@pytest.mark.parametrize("message", BROKEN.values(), ids=BROKEN)
def test_corrupt_streams_are_1007(twin: SimpleNamespace, peer: Peer, message: str) -> None:
    payload = bytes.fromhex(message)
    for fragment, piece in product((None, 1), (None, 1)):
        decoder = peer.decoder(twin)
        stream = peer.frame(TEXT, b"before") + peer.message(TEXT, payload, fragment)
        assert decode(decoder, stream + peer.frame(TEXT, b"late"), piece) == ["before"]
        assert verdict(decoder) == BAD_DEFLATE
        assert decoder.feed(peer.frame(TEXT, b"late")) == []
        assert decoder.error.__traceback__ is decoder.error.__context__ is None


@pytest.mark.parametrize("limit", [0, 1, 5, 1000, 70_000])
@pytest.mark.parametrize("fragment", [None, 7])
def test_size_limit_is_for_what_comes_out(
    twin: SimpleNamespace, peer: Peer, limit: int, fragment: int | None
) -> None:
    for opcode, piece in product((TEXT, BINARY), (None, 1)):
        fits = peer.message(opcode, compressed(b"a" * limit), fragment)
        decoder = peer.decoder(twin, max_message_size=limit)
        assert [len(event) for event in decode(decoder, fits * 3, piece)] == [limit] * 3
        assert decoder.error is None
        over = peer.message(opcode, compressed(b"a" * (limit + 1)), fragment)
        assert decode(decoder, over + fits, piece) == []
        assert verdict(decoder) == too_big(limit)


@pytest.mark.parametrize("limit", [2**31, 2**63 - 1, 2**63, 2**64, 2**70, None])
def test_size_limits_that_nothing_reaches(
    twin: SimpleNamespace, peer: Peer, limit: int | None
) -> None:
    decoder = peer.decoder(twin, max_message_size=limit)
    stream = peer.message(TEXT, HELLO, 2) + peer.message(BINARY, compressed(bytes(100_000)))
    assert decode(decoder, stream) == ["Hello", bytes(100_000)]
    assert decoder.error is None


@pytest.mark.parametrize("limit", [0, 1000])
def test_frame_of_a_compressed_message_is_limited_before_it_arrives(
    twin: SimpleNamespace, peer: Peer, limit: int
) -> None:
    most = max_compressed(limit)
    begun = peer.frame(TEXT, b"\x00", False, RSV1)
    for start, first in ((b"", 0x81 | RSV1), (begun, 0x80)):
        for size, expected in ((most, None), (most + 1, too_big(limit))):
            decoder = peer.decoder(twin, max_message_size=limit)
            assert decoder.feed(start + peer.head(first, size)) == []
            assert verdict(decoder) == expected
    # The size of an uncompressed message is what counts.
    decoder = peer.decoder(twin, max_message_size=limit)
    assert decoder.feed(peer.head(0x81, limit + 1)) == []
    assert verdict(decoder) == too_big(limit)


@pytest.mark.parametrize("limit", [0, 1, 1000])
@pytest.mark.parametrize("fragment", [None, 1])
@pytest.mark.parametrize("opcode", [TEXT, BINARY])
def test_plain_message_after_a_compressed_one_is_held_to_what_it_is(
    twin: SimpleNamespace, peer: Peer, limit: int, fragment: int | None, opcode: int
) -> None:
    before = peer.message(opcode, compressed(b"a" * limit), fragment)
    fits = peer.frame(opcode, b"b" * limit)
    whole = peer.frame(opcode, b"b" * (limit + 1))
    in_two = peer.frame(opcode, b"b", False) + peer.frame(CONTINUATION, b"b" * limit)
    for over, piece in product((whole, whole[:8], in_two), (None, 1)):
        decoder = peer.decoder(twin, max_message_size=limit)
        assert [len(event) for event in decode(decoder, before + fits, piece)] == [limit] * 2
        assert decode(decoder, over + fits, piece) == []
        assert verdict(decoder) == too_big(limit)


def test_frames_of_a_compressed_message_may_be_longer_than_what_comes_out(
    twin: SimpleNamespace, peer: Peer
) -> None:
    """Empty blocks do not add to the memory."""
    decoder = peer.decoder(twin, max_message_size=5)
    stream = peer.frame(TEXT, b"\x03\x00" * 30, False, RSV1)
    stream += peer.frame(CONTINUATION, b"\x03\x00" * 30, False) * 10
    assert decode(decoder, stream + peer.frame(CONTINUATION, HELLO), 50) == ["Hello"]
    assert decoder.error is None


def test_fragments_of_a_compressed_message_are_counted(twin: SimpleNamespace, peer: Peer) -> None:
    decoder = peer.decoder(twin, max_fragments=3)
    assert decode(decoder, peer.message(TEXT, HELLO, 3)) == ["Hello"]
    assert decode(decoder, peer.message(TEXT, HELLO, 2)) == []
    assert verdict(decoder) == (MessageTooBigError, 1009, "message of more than 3 fragments")


@pytest.mark.parametrize("fragment", [None, 1000])
@pytest.mark.parametrize("opcode", [TEXT, BINARY])
def test_bombs(
    twin: SimpleNamespace, backend: str, peer: Peer, fragment: int | None, opcode: int
) -> None:
    limit = MIB
    stream = peer.message(opcode, bomb(512 * MIB, b"a"), fragment)
    decoder = peer.decoder(twin, Inflater(agreement(backend)), max_message_size=limit)

    def explode() -> None:
        assert decode(decoder, stream, 1 << 16) == []
        assert verdict(decoder) == too_big(limit)

    # The output, twice while it is copied or doubled.
    assert peak(explode) < 5 * limit


@given(
    data=st.binary(max_size=200),
    opcode=st.sampled_from([TEXT, BINARY]),
    limit=st.sampled_from([0, 100, None]),
)
@settings(deadline=None)
def test_any_payload(data: bytes, opcode: int, limit: int | None) -> None:
    """Any payload is a message that fits, or a documented error."""
    decoder = Peer(None).decoder(REFERENCE, max_message_size=limit)
    events = decoder.feed(Peer(None).frame(opcode, data, rsv=RSV1))
    assert (decoder.error is None) is (len(events) == 1)
    if events:
        (message,) = events
        assert type(message) is (str if opcode == TEXT else bytes)
        size = len(message.encode() if isinstance(message, str) else message)
        assert limit is None or size <= limit


# An inflater of another kind ----------------------------------------------------------------------


class Odd:
    """Inflates to a given answer, and records its calls."""

    def __init__(self, answer: Any = None) -> None:
        self.calls: list[tuple[bytes, int | None, bool]] = []
        self._answer = answer

    def inflate(self, data: bytes, budget: int | None, last: bool) -> bytes:
        self.calls.append((data, budget, last))
        if isinstance(self._answer, bytes):
            return self._answer
        if isinstance(self._answer, Exception):
            try:
                raise ZeroDivisionError
            except ZeroDivisionError:
                raise self._answer  # noqa: B904
        return data


def test_what_the_inflater_is_asked(twin: SimpleNamespace, peer: Peer) -> None:
    odd = Odd()
    decoder = peer.decoder(twin, odd, max_message_size=10)
    stream = peer.message(BINARY, b"abcdef", 4, peer.frame(PING)) + peer.frame(BINARY, b"plain")
    assert decode(decoder, stream) == [Ping(), b"abcdef", b"plain"]
    assert odd.calls == [(b"abcd", 10, False), (b"ef", 6, True)]
    assert {type(data) for data, _, _ in odd.calls} == {bytes}


def test_inflater_may_return_more_than_there_is_room_for(twin: SimpleNamespace, peer: Peer) -> None:
    decoder = peer.decoder(twin, Odd(bytes(50)), max_message_size=100)
    assert decode(decoder, peer.message(BINARY, b"ab", 1)) == [bytes(100)]
    assert decode(decoder, peer.message(BINARY, b"abc", 1)) == []
    assert verdict(decoder) == too_big(100)


def test_error_of_the_inflater_is_the_decoders(twin: SimpleNamespace, peer: Peer) -> None:
    error = ProtocolError("its own")
    decoder = peer.decoder(twin, Odd(error))
    assert decode(decoder, peer.frame(TEXT, b"before") + peer.message(TEXT, b"a")) == ["before"]
    assert decoder.error is error
    # Both would keep alive what is in their frames.
    assert error.__traceback__ is error.__context__ is None


def test_failure_of_the_inflater_is_nobody_elses(twin: SimpleNamespace, peer: Peer) -> None:
    decoder = peer.decoder(twin, Odd(MemoryError()))
    with pytest.raises(MemoryError):
        decode(decoder, peer.message(TEXT, b"a"))


# The twins, held against each other -----------------------------------------------------------


def pieces_of(draw: Any) -> Iterator[bytes]:
    """The parts of a compressed payload: blocks of all kinds."""
    kinds = ("text", "zeros", "noise", "empty", "stored", "final", "bits")
    for kind in draw(st.lists(st.sampled_from(kinds), max_size=4)):
        if kind == "text":
            yield compressed(draw(st.text("aé€😀", max_size=40)).encode()) + FLUSHED
        elif kind == "zeros":
            yield compressed(bytes(draw(st.sampled_from([1, 100, 3000])))) + FLUSHED
        elif kind == "noise":
            yield compressed(draw(st.binary(max_size=40))) + FLUSHED
        elif kind == "empty":
            yield b"\x00" + FLUSHED
        elif kind == "stored":
            yield compressed(draw(st.binary(max_size=20)), level=0) + FLUSHED
        elif kind == "final":
            yield compressed(draw(st.binary(max_size=20)), zlib.Z_FINISH)
        else:
            yield draw(st.binary(max_size=8))


@st.composite
def streams(draw: Any, peer: Peer) -> bytes:
    """Messages, mostly compressed and mostly valid, with a byte changed here and there."""
    stream = bytearray()
    for _ in range(draw(st.integers(1, 4))):
        opcode = draw(st.sampled_from([TEXT, BINARY]))
        payload = bytearray(b"".join(pieces_of(draw)))
        if draw(st.booleans()):
            payload = payload.removesuffix(FLUSHED)
        for _ in range(draw(st.sampled_from([0, 0, 0, 1]))):
            if payload:
                payload[draw(st.integers(0, len(payload) - 1))] ^= draw(st.integers(1, 255))
        between = peer.frame(PING, b"p") if draw(st.booleans()) else b""
        if draw(st.integers(0, 4)):
            stream += peer.message(opcode, bytes(payload), draw(st.integers(1, 60)), between)
        else:
            stream += peer.frame(opcode, bytes(payload))
    for _ in range(draw(st.sampled_from([0, 0, 1]))):
        stream[draw(st.integers(0, len(stream) - 1))] ^= 1 << draw(st.integers(0, 7))
    return bytes(stream)


@settings(deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_twins_agree_on_any_stream(twin: SimpleNamespace, data: st.DataObject) -> None:
    """The same events from each feed, the same error after the same feed."""
    peer = Peer(data.draw(st.sampled_from([None, b"\x01\x02\x03\x04"])))
    stream = data.draw(streams(peer))
    sizes = data.draw(st.lists(st.integers(1, 80), min_size=1, max_size=4))
    limits = {
        "max_message_size": data.draw(st.sampled_from([None, 0, 10, 120, 4000])),
        "max_fragments": data.draw(st.sampled_from([None, 1, 3, 4096])),
    }
    takeover = data.draw(st.booleans())
    decoders = [
        peer.decoder(each, Inflater(agreement(peer_context_takeover=takeover)), **limits)
        for each in (REFERENCE, twin)
    ]
    start = 0
    for size in cycle(sizes):
        results = [decoder.feed(stream[start : start + size]) for decoder in decoders]
        assert results[0] == results[1]
        assert [type(e) for e in results[0]] == [type(e) for e in results[1]]
        assert verdict(decoders[0]) == verdict(decoders[1])
        start += size
        if start >= len(stream):
            break


@settings(deadline=None, suppress_health_check=list(HealthCheck))
@given(
    messages=st.lists(st.text(max_size=60) | st.binary(max_size=200), max_size=6),
    sizes=st.lists(st.integers(1, 50), min_size=1, max_size=4),
    fragment=st.integers(1, 40),
    data=st.data(),
)
def test_what_was_compressed_comes_out_however_it_is_cut(
    twin: SimpleNamespace,
    messages: list[str | bytes],
    sizes: list[int],
    fragment: int,
    data: st.DataObject,
) -> None:
    takeover = data.draw(st.booleans())
    peer = Peer(data.draw(st.sampled_from([None, b"\x01\x02\x03\x04"])))
    agreed = agreement(context_takeover=takeover, peer_context_takeover=takeover)
    deflater, stream = Deflater(agreed), b""
    for message in messages:
        octets = message.encode() if isinstance(message, str) else message
        payload = deflater.deflate(octets, True)
        stream += peer.message(TEXT if isinstance(message, str) else BINARY, payload, fragment)
    decoder = peer.decoder(twin, Inflater(agreed))
    events, start = [], 0
    for size in cycle(sizes):
        events += decoder.feed(stream[start : start + size])
        start += size
        if start >= len(stream):
            break
    assert (events, decoder.error) == (messages, None)


def test_offers_are_what_a_server_parses() -> None:
    """The names that RFC 7692 registers, as a list."""
    config = PerMessageDeflate(context_takeover=False, peer_max_window_bits=10)
    header = ClientHandshake("ws://h", extensions=[config]).request().decode()
    line = next(x for x in header.split("\r\n") if x.startswith("Sec-WebSocket-Extensions: "))
    offers = parse_extensions([line.partition(": ")[2]])
    assert [name for name, _ in offers] == ["permessage-deflate"] * 2
    assert [params for _, params in offers] == [list(params) for params in config.offers()]
