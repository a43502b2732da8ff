"""`fastws probe`: our own server passes every check, and a sloppy one does not."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import struct
import sys
from collections import Counter
from contextlib import asynccontextmanager, suppress
from html.parser import HTMLParser
from typing import TYPE_CHECKING
from xml.etree import ElementTree

import pytest

import fastws
from fastws import cli
from fastws.cli._probing import CHECKS, MANNERS, OUT_OF_TIME, Result, probe

from ..tools import FASTWS, TIMEOUT, free_port, run, traced

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path


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


def test_checks_are_many_and_different() -> None:
    assert len(CHECKS) >= 150
    assert len({check.name for check in CHECKS}) == len(CHECKS)
    assert len({(check.data, check.request, check.deflate) for check in CHECKS}) == len(CHECKS)


# Servers that are not as they should be --------------------------------------------------


async def accepts_all(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Accept any GET, and drop the connection at the first byte."""
    handshake = fastws.ServerHandshake()
    request = None
    while request is None:
        request = handshake.receive_data(await reader.read(65536))
    writer.write(handshake.accept(request))
    if not handshake.trailing_data:
        await reader.read(1)


async def says_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Open the connection, and never send anything again."""
    handshake = fastws.ServerHandshake()
    request = handshake.receive_data(await reader.read(65536))
    assert request is not None
    writer.write(handshake.accept(request))
    await reader.read()


async def speaks_gibberish(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Open the connection, then violate the protocol itself."""
    handshake = fastws.ServerHandshake()
    request = handshake.receive_data(await reader.read(65536))
    assert request is not None
    writer.write(handshake.accept(request) + b"\xff\xff")


def run_cli_against(
    server: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
    monkeypatch: pytest.MonkeyPatch,
    *args: str,
) -> int:
    """Run two checks of `fastws probe` against a server of this kind."""
    checks = [check for check in CHECKS if check.name in ("ping", "close 1000")]
    monkeypatch.setattr("fastws.cli._probing.CHECKS", checks)

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


# Servers that go on and on -----------------------------------------------------------------


async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Open the connection."""
    handshake = fastws.ServerHandshake(extensions=[fastws.PerMessageDeflate()])
    request = handshake.receive_data(await reader.readuntil(b"\r\n\r\n"))
    assert request is not None
    writer.write(handshake.accept(request))


async def repeat(writer: asyncio.StreamWriter, data: bytes, pause: float = 0) -> None:
    while not writer.is_closing():
        writer.write(data)
        await writer.drain()
        await asyncio.sleep(pause)


def endless(
    begin: bytes, data: bytes, *, opened: bool = True, pause: float = 0
) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if opened:
            await accept(reader, writer)
        else:
            await reader.readuntil(b"\r\n\r\n")
        writer.write(begin)
        await repeat(writer, data, pause)

    return serve


HUGE = b"\x82\x7f" + (1 << 62).to_bytes(8, "big")
LARGE = b"\x82\x7e\xff\xff" + bytes(65535)
KIB = b"x" * 1024
FLOODS = {
    "message": (endless(HUGE, KIB * 64), "no answer, but a message over 1048576 bytes"),
    "message in fragments": (
        endless(b"\x02\x00", b"\x00\x7e\xff\xff" + bytes(65535)),
        "no answer within 1048576 bytes",
    ),
    "message in empty fragments": (
        endless(b"\x01\x00", b"\x00\x00" * 8192),
        "no answer, but a message of more than 4096 fragments",
    ),
    "messages": (endless(b"", LARGE), "no answer within 1048576 bytes"),
    "small messages": (
        endless(b"", b"\x81\x0etext, and more" * 1024),
        "no answer within 1048576 bytes",
    ),
    "pings": (endless(b"", (b"\x89\x7d" + bytes(125)) * 512), "no answer within 1048576 bytes"),
}
TRICKLES = {
    "message": (endless(HUGE, b"x", pause=0.02), "no answer, but a message over 1048576 bytes"),
    "text": (endless(b"\x81\x7e\xff\xff", b"x", pause=0.02), "no answer"),
    "pings": (endless(b"", b"\x89\x01x", pause=0.02), "no answer"),
}


@asynccontextmanager
async def listening(
    server: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
    *,
    good: int = 0,
) -> AsyncIterator[str]:
    """Serve the first `good` connections properly; return the URI."""
    tasks: set[asyncio.Task[None]] = set()
    count = 0

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal count
        count += 1
        try:
            if count <= good:
                await accept(reader, writer)
            else:
                await server(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError, fastws.RequestError):
            pass
        finally:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(handle(reader, writer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    listener = await asyncio.start_server(connected, "127.0.0.1", 0)
    try:
        yield f"ws://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
    finally:
        listener.close()
        await asyncio.gather(*tasks)


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run only three checks: one of frames, one with compression, one of HTTP."""
    wanted = ("ping", "RSV1 on a ping", "POST")
    checks = [check for check in CHECKS if check.name in wanted]
    monkeypatch.setattr("fastws.cli._probing.CHECKS", checks)


def answers(results: list[Result], name: str) -> set[str]:
    assert len(results) == 6
    return {result.answer for result in results if result.check.name == name}


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize("flood", FLOODS)
async def test_floods(flood: str) -> None:
    server, answer = FLOODS[flood]
    with traced() as memory:
        async with asyncio.timeout(TIMEOUT), listening(server) as uri:
            results = await probe(uri, timeout=TIMEOUT)
        assert memory()[1] < 8 << 20
    assert answers(results, "ping") == answers(results, "RSV1 on a ping") == {answer}


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize("trickle", TRICKLES)
async def test_trickles(trickle: str) -> None:
    server, answer = TRICKLES[trickle]
    async with asyncio.timeout(TIMEOUT), listening(server) as uri:
        results = await probe(uri, timeout=0.2)
    assert answers(results, "ping") == {answer}


@pytest.mark.usefixtures("few")
async def test_compressed_messages_are_no_answer() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await accept(reader, writer)
        # One message that inflates to 64 MiB, and one that is not DEFLATE at all.
        bomb = b"\xec\xc1\x01" + b"\x0c" * 1000
        writer.write(b"\xc2\x7e" + struct.pack("!H", len(bomb)) + bomb + b"\xc1\x01\xff")
        await reader.read(1)
        writer.write(b"\x88\x02\x03\xea")

    async with asyncio.timeout(TIMEOUT), listening(serve) as uri:
        results = await probe(uri, timeout=TIMEOUT)
    assert answers(results, "RSV1 on a ping") == {"close 1002"}


REFUSAL = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 1000000000000\r\n\r\n"
HTTP = {
    "status line": (b"HTTP/1.1 101 ", KIB * 64, "HTTP 101"),
    "status": (b"HTTP/1.1 4", b"0" * 1024, "not HTTP"),
    "header": (b"HTTP/1.1 101 Switching\r\n", b"X: y\r\n" * 4096, "HTTP 101"),
    "responses": (b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 100, "HTTP 100"),
    "body": (REFUSAL, KIB * 64, "HTTP 403"),
    "something else": (b"SSH-2.0-", KIB, "not HTTP"),
}


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize("name", HTTP)
@pytest.mark.parametrize("pause", [0, 0.02], ids=["flood", "trickle"])
async def test_endless_http(name: str, pause: float) -> None:
    begin, data, status = HTTP[name]
    if pause:
        data = data[:1]
    # After the server was recognized as one, and if it is not.
    server = endless(begin, data, opened=False, pause=pause)
    with traced() as memory:
        async with asyncio.timeout(TIMEOUT), listening(server, good=1) as uri:
            results = await probe(uri, timeout=0.2 if pause else 10)
            assert {result.verdict for result in results} <= {"wrong", "ok"}
            for answer in answers(results, "ping"):
                assert answer == "no answer" or answer.startswith("no connection: ")
            if not pause:
                assert answers(results, "POST") == {status}
            with pytest.raises((fastws.HandshakeError, TimeoutError)):
                await probe(uri, timeout=0.2 if pause else 10)
        assert memory()[1] < 8 << 20


@pytest.mark.usefixtures("few")
async def test_all_of_it_takes_no_longer_than_is_said() -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with asyncio.timeout(TIMEOUT), listening(silent, good=1) as uri:
        seen: list[Result] = []
        results = await probe(uri, timeout=TIMEOUT, total_timeout=1.0, on_result=seen.append)
    assert seen == results
    assert [result.answer for result in results] == ["no answer"] + 5 * [OUT_OF_TIME]
    assert [result.verdict for result in results] == ["wrong"] + 5 * ["skipped"]


def test_no_time_for_all_is_no_success(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def results(
        *_: object, on_result: Callable[[Result], None], **__: object
    ) -> list[Result]:
        result = Result(CHECKS[0], MANNERS[0], "skipped", OUT_OF_TIME)
        on_result(result)
        return [result]

    monkeypatch.setattr("fastws.cli._probing.probe", results)
    assert cli.main(["probe", "ws://localhost"]) == 1
    assert capsys.readouterr().err == (
        "fastws probe: the time for all checks is up; --total-timeout allows more\n"
    )


def test_reports(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    by_name = {check.name: check for check in CHECKS}
    ping, post, rsv1 = by_name["ping"], by_name["POST"], by_name["RSV1 on a ping"]
    evil = "pong '<script>&\"\x1b\ud800\x00]]>'"
    made = [
        Result(ping, "whole", "wrong", evil, 0.25),
        Result(ping, "byte by byte", "ok", "pong 'Hello'", 0.5),
        Result(post, "whole", "ok", "HTTP 405"),
        Result(post, "byte by byte", "ok", "HTTP 405"),
        Result(rsv1, "whole", "skipped", "permessage-deflate is not negotiated"),
        Result(rsv1, "byte by byte", "skipped", OUT_OF_TIME),
    ]

    async def results(*_: object, **__: object) -> list[Result]:
        return made

    monkeypatch.setattr("fastws.cli._probing.probe", results)
    uri = "ws://localhost/?<b>&"
    xml, page = tmp_path / "probe.xml", tmp_path / "probe.html"
    assert cli.main(["probe", uri, "--junit", str(xml), "--html", str(page)]) == 1
    capsys.readouterr()

    suite = ElementTree.fromstring(xml.read_text("utf-8"))[0]
    names = ("tests", "failures", "errors", "skipped", "time")
    assert [suite.get(name) for name in names] == ["6", "1", "1", "1", "0.750"]
    cases = suite.findall("testcase")
    assert [[child.tag for child in case] for case in cases] == [
        ["failure"], [], [], [], ["skipped"], ["error"],
    ]  # fmt: skip
    assert cases[0].attrib == {
        "classname": "fastws.probe.frames", "name": "ping, whole", "time": "0.250",
    }  # fmt: skip
    shown = "pong '<script>&\"\\x1b\\ud800\\x00]]>'"
    assert cases[0][0].get("message") == f"{shown} instead of pong 'Hello'"
    assert cases[0][0].text == "a ping is answered with a pong of the same data (RFC 6455 §5.5.2)"

    parser = _Page()
    parser.feed(page.read_text("utf-8"))
    assert parser.tags.isdisjoint({"script", "link", "img"})
    assert parser.titles == [f"fastws probe: {uri}"]
    assert parser.cells[:4] == [
        "ping",
        f"wrong {shown} (whole)ok pong 'Hello' (byte by byte)",
        "pong 'Hello'",
        "a ping is answered with a pong of the same data RFC 6455 §5.5.2",
    ]
    assert parser.cells[4:8] == [
        "POST", "ok HTTP 405", "HTTP 4xx", "the method is GET RFC 6455 §4.2.1",
    ]  # fmt: skip
    assert len(parser.cells) == 4 * 4  # the wrong one is listed first, and in its section

    assert cli.main(["probe", uri, "--junit", str(tmp_path / "no" / "probe.xml")]) == 1
    assert capsys.readouterr().err.startswith("fastws probe: cannot write ")


class _Page(HTMLParser):
    """What a page shows."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.titles: list[str] = []
        self.cells: list[str] = []
        self._into: list[str] = []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.tags.add(tag)
        if tag in ("td", "title", "style", "th", "p", "h1", "h2"):
            self._into = {"td": self.cells, "title": self.titles}.get(tag, [])
            self._into.append("")

    def handle_data(self, data: str) -> None:
        if self._into:
            self._into[-1] += data.rstrip("\n")


# Connections that end, and connections that never begin --------------------------------------


async def resets(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Open the connection, and drop it at the first byte."""
    await accept(reader, writer)
    await reader.readexactly(1)
    writer.transport.abort()


async def closes_early(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer the first byte with a close frame, and read no more."""
    await accept(reader, writer)
    await reader.readexactly(1)
    writer.write(b"\x88\x02\x03\xea")


async def test_an_answer_counts_even_if_there_was_more_to_send(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    checks = [check for check in CHECKS if check.name == "nonsense after a close frame"] * 5
    monkeypatch.setattr("fastws.cli._probing.CHECKS", checks)
    async with asyncio.timeout(TIMEOUT), listening(closes_early) as uri:
        results = await probe(uri, timeout=TIMEOUT)
    assert [result.answer for result in results] == ["close 1002"] * 10


@pytest.mark.usefixtures("few")
async def test_a_reset_is_an_answer() -> None:
    async with asyncio.timeout(TIMEOUT), listening(resets) as uri:
        results = await probe(uri, timeout=TIMEOUT)
    ended = {"connection reset", "connection closed without a close frame"}
    assert answers(results, "ping") <= ended
    assert {result.verdict for result in results if result.check.name == "ping"} == {"wrong"}


@pytest.mark.usefixtures("few")
async def test_a_server_that_goes_away() -> None:
    async with asyncio.timeout(TIMEOUT), listening(says_nothing) as uri:
        pass
    with pytest.raises(ConnectionRefusedError):
        await probe(uri, timeout=TIMEOUT)

    # After the connection that shows whether there is a server at all.
    async with asyncio.timeout(TIMEOUT):
        done = asyncio.Event()

        async def once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            listener.close()
            await accept(reader, writer)
            await reader.read()
            writer.close()
            done.set()

        listener = await asyncio.start_server(once, "127.0.0.1", 0)
        port = listener.sockets[0].getsockname()[1]
        results = await probe(f"ws://127.0.0.1:{port}", timeout=TIMEOUT)
        await done.wait()
    refused = os.strerror(errno.ECONNREFUSED)
    assert {(result.verdict, result.answer) for result in results} == {
        ("wrong", f"no connection: {refused}")
    }


def test_the_reader_of_the_results_is_gone(closed_pipe: int) -> None:
    port = free_port()
    script = (
        "import asyncio, fastws, sys\n"
        "class Echo(fastws.WebSocketProtocol):\n"
        "    def on_message(self, message): self.send(message)\n"
        "async def main():\n"
        f"    async with fastws.serve(Echo, '127.0.0.1', {port}):\n"
        f"        argv = [*sys.argv[1:], 'probe', 'ws://127.0.0.1:{port}', '--all']\n"
        "        process = await asyncio.create_subprocess_exec(*argv)\n"
        "        sys.exit(await process.wait())\n"
        "asyncio.run(main())\n"
    )
    result = run(sys.executable, "-c", script, *FASTWS, stdout=closed_pipe)
    assert (result.returncode, result.stderr) == (1, "")


def test_a_server_that_is_not_there_is_one_clear_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["probe", "ws://127.0.0.1:1"]) == 1
    assert capsys.readouterr().err.startswith("fastws probe: cannot connect: Connection refused\n")
    assert cli.main(["probe", "ftp://127.0.0.1:1"]) == 2
