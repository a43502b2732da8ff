"""Results as text: tables of ratios, and the changes between two runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .payloads import size_name
from .results import NOISE_OF_ONE_ROUND

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from .results import Results

NAME_WIDTH = 34
CELL_WIDTH = 15
# A smaller change does not count, however quiet the machine was.
LEAST_CHANGE = 0.05


def time_text(ns: float) -> str:
    for unit, factor in (("s", 1e9), ("ms", 1e6), ("µs", 1e3)):
        if ns >= factor:
            return f"{ns / factor:.{0 if ns >= 100 * factor else 1}f} {unit}"
    return f"{ns:.{0 if ns >= 100 else 1 if ns >= 1 else 3}f} ns"


def ratio_text(ratio: float) -> str:
    return f"{ratio:.0f}x" if ratio >= 100 else f"{ratio:.2f}x" if ratio < 10 else f"{ratio:.1f}x"


def describe(results: Results) -> str:
    content = results.content
    versions = ", ".join(
        f"{name} {version}" for name, version in content["versions"].items() if version
    )
    lines = [
        f"{content['date']}  {content['cpu']}, {content['cores']} cores",
        versions,
        f"load: {' then '.join(f'{load:.2f}' for load in content['load'])}",
    ]
    return "\n".join(lines)


# Tables -------------------------------------------------------------------------------


def tables(results: Results) -> str:
    """For each operation and kind, the time that each contender needs for a message of each size.

    The ratio is to the best peer at that size: at 2, the contender is twice as fast.
    """
    sections = [_section(results, *group) for group in _groups(results)]
    sections += _server_sections(results)
    for operation, missing in results.content["missing"].items():
        lines = [f"{operation}: missing"]
        lines += [f"  {who:<{NAME_WIDTH}}{reason}" for who, reason in missing.items()]
        sections.append("\n".join(lines))
    for name in ("failed", "problems"):
        if found := results.content[name]:
            sections.append("\n  ".join([f"{name}:", *found]))
    return "\n\n".join(sections)


def _groups(results: Results) -> list[tuple[str, str]]:
    return list(dict.fromkeys((operation, kind) for operation, _, kind, _ in results.cases))


def _section(results: Results, operation: str, kind: str) -> str:
    found = [case for (o, _, k, _), case in results.cases.items() if (o, k) == (operation, kind)]
    sizes = sorted({case["size"] for case in found})
    best = {
        size: min(results.peers(operation, size, kind).values(), default=None) for size in sizes
    }
    header = " ".join(filter(None, [operation, kind]))
    names = "".join(f"{size_name(size) if size else '':>{CELL_WIDTH}}" for size in sizes)
    lines = [f"{header:<{NAME_WIDTH + 2}}{names}"]
    by_who: dict[str, dict[int, Any]] = {}
    for case in found:
        by_who.setdefault(case["who"], {})[case["size"]] = case
    for who, cases in by_who.items():
        line = f"  {who:<{NAME_WIDTH}}"
        for size in sizes:
            text = ""
            if size in cases:
                ns, peer = cases[size]["ns"], best[size]
                text = time_text(ns)
                if peer is not None:
                    text += f"{ratio_text(peer / ns):>7}"
            line += f"{text:>{CELL_WIDTH}}"
        lines.append(line)
    lines += [
        f"  {who:<{NAME_WIDTH}}missing"
        for who in results.content["missing"].get(operation, {})
        if who not in by_who
    ]
    return "\n".join(lines)


UNITS = {
    "messages_per_second": "messages/s",
    "handshakes_per_second": "handshakes/s",
    "deliveries_per_second": "deliveries/s",
    "kib_per_connection": "KiB/connection",
    "p99_us": "p99 µs",
}


def _server_sections(results: Results) -> Iterator[str]:
    workloads: dict[str, list[str]] = {}
    for workload, server in results.cells:
        workloads.setdefault(workload, []).append(server)
    for workload, servers in workloads.items():
        figure = results.cells[workload, servers[0]].get("figure", "messages_per_second")
        more = [key for key in ("p50_us", "p99_us", "max_us") if key != figure]
        heads = "".join(f"{key.replace('_us', ' µs'):>10}" for key in more)
        unit = UNITS.get(figure, figure)
        lines = [f"{workload:<{NAME_WIDTH + 2}}{unit:>{CELL_WIDTH}}{'x picows':>10}{heads}"]
        picows = results.rate(workload, "picows")
        for server in servers:
            number = results.rate(workload, server)
            if number is None:
                problem = results.cells[workload, server]["problem"] or "not measured"
                lines.append(f"  {server:<{NAME_WIDTH}}{problem.splitlines()[0]}")
                continue
            ratio = f"{number / picows:.2f}" if picows else ""
            line = f"  {server:<{NAME_WIDTH}}{number:>{CELL_WIDTH},.1f}{ratio:>10}"
            for key in more:
                value = results.median(workload, server, key)
                line += f"{'' if value is None else f'{value:,.0f}':>10}"
            lines.append(line.rstrip())
        yield "\n".join(lines)
    if clients := results.content["clients"]:
        sizes = list(dict.fromkeys(size for row in clients.values() for size in row))
        sizes = [size for size in sizes if size.isdecimal()]
        head = "".join(f"{size + ' B':>{CELL_WIDTH}}" for size in sizes)
        lines = [f"{'client, messages/s':<{NAME_WIDTH + 2}}{head}"]
        for name, row in clients.items():
            cells = "".join(
                f"{row[size]:>{CELL_WIDTH},.0f}" if size in row else f"{'-':>{CELL_WIDTH}}"
                for size in sizes
            )
            problem = row.get("missing") or row.get("error") or ""
            lines.append(f"  {name:<{NAME_WIDTH}}{cells}  {problem}".rstrip())
        yield "\n".join(lines)


# In the documentation -----------------------------------------------------------------

Column = tuple[str, str, float]  # a workload, a figure, and what to divide it by


def summary(results: Results) -> str:
    """Tables in Markdown, with what most people ask for."""
    tables = [
        _decode_table(results),
        _table(
            results,
            "Echo, messages/s, by connections x in flight x size",
            {
                name: (name, "messages_per_second", 1)
                for name in ("50x16x32", "50x1x125", "10x4x16K", "4x2x1M", "4x2x1M-binary")
            },
            [
                *_on_both_loops("fastws-callback", "fastws-coroutine", "picows"),
                "fastws-callback-uvloop-aiofastnet",
                *("aiohttp", "websockets", "tornado", "granian", "socketify"),
                *("uvicorn-websockets-uvloop", "fastws-uvicorn-uvloop"),
                *("node-ws", "beast", "uwebsockets"),
            ],
        ),
        _table(
            results,
            "Opening handshakes, 20 at a time",
            {
                "per second": ("handshakes-20", "handshakes_per_second", 1),
                "p50 ms": ("handshakes-20", "p50_us", 1000),
                "p99 ms": ("handshakes-20", "p99_us", 1000),
                "max ms": ("handshakes-20", "max_us", 1000),
                "with TLS, per second": ("tls-handshakes-20", "handshakes_per_second", 1),
                "p99 ms ": ("tls-handshakes-20", "p99_us", 1000),
            },
            [
                *_on_both_loops("fastws-callback", "picows"),
                *("fastws-coroutine", "aiohttp", "websockets", "granian"),
                *("uvicorn-websockets", "fastws-uvicorn", "uwebsockets"),
            ],
        ),
        _table(
            results,
            "100 bytes to each of 1,000 connections",
            {
                "deliveries/s, one message per turn of the loop": (
                    *("turns-1000x100", "deliveries_per_second"),
                    1,
                ),
                "deliveries/s, the next when all have it": (
                    *("rounds-1000x100", "deliveries_per_second"),
                    1,
                ),
                "p50 ms": ("rounds-1000x100", "p50_us", 1000),
                "p99 ms": ("rounds-1000x100", "p99_us", 1000),
            },
            [
                *_on_both_loops("fastws-send", "fastws-prepare", "picows"),
                "fastws-prepare-uvloop-aiofastnet",
                *("fastws-coroutine", "aiohttp", "websockets", "uwebsockets"),
            ],
        ),
        _table(
            results,
            "Latency in µs at a fixed rate, 50 connections, 125 B",
            {
                f"{rate:,}/s: {name}": (f"50x125@{rate}", key, 1)
                for rate in (10_000, 50_000)
                for name, key in (("p50", "p50_us"), ("p90", "p90_us"), ("p99", "p99_us"))
            },
            [
                *_on_both_loops("fastws-callback", "picows"),
                *("fastws-coroutine", "aiohttp", "websockets", "uwebsockets"),
            ],
        ),
        _table(
            results,
            "Every message to everybody, deliveries/s",
            {
                f"{workload[8:].split('x')[0]} clients": (workload, "deliveries_per_second", 1)
                for workload in ("contest-8x2500", "contest-16x1000", "contest-32x500")
            },
            [
                *_on_both_loops("fastws-uvicorn", "uvicorn-websockets"),
                *("granian-rsgi", "granian-asgi"),
            ],
        ),
        _client_table(results),
    ]
    return "\n".join(filter(None, tables))


def _on_both_loops(*names: str) -> list[str]:
    return [f"{name}{loop}" for name in names for loop in ("", "-uvloop")]


def _decode_table(results: Results) -> str:
    sizes = (16, 1 << 10, 16 << 10, 1 << 20)
    rows = {
        who: [results.ns("decode", size, "binary", who) for size in sizes]
        for who in (results.best, "fastws-py", "picows", "aiohttp", "websockets", "wsproto")
    }
    return _markdown("Decode a masked message, ns", map(size_name, sizes), rows)


def _table(results: Results, title: str, columns: dict[str, Column], servers: Iterable[str]) -> str:
    rows = {}
    absent = []
    for server in servers:
        values = [
            None if (value := results.median(workload, server, key)) is None else value / unit
            for workload, key, unit in columns.values()
        ]
        rows[server] = values
        problem = results.problem(server)
        if problem and not any(values):
            absent.append(f"`{server}` ({problem.splitlines()[0].removeprefix('n/a: ')})")
    text = _markdown(title, columns, rows)
    if text and absent:
        text += f"\nNot measured: {', '.join(absent)}.\n"
    return text


def _client_table(results: Results) -> str:
    clients = results.content["clients"]
    sizes = ("256", "8192", "100000")
    names = [
        *_on_both_loops("fastws-callback", "fastws-coroutine", "picows"),
        *("fastws-callback-aiofastnet", "fastws-callback-uvloop-aiofastnet"),
        *("websockets", "aiohttp", "websocket-rs", "websocket-rs-callback"),
    ]
    rows = {name: [clients.get(name, {}).get(size) for size in sizes] for name in names}
    text = _markdown(
        "Client, one message in flight, messages/s", ("256 B", "8 KiB", "100 kB"), rows
    )
    absent = [
        f"`{name}` ({clients[name]['missing'].removeprefix(f'{name} is missing: ')})"
        for name in names
        if "missing" in clients.get(name, {})
    ]
    if text and absent:
        text += f"\nNot measured: {', '.join(absent)}.\n"
    return text


def _markdown(title: str, heads: Iterable[str], rows: dict[str, list[float | None]]) -> str:
    """A table of the rows that have a figure, or nothing."""
    heads = list(heads)
    lines = [[title, *(head.strip() for head in heads)], ["---", *["---:"] * len(heads)]]
    lines += [[f"`{name}`", *map(_number, values)] for name, values in rows.items() if any(values)]
    if len(lines) == 2:
        return ""
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.{0 if value >= 10 else 1 if value >= 1 else 2}f}"


# Two runs -------------------------------------------------------------------------------


def compare(before: Results, after: Results) -> str:
    """The change of each case that is in both runs, marked if noise does not explain it."""
    lines = []
    for key, old in before.cases.items():
        if new := after.cases.get(key):
            operation, size, kind, who = key
            name = " ".join(filter(None, [operation, size_name(size) if size else "", kind]))
            lines.append(
                _change(name, who, old["ns"], new["ns"], old["noise"] + new["noise"], time_text)
            )
    for (workload, server), old in before.cells.items():
        new = after.cells.get((workload, server))
        if new is None or not old["rounds"] or not new["rounds"]:
            continue
        ends = [results.rate(workload, server) for results in (before, after)]
        noise = 0.0
        text: Callable[[float], str] = "{:,.2f}".format
        if workload != "idle":
            noise = _spread(old) + _spread(new)
        if not old.get("lower_is_better", workload == "idle"):
            # The time for each, so that more is always worse.
            ends = [1e9 / rate for rate in ends]
            text = time_text
        lines.append(_change(workload, server, *ends, noise, text))
    for name, row in before.content["clients"].items():
        for size in row:
            ends = [results.client_rate(name, size) for results in (before, after)]
            if size.isdecimal() and all(ends):
                times = [1e9 / rate for rate in ends]
                lines.append(
                    _change(f"client {size} B", name, *times, NOISE_OF_ONE_ROUND, time_text)
                )
    marked = sum(not line.endswith(" ") for line in lines)
    lines.append(f"{len(lines)} cases, {marked} of them changed by more than noise")
    return "\n".join(line.rstrip() for line in lines)


def _spread(cell: dict[str, Any]) -> float:
    key = cell.get("figure", "messages_per_second")
    rates = [round_[key] for round_ in cell["rounds"]]
    if len(rates) < 2:
        return NOISE_OF_ONE_ROUND
    return (max(rates) - min(rates)) / sum(rates) * len(rates) / 2


def _change(name: str, who: str, old: float, new: float, noise: float, text: Any) -> str:
    ratio = new / old
    mark = " "
    if max(ratio, 1 / ratio) > 1 + LEAST_CHANGE + noise:
        mark = "WORSE" if ratio > 1 else "better"
    return f"{name:<36} {who:<{NAME_WIDTH}}{text(old):>10} -> {text(new):>10}{ratio:>8.2f}  {mark}"
