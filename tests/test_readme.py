"""README.md: short, true, and readable where it is shown. tests/docs/test_blocks.py checks more."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from readme_renderer import markdown

from .docs.pages import code
from .docs.programs import converse, running
from .tools import free_port

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")


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
