"""The constants of RFC 6455: opcodes, close codes, header bits, limits.

This module knows names and values. It does not know how they are used: it checks nothing,
defines no errors and reads no payload.
"""

from enum import IntEnum
from typing import Final

__all__ = [
    "CloseCode",
    "Opcode",
    "Role",
    "State",
]


class Role(IntEnum):
    """The end of a connection that we are (RFC 6455 §5.1: only clients mask)."""

    SERVER = 0
    CLIENT = 1


class State(IntEnum):
    """What can still happen on a connection.

    OPEN: messages can be sent and received. If the peer has closed the connection or broken the
        protocol, earlier messages can still be answered: the next `data_to_send` ends with our
        close frame.
    CLOSING: we sent a close frame and wait for the peer's; messages may still arrive.
    CLOSED: nothing more can be sent or received. Write what `data_to_send` still returns, then end
        the TCP connection as described in `Connection`, so that the peer can read the close frame.
    """

    OPEN = 1
    CLOSING = 2
    CLOSED = 3


class Opcode(IntEnum):
    """Frame types (RFC 6455 §5.2). Every other value is reserved."""

    CONTINUATION = 0x0
    TEXT = 0x1
    BINARY = 0x2
    CLOSE = 0x8
    PING = 0x9
    PONG = 0xA


class CloseCode(IntEnum):
    """Close codes with a registered meaning (RFC 6455 §7.4.1 and IANA's registry).

    1005, 1006 and 1015 are for use inside a program; they must not be sent in a frame.
    """

    NORMAL_CLOSURE = 1000
    GOING_AWAY = 1001
    PROTOCOL_ERROR = 1002
    UNSUPPORTED_DATA = 1003
    NO_STATUS_RCVD = 1005
    ABNORMAL_CLOSURE = 1006
    INVALID_PAYLOAD = 1007
    POLICY_VIOLATION = 1008
    MESSAGE_TOO_BIG = 1009
    MANDATORY_EXTENSION = 1010
    INTERNAL_ERROR = 1011
    SERVICE_RESTART = 1012
    TRY_AGAIN_LATER = 1013
    BAD_GATEWAY = 1014
    TLS_HANDSHAKE = 1015


# Header bits (RFC 6455 §5.2) ------------------------------------------------

FIN: Final = 0x80
RSV1: Final = 0x40
RSV2: Final = 0x20
RSV3: Final = 0x10
RSV_BITS: Final = RSV1 | RSV2 | RSV3
OPCODE_BITS: Final = 0x0F
CONTROL_BIT: Final = 0x08

MASK: Final = 0x80
LENGTH_BITS: Final = 0x7F
LENGTH_16: Final = 126
LENGTH_64: Final = 127

# Sizes, in bytes ------------------------------------------------------------

MASK_KEY_SIZE: Final = 4
MAX_CONTROL_PAYLOAD: Final = 125
MAX_CLOSE_REASON: Final = MAX_CONTROL_PAYLOAD - 2
MAX_16_BIT_LENGTH: Final = 0xFFFF
MAX_PAYLOAD: Final = 0x7FFF_FFFF_FFFF_FFFF
# 2 bytes, a 64-bit length and a mask key.
MAX_HEADER: Final = 2 + 8 + MASK_KEY_SIZE

# How much one step decodes before the caller must take the result: about this many bytes are
# inflated, and one more message. Work that costs more than its bytes counts as well: each control
# frame, each byte to inflate and each piece of a message.
STEP: Final = 256 << 10
CONTROL_COST: Final = 256
INFLATE_BYTE_COST: Final = 32
INFLATE_PIECE_COST: Final = 1 << 10
# How much of a message is passed to the inflater at once.
INFLATE_PIECE: Final = 4 << 10
# How much of a message in parts is inflated at once.
INFLATE_PART: Final = 64 << 10

# Defaults -------------------------------------------------------------------

DEFAULT_MAX_MESSAGE_SIZE: Final = 1 << 20
DEFAULT_MAX_FRAGMENTS: Final = 4096
DEFAULT_MAX_HEADER_SIZE: Final = 16 << 10
DEFAULT_MAX_REDIRECTS: Final = 10
DEFAULT_MAX_QUEUE: Final = 16
DEFAULT_READ_LIMIT: Final = 1 << 20
DEFAULT_WRITE_LIMIT: Final = 64 << 10
DEFAULT_MAX_UNSENT_SIZE: Final = 16 << 20
DEFAULT_TOPICS_MAX_UNSENT_SIZE: Final = 1 << 20
DEFAULT_TOPICS_MAX_TOTAL_UNSENT_SIZE: Final = 64 << 20
DEFAULT_TOPICS_WAIT_TIMEOUT: Final = 10.0
DEFAULT_OPEN_TIMEOUT: Final = 10.0
DEFAULT_CLOSE_TIMEOUT: Final = 10.0
DEFAULT_PING_INTERVAL: Final = 20.0
DEFAULT_PING_TIMEOUT: Final = 20.0

# Silent and slow peers ------------------------------------------------------------

# How the data of a keepalive ping begins. A pong to it must not look like a pong to an
# application's ping.
KEEPALIVE: Final = b"keepalive"
KEEPALIVE_REASON: Final = "keepalive ping timeout"
# If our side of a TCP connection cannot be shut down alone, the peer is considered done after this
# many seconds of silence.
LINGER_SILENCE: Final = 1.0
# How long a peer whose request was refused may take at least to end its side, in seconds.
LINGER_REFUSED: Final = 1.0

# Close codes -----------------------------------------------------------------

NORMAL_CLOSE_CODES: Final = frozenset(
    {CloseCode.NORMAL_CLOSURE, CloseCode.GOING_AWAY, CloseCode.NO_STATUS_RCVD}
)

# RFC 6455 §7.4.2 reserves 3000-3999 for libraries (registered) and 4000-4999 for
# applications. Below that, only the codes that IANA assigned may be sent.
_ASSIGNED_CLOSE_CODES: Final = frozenset({*range(1000, 1004), *range(1007, 1015)})


def may_travel(code: int) -> bool:
    """Return whether a close frame may contain this code (RFC 6455 §7.4)."""
    return code in _ASSIGNED_CLOSE_CODES or 3000 <= code <= 4999
