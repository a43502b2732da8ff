"""The line at the bottom of a terminal that says what `fastws echo` is doing.

This module knows what is counted, when the line is shown, and how it gets out of the way. It does
not know how the server answers. rich draws the line.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from ._shared import is_tty

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fastws.aio.protocol import WebSocketProtocol

__all__ = ["Counts", "counted", "status_line"]

# How often the line is drawn, in seconds.
_PERIOD: Final = 0.5


@dataclass(slots=True)
class Counts:
    """What a server has done.

    Attributes:
        connections: the number of connections that are open.
        messages: the number of messages received.
        size: the size of these messages, in bytes.
    """

    connections: int = 0
    messages: int = 0
    size: int = 0


def counted(base: type[WebSocketProtocol], counts: Counts) -> Any:
    """Return a class of connections that does what this one does, and counts."""

    class _Counted(base):  # type: ignore[valid-type,misc]
        __slots__ = ()

        def on_open(self) -> None:
            counts.connections += 1
            super().on_open()

        def on_message(self, message: str | bytes) -> None:
            counts.messages += 1
            if isinstance(message, bytes) or message.isascii():
                counts.size += len(message)
            else:
                counts.size += len(message.encode())
            super().on_message(message)

        def on_close(self, code: int, reason: str) -> None:
            counts.connections -= 1
            super().on_close(code, reason)

    return _Counted


@contextmanager
def status_line(counts: Counts) -> Iterator[Callable[[], None] | None]:
    """Show these counts while the context lasts.

    Yields:
        what shows the line from now on; None if there will be none: the output is not a terminal
        that can draw it, this process is in the background, or rich is not installed.
    """
    if not (is_tty(sys.stdout) and is_tty(sys.stderr) and _is_in_foreground()):
        yield None
        return
    try:
        from rich.console import Console
        from rich.live import Live
    except ImportError:
        yield None
        return
    console = Console(stderr=True, highlight=False)
    if console.is_dumb_terminal or not console.is_terminal:
        yield None
        return
    # (Standard output is not ours to redirect: nothing is printed there any more.)
    live = Live(console=console, auto_refresh=False, transient=True, redirect_stdout=False)
    ended = threading.Event()
    # A terminal that is paused (Ctrl-S) blocks who writes to it. It must not block the server.
    thread = threading.Thread(target=_draw, args=(live, counts, ended), daemon=True)

    def start() -> None:
        live.start()
        # A process that is stopped or killed would leave the terminal without a cursor.
        console.show_cursor(True)
        thread.start()

    try:
        yield start
    finally:
        ended.set()
        if thread.ident is not None:
            thread.join()
            live.stop()


def _draw(live: Any, counts: Counts, ended: threading.Event) -> None:
    from rich.text import Text

    then, messages, size = time.monotonic(), counts.messages, counts.size
    text = _describe(counts, 0, 0)
    while True:
        # After Ctrl-Z and `bg`, the terminal is the shell's.
        if _is_in_foreground():
            live.update(Text(text, no_wrap=True, overflow="ellipsis"), refresh=True)
        if ended.wait(_PERIOD):
            return
        now = time.monotonic()
        passed = now - then
        text = _describe(
            counts, (counts.messages - messages) / passed, (counts.size - size) / passed
        )
        then, messages, size = now, counts.messages, counts.size


def _describe(counts: Counts, messages: float, size: float) -> str:
    """Return the line for so many messages and bytes per second."""
    count = counts.connections
    return (
        f"{count:,} connection{'s'[: count != 1]}, {messages:,.0f} messages/s, "
        f"{size / 1e6:,.1f} MB/s, {counts.messages:,} in all"
    )


def _is_in_foreground() -> bool:
    """Return whether this process may draw on its terminal: a shell has not put it aside."""
    if sys.platform == "win32":
        return True
    try:
        return os.tcgetpgrp(sys.stderr.fileno()) == os.getpgrp()
    except (OSError, ValueError):
        return True  # no job control
