"""One message to many receivers, of which some may take too little.

This module knows how much may wait to be sent, and what to do about a receiver that exceeds it.
It does not know what topics are.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

from fastws import rules
from fastws.exceptions import ConnectionClosed
from fastws.spec import MAX_HEADER

from .outbox import Outbox, cost

if TYPE_CHECKING:
    from collections.abc import Generator, Hashable, Iterable, Sequence

    from fastws.prepared import PreparedMessage

    from .receivers import Receiver
    from .senders import Senders

__all__ = ["Budget", "Policy", "Published", "check_policy", "fan_out"]

# What to do about a slow receiver.
Policy: TypeAlias = Literal["close", "drop", "latest", "wait"]

_POLICIES = get_args(Policy)


def check_policy(slow: object) -> None:
    """Raise ValueError if this is not a policy."""
    if slow not in _POLICIES:
        raise ValueError(f"slow must be one of {', '.join(_POLICIES)}, not {slow!r}")


class Budget:
    """How much may wait to be sent, and for how long.

    Args:
        max_unsent_size: to one receiver, in bytes; None for no limit.
        max_total_unsent_size: to all receivers that are slow, in bytes; None for no limit.
        wait_timeout: for how long a publisher waits for a receiver, in seconds; None for no limit.
        among: the receivers, if this is for one message; otherwise those that turn out to be slow.
    """

    __slots__ = ("_among", "_max_total", "_max_unsent", "_slow", "_total", "wait_timeout")

    def __init__(
        self,
        max_unsent_size: int | None,
        max_total_unsent_size: int | None,
        wait_timeout: float | None,
        among: Sequence[Receiver] = (),
    ) -> None:
        rules.check_limit("max_unsent_size", max_unsent_size, 1)
        rules.check_limit("max_total_unsent_size", max_total_unsent_size, 1)
        rules.check_timeout("wait_timeout", wait_timeout)
        self.wait_timeout = wait_timeout
        self._max_unsent = max_unsent_size
        self._max_total = max_total_unsent_size
        self._among = among
        # What the slow receivers had unsent when that was last looked at, or more, by their ids.
        self._slow: dict[int, tuple[Receiver, int]] = {}
        self._total = 0

    def has_room(self, receiver: Receiver, size: int) -> bool:
        """Return whether so many bytes more may wait for a receiver, and count them if so.

        A message that is larger than the limit has room if it is alone.
        """
        unsent = receiver._unsent()
        if unsent:
            for limit in (self._max_unsent, receiver._most_unsent()):
                if limit is not None and unsent + size > limit:
                    return False
        if self._max_total is None:
            return True
        among, self._among = self._among, ()
        for other in among:
            if other._write_paused:
                self._note(other, other._unsent())
        self._note(receiver, unsent + size)
        if self._total > self._max_total:
            # The others may have taken something since.
            for other, _ in list(self._slow.values()):
                if other is not receiver:
                    self._note(other, other._unsent())
            if self._total > self._max_total:
                self._note(receiver, unsent)
                return False
        return True

    def forget(self, receiver: Receiver) -> None:
        """The receiver has left."""
        self._note(receiver, 0)

    def _note(self, receiver: Receiver, unsent: int) -> None:
        _, before = self._slow.pop(id(receiver), (None, 0))
        self._total += unsent - before
        if unsent:
            self._slow[id(receiver)] = (receiver, unsent)


class Fanout:
    """One message on its way to those receivers that cannot just be sent it.

    Args:
        message: the message.
        budget: how much may wait.
        slow: what to do about a slow receiver.
        key: for `latest`: a message that waits is replaced by one with the same key.
        compress: whether to compress the message; None to decide by its size.

    Attributes:
        sent: how many receivers it went to.
        dropped: how many messages slow receivers missed because of the policy.
        closed: how many receivers were closed.
    """

    __slots__ = (
        "_budget",
        "_compress",
        "_deferred",
        "_key",
        "_message",
        "_size",
        "_slow",
        "_waiting",
        "closed",
        "dropped",
        "sent",
    )

    def __init__(
        self,
        message: PreparedMessage,
        budget: Budget,
        slow: Policy,
        key: Hashable,
        compress: bool | None,
    ) -> None:
        self._message = message
        self._budget = budget
        self._size = len(message.payload) + MAX_HEADER  # or less, if it is compressed
        self._slow = slow
        self._key = key
        self._compress = compress
        # With the policy `wait`: who takes too little, with a future if the message is not sent
        # yet; and who has no room for it.
        self._waiting: list[tuple[Receiver, asyncio.Future[None] | None]] = []
        self._deferred: list[Receiver] = []
        self.sent = 0
        self.dropped = 0
        self.closed = 0

    def send(self, receivers: Iterable[Receiver]) -> None:
        """Send the message to receivers that take too little or are busy."""
        for receiver in receivers:
            try:
                if self._send_slowly(receiver):
                    self.sent += 1
            except ConnectionClosed:
                pass
            except Exception as exc:  # the others get it
                _log(receiver, exc)

    def _send_slowly(self, receiver: Receiver) -> bool:
        """Send the message to a receiver that takes too little or is busy; return whether it was
        sent, or will be."""
        senders = receiver._senders
        is_busy = senders is not None and senders.is_busy
        if not receiver._is_open():
            return False
        outbox = senders.outboxes[-1] if senders is not None and senders.outboxes else None
        if outbox is not None and not outbox.is_last():
            outbox = None
        is_latest = self._slow == "latest"
        key = self._key if is_latest else None
        size = cost(self._message) if is_busy or is_latest else self._size
        replaced = None if outbox is None or key is None else outbox.cost_of(key)
        if not self._budget.has_room(receiver, size - (replaced or 0)):
            self._refuse(receiver)
            return False
        if replaced is not None:
            self.dropped += 1
        sent: asyncio.Future[None] | None = None
        if is_busy or is_latest:
            if self._slow == "wait":
                sent = asyncio.get_running_loop().create_future()
            (outbox or Outbox(receiver)).put(self._message, self._compress, key, sent)
        else:
            receiver._offer(self._message, compress=self._compress)
        if self._slow == "wait":
            self._waiting.append((receiver, sent))
        return True

    def _refuse(self, receiver: Receiver) -> None:
        """A receiver has no room for the message."""
        if self._slow == "wait":
            self._deferred.append(receiver)
        elif self._slow == "close":
            self._close(receiver, "too much is unsent")
        else:
            self.dropped += 1

    def _close(self, receiver: Receiver, reason: str) -> None:
        if receiver._is_open():
            self.closed += 1
            receiver._drop_peer(reason)
            self._budget.forget(receiver)

    def published(self) -> Published:
        """Return what to tell the publisher."""
        published = Published(self.sent)
        published._fanout = self
        return published

    @property
    def missed(self) -> int:
        """How many messages slow receivers missed, if the publisher does not wait."""
        return self.dropped + len(self._deferred)

    # Afterwards, if the publisher waits ------------------------------------------------------

    @property
    def is_finished(self) -> bool:
        """Whether there is nothing to wait for."""
        return not self._waiting and not self._deferred

    async def finish(self) -> None:
        """With the policy `wait`, wait until slow receivers have taken enough, or are closed
        because that takes them too long."""
        waiting, self._waiting = self._waiting, []
        deferred, self._deferred = self._deferred, []
        tasks: dict[asyncio.Task[None], Receiver] = {}
        try:
            async with asyncio.timeout(self._budget.wait_timeout), asyncio.TaskGroup() as group:
                for receiver, sent in waiting:
                    tasks[group.create_task(self._wait_for(receiver, sent))] = receiver
                for receiver in deferred:
                    # (What is sent from now on comes after this message.)
                    senders = receiver._waiting_senders()
                    place = senders.line_up()
                    task = group.create_task(self._send_later(receiver, place))
                    task.add_done_callback(partial(_leave, senders, place))
                    tasks[task] = receiver
        except TimeoutError:
            for task, receiver in tasks.items():
                if task.cancelled():
                    self._close(receiver, "too slow")

    async def _wait_for(self, receiver: Receiver, sent: asyncio.Future[None] | None) -> None:
        if sent is not None:
            await sent
        elif receiver._write_paused:
            await receiver._drain()

    async def _send_later(self, receiver: Receiver, place: asyncio.Future[None]) -> None:
        try:
            await place
            while receiver._write_paused and receiver._is_open():
                if self._budget.has_room(receiver, self._size):
                    break
                await receiver._drain()
            running = receiver._offer(self._message, compress=self._compress)
            if running is not None:
                await receiver._finish(running)
        except ConnectionClosed:
            pass
        except Exception as exc:
            _log(receiver, exc)
        else:
            self.sent += 1


def fan_out(
    message: PreparedMessage,
    receivers: Sequence[Receiver],
    budget: Budget,
    slow: Policy,
    key: Hashable,
    compress: bool | None,
) -> Published:
    """Send a message to receivers. The arguments are those of `Fanout`.

    Raises:
        RuntimeError: if this is not called in the event loop of the receivers.
    """
    if receivers and receivers[0]._is_elsewhere():
        raise RuntimeError(
            "messages must be published in the event loop of the connections: from another "
            "thread, call loop.call_soon_threadsafe(topics.publish, topic, message)"
        )
    others: list[Receiver] = []
    sent = len(receivers)
    remaining = iter(receivers)
    while True:
        try:
            # (Little more happens for each receiver than in a loop over `send`.)
            for receiver in remaining:
                if receiver._fast_send(message):
                    continue
                senders = receiver._senders
                if receiver._write_paused or (senders is not None and senders.is_busy):
                    others.append(receiver)
                elif compress is None:  # it takes longer to pass it
                    receiver._offer(message)
                else:
                    receiver._offer(message, compress=compress)
            break
        except ConnectionClosed:
            sent -= 1
        except Exception as exc:  # the others get it
            sent -= 1
            _log(receiver, exc)
    if not others:
        return Published(sent)
    fanout = Fanout(message, budget, slow, key, compress)
    fanout.sent = sent - len(others)
    fanout.send(others)
    return fanout.published()


def _log(receiver: Receiver, exc: Exception) -> None:
    receiver._log_error("could not send a published message", exc)


def _leave(senders: Senders, place: asyncio.Future[None], _: asyncio.Task[None]) -> None:
    senders.leave(place)


class Published(int):
    """How many receivers a published message went to.

    `await` waits for slow receivers if the policy is "wait". In any case, other tasks have their
    turn. It returns the same for what has happened by then.

    Results that are equal have different hashes, so that `asyncio.gather` awaits each of them.
    """

    _fanout: Fanout | None = None  # what it was more than to send it

    __hash__ = object.__hash__

    @property
    def dropped(self) -> int:
        """How many messages slow receivers missed: this one, or an older one that it replaced."""
        return 0 if self._fanout is None else self._fanout.missed

    @property
    def closed(self) -> int:
        """How many slow receivers were closed."""
        return 0 if self._fanout is None else self._fanout.closed

    def __reduce__(self) -> tuple[type[int], tuple[int]]:
        return int, (int(self),)

    def __await__(self) -> Generator[Any, None, Published]:
        fanout = self._fanout
        if fanout is None or fanout.is_finished:
            # Other tasks have their turn, even in a loop of calls. (asyncio.sleep(0) does this.)
            yield
            return self
        yield from fanout.finish().__await__()
        return fanout.published()
