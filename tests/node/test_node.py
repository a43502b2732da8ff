"""Node's `ws` against our servers, and our clients against a `ws` server."""

from __future__ import annotations

import asyncio
import json
import os
import queue
import ssl
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest
import trustme

import fastws

from ..tools import TIMEOUT, Background, Echo, Program, free_port, needs_uvloop, run, run_fastws
from .conftest import SCRIPT, NodeServer, install_ws

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(os.name != "posix", reason="programs are stopped POSIX's way")


@pytest.fixture
def ca() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def certificate(ca, tmp_path) -> tuple[str, str]:
    issued = ca.issue_cert("localhost", "127.0.0.1")
    issued.private_key_pem.write_to_path(tmp_path / "key.pem")
    for pem in issued.cert_chain_pems:
        pem.write_to_path(tmp_path / "cert.pem", append=True)
    return str(tmp_path / "cert.pem"), str(tmp_path / "key.pem")


NPM = """\
#!/bin/sh
echo "$1" >> log
rm -rf node_modules
mkdir -p node_modules/ws
sleep 0.1
echo '{"version": "8.0"}' > node_modules/ws/package.json
"""


def test_processes_that_need_ws_install_it_once(tmp_path: Path) -> None:
    lock = {"packages": {"node_modules/ws": {"version": "8.0"}}}
    (tmp_path / "package-lock.json").write_text(json.dumps(lock))
    (tmp_path / "package.json").touch()
    npm = tmp_path / "npm"
    npm.write_text(NPM)
    npm.chmod(0o755)
    # (Locks tell threads apart, as they do processes.)
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda _: install_ws(str(npm), tmp_path), range(3)))
    assert (tmp_path / "log").read_text() == "ci\n"


# Node is the client ---------------------------------------------------------------------


def hold(node: str, name: str, url: str, **env: str) -> str:
    """Have Node run one of its conversations; return its output."""
    result = run(node, SCRIPT, "client", name, url, env=os.environ | env)
    assert result.returncode == 0, result.stderr
    return result.stdout


ECHO = ["hello", "text", "binary", "deflate", "fragments", "many", "ping", "close", "violations"]


@pytest.mark.parametrize("name", [*ECHO, "flood"])
def test_echo_server(node, echo, name):
    hold(node, name, echo.url)
    assert echo.errors == ""


@needs_uvloop
def test_echo_server_on_uvloop(node):
    with Echo("--uvloop") as server:
        for name in ("hello", "binary", "fragments", "violations", "flood"):
            hold(node, name, server.url)
        assert server.stop() == 0
        assert server.errors == ""


def test_wss(node, ca, certificate, tmp_path):
    ca.cert_pem.write_to_path(tmp_path / "ca.pem")
    cert, key = certificate
    with Echo("--tls-cert", cert, "--tls-key", key) as server:
        for name in ("hello", "text", "binary", "violations"):
            hold(node, name, server.url, NODE_EXTRA_CA_CERTS=str(tmp_path / "ca.pem"))
        assert server.stop() == 0
        assert server.errors == ""


def test_refused_connection(node):
    hold(node, "refused", f"ws://127.0.0.1:{free_port()}")


def test_refused_handshake(node):
    async def never(ws):
        """Never called."""

    def refuse(request):
        return fastws.Response.text("not today\n", 403)

    with Background(never, process_request=refuse) as server:
        hold(node, "forbidden", server.url)


def test_subprotocol(node):
    async def echo(ws):
        async for message in ws:
            await ws.send(message)

    with Background(echo, subprotocols=["two", "one"]) as server:
        hold(node, "subprotocol", server.url)


def test_hello_server(node):
    """The server that many Node tutorials start with, in Python."""
    happened: queue.SimpleQueue[object] = queue.SimpleQueue()

    class Hello(fastws.WebSocketProtocol):
        def on_message(self, message):
            happened.put(f"received: {message}")
            self.send(f"Hello, you sent -> {message}")

        def on_close(self, code, reason):
            happened.put((code, reason))

    with Background(Hello) as server:
        hold(node, "greet", server.url)
    assert happened.get(timeout=TIMEOUT) == "received: Hello Server!"
    assert happened.get(timeout=TIMEOUT) == (1000, "bye")


def test_what_a_server_can_send(node):
    latencies: queue.SimpleQueue[float] = queue.SimpleQueue()

    async def talk(ws):
        latencies.put(await ws.ping(b"are you there"))
        await ws.send(iter(["in ", "", "fragments"]))
        await ws.send(iter([b"so ", b"is ", b"this"]))
        await ws.close(4000, "zażółć")

    with Background(talk) as server:
        assert hold(node, "listen", server.url).splitlines() == [
            "open",
            "ping: are you there",
            "text: in fragments",
            "binary: so is this",
            "closed: 4000 zażółć",
        ]
    assert latencies.get(timeout=TIMEOUT) > 0


@pytest.mark.parametrize("code", [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1011, 3000, 4999])
def test_server_closes(node, code):
    async def close(ws):
        await ws.close(code, "why not")

    with Background(close) as server:
        assert hold(node, "listen", server.url) == f"open\nclosed: {code} why not\n"


def test_server_closes_without_a_code(node):
    async def close(ws):
        await ws.close(None)

    with Background(close) as server:
        assert hold(node, "listen", server.url) == "open\nclosed: 1005\n"


def test_shutdown_of_the_server(node):
    with Echo() as server, Program(node, SCRIPT, "client", "listen", server.url) as client:
        assert client.line() == "open"
        assert server.stop() == 0
        assert client.line() == "closed: 1001"
        assert client.wait() == 0


# Node is the server -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "bits", "peer_bits"),
    [
        ({}, 12, 15),
        ({"clientMaxWindowBits": 15}, 12, 15),
        ({"clientMaxWindowBits": 13}, 12, 15),
        ({"clientMaxWindowBits": 10}, 10, 15),
        ({"clientMaxWindowBits": 9, "serverMaxWindowBits": 9}, 9, 9),
        ({"serverMaxWindowBits": 13, "serverNoContextTakeover": True}, 12, 13),
        ({"clientNoContextTakeover": True}, 12, 15),
    ],
    ids=str,
)
def test_compression(node, options, bits, peer_bits):
    async def converse(url: str):
        async with fastws.connect(f"{url}/echo", deflate=True) as ws:
            # Repeats farther back than any window, and within the window.
            block = os.urandom(5000)
            for message in (block, block, block * 10, block[::-1] + block, "zażółć " * 1000):
                await ws.send(message)
                assert await ws.recv() == message
            return ws._connection

    options = {"threshold": 0} | options
    with NodeServer(node, env={"DEFLATE": json.dumps(options)}) as server:
        connection = drive(converse(server.url))
        assert server.line() == "closed: 1000"
    agreed = connection.deflate
    assert (agreed.max_window_bits, agreed.peer_max_window_bits) == (bits, peer_bits)


async def echoes(ws, *messages) -> None:
    for message in messages:
        await ws.send(message)
        assert await ws.recv() == message


def drive(coroutine):
    return asyncio.run(asyncio.wait_for(coroutine, TIMEOUT))


def test_conversation(server):
    async def converse():
        async with fastws.connect(server.url) as ws:
            await ws.send("Hello Server!")
            return await ws.recv()

    assert drive(converse()) == "Hello, you sent -> Hello Server!"
    assert server.line() == "received: Hello Server!"
    assert server.line() == "closed: 1000"


def test_conversation_by_hooks(server):
    happened = []

    class Client(fastws.WebSocketProtocol):
        def on_open(self):
            self.send("Hello Server!")

        def on_message(self, message):
            happened.append(message)
            self.close(1000, "bye")

        def on_close(self, code, reason):
            happened.append((code, reason))

    async def converse():
        client = await fastws.connect(server.url, protocol=Client)
        await client.wait_closed()

    drive(converse())
    assert happened == ["Hello, you sent -> Hello Server!", (1000, "bye")]
    assert server.line() == "received: Hello Server!"
    assert server.line() == "closed: 1000 bye"


def test_conversation_by_the_command(server):
    result = run_fastws("connect", server.url, input="Hello Server!\n")
    assert (result.returncode, result.stdout) == (0, "Hello, you sent -> Hello Server!\n")
    assert server.line() == "received: Hello Server!"
    assert server.line() == "closed: 1000"


@pytest.mark.parametrize("path", ["/echo", "/fragments"])
@pytest.mark.parametrize("loop", ["asyncio", pytest.param("uvloop", marks=needs_uvloop)])
def test_messages(server, path, loop):
    async def converse():
        async with fastws.connect(server.url + path, max_fragments=None) as ws:
            await echoes(ws, "", "a", "zażółć 漢字 🎈", b"", b"\x00\xff", "x" * 126, bytes(5000))
            if path == "/echo":
                await echoes(ws, "é" * (1 << 19), os.urandom(1 << 20))
            await ws.send(["in ", "", "fragments ", "🎈"])
            assert await ws.recv() == "in fragments 🎈"
            await ws.send([b"so ", bytearray(b"is "), memoryview(b"this")])
            assert await ws.recv() == b"so is this"

    with asyncio.Runner(loop_factory=import_module(loop).new_event_loop) as runner:
        runner.run(asyncio.wait_for(converse(), TIMEOUT))
    assert server.line() == "closed: 1000"


def test_many_messages(server):
    async def converse():
        async with fastws.connect(f"{server.url}/echo") as ws:
            numbers = [str(number) for number in range(10_000)]

            async def send():
                for number in numbers:
                    await ws.send(number)

            sending = asyncio.create_task(send())
            assert [await ws.recv() for _ in numbers] == numbers
            await sending

    drive(converse())


def test_ping(server):
    async def converse():
        async with fastws.connect(f"{server.url}/echo") as ws:
            assert await ws.ping() > 0
            assert await ws.ping(b"x" * 125) > 0
        async with fastws.connect(f"{server.url}/ping") as ws:
            assert await ws.recv() == "pong: are you there"

    drive(converse())


@pytest.mark.parametrize("code", [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1011, 3000, 4999])
def test_close_codes(server, code):
    async def they_close():
        url = f"{server.url}/close?code={code}&reason={quote('zażółć')}"
        async with fastws.connect(url) as ws:
            with pytest.raises(fastws.ConnectionClosed) as closed:
                await ws.recv()
            assert (closed.value.code, closed.value.reason) == (code, "zażółć")

    async def we_close():
        ws = await fastws.connect(f"{server.url}/echo")
        await ws.close(code, "zażółć")
        assert (ws.close_code, ws.close_reason) == (code, "zażółć")

    for converse in (they_close, we_close):
        drive(converse())
        assert server.line() == f"closed: {code} zażółć"


def test_close_without_a_code(server):
    async def they_close():
        async with fastws.connect(f"{server.url}/close-without-code") as ws:
            assert [message async for message in ws] == []
            assert ws.close_code == 1005

    async def we_close():
        ws = await fastws.connect(f"{server.url}/echo")
        await ws.close(None)
        assert ws.close_code == 1005

    for converse in (they_close, we_close):
        drive(converse())
        assert server.line() == "closed: 1005"


def test_lost_connection(server):
    async def converse():
        async with fastws.connect(f"{server.url}/terminate") as ws:
            with pytest.raises(fastws.ConnectionClosed) as closed:
                await ws.recv()
            assert closed.value.code == 1006

    drive(converse())
    assert server.line() == "closed: 1006"


def test_agreed_subprotocol(server):
    async def converse():
        async with fastws.connect(f"{server.url}/echo", subprotocols=["one", "two"]) as ws:
            assert ws.subprotocol == "two"
        async with fastws.connect(f"{server.url}/echo", subprotocols=["three"]) as ws:
            assert ws.subprotocol is None

    drive(converse())


def test_unwelcome_client(server):
    async def converse():
        with pytest.raises(fastws.ResponseError) as refused:
            await fastws.connect(server.url, headers={"X-Unwelcome": "yes"})
        assert refused.value.response.status == 401

    drive(converse())


def test_wss_server(node, ca, certificate):
    context = ssl.create_default_context()
    ca.configure_trust(context)

    async def converse(url: str):
        async with fastws.connect(f"{url}/echo", ssl=context) as ws:
            await echoes(ws, "secret", "é" * (1 << 19), os.urandom(1 << 20))
        with pytest.raises(ssl.SSLCertVerificationError):
            await fastws.connect(url)

    with NodeServer(node, *certificate) as server:
        drive(converse(server.url))
        assert server.line() == "closed: 1000"
