"""The file that a run writes: its contents, and how to query it.

This module knows the format. It does not know how things are measured or shown.

    {
      "date", "cpu", "cores", "kernel", "versions",   what it was measured on and with
      "method", "quick", "load",                       and how; the load before and after
      "kernels": [NAME, …],                            the sets of kernels, the best one first
      "cases": [{"operation", "size", "kind", "who", "reference", "ns", "noise", "rounds"}, …],
      "missing": {OPERATION: {WHO: REASON}},
      "failed": [CASE, …],
      "echo": [{"workload", "server", "figure", "lower_is_better", "problem", "median",
                "rounds"}, …],                         of all benchmarks of servers
      "clients": {NAME: {SIZE: MESSAGES PER SECOND} or {"missing": …} or {"error": …}},
      "problems": [TEXT, …]
    }

`ns` is nanoseconds per message in the fastest round. `noise` is how much longer the median round
took; 0.1 is a tenth. `figure` is the key of the most important figure in `median` and each round.
"""

from __future__ import annotations

import json
from functools import cached_property
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

Case = dict[str, Any]

# The assumed noise of a case that could be measured only once.
NOISE_OF_ONE_ROUND = 0.2


def read_cases(path: Path) -> list[Case]:
    """The cases in a file written by pytest-benchmark."""
    cases = []
    for entry in json.loads(path.read_text())["benchmarks"]:
        case = entry["extra_info"]
        stats = entry["stats"]
        messages = case.pop("messages")
        overhead = case.pop("overhead_ns", 0)
        case["ns"] = round((stats["min"] * 1e9 - overhead) / messages, 3)
        case["rounds"] = stats["rounds"]
        noise = stats["median"] / stats["min"] - 1
        case["noise"] = round(noise if stats["rounds"] > 1 else NOISE_OF_ONE_ROUND, 4)
        if overhead:
            case["overhead_ns"] = round(overhead / messages, 3)
        cases.append(case)
    return cases


class Results:
    """The content of one file."""

    def __init__(self, content: dict[str, Any]) -> None:
        self.content = content

    @classmethod
    def load(cls, path: Path) -> Results:
        return cls(json.loads(path.read_text()))

    def updated(self, other: Results) -> Results:
        """These results, with what the other ones contain in place of the same here."""
        ours, theirs = self.content, other.content
        cases = {**self.cases, **other.cases}
        cells = {**self.cells, **other.cells}
        return Results(
            {
                **theirs,
                "cases": list(cases.values()),
                "echo": list(cells.values()),
                "clients": {**ours["clients"], **theirs["clients"]},
                "failed": theirs["failed"] if theirs["cases"] else ours["failed"],
            }
        )

    @cached_property
    def cases(self) -> dict[tuple[str, int, str, str], Case]:
        return {
            (case["operation"], case["size"], case["kind"], case["who"]): case
            for case in self.content["cases"]
        }

    @property
    def best(self) -> str:
        """fastws with the best kernels of the run."""
        return f"fastws-{next(iter(self.content['kernels']), 'c')}"

    def ns(self, operation: str, size: int, kind: str, who: str) -> float | None:
        """Nanoseconds per message."""
        case = self.cases.get((operation, size, kind, who))
        return None if case is None else case["ns"]

    def peers(self, operation: str, size: int, kind: str) -> dict[str, float]:
        """The same for all contenders that are neither fastws nor a reference."""
        return {
            who: case["ns"]
            for (o, s, k, who), case in self.cases.items()
            if (o, s, k) == (operation, size, kind) and is_peer(case)
        }

    @cached_property
    def cells(self) -> dict[tuple[str, str], dict[str, Any]]:
        return {(cell["workload"], cell["server"]): cell for cell in self.content["echo"]}

    def rate(self, workload: str, server: str) -> float | None:
        """The most important figure of a server: messages per second, unless the workload is
        about something else."""
        cell = self.cells.get((workload, server), {})
        return self.median(workload, server, cell.get("figure", "messages_per_second"))

    def memory(self, server: str) -> float | None:
        """KiB per idle connection."""
        return self.median("idle", server, "kib_per_connection")

    def median(self, workload: str, server: str, key: str) -> float | None:
        return self.cells.get((workload, server), {}).get("median", {}).get(key)

    def problem(self, server: str) -> str | None:
        """Why a server was not measured at all, if so."""
        cells = [cell for (_, who), cell in self.cells.items() if who == server]
        if not cells or any(cell["rounds"] for cell in cells):
            return None
        return cells[0]["problem"]

    def client_rate(self, name: str, size: int) -> float | None:
        return self.content["clients"].get(name, {}).get(str(size))


def is_ours(who: str) -> bool:
    return who.partition("-")[0] == "fastws"


def is_peer(case: Case) -> bool:
    return not case["reference"] and not is_ours(case["who"])
