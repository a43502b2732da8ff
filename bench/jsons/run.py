"""JSON that is parsed, serialized and sent back, with text as str and as bytes.

    python -m bench.jsons [--quick] [--only NAME,…] [--workloads NAME,…] [--seconds S]
                          [--rounds N] [--json FILE] [--extra NAME=COMMAND]

This module knows the documents. `servers` knows what takes part; bench.load runs and measures it.
The documents are as orjson writes them, so that the answer is what was sent.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import orjson

from bench.load import frame, programs
from bench.load.frame import CPU, LATENCIES, Figure, Load, Suite, Workload, python_server
from bench.payloads import payload

from . import servers

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

DOCUMENTS = 256  # different ones


def records(rng: random.Random, kind: str, size: int) -> list[dict[str, object]]:
    """Orders, in ASCII: numbers, flags and short strings."""
    words = payload("ascii", 1 << 14).decode().split()

    def record() -> dict[str, object]:
        return {
            "id": rng.randrange(1 << 32),
            "to": rng.choice(words),
            "ok": rng.random() < 0.5,
            "at": rng.randrange(1 << 20) / 8,
            "tags": rng.choices(words, k=2),
        }

    return [record() for _ in range(size // 100)]


def posts(rng: random.Random, kind: str, size: int) -> list[dict[str, object]]:
    """Messages of people, of some hundred bytes each."""
    text = payload(kind, 1 << 16).decode()

    def post(length: int) -> dict[str, object]:
        start = rng.randrange(len(text) - length)
        return {
            "id": rng.randrange(1 << 32),
            "user": f"user{rng.randrange(1000)}",
            "text": text[start : start + length],
        }

    length = {"ascii": 400, "latin": 350, "cjk": 150, "emoji": 110, "json": 330}[kind]
    return [post(length) for _ in range(size // 500)]


def document(make: Callable[..., list[dict[str, object]]], kind: str, size: int) -> bytes:
    """Return one of exactly this size."""
    rng = random.Random(f"{kind} {size} {document.count}")  # type: ignore[attr-defined]
    document.count += 1  # type: ignore[attr-defined]
    content = make(rng, kind, size)
    while len(written := orjson.dumps([*content, ""])) > size:
        content.pop()
    return orjson.dumps([*content, "." * (size - len(written))])


document.count = 0  # type: ignore[attr-defined]

KINDS: dict[str, tuple[Callable[..., list[dict[str, object]]], str]] = {
    "records": (records, "ascii"),
    **{f"posts-{kind}": (posts, kind) for kind in ("ascii", "latin", "cjk", "emoji")},
}


@dataclass(frozen=True)
class Documents(Load):
    """Connections x messages in flight on each connection x size of the documents."""

    name: str
    kind: str
    connections: int
    in_flight: int
    size: int

    client: ClassVar[str] = "echo"
    figures: ClassVar[Sequence[Figure]] = (
        Figure("messages_per_second", "messages/s", 14),
        *LATENCIES,
        *CPU,
    )

    def arguments(self) -> list[str]:
        file = programs.CACHE / f"{self.kind}-{self.size}.json"
        if not file.exists():
            make = KINDS[self.kind]
            file.write_bytes(b"".join(document(*make, self.size) for _ in range(DOCUMENTS)))
        return [
            *("--connections", str(self.connections), "--in-flight", str(self.in_flight)),
            *("--size", str(self.size), "--from", str(file)),
        ]


def make(name: str) -> Workload | None:
    """`KIND-CxMxB`: C connections with M messages in flight on each, of B bytes."""
    found = re.fullmatch(r"([a-z-]+)-([1-9]\d*)x([1-9]\d*)x([1-9]\d{2,})", name)
    if found is None or found[1] not in KINDS:
        return None
    return Documents(name, found[1], *map(int, found.groups()[1:]))


SUITE = Suite(
    name="bench.jsons",
    text="Measure servers that parse JSON and answer with it.",
    servers=dict.fromkeys(servers.NAMES, python_server("bench.jsons.servers")),
    workloads=[Documents(f"{kind}-10x4x4096", kind, 10, 4, 4096) for kind in KINDS],
    make=make,
)


def main() -> int:
    return frame.main(SUITE)
