"""explanation/limits.md: its server answers health checks, and lets nobody else in."""

from __future__ import annotations

import asyncio

import pytest

import fastws

from ..tools import free_port
from .pages import code
from .programs import converse, running


def test_the_health_check_answers_and_the_server_guards_its_door() -> None:
    port = free_port()

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

    with running(code("explanation/limits.md", "health"), port):
        asyncio.run(main())
