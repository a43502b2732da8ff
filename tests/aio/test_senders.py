"""The coroutines that wait to send: one after the other, and while the peer takes too little."""

from __future__ import annotations

import asyncio

import pytest

from fastws import ConnectionClosed
from fastws.aio.senders import Senders


class Crowd:
    """Coroutines that take turns, and note what happens.

    Attributes:
        senders: what they wait for.
        log: whose turn began, in order.
    """

    def __init__(self):
        self.senders = Senders()
        self.log = []
        self.gates = {}
        self.tasks = {}

    async def start(self, name, **options):
        self.gates[name] = asyncio.Event()
        self.tasks[name] = asyncio.create_task(self.take_turn(name, **options))
        await self.settle()

    async def take_turn(self, name, **options):
        async with self.senders.turn(**options):
            self.log.append(name)
            await self.gates[name].wait()

    async def end(self, name):
        self.gates[name].set()
        await self.tasks[name]
        await self.settle()

    async def settle(self):
        for _ in range(5):
            await asyncio.sleep(0)


async def test_turns_are_taken_in_the_order_of_the_calls():
    crowd = Crowd()
    assert not crowd.senders.is_busy
    for name in "abc":
        await crowd.start(name)
        assert crowd.senders.is_busy
    assert crowd.log == ["a"]
    await crowd.end("a")
    assert crowd.log == ["a", "b"]
    await crowd.start("d")
    for name in "bcd":
        assert crowd.senders.is_busy
        await crowd.end(name)
    assert crowd.log == ["a", "b", "c", "d"]
    assert not crowd.senders.is_busy


async def test_a_turn_that_fails_is_over():
    senders = Senders()
    with pytest.raises(ValueError, match="no"):
        async with senders.turn():
            raise ValueError("no")
    assert not senders.is_busy


async def test_who_is_cancelled_while_waiting_loses_the_turn():
    crowd = Crowd()
    for name in "abc":
        await crowd.start(name)
    crowd.tasks["b"].cancel()
    await crowd.settle()
    await crowd.end("a")
    assert crowd.log == ["a", "c"]
    await crowd.end("c")
    assert not crowd.senders.is_busy


async def test_who_is_cancelled_when_the_turn_has_just_come_passes_it_on():
    crowd = Crowd()
    async with crowd.senders.turn():
        await crowd.start("b")
        await crowd.start("c")
    crowd.tasks["b"].cancel()  # it was told, but did not run yet
    await crowd.settle()
    assert crowd.log == ["c"]
    await crowd.end("c")
    assert not crowd.senders.is_busy


async def test_a_turn_may_be_endless():
    crowd = Crowd()
    await crowd.start("a")
    await crowd.start("b", endless=True)
    assert not crowd.senders.is_endless
    await crowd.end("a")
    assert crowd.senders.is_endless
    await crowd.start("c")
    assert crowd.senders.is_endless
    await crowd.end("b")
    assert not crowd.senders.is_endless
    await crowd.end("c")
    assert crowd.log == ["a", "b", "c"]
    await crowd.start("d", endless=True)
    await crowd.end("d")
    assert not crowd.senders.is_endless


async def test_the_end_wakes_all_but_whose_turn_it_is():
    crowd = Crowd()
    for name in "abc":
        await crowd.start(name)
    crowd.senders.end(lambda: ConnectionClosed(1006))
    await crowd.settle()
    errors = [crowd.tasks[name].exception() for name in "bc"]
    assert [type(error) for error in errors] == [ConnectionClosed] * 2
    assert errors[0] is not errors[1]
    assert not crowd.tasks["a"].done()
    assert crowd.senders.is_busy
    await crowd.end("a")
    assert crowd.log == ["a"]
    assert not crowd.senders.is_busy


async def test_the_end_passes_by_who_is_cancelled_already():
    crowd = Crowd()
    for name in "ab":
        await crowd.start(name)
    crowd.tasks["b"].cancel()
    crowd.senders.end(lambda: ConnectionClosed(1006))
    await crowd.settle()
    assert crowd.tasks["b"].cancelled()
    await crowd.end("a")


# Room -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["make_room", "end"])
async def test_all_that_wait_for_room_are_woken(how):
    senders = Senders()
    tasks = [asyncio.create_task(senders.room()) for _ in range(3)]
    await asyncio.sleep(0.01)
    assert not any(task.done() for task in tasks)
    tasks[1].cancel()
    await asyncio.sleep(0)
    if how == "end":
        senders.end(lambda: ConnectionClosed(1006))
    else:
        senders.make_room()
    await asyncio.wait(tasks)
    assert [task.cancelled() for task in tasks] == [False, True, False]
    # (What ended the wait is for the caller to find out.)
    assert tasks[0].result() is tasks[2].result() is None


async def test_room_that_was_made_before_does_not_count():
    senders = Senders()
    senders.make_room()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await senders.room()
