"""`fastws probe`: our own server passes whole, and one that is sloppy does not."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from typing import TYPE_CHECKING

import pytest

import fastws
from fastws import cli
from fastws.aio.probe import CHECKS, MANNERS, probe

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from fastws.aio.probe import Result


class Echo(fastws.WebSocketProtocol):
    def on_message(self, message: str | bytes) -> None:
        self.send(message)


async def probe_ours(**options: object) -> list[Result]:
    async with fastws.serve(Echo, "127.0.0.1", 0, **options) as server:
        port = server.sockets[0].getsockname()[1]
        return await probe(f"ws://127.0.0.1:{port}/path?query", timeout=10)


@pytest.mark.parametrize("deflate", [False, True])
def test_our_server_passes_whole(deflate: bool) -> None:
    results = asyncio.run(probe_ours(deflate=deflate))
    assert [result for result in results if result.verdict == "wrong"] == []
    skipped = 0 if deflate else len(MANNERS) * sum(check.deflate for check in CHECKS)
    assert Counter(result.verdict for result in results)["skipped"] == skipped
    assert len(results) == len(CHECKS) * len(MANNERS)


# Servers that are not as they should be --------------------------------------------------


async def accepts_all(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Open the connection for any GET, and close it without a word at the first byte."""
    handshake = fastws.ServerHandshake()
    request = None
    while request is None:
        request = handshake.receive_data(await reader.read(65536))
    writer.write(handshake.accept(request))
    if not handshake.trailing_data:
        await reader.read(1)


async def says_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Open the connection and never say anything again."""
    handshake = fastws.ServerHandshake()
    request = handshake.receive_data(await reader.read(65536))
    assert request is not None
    writer.write(handshake.accept(request))
    await reader.read()


async def speaks_gibberish(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Open the connection, then break the protocol itself."""
    handshake = fastws.ServerHandshake()
    request = handshake.receive_data(await reader.read(65536))
    assert request is not None
    writer.write(handshake.accept(request) + b"\xff\xff")


def run_cli_against(
    server: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
    monkeypatch: pytest.MonkeyPatch,
    *args: str,
) -> int:
    """Run `fastws probe` with two checks against a server of this kind."""
    checks = [check for check in CHECKS if check.name in ("ping", "close 1000")]
    monkeypatch.setattr("fastws.aio.probe.CHECKS", checks)

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await server(reader, writer)
        except (ConnectionError, fastws.RequestError):
            pass
        finally:
            writer.close()

    async def main() -> int:
        async with await asyncio.start_server(handle, "127.0.0.1", 0) as listener:
            port = listener.sockets[0].getsockname()[1]
            argv = ["probe", f"ws://127.0.0.1:{port}", "--timeout", "1", *args]
            return await asyncio.to_thread(cli.main, argv)

    return asyncio.run(main())


@pytest.mark.parametrize(
    ("server", "answer"),
    [
        (accepts_all, "connection closed without a close frame"),
        (says_nothing, "no answer"),
        (speaks_gibberish, "a broken frame: reserved bit set: RSV1 RSV2 RSV3"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_what_is_wrong_is_named_with_its_rule(
    server: Callable[..., Awaitable[None]],
    answer: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run_cli_against(server, monkeypatch) == 1
    output = capsys.readouterr().out
    assert f"wrong   ping, whole: {answer}\n" in output
    assert "expected pong 'Hello': a ping is answered with a pong of the same data" in output
    assert "(RFC 6455 §5.5.2)" in output
    assert output.endswith("0 ok, 4 wrong, 0 skipped\n")


def test_json_has_every_result(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_cli_against(says_nothing, monkeypatch, "--json") == 1
    rows = json.loads(capsys.readouterr().out)
    assert [(row["check"], row["manner"]) for row in rows] == [
        (name, manner) for name in ("ping", "close 1000") for manner in MANNERS
    ]
    assert {row["verdict"] for row in rows} == {"wrong"}
    assert rows[0]["expected"] == ["pong 'Hello'"]


def test_a_server_that_is_not_there_is_one_clear_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["probe", "ws://127.0.0.1:1"]) == 1
    assert capsys.readouterr().err == "fastws probe: cannot connect: Connection refused\n"
    assert cli.main(["probe", "http://127.0.0.1:1"]) == 2
