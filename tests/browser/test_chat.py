"""The chats of examples/: that of chat/ on two servers behind HAProxy, and that on FastAPI."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ..bus.conftest import redis  # noqa: F401
from ..bus.deploying import deployed
from ..tools import Program, free_port
from .conftest import Browser, Page

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..bus.conftest import Broker

pytestmark = pytest.mark.skipif(os.name != "posix", reason="programs are stopped POSIX's way")

# Browsers ask for an icon when they have nothing else to do, unless the page names one. A 404 is an
# error in the console then.
ICON = "return document.querySelector('link[rel=icon]')?.href"
LINES = "[...document.querySelectorAll('#log li')].map((line) => line.innerText)"


@pytest.fixture
def pages(browser: Browser) -> Iterator[list[Page]]:
    pages = [Page(browser), Page(browser)]
    try:
        yield pages
    finally:
        for page in pages:
            page.close()


def join(page: Page, url: str, name: str) -> None:
    page.navigate(url.replace("ws://", "http://"))
    page.run(
        "room.value = 'lobby'; document.getElementById('name').value = name; "
        "document.querySelector('#joining button').click();",
        name=name,
    )
    page.wait_until("state.textContent === 'Connected.'")


def test_two_pages_in_a_room(
    pages: list[Page],
    redis: Broker,  # noqa: F811
    tmp_path: Path,
) -> None:
    ann, bob = pages
    with deployed("haproxy", redis, tmp_path) as (url, servers):
        join(ann, url, "Ann")
        ann.type("anybody here?\n")
        join(bob, url, "Bob")
        bob.type("I am <b>here</b>\n")
        expected = ["Ann anybody here?", "Bob I am <b>here</b>"]
        for page in pages:
            page.wait_until(f"{LINES}.length === 2")
            page.wait_until("here.textContent === 'Here: Ann, Bob'")
            assert [" ".join(line.split()) for line in page.run(f"return {LINES}")] == expected
        # HAProxy has given each server one of them. The server of one drains.
        servers[0]._process.send_signal(signal.SIGTERM)
        for n in range(3):
            ann.type(f"ann {n}\n")
            bob.type(f"bob {n}\n")
        for page in pages:
            page.wait_until(f"{LINES}.length === 8")
            lines = [" ".join(line.split()) for line in page.run(f"return {LINES}")]
            for name in ("Ann", "Bob"):
                said = [line for line in lines[2:] if line.startswith(name)]
                assert said == [f"{name} {name.lower()} {n}" for n in range(3)]
        assert servers[0].wait() == 0
        assert ann.run(f"return {LINES}") == bob.run(f"return {LINES}")
        assert ann.run(ICON) == "data:,"
        # (A connection that a server closes is no error.)
        assert ann.complaints == bob.complaints == []


def test_two_pages_on_fastapi(pages: list[Page]) -> None:
    port = free_port()
    example = Path(__file__).parents[2] / "examples" / "fastapi_chat.py"
    source = example.read_text("utf-8").replace("8080", str(port))
    lines = "[...document.querySelectorAll('li')].map((line) => line.innerText)"
    ann, bob = pages
    with Program(sys.executable, "-c", source) as program:
        program.wait_for_port(port)
        for number, page in enumerate(pages, 1):
            page.navigate(f"http://localhost:{port}/#tea%20room")
            page.wait_until(f"{lines}.at(-1) === '{number} in this room'")
        assert ann.run(ICON) == "data:,"
        ann.type("I am <b>here</b>\n")
        bob.wait_until(f"{lines}.at(-1) === 'I am <b>here</b>'")
        program.stop(signal.SIGINT)
        for page in pages:
            page.wait_until(f"{lines}.at(-1) === 'The connection has ended (1012).'")
        assert ann.complaints == bob.complaints == []
