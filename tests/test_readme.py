"""README.md: short, true, and readable where it is shown. tests/docs/test_blocks.py checks more."""

from __future__ import annotations

import asyncio
import re
import signal
import subprocess
import sys
from contextlib import contextmanager
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from readme_renderer import markdown

import fastws

from .docs.pages import code
from .tools import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")
PERFORMANCE = (ROOT / "docs" / "explanation" / "performance.md").read_text("utf-8")


@contextmanager
def running(code: str, port: int) -> Iterator[subprocess.Popen[str]]:
    """Run a server, stop it with a signal, and check that it ends without a complaint."""
    process = subprocess.Popen(
        [sys.executable, "-W", "error", "-c", code.replace("8080", str(port))],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    except BaseException:
        process.kill()
        print(*process.communicate(), sep="\n")
        raise
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=20)
    assert (process.returncode, errors) == (0, "")


async def converse(port: int, message: str, **options: object) -> str | bytes:
    """Connect, as soon as the server listens; send a message, and return the answer."""
    async for ws in fastws.connect(f"ws://localhost:{port}", **options):
        async with ws:
            await ws.send(message)
            return await ws.recv()
    raise AssertionError("unreachable")


def test_it_is_short() -> None:
    assert len(README.encode()) <= 6 << 10


def test_the_echo_server_has_ten_lines() -> None:
    lines = code("README.md", "server").splitlines()
    assert len([line for line in lines if line.strip()]) <= 10


def test_the_echo_server_and_the_client_talk() -> None:
    port = free_port()
    with running(code("README.md", "server"), port):
        assert asyncio.run(converse(port, "is it up?")) == "is it up?"
        client = subprocess.run(
            [sys.executable, "-c", code("README.md", "client").replace("8080", str(port))],
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )
        assert (client.returncode, client.stdout, client.stderr) == (
            0,
            "Server: Hello Server!\n",
            "",
        )


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_chart_shows_the_number_of_the_first_sentence(theme: str) -> None:
    (number,) = re.findall(r"\*\*(.+?)\*\*", README)
    chart = (ROOT / f"docs/_static/charts/readme-{theme}.svg").read_text("utf-8")
    assert f">{number}<" in chart


def measured(title: str) -> dict[str, list[float]]:
    """The rows of a table of performance.md that has this title."""
    _, _, table = PERFORMANCE.partition(f"| {title} |")
    rows = re.findall(r"^\| `?(.*?)`? \| ([\d.,| ]+) \|$", table.partition("\n\n")[0], re.MULTILINE)
    return {
        name: [float(cell.replace(",", "")) for cell in cells.split("|")] for name, cells in rows
    }


def test_other_figures_are_those_that_were_measured() -> None:
    gains = measured("Messages/s with fastws, relative to without")["FastAPI on uvicorn"]
    text = " ".join(README.split())
    gain = f"{min(gains):.1f} to {max(gains):.1f} times"
    assert f"FastAPI on uvicorn answers {gain} as many messages, by workload" in text
    rates = measured("100 bytes to each of 1,000 connections")
    loss = max(
        rates[f"picows{loop}"][column] / rates[f"fastws-prepare{loop}"][column]
        for loop in ("", "-uvloop")
        for column in (0, 1)
    )
    assert f"picows does that up to {loss:.1f} times as fast" in text
    assert "(`picows` and `fastws-prepare` in" in text


def test_the_first_figures_are_those_that_were_measured() -> None:
    _, _, text = README.partition("<!-- number -->")
    numbers = re.findall(r"([\d.,]*\d)( million)?", text.partition("<!-- /number -->")[0])
    shown = [float(n.replace(",", "")) * (1e6 if million else 1) for n, million in numbers]
    assert shown[1:3] == [50, 16]  # clients, and messages in flight
    rates = measured("Echo, messages/s, by connections x in flight x size")
    fastest = [
        max(
            rates[name][column]
            for name in (server, f"{server}-uvloop", f"{server}-uvloop-aiofastnet")
            if name in rates
        )
        for column in (0, 1)
        for server in ("fastws-callback", "fastws-coroutine", "picows", "aiohttp", "websockets")
    ]
    assert [shown[0], *shown[3:]] == pytest.approx(fastest, rel=0.005)


class Text(HTMLParser):
    """What is shown: the tags, and the text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_package_index_shows_it(capsys: pytest.CaptureFixture[str]) -> None:
    html = markdown.render(README)
    assert html is not None
    assert capsys.readouterr() == ("", "")
    shown = Text(html)
    assert shown.tags.count("table") == 1
    assert shown.tags.count("img") == 2
    assert "<!--" not in shown.text
    assert "**" not in shown.text.replace("**2", "")
