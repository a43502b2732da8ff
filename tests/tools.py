"""Helpers to run programs: find them or say so, read their lines, always stop them."""

from __future__ import annotations

import asyncio
import os
import queue
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import threading
import time
from contextlib import ExitStack, contextmanager, suppress
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, Self

import pytest

import fastws

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

TIMEOUT = 30.0  # seconds; everything takes far less
needs_uvloop = pytest.mark.skipif(
    find_spec("uvloop") is None, reason="no uvloop here: pip install uvloop"
)
# Whether this Python is built without a GIL. Not all test dependencies support that.
FREE_THREADED = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))
FASTWS = (sys.executable, "-W", "default", "-m", "fastws")


def from_checkout(folder: str, *names: str) -> list[Any]:
    """Import modules that are not installed, from a folder of the checkout."""
    path = str(Path(__file__).parents[1] / folder)
    sys.path.insert(0, path)
    try:
        return [import_module(name) for name in names]
    finally:
        sys.path.remove(path)


_reserved: list[ExitStack] = []


def free_port() -> int:
    """Find a free port of 127.0.0.1, for a program that must be given one."""
    return free_ports(1)


def free_ports(count: int) -> int:
    """Find free ports in a row; return the first.

    On Linux, they are reserved until this process ends: nobody gets them who wants any port, and
    servers that ask for them do, because they set SO_REUSEADDR. Connecting to them is refused.
    """
    while True:
        first = 0
        with ExitStack() as stack:
            for number in range(count):
                sock = stack.enter_context(socket.socket())
                if sys.platform == "linux":
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    sock.bind(("127.0.0.1", first and first + number))
                except (OSError, OverflowError):
                    if not first:
                        raise
                    break  # the next port is not free, or there is none
                first = first or sock.getsockname()[1]
            else:
                if sys.platform == "linux":
                    _reserved.append(stack.pop_all())
                return first


def require(*programs: str, install: str) -> str:
    """Find one of these programs; without any, skip on a developer's machine and fail in CI."""
    path = next(filter(None, map(shutil.which, programs)), None)
    if path is None:
        missing(f"no {' or '.join(programs)} here: {install}")
    return path


def missing(reason: str) -> NoReturn:
    """Skip a test because something is missing, or fail in CI."""
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


@contextmanager
def traced() -> Iterator[Callable[[], tuple[int, int]]]:
    """Trace Python's allocations; yield a function that returns the current size and the peak."""
    if sys.implementation.name == "pypy":
        pytest.skip("PyPy does not trace what it allocates")
    # (So that PyPy can import this file.)
    import tracemalloc

    tracemalloc.start()
    try:
        yield tracemalloc.get_traced_memory
    finally:
        tracemalloc.stop()


def optional(name: str) -> Any:
    """Import a module that is in the extra `test`, but not in `test-threads` (free-threaded)."""
    if FREE_THREADED and find_spec(name) is None:
        pytest.skip(f"{name} is not available for every free-threaded Python")
    return import_module(name)


class Program:
    """A program that runs while the test is in the `with` block, and no longer.

    Its output is kept, and pytest shows it if the test fails.
    """

    def __init__(
        self,
        *argv: str,
        cwd: Any = None,
        env: dict[str, str] | None = None,
        pass_fds: Sequence[int] = (),
    ) -> None:
        self._process = subprocess.Popen(
            argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            errors="backslashreplace",
            cwd=cwd,
            env=os.environ | (env or {}),
            pass_fds=pass_fds,
            start_new_session=True,  # so that we can imitate a terminal's Ctrl-C
        )
        self._name = " ".join(argv)
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._output: list[str] = []
        self._errors: list[str] = []
        self._news = threading.Condition()  # notified of each line
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        # Threads read the output, so that the program never waits for us.
        self._threads = [
            threading.Thread(target=self._read, args=args, daemon=True)
            for args in (
                (self._process.stdout, self._output, self._lines),
                (self._process.stderr, self._errors, None),
            )
        ]
        for thread in self._threads:
            thread.start()

    def _read(
        self, stream: Any, lines: list[str], copy: queue.SimpleQueue[str | None] | None
    ) -> None:
        for line in stream:
            with self._news:
                lines.append(line)
                self._news.notify_all()
            if copy is not None:
                copy.put(line.removesuffix("\n"))
        if copy is not None:
            copy.put(None)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def has_ended(self) -> bool:
        return self._process.poll() is not None

    @property
    def output(self) -> str:
        """What it has written to stdout so far."""
        return "".join(self._output)

    @property
    def errors(self) -> str:
        """What it has written to stderr so far."""
        return "".join(self._errors)

    def line(self) -> str:
        """Wait for its next line on stdout."""
        try:
            line = self._lines.get(timeout=TIMEOUT)
        except queue.Empty:
            pytest.fail(f"{self._name} does not go on")
        if line is None:
            self._process.wait(TIMEOUT)
            pytest.fail(f"{self._name} ended with {self._process.returncode}:\n{self.errors}")
        return line

    def wait_for_errors(self, text: str, times: int = 1) -> None:
        """Wait until it has written a text to stderr this many times."""
        with self._news:
            if not self._news.wait_for(lambda: self.errors.count(text) >= times, TIMEOUT):
                pytest.fail(f"{self._name} does not say {text!r}:\n{self.errors}")

    def wait_for_port(self, port: int) -> None:
        """Wait until it listens on a port of 127.0.0.1."""
        deadline = time.monotonic() + TIMEOUT
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), TIMEOUT).close()
            except OSError:
                if self.has_ended or time.monotonic() > deadline:
                    pytest.fail(f"{self._name} does not listen:\n{self.errors}")
                time.sleep(0.02)
            else:
                return

    def write(self, text: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(text)
        self._process.stdin.flush()

    def end_input(self) -> None:
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            self._process.stdin.close()

    def send_signal(self, number: int) -> None:
        self._process.send_signal(number)

    def freeze(self) -> None:
        """Stop it until SIGCONT, and wait until it stands still: its threads may go on a little."""
        self.send_signal(signal.SIGSTOP)
        os.waitpid(self.pid, os.WUNTRACED)

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal, then `wait`."""
        self.send_signal(number)
        return self.wait()

    def wait(self) -> int:
        """Wait for its end; return its exit status. `output` and `errors` are complete then."""
        status = self._process.wait(TIMEOUT)
        for thread in self._threads:
            thread.join(TIMEOUT)
        return status

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        # Including everything that it started: it has its own session.
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        self.end_input()
        self.wait()
        for stream in (self._process.stdout, self._process.stderr):
            assert stream is not None
            stream.close()
        print(f"--- {self._name}\n{self.output}", file=sys.stderr)
        print(f"--- its stderr\n{self.errors}", file=sys.stderr)


def workers_of(program: Program) -> list[int]:
    """The worker processes: the children that run our code. (One child is multiprocessing's.)"""
    children = Path(f"/proc/{program.pid}/task/{program.pid}/children").read_text().split()
    return [
        int(pid) for pid in children if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()
    ]


def wait_for_workers(program: Program, count: int, gone: set[int]) -> list[int]:
    """Wait until there are `count` workers, none of them in `gone`; return them."""
    deadline = time.monotonic() + TIMEOUT
    while True:
        with suppress(FileNotFoundError, ProcessLookupError):
            workers = workers_of(program)
            if len(workers) == count and not gone & set(workers):
                return workers
        assert time.monotonic() < deadline
        time.sleep(0.02)


def wait_until_gone(pids: list[int]) -> None:
    """Wait for the end of processes."""
    deadline = time.monotonic() + TIMEOUT
    for pid in pids:
        while True:
            try:
                state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
            except (FileNotFoundError, ProcessLookupError):
                break
            if state == "Z":
                break
            assert time.monotonic() < deadline
            time.sleep(0.02)


class Fastws(Program):
    """A `fastws` command that runs."""

    def __init__(self, *args: str) -> None:
        super().__init__(*FASTWS, *args)


class Echo(Fastws):
    """A `fastws echo` that listens.

    Attributes:
        url: its ws:// or wss:// URL.
        http: its http:// or https:// URL.
        port: its port.
    """

    def __init__(self, *args: str, port: int = 0) -> None:
        super().__init__("echo", "--port", str(port), *args)
        self.announcement = ""

    def __enter__(self) -> Self:
        try:
            self.announcement = self.line()
        except BaseException:
            self.__exit__()
            raise
        words = self.announcement.split()
        self.url, self.http = words[2], words[4]
        self.port = int(self.url.rpartition(":")[2])
        return self


class Background:
    """A `fastws.serve` in a thread of this process, while the test is in the `with` block.

    Attributes:
        port: its port on 127.0.0.1.
        url: its ws:// URL.
    """

    def __init__(self, handler: Any, **options: Any) -> None:
        self._handler = handler
        self._options = options
        self._started: queue.SimpleQueue[int | BaseException] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as exc:
            self._started.put(exc)

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        async with fastws.serve(self._handler, "127.0.0.1", 0, **self._options) as server:
            self._started.put(server.sockets[0].getsockname()[1])
            await self._stop.wait()

    def __enter__(self) -> Self:
        self._thread.start()
        port = self._started.get(timeout=TIMEOUT)
        if isinstance(port, BaseException):
            raise port
        self.port = port
        scheme = "wss" if self._options.get("ssl") else "ws"
        self.url = f"{scheme}://127.0.0.1:{port}"
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(TIMEOUT)
        assert not self._thread.is_alive()


def run(*argv: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a program to its end, with `options` for `subprocess.run`."""
    defaults = {
        "stdout": subprocess.PIPE,
        "stderr": subprocess.PIPE,
        "encoding": "utf-8",
        "timeout": TIMEOUT,
    }
    return subprocess.run(argv, check=False, **(defaults | options))


def run_fastws(*args: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a `fastws` command to its end."""
    return run(*FASTWS, *args, **options)
