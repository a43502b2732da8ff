"""The tutorial: its programs run as they are shown, except for the ports, and do what it says."""

from __future__ import annotations

import asyncio
import os
import re
import shlex
import signal
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

import fastws

from ..browser.conftest import Browser, Page, browser  # noqa: F401
from ..bus.conftest import redis  # noqa: F401
from ..node.conftest import HERE as NODE
from ..node.conftest import node  # noqa: F401
from ..tools import FASTWS, Program, free_port, run, run_fastws
from .pages import code

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from ..bus.conftest import Broker

pytestmark = pytest.mark.skipif(os.name != "posix", reason="programs are stopped POSIX's way")


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def pages(browser: Browser) -> Iterator[list[Page]]:  # noqa: F811
    pages = [Page(browser) for _ in range(3)]
    try:
        yield pages
    finally:
        for page in pages:
            page.close()


@contextmanager
def running(folder: Path, text: str, port: int) -> Iterator[Program]:
    """Run a server until Ctrl+C; it must end without a complaint."""
    (folder / "server.py").write_text(text)
    with Program(sys.executable, "-W", "error", "server.py", cwd=folder) as program:
        program.wait_for_port(port)
        yield program
        if not program.has_ended:
            assert program.stop(signal.SIGINT) == 0
        assert program.errors == ""


def output(folder: Path, text: str) -> str:
    """Run a program to its end; return what it prints."""
    (folder / "program.py").write_text(text)
    result = run(sys.executable, "-W", "error", "program.py", cwd=folder)
    assert (result.returncode, result.stderr) == (0, "")
    return result.stdout


# The first server -------------------------------------------------------------------------


@pytest.fixture
def echo(tmp_path: Path, port: int) -> Iterator[Program]:
    text = code("tutorial/first-server.md", "server").replace("8080", str(port))
    with running(tmp_path, text, port) as program:
        yield program


def test_the_server_has_ten_lines() -> None:
    text = code("tutorial/first-server.md", "server")
    assert len([line for line in text.splitlines() if line.strip()]) <= 10


def test_the_clients_talk_to_the_server(
    echo: Program,
    port: int,
    tmp_path: Path,
    node: str,  # noqa: F811
) -> None:
    result = run_fastws("connect", f"ws://localhost:{port}", input="hello\n")
    assert (result.returncode, result.stdout) == (0, "hello\n")
    text = code("tutorial/first-server.md", "client").replace("8080", str(port))
    assert output(tmp_path, text) == "Server: Hello Server!\n"
    text = code("tutorial/first-server.md", "node").replace("8080", str(port))
    (tmp_path / "client.mjs").write_text(text)
    (tmp_path / "node_modules").symlink_to(NODE / "node_modules")
    result = run(node, "client.mjs", cwd=tmp_path)
    assert result.stdout == code("tutorial/first-server.md", "node-output")
    assert (result.returncode, result.stderr) == (0, "")


def open_page(page: Page, folder: Path, text: str) -> None:
    (folder / "page.html").write_text(text)
    page.navigate((folder / "page.html").as_uri())


def shows(page: Page, *lines: str) -> None:
    expected = "\n".join(lines)
    page.wait_until(f"document.querySelector('pre').innerText.trim() === {expected!r}")


def say(page: Page, text: str) -> None:
    page.run("document.querySelector('input').focus();")
    page.type(f"{text}\n")


def test_the_page_talks_to_the_server_and_says_how_it_ends(
    echo: Program, port: int, tmp_path: Path, pages: list[Page]
) -> None:
    page, *_ = pages
    text = code("tutorial/first-server.md", "page").replace("8080", str(port))
    open_page(page, tmp_path, text)
    shows(page, "open")
    say(page, "Hello Server!")
    shows(page, "open", "Server: Hello Server!")
    page.run("document.getElementById('close').click();")
    shows(page, "open", "Server: Hello Server!", "closed with 1000")
    open_page(page, tmp_path, text)
    shows(page, "open")
    assert echo.stop(signal.SIGINT) == 0
    shows(page, "open", "closed with 1001")
    open_page(page, tmp_path, text)
    shows(page, "that did not work", "closed with 1006")


def test_a_conversation_ends_with_a_code(port: int, tmp_path: Path, pages: list[Page]) -> None:
    text = code("tutorial/first-server.md", "goodbye").replace("8080", str(port))
    with running(tmp_path, text, port) as server:
        text = code("tutorial/first-server.md", "goodbye-client").replace("8080", str(port))
        assert output(tmp_path, text) == code("tutorial/first-server.md", "goodbye-output")
        assert server.line() == "closed with 4000 It was nice to meet you"
        text = code("tutorial/first-server.md", "page").replace("8080", str(port))
        open_page(pages[0], tmp_path, text)
        shows(pages[0], "open")
        say(pages[0], "bye")
        shows(pages[0], "open", "closed with 4000")


def test_a_handler_that_raises_closes_with_1011(port: int, tmp_path: Path) -> None:
    text = code("tutorial/first-server.md", "server").replace("8080", str(port))
    text = text.replace("await ws.send(message)", "1 / 0")
    (tmp_path / "server.py").write_text(text)
    with Program(sys.executable, "server.py", cwd=tmp_path) as program:
        program.wait_for_port(port)
        result = run_fastws("connect", f"ws://localhost:{port}", input="hello\n")
        assert "1011" in result.stderr
        program.wait_for_errors("ZeroDivisionError: division by zero\n")


def test_tls(port: int, tmp_path: Path, node: str, pages: list[Page]) -> None:  # noqa: F811
    install, make = code("tutorial/first-server.md", "certificate").splitlines()
    assert install == "pip install trustme"
    result = run(sys.executable, *shlex.split(make)[1:], cwd=tmp_path)
    assert (result.returncode, result.stderr) == (0, "")
    text = code("tutorial/first-server.md", "secure").replace("8443", str(port))
    with running(tmp_path, text, port):
        text = code("tutorial/first-server.md", "secure-client").replace("8443", str(port))
        assert output(tmp_path, text) == "Server: Hello Server!\n"
        url = f"wss://localhost:{port}"
        ca = ("--ca", "client.pem")
        result = run(*FASTWS, "connect", *ca, url, input="hello\n", cwd=tmp_path)
        assert (result.returncode, result.stdout) == (0, "hello\n")
        text = code("tutorial/first-server.md", "node").replace("ws://localhost:8080", url)
        (tmp_path / "client.mjs").write_text(text)
        (tmp_path / "node_modules").symlink_to(NODE / "node_modules")
        setting, _, *arguments = shlex.split(code("tutorial/first-server.md", "secure-node"))
        env = os.environ | dict([setting.split("=")])
        result = run(node, *arguments, cwd=tmp_path, env=env)
        assert result.stdout == code("tutorial/first-server.md", "node-output")
        page, *_ = pages
        page.navigate(url.replace("wss", "https"))
        assert page.run("return document.body.innerText;").strip() == "this is a WebSocket server"
        text = code("tutorial/first-server.md", "page").replace("ws://localhost:8080", url)
        open_page(page, tmp_path, text)
        shows(page, "open")


# The chat ---------------------------------------------------------------------------------

LOG = "[...document.querySelectorAll('#log li')].map((line) => line.textContent)"


def enter(page: Page, port: int, room: str, name: str) -> None:
    page.navigate(f"http://localhost:{port}/{room}")
    page.run("document.getElementById('name').value = name;", name=name)
    page.wait_until(f"document.getElementById('state').textContent === 'You are in /{room}'")


def speak(page: Page, text: str) -> None:
    page.run("document.getElementById('text').focus();")
    page.type(f"{text}\n")


def hears(page: Page, *lines: str) -> None:
    page.wait_until(f"{LOG}.length === {len(lines)}")
    assert page.run(f"return {LOG};") == list(lines)


def test_the_chat(port: int, tmp_path: Path, pages: list[Page]) -> None:
    ann, bob, eve = pages
    (tmp_path / "page.html").write_text(code("tutorial/chat.md", "page"))
    text = code("tutorial/chat.md", "chat").replace("8080", str(port))
    with running(tmp_path, text, port):
        enter(eve, port, "coffee", "Eve")
        enter(ann, port, "tea", "Ann")
        enter(bob, port, "tea", "Bob")
        speak(ann, "hello")
        speak(bob, "<b>hi</b>")
        speak(eve, "anybody?")
        for page in (ann, bob):
            hears(page, "Ann: hello", "Bob: <b>hi</b>")
        hears(eve, "Eve: anybody?")
        asyncio.run(others(port))
        ann.run("Math.random = () => 0;")
    ann.wait_until("document.getElementById('state').textContent.startsWith('Connection lost')")
    with running(tmp_path, text, port):
        ann.wait_until("document.getElementById('state').textContent === 'You are in /tea'")
        speak(ann, "again")
        hears(ann, "Ann: hello", "Bob: <b>hi</b>", "Ann: again")


async def others(port: int) -> None:
    with pytest.raises(fastws.ResponseError, match="403"):
        await fastws.connect(f"ws://localhost:{port}/tea", origin="http://example.com")
    async with fastws.connect(f"ws://localhost:{port}/tea") as ws:
        await ws.send("x" * 4097)
        with pytest.raises(fastws.ConnectionClosed) as closed:
            await ws.recv()
        assert closed.value.code == 1009


def test_a_slow_one_is_closed(port: int, tmp_path: Path) -> None:
    printed = output(tmp_path, code("tutorial/chat.md", "train").replace("8081", str(port)))
    shown = code("tutorial/chat.md", "train-output")
    assert re.sub(r"\d+ of \d+", "N of M", printed) == re.sub(r"\d+ of \d+", "N of M", shown)


def test_many_processes(
    port: int,
    tmp_path: Path,
    redis: Broker,  # noqa: F811
) -> None:
    (tmp_path / "page.html").write_text(code("tutorial/chat.md", "page"))
    text = code("tutorial/chat.md", "many").replace("redis://localhost:6379", redis.url)
    (tmp_path / "many.py").write_text(text.replace("8080", str(port)))
    words = shlex.split(code("tutorial/chat.md", "serve").replace("--workers 4", "--workers 2"))
    with Program(*FASTWS, *words[1:], "--port", str(port), cwd=tmp_path) as program:
        assert "workers 2" in program.line()
        asyncio.run(talk(port))
        assert program.stop() == 0
        assert program.errors == ""


async def talk(port: int) -> None:
    """Have eight clients, who are probably not all in one process, hear the first of them."""
    url = f"ws://localhost:{port}/tea"
    with pytest.raises(fastws.ResponseError, match="403"):
        await fastws.connect(url, origin="http://example.com")
    clients = [await fastws.connect(url, origin=f"http://localhost:{port}") for _ in range(8)]
    waiting = {asyncio.create_task(client.recv()) for client in clients}
    while waiting:  # until the processes have subscribed
        await clients[0].send("hello")
        done, waiting = await asyncio.wait(waiting, timeout=0.05)
        assert {task.result() for task in done} <= {"hello"}
    for client in clients:
        await client.close()
