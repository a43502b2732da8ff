"""How programs that the documentation shows are run: on another port, and stopped by a signal."""

from __future__ import annotations

import signal
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

import fastws

if TYPE_CHECKING:
    from collections.abc import Iterator


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
