"""`--metrics` of `fastws echo` and `fastws serve`, and the status line of the latter."""

from __future__ import annotations

import io
import os
import re
import signal
import socket
import sys
import tempfile
import urllib.error
import urllib.request
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from websockets.sync.client import connect

from fastws.cli import main
from fastws.cli._status import _Above

from .tools import FASTWS, TIMEOUT, Echo, Program, free_port, free_ports, needs_uvloop, optional

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

posix = pytest.mark.skipif(os.name != "posix", reason="workers and terminals")

SOURCE = """\
import logging

logging.basicConfig(level="INFO", format="%(levelname)s %(message)s")

async def app(ws):
    print("hello", end="")
    print(", world")
    logging.info("a connection from \\x1b[31mred\\x1b[0m")
    async for message in ws:
        await ws.send(message)
    print("no end", end="")
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir="/tmp" if os.name == "posix" else None) as name:
        path = Path(name)
        (path / "chats.py").write_text(SOURCE)
        yield path


def get(url: str) -> str:
    with urllib.request.urlopen(url, timeout=TIMEOUT) as response:
        if not url.endswith("/health"):
            assert response.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
        text: str = response.read().decode()
    return text


def value(text: str, name: str) -> int:
    return sum(int(number) for number in re.findall(rf"^fastws_{name} (\d+)$", text, re.MULTILINE))


@pytest.mark.parametrize("options", [[], ["--inspect"]], ids=" ".join)
def test_a_path_of_the_server(options: list[str]) -> None:
    with Echo("--metrics", *options) as server:
        assert server.announcement.endswith(", metrics at /metrics")
        with connect(server.url) as ws:
            ws.send("hi")
            ws.recv(TIMEOUT)
            text = get(f"{server.http}/metrics?x")
        assert value(text, "connections") == value(text, "messages_received_total") == 1
        with urllib.request.urlopen(f"{server.http}/health", timeout=TIMEOUT) as response:
            assert response.read() == b"OK\n"
        assert server.stop() == 0


@pytest.mark.parametrize("loop", [[], pytest.param(["--uvloop"], marks=needs_uvloop)], ids=" ".join)
@posix
def test_an_address_of_its_own(loop: list[str], folder: Path) -> None:
    port = free_port()
    place = ["--port", "0", "--metrics", f"127.0.0.1:{port}", "--max-connections", "1"]
    with Program(*FASTWS, "serve", "chats:app", *place, *loop, cwd=folder) as server:
        line = server.line()
        assert line.endswith(f", metrics at http://127.0.0.1:{port}/metrics")
        with connect(line.split()[2]):
            assert value(get(f"http://127.0.0.1:{port}/metrics"), "connections") == 1
            # The server is full, and well.
            assert get(f"http://127.0.0.1:{port}/health") == "OK\n"
            with pytest.raises(urllib.error.HTTPError, match="503"):
                get(f"{line.split()[2].replace('ws', 'http')}/health")
        for url in (
            f"http://127.0.0.1:{port}/",
            f"{line.split()[2].replace('ws', 'http')}/metrics",
        ):
            with pytest.raises(urllib.error.HTTPError) as caught:
                urllib.request.urlopen(url, timeout=TIMEOUT)
            caught.value.close()
            assert caught.value.code in (404, 426)
        assert server.stop() == 0


@posix
def test_each_worker_has_a_port() -> None:
    first = free_ports(2)
    with ExitStack() as stack:
        options = ("--workers", "2", "--metrics", f"127.0.0.1:{first}")
        server = stack.enter_context(Echo(*options, port=free_port()))
        assert server.announcement.endswith(f"127.0.0.1:{first}/metrics to {first + 1}")
        for _ in range(12):
            ws = stack.enter_context(connect(server.url))
            ws.send("hi")
            ws.recv(TIMEOUT)
        counts = [
            value(get(f"http://127.0.0.1:{port}/metrics"), "connections_opened_total")
            for port in (first, first + 1)
        ]
        assert sum(counts) == 12
        if sys.platform == "linux":
            # A worker that takes the place of another has its port, and counts from 0.
            children = Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text().split()
            for pid in children:
                if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes():
                    os.kill(int(pid), signal.SIGKILL)
            server.wait_for_errors("ended unexpectedly", 2)
            for port in (first, first + 1):
                server.wait_for_port(port)
                text = get(f"http://127.0.0.1:{port}/metrics")
                assert value(text, "connections_opened_total") == 0
        assert server.stop() == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--workers", "2", "--metrics"], "so --metrics needs a HOST:PORT with --workers"),
        (["--workers", "9", "--metrics", ":65530"], "--metrics needs 9 ports, one for each worker"),
    ],
)
@pytest.mark.parametrize("command", [["echo"], ["serve", "chats:app"]], ids=lambda words: words[0])
def test_options_that_do_not_go_together(
    command: list[str], options: list[str], message: str, capsys: Any
) -> None:
    assert main([*command, *options]) == 2
    assert message in capsys.readouterr().err


def test_places_that_cannot_be_used(capsys: Any) -> None:
    with pytest.raises(SystemExit):
        main(["echo", "--metrics", "metrics"])
    assert "must be HOST:PORT, not 'metrics'" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["serve", "--metrics", "chats:app"])
    errors = capsys.readouterr().err
    assert "must be a path or HOST:PORT, not 'chats:app'; without a value, write it last" in errors
    for path in ("/a b", "/metrics?all", "/é"):
        with pytest.raises(SystemExit):
            main(["echo", "--metrics", path])
        assert f"not the path of a request: {path!r}" in capsys.readouterr().err
    assert main(["echo", "--port", "0", "--metrics", "a..b:9100"]) == 1
    assert "cannot listen on a..b port 9100 for --metrics: " in capsys.readouterr().err
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = sock.getsockname()[1]
        assert main(["echo", "--port", "0", "--metrics", f"127.0.0.1:{port}"]) == 1
        errors = capsys.readouterr().err
        assert f"cannot listen on 127.0.0.1 port {port} for --metrics: " in errors


@posix
def test_a_terminal_shows_what_a_handler_does(folder: Path, terminal: Any) -> None:
    optional("rich")
    setup = f"os.chdir({str(folder)!r})"
    serve = terminal("serve", "chats:app", "--port", "0", kind="xterm", setup=setup)
    serve.expect("fastws serve: ")
    serve.expect(" (")
    url = serve.before
    serve.expect("0 connections, 0 messages/s, 0.0 MB/s, 0 in all")
    with connect(url) as ws:
        # What the handler prints is above the line, and whole.
        serve.expect("hello, world\r\n")
        serve.expect("INFO a connection from ")
        serve.expect("red")
        ws.send("é" * 50_000)
        ws.recv(TIMEOUT)
        serve.expect("1 connection, ")
        serve.expect(" MB/s, 1 in all")
    serve.expect("0 connections, 0 messages/s, 0.0 MB/s, 1 in all")
    serve.signal(signal.SIGINT)
    assert serve.wait() == 0
    serve.expect_end()
    assert "no end" in serve.before
    assert serve.before.endswith("\x1b[2K")  # the line is gone


def test_a_line_that_never_ends_is_not_kept() -> None:
    optional("rich")
    from rich.console import Console

    above = _Above(io.StringIO())
    above.console = Console(file=io.StringIO(), width=80)
    for _ in range(1000):
        above.write("." * 10)
    written = above.console.file.getvalue()
    assert 10_000 - len(written.replace("\n", "")) <= 4096
    above.end()
    assert above.console.file.getvalue().count(".") == 10_000


@posix
@pytest.mark.parametrize("kind", ["dumb", "xterm"])
def test_terminals_without_a_status_line(
    kind: str, folder: Path, terminal: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    if kind == "xterm":
        (folder / "rich.py").write_text("raise ImportError")
        monkeypatch.setenv("PYTHONPATH", str(folder), prepend=os.pathsep)
    setup = f"os.chdir({str(folder)!r})"
    serve = terminal("serve", "chats:app", "--port", "0", kind=kind, setup=setup)
    serve.expect("\r\n")
    url = serve.before.split()[2]
    with connect(url):
        serve.expect("hello, world\r\n")
    serve.signal(signal.SIGINT)
    assert serve.wait() == 0
