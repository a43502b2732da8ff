"""Which pong answers which ping."""

from __future__ import annotations

import asyncio

import pytest

from fastws import Close, ConnectionClosed, Ping, Pong
from fastws.aio.pings import Pings


async def test_a_pong_answers_the_ping_with_its_data():
    pings = Pings()
    first, second = pings.add(b"1"), pings.add(b"2")
    pings.resolve([Pong(b"1")])
    assert first.done()
    assert not second.done()
    pings.resolve([Pong(b"2")])
    assert await first >= 0
    assert 0 <= await second < 10


async def test_a_pong_answers_the_pings_before_it_too():
    pings = Pings()
    waiters = [pings.add(b"%d" % number) for number in range(4)]
    pings.resolve([Pong(b"2")])
    assert [waiter.done() for waiter in waiters] == [True, True, True, False]
    pings.resolve([Pong(b"0"), Pong(b"1")])  # these are not on their way any more
    assert not waiters[3].done()


async def test_what_answers_no_ping_is_ignored():
    pings = Pings()
    waiter = pings.add(b"1")
    pings.resolve(["1", b"1", Ping(b"1"), Pong(), Pong(b"keepalive"), Close(), Pong(b"11")])
    assert not waiter.done()


async def test_one_read_may_answer_several():
    pings = Pings()
    waiters = [pings.add(data) for data in (b"a", b"b")]
    pings.resolve(["text", Pong(b"a"), "text", Pong(b"b")])
    assert all(waiter.done() for waiter in waiters)


async def test_a_ping_that_nobody_awaits_any_more_does_no_harm():
    pings = Pings()
    first, second = pings.add(b"1"), pings.add(b"2")
    first.cancel()
    pings.resolve([Pong(b"2")])
    assert second.done()
    assert pings.choose(b"1") == b"1"
    third = pings.add(b"3")
    third.cancel()
    pings.end(lambda: ConnectionClosed(1000))
    assert third.cancelled()


def test_data_that_is_on_its_way_cannot_be_sent_again():
    async def main():
        pings = Pings()
        pings.add(pings.choose(b"x"))
        with pytest.raises(ValueError, match="same data"):
            pings.choose(bytearray(b"x"))
        pings.resolve([Pong(b"x")])
        assert pings.choose(memoryview(b"x")) == b"x"
        with pytest.raises(TypeError):
            pings.choose("x")

    asyncio.run(main())


async def test_our_own_data_differs_from_all_that_is_on_its_way():
    pings = Pings()
    pings.add(pings.choose((1).to_bytes(4, "big")))
    chosen = []
    for _ in range(5):
        chosen.append(pings.choose(None))
        pings.add(chosen[-1])
    assert len(set(chosen)) == 5
    assert (1).to_bytes(4, "big") not in chosen
    pings.resolve([Pong(chosen[2])])
    assert pings.choose(None) not in chosen[3:]


async def test_the_end_wakes_all_that_wait():
    pings = Pings()
    waiters = [pings.add(b"1"), pings.add(b"2")]
    pings.end(lambda: ConnectionClosed(1001, "gone"))
    for waiter in waiters:
        with pytest.raises(ConnectionClosed, match="1001"):
            await waiter
    errors = {id(waiter.exception()) for waiter in waiters}
    assert len(errors) == 2  # each one has its own traceback
    pings.end(lambda: ConnectionClosed(1001))


async def test_nobody_has_to_await_a_ping():
    pings = Pings()
    pings.add(b"1")
    pings.end(lambda: ConnectionClosed(1001))
    # (The test fails if the loop hears of an exception that nobody retrieved.)
