"""Compression of messages: permessage-deflate (RFC 7692), for both roles.

This module knows how the extension is negotiated, and how one message after the other is
compressed, and decompressed within a limit. It does not know frames, and it leaves DEFLATE
to a library: `zlib` of the standard library, zlib-ng or isal.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from functools import cache
from operator import index
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from . import exceptions as errors
from .spec import Role

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from .extensions import Params

__all__ = ["Agreement", "CompressorParameters", "Deflater", "Inflater", "PerMessageDeflate"]

# What makes two compressors alike: backend, level, window bits, memory level.
CompressorParameters: TypeAlias = tuple[str, int | None, int, int]

MAX_WINDOW_BITS: Final = 15
# RFC 7692 allows 8, which no library can write.
MIN_WINDOW_BITS: Final = 9

# A sync flush ends with these bytes; they are left out of a message (§7.2.1).
_FLUSHED: Final = b"\x00\x00\xff\xff"

# An empty block, marked as the last of a stream.
_LAST_BLOCK: Final = b"\x03\x00"

# How much of a large message is compressed in one go, in bytes.
_PIECE: Final = 64 << 10

# How much of the input is looked at in one go after a final block, in bytes.
_SLICE: Final = 256

_NO_LIMIT: Final = sys.maxsize

_SERVER_NO_CONTEXT_TAKEOVER: Final = "server_no_context_takeover"
_CLIENT_NO_CONTEXT_TAKEOVER: Final = "client_no_context_takeover"
_SERVER_MAX_WINDOW_BITS: Final = "server_max_window_bits"
_CLIENT_MAX_WINDOW_BITS: Final = "client_max_window_bits"

# By backend: its default level. isal's levels go from 0 to 3.
_BACKENDS: Final = {"zlib": 6, "zlib-ng": 6, "isal": 2}


# Negotiation (RFC 7692 §5, §7.1) -------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class PerMessageDeflate:
    """How we want messages to be compressed; give it to `serve` or `connect`.

    A connection without compression that is idle takes next to no memory. With context
    takeover each one keeps a compressor of about 2^(max_window_bits + 2) + 2^(mem_level + 9)
    bytes after the first message it compressed, and a decompressor of about
    2^(peer_max_window_bits) + 7 KiB after the first it decompressed.

    Args:
        context_takeover: whether a message we send may refer to the ones before. Without,
            all connections share their compressors.
        peer_context_takeover: whether a message we receive may refer to the ones before.
        max_window_bits: the base-2 logarithm of how far back we refer, 9 to 15. The peer
            need not know it: what is agreed on may be larger, never smaller, than what we use.
        peer_max_window_bits: how far back the peer may refer, 9 to 15. A client asks its
            server for it, and takes a larger window where the server has no other. A server
            can ask only clients that offer to be asked; the others use what they like, up
            to 15. With the default of 15, a decompressor takes 39 KiB.
        level: the compression level, as the backend counts; None for its default.
        mem_level: how much memory a compressor's tables get, 1 to 9.
        threshold: the smallest message to compress, in bytes. A message also goes out
            plain where compression does not make it smaller.
        backend: "zlib", "zlib-ng" or "isal" (`pip install fastws-codec[zlib-ng]`,
            `fastws-codec[isal]`).

    Raises:
        TypeError: if an argument is of another type.
        ValueError: if an argument is out of range, or there is no such backend.
        ImportError: if the backend is not installed.
    """

    context_takeover: bool = True
    peer_context_takeover: bool = True
    max_window_bits: int = 12
    peer_max_window_bits: int = 15
    level: int | None = None
    mem_level: int = 5
    threshold: int = 256
    backend: str = "zlib"

    def __post_init__(self) -> None:
        for name in ("max_window_bits", "peer_max_window_bits"):
            if not MIN_WINDOW_BITS <= index(getattr(self, name)) <= MAX_WINDOW_BITS:
                raise ValueError(f"{name} must be {MIN_WINDOW_BITS} to {MAX_WINDOW_BITS}")
        if self.threshold < 0:
            raise ValueError("threshold must not be negative")
        # The backend knows its levels.
        _compressor(self.backend, self.level, self.max_window_bits, self.mem_level)

    @property
    def name(self) -> str:
        """The extension's token."""
        return "permessage-deflate"

    # The server's side

    def accept_offer(self, params: Params) -> tuple[Params, Agreement] | None:
        """Answer a client's offer (§7.1).

        Returns:
            the response's parameters and what was agreed on; None to decline.
        """
        offered = _parse(params)
        if offered is None:
            return None
        # §7.1.2.1: a server that cannot do with the window offered declines.
        asked = offered.server_bits or MAX_WINDOW_BITS
        if asked < MIN_WINDOW_BITS:
            return None
        # §7.1.2.2: only a client that said so can be asked to use a smaller window.
        client_bits = offered.client_bits or MAX_WINDOW_BITS
        if offered.client_bits is not None:
            client_bits = min(self.peer_max_window_bits, client_bits)
        agreement = Agreement(
            role=Role.SERVER,
            config=self,
            context_takeover=self.context_takeover and not offered.server_no_takeover,
            peer_context_takeover=self.peer_context_takeover and not offered.client_no_takeover,
            max_window_bits=min(self.max_window_bits, asked),
            peer_max_window_bits=client_bits,
        )
        # How little we refer back to is nothing that a client must know, and some refuse an
        # answer that says more, or other, than what they asked for: it gets just that.
        answer: list[tuple[str, str | None]] = []
        if offered.server_no_takeover:
            answer.append((_SERVER_NO_CONTEXT_TAKEOVER, None))
        if not agreement.peer_context_takeover:
            answer.append((_CLIENT_NO_CONTEXT_TAKEOVER, None))
        if offered.server_bits is not None:
            answer.append((_SERVER_MAX_WINDOW_BITS, str(asked)))
        # A value in the offer is a hint (§7.1.2.2) that not every client keeps to by itself.
        if client_bits < MAX_WINDOW_BITS:
            answer.append((_CLIENT_MAX_WINDOW_BITS, str(client_bits)))
        return answer, agreement

    # The client's side

    def offers(self) -> Sequence[Params]:
        """Make the offer, and what to fall back on (§7.1, §5.1)."""
        ours: list[tuple[str, str | None]] = []
        if not self.peer_context_takeover:
            ours.append((_SERVER_NO_CONTEXT_TAKEOVER, None))
        if not self.context_takeover:
            ours.append((_CLIENT_NO_CONTEXT_TAKEOVER, None))
        # Without a value: any answer will do, for we can always refer back less far.
        ours.append((_CLIENT_MAX_WINDOW_BITS, None))
        if self.peer_max_window_bits == MAX_WINDOW_BITS:
            return [ours]
        # A server may be unable to use a smaller window; better a large one than none.
        return [[*ours, (_SERVER_MAX_WINDOW_BITS, str(self.peer_max_window_bits))], ours]

    def accept_response(self, params: Params) -> Agreement:
        """Judge the server's answer (§7.1).

        Raises:
            ValueError: if a server may not answer so to what we offered.
        """
        answer = _parse(params)
        if answer is None:
            raise ValueError("bad parameters of permessage-deflate")
        if answer.client_bits == 0:
            raise ValueError(f"{_CLIENT_MAX_WINDOW_BITS} has no value")
        # §7.1.1.1: what was asked for has to be confirmed.
        if not self.peer_context_takeover and not answer.server_no_takeover:
            raise ValueError(f"{_SERVER_NO_CONTEXT_TAKEOVER} is missing")
        return Agreement(
            role=Role.CLIENT,
            config=self,
            context_takeover=self.context_takeover and not answer.client_no_takeover,
            peer_context_takeover=not answer.server_no_takeover,
            max_window_bits=min(self.max_window_bits, answer.client_bits or MAX_WINDOW_BITS),
            peer_max_window_bits=answer.server_bits or MAX_WINDOW_BITS,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """What both ends agreed on; "peer" is the other end, whichever that is.

    Attributes:
        role: which end we are.
        config: how we wanted it.
        context_takeover: whether a message we send may refer to the ones before.
        peer_context_takeover: whether a message we receive may.
        max_window_bits: how far back we refer, 8 to 15. The window that the peer was told
            of may be larger.
        peer_max_window_bits: how far back the peer may refer, 8 to 15.
    """

    role: Role
    config: PerMessageDeflate
    context_takeover: bool
    peer_context_takeover: bool
    max_window_bits: int
    peer_max_window_bits: int


@dataclass(frozen=True, slots=True)
class _Parsed:
    """The parameters of an offer or a response; bits are None where not given, and 0
    where given without a value."""

    server_no_takeover: bool
    client_no_takeover: bool
    server_bits: int | None
    client_bits: int | None


def _parse(params: Params) -> _Parsed | None:
    """Read the parameters; None if one is unknown, doubled or has no good value (§7.1)."""
    given = dict(params)
    if len(given) != len(params):
        return None
    flags = [
        given.pop(name, ...) for name in (_SERVER_NO_CONTEXT_TAKEOVER, _CLIENT_NO_CONTEXT_TAKEOVER)
    ]
    if any(flag is not ... and flag is not None for flag in flags):
        return None
    bits: list[int | None] = []
    for name in (_SERVER_MAX_WINDOW_BITS, _CLIENT_MAX_WINDOW_BITS):
        if name not in given:
            bits.append(None)
            continue
        value = given.pop(name)
        if value is None and name == _CLIENT_MAX_WINDOW_BITS:
            bits.append(0)
        elif value in _WINDOW_BITS:
            bits.append(int(value))
        else:
            return None
    if given:
        return None
    return _Parsed(flags[0] is None, flags[1] is None, bits[0], bits[1])


# §7.1.2: "a decimal integer value without leading zeroes between 8 to 15".
_WINDOW_BITS: Final = frozenset(str(bits) for bits in range(8, MAX_WINDOW_BITS + 1))


# Receiving (RFC 7692 §7.2.2) --------------------------------------------------------------


class Inflater:
    """Decompresses the messages of one connection, one after the other.

    Args:
        agreement: what both ends agreed on.
    """

    __slots__ = ("_agreement", "_begun", "_stream", "_zlib")

    def __init__(self, agreement: Agreement) -> None:
        self._agreement = agreement
        self._zlib = _backend(agreement.config.backend)
        self._stream: Any = None  # there is none where none is needed
        self._begun = False  # a message

    def inflate(self, data: bytes, room: int | None, last: bool) -> bytes:
        """Decompress a piece of a message.

        Args:
            data: the piece, cut anywhere.
            room: how many bytes the message may still grow by; None for no limit.
            last: whether the message ends here.

        Returns:
            at most `room` bytes, or one more if the message is too big. The inflater is of
            no use after that.

        Raises:
            InvalidPayloadError: if this is not DEFLATE.
        """
        if not data and not self._begun:
            # §7.2.3.6 gives an empty message 1 byte. Some peers send none; there is no doubt
            # what they mean.
            return b""
        # The libraries take a limit of 0 for none at all. With one byte more than there is
        # room for, no limit is ever 0 and a message that is too big is known by it.
        limit = _NO_LIMIT if room is None else min(room + 1, _NO_LIMIT)
        try:
            output = b""
            if data:
                self._begun = True
                output = self._decompress(data, limit)
            if not last or len(output) == limit:
                return output
            self._begun = False
            output += self._decompress_end(limit - len(output))
            if len(output) == limit or self._at_end_of_block():
                return output
        except self._zlib.error:
            pass
        # Raised out here, the error has no context, which would pin the data.
        raise errors.corrupt_deflate()

    def _decompress(self, data: bytes, limit: int) -> bytes:
        """Decompress to no more than `limit` bytes, which is at least 1."""
        stream = self._stream or self._begin_stream()
        output: bytes = stream.decompress(data, limit)
        if not stream.eof:
            return output
        # §7.2.1: a block may be marked as the last, and others follow it. (They cannot refer
        # to what was before; no endpoint known writes that, nor does any read it.) What the
        # stream left is looked at bit by bit, for each stream that ends copies the rest:
        # many that do would take quadratic time.
        rest: bytes = stream.unused_data
        pieces, start = bytearray(output), 0
        self._stream = None
        while start < len(rest) and len(pieces) < limit:
            piece = rest[start : start + _SLICE]
            stream = self._stream or self._begin_stream()
            pieces += stream.decompress(piece, limit - len(pieces))
            start += len(piece)
            if stream.eof:
                start -= len(stream.unused_data)
                self._stream = None
        return bytes(pieces)

    def _begin_stream(self) -> Any:
        # A window larger than the peer's does no harm, and 8 is not to be had everywhere.
        bits = max(self._agreement.peer_max_window_bits, MIN_WINDOW_BITS)
        self._stream = self._zlib.decompressobj(-bits)
        return self._stream

    def _decompress_end(self, limit: int) -> bytes:
        """Decompress what a message's end left out (§7.2.2)."""
        # Some leave out nothing after a block marked as the last, though §7.2.1 adds a byte.
        return b"" if self._stream is None else self._decompress(_FLUSHED, limit)

    def _at_end_of_block(self) -> bool:
        """Tell whether a message ended where a block does; forget it if it may be forgotten."""
        stream = self._stream
        if stream is None:
            return True
        if not self._agreement.peer_context_takeover:
            self._stream = None
        elif hasattr(stream, "copy"):
            stream = stream.copy()
        else:
            return True  # isal's streams cannot be copied; there the next message will show it
        # In front of a block, an empty last block ends the stream and adds nothing; inside one
        # it is taken for something else.
        more: bytes = stream.decompress(_LAST_BLOCK, 1)
        return not more and stream.eof and not stream.unused_data


# Sending (RFC 7692 §7.2.1) ------------------------------------------------------------------


class Deflater:
    """Compresses the messages of one connection, one after the other.

    Args:
        agreement: what both ends agreed on.

    Attributes:
        able: whether there is a library to compress for the window agreed on. If not, all
            messages have to go out plain, as any message may (§6).
        threshold: the smallest message worth it, in bytes.
    """

    __slots__ = ("_agreement", "_stream", "_zlib", "able", "threshold")

    def __init__(self, agreement: Agreement) -> None:
        self._agreement = agreement
        self._zlib = _backend(agreement.config.backend)
        self._stream: Any = None
        self.able = agreement.max_window_bits >= MIN_WINDOW_BITS
        self.threshold = agreement.config.threshold

    @property
    def parameters(self) -> CompressorParameters:
        """What another compressor has to be alike in to write the same."""
        config = self._agreement.config
        return config.backend, config.level, self._agreement.max_window_bits, config.mem_level

    def deflate(self, data: bytes, last: bool) -> bytes:
        """Compress a piece of a message.

        Args:
            data: the piece.
            last: whether the message ends here.

        Returns:
            the payload of one frame.
        """
        if self._agreement.context_takeover:
            # Should this fail halfway, the stream is gone with what the peer will not get.
            stream = self._stream or _compressor(*self.parameters)
            self._stream = None
            payload = _flush(stream, data, self._zlib.Z_SYNC_FLUSH, last)
            self._stream = stream
            return payload
        return deflate_alone(self.parameters, data, last)

    def forget(self) -> None:
        """Start afresh: what was compressed last is not what the peer got last."""
        self._stream = None


# Compressors that carry nothing from one message to the next are shared by all connections;
# whoever uses one takes it out of its list, which is atomic, so threads never meet.
_shared: dict[CompressorParameters, list[Any]] = {}


def deflate_alone(parameters: CompressorParameters, data: bytes, last: bool = True) -> bytes:
    """Compress a message, or a piece of one, that refers to no other."""
    streams = _shared.setdefault(parameters, [])
    try:
        stream = streams.pop()
    except IndexError:
        stream = _compressor(*parameters)
    # A full flush forgets all that came before.
    payload = _flush(stream, data, _backend(parameters[0]).Z_FULL_FLUSH, last)
    streams.append(stream)
    return payload


def deflate_in_pieces(
    parameters: CompressorParameters, data: bytes
) -> Generator[None, None, bytes]:
    """Compress a message as `deflate_alone` does, with a pause after each piece of it."""
    stream = _compressor(*parameters)
    view = memoryview(data)
    pieces = []
    for start in range(0, len(data), _PIECE):
        pieces.append(stream.compress(view[start : start + _PIECE]))
        yield
    pieces.append(stream.flush(_backend(parameters[0]).Z_FULL_FLUSH))
    return b"".join(pieces).removesuffix(_FLUSHED)


def _flush(stream: Any, data: bytes, mode: int, last: bool) -> bytes:
    if not data:
        return b"\x00" if last else b""  # §7.2.3.6; zlib would not flush nothing twice
    payload: bytes = stream.compress(data) + stream.flush(mode)
    return payload.removesuffix(_FLUSHED) if last else payload


# The libraries ------------------------------------------------------------------------------


@cache
def _backend(name: str) -> Any:
    if name not in _BACKENDS:
        raise ValueError(f"no such backend: {name!r}; there are {', '.join(_BACKENDS)}")
    why = None
    try:
        # Statements, for PyInstaller and its kin, which look for them in Python code only: that
        # isal_zlib imports igzip_lib is compiled.
        match name:
            case "zlib":
                import zlib

                return zlib
            case "zlib-ng":
                from zlib_ng import zlib_ng

                return zlib_ng
            case "isal":
                from isal import igzip_lib, isal_zlib  # noqa: F401

                return isal_zlib
    except ImportError as exc:
        why = exc
    raise ImportError(f"the backend {name!r} needs: pip install 'fastws-codec[{name}]'") from why


def _compressor(backend: str, level: int | None, window_bits: int, mem_level: int) -> Any:
    library = _backend(backend)
    if level is None:
        level = _BACKENDS[backend]
    try:
        return library.compressobj(level, library.DEFLATED, -window_bits, mem_level)
    except (ValueError, OverflowError, library.error) as exc:
        raise ValueError(f"{backend} cannot do level={level}, mem_level={mem_level}") from exc
