"""Fan-out: one message to many connections.

    python -m bench.fanout [--quick] [--only NAME,…] [--workloads NAME,…] [--seconds S]
                           [--rounds N] [--json FILE] [--extra NAME=COMMAND]

The server sends a text message to each of its connections, then the next one. In the workload
`turns` it sends one in every turn of its event loop: that is how much it can deliver. In `rounds`
it sends one when all connections have received the last one: latency is from the request for a
message until the last connection has it. The messages differ, and each connection's are checked.

This module knows the workloads, and `servers` what takes part.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from bench.load import frame
from bench.load.frame import CPU, LATENCIES, Figure, Load, Suite, Workload, python_server

from . import servers
from .references import REFERENCES

if TYPE_CHECKING:
    from collections.abc import Sequence

DELIVERIES = Figure("deliveries_per_second", "deliveries/s", 14)


@dataclass(frozen=True)
class Fanout(Load):
    """One message after the other, of a size, to so many connections."""

    name: str
    connections: int
    size: int

    client: ClassVar[str] = "fanout"

    def told(self) -> list[str]:
        return ["--size", str(self.size)]

    def arguments(self) -> list[str]:
        return ["--connections", str(self.connections), *self.told(), self.pace]

    pace: ClassVar[str]


class Turns(Fanout):
    """A broadcast in each turn of the server's event loop."""

    pace: ClassVar[str] = "--turns"
    figures: ClassVar[Sequence[Figure]] = (DELIVERIES, *CPU)


class Rounds(Fanout):
    """A broadcast when all have received the last one."""

    pace: ClassVar[str] = "--rounds"
    figures: ClassVar[Sequence[Figure]] = (DELIVERIES, *LATENCIES, Figure("max_us", "max µs"), *CPU)


def make(name: str) -> Workload | None:
    """`turns-CxB` or `rounds-CxB`: C connections, messages of B bytes."""
    found = re.fullmatch(r"(turns|rounds)-([1-9]\d*)x([1-9]\d*)", name)
    if not found or int(found[3]) < 6:
        return None
    return {"turns": Turns, "rounds": Rounds}[found[1]](name, int(found[2]), int(found[3]))


SUITE = Suite(
    name="bench.fanout",
    text="Measure how fast servers send one message to many connections.",
    servers=dict.fromkeys(servers.NAMES, python_server("bench.fanout.servers")) | REFERENCES,
    workloads=[Turns("turns-1000x100", 1000, 100), Rounds("rounds-1000x100", 1000, 100)],
    make=make,
    references=list(REFERENCES),
)


def main() -> int:
    return frame.main(SUITE)
