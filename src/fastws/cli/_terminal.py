"""What a person at a terminal sees and types.

This module knows which characters a terminal obeys, and how a line is edited. It does not know
what the lines mean.
"""

from __future__ import annotations

import codecs
import os
import re
import select
import signal
import unicodedata
from contextlib import suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType
    from typing import Self

try:
    import termios
except ImportError:  # Windows
    _termios: Any = None
else:
    _termios = termios

__all__ = ["Keyboard", "printable"]

# Letters and marks that are invisible; but not those that choose how an emoji looks.
_INVISIBLE = re.compile(
    r"[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u3164\uffa0\U000e0100-\U000e01ef]"
)
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
# The bytes that do not begin a character in UTF-8.
_CONTINUATION = bytes(range(0x80, 0xC0))

# How long a terminal may block, in seconds, before it is no longer shown what is typed.
_PATIENCE = 0.5


def printable(text: str, *, keep: str = "") -> str:
    r"""Return text from a stranger with an escape, as in Python's literals, for each character
    that a terminal might obey or would not show.

    These are Unicode's control characters (C0, DEL and C1), format characters (such as those that
    change the direction of writing), line and paragraph separators, surrogates, and characters
    that are unassigned or for private use. Backslashes stay as they are.

    Args:
        text: the text.
        keep: characters that are not escaped, such as "\n".
    """

    def escape(match: re.Match[str]) -> str:
        char = match[0]
        return char if char in keep or _is_visible(char) else ascii(char)[1:-1]

    return re.sub(r"[^ -~]", escape, text)


def _is_visible(char: str) -> bool:
    if not char.isprintable():
        # Spaces of other widths are visible.
        return unicodedata.category(char) == "Zs"
    return not _INVISIBLE.match(char)


class Keyboard:
    """A terminal that lines of any length can be typed or pasted into.

    By default the terminal edits the line that is typed, and drops all bytes after the first 4,095
    (1,024 on some systems). While this object is entered as a context manager, it does the
    editing: the keys that are set for the terminal (`stty -a`) erase characters, words and whole
    lines. Keys that send signals do so as before.

    The settings of the terminal are restored at the end, before a signal ends the process, and
    while the process is stopped.

    Args:
        fd: the file descriptor of the terminal.
        encoding: the encoding of what is typed.
    """

    def __init__(self, fd: int, encoding: str) -> None:
        self._fd = fd
        self._output = -1
        self._settings: list[Any] | None = None
        self._handlers: dict[int, Any] = {}
        self._line = _Line(encoding)
        self._patience = _PATIENCE
        self._unfinished = b""  # the rest of a character in UTF-8

    @property
    def active(self) -> bool:
        """Whether this object does the editing."""
        return self._settings is not None

    def __enter__(self) -> Self:
        if _termios is None:
            return self
        try:
            settings = _termios.tcgetattr(self._fd)
            if not settings[3] & _termios.ICANON:
                return self  # somebody else has configured it
            # What is typed must be shown on the terminal, wherever our output goes.
            flags = os.O_WRONLY | os.O_NOCTTY | os.O_NONBLOCK
            self._output = os.open(os.ttyname(self._fd), flags)
        except (OSError, _termios.error):
            return self
        self._settings = settings
        self._line.use(settings)
        with suppress(ValueError):  # only the main thread may
            for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGTSTP):
                if signal.getsignal(number) is signal.SIG_DFL:
                    self._handlers[number] = signal.signal(number, self._heed)
        self._take()
        return self

    def __exit__(self, *_: object) -> None:
        if self._settings is None:
            return
        self._give_back()
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._handlers.clear()
        self._settings = None
        os.close(self._output)

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Process what was typed, and show it.

        Yields:
            each complete line, with its line ending. After Ctrl-D (end of file): the line so far,
            or b"" if it is empty.
        """
        for shown, line in self._line.feed(data):
            if shown and self._settings is not None and self._settings[3] & _termios.ECHO:
                self._show(shown)
            if line is not None:
                yield line

    def _show(self, text: str) -> None:
        data = self._unfinished + text.encode(self._line.encoding, "backslashreplace")
        with suppress(OSError):
            while data:
                # A terminal that blocks must not keep us from reading what it sends.
                if not select.select([], [self._output], [], self._patience)[1]:
                    self._patience = 0.0
                    # If it got a part of a character, it must get the rest later.
                    self._unfinished = data[: len(data) - len(data.lstrip(_CONTINUATION))]
                    return
                data = data[os.write(self._output, data) :]
            self._patience = _PATIENCE
            self._unfinished = b""

    def _take(self) -> None:
        assert self._settings is not None
        ours = [*self._settings[:6], list(self._settings[6])]
        ours[3] &= ~(_termios.ICANON | _termios.ECHO)
        ours[6][_termios.VMIN], ours[6][_termios.VTIME] = 1, 0
        with suppress(_termios.error):
            _termios.tcsetattr(self._fd, _termios.TCSANOW, ours)

    def _give_back(self) -> None:
        # Without waiting until all output is written, which after Ctrl-S may never happen.
        with suppress(_termios.error):
            _termios.tcsetattr(self._fd, _termios.TCSANOW, self._settings)

    def _heed(self, number: int, frame: FrameType | None) -> None:
        """Restore the terminal, then do what the signal does by default."""
        self._give_back()
        if number == signal.SIGTSTP:
            os.kill(os.getpid(), signal.SIGSTOP)
            self._take()  # in the background, this stops the process again
        else:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)


class _Line:
    """The line that is being typed.

    It does not know the terminal, only what its settings (`termios.tcgetattr`) say about keys.

    Args:
        encoding: the encoding of what is typed.
    """

    def __init__(self, encoding: str) -> None:
        self.encoding = encoding
        # The reader of the line reports invalid text.
        self._decoder = codecs.getincrementaldecoder(encoding)("surrogateescape")
        self._typed: list[str] = []
        self._keys: dict[str, str] = {}
        self._ends = re.compile("(\n)")

    def use(self, settings: list[Any]) -> None:
        """Use the editing keys in these settings of a terminal."""
        for name in ("VERASE", "VWERASE", "VKILL", "VREPRINT", "VEOF"):
            key = settings[6][getattr(_termios, name)].decode("latin-1")
            if key not in ("\0", "\xff"):  # which mean that there is none
                self._keys[key] = name
        keys = re.escape("".join(self._keys))
        self._ends = re.compile(rf"([\n{keys}])")

    def feed(self, data: bytes) -> Iterator[tuple[str, bytes | None]]:
        """Process what was typed.

        Yields:
            pairs: what to show, and what `Keyboard.feed` yields, or None.
        """
        for piece in filter(None, self._ends.split(self._decoder.decode(data))):
            action = self._keys.get(piece)
            if piece == "\n":
                self._typed += piece
                yield piece, self._take()
            elif action is None:
                self._typed += piece
                yield _shown(piece), None
            elif action == "VEOF":
                yield "", self._take()
            elif action == "VREPRINT":
                yield f"{_shown(piece)}\n{_shown(''.join(self._typed))}", None
            else:
                yield self._erase(action), None

    def _take(self) -> bytes:
        line = "".join(self._typed).encode(self.encoding, "surrogateescape")
        self._typed.clear()
        return line

    def _erase(self, action: str) -> str:
        """Erase a character, a word or the whole line; return what shows that."""
        text = "".join(self._typed)
        if action == "VKILL":
            kept = 0
        elif action == "VWERASE":
            words = text.split()
            kept = text.rindex(words[-1]) if words else 0
        else:
            kept = max(len(text) - 1, 0)
        del self._typed[kept:]
        return "\b \b" * _width(_shown(text[kept:]))


def _shown(text: str) -> str:
    """Return typed text as a terminal shows it: with control characters as ^X."""
    return printable(_CONTROL.sub(lambda match: f"^{chr(ord(match[0]) ^ 0x40)}", text))


def _width(text: str) -> int:
    """Return how many columns of the terminal a text takes."""
    return sum(
        0 if unicodedata.combining(char) else 2 if unicodedata.east_asian_width(char) in "WF" else 1
        for char in text
    )
