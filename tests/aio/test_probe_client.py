"""`fastws probe --client`: our own client passes every check, and broken ones do not."""

from __future__ import annotations

import asyncio
import errno
import os
import re
import sys
import time
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

import fastws
from fastws import cli
from fastws.cli._client_checks import Head
from fastws.cli._client_probing import CLIENT_CHECKS, NOBODY, NoClientError, probe_client
from fastws.cli._probing import MANNERS, OUT_OF_TIME
from fastws.cli._reports import html
from fastws.codec import FrameDecoder, encode_frame

from ..tools import TIMEOUT, Fastws, free_port
from .conftest import LOOPS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from fastws.cli._probing import Result


def choose(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """Run only these checks."""
    checks = [check for check in CLIENT_CHECKS if check.name in names]
    assert {check.name for check in checks} == set(names)
    monkeypatch.setattr("fastws.cli._client_probing.CLIENT_CHECKS", checks)


async def run(client: Callable[[str], Any], **options: Any) -> list[Result]:
    """Check this client, which connects again and again."""
    tasks: list[asyncio.Task[None]] = []

    async def connect(url: str) -> None:
        while True:
            await client(url)

    def listening(url: str) -> None:
        tasks.append(asyncio.get_running_loop().create_task(connect(url)))

    try:
        async with asyncio.timeout(2 * TIMEOUT):
            options = {"timeout": TIMEOUT} | options
            return await probe_client("127.0.0.1", 0, on_listening=listening, **options)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


def wrong(results: list[Result]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for result in results:
        if result.verdict == "wrong":
            found.setdefault(result.check.name, set()).add(result.answer)
    return found


# Our clients ----------------------------------------------------------------------------------


async def coroutine(url: str) -> None:
    try:
        async with fastws.connect(url, deflate=True) as ws:
            async for message in ws:
                await ws.send(message)
    except (fastws.HandshakeError, fastws.ConnectionClosed, OSError):
        pass


class Callbacks(fastws.WebSocketProtocol):
    def on_message(self, message: str | bytes) -> None:
        self.send(message)


async def callbacks(url: str) -> None:
    try:
        ws = await fastws.connect(url, protocol=Callbacks, deflate=True)
    except (fastws.HandshakeError, OSError):
        return
    await ws.wait_closed()


# (Not `async def`, because it takes ten times as long in debug mode.)
@pytest.mark.parametrize(("client", "loop"), [(coroutine, "asyncio"), (callbacks, "uvloop")])
def test_our_client_passes_whole(client: Callable[[str], Any], loop: str) -> None:
    with asyncio.Runner(debug=False, loop_factory=LOOPS.get(loop)) as runner:
        results = runner.run(run(client))
    assert wrong(results) == {}
    skipped = [result for result in results if result.verdict == "skipped"]
    assert {result.answer for result in skipped} == {"client_max_window_bits is offered"}
    once = sum(check.rule_of_request is not None for check in CLIENT_CHECKS)
    assert len(results) == len(CLIENT_CHECKS) * len(MANNERS) - once


@pytest.mark.loops("asyncio")
async def test_what_is_not_offered_or_not_echoed_is_skipped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    choose(monkeypatch, "ping", "mask keys", "echo of CR LF", "RSV1 on a ping", "RSV1 set")

    async def silent(url: str) -> None:
        try:
            async with fastws.connect(url) as ws:
                await ws.wait_closed()
        except (fastws.HandshakeError, OSError):
            pass

    results = await run(silent, echo=False)
    assert wrong(results) == {}
    skipped = Counter(result.answer for result in results if result.verdict == "skipped")
    assert skipped == {"permessage-deflate is not offered": 2, "the client sends nothing back": 4}


def test_checks_are_many_and_different() -> None:
    assert len(CLIENT_CHECKS) >= 180
    assert len({check.name for check in CLIENT_CHECKS}) == len(CLIENT_CHECKS)


# Clients that are not as they should be -------------------------------------------------------


class Client:
    """A client that is right. Each of those below breaks one rule."""

    key: bytes | None = None
    ends = True

    async def __call__(self, url: str) -> None:
        host, _, port = url.removeprefix("ws://").rstrip("/").partition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        try:
            await self.visit(url, reader, writer)
        except (OSError, fastws.HandshakeError):
            pass
        finally:
            writer.close()

    async def visit(
        self, url: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        handshake = fastws.ClientHandshake(
            url, extensions=[fastws.PerMessageDeflate()], key=self.key
        )
        writer.write(self.request(handshake.request()))
        data = await self.open(handshake, reader)
        deflate = handshake.deflate and self.agreed(handshake.deflate)
        connection = fastws.Connection(fastws.Role.CLIENT, deflate=deflate)
        while True:
            for event in connection.receive_data(self.received(data)):
                if isinstance(event, (str, bytes)):
                    connection.send(self.answer(event))
            if octets := connection.data_to_send():
                writer.write(self.sent(octets))
            if connection.state is fastws.State.CLOSED or reader.at_eof():
                break
            data = await reader.read(65536)
        if self.ends:
            await reader.read()  # the server ends TCP first
        else:
            await asyncio.sleep(TIMEOUT)

    # What can be broken

    def request(self, octets: bytes) -> bytes:
        return octets

    async def open(self, handshake: Any, reader: asyncio.StreamReader) -> bytes:
        while not handshake.receive_data(data := await reader.read(65536)):
            if not data:
                handshake.receive_eof()
        trailing: bytes = handshake.trailing_data
        return trailing

    def agreed(self, agreement: Any) -> Any:
        return agreement

    def received(self, data: bytes) -> bytes:
        return data

    def answer(self, message: str | bytes) -> str | bytes:
        return message

    def sent(self, octets: bytes) -> bytes:
        return b"".join(self.frames(octets))

    def frames(self, octets: bytes) -> Iterator[bytes]:
        for frame in FrameDecoder(masked=True, rsv1=True).feed(octets):
            if self.keeps(frame):
                yield encode_frame(
                    frame.opcode,
                    self.payload(frame),
                    fin=frame.fin,
                    rsv1=frame.rsv1,
                    key=self.mask(),
                )

    def keeps(self, frame: Any) -> bool:
        return True

    def payload(self, frame: Any) -> bytes:
        octets: bytes = frame.payload
        return octets

    def mask(self) -> bytes | None:
        return os.urandom(4)


def broken(**methods: Any) -> Client:
    return type("Broken", (Client,), methods)()


def edited(pattern: bytes, replacement: bytes) -> Client:
    """A client whose request differs."""
    edit = lambda self, octets: re.sub(pattern, replacement, octets, flags=re.IGNORECASE)  # noqa: E731
    return broken(request=edit)


def with_line(line: bytes) -> Client:
    return edited(rb"\r\n\r\n$", b"\r\n" + line + b"\r\n\r\n")


async def open_anyway(self: Client, handshake: Any, reader: asyncio.StreamReader) -> bytes:
    await reader.readuntil(b"\n\r\n")
    return b""


BAD_REQUESTS = {
    "method": edited(rb"^GET", b"POST"),
    "version of HTTP": edited(rb"HTTP/1\.1", b"HTTP/1.0"),
    "target": edited(rb" / ", b" chat "),
    "fragment": edited(rb" / ", b" /#here "),
    "ends of lines": edited(rb"\r\nUpgrade", b"\nUpgrade"),
    "fields": with_line(b"X Name: value"),
    "characters": with_line(b"X-Name: val\x7fue"),
    "Host": edited(rb"Host: .*?\r\n", b""),
    "Upgrade": edited(rb"Upgrade: websocket", b"Upgrade: h2c"),
    "Connection": edited(rb"Connection: Upgrade", b"Connection: close"),
    "key": edited(rb"(Key: ).*?\r\n", rb"\1c2hvcnQ=\r\n"),
    "key, which is not ASCII": edited(rb"(Key: ).*?\r\n", b"\\1\xe9\r\n"),
    "key, which is missing": edited(rb"Sec-WebSocket-Key: .*?\r\n", b""),
    "Sec-WebSocket-Version": edited(rb"Version: 13", b"Version: 8"),
    "Origin": with_line(b"Origin: example.com"),
    "subprotocols": with_line(b"Sec-WebSocket-Protocol: a, a"),
    "extensions": with_line(b"Sec-WebSocket-Extensions: ;"),
    "offers of compression": with_line(b"Sec-WebSocket-Extensions: permessage-deflate; x"),
}


@pytest.mark.loops("asyncio")
@pytest.mark.parametrize("rule", BAD_REQUESTS)
async def test_bad_requests_are_found(rule: str, monkeypatch: pytest.MonkeyPatch) -> None:
    choose(monkeypatch, *(check.name for check in CLIENT_CHECKS if check.rule_of_request))
    found = wrong(await run(BAD_REQUESTS[rule]))
    assert found.keys() - {"request: another key"} == {f"request: {rule.partition(',')[0]}"}


@pytest.mark.loops("asyncio")
async def test_a_client_that_opens_anyway_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    refused = [check.name for check in CLIENT_CHECKS if check.observe == "refusal"]
    refused.remove("client_max_window_bits that was not offered")
    choose(monkeypatch, *refused)
    found = wrong(await run(broken(open=open_anyway), timeout=1))
    assert found.keys() == set(refused)
    assert {answer for answers in found.values() for answer in answers} == {"pong 'still there?'"}


NOTHING = "no answer"
SLOPPY: dict[str, tuple[Client, dict[str, str]]] = {
    "right": (Client(), dict.fromkeys(("ping", "mask keys", "close 1000"), "")),
    "key": (
        broken(key=bytes(16)),
        {"request: key": "", "request: another key": "the key of an earlier connection"},
    ),
    "early": (
        edited(rb"\r\n\r\n$", b"\r\n\r\n\x81\x80\0\0\0\0"),
        {"response that comes late": "data before the end of the response"},
    ),
    "no mask": (
        broken(mask=lambda self: None),
        {"ping": "a broken frame: ", "echo of many messages": "a broken frame: "},
    ),
    "one mask": (broken(mask=lambda self: b"abcd"), {"mask keys": "8 times the mask key 61626364"}),
    "no pong": (broken(keeps=lambda self, frame: frame.opcode != 10), {"ping": NOTHING}),
    "empty pong": (broken(payload=lambda self, frame: b""), {"ping": "pong ''", "empty ping": ""}),
    "binary": (
        broken(answer=lambda self, message: b"x"),
        {"echo of text and binary": "binary 'x', binary 'x', binary 'x'"},
    ),
    "silent": (
        broken(keeps=lambda self, frame: frame.opcode > 2),
        {"echo of many messages": "no more after no messages", "ping": ""},
    ),
    "reserved bits": (
        broken(received=lambda self, data: bytes(octet & 0x8F for octet in data[:1]) + data[1:]),
        {"fragmented ping": "", "RSV2 set": NOTHING},
    ),
    "no UTF-8": (
        broken(received=lambda self, data: re.sub(rb"\A\x81", b"\x82", data)),
        {"text that is not UTF-8": NOTHING, "opcode 0x3": ""},
    ),
    "talks on": (
        broken(sent=lambda self, octets: octets + b"\x82\x80\0\0\0\0"),
        {"close, then the end of TCP": "6 bytes after its close frame"},
    ),
    "stays": (broken(ends=False), {"close, then the end of TCP": "no end of TCP"}),
    "no close": (
        broken(keeps=lambda self, frame: frame.opcode != 8),
        {"close 1000": NOTHING, "RSV2 set": NOTHING},
    ),
    "takeover": (
        broken(agreed=lambda self, agreement: replace(agreement, context_takeover=True)),
        {"client_no_context_takeover": "a broken frame: compressed message is not DEFLATE"},
    ),
    "window": (
        broken(agreed=lambda self, agreement: replace(agreement, max_window_bits=15)),
        {"client_max_window_bits=9": "a broken frame: compressed message is not DEFLATE"},
    ),
}  # fmt: skip


@pytest.mark.loops("asyncio")
@pytest.mark.parametrize("fault", SLOPPY)
async def test_broken_clients_are_found(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    client, expected = SLOPPY[fault]
    monkeypatch.setattr("fastws.cli._client_probing._GOODBYE", 0.1)
    choose(monkeypatch, *expected)
    # (What takes all the time must not take long; everything else may.)
    overdue = any(answer.startswith("no ") for answer in expected.values())
    found = wrong(await run(client, timeout=0.5 if overdue else TIMEOUT))
    assert found.keys() == {name for name, answer in expected.items() if answer}
    for name, answers in found.items():
        assert all(answer.startswith(expected[name]) for answer in answers), answers


# When clients do not come --------------------------------------------------------------------


@pytest.mark.loops("asyncio")
async def test_a_client_that_does_not_come_again(monkeypatch: pytest.MonkeyPatch) -> None:
    choose(monkeypatch, "request: method", "request: key", "ping")

    async def once(url: str) -> None:
        await coroutine(url)
        await asyncio.sleep(TIMEOUT)

    results = await run(once, timeout=0.5)
    assert [result.answer for result in results] == ["as required"] + 3 * [NOBODY]


@pytest.mark.loops("asyncio")
async def test_no_time_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    choose(monkeypatch, "request: method", "ping")
    results = await run(coroutine, total_timeout=0)
    assert [result.answer for result in results][1:] == 2 * [OUT_OF_TIME]


@pytest.mark.loops("asyncio")
@pytest.mark.parametrize(
    "octets", [b"", b"GET / HTTP/1.1\r\nHost", b"\x16\x03\x01" * 30_000], ids=["", "half", "noise"]
)
async def test_connections_that_ask_for_nothing(
    octets: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    choose(monkeypatch, "request: method")

    async def visit(url: str) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(url[:-1].split(":")[2]))
        try:
            writer.write(octets)
            writer.write_eof()
            await reader.read()
        finally:
            writer.close()

    (result,) = await run(visit)
    assert (result.verdict, result.answer) == ("wrong", "no request, but the end of the connection")


PROGRAM = """
import asyncio, sys
import fastws

async def main(url):
    while True:
        try:
            async with fastws.connect(url) as ws:
                async for message in ws:
                    await ws.send(message)
        except OSError:
            return
        if "--once" in sys.argv:
            return

asyncio.run(main(sys.argv[1]))
"""


@pytest.mark.parametrize("mode", ["--once", "--forever"])
def test_a_program_is_started_when_it_is_needed(
    mode: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    choose(monkeypatch, "request: method", "ping")
    program, page = tmp_path / "client.py", tmp_path / "probe.html"
    program.write_text(PROGRAM)
    command = f"'{sys.executable}' '{program}' {{url}} {mode}"
    report = ["--html", str(page), "--junit", str(tmp_path / "probe.xml")]
    assert cli.main(["probe", "--client", "--exec", command, "--all", *report]) == 0
    assert capsys.readouterr().out == (
        "ok      request: method, whole: as required\n"
        "ok      ping, whole: pong 'Hello'\n"
        "ok      ping, byte by byte: pong 'Hello'\n"
        "3 ok, 0 wrong, 0 skipped\n"
    )
    # Nothing is red if nothing is wrong.
    assert 'class="wrong"' not in page.read_text("utf-8")
    assert '<b class="ok">3 ok</b>, 0 wrong, 0 skipped' in page.read_text("utf-8")


def test_a_program_that_does_not_connect(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    command = f"'{sys.executable}' -c 'exit(\"no such option\")' {{url}}"
    assert cli.main(["probe", "--client", "--exec", command]) == 1
    assert capsys.readouterr().err == (
        "fastws probe: the client does not connect\n  no such option\n"
    )
    assert cli.main(["probe", "--client", "--exec", "/no/such/program {url}"]) == 1
    assert "cannot start '/no/such/program': No such file or directory" in capsys.readouterr().err
    # (Another error of the system, which must not be taken for one of the address.)
    monkeypatch.setattr(asyncio, "create_subprocess_exec", forbidden)
    assert cli.main(["probe", "--client", "--exec", "/x {url}"]) == 1
    assert capsys.readouterr().err == "fastws probe: cannot start '/x': Permission denied\n"


async def forbidden(*_args: Any, **_options: Any) -> Any:
    raise PermissionError(errno.EACCES, "Permission denied")


@pytest.mark.parametrize(
    ("port", "host", "good"),
    [
        (80, "localhost", True),
        (80, "[::1]:80", True),
        (9001, "localhost", False),
        (9001, "[::1]:9001", True),
        (9001, "::1:9001", False),
        (9001, "h\xf6st:9001", False),
    ],
)
def test_which_hosts_name_the_server(port: int, host: str, good: bool) -> None:
    (check,) = (check for check in CLIENT_CHECKS if check.name == "request: Host")
    assert check.rule_of_request is not None
    head = Head(f"GET / HTTP/1.1\r\nHost: {host}\r\n\r\n".encode("latin-1"), port)
    assert (check.rule_of_request(head, ()) in check.expected) is good


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_a_signal_ends_the_program_too(tmp_path: Path) -> None:
    path = tmp_path / "pid"
    code = f"import os, time; open({str(path)!r}, 'w').write(f'{{os.getpid()}}.'); time.sleep(600)"
    (tmp_path / "client.py").write_text(code)
    command = f"'{sys.executable}' '{tmp_path / 'client.py'}' {{url}}"
    with Fastws("probe", "--client", "--timeout", "600", "--exec", command) as program:
        deadline = time.monotonic() + TIMEOUT
        while not (path.exists() and path.read_text().endswith(".")):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert program.stop() == 143
        assert program.errors == "fastws probe: ended by a signal\n"
    with pytest.raises(ProcessLookupError):
        os.kill(int(path.read_text().rstrip(".")), 0)


@pytest.mark.loops("asyncio")
async def test_a_program_that_hangs() -> None:
    with pytest.raises(NoClientError):
        await probe_client(
            "127.0.0.1",
            0,
            command=[sys.executable, "-c", "import time; time.sleep(60)"],
            timeout=0.1,
        )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "which server? Give its URI, or --client to check a client"),
        (["ws://a", "--exec", "x {url}"], "--exec is for --client"),
        (["ws://a", "--no-echo"], "--no-echo is for --client"),
        (["ws://a", "--client"], "a URI cannot be used with --client, which checks who connects"),
        (["--client", "--insecure"], "--insecure cannot be used with --client"),
        (["--client", "--exec", "x"], "--exec must contain {url}"),
        (["--client", "--exec", "'x {url}"], '--exec: No closing quotation: "\'x {url}"'),
    ],
)
def test_options_that_do_not_go_together(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["probe", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_bad_places(capsys: pytest.CaptureFixture[str]) -> None:
    for place in ("9001", "localhost:port", "::9001", "[::1:9001"):
        with pytest.raises(SystemExit):
            cli.main(["probe", "--client", "--listen", place])
    errors = capsys.readouterr().err
    assert "must be HOST:PORT, not '9001'" in errors
    assert "an IPv6 address needs brackets, [::1]:80: '::9001'" in errors
    assert cli.main(["probe", "--client", "--listen", "192.0.2.1:1"]) == 1
    assert "cannot listen on 192.0.2.1 port 1: " in capsys.readouterr().err


def test_the_command_tells_what_to_do(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    choose(monkeypatch, "ping", "echo of CR LF")

    async def main() -> int:
        port = free_port()
        argv = ["probe", "--client", "--listen", f"127.0.0.1:{port}", "--timeout", "1"]
        task = asyncio.create_task(asyncio.to_thread(cli.main, argv))
        for _ in range(3):
            while True:
                try:
                    ws = await fastws.connect(f"ws://127.0.0.1:{port}")
                except OSError:
                    await asyncio.sleep(0.02)
                    continue
                break
            await ws.wait_closed()
        return await task

    assert asyncio.run(main()) == 1
    output, errors = capsys.readouterr()
    assert re.match("fastws probe: connect to ws://127.0.0.1:[0-9]+/, send every message", errors)
    assert "the client did not connect again after 'echo of CR LF'; --timeout waits" in errors
    assert "expected text 'a\\r\\nb': text arrives as it was sent (RFC 6455 §5.6" in output
    assert html("a client", []).count("a client") == 2
