"""Load for a server that answers each message with the same message, and what comes of it.

This module knows how messages are sent, in a closed or an open loop, and how long the answers
take. It does not know arguments, or how results are printed.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from dataclasses import dataclass, field
from time import perf_counter
from typing import TYPE_CHECKING

from fastws.aio.client import connect
from fastws.aio.protocol import WebSocketProtocol
from fastws.spec import State

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable

__all__ = ["Plan", "Result", "load"]

# How long to wait for the last answers, in seconds.
_PATIENCE = 5.0
# How often messages are sent that have a time of their own, in seconds.
_TICK = 0.001
# How many connections are opened at once; more may overflow the server's backlog.
_AT_ONCE = 64


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What to do.

    Attributes:
        uri: the server.
        connections: how many connections to use.
        in_flight: how many messages of each connection may wait for their answers.
        message: the message that is sent.
        rate: how many messages to send per second in all, however long the answers take; None to
            send a message when an answer arrives.
        warmup: how long to send before anything is measured, in seconds.
        duration: how long to measure, in seconds.
    """

    uri: str
    connections: int
    in_flight: int
    message: str | bytes
    rate: float | None
    warmup: float
    duration: float


@dataclass(kw_only=True)
class Result:
    """What came of it.

    Attributes:
        messages: the number of answers that arrived in time.
        seconds: how long it took.
        latencies: how many answers took how many microseconds. In an open loop, the time counts
            from when the message should have been sent.
        opening: how long it took to open each connection, in seconds.
        unanswered: the number of messages without an answer.
        wrong: the number of answers that were not the message.
        lost: why connections ended too early.
    """

    messages: int = 0
    seconds: float = 0.0
    latencies: Counter[int] = field(default_factory=Counter)
    opening: list[float] = field(default_factory=list)
    unanswered: int = 0
    wrong: int = 0
    lost: Counter[str] = field(default_factory=Counter)

    @property
    def has_failed(self) -> bool:
        """Whether something went wrong, so that the figures do not count."""
        return bool(self.wrong or self.lost or self.unanswered or not self.messages)

    def percentile(self, share: float) -> float:
        """Return how long the answers took of which this share was at least as fast, in
        milliseconds."""
        left = share * self.latencies.total()
        time = 0
        for time in sorted(self.latencies):
            left -= self.latencies[time]
            if left <= 0:
                break
        return time / 1000

    @property
    def mean(self) -> float:
        """The mean latency, in milliseconds."""
        total = sum(time * count for time, count in self.latencies.items())
        return total / max(1, self.latencies.total()) / 1000


class _Client(WebSocketProtocol):
    """One connection."""

    __slots__ = ("_load", "times")

    def __init__(self, load: _Load) -> None:
        super().__init__()
        self._load = load
        # When the messages that wait for their answers were to be sent.
        self.times: deque[float] = deque()

    def say(self, time: float) -> None:
        if self.state is State.OPEN:
            self.times.append(time)
            self.send(self._load.plan.message)

    def on_message(self, message: str | bytes) -> None:
        load = self._load
        now = perf_counter()
        if not self.times or message != load.plan.message:
            load.result.wrong += 1
            return
        time = self.times.popleft()
        if load.is_measuring:
            load.result.messages += 1
            load.result.latencies[int((now - time) * 1e6)] += 1
        if load.is_closed_loop and load.is_sending:
            self.say(now)

    def on_close(self, code: int, reason: str) -> None:
        self._load.ended(self, f"closed with {code}" + (f" ({reason})" if reason else ""))


class _Load:
    """One run."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.result = Result()
        self.clients: list[_Client] = []
        self.is_closed_loop = plan.rate is None
        self.is_sending = True
        self.is_measuring = False
        self._is_over = False

    async def open(self, ssl: ssl.SSLContext | None) -> None:
        """Open the connections."""
        for begin in range(0, self.plan.connections, _AT_ONCE):
            count = min(_AT_ONCE, self.plan.connections - begin)
            async with asyncio.TaskGroup() as group:
                for _ in range(count):
                    group.create_task(self._open_one(ssl))

    async def _open_one(self, ssl: ssl.SSLContext | None) -> None:
        begin = perf_counter()
        client = await connect(
            self.plan.uri,
            protocol=lambda: _Client(self),
            ssl=ssl,
            max_message_size=max(len(self.plan.message) * 4, 1 << 20),
        )
        self.result.opening.append(perf_counter() - begin)
        self.clients.append(client)

    def ended(self, client: _Client, why: str) -> None:
        """A connection has ended."""
        if not self._is_over:
            self.result.lost[why] += 1
            self.result.unanswered += len(client.times)
            client.times.clear()
            if client in self.clients:
                self.clients.remove(client)

    async def send(self, on_progress: Callable[[float, int], None]) -> None:
        """Send for as long as the plan says."""
        plan, result = self.plan, self.result
        if self.is_closed_loop:
            for client in list(self.clients):
                for _ in range(plan.in_flight):
                    client.say(perf_counter())
        begin = perf_counter()
        measured = 0.0
        sent = turn = 0
        while self.clients:
            now = perf_counter()
            if not self.is_measuring and now - begin >= plan.warmup:
                self.is_measuring, measured = True, now
            if self.is_measuring and now - measured >= plan.duration:
                break
            on_progress(now - begin, result.messages)
            if plan.rate is None:
                await asyncio.sleep(0.05)
                continue
            due = int((now - begin) * plan.rate)
            for number in range(sent, due):
                if not self.clients:
                    break
                turn += 1
                client = self.clients[turn % len(self.clients)]
                client.say(begin + number / plan.rate)
            sent = due
            await asyncio.sleep(_TICK)
        self.is_sending = False
        result.seconds = perf_counter() - measured if self.is_measuring else 0.0
        if self.is_closed_loop:
            self.is_measuring = False

    async def finish(self) -> None:
        """Wait for the last answers, and close the connections."""
        deadline = perf_counter() + _PATIENCE
        # (An event would cost time for each answer.)
        while perf_counter() < deadline and any(client.times for client in self.clients):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        self._is_over = True
        for client in self.clients:
            self.result.unanswered += len(client.times)
            client.close()
        await asyncio.gather(*(client.wait_closed() for client in self.clients))


async def load(
    plan: Plan, *, ssl: ssl.SSLContext | None, on_progress: Callable[[float, int], None]
) -> Result:
    """Put load on a server.

    Args:
        plan: what to do.
        ssl: the TLS context; None for the default.
        on_progress: called from time to time with the seconds since the beginning, and the number
            of answers that were measured.

    Raises:
        ExceptionGroup: if connections cannot be opened, of HandshakeError and OSError.
    """
    run = _Load(plan)
    try:
        await run.open(ssl)
        await run.send(on_progress)
    finally:
        await run.finish()
    return run.result
