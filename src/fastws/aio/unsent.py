"""What a socket still holds of what it was given to send.

This module knows how operating systems tell it. It does not know why anybody asks.
"""

from __future__ import annotations

import sys
from typing import Any

__all__ = ["unacknowledged"]

if sys.platform == "linux":
    from fcntl import ioctl
    from termios import TIOCOUTQ

    def unacknowledged(sock: Any) -> int:
        """Return how many bytes the peer's side has not acknowledged; 0 if there is no telling."""
        try:
            return int.from_bytes(ioctl(sock.fileno(), TIOCOUTQ, bytes(4)), sys.byteorder)
        except (AttributeError, OSError, ValueError):  # no socket, closed, or of another kind
            return 0

elif sys.platform == "darwin":  # pragma: no cover
    _SOL_SOCKET, _SO_NWRITE = 0xFFFF, 0x1024

    def unacknowledged(sock: Any) -> int:
        """Return how many bytes the peer's side has not acknowledged; 0 if there is no telling."""
        try:
            return int(sock.getsockopt(_SOL_SOCKET, _SO_NWRITE))
        except (AttributeError, OSError):
            return 0

else:  # pragma: no cover

    def unacknowledged(sock: Any) -> int:
        """Return how many bytes the peer's side has not acknowledged; 0 if there is no telling."""
        return 0
