"""Node, with the `ws` package in node_modules here."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ..tools import Echo, Program, missing, require, run

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = Path(__file__).parent
SCRIPT = str(HERE / "conversation.js")


@pytest.fixture(scope="session")
def node() -> str:
    """The path of Node; `ws` is installed."""
    node = require("node", "nodejs", install="install Node.js 18 or newer, from nodejs.org")
    npm = require("npm", install="install npm, which comes with Node.js")
    install_ws(npm, HERE)
    return node


def install_ws(npm: str, here: Path) -> None:
    """Install `ws` in this directory, unless it is there."""
    lock = json.loads((here / "package-lock.json").read_text())
    wanted = lock["packages"]["node_modules/ws"]["version"]
    installed = here / "node_modules" / "ws" / "package.json"
    with (here / "package.json").open() as file:
        if sys.platform != "win32":
            import fcntl

            # One of pytest's processes after the other: npm begins by removing what is there.
            fcntl.flock(file, fcntl.LOCK_EX)
        if not installed.exists() or json.loads(installed.read_text())["version"] != wanted:
            options = ("--ignore-scripts", "--no-audit", "--no-fund")
            result = run(npm, "ci", *options, cwd=here, timeout=120)
            if result.returncode:
                missing(f"npm could not install ws:\n{result.stderr}")


@pytest.fixture(scope="session")
def echo() -> Iterator[Echo]:
    with Echo() as server:
        yield server


class NodeServer(Program):
    """A `ws` server that listens."""

    def __init__(self, node: str, *args: str, env: dict[str, str] | None = None) -> None:
        super().__init__(node, SCRIPT, "server", *args, env=env)
        try:
            self.port = int(self.line())
        except BaseException:
            self.__exit__()
            raise
        self.url = f"{'wss' if args else 'ws'}://127.0.0.1:{self.port}"


@pytest.fixture
def server(node: str) -> Iterator[NodeServer]:
    with NodeServer(node) as server:
        yield server
