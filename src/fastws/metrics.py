"""What servers do, in numbers, as text for Prometheus and what reads the same format.

This module knows the names of the figures, how they add up over the connections of servers, and the
text format. It does not know how the text travels, nor when anything is counted: connections count
for themselves (see `Stats`), and servers tell the rest to their observers. Prometheus's own library
is not needed.
"""

from __future__ import annotations

import sys
import time
from bisect import bisect_left
from collections import Counter
from operator import add
from typing import TYPE_CHECKING, Any, Final

from .codec import implementation, kernel
from .http import Response

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from .aio.endpoint import Endpoint
    from .aio.server import Server

__all__ = ["Metrics"]

# The upper bounds of the histogram of round trips, in seconds.
_BOUNDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)

# The counters that are sums of what connections count: the name in `Stats`, our name, and the
# meaning. The order is that in which connections keep them.
_SUMS: Final = (
    ("messages_received", "messages_received", "Complete messages received"),
    ("frames_received", "frames_received", "Frames received, including control frames"),
    ("bytes_received", "received_bytes", "Bytes received after the opening handshakes"),
    ("payload_received", "payload_received_bytes", "Size of messages received, decompressed"),
    ("pings_received", "pings_received", "Pings received"),
    ("pongs_received", "pongs_received", "Pongs received"),
    ("messages_sent", "messages_sent", "Messages sent"),
    ("frames_sent", "frames_sent", "Frames sent, including control frames"),
    ("bytes_sent", "sent_bytes", "Bytes passed to transports after the opening handshakes"),
    ("payload_sent", "payload_sent_bytes", "Size of messages sent, before compression"),
    ("pings_sent", "pings_sent", "Pings sent, including those of the keepalive"),
    ("pongs_sent", "pongs_sent", "Pongs sent"),
    ("read_pauses", "read_pauses", "How often messages waited, and reading was slowed down"),
    ("write_pauses", "write_pauses", "How often a client took too little, and senders waited"),
)

# How many close codes of applications, from _PRIVATE on, are counted each by itself. Clients choose
# them, and must not be able to make thousands of figures.
_MAX_CODES: Final = 64
_PRIVATE: Final = 3000

_PAYLOAD_SENT: Final = [field for field, _, _ in _SUMS].index("payload_sent")


class Metrics:
    """Observes servers, and says in numbers what they do.

        metrics = Metrics()

        def process_request(request):
            return metrics.response() if request.path == "/metrics" else None

        async with serve(handler, "localhost", 8080, process_request=process_request) as server:
            metrics.observe(server)
            await server.serve_forever()

    All servers that it observes must run in one event loop, and its methods must be called there.
    Counters begin when a server is observed, and keep what connections have counted when they end.

    Args:
        process: whether to say something about the process, too: CPU time and, on Linux, memory,
            open files and the time when it started.
    """

    def __init__(self, *, process: bool = True) -> None:
        self._process = process
        self._servers: list[Server] = []
        self._opened = 0
        self._closed: Counter[str] = Counter()  # by close code
        self._refused: Counter[str] = Counter()  # by limit
        self._responses: Counter[int] = Counter()  # by status
        self._lost = 0
        self._ended = [0] * len(_SUMS)  # the sums of connections that have ended
        # How many round trips were within each bound and above the one before, and above all.
        self._latencies = [0] * (len(_BOUNDS) + 1)
        self._latency_sum = 0.0

    def observe(self, server: Server) -> None:
        """Count what a server does from now on. Its connections that are open count from their
        beginning.

        Args:
            server: what `serve` returned.

        Raises:
            ValueError: if the server is observed already.
        """
        if server in self._servers:
            raise ValueError("the server is already observed")
        self._servers.append(server)
        server.observers.append(self)
        self._opened += sum(1 for _ in self._endpoints([server]))

    @property
    def connections(self) -> int:
        """The number of connections that are open or closing."""
        return sum(1 for _ in self._endpoints(self._servers))

    def totals(self) -> dict[str, int]:
        """Return the sums of what all connections have counted so far, by their names in `Stats`,
        including connections that have ended."""
        fields = (field for field, _, _ in _SUMS)
        return dict(zip(fields, self._sums(), strict=True))

    def render(self) -> str:
        """Return all figures in the text format of Prometheus, version 0.0.4."""
        lines: list[str] = []
        for name, kind, about, samples in self._families():
            lines += f"# HELP {name} {about}.", f"# TYPE {name} {kind}"
            lines += (f"{name}{suffix} {_number(value)}" for suffix, value in samples)
        return "\n".join([*lines, ""])

    def response(self) -> Response:
        """Return what a `process_request` answers a request for the metrics with."""
        headers = [
            ("Content-Type", "text/plain; version=0.0.4; charset=utf-8"),
            ("Cache-Control", "no-store"),
        ]
        return Response(200, headers, self.render().encode())

    # For Server ---------------------------------------------------------------------------

    def connection_opened(self, endpoint: Endpoint) -> None:
        self._opened += 1

    def connection_lost(self, endpoint: Endpoint) -> None:
        """The transport of a connection is gone; it may never have been open."""
        code = endpoint.close_code
        if code is not None:
            key = str(code)
            if code >= _PRIVATE and key not in self._closed and len(self._closed) >= _MAX_CODES:
                key = "other"
            self._closed[key] += 1
            self._ended = _added(self._ended, endpoint)

    def connection_refused(self, limit: str) -> None:
        """There are too many connections."""
        self._refused[limit] += 1

    def request_answered(self, status: int) -> None:
        """A request got a response other than that of the opening handshake."""
        self._responses[status] += 1

    def handshake_lost(self) -> None:
        """An opening handshake ended without a response."""
        self._lost += 1

    def ping_answered(self, latency: float) -> None:
        """A pong has arrived after so many seconds."""
        self._latencies[bisect_left(_BOUNDS, latency)] += 1
        self._latency_sum += latency

    # Figures ------------------------------------------------------------------------------

    @staticmethod
    def _endpoints(servers: Iterable[Server]) -> Iterator[Endpoint]:
        for server in servers:
            for endpoint in server._endpoints:
                if endpoint._connection is not None:
                    yield endpoint

    def _families(self) -> Iterator[tuple[str, str, str, Iterable[tuple[str, float]]]]:
        """Yield name, type, meaning and samples of each figure. A sample is what comes after the
        name, and the value."""
        unsent = sum(endpoint._unsent() for endpoint in self._endpoints(self._servers))
        build = f'implementation="{implementation}",kernel="{kernel}"'
        yield "fastws_build_info", "gauge", "The codec in use", [(f"{{{build}}}", 1)]
        yield (
            *("fastws_connections", "gauge", "Connections that are open or closing"),
            [("", self.connections)],
        )
        yield "fastws_unsent_bytes", "gauge", "Bytes that clients do not take", [("", unsent)]
        for name, about, value in (
            ("connections_opened", "Opening handshakes that succeeded", self._opened),
            ("handshakes_lost", "Opening handshakes that ended without a response", self._lost),
        ):
            yield f"fastws_{name}_total", "counter", about, [("", value)]
        counters: tuple[tuple[str, str, str, Counter[Any]], ...] = (
            ("connections_closed", "Connections that ended, by close code", "code", self._closed),
            (
                "connections_refused",
                "Connections refused because there are too many, by the limit",
                "limit",
                self._refused,
            ),
            (
                "http_responses",
                "Requests answered with plain HTTP: refused handshakes and others, by status",
                "status",
                self._responses,
            ),
        )
        for name, about, label, counts in counters:
            samples = [(f'{{{label}="{key}"}}', counts[key]) for key in sorted(counts)]
            yield f"fastws_{name}_total", "counter", about, samples
        for (_, name, about), value in zip(_SUMS, self._sums(), strict=True):
            yield f"fastws_{name}_total", "counter", about, [("", value)]
        about = "Time from a ping to its pong, of the keepalive and of the application"
        yield "fastws_ping_latency_seconds", "histogram", about, self._histogram()
        if self._process:
            yield from _process()

    def _sums(self) -> list[int]:
        sums = self._ended
        for endpoint in self._endpoints(self._servers):
            sums = _added(sums, endpoint)
        return sums

    def _histogram(self) -> list[tuple[str, float]]:
        samples: list[tuple[str, float]] = []
        count = 0
        for bound, latencies in zip((*_BOUNDS, "+Inf"), self._latencies, strict=True):
            count += latencies
            samples.append((f'_bucket{{le="{bound}"}}', count))
        return [*samples, ("_sum", self._latency_sum), ("_count", count)]


def _added(sums: list[int], endpoint: Endpoint) -> list[int]:
    """Return these sums with what a connection has counted: the same as `stats`, which takes ten
    times as long, and there may be very many connections."""
    connection = endpoint._connection
    assert connection is not None
    received, sent = connection._decoder._counts(), connection._encoder._counts()
    counts = (*received, *sent, endpoint._read_pauses, endpoint._write_pauses)
    sums = list(map(add, sums, counts))
    if connection._deflater is not None:
        sums[_PAYLOAD_SENT] += connection._deflater.saved
    return sums


def _number(value: float) -> str:
    return repr(value)


# The process ------------------------------------------------------------------------------


def _process() -> Iterator[tuple[str, str, str, list[tuple[str, float]]]]:
    """Yield what Prometheus's libraries say about the process, as far as it is easy to find out."""
    about = "User and system time of the process, in seconds"
    yield "process_cpu_seconds_total", "counter", about, [("", time.process_time())]
    if sys.platform != "linux":
        return
    import os

    try:
        with open("/proc/self/stat", "rb") as file:
            # The name of the program, in parentheses, may contain anything.
            values = file.read().rpartition(b")")[2].split()
        with open("/proc/stat", "rb") as file:
            (boot,) = (line for line in file if line.startswith(b"btime "))
        files = len(os.listdir("/proc/self/fd"))
    except (OSError, ValueError):
        return  # no /proc here
    start = int(boot.split()[1]) + int(values[19]) / os.sysconf("SC_CLK_TCK")
    about = "When the process started, in seconds since 1970"
    yield "process_start_time_seconds", "gauge", about, [("", start)]
    about = "Memory of the process that is in RAM"
    resident = int(values[21]) * os.sysconf("SC_PAGE_SIZE")
    yield "process_resident_memory_bytes", "gauge", about, [("", resident)]
    yield "process_open_fds", "gauge", "Open file descriptors", [("", files)]
