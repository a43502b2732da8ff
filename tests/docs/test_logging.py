"""docs/howto/logging.md: its code runs, and the lines that it shows are those that are logged."""

from __future__ import annotations

import asyncio
import logging
import re
from typing import Any

import pytest

import fastws

from ..tools import free_port
from .pages import code

PROGRAM = code("howto/logging.md", "open-and-close")


@pytest.fixture
def ran(capsys: pytest.CaptureFixture[str]) -> Any:
    """Run the program of the page with another port, after some more lines; return its output."""
    loggers = [logging.getLogger(name) for name in ("", "fastws", "fastws.payloads")]
    logging.getLogger("asyncio").setLevel(logging.WARNING)  # in debug mode, it says more
    before = [(logger.level, logger.handlers[:]) for logger in loggers]

    def run(more: str = "") -> list[str]:
        loggers[0].handlers = []
        port = str(free_port())
        source = PROGRAM.replace("8080", port).replace(
            "\n\n\nasync def echo", f"\n{more}\n\nasync def echo"
        )
        source = source.replace("logging.INFO,", "logging.INFO, stream=__import__('sys').stdout,")
        exec(compile(source, "logging.md", "exec"), {})
        return alike(capsys.readouterr().out.replace(port, "8080"))

    yield run
    logging.getLogger("asyncio").setLevel(logging.NOTSET)
    for logger, (level, handlers) in zip(loggers, before, strict=True):
        logger.setLevel(level)
        logger.handlers = handlers


def alike(output: str) -> list[str]:
    """The lines in any order, without what differs from one run to the next."""
    numbers = sorted({int(number) for number in re.findall(r"#(\d+)", output)})
    for position, number in enumerate(numbers, 1):
        output = re.sub(rf"#{number}\b", f"<{position}>", output)
    output = re.sub(r"\('127\.0\.0\.1', (?!8080)\d+\)", "(client)", output)
    return sorted(re.sub(r"\d\.\d s", "T s", output).splitlines())


def test_the_lines_of_open_and_close(ran: Any) -> None:
    assert ran() == alike(code("howto/logging.md", "open-and-close-output"))


def test_the_lines_of_frames(ran: Any) -> None:
    lines = ran(code("howto/logging.md", "frames"))
    shown = alike(code("howto/logging.md", "frames-output"))
    assert len(shown) == 5
    assert set(shown) <= set(lines)
    assert not any("b'" in line for line in lines)


def test_payloads(ran: Any) -> None:
    lines = ran(code("howto/logging.md", "frames") + code("howto/logging.md", "payloads"))
    assert "DEBUG <2> sent TEXT (FIN), 6 bytes: b'Hello!'" in lines


def definitions(name: str) -> dict[str, Any]:
    names: dict[str, Any] = {}
    blocks = {
        "id": code("howto/logging.md", "id"),
        "why": code("howto/logging.md", "why"),
        "stats": code("howto/logging.md", "stats"),
        # (It ends when the answer has arrived.)
        "rate": code("howto/logging.md", "rate").replace("asyncio.sleep(1)", "ws.recv()"),
    }
    exec(compile(blocks[name], "logging.md", "exec"), names)
    return names


def test_numbers_and_figures(
    caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.INFO)
    chat = definitions("id")["chat"]
    report = definitions("stats")["report"]
    rate = definitions("rate")["bytes_per_second"]

    async def main() -> None:
        async with fastws.serve(chat, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            async with fastws.connect(f"ws://127.0.0.1:{port}") as ws:
                await ws.send("Hello!")
                assert await rate(ws) == 8
                reporting = asyncio.ensure_future(report(server, 0))
                printed = ""
                while not printed:
                    await asyncio.sleep(0)
                    printed = capsys.readouterr().out
                reporting.cancel()
                assert re.match(r"#\d+: 1 messages in, 1 out, 0 bytes unsent\n", printed)

    asyncio.run(main())
    said = [record.getMessage() for record in caplog.records if record.name == "chat"]
    assert len({line.split("#")[1] for line in said}) == 1
    assert [line.split("#")[0] for line in said] == ["joined ", "left "]


def test_why(capsys: pytest.CaptureFixture[str]) -> None:
    async def handler(ws: fastws.WebSocket) -> None:
        await ws.close(1012)

    async def main() -> None:
        async with fastws.serve(handler, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            error = await definitions("why")["follow"](f"ws://127.0.0.1:{port}")
        assert (error.by_peer, error.received) == (True, fastws.Close(1012))

    asyncio.run(main())
    assert capsys.readouterr().out.startswith("1012 service_restart; the peer closed with 1012")
