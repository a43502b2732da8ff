"""docs/howto: the code of the guides runs unchanged, except for the port, and does what they say.

What needs a broker is tested in tests/bus, what needs a host in tests/integrations, what needs a
compiler in tests/test_capi.py, and scripts that only have to run in test_blocks.py.
"""

from __future__ import annotations

import asyncio
import os
import signal
import ssl
import subprocess
import sys
import tomllib
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import pytest

import fastws

from ..tools import FASTWS, TIMEOUT, Background, Program, free_port, optional, run
from .pages import ORJSON, ROOT, code

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SOON = fastws.RetryPolicy(initial_delay=0.05, max_delay=0.05)


async def echo(ws: fastws.WebSocket) -> None:
    async for message in ws:
        await ws.send(message)


@contextmanager
def serving(source: str, port: int, *, kills: bool = False, **options: Any) -> Iterator[Program]:
    """Run a server, stop it with a signal, and check that it exits cleanly; or kill it, and
    check that it said nothing."""
    argv = (sys.executable, "-c", source.replace("8080", str(port)))
    with Program(*argv, **options) as program:
        yield program
        assert not program.has_ended, program.errors
        status = 0 if kills else program.stop()
        assert (status, program.errors) == (0, "")


def run_client(source: str, *args: str, port: int = 8080, **options: Any) -> list[str]:
    """Run a client to its end, check that it succeeds, and return the lines that it prints."""
    result = run(sys.executable, "-c", source.replace("8080", str(port)), *args, **options)
    assert (result.returncode, result.stderr) == (0, "")
    return result.stdout.splitlines()


async def ask(port: int, message: str, **options: Any) -> str | bytes:
    """Send a message to a server that may not listen yet; return the answer."""
    scheme = "wss" if "ssl" in options else "ws"
    async for ws in fastws.connect(f"{scheme}://localhost:{port}", retry=SOON, **options):
        async with ws:
            await ws.send(message)
            return await ws.recv()
    raise AssertionError("unreachable")


@pytest.mark.parametrize(
    ("text", "example"),
    [
        (code("howto/trio.md", "trio"), "trio_server.py"),
        (code("howto/trio.md", "anyio"), "anyio_server.py"),
        (code("howto/sans-io.md", "client"), "threaded_client.py"),
        (code("howto/sans-io.md", "server"), "threaded_server.py"),
    ],
    ids=["trio", "anyio", "threaded client", "threaded server"],
)
def test_a_program_is_an_example(text: str, example: str) -> None:
    """(tests/test_examples.py runs these.)"""
    assert (ROOT / "examples" / example).read_text("utf-8").endswith(f'"""\n\n{text}')


# TLS --------------------------------------------------------------------------------------------


@pytest.fixture
def certificates(tmp_path: Path) -> Path:
    """The directory with the files of trustme's command."""
    make_certificates(tmp_path)
    return tmp_path


def make_certificates(folder: Path) -> None:
    optional("trustme")
    result = run(sys.executable, "-m", "trustme", "-q", "-d", str(folder))
    assert (result.returncode, result.stderr) == (0, "")


def trusting(folder: Path) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=folder / "client.pem")


def test_tls(certificates: Path) -> None:
    port = free_port()
    with serving(code("howto/tls.md", "server"), port, cwd=certificates):
        assert asyncio.run(ask(port, "Hi", ssl=trusting(certificates))) == "Hi"
        client = code("howto/tls.md", "client")
        assert run_client(client, port=port, cwd=certificates) == ["Server: Hello Server!"]


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="this system has no SIGHUP")
def test_certificates_are_renewed(certificates: Path) -> None:
    port = free_port()
    with serving(code("howto/tls.md", "renew"), port, cwd=certificates) as program:
        before = trusting(certificates)
        assert asyncio.run(ask(port, "Hi", ssl=before)) == "Hi"
        make_certificates(certificates)
        after = trusting(certificates)
        os.kill(program.pid, signal.SIGHUP)

        async def ask_again() -> str | bytes:
            while True:  # until it has the signal
                with suppress(ssl.SSLCertVerificationError):
                    return await ask(port, "Hi", ssl=after)

        assert asyncio.run(ask_again()) == "Hi"
        with pytest.raises(ssl.SSLCertVerificationError):
            asyncio.run(ask(port, "Hi", ssl=before))


@pytest.mark.skipif(find_spec("uvloop") is None, reason="no uvloop here: pip install uvloop")
def test_another_event_loop() -> None:
    optional("aiofastnet")
    port = free_port()
    with serving(code("howto/tls.md", "faster"), port):
        assert asyncio.run(ask(port, "Hi")) == "Hi"


# Clients ----------------------------------------------------------------------------------------


def test_a_client_comes_back() -> None:
    heard: list[str | bytes] = []

    async def publish(ws: fastws.WebSocket) -> None:
        heard.append(await ws.recv())
        await ws.send(f"news {len(heard)}")
        await ws.close(1011 if len(heard) == 1 else 1000)

    with Background(publish) as server:
        source = code("howto/clients.md", "client")
        source = source.replace('8080"', f'{server.port}", retry=fastws.RetryPolicy(max_delay=0)')
        with Program(sys.executable, "-c", source) as client:
            assert [client.line() for _ in range(4)] == [
                "news 1",
                "lost: 1011",
                "news 2",
                "news 3",
            ]
            assert client.errors == ""
    assert {*heard} == {"subscribe news"}


def test_a_client_uses_the_proxy_of_the_environment() -> None:
    heads = []

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(65536):
                writer.write(data)
        writer.close()

    async def main() -> list[str]:
        async def tunnel(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            heads.append(await reader.readuntil(b"\r\n\r\n"))
            if len(heads) == 2:
                writer.write(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
                writer.close()
                return
            writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
            there = await asyncio.open_connection("127.0.0.1", port)
            await asyncio.gather(copy(reader, there[1]), copy(there[0], writer))

        async with (
            fastws.serve(echo, "127.0.0.1", 0) as server,
            await asyncio.start_server(tunnel, "127.0.0.1", 0) as proxy,
        ):
            port = server.sockets[0].getsockname()[1]
            address = f"127.0.0.1:{proxy.sockets[0].getsockname()[1]}"
            env = {k: v for k, v in os.environ.items() if not k.lower().endswith("_proxy")}
            env["WS_PROXY"] = f"http://{address}"
            source, lines = code("howto/proxies.md", "client"), []
            for _ in range(2):
                process = await asyncio.create_subprocess_exec(
                    *(sys.executable, "-c", source, "ws://echo.example"),
                    env=env,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                )
                output, errors = await asyncio.wait_for(process.communicate(), TIMEOUT)
                assert (process.returncode, errors) == (0, b"")
                lines.append(output.decode().rstrip().replace(address, "PROXY"))
            return lines

    assert asyncio.run(main()) == [
        "Server: Hello Server!",
        "the proxy PROXY refused: HTTP 403 Forbidden (status 403)",
    ]
    assert {head.splitlines()[0] for head in heads} == {b"CONNECT echo.example:80 HTTP/1.1"}


def test_the_client_on_trio() -> None:
    optional("trio")
    with Background(echo) as server:
        answers = run_client(code("howto/trio.md", "client"), server.url, "Hello Server!")
        assert answers == ["Server: Hello Server!"]


def test_a_task_on_trio_sends_too() -> None:
    async def main() -> None:
        async for ws in fastws.connect(f"ws://localhost:{port}", retry=SOON):
            async with ws:
                assert await ws.recv() == "tick"
                await ws.send("Hi")
                assert await ws.recv() == "Hi"
            assert ws.close_code == 1000
            break

    optional("trio")
    port = free_port()
    with serving(code("howto/trio.md", "ticks"), port, kills=True):
        asyncio.run(main())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_server_on_trio_says_goodbye(number: int) -> None:
    async def main(program: Program) -> None:
        async for ws in fastws.connect(f"ws://localhost:{port}", retry=SOON):
            async with ws:
                await ws.send("Hi")
                assert await ws.recv() == "Hi"
                program.send_signal(number)
                await ws.wait_closed()
            assert ws.close_code == 1001
            break

    optional("trio")
    port = free_port()
    source = code("howto/trio.md", "goodbye").replace("8080", str(port))
    with Program(sys.executable, "-X", "dev", "-W", "error", "-c", source) as program:
        asyncio.run(main(program))
        assert program.wait() == 0
        assert program.errors == ""


# Servers ----------------------------------------------------------------------------------------


def test_callbacks() -> None:
    port = free_port()
    with serving(code("howto/callbacks.md", "hello"), port) as program:
        assert asyncio.run(ask(port, "Hello")) == "Hello, you sent -> Hello"
        client = code("howto/callbacks.md", "client")
        assert run_client(client, port=port) == ["Hello, you sent -> Hi", "closed with 1000"]
        assert [program.line(), program.line()] == ["received: Hello", "received: Hi"]


def test_callbacks_with_tasks() -> None:
    port = free_port()
    with serving(code("howto/callbacks.md", "tasks"), port):
        assert asyncio.run(ask(port, "6 x 9")) == "42"
        assert asyncio.run(ask(port, "what?")) == "ask again later"


def test_rooms_are_apart_and_do_not_echo() -> None:
    async def chat() -> list[str | bytes]:
        async for one in fastws.connect(f"ws://localhost:{port}/a", retry=SOON):
            async with (
                one,
                fastws.connect(f"ws://localhost:{port}/a") as two,
                fastws.connect(f"ws://localhost:{port}/b") as other,
            ):
                await two.send("for a")  # so that two has subscribed
                await other.send("for b")
                heard = await one.recv()
                await one.send("Hi")
                return [heard, await two.recv()]
        raise AssertionError("unreachable")

    port = free_port()
    with serving(code("howto/broadcasting.md", "rooms"), port):
        assert asyncio.run(chat()) == ["for a", "Hi"]


def test_a_server_answers_health_checks_and_guards_its_door() -> None:
    async def main() -> None:
        headers = {"Authorization": "Bearer token"}
        assert await ask(port, "Hi", headers=headers) == "Hi"
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

    port = free_port()
    with serving(code("howto/security.md", "health"), port):
        asyncio.run(main())


@pytest.mark.parametrize(
    ("peer", "told", "address"),
    [
        (("127.0.0.1", 1), ["203.0.113.99, 198.51.100.7"], "198.51.100.7"),
        (("127.0.0.1", 1), ["203.0.113.99", "198.51.100.7"], "198.51.100.7"),  # HAProxy's way
        (("::1", 1, 0, 0), [], "::1"),
        (("192.0.2.1", 1), ["198.51.100.7"], "192.0.2.1"),
        ("", ["198.51.100.7"], "198.51.100.7"),
        (None, [], None),
    ],
)
def test_the_address_that_a_proxy_tells(peer: Any, told: list[str], address: str | None) -> None:
    source, _, _ = code("howto/nginx.md", "script-address").partition("async def tell")
    names: dict[str, Any] = {}
    exec(source, names)
    headers = fastws.Headers([("X-Forwarded-For", value) for value in told])
    request = fastws.Request("GET", "/", headers, peer=fastws.Peer(peer))
    assert names["process_request"](request).context == address


def test_an_application_of_fastws_serve(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(code("howto/production.md", "app"))
    port = free_port()
    with Program(*FASTWS, "serve", "app:app", "--port", str(port), cwd=tmp_path) as program:
        assert asyncio.run(ask(port, "Hi", proxy=None)) == "Hi"
        assert (program.stop(), program.errors) == (0, "")


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not spread the clients")
def test_processes_that_share_a_port() -> None:
    async def replace() -> None:
        async with fastws.connect(f"ws://localhost:{port}", proxy=None) as ws:
            with serving(source, port):
                os.kill(one.pid, signal.SIGTERM)
                await ws.wait_closed()
                assert ws.close_code == 1012
                assert (one.wait(), one.errors) == (0, "")
                assert await ask(port, "Hi", proxy=None) == "Hi"  # the other one

    unit = (ROOT / "examples" / "deploy" / "server@.service").read_text("utf-8")
    assert "\nTimeoutStopSec=40\n" in unit  # more than `drain` and `shutdown_timeout`
    source, port = code("howto/production.md", "processes"), free_port()
    assert source.count("drain=20") == 1
    source = source.replace("drain=20", "drain=0.1")
    with Program(sys.executable, "-c", source.replace("8080", str(port))) as one:
        one.wait_for_port(port)
        asyncio.run(replace())


def test_connections_are_limited() -> None:
    result = run(sys.executable, "-c", code("howto/production.md", "limits"))
    assert result.returncode == 0
    assert result.stderr.startswith("too many connections")
    assert result.stderr.count("\n") == 1


def test_the_program_to_freeze() -> None:
    port = free_port()
    with serving(code("howto/frozen.md", "app"), port) as program:
        assert asyncio.run(ask(port, "Hi")) == "Hi"
        assert program.line() == f"twin {fastws.implementation}, kernel {fastws.kernel}"


# Everything else --------------------------------------------------------------------------------


def test_the_tests_pass(tmp_path: Path) -> None:
    files = {
        "app": code("howto/testing.md", "app"),
        "test_app": code("howto/testing.md", "test_app"),
        "test_fake": code("howto/testing.md", "test_fake"),
    }
    if find_spec("anyio") is not None:
        files["test_fixture"] = code("howto/testing.md", "test_fixture")
    for name, text in files.items():
        (tmp_path / f"{name}.py").write_text(text)
    command = (sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "error")
    result = run(*command, cwd=tmp_path)
    assert result.returncode == 0, result.stdout
    assert f"{len(files) + 3} passed" in result.stdout


# What the example needs of it, where it cannot be installed.
MSGSPEC = """
import dataclasses, json as _json


class DecodeError(Exception):
    pass


class Struct:
    def __init_subclass__(cls):
        dataclasses.dataclass(cls)


class json:
    class Encoder:
        def encode(self, value):
            return _json.dumps(dataclasses.asdict(value), separators=(",", ":")).encode()

    class Decoder:
        def __init__(self, cls):
            self.cls = cls

        def decode(self, data):
            assert type(data) is bytes
            value = self.cls(**_json.loads(data))
            if type(value.article) is not str:
                raise DecodeError("Expected `str`, got `int` - at `$.article`")
            return value
"""


@pytest.mark.parametrize(
    ("library", "stand_in", "source", "lines"),
    [
        (
            "orjson",
            ORJSON,
            code("howto/json.md", "orjson"),
            ['{"sum":6}', '{"sum":4}'],
        ),
        (
            "orjson",
            ORJSON,
            code("howto/json.md", "coroutine"),
            ['{"sum":6}'],
        ),
        (
            "msgspec",
            MSGSPEC,
            code("howto/json.md", "msgspec"),
            ['{"text":"2 x tea"}', '{"text":"Expected `str`, got `int` - at `$.article`"}'],
        ),
    ],
    ids=["orjson", "orjson-coroutine", "msgspec"],
)
def test_json(library: str, stand_in: str, source: str, lines: list[str], tmp_path: Path) -> None:
    if find_spec(library) is None:
        (tmp_path / f"{library}.py").write_text(stand_in)
    assert run_client(source, port=free_port(), cwd=tmp_path) == lines


def test_two_connections_talk() -> None:
    assert run_client(code("howto/sans-io.md", "conversation")) == [
        "text: Hello Server!",
        "closed with 1000 bye",
        "CLOSED 1000",
    ]


def test_the_setup_of_a_cython_module(monkeypatch: pytest.MonkeyPatch) -> None:
    """(tests/test_capi.py builds it, with a setup.py of its own.)"""
    setuptools = pytest.importorskip("setuptools")
    calls: list[dict[str, Any]] = []
    monkeypatch.setattr(setuptools, "setup", lambda **options: calls.append(options))
    exec(code("howto/cython.md", "setup"), {})
    ((extension,),) = (options["ext_modules"] for options in calls)
    assert (extension.name, extension.sources) == ("echo", ["echo.pyx"])
    project = tomllib.loads(code("howto/cython.md", "pyproject"))
    assert {"cython", "fastws-codec", "setuptools"} <= {*project["build-system"]["requires"]}
    assert project["project"]["dependencies"] == ["fastws-codec"]
