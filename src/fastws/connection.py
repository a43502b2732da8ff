"""One end of a WebSocket connection after the opening handshake, without I/O.

This module knows its role, answers pings, takes part in the close handshake and fails the
connection when the peer breaks the protocol (RFC 6455 §5-§7). It does not know sockets,
clocks or tasks: bytes come in through `receive_data` and go out through `data_to_send`.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from .codec import MessageDecoder, implementation
from .deflate import Inflater
from .spec import DEFAULT_MAX_FRAGMENTS, DEFAULT_MAX_MESSAGE_SIZE, STEP, Role, State

if TYPE_CHECKING or implementation == "py":
    from ._py.connection import Connection as _Connection
else:  # pragma: no cover - the other twin
    from ._c.connection import Connection as _Connection

if TYPE_CHECKING:
    from .deflate import Agreement

__all__ = ["Connection", "State"]


class Connection(_Connection):
    """One end of a WebSocket connection.

    Threads that share one have to lock it.

    It does no I/O. Pass what the socket delivers to `receive_data`, then b"" as long as
    `has_pending` is true, and call `receive_eof` at the end of the stream. After these calls, and
    after those that send something, write what `data_to_send` returns. When `state` is CLOSED
    after that, there is nothing more to say, and the TCP connection has to be ended (RFC 6455
    §7.1.1, §7.1.7):

    - On a server, and wherever the connection failed (`error` is set, or you called `fail`),
      shut down only the writing side of the socket. Then read, and drop what arrives, until the
      peer has ended its side too; give up after 10 seconds, say. Then close the socket. If you
      close it at once while something is unread or still to come, the system sends a reset, and
      the peer loses whatever it has not read yet: the close frame that says what was wrong.
    - On a client, read until the server has closed, for at most 10 seconds, then close.
    - Where the writing side cannot be shut down alone, as with TLS in Python, read and drop
      until the peer has closed or has been silent for a second, then close.
    - After `receive_eof`, if `close_code` is 1006, there is nobody to wait for: close at once.

    The clock is yours, too. Close the socket if the peer does not answer `close` within some
    10 seconds. Limit how long a write may take, for a peer may never read; and `ping` a peer
    that is silent, for it may be gone without the system knowing. A server that does all this
    is in `examples/trio_server.py` of fastws's sources.

    Args:
        role: which end we are: a client masks what it sends (RFC 6455 §5.1).
        max_message_size: the largest message received, in bytes; None for no limit.
        max_fragments: the largest number of frames that make up one message received,
            empty ones included; None for no limit.
        deflate: how messages are compressed, as `PerMessageDeflate` and the opening
            handshake agreed on it; None for not at all.

    Attributes:
        role: which end we are.
        deflate: how messages are compressed; None for not at all.
        state: what can still happen.
        error: the peer's violation of the protocol, if that is what ended the connection; an
            InternalError if `receive_data` raised.
        has_pending: whether the last `receive_data` left part of its data undecoded, as it had
            done enough. Call `receive_data(b"")` as long as it does.
        close_code: how the connection ended (RFC 6455 §7.1.5): the code that the peer sent
            (1005 if it sent none), or that we sent when it broke the protocol, or 1006 if it
            went without a close frame. None while it has not ended.
        close_reason: the reason that came with the code.

    Raises:
        TypeError: if a limit is not an int.
        ValueError: if `max_message_size` is negative or `max_fragments` is less than 1.
    """

    __slots__ = ()

    # Methods that are looked for here are found here, by help() as well.
    vars().update({name: member for name, member in vars(_Connection).items() if name[0] != "_"})

    def __init__(
        self,
        role: Role,
        *,
        max_message_size: int | None = DEFAULT_MAX_MESSAGE_SIZE,
        max_fragments: int | None = DEFAULT_MAX_FRAGMENTS,
        deflate: Agreement | None = None,
    ) -> None:
        role = Role(role)
        decoder = MessageDecoder(
            masked=role is Role.SERVER,
            max_message_size=max_message_size,
            max_fragments=max_fragments,
            inflater=None if deflate is None else Inflater(deflate),
            step=STEP,
        )
        super().__init__(role, decoder, deflate, _next_mask_key if role is Role.CLIENT else None)


# Mask keys (RFC 6455 §5.3: "derived from a strong source of entropy") --------------------
#
# One call of the operating system yields many. list.pop is atomic, so threads that share
# the pool never share a key; a forked child must not continue with its parent's.

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
