"""The command line: real processes, real terminals, real signals."""

from __future__ import annotations

import asyncio
import errno
import multiprocessing
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading
from argparse import Namespace
from contextlib import ExitStack, suppress
from http.client import HTTPConnection, HTTPSConnection
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Self

import pytest
import websockets
from websockets.sync.client import connect as websockets_connect

import fastws
from fastws.cli import _workers, main

from .tools import (
    TIMEOUT,
    Background,
    Echo,
    Fastws,
    free_port,
    needs_uvloop,
    optional,
    require,
    run,
    run_fastws,
    wait_for_workers,
    wait_until_gone,
    workers_of,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    import trustme

posix = pytest.mark.skipif(os.name != "posix", reason="signals, terminals and fork are POSIX's")
BOTH_LOOPS = [[], pytest.param(["--uvloop"], marks=needs_uvloop)]
linux = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")


def connect(url: str, **options):
    # `proxy`: whatever the environment says, the tests connect to nothing else.
    return websockets_connect(url, proxy=None, open_timeout=TIMEOUT, **options)


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def ca() -> trustme.CA:
    ca: trustme.CA = optional("trustme").CA()
    return ca


@pytest.fixture(scope="module")
def certificate(ca: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """The files of a certificate for localhost and of its key."""
    folder = tmp_path_factory.mktemp("certificate")
    issued = ca.issue_cert("localhost", "127.0.0.1")
    issued.private_key_pem.write_to_path(folder / "key.pem")
    for pem in issued.cert_chain_pems:
        pem.write_to_path(folder / "cert.pem", append=True)
    return str(folder / "cert.pem"), str(folder / "key.pem")


@pytest.fixture
def ca_file(ca: trustme.CA, tmp_path: Path) -> str:
    ca.cert_pem.write_to_path(tmp_path / "ca.pem")
    return str(tmp_path / "ca.pem")


# What all commands share ----------------------------------------------------------------


@pytest.mark.parametrize("args", [("--version",), ("echo", "--help"), ("connect", "--help")])
def test_both_ways_to_run_it_are_the_same(args):
    script = Path(sys.executable).with_name("fastws")
    code = "import sys; from fastws.cli import main; sys.exit(main())"
    command = [str(script)] if script.exists() else [sys.executable, "-c", code]
    by_script = run(*command, *args)
    by_module = run_fastws(*args)
    assert (by_script.returncode, by_script.stderr) == (0, "")
    assert by_module.stdout == by_script.stdout
    assert by_module.stderr == by_script.stderr


def test_version(capsys):
    with pytest.raises(SystemExit) as exit_info:
        main(["--version"])
    assert exit_info.value.code == 0
    assert capsys.readouterr().out == f"fastws {fastws.__version__}\n"


def test_help_names_the_commands(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    assert re.findall(r"^    (\w+)\s", capsys.readouterr().out, re.MULTILINE) == [
        "run",
        "serve",
        "echo",
        "connect",
        "probe",
        "bench",
        "inspect",
        "info",
        "completion",
    ]


@pytest.mark.parametrize("command", ["echo", "connect", "bench", "inspect", "info", "completion"])
def test_help_has_an_example(command, capsys):
    with pytest.raises(SystemExit) as exit_info:
        main([command, "--help"])
    assert exit_info.value.code == 0
    assert f"\nexample:\n  fastws {command} " in capsys.readouterr().out


@pytest.mark.parametrize(
    "args",
    [
        [],
        ["talk"],
        ["echo", "--port", "http"],
        ["echo", "--port", "-1"],
        ["echo", "--port", "65536"],
        ["echo", "--workers", "0"],
        ["echo", "--max-message-size", "-1"],
        ["completion", "cmd.exe"],
        ["connect"],
        ["connect", "ws://localhost", "--header", "no colon"],
        ["connect", "ws://localhost", "--ca", "ca.pem", "--insecure"],
    ],
    ids=" ".join,
)
def test_usage_errors(args, capsys):
    with pytest.raises(SystemExit) as exit_info:
        main(args)
    assert exit_info.value.code == 2
    assert "usage: fastws" in capsys.readouterr().err


@pytest.mark.parametrize(
    "args", [["--help"], ["--version"], ["info"], ["run", "--help"]], ids=" ".join
)
def test_asyncio_is_imported_only_by_commands_that_need_it(args):
    code = (
        "import sys; from fastws.cli import main\n"
        "try: main(sys.argv[1:])\n"
        "except SystemExit: pass\n"
        "print({'asyncio', 'multiprocessing', 'fastws.aio'} & {*sys.modules}, file=sys.stderr)"
    )
    result = run(sys.executable, "-c", code, *args)
    assert (result.returncode, result.stderr) == (0, "set()\n")


@linux
def test_bash_completes_commands_options_and_files(tmp_path):
    optional("shtab")
    script = run_fastws("completion", "bash")
    assert (script.returncode, script.stderr) == (0, "")
    (tmp_path / "fastws.sh").write_text(script.stdout)
    (tmp_path / "chain.pem").touch()
    lines = ["ec", "echo --tls-c", "echo --tls-cert ch", "serve --unix ch", "completion z"]
    code = (
        "source ./fastws.sh; complete -p fastws >&2\n"
        "while read -a COMP_WORDS; do COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); COMPREPLY=()\n"
        '_shtab_fastws; echo "${COMPREPLY[@]}"; done'
    )
    result = run(
        require("bash", install="apt install bash"),
        "-c",
        code,
        input="".join(f"fastws {line}\n" for line in lines),
        cwd=tmp_path,
    )
    assert re.fullmatch(r"complete .*-F _shtab_fastws fastws\n", result.stderr)
    assert result.stdout.split("\n") == ["echo", "--tls-cert", "chain.pem", "chain.pem", "zsh", ""]


@pytest.mark.parametrize("shell", ["zsh", "fish", "tcsh"])
def test_scripts_for_other_shells(shell, tmp_path):
    optional("shtab")
    script = run_fastws("completion", shell)
    assert (script.returncode, script.stderr) == (0, "")
    for word in ("completion", "inspect", "tls-cert", "max-message-size"):
        assert word in script.stdout
    if shell != "tcsh" and (program := shutil.which(shell)) is not None:
        (tmp_path / "script").write_text(script.stdout)
        result = run(program, "-n", str(tmp_path / "script"))
        assert (result.returncode, result.stderr) == (0, "")


def test_no_shtab(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "shtab", None)
    assert failure(capsys, "completion", "bash") == (
        1,
        "fastws completion: shtab is not installed; pip install fastws-codec[cli] installs it\n",
    )


@posix
def test_printing_to_nobody(closed_pipe):
    result = run_fastws("info", stdout=closed_pipe)
    assert (result.returncode, result.stderr) == (1, "")


# fastws echo ------------------------------------------------------------------------------


@pytest.mark.parametrize("options", BOTH_LOOPS, ids=["asyncio", "uvloop"])
def test_echo(options):
    with Echo(*options) as server:
        assert re.fullmatch(
            r"fastws echo: ws://127\.0\.0\.1:(\d+) "
            r"\(and http://127\.0\.0\.1:\1 in a browser\), "
            f"twin {fastws.implementation}, kernel {fastws.kernel}",
            server.announcement,
        )
        assert server.port != 0
        with connect(server.url) as ws:
            for message in ("Hello Server!", "", b"\x00\xff", "é" * 70_000, bytes(1 << 20)):
                ws.send(message)
                assert ws.recv(TIMEOUT) == message
        assert ws.close_code == 1000
        assert server.stop() == 0
        assert server.errors == ""
        assert server.output.count("\n") == 1


@posix
@pytest.mark.parametrize(
    "options", [[], ["--inspect"], pytest.param(["--uvloop"], marks=needs_uvloop)], ids=" ".join
)
def test_a_terminal_shows_what_the_server_does(options, terminal):
    optional("rich")
    echo = terminal("echo", "--port", "0", *options, kind="xterm")
    echo.expect("fastws echo: ")
    echo.expect(" (")
    url = echo.before
    echo.expect("0 connections, 0 messages/s, 0.0 MB/s, 0 in all")
    with connect(url) as ws:
        ws.send("é" * 50_000)
        ws.send(bytes(100_000))
        for _ in range(2):
            ws.recv(TIMEOUT)
        echo.expect("1 connection, ")
        echo.expect(" MB/s, 2 in all")
        messages, _, size = echo.before.rpartition(" messages/s, ")
        assert int(messages) > 0
        assert float(size) > 0
    echo.expect("0 connections, 0 messages/s, 0.0 MB/s, 2 in all")
    echo.signal(signal.SIGINT)
    assert echo.wait() == 0
    echo.expect_end()
    assert echo.before.endswith("\x1b[2K")  # the line is gone


@posix
def test_the_status_line_leaves_the_terminal_to_a_shell(terminal):
    optional("rich")
    echo = terminal("echo", "--port", "0", kind="xterm", shell=True)
    echo.expect("\x1b[?25h")  # the cursor is there
    echo.expect(" in all")
    echo.type("\x1a")  # Ctrl-Z
    echo.expect("STOPPED")
    assert "\x1b[?25l" not in echo.before
    echo.type("\n")
    echo.expect("RESUMED")
    echo.expect(" in all")
    echo.type("\x03")  # Ctrl-C
    echo.expect("ENDED 0")


@posix
@pytest.mark.parametrize("kind", ["dumb", "xterm"])
def test_terminals_without_a_status_line(kind, terminal, tmp_path, monkeypatch):
    if kind == "xterm":
        (tmp_path / "rich.py").write_text("raise ImportError")
        monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    echo = terminal("echo", "--port", "0", kind=kind)
    echo.expect(f"kernel {fastws.kernel}\r\n")
    echo.signal(signal.SIGINT)
    assert echo.wait() == 0
    echo.expect_end()
    assert echo.before == ""


@posix
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_end_it_in_order(number):
    with Echo() as server, connect(server.url) as ws:
        assert server.stop(number) == 0
        assert server.errors == ""
        with pytest.raises(websockets.ConnectionClosedOK):
            ws.recv(TIMEOUT)
        assert ws.close_code == 1001


@posix
def test_a_signal_right_after_the_announcement():
    for _ in range(3):
        with Echo() as server:
            assert server.stop() == 0
            assert server.errors == ""


def test_max_message_size():
    with Echo("--max-message-size", "10") as server, connect(server.url) as ws:
        ws.send("0123456789")
        assert ws.recv(TIMEOUT) == "0123456789"
        ws.send("0123456789a")
        with pytest.raises(websockets.ConnectionClosedError):
            ws.recv(TIMEOUT)
        assert ws.close_code == 1009


@pytest.fixture
def _ipv6() -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("no IPv6 here")


@pytest.mark.usefixtures("_ipv6")
def test_every_address_is_announced():
    hosts = {info[4][0] for info in socket.getaddrinfo("localhost", 0)}
    with Echo("--host", "localhost") as server:
        urls = [server.url]
        while len(urls) < len(hosts):
            urls.append(server.line().split()[2])
        assert len(set(urls)) == len(hosts)
        for url in urls:
            with connect(url) as ws:
                ws.send(url)
                assert ws.recv(TIMEOUT) == url
        assert server.stop() == 0


@pytest.mark.usefixtures("_ipv6")
def test_ipv6():
    with Echo("--host", "::1") as server:
        assert server.url.startswith("ws://[::1]:")
        with connect(server.url) as ws:
            ws.send("six")
            assert ws.recv(TIMEOUT) == "six"


# What a browser gets ----------------------------------------------------------------------


def request(server: Echo, method: str, target: str, **options):
    connection = HTTPConnection("127.0.0.1", server.port, timeout=TIMEOUT)
    try:
        connection.request(method, target, **options)
        response = connection.getresponse()
        return response, response.read().decode()
    finally:
        connection.close()


@pytest.fixture(scope="module")
def server():
    with Echo() as server:
        yield server


def test_page(server):
    response, page = request(server, "GET", "/")
    assert response.status == 200
    assert response.headers["Content-Type"] == "text/html; charset=utf-8"
    assert response.headers["Cache-Control"] == "no-store"
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    # The page consists of files of this server, without exception.
    parts = dict(read_parts(server, page))
    assert {"page.css", "page.js", "connection.js"} <= parts.keys()
    assert "new WebSocket(" in parts["connection.js"]
    for text in (page, *parts.values()):
        assert "innerHTML" not in text
        assert not re.findall(r"(?:src|href|from|url\()[=(\s]*['\"]?(?:https?:)?//", text)
    assert not re.findall(r"<script>|<style>|\son[a-z]+=|style=", page)
    # The policy allows that, and nothing else.
    policy = dict(
        directive.split(" ", 1)
        for directive in response.headers["Content-Security-Policy"].split("; ")
    )
    assert policy == {
        "default-src": "'none'",
        "script-src": "'self'",
        "style-src": "'self'",
        "connect-src": "'self' ws: wss:",
        "img-src": "data:",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
    }


def read_parts(server: Echo, page: str) -> Iterator[tuple[str, str]]:
    """Fetch the style and the scripts that a page needs, and those that these import."""
    missing = re.findall(r'(?:src|href)="([a-z.]+)"', page)
    seen = set(missing)
    while missing:
        name = missing.pop()
        response, text = request(server, "GET", f"/{name}")
        assert response.status == 200, name
        kind = {"css": "text/css", "js": "text/javascript"}[name.rpartition(".")[2]]
        assert response.headers["Content-Type"] == f"{kind}; charset=utf-8"
        yield name, text
        more = set(re.findall(r"from '\./([a-z.]+)'", text)) - seen
        seen |= more
        missing += more


@pytest.mark.parametrize(
    ("method", "target", "status", "body"),
    [
        ("GET", "/?query", 200, None),
        ("HEAD", "/", 200, ""),
        ("GET", "/health", 200, "OK\n"),
        ("HEAD", "/health", 200, ""),
        ("GET", "/favicon.ico", 404, None),
        ("GET", "/health/", 404, None),
        ("POST", "/", 405, None),
    ],
)
def test_plain_http(server, method, target, status, body):
    response, content = request(server, method, target)
    assert response.status == status
    assert response.headers["Connection"] == "close"
    assert int(response.headers["Content-Length"]) > 0
    if body is not None:
        assert content == body
    if status == 405:
        assert response.headers["Allow"] == "GET, HEAD"


def test_bad_handshake_is_refused(server):
    response, _ = request(
        server, "GET", "/", headers={"Connection": "Upgrade", "Upgrade": "websocket"}
    )
    assert response.status == 400


def test_tls(certificate, ca):
    cert, key = certificate
    context = ssl.create_default_context()
    ca.configure_trust(context)
    with Echo("--tls-cert", cert, "--tls-key", key) as server:
        assert server.url.startswith("wss://127.0.0.1:")
        assert server.http.startswith("https://127.0.0.1:")

        # Not the client with threads: if two of them use one TLS connection, a message is lost now
        # and then, with any server.
        async def talk() -> None:
            async with websockets.connect(server.url, ssl=context, proxy=None) as ws:
                await ws.send("secret")
                assert await asyncio.wait_for(ws.recv(), TIMEOUT) == "secret"

        asyncio.run(talk())
        page = HTTPSConnection("127.0.0.1", server.port, timeout=TIMEOUT, context=context)
        page.request("GET", "/health")
        assert page.getresponse().read() == b"OK\n"
        page.close()
        assert server.stop() == 0
        assert server.errors == ""


def test_tls_with_all_in_one_file(certificate, tmp_path):
    both = tmp_path / "both.pem"
    both.write_text("".join(Path(name).read_text() for name in certificate))
    with Echo("--tls-cert", str(both)) as server:
        assert server.url.startswith("wss://")


# What keeps it from starting ----------------------------------------------------------------


def failure(capsys, *args: str) -> tuple[int, str]:
    """Run a command that fails; return its status and what it says: a line, and perhaps hints."""
    status = main(list(args))
    captured = capsys.readouterr()
    assert captured.out == ""
    _, *hints = captured.err.splitlines()
    assert all(hint.startswith("  ") for hint in hints)
    return status, captured.err


def test_port_in_use(server):
    result = run_fastws("echo", "--port", str(server.port))
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == (
        f"fastws echo: cannot listen on 127.0.0.1 port {server.port}: the port is in use\n"
    )


@pytest.mark.parametrize("options", [*BOTH_LOOPS, ["--workers", "2"]], ids=" ".join)
def test_address_of_another_machine(options, port):
    result = run_fastws("echo", "--host", "192.0.2.1", "--port", str(port), *options)
    assert (result.returncode, result.stdout) == (1, "")
    # What follows is the reason, in the words of asyncio or the system.
    assert result.stderr.startswith(f"fastws echo: cannot listen on 192.0.2.1 port {port}: ")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("host", ["x" * 70 + ".example", "a..b"])
@pytest.mark.parametrize("options", [[], ["--workers", "2"]], ids=" ".join)
def test_no_such_host(host, options, capsys):
    status, line = failure(capsys, "echo", "--host", host, *options)
    assert status == 1
    assert line.startswith(f"fastws echo: cannot listen on {host} port 8080: ")


def test_no_certificate_file(capsys, tmp_path, certificate):
    missing = str(tmp_path / "missing.pem")
    for cert, key in ((missing, certificate[1]), (certificate[0], missing)):
        assert failure(capsys, "echo", "--tls-cert", cert, "--tls-key", key) == (
            1,
            f"fastws echo: cannot read {missing}: {os.strerror(errno.ENOENT)}\n",
        )


def test_bad_certificate_files(capsys, tmp_path, certificate):
    cert, key = certificate
    nonsense = tmp_path / "nonsense.pem"
    nonsense.write_text("nonsense")
    other = tmp_path / "other.pem"
    optional("trustme").CA().private_key_pem.write_to_path(other)
    for args in ((str(nonsense), key), (cert, str(nonsense)), (cert, str(other))):
        status, line = failure(capsys, "echo", "--tls-cert", args[0], "--tls-key", args[1])
        assert status == 1
        assert line.startswith(
            f"fastws echo: not a certificate and its private key in PEM: {args[0]} {args[1]} ("
        )
        assert "_ssl.c" not in line


def test_key_without_certificate(capsys, certificate):
    assert failure(capsys, "echo", "--tls-key", certificate[1]) == (
        2,
        "fastws echo: --tls-key needs --tls-cert\n",
    )


def test_no_uvloop(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "uvloop", None)
    assert failure(capsys, "echo", "--uvloop") == (
        1,
        "fastws echo: uvloop is not installed; pip install fastws-codec[uvloop] installs it\n",
    )


# fastws echo --workers ------------------------------------------------------------------------


@posix
@pytest.mark.parametrize("options", BOTH_LOOPS, ids=["asyncio", "uvloop"])
def test_workers(options, port):
    with ExitStack() as stack:
        server = stack.enter_context(Echo("--workers", "2", *options, port=port))
        assert server.announcement.endswith(", workers 2")
        clients = [stack.enter_context(connect(server.url)) for _ in range(16)]
        for number, ws in enumerate(clients):
            ws.send(str(number))
            assert ws.recv(TIMEOUT) == str(number)
        assert server.stop() == 0
        assert server.errors == ""
        assert server.output.count("\n") == 1
        for ws in clients:
            with pytest.raises(websockets.ConnectionClosedOK):
                ws.recv(TIMEOUT)
            assert ws.close_code == 1001


@posix
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_all_processes_ends_workers_in_order(number, port):
    # What Ctrl-C does in a terminal, and systemd; the workers must not see it as two signals.
    with Echo("--workers", "2", port=port) as server, connect(server.url) as ws:
        os.killpg(server.pid, number)
        assert (server.wait(), server.errors) == (0, "")
        with pytest.raises(websockets.ConnectionClosed):
            ws.recv(TIMEOUT)
        assert ws.close_code == 1001


@linux
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV])
def test_a_worker_that_dies_is_replaced(number, port):
    with ExitStack() as stack:
        server = stack.enter_context(Echo("--workers", "3", port=port))
        first = wait_for_workers(server, 3, set())
        clients = [stack.enter_context(connect(server.url)) for _ in range(24)]
        os.kill(first[1], number)
        second = wait_for_workers(server, 3, {first[1]})
        (replacement,) = set(second) - set(first)
        # The clients of the other workers go on; almost certainly there are some.
        alive = []
        for ws in clients:
            with suppress(websockets.ConnectionClosed):
                ws.send("x")
                alive.append(ws.recv(TIMEOUT))
        assert alive
        # A worker that dies again and again is restarted after a delay.
        os.kill(replacement, signal.SIGKILL)
        third = wait_for_workers(server, 3, {replacement})
        stack.enter_context(connect(server.url)).send("x")
        assert server.stop() == 0
        fate = "exit status 0" if number == signal.SIGTERM else f"killed by {number.name}"
        expected = [
            rf"worker {first[1]} ended unexpectedly, {fate}; another one starts now",
            rf"worker {replacement} ended unexpectedly, killed by SIGKILL; another one starts .*",
        ]
        pattern = "".join(f"fastws echo: {line}\n" for line in expected)
        assert re.fullmatch(pattern, server.errors)
        wait_until_gone(third)


@linux
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_a_worker_is_to_be_replaced(number, port):
    with Echo("--workers", "2", port=port) as server:
        gone = set()
        for _ in range(3):
            # There is a delay before the third.
            (worker, other) = wait_for_workers(server, 2, gone)
            os.kill(worker, signal.SIGKILL)
            gone.add(worker)
        assert server.stop(number) == 0
        wait_until_gone([other])


@pytest.mark.skipif(sys.platform == "win32", reason="no --workers")
def test_the_time_before_a_worker_is_replaced(monkeypatch):
    monkeypatch.setattr(_workers._Worker, "start", lambda self: None)
    now = 100.0
    monkeypatch.setattr(_workers, "time", SimpleNamespace(monotonic=lambda: now))
    worker = _workers._Worker(None, None)
    worker._started = now
    assert [worker.died() for _ in range(8)] == [0, 1, 2, 4, 8, 16, 30, 30]
    assert worker.due == now + 30
    now += _workers._STEADY
    assert worker.died() == 0


@pytest.mark.skipif(sys.platform == "win32", reason="no --workers")
def test_a_worker_that_the_system_cannot_start_is_not_tried_all_the_time(monkeypatch):
    now = 100.0
    monkeypatch.setattr(_workers, "time", SimpleNamespace(monotonic=lambda: now))
    with monkeypatch.context() as patches:
        patches.setattr(_workers._Worker, "start", lambda self: None)
        worker = _workers._Worker(Namespace(), SimpleNamespace(serve=print))
    worker._started = now
    now += _workers._STEADY
    assert worker.died() == 0

    def fail(self):
        raise OSError(errno.EAGAIN, "no more processes")

    monkeypatch.setattr(multiprocessing.get_context("spawn").Process, "start", fail)
    for delay in (1, 2, 4):
        with pytest.raises(OSError, match="no more"):
            worker.start()
        assert worker.died() == delay


@posix
def test_no_worker_at_all(monkeypatch, capsys):
    def fail(self):
        raise OSError(errno.EAGAIN, "no more processes")

    monkeypatch.setattr(multiprocessing.get_context("spawn").Process, "start", fail)
    assert main(["echo", "--workers", "1", "--port", str(free_port())]) == 1
    why = os.strerror(errno.EAGAIN)
    assert capsys.readouterr().err == f"fastws echo: cannot start a worker: {why}\n"


@linux
def test_signals_without_a_name():
    killed = SimpleNamespace(exitcode=-(signal.SIGRTMIN + 1))
    assert _workers._fate(killed) == f"killed by signal {signal.SIGRTMIN + 1}"
    assert _workers._fate(SimpleNamespace(exitcode=-9)) == "killed by SIGKILL"


@linux
def test_workers_do_not_outlive_their_parent(port):
    with Echo("--workers", "2", port=port) as server, connect(server.url) as ws:
        workers = workers_of(server)
        assert workers
        assert server.stop(signal.SIGKILL) == -signal.SIGKILL
        wait_until_gone(workers)
        with pytest.raises(websockets.ConnectionClosedOK):
            ws.recv(TIMEOUT)
        assert ws.close_code == 1001


@posix
def test_workers_do_not_share_the_port_with_others(port):
    expected = f"fastws echo: cannot listen on 127.0.0.1 port {port}: the port is in use\n"
    with Echo("--workers", "2", port=port):
        for options in ([], ["--workers", "2"]):
            result = run_fastws("echo", "--port", str(port), *options)
            assert (result.returncode, result.stdout, result.stderr) == (1, "", expected)


def test_workers_need_a_port(capsys):
    status, line = failure(capsys, "echo", "--workers", "2", "--port", "0")
    assert (status, "--port" in line) == (2, True)


def test_workers_need_reuse_port(capsys, monkeypatch):
    monkeypatch.delattr(socket, "SO_REUSEPORT", raising=False)
    status, line = failure(capsys, "echo", "--workers", "2")
    assert (status, "SO_REUSEPORT" in line) == (1, True)


# fastws connect ---------------------------------------------------------------------------------


def test_binary(server):
    result = run_fastws("connect", server.url, "--binary", input="hä\n")
    assert (result.returncode, result.stdout) == (0, "binary, 3 bytes: 68 c3 a4\n")


def test_json(server):
    lines = ['{"a": [1, "ä"]}', "no JSON", "[" * 100_000]
    result = run_fastws("connect", server.url, "--json", input="\n".join(lines))
    assert result.stdout == '{\n  "a": [\n    1,\n    "ä"\n  ]\n}\n' + "\n".join(lines[1:]) + "\n"


def test_one():
    async def count(ws):
        for number in range(10):
            await ws.send(str(number))
        await ws.wait_closed()

    # The input goes on: it does not matter.
    with Background(count) as server, Fastws("connect", server.url, "--one") as client:
        assert client.line() == "0"
        assert client.wait() == 0
        assert client.output == "0\n"


def test_pings(server):
    with Fastws("connect", server.url, "--ping", "1") as client:
        client.wait_for_errors("pong after ")
        client.end_input()
        assert client.wait() == 0


def test_compression_is_offered_and_agreed_on(terminal):
    with Background(echo, deflate=True) as server:
        client = terminal("connect", server.url, "--deflate")
        client.expect("connected (permessage-deflate")
        client.type("hi\n\x04")
        assert client.wait() == 0


# The terminal is told to move to the right of it.
PROMPT = "\x1b[2C"


@posix
def test_lines_are_edited_and_called_up_again(server, terminal):
    optional("prompt_toolkit")
    client = terminal("connect", server.url, kind="xterm")
    client.expect("connected; ")
    client.expect(PROMPT)
    client.type("hello\r")
    client.expect("< hello")
    client.expect(PROMPT)
    client.type("\x1b[A world\r")  # up
    client.expect("< hello world")
    # What arrives is above the line that is typed.
    client.type("unfinished")
    client.expect("unfinished")
    client.type("\x15/ping\r")
    client.expect("pong after ")
    client.expect(PROMPT)
    client.type("\x04")
    client.expect("closed: 1000 normal_closure")
    assert client.wait() == 0
    assert client.is_canonical


@posix
@pytest.mark.parametrize("ends", ["client", "server"])
def test_the_end_of_an_edited_line(ends, terminal):
    optional("prompt_toolkit")

    async def wait(ws):
        async for _ in ws:
            await ws.close(4000, "enough")

    with Background(wait) as server:
        client = terminal("connect", server.url, kind="xterm")
        client.expect(PROMPT)
        if ends == "client":
            client.type("half a li\x03")
            assert client.wait() == 0
        else:
            client.type("x\r")
            client.expect("closed: 4000: enough")
            assert client.wait() == 1
    assert client.is_canonical


def test_piped_line(server):
    result = run_fastws("connect", server.url, input="hi\n")
    assert (result.returncode, result.stdout) == (0, "hi\n")
    assert result.stderr == "closed: 1000 normal_closure\n"


def test_last_line_without_its_end(server):
    result = run_fastws("connect", server.url, input="one\r\n\ntwo é")
    assert (result.returncode, result.stdout) == (0, "one\n\ntwo é\n")


def test_no_input(server):
    result = run_fastws("connect", server.url, input="")
    assert (result.returncode, result.stdout) == (0, "")


def test_slash_lines(server):
    result = run_fastws("connect", server.url, input="//\n///x\n//ping\n/ping\n")
    assert (result.returncode, result.stdout) == (0, "/\n//x\n/ping\n")
    assert re.fullmatch(r"pong after \d+\.\d ms\nclosed: 1000 normal_closure\n", result.stderr)


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("/pong", "unknown command: /pong; to send a line with a slash, begin with //"),
        ("/ping x", "unknown command: /ping x; to send a line with a slash, begin with //"),
        ("/close now", "not a close code: now"),
        (f"/close {'1' * 5000}", f"not a close code: {'1' * 5000}"),
        ("/close 1005", "close code 1005 may not be used in a close frame"),
        (f"/close 1000 {'x' * 124}", "close reason must be at most 123 bytes, not 124"),
    ],
)
def test_commands_that_make_no_sense(server, line, complaint):
    result = run_fastws("connect", server.url, input=f"a\n{line}\nb\n")
    assert (result.returncode, result.stdout) == (1, "a\nb\n")
    assert result.stderr == f"fastws connect: {complaint}\nclosed: 1000 normal_closure\n"


@pytest.mark.parametrize(
    ("line", "closed"),
    [
        ("/close", "1000 normal_closure"),
        ("/close 1001", "1001 going_away"),
        ("/close 4000", "4000"),
        ("/close 4001 see you  later", "4001: see you  later"),
    ],
)
def test_close_command(server, line, closed):
    result = run_fastws("connect", server.url, input=f"a\n/ping\n{line}\nb\n")
    assert (result.returncode, result.stdout) == (0, "a\n")
    assert result.stderr.endswith(f"\nclosed: {closed}\n")


def test_large_input(tmp_path):
    """More data than all buffers on the way hold, so that both directions have to wait."""
    lines = "".join(f"{number} {'x' * 1000}\n" for number in range(20_000))
    path = tmp_path / "lines"
    path.write_text(lines)
    with Echo() as server, path.open() as stdin:
        result = run_fastws("connect", server.url, stdin=stdin)
        assert (result.returncode, result.stderr) == (0, "closed: 1000 normal_closure\n")
        assert result.stdout == lines
        assert server.stop() == 0


def test_input_that_is_not_text(server):
    result = run_fastws(
        "connect",
        server.url,
        input=b"a\n\xff\nb\n",
        encoding=None,
        env=os.environ | {"PYTHONIOENCODING": "utf-8"},
    )
    assert (result.returncode, result.stdout) == (1, b"a\n")
    complaint, closed = result.stderr.splitlines()
    assert complaint.startswith(b"fastws connect: standard input: 'utf-8' codec can't decode")
    assert closed == b"closed: 1000 normal_closure"


async def say_hello(ws):
    await ws.send("text")
    await ws.send(b"")
    await ws.send(bytes(range(4)))
    await ws.send(bytes(33))
    await ws.close(1000, "that was all")


def test_what_arrives_is_printed():
    with Background(say_hello) as server, Fastws("connect", server.url) as client:
        assert client.wait() == 0
        zeros = " ".join(["00"] * 32)
        assert client.output.splitlines() == [
            "text",
            "binary, 0 bytes: ",
            "binary, 4 bytes: 00 01 02 03",
            f"binary, 33 bytes: {zeros} 00",
        ]
        assert client.errors == "closed: 1000 normal_closure: that was all\n"


# What a terminal would interpret or not show, and how it is displayed instead.
STRANGE = (
    "\x00\x07\x08\x0b\r\x1b]52;c;cm0gLXJm\x07\x1b[2J\x7f\x80\x90\x9b2J\x9c\x9d0;title\x9c"
    "\xad\u061c\u200b\u200e\u2028\u2029\u202e\u2066\u2069\u3164\ufeff\U000e0041\U000e0100\ufff9"
)
ESCAPED = (
    r"\x00\x07\x08\x0b\r\x1b]52;c;cm0gLXJm\x07\x1b[2J\x7f\x80\x90\x9b2J\x9c\x9d0;title\x9c"
    r"\xad\u061c\u200b\u200e\u2028\u2029\u202e\u2066\u2069\u3164\ufeff\U000e0041\U000e0100\ufff9"
)


def test_a_pipe_gets_all_as_it_is(tmp_path):
    blob = bytes(range(256)) * 1000

    async def send(ws):
        await ws.send(f"a\n{STRANGE}\n\tä€😀\\x1b")
        await ws.send(blob)
        await ws.close()

    with Background(send) as server:
        with (tmp_path / "out").open("wb") as stdout:
            result = run_fastws("connect", server.url, stdin=subprocess.DEVNULL, stdout=stdout)
        assert result.returncode == 0
        assert (tmp_path / "out").read_bytes().decode() == (
            f"a\n{STRANGE}\n\tä€😀\\x1b\nbinary, 256000 bytes: {blob.hex(' ')}\n"
        )


def test_output_that_cannot_be_written(server):
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("only Linux has a device that is full")
    with full.open("wb") as stdout:
        result = run_fastws("connect", server.url, input="hi\n", stdout=stdout)
        assert result.returncode == 1
        assert result.stderr.splitlines() == [
            "closed: 1000 normal_closure",
            f"fastws connect: standard output: {os.strerror(errno.ENOSPC)}",
        ]
        result = run_fastws("info", stdout=stdout)
        assert (result.returncode, result.stderr.count("\n")) == (1, 1)


@pytest.mark.parametrize(
    ("code", "reason", "status", "said"),
    [
        (1000, "", 0, "1000 normal_closure"),
        (1001, "", 0, "1001 going_away"),
        (1011, "it broke", 1, "1011 internal_error: it broke"),
        (4000, "\x1b[31m\n", 1, r"4000: \x1b[31m\n"),
        (None, "", 0, "1005 no_status_rcvd"),
    ],
)
def test_the_server_closes(code, reason, status, said):
    async def close(ws):
        await ws.close(code, reason)

    with Background(close) as server, Fastws("connect", server.url) as client:
        assert client.wait() == status
        closed, *facts = client.errors.rstrip("\n").split("; ")
        assert closed == f"closed: {said}"
        # The end that is expected needs no explanation.
        assert bool(facts) == bool(status)


@posix
def test_the_server_goes_without_a_word():
    with Echo() as server, Fastws("connect", server.url) as client:
        client.write("a\n")
        assert client.line() == "a"
        server.stop(signal.SIGKILL)
        assert client.wait() == 1
        closed, *facts = client.errors.rstrip("\n").split("; ")
        assert closed == "closed: 1006 abnormal_closure"
        assert facts[0] == "no close frame was sent or received"
        assert facts[-1].startswith("usually: the network failed")


def test_what_the_server_is_told():
    seen = []

    async def note(ws):
        seen.append(ws)

    with Background(note, subprotocols=["two"]) as server:
        args = ["--header", "X-One: 1", "--header", "X-Two:2", "--origin", "http://localhost"]
        result = run_fastws(
            "connect", server.url, *args, "--subprotocol", "one", "--subprotocol", "two", input=""
        )
    assert result.returncode == 0
    (ws,) = seen
    assert ws.request.headers["X-One"] == "1"
    assert ws.request.headers["X-Two"] == "2"
    assert ws.request.headers["Origin"] == "http://localhost"
    assert ws.request.headers["Sec-WebSocket-Protocol"] == "one, two"
    assert ws.subprotocol == "two"


def test_tls_trust(certificate, ca_file):
    cert, key = certificate
    with Echo("--tls-cert", cert, "--tls-key", key) as server:
        for trust in (["--ca", ca_file], ["--insecure"]):
            result = run_fastws("connect", server.url, *trust, input="hi")
            assert (result.returncode, result.stdout) == (0, "hi\n")
        result = run_fastws("connect", server.url, input="hi")
        assert (result.returncode, result.stdout) == (1, "")
        assert result.stderr.startswith(
            "fastws connect: cannot connect: the server's certificate is not trusted: "
        )
        assert result.stderr.endswith(
            "\n  --ca FILE trusts the certificates in a file, --insecure trusts any\n"
        )


def test_bad_ca_file(capsys, tmp_path):
    nonsense = tmp_path / "nonsense.pem"
    nonsense.write_text("nonsense")
    status, line = failure(capsys, "connect", "wss://localhost", "--ca", str(nonsense))
    assert (status, str(nonsense) in line) == (1, True)
    missing = tmp_path / "missing.pem"
    assert failure(capsys, "connect", "wss://localhost", "--ca", str(missing)) == (
        1,
        f"fastws connect: cannot read {missing}: {os.strerror(errno.ENOENT)}\n",
    )


@pytest.mark.parametrize(
    "args",
    [
        ["ftp://localhost"],
        ["ws://user:secret@"],
        ["ws://localhost", "--insecure"],
        ["ws://localhost", "--header", "a b: c"],
        ["ws://localhost", "--header", "Upgrade: h2c"],
        ["ws://localhost", "--subprotocol", "a b"],
        ["ws://localhost", "--origin", "a\nb"],
        ["ws://localhost", "--proxy", "http://user:secret@"],
    ],
    ids=" ".join,
)
def test_arguments_that_make_no_sense(args, capsys):
    status, line = failure(capsys, "connect", *args)
    assert status == 2
    assert line.startswith("fastws connect: ")
    assert "secret" not in line


class UnixEcho(Background):
    async def _serve(self):
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        async with fastws.serve(self._handler, **self._options):
            self._started.put(0)
            await self._stop.wait()


async def echo(ws):
    async for message in ws:
        await ws.send(message)


@posix
@pytest.mark.parametrize("by", ["uri", "option"])
def test_connecting_to_a_unix_socket(by, tmp_path):
    path = str(tmp_path / "s")
    with UnixEcho(echo, path=path):
        args = [f"ws+unix://{path}:/"] if by == "uri" else ["ws://localhost", "--unix", path]
        result = run_fastws("connect", *args, input="hi\n")
    assert (result.returncode, result.stdout) == (0, "hi\n")


@posix
def test_probing_a_server_at_a_unix_socket(tmp_path):
    path = str(tmp_path / "s")
    with UnixEcho(echo, path=path, deflate=True):
        result = run_fastws("probe", f"ws+unix://{path}:/")
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.endswith(" ok, 0 wrong, 0 skipped\n")


def test_refused_connection(capsys, port):
    hint = "  nothing listens at this address; is the server running?\n"
    assert failure(capsys, "connect", f"ws://127.0.0.1:{port}") == (
        1,
        f"fastws connect: cannot connect: {os.strerror(errno.ECONNREFUSED)}\n{hint}",
    )


def test_refused_connection_to_a_proxy(capsys, port):
    proxy = f"127.0.0.1:{port}"
    status, line = failure(capsys, "connect", "ws://localhost", "--proxy", f"socks5h://{proxy}")
    assert status == 1
    assert line.startswith(f"fastws connect: cannot connect: the proxy {proxy} cannot be reached: ")
    assert os.strerror(errno.ECONNREFUSED) in line or "Connect call failed" in line


def test_refused_handshake():
    body = "no \x1b[2J\n" + "line\n" * 20
    refusal = fastws.Response.text(body, 403, headers={"Location": "https://example.com/login"})
    with Background(say_hello, process_request=lambda _: refusal) as server:
        result = run_fastws("connect", server.url, input="")
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == (
        "fastws connect: cannot connect: server rejected the connection: HTTP 403\n"
        "  403 Forbidden\n"
        "  Location: https://example.com/login\n"
        "  no \\x1b[2J\n" + 9 * "  line\n" + "  ... and 11 lines more\n"
    )


@pytest.mark.parametrize(
    ("uri", "hint"),
    [
        ("localhost:8080/chat?a=b", "try ws://localhost:8080/chat?a=b"),
        ("localhost", "try ws://localhost"),
        ("ftp://localhost", None),
    ],
)
def test_an_address_without_a_scheme(uri, hint, capsys):
    status, output = failure(capsys, "connect", uri)
    assert status == 2
    assert output.splitlines()[1:] == ([] if hint is None else [f"  {hint}"])


def test_the_wrong_scheme(server, certificate, ca_file):
    rest = server.url.removeprefix("ws://")
    result = run_fastws("connect", f"wss://{rest}", input="")
    hint = f"  perhaps the server does not speak TLS: try ws://{rest}\n"
    assert result.stderr.endswith(hint)
    cert, key = certificate
    with Echo("--tls-cert", cert, "--tls-key", key) as server:
        rest = server.url.removeprefix("wss://")
        result = run_fastws("connect", f"ws://{rest}", input="")
    assert result.stderr.endswith(f"  perhaps the server speaks TLS: try wss://{rest}\n")


@posix
def test_interrupt():
    seen = []
    done = threading.Event()

    async def greet(ws):
        await ws.send("ready")
        await ws.wait_closed()
        seen.append(ws.close_code)
        done.set()

    with Background(greet) as server, Fastws("connect", server.url) as client:
        assert client.line() == "ready"
        # Its standard input is open, with nothing to read.
        assert client.stop(signal.SIGINT) == 0
        assert client.errors == "closed: 1000 normal_closure\n"
        assert done.wait(TIMEOUT)
        assert seen == [1000]


@posix
def test_answers_come_while_input_is_open(server):
    with Fastws("connect", server.url) as client:
        for line in ("one", "two"):
            client.write(f"{line}\n")
            assert client.line() == line
        client.end_input()
        assert client.wait() == 0


@posix
def test_conversation_that_nobody_reads(server, closed_pipe):
    result = run_fastws("connect", server.url, input="hi\n", stdout=closed_pipe)
    assert (result.returncode, result.stderr) == (1, "closed: 1000 normal_closure\n")


@posix
@pytest.mark.parametrize("ending", ["\x04", "\x03"], ids=["Ctrl-D", "Ctrl-C"])
def test_terminal(terminal, server, ending):
    client = terminal("connect", server.url)
    client.expect("connected; a line is a message")
    client.type("hello\n")
    client.expect("< hello")
    client.type("/nonsense\n")
    client.expect("unknown command")
    client.type(ending)
    client.expect("closed: 1000 normal_closure")
    # Users mistype.
    assert client.wait() == 0


@posix
def test_a_terminal_obeys_nothing_that_is_received(terminal):
    async def send(ws):
        await ws.send(f"{STRANGE}|")
        await ws.send("one\r\n\ttwo\nclosed: 1000 normal_closure\n|")
        await ws.send("ä€😀\u3000\N{VARIATION SELECTOR-16}\\x1b|")
        await ws.send(bytes(40))
        await ws.close(4000, "\x1b[2J\x9b\u202e")

    with Background(send) as server:
        client = terminal("connect", server.url)
        client.expect(f"< {ESCAPED}|\r\n")
        assert client.before.startswith("connected; ")
        client.expect("< one\\r\r\n  \ttwo\r\n  closed: 1000 normal_closure\r\n  |\r\n")
        client.expect("< ä€😀\u3000\N{VARIATION SELECTOR-16}\\x1b|\r\n")
        client.expect(f"< binary, 40 bytes: {' '.join(['00'] * 32)} ...\r\n")
        client.expect(r"closed: 4000: \x1b[2J\x9b\u202e")
        assert client.wait() == 1


@posix
@pytest.mark.parametrize("command", ["connect", "probe"])
def test_a_terminal_obeys_nothing_of_a_response(terminal, command):
    strange = STRANGE.encode().replace(b"\0", b"").replace(b"\r", b"")
    with TalkingServer(b"HTTP/1.1 403 %s\r\nX: %s\r\n\r\n%s" % ((strange,) * 3)) as server:
        client = terminal(command, server.url)
        client.expect("cannot connect: ")
        assert client.wait() == 1
        client.expect_end()
        assert not re.search(r"[^ -~\r\n]", client.before)


class TalkingServer:
    """Sends the same answer to every request."""

    def __init__(self, answer: bytes) -> None:
        self._answer = answer
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"ws://127.0.0.1:{self._socket.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve)

    def _serve(self) -> None:
        while True:
            client, _ = self._socket.accept()
            with client:
                client.settimeout(TIMEOUT)
                if not client.recv(65536):
                    return
                client.sendall(self._answer)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        # A client that says nothing ends it.
        socket.create_connection(self._socket.getsockname()).close()
        self._thread.join(TIMEOUT)
        self._socket.close()
        assert not self._thread.is_alive()


@posix
def test_long_lines_are_taken_whole(terminal):
    received = []

    async def note(ws):
        async for message in ws:
            received.append(message)
            await ws.send(f"got {len(message)}|")

    with Background(note) as server:
        client = terminal("connect", server.url)
        client.expect("connected")
        lines = ["x" * 100_000, "ä€😀" * 30_000, "last"]
        for line in lines:
            client.type(f"{line}\n")
            client.expect(f"< got {len(line)}|")
        client.type("\n".join([*lines, ""]))
        for line in lines:
            client.expect(f"< got {len(line)}|")
        client.type("\x04")
        assert client.wait() == 0
    assert received == lines * 2


@posix
def test_what_is_pasted_at_once_is_taken_whole(terminal):
    # Before the connection is open, and while the terminal shows nothing.
    received = []

    async def note(ws):
        received.append(await ws.recv())
        await ws.wait_closed()

    line = "y" * 100_000
    with Background(note) as server:
        client = terminal("connect", server.url)
        client.expect_settings(canonical=False)
        client.type_blindly(f"{line}\n")
        client.expect("connected")
        client.type("\x04")
        client.expect("closed: 1000 normal_closure")
        assert client.wait() == 0
    assert received == [line]


@posix
@pytest.mark.parametrize(
    ("typed", "sent"),
    [
        ("abc\x7f\x7fd", "ad"),
        ("ä€😀\x7f\x7f!", "ä!"),
        ("\x7f\x7fa", "a"),
        ("one two  \x17three", "one three"),
        ("one\x17\x17two", "two"),
        ("all\x15new", "new"),
        ("par\x04t\x12", "part"),
        ("\x1b[A\t\x01", "\x1b[A\t\x01"),
    ],
)
def test_lines_are_edited(terminal, server, typed, sent):
    client = terminal("connect", server.url)
    client.expect("connected")
    client.type(f"{typed}\n")
    shown = sent.replace("\x1b", r"\x1b").replace("\x01", r"\x01")
    client.expect(f"< {shown}\r\n")
    # Typed characters are shown and not interpreted, except for erasing.
    assert not re.search("[\x00-\x07\x0b\x0e-\x1f\x7f]", client.before)
    client.type("\x04")
    assert client.wait() == 0


@posix
def test_what_is_erased_is_not_seen_any_more(terminal, server):
    client = terminal("connect", server.url)
    client.expect("// for /")
    client.type("a漢\x1b\x7f\x7f\x7f")
    client.expect("a漢^[" + "\b \b" * 5)
    client.type("b\x12")
    client.expect("b^R\r\nb")
    client.type("\x04\x04")
    client.expect("< b")
    assert client.wait() == 0


@posix
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGINT])
def test_a_signal_sets_the_terminal_right(terminal, server, number):
    client = terminal("connect", server.url)
    client.expect("connected")
    before = client.settings
    assert not client.is_canonical
    client.signal(number)
    assert client.wait() == (0 if number == signal.SIGINT else -number)
    assert client.is_canonical
    assert client.settings != before


@posix
@pytest.mark.parametrize("how", ["close", "refused", "Ctrl-C", "Ctrl-D"])
def test_the_end_sets_the_terminal_right(terminal, how):
    async def play(ws):
        await ws.recv()
        await ws.close(1000)

    options = {}
    if how == "refused":
        options["process_request"] = lambda _: fastws.Response.text("no", 403)
    with Background(play, **options) as server:
        client = terminal("connect", server.url)
        first = client.settings
        if how != "refused":
            client.expect("connected")
            client.expect_settings(canonical=False)
            client.type({"Ctrl-C": "\x03", "Ctrl-D": "\x04"}.get(how, "x\n"))
        assert client.wait() == (1 if how == "refused" else 0)
        assert client.settings == first


@posix
def test_a_stopped_process_gives_the_terminal_back(terminal, server):
    client = terminal("connect", server.url, shell=True)
    client.expect("connected")
    client.type("\x1a")
    client.expect("STOPPED")
    assert client.is_canonical
    client.type("\n")
    client.expect("RESUMED")
    client.type("hello\n")
    client.expect("< hello")
    assert not client.is_canonical
    client.type("\x04")
    client.expect("ENDED 0")
    assert client.wait() == 0


@posix
def test_a_terminal_that_somebody_else_made_raw_stays_as_it_is(terminal, server):
    client = terminal("connect", server.url, setup="tty.setraw(0)")
    client.expect("connected")
    before = client.settings
    client.type("hello\n")
    client.expect("< hello")
    assert client.settings == before
    client.signal(signal.SIGINT)
    assert client.wait() == 0


@posix
def test_a_terminal_that_does_not_echo(terminal, server):
    setup = "a = termios.tcgetattr(0); a[3] &= ~termios.ECHO; termios.tcsetattr(0, 0, a)"
    client = terminal("connect", server.url, setup=setup)
    client.expect("// for /\r\n")
    client.type("hello\n")
    client.expect("< hello")
    assert client.before == ""
    client.type("\x04")
    assert client.wait() == 0
