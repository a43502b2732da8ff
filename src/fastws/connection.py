"""One end of a WebSocket connection after the opening handshake, without I/O.

This module knows its role, answers pings, takes part in the closing handshake and fails the
connection if the peer breaks the protocol (RFC 6455 §5-§7). It does not know sockets, clocks or
tasks: bytes come in through `receive_data` and go out through `data_to_send`.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from .codec import MessageDecoder, implementation
from .deflate import Inflater, PartInflater
from .prepared import PreparedMessage, prepare
from .spec import (
    DEFAULT_MAX_FRAGMENTS,
    DEFAULT_MAX_MESSAGE_SIZE,
    STEP,
    Opcode,
    Role,
    State,
)
from .stats import Stats
from .text import as_text, check_fragment

if TYPE_CHECKING or implementation == "py":
    from ._py.connection import Connection as _Connection
else:  # pragma: no cover - the other twin
    from ._c.connection import Connection as _Connection

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from .deflate import Agreement
    from .events import Text

__all__ = ["Connection", "State"]


class Connection(_Connection):
    """One end of a WebSocket connection.

    Threads that share a connection must lock it.

    It does no I/O. Pass the data that the socket delivers to `receive_data`, then b"" while
    `has_pending` is true, and call `receive_eof` at the end of the stream. After these calls, and
    after those that send something, write what `data_to_send` returns. If `state` is CLOSED
    after that, the WebSocket connection is over. Now end the TCP connection (RFC 6455 §7.1.1,
    §7.1.7):

    - On a server, or if the connection failed (`error` is set, or you called `fail`), shut down
      only the writing side of the socket. Then read, and drop the data, until the peer has ended
      its side too; give up after 10 seconds, for example. Then close the socket. If you close it
      at once while data is unread or still arriving, the operating system sends a reset, and the
      peer loses everything that it has not read yet, including the close frame that says what
      was wrong.
    - On a client, read until the server has closed, for at most 10 seconds. Then close the socket.
    - If the writing side cannot be shut down alone, as with TLS in Python, read and drop data
      until the peer has closed or has been silent for a second. Then close the socket.
    - After `receive_eof`, if `close_code` is 1006, close the socket at once: the peer is gone.

    Timeouts are also up to you. Close the socket if the peer does not answer `close` within
    10 seconds or so. Limit how long a write may take, because a peer may never read. Send a
    `ping` to a silent peer, because it may be gone without the operating system noticing.
    `Session` does all this, and `examples/trio_by_hand.py` in fastws's sources shows how to do it
    yourself.

    Args:
        role: the end that we are. A client masks what it sends (RFC 6455 §5.1).
        max_message_size: the maximum size of a received message, in bytes; None for no limit.
        max_fragments: the maximum number of frames in a received message, including empty
            ones; None for no limit.
        deflate: how to compress messages: the agreement that `PerMessageDeflate` reached in the
            opening handshake; None for no compression.
        decode_text: whether a received text message is a `str`. If not, it is a `Text`, which
            has its UTF-8 as bytes. It is validated in either case.
        stream: whether to return received messages in parts, as `MessagePart` events. Each
            message becomes one or more of them, as it arrives. `max_message_size` and
            `max_fragments` do not apply then.
        max_stream_size: the maximum size of a message that is received in parts, in bytes; None
            for no limit.

    Attributes:
        role: the end that we are.
        deflate: how messages are compressed; None if they are not.
        decode_text: whether a received text message is a `str`.
        state: what can still happen.
        error: the peer's violation of the protocol, if it ended the connection; an
            InternalError if `receive_data` raised.
        has_pending: whether the last `receive_data` stopped before the end of its data, because
            it had done enough work. Call `receive_data(b"")` while it is true.
        close_code: how the connection ended (RFC 6455 §7.1.5): the peer's close code (1005 if
            it sent none), our own if the peer broke the protocol, or 1006 if the connection was
            lost without a close frame. None if the connection has not ended.
        close_reason: the reason that belongs to the code.
        stats: what was counted so far.

    Raises:
        TypeError: if a limit is not an int.
        ValueError: if `max_message_size` or `max_stream_size` is negative, `max_fragments` is
            less than 1, or there is a `max_stream_size` without `stream`.
    """

    __slots__ = ("_begun",)

    # help() shows inherited methods last. Here they appear as methods of this class.
    vars().update({name: member for name, member in vars(_Connection).items() if name[0] != "_"})

    def __init__(
        self,
        role: Role,
        *,
        max_message_size: int | None = DEFAULT_MAX_MESSAGE_SIZE,
        max_fragments: int | None = DEFAULT_MAX_FRAGMENTS,
        deflate: Agreement | None = None,
        decode_text: bool = True,
        stream: bool = False,
        max_stream_size: int | None = None,
    ) -> None:
        if type(role) is not Role:
            role = Role(role)
        decoder = MessageDecoder(
            masked=role is Role.SERVER,
            max_message_size=max_message_size,
            max_fragments=max_fragments,
            inflater=None if deflate is None else (PartInflater if stream else Inflater)(deflate),
            step=STEP,
            decode_text=decode_text,
            stream=stream,
            max_stream_size=max_stream_size,
        )
        super().__init__(role, decoder, deflate, _next_mask_key if role is Role.CLIENT else None)
        # The incomplete character at the end of a fragment, if `send_text` has begun the message.
        self._begun: bytes | None = None

    def send_text(
        self,
        data: str | Text | Buffer,
        *,
        fin: bool = True,
        compress: bool | None = None,
    ) -> int:
        """Queue a text message that is given in UTF-8.

        Fragments may be cut inside of a character. Those that are passed to `continuation` are
        checked, too.

        Args:
            data: the message in UTF-8 (bytes-like), a `str` or a `Text`; or with `fin=False` its
                first fragment.
            fin: as for `send`.
            compress: as for `send`.

        Returns:
            the number of bytes that are queued for `data_to_send` now.

        Raises:
            TypeError: if `data` is none of these.
            ValueError: if `data` is not UTF-8, or has lone surrogates.
            StateError: if a fragmented message is not finished.
            ConnectionClosed: if we sent or received a close frame.
        """
        if fin:
            return self.send(as_text(data), compress=compress)
        octets = prepare(data).payload
        begun = check_fragment(b"", octets, last=False)
        queued = self.send(PreparedMessage(Opcode.TEXT, octets), fin=False, compress=compress)
        self._begun = begun
        return queued

    def continuation(self, fragment: str | Text | Buffer, *, fin: bool = True) -> None:
        """Queue another fragment of a message, by default its last.

        Raises:
            TypeError: if `fragment` is neither a str nor bytes-like.
            ValueError: if `fragment` has lone surrogates, or `send_text` has begun the message
                and this is not UTF-8.
            StateError: if there is no fragmented message to continue.
            ConnectionClosed: if we sent or received a close frame.
        """
        begun = self._begun
        if begun is not None:
            self.check_open()
            fragment = prepare(fragment).payload
            begun = check_fragment(begun, fragment, last=fin)
        super().continuation(fragment, fin=fin)
        self._begun = None if fin else begun

    @property
    def stats(self) -> Stats:
        """What was counted so far: messages, frames, bytes, pings and pongs in each direction."""
        received, sent, deflater = self._decoder._counts(), self._encoder._counts(), self._deflater
        return Stats(
            messages_received=received[0],
            messages_sent=sent[0],
            frames_received=received[1],
            frames_sent=sent[1],
            bytes_received=received[2],
            bytes_sent=sent[2],
            payload_received=received[3],
            payload_sent=sent[3] + (0 if deflater is None else deflater.saved),
            pings_received=received[4],
            pings_sent=sent[4],
            pongs_received=received[5],
            pongs_sent=sent[5],
            unsent=self.bytes_queued,
        )


# Mask keys (RFC 6455 §5.3: "derived from a strong source of entropy") --------------------
#
# One system call yields many keys. list.pop is atomic, so threads that share the pool never get
# the same key. A forked child must not use the keys of its parent.

_POOL_SIZE = 4096
_pool: list[bytes] = []


def _next_mask_key() -> bytes:
    try:
        return _pool.pop()
    except IndexError:
        octets = os.urandom(_POOL_SIZE)
        _pool.extend([octets[i : i + 4] for i in range(4, _POOL_SIZE, 4)])
        return octets[:4]


if hasattr(os, "register_at_fork"):  # pragma: no branch - Windows, which cannot fork, has none
    os.register_at_fork(after_in_child=_pool.clear)
