"""fastws.bus over real brokers: what arrives, in which order, and what a broker's end does."""

from __future__ import annotations

import asyncio
import re
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from fastws import RetryPolicy
from fastws.bus import BusError
from fastws.bus._envelope import GAP, new_origin, open_envelope, seal, seal_gap

from .conftest import SOON, Nats


class Process:
    """What one process has: a bus, what it has delivered, and the gaps it has told of."""

    def __init__(self, broker, **options):
        self.arrived = []
        self.gaps = []
        options = {"retry": SOON} | options
        self.bus = broker.bus(on_gap=self.gaps.append, **options)

    def deliver(self, topic, message):
        self.arrived.append((topic, message))


@asynccontextmanager
async def processes(broker, count, **options):
    async with AsyncExitStack() as stack:
        made = [Process(broker, **options) for _ in range(count)]
        for process in made:
            await process.bus.start(process.deliver)
            stack.push_async_callback(process.bus.close)
        yield made


# With a broker ---------------------------------------------------------------------------------

TOPICS = ["room:42", "a.b c*>", "", ".", "ä\n\r\t/%", "x" * 1024, "*", "$SYS"]


async def test_messages_arrive_as_they_are_and_in_order(broker, until):
    messages = ["", b"", "text äö\0", b"\x00\xff", "t" * 70_000, bytes(70_000)]
    expected = [(topic, message) for topic in TOPICS for message in messages]
    async with processes(broker, 3) as (one, two, three):
        for topic in TOPICS:
            await two.bus.subscribe(topic)
        await one.bus.subscribe(TOPICS[0])
        for topic, message in expected:
            await one.bus.publish(topic, message)
        await until(lambda: len(two.arrived) == len(expected))
        # (Over NATS, only the messages of one topic are in order.)
        for topic in TOPICS:
            assert [m for t, m in two.arrived if t == topic] == messages
        # Not our own ones, nor those of topics that nobody here has subscribed to.
        assert (one.arrived, three.arrived) == ([], [])
        assert (one.gaps, two.gaps) == ([], [])


async def test_nothing_arrives_after_unsubscribe(broker, until):
    async with processes(broker, 2) as (one, two):
        for _ in range(3):  # again and again
            await two.bus.subscribe("a")
            await two.bus.unsubscribe("a")
            await two.bus.unsubscribe("a")
        await two.bus.subscribe("b")
        await one.bus.publish("a", "missed")
        await one.bus.publish("b", "seen")
        await until(lambda: two.arrived)
        assert two.arrived == [("b", "seen")]
        await two.bus.subscribe("a")
        await one.bus.publish("a", "again")
        await until(lambda: len(two.arrived) == 2)
        assert two.arrived[1] == ("a", "again")


async def test_many_topics_and_messages_at_once(broker, until):
    async with processes(broker, 2) as (one, two):
        await asyncio.gather(*(two.bus.subscribe(f"t{n}") for n in range(600)))
        for n in range(1200):
            await one.bus.publish(f"t{n % 600}", str(n))
        await until(lambda: len(two.arrived) == 1200)
        assert sorted(two.arrived) == sorted((f"t{n % 600}", str(n)) for n in range(1200))


async def test_buses_with_another_prefix_are_apart(broker, until):
    async with processes(broker, 1) as (one,), processes(broker, 2, prefix="other") as (two, three):
        for process in (one, two):
            await process.bus.subscribe("a")
        await three.bus.publish("a", "x")
        await until(lambda: two.arrived)
        assert one.arrived == []


async def test_what_no_bus_wrote_and_what_fails_is_logged(redis, until, caplog):
    from redis.asyncio import Redis

    class Picky(Process):
        def deliver(self, topic, message):
            super().deliver(topic, message)
            if message == "bad":
                raise RuntimeError("a mistake")

    process = Picky(redis)
    await process.bus.start(process.deliver)
    async with Redis.from_url(redis.url) as client, processes(redis, 1) as (other,):
        await process.bus.subscribe("a")
        for data in ("hello", b"t", b"x12345678", b"t12345678\xff", b"g12345678x"):
            await client.publish("fastws:a", data)
        await other.bus.publish("a", "bad")
        await other.bus.publish("a", "good")
        await until(lambda: len(process.arrived) == 2)
    await process.bus.close()
    assert [message for _, message in process.arrived] == ["bad", "good"]
    assert caplog.text.count("not from a bus") == 1
    assert caplog.text.count("could not deliver") == 1


# Without one -----------------------------------------------------------------------------------


async def test_a_broker_that_dies_and_returns(broker, until, caplog):
    async with processes(broker, 2) as (one, two):
        await two.bus.subscribe("a")
        await two.bus.subscribe("left")
        await one.bus.publish("a", "1")
        await until(lambda: two.arrived)
        broker.kill()
        try:
            await until(lambda: caplog.text.count("lost the broker") == 2)
            # What is published now waits, and so does who subscribes.
            await one.bus.publish("a", "2")
            await one.bus.publish("a", b"3")
            await two.bus.unsubscribe("left")
            waiting = asyncio.create_task(two.bus.subscribe("b"))
            await until(lambda: "cannot connect" in caplog.text)
            assert not waiting.done()
            assert two.gaps == []
        finally:
            broker.start()
        await waiting
        await until(lambda: two.gaps)
        # Only one of the two may have been subscribed again when the other published.
        assert two.gaps == [{"a"}]
        await one.bus.publish("b", "new")
        await one.bus.publish("a", "4")
        await until(lambda: ("a", "4") in two.arrived and ("b", "new") in two.arrived)
        texts = [message for topic, message in two.arrived if topic == "a"]
        assert texts in (["1", "2", b"3", "4"], ["1", "4"], ["1", b"3", "4"])
        assert caplog.text.count("the broker is back") == 2


async def test_what_waits_is_bounded_and_a_loss_is_told(broker, until, caplog):
    async with processes(broker, 1) as (two,):
        await two.bus.subscribe("a")
        slow = RetryPolicy(initial_delay=0.0, max_delay=0.0)
        async with processes(broker, 1, max_waiting=100_000, retry=slow) as (one,):
            # The event loop has no time for the broker meanwhile.
            sent = 100_000 // (9 + 1000 + 1 + 256)
            for _ in range(sent):
                await one.bus.publish("a", "x" * 1000)
            with pytest.raises(BusError, match=r"^\d+ bytes are already waiting for the broker"):
                await one.bus.publish("a", "x" * 1000)
            assert one.bus.waiting_size <= 100_000
            await until(lambda: len(two.arrived) == sent and two.gaps)
            assert two.gaps == [{"a"}]
            assert one.bus.waiting_size == 0
            await one.bus.publish("a", "y")
            await until(lambda: len(two.arrived) == sent + 1)
            # One that is larger than the limit is sent if nothing waits.
            await one.bus.publish("a", "z" * 200_000)
            with pytest.raises(BusError, match=r"^200\d+ bytes are already waiting for the broker"):
                await one.bus.publish("a", "y")
            await until(lambda: two.arrived[-1] == ("a", "z" * 200_000) and len(two.gaps) == 2)
            with pytest.raises(ValueError, match="message must be at most"):
                await one.bus.publish("a", bytes(17 << 20))
            with pytest.raises(ValueError, match="topic must be at most 1024 bytes, not 1026"):
                await one.bus.publish("ä" * 513, "")


async def test_a_broker_that_is_silent_is_left(broker, until, caplog):
    async with processes(broker, 1, ping_interval=0.1) as (one,):
        await one.bus.subscribe("a")
        broker.freeze()
        try:
            await one.bus.publish("a", "lost")
            await until(lambda: "lost the broker" in caplog.text)
        finally:
            broker.kill()
            broker.start()
        await until(lambda: one.gaps)
        assert one.gaps == [{"a"}]


async def test_a_bus_that_is_not_open(broker, caplog):
    process = Process(broker)
    with pytest.raises(BusError, match="closed, or not started"):
        await process.bus.publish("a", "x")
    await process.bus.close()
    starting = asyncio.create_task(process.bus.start(process.deliver))
    await asyncio.sleep(0)
    starting.cancel()
    await asyncio.wait([starting])
    await process.bus.start(process.deliver)
    with pytest.raises(BusError, match="already been started"):
        await process.bus.start(process.deliver)
    await process.bus.publish("a", "x")  # sent before it closes
    broker_waits = asyncio.create_task(process.bus.subscribe("a"))
    await process.bus.unsubscribe("a")
    await process.bus.close()
    await process.bus.close()
    with pytest.raises(BusError, match="closed"):
        await process.bus.subscribe("a")
    await asyncio.wait([broker_waits])
    assert isinstance(broker_waits.exception(), BusError)
    assert "closing with" not in caplog.text
    broker.kill()
    try:
        with pytest.raises(BusError, match="cannot connect to the broker: "):
            await Process(broker, connect_timeout=5).bus.start(process.deliver)
    finally:
        broker.start()


async def test_close_gives_up_a_broker_that_is_away(broker, until, caplog, monkeypatch):
    monkeypatch.setattr("fastws.bus._broker._FAREWELL", 0.1)
    async with processes(broker, 1, retry=RetryPolicy(initial_delay=9.0)) as (one,):
        waiting = asyncio.create_task(one.bus.subscribe("a"))
        broker.kill()
        try:
            await until(lambda: "lost the broker" in caplog.text)
            await one.bus.publish("a", "x")
            await one.bus.close()
        finally:
            broker.start()
        await asyncio.wait([waiting])
        assert isinstance(waiting.exception(), BusError)
    assert re.search(r"closing with \d+ bytes", caplog.text)


# The envelope ----------------------------------------------------------------------------------


def test_an_envelope_is_what_its_documentation_says():
    origin = new_origin()
    assert seal(origin, "ä") == b"t" + origin + b"\xc3\xa4"
    assert seal(origin, bytearray(b"\xff")) == b"b" + origin + b"\xff"
    assert open_envelope(seal(origin, "ä")) == (origin, "ä")
    assert open_envelope(seal(origin, b"\xff")) == (origin, b"\xff")
    assert open_envelope(seal_gap(origin)) == (origin, GAP)
    assert repr(GAP) == "GAP"
    with pytest.raises(UnicodeEncodeError):
        seal(origin, "\ud800")
    with pytest.raises(TypeError):
        seal(origin, 1)  # type: ignore[arg-type]


# A slow process --------------------------------------------------------------------------------


async def test_what_nats_drops_in_a_slow_process_is_a_gap(tmp_path, until, monkeypatch):
    monkeypatch.setattr("fastws.bus.nats._PENDING", 2000)
    nats = Nats(tmp_path).start()
    try:
        async with processes(nats, 2) as (one, two):
            await two.bus.subscribe("a")
            await two.bus.subscribe("b")
            # Many of them are read at once, before the task of their topic runs.
            for _ in range(20):
                await one.bus.publish("a", "x" * 1000)
            await one.bus.publish("b", "end")
            await until(lambda: ("b", "end") in two.arrived and two.gaps)
            assert set(two.gaps) == {frozenset("a")}
            assert len(two.arrived) < 21
    finally:
        nats.kill()
