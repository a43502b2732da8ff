"""Servers as child processes, for `soak.py` and `bounds.py`: started, asked, stopped, measured.

    python fuzz/children.py '{"style": "callback", "loop": "uvloop", "settings": {}}'

The child listens on 127.0.0.1, prints its port, answers each line on stdin with a line of JSON
on stdout, and prints a last one after a regular stop. It ends when its stdin does.

The path of the request selects what it serves:

    /echo        every message comes back
    /count/NAME  the same, and the child remembers how many it answered (see `Ledger`)
    /sink        messages of up to 1,000 bytes come back, others are dropped
    /drop        no message comes back
    /deaf        no message is received; the time when `wait_closed` returned is recorded
    /ping        the same, but after a moment it pings, and reports the pong
    /push        64 KiB messages without pause, 512 MiB in total
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import importlib
import json
import logging
import os
import queue
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastws import State, WebSocketProtocol, serve

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastws import WebSocket

STYLES = ("callback", "coroutine", "uvicorn")
LOOPS = ("asyncio", "uvloop")
# The close code of a server that stops; uvicorn's own classes use 1012.
STOP_CODES = {"callback": 1001, "coroutine": 1001, "uvicorn": 1012}

KIB, MIB = 1 << 10, 1 << 20
PUSH_SIZE = 64 * KIB
PUSH_AT_MOST = 512 * MIB
SMALL = 1000  # bytes
PING_AFTER = 1.0  # seconds

PAGE = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 0


# The parent's side -------------------------------------------------------------------------


_ENDED = object()  # in place of another line


class ChildError(Exception):
    """A child has died, or does not answer."""


class Child:
    """A child process that prints lines of JSON; its stderr is kept.

    Attributes:
        name: its name in messages.
        pid: its process ID.
        errors: the file with its stderr.
    """

    def __init__(self, name: str, *argv: str, env: dict[str, str] | None = None) -> None:
        self.name = name
        self.errors = tempfile.NamedTemporaryFile("w+", suffix=".stderr")  # noqa: SIM115
        self._process = subprocess.Popen(
            [sys.executable, *argv],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            env=os.environ | (env or {}),
            text=True,
        )
        self.pid = self._process.pid
        self._lines: queue.SimpleQueue[Any] = queue.SimpleQueue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(json.loads(line))
        self._lines.put(_ENDED)

    def line(self, timeout: float = 30.0) -> Any:
        """Wait for its next line.

        Raises:
            ChildError: if there is none in time, or the child ended.
        """
        try:
            value = self._lines.get(timeout=timeout)
        except queue.Empty:
            raise ChildError(f"{self.name} did not answer for {timeout:g} s") from None
        if value is _ENDED:
            self._lines.put(_ENDED)
            status = self._process.wait(timeout)
            raise ChildError(f"{self.name} ended with {status}:\n{self.complaints()[-4000:]}")
        return value

    def lines(self) -> list[Any]:
        """Return what it has written since, without waiting."""
        found = []
        while not self._lines.empty():
            found.append(self.line())
        return found

    def tell(self, command: str) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(command + "\n")
            self._process.stdin.flush()
        except OSError:
            # Report the cause of its death instead.
            raise ChildError(f"{self.name} is gone:\n{self.complaints()[-4000:]}") from None

    def ask(self, command: str, timeout: float = 30.0) -> Any:
        self.tell(command)
        return self.line(timeout)

    def signal(self, number: int) -> None:
        self._process.send_signal(number)

    @property
    def ended(self) -> int | None:
        """Its exit status; None while it runs."""
        return self._process.poll()

    def wait(self, timeout: float) -> int:
        try:
            return self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise ChildError(f"{self.name} did not end within {timeout:g} s") from None

    def complaints(self) -> str:
        """What it wrote to stderr."""
        return Path(self.errors.name).read_text(errors="backslashreplace")

    def kill(self) -> None:
        """End it at once, if it is running."""
        with suppress(OSError):
            self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            with suppress(OSError):
                pipe.close()
        self.errors.close()


class ServerChild(Child):
    """A server in a child process.

    Args:
        style: one of STYLES.
        loop: one of LOOPS.
        port: where to listen; 0 for any port.
        settings: arguments of `serve`; uvicorn gets those that it supports.
        tls: the file names of a certificate and its key.

    Attributes:
        port: where it listens.
    """

    def __init__(
        self,
        style: str,
        loop: str,
        *,
        port: int = 0,
        settings: dict[str, Any] | None = None,
        tls: tuple[str, str] | None = None,
        env: dict[str, str] | None = None,
    ) -> None:
        self.style, self.loop = style, loop
        options = {"style": style, "loop": loop, "port": port, "settings": settings, "tls": tls}
        super().__init__(f"{style} on {loop}", __file__, json.dumps(options), env=env)
        self.port: int = self.line()["port"]

    def stop(self, timeout: float) -> dict[str, int]:
        """Send SIGTERM and wait; return the ledger that it left."""
        self.signal(signal.SIGTERM)
        deadline = time.monotonic() + timeout
        ledger: dict[str, int] | None = None
        while ledger is None:
            ledger = self.line(max(0.0, deadline - time.monotonic())).get("ledger")
        status = self.wait(max(1.0, deadline - time.monotonic()))
        if status != 0:
            raise ChildError(f"{self.name} ended with {status}:\n{self.complaints()[-4000:]}")
        return ledger


def memory(pid: int) -> int:
    """The resident memory of a process (RSS), in bytes."""
    return int(Path(f"/proc/{pid}/statm").read_bytes().split()[1]) * PAGE


def peak_memory(pid: int) -> int:
    """The peak since `forget_peak`, or since the process started."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * KIB
    raise LookupError("this system keeps no VmHWM")


def forget_peak(pid: int) -> None:
    Path(f"/proc/{pid}/clear_refs").write_text("5")


# The child's side ---------------------------------------------------------------------------


class Ledger:
    """What a server answered: the number of messages for each name of /count/NAME.

    A name is dropped if its connection ends while the server is not stopping. The names left
    at the end are the connections that the stop of the server ended. A message counts once
    `send` has returned.
    """

    def __init__(self) -> None:
        self.answered: dict[str, int] = {}
        self.stopping: Callable[[], bool] = lambda: False

    def begin(self, name: str) -> None:
        self.answered[name] = 0

    def end(self, name: str) -> None:
        if name and not self.stopping():
            self.answered.pop(name, None)


ledger = Ledger()
noted: list[float] = []  # when wait_closed returned, as time.monotonic()


def pushed() -> bytes:
    """Return a message to push: a new object without other references."""
    return os.urandom(KIB) * (PUSH_SIZE // KIB)


def push_on(connection: WebSocketProtocol, before: int = 0) -> None:
    """Send without pause, with one turn of the event loop between messages."""
    if connection.state is State.OPEN and before < PUSH_AT_MOST:
        connection.send(pushed())
        asyncio.get_running_loop().call_soon(push_on, connection, before + PUSH_SIZE)


def split(path: str) -> tuple[str, str]:
    """Return what to do, and the name to count under, "" for none."""
    _, what, *name = path.split("/")
    return what, name[0] if name else ""


def comes_back(what: str, message: str | bytes) -> bool:
    return what != "drop" and (what != "sink" or len(message) <= SMALL)


class Callback(WebSocketProtocol):
    def on_open(self) -> None:
        assert self.request is not None
        self.what, self.name = split(self.request.path)
        if self.name:
            ledger.begin(self.name)
        if self.what == "push":
            push_on(self)

    def on_message(self, message: str | bytes) -> None:
        if comes_back(self.what, message):
            self.send(message)
            if self.name:
                ledger.answered[self.name] += 1

    def on_close(self, code: int, reason: str) -> None:
        ledger.end(self.name)


async def coroutine(ws: WebSocket) -> None:
    assert ws.request is not None
    what, name = split(ws.request.path)
    if what == "push":
        for _ in range(PUSH_AT_MOST // PUSH_SIZE):
            await ws.send(pushed())
    elif what == "deaf":
        await ws.wait_closed()
        noted.append(time.monotonic())
    elif what == "ping":
        await asyncio.sleep(PING_AFTER)
        await ws.ping()
        await ws.send("there it is")
        await ws.wait_closed()
    if name:
        ledger.begin(name)
    try:
        async for message in ws:
            if comes_back(what, message):
                await ws.send(message)
                if name:
                    ledger.answered[name] += 1
    finally:
        ledger.end(name)


async def asgi(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] != "websocket":
        await send({"type": "http.response.start", "status": 426, "headers": []})
        await send({"type": "http.response.body"})
        return
    what, name = split(scope["path"])
    assert (await receive())["type"] == "websocket.connect"
    await send({"type": "websocket.accept"})
    if what == "push":
        for _ in range(PUSH_AT_MOST // PUSH_SIZE):
            await send({"type": "websocket.send", "bytes": pushed()})
    elif what == "deaf":
        await asyncio.sleep(3600)
    if name:
        ledger.begin(name)
    try:
        while (event := await receive())["type"] == "websocket.receive":
            message = event.get("text")
            message = event["bytes"] if message is None else message
            if comes_back(what, message):
                await send(event | {"type": "websocket.send"})
                if name:
                    ledger.answered[name] += 1
    finally:
        ledger.end(name)


async def run_ours(
    handler: Any,
    listener: socket.socket,
    settings: dict[str, Any],
    tls: list[str] | None,
    ready: Any,
) -> None:
    context = None
    if tls is not None:
        import ssl

        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*tls)
    async with serve(handler, sock=listener, ssl=context, backlog=2048, **settings) as server:
        ledger.stopping = lambda: not server.sockets
        ready(lambda: len(server._endpoints))
        await server.serve_forever()


UVICORN_NAMES = {
    "max_message_size": "ws_max_size",
    "ping_interval": "ws_ping_interval",
    "ping_timeout": "ws_ping_timeout",
    "deflate": "ws_per_message_deflate",
}


async def run_uvicorn(
    listener: socket.socket, settings: dict[str, Any], tls: list[str] | None, ready: Any
) -> None:
    import uvicorn

    options = {"ws_per_message_deflate": False} | {
        UVICORN_NAMES[name]: value for name, value in settings.items() if name in UVICORN_NAMES
    }
    if tls is not None:
        options |= {"ssl_certfile": tls[0], "ssl_keyfile": tls[1]}
    config = uvicorn.Config(
        asgi,
        ws="fastws.integrations.uvicorn:WebSocketProtocol",
        lifespan="off",
        log_config=None,
        timeout_graceful_shutdown=10,
        **options,
    )
    server = uvicorn.Server(config)
    ledger.stopping = lambda: server.should_exit
    # At the end, uvicorn raises the signals that it got again.
    signal.signal(signal.SIGTERM, lambda *_: None)
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    while not server.started:  # noqa: ASYNC110 - it has no event to wait for
        await asyncio.sleep(0.01)
    ready(lambda: len(server.server_state.connections))
    await serving


def say(value: object) -> None:
    print(json.dumps(value), flush=True)


def hear(obey: Callable[[str], None]) -> None:
    """Make the running loop call this with each line on stdin; end with the parent."""

    def readable() -> None:
        commands = os.read(0, 4096)
        if not commands:
            os._exit(1)
        for command in commands.decode().splitlines():
            obey(command)

    asyncio.get_running_loop().add_reader(0, readable)


def measured(connections: int) -> dict[str, int]:
    return {
        "rss": memory(os.getpid()),
        "fds": len(os.listdir("/proc/self/fd")),
        "tasks": len(asyncio.all_tasks()),
        "connections": connections,
    }


def obey(connections: Callable[[], int], command: str) -> None:
    if command == "measure":
        say(measured(connections()))
    elif command == "settle":
        gc.collect()
        # The allocator may keep freed memory indefinitely.
        getattr(ctypes.CDLL(None), "malloc_trim", id)(0)  # glibc has it
        say(measured(connections()))
    elif command == "gc off":
        gc.disable()
        say(None)
    elif command == "noted":
        say(noted)
    else:
        raise ValueError(command)


async def main() -> None:
    options = json.loads(sys.argv[1])
    logging.basicConfig(
        level=logging.WARNING, stream=sys.stderr, format="%(levelname)s %(name)s: %(message)s"
    )
    listener = socket.create_server(("127.0.0.1", options["port"]), backlog=2048)
    port = listener.getsockname()[1]

    def ready(connections: Callable[[], int]) -> None:
        hear(partial(obey, connections))
        say({"port": port})

    runners = {
        "callback": partial(run_ours, Callback),
        "coroutine": partial(run_ours, coroutine),
        "uvicorn": run_uvicorn,
    }
    run = runners[options["style"]]
    await run(listener, options["settings"] or {}, options["tls"], ready)
    asyncio.get_running_loop().remove_reader(0)
    say({"ledger": ledger.answered})


if __name__ == "__main__":
    factory = importlib.import_module(json.loads(sys.argv[1])["loop"]).new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(main())
