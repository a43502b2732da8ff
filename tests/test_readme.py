"""README.md: its Python blocks run unchanged, except for the port, and do what it says."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import subprocess
import sys
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import fastws

from .tools import optional

if TYPE_CHECKING:
    from collections.abc import Iterator

README = Path(__file__).parents[1] / "README.md"
BLOCK = re.compile(r"<!-- run: (\w+) -->\n```python\n(.*?)```", re.DOTALL)
BLOCKS = BLOCK.findall(README.read_text("utf-8"))


def block(kind: str) -> str:
    (code,) = [code for name, code in BLOCKS if name == kind]
    return code


@pytest.fixture
def port() -> int:
    with socket.create_server(("localhost", 0)) as sock:
        return sock.getsockname()[1]


@contextmanager
def running(code: str, port: int, *, kills: bool = False) -> Iterator[subprocess.Popen[str]]:
    """Run a server, stop it with a signal, and check that it exits cleanly; or kill it, and
    check that it said nothing."""
    process = subprocess.Popen(
        [sys.executable, "-c", code.replace("8080", str(port))],
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
        if kills:
            process.kill()
        else:
            process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=20)
    assert errors == ""
    assert kills or process.returncode == 0


async def converse(port: int, message: str, **options: object) -> str | bytes:
    async for ws in fastws.connect(f"ws://localhost:{port}", **options):
        async with ws:
            await ws.send(message)
            return await ws.recv()
    raise AssertionError("unreachable")


def test_every_python_block_is_run() -> None:
    text = README.read_text("utf-8")
    assert text.count("```python") == len(BLOCKS)
    assert {kind for kind, _ in BLOCKS} == {
        *("server", "client", "hello", "json", "script", "health", "trio", "rooms", "fastapi"),
    }


def test_the_echo_server_has_ten_lines() -> None:
    assert len([line for line in block("server").splitlines() if line.strip()]) <= 10


def test_the_echo_server_and_the_client_talk(port: int) -> None:
    with running(block("server"), port):
        assert asyncio.run(converse(port, "is it up?")) == "is it up?"
        client = subprocess.run(
            [sys.executable, "-c", block("client").replace("8080", str(port))],
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


def test_the_trio_server_is_the_example_and_talks(port: int) -> None:
    optional("trio")
    example = README.parent / "examples" / "trio_server.py"
    assert example.read_text("utf-8").endswith(f'"""\n\n{block("trio")}')
    # (trio prints a traceback if it is interrupted, so it is killed.)
    with running(block("trio"), port, kills=True):
        assert asyncio.run(converse(port, "is it up?")) == "is it up?"


def test_the_hello_server_logs_and_answers(port: int) -> None:
    with running(block("hello"), port) as process:
        assert asyncio.run(converse(port, "Hi")) == "Hello, you sent -> Hi"
        assert process.stdout is not None
        assert process.stdout.readline() == "received: Hi\n"


def test_the_health_check_answers_and_the_server_guards_its_door(port: int) -> None:
    async def main() -> None:
        headers = {"Authorization": "Bearer token"}
        assert await converse(port, "Hi", headers=headers) == "Hi"
        with pytest.raises(fastws.ResponseError, match="401"):
            await fastws.connect(f"ws://localhost:{port}")
        with pytest.raises(fastws.ResponseError, match="403"):
            await fastws.connect(
                f"ws://localhost:{port}", headers=headers, origin="https://example.org"
            )
        reader, writer = await asyncio.open_connection("localhost", port)
        writer.write(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        answer = await reader.read()
        writer.close()
        await writer.wait_closed()
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert answer.endswith(b"OK\n")

    with running(block("health"), port):
        asyncio.run(main())


# What the example needs of it, where it cannot be installed.
ORJSON = """
import json


def loads(data):
    assert type(data) in (bytes, str)
    return json.loads(data)


def dumps(value):
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
"""


def test_the_json_server_adds(port: int, tmp_path: Path) -> None:
    if find_spec("orjson") is None:
        (tmp_path / "orjson.py").write_text(ORJSON)
    result = subprocess.run(
        [sys.executable, "-c", block("json").replace("8080", str(port))],
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
        cwd=tmp_path,
    )
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.splitlines() == ['{"sum":6}', '{"sum":4}']


async def chat(url: str) -> list[str | bytes]:
    """Say something in one of two rooms; return what the two others hear."""
    while True:  # until it listens
        try:
            async with (
                fastws.connect(f"{url}a") as one,
                fastws.connect(f"{url}a") as two,
                fastws.connect(f"{url}b") as other,
            ):
                await two.send("for a")  # so that two has subscribed
                await other.send("for b")
                heard = await one.recv()
                await one.send("Hi")
                return [heard, await two.recv()]
        except OSError:
            await asyncio.sleep(0.05)


def test_rooms_are_apart_and_do_not_echo(port: int) -> None:
    with running(block("rooms"), port):
        assert asyncio.run(chat(f"ws://localhost:{port}/")) == ["for a", "Hi"]


@pytest.mark.parametrize("code", [code for kind, code in BLOCKS if kind == "script"])
def test_the_scripts_run(code: str) -> None:
    result = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
        env=os.environ | {"PYTHONWARNINGS": "error"},
    )
    assert (result.returncode, result.stderr) == (0, "")
    if "Hello Server!" in code:
        assert result.stdout.splitlines() == [
            "text: Hello Server!",
            "closed with 1000 bye",
            "CLOSED 1000",
        ]
