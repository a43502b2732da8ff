"""Real proxies: a fixture starts each of them on a free port of 127.0.0.1.

All of them but Twisted's are packages of Debian, which `.ci/run` installs. Without them, these
tests fail.
"""

from __future__ import annotations

import shutil
import socket
import sys
from contextlib import contextmanager
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

# What the tests of the asyncio layer have: each coroutine runs on asyncio's loop and on uvloop's.
from ..aio.conftest import (  # noqa: F401
    pytest_configure,
    pytest_generate_tests,
    pytest_pyfunc_call,
    runner,
    tls,
    until,
    url,
)
from ..tools import Program, free_port, optional

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

HOST = "127.0.0.1"
PACKAGES = {
    "tinyproxy": "tinyproxy-bin",
    "microsocks": "microsocks",
    "danted": "dante-server",
    "stunnel4": "stunnel4",
    "haproxy": "haproxy",
}
USER, PASSWORD = "us er", "p@ss:word"
CREDENTIALS = "us%20er:p%40ss%3Aword@"


@contextmanager
def reserved_port() -> Iterator[int]:
    """A port on which nobody listens, nor will: a server that gets any port cannot get this one."""
    with socket.socket() as sock:
        sock.bind((HOST, 0))
        yield sock.getsockname()[1]


@pytest.fixture
def unused_port() -> Iterator[int]:
    """A port on which nobody listens."""
    with reserved_port() as port:
        yield port


@contextmanager
def proxy(name: str, port: int, *args: str) -> Iterator[Program]:
    """Run a proxy until the end of the `with` block."""
    path = shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/bin")
    if path is None:
        pytest.fail(f"no {name} here: apt-get install --no-install-recommends {PACKAGES[name]}")
    with Program(path, *args) as program:
        program.wait_for_port(port)
        yield program


@pytest.fixture(scope="module")
def blocked() -> Iterator[int]:
    """A port to which the proxies with rules do not connect anybody."""
    with reserved_port() as port:
        yield port


def write(path: Path, text: str) -> str:
    path.write_text(text)
    return str(path)


@contextmanager
def configured_tinyproxy(folder: Path, more: str = "") -> Iterator[str]:
    """HTTP CONNECT: host:port."""
    port = free_port()
    text = f"Port {port}\nListen {HOST}\nTimeout 60\nMaxClients 50\n{more}"
    with proxy("tinyproxy", port, "-d", "-c", write(folder / "conf", text)):
        yield f"{HOST}:{port}"


@pytest.fixture(scope="module")
def tinyproxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """HTTP CONNECT, without authentication: host:port."""
    with configured_tinyproxy(tmp_path_factory.mktemp("tinyproxy")) as address:
        yield address


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """HTTP CONNECT, with authentication."""
    # (tinyproxy's configuration has no blanks in names and passwords.)
    folder = tmp_path_factory.mktemp("guarded")
    with configured_tinyproxy(folder, "BasicAuth user pass\n") as address:
        yield address


@pytest.fixture(scope="module")
def stunnel(
    guarded: str,
    tls: SimpleNamespace,  # noqa: F811
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[str]:
    """HTTP CONNECT with authentication, over TLS."""
    port = free_port()
    folder = tmp_path_factory.mktemp("stunnel")
    cert = write(folder / "cert.pem", tls.pem)
    text = (
        f"foreground = yes\npid =\n[proxy]\naccept = {HOST}:{port}\nconnect = {guarded}\n"
        f"cert = {cert}\n"
    )
    with proxy("stunnel4", port, write(folder / "conf", text)):
        yield f"{HOST}:{port}"


@pytest.fixture(scope="module")
def microsocks() -> Iterator[str]:
    """SOCKS5, without authentication."""
    port = free_port()
    with proxy("microsocks", port, "-i", HOST, "-p", str(port)):
        yield f"{HOST}:{port}"


@pytest.fixture(scope="module")
def guarded_socks() -> Iterator[str]:
    """SOCKS5, with authentication."""
    port = free_port()
    with proxy("microsocks", port, "-i", HOST, "-p", str(port), "-u", USER, "-P", PASSWORD):
        yield f"{HOST}:{port}"


@pytest.fixture(scope="module")
def dante(blocked: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """SOCKS4 and 5, without authentication, and with a rule. (It does not speak 4a.)"""
    port = free_port()
    text = (
        f"logoutput: stderr\ninternal: {HOST} port = {port}\nexternal: {HOST}\n"
        "clientmethod: none\nsocksmethod: none\n"
        "client pass { from: 0.0.0.0/0 to: 0.0.0.0/0 }\n"
        f"socks block {{ from: 0.0.0.0/0 to: {HOST}/32 port = {blocked} }}\n"
        "socks pass { from: 0.0.0.0/0 to: 0.0.0.0/0 }\n"
    )
    folder = tmp_path_factory.mktemp("dante")
    path = write(folder / "conf", text)
    with proxy("danted", port, "-f", path, "-p", str(folder / "pid")):
        yield f"{HOST}:{port}"


@pytest.fixture(scope="module")
def twisted() -> Iterator[str]:
    """SOCKS4 and 4a, without authentication."""
    optional("twisted")  # it comes with autobahn[twisted]
    port = free_port()
    options = ("socks", "--interface", HOST, "--port", str(port))
    with Program(sys.executable, "-m", "twisted", *options) as program:
        program.wait_for_port(port)
        yield f"{HOST}:{port}"


@pytest.fixture(scope="session")
def haproxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimpleNamespace]:
    """A proxy for servers, which tells them about clients: `port` listens for clients, by the
    option of HAProxy for the server, and `backend` is the port where that server must listen. The
    health checks of the proxy tell of no client. `program` is the proxy."""
    backend = free_port()
    ports = {"send-proxy": free_port(), "send-proxy-v2": free_port()}
    text = "global\n  maxconn 100\ndefaults\n  mode tcp\n  timeout connect 5s\n"
    text += "  timeout client 30s\n  timeout server 30s\n"
    for option, port in ports.items():
        text += (
            f"listen {option}\n  bind {HOST}:{port}\n"
            f"  server one {HOST}:{backend} {option} check inter 500 rise 1 fall 1000000\n"
        )
    path = write(tmp_path_factory.mktemp("haproxy") / "haproxy.cfg", text)
    with proxy("haproxy", ports["send-proxy"], "-db", "-f", path) as program:
        yield SimpleNamespace(port=ports, backend=backend, program=program)
