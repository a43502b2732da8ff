"""The five figures that matter most, each compared with the best peer.

This module knows which figures those are, and which peers count: other Python libraries that do the
same work. On both sides, the fastest event loop and style counts. It knows no targets (targets.py
does).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from .report import ratio_text, time_text
from .results import is_ours

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .results import Results

# Not Python libraries: they show what is possible.
REFERENCES = ("beast", "node-ws", "uwebsockets")
EXPLANATION = """\
What matters: fastws against the best peer, the fastest other Python library in each line, measured
in this run. The best peer = 1.00 x; at 2.00 x, fastws is twice as fast."""


@dataclass(frozen=True)
class Line:
    """One figure.

    Attributes:
        ratio: how much faster fastws is than the best peer; None without a peer.
        ours, theirs: the names and figures as text.
    """

    text: str
    ratio: float | None
    ours: str
    theirs: str = ""

    def __str__(self) -> str:
        ratio = "no peer" if self.ratio is None else f"{ratio_text(self.ratio)[:-1]} x"
        line = f"{self.text:<52}{ratio:>8}  ({self.ours}"
        return f"{line}; {self.theirs})" if self.theirs else f"{line})"


def lines(results: Results) -> Iterator[Line]:
    """Return the lines whose figures were measured."""
    yield from _decode(results, 16, "decode a message of 16 bytes")
    for workload, text, unit in (
        ("50x16x32", "echo: 50 clients, 16 small messages in flight each", "messages/s"),
        ("50x1x125", "echo: 50 clients, one message in flight each", "messages/s"),
        ("turns-1000x100", "broadcast: 100 bytes to 1,000 clients", "deliveries/s"),
    ):
        yield from _servers(results, workload, text, unit)
    yield from _client(results, 256, "client: one message of 256 bytes in flight")


def report(results: Results) -> str:
    """Return the explanation and the lines, or an empty string if nothing was measured."""
    found = [str(line) for line in lines(results)]
    return "\n".join([EXPLANATION, "", *found]) if found else ""


def _decode(results: Results, size: int, text: str) -> Iterator[Line]:
    ours = results.ns("decode", size, "binary", results.best)
    peers = results.peers("decode", size, "binary")
    if ours is not None:
        yield _compared(text, (results.best, ours), peers, lambda ns: -ns, time_text)


def _servers(results: Results, workload: str, text: str, unit: str) -> Iterator[Line]:
    names = [server for measured, server in results.cells if measured == workload]
    yield from _rates(text, unit, {name: results.rate(workload, name) for name in names})


def _client(results: Results, size: int, text: str) -> Iterator[Line]:
    rates = {name: results.client_rate(name, size) for name in results.content["clients"]}
    yield from _rates(text, "messages/s", rates)


def _rates(text: str, unit: str, rates: dict[str, float | None]) -> Iterator[Line]:
    known = {name: rate for name, rate in rates.items() if rate and name not in REFERENCES}
    ours = {name: rate for name, rate in known.items() if is_ours(name)}
    peers = {name: rate for name, rate in known.items() if name not in ours}
    if ours:
        best = max(ours.items(), key=lambda item: item[1])
        yield _compared(text, best, peers, lambda rate: rate, lambda rate: f"{rate:,.0f} {unit}")


def _compared(
    text: str,
    ours: tuple[str, float],
    peers: dict[str, float],
    merit: Callable[[float], float],
    shown: Callable[[float], str],
) -> Line:
    """Compare our figure with the best one of the peers.

    Args:
        merit: returns a larger number for a better figure; a negative one if less is better.
    """
    name, figure = ours
    mine = f"{name} {shown(figure)}"
    if not peers:
        return Line(text, None, mine)
    peer, other = max(peers.items(), key=lambda item: merit(item[1]))
    ratio = figure / other if merit(1) > 0 else other / figure
    return Line(text, ratio, mine, f"{peer} {shown(other)}")
