"""The worker processes of `fastws echo --workers` and `fastws serve`.

This module knows how workers are started, watched and replaced, and how signals end them. It does
not know what a worker serves.
"""

from __future__ import annotations

import errno
import multiprocessing
import os
import signal
import socket
import sys
import time
from argparse import Namespace
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import connection as pipes
from multiprocessing import resource_tracker
from typing import TYPE_CHECKING, Any

from ._serving import cannot_listen
from ._shared import CommandError, describe, escape_logs, say

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.process import BaseProcess

    from fastws.aio.server import Server

__all__ = ["Job", "run_workers"]

# A worker that lived for at least _STEADY seconds is replaced at once. If one dies sooner, and the
# one before it did so too, the next one waits for a delay that doubles each time.
_STEADY = 10.0
_FIRST_DELAY, _LONGEST_DELAY = 1.0, 30.0
# How often to look whether sources have changed, in seconds.
_LOOK = 0.5
# These reach every process of a terminal. The parent process acts on them, the workers do not.
_OF_TERMINALS = [getattr(signal, name) for name in ("SIGINT", "SIGHUP") if hasattr(signal, name)]


@dataclass(frozen=True, slots=True)
class Job:
    """What workers do. The functions are those of a module, because other processes get them.

    Args:
        command: the name of the command.
        serve: called in a worker with the arguments, what to call with the server when it listens,
            and a file descriptor from which to read what the parent process wants: see
            `serve_until_told`.
        announcement: returns the line that tells the user where the server listens.
        option: which option of the command asks for workers.
        stale: returns whether the workers must be replaced, because they run old code; None if
            they never do.
        notify: called with "READY=1" when the workers listen, and with "STOPPING=1" when they
            are told to end; see sd_notify(3).
    """

    command: str
    serve: Callable[..., None]
    announcement: Callable[[Namespace, Any], str]
    option: str = "--workers"
    stale: Callable[[], bool] | None = None
    notify: Callable[[str], None] = lambda state: None


def run_workers(args: Namespace, job: Job, *, shares_sockets: bool = False) -> int:
    """Run the server in worker processes until a signal ends them; return the exit status.

    Args:
        args: the arguments of the command.
        job: what the workers do.
        shares_sockets: whether the arguments contain sockets that listen already, so that the
            workers share them instead of a port.
    """
    if not shares_sockets:
        if not hasattr(socket, "SO_REUSEPORT"):
            needs = "SO_REUSEPORT, which this platform does not have"
            raise CommandError(f"{job.option} needs {needs}")
        if args.port == 0:
            needs = "a --port: with 0, each process would listen on another"
            raise CommandError(f"{job.option} needs {needs}", 2)
        try:
            _check_free(args.host, args.port)
        except (OSError, ValueError) as exc:
            raise cannot_listen(args, exc) from exc

    # Signals arrive as bytes on a socket, so that this process waits in one place and no system
    # call is interrupted.
    receiver, sender = socket.socketpair()
    sender.setblocking(False)
    workers: list[_Worker] = []
    handlers = {number: signal.getsignal(number) for number in (*_OF_TERMINALS, signal.SIGTERM)}
    if handlers[signal.SIGHUP] is signal.SIG_IGN:  # see nohup(1)
        del handlers[signal.SIGHUP]
    wakeup = signal.set_wakeup_fd(sender.fileno())
    try:
        for number in handlers:
            signal.signal(number, _no_action)
        try:
            workers.extend(_Worker(args, job, number) for number in range(args.workers))
        except OSError as exc:
            raise CommandError(f"cannot start a worker: {describe(exc)}") from exc
        return _Watch(args, job, workers, receiver).run()
    finally:
        for worker in workers:
            worker.close()
        signal.set_wakeup_fd(wakeup)
        for number, handler in handlers.items():
            signal.signal(number, handler)
        receiver.close()
        sender.close()


class _Worker:
    """A worker process, and its replacements if it dies. They all have the same number.

    Attributes:
        process: the process.
        ready: a pipe that yields the addresses on which it listens, or a message saying why it
            cannot. What is written into it hurries the process.
        due: when to start another process, in terms of `time.monotonic`; None while it runs.
    """

    def __init__(self, args: Namespace, job: Job, number: int = 0) -> None:
        self._args = args
        self._number = number
        self._job = job
        self._delay = 0.0
        self.start()

    def start(self) -> None:
        """Start a process.

        Raises:
            OSError: if that fails.
        """
        self._started = time.monotonic()
        context = multiprocessing.get_context("spawn")
        ready, child_end = context.Pipe()
        args = Namespace(**vars(self._args), worker=self._number)
        work = (args, self._job.serve, child_end)
        process = context.Process(target=_work, args=work)
        # The child inherits the mask, until it has handlers. The resource tracker must be running
        # already: to start it unblocks a signal.
        resource_tracker.ensure_running()
        signal.pthread_sigmask(signal.SIG_BLOCK, _OF_TERMINALS)
        try:
            process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _OF_TERMINALS)
        child_end.close()
        self.process: BaseProcess = process
        self.ready = ready
        self.due: float | None = None

    def died(self) -> float:
        """Note that the process has died; return the seconds until another one starts."""
        now = time.monotonic()
        if now - self._started >= _STEADY:
            self._delay = 0.0
        delay = self._delay
        self._delay = min(max(2 * delay, _FIRST_DELAY), _LONGEST_DELAY)
        self.due = now + delay
        return delay

    def last_words(self) -> str | None:
        """Return what a process that has died said about that; None if it said nothing."""
        message: Any = None
        with suppress(EOFError, OSError):
            while self.ready.poll():
                message = self.ready.recv()
        return message if isinstance(message, str) else None

    def hurry(self) -> None:
        """Tell a process that is ending not to wait for clients and handlers. (Not by a second
        signal: a first one may reach it twice, from us and from who sends it to all.)"""
        with suppress(OSError):  # it has ended
            os.write(self.ready.fileno(), b"!")

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


class _Watch:
    """Replaces workers that die, that run old code, or that a SIGHUP asks to replace, until another
    signal arrives; then stops all of them, and waits."""

    def __init__(
        self, args: Namespace, job: Job, workers: list[_Worker], signals: socket.socket
    ) -> None:
        self._args = args
        self._job = job
        self._workers = workers
        self._signals = signals
        self._status = 0
        self._had_terminal = _has_terminal()
        self._stopping = 0  # how often that was asked for
        self._announced = False
        self._starting: dict[Any, _Worker] = {worker.ready: worker for worker in workers}
        self._running: dict[Any, _Worker] = {worker.process.sentinel: worker for worker in workers}
        # Workers that were told to end, to be replaced.
        self._outdated: set[_Worker] = set()
        # Those that a SIGHUP asks to replace: the one whose turn it is, and the others.
        self._renewed: _Worker | None = None
        self._to_renew: list[_Worker] = []

    def run(self) -> int:
        """Return the exit status."""
        while self._running or not self._stopping:
            self._start_due()
            # Read what a worker reports before noticing that it has died.
            waited = [self._signals, *self._starting, *self._running]
            for ready in sorted(pipes.wait(waited, self._timeout()), key=waited.index):
                if ready is self._signals:
                    self._obey(self._signals.recv(64))
                elif ready in self._starting:
                    self._read_report(self._starting.pop(ready))
                else:
                    self._note_death(self._running.pop(ready))
            if self._job.stale is not None and not self._stopping and self._job.stale():
                self._reload()
        return self._status

    def _timeout(self) -> float | None:
        """Return how long nothing has to be done but what processes and signals ask for."""
        due = [worker.due for worker in self._workers if worker.due is not None]
        timeout = None
        if due and not self._stopping:
            timeout = max(min(due) - time.monotonic(), 0.0)
        if self._job.stale is not None:
            timeout = _LOOK if timeout is None else min(timeout, _LOOK)
        return timeout

    def _start_due(self) -> None:
        now = time.monotonic()
        for worker in self._workers:
            if worker.due is not None and worker.due <= now and not self._stopping:
                try:
                    worker.start()
                except OSError as exc:
                    delay = worker.died()
                    self._say(f"cannot start a worker, next try in {delay:g} s: {exc}")
                else:
                    self._starting[worker.ready] = self._running[worker.process.sentinel] = worker

    def _obey(self, numbers: bytes) -> None:
        """Signals have arrived. (A terminal that goes away sends a SIGHUP.)"""
        if set(numbers) != {signal.SIGHUP} or (self._had_terminal and not _has_terminal()):
            self._stop()
        elif not self._stopping:
            self._say("the workers are replaced, one after the other")
            self._to_renew = list(self._workers)
            if self._renewed is None:
                self._renew_next()
            elif self._renewed not in self._running.values():
                self._replace(self._renewed)  # it could not start, but the code may be better now

    def _stop(self) -> None:
        if not self._stopping:
            self._job.notify("STOPPING=1")
        self._stopping += 1
        for worker in self._running.values():
            if self._stopping > 2:
                self._status = 1
                worker.process.kill()  # it does not even hurry
            elif self._stopping > 1:
                worker.hurry()
            else:
                worker.process.terminate()

    def _reload(self) -> None:
        self._say("the sources have changed, so the workers are replaced")
        self._renewed, self._to_renew = None, []
        for worker in self._workers:
            self._replace(worker)

    def _renew_next(self) -> None:
        self._renewed = self._to_renew.pop(0) if self._to_renew else None
        if self._renewed is not None:
            self._replace(self._renewed)

    def _replace(self, worker: _Worker) -> None:
        if worker in self._outdated:
            worker.hurry()
        elif worker in self._running.values():
            self._outdated.add(worker)
            worker.process.terminate()
        else:
            worker.due = time.monotonic()

    def _read_report(self, worker: _Worker) -> None:
        with suppress(EOFError, OSError):
            message = worker.ready.recv()
            if isinstance(message, str):
                if self._status == 0:
                    self._say(message)
                if not self._announced and self._job.stale is None and not self._stopping:
                    # The other workers cannot listen either.
                    self._status = 1
                    self._stop()
                return
            if worker is self._renewed and worker not in self._outdated:
                self._renew_next()
            if not self._starting and not self._stopping and not self._announced:
                self._announced = True
                lines = (self._job.announcement(self._args, address) for address in message)
                with suppress(BrokenPipeError):
                    print(*lines, sep="\n", flush=True)
                self._job.notify("READY=1")

    def _note_death(self, worker: _Worker) -> None:
        self._starting.pop(worker.ready, None)
        worker.process.join()
        words = worker.last_words()
        worker.ready.close()
        fate = f"worker {worker.process.pid} ended unexpectedly, {_fate(worker.process)}"
        if words is not None and self._status == 0:
            self._say(words)
        if self._stopping or worker in self._outdated:
            # It was told to end, or killed by somebody who wanted that.
            failed = worker.process.exitcode not in (0, -signal.SIGTERM, -signal.SIGKILL)
            if failed and self._status == 0:
                self._say(fate)
            if self._stopping:
                self._status |= failed
                return
            self._outdated.discard(worker)
            worker.due = time.monotonic()
            return
        if self._job.stale is not None and worker.process.exitcode == 1:
            # Most likely a mistake in the sources, so somebody is about to change them.
            worker.due = None
            self._say(f"{fate}; another one starts when the sources change")
            return
        delay = worker.died()
        when = f"in {delay:g} s" if delay else "now"
        self._say(f"{fate}; another one starts {when}")

    def _say(self, message: str) -> None:
        say(f"fastws {self._job.command}: {message}")


def _fate(process: BaseProcess) -> str:
    code = process.exitcode or 0
    if code < 0:
        with suppress(ValueError):  # real-time signals have only numbers
            return f"killed by {signal.Signals(-code).name}"
        return f"killed by signal {-code}"
    return f"exit status {code}"


def _has_terminal() -> bool:
    """Return whether this process belongs to a terminal that is still there."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError:
        return False
    return True


def _no_action(*_: object) -> None:
    pass


def _work(args: Namespace, serve: Callable[..., None], ready: pipes.Connection) -> None:
    """Serve in a worker process.

    Args:
        args: the arguments of the command.
        serve: see `Job.serve`.
        ready: the pipe of `_Worker.ready`.
    """
    for number in _OF_TERMINALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _no_action)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _OF_TERMINALS)

    def announce(server: Server) -> None:
        ready.send([sock.getsockname() for sock in server.sockets])

    escape_logs()
    try:
        serve(args, announce, parent=ready.fileno())
    except CommandError as exc:
        with suppress(OSError):
            ready.send(str(exc))
        sys.exit(1)
