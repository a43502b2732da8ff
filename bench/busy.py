"""Whether other processes use the CPUs, because then the figures mean little.

This module knows Linux's /proc. Elsewhere it knows the load average only. It does not know what
the benchmarks do; processes that this one starts count as its own.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Iterable

PROC = Path("/proc")
TICKS = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100
# Shares of one core that do not matter: of a process, and of all others during a run.
IDLE_PROCESS = 0.03
IDLE_MACHINE = 0.05
# The load average at the start that other programs must not exceed. (It counts the last minute,
# so the compiler that built fastws is in it.)
IDLE_LOAD = 0.5
ADVICE = "Differences of less than 50 % may be noise. Run it again when nothing else runs."


@dataclass(frozen=True)
class Process:
    """A process: its parent, its name, and how long it has used CPUs, in seconds."""

    pid: int
    parent: int
    name: str
    used: float

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse /proc/PID/stat (see proc(5))."""
        # The name may contain spaces and parentheses.
        head, _, tail = text.rpartition(")")
        pid, _, name = head.partition(" (")
        fields = tail.split()
        return cls(int(pid), int(fields[1]), name, (int(fields[11]) + int(fields[12])) / TICKS)


def processes() -> dict[int, Process]:
    """Return all processes that can be seen, by their numbers."""
    found = {}
    for path in PROC.glob("[0-9]*/stat"):
        # Processes end.
        with suppress(OSError):
            process = Process.parse(path.read_text(errors="replace"))
            found[process.pid] = process
    return found


def ours(everything: dict[int, Process], root: int) -> set[int]:
    """Return this process, those that it started, and those that started it."""
    family = {root}
    parent = everything[root].parent if root in everything else 0
    while parent in everything:
        family.add(parent)
        parent = everything[parent].parent
    started = {root}
    while new := {p.pid for p in everything.values() if p.parent in started} - started:
        started |= new
    return family | started


def others(seconds: float = 1.0) -> list[tuple[str, float]]:
    """Watch the other processes for a while; return those that use CPUs, and how much of a core."""
    before = processes()
    began = time.monotonic()
    time.sleep(seconds)
    after = processes()
    took = time.monotonic() - began
    family = ours(after, os.getpid())
    return shares(before, after, family, took)


def shares(
    before: dict[int, Process], after: dict[int, Process], family: set[int], seconds: float
) -> list[tuple[str, float]]:
    """Return the names of processes outside the family and their shares of a core, highest first.

    Args:
        seconds: the time between `before` and `after`.
    """
    used: dict[str, float] = {}
    for pid, process in after.items():
        if pid not in family:
            earlier = before[pid].used if pid in before else 0.0
            share = (process.used - earlier) / seconds
            used[process.name] = used.get(process.name, 0.0) + share
    busy = [(name, share) for name, share in used.items() if share >= IDLE_PROCESS]
    return sorted(busy, key=lambda item: -item[1])


def used_by_all() -> float:
    """Return how long all CPUs have run processes, in seconds since the system started.

    Interrupts do not count: of network traffic over loopback, they are a good part, and kernels
    built with IRQ_TIME_ACCOUNTING charge them to no process, so they would seem to be others'.
    """
    try:
        with (PROC / "stat").open() as file:
            fields = [int(field) for field in file.readline().split()[1:]]
    except (OSError, ValueError):
        return 0.0
    # user, nice, system, (idle, iowait, irq, softirq,) steal; guest time is part of user.
    return sum((*fields[:3], *fields[7:8])) / TICKS


def used_by_us() -> float:
    """Return how long this process and its children that ended have used CPUs, in seconds."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


class Watch:
    """Watches the machine during a run, and says afterwards whether others disturbed it."""

    def __init__(self) -> None:
        self._load = os.getloadavg()[0]
        self._others = others()
        self._began = time.monotonic()
        self._all = used_by_all()
        self._us = used_by_us()

    def before(self) -> str:
        """Return a warning if the machine is busy at the start, or an empty string."""
        return warning(self._load, self._others)

    def after(self) -> str:
        """Return a warning if other processes used CPUs during the run, or an empty string."""
        took = time.monotonic() - self._began
        share = (used_by_all() - self._all - used_by_us() + self._us) / took
        return disturbance(share, os.getloadavg()[0], others())


def warning(load: float, busy: list[tuple[str, float]]) -> str:
    """Return what to say before a run.

    Args:
        load: the load average of the last minute.
        busy: the processes that use CPUs, and their shares of a core.
    """
    if busy:
        return f"WARNING: this machine is busy: {listed(busy)}. {ADVICE}"
    if load > IDLE_LOAD:
        return (
            f"WARNING: this machine was busy during the last minute (load average {load:.2f}). "
            "Ignore this if it was only the compiler, which has just built fastws."
        )
    return ""


def disturbance(share: float, load: float, busy: list[tuple[str, float]]) -> str:
    """Return what to say after a run.

    Args:
        share: how much of a core all other processes used on average.
        load: the load average of the last minute, to which the benchmark contributes up to 2.
        busy: the processes that still use CPUs, and their shares of a core.
    """
    if share < IDLE_MACHINE and not busy:
        return ""
    text = f"WARNING: other processes used {percent(max(share, 0))} of a core during the run"
    if busy:
        text += f", and are still busy: {listed(busy)}"
    return f"{text} (load average {load:.2f}, up to 2 of it ours). {ADVICE}"


def listed(busy: Iterable[tuple[str, float]]) -> str:
    return ", ".join(f"{name} uses {percent(share)} of a core" for name, share in [*busy][:4])


def percent(share: float) -> str:
    return f"{100 * share:.0f} %"
