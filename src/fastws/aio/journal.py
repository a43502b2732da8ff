"""What the log says about a connection: that it opened, what went through it, how it closed.

This module knows the lines, and how to see the frames of a connection as bytes. It does not know
what frames mean, nor when a connection opens or closes: `Endpoint` tells it. If the log does not
want the lines when a connection opens, nothing here runs for it.
"""

from __future__ import annotations

import asyncio
import logging
from time import monotonic
from typing import TYPE_CHECKING, Any, Final, cast

from fastws import errors, rules
from fastws.codec import apply_mask
from fastws.spec import FIN, MASK, MASK_KEY_SIZE, OPCODE_BITS, RSV1, RSV2, RSV3, Opcode

from .transports import Tap
from .view import logger

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from .endpoint import Endpoint
    from .opening import Opened

__all__ = ["closed", "opened"]

# Payloads may be confidential. They are logged only if the level of this logger itself is DEBUG;
# what its parents are set to does not matter.
_payloads = logging.getLogger("fastws.payloads")
_payloads.setLevel(logging.INFO)

# How much of a payload is logged, in bytes.
_EXCERPT: Final = 64

_BITS: Final = {FIN: "FIN", RSV1: "RSV1", RSV2: "RSV2", RSV3: "RSV3"}

# When connections were opened, and the addresses of their peers, by their numbers. (A transport
# over TLS that is lost does not know the address.)
_begun: dict[int, tuple[float, Any]] = {}


def opened(endpoint: Endpoint, decision: Opened) -> None:
    """A connection opens, and the log wants to know it."""
    number = endpoint.id
    address = endpoint.remote_address
    _begun[number] = monotonic(), address
    facts = [_path(endpoint)]
    if decision.subprotocol is not None:
        facts.append(f"subprotocol {decision.subprotocol}")
    if decision.deflate is not None:
        facts.append("permessage-deflate")
    said = ", ".join(fact for fact in facts if fact)
    logger.info("connection open (%s) #%d%s", address, number, f": {said}" if said else "")
    if logger.isEnabledFor(logging.DEBUG):
        received, sent = _Scanner(number, "received"), _Scanner(number, "sent")
        received.see(decision.trailing)
        transport = endpoint._transport
        transport.set_protocol(_Reading(endpoint, received))
        endpoint._transport = cast("asyncio.Transport", Tap(transport, sent.see))


def closed(endpoint: Endpoint) -> None:
    """The transport of a connection with an `id` is gone."""
    begun, address = _begun.pop(endpoint.id, (None, endpoint.remote_address))
    connection = endpoint._connection
    if connection is None or not logger.isEnabledFor(logging.INFO):
        return
    lasted = "" if begun is None else f" after {monotonic() - begun:.1f} s"
    stats = endpoint.stats
    logger.info(
        "connection closed (%s) #%d%s: %s; received %d messages, %d bytes; sent %d messages, "
        "%d bytes",
        address,
        endpoint.id,
        lasted,
        errors.closed(connection._ending),
        stats.messages_received,
        stats.bytes_received,
        stats.messages_sent,
        stats.bytes_sent,
    )


def _path(endpoint: Endpoint) -> str:
    """Return the path of the request, without the query, which may contain a secret."""
    if endpoint.request is not None:
        return endpoint.request.path
    uri: Any = getattr(getattr(endpoint._opening, "handshake", None), "uri", None)
    return "" if uri is None else str(uri.target).partition("?")[0]


class _Scanner:
    """Finds the frames in a stream of bytes and logs each when its header is complete, or, with
    payloads, when so much of the payload has arrived as is logged.

    Args:
        number: that of the connection.
        verb: what happened to the frames.
    """

    def __init__(self, number: int, verb: str) -> None:
        self._number = number
        self._verb = verb
        self._held = b""  # an incomplete header, or a header and too little of the payload
        self._rest = 0  # how much of the payload is still to come, in bytes

    def see(self, data: Buffer) -> None:
        """Look at the next bytes."""
        octets = bytes(data)
        while octets:
            if self._rest:
                skipped = min(self._rest, len(octets))
                self._rest -= skipped
                octets = octets[skipped:]
                continue
            self._held += octets
            octets = b""
            if (used := self._log(self._held)) is not None:
                octets, self._held = self._held[used:], b""

    def _log(self, head: bytes) -> int | None:
        """Log the frame that begins here; return how many of these bytes belong to it, or None if
        there are too few."""
        measured = rules.measure_frame(head)
        if measured is None:
            return None
        start, length = measured
        wanted = min(length, _EXCERPT) if _payloads.level == logging.DEBUG else 0
        if len(head) < start + wanted:
            return None
        first, second = head[:2]
        excerpt = ""
        if wanted:
            octets = head[start : start + wanted]
            if second & MASK:
                octets = apply_mask(octets, head[start - MASK_KEY_SIZE : start])
            excerpt = f": {octets!r}{'…' if wanted < length else ''}"
        bits = ", ".join(name for bit, name in _BITS.items() if first & bit)
        logger.debug(
            "#%d %s %s%s, %d bytes%s",
            self._number,
            self._verb,
            _name(first & OPCODE_BITS),
            f" ({bits})" if bits else "",
            length,
            excerpt,
        )
        used = min(len(head), start + length)
        self._rest = start + length - used
        return used


def _name(opcode: int) -> str:
    try:
        return Opcode(opcode).name
    except ValueError:
        return f"opcode 0x{opcode:X}"


class _Reading(asyncio.BufferedProtocol):
    """Stands between a transport and its endpoint, and sees what is read."""

    __slots__ = ("_endpoint", "_scanner")

    def __init__(self, endpoint: Endpoint, scanner: _Scanner) -> None:
        self._endpoint = endpoint
        self._scanner = scanner

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._endpoint.get_buffer(sizehint)

    def buffer_updated(self, nbytes: int) -> None:
        if self._endpoint.close_code is None:  # what comes after the end is dropped
            self._scanner.see(self._endpoint._buffer[:nbytes])
        self._endpoint.buffer_updated(nbytes)

    def eof_received(self) -> None:
        self._endpoint.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        self._endpoint.connection_lost(exc)

    def pause_writing(self) -> None:
        self._endpoint.pause_writing()

    def resume_writing(self) -> None:
        self._endpoint.resume_writing()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._endpoint, name)
