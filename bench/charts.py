"""Results as charts, in SVG, for README.md and the documentation.

This module knows matplotlib and which lines are worth drawing. The same results give the same
files. They have no background, and colours that can be distinguished on white and on black; a
chart with much text is drawn for both.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from .payloads import SIZES, TEXTS, size_name
from .report import time_text

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.axes import Axes

    from .results import Results

    Series = dict[str, list[tuple[float, float]]]  # name: points

GREY = "#808080"
COLOURS = {
    "picows": "#d1743b",
    "aiohttp": "#3f9d4e",
    "websockets": "#b05cc6",
    "websockets-py": "#b05cc6",
    "wsproto": "#c9a227",
    "websocket-client": "#d05070",
    "websocket-client+wsaccel": "#d05070",
    "wsaccel": "#c9a227",
    "nvx": "#d1743b",
    "bytes.decode": "#3f9d4e",
    "unmask+bytes.decode": "#3f9d4e",
    "memcpy": GREY,
    "tornado": "#8a6d3b",
    "beast": "#20a4a4",
    "uvicorn-websockets-uvloop": "#d05070",
}
PEERS, CPP = "#9a8f97", "#20a4a4"
OURS = ["#2f81f7", "#5a9bf5", "#86b6f6", "#7f9fd0"]
DASHED = {"websockets-py", "websocket-client", "fastws-py", "memcpy"}

STYLE: dict[str, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "fastws",
    "font.size": 9,
    "text.color": GREY,
    "axes.labelcolor": GREY,
    "axes.edgecolor": GREY,
    "axes.facecolor": "none",
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "grid.color": GREY,
    "grid.alpha": 0.25,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "savefig.transparent": True,
}

INKS = {"light": "#1f2328", "dark": "#e6edf3"}  # the colour of text, by the background


def inked(colour: str) -> dict[str, Any]:
    """A style with text in this colour."""
    return dict.fromkeys(["text.color", "axes.labelcolor", "xtick.color", "ytick.color"], colour)


WORKLOADS = {
    "50x16x32": "50 clients, 16 small messages in flight each (32 bytes)",
    "50x1x125": "50 clients, one small message in flight each (125 bytes)",
    "10x4x16K": "10 clients, 4 messages of 16 KiB in flight each",
    "4x2x1M": "4 clients, 2 texts of 1 MiB in flight each",
}
ECHO_LABELS = {
    "fastws-callback": "fastws, callbacks",
    "fastws-coroutine": "fastws, coroutines",
    "fastws-uvicorn": "fastws in uvicorn (ASGI)",
    "uvicorn-websockets": "uvicorn (ASGI)",
    "picows": "picows, callbacks",
    "aiohttp": "aiohttp, coroutines",
    "websockets": "websockets, coroutines",
    "granian": "Granian, coroutines",
    "socketify": "socketify, callbacks",
    "node-ws": "ws (Node.js)",
    "beast": "Boost.Beast (C++)",
    "uwebsockets": "uWebSockets (C++)",
}
# Event loops and transports, at the end of a server's name.
VARIANTS = ("", "-uvloop", "-aiofastnet", "-uvloop-aiofastnet")
SERVERS = ["fastws-callback", "fastws-coroutine", "picows", "websockets", "aiohttp", "beast"]
CONNECTIONS = [1, 10, 100, 1000]


def draw(results: Results, directory: Path) -> list[Path]:
    """Draw the charts that the results allow; return the files."""
    directory.mkdir(parents=True, exist_ok=True)
    charts = {"decode": _decode, "utf8": _utf8, "growth": _growth}
    drawn = [(name, chart, STYLE) for name, chart in charts.items()]
    # The text of these is much to read, so they have a file for each background.
    for theme, ink in INKS.items():
        drawn.append((f"echo-{theme}", _echo, STYLE | inked(ink)))
        drawn.append((f"readme-{theme}", _readme, STYLE | inked(ink)))
    written = []
    for name, chart, style in drawn:
        with mpl.rc_context(style):
            figure = chart(results)
            if figure is not None:
                written.append(_save(figure, directory / f"{name}.svg", _footer(results)))
    return written


def _save(figure: Figure, path: Path, footer: str) -> Path:
    figure.text(0.995, 0.005, footer, ha="right", va="bottom", fontsize=7)
    # The file does not say when and by what it was created.
    figure.savefig(path, format="svg", metadata={"Date": None, "Creator": None})
    # matplotlib writes trailing spaces.
    path.write_text(re.sub(r"[ \t]+$", "", path.read_text(), flags=re.MULTILINE))
    return path


def _footer(results: Results) -> str:
    content = results.content
    versions = content["versions"]
    when = f"{content['date'][:10]} · {content['cpu']} · CPython {versions['python']}"
    return f"{when} · fastws {versions.get('commit') or ''}".rstrip()


# What is drawn ------------------------------------------------------------------------


def _decode(results: Results) -> Figure | None:
    series = _times(results, "decode", "binary", lambda size, ns: ns)
    if not series:
        return None
    figure, [axes] = _panels(1, 4.6)
    _lines(results, axes, series)
    axes.set_title("Decoding masked binary messages: time for each, by size")
    axes.set_xlabel("payload")
    _sizes(axes, series)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda ns, _: time_text(ns)))
    _legend(axes)
    return figure


def _utf8(results: Results) -> Figure | None:
    size = 64 << 10
    rates: dict[str, list[float]] = {}
    for (operation, s, kind, who), case in results.cases.items():
        if (operation, s) == ("validate", size) and kind in TEXTS:
            rates.setdefault(who, [0.0] * len(TEXTS))[TEXTS.index(kind)] = size / case["ns"]
    if not rates:
        return None
    figure, [axes] = _panels(1, 3.8)
    _bars(results, axes, TEXTS, rates)
    axes.set_title(f"Validating {size_name(size)} of UTF-8, by kind of text")
    axes.set_ylabel("GB/s, on a logarithmic scale")
    axes.yaxis.set_major_formatter(FuncFormatter(lambda rate, _: f"{rate:g}"))
    _legend(axes)
    return figure


def _echo(results: Results) -> Figure | None:
    panels = {
        title: rates
        for workload, title in WORKLOADS.items()
        if (rates := _echo_rates(results, workload))
    }
    if not panels:
        return None
    rows = max(len(rates) for rates in panels.values())
    figure = Figure(figsize=(8.6, 0.7 + 0.205 * rows * ((len(panels) + 1) // 2)))
    figure.set_layout_engine("constrained", rect=(0, 0.03, 1, 0.97), h_pad=0.1, w_pad=0.08)
    figure.suptitle(
        "Echo servers on one core, each on its fastest event loop: messages per second", fontsize=11
    )
    axes = figure.subplots((len(panels) + 1) // 2, 2, squeeze=False).flat
    for one, (title, rates) in zip(axes, panels.items(), strict=False):
        _ranking(one, title, rates)
    for one in list(axes)[len(panels) :]:
        one.set_visible(False)
    return figure


def _readme(results: Results) -> Figure | None:
    """The first chart that anybody sees: one workload, and words instead of abbreviations."""
    rates = _echo_rates(results, "50x16x32")
    if not rates:
        return None
    # Narrow, so that a phone need not shrink it much.
    figure = Figure(figsize=(5.4, 0.95 + 0.22 * len(rates)))
    figure.set_layout_engine("constrained", rect=(0, 0.06, 1, 0.94), h_pad=0.08)
    figure.suptitle(
        f"Messages that an echo server answers per second\n{WORKLOADS['50x16x32']}",
        x=0.01,
        ha="left",
        fontsize=9,
    )
    _ranking(figure.subplots(), "", rates)
    return figure


def headline(results: Results) -> str:
    """Say what the first chart shows, in the sentences that README.md begins with; and what is
    left of it if each client waits for its answer."""
    names = ("fastws-callback", "fastws-coroutine", "picows", "aiohttp", "websockets")
    labels = [ECHO_LABELS[name] for name in names]
    many, one = (_echo_rates(results, workload) for workload in ("50x16x32", "50x1x125"))
    if not (many.keys() >= {*labels} and one.keys() >= {*labels}):
        return ""
    ours, coroutines, *others = (_short(many[label]) for label in labels)
    our_one, one_coroutine, *other_ones = (_short(one[label]) for label in labels)
    loop = max(VARIANTS, key=lambda more: results.rate("50x16x32", f"{names[0]}{more}") or 0)
    parts = ["callbacks", *loop.split("-")[1:]]
    how = " and ".join([", ".join(parts[:-1]), parts[-1]]) if len(parts) > 1 else parts[0]
    return (
        f"On one core, with {how}, its echo server answers **{ours}** small messages per\n"
        f"second from 50 clients that keep 16 in flight each ({coroutines} with coroutines). "
        f"picows answers {others[0]}, aiohttp\n{others[1]} and websockets {others[2]}. "
        f"With one in flight each, the figures are {our_one} ({one_coroutine}), {other_ones[0]},\n"
        f"{other_ones[1]} and {other_ones[2]}.\n"
    )


def _echo_rates(results: Results, workload: str) -> dict[str, float]:
    """The fastest event loop and transports of each server, the fastest server first."""
    rates: dict[str, float] = {}
    for server, label in ECHO_LABELS.items():
        variants = [server + more for more in VARIANTS]
        known = [rate for name in variants if (rate := results.rate(workload, name))]
        if known:
            rates[label] = max(known)
    return dict(sorted(rates.items(), key=lambda item: item[1], reverse=True))


def _ranking(axes: Axes, title: str, rates: dict[str, float]) -> None:
    colours = [
        OURS[0] if label.startswith("fastws") else CPP if label.endswith("(C++)") else PEERS
        for label in rates
    ]
    bars = axes.barh(range(len(rates)), list(rates.values()), 0.74, color=colours)
    axes.bar_label(bars, [_short(rate) for rate in rates.values()], padding=3, fontsize=8)
    axes.set_yticks(range(len(rates)), list(rates))
    for label in axes.get_yticklabels():
        label.set_fontweight("bold" if label.get_text().startswith("fastws") else "normal")
    axes.invert_yaxis()
    axes.set_xlim(0, 1.16 * max(rates.values()))
    axes.set_xticks([])
    axes.tick_params(axis="y", length=0, labelsize=8)
    axes.spines[["bottom", "left"]].set_visible(False)
    # It begins where the names of the servers do.
    axes.set_title(title, loc="left", x=-0.66, fontsize=9)


def _short(rate: float) -> str:
    """Three digits: 1.83 million, 144 thousand, 2,940."""
    if rate >= 1e6:
        return f"{rate / 1e6:.2f} million"
    digits = -3 if rate >= 1e5 else -2 if rate >= 1e4 else -1
    return f"{round(rate, digits):,.0f}"


def _growth(results: Results) -> Figure | None:
    by_size = _times(results, "decode", "binary", lambda size, ns: ns / size)
    if not by_size:
        return None
    by_connections: Series = {}
    for server in SERVERS:
        rates = [(number, results.rate(f"{number}x1x125", server)) for number in CONNECTIONS]
        points = [(number, 1e9 / rate) for number, rate in rates if rate]
        if len(points) > 1:
            by_connections[server] = points
    figure, panels = _panels(2 if by_connections else 1, 4.4)
    _lines(results, panels[0], by_size)
    panels[0].set_title("Decoding: time for a byte, by size")
    panels[0].set_xlabel("payload")
    _sizes(panels[0], by_size)
    panels[0].yaxis.set_major_formatter(FuncFormatter(lambda ns, _: time_text(ns)))
    _legend(panels[0], columns=2 if by_connections else 5, below=0.34)
    if by_connections:
        axes = panels[1]
        _lines(results, axes, by_connections)
        axes.set_title("Echo of 125 B: time for each")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.set_xlabel("connections")
        axes.set_xticks(CONNECTIONS, [str(number) for number in CONNECTIONS])
        axes.yaxis.set_major_formatter(FuncFormatter(lambda ns, _: time_text(ns)))
        _legend(axes, columns=2, below=0.34)
    return figure


def _times(results: Results, operation: str, kind: str, value: Any) -> Series:
    """The results by contender; of fastws, only the best kernels and pure Python."""
    series: Series = {}
    for (o, size, k, who), case in results.cases.items():
        if (o, k) != (operation, kind) or who in _other_kernels(results):
            continue
        # For a small message, the copy costs nothing compared to the call that makes it.
        if who == "memcpy" and size < 1 << 10:
            continue
        series.setdefault(who, []).append((size, value(size, case["ns"])))
    return {who: sorted(points) for who, points in series.items()}


def _other_kernels(results: Results) -> set[str]:
    return {f"fastws-{name}" for name in results.content["kernels"][1:]}


# What a second thread gains: bench.threads measures it -----------------------------------


def threads_label(who: str, operation: str, size: int) -> str:
    return f"{who}\n{operation}\n{size_name(size)}"


def draw_threads(rates: dict[str, list[list[float]]], directory: Path, footer: str) -> Path:
    """Draw messages per second by case, for the build with a GIL and the one without, with one
    thread and with two."""
    with mpl.rc_context(STYLE):
        figure, [axes] = _panels(1, 4.2)
        axes.set_yscale("linear")
        bars = [
            ("with a GIL, 1 thread", GREY, 0, 0),
            ("with a GIL, 2 threads", "#b0b0b0", 0, 1),
            ("free-threaded, 1 thread", OURS[0], 1, 0),
            ("free-threaded, 2 threads", OURS[2], 1, 1),
        ]
        width = 0.86 / len(bars)
        for place, (label, colour, build, threads) in enumerate(bars):
            at = [i + (place - (len(bars) - 1) / 2) * width for i in range(len(rates))]
            heights = [rows[build][threads] / rows[0][0] for rows in rates.values()]
            axes.bar(at, heights, width * 0.92, label=label, color=colour, zorder=2)
        axes.set_xticks(range(len(rates)), list(rates))
        axes.grid(visible=False, axis="x")
        axes.set_title("Messages per second of all threads together, one with a GIL being 1")
        axes.yaxis.set_major_formatter(FuncFormatter(lambda ratio, _: f"{ratio:g}"))
        _legend(axes, columns=4, below=0.2)
        return _save(figure, directory / "threads.svg", footer)


# How ------------------------------------------------------------------------------------


def _panels(number: int, height: float) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(8.2, height), layout="constrained")
    figure.get_layout_engine().set(rect=(0, 0.04, 1, 0.96))
    axes = figure.subplots(1, number, squeeze=False)[0]
    for one in axes:
        one.grid(visible=True)
        one.set_yscale("log")
        one.yaxis.set_minor_locator(NullLocator())
    return figure, list(axes)


def _colour(results: Results, who: str) -> str:
    if who in COLOURS:
        return COLOURS[who]
    ranked = [results.best, *(f"fastws-{name}" for name in results.content["kernels"][1:])]
    ranked += ["fastws-py"]
    if who in ranked:
        return OURS[min(ranked.index(who), len(OURS) - 1)]
    return OURS[0] if who == "fastws-callback" else OURS[2]


def _lines(results: Results, axes: Axes, series: Series) -> None:
    for who, points in series.items():
        first = who in (results.best, "fastws-callback")
        axes.plot(
            *zip(*points, strict=True),
            label=who,
            color=_colour(results, who),
            linestyle="--" if who in DASHED else "-",
            linewidth=2.4 if first else 1.3,
            marker="o",
            markersize=4 if first else 2.5,
            zorder=3 if first else 2,
        )
    axes.set_xscale("log")
    axes.xaxis.set_minor_locator(NullLocator())


def _sizes(axes: Axes, series: Series) -> None:
    present = {size for points in series.values() for size, _ in points}
    sizes = [size for size in SIZES if size in present and size != SIZES[1]]
    axes.set_xticks(sizes, [size_name(size).replace(" ", "\N{NO-BREAK SPACE}") for size in sizes])
    axes.tick_params(axis="x", labelrotation=30)


def _bars(results: Results, axes: Axes, names: list[str], heights: dict[str, list[float]]) -> None:
    width = 0.86 / len(heights)
    for place, (who, values) in enumerate(heights.items()):
        at = [i + (place - (len(heights) - 1) / 2) * width for i in range(len(names))]
        axes.bar(at, values, width * 0.92, label=who, color=_colour(results, who), zorder=2)
    axes.set_xticks(range(len(names)), names)
    axes.grid(visible=False, axis="x")


def _legend(axes: Axes, columns: int = 5, below: float = 0.22) -> None:
    """Place it below the axes, by this part of their height."""
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -below), ncols=columns)
