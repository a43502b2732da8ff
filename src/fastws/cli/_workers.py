"""The worker processes of `fastws echo --workers`.

This module knows how workers are started, watched and replaced, and how signals end them. It does
not know what a worker serves.
"""

from __future__ import annotations

import errno
import multiprocessing
import signal
import socket
import sys
import time
from contextlib import suppress
from functools import partial
from multiprocessing import connection as pipes
from multiprocessing import resource_tracker
from typing import TYPE_CHECKING, Any

from ._echo_server import announcement, cannot_listen, serve_echo
from ._shared import CommandError, escape_logs, say

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Callable
    from multiprocessing.process import BaseProcess

    from fastws.aio.server import Server

__all__ = ["run_workers"]

# A worker that lived for at least _STEADY seconds is replaced at once. If one dies sooner, and the
# one before it did so too, the next one waits for a delay that doubles each time.
_STEADY = 10.0
_FIRST_DELAY, _LONGEST_DELAY = 1.0, 30.0


def run_workers(args: Namespace) -> int:
    """Run the server in worker processes until a signal ends them; return the exit status."""
    if not hasattr(socket, "SO_REUSEPORT"):
        raise CommandError("--workers needs SO_REUSEPORT, which this platform does not have")
    if args.port == 0:
        raise CommandError("--workers needs a --port: with 0, each would listen on another", 2)
    try:
        _check_free(args.host, args.port)
    except (OSError, ValueError) as exc:
        raise CommandError(cannot_listen(args, exc)) from exc

    # Signals arrive as bytes on a socket, so that this process waits in one place and no system
    # call is interrupted.
    receiver, sender = socket.socketpair()
    sender.setblocking(False)
    workers: list[_Worker] = []
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    wakeup = signal.set_wakeup_fd(sender.fileno())
    try:
        for number in handlers:
            signal.signal(number, _no_action)
        workers.extend(_Worker(args) for _ in range(args.workers))
        return _watch(workers, receiver, partial(announcement, args))
    finally:
        for worker in workers:
            worker.close()
        signal.set_wakeup_fd(wakeup)
        for number, handler in handlers.items():
            signal.signal(number, handler)
        receiver.close()
        sender.close()


class _Worker:
    """A worker process, and its replacements if it dies.

    Attributes:
        process: the process.
        ready: a pipe that yields the addresses on which it listens, or a message saying why it
            cannot.
        due: when to start another process, in terms of `time.monotonic`; None while it runs.
    """

    def __init__(self, args: Namespace) -> None:
        self._args = args
        self._delay = 0.0
        self.start()

    def start(self) -> None:
        context = multiprocessing.get_context("spawn")
        ready, child_end = context.Pipe(duplex=False)
        process = context.Process(target=_work, args=(self._args, child_end), daemon=True)
        # The parent acts on Ctrl-C; the child inherits the mask. The resource tracker must be
        # running already: to start it unblocks the signal.
        resource_tracker.ensure_running()
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
        try:
            process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
        child_end.close()
        self.process: BaseProcess = process
        self.ready = ready
        self.due: float | None = None
        self._started = time.monotonic()

    def died(self) -> float:
        """Note that the process has died; return the seconds until another one starts."""
        now = time.monotonic()
        if now - self._started >= _STEADY:
            self._delay = 0.0
        delay = self._delay
        self._delay = min(max(2 * delay, _FIRST_DELAY), _LONGEST_DELAY)
        self.due = now + delay
        return delay

    def close(self) -> None:
        """Kill the process."""
        self.process.kill()
        self.process.join()
        self.ready.close()


def _check_free(host: str, port: int) -> None:
    """Raise OSError if another server listens on the port.

    With SO_REUSEPORT, a server of the same user would silently get some of our clients.
    """
    for family, kind, protocol, _, address in socket.getaddrinfo(
        host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    ):
        try:
            with socket.socket(family, kind, protocol) as sock:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family == socket.AF_INET6:
                    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                sock.bind(address)
        except OSError as exc:
            # asyncio ignores some other errors; the workers report the rest.
            if exc.errno == errno.EADDRINUSE:
                raise


def _watch(workers: list[_Worker], signals: socket.socket, announce: Callable[[Any], str]) -> int:
    """Replace workers that die until a signal arrives; then stop all of them, and wait.

    Returns:
        the exit status.
    """
    status = 0
    stopping = False
    announced = False
    starting: dict[Any, _Worker] = {worker.ready: worker for worker in workers}
    running: dict[Any, _Worker] = {worker.process.sentinel: worker for worker in workers}

    def stop() -> None:
        nonlocal stopping
        stopping = True
        for worker in running.values():
            worker.process.terminate()

    while running or not stopping:
        now = time.monotonic()
        for worker in workers:
            if worker.due is not None and worker.due <= now and not stopping:
                try:
                    worker.start()
                except OSError as exc:
                    delay = worker.died()
                    say(f"fastws echo: cannot start a worker, next try in {delay:g} s: {exc}")
                else:
                    starting[worker.ready] = running[worker.process.sentinel] = worker
        due = [worker.due for worker in workers if worker.due is not None and not stopping]
        # Read what a worker reports before noticing that it has died.
        waited = [signals, *starting, *running]
        timeout = max(min(due) - now, 0.0) if due else None
        for ready in sorted(pipes.wait(waited, timeout), key=waited.index):
            if ready is signals:
                signals.recv(64)
                stop()
            elif ready in starting:
                worker = starting.pop(ready)
                with suppress(EOFError):
                    message = worker.ready.recv()
                    if isinstance(message, str):
                        if status == 0:
                            say(f"fastws echo: {message}")
                        if not announced:
                            # The other workers cannot listen either.
                            status = 1
                            stop()
                    elif not starting and not stopping and not announced:
                        announced = True
                        with suppress(BrokenPipeError):
                            print(*map(announce, message), sep="\n", flush=True)
            else:
                worker = running.pop(ready)
                starting.pop(worker.ready, None)
                worker.process.join()
                worker.ready.close()
                if not stopping:
                    delay = worker.died()
                    when = f"in {delay:g} s" if delay else "now"
                    fate = (
                        f"worker {worker.process.pid} ended unexpectedly, {_fate(worker.process)}"
                    )
                    say(f"fastws echo: {fate}; another one starts {when}")
    return status


def _fate(process: BaseProcess) -> str:
    code = process.exitcode or 0
    if code < 0:
        return f"killed by {signal.Signals(-code).name}"
    return f"exit status {code}"


def _no_action(*_: object) -> None:
    pass


def _work(args: Namespace, ready: pipes.Connection) -> None:
    """Serve in a worker process.

    Args:
        args: the arguments of the command.
        ready: the pipe of `_Worker.ready`.
    """
    parent = multiprocessing.parent_process()
    assert parent is not None

    def announce(server: Server) -> None:
        ready.send([sock.getsockname() for sock in server.sockets])

    escape_logs()
    try:
        serve_echo(args, announce, parent=parent.sentinel)
    except (OSError, ValueError) as exc:
        with suppress(OSError):
            ready.send(cannot_listen(args, exc))
        sys.exit(1)
