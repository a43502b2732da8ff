"""Compression of messages: permessage-deflate (RFC 7692), for both roles.

This module knows how to negotiate the extension, how to compress messages, and how to
decompress them within a limit. It does not know frames, and it leaves DEFLATE to a library: the
standard library's `zlib`, zlib-ng or isal.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from functools import cache
from operator import index
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias

from . import errors
from .spec import Role

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    from .extensions import Params

__all__ = [
    "Agreement",
    "CompressorParameters",
    "Deflater",
    "Inflater",
    "PartInflater",
    "PerMessageDeflate",
]

# Compressors with the same parameters are interchangeable: backend, level, window bits, memory
# level.
CompressorParameters: TypeAlias = tuple[str, int | None, int, int]

MAX_WINDOW_BITS: Final = 15
# RFC 7692 allows 8, but no library can compress with it.
MIN_WINDOW_BITS: Final = 9

# A sync flush ends with these bytes, which are removed from a message (§7.2.1).
_FLUSHED: Final = b"\x00\x00\xff\xff"

# An empty block, marked as the last of a stream.
_LAST_BLOCK: Final = b"\x03\x00"

# How much of a large message is compressed at once, in bytes.
_PIECE: Final = 64 << 10

# How much of the input after a final block is decompressed at once, in bytes.
_SLICE: Final = 256

_NO_LIMIT: Final = sys.maxsize

_SERVER_NO_CONTEXT_TAKEOVER: Final = "server_no_context_takeover"
_CLIENT_NO_CONTEXT_TAKEOVER: Final = "client_no_context_takeover"
_SERVER_MAX_WINDOW_BITS: Final = "server_max_window_bits"
_CLIENT_MAX_WINDOW_BITS: Final = "client_max_window_bits"


# Negotiation (RFC 7692 §5, §7.1) -------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class PerMessageDeflate:
    """How to compress messages; pass it to `serve` or `connect`.

    An idle connection without compression uses next to no memory. With context takeover, each
    connection keeps a compressor of about 2^(max_window_bits + 2) + 2^(mem_level + 9) bytes
    after it has compressed its first message, and a decompressor of about
    2^(peer_max_window_bits) + 7 KiB after it has decompressed its first message.

    Args:
        context_takeover: whether a message that we send may refer to earlier ones. If not,
            all connections share their compressors.
        peer_context_takeover: whether a message that we receive may refer to earlier ones.
        max_window_bits: the base-2 logarithm of how far back we refer, 9 to 15. The peer
            need not know it: the window agreed on may be larger than the one we use, but
            never smaller.
        peer_max_window_bits: how far back the peer may refer, 9 to 15. A client asks its
            server for this window, and accepts a larger one if the server does not support
            it. A server can only ask clients that offer this; other clients use any window
            up to 15. With the default of 15, a decompressor uses 39 KiB.
        level: the compression level of the backend; None for its default.
        mem_level: how much memory the compressor's tables may use, 1 to 9.
        threshold: the smallest message to compress, in bytes. A message is also sent
            uncompressed if compression does not make it smaller.
        backend: "zlib", "zlib-ng" or "isal"; the last two need the extra of that name.

    Raises:
        TypeError: if an argument has the wrong type.
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
                value = getattr(self, name)
                wanted = f"{MIN_WINDOW_BITS} to {MAX_WINDOW_BITS}"
                raise ValueError(f"{name} must be {wanted}, not {value}")
        if self.threshold < 0:
            raise ValueError(f"threshold must be at least 0, not {self.threshold}")
        # The backend checks the levels.
        _compressor(self.backend, self.level, self.max_window_bits, self.mem_level)

    @property
    def name(self) -> str:
        """The extension's token."""
        return "permessage-deflate"

    # The server's side

    def accept_offer(self, params: Params) -> tuple[Params, Agreement] | None:
        """Answer a client's offer (§7.1).

        Returns:
            The parameters of the response, and the agreement; None to decline.
        """
        offered = _parse(params)
        if offered is None:
            return None
        # §7.1.2.1: a server that does not support the window declines the offer.
        asked = offered.server_bits or MAX_WINDOW_BITS
        if asked < MIN_WINDOW_BITS:
            return None
        # §7.1.2.2: a server may ask for a smaller window only if the client offered it.
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
        # A client need not know that we use a smaller window. Some clients refuse an answer
        # that says anything other than what they asked for, so answer exactly that.
        answer: list[tuple[str, str | None]] = []
        if offered.server_no_takeover:
            answer.append((_SERVER_NO_CONTEXT_TAKEOVER, None))
        if not agreement.peer_context_takeover:
            answer.append((_CLIENT_NO_CONTEXT_TAKEOVER, None))
        if offered.server_bits is not None:
            answer.append((_SERVER_MAX_WINDOW_BITS, str(asked)))
        # A value in the offer is a hint (§7.1.2.2); not every client observes it unasked.
        if client_bits < MAX_WINDOW_BITS:
            answer.append((_CLIENT_MAX_WINDOW_BITS, str(client_bits)))
        return answer, agreement

    # The client's side

    def offers(self) -> Sequence[Params]:
        """Return the offer, and the fallback if there is one (§7.1, §5.1)."""
        ours: list[tuple[str, str | None]] = []
        if not self.peer_context_takeover:
            ours.append((_SERVER_NO_CONTEXT_TAKEOVER, None))
        if not self.context_takeover:
            ours.append((_CLIENT_NO_CONTEXT_TAKEOVER, None))
        # Without a value: we accept any answer, as we can always use a smaller window.
        ours.append((_CLIENT_MAX_WINDOW_BITS, None))
        if self.peer_max_window_bits == MAX_WINDOW_BITS:
            return [ours]
        # The server may not support a smaller window. Prefer a larger one to none at all.
        return [[*ours, (_SERVER_MAX_WINDOW_BITS, str(self.peer_max_window_bits))], ours]

    def accept_response(self, params: Params) -> Agreement:
        """Judge the server's answer (§7.1).

        Raises:
            ValueError: if this is not a valid answer to our offers.
        """
        answer = _parse(params)
        if answer is None:
            raise ValueError("bad parameters of permessage-deflate")
        if answer.client_bits == 0:
            raise ValueError(f"{_CLIENT_MAX_WINDOW_BITS} has no value")
        # §7.1.1.1: the server must confirm what we asked for.
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


def deflate_extensions(deflate: PerMessageDeflate | bool) -> tuple[PerMessageDeflate, ...]:
    """Return the extensions for the argument `deflate` of `serve`, `connect` and `Session`."""
    if isinstance(deflate, PerMessageDeflate):
        return (deflate,)
    return (PerMessageDeflate(),) if deflate else ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """What both ends agreed on. The peer is the other end, whether server or client.

    Attributes:
        role: which end we are.
        config: the configuration that we negotiated with.
        context_takeover: whether a message that we send may refer to earlier ones.
        peer_context_takeover: whether a message that we receive may refer to earlier ones.
        max_window_bits: how far back we refer, 8 to 15. The window that the peer expects may
            be larger.
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
    """The parameters of an offer or a response. Bits are None if they are absent, and 0 if
    they have no value."""

    server_no_takeover: bool
    client_no_takeover: bool
    server_bits: int | None
    client_bits: int | None


def _parse(params: Params) -> _Parsed | None:
    """Parse parameters; return None if one is unknown, repeated or has an invalid value
    (§7.1)."""
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
    """Decompresses the messages of one connection, in order.

    Args:
        agreement: what both ends agreed on.
    """

    __slots__ = ("_agreement", "_begun", "_stream", "_zlib")

    def __init__(self, agreement: Agreement) -> None:
        self._agreement = agreement
        self._zlib = load_library(agreement.config.backend)
        self._stream: Any = None  # created when it is needed
        self._begun = False  # whether we are inside a message

    def inflate(self, data: bytes, budget: int | None, last: bool) -> bytes:
        """Decompress a piece of a message.

        Args:
            data: the piece; a message may be split anywhere.
            budget: how many more bytes the message may have; None for no limit.
            last: whether this is the end of the message.

        Returns:
            At most `budget` bytes, or one more if the message is too big. The inflater cannot
            be used after that.

        Raises:
            InvalidPayloadError: if this is not valid DEFLATE.
        """
        if not data and not self._begun:
            # §7.2.3.6: an empty message has 1 byte. Some peers send none; it is clear what
            # they mean.
            return b""
        # To the libraries, a limit of 0 means no limit. One byte more than `budget` is never 0,
        # and it shows that a message is too big.
        limit = _NO_LIMIT if budget is None else min(budget + 1, _NO_LIMIT)
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
        # Raise it here: inside the except block it would get a context, which keeps the data
        # alive.
        raise errors.corrupt_deflate()

    def _decompress(self, data: bytes, limit: int) -> bytes:
        """Return at most `limit` decompressed bytes; `limit` is at least 1."""
        stream = self._stream or self._begin_stream()
        output: bytes = stream.decompress(data, limit)
        if not stream.eof:
            return output
        # §7.2.1: blocks may follow one that is marked as the last. (They cannot refer to data
        # before it; no known endpoint writes that or can read it.) Each stream that ends
        # copies the rest of its input, so pass the rest in slices: with many such blocks it
        # would take quadratic time otherwise.
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
        # A window larger than the peer's does no harm, and not every library supports 8.
        bits = max(self._agreement.peer_max_window_bits, MIN_WINDOW_BITS)
        self._stream = self._zlib.decompressobj(-bits)
        return self._stream

    def _decompress_end(self, limit: int) -> bytes:
        """Decompress the bytes that were removed from the end of a message (§7.2.2)."""
        # Some peers add nothing after a block marked as the last, though §7.2.1 requires a byte.
        return b"" if self._stream is None else self._decompress(_FLUSHED, limit)

    def _at_end_of_block(self) -> bool:
        """Return whether a message ended at the end of a block; drop its stream if possible."""
        stream = self._stream
        if stream is None:
            return True
        if not self._agreement.peer_context_takeover:
            self._stream = None
        elif hasattr(stream, "copy"):
            stream = stream.copy()
        else:
            return True  # isal's streams cannot be copied; the next message will fail instead
        # Between blocks, an empty last block ends the stream and adds nothing. Inside a block
        # it is read as something else.
        more: bytes = stream.decompress(_LAST_BLOCK, 1)
        return not more and stream.eof and not stream.unused_data


class PartInflater(Inflater):
    """An inflater for messages that are received in parts.

    Args:
        agreement: what both ends agreed on.
    """

    __slots__ = ("_ending", "_held")

    def __init__(self, agreement: Agreement) -> None:
        super().__init__(agreement)
        self._held = b""  # of the input, if there is more output
        self._ending = False  # whether the end of the message was passed to the library

    def inflate_part(self, data: bytes, limit: int, last: bool) -> tuple[bytes, bool]:
        """Decompress a piece of a message, but not more than `limit` bytes of it at once.

        Args:
            data: the piece; a message may be split anywhere.
            limit: the maximum number of bytes to return, at least 1.
            last: whether this is the end of the message.

        Returns:
            the bytes, and whether there may be more: if so, the next call must be with no data
            and the same `last`.

        Raises:
            InvalidPayloadError: if this is not valid DEFLATE.
        """
        if not data and not self._begun:
            return b"", False  # as in `inflate`
        self._begun = True
        try:
            output = self._decompress_some(data, limit)
            if last and not self._ending and len(output) < limit:
                self._ending = True
                if self._stream is not None:
                    output += self._decompress_some(_FLUSHED, limit - len(output))
            if len(output) == limit:
                return output, True
            if not last:
                return output, False
            self._begun = self._ending = False
            if self._at_end_of_block():
                return output, False
        except self._zlib.error:
            pass
        raise errors.corrupt_deflate()

    def _decompress_some(self, data: bytes, limit: int) -> bytes:
        """Return at most `limit` decompressed bytes; keep the input that is left then."""
        rest, pieces, size = self._held + data, bytearray(), _NO_LIMIT
        self._held = b""
        # (The library may have more output even if there is no more input.)
        while rest or self._stream is not None:
            stream = self._stream or self._begin_stream()
            output: bytes = stream.decompress(rest[:size], limit - len(pieces))
            if not stream.eof and not pieces and size == _NO_LIMIT:
                self._held = stream.unconsumed_tail
                return output
            # Blocks follow the last one of a stream: see `_decompress`.
            pieces += output
            left: bytes = stream.unused_data if stream.eof else stream.unconsumed_tail
            if stream.eof:
                self._stream = None
            rest = left + rest[size:]
            size = _SLICE
            if not rest or len(pieces) == limit:
                break
        self._held = rest
        return bytes(pieces)


# Sending (RFC 7692 §7.2.1) ------------------------------------------------------------------


class Deflater:
    """Compresses the messages of one connection, in order.

    Args:
        agreement: what both ends agreed on.

    Attributes:
        enabled: whether a library can compress for the window agreed on. If not, all messages
            must be sent uncompressed, as any message may be (§6).
        threshold: the smallest message to compress, in bytes.
        saved: how many bytes the messages that were sent have become smaller; its user counts them.
    """

    __slots__ = ("_agreement", "_stream", "_zlib", "enabled", "saved", "threshold")

    def __init__(self, agreement: Agreement) -> None:
        self._agreement = agreement
        self._zlib = load_library(agreement.config.backend)
        self._stream: Any = None
        self.enabled = agreement.max_window_bits >= MIN_WINDOW_BITS
        self.threshold = agreement.config.threshold
        self.saved = 0

    @property
    def parameters(self) -> CompressorParameters:
        """The parameters with which another compressor would produce the same output."""
        config = self._agreement.config
        return config.backend, config.level, self._agreement.max_window_bits, config.mem_level

    def deflate(self, data: bytes, last: bool) -> bytes:
        """Compress a piece of a message.

        Args:
            data: the piece.
            last: whether this is the end of the message.

        Returns:
            The payload of one frame.
        """
        if self._agreement.context_takeover:
            # If this fails halfway, the stream contains data that the peer will not get: drop it.
            stream = self._stream or _compressor(*self.parameters)
            self._stream = None
            payload = _flush(stream, data, self._zlib.Z_SYNC_FLUSH, last)
            self._stream = stream
            return payload
        return deflate_alone(self.parameters, data, last)

    def forget(self) -> None:
        """Forget all earlier data, because the peer did not get what was compressed last."""
        self._stream = None


# All connections share the compressors that keep nothing between messages. A compressor is
# removed from its list while it is in use. That is atomic, so no two threads use the same one.
_shared: dict[CompressorParameters, list[Any]] = {}


def deflate_alone(parameters: CompressorParameters, data: bytes, last: bool = True) -> bytes:
    """Compress a message, or a piece of one, without referring to any other."""
    streams = _shared.setdefault(parameters, [])
    try:
        stream = streams.pop()
    except IndexError:
        stream = _compressor(*parameters)
    # A full flush discards all earlier data.
    payload = _flush(stream, data, load_library(parameters[0]).Z_FULL_FLUSH, last)
    streams.append(stream)
    return payload


def deflate_in_pieces(
    parameters: CompressorParameters, data: bytes
) -> Generator[None, None, bytes]:
    """Compress a message like `deflate_alone`, but yield after each piece of it."""
    stream = _compressor(*parameters)
    view = memoryview(data)
    pieces = []
    for start in range(0, len(data), _PIECE):
        pieces.append(stream.compress(view[start : start + _PIECE]))
        yield
    pieces.append(stream.flush(load_library(parameters[0]).Z_FULL_FLUSH))
    return b"".join(pieces).removesuffix(_FLUSHED)


def _flush(stream: Any, data: bytes, mode: int, last: bool) -> bytes:
    if not data:
        return b"\x00" if last else b""  # §7.2.3.6; zlib does not flush twice without data
    payload: bytes = stream.compress(data) + stream.flush(mode)
    return payload.removesuffix(_FLUSHED) if last else payload


# The libraries ------------------------------------------------------------------------------
#
# These are import statements because PyInstaller and similar tools look for them, and only in
# Python code: isal_zlib, which imports igzip_lib, is compiled.


def _load_zlib() -> Any:
    import zlib

    return zlib


def _load_zlib_ng() -> Any:
    from zlib_ng import zlib_ng

    return zlib_ng


def _load_isal() -> Any:
    from isal import igzip_lib, isal_zlib  # noqa: F401

    return isal_zlib


class Library(NamedTuple):
    """A library that compresses by DEFLATE, with the interface of `zlib`.

    Attributes:
        load: imports and returns its module; raises ImportError if it is not installed.
        level: its default compression level.
        version: the module and the constant that contain its version.
    """

    load: Callable[[], Any]
    level: int
    version: tuple[str, str]


# By the name that `PerMessageDeflate` calls its backend. isal's levels go from 0 to 3.
LIBRARIES: Final = {
    "zlib": Library(_load_zlib, 6, ("zlib", "ZLIB_RUNTIME_VERSION")),
    "zlib-ng": Library(_load_zlib_ng, 6, ("zlib_ng.zlib_ng", "ZLIBNG_RUNTIME_VERSION")),
    "isal": Library(_load_isal, 2, ("isal", "ISAL_VERSION")),
}


@cache
def load_library(backend: str) -> Any:
    """Import a library.

    Raises:
        ValueError: if there is no such backend.
        ImportError: if it is not installed.
    """
    if backend not in LIBRARIES:
        raise ValueError(f"backend must be one of {', '.join(LIBRARIES)}, not {backend!r}")
    try:
        return LIBRARIES[backend].load()
    except ImportError as exc:
        remedy = f"pip install 'fastws-codec[{backend}]'"
        raise ImportError(f"backend {backend!r} is not installed: {remedy}") from exc


def _compressor(backend: str, level: int | None, window_bits: int, mem_level: int) -> Any:
    library = load_library(backend)
    if level is None:
        level = LIBRARIES[backend].level
    try:
        return library.compressobj(level, library.DEFLATED, -window_bits, mem_level)
    except (ValueError, OverflowError, library.error) as exc:
        raise ValueError(
            f"{backend} does not support level={level}, mem_level={mem_level}"
        ) from exc
