"""Opening handshakes: how many connections a server accepts per second.

    python -m bench.handshakes [--quick] [--only NAME,…] [--workloads NAME,…] [--seconds S]
                               [--rounds N] [--json FILE] [--extra NAME=COMMAND]

The servers are those of bench.echo. A storm is 1,000 connections, opened some at a time with the
request of a browser (14 fields), as after a restart of the server. They stay open until the storm
is over; closing them is not timed, and the next storm begins when the server has nothing left to
do for them. The latency is from connect() to the end of the response, and
over TLS it includes the TLS handshake.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from bench.echo.run import SERVERS
from bench.load import frame
from bench.load.frame import CPU, LATENCIES, Figure, Load, Suite, Workload

if TYPE_CHECKING:
    from collections.abc import Sequence

STORM = 1000  # connections


@dataclass(frozen=True)
class Storm(Load):
    """Storms of handshakes, some at a time."""

    name: str
    at_once: int
    tls: bool = False

    client: ClassVar[str] = "handshakes"
    figures: ClassVar[Sequence[Figure]] = (
        Figure("handshakes_per_second", "handshakes/s", 14),
        *LATENCIES,
        Figure("max_us", "max µs"),
        *CPU,
    )

    def arguments(self) -> list[str]:
        options = ["--connections", str(STORM), "--at-once", str(self.at_once)]
        return [*options, "--tls"] if self.tls else options


def make(name: str) -> Workload | None:
    """A workload with another number at a time."""
    found = re.fullmatch(r"(tls-)?(?:handshakes-)?([1-9]\d*)", name)
    return Storm(name, int(found[2]), tls=bool(found[1])) if found else None


SUITE = Suite(
    name="bench.handshakes",
    text="Measure opening handshakes.",
    servers=SERVERS,
    workloads=[Storm("handshakes-20", 20), Storm("tls-handshakes-20", 20, tls=True)],
    make=make,
    references=["uwebsockets"],
)


def main() -> int:
    return frame.main(SUITE)
