"""Callbacks for signals: several per signal, in several event loops.

This module knows signals and event loops. It does not know what the callbacks do.

An event loop has one handler for each signal, and does not tell which: `loop.add_signal_handler`
replaces the previous handler, which cannot be restored. So this module uses `signal.signal`, which
returns the previous handler. A handler that the application has added to its loop is still called,
because the loop reads the numbers of signals from a socket, no matter what else handles them.
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

# The loops and callbacks for each signal. One that is listed several times is called once.
_heeders: dict[int, list[_Heeder]] = {}


@contextmanager
def heed(numbers: Iterable[int], callback: Callable[[], object]) -> Iterator[None]:
    """Have the running loop call `callback` when one of these signals arrives.

    There may be any number of callbacks for the same signal, in any number of loops; all of them
    are called. When the last of them ends, the previous handler is restored, unless another one
    was set in the meantime by `signal.signal` or the loop's `add_signal_handler`.

    Signals are handled only in the main thread, and not on Windows. If C code has installed the
    handler of a signal (`signal.getsignal` returns None), it is not replaced, because it could not
    be restored.

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
    """The handler of a signal while there are callbacks for it.

    Args:
        previous: the handler that this one replaces.
    """

    def __init__(self, previous: Any) -> None:
        self.previous = previous
        self._process = os.getpid()

    def __call__(self, number: int, frame: FrameType | None) -> None:
        # Our loops do not run in a forked child process.
        heeders = _heeders.get(number, []) if os.getpid() == self._process else []
        open_ones = [heeder for heeder in heeders if not heeder[0].is_closed()]
        for loop, callback in dict.fromkeys(open_ones):
            loop.call_soon_threadsafe(callback)
        if open_ones:
            return
        # The loops were closed before their callbacks ended, or some other code has restored us.
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
        """Return the handler to restore."""
        handler = self.previous
        if isinstance(handler, partial) and isinstance(
            getattr(handler.func, "__self__", None), asyncio.Runner
        ):
            # asyncio.Runner replaces Python's handler for SIGINT during a run. At the end it does
            # not restore it if it finds another handler: ours, if that is still in use.
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
    if heeder in heeders:  # if not, it was dropped because its loop was closed
        heeders.remove(heeder)
    handler = signal.getsignal(number)
    # (The garbage collector may end a coroutine in another thread.)
    if not heeders and isinstance(handler, _Handler) and _in_main_thread():
        signal.signal(number, handler.successor())


# Python runs signal handlers between two of its instructions. If a signal arrives after the loop
# has decided to wait, its handler runs only when the loop wakes up. So a socket becomes readable
# for each signal. uvloop always has such a socket; asyncio has one only while the loop has a signal
# handler.
_sockets: dict[asyncio.AbstractEventLoop, tuple[socket.socket, socket.socket]] = {}
_users: Counter[asyncio.AbstractEventLoop] = Counter()


@contextmanager
def _woken(loop: asyncio.AbstractEventLoop) -> Iterator[None]:
    """Ensure that a signal wakes up the loop."""
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
