"""Topics with a bus: what is published in one process reaches the subscribers of all."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

import pytest

from fastws import ConnectionClosed, Text, Topics, connect, prepare, serve
from fastws.bus import BusError

from ..aio.test_stopping import EAGER
from .conftest import SOON


class Receiver:
    """Somebody else's connection."""

    def __init__(self):
        self.got = []
        self.has_ended = False

    def send(self, message):
        if self.has_ended:
            raise ConnectionClosed(1000, "")
        self.got.append(message)


@asynccontextmanager
async def two_processes(broker):
    async with (
        Topics(bus=broker.bus(retry=SOON)) as one,
        Topics(bus=broker.bus(retry=SOON)) as two,
    ):
        yield one, two


async def test_a_message_reaches_every_process_once(broker, until):
    async with two_processes(broker) as (one, two):
        here, also_here, there = Receiver(), Receiver(), Receiver()
        one.subscribe(here, "room")
        one.subscribe(also_here, "room")
        two.subscribe(there, "room")
        await two.wait_subscribed("room")
        # (What is received with `decode_text=False` can be published as it is.)
        kinds = [Text("ä".encode()), bytearray(b"array"), prepare("é"), prepare(b"\xff")]
        messages = ["text", b"binary", *kinds]
        for message in messages:
            assert one.publish("room", message, exclude=also_here) == 1
        expected = ["text", b"binary", "ä", b"array", "é", b"\xff"]
        await until(lambda: len(there.got) == 6)
        assert there.got == here.got == expected
        assert also_here.got == []
        await one.wait_subscribed("room")
        assert two.publish("room", "back") == 1
        await until(lambda: len(here.got) == 7)
        assert len(there.got) == 7


async def test_the_bus_subscribes_with_the_first_and_leaves_with_the_last(broker, until):
    async with two_processes(broker) as (one, two):
        first, second = Receiver(), Receiver()
        wanted = two._relay._bus._topics
        two.subscribe(first, "room")
        two.subscribe(second, "room")
        two.unsubscribe(first, "room")
        await two.wait_subscribed("room")
        assert set(wanted) == {"room"}
        # At once, and again: what counts is the last.
        for _ in range(3):
            two.unsubscribe(second, "room")
            two.subscribe(second, "room")
        await two.wait_subscribed("room")
        one.publish("room", "1")
        await until(lambda: second.got)
        second.has_ended = True
        one.publish("room", "2")
        await until(lambda: not wanted)
        assert len(two) == 0
        await two.wait_subscribed("room")


async def test_real_connections_of_two_servers(broker, url):
    async with two_processes(broker) as (one, two):

        def handler(topics):
            async def chat(ws):
                topics.subscribe(ws, "room")
                await topics.wait_subscribed("room")
                await ws.send("ready")
                async for message in ws:
                    topics.publish("room", message)

            return chat

        async with (
            serve(handler(one), "127.0.0.1", 0) as a,
            serve(handler(two), "127.0.0.1", 0) as b,
            connect(url(a)) as alice,
            connect(url(b)) as bob,
        ):
            assert [await alice.recv(), await bob.recv()] == ["ready"] * 2
            for n in range(100):
                await alice.send(f"{n}")
                await bob.send(b"%d" % n)
            for client in (alice, bob):
                got = [await client.recv() for _ in range(200)]
                assert [m for m in got if isinstance(m, str)] == [f"{n}" for n in range(100)]
                assert [m for m in got if isinstance(m, bytes)] == [b"%d" % n for n in range(100)]


@pytest.mark.skipif(EAGER is None, reason="eager tasks came with Python 3.12")
async def test_eager_tasks(until):
    """What the bus does at once is done before its task is known."""

    class Memory:
        async def start(self, *_):
            pass

        async def publish(self, topic, message):
            published.append(message)

        subscribe = unsubscribe = close = start

    asyncio.get_running_loop().set_task_factory(EAGER)
    published = []
    async with Topics(bus=Memory()) as topics:
        topics.subscribe(Receiver(), "room")
        await topics.wait_subscribed("room")
        for number in range(1, 4):
            assert topics.publish("room", f"{number}") == 1
            await until(lambda number=number: len(published) == number)
        assert await topics.publish("room", "4", slow="wait") == 1
    assert published == ["1", "2", "3", "4"]


async def test_a_bus_that_fails(until, caplog):
    class Broken:
        async def start(self, deliver):
            pass

        async def publish(self, topic, message):
            raise BusError("it is full")

        async def subscribe(self, topic):
            await asyncio.sleep(0)
            raise BusError("no more topics")

        unsubscribe = start

        async def close(self):
            pass

    async with Topics(bus=Broken()) as topics:
        receiver = Receiver()
        topics.subscribe(receiver, "room")
        with pytest.raises(BusError, match="no more topics"):
            await topics.wait_subscribed("room")
        for n in range(3):
            assert topics.publish("room", f"{n}") == 1
        await until(lambda: "it is full" in caplog.text)
    # The subscribers of this process have it, and one line says that others have not.
    assert receiver.got == ["0", "1", "2"]
    assert caplog.text.count("messages do not reach other processes: it is full") == 1
    assert caplog.text.count("topic 'room' does not get messages of other processes") == 1


class Calls:
    """A bus that does nothing but hold what it is asked to do, until it may go on."""

    def __init__(self):
        self.calls = []
        self.running = 0
        self.may_go_on = asyncio.Event()
        self.is_open = False

    async def start(self, deliver):
        self.is_open = True

    async def subscribe(self, topic):
        await self.note("+", topic)

    async def unsubscribe(self, topic):
        await self.note("-", topic)

    async def note(self, what, topic):
        assert not self.running, "two calls for a topic at once"
        self.running += 1
        self.calls.append(what + topic)
        try:
            await self.may_go_on.wait()
        except asyncio.CancelledError:
            await asyncio.sleep(0.01)  # it has to tidy up
            raise
        finally:
            self.running -= 1

    async def publish(self, topic, message):
        await asyncio.Event().wait()

    async def close(self):
        self.is_open = False


async def test_topics_that_come_and_go_while_the_bus_works(until):
    bus, receiver = Calls(), Receiver()
    topics = Topics(bus=bus)
    # One that was there before the bus is told of, too.
    topics.subscribe(receiver, "room")
    await asyncio.sleep(0.01)
    topics.unsubscribe(receiver, "room")
    async with topics:
        for _ in range(1000):
            topics.subscribe(receiver, "room")
            topics.unsubscribe(receiver, "room")
        topics.subscribe(receiver, "room")
        # (Not a thousand tasks.)
        assert len(asyncio.all_tasks()) < 5
        await until(lambda: bus.calls[-1] == "+room" and not bus.may_go_on.is_set())
        topics.unsubscribe(receiver, "room")
        await asyncio.sleep(0)
        topics.subscribe(receiver, "room")
        bus.may_go_on.set()
        await topics.wait_subscribed("room")
        assert bus.calls[-1] == "+room"
        topics.unsubscribe(receiver, "room")
        await until(lambda: bus.calls[-1] == "-room")


async def test_topics_from_before_the_start_are_subscribed(broker, until, caplog):
    async with Topics(bus=broker.bus()) as other:
        topics = Topics(bus=broker.bus())
        receiver = Receiver()
        topics.subscribe(receiver, "early")
        async with topics:
            await topics.wait_subscribed("early")
            other.publish("early", "x")
            await until(lambda: receiver.got)


async def test_a_topic_that_the_bus_could_not_subscribe_is_tried_again():
    class Moody(Calls):
        async def subscribe(self, topic):
            self.calls.append(topic)
            if len(self.calls) < 3:
                raise BusError("not now")

        async def unsubscribe(self, topic):
            pass

    bus = Moody()
    async with Topics(bus=bus) as topics:
        topics.subscribe(Receiver(), "room")
        await asyncio.sleep(0.01)
        # It has failed before anybody waits for it.
        with pytest.raises(BusError, match="not now"):
            await topics.wait_subscribed("room")
        await topics.wait_subscribed("room")
        await topics.wait_subscribed("room")
        assert bus.calls == ["room"] * 3


@pytest.mark.parametrize("text", ["x" * 1000, "\N{GRINNING FACE}" * 250])
async def test_a_bus_that_does_not_take_a_message_is_closed(text, monkeypatch, caplog):
    monkeypatch.setattr("fastws.aio.relay._FAREWELL", 0.01)
    monkeypatch.setattr("fastws.aio.relay._MAX_OUTBOX", 10_000)
    bus = Calls()
    async with Topics(bus=bus) as topics:
        for _ in range(100):
            topics.publish("room", text)
            await asyncio.sleep(0)
        # What waits for it is bounded, in bytes.
        assert len(topics._relay._outbox) < 10
        assert caplog.text.count("bytes wait for the bus") == 1
    assert not bus.is_open
    async with Topics(bus=bus) as topics:
        topics.publish("room", "x")
        closing = asyncio.create_task(topics.close())
        await asyncio.sleep(0)
        closing.cancel()
        await asyncio.wait([closing])
        assert not bus.is_open


async def test_what_closing_topics_are_told_leaves_no_task_behind(monkeypatch):
    monkeypatch.setattr("fastws.aio.relay._FAREWELL", 0.05)
    bus = Calls()
    topics = Topics(bus=bus)
    await topics.start()
    topics.publish("room", "x")
    closing = asyncio.create_task(topics.close())
    await asyncio.sleep(0.01)
    topics.subscribe(Receiver(), "room")
    await closing
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_topics_without_a_bus_have_nothing_to_start():
    async with Topics() as topics:
        topics.subscribe(Receiver(), "room")
        await topics.wait_subscribed("room")
