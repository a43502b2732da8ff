"""Run all benchmarks, one after the other, and write one file.

This module knows what a run consists of, how thorough its parts are, and how to show its
progress. The benchmarks are the cases of the codec (`test_*.py`) and those of servers, bench.echo
and others; they run in processes of their own, while this one sleeps.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from .contenders import BY_OPERATION, KERNELS
from .echo import client
from .load import programs
from .results import Results, read_cases

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from rich.progress import TaskID

ROOT = programs.ROOT
RESULTS = ROOT / "bench" / "results"

METHOD = """\
Codec: each case runs by pytest-benchmark for some tenths of a second, several messages at a \
time; the figure is the time of the fastest round, divided by the messages. A case that takes \
longer than its share is measured once. Payloads are from fixed seeds, and are decoded from \
reads of 64 KiB as a socket brings them. The copy into the buffer of picows, which the system \
makes for it, is not counted. A session and its peers have done the opening handshake; they get \
one message of 32 bytes in a read, or 16, and a session is driven as its documentation shows. \
Servers and clients: whole programs over the loopback interface, the server on one core, the load \
on another; medians of rounds (bench/echo/README.md)."""


# Plans ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Codec:
    """The cases of the codec, by pytest."""

    options: Sequence[str]


@dataclass(frozen=True)
class Servers:
    """One call of a benchmark of servers: bench.echo and the others that are like it."""

    module: str
    servers: Sequence[str]
    workloads: Sequence[str]
    seconds: float
    rounds: int = 1
    quick: bool = False

    @property
    def steps(self) -> int:
        return len(self.servers) * len(self.workloads) * self.rounds

    def arguments(self) -> list[str]:
        return [
            *("-m", self.module, *(["--quick"] if self.quick else [])),
            *("--only", ",".join(self.servers), "--workloads", ",".join(self.workloads)),
            *("--seconds", str(self.seconds), "--warmup", "0.2", "--rounds", str(self.rounds)),
        ]


@dataclass(frozen=True)
class Clients:
    """One call of bench.echo.client."""

    clients: Sequence[str]
    seconds: float
    rounds: int

    @property
    def steps(self) -> int:
        return len(self.clients) * len(client.SIZES) * self.rounds

    def arguments(self) -> list[str]:
        return [
            *("-m", "bench.echo.client", "--only", ",".join(self.clients)),
            *("--seconds", str(self.seconds), "--rounds", str(self.rounds)),
        ]


# How thorough a run is: its parts, by name.
Plan = dict[str, Codec | Servers | Clients]

_ON_ASYNCIO = [
    "fastws-callback",
    "fastws-coroutine",
    "picows",
    "websockets",
    "aiohttp",
    "beast",
]
_MANY = [
    *_ON_ASYNCIO,
    "fastws-callback-uvloop",
    "fastws-coroutine-uvloop",
    "fastws-callback-aiofastnet",
    "fastws-callback-uvloop-aiofastnet",
    "fastws-callback-py",
    "fastws-uvicorn-uvloop",
    "picows-uvloop",
    "uvicorn-websockets-uvloop",
    "uvicorn-wsproto",
    "tornado",
    "granian",
    "socketify",
    "node-ws",
    "uwebsockets",
]
_FEW = [
    *("fastws-callback", "fastws-callback-uvloop"),
    *("picows", "picows-uvloop", "websockets", "beast"),
]
_OTHERWISE = [
    *("fastws-callback", "fastws-callback-uvloop", "fastws-coroutine"),
    *("picows", "picows-uvloop", "websockets", "aiohttp", "node-ws", "uwebsockets"),
]
_ACCEPTING = [
    *("fastws-callback", "fastws-callback-uvloop", "fastws-coroutine"),
    *("picows", "picows-uvloop", "aiohttp", "websockets", "granian"),
    *("fastws-uvicorn", "uvicorn-websockets", "uwebsockets"),
]
_PACED = [
    *("fastws-callback", "fastws-callback-uvloop", "fastws-coroutine"),
    *("picows", "picows-uvloop", "aiohttp", "websockets", "uwebsockets"),
]
_SENDING = [
    *(f"{name}{loop}" for name in ("fastws-send", "fastws-prepare") for loop in ("", "-uvloop")),
    *("fastws-prepare-uvloop-aiofastnet", "fastws-coroutine"),
    *("picows", "picows-uvloop", "aiohttp", "websockets", "uwebsockets"),
]
_COMPETING = [
    *("fastws-uvicorn", "fastws-uvicorn-uvloop"),
    *("uvicorn-websockets", "uvicorn-websockets-uvloop", "granian-rsgi", "granian-asgi"),
]
_LOADS = ["50x16x32", "50x1x125", "10x4x16K", "4x2x1M", "4x2x1M-binary"]
_GROWTH = ["1x1x125", "10x1x125", "100x1x125", "1000x1x125"]
_CONTESTS = ["contest-8x2500", "contest-16x1000", "contest-32x500"]

FULL: Plan = {
    "codec": Codec(["--bench-seconds", "0.15"]),
    "echo": Servers("bench.echo", _MANY, _LOADS, seconds=0.7, rounds=3),
    "growth": Servers("bench.echo", _ON_ASYNCIO, _GROWTH, seconds=0.7),
    "idle": Servers("bench.echo", [*_ON_ASYNCIO, "granian", "uwebsockets"], ["idle"], seconds=0.7),
    "otherwise": Servers(
        "bench.echo", _OTHERWISE, ["tls-50x1x125", "tls-10x4x16K", "deflate-50x1x1K"], seconds=0.7
    ),
    "handshakes": Servers(
        "bench.handshakes",
        _ACCEPTING,
        ["handshakes-20", "tls-handshakes-20"],
        seconds=0.5,
        rounds=3,
    ),
    "fanout": Servers(
        "bench.fanout", _SENDING, ["turns-1000x100", "rounds-1000x100"], seconds=0.7, rounds=3
    ),
    "paced": Servers(
        "bench.paced", _PACED, ["50x125@10000", "50x125@50000"], seconds=1.0, rounds=3
    ),
    "contest": Servers("bench.contest", _COMPETING, _CONTESTS, seconds=0.3),
    "clients": Clients(client.NAMES, seconds=0.4, rounds=3),
}
QUICK: Plan = {
    "codec": Codec(["--bench-seconds", "0.04", "--bench-quick"]),
    "echo": Servers("bench.echo", _FEW, _LOADS, seconds=0.4, quick=True),
    "idle": Servers(
        "bench.echo", ["fastws-callback", "fastws-coroutine"], ["idle"], seconds=0.4, quick=True
    ),
    "handshakes": Servers(
        "bench.handshakes", ["fastws-callback", "picows"], ["handshakes-20"], 0.4, quick=True
    ),
    "fanout": Servers(
        "bench.fanout",
        ["fastws-send", "fastws-prepare", "picows"],
        ["turns-1000x100"],
        seconds=0.4,
        quick=True,
    ),
    "clients": Clients(list(client.CLIENTS), seconds=0.2, rounds=1),
}


# Running --------------------------------------------------------------------------------


@dataclass
class Runner:
    progress: Progress
    directory: Path
    problems: list[str]

    def run(
        self, arguments: Sequence[str], task: TaskID, step: Callable[[str], float | None]
    ) -> int:
        """Run Python; `step` returns the progress that a line of output shows, or None."""
        process = subprocess.Popen(
            [sys.executable, *arguments],
            cwd=ROOT,
            env={**programs.child_environment(), "PYTHONUNBUFFERED": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        tail = ""
        try:
            assert process.stdout is not None
            for line in process.stdout:
                if (done := step(line)) is not None:
                    self.progress.update(task, completed=done)
                tail = line.strip() or tail
            status = process.wait()
        finally:
            process.kill()
            process.wait()
        if status:
            self.problems.append(f"{' '.join(arguments[:3])}: exit status {status}: {tail}")
        return status

    def codec(self, arguments: Sequence[str]) -> tuple[list[dict[str, Any]], list[str]]:
        """Return the cases of the codec, and those that failed."""
        task = self.progress.add_task("codec", total=100)
        file = self.directory / "codec.json"
        failed: list[str] = []

        def step(line: str) -> float | None:
            if line.startswith(("FAILED ", "ERROR ")):
                failed.append(line.strip())
            found = re.search(r"\[ *(\d+)%\]$", line)
            return float(found[1]) if found else None

        command = [
            "-m",
            "pytest",
            "bench",
            "-v",
            "-rfE",
            "-p",
            "no:cacheprovider",
            "-o",
            "addopts=",
        ]
        # No tables: they would be as long as our whole output.
        command += ["--import-mode=importlib", "--benchmark-quiet", "--benchmark-columns=min"]
        self.run([*command, f"--benchmark-json={file}", *arguments], task, step)
        return (read_cases(file) if file.exists() else []), failed

    def counted(self, name: str, call: Servers | Clients) -> Any:
        """Return the results of a call that prints a line for each step."""
        task = self.progress.add_task(name, total=call.steps)
        file = self.directory / f"{name}.json"
        count = 0

        def step(line: str) -> float | None:
            nonlocal count
            count += line.startswith("round ")
            return count

        self.run([*call.arguments(), "--json", str(file)], task, step)
        self.progress.update(task, completed=call.steps)
        return json.loads(file.read_text())["results"] if file.exists() else None


def missing() -> dict[str, dict[str, str]]:
    """The contenders that cannot take part in an operation, and why."""
    found = {
        operation: {who.name: who.missing for who in contenders if who.missing}
        for operation, contenders in BY_OPERATION.items()
    }
    return {operation: reasons for operation, reasons in found.items() if reasons}


def measure(plan: Plan, parts: Collection[str], *, keyword: str = "") -> Results:
    """Run parts of the plan."""
    # Do this first: the results are about the code that was measured, not what was committed
    # meanwhile.
    about = programs.describe()
    load_before = os.getloadavg()[0]
    columns = [
        TextColumn("{task.description:<22}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
    ]
    console = Console(stderr=True)
    problems: list[str] = []
    cases: list[dict[str, Any]] = []
    failed: list[str] = []
    cells: list[dict[str, Any]] = []
    clients: dict[str, Any] = {}
    with (
        tempfile.TemporaryDirectory() as directory,
        # Update rarely, because the other core is in use.
        Progress(*columns, TimeElapsedColumn(), console=console, refresh_per_second=1) as progress,
    ):
        runner = Runner(progress, Path(directory), problems)
        for name, part in plan.items():
            if name not in parts:
                continue
            if isinstance(part, Codec):
                chosen = ["-k", keyword] if keyword else []
                cases, failed = runner.codec([*part.options, *chosen])
            elif isinstance(part, Servers):
                cells += runner.counted(name, part) or []
            else:
                clients = runner.counted(name, part) or {}
    return Results(
        {
            **about,
            "method": METHOD,
            "quick": plan is QUICK,
            "load": [round(load_before, 2), round(os.getloadavg()[0], 2)],
            "kernels": list(KERNELS),
            "cases": cases,
            "missing": missing(),
            "failed": failed,
            "echo": cells,
            "clients": clients,
            "problems": problems,
        }
    )


def save(results: Results, path: Path | None = None) -> Path:
    """Write the results, to a file named after the day and the commit if no other is given."""
    content = results.content
    commit = (content["versions"].get("commit") or "unknown")[:20]
    quick = "-quick" if content["quick"] else ""
    path = path or RESULTS / f"{content['date'][:10]}-{commit}{quick}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1) + "\n")
    return path
