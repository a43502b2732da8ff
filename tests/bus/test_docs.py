"""docs/deploying.md: its Python runs, and its configuration files are those of examples/deploy."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from websockets.sync.client import connect

from ..tools import TIMEOUT, Program, free_port
from .deploying import DEPLOY

if TYPE_CHECKING:
    from .conftest import Broker

TEXT = (Path(__file__).parents[2] / "docs" / "deploying.md").read_text("utf-8")
FILES = re.findall(r"<!-- file: (\S+) -->\n```\w+\n(.*?)```", TEXT, re.DOTALL)


@pytest.mark.parametrize(("name", "text"), FILES, ids=[name for name, _ in FILES])
def test_a_file_is_that_of_the_examples(name: str, text: str) -> None:
    assert text == (DEPLOY / name).read_text("utf-8")


def test_all_files_are_shown() -> None:
    assert {name for name, _ in FILES} == {path.name for path in DEPLOY.iterdir()}


def test_the_code_runs(redis: Broker) -> None:
    (code,) = re.findall(r"<!-- run: bus -->\n```python\n(.*?)```", TEXT, re.DOTALL)
    assert TEXT.count("```python") == 1
    code = code.replace("redis://localhost:6379", redis.url)
    ports = [free_port(), free_port()]
    argv = [[sys.executable, "-c", code.replace("8080", str(port))] for port in ports]
    with Program(*argv[0]) as one, Program(*argv[1]) as two:
        for program, port in ((one, ports[0]), (two, ports[1])):
            program.wait_for_port(port)
        options = {"proxy": None, "open_timeout": TIMEOUT}
        with (
            connect(f"ws://localhost:{ports[0]}", **options) as ann,
            connect(f"ws://localhost:{ports[1]}", **options) as bob,
        ):
            # A client that has heard its own message is subscribed.
            for client in (ann, bob):
                client.send("hello")
            while bob.recv(TIMEOUT) != "hello":
                pass
            ann.send("news")
            while bob.recv(TIMEOUT) != "news":
                pass
        assert (one.stop(), two.stop()) == (0, 0)
        assert one.errors == two.errors == ""
