"""The life of a connection on a transport, as a table.

This module knows which phases there are, which may follow which and why. It does not know what
an endpoint does in them: `Endpoint._enter` does that.
docs/explanation/architecture.md shows the table.
"""

from __future__ import annotations

from enum import Enum
from typing import Final

__all__ = ["NEXT", "RECEIVING", "Pace", "Phase"]


class Phase(Enum):
    """Where a connection is in its life."""

    OPENING = "opening"
    """The opening handshake is not done (RFC 6455 §4); there may be no transport yet."""

    OPEN = "open"
    """Messages go both ways (§5, §6)."""

    CLOSING = "closing"
    """We sent a close frame and wait for the peer's (§7.1.2); messages still arrive."""

    LINGERING = "lingering"
    """All is said. What still arrives is dropped until the TCP connection ends (§7.1.1)."""

    LOST = "lost"
    """The transport is gone, but some of what was read is not decoded yet."""

    CLOSED = "closed"
    """The transport is gone, and the application knows (§7.1.4)."""

    # Members are unique. (Enum's own hash is that of the name, and is slow.)
    __hash__ = object.__hash__


NEXT: Final = {
    Phase.OPENING: {
        Phase.OPEN,  # §4.1, §4.2: the handshake succeeded
        Phase.LINGERING,  # the server refused (§4.2.2), or the client gave up (§4.1, §7.1.7)
        Phase.CLOSED,  # the transport went, or there was none
    },
    Phase.OPEN: {
        Phase.CLOSING,  # §7.1.2: we begin the close handshake
        Phase.LINGERING,  # §5.5.1: the peer's close frame is answered; §7.1.7: we fail it; the end
        Phase.LOST,  # §7.1.5: the TCP connection went without a close frame
    },
    Phase.CLOSING: {
        Phase.LINGERING,  # §7.1.3: both close frames are exchanged; or a failure, or the end
        Phase.LOST,  # §7.1.5: it went before the peer's close frame
    },
    Phase.LINGERING: {
        Phase.CLOSED,  # §7.1.1: the peer has ended its side, or its time is up
    },
    Phase.LOST: {
        Phase.CLOSED,  # the rest is decoded, or nobody wants it
    },
    Phase.CLOSED: set[Phase](),
}


# The phases in which messages arrive.
RECEIVING: Final = frozenset({Phase.OPEN, Phase.CLOSING, Phase.LOST})


class Pace(Enum):
    """How fast to read from the transport, which is up to who gets the messages."""

    FAST = "fast"

    SLOW = "slow"
    """With a pause after each read, for the sake of pings, pongs, close frames and the end."""

    STOPPED = "stopped"
