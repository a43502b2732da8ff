"""How servers are measured: the rounds, the table, the file and the command line.

This module knows what all benchmarks of servers have in common. A `Suite` says who takes part and
what is done to them; `programs` knows how to build and start what takes part; the load clients in
C measure.
"""

from __future__ import annotations

import argparse
import json
import shlex
import statistics
import subprocess
import sys
from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from . import programs
from .programs import HOST, Cores, FailedError, MissingError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

METHOD = """\
Each cell has a fresh server process, pinned to one core, and a load client in C, pinned to \
another. A round runs every workload against every server, one server after the other within \
a workload; the figures are medians over the rounds. What arrives is compared with what was \
expected. CPU is that of the process in the time measured, 100 % being one core."""

DECLINED = 3  # a load client's exit status if the server does not do what was offered

Certificate = tuple[str, str]  # the paths of a certificate and its key


# What takes part ------------------------------------------------------------------------


@dataclass(frozen=True)
class Figure:
    """A column of the table: a key of what was measured, and how to show it."""

    key: str
    title: str
    width: int = 9
    digits: int = 0
    unit: str = ""

    def text(self, value: float | None) -> str:
        known = "-" if value is None else f"{value:,.{self.digits}f}{self.unit}"
        return f"{known:>{self.width}}"


CPU = (Figure("server_cpu", "server", 9, unit=" %"), Figure("load_cpu", "load", 7, unit=" %"))
LATENCIES = (Figure("p50_us", "p50 µs"), Figure("p99_us", "p99 µs"))


class Workload(ABC):
    """Something that is done to a server.

    Attributes:
        name: how to ask for it.
        tls: whether the server must have a certificate.
        deflate: whether the server must compress.
        figures: what is shown of it; servers are ranked by the first one.
        lower_is_better: of this figure.
        once: whether one round is enough.
    """

    name: str
    tls: bool = False
    deflate: bool = False
    figures: ClassVar[Sequence[Figure]]
    lower_is_better: ClassVar[bool] = False
    once: ClassVar[bool] = False

    def told(self) -> list[str]:
        """Return options for the server."""
        return []

    @abstractmethod
    def measure(self, bench: Bench, server: Server, running: Running) -> dict[str, Any]:
        """Return figures by key."""


class Load(Workload):
    """A workload that one load client puts on the server.

    Attributes:
        client: the name of its source.
    """

    client: ClassVar[str]

    @abstractmethod
    def arguments(self) -> list[str]:
        """The options of the load client."""

    def measure(self, bench: Bench, server: Server, running: Running) -> dict[str, Any]:
        return bench.put(self, running)


@dataclass(frozen=True)
class Server:
    """A program that takes part.

    Attributes:
        command: starts it on a port for a workload, with a certificate if there is one; raises
            MissingError if it does not support that.
        peer: whether fastws is compared to it, as another server in Python.
        collects: whether SIGUSR2 makes it collect garbage.
    """

    name: str
    command: Callable[[int, Workload, Certificate | None], list[str]]
    peer: bool = False
    collects: bool = True


@dataclass(frozen=True)
class Running:
    """A server process that listens."""

    port: int
    process: subprocess.Popen


@dataclass(frozen=True)
class Suite:
    """A benchmark: who takes part in what.

    Attributes:
        name: its module.
        text: what it is, in a sentence.
        servers: by name, what makes them; raises MissingError if that is impossible.
        workloads: the ones that run unless others are chosen.
        make: makes a workload of a name that is not in the list, or returns None.
        references: the servers, not in Python, that all are compared to.
    """

    name: str
    text: str
    servers: dict[str, Callable[[str], Server]]
    workloads: Sequence[Workload]
    make: Callable[[str], Workload | None] = lambda name: None
    references: Sequence[str] = ()


def server_options(workload: Workload, cert: Certificate | None) -> list[str]:
    """The options that all our servers share."""
    options = workload.told()
    if workload.deflate:
        options.append("--deflate")
    if workload.tls:
        if cert is None:
            raise MissingError("no certificate: trustme is not installed")
        options += ["--tls", *cert]
    return options


def python_server(module: str) -> Callable[[str], Server]:
    """Return what makes a server of a name that the module knows."""

    def make(name: str) -> Server:
        def command(port: int, workload: Workload, cert: Certificate | None) -> list[str]:
            start = [sys.executable, "-m", module, name, "--port", str(port)]
            return start + server_options(workload, cert)

        return Server(name, command, peer=not name.startswith("fastws"))

    return make


def extra_server(name: str, template: str) -> Server:
    def command(port: int, workload: Workload, cert: Certificate | None) -> list[str]:
        if workload.tls:
            raise MissingError("--extra is without TLS")
        size = str(getattr(workload, "size", 0))
        parts = shlex.split(template)
        command = [part.replace("{port}", str(port)).replace("{size}", size) for part in parts]
        # An older checkout must import itself, not the sources that our own servers get.
        return ["env", "-u", "PYTHONPATH", *command]

    return Server(name, command, collects=False)


# Measuring ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Bench:
    """How thorough a run is, and on what."""

    cores: Cores
    cert: Certificate | None
    seconds: float
    warmup: float
    quick: bool = False

    def measure(self, server: Server, workload: Workload) -> dict[str, Any]:
        """One round of one cell."""
        port = programs.free_port()
        command = server.command(port, workload, self.cert)
        with programs.running(command, port, self.cores.server) as process:
            return workload.measure(self, server, Running(port, process))

    def put(
        self, load: Load, running: Running, arguments: Sequence[str] = (), seconds: float = 0
    ) -> dict[str, Any]:
        """Run the load client."""
        program, tls = programs.build_load(load.client)
        if load.tls and not tls:
            raise MissingError("the load client is built without OpenSSL")
        seconds = seconds or self.seconds
        command = [str(program), HOST, str(running.port), *load.arguments(), *arguments]
        command += ["--seconds", str(seconds), "--warmup", str(self.warmup)]
        command += ["--pid", str(running.process.pid)]
        try:
            done = subprocess.run(
                command,
                capture_output=True,
                text=True,
                timeout=seconds + self.warmup + 140,
                preexec_fn=programs.on_core(self.cores.load),
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise FailedError("the load client hangs") from None
        if done.returncode == DECLINED:
            raise MissingError(done.stderr.strip().removeprefix("load: "))
        if done.returncode:
            raise FailedError(done.stderr.strip() or f"load: {done.returncode}")
        result = json.loads(done.stdout)
        for key, name in (("server_cpu_seconds", "server_cpu"), ("cpu_seconds", "load_cpu")):
            result[name] = round(100 * result[key] / result["seconds"], 1)
        return result


@dataclass
class Cell:
    """The measurements of one server under one workload."""

    rounds: list[dict[str, Any]] = field(default_factory=list)
    problem: str | None = None

    def median(self, key: str) -> float | None:
        values = [round_[key] for round_ in self.rounds if round_.get(key) is not None]
        return statistics.median(values) if values else None


Results = dict[str, dict[str, Cell]]  # by workload, then by server


def run(bench: Bench, who: Sequence[Server], workloads: Sequence[Workload], rounds: int) -> Results:
    results: Results = {w.name: {server.name: Cell() for server in who} for w in workloads}
    for round_ in range(rounds):
        for workload in workloads:
            if workload.once and round_:
                continue
            for server in who:
                cell = results[workload.name][server.name]
                if cell.problem is not None:
                    continue
                place = f"round {round_ + 1}/{rounds}  {workload.name:<20} {server.name:<34}"
                try:
                    result = bench.measure(server, workload)
                except MissingError as exc:
                    cell.problem = f"n/a: {exc}"
                except FailedError as exc:
                    cell.problem = f"FAILED: {exc}"
                else:
                    cell.rounds.append(result)
                say(f"{place} {cell.problem or brief(workload, result)}")
    return results


def brief(workload: Workload, result: dict[str, Any]) -> str:
    return "  ".join(
        f"{figure.title} {figure.text(result.get(figure.key)).strip()}"
        for figure in workload.figures
    )


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


# The report -----------------------------------------------------------------------------


def table(
    results: Results, who: Sequence[Server], workloads: Sequence[Workload], suite: Suite
) -> str:
    return "\n\n".join(_section(w, results[w.name], who, suite) for w in workloads)


def _section(
    workload: Workload, cells: dict[str, Cell], who: Sequence[Server], suite: Suite
) -> str:
    first, *others = workload.figures
    best = min if workload.lower_is_better else max
    rates = {name: value for name, cell in cells.items() if (value := cell.median(first.key))}
    peers = [rates[server.name] for server in who if server.peer and server.name in rates]
    ratios = {"x best peer": best(peers) if peers else None}
    ratios |= {f"x {name}": rates[name] for name in suite.references if name in rates}
    head = f"{first.title:>14}"
    head += "".join(f"{title:>{len(title) + 2}}" for title in ratios)
    head += "".join(f"{figure.title:>{figure.width}}" for figure in others)
    lines = [f"{workload.name:<36}{head}"]
    missing = 0.0 if best is max else float("inf")
    ranked = sorted(cells, key=lambda name: rates.get(name, missing), reverse=best is max)
    for name in ranked:
        cell = cells[name]
        if cell.problem is not None:
            lines.append(f"  {name:<34}  {cell.problem.splitlines()[0]}")
            continue
        if name not in rates:
            continue
        line = f"  {name:<34}{rates[name]:>14,.{first.digits}f}"
        for title, reference in ratios.items():
            ratio = f"{rates[name] / reference:.2f}" if reference else "-"
            line += f"{ratio:>{len(title) + 2}}"
        line += "".join(figure.text(cell.median(figure.key)) for figure in others)
        lines.append(line)
    return "\n".join(lines)


def report(
    results: Results,
    who: Sequence[Server],
    workloads: Sequence[Workload],
    bench: Bench,
    rounds: int,
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
                    "figure": workload.figures[0].key,
                    "lower_is_better": workload.lower_is_better,
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


def parse_arguments(suite: Suite) -> argparse.Namespace:
    names = {workload.name: workload for workload in suite.workloads}
    parser = argparse.ArgumentParser(
        prog=f"python -m {suite.name}",
        description=suite.text,
        epilog=f"Servers: {', '.join(suite.servers)}. Workloads: {', '.join(names)}.",
    )
    parser.add_argument("--quick", action="store_true", help="one short round, to see it work")
    parser.add_argument("--only", metavar="NAME,…", help="these servers")
    parser.add_argument(
        "--workloads", metavar="NAME,…", help="these workloads; other numbers may be in a name"
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
        help="another server; {port} in its command is the port to listen on, at 127.0.0.1, and "
        "{size} the size of the messages",
    )
    args = parser.parse_args()
    for option, plain, quick in (("seconds", 3.0, 0.5), ("warmup", 0.5, 0.2), ("rounds", 3, 1)):
        if getattr(args, option) is None:
            setattr(args, option, quick if args.quick else plain)
    args.only = args.only.split(",") if args.only else list(suite.servers)
    if unknown := set(args.only) - set(suite.servers):
        parser.error(f"unknown servers: {', '.join(sorted(unknown))}")
    chosen = args.workloads.split(",") if args.workloads else list(names)
    found = {name: names.get(name) or suite.make(name) for name in chosen}
    if unknown := [name for name, workload in found.items() if workload is None]:
        parser.error(f"unknown workloads: {', '.join(unknown)}")
    args.workloads = list(found.values())
    if not all("=" in text for text in args.extra):
        parser.error("--extra is NAME=COMMAND")
    args.extra = dict(text.split("=", 1) for text in args.extra)
    return args


def find_servers(suite: Suite, only: Sequence[str], extra: dict[str, str]) -> list[Server]:
    found = []
    for name, make in suite.servers.items():
        if name in only:
            try:
                found.append(make(name))
            except (MissingError, FailedError) as exc:
                found.append(_missing(name, str(exc)))
    return found + [extra_server(name, template) for name, template in extra.items()]


def _missing(name: str, reason: str) -> Server:
    """A server that is not available: its line in the table says why."""

    def command(port: int, workload: Workload, cert: Certificate | None) -> list[str]:
        raise MissingError(reason)

    return Server(name, command)


def main(suite: Suite) -> int:
    args = parse_arguments(suite)
    clients = {workload.client for workload in args.workloads if isinstance(workload, Load)}
    try:
        built = [programs.build_load(name) for name in sorted(clients)]
    except (MissingError, FailedError) as exc:
        say(f"a load client cannot be built: {exc}")
        return 1
    if not all(tls for _, tls in built):
        say("without TLS: no OpenSSL headers (Debian: libssl-dev)")
    cores = programs.choose_cores()
    if cores.server is None:
        say("this machine has one core: server and load are in each other's way")
    programs.raise_file_limit()
    who = find_servers(suite, args.only, args.extra)
    with programs.certificate() as cert:
        bench = Bench(cores, cert, args.seconds, args.warmup, args.quick)
        results = run(bench, who, args.workloads, args.rounds)
    print(table(results, who, args.workloads, suite))
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
