"""Results as text: tables of ratios, and the changes between two runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .payloads import size_name
from .results import NOISE_OF_ONE_ROUND

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from .results import Results

NAME_WIDTH = 26
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
    sections += _echo_sections(results)
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


def _echo_sections(results: Results) -> Iterator[str]:
    workloads: dict[str, list[str]] = {}
    for workload, server in results.cells:
        workloads.setdefault(workload, []).append(server)
    for workload, servers in workloads.items():
        unit, value = ("messages/s", results.rate)
        if workload == "idle":
            unit, value = "KiB/connection", lambda _, server: results.memory(server)
        lines = [f"{'echo ' + workload:<{NAME_WIDTH + 2}}{unit:>{CELL_WIDTH}}{'x picows':>10}"]
        picows = value(workload, "picows")
        for server in servers:
            number = value(workload, server)
            if number is None:
                problem = results.cells[workload, server]["problem"] or "not measured"
                lines.append(f"  {server:<{NAME_WIDTH}}{problem.splitlines()[0]}")
                continue
            ratio = f"{number / picows:.2f}" if picows else ""
            lines.append(f"  {server:<{NAME_WIDTH}}{number:>{CELL_WIDTH},.1f}{ratio:>10}")
        yield "\n".join(lines)
    if clients := results.content["clients"]:
        sizes = list(dict.fromkeys(size for row in clients.values() for size in row))
        sizes = [size for size in sizes if size != "error"]
        head = "".join(f"{size + ' B':>{CELL_WIDTH}}" for size in sizes)
        lines = [f"{'client, messages/s':<{NAME_WIDTH + 2}}{head}"]
        for name, row in clients.items():
            cells = "".join(
                f"{row[size]:>{CELL_WIDTH},.0f}" if size in row else f"{'-':>{CELL_WIDTH}}"
                for size in sizes
            )
            lines.append(f"  {name:<{NAME_WIDTH}}{cells}  {row.get('error', '')}".rstrip())
        yield "\n".join(lines)


# In the README ------------------------------------------------------------------------


def summary(results: Results) -> str:
    """Two tables in Markdown, with what most people ask for."""
    sizes = (16, 1 << 10, 16 << 10, 1 << 20)
    rows = {
        f"`{who}`": [results.ns("decode", size, "binary", who) for size in sizes]
        for who in (results.best, "fastws-py", "picows", "aiohttp", "websockets", "wsproto")
    }
    decode = _markdown("Decode a masked message, ns", map(size_name, sizes), rows)
    workloads = ("50x16x32", "50x1x125", "10x4x16K", "4x2x1M-binary")
    servers = ("fastws-callback", "fastws-coroutine", "picows", "aiohttp", "websockets")
    servers = [f"{server}{loop}" for server in servers for loop in ("", "-uvloop")]
    rows = {
        f"`{server}`": [results.rate(workload, server) for workload in workloads]
        for server in (*servers, "node-ws", "beast")
    }
    title = "Echo, messages/s, by connections x in flight x size"
    return f"{decode}\n{_markdown(title, workloads, rows)}"


def _markdown(title: str, heads: Iterable[str], rows: dict[str, list[float | None]]) -> str:
    heads = list(heads)
    lines = [[title, *heads], ["---", *["---:"] * len(heads)]]
    lines += [
        [name, *("" if value is None else f"{value:,.0f}" for value in values)]
        for name, values in rows.items()
        if any(values)
    ]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


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
        if workload == "idle":
            ends = [results.memory(server) for results in (before, after)]
            lines.append(_change("idle", server, *ends, 0.0, lambda kib: f"{kib:.2f} KiB"))
        else:
            # The time per message, so that more is always worse.
            ends = [1e9 / results.rate(workload, server) for results in (before, after)]
            noise = _spread(old) + _spread(new)
            lines.append(_change(f"echo {workload}", server, *ends, noise, time_text))
    for name, row in before.content["clients"].items():
        for size in row:
            ends = [results.client_rate(name, size) for results in (before, after)]
            if size != "error" and all(ends):
                times = [1e9 / rate for rate in ends]
                lines.append(
                    _change(f"client {size} B", name, *times, NOISE_OF_ONE_ROUND, time_text)
                )
    marked = sum(not line.endswith(" ") for line in lines)
    lines.append(f"{len(lines)} cases, {marked} of them changed by more than noise")
    return "\n".join(line.rstrip() for line in lines)


def _spread(cell: dict[str, Any]) -> float:
    rates = [round_["messages_per_second"] for round_ in cell["rounds"]]
    if len(rates) < 2:
        return NOISE_OF_ONE_ROUND
    return (max(rates) - min(rates)) / sum(rates) * len(rates) / 2


def _change(name: str, who: str, old: float, new: float, noise: float, text: Any) -> str:
    ratio = new / old
    mark = " "
    if max(ratio, 1 / ratio) > 1 + LEAST_CHANGE + noise:
        mark = "WORSE" if ratio > 1 else "better"
    return f"{name:<36} {who:<{NAME_WIDTH}}{text(old):>10} -> {text(new):>10}{ratio:>8.2f}  {mark}"
