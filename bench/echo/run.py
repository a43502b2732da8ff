"""Echo servers under load, and the memory they use per idle connection.

    python -m bench.echo [--quick] [--only NAME,…] [--workloads NAME,…] [--seconds S]
                         [--rounds N] [--json FILE] [--extra NAME=COMMAND]

This module knows the workloads. `servers`, `apps` and `references` know what takes part;
bench.load runs and measures it.
"""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from bench.load import frame, programs
from bench.load.frame import CPU, LATENCIES, Figure, Load, Suite, Workload, python_server, say
from bench.load.programs import HOST, FailedError

from . import servers
from .apps import APPS
from .references import REFERENCES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.load.frame import Bench, Running, Server

FILES_OF_ITS_OWN = 200  # files that a server may have open in addition to its connections
CLOSE_TIMEOUT = 30  # seconds for the load client to close all of them


@dataclass(frozen=True)
class Echo(Load):
    """Connections x messages in flight on each connection x size."""

    name: str
    connections: int
    in_flight: int
    size: int
    text: bool = True
    tls: bool = False
    deflate: bool = False

    client: ClassVar[str] = "echo"
    figures: ClassVar[Sequence[Figure]] = (
        Figure("messages_per_second", "messages/s", 14),
        Figure("megabytes_per_second", "MB/s", 9, 1),
        *LATENCIES,
        *CPU,
    )

    def arguments(self) -> list[str]:
        numbers = {
            "--connections": self.connections,
            "--in-flight": self.in_flight,
            "--size": self.size,
        }
        arguments = [part for pair in numbers.items() for part in map(str, pair)]
        arguments.append("--text" if self.text else "--binary")
        if self.tls:
            arguments.append("--tls")
        if self.deflate:
            arguments.append("--deflate")
        return arguments


@dataclass(frozen=True)
class Idle(Workload):
    """Connections that do nothing, and the server's memory for each.

    It is resident memory with the connections, less that without them.
    """

    name: str
    connections: int

    figures: ClassVar[Sequence[Figure]] = (Figure("kib_per_connection", "KiB/connection", 14, 2),)
    lower_is_better: ClassVar[bool] = True
    once: ClassVar[bool] = True

    def measure(self, bench: Bench, server: Server, running: Running) -> dict[str, Any]:
        wanted = self.connections // 10 if bench.quick else self.connections
        connections = min(wanted, programs.raise_file_limit() - FILES_OF_ITS_OWN)
        if connections < wanted:
            say(f"only {connections} idle connections: the limit of open files is low")
        # What the first connections make it load and allocate must not count.
        bench.put(WARM_UP, running, seconds=1.0)
        before = _settled_memory(server, running)
        program, _ = programs.build_load(Echo.client)
        command = [str(program), HOST, str(running.port), "--idle"]
        command += ["--connections", str(connections)]
        load = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=programs.on_core(bench.cores.load),
        )
        with load:
            assert load.stdin is not None
            assert load.stdout is not None
            assert load.stderr is not None
            try:
                # It gives up on its own before that.
                if load.stdout.readline() != "ready\n":
                    raise FailedError(load.stderr.read().strip() or "load ended")
                after = _settled_memory(server, running)
                load.stdin.close()
                if load.wait(CLOSE_TIMEOUT):
                    raise FailedError(load.stderr.read().strip())
            except subprocess.TimeoutExpired:
                raise FailedError("the load client hangs") from None
            finally:
                load.kill()
        each = (after - before) / connections / 1024
        return {"kib_per_connection": round(each, 3), "connections": connections}


def _settled_memory(server: Server, running: Running) -> int:
    if server.collects:
        programs.collect_garbage(running.process)
    return programs.resident(running.process.pid)


WARM_UP = Echo("warm-up", 50, 1, 125)
WORKLOADS = [
    Echo("1x1x32", 1, 1, 32),
    Echo("50x1x125", 50, 1, 125),
    Echo("50x16x32", 50, 16, 32),
    Echo("10x4x16K", 10, 4, 16 << 10),
    Echo("4x2x1M", 4, 2, 1 << 20),
    Echo("4x2x1M-binary", 4, 2, 1 << 20, text=False),
    Echo("1000x1x125", 1000, 1, 125),
    Echo("tls-50x1x125", 50, 1, 125, tls=True),
    Echo("tls-10x4x16K", 10, 4, 16 << 10, tls=True),
    Echo("deflate-50x1x1K", 50, 1, 1 << 10, deflate=True),
    Idle("idle", 10_000),
]


def make(name: str) -> Workload | None:
    """A workload of other numbers, with ASCII text."""
    if not re.fullmatch(r"[1-9]\d*x[1-9]\d*x[1-9]\d*", name):
        return None
    return Echo(name, *map(int, name.split("x")))


SERVERS = dict.fromkeys(servers.NAMES, python_server("bench.echo.servers")) | APPS | REFERENCES
SUITE = Suite(
    name="bench.echo",
    text="Measure echo servers.",
    servers=SERVERS,
    workloads=WORKLOADS,
    make=make,
    references=["beast", "uwebsockets"],
)


def main() -> int:
    return frame.main(SUITE)
