"""examples/: each one runs unchanged, and does what it promises."""

from __future__ import annotations

import ast
import asyncio
import json
import logging
import os
import queue
import re
import signal
import socket
import socketserver
import ssl
import sys
import threading
import time
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from urllib.request import urlopen

import anyio
import pytest
import trio
import trio.testing
import trustme
from anyio.abc import SocketAttribute
from anyio.from_thread import BlockingPortal
from anyio.streams.tls import TLSListener
from cryptography.x509 import load_pem_x509_certificate

from fastws import (
    Accept,
    Close,
    Connection,
    ConnectionClosed,
    Ping,
    Response,
    ResponseError,
    Role,
    connect,
    encode_frame,
    serve,
)
from fastws.cli._client_probing import probe_client
from fastws.cli._probing import CHECKS, MANNERS, probe
from fastws.handshake import ClientHandshake, parse_uri

from .tools import TIMEOUT, Background, Program, free_port, run_fastws
from .wire import upgrade_request

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
    from types import ModuleType

EXAMPLES = Path(__file__).parents[1] / "examples"
TRIO_SERVER = EXAMPLES / "trio_by_hand.py"
KEY = b"\x01\x02\x03\x04"
JUNK = bytes(1 << 20)


# As a program -------------------------------------------------------------------------------


@contextmanager
def running(twin: SimpleNamespace) -> Iterator[tuple[Program, str]]:
    """Run the server as a program; return it and its URL."""
    argv = (sys.executable, "-X", "dev", "-W", "error", str(TRIO_SERVER), "0")
    with Program(*argv, env={"FASTWS_IMPL": twin.name}) as program:
        yield program, program.line().removeprefix("listening on ")


def test_trio_server_passes_the_probe_whole(twin: SimpleNamespace) -> None:
    with running(twin) as (program, url):
        result = run_fastws("probe", url, "--json", timeout=4 * TIMEOUT)
        rows = json.loads(result.stdout)
        assert [row for row in rows if row["verdict"] != "ok"] == []
        assert (len(rows), result.returncode) == (len(CHECKS) * len(MANNERS), 0)
        assert program.stop(signal.SIGTERM) == 0
        assert program.errors == ""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_trio_server_says_goodbye_when_it_is_stopped(twin: SimpleNamespace, number: int) -> None:
    async def talk(program: Program, port: int) -> None:
        async with connected(port) as client:
            client.connection.send("still here?")
            await client.flush()
            assert await client.next() == "still here?"
            program.send_signal(number)
            assert await client.next() == Close(1001, "")
            await client.flush()
            assert await client.stream.receive_some(1) == b""

    with running(twin) as (program, url):
        trio.run(talk, program, int(url.rpartition(":")[2]))
        assert program.wait() == 0
        assert program.errors == ""


# Twenty lines on a session -----------------------------------------------------------------------

SERVERS = ("anyio_server", "threaded_server", "trio_server")
CLIENTS = ("threaded_client",)


def lines_of_code(source: str) -> list[str]:
    """The lines that are neither blank nor comments, nor belong to the docstring or imports."""
    tree = ast.parse(source)
    left_out = {
        number
        for node in tree.body
        if isinstance(node, (ast.Import, ast.ImportFrom))
        or (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant))
        for number in range(node.lineno, (node.end_lineno or node.lineno) + 1)
    }
    return [
        line
        for number, line in enumerate(source.splitlines(), 1)
        if number not in left_out and line.strip() and not line.strip().startswith("#")
    ]


@pytest.mark.parametrize("name", [*SERVERS, *CLIENTS])
def test_an_example_has_at_most_twenty_lines(name: str) -> None:
    assert len(lines_of_code((EXAMPLES / f"{name}.py").read_text("utf-8"))) <= 20


# With -X dev, asyncio complains of what takes longer than 0.1 s, as all does on a busy machine.
PATIENT = "import logging; logging.getLogger('asyncio').setLevel(logging.ERROR)\n"


def load(name: str) -> dict[str, Any]:
    """What an example defines, without its last paragraph, which runs it."""
    names: dict[str, Any] = {}
    source = (EXAMPLES / f"{name}.py").read_text("utf-8").rpartition("\n\n\n")[0]
    exec(compile(source, name, "exec"), names)
    return names


@contextmanager
def running_session(name: str, twin: SimpleNamespace) -> Iterator[tuple[Program, str]]:
    """Run a server as a program, on a port that is free, until Ctrl+C; return it and its URL. It
    must say nothing."""
    port = free_port()
    source = PATIENT + (EXAMPLES / f"{name}.py").read_text("utf-8").replace("8080", str(port))
    argv = (sys.executable, "-X", "dev", "-W", "error", "-c", source)
    with Program(*argv, env={"FASTWS_IMPL": twin.name}) as program:
        deadline = time.monotonic() + TIMEOUT
        while True:
            try:
                socket.create_connection(("localhost", port), TIMEOUT).close()
                break
            except ConnectionRefusedError:
                assert not program.has_ended, program.errors
                assert time.monotonic() < deadline
                time.sleep(0.02)
        yield program, f"ws://localhost:{port}"
        assert not program.has_ended
        assert program.stop(signal.SIGINT) == -signal.SIGINT
        assert program.errors == ""


@pytest.mark.parametrize("name", SERVERS)
def test_a_session_server_passes_the_probe_whole(twin: SimpleNamespace, name: str) -> None:
    with running_session(name, twin) as (_, url):
        check_with_probe(url)


def test_the_ticker_quotes_what_was_asked_for(twin: SimpleNamespace) -> None:
    async def ask(url: str) -> None:
        async with connect(url) as ws:
            await ws.send("gold")
            assert await ws.recv() == "unknown share (choose from tea, coffee, cocoa)"
            await ws.send("tea")
            assert await ws.recv() == "tea 4.20"
            for share in ("coffee", "cocoa"):
                await ws.send(share)
            # Now each trade is quoted.
            shares = {(await ws.recv()).split()[0] for _ in range(4)}
            assert shares <= {"tea", "coffee", "cocoa"}
            assert len(shares) > 1

    port = free_port()
    source = (EXAMPLES / "ticker.py").read_text("utf-8").replace("8080", str(port))
    source = PATIENT + source.replace("PRICES[share] += random", "0; random")  # the first is known
    argv = (sys.executable, "-X", "dev", "-W", "error", "-c", source)
    with Program(*argv, env={"FASTWS_IMPL": twin.name}) as program:
        program.wait_for_port(port)
        asyncio.run(ask(f"ws://localhost:{port}"))
        assert program.stop(signal.SIGTERM) == 0
        assert program.errors == ""


def check_with_probe(
    url: str, context: ssl.SSLContext | None = None, count: int = len(CHECKS)
) -> None:
    # (The debug mode of asyncio, which -X dev turns on, would take most of the time.)
    results = asyncio.run(probe(url, ssl=context, timeout=TIMEOUT), debug=False)
    assert [result for result in results if result.verdict != "ok"] == []
    assert len(results) == count * len(MANNERS)


@pytest.fixture(scope="module")
def tls() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Contexts for a server at localhost, and for clients that trust it."""
    authority = trustme.CA()
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(server)
    client = ssl.create_default_context()
    authority.configure_trust(client)
    return server, client


@contextmanager
def trio_over_tls(context: ssl.SSLContext) -> Iterator[int]:
    serve_client = load("trio_server")["serve_client"]
    ports: queue.SimpleQueue[int] = queue.SimpleQueue()
    scopes: list[tuple[Any, Any]] = []

    async def main() -> None:
        listeners = await trio.open_ssl_over_tcp_listeners(0, context, host="localhost")
        with trio.CancelScope() as scope:
            scopes.append((trio.lowlevel.current_trio_token(), scope))
            ports.put(listeners[0].transport_listener.socket.getsockname()[1])
            await trio.serve_listeners(serve_client, listeners[:1])

    with in_thread(lambda: trio.run(main)):
        port = ports.get(timeout=TIMEOUT)
        try:
            yield port
        finally:
            token, scope = scopes.pop()
            token.run_sync_soon(scope.cancel)


@contextmanager
def anyio_over_tls(context: ssl.SSLContext) -> Iterator[int]:
    serve_client = load("anyio_server")["serve_client"]
    ports: queue.SimpleQueue[int] = queue.SimpleQueue()
    stops: list[Callable[[], object]] = []

    async def main() -> None:
        tcp = await anyio.create_tcp_listener(local_host="127.0.0.1", local_port=0)
        listener = TLSListener(tcp, context, standard_compatible=False)
        async with listener, BlockingPortal() as portal, anyio.create_task_group() as group:
            group.start_soon(listener.serve, serve_client)
            stops.append(lambda: portal.call(group.cancel_scope.cancel))
            ports.put(tcp.extra(SocketAttribute.local_port))

    with in_thread(lambda: anyio.run(main)):
        port = ports.get(timeout=TIMEOUT)
        try:
            yield port
        finally:
            stops.pop()()


@contextmanager
def threads_over_tls(context: ssl.SSLContext) -> Iterator[int]:
    example = load("threaded_server")
    # As the docstring says.
    make = example["Session"].server
    session = SimpleNamespace(server=lambda **options: make(**options, half_close=False))
    example["serve_client"].__globals__["Session"] = session

    class Server(socketserver.ThreadingTCPServer):
        def get_request(self) -> Any:
            sock, address = super().get_request()
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return context.wrap_socket(sock, server_side=True), address

    with (
        Server(("127.0.0.1", 0), example["serve_client"]) as server,
        in_thread(partial(server.serve_forever, 0.05)),
    ):
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()


@contextmanager
def in_thread(function: Callable[[], object]) -> Iterator[None]:
    thread = threading.Thread(target=function)
    thread.start()
    try:
        yield
    finally:
        thread.join(TIMEOUT)
        assert not thread.is_alive()


@pytest.mark.parametrize("serving", [anyio_over_tls, threads_over_tls, trio_over_tls])
def test_a_session_server_passes_the_probe_over_tls(
    tls: tuple[ssl.SSLContext, ssl.SSLContext], serving: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Handshakes of TLS take long, and what is checked does not depend on it.
    some = CHECKS[::4]
    monkeypatch.setattr("fastws.cli._probing.CHECKS", some)
    with serving(tls[0]) as port:
        check_with_probe(f"wss://localhost:{port}", tls[1], len(some))


@pytest.mark.parametrize("name", ["trio_by_hand", *SERVERS])
def test_the_session_client_talks_to_each_server(twin: SimpleNamespace, name: str) -> None:
    with running(twin) if name == "trio_by_hand" else running_session(name, twin) as (_, url):
        argv = (sys.executable, "-X", "dev", "-W", "error", str(EXAMPLES / "threaded_client.py"))
        with Program(*argv, url, "Hello!", env={"FASTWS_IMPL": twin.name}) as program:
            assert program.line() == "Server: Hello!"
            assert program.wait() == 0
            assert program.errors == ""


def test_the_session_client_talks_to_our_asyncio_server(
    tls: tuple[ssl.SSLContext, ssl.SSLContext],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """… over TLS as well, if the socket is wrapped."""

    async def echo(ws: Any) -> None:
        async for message in ws:
            await ws.send(message)
        codes.append(ws.close_code)

    async def main(context: ssl.SSLContext | None) -> None:
        async with serve(echo, "localhost", 0, ssl=context) as server:
            port = server.sockets[0].getsockname()[1]
            uri = f"ws{'s' if context else ''}://localhost:{port}/"
            await asyncio.to_thread(talk, uri, "Hello!")

    def connect(address: Any) -> socket.socket:
        return tls[1].wrap_socket(create_connection(address), server_hostname="localhost")

    codes: list[int] = []
    talk = load("threaded_client")["talk"]
    asyncio.run(main(None))
    create_connection = socket.create_connection
    monkeypatch.setattr(socket, "create_connection", connect)
    asyncio.run(main(tls[0]))
    assert capsys.readouterr().out == "Server: Hello!\n" * 2
    assert codes == [1000, 1000]


def test_the_session_client_passes_the_probe_whole() -> None:
    def come(url: str) -> None:
        while not done:
            with suppress(OSError):
                example["talk"](url)

    async def main() -> list[Any]:
        results = await probe_client("localhost", 0, on_listening=come_again, timeout=TIMEOUT)
        done.append(True)
        return results

    def come_again(url: str) -> None:
        threads.append(threading.Thread(target=come, args=(url,)))
        threads[0].start()

    done: list[bool] = []
    threads: list[threading.Thread] = []
    example = load("threaded_client")
    example["talk"].__globals__["print"] = lambda *_: None
    try:
        results = asyncio.run(main(), debug=False)
    finally:
        done.append(True)
        threads[0].join(TIMEOUT)
    assert not threads[0].is_alive()
    assert [result for result in results if result.verdict == "wrong"] == []
    skipped = {result.answer for result in results if result.verdict == "skipped"}
    assert skipped == {"client_max_window_bits is offered"}  # the checks are about one that is not


def test_the_session_client_says_why_it_is_refused(twin: SimpleNamespace) -> None:
    async def handle(ws: Any) -> None:
        raise AssertionError("unreachable")

    def refuse(request: Any) -> Response:
        return Response.text("not you", 403)

    argv = (sys.executable, "-X", "dev", "-W", "error", str(EXAMPLES / "threaded_client.py"))
    with (
        Background(handle, process_request=refuse) as server,
        Program(*argv, server.url, "Hi", env={"FASTWS_IMPL": twin.name}) as program,
    ):
        assert program.wait() == 1
        assert program.errors == "server rejected the connection: HTTP 403\n"


def test_the_session_client_ends_quietly() -> None:
    with socket.create_server(("localhost", 0)) as listener:
        url = f"ws://localhost:{listener.getsockname()[1]}"
        argv = (sys.executable, "-X", "dev", "-W", "error", str(EXAMPLES / "threaded_client.py"))
        with Program(*argv, url) as program:
            listener.settimeout(TIMEOUT)
            with listener.accept()[0] as sock:
                assert sock.recv(65536)
                assert program.stop(signal.SIGINT) == -signal.SIGINT
                assert program.errors == ""


@pytest.mark.parametrize("data", [b"", b"GET / HTTP/1.1\r\n", b"\xff\r\n\r\n", None])
@pytest.mark.parametrize("name", SERVERS)
def test_a_session_server_survives_clients_that_leave(
    twin: SimpleNamespace, name: str, data: bytes | None
) -> None:
    with running_session(name, twin) as (_, url):
        port = int(url.rpartition(":")[2])
        for resets in (False, True):
            with socket.create_connection(("localhost", port), TIMEOUT) as sock:
                if data is None:
                    sock.sendall(upgrade_request() + frame(1, JUNK))
                else:
                    sock.sendall(data)
                if resets:
                    linger = b"\1\0\0\0\0\0\0\0"
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        with socket.create_connection(("localhost", port), TIMEOUT) as sock:
            sock.sendall(upgrade_request())
            assert sock.recv(65536).startswith(b"HTTP/1.1 101 ")


# Small programs ---------------------------------------------------------------------------------


@contextmanager
def running_file(name: str, *args: str) -> Iterator[tuple[Program, int]]:
    """Run a server on a free port, until it is stopped or with Ctrl-C; it must say nothing."""
    port = free_port()
    source = (EXAMPLES / name).read_text("utf-8").replace("8080", str(port))
    source = source.replace("8443", str(port))
    with Program(sys.executable, "-W", "error", "-c", source, *args) as program:
        program.wait_for_port(port)
        yield program, port
        if not program.has_ended:
            program.send_signal(signal.SIGINT)
        assert program.wait() == 0
        assert program.errors == ""


async def code_after(program: Program, port: int) -> int | None:
    """End a server, and return the close code that its client gets."""
    async with connect(f"ws://localhost:{port}") as ws:
        program.send_signal(signal.SIGINT)
        await ws.wait_closed()
        program.wait()
        return ws.close_code


def test_the_list_of_examples_is_complete() -> None:
    text = (EXAMPLES / "README.md").read_text("utf-8")
    for path in EXAMPLES.iterdir():
        name = path.name if path.is_file() else f"{path.name}/"
        assert name.startswith(("_", "README")) or name in text
    for name in re.findall(r"[\w/]+\.py\b", text):
        there = [EXAMPLES.parent / name, *EXAMPLES.glob(f"*/{name}"), EXAMPLES / name]
        assert any(path.exists() for path in there), name


def test_the_echo_server_echoes_and_says_goodbye() -> None:
    async def talk(program: Program, port: int) -> None:
        async with connect(f"ws://localhost:{port}") as ws:
            await ws.send("Hello Server!")
            await ws.send(b"\x00\xff")
            assert [await ws.recv(), await ws.recv()] == ["Hello Server!", b"\x00\xff"]
        assert await code_after(program, port) == 1001

    with running_file("echo.py") as (program, port):
        asyncio.run(talk(program, port))


def test_the_chat_on_fastapi_has_rooms_and_a_page() -> None:
    async def talk(port: int) -> None:
        url = f"ws://localhost:{port}/rooms"
        async with (
            connect(f"{url}/tea") as ann,
            connect(f"{url}/coffee") as bob,
        ):
            assert await ann.recv() == await bob.recv() == "1 in this room"
            async with connect(f"{url}/tea") as eve:
                assert await ann.recv() == await eve.recv() == "2 in this room"
                await eve.send("Hi!")
                assert await ann.recv() == await eve.recv() == "Hi!"
            await bob.send("Is anybody here?")
            assert await bob.recv() == "Is anybody here?"

    with running_file("fastapi_chat.py") as (_, port):
        asyncio.run(talk(port))
        with urlopen(f"http://127.0.0.1:{port}/") as response:
            assert b"new WebSocket" in response.read()


def test_the_client_comes_back_when_the_server_does() -> None:
    port = free_port()
    ticker = (EXAMPLES / "ticker.py").read_text("utf-8").replace("8080", str(port))
    client = (EXAMPLES / "reconnecting_client.py").read_text("utf-8")
    client = client.replace("initial_delay=1,", "initial_delay=0.05,")
    start = (sys.executable, "-W", "error", "-c")
    with Program(*start, client, f"ws://localhost:{port}", "tea") as watcher:
        for end in ("the server has closed the connection (1001)", "the connection is lost (1006)"):
            with Program(*start, ticker) as server:
                assert watcher.line().startswith("tea ")
                server.stop(signal.SIGKILL if "1006" in end else signal.SIGTERM)
            while (line := watcher.line()) != end:
                assert line.startswith("tea ")
        assert watcher.stop(signal.SIGINT) == 0
        assert watcher.errors == ""


def test_the_tls_server_takes_a_new_certificate(tmp_path: Path) -> None:
    authority = trustme.CA()
    context = ssl.create_default_context()
    authority.configure_trust(context)

    def renew() -> int:
        issued = authority.issue_cert("localhost")
        issued.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
        issued.private_key_pem.write_to_path(tmp_path / "key.pem")
        return load_pem_x509_certificate(issued.cert_chain_pems[0].bytes()).serial_number

    async def echoed(ws: Any) -> int:
        await ws.send("Hello Server!")
        assert await ws.recv() == "Hello Server!"
        shown = ws.get_extra_info("ssl_object").getpeercert()["serialNumber"]
        return int(shown, 16)

    async def talk(program: Program, port: int, serial: int) -> None:
        async with connect(f"wss://localhost:{port}", ssl=context) as old:
            assert await echoed(old) == serial
            serial = renew()
            program.send_signal(signal.SIGHUP)
            while True:
                async with connect(f"wss://localhost:{port}", ssl=context) as new:
                    if await echoed(new) == serial:
                        break
            await echoed(old)

    serial = renew()
    paths = [str(tmp_path / name) for name in ("cert.pem", "key.pem")]
    with running_file("tls_server.py", *paths) as (program, port):
        asyncio.run(talk(program, port, serial))


def test_the_json_server_sorts_and_explains() -> None:
    async def talk(port: int) -> None:
        async with connect(f"ws://localhost:{port}") as ws:
            for question, answer in (
                ('{"id": 1, "sort": ["é", "b", "a"]}', {"id": 1, "sorted": ["a", "b", "é"]}),
                ('{"id": 2, "sort": [1, "a"]}', {"error": ...}),
                ("[]", {"error": ...}),
                ("no", {"error": ...}),
                ('"\\ud800"', {"error": ...}),
            ):
                await ws.send(question)
                given = json.loads(await ws.recv())
                assert given.keys() == answer.keys()
                assert "error" in given or given == answer
            await ws.send(b"{}")
            await ws.wait_closed()
            assert (ws.close_code, ws.close_reason) == (1003, "JSON in text messages, please")

    with running_file("json_server.py") as (_, port):
        asyncio.run(talk(port))


# The proxy ----------------------------------------------------------------------------------------


@pytest.fixture
def proxy() -> Any:
    """The proxy as a module."""
    return SimpleNamespace(**load("proxy"))


@asynccontextmanager
async def proxied(proxy: Any, to: str | None = None, **options: Any) -> AsyncIterator[Any]:
    """Run a server of ours, and the proxy before it; yield the proxy's URL, and what the server
    has seen."""
    seen: asyncio.Queue[tuple[int, str]] = asyncio.Queue()

    async def handle(ws: Any) -> None:
        try:
            async for message in ws:
                match message:
                    case "close":
                        await ws.close(4000, "as you like")
                    case "abort":
                        ws.get_extra_info("socket").shutdown(socket.SHUT_RDWR)
                    case _:
                        await ws.send(message)
        finally:
            await ws.wait_closed()
            seen.put_nowait((ws.close_code, ws.close_reason))

    port = free_port()
    async with asyncio.timeout(TIMEOUT), serve(handle, "127.0.0.1", 0, **options) as server:
        url = to or f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        running = asyncio.create_task(proxy.main(port, url))
        while True:
            with suppress(OSError):
                socket.create_connection(("127.0.0.1", port)).close()
                break
            await asyncio.sleep(0.01)
        try:
            yield SimpleNamespace(url=f"ws://127.0.0.1:{port}", seen=seen)
        finally:
            running.cancel()
            await asyncio.wait([running])


def run_proxied(use: Callable[[Any], Awaitable[None]], proxy: Any, **options: Any) -> None:
    async def main() -> None:
        async with proxied(proxy, **options) as place:
            await use(place)

    asyncio.run(main(), debug=False)


def test_the_proxy_passes_on_frames_as_they_are(
    proxy: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    async def use(place: Any) -> None:
        async with connect(place.url, subprotocols=["b"], headers={"Cookie": "tea"}) as ws:
            assert ws.subprotocol == "b"
            assert ws.response.headers["Set-Cookie"] == "tea"
            await ws.send(["Hello ", "Server!"])
            assert await ws.recv() == "Hello Server!"
            await ws.send(bytes(100_000))
            assert await ws.recv() == bytes(100_000)
            await ws.ping(b"there?")
            await ws.close(3001, "bye")
            assert ws.close_code == 3001
        assert await place.seen.get() == (3001, "bye")

    def process_request(request: Any) -> Accept:
        return Accept({"Set-Cookie": request.headers["Cookie"]})

    run_proxied(use, proxy, subprotocols=["a", "b"], process_request=process_request)
    assert capsys.readouterr().out.splitlines() == [
        "> text, 6 bytes, more to come",
        "> continuation, 7 bytes, more to come",
        "> continuation, 0 bytes",
        "< text, 13 bytes",
        "> binary, 100000 bytes",
        "< binary, 100000 bytes",
        "> ping, 6 bytes",
        "< pong, 6 bytes",
        "> close 3001 bye",
        "< close 3001 bye",
    ]


def test_each_end_behind_the_proxy_learns_how_the_other_ended(proxy: Any) -> None:
    async def use(place: Any) -> None:
        async with connect(place.url) as ws:
            await ws.send("close")
            await ws.wait_closed()
            assert (ws.close_code, ws.close_reason) == (4000, "as you like")
        async with connect(place.url) as ws:
            await ws.send("abort")
            await ws.wait_closed()
            assert ws.close_code == 1006
        async with connect(place.url) as ws:
            await ws.send("Hi")
            await ws.recv()
            ws.get_extra_info("socket").shutdown(socket.SHUT_RDWR)
        # A frame that is not masked.
        async with connect(place.url) as ws:
            os.write(ws.get_extra_info("socket").fileno(), encode_frame(1, b"Hi"))
            await ws.wait_closed()
            assert ws.close_code == 1002
        codes = [(await place.seen.get())[0] for _ in range(4)]
        assert codes == [4000, 1006, 1006, 1006]

    run_proxied(use, proxy)


def test_the_proxy_ends_connections_well(proxy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    async def use(place: Any) -> None:
        results = await probe(place.url, timeout=TIMEOUT)
        assert [result for result in results if result.verdict not in ("ok", "skipped")] == []
        assert len(results) == len(some) * len(MANNERS)

    some = CHECKS[::4]
    monkeypatch.setattr("fastws.cli._probing.CHECKS", some)
    run_proxied(use, proxy)


def test_the_proxy_passes_on_a_refusal(proxy: Any) -> None:
    async def fetch(url: str, request: bytes) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
        writer.write(request)
        answer = await reader.read()
        writer.close()
        await writer.wait_closed()
        return answer.partition(b"\r\n")[0]

    async def use(place: Any) -> None:
        with pytest.raises(ResponseError) as caught:
            await connect(place.url + "/secret?key=1")
        assert caught.value.status == 403
        assert caught.value.response.body == b"not /secret key=1\n"
        assert await fetch(place.url, b"GET / HTTP/1.1\r\nHost: here\r\n\r\n") == (
            b"HTTP/1.1 426 Upgrade Required"
        )
        assert await fetch(place.url, b"nonsense\r\n\r\n") == b"HTTP/1.1 400 Bad Request"
        twice = upgrade_request("Sec-WebSocket-Protocol: a, a")
        assert await fetch(place.url, twice) == b"HTTP/1.1 400 Bad Request"

    async def use_none(place: Any) -> None:
        with pytest.raises(ResponseError) as caught:
            await connect(place.url)
        assert caught.value.status == 502

    def process_request(request: Any) -> Response | None:
        if request.path == "/":
            return None
        return Response.text(f"not {request.path} {request.query}\n", status=403)

    run_proxied(use, proxy, process_request=process_request)
    run_proxied(use_none, proxy, to=f"ws://127.0.0.1:{free_port()}")


def test_the_proxy_reads_no_faster_than_the_server(proxy: Any) -> None:
    count, size = 256, 256 << 10  # 64 MiB, far more than all buffers have

    async def use(place: Any) -> None:
        async def send_all() -> None:
            for number in range(count):
                await ws.send(number.to_bytes(4, "big") + bytes(size - 4))
                sent.append(number)

        sent: list[int] = []
        async with connect(place.url) as ws:
            sending = asyncio.create_task(send_all())
            still = 0
            while still < 10:  # until nothing moves any more
                before = len(sent)
                await asyncio.sleep(0.02)
                still = still + 1 if len(sent) == before > 0 else 0
            assert len(sent) < count
            may_read.set()
            await sending
            assert await ws.recv() == "all"

    async def handle(ws: Any) -> None:
        await may_read.wait()
        for number in range(count):
            assert int.from_bytes((await ws.recv())[:4], "big") == number
        await ws.send("all")

    async def main() -> None:
        nonlocal may_read
        may_read = asyncio.Event()
        async with serve(handle, "127.0.0.1", 0) as server:
            url = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"
            async with proxied(proxy, url) as place:
                await use(place)

    may_read: Any = None
    asyncio.run(main())


def test_the_proxy_says_goodbye_to_both_ends() -> None:
    async def handle(ws: Any) -> None:
        await ws.wait_closed()
        codes.put(ws.close_code)

    codes: queue.SimpleQueue[int] = queue.SimpleQueue()
    port = free_port()
    source = (EXAMPLES / "proxy.py").read_text("utf-8")
    with Background(handle) as server:
        argv = (sys.executable, "-W", "error", "-c", source, str(port), server.url)
        with Program(*argv) as program:
            program.wait_for_port(port)
            assert asyncio.run(code_after(program, port)) == 1001
            assert codes.get(timeout=TIMEOUT) == 1001
            assert program.wait() == 0
            assert program.errors == ""


# In this process ------------------------------------------------------------------------------


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The server as a module, with very long timeouts."""
    spec = spec_from_file_location("trio_server", TRIO_SERVER)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "trio_server", module)
    spec.loader.exec_module(module)
    for name in ("OPEN", "SEND", "PING", "CLOSE"):
        monkeypatch.setattr(module, f"{name}_TIMEOUT", 3600.0)
    monkeypatch.setattr(module, "PING_INTERVAL", 3600.0)
    return module


class Client:
    """The other end: a `Connection` on a stream that does nothing on its own."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self.connection = Connection(Role.CLIENT)
        self._events: list[Any] = []

    async def open(self, port: int, data: bytes = b"") -> None:
        handshake = ClientHandshake(parse_uri(f"ws://127.0.0.1:{port}"))
        await self.stream.send_all(handshake.request() + data)
        while handshake.receive_data(await self.stream.receive_some(65536)) is None:
            pass
        self._events += self.connection.receive_data(handshake.trailing_data)

    async def flush(self) -> None:
        await self.stream.send_all(self.connection.data_to_send())

    async def next(self) -> Any:
        """Return the next event; None at the end of the stream, which must not be a reset."""
        while not self._events:
            data = await self.stream.receive_some(65536)
            if not data:
                return None
            self._events += self.connection.receive_data(data)
        return self._events.pop(0)


@asynccontextmanager
async def connected(port: int, data: bytes = b"") -> AsyncIterator[Client]:
    with trio.fail_after(TIMEOUT):
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
            client = Client(stream)
            await client.open(port, data)
            yield client


@dataclass
class Server:
    """A running server; `gone` is set when it has no connection any more."""

    port: int
    gone: trio.Event


def with_server(
    example: ModuleType, on_message: Any, use: Callable[[Server], Awaitable[None]]
) -> None:
    """Run a server with this handler, use it, and wait for its connections to end."""

    async def main() -> None:
        clients = 0

        async def serve_client(stream: trio.SocketStream) -> None:
            nonlocal clients
            clients += 1
            await example.serve_client(on_message, stream)
            clients -= 1
            if not clients:
                server.gone.set()

        async with trio.open_nursery() as nursery:
            listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
            nursery.start_soon(partial(trio.serve_listeners, serve_client, listeners))
            server = Server(listeners[0].socket.getsockname()[1], trio.Event())
            with trio.fail_after(TIMEOUT):
                await use(server)
                await server.gone.wait()
            nursery.cancel_scope.cancel()

    trio.run(main)


async def repeat(send: Callable[[bytes], Awaitable[None]]) -> None:
    """Send until it raises."""
    while True:
        await send(JUNK)


def frame(opcode: int, payload: bytes = b"", **options: Any) -> bytes:
    return encode_frame(opcode, payload, key=KEY, **options)


def test_trio_server_answers_what_came_before_the_close_frame(example: ModuleType) -> None:
    """… in more than one write, including messages that came right after the request."""

    async def answer(ws: Any, message: str) -> None:
        await ws.send(message * 70_000)

    async def use(server: Server) -> None:
        early = b"".join(frame(1, text) for text in (b"a", b"b", b"c"))
        async with connected(server.port, early + frame(8, b"\x0f\xa0bye")) as client:
            assert [await client.next() for _ in range(3)] == [c * 70_000 for c in "abc"]
            assert await client.next() == Close(4000, "bye")
            assert await client.next() is None

    with_server(example, answer, use)


def test_trio_servers_answers_to_a_client_that_has_closed_are_bounded(example: ModuleType) -> None:
    async def flood(ws: Any, message: str) -> None:
        for _ in range(100):
            await ws.send(JUNK)
        complete.append(True)

    async def use(server: Server) -> None:
        async with connected(server.port, frame(1, b"go") + frame(8, b"\x03\xe8")) as client:
            assert await client.next() == JUNK
            while (event := await client.next()) == JUNK:
                pass
            assert event == Close(1000, "")
            assert await client.next() is None

    complete: list[bool] = []
    with_server(example, flood, use)
    assert complete == []


@pytest.mark.parametrize("ending", [frame(1, b"\xff"), frame(0)], ids=["1007", "1002"])
def test_trio_servers_close_frame_is_read_by_a_client_that_keeps_sending(
    example: ModuleType, ending: bytes
) -> None:
    async def use(server: Server) -> None:
        async with connected(server.port) as client:
            await client.stream.send_all(ending)
            for _ in range(8):
                await client.stream.send_all(JUNK)
            event = await client.next()
            assert event.code == (1002 if ending == frame(0) else 1007)
            assert await client.next() is None

    with_server(example, example.echo, use)


def test_trio_servers_refusal_is_read_by_a_client_that_keeps_sending(example: ModuleType) -> None:
    async def use(server: Server) -> None:
        async with await trio.open_tcp_stream("127.0.0.1", server.port) as stream:
            await stream.send_all(b"POST / HTTP/1.1\r\nHost: x\r\n\r\n")
            for _ in range(8):
                await stream.send_all(JUNK)
            response = b"".join([data async for data in stream])
            assert response.startswith(b"HTTP/1.1 405 ")
            assert response.endswith(b"\r\n\r\nthe method must be GET\n")

    with_server(example, example.echo, use)


def test_trio_server_closes(example: ModuleType) -> None:
    """… and waits for the client's close frame before it ends the TCP connection."""
    heard: list[str] = []

    async def close(ws: Any, message: str) -> None:
        heard.append(message)
        await ws.close(4000, "bye")
        with pytest.raises(ConnectionClosed, match="4000"):
            await ws.send("too late")

    async def use(server: Server) -> None:
        async with connected(server.port) as client:
            client.connection.send("go")
            client.connection.send("too late")
            await client.flush()
            assert await client.next() == Close(4000, "bye")

            async def read_on() -> None:
                ended.append(await client.next())

            ended: list[None] = []
            async with trio.open_nursery() as nursery:
                nursery.start_soon(read_on)
                await trio.testing.wait_all_tasks_blocked(0.01)
                assert ended == []
                await client.flush()
            assert ended == [None]

    with_server(example, close, use)
    assert heard == ["go"]


@pytest.mark.parametrize("error", [ZeroDivisionError(), ConnectionClosed(1006)], ids=repr)
def test_trio_servers_handler_may_fail(
    example: ModuleType, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    """… with an error that is about another connection, too."""

    async def fail(ws: Any, message: str) -> None:
        raise error

    async def use(server: Server) -> None:
        async with connected(server.port) as client:
            client.connection.send("oh")
            await client.flush()
            assert await client.next() == Close(1011, "")
            await client.flush()
            assert await client.next() is None

    with_server(example, fail, use)
    (record,) = caplog.records
    assert (record.levelno, record.exc_info[0]) == (logging.ERROR, type(error))


def test_trio_server_keeps_the_order_of_sends(example: ModuleType) -> None:
    """… of many tasks, to a client that reads slowly."""
    sizes = [70_000, 1, 16_000_000, 2, 200_000, 3]

    async def push(ws: Any, message: str) -> None:
        async with trio.open_nursery() as nursery:
            for number, size in enumerate(sizes):
                nursery.start_soon(ws.send, bytes([number]) * size)
                await trio.testing.wait_all_tasks_blocked()
            all_begun.set()

    all_begun = trio.Event()

    async def use(server: Server) -> None:
        async with connected(server.port) as client:
            client.connection = Connection(Role.CLIENT, max_message_size=None)
            client.connection.send("go")
            await client.flush()
            await all_begun.wait()
            received = [await client.next() for _ in sizes]
            assert received == [bytes([n]) * size for n, size in enumerate(sizes)]

    with_server(example, push, use)


# Clients that do not play along ------------------------------------------------------------


def test_trio_server_ends_an_unfinished_handshake(
    example: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(example, "OPEN_TIMEOUT", 0.05)

    async def use(server: Server) -> None:
        async with await trio.open_tcp_stream("127.0.0.1", server.port) as stream:
            await stream.send_all(b"GET / HTTP/1.1\r\n")
            response = b"".join([data async for data in stream])
            assert response.startswith(b"HTTP/1.1 408 ")

    with_server(example, example.echo, use)


def test_trio_server_pings_a_silent_client_and_gives_it_up(
    example: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(example, "PING_INTERVAL", 0.05)
    monkeypatch.setattr(example, "PING_TIMEOUT", 1.0)

    async def use(server: Server) -> None:
        async with connected(server.port) as client:
            for _ in range(3):
                assert await client.next() == Ping()
                await client.flush()  # the pong
            assert await client.next() == Ping()
            assert await client.next() == Close(1011, "keepalive ping timeout")
            assert await client.next() is None

    with_server(example, example.echo, use)


def test_trio_server_does_not_wait_for_ever_for_a_close_frame(
    example: ModuleType, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(example, "CLOSE_TIMEOUT", 0.05)

    async def close(ws: Any, message: str) -> None:
        if message == "here":
            await ws.close()
            await ws.send("too late")  # which is not a mistake
        else:  # while nothing is received
            nursery.start_soon(ws.close)

    async def use(server: Server) -> None:
        nonlocal nursery
        async with trio.open_nursery() as nursery:
            for message in ("here", "from another task"):
                async with connected(server.port) as client:
                    client.connection.send(message)
                    await client.flush()
                    assert await client.next() == Close(1000, "")
                    assert await client.next() is None
            # Nor for a client that goes on.
            async with connected(server.port) as client:
                await client.stream.send_all(frame(0))
                with pytest.raises(trio.BrokenResourceError):
                    await repeat(client.stream.send_all)

    nursery: Any = None
    with_server(example, close, use)
    assert caplog.records == []


def test_trio_server_drops_a_client_that_never_reads(
    example: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(example, "SEND_TIMEOUT", 0.05)

    async def flood(ws: Any, message: str) -> None:
        with pytest.raises(ConnectionClosed, match="1006"):
            await repeat(ws.send)
        dropped.append(True)

    async def use(server: Server) -> None:
        async with connected(server.port) as client:
            client.connection.send("go")
            await client.flush()
            await server.gone.wait()

    dropped: list[bool] = []
    with_server(example, flood, use)
    assert dropped == [True]


def test_trio_server_survives_resets(example: ModuleType, caplog: pytest.LogCaptureFixture) -> None:
    async def use(server: Server) -> None:
        for data in (b"", frame(1, b"hello"), frame(1, JUNK), frame(8)):
            async with connected(server.port) as client:
                await client.stream.send_all(data)
                client.stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        async with connected(server.port) as client:
            client.connection.send("still there?")
            await client.flush()
            assert await client.next() == "still there?"

    with_server(example, example.echo, use)
    assert caplog.records == []


def test_trio_server_that_is_cancelled_says_goodbye(example: ModuleType) -> None:
    async def main() -> None:
        with trio.fail_after(TIMEOUT):
            async with trio.open_nursery() as clients, trio.open_nursery() as nursery:
                listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
                serve_client = partial(example.serve_client, example.echo)
                nursery.start_soon(partial(trio.serve_listeners, serve_client, listeners))
                port = listeners[0].socket.getsockname()[1]

                async def talk(*, task_status: Any) -> None:
                    async with connected(port) as client:
                        client.connection.send("hello")
                        await client.flush()
                        assert await client.next() == "hello"
                        task_status.started()
                        assert await client.next() == Close(1001, "")
                        await client.flush()
                        assert await client.next() is None
                        told.append(True)

                for _ in range(3):
                    await clients.start(talk)
                nursery.cancel_scope.cancel()

    told: list[bool] = []
    trio.run(main)
    assert told == [True] * 3
