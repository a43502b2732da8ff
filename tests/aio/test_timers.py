"""The timers of connections: they fire in order and in time, or not at all if cancelled."""

from __future__ import annotations

import asyncio
import gc
import random
from contextvars import ContextVar
from types import SimpleNamespace
from weakref import ref

import pytest

from fastws.aio import timers as module
from fastws.aio.timers import Timers, timers_of

pytestmark = pytest.mark.loops("asyncio", "uvloop", "aiofastnet")

VARIABLE: ContextVar[str] = ContextVar("VARIABLE", default="unset")


class Clock:
    """What Timers needs of an event loop; time passes when a test says so."""

    def __init__(self):
        self.now = 100.0
        self.scheduled = []
        self.soon = []

    def time(self):
        return self.now

    def call_at(self, when, callback):
        item = (when, callback)
        self.scheduled.append(item)
        return SimpleNamespace(cancel=lambda: self.unschedule(item))

    def unschedule(self, item):
        self.scheduled = [other for other in self.scheduled if other is not item]

    def call_soon(self, callback, *args, context=None):
        handle = asyncio.Handle(callback, args, SilentLoop(), context)
        self.soon.append(handle)
        return handle

    def pass_time(self, seconds):
        """Let the time pass, and call what is due, one after the other."""
        end = self.now + seconds
        while due := [item for item in self.scheduled if item[0] <= end]:
            item = min(due, key=lambda each: each[0])
            self.scheduled.remove(item)
            self.now = max(self.now, item[0])
            item[1]()
            self.run_soon()
        self.now = end

    def run_soon(self):
        soon, self.soon = self.soon, []
        for handle in soon:
            if not handle.cancelled():
                handle._run()


class SilentLoop:
    def get_debug(self):
        return False


@pytest.fixture
def clock():
    return Clock()


def test_they_fire_when_they_are_due(clock):
    fired = []
    timers = Timers(clock)
    for delay in (3, 1, 2, 1):
        timer = timers.call_later(delay, lambda delay: fired.append((delay, clock.now)), delay)
        assert timer.when() == 100 + delay
    clock.pass_time(0.9)
    assert fired == []
    clock.pass_time(10)
    assert fired == [(1, 101), (1, 101), (2, 102), (3, 103)]
    assert clock.scheduled == []


def test_a_cancelled_one_does_not_fire(clock):
    fired = []
    timers = Timers(clock)
    first, second = (timers.call_later(1, fired.append, number) for number in range(2))
    first.cancel()
    first.cancel()
    clock.pass_time(1)
    assert fired == [1]
    second.cancel()  # too late
    clock.pass_time(1)
    assert fired == [1]


def test_one_can_be_cancelled_by_another_that_is_due_at_the_same_time(clock):
    fired = []
    timers = Timers(clock)
    pair = []

    def fire(number):
        fired.append(number)
        pair[1 - number].cancel()

    pair += [timers.call_later(1, fire, number) for number in range(2)]
    clock.pass_time(2)
    assert len(fired) == 1


def test_one_that_fails_does_not_stop_the_others(clock):
    fired = []
    timers = Timers(clock)
    timers.call_later(1, lambda: 1 / 0)
    timers.call_later(1, fired.append, 1)
    clock.now = 101
    timers._run()
    [_, good] = clock.soon
    good._run()
    assert fired == [1]


def test_one_timer_of_the_loop_is_enough(clock):
    timers = Timers(clock)
    for number in range(100):
        timers.call_later(10 + number, print)
    assert len(clock.scheduled) == 1
    early = timers.call_later(1, print)
    assert [when for when, _ in clock.scheduled] == [101]
    early.cancel()
    clock.pass_time(5)
    assert [when for when, _ in clock.scheduled] == [110]


def test_without_timers_there_is_none_of_the_loop(clock):
    timers = Timers(clock)
    for _ in range(3):
        several = [timers.call_later(delay, print) for delay in (3, 1, 2)]
        for timer in several:
            assert len(clock.scheduled) == 1
            timer.cancel()
        assert clock.scheduled == timers._queue == []


def test_cancelled_ones_do_not_pile_up(clock):
    timers = Timers(clock)
    kept = [timers.call_later(1000, print) for _ in range(10)]
    for _ in range(10_000):
        timers.call_later(10, print).cancel()
        assert len(timers._queue) < 200
    assert {timer for _, timer in timers._queue} >= set(kept)


def test_a_cancelled_one_holds_nothing(clock):
    class Target:
        def method(self, argument):
            pass

    target, argument = Target(), Target()
    timer = Timers(clock).call_later(1, target.method, argument)
    watched = [ref(target), ref(argument)]
    timer.cancel()
    del target, argument
    gc.collect()
    assert [each() for each in watched] == [None, None]


def test_any_order(clock):
    draw = random.Random(1)
    timers = Timers(clock)
    fired, expected = [], []
    for number in range(2000):
        delay = draw.choice((1, 5, draw.random() * 10))
        timer = timers.call_later(delay, lambda n: fired.append((clock.now, n)), number)
        if draw.random() < 0.7:
            timer.cancel()
        else:
            expected.append((timer.when(), number))
        if draw.random() < 0.1:
            clock.pass_time(draw.random())
    clock.pass_time(20)
    assert {number for _, number in fired} == {number for _, number in expected}
    due = {number: when for when, number in expected}
    assert all(due[number] - 0.001 <= now <= due[number] + 1e-9 for now, number in fired)


async def test_on_a_loop():
    loop = asyncio.get_running_loop()
    timers = timers_of(loop)
    assert timers_of(loop) is timers
    done = loop.create_future()
    VARIABLE.set("set")
    seen = []
    timers.call_later(0.02, lambda: seen.append(VARIABLE.get()))
    VARIABLE.set("set later")
    cancelled = timers.call_later(0.01, seen.append, "cancelled")
    timers.call_later(0.05, done.set_result, None)
    cancelled.cancel()
    begun = loop.time()
    await done
    assert loop.time() >= begun + 0.04
    assert seen == ["set"]


def test_loops_in_turns_have_timers_of_their_own():
    loops = [asyncio.new_event_loop() for _ in range(2)]
    try:
        fired = []
        first = timers_of(loops[0])
        first.call_later(0, fired.append, 0)
        second = timers_of(loops[1])
        assert second is not first
        second.call_later(0, fired.append, 1)
        timers_of(loops[0]).call_later(0, fired.append, 2)
        for loop in loops:
            loop.run_until_complete(asyncio.sleep(0.01))
        assert sorted(fired) == [0, 1, 2]
    finally:
        for loop in loops:
            loop.close()


def test_a_loop_that_is_gone_is_not_kept():
    loop = asyncio.new_event_loop()
    timers_of(loop).call_later(60, loop.time)
    watched = ref(loop)
    loop.close()
    del loop
    gc.collect()
    assert watched() is None
    assert module._latest.timers is None or module._latest.timers() is None
