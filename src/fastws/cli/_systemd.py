"""What systemd, and others that do as it does, tell a service and want to hear from it.

This module knows LISTEN_FDS and NOTIFY_SOCKET (sd_listen_fds(3), sd_notify(3)). It does not know
what the service does.
"""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from typing import Final

__all__ = ["notify", "take_sockets"]

_FIRST: Final = 3  # SD_LISTEN_FDS_START


def take_sockets() -> list[socket.socket]:
    """Return the sockets that this process was started with; they listen already.

    The variables are removed: they are not meant for child processes.
    """
    pid, count = os.environ.pop("LISTEN_PID", ""), os.environ.pop("LISTEN_FDS", "")
    os.environ.pop("LISTEN_FDNAMES", None)
    if pid != str(os.getpid()) or not count.isdecimal():
        return []
    sockets = []
    for number in range(_FIRST, _FIRST + int(count)):
        os.set_inheritable(number, False)
        sockets.append(socket.socket(fileno=number))
    return sockets


def notify(state: str) -> None:
    """Tell the service manager about a change: "READY=1", "STOPPING=1"."""
    path = os.environ.get("NOTIFY_SOCKET")
    if not path:
        return
    if path.startswith("@"):
        path = f"\0{path[1:]}"
    # (Nobody has to listen.)
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.connect(path)
        sock.send(state.encode())
