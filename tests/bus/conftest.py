"""Real brokers: a fixture starts each of them on a free port of 127.0.0.1.

Both are packages of Debian, which `.ci/run` installs. Without them, these tests fail.
"""

from __future__ import annotations

import shutil
import signal
import socket
import time
from importlib import import_module
from typing import TYPE_CHECKING, Any, Self

import pytest

from fastws import RetryPolicy

# What the tests of the asyncio layer have: each coroutine runs on asyncio's loop and on uvloop's.
from ..aio.conftest import (  # noqa: F401
    pytest_configure,
    pytest_generate_tests,
    pytest_pyfunc_call,
    runner,
    until,
    url,
)
from ..tools import TIMEOUT, Program, free_port

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

HOST = "127.0.0.1"


class Broker:
    """A broker, which can be killed and started again.

    Args:
        folder: where it keeps its files.
        more: further arguments.

    Attributes:
        url: its URL.
    """

    program: str
    package: str

    def __init__(self, folder: Path, *more: str) -> None:
        self.port = free_port()
        self.folder = folder
        self.more = more
        self._process: Program | None = None

    def arguments(self) -> list[str]:
        raise NotImplementedError

    def bus(self, **options: Any) -> Any:
        raise NotImplementedError

    def start(self) -> Self:
        path = shutil.which(self.program) or shutil.which(self.program, path="/usr/sbin:/usr/bin")
        if path is None:
            pytest.fail(
                f"no {self.program} here: apt-get install --no-install-recommends {self.package}"
            )
        self._process = Program(path, *self.arguments(), *self.more, cwd=self.folder)
        self._process.wait_for_port(self.port)
        return self

    def kill(self) -> None:
        if self._process is not None:
            self._process.__exit__()
            self._process = None

    def send_signal(self, number: int) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def freeze(self) -> None:
        """Have it read and answer nothing, with its connections open."""
        assert self._process is not None
        self._process.freeze()

    def thaw(self) -> None:
        """Have it go on."""
        self.send_signal(signal.SIGCONT)


class Redis(Broker):
    program, package, scheme = "redis-server", "redis-server", "redis"

    def arguments(self) -> list[str]:
        # What it has confirmed is in the file, and survives a kill.
        return ["--port", str(self.port), "--bind", HOST, "--save", "", "--appendonly", "yes"]

    @property
    def url(self) -> str:
        return f"{self.scheme}://{HOST}:{self.port}"

    def start(self) -> Self:
        super().start()
        # It listens before it has read its file.
        while self._ask(b"PING\r\n").startswith(b"-LOADING"):
            time.sleep(0.01)
        return self

    def _ask(self, command: bytes) -> bytes:
        with socket.create_connection((HOST, self.port), TIMEOUT) as sock:
            sock.sendall(command)
            try:
                return sock.recv(1000)
            except ConnectionResetError:
                return b""  # it speaks TLS

    def bus(self, **options: Any) -> Any:
        return import_module("fastws.bus.redis").RedisBus(self.url, **options)


class Nats(Broker):
    program, package = "nats-server", "nats-server"

    def arguments(self) -> list[str]:
        return ["--addr", HOST, "--port", str(self.port)]

    @property
    def url(self) -> str:
        return f"nats://{HOST}:{self.port}"

    def bus(self, **options: Any) -> Any:
        return import_module("fastws.bus.nats").NatsBus(self.url, **options)


BROKERS = {"redis": Redis, "nats": Nats}
# So that a test does not wait.
SOON = RetryPolicy(initial_delay=0.02, max_delay=0.02)


@pytest.fixture(scope="module", params=BROKERS)
def broker(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Broker]:
    """A broker of each kind, for all tests of a file."""
    yield from _running(BROKERS[request.param](tmp_path_factory.mktemp("broker")))


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    yield from _running(Redis(tmp_path_factory.mktemp("redis")))


def _running(broker: Broker) -> Iterator[Broker]:
    try:
        yield broker.start()
    finally:
        broker.kill()
