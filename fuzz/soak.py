"""Shows that servers do not grow and lose nothing, whatever their clients do, for any duration.

    python fuzz/soak.py

Six servers, one for each style (callback, coroutine, uvicorn with our class) and loop, run as
child processes, all with compression. `load.py` connects clients of some twenty kinds: honest
ones, directly and through a proxy that splits and delays data, and others that reset, read
slowly or never, flood, half-close, send bombs, garbage and half a handshake.

The load comes in phases. After each phase it is drained, and RSS, descriptors and tasks of every
server are measured at some quiet points. In the middle of the middle phase, every server in
turn gets SIGTERM and is restarted. The soak fails, and reports why, if

- after a phase a connection is left, or RSS, descriptors or tasks of a server are higher in the
  later half of its quiet points than in the earlier half (medians; see the tolerances below; the
  first one of each life does not count, because a server that has just started still grows);
- an honest client gets a message that is wrong, out of order, duplicated, or later than a minute;
  or its connection ends although neither the client nor SIGTERM ended it;
- an honest client of a server that got SIGTERM does not get a close frame with 1001 (1012 from
  uvicorn, where a few may be too late for it), or got fewer echoes before it than the server had
  answered by its own count: all *acknowledged* answers, which `send` accepted before the server's
  close frame, must arrive;
- a server dies, does not answer, does not end on SIGTERM, or writes an error or a traceback.

SOAK_SECONDS      how long it takes, approximately (default 600; at least 15)
SOAK_CONNECTIONS  the number of concurrent clients (default 2000)
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from children import (
    LOOPS,
    MIB,
    STOP_CODES,
    STYLES,
    Child,
    ChildError,
    ServerChild,
    peak_memory,
)

from fastws.codec import implementation

SECONDS = float(os.environ.get("SOAK_SECONDS", "600"))
CONNECTIONS = int(os.environ.get("SOAK_CONNECTIONS", "2000"))

LOADS = 2  # processes
QUIET_SAMPLES = 5
LEAST_PHASES = 6  # three quiet points in each life: one to warm up, and two to compare
# How much higher the later half of the quiet points may be than the earlier.
RSS_MAY_GROW = 4 * MIB
FDS_MAY_GROW = 0
TASKS_MAY_GROW = 0
# In seconds.
PROGRESS = 15.0
DRAIN_TIMEOUT = 45.0
STOP_TIMEOUT = 20.0
TURN_SECONDS = 0.3  # between the stops of two servers
AVOID_SECONDS = 1.0  # before uvicorn is
# Our class for uvicorn gives clients one second to read their close frame. On a busy machine, or
# behind the proxy, a few may be too late.
UVICORN_PATIENCE = 1.0
MAY_BE_LATE = 0.05

SETTINGS = {
    "deflate": True,
    "max_message_size": MIB,
    "open_timeout": 30.0,  # a busy machine is not the server's fault
    # A server that stops waits for clients that do not read until its timeout.
    "close_timeout": min(5.0, SECONDS / 15),
    "ping_interval": 3.0,
    "ping_timeout": 20.0,
}


@dataclass
class Served:
    """A server, through all its lives.

    Attributes:
        quiet: the quiet points of each life: medians of rss, fds and tasks.
        stopped: when it was not running, in the clients' time.
        ledgers: what it had answered to the clients that it had when it stopped.
        peak: its peak memory, in bytes.
        stopped_on: how many honest clients it had when it stopped.
        late: how many of them had not read everything when it gave up.
        leaving: whether it is stopping, or not running yet.
    """

    style: str
    loop: str
    child: ServerChild
    quiet: list[list[dict[str, float]]] = field(default_factory=lambda: [[]])
    stopped: list[tuple[float, float]] = field(default_factory=list)
    ledgers: dict[str, int] = field(default_factory=dict)
    peak: int = 0
    stopped_on: int = 0
    late: int = 0
    leaving: bool = False

    @property
    def name(self) -> str:
        return self.child.name


class Soak:
    def __init__(self) -> None:
        self.start = time.monotonic()
        self.failures: list[str] = []
        self.counts: Counter[str] = Counter()
        self.loads: list[Child] = []
        self.ends: list[dict[str, Any]] = []
        self.unopened: list[dict[str, Any]] = []
        self.drained = 0
        self.next_progress = self.start
        self.servers: list[Served] = []

    @property
    def children(self) -> list[Child]:
        return [*self.loads, *(server.child for server in self.servers)]

    # What is said ------------------------------------------------------------------------

    def say(self, text: str) -> None:
        print(f"{implementation:>2} {time.monotonic() - self.start:6.1f} s: {text}", flush=True)

    def fail(self, text: str) -> None:
        self.failures.append(text)
        # A fault shows on many connections; not each one is reported.
        if len(self.failures) <= 30:
            self.say(f"FAILED: {text}")

    def progress(self) -> None:
        if time.monotonic() < self.next_progress:
            return
        self.next_progress += PROGRESS
        parts = []
        for server in self.servers:
            if server.leaving:
                continue
            now = server.child.ask("measure")
            parts.append(
                f"{server.style[:2]}/{server.loop[:2]} {now['connections']}c {now['tasks']}t "
                f"{now['fds']}f {now['rss'] // MIB}M"
            )
        self.say(" | ".join(parts) or "all servers are stopping")

    # The parts of it -------------------------------------------------------------------------

    def run(self) -> None:
        limit = CONNECTIONS * 2 + 1000
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if soft < limit:
            resource.setrlimit(resource.RLIMIT_NOFILE, (min(limit, hard), hard))
        try:
            for style in STYLES:
                for loop in LOOPS:
                    child = ServerChild(style, loop, settings=SETTINGS)
                    self.servers.append(Served(style, loop, child))
            ports = [server.child.port for server in self.servers]
            for number in range(LOADS):
                options = {
                    "number": number,
                    "connections": CONNECTIONS // LOADS,
                    "ports": ports,
                }
                script = Path(__file__).with_name("load.py")
                load = Child(f"load {number}", str(script), json.dumps(options))
                self.loads.append(load)
            clients = sum(load.line()["ready"] for load in self.loads)
            phases = max(LEAST_PHASES, round(SECONDS / 60))
            self.say(f"{clients:,} clients of {len(self.servers)} servers, {phases} phases")
            for phase in range(phases):
                self.run_phase(phase, phases)
            self.judge()
        except ChildError as exc:
            self.fail(str(exc))
        finally:
            for child in self.children:
                child.kill()

    def run_phase(self, phase: int, phases: int) -> None:
        begin = time.monotonic()
        # Draining and measuring take some of it.
        seconds = SECONDS / phases
        planned = self.start + SECONDS * (phase + 1) / phases - min(8.0, seconds / 3)
        end = max(planned, begin + seconds / 2)
        stopping = phase == phases // 2
        self.tell_loads(f"go {min(10.0, (end - begin) / 5)}")
        if stopping:
            self.watch((begin + end) / 2)
            self.restart_all()
            end = max(end, time.monotonic() + 2)
        self.watch(end)
        self.drain()
        self.look_at_quiet_points(phase)
        self.match_ends()

    def watch(self, until: float) -> None:
        """Let it run; check that no process dies."""
        while True:
            for load in self.loads:
                self.hear(load.lines())
            for child in [*self.loads, *(s.child for s in self.servers if not s.leaving)]:
                if child.ended is not None:
                    child.line(1)  # which raises
            self.progress()
            left = until - time.monotonic()
            if left <= 0:
                return
            time.sleep(min(left, 0.25))

    def hear(self, lines: list[Any]) -> None:
        for line in lines:
            if "failed" in line:
                self.fail(line["failed"])
            elif "ended" in line:
                self.ends.append(line["ended"])
            elif "unopened" in line:
                self.unopened.append(line["unopened"])
            elif "drained" in line:
                self.drained += 1
                self.counts.update(line["drained"])
            else:
                raise ValueError(line)

    def restart_all(self) -> None:
        with ThreadPoolExecutor(len(self.servers)) as pool:
            jobs = []
            for number, server in enumerate(self.servers):
                if server.style == "uvicorn":
                    # It overlooks connections that it accepts while it stops; they stay until it
                    # cancels their tasks. That is not due to our class.
                    self.tell_loads(f"avoid {number}")
                    self.watch(time.monotonic() + AVOID_SECONDS)
                server.leaving = True
                jobs.append(pool.submit(self.restart, server))
                self.watch(time.monotonic() + TURN_SECONDS)
            while not all(job.done() for job in jobs):
                self.watch(time.monotonic() + 0.1)
            for job in jobs:
                job.result()
        for number in range(len(self.servers)):
            self.tell_loads(f"return {number}")

    def tell_loads(self, command: str) -> None:
        for load in self.loads:
            load.tell(command)

    def restart(self, server: Served) -> None:
        """Stop it like an operator, and restart it on the same port."""
        stopped = time.monotonic()
        server.peak = max(server.peak, peak_memory(server.child.pid))
        old = server.child
        server.ledgers |= old.stop(STOP_TIMEOUT)
        took = time.monotonic() - stopped
        self.check_complaints(old)
        old.kill()
        server.child = ServerChild(server.style, server.loop, port=old.port, settings=SETTINGS)
        server.leaving = False
        server.quiet.append([])
        server.stopped.append((stopped, time.monotonic()))
        self.say(f"{server.name} ended {took:.1f} s after SIGTERM, and is there again")

    def drain(self) -> None:
        wanted = self.drained + LOADS
        self.tell_loads("drain")
        deadline = time.monotonic() + DRAIN_TIMEOUT
        while self.drained < wanted:
            self.watch(time.monotonic() + 0.05)
            if time.monotonic() > deadline:
                raise ChildError(f"the load is not drained within {DRAIN_TIMEOUT:g} s")

    def look_at_quiet_points(self, phase: int) -> None:
        deadline = time.monotonic() + DRAIN_TIMEOUT
        told = []
        for server in self.servers:
            while (left := server.child.ask("measure")["connections"]) > 0:
                if time.monotonic() > deadline:
                    self.fail(f"{server.name}: {left} connections are left after phase {phase + 1}")
                    break
                time.sleep(0.1)
            samples = []
            for _ in range(QUIET_SAMPLES):
                samples.append(server.child.ask("settle"))
                time.sleep(0.02)
            point = {name: median(s[name] for s in samples) for name in ("rss", "fds", "tasks")}
            server.quiet[-1].append(point)
            server.peak = max(server.peak, peak_memory(server.child.pid))
            told.append(
                f"{server.style[:2]}/{server.loop[:2]} {point['tasks']:g}t {point['fds']:g}f "
                f"{point['rss'] / MIB:.1f}M"
            )
        self.say(f"quiet after phase {phase + 1}: {' | '.join(told)}")

    def match_ends(self) -> None:
        """Compare the reports of honest clients to when, and on whom, the servers stopped."""
        for end in self.ends:
            server = self.servers[end["server"]]
            name, code = f"{end['kind']} {end['name']}", end["code"]
            if not self.was_stopping(server, end):
                self.fail(f"{server.name} ended the connection of {name} with {code}")
                continue
            server.stopped_on += 1
            after = end["at"] - server.stopped[-1][0]
            if server.style == "uvicorn" and code is None and after >= UVICORN_PATIENCE:
                server.late += 1
                continue
            if code != STOP_CODES[server.style]:
                self.fail(
                    f"{server.name} stopped: {name} got {code} as its close code, "
                    f"{after:.1f} s after SIGTERM"
                )
            if end["echoes"] and end["name"] not in server.ledgers:
                self.fail(f"{server.name} stopped: it kept no count of {name}")
            answered = server.ledgers.get(end["name"], 0)
            if end["echoes"] < answered:
                self.fail(
                    f"{server.name} stopped: it answered {answered} messages of {name}, "
                    f"which got {end['echoes']}"
                )
        for attempt in self.unopened:
            server = self.servers[attempt["server"]]
            if not self.was_stopping(server, attempt):
                who = f"{attempt['kind']} {attempt['name']}"
                self.fail(f"{server.name} did not let {who} in: {attempt['why']}")
        for server in self.servers:
            if server.late > max(1, server.stopped_on * MAY_BE_LATE):
                self.fail(
                    f"{server.name} stopped on {server.stopped_on} honest clients, and gave "
                    f"{server.late} no close frame"
                )
        self.ends.clear()
        self.unopened.clear()

    def was_stopping(self, server: Served, event: dict[str, Any]) -> bool:
        # What happened meanwhile is reported a little later.
        return any(start <= event["at"] <= end + 2.0 for start, end in server.stopped)

    def check_complaints(self, child: Child) -> None:
        text = child.complaints()
        if "Traceback" in text or "ERROR" in text or "CRITICAL" in text:
            self.fail(f"{child.name} logged:\n{text[-2000:]}")

    def judge(self) -> None:
        limits = {"rss": RSS_MAY_GROW, "fds": FDS_MAY_GROW, "tasks": TASKS_MAY_GROW}
        for child in self.children:
            self.check_complaints(child)
        for server in self.servers:
            for life, points in enumerate(server.quiet, 1):
                warm = points[1:]
                half = len(warm) // 2
                for name, limit in limits.items():
                    early = median(p[name] for p in warm[:half])
                    late = median(p[name] for p in warm[-half:])
                    if late - early > limit:
                        self.fail(
                            f"{server.name}, life {life}: {name} rose from {early:,.0f} "
                            f"to {late:,.0f}"
                        )

    def summary(self) -> None:
        print("\n| server | quiet RSS, MiB | peak | descriptors | tasks | stopped on | late |")
        print("|---|---|---|---|---|---|---|")
        for server in self.servers:
            columns = {
                name: ", then ".join(
                    " ".join(f"{point[name] / unit:.{digits}f}" for point in life)
                    for life in server.quiet
                )
                for name, unit, digits in (("rss", MIB, 1), ("fds", 1, 0), ("tasks", 1, 0))
            }
            print(
                f"| {server.name} | {columns['rss']} | {server.peak / MIB:.0f} "
                f"| {columns['fds']} | {columns['tasks']} | {server.stopped_on} "
                f"| {server.late} |"
            )
        lives = dict(self.counts)
        echoes, cut = lives.pop("echoes", 0), lives.pop("cut short", 0)
        print(f"\n{echoes:,} echoes checked; connections, {cut:,} of them cut short:")
        print(", ".join(f"{kind} {number:,}" for kind, number in sorted(lives.items())))


def main() -> int:
    if not Path("/proc/self/statm").exists():
        sys.exit("this reads what processes take from /proc, which there is on Linux only")
    soak = Soak()
    soak.run()
    soak.summary()
    if soak.failures:
        print(f"FAILED: {len(soak.failures)} times; first: {soak.failures[0].splitlines()[0]}")
        return 1
    print("all is flat, and nothing was lost")
    return 0


if __name__ == "__main__":
    sys.exit(main())
