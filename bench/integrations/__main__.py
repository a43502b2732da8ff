"""Each host without fastws and with it, under the load of bench.echo.

    python -m bench.integrations [--only NAME,…] [--workloads NAME,…] [--seconds S]
                                 [--rounds N] [--json FILE] [--markdown]

The application, the machine and the run are the same; only the line that installs fastws
differs. This module knows how to start each host; bench.echo does the measuring.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bench.echo.run import WORKLOADS
from bench.load import programs
from bench.load.frame import Bench, Results, Server, extra_server, run, say
from bench.load.programs import FailedError, MissingError

if TYPE_CHECKING:
    from collections.abc import Sequence

PYTHON = shlex.quote(sys.executable)
APPS = "bench.integrations.apps"
FASTAPI_APP = "bench.integrations.fastapi_app"
# Library-specific settings that are not about WebSockets.
UVICORN = "-m uvicorn %s:asgi --port {port} --log-level critical --no-access-log"
UVICORN += " --ws-ping-interval 3600 --ws-max-size 16777216 --ws-per-message-deflate false"
HYPERCORN = f"-m hypercorn {APPS}:asgi --bind 127.0.0.1:{{port}} --log-level critical"
GUNICORN = f"-m gunicorn -k asgi {APPS}:asgi -b 127.0.0.1:{{port}} --log-level critical"
ECHO = "-m bench.echo.servers %s --port {port}"
RUN = "-m fastws run --with %s -- %s"


@dataclass(frozen=True)
class Host:
    """A host, and how to start it without fastws and with it."""

    name: str
    stock: str
    with_fastws: str


def patched(name: str, command: str, integration: str) -> Host:
    """A host that has an integration with `install`."""
    return Host(name, command, RUN % (integration, command))


FASTAPI = UVICORN % FASTAPI_APP
UVICORN %= APPS
OURS = " --ws fastws.integrations.uvicorn:WebSocketProtocol"
HOSTS = [
    Host("FastAPI on uvicorn", FASTAPI, FASTAPI + OURS),
    Host("uvicorn", UVICORN, UVICORN + OURS),
    patched("uvicorn, `--ws wsproto`", UVICORN + " --ws wsproto", "wsproto"),
    patched("hypercorn", HYPERCORN, "wsproto"),
    patched("trio-websocket", f"-m {APPS} trio {{port}}", "wsproto"),
    patched("websockets", ECHO % "websockets", "websockets"),
    Host(
        "gunicorn, `-k asgi`",
        GUNICORN,
        GUNICORN.replace("-k asgi", "-c python:fastws.integrations.gunicorn -k asgi"),
    ),
    patched("autobahn", f"-m {APPS} autobahn {{port}}", "autobahn"),
    patched("tornado", ECHO % "tornado", "tornado"),
]
NAMES = ["50x16x32", "50x1x125", "10x4x16K", "4x2x1M-binary"]
WITH = ", with fastws"


def servers(hosts: Sequence[Host]) -> list[Server]:
    """Measure a host without fastws and with it, one after the other."""
    return [
        extra_server(name, f"{PYTHON} {command}")
        for host in hosts
        for name, command in ((host.name, host.stock), (host.name + WITH, host.with_fastws))
    ]


# The report -----------------------------------------------------------------------------


def rates(results: Results, workload: str, host: Host) -> tuple[float | None, float | None]:
    cells = results[workload]
    stock, ours = (
        cells[name].median("messages_per_second") for name in (host.name, host.name + WITH)
    )
    return stock, ours


def table(results: Results, hosts: Sequence[Host], workloads: Sequence[str]) -> str:
    head = "".join(f"{name:>28}" for name in workloads)
    lines = [f"{'messages/s, with fastws, ratio':<30}{head}"]
    for host in hosts:
        line = f"{host.name.replace('`', ''):<30}"
        for workload in workloads:
            stock, ours = rates(results, workload, host)
            if stock and ours:
                line += f"{stock:>10,.0f}{ours:>11,.0f}{ours / stock:>7.2f}"
            else:
                line += f"{'-':>28}"
        lines.append(line)
    lines += [
        f"  {name}, {workload}: {cell.problem.splitlines()[0]}"
        for workload in workloads
        for name, cell in results[workload].items()
        if cell.problem
    ]
    return "\n".join(lines)


def markdown(results: Results, hosts: Sequence[Host], workloads: Sequence[str]) -> str:
    """The table of the documentation: how many times as many messages fastws handles."""
    lines = [["With fastws, times as many messages", *workloads]]
    lines.append(["---", *["---:"] * len(workloads)])
    for host in hosts:
        ends = [rates(results, workload, host) for workload in workloads]
        cells = [f"{ours / stock:.2f}" if stock and ours else "" for stock, ours in ends]
        lines.append([host.name, *cells])
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


# The command line -----------------------------------------------------------------------


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bench.integrations",
        description="Measure hosts as they are against the same with fastws.",
    )
    names = ", ".join(host.name.replace("`", "") for host in HOSTS)
    parser.add_argument("--only", metavar="TEXT", help=f"hosts with this in their names: {names}")
    parser.add_argument("--workloads", metavar="NAME,…", default=",".join(NAMES))
    parser.add_argument("--seconds", type=float, default=0.7, help="for each measurement (0.7)")
    parser.add_argument("--rounds", type=int, default=3, help="the median of so many (3)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything to a file")
    parser.add_argument("--markdown", action="store_true", help="print it for the site, too")
    args = parser.parse_args()
    hosts = [host for host in HOSTS if not args.only or args.only in host.name]
    wanted = args.workloads.split(",")
    workloads = [workload for workload in WORKLOADS if workload.name in wanted]
    if not hosts or len(workloads) != len(wanted):
        parser.error("no such host or workload")
    try:
        programs.build_load("echo")
    except (MissingError, FailedError) as exc:
        say(f"the load client cannot be built: {exc}")
        return 1
    bench = Bench(programs.choose_cores(), None, args.seconds, 0.3)
    results = run(bench, servers(hosts), workloads, args.rounds)
    print(table(results, hosts, wanted))
    if args.markdown:
        print(f"\n{markdown(results, hosts, wanted)}")
    if args.json:
        content = {
            **programs.describe(),
            "results": {
                workload: {name: vars(cell) for name, cell in cells.items()}
                for workload, cells in results.items()
            },
        }
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(content, indent=1) + "\n")
    return int(any(cell.problem for cells in results.values() for cell in cells.values()))


if __name__ == "__main__":
    sys.exit(main())
