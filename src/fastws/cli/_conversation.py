"""The conversation of `fastws connect`: lines in, messages out, and the other way round.

This module knows what a line means and how a message is shown. It does not know where the options
of the command come from.
"""

from __future__ import annotations

import asyncio
import json
import select
import sys
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

from fastws.exceptions import ConnectionClosed, HandshakeError

from ._shared import OutputError, cannot_connect, describe, is_tty, print_line, say
from ._terminal import printable

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import AsyncIterator, Iterator
    from io import FileIO

    from fastws.aio.client import connect
    from fastws.aio.websocket import WebSocket

    from ._terminal import Keyboard

__all__ = ["Conversation", "lines_of_stdin"]


class Conversation:
    """One run of `fastws connect`.

    Args:
        args: the options of the command: `binary`, `json`, `one` and `ping`.
        lines: the lines of the input.
        is_interactive: whether a person types them.
    """

    def __init__(self, args: Namespace, lines: AsyncIterator[str], *, is_interactive: bool) -> None:
        self._args = args
        self._lines = lines
        self._is_interactive = is_interactive
        self._shows = is_tty(sys.stdout)
        self._failed = False
        self._closed_by_user: int | None = None
        self._end: ConnectionClosed | None = None

    async def hold(self, uri: str, connecting: connect[WebSocket]) -> int:
        """Connect, talk until the connection is closed, and return the exit status."""
        try:
            ws = await connecting
        except (OSError, HandshakeError) as exc:
            raise cannot_connect(uri, exc) from exc
        if self._is_interactive:
            agreed = ", ".join(_agreed(ws))
            say(
                f"connected{f' ({agreed})' if agreed else ''}; a line is a message, Ctrl-D ends, "
                "/ping, /close, // for /"
            )
        sender = asyncio.create_task(self._send_lines(ws))
        pinger = asyncio.create_task(self._send_pings(ws))
        lost: OutputError | None = None
        try:
            while True:
                self._show(await ws.recv())
                if self._args.one:
                    await ws.close()
                    break
        except ConnectionClosed as exc:
            self._end = exc
        except asyncio.CancelledError:  # Ctrl-C
            await ws.close()
        except OutputError as exc:
            lost = exc
            await ws.close()
        finally:
            sender.cancel()
            pinger.cancel()
            await asyncio.wait([sender, pinger])
        await ws.wait_closed()
        if not sender.cancelled():
            sender.result()
        status = self._report(ws)
        if lost is not None:
            raise lost
        return status

    def _show(self, message: str | bytes) -> None:
        if isinstance(message, bytes):
            rest = " ..." if self._shows and len(message) > 32 else ""
            shown = message[:32] if rest else message
            message = f"binary, {len(message)} bytes: {shown.hex(' ')}{rest}"
        elif self._args.json:
            message = _pretty(message)
        if self._shows:
            # No line of a message can look like one of our own.
            message = "< " + printable(message, keep="\n\t").replace("\n", "\n  ")
        print_line(message)

    def _report(self, ws: WebSocket) -> int:
        assert ws.close_code is not None
        closed = ConnectionClosed(ws.close_code, ws.close_reason)
        normal = closed.is_normal or closed.code == self._closed_by_user
        # What is as it should be needs no explanation.
        say(f"closed: {closed if normal or self._end is None else self._end}")
        return 0 if normal and not self._failed else 1

    async def _send_lines(self, ws: WebSocket) -> None:
        with suppress(ConnectionClosed):
            try:
                async for line in self._lines:
                    if line.startswith("/") and not line.startswith("//"):
                        await self._obey(ws, line)
                        continue
                    message = line[1:] if line.startswith("//") else line
                    await ws.send(message.encode() if self._args.binary else message)
            except (OSError, UnicodeError) as exc:
                self._complain(f"standard input: {describe(exc)}")
            # A server may stop answering when it reads our close frame, even messages that it
            # has not read yet. Its pong says that it has read everything.
            await ws.ping()
            await ws.close()

    async def _send_pings(self, ws: WebSocket) -> None:
        with suppress(ConnectionClosed):
            while self._args.ping is not None:
                await asyncio.sleep(self._args.ping)
                say(f"pong after {await ws.ping() * 1000:.1f} ms")

    async def _obey(self, ws: WebSocket, line: str) -> None:
        command, *words = line.split(maxsplit=2)
        if command == "/ping" and not words:
            say(f"pong after {await ws.ping() * 1000:.1f} ms")
        elif command == "/close":
            code = words[0] if words else "1000"
            # (More digits may be too many for an int.)
            if not code.isdecimal() or len(code) > 9:
                self._complain(f"not a close code: {code}")
                return
            self._closed_by_user = int(code)
            try:
                await ws.close(int(code), *words[1:])
            except ValueError as exc:
                self._closed_by_user = None
                self._complain(str(exc))
        else:
            self._complain(f"unknown command: {line}; to send a line with a slash, begin with //")

    def _complain(self, message: str) -> None:
        say(f"fastws connect: {message}")
        # A person can try again; a pipe cannot.
        self._failed = self._failed or not self._is_interactive


def _agreed(ws: WebSocket) -> Iterator[str]:
    """Yield what was agreed on in the handshake."""
    if ws.subprotocol:
        yield ws.subprotocol
    if ws.response is not None:
        yield from ws.response.headers.get_all("Sec-WebSocket-Extensions")


def _pretty(message: str) -> str:
    """Return a message on several lines if it is JSON."""
    try:
        value = json.loads(message)
    except (ValueError, RecursionError):
        return message
    return json.dumps(value, indent=2, ensure_ascii=False)


async def lines_of_stdin(keyboard: Keyboard | None) -> AsyncIterator[str]:
    """Yield the lines of standard input, reading no faster than they are consumed.

    Raises:
        OSError: if it cannot be read.
        UnicodeError: if it is not text.
    """
    loop = asyncio.get_running_loop()
    arrived: asyncio.Queue[list[bytes] | Exception | None] = asyncio.Queue()
    wanted = threading.Semaphore(1)

    def read() -> None:
        chunks = _read_stdin(keyboard)
        while True:
            wanted.acquire()
            item: list[bytes] | Exception | None
            try:
                item = next(chunks, None)
            except Exception as exc:
                item = exc
            try:
                loop.call_soon_threadsafe(arrived.put_nowait, item)
            except RuntimeError:
                return  # the loop is closed
            if item is None or isinstance(item, Exception):
                return

    # Only a thread can wait for a terminal, a pipe or a file on every platform. A read cannot be
    # interrupted, so the thread must not keep the process alive.
    threading.Thread(target=read, name="stdin", daemon=True).start()
    while True:
        item = await arrived.get()
        if item is None:
            return
        if isinstance(item, Exception):
            raise item
        for line in item:
            yield line.removesuffix(b"\r").decode(sys.stdin.encoding)
        wanted.release()


def _read_stdin(keyboard: Keyboard | None) -> Iterator[list[bytes]]:
    """Yield the complete lines of each read of standard input, and at the end the rest."""
    if sys.stdin is None:
        return
    parts: list[bytes] = []
    # Without a buffer: its lock would be held while we wait, and the interpreter needs the lock
    # when it exits.
    with open(sys.stdin.fileno(), "rb", buffering=0, closefd=False) as stdin:
        for data in _pieces(stdin, keyboard):
            first, *lines = data.split(b"\n")
            parts.append(first)
            if lines:
                lines.insert(0, b"".join(parts))
                parts = [lines.pop()]
                yield lines
    if last := b"".join(parts):
        yield [last]


def _pieces(stdin: FileIO, keyboard: Keyboard | None) -> Iterator[bytes]:
    """Yield the data that is read, or the lines that are typed, until the end of the input."""
    while (data := stdin.read(64 << 10)) != b"":
        if data is None:  # standard input is non-blocking
            select.select([stdin], [], [])
        elif keyboard is None or not keyboard.active:
            yield data
        else:
            for line in keyboard.feed(data):
                if not line:
                    return
                yield line
