"""Granian's published contest: every message to everybody.

    python -m bench.contest [--quick] [--only NAME,…] [--workloads NAME,…] [--seconds S]
                            [--rounds N] [--json FILE] [--extra NAME=COMMAND]

Each of C clients sends M small binary messages, and the server sends every one of them to all
clients. Granian publishes it for 8, 16 and 32 clients, with clients in Python that all run in one
process, which is slower than the servers. Here, the client is in C. The application does the same
with each server: it awaits the sending to one connection after the other.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from bench.load import frame, hosts
from bench.load.frame import CPU, Figure, Load, Suite, Workload
from bench.load.serving import UVLOOP

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from bench.load.frame import Server

APP = "bench.contest.apps"
OURS = "fastws.integrations.uvicorn:WebSocketProtocol"


@dataclass(frozen=True)
class Contest(Load):
    """So many clients, and messages of each of them."""

    name: str
    connections: int
    messages: int

    client: ClassVar[str] = "contest"
    figures: ClassVar[Sequence[Figure]] = (
        Figure("deliveries_per_second", "deliveries/s", 14),
        Figure("combined_per_second", "with sent ones", 16),
        *CPU,
    )

    def arguments(self) -> list[str]:
        return ["--connections", str(self.connections), "--messages", str(self.messages)]


def make(name: str) -> Workload | None:
    """`contest-CxM`: C clients, M messages of each."""
    found = re.fullmatch(r"contest-([1-9]\d*)x([1-9]\d{0,3})", name)
    return Contest(name, *map(int, found.groups())) if found else None


def on_both_loops(name: str, server: Callable[[str], Server]) -> dict[str, Callable[[str], Server]]:
    return dict.fromkeys([name, name + UVLOOP], server)


SUITE = Suite(
    name="bench.contest",
    text="Measure how fast servers send every message to everybody.",
    servers={
        **on_both_loops("fastws-uvicorn", hosts.uvicorn(f"{APP}:asgi", OURS, "fastws")),
        **on_both_loops(
            "uvicorn-websockets",
            hosts.uvicorn(f"{APP}:asgi", "websockets-sansio", "websockets"),
        ),
        **on_both_loops("uvicorn-wsproto", hosts.uvicorn(f"{APP}:asgi", "wsproto", "wsproto")),
        **on_both_loops("granian-rsgi", hosts.granian(f"{APP}:rsgi", "rsgi")),
        **on_both_loops("granian-asgi", hosts.granian(f"{APP}:asgi", "asginl")),
    },
    workloads=[Contest(f"contest-{c}x2500", c, 2500) for c in (8, 16, 32)],
    make=make,
)


def main() -> int:
    return frame.main(SUITE)
