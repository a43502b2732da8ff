"""Who in this process heeds a signal, in which event loop, and whose turn it is afterwards.

This module knows signals and event loops. It does not know what a signal is heeded for.

An event loop keeps one handler for each signal and does not tell which: with
`loop.add_signal_handler` the last one to come replaces the others, and cannot put them back.
So handlers are set here by `signal.signal`, which can be asked what there was before. A
handler that the application gave to its loop goes on being called: the loop learns of a
signal by its number on a socket, whoever else handles it.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import threading
from collections import Counter
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from types import FrameType
    from typing import TypeAlias

    _Heeder: TypeAlias = tuple[asyncio.AbstractEventLoop, Callable[[], object]]

__all__ = ["heed"]

# Who heeds which signal. One may be there several times, and is called once.
_heeders: dict[int, list[_Heeder]] = {}


@contextmanager
def heed(numbers: Iterable[int], callback: Callable[[], object]) -> Iterator[None]:
    """Have the running loop call `callback` when one of these signals arrives.

    Any number of callbacks, in any number of loops, may heed the same signal; all of them
    are called. When nobody heeds it any more, the handler is back that was there before. A
    handler that was set by `signal.signal` in the meantime, or by the loop's
    `add_signal_handler`, is left where it is.

    Signals are heeded in the main thread, and not on Windows. One whose handler was installed
    by C code (`signal.getsignal` returns None) is left alone, as its handler could not be
    put back.

    Args:
        numbers: the signals.
        callback: called in the loop, soon after the signal.

    Raises:
        OSError: if one of the signals cannot be caught.
    """
    loop = asyncio.get_running_loop()
    heeder = (loop, callback)
    with ExitStack() as stack:
        if sys.platform != "win32" and _in_main_thread():
            stack.enter_context(_woken(loop))
            for number in dict.fromkeys(numbers):
                if _add(number, heeder):
                    stack.callback(_remove, number, heeder)
        yield


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


class _Handler:
    """The handler of a signal while somebody heeds it.

    Args:
        previous: the handler that was there before.
    """

    def __init__(self, previous: Any) -> None:
        self.previous = previous
        self._process = os.getpid()

    def __call__(self, number: int, frame: FrameType | None) -> None:
        # A child process that was forked has none of our loops.
        heeders = _heeders.get(number, []) if os.getpid() == self._process else []
        open_ones = [heeder for heeder in heeders if not heeder[0].is_closed()]
        for loop, callback in dict.fromkeys(open_ones):
            loop.call_soon_threadsafe(callback)
        if open_ones:
            return
        # Whoever heeded it is gone without a word, or somebody put us back.
        heeders.clear()
        handler = self.successor()
        if signal.getsignal(number) is self:
            signal.signal(number, handler)
        if callable(handler):
            handler(number, frame)
        elif handler is signal.SIG_DFL:
            signal.signal(number, handler)
            signal.raise_signal(number)

    def successor(self) -> Any:
        """Return the handler to put back."""
        handler = self.previous
        if isinstance(handler, partial) and isinstance(
            getattr(handler.func, "__self__", None), asyncio.Runner
        ):
            # asyncio.Runner replaces Python's handler for SIGINT during a run, and puts it back
            # unless it finds another in place of its own: ours, if we outlast the run.
            task = handler.keywords.get("main_task")
            if isinstance(task, asyncio.Future) and task.done():
                return signal.default_int_handler
        return handler


def _add(number: int, heeder: _Heeder) -> bool:
    handler = signal.getsignal(number)
    if handler is None:
        return False
    if not isinstance(handler, _Handler):
        try:
            signal.signal(number, _Handler(handler))
        except ValueError:
            return False  # in a subinterpreter
        signal.siginterrupt(number, False)
    _heeders.setdefault(number, []).append(heeder)
    return True


def _remove(number: int, heeder: _Heeder) -> None:
    heeders = _heeders[number]
    if heeder in heeders:  # or it was dropped when its loop was closed
        heeders.remove(heeder)
    handler = signal.getsignal(number)
    # (In another thread, a coroutine may be ended by the garbage collector.)
    if not heeders and isinstance(handler, _Handler) and _in_main_thread():
        signal.signal(number, handler.successor())


# Python runs our handlers between two instructions of its own. A signal that comes when the
# loop has just decided to wait would have to wait with it, but for a socket that becomes
# readable. uvloop has one always; asyncio, while a signal has a handler of the loop.
_sockets: dict[asyncio.AbstractEventLoop, tuple[socket.socket, socket.socket]] = {}
_users: Counter[asyncio.AbstractEventLoop] = Counter()


@contextmanager
def _woken(loop: asyncio.AbstractEventLoop) -> Iterator[None]:
    """See that a signal wakes the loop."""
    if not _users[loop]:
        _open(loop)
    _users[loop] += 1
    try:
        yield
    finally:
        _users[loop] -= 1
        if not _users[loop]:
            del _users[loop]
            _close(loop)


def _open(loop: asyncio.AbstractEventLoop) -> None:
    reader, writer = _sockets[loop] = socket.socketpair()
    reader.setblocking(False)
    writer.setblocking(False)
    try:
        there = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
        if there == -1:
            loop.add_reader(reader, _drain, reader)
        else:
            signal.set_wakeup_fd(there, warn_on_full_buffer=False)
    except (NotImplementedError, ValueError):
        _close(loop)  # another kind of loop, or a subinterpreter


def _close(loop: asyncio.AbstractEventLoop) -> None:
    if loop not in _sockets or not _in_main_thread():
        return
    reader, writer = _sockets.pop(loop)
    with suppress(NotImplementedError, ValueError):
        there = signal.set_wakeup_fd(-1)
        if there not in (-1, writer.fileno()):
            signal.set_wakeup_fd(there, warn_on_full_buffer=False)
        if not loop.is_closed():
            loop.remove_reader(reader)
    reader.close()
    writer.close()


def _drain(reader: socket.socket) -> None:
    with suppress(BlockingIOError):
        while reader.recv(4096):
            pass
