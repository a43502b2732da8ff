"""Echo servers under load, and the memory they use per idle connection.

    python -m bench.echo [--quick] [--only NAME,…] [--workloads NAME,…] [--seconds S]
                         [--rounds N] [--json FILE] [--extra NAME=COMMAND]

This module knows the workloads, the order of the measurements, and the table. `servers` knows
what takes part, and `programs` how to start it; load.c does the measuring.
"""

from __future__ import annotations

import argparse
import json
import re
import shlex
import statistics
import subprocess
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import programs, servers
from .programs import Cores, FailedError, MissingError
from .servers import HOST

if TYPE_CHECKING:
    from collections.abc import Callable

    Command = Callable[[int, "Workload", tuple[str, str] | None], list[str]]

METHOD = """\
Each cell has a fresh server process, pinned to one core, and a load client in C, pinned to \
another. A round runs every workload against every server, one server after the other within \
a workload; the figures are medians over the rounds. Messages are counted after a warm-up; \
every reply is compared with what was sent. Latency is from the write of a message to the read \
of its reply. CPU is that of the process in the time measured, 100 % being one core. Memory is \
measured once: resident memory with the idle connections, less that without them, for each."""

DECLINED = 3  # load's exit status if the server does not compress as offered
IDLE_CONNECTIONS = 10_000
FILES_OF_ITS_OWN = 200  # files that a server may have open in addition to its connections
CLOSE_TIMEOUT = 30  # seconds for the load client to close all of them


@dataclass(frozen=True)
class Workload:
    """Connections x messages in flight on each connection x size."""

    name: str
    connections: int
    in_flight: int
    size: int
    text: bool = True
    tls: bool = False
    deflate: bool = False
    idle: bool = False

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


WORKLOADS = [
    Workload("1x1x32", 1, 1, 32),
    Workload("50x1x125", 50, 1, 125),
    Workload("50x16x32", 50, 16, 32),
    Workload("10x4x16K", 10, 4, 16 << 10),
    Workload("4x2x1M-binary", 4, 2, 1 << 20, text=False),
    Workload("1000x1x125", 1000, 1, 125),
    Workload("tls-50x1x125", 50, 1, 125, tls=True),
    Workload("tls-10x4x16K", 10, 4, 16 << 10, tls=True),
    Workload("deflate-50x1x1K", 50, 1, 1 << 10, deflate=True),
    Workload("idle", IDLE_CONNECTIONS, 1, 125, idle=True),
]
WARM_UP_IDLE = Workload("warm-up", 50, 1, 125)


@dataclass(frozen=True)
class Server:
    """Something that echoes.

    Attributes:
        command: starts it on a port for a workload, with a certificate and key; raises
            MissingError if it does not support that.
        peer: whether fastws is compared to it, as another server in Python.
        collects: whether SIGUSR2 makes it collect garbage.
    """

    name: str
    command: Command
    peer: bool = False
    collects: bool = True


@dataclass
class Cell:
    """The measurements of one server under one workload."""

    rounds: list[dict[str, Any]] = field(default_factory=list)
    problem: str | None = None

    def median(self, key: str) -> float | None:
        values = [round_[key] for round_ in self.rounds if round_.get(key) is not None]
        return statistics.median(values) if values else None


# Who takes part -------------------------------------------------------------------------


def our_options(workload: Workload, cert: tuple[str, str] | None) -> list[str]:
    """The options that all our servers share."""
    options = ["--deflate"] if workload.deflate else []
    if workload.tls:
        if cert is None:
            raise MissingError("no certificate: trustme is not installed")
        options += ["--tls", *cert]
    return options


def python_server(name: str) -> Server:
    def command(port: int, workload: Workload, cert: tuple[str, str] | None) -> list[str]:
        start = [sys.executable, "-m", "bench.echo.servers", name, "--port", str(port)]
        return start + our_options(workload, cert)

    return Server(name, command, peer=not name.startswith("fastws"))


def beast_server() -> Server:
    program, tls = programs.build_beast()

    def command(port: int, workload: Workload, cert: tuple[str, str] | None) -> list[str]:
        if workload.tls and not tls:
            raise MissingError("built without OpenSSL")
        return [str(program), str(port), *our_options(workload, cert)]

    return Server("beast", command)


def node_server() -> Server:
    place = programs.install_ws()
    script = str(programs.HERE / "node.mjs")

    def command(port: int, workload: Workload, cert: tuple[str, str] | None) -> list[str]:
        start = ["node", "--expose-gc", script, str(port), str(place)]
        return start + our_options(workload, cert)

    return Server("node-ws", command)


def extra_server(name: str, template: str) -> Server:
    def command(port: int, workload: Workload, cert: tuple[str, str] | None) -> list[str]:
        if workload.tls:
            raise MissingError("--extra is without TLS")
        return [part.replace("{port}", str(port)) for part in shlex.split(template)]

    return Server(name, command, collects=False)


REFERENCES = {"beast": beast_server, "node-ws": node_server}


def find_servers(only: list[str] | None, extra: dict[str, str]) -> list[Server]:
    found = [python_server(name) for name in servers.NAMES if only is None or name in only]
    for name, find in REFERENCES.items():
        if only is None or name in only:
            try:
                found.append(find())
            except (MissingError, FailedError) as exc:
                say(f"without {name}: {exc}")
    return found + [extra_server(name, template) for name, template in extra.items()]


# Measuring ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Bench:
    load: Path
    tls: bool
    cores: Cores
    cert: tuple[str, str] | None
    seconds: float
    warmup: float
    idle_connections: int

    def measure(self, server: Server, workload: Workload) -> dict[str, Any]:
        """One round of one cell."""
        if workload.tls and not self.tls:
            raise MissingError("the load client is built without OpenSSL")
        port = programs.free_port()
        command = server.command(port, workload, self.cert)
        with programs.running(command, port, self.cores.server) as process:
            if workload.idle:
                return self._measure_memory(server, port, process)
            result = self._put_load(workload, port, process.pid, self.seconds)
        for who in ("server_cpu", "cpu"):
            share = result[f"{who}_seconds"] / result["seconds"]
            result["load_cpu" if who == "cpu" else who] = round(100 * share, 1)
        return result

    def _put_load(self, workload: Workload, port: int, pid: int, seconds: float) -> dict[str, Any]:
        command = [str(self.load), HOST, str(port), *workload.arguments()]
        command += ["--seconds", str(seconds), "--warmup", str(self.warmup), "--pid", str(pid)]
        try:
            result = subprocess.run(
                command,
                capture_output=True,
                text=True,
                timeout=seconds + self.warmup + 140,
                preexec_fn=programs.on_core(self.cores.load),
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise FailedError("the load client hangs") from None
        if result.returncode == DECLINED:
            raise MissingError(result.stderr.strip().removeprefix("load: "))
        if result.returncode:
            raise FailedError(result.stderr.strip() or f"load: {result.returncode}")
        return json.loads(result.stdout)

    def _measure_memory(
        self, server: Server, port: int, process: subprocess.Popen
    ) -> dict[str, Any]:
        # What the first connections make it load and allocate must not count.
        self._put_load(WARM_UP_IDLE, port, process.pid, 1.0)
        before = self._settled_memory(server, process)
        command = [str(self.load), HOST, str(port), "--idle"]
        command += ["--connections", str(self.idle_connections)]
        load = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=programs.on_core(self.cores.load),
        )
        with load:
            assert load.stdin is not None
            assert load.stdout is not None
            assert load.stderr is not None
            try:
                # It gives up on its own before that.
                if load.stdout.readline() != "ready\n":
                    raise FailedError(load.stderr.read().strip() or "load ended")
                after = self._settled_memory(server, process)
                load.stdin.close()
                if load.wait(CLOSE_TIMEOUT):
                    raise FailedError(load.stderr.read().strip())
            except subprocess.TimeoutExpired:
                raise FailedError("the load client hangs") from None
            finally:
                load.kill()
        each = (after - before) / self.idle_connections / 1024
        return {"kib_per_connection": round(each, 3), "connections": self.idle_connections}

    @staticmethod
    def _settled_memory(server: Server, process: subprocess.Popen) -> int:
        if server.collects:
            programs.collect_garbage(process)
        return programs.resident(process.pid)


Results = dict[str, dict[str, Cell]]  # by workload, then by server


def run(bench: Bench, who: list[Server], workloads: list[Workload], rounds: int) -> Results:
    results: Results = {w.name: {server.name: Cell() for server in who} for w in workloads}
    for round_ in range(rounds):
        for workload in workloads:
            if workload.idle and round_:
                continue
            for server in who:
                cell = results[workload.name][server.name]
                if cell.problem is not None:
                    continue
                place = f"round {round_ + 1}/{rounds}  {workload.name:<16} {server.name:<27}"
                try:
                    result = bench.measure(server, workload)
                except MissingError as exc:
                    cell.problem = f"n/a: {exc}"
                except FailedError as exc:
                    cell.problem = f"FAILED: {exc}"
                else:
                    cell.rounds.append(result)
                say(f"{place} {cell.problem or brief(result)}")
    return results


def brief(result: dict[str, Any]) -> str:
    if "kib_per_connection" in result:
        return f"{result['kib_per_connection']:.2f} KiB"
    return (
        f"{result['messages_per_second']:>9.0f}/s  p99 {result['p99_us']:>8.0f} µs  "
        f"CPU {result['server_cpu']:.0f} % and {result['load_cpu']:.0f} %"
    )


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


# The report -----------------------------------------------------------------------------


def table(results: Results, who: list[Server], workloads: list[Workload]) -> str:
    return "\n\n".join(_section(w, results[w.name], who) for w in workloads)


def _section(workload: Workload, cells: dict[str, Cell], who: list[Server]) -> str:
    key = "kib_per_connection" if workload.idle else "messages_per_second"
    best = min if workload.idle else max
    rates = {name: value for name, cell in cells.items() if (value := cell.median(key))}
    peers = [rates[server.name] for server in who if server.peer and server.name in rates]
    references = [best(peers) if peers else None, rates.get("beast")]
    if workload.idle:
        columns = f"{'KiB/connection':>14}{'x best peer':>13}{'x beast':>9}"
    else:
        columns = (
            f"{'messages/s':>14}{'x best peer':>13}{'x beast':>9}{'MB/s':>9}"
            f"{'p50 µs':>9}{'p99 µs':>9}{'server':>9}{'load':>7}"
        )
    lines = [f"{workload.name:<28}{columns}"]
    ranked = sorted(cells, key=lambda name: rates.get(name, 0.0), reverse=not workload.idle)
    for name in ranked:
        cell = cells[name]
        if cell.problem is not None:
            lines.append(f"  {name:<26}  {cell.problem.splitlines()[0]}")
            continue
        if name not in rates:
            continue
        digits = 2 if workload.idle else 0
        line = f"  {name:<26}{rates[name]:>14,.{digits}f}"
        for width, reference in zip((13, 9), references, strict=True):
            line += f"{rates[name] / reference:>{width}.2f}" if reference else f"{'-':>{width}}"
        if not workload.idle:
            line += f"{cell.median('megabytes_per_second'):>9.1f}"
            line += f"{cell.median('p50_us'):>9.0f}{cell.median('p99_us'):>9.0f}"
            line += f"{cell.median('server_cpu'):>7.0f} %{cell.median('load_cpu'):>5.0f} %"
        lines.append(line)
    return "\n".join(lines)


def report(
    results: Results, who: list[Server], workloads: list[Workload], bench: Bench, rounds: int
) -> dict[str, Any]:
    cells = []
    for workload in workloads:
        for server in who:
            cell = results[workload.name][server.name]
            keys = sorted({key for round_ in cell.rounds for key in round_})
            cells.append(
                {
                    "workload": workload.name,
                    "server": server.name,
                    "problem": cell.problem,
                    "median": {key: cell.median(key) for key in keys},
                    "rounds": cell.rounds,
                }
            )
    return {
        **programs.describe(),
        "method": METHOD,
        "seconds": bench.seconds,
        "warmup": bench.warmup,
        "rounds": rounds,
        "server_core": bench.cores.server,
        "load_core": bench.cores.load,
        "workloads": [asdict(workload) for workload in workloads],
        "results": cells,
    }


# The command line -----------------------------------------------------------------------


def is_numbers(name: str) -> bool:
    return re.fullmatch(r"[1-9]\d*x[1-9]\d*x[1-9]\d*", name) is not None


def parse_arguments() -> argparse.Namespace:
    names = [*servers.NAMES, *REFERENCES]
    workload_names = [workload.name for workload in WORKLOADS]
    parser = argparse.ArgumentParser(
        prog="python -m bench.echo",
        description="Measure echo servers.",
        epilog=f"Servers: {', '.join(names)}. Workloads: {', '.join(workload_names)}.",
    )
    parser.add_argument("--quick", action="store_true", help="one short round, to see it work")
    parser.add_argument("--only", metavar="NAME,…", help="these servers")
    parser.add_argument(
        "--workloads", metavar="NAME,…", help="these workloads; CxMxB makes one of such numbers"
    )
    parser.add_argument("--seconds", type=float, help="for each measurement (3; quick: 0.5)")
    parser.add_argument("--warmup", type=float, help="seconds before it (0.5; quick: 0.2)")
    parser.add_argument("--rounds", type=int, help="the median of so many (3; quick: 1)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything to a file")
    parser.add_argument(
        "--extra",
        action="append",
        default=[],
        metavar="NAME=COMMAND",
        help="another server; {port} in its command is the port to listen on, at 127.0.0.1",
    )
    args = parser.parse_args()
    for option, plain, quick in (("seconds", 3.0, 0.5), ("warmup", 0.5, 0.2), ("rounds", 3, 1)):
        if getattr(args, option) is None:
            setattr(args, option, quick if args.quick else plain)
    args.only = args.only.split(",") if args.only else None
    if unknown := set(args.only or ()) - set(names):
        parser.error(f"unknown servers: {', '.join(sorted(unknown))}")
    chosen = args.workloads.split(",") if args.workloads else workload_names
    made = [Workload(name, *map(int, name.split("x"))) for name in chosen if is_numbers(name)]
    known = [*WORKLOADS, *(workload for workload in made if workload.name not in workload_names)]
    if unknown := set(chosen) - {workload.name for workload in known}:
        parser.error(f"unknown workloads: {', '.join(sorted(unknown))}")
    args.workloads = [workload for workload in known if workload.name in chosen]
    if not all("=" in text for text in args.extra):
        parser.error("--extra is NAME=COMMAND")
    args.extra = dict(text.split("=", 1) for text in args.extra)
    return args


def main() -> int:
    args = parse_arguments()
    try:
        load, tls = programs.build_load()
    except (MissingError, FailedError) as exc:
        say(f"the load client cannot be built: {exc}")
        return 1
    if not tls:
        say("without TLS: no OpenSSL headers (Debian: libssl-dev)")
    cores = programs.choose_cores()
    if cores.server is None:
        say("this machine has one core: server and load are in each other's way")
    wanted = IDLE_CONNECTIONS // 10 if args.quick else IDLE_CONNECTIONS
    idle_connections = min(wanted, programs.raise_file_limit() - FILES_OF_ITS_OWN)
    if idle_connections < wanted and any(workload.idle for workload in args.workloads):
        say(f"only {idle_connections} idle connections: the limit of open files is low")
    who = find_servers(args.only, args.extra)
    with programs.certificate() as cert:
        bench = Bench(load, tls, cores, cert, args.seconds, args.warmup, idle_connections)
        results = run(bench, who, args.workloads, args.rounds)
    print(table(results, who, args.workloads))
    if args.json:
        content = report(results, who, args.workloads, bench, args.rounds)
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(content, indent=2) + "\n")
    failed = any(
        cell.problem is not None and cell.problem.startswith("FAILED")
        for cells in results.values()
        for cell in cells.values()
    )
    return int(failed)
