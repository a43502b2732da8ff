"""fastws in wsproto, and so in hypercorn, quart, trio-websocket, httpx-ws, simple-websocket, …

    import fastws.integrations.wsproto

    fastws.integrations.wsproto.install()

This module knows how wsproto reads and writes ordinary frames: those that break no rule, on
connections without extensions. It does not know what wsproto does with all others. wsproto's own
code handles these, so its errors, its close codes and the order of its calls to an extension stay
the same. Connections opened before `install` stay as they are.
"""

from __future__ import annotations

import os
import struct
from codecs import getincrementaldecoder
from typing import TYPE_CHECKING, Final, cast

from fastws.codec import apply_mask, apply_mask_inplace, decode_utf8, encode_frame, read_header
from fastws.exceptions import ProtocolError
from fastws.spec import FIN

from ._hosts import HOSTS
from ._install import Installation

HOST = HOSTS["wsproto"]

try:
    from wsproto import connection as host_connection
    from wsproto import events
    from wsproto import frame_protocol as host
    from wsproto.frame_protocol import Frame, Opcode
except ImportError as exc:
    raise HOST.missing() from exc

if TYPE_CHECKING:
    from collections.abc import Generator

    from wsproto.extensions import Extension

__all__ = ["FrameProtocol", "install"]

# Looking up a member of an enum is slow.
CONTINUATION: Final = Opcode.CONTINUATION
TEXT: Final = Opcode.TEXT
BINARY: Final = Opcode.BINARY
CLOSE: Final = Opcode.CLOSE

# The opcodes by the first byte, if no RSV bit is set.
OPCODES: Final = {first: opcode for opcode in Opcode for first in (opcode, FIN | opcode)}


# Before 1.3, wsproto converts only unmasked data to bytes; other data stays a bytearray.
OLD: Final = isinstance(host.XorMaskerSimple(bytes(4)).process(bytearray(1)), bytes)


# From this size on, in bytes, an additional copy of a sent payload should be avoided.
LARGE: Final = 1 << 10


def install(*, untested: bool = False) -> Installation:
    """Let wsproto's connections read and write frames with fastws.

    Args:
        untested: whether to do so in a version of wsproto that was not tested with fastws.

    Returns:
        an object that undoes it.

    Raises:
        IntegrationError: if it does not work in this version of wsproto.
    """
    return HOST.install(_patch, _check, untested=untested)


class FrameProtocol(host.FrameProtocol):
    """wsproto's class of this name, reading and writing with fastws.

    Args:
        client: whether this is the client's end.
        extensions: the offered extensions; those that are enabled are used.
    """

    def __init__(self, client: bool, extensions: list[Extension]) -> None:
        super().__init__(client, extensions)
        self._theirs = bool(self._frame_decoder.extensions)  # whether wsproto's own code reads
        self._received: list[bytes] = []  # if it does not: the data that is not parsed yet

    # Receiving --------------------------------------------------------------------------

    def receive_bytes(self, data: bytes) -> None:
        """Receive data from the peer.

        Raises:
            TypeError: if `data` is not bytes-like.
        """
        if self._theirs:
            super().receive_bytes(data)
        elif type(data) is bytes:
            self._received.append(data)
        else:
            buffer = host.Buffer()
            buffer.feed(data)
            self._received.append(bytes(buffer.buffer))

    def _parse_more_gen(self) -> Generator[Frame | None, None, None]:
        # Parses only as much as the consumer of `received_frames` asks for. Yields None to wait for
        # more data.
        if not self._theirs:
            rest = yield from self._parse_ordinary()
            if rest is None:
                return
            self._theirs = True
            super().receive_bytes(rest)
        yield from super()._parse_more_gen()

    def _parse_ordinary(self) -> Generator[Frame | None, None, bytes | None]:
        """Yield ordinary frames. Return the data from the first other frame on, or None after a
        close frame."""
        received = self._received
        message = self._message_decoder
        masked = not self.client
        data, position, end = b"", 0, 0
        while True:
            if received:
                data = self._take(data[position:])
                position, end = 0, len(data)

            try:
                header = read_header(data, position, masked, 0, message.opcode is not None)
            except ProtocolError:
                break
            if header is None:
                yield None
                continue
            first, length, key, start = header
            if key is None:
                yield None
                continue
            opcode = OPCODES[first]
            stop = start + length

            if opcode > 2:
                if stop > end:
                    yield None
                    continue
                frame = Frame(opcode, _unmask(data[start:stop], key), True, True)
                position = stop
                if opcode is CLOSE:
                    yield self._process_close(frame)
                    return None
                yield frame

            elif first > FIN and stop <= end:
                # An unfragmented message, which is complete.
                if opcode is BINARY:
                    frame = Frame(BINARY, _unmask(data[start:stop], key), True, True)
                else:
                    try:
                        text = decode_utf8(data[start:stop], key or None)
                    except UnicodeDecodeError:
                        break
                    frame = Frame(TEXT, text, True, True)
                position = stop
                yield frame

            else:
                # A part of a message. As much of it as has arrived is passed on at once.
                position = start
                taken = 0
                while True:
                    payload = data[position : position + length - taken]
                    position += len(payload)
                    if payload or not length:
                        before = taken
                        taken += len(payload)
                        yield self._part(
                            opcode, payload, key, before, taken == length, first >= FIN
                        )
                        if taken == length:
                            break
                        opcode = CONTINUATION
                    else:
                        yield None
                    if received:
                        data = self._take(data[position:])
                        position, end = 0, len(data)

        return data[position:]

    def _part(
        self,
        opcode: Opcode,
        payload: bytes,
        key: bytes,
        offset: int,
        frame_finished: bool,
        fin: bool,
    ) -> Frame:
        """Return a part of a message. wsproto itself decodes text that is split in a character."""
        message = self._message_decoder
        decoder = message.decoder
        if opcode is TEXT or (decoder is not None and not decoder.getstate()[0]):
            try:
                text = decode_utf8(payload, key or None, offset)
            except UnicodeDecodeError:
                pass
            else:
                finished = frame_finished and fin
                if finished:
                    message.opcode = message.decoder = None
                elif decoder is None:
                    message.opcode, message.decoder = TEXT, getincrementaldecoder("utf-8")()
                return Frame(TEXT, text, frame_finished, finished)
        payload = _unmask(payload, key, offset)
        return message.process_frame(Frame(opcode, payload, frame_finished, fin))

    def _take(self, rest: bytes) -> bytes:
        """Return the rest of the earlier data, followed by the data received since."""
        received = self._received
        data = received[0] if not rest and len(received) == 1 else b"".join((rest, *received))
        received.clear()
        return data

    # Sending ----------------------------------------------------------------------------

    def _serialize_frame(
        self, opcode: Opcode, payload: bytes | bytearray = b"", fin: bool = True
    ) -> bytearray:
        if (
            self.extensions
            or (type(payload) is not bytes and type(payload) is not bytearray)
            or (fin is not True and fin is not False)
            or (opcode > 2 and len(payload) > 125)
        ):
            return super()._serialize_frame(opcode, payload, fin)
        key = os.urandom(4) if self.client else None
        length = len(payload)
        if length < LARGE:
            return bytearray(encode_frame(opcode, payload, fin=fin, key=key))
        first, mask_bit = fin << 7 | opcode, 0x80 if self.client else 0
        if length < 1 << 16:
            header = struct.pack("!BBH", first, mask_bit | 126, length)
        else:
            header = struct.pack("!BBQ", first, mask_bit | 127, length)
        if key is None:
            return bytearray().join((header, payload))
        return bytearray().join((header, key, apply_mask(payload, key)))


def _unmask(payload: bytes, key: bytes, offset: int = 0) -> bytes:
    if key and payload:
        return apply_mask(payload, key, offset)
    return cast("bytes", bytearray(payload)) if OLD else payload


def _process(self: host.XorMaskerSimple, data: bytearray) -> bytearray:
    """Mask a copy of `data`, and rotate the key for the data after it."""
    if OLD and not data:
        return data
    masked = bytearray(data)
    key = self._masking_key
    apply_mask_inplace(masked, key)
    turn = len(masked) % 4
    self._masking_key = key[turn:] + key[:turn]
    return cast("bytearray", bytes(masked)) if OLD else masked


# Installing -----------------------------------------------------------------------------


def _patch(installation: Installation) -> None:
    installation.replace(host_connection, "FrameProtocol", FrameProtocol)
    # This is for wsproto's own code, which handles connections with extensions.
    installation.replace(host.XorMaskerSimple, "process", _process)


def _check() -> None:
    """Let two connections exchange messages."""
    client = host_connection.Connection(host_connection.CLIENT)
    server = host_connection.Connection(host_connection.SERVER)
    assert type(client._proto) is type(server._proto) is FrameProtocol
    said: list[events.Event] = [
        events.TextMessage(data="größer als 125 Bytes: " + 50 * "€"),
        events.BytesMessage(data=bytes(70_000)),
        events.Ping(payload=b"ping"),
        events.BytesMessage(data=b"in two ", message_finished=False),
        events.BytesMessage(data=b"frames"),
    ]
    close = events.CloseConnection(code=host.CloseReason.NORMAL_CLOSURE, reason="bye")
    client.receive_data(b"".join(map(server.send, said)))
    assert list(client.events()) == said
    server.receive_data(b"".join(map(client.send, [*said, close])))
    assert list(server.events()) == [*said, close]
    client.receive_data(server.send(close.response()))
    assert list(client.events()) == [close]
    broken = host_connection.Connection(host_connection.CLIENT)
    broken.receive_data(b"\x81\x02\xc3(")
    (event,) = broken.events()
    assert isinstance(event, events.CloseConnection)
    assert event.code is host.CloseReason.INVALID_FRAME_PAYLOAD_DATA
