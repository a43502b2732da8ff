"""Latency at a fixed rate: how long messages take that are sent when they are due.

    python -m bench.paced [--quick] [--only NAME,…] [--workloads NAME,…] [--seconds S]
                          [--rounds N] [--json FILE] [--extra NAME=COMMAND]

The servers are those of bench.echo. There, a new message waits for the reply to the last one, so
a slow server is asked for less. Here, messages are sent at a rate, whether or not replies have
come, and the latency of each counts from the time when it was due. A server that cannot keep up
has a latency that grows as long as the measurement lasts; `messages/s` shows what it managed.

`CxB@R` means C connections, text messages of B bytes, R messages a second in all.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from bench.echo.run import SERVERS
from bench.load import frame
from bench.load.frame import LATENCIES, Figure, Load, Suite, Workload

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True)
class Paced(Load):
    """Messages of a size, at a rate, on some connections."""

    name: str
    connections: int
    size: int
    rate: int

    client: ClassVar[str] = "paced"
    figures: ClassVar[Sequence[Figure]] = (
        LATENCIES[1],
        LATENCIES[0],
        Figure("p90_us", "p90 µs"),
        Figure("p999_us", "p99.9 µs", 10),
        Figure("max_us", "max µs"),
        Figure("messages_per_second", "messages/s", 12),
        Figure("server_cpu", "server", 9, unit=" %"),
    )
    lower_is_better: ClassVar[bool] = True

    def arguments(self) -> list[str]:
        numbers = {"--connections": self.connections, "--size": self.size, "--rate": self.rate}
        return [part for pair in numbers.items() for part in map(str, pair)]


def make(name: str) -> Workload | None:
    found = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)@([1-9]\d*)", name)
    return Paced(name, *map(int, found.groups())) if found else None


SUITE = Suite(
    name="bench.paced",
    text="Measure the latency of echo servers at a fixed rate.",
    servers=SERVERS,
    workloads=[Paced(f"50x125@{rate}", 50, 125, rate) for rate in (10_000, 50_000)],
    make=make,
    references=["uwebsockets"],
)


def main() -> int:
    return frame.main(SUITE)
