"""docs/migrating: the programs of both sides run unchanged, except for the port.

The clients of one side talk to the servers of the other, so that what is compared does the same.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from fastws import ResponseError, RetryPolicy, connect

from ..node.conftest import node  # noqa: F401 - a fixture
from ..tools import TIMEOUT, Background, Program, free_port
from .pages import DOCS, blocks, code

if TYPE_CHECKING:
    from collections.abc import Iterator

NODE = Path(__file__).parents[1] / "node"  # where ws is installed
PAGES = [f"migrating/{path.name}" for path in sorted((DOCS / "migrating").glob("*.md"))]

HELLO = ["Server: Hello Server!"]
BYE = [*HELLO, "closed with 1000 bye"]
# Clients, and what they print.
CLIENTS = {
    ("migrating/websockets.md", "client-before"): BYE,
    ("migrating/websockets.md", "client-after"): BYE,
    ("migrating/aiohttp.md", "client-before"): [*HELLO, "closed with 1000"],
    ("migrating/aiohttp.md", "client-after"): [*HELLO, "closed with 1000"],
    ("migrating/picows.md", "client-before"): [*HELLO, "closed with 1000"],
    ("migrating/picows.md", "client-after"): [*HELLO, "closed with 1000"],
    ("migrating/node-ws.md", "client-before"): BYE,
    ("migrating/node-ws.md", "client-after"): BYE,
    ("migrating/browser.md", "client-before"): ["speaking tea", *BYE],
    ("migrating/browser.md", "client-after"): ["speaking tea", *BYE],
    ("migrating/browser.md", "coroutine-after"): ["speaking tea", *BYE],
    ("migrating/websocket-client.md", "client-before"): HELLO,
    ("migrating/websocket-client.md", "client-after"): HELLO,
    ("migrating/websocket-client.md", "app-before"): HELLO,
    ("migrating/websocket-client.md", "app-after"): HELLO,
    ("migrating/websocket-client.md", "protocol-after"): HELLO,
    ("migrating/websocket-client.md", "threads-after"): HELLO,
}
# Servers that echo, and what they print if a client of their page talks to them.
LOG = ["connected: /ready", "closed with 1000", "connected: /tea", "closed with 1000"]
SERVERS = {
    ("migrating/websockets.md", "server-before"): [],
    ("migrating/websockets.md", "server-after"): [],
    ("migrating/aiohttp.md", "server-before"): [],
    ("migrating/aiohttp.md", "server-after"): [],
    ("migrating/picows.md", "server-before"): [],
    ("migrating/picows.md", "server-after"): [],
    ("migrating/node-ws.md", "server-before"): LOG,
    ("migrating/node-ws.md", "server-after"): LOG,
}
OTHER_SERVERS = {
    ("migrating/wsproto.md", "server-before"): [],
    ("migrating/wsproto.md", "server-after"): [],
    ("migrating/node-ws.md", "coroutine-after"): LOG,
}
BROADCASTERS = [
    ("migrating/node-ws.md", "broadcast-before"),
    ("migrating/node-ws.md", "broadcast-after"),
]
# Programs that end by themselves, and what they print.
CONVERSATION = ["received: Hello Server!", "closed with 1000", "answer: Hello Client!"]
PROGRAMS = {
    ("migrating/wsproto.md", "before"): CONVERSATION,
    ("migrating/wsproto.md", "after"): CONVERSATION,
    ("migrating/websockets.md", "auth-after"): ["Hello ann!"],
    ("migrating/aiohttp.md", "end-after"): ["Hello!", "closed with 4001 please log in"],
}


@contextmanager
def running(page: str, name: str, port: int, request: pytest.FixtureRequest) -> Iterator[Program]:
    """Run a block with this port; check that it writes no errors."""
    (language,) = [language for _, label, language, _ in blocks(page) if label == name]
    source = code(page, name).replace("8080", str(port))
    if language == "js":
        if page == "migrating/browser.md":
            source = f"import WebSocket from 'ws';\n{source}"
        argv = [request.getfixturevalue("node"), "--input-type=module", "-e", source]
    else:
        argv = [sys.executable, "-W", "error", "-c", source]
    with Program(*argv, cwd=NODE) as program:
        yield program
        assert program.errors == ""


def wait_for(port: int) -> None:
    """Wait for a server. (Some log an error if a client connects and says nothing.)"""

    async def main() -> None:
        policy = RetryPolicy(initial_delay=0.1, max_delay=0.1)
        with suppress(ResponseError):  # it does not know this path
            async with asyncio.timeout(TIMEOUT):
                async for ws in connect(f"ws://localhost:{port}/ready", retry=policy):
                    await ws.close()
                    break

    asyncio.run(main())


def test_every_block_is_run() -> None:
    run = {*CLIENTS, *SERVERS, *OTHER_SERVERS, *BROADCASTERS, *PROGRAMS}
    assert {(page, name) for page in PAGES for _, name, _, _ in blocks(page)} == run


@pytest.mark.parametrize(("page", "name"), CLIENTS)
def test_a_client_talks_to_a_server(page: str, name: str, request: pytest.FixtureRequest) -> None:
    async def echo(ws) -> None:
        async for message in ws:
            await ws.send(message)

    def talk(port: int) -> None:
        with running(page, name, port, request) as client:
            assert client.wait() == 0
            assert client.output.splitlines() == CLIENTS[page, name]

    # The server of the other side.
    server = (page, "server-before" if name.endswith("after") else "server-after")
    if server not in SERVERS:
        with Background(echo, subprotocols=["tea"]) as background:
            talk(background.port)
        return
    port = free_port()
    with running(*server, port, request) as program:
        wait_for(port)
        talk(port)
        expected = SERVERS[server]
        assert [program.line() for _ in expected] == expected
        end(program, server)


def end(program: Program, block: tuple[str, str]) -> None:
    """End a server of ours by a signal; it must write nothing."""
    if block[1].endswith("after") and block != ("migrating/wsproto.md", "server-after"):
        assert program.stop(signal.SIGTERM) == 0
        assert program.errors == ""


@pytest.mark.parametrize(("page", "name"), OTHER_SERVERS)
def test_a_server_echoes(page: str, name: str, request: pytest.FixtureRequest) -> None:
    async def talk() -> None:
        async with asyncio.timeout(TIMEOUT), connect(f"ws://localhost:{port}/tea") as ws:
            await ws.send(["Hello ", "Server!"])
            await ws.ping()
            assert await ws.recv() == "Hello Server!"
            await ws.close()
            assert ws.close_code == 1000

    port = free_port()
    with running(page, name, port, request) as program:
        wait_for(port)
        asyncio.run(talk())
        expected = OTHER_SERVERS[page, name]
        assert [program.line() for _ in expected] == expected
        end(program, (page, name))


@pytest.mark.parametrize(("page", "name"), BROADCASTERS)
def test_a_message_goes_to_all_others(page: str, name: str, request: pytest.FixtureRequest) -> None:
    async def talk() -> None:
        url = f"ws://localhost:{port}"
        async with asyncio.timeout(TIMEOUT), connect(url) as one, connect(url) as two:
            await one.send("to two")
            assert await two.recv() == "to two"
            await two.send(b"to one")
            assert await one.recv() == b"to one"

    port = free_port()
    with running(page, name, port, request) as program:
        wait_for(port)
        asyncio.run(talk())
        end(program, (page, name))


@pytest.mark.parametrize(("page", "name"), PROGRAMS)
def test_a_program_runs(page: str, name: str, request: pytest.FixtureRequest) -> None:
    with running(page, name, free_port(), request) as program:
        assert program.wait() == 0
        assert program.output.splitlines() == PROGRAMS[page, name]
