"""`fastws serve`: what it runs, where it listens, and what its workers do."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import tempfile
import time
import urllib.request
from argparse import Namespace
from contextlib import ExitStack, closing
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest
from websockets.exceptions import ConnectionClosed, InvalidMessage, InvalidStatus
from websockets.sync.client import connect, unix_connect
from websockets.typing import Origin

from fastws.cli import _parser, main
from fastws.cli._handlers import serve_handler
from fastws.cli._sources import Sources
from fastws.cli._workers import Job, _Watch

from .terminals import Terminal
from .tools import (
    FASTWS,
    TIMEOUT,
    Echo,
    Program,
    free_port,
    needs_uvloop,
    require,
    wait_for_workers,
    wait_until_gone,
    workers_of,
)
from .wire import upgrade_request

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

pytestmark = pytest.mark.skipif(os.name != "posix", reason="workers and Unix sockets")
linux = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")

SOURCE = """\
import asyncio, multiprocessing, signal
import fastws

async def chat(ws):
    async for message in ws:
        await ws.send("one: " + message)

async def who(ws):
    await ws.send(repr(ws.remote_address))

class Chat(fastws.WebSocketProtocol):
    def on_message(self, message):
        self.send("one: " + message)

class App:
    async def __aenter__(self):
        print("entered", flush=True)
        return chat

    async def __aexit__(self, *exc_info):
        print("left", flush=True)

app = App()

class NoDatabase(App):
    async def __aenter__(self):
        raise OSError("no database")

no_database = NoDatabase()

class LosesDatabase(App):
    async def __aexit__(self, *exc_info):
        raise OSError("the database is gone")

loses_database = LosesDatabase()

class Slow(App):
    seconds = 0.2

    async def __aenter__(self):
        return self.talk

    async def talk(self, ws):
        async for message in ws:
            await ws.send(message)
        await asyncio.sleep(self.seconds)
        print("finished", flush=True)

    async def __aexit__(self, *exc_info):
        print("leaving", flush=True)
        await asyncio.sleep(self.seconds)
        print("left", flush=True)

class Stuck(Slow):
    seconds = 3600

slow, stuck = Slow(), Stuck()
number = 5

async def about(ws):
    await ws.recv()
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    await ws.send(f"{multiprocessing.current_process().daemon}, {sorted(blocked)}")

def pages(request):
    return None if request.is_websocket else fastws.Response.text("page")
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    # (The path of a Unix socket must be short.)
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        path = Path(name)
        (path / "chats.py").write_text(SOURCE)
        yield path


def serving(folder: Path, name: str, *options: str, env: dict[str, str] | None = None) -> Program:
    return Program(*FASTWS, "serve", name, *options, cwd=folder, env=env)


def ask(url: str, message: str = "hi") -> Any:
    with connect(url, open_timeout=TIMEOUT) as ws:
        ws.send(message)
        return ws.recv(TIMEOUT)


def url_of(line: str) -> str:
    return line.split()[2]


@pytest.mark.parametrize("name", ["chats:chat", "chats:Chat", "chats:app"])
@pytest.mark.parametrize("workers", [(), ("--workers", "2")])
def test_a_handler_is_served(folder: Path, name: str, workers: tuple[str, ...]) -> None:
    port = free_port()
    with serving(folder, name, "--port", str(port), *workers) as program:
        lines = [program.line()]
        while not lines[-1].startswith("fastws"):
            lines.append(program.line())
        assert f"ws://127.0.0.1:{port} ({name})" in lines[-1]
        url = url_of(lines[-1])
        with connect(url) as ws:
            assert ask(url) == "one: hi"
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/health") as response:
                assert response.read() == b"OK\n"
            assert program.stop() == 0
            with pytest.raises(ConnectionClosed):
                ws.recv(TIMEOUT)
            assert ws.close_code == 1001
        assert program.errors == ""
        count = 0 if name != "chats:app" else 2 if workers else 1
        assert (program.output.count("entered"), program.output.count("left")) == (count, count)


@pytest.mark.parametrize("loop", [(), pytest.param(("--uvloop",), marks=needs_uvloop)])
@pytest.mark.parametrize("workers", [(), ("--workers", "2")])
def test_a_unix_socket(folder: Path, loop: tuple[str, ...], workers: tuple[str, ...]) -> None:
    path = str(folder / "socket")
    with socket.socket(socket.AF_UNIX) as left_behind:
        left_behind.bind(path)
    options = ("--unix", path, "--process-request", "chats:pages", *workers, *loop)
    with serving(folder, "chats:chat", *options) as program:
        assert f"ws+unix:{path} (chats:chat)" in program.line()
        with unix_connect(path) as ws:
            ws.send("hi")
            assert ws.recv(TIMEOUT) == "one: hi"
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(path)
            client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            data = b""
            while piece := client.recv(4096):
                data += piece
        assert data.endswith(b"\r\n\r\npage")
        assert program.stop() == 0
        assert program.errors == ""
    assert not workers or not os.path.exists(path)


# Starts the rest of the arguments as systemd does: with sockets from descriptor 3 on.
ACTIVATE = """\
import os, sys
for number in map(int, sys.argv[1].split(",")):
    os.dup2(number, 3 + int(os.environ.setdefault("LISTEN_FDS", "0")))
    os.environ["LISTEN_FDS"] = str(int(os.environ["LISTEN_FDS"]) + 1)
os.environ["LISTEN_PID"] = str(os.getpid())
os.execv(sys.argv[2], sys.argv[2:])
"""


@pytest.mark.parametrize("workers", [(), ("--workers", "2")])
def test_sockets_of_systemd(folder: Path, workers: tuple[str, ...]) -> None:
    with ExitStack() as stack:
        tcp = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        unix = stack.enter_context(socket.socket(socket.AF_UNIX))
        unix.bind(str(folder / "socket"))
        unix.listen()
        # Clients may come before the server does.
        early = stack.enter_context(socket.create_connection(tcp.getsockname()))
        early.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        manager = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
        manager.bind(str(folder / "notify"))
        manager.settimeout(TIMEOUT)
        env = {"NOTIFY_SOCKET": str(folder / "notify")}
        program = stack.enter_context(
            activated(folder, env, [tcp.fileno(), unix.fileno()], "serve", "chats:chat", *workers)
        )
        urls = {url_of(program.line()) for _ in range(2)}
        port = tcp.getsockname()[1]
        assert urls == {f"ws://127.0.0.1:{port}", f"ws+unix:{folder / 'socket'}"}
        assert manager.recv(100) == b"READY=1"
        assert early.recv(100).startswith(b"HTTP/1.1 200 ")
        early.close()
        assert ask(f"ws://127.0.0.1:{port}") == "one: hi"
        with unix_connect(str(folder / "socket")) as ws:
            ws.send("hi")
            assert ws.recv(TIMEOUT) == "one: hi"
        assert program.stop() == 0
        assert program.errors == ""
        assert manager.recv(100) == b"STOPPING=1"


def activated(folder: Path, env: dict[str, str], numbers: list[int], *args: str) -> Program:
    """Run `fastws` with these descriptors as its sockets."""
    listed = ",".join(map(str, numbers))
    command = (sys.executable, "-c", ACTIVATE, listed, *FASTWS, *args)
    return Program(*command, cwd=folder, env=env, pass_fds=numbers)


def test_reload_replaces_the_workers(folder: Path) -> None:
    options = ("--reload", "--port", str(free_port()))
    with serving(folder, "chats:chat", *options) as program:
        url = url_of(program.line())
        assert ask(url) == "one: hi"
        (folder / "chats.py").write_text(SOURCE.replace("one", "three"))
        wait_for(url, "three: hi")
        # A mistake does not end it: the next change may mend it.
        (folder / "chats.py").write_text("import nothing_of_that_name\n")
        program.wait_for_errors("another one starts when the sources change")
        assert "No module named 'nothing_of_that_name'" in program.errors
        (folder / "chats.py").write_text(SOURCE)
        wait_for(url, "one: hi")
        assert program.stop() == 0


@linux
@pytest.mark.usefixtures("hangups")
def test_a_hangup_replaces_the_workers_one_after_the_other(folder: Path) -> None:
    with serving(folder, "chats:chat", "--workers", "2", "--port", str(free_port())) as program:
        url = url_of(program.line())
        first = wait_for_workers(program, 2, set())
        # As long as the new code does not run, one worker has the old one.
        (folder / "chats.py").write_text("1 / 0\n")
        program.send_signal(signal.SIGHUP)
        program.wait_for_errors("another one starts now")
        wait_for(url, "one: hi")
        (folder / "chats.py").write_text(SOURCE.replace("one", "three"))
        wait_for_workers(program, 2, set(first))
        assert ask(url) == "three: hi"
        # Ctrl-C while a worker is being replaced ends both in order.
        with connect(url) as ws:
            program.send_signal(signal.SIGHUP)
            os.killpg(program.pid, signal.SIGINT)
            assert program.wait() == 0
            with pytest.raises(ConnectionClosed):
                ws.recv(TIMEOUT)
            assert ws.close_code == 1001
        assert "the workers are replaced, one after the other" in program.errors


@linux
@pytest.mark.parametrize("workers", [(), ("--workers", "1")])
def test_a_server_whose_terminal_goes_away_ends_in_order(
    folder: Path, workers: tuple[str, ...]
) -> None:
    port = free_port()
    arguments = ("serve", "chats:chat", "--port", str(port), *workers)
    with closing(Terminal(*arguments, setup=f"os.chdir({str(folder)!r})")) as terminal:
        terminal.expect("fastws serve: ws")
        with connect(f"ws://127.0.0.1:{port}") as ws:
            terminal.hang_up()
            with pytest.raises(ConnectionClosed):
                ws.recv(TIMEOUT)
            assert ws.close_code == 1001
        assert terminal.wait() == 0


@pytest.mark.parametrize("workers", [(), ("--workers", "1")])
def test_nohup(folder: Path, workers: tuple[str, ...]) -> None:
    nohup = require("nohup", install="apt-get install coreutils")
    options = ("serve", "chats:chat", "--port", str(free_port()), *workers)
    with Program(nohup, *FASTWS, *options, cwd=folder) as program:
        url = url_of(program.line())
        with connect(url) as ws:
            os.killpg(program.pid, signal.SIGHUP)
            ws.send("hi")
            assert ws.recv(TIMEOUT) == "one: hi"
        assert program.stop() == 0
        assert program.errors == ""


class Stub:
    """A worker that notes what it is told."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.ready = object()
        self.hurry = lambda: self.told.append("hurry")
        self.due: float | None = None
        self.process: Any = SimpleNamespace(
            sentinel=object(),
            terminate=lambda: self.told.append("terminate"),
            kill=lambda: self.told.append("kill"),
        )


def test_what_signals_tell_workers() -> None:
    workers: list[Any] = [Stub(), Stub()]
    states: list[str] = []
    job = Job("serve", serve_handler, lambda args, address: "", notify=states.append)
    watch = _Watch(Namespace(), job, workers, socket.socket())
    watch._had_terminal = False
    watch._obey(bytes([signal.SIGHUP]))
    assert [worker.told for worker in workers] == [["terminate"], []]
    # The third one is for workers that do not hear, as they are busy.
    for _ in range(3):
        watch._obey(bytes([signal.SIGINT]))
    assert workers[0].told == ["terminate", "terminate", "hurry", "kill"]
    assert workers[1].told == ["terminate", "hurry", "kill"]
    assert states == ["STOPPING=1"]
    watch._signals.close()


def test_sources_that_change_again_hurry_workers() -> None:
    worker: Any = Stub()
    job = Job("serve", serve_handler, lambda args, address: "", stale=lambda: True)
    watch = _Watch(Namespace(), job, [worker], socket.socket())
    for _ in range(2):
        watch._reload()
    assert worker.told == ["terminate", "hurry"]
    watch._signals.close()


@pytest.mark.parametrize(
    ("number", "loop"),
    [
        (signal.SIGINT, ()),
        (signal.SIGTERM, ()),
        pytest.param(signal.SIGTERM, ("--uvloop",), marks=needs_uvloop),
    ],
)
def test_a_signal_to_all_processes_hurries_no_worker(
    folder: Path, number: int, loop: tuple[str, ...]
) -> None:
    options = ("--workers", "2", "--port", str(free_port()), *loop)
    with serving(folder, "chats:slow", *options) as program:
        with connect(url_of(program.line())):
            os.killpg(program.pid, number)
            assert program.wait() == 0
        assert program.errors == ""
        assert (program.output.count("finished"), program.output.count("left")) == (1, 2)


@pytest.mark.parametrize("when", ["the handler runs", "the application ends"])
def test_a_second_signal_hurries_workers(folder: Path, when: str) -> None:
    options = ("--workers", "1", "--port", str(free_port()), "--shutdown-timeout", "600")
    with serving(folder, "chats:stuck", *options) as program:
        url = url_of(program.line())
        status = 0
        if when == "the handler runs":
            with connect(url) as ws:
                os.killpg(program.pid, signal.SIGTERM)
                with pytest.raises(ConnectionClosed):
                    ws.recv(TIMEOUT)
            status = 1  # the third one kills
        program.send_signal(signal.SIGTERM)
        assert program.line() == "leaving"
        program.send_signal(signal.SIGTERM)
        assert program.wait() == status
        assert "finished" not in program.output
        assert "left" not in program.output


@linux
def test_a_signal_ends_an_orphan_whose_application_does_not(folder: Path) -> None:
    options = ("--workers", "1", "--port", str(free_port()))
    with serving(folder, "chats:stuck", *options) as program:
        program.line()
        workers = workers_of(program)
        program.send_signal(signal.SIGKILL)
        assert program.line() == "leaving"
        for worker in workers:
            os.kill(worker, signal.SIGTERM)
        wait_until_gone(workers)


def test_a_second_hangup_starts_a_worker_that_could_not_start() -> None:
    workers: list[Any] = [Stub(), Stub()]
    job = Job("serve", serve_handler, lambda args, address: "")
    watch = _Watch(Namespace(), job, workers, socket.socket())
    watch._had_terminal = False
    watch._obey(bytes([signal.SIGHUP]))
    # It dies, and so does the one after it, so the next one is a long time away.
    del watch._running[workers[0].process.sentinel]
    watch._outdated.clear()
    workers[0].due = later = time.monotonic() + 1000
    watch._obey(bytes([signal.SIGHUP]))
    assert workers[0].due < later - 900
    assert [worker.told for worker in workers] == [["terminate"], []]
    watch._signals.close()


def test_workers_are_like_any_other_process(folder: Path) -> None:
    """They may have child processes, and these get signals."""
    with serving(folder, "chats:about", "--workers", "1", "--port", str(free_port())) as program:
        assert ask(url_of(program.line())) == "False, []"
        assert program.stop() == 0


@pytest.mark.parametrize("workers", [(), ("--workers", "2")])
def test_a_server_drains(folder: Path, workers: tuple[str, ...]) -> None:
    options = ("--drain", "1", "--port", str(free_port()), *workers)
    with serving(folder, "chats:chat", *options) as program:
        with connect(url_of(program.line())) as ws:
            program.send_signal(signal.SIGTERM)
            with pytest.raises(ConnectionClosed):
                ws.recv(TIMEOUT)
            assert ws.close_code == 1012
        assert program.wait() == 0
        assert program.errors == ""


def test_the_limits_are_for_all_sockets_and_for_what_a_proxy_tells(folder: Path) -> None:
    with ExitStack() as stack:
        socks = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(2)]
        options = ("--max-connections-per-address", "1", "--max-connections", "2")
        options += ("--proxy-protocol", "--max-lifetime", "86400", "--shutdown-timeout", "0")
        numbers = [sock.fileno() for sock in socks]
        program = stack.enter_context(
            activated(folder, {}, numbers, "serve", "chats:chat", *options)
        )
        program.line()

        def status(number: int, host: int) -> bytes:
            sock = stack.enter_context(socket.create_connection(socks[number].getsockname()))
            sock.sendall(b"PROXY TCP4 192.0.2.%d 192.0.2.9 1 2\r\n" % host + upgrade_request())
            return sock.recv(4096).split()[1]

        assert [status(0, 1), status(1, 1), status(1, 2), status(0, 3)] == [
            b"101", b"503", b"101", b"503",
        ]  # fmt: skip
        assert program.stop() == 0


def test_a_socket_that_another_server_has_replaced_stays(folder: Path) -> None:
    path = str(folder / "socket")
    options = ("chats:chat", "--unix", path, "--workers", "1")
    with serving(folder, *options) as program:
        program.line()
        with serving(folder, *options) as another:
            another.line()
            assert program.stop() == 0
            with unix_connect(path) as ws:
                ws.send("hi")
                assert ws.recv(TIMEOUT) == "one: hi"
            assert another.stop() == 0
    assert not os.path.exists(path)


def wait_for(url: str, answer: str, message: str = "hi") -> None:
    deadline = time.monotonic() + TIMEOUT
    while True:
        try:
            if ask(url, message) == answer:
                return
        except (OSError, ConnectionClosed, InvalidMessage, InvalidStatus):
            pass
        assert time.monotonic() < deadline
        time.sleep(0.05)


def let_in(url: str, **options: Any) -> Any:
    """Connect; there may be too many connections until the server sees that others have ended."""
    deadline = time.monotonic() + TIMEOUT
    while True:
        try:
            return connect(url, **options)
        except InvalidStatus as exc:
            if exc.response.status_code != 503 or time.monotonic() > deadline:
                raise
        time.sleep(0.02)


def test_a_worker_that_cannot_start_is_tried_again(folder: Path) -> None:
    options = ("--workers", "1", "--port", str(free_port()))
    with serving(folder, "chats:no_database", *options) as program:
        program.wait_for_errors("another one starts in 1 s")
        assert "OSError: no database" in program.errors
        assert "cannot listen" not in program.errors
        assert program.stop() == 0


@pytest.mark.parametrize("workers", [(), ("--workers", "1")])
def test_an_application_that_fails_at_its_end(folder: Path, workers: tuple[str, ...]) -> None:
    options = ("--port", str(free_port()), *workers)
    with serving(folder, "chats:loses_database", *options) as program:
        while not program.line().startswith("fastws"):
            pass
        status = program.stop()
        assert status == 1
        assert "OSError: the database is gone" in program.errors
        assert "cannot listen" not in program.errors
        lines = program.errors.splitlines()[-2 if workers else -1 :]
        assert lines[0] == "fastws serve: cannot leave chats:loses_database"
        if workers:
            assert lines[1].endswith("ended unexpectedly, exit status 1")


@pytest.mark.parametrize("loop", [(), pytest.param(("--uvloop",), marks=needs_uvloop)])
def test_signals_are_handled_when_the_server_is_announced(
    folder: Path, loop: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "chats", raising=False)
    options = ("--port", "0", "--max-lifetime", "60", *loop)
    args = _parser().parse_args(["serve", "chats:chat", *options])
    args.sockets = []
    handlers: list[Any] = []

    def announce(server: Any) -> None:
        handlers.append(signal.getsignal(signal.SIGTERM))
        lifetimes.append(server._lifetimes._longest)
        closing.append(asyncio.ensure_future(server.close()))

    closing: list[asyncio.Future[None]] = []
    lifetimes: list[float] = []
    serve_handler(args, announce)
    sys.modules.pop("chats", None)
    assert handlers != [signal.getsignal(signal.SIGTERM)]
    assert lifetimes == [60]


@pytest.mark.parametrize("loop", [(), pytest.param(("--uvloop",), marks=needs_uvloop)])
def test_who_may_connect(folder: Path, loop: tuple[str, ...]) -> None:
    origins = ("--origin", "https://chat.example", "--origin", "none")
    options = (*origins, "--max-connections", "1", "--port", "0", *loop)
    with serving(folder, "chats:chat", *options) as program:
        url = url_of(program.line())
        with pytest.raises(InvalidStatus) as refused:
            connect(url, origin=Origin("https://chat.example.org"))
        assert refused.value.response.status_code == 403
        wait_for(url, "one: hi")
        with let_in(url, origin=Origin("https://chat.example")):
            with pytest.raises(InvalidStatus) as refused:
                connect(url)
            assert refused.value.response.status_code == 503
        assert program.stop() == 0


PROXY_HEADER = b"PROXY TCP4 192.0.2.1 198.51.100.7 56324 443\r\n"


def through_proxy(url: str) -> Any:
    """Connect as a proxy does that tells the client's address."""
    host, port = url.removeprefix("ws://").split(":")
    sock = socket.create_connection((host, int(port)), timeout=TIMEOUT)
    sock.sendall(PROXY_HEADER)
    return connect(url, sock=sock, open_timeout=TIMEOUT)


@pytest.mark.parametrize("workers", [(), ("--workers", "2")])
def test_clients_behind_a_proxy(folder: Path, workers: tuple[str, ...]) -> None:
    options = ("--port", str(free_port()), "--proxy-protocol", *workers)
    with serving(folder, "chats:who", *options) as program:
        url = url_of(line := program.line())
        assert ", PROXY protocol" in line
        with through_proxy(url) as ws:
            assert ws.recv(TIMEOUT) == "('192.0.2.1', 56324)"
        with pytest.raises((ConnectionError, InvalidMessage)):
            connect(url)
        assert program.stop() == 0
        assert program.errors == ""


def test_an_echo_server_behind_a_proxy() -> None:
    with Echo("--proxy-protocol") as server, through_proxy(server.url) as ws:
        assert ", PROXY protocol" in server.announcement
        ws.send("hi")
        assert ws.recv(TIMEOUT) == "hi"


@pytest.mark.parametrize("origin", ["https://chat.example/", "chat.example", "https://a:443", "*"])
def test_what_is_no_origin(origin: str, capsys: Any) -> None:
    with pytest.raises(SystemExit):
        main(["serve", "chats:chat", "--origin", origin])
    assert f"must be scheme://host[:port] without a default port, not {origin!r}" in (
        capsys.readouterr().err
    )


@pytest.mark.parametrize(
    ("args", "status", "words"),
    [
        (["nothing"], 2, "must be MODULE:NAME, not 'nothing'"),
        ([".chats:chat"], 2, "must be MODULE:NAME, not '.chats:chat'"),
        (["nothing:chat"], 1, "no module 'nothing' here"),
        (["chats:nothing"], 1, "module 'chats' has no 'nothing'"),
        (["chats:chat", "--process-request", "chats:nothing"], 1, "has no 'nothing'"),
        (["chats:chat", "--tls-key", "key.pem"], 2, "--tls-key needs --tls-cert"),
        (["broken:chat"], 1, "cannot import broken:chat"),
        (["chats:no_database"], 1, "cannot enter chats:no_database"),
        (["chats:chat", "--unix", "no/such/place"], 1, "cannot listen on no/such/place"),
        (["chats:chat", "--unix", "no/place", "--workers", "1"], 1, "cannot listen on no/place"),
        (["chats:chat", "--unix", ""], 2, "--unix needs a path"),
        (["chats:chat", "--unix", "chats.py"], 1, "cannot listen on chats.py: it exists already"),
        (["chats:nothing", "--workers", "2"], 1, "module 'chats' has no 'nothing'"),
        (["chats:number"], 1, "cannot serve chats:number: handler must be callable, not 'int'"),
        (["chats:number", "--workers", "2"], 1, "cannot serve chats:number: handler must be"),
        (["chats:chat", "--process-request", "chats:number"], 1, "chats:number must be callable"),
        (["chats:chat", "--reload", "--port", "0"], 2, "--reload needs a --port: with 0, each"),
        (["chats:chat", "--workers", "2", "--port", "0"], 2, "--workers needs a --port: with 0"),
    ],
)
def test_what_cannot_be_served(
    folder: Path, args: list[str], status: int, words: str, capfd: Any, monkeypatch: Any
) -> None:
    (folder / "broken.py").write_text("1 / 0\n")
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", [*sys.path])
    for name in ("chats", "broken"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    assert main(["serve", "--port", str(free_port()), *args]) == status
    for name in ("chats", "broken"):
        sys.modules.pop(name, None)
    errors = capfd.readouterr().err
    assert f"fastws serve: {words}" in errors or words in errors.splitlines()[-1]
    assert ("ZeroDivisionError" in errors) is (args[0] == "broken:chat")
    assert "importlib" not in errors


def test_which_files_are_sources(tmp_path: Path) -> None:
    for name in ("a.py", "b.txt", "sub/c.py", ".git/d.py", "env/e.py", "env/pyvenv.cfg"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("")
    sources = Sources(str(tmp_path))
    assert not sources.changed()
    for name in ("b.txt", ".git/d.py", "env/e.py"):
        (tmp_path / name).write_text("x")
    assert not sources.changed()
    for name in ("a.py", "sub/c.py", "sub/new.py"):
        (tmp_path / name).write_text("x")
        assert sources.changed()
    (tmp_path / "sub/new.py").unlink()
    assert sources.changed()
    assert not sources.changed()
