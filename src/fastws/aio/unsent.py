"""How much of the data written to a socket has reached the peer's system, and when it was heard.

This module knows how operating systems report it. It does not know what that is used for.
"""

from __future__ import annotations

import socket
import struct
import sys
from typing import Any

__all__ = ["acknowledged", "silent_for", "unacknowledged"]

if sys.platform == "linux":
    from fcntl import ioctl
    from termios import TIOCOUTQ

    def unacknowledged(sock: Any) -> int:
        """Return how many bytes are waiting or in transit; 0 if that is unknown."""
        try:
            return int.from_bytes(ioctl(sock.fileno(), TIOCOUTQ, bytes(4)), sys.byteorder)
        except (AttributeError, OSError, ValueError):  # not a socket, closed, or of another kind
            return 0

    # Where tcp_info has tcpi_last_data_recv, and tcpi_bytes_acked (since Linux 4.1).
    _LAST_DATA_RECV = 52
    _BYTES_ACKED = 120

    def acknowledged(sock: Any) -> int | None:
        """Return how many bytes have arrived since the beginning; None if that is unknown."""
        try:
            info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _BYTES_ACKED + 8)
            (count,) = struct.unpack_from("Q", info, _BYTES_ACKED)
        except (AttributeError, OSError, ValueError, struct.error):  # or not a TCP socket
            return None
        return int(count)

    def silent_for(sock: Any) -> float | None:
        """Return for how many seconds nothing has arrived; None if that is unknown."""
        if sock is None:
            return None
        try:
            info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _LAST_DATA_RECV + 4)
            (milliseconds,) = struct.unpack_from("I", info, _LAST_DATA_RECV)
        except (AttributeError, OSError, ValueError, struct.error):  # or not a TCP socket
            return None
        return float(milliseconds) / 1000

else:  # pragma: no cover

    def unacknowledged(sock: Any) -> int:
        """Return how many bytes are waiting or in transit; 0 if that is unknown."""
        if sys.platform == "darwin":
            try:
                return int(sock.getsockopt(socket.SOL_SOCKET, 0x1024))  # SO_NWRITE
            except (AttributeError, OSError):
                pass
        return 0

    def acknowledged(sock: Any) -> int | None:
        """Return how many bytes have arrived since the beginning; None if that is unknown."""
        return None

    def silent_for(sock: Any) -> float | None:
        """Return for how many seconds nothing has arrived; None if that is unknown."""
        return None
