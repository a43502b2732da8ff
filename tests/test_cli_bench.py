"""`fastws bench`: load for servers that echo. No test asserts how fast anything is."""

from __future__ import annotations

import asyncio
import json
import os
from typing import TYPE_CHECKING, Any

import pytest

from fastws.cli import main

from .tools import Background, free_port, optional, run_fastws

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fastws import WebSocket

    from .terminals import Terminal

# (Something must be answered, even if the machine is busy for a moment.)
QUICK = ("--duration", "0.5", "--warmup", "0.05")


async def echo(ws: WebSocket) -> None:
    async for message in ws:
        await ws.send(message)


@pytest.fixture
def server() -> Iterator[Background]:
    with Background(echo) as server:
        yield server


def measured(capsys: pytest.CaptureFixture[str], *args: str) -> tuple[int, dict[str, Any]]:
    status = main(["bench", *QUICK, "--json", *args])
    return status, json.loads(capsys.readouterr().out)


def test_a_closed_loop(server: Background, capsys: pytest.CaptureFixture[str]) -> None:
    status, row = measured(
        capsys, server.url, "--connections", "3", "--in-flight", "2", "--size", "70000", "--binary"
    )
    assert status == 0
    assert row["answers"] > 0
    assert row["unanswered"] == row["wrong"] == 0
    assert row["lost"] == {}
    assert (row["connections"], row["in_flight"], row["rate"]) == (3, 2, None)
    assert (row["size"], row["type"]) == (70000, "binary")
    latency = row["latency_ms"]
    assert list(latency) == ["min", "mean", "p50", "p90", "p99", "p99.9", "max"]
    assert 0 < latency["min"] <= latency["p50"] <= latency["p99.9"] <= latency["max"]


def test_an_open_loop_sends_at_its_rate(
    server: Background, capsys: pytest.CaptureFixture[str]
) -> None:
    status, row = measured(capsys, server.url, "--rate", "1000")
    assert status == 0
    assert (row["in_flight"], row["rate"]) == (None, 1000)
    # However slow this machine is: what was late is sent together.
    assert row["answers"] <= 1000 * (row["seconds"] + 0.1)


def test_latency_counts_from_when_a_message_was_due(capsys: pytest.CaptureFixture[str]) -> None:
    async def pause_once(ws: WebSocket) -> None:
        await ws.send(await ws.recv())
        await asyncio.sleep(0.1)
        await echo(ws)

    with Background(pause_once) as server:
        _, row = measured(
            capsys, server.url, "--rate", "1000", "--connections", "1", "--warmup", "0"
        )
    # All messages of the pause were late, and not only the first one.
    assert row["latency_ms"]["max"] > 50
    assert row["latency_ms"]["p90"] > 10


def test_a_table_for_people(server: Background, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", *QUICK, server.url, "--connections", "1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{server.url}: 1 connection, 1 in flight each, 125 bytes of text"
    assert lines[2].startswith("answers ")
    assert lines[3].startswith("per second ")
    assert "      min     mean      p50      p90      p99    p99.9      max" in lines
    shares = [float(line.split()[3]) for line in lines if line.startswith("< ")]
    assert sum(shares) == pytest.approx(100, abs=0.5 * len(shares))


@pytest.mark.parametrize(
    ("answer", "complaint"),
    [
        ("something else", "answers that are not the message: is this an echo server?"),
        (None, "messages without an answer"),
        (b"close", "connections lost: closed with 1000"),
    ],
)
def test_a_server_that_does_not_echo(
    answer: str | bytes | None,
    complaint: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("fastws.cli._loading._PATIENCE", 0.1)

    async def handle(ws: WebSocket) -> None:
        async for _ in ws:
            if answer == b"close":
                return
            if answer is not None:
                await ws.send(answer)

    with Background(handle) as server:
        assert main(["bench", *QUICK, server.url]) == 1
    assert complaint in capsys.readouterr().out


@pytest.mark.parametrize(
    ("args", "status", "complaint"),
    [
        (["http://[", *QUICK], 2, "fastws bench: "),
        (["ws://localhost", "--insecure"], 2, "bench: ssl needs a wss:// URI"),
        (["ws://localhost", "--rate", "0"], 2, "not in the range 0.01-1e+07: 0"),
        (["ws://localhost", "--duration", "x"], 2, "not a number: 'x'"),
        (["ws://localhost", "--rate", "1", "--in-flight", "2"], 2, "not allowed with"),
    ],
)
def test_mistakes_are_told(args: list[str], status: int, complaint: str) -> None:
    done = run_fastws("bench", *args)
    assert (done.returncode, done.stdout) == (status, "")
    assert complaint in done.stderr


def test_no_server() -> None:
    done = run_fastws("bench", f"ws://127.0.0.1:{free_port()}")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("fastws bench: cannot connect: Connection refused\n")


@pytest.mark.skipif(os.name != "posix", reason="terminals are POSIX's")
def test_a_terminal_shows_progress(server: Background, terminal: Callable[..., Terminal]) -> None:
    optional("rich")
    bench = terminal("bench", server.url, "--duration", "1", "--warmup", "0.3", kind="xterm")
    bench.expect("warming up")
    bench.expect(" messages/s")
    bench.expect("latency in ms")
    assert bench.wait() == 0
