# cython: language_level=3, freethreading_compatible=True, subinterpreters_compatible=no
# cython: autotestdict=False, nonecheck=True, annotation_typing=False
# cython: binding=False, boundscheck=False, wraparound=False
"""Who gets the messages of a connection.

This module knows what becomes of messages that arrived: they are dropped, passed to
`on_message`, or wait to be taken; and how fast to read while they wait. It does not know who
takes them, or how reading is slowed down.

It is written once. Where it can be, it is compiled, as `fastws._c.sinks`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastws import _cython as cython
from fastws.aio.phases import Pace
from fastws.events import MessagePart, Text
from fastws.exceptions import ConnectionClosed
from fastws.rules import memory_of
from fastws.spec import State

if cython.compiled:  # pragma: no cover
    import cython  # type: ignore[import-untyped, no-redef]

if TYPE_CHECKING:
    import asyncio

    from fastws.events import Event

    from .flow import Flow

__all__ = ["Hooks", "Queue", "Sink"]

# The members of an enum are slow to get at.
_OPEN = State.OPEN
_CLOSING = State.CLOSING

# When we have sent a close frame, messages may still be received. If none was for this long, in
# seconds, the rest is dropped: it must not keep the peer's close frame from us.
_PATIENCE = 0.1


@cython.cclass
class Sink:
    """Nobody: messages are dropped. Base of those who want them.

    Attributes:
        messages: those that wait to be taken, the next one at the end; None if there are none.
        waiter: what the one task awaits that waits for a message; None if there is none.
    """

    __slots__ = ("messages", "waiter")

    messages: list[str | bytes | Text] | None
    waiter: asyncio.Future[None] | None

    # Whether to read on although the client does not take the answers.
    ignores_unsent = False
    # Whether those who send messages wait for room, so that what is sent besides is small.
    senders_wait = False

    def __init__(self) -> None:
        self.messages = None
        self.waiter = None

    def take(self, endpoint: Any, events: list[Event], only_messages: bool) -> None:
        """Messages and control frames arrived; must not raise.

        Args:
            endpoint: the connection.
            events: what arrived, in order; the list is ours now.
            only_messages: whether there are no control frames among them.
        """

    def pace(self, endpoint: Flow) -> Pace:
        """Return how fast to read."""
        return Pace.FAST

    def closing(self, endpoint: Flow) -> None:
        """We have sent a close frame."""

    def ended(self, endpoint: Flow) -> None:
        """Nothing more will arrive."""

    def emptied(self, endpoint: Any) -> None:
        """The last message that waited was taken."""

    def is_full(self, endpoint: Flow) -> bool:
        """Return whether so much waits that nothing more can be read at all."""
        return False


@cython.cclass
class Hooks(Sink):
    """The protocol's own `on_message`. There is no state: one serves all connections."""

    __slots__ = ()

    def take(self, endpoint: Any, events: list[Event], only_messages: bool) -> None:
        position = self._hand_over(endpoint, events, 0)
        while position < len(events):
            position = self._hand_over(endpoint, events, position)

    def _hand_over(self, endpoint: Any, events: list[Event], position: int) -> int:
        """Hand over the events from a position on; return that of the first one that is left, as
        `on_message` raised ConnectionClosed."""
        on_message = endpoint.on_message
        try:
            # (It takes time to enter a `try`: too much to do it for each message.)
            while position < len(events):
                event = events[position]
                position += 1
                if type(event) is str or type(event) is bytes or type(event) is Text:
                    on_message(event)
        except BaseException as exc:
            endpoint._hook_failed(exc)
            if not isinstance(exc, ConnectionClosed):
                return len(events)
        return position

    def pace(self, endpoint: Flow) -> Pace:
        return Pace.STOPPED if endpoint._is_overfull() else Pace.FAST


@cython.cclass
class Queue(Sink):
    """Messages that wait for a coroutine to take them."""

    __slots__ = ("_arrived", "_discarding", "is_held")

    senders_wait = True

    _arrived: int
    _discarding: bool
    is_held: bool

    def __init__(self) -> None:
        self.messages = None
        self.waiter = None
        self.is_held = False  # reading, as too much waits
        self._discarding = False
        # The memory of the messages that arrived since reading is held, in bytes. Before that it
        # is at least the memory of all that wait.
        self._arrived = 0

    # For those who take messages -------------------------------------------------------------

    def wake(self) -> None:
        """Wake the task that waits: there is a message, or something else to know."""
        if self.waiter is not None and not self.waiter.done():
            self.waiter.set_result(None)

    # For the endpoint -----------------------------------------------------------------------

    def take(self, endpoint: Any, events: list[Event], only_messages: bool) -> None:
        messages: list[Any] = events
        if not only_messages:
            messages = [
                event for event in events if isinstance(event, (str, bytes, Text, MessagePart))
            ]
            if not messages:
                return
        messages.reverse()
        if self.messages is None and not self._discarding:
            self.messages = messages
        else:
            self._enqueue(endpoint, messages)
        self.wake()

    def pace(self, endpoint: Flow) -> Pace:
        connection = endpoint._connection
        if connection is None or connection.state is not _OPEN:
            # Messages are taken soon, or dropped.
            return Pace.STOPPED if self.is_held else Pace.FAST
        if connection.has_pending and self.messages is not None:
            # What was read and is not decoded yet waits, too, for these to be taken.
            self._set_held(endpoint, True)
        if self.is_held:
            return Pace.STOPPED if self.is_full(endpoint) else Pace.SLOW
        return Pace.SLOW if endpoint._is_overfull() else Pace.FAST

    def closing(self, endpoint: Flow) -> None:
        messages = self.messages
        if messages is not None and self._is_in_the_way(endpoint):
            # (The task that takes messages has a turn first: after a stall, uvloop calls what is
            # due before it.)
            endpoint._loop.call_later(
                _PATIENCE,
                endpoint._loop.call_soon,
                self._drop_unread,
                endpoint,
                messages,
                len(messages),
            )

    def ended(self, endpoint: Flow) -> None:
        self.wake()

    def emptied(self, endpoint: Any) -> None:
        if self.is_held:
            self._hold(endpoint, False)

    def is_full(self, endpoint: Flow) -> bool:
        if not self.is_held:
            return False
        settings = endpoint._settings
        if settings.read_limit is not None:
            return self._arrived > settings.read_limit
        if settings.max_queue is not None:
            return len(self.messages or ()) > 2 * settings.max_queue
        return False

    # How much waits -------------------------------------------------------------------------

    def _enqueue(self, endpoint: Flow, messages: list[str | bytes | Text]) -> None:
        if self._discarding:
            return  # for good: there must be no gap between what is received
        assert self.messages is not None
        self.messages[:0] = messages
        # (What came before the first pile is in the queue, and counted with it.)
        first = not self.is_held and not self._arrived
        self._arrived += sum(map(memory_of, self.messages if first else messages))
        if not self.is_held and self._too_much_waits(endpoint):
            self._hold(endpoint, True)
            self.closing(endpoint)

    def _too_much_waits(self, endpoint: Flow) -> bool:
        assert self.messages is not None
        settings = endpoint._settings
        if settings.max_queue is not None and len(self.messages) >= settings.max_queue:
            return True
        if endpoint.state is not _OPEN:  # there is little left to wait for
            return True
        limit = settings.read_limit
        if limit is None or self._arrived < limit:
            return False
        # Some of what arrived was taken since. To count it only now keeps this linear.
        self._arrived = sum(map(memory_of, self.messages))
        return self._arrived >= limit

    def _hold(self, endpoint: Flow, held: bool) -> None:
        self._set_held(endpoint, held)
        endpoint._update_reading()

    def _set_held(self, endpoint: Flow, held: bool) -> None:
        if held != self.is_held:
            self.is_held = held
            if held:
                endpoint._read_pauses += 1
            self._arrived = 0

    def _is_in_the_way(self, endpoint: Flow) -> bool:
        """Return whether messages that wait keep the peer's close frame from us."""
        return self.is_held and endpoint.state is _CLOSING

    def _drop_unread(self, endpoint: Flow, messages: list[str | bytes | Text], unread: int) -> None:
        # (If all of them were taken, there is another list now, which has its own time.)
        if self.messages is not messages or not self._is_in_the_way(endpoint):
            return
        if len(messages) < unread:
            self.closing(endpoint)
        else:
            self._discarding = True
            self._hold(endpoint, False)
