"""The line at the bottom of a terminal that says what `fastws echo` or `serve` is doing.

This module knows when the line is shown, and how it gets out of the way. It does not know what the
server does, nor how that is counted. rich draws the line.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from ._shared import is_tty

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fastws.metrics import Metrics

__all__ = ["Counts", "followed", "status_line"]

# How often the line is drawn, in seconds.
_PERIOD: Final = 0.5
# How much of a line is kept until its end, in characters.
_MAX_LINE: Final = 4096


@dataclass(slots=True)
class Counts:
    """What a server has done: a copy that a thread may read.

    Attributes:
        connections: the number of connections that are open.
        messages: the number of messages received.
        size: the size of these messages, in bytes.
    """

    connections: int = 0
    messages: int = 0
    size: int = 0


@contextmanager
def followed(metrics: Metrics, counts: Counts) -> Iterator[None]:
    """Keep these counts up to date while the context lasts. An event loop must be running."""
    import asyncio

    loop = asyncio.get_running_loop()
    timer: asyncio.TimerHandle | None = None

    def copy() -> None:
        nonlocal timer
        totals = metrics.totals()
        counts.connections = metrics.connections
        counts.messages, counts.size = totals["messages_received"], totals["payload_received"]
        # (The walk over very many connections must not take all the time.)
        timer = loop.call_later(_PERIOD, copy)

    copy()
    try:
        yield
    finally:
        assert timer is not None
        timer.cancel()


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
    console = Console(file=sys.stderr, highlight=False)
    if console.is_dumb_terminal or not console.is_terminal:
        yield None
        return
    live = Live(
        console=console,
        auto_refresh=False,
        transient=True,
        redirect_stdout=False,
        redirect_stderr=False,
    )
    # (rich would replace the streams when the line is shown; but logging is set up before that, and
    # keeps the stream that it gets.)
    output, errors = _Above(sys.stdout), _Above(sys.stderr)
    ended = threading.Event()
    # A terminal that is paused (Ctrl-S) blocks who writes to it. It must not block the server.
    thread = threading.Thread(target=_draw, args=(live, counts, ended), daemon=True)

    def start() -> None:
        live.start()
        output.console = errors.console = console
        # A process that is stopped or killed would leave the terminal without a cursor.
        console.show_cursor(True)
        thread.start()

    try:
        with redirect_stdout(output), redirect_stderr(errors):
            yield start
    finally:
        ended.set()
        output.end()
        errors.end()
        if thread.ident is not None:
            thread.join()
            live.stop()


class _Above:
    """Takes the place of standard output or standard error: whole lines go above the status line.

    Attributes:
        console: draws the status line; None before there is one.
    """

    def __init__(self, stream: Any) -> None:
        self.console: Any = None
        self._stream = stream
        self._line = ""  # that has no end yet

    def write(self, text: str) -> int:
        if self.console is None:
            self._stream.write(text)
            return len(text)
        *lines, self._line = (self._line + text).split("\n")
        if len(self._line) > _MAX_LINE:
            lines.append(self._line)
            self._line = ""
        if lines:
            self._print("\n".join(lines))
        return len(text)

    def end(self) -> None:
        """Print what has no end yet."""
        if self._line:
            self._print(self._line)
            self._line = ""

    def _print(self, text: str) -> None:
        from rich.text import Text

        self.console.print(Text.from_ansi(text), soft_wrap=True)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


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
