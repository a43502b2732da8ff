"""fastws in websockets: in its asyncio, threading, trio and sans-I/O clients and servers, and in
the hosts that use them (uvicorn's default class, sanic).

    import fastws.integrations.websockets

    fastws.integrations.websockets.install()

or, for some connections only and without replacing anything:

    from fastws.integrations.websockets import ServerConnection

    async with serve(handler, host, port, create_connection=ServerConnection): ...

This module knows how websockets reads and writes frames. It does not know what a frame does to a
connection: websockets' own `Protocol.recv_frame` still processes each of them. If something is
unusual, such as a violation of the protocol, websockets' own parser reads that frame again from its
first byte, and decides what to do.
"""

from __future__ import annotations

import secrets
from types import MethodType
from typing import TYPE_CHECKING, Any, TypeVar

from fastws.codec import Frame, FrameDecoder, encode_frame, implementation, read_header
from fastws.spec import MASK_KEY_SIZE, MAX_HEADER, RSV_BITS

from ._hosts import HOSTS
from ._install import Installation

HOST = HOSTS["websockets"]

try:
    from websockets import client, frames, protocol, server, streams
    from websockets.asyncio import client as asyncio_client
    from websockets.asyncio import server as asyncio_server
    from websockets.exceptions import PayloadTooBig
except ImportError as exc:
    raise HOST.missing() from exc

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from websockets.extensions import Extension

__all__ = [
    "ClientConnection",
    "ClientProtocol",
    "ServerConnection",
    "ServerProtocol",
    "install",
]


def install(*, untested: bool = False) -> Installation:
    """Let all connections of websockets that are opened from now on read and write their frames
    with fastws, including those in threads, in trio and without I/O.

    Connections of `websockets.legacy` only write them with fastws. With the pure-Python twin,
    nothing is replaced, because it would not be faster.

    Args:
        untested: whether to do so with a version of websockets that was not tested.

    Returns:
        an object that undoes it. Connections that were opened before that stay as they are.

    Raises:
        IntegrationError: if it does not work.
    """
    return HOST.install(_patch, _check, untested=untested)


# websockets masks in C, so the pure-Python twin would make it slower.
_gains = implementation == "c"


def _patch(installation: Installation) -> None:
    if not _gains:
        return
    installation.replace(protocol.Protocol, "parse", _parse)
    installation.replace(frames.Frame, "serialize", _serialize)


# Reading ------------------------------------------------------------------------------

_their_parse = protocol.Protocol.parse
_OPCODES: list[Any] = [next((op for op in frames.Opcode if op == i), None) for i in range(16)]


class _Reader(streams.StreamReader):
    """Keeps data in the pieces in which it arrived, until websockets' own code reads it.

    Each of websockets' loops begins with a call of `at_eof`, which shows that ours has ended.
    """

    def __init__(self, reader: streams.StreamReader) -> None:
        self.buffer = reader.buffer
        self.eof = reader.eof
        self.data = b""
        self.ours = True
        self.failure: Exception | None = None

    def feed_data(self, data: bytes | bytearray) -> None:
        if self.ours and not (self.buffer or self.data or self.eof) and type(data) is bytes:
            self.data = data
        else:
            self._join()
            super().feed_data(data)

    def take(self) -> bytes | bytearray:
        data: bytes | bytearray = self.data
        if data:
            self.data = b""
        elif self.buffer:
            data = self.buffer
            self.buffer = bytearray()
        return data

    def at_eof(self) -> Generator[None, None, bool]:
        self.ours = False
        self._join()
        if self.failure is not None:
            failure, self.failure = self.failure, None
            raise failure
        return (yield from super().at_eof())

    def _join(self) -> None:
        if self.data:
            self.buffer = bytearray(self.data) + self.buffer
            self.data = b""


def _parse(self: protocol.Protocol) -> Generator[None]:
    """Parse incoming data into frames. This replaces `websockets.protocol.Protocol.parse`.

    If something is unusual, the original method takes over for good: it gets the bytes of the
    current frame, or the exception to handle.
    """
    masked = self.side is protocol.SERVER
    try:
        # websockets checks which extension may use which bit.
        decoder = FrameDecoder(
            masked=masked, max_payload_size=_limit(self), rsv1=True, rsv2=True, rsv3=True
        )
    except (TypeError, ValueError):
        yield from _their_parse(self)
        return
    reader = self.reader = _Reader(self.reader)
    unread = 0  # how many bytes of the current frame have arrived
    head = b""  # the first of them
    judged = False  # whether the length of the frame was checked
    while True:
        data = reader.take()
        if not data:
            if not reader.eof:
                yield
                continue
            if unread <= len(head):
                reader.buffer += head
            else:
                header = read_header(head, 0, masked, RSV_BITS, None)
                assert header is not None  # because more than the header has arrived
                _, length, _, start = header
                got = unread - start
                reader.failure = EOFError(f"stream ends after {got} bytes, expected {length} bytes")
            break
        found = decoder.feed(data)
        unread += len(data)
        if found:
            unread -= _deliver(self, reader, found, masked)
            del found  # so that an idle connection uses no memory for it
            if not reader.ours:
                break
        if not unread:
            head = b""
            continue
        started = len(data) - unread  # where the frame begins; negative if that is in earlier data
        if started >= 0:
            head = b""
            judged = False
        else:
            started = 0
        if decoder.error is not None:
            reader.buffer += head
            reader.buffer += data[started:]
            break
        if len(head) < MAX_HEADER:
            head += data[started : started + MAX_HEADER - len(head)]
        if judged:
            continue
        header = read_header(head, 0, masked, RSV_BITS, None)
        if header is None:
            continue
        judged = True
        max_size = _max_size(self)
        if max_size is not None and header[1] > max_size:
            reader.buffer += head
            break
    yield from _their_parse(self)


def _deliver(self: protocol.Protocol, reader: _Reader, found: list[Frame], masked: bool) -> int:
    """Let websockets process frames, as its `Protocol.parse` does. `reader.ours` says whether it
    needs more of them.

    Returns:
        the size of these frames, in bytes.
    """
    parser = self.parser
    new_frame = frames.Frame
    read = 0
    try:
        for frame in found:
            payload = frame.payload
            length = len(payload)
            read += length + (2 if length < 126 else 4 if length < 65536 else 10)
            max_size = _max_size(self)
            if max_size is not None and length > max_size:
                raise PayloadTooBig(length, max_size)
            rsv1, rsv2, rsv3 = frame.rsv1, frame.rsv2, frame.rsv3
            theirs = new_frame(_OPCODES[frame.opcode], payload, frame.fin, rsv1, rsv2, rsv3)
            extensions = self.extensions
            if extensions:
                for extension in reversed(extensions):
                    theirs = extension.decode(theirs, max_size=max_size)
                theirs.check()
            elif rsv1 or rsv2 or rsv3:
                theirs.check()
            if self.debug:
                self.logger.debug("< %s", theirs)
            self.recv_frame(theirs)
            if self.parser is not parser:  # closed; discard the rest
                reader.ours = False
                break
    except Exception as exc:
        reader.failure = exc
        reader.ours = False
    return read + MASK_KEY_SIZE * len(found) if masked else read


def _limit(self: protocol.Protocol) -> int | None:
    """Return the maximum size of any frame."""
    limits = [self.max_message_size, self.max_fragment_size]
    return min((max(limit, 0) for limit in limits if limit is not None), default=None)


def _max_size(self: protocol.Protocol) -> int | None:
    """Return the maximum size of the next frame."""
    limit, fragment_limit = self.max_message_size, self.max_fragment_size
    if limit is not None and self.current_size is not None:
        limit -= self.current_size
    if fragment_limit is not None and (limit is None or fragment_limit < limit):
        return fragment_limit
    return limit


# Writing ------------------------------------------------------------------------------

_their_serialize = frames.Frame.serialize


class _Checked(frames.Frame):
    """A frame that was checked before extensions changed it."""

    def check(self) -> None:
        pass


def _serialize(
    self: frames.Frame, *, mask: bool, extensions: Sequence[Extension] | None = None
) -> bytes:
    """Write a frame. This replaces `websockets.frames.Frame.serialize`."""
    self.check()
    for extension in extensions or ():
        self = extension.encode(self)
    opcode, data, fin = self.opcode, self.data, self.fin
    rsv1, rsv2, rsv3 = self.rsv1, self.rsv2, self.rsv3
    if (
        not _is_plain(data)
        or type(opcode) is not frames.Opcode
        # An extension may have changed the frame in any way.
        or (opcode >= 8 and (not fin or len(data) > 125))
    ):
        checked = _Checked(opcode, data, fin, rsv1, rsv2, rsv3)
        return _their_serialize(checked, mask=mask)
    # Look it up in `secrets` each time, because tests of applications replace it there.
    key = secrets.token_bytes(MASK_KEY_SIZE) if mask else None
    if rsv1 or rsv2 or rsv3:
        return encode_frame(opcode, data, fin=fin, rsv1=rsv1, rsv2=rsv2, rsv3=rsv3, key=key)
    return encode_frame(opcode, data, fin=fin, key=key)


def _is_plain(data: Any) -> bool:
    """Return whether `len` is the number of bytes and they are contiguous."""
    kind = type(data)
    if kind is bytes or kind is bytearray:
        return True
    return kind is memoryview and data.ndim == 1 and data.itemsize == 1 and data.c_contiguous


# Without replacing anything -----------------------------------------------------------


_AnyProtocol = TypeVar("_AnyProtocol", bound=protocol.Protocol)


class _Protocol(protocol.Protocol):
    parse = _parse

    def send_frame(self, frame: frames.Frame) -> None:
        if self.debug:
            self.logger.debug("> %s", frame)
        mask = self.side is protocol.CLIENT
        self.writes.append(_serialize(frame, mask=mask, extensions=self.extensions))


class ServerProtocol(server.ServerProtocol, _Protocol):
    """`websockets.server.ServerProtocol`, reading and writing frames with fastws."""


class ClientProtocol(client.ClientProtocol, _Protocol):
    """`websockets.client.ClientProtocol`, reading and writing frames with fastws."""


class ServerConnection(asyncio_server.ServerConnection):
    """`websockets.asyncio.server.ServerConnection`, reading and writing frames with fastws.

    For `websockets.asyncio.server.serve(..., create_connection=ServerConnection)`.
    """

    def __init__(self, protocol: server.ServerProtocol, *args: Any, **kwargs: Any) -> None:
        if type(protocol) is server.ServerProtocol:
            protocol = _made_again(protocol, ServerProtocol)
        super().__init__(protocol, *args, **kwargs)


class ClientConnection(asyncio_client.ClientConnection):
    """`websockets.asyncio.client.ClientConnection`, reading and writing frames with fastws.

    For `websockets.asyncio.client.connect(..., create_connection=ClientConnection)`.
    """

    def __init__(self, protocol: client.ClientProtocol, *args: Any, **kwargs: Any) -> None:
        if type(protocol) is client.ClientProtocol:
            protocol = _made_again(protocol, ClientProtocol)
        super().__init__(protocol, *args, **kwargs)


def _made_again(protocol: _AnyProtocol, wanted: type[_AnyProtocol]) -> _AnyProtocol:
    """Return a copy, in another class, of a protocol that has received nothing yet.

    Assigning to __class__ would make each access to its attributes slower.
    """
    protocol.parser.close()
    made = wanted.__new__(wanted)
    for name, value in vars(protocol).items():
        if isinstance(value, MethodType) and value.__self__ is protocol:
            value = MethodType(value.__func__, made)
        setattr(made, name, value)
    made.parser = made.parse()
    next(made.parser)
    return made


# The check ----------------------------------------------------------------------------


def _check() -> None:
    ends = [protocol.Protocol(side, max_size=100_000) for side in protocol.Side]
    for ours, peer in (ends, ends[::-1]):
        ours.send_text(b"fast", fin=False)
        ours.send_ping(b"p")
        ours.send_continuation("ws €".encode(), fin=True)
        ours.send_binary(bytes(range(256)) * 300)
        sent = b"".join(ours.data_to_send())
        for i in range(0, len(sent), 1000):
            peer.receive_data(sent[i : i + 1000])
        expected = [
            frames.Frame(frames.Opcode.TEXT, b"fast", fin=False),
            frames.Frame(frames.Opcode.PING, b"p"),
            frames.Frame(frames.Opcode.CONT, "ws €".encode()),
            frames.Frame(frames.Opcode.BINARY, bytes(range(256)) * 300),
        ]
        if peer.events_received() != expected or peer.parser_exc is not None:
            raise RuntimeError("frames are not what was sent")
        peer.data_to_send()
    sender, receiver = ends
    sender.send_close(1000, "bye")
    receiver.receive_data(b"".join(sender.data_to_send()))
    if receiver.close_rcvd != frames.Close(1000, "bye"):
        raise RuntimeError("the close frame is not what was sent")
