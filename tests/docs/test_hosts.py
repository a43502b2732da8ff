"""The pages about hosts: their programs run under their command lines, and what they say holds."""

from __future__ import annotations

import asyncio
import os
import re
import shlex
import ssl
import sys
from contextlib import contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING

import pytest

import fastws
from fastws.integrations._hosts import HOSTS

from ..tools import FASTWS, Background, Program, free_port, optional, run
from .pages import DOCS, ORJSON, ROOT, code, text

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.skipif(os.name != "posix", reason="programs are stopped POSIX's way")

OURS = "--ws fastws.integrations.uvicorn:WebSocketProtocol"
MESSAGE = "Grüße 🎈 " * 100


@contextmanager
def running(
    folder: Path, command: str, env: dict[str, str] | None = None, **files: str
) -> Iterator[tuple[Program, int]]:
    """Run a command line of a page with its files; yield the program and its port."""
    port = free_port()
    for name, content in files.items():
        (folder / f"{name}.py").write_text(content.replace("8000", str(port)))
    name, *words = shlex.split(command.replace("8000", str(port)))
    if name == "fastws":
        argv = [*FASTWS, *words]
    else:
        argv = [sys.executable, *([] if name == "python" else ["-m", name]), *words]
    # (A host's own warnings are not our business.)
    environ = {"PYTHONWARNINGS": "", "PYTHONPATH": str(folder)} | (env or {})
    with Program(*argv, cwd=folder, env=environ) as program:
        program.wait_for_port(port)
        yield program, port
        assert "Traceback" not in program.errors  # (how a host ends is its own business)


async def echo(port: int, path: str = "/echo") -> None:
    # A server may listen before its application is ready.
    async for ws in fastws.connect(f"ws://127.0.0.1:{port}{path}"):
        async with ws:
            await ws.send(MESSAGE)
            assert await ws.recv() == MESSAGE
            return


# Servers ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("integration", "command", "files"),
    [
        pytest.param(
            "wsproto",
            code("howto/hypercorn.md", "start"),
            {"app": code("howto/hypercorn.md", "app")},
            id="hypercorn",
        ),
        pytest.param(
            "wsproto",
            code("howto/wsproto.md", "start"),
            {"server": code("howto/wsproto.md", "server")},
            id="trio-websocket",
        ),
        pytest.param(
            "websockets",
            code("howto/websockets.md", "start"),
            {"server": code("howto/websockets.md", "server")},
            id="websockets",
        ),
        pytest.param(
            "websockets",
            code("howto/sanic.md", "start"),
            {"app": code("howto/sanic.md", "app")},
            id="sanic",
        ),
        pytest.param(
            "autobahn",
            code("howto/daphne.md", "start"),
            {"app": code("howto/daphne.md", "app")},
            id="daphne",
        ),
        pytest.param(
            "autobahn",
            code("howto/autobahn.md", "start"),
            {"server": code("howto/autobahn.md", "server")},
            id="autobahn",
        ),
        pytest.param(
            "tornado",
            code("howto/tornado.md", "start"),
            {"server": code("howto/tornado.md", "server")},
            id="tornado",
        ),
    ],
)
def test_a_server_runs_with_fastws(
    integration: str, command: str, files: dict[str, str], tmp_path: Path
) -> None:
    with running(tmp_path, command, **files) as (program, port):
        asyncio.run(echo(port))
        assert program.errors.startswith(f"fastws run: {integration} ")


def test_hypercorn_in_code(tmp_path: Path) -> None:
    files = {"app": code("howto/hypercorn.md", "app"), "main": code("howto/hypercorn.md", "main")}
    with running(tmp_path, "python main.py", **files) as (_, port):
        asyncio.run(echo(port))


# uvicorn and gunicorn -----------------------------------------------------------------------


def test_uvicorn_in_code(tmp_path: Path) -> None:
    files = {"app": code("howto/uvicorn.md", "app"), "main": code("howto/uvicorn.md", "main")}
    with running(tmp_path, "python main.py", **files) as (_, port):
        asyncio.run(echo(port))


@pytest.mark.parametrize("how", ["option", "environment"])
def test_an_application_sees_that_it_is_active(tmp_path: Path, how: str) -> None:
    _, value = OURS.split()
    lines = text("howto/uvicorn.md").splitlines()
    command, env = f"uvicorn app:app {OURS}", {}
    assert command in lines
    if how == "environment":
        assert f"UVICORN_WS={value} uvicorn app:app" in lines
        command, env = "uvicorn app:app", {"UVICORN_WS": value}
    app = code("howto/uvicorn.md", "active")

    async def ask(port: int) -> str | bytes:
        async with fastws.connect(f"ws://127.0.0.1:{port}/class") as ws:
            return await ws.recv()

    with running(tmp_path, f"{command} --port 8000", env, app=app) as (_, port):
        assert asyncio.run(ask(port)) == "fastws.integrations.uvicorn"


def test_a_chat_in_fastapi(tmp_path: Path) -> None:
    async def chat(url: str) -> None:
        async with (
            fastws.connect(url + "a") as one,
            fastws.connect(url + "a") as two,
            fastws.connect(url + "b") as other,
        ):
            for ws, text in ((one, "1"), (two, "2"), (other, "3")):
                await ws.send(text)
                while await ws.recv() != text:  # then it has subscribed
                    pass
            await one.send("4")
            assert [await one.recv(), await one.recv(), await two.recv()] == ["2", "4", "4"]

    app = code("howto/uvicorn.md", "chat")
    with running(tmp_path, f"uvicorn app:app {OURS} --port 8000", app=app) as (_, port):
        asyncio.run(chat(f"ws://127.0.0.1:{port}/rooms/"))


def test_json_in_fastapi(tmp_path: Path) -> None:
    async def ask(port: int) -> list[str | bytes]:
        async with fastws.connect(f"ws://127.0.0.1:{port}/sum") as ws:
            await ws.send("[1, 2, 3]")
            await ws.send("[4]")
            return [await ws.recv(), await ws.recv()]

    if find_spec("orjson") is None:
        (tmp_path / "orjson.py").write_text(ORJSON)
    app = code("howto/json.md", "fastapi")
    assert f"uvicorn app:app {OURS}" in text("howto/json.md").splitlines()
    with running(tmp_path, f"uvicorn app:app {OURS} --port 8000", app=app) as (_, port):
        assert asyncio.run(ask(port)) == ['{"sum":6}', '{"sum":4}']


def test_metrics_in_fastapi(tmp_path: Path) -> None:
    async def talk(port: int) -> bytes:
        for _ in range(2):  # one has ended
            async with fastws.connect(f"ws://127.0.0.1:{port}/echo") as ws:
                await ws.send("Hi")
                await ws.recv()
        async with fastws.connect(f"ws://127.0.0.1:{port}/echo") as ws:
            await ws.send("Hi")
            await ws.recv()
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"GET /metrics HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            shown = await reader.read()
            writer.close()
            await writer.wait_closed()
        return shown

    app = code("howto/metrics.md", "fastapi")
    with running(tmp_path, f"uvicorn app:app {OURS} --port 8000", app=app) as (_, port):
        shown = asyncio.run(talk(port))
    assert b"\nchat_messages_received_total 3\n" in shown
    assert b"\nchat_unsent_bytes 0\n" in shown


def test_who_may_connect_in_fastapi(tmp_path: Path) -> None:
    site, ann = "https://chat.example", {"Cookie": "theme=dark; session=8Fk2vQ"}
    answers: dict[tuple[str | None, str], str | bytes | int | None] = {}

    async def ask(url: str) -> None:
        for origin in (None, site, "https://other.example"):
            for name, headers in (("Ann", ann), ("nobody", {})):
                try:
                    async with fastws.connect(url, origin=origin, headers=headers) as ws:
                        answers[origin, name] = await ws.recv()
                except fastws.ResponseError as error:
                    answers[origin, name] = error.status

    app = code("howto/uvicorn.md", "auth")
    # (What the page says about this option, too.)
    command = f"uvicorn app:app {OURS} --port 8000 --limit-concurrency 1"
    with running(tmp_path, command, app=app) as (_, port):
        asyncio.run(ask(f"ws://127.0.0.1:{port}/greet"))
    assert answers == {
        (None, "Ann"): "Hello Ann",
        (None, "nobody"): 401,
        (site, "Ann"): "Hello Ann",
        (site, "nobody"): 401,
        ("https://other.example", "Ann"): 403,
        ("https://other.example", "nobody"): 403,
    }


def test_the_certificate_of_a_client_under_uvicorn(tmp_path: Path) -> None:
    authority = optional("trustme").CA()
    authority.cert_pem.write_to_path(tmp_path / "clients.pem")
    server = authority.issue_cert("localhost")
    server.private_key_pem.write_to_path(tmp_path / "server.key")
    server.cert_chain_pems[0].write_to_path(tmp_path / "server.pem")
    context = ssl.create_default_context()
    authority.configure_trust(context)
    names = {"common_name": "ann", "organization_name": "Chat", "organization_unit_name": "People"}
    authority.issue_cert("ann@chat.example", **names).configure_cert(context)

    async def ask(port: int) -> str | bytes:
        async with fastws.connect(f"wss://localhost:{port}/who", ssl=context) as ws:
            return await ws.recv()

    app = code("howto/uvicorn.md", "certificate")
    (command,) = re.findall("^uvicorn .*--ssl-.*", text("howto/uvicorn.md"), re.MULTILINE)
    with running(tmp_path, f"{command} --port 8000", app=app) as (_, port):
        assert asyncio.run(ask(port)) == "CN=ann,OU=People,O=Chat"


@pytest.mark.parametrize(
    ("command", "files"),
    [
        pytest.param(code("howto/gunicorn.md", "asgi"), {}, id="asgi"),
        pytest.param(
            "gunicorn app:app", {"gunicorn.conf": code("howto/gunicorn.md", "config")}, id="config"
        ),
        pytest.param(
            "gunicorn -k workers.MyWorker -w 4 -b localhost:8000 app:app",
            {"workers": code("howto/gunicorn.md", "worker")},
            id="uvicorn",
        ),
    ],
)
def test_gunicorn(command: str, files: dict[str, str], tmp_path: Path) -> None:
    assert not files or "MyWorker" not in command or command in text("howto/gunicorn.md")
    files = files | {"app": code("howto/gunicorn.md", "app")}
    with running(tmp_path, command.replace("-w 4", "-w 1"), **files) as (program, port):
        asyncio.run(echo(port, "/api" if "workers" in files else "/"))
        if "workers" not in files:
            program.wait_for_errors("<fastws in gunicorn ")
            program.wait_for_errors(", active>")


# Clients --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("integration", "command", "client", "printed"),
    [
        pytest.param(
            "aiohttp",
            code("howto/aiohttp.md", "start"),
            code("howto/aiohttp.md", "client"),
            "1000000 bytes came back\n",
            id="aiohttp",
        ),
        pytest.param(
            "websocket-client",
            code("howto/websocket-client.md", "start"),
            code("howto/websocket-client.md", "client"),
            "13000 characters came back\n",
            id="websocket-client",
        ),
    ],
)
def test_a_client_runs_with_fastws(
    integration: str, command: str, client: str, printed: str, tmp_path: Path
) -> None:
    async def send_back(ws: fastws.WebSocket) -> None:
        async for message in ws:
            await ws.send(message)

    with Background(send_back) as server:
        address = server.url.removeprefix("ws://")
        (tmp_path / "client.py").write_text(client.replace("localhost:8000", address))
        result = run(*FASTWS, *shlex.split(command)[1:], cwd=tmp_path)
    assert (result.returncode, result.stdout) == (0, printed)
    assert result.stderr.startswith(f"fastws run: {integration} ")
    assert result.stderr.count("\n") == 1


def test_ws4py(tmp_path: Path) -> None:
    """With what the example needs of it: the package is not maintained."""
    (tmp_path / "ws4py").mkdir()
    for name in ("__init__", "streaming"):
        (tmp_path / "ws4py" / f"{name}.py").touch()
    (tmp_path / "ws4py" / "framing.py").write_text("class Frame:\n    masking_key = None\n")
    check = (
        "frame = ws4py.framing.Frame()\n"
        "assert frame.mask(b'abc') == b'abc'\n"
        "frame.masking_key = b'\\1\\2\\3\\4'\n"
        "assert frame.unmask(frame.mask(b'abcde')) == b'abcde' != frame.mask(b'abcde')\n"
    )
    (tmp_path / "program.py").write_text(code("howto/wsaccel.md", "ws4py") + check)
    result = run(sys.executable, "-W", "error", "program.py", cwd=tmp_path)
    assert (result.returncode, result.stderr) == (0, "")


# In code ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "program",
    [
        pytest.param(code("howto/drop-in.md", "install"), id="install"),
        pytest.param(code("howto/drop-in.md", "installed"), id="installed"),
        pytest.param(code("howto/drop-in.md", "block"), id="block"),
        pytest.param(code("howto/aiohttp.md", "install"), id="aiohttp"),
        pytest.param(code("howto/aiohttp.md", "backend"), id="aiohttp-backend"),
        pytest.param(code("howto/autobahn.md", "install"), id="autobahn"),
        pytest.param(code("howto/tornado.md", "install"), id="tornado"),
        pytest.param(code("howto/websocket-client.md", "install"), id="websocket-client"),
        pytest.param(code("howto/websockets.md", "install"), id="websockets"),
        pytest.param(code("howto/websockets.md", "connections"), id="websockets-connections"),
        pytest.param(code("howto/wsaccel.md", "import"), id="wsaccel"),
        pytest.param(code("howto/wsproto.md", "install"), id="wsproto"),
    ],
)
def test_it_can_be_installed_in_code(program: str, tmp_path: Path) -> None:
    # The program is right if it ends without an exception: its assertions hold.
    result = run(sys.executable, "-c", program, cwd=tmp_path)
    assert (result.returncode, result.stderr) == (0, "")


# What all of them say ---------------------------------------------------------------------------

# The pages whose table begins like this one.
HEAD = "| Messages/s with fastws, relative to without |"
PAGES = [
    f"howto/{path.name}"
    for path in sorted((DOCS / "howto").glob("*.md"))
    if HEAD in path.read_text("utf-8")
]


@pytest.mark.parametrize("page", PAGES)
def test_the_figures_are_those_that_were_measured(page: str) -> None:
    measured = text("explanation/performance.md").splitlines()
    lines = text(page).splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith(HEAD))
    table = lines[start : lines.index("", start)]
    assert len(table) > 2
    assert [line for line in table if line not in measured] == []


def test_the_versions_are_those_of_the_table() -> None:
    rows = re.findall(r"^\| ([\w-]+) \| ([\d.]+) \| ([\d.]+) \|$", text("howto/drop-in.md"), re.M)
    assert rows == [(host.name, *host.tested) for host in HOSTS.values()]


def test_every_host_has_its_line_and_its_page() -> None:
    rows = re.findall(r"^\| .*\]\((\S+\.md)\).* \| `(.*)` \|$", text("howto/drop-in.md"), re.M)
    assert len(rows) == 13
    for page, line in rows:
        assert (DOCS / "howto" / page).exists()
        assert page in text("howto/index.md")
        named = re.search(r"--with (\w+) |integrations\.(\w+)", line)
        assert named is not None
        name = named[1] or named[2]
        assert (ROOT / "src" / "fastws" / "integrations" / f"{name}.py").exists()
        assert line.startswith("fastws run") is (named[1] is not None)
    lines = " ".join(line for _, line in rows)
    assert [name for name in HOSTS if not re.search(rf"\b{name}\b", lines)] == []


def test_what_fastws_run_prints(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text("import wsproto\n")
    result = run(*FASTWS, "run", "--with", "wsproto", "program.py", cwd=tmp_path)
    assert result.returncode == 0

    def shape(line: str) -> str:
        return re.sub(r"\d+(\.\d+)+|(?<=twin )\w+|(?<=kernel )\w+", "_", line)

    assert shape(result.stderr) == shape(code("howto/drop-in.md", "announcement"))
