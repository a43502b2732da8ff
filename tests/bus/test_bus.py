"""fastws.bus over real brokers: what arrives, in which order, and what a broker's end does."""

from __future__ import annotations

import asyncio
import re
from contextlib import AsyncExitStack, asynccontextmanager
from importlib import import_module

import pytest

from fastws import RetryPolicy
from fastws.bus import BusError
from fastws.bus._broker import BrokerBus
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


async def test_many_topics_and_messages_at_once(broker, until, monkeypatch):
    monkeypatch.setattr("fastws.bus.redis._MOST", 50)
    async with processes(broker, 2) as (one, two):
        await asyncio.gather(*(two.bus.subscribe(f"t{n}") for n in range(120)))
        for n in range(240):
            await one.bus.publish(f"t{n % 120}", str(n))
        await until(lambda: len(two.arrived) == 240)
        assert sorted(two.arrived) == sorted((f"t{n % 120}", str(n)) for n in range(240))


async def test_the_broker_has_the_last_word(broker, until):
    async with processes(broker, 2) as (one, two):
        await two.bus.subscribe("a")
        broker.freeze()
        try:
            subscribing = asyncio.create_task(one.bus.subscribe("b"))
            await one.bus.publish("a", "x")
            for _ in range(50):
                await asyncio.sleep(0)
            assert not subscribing.done()
            assert one.bus.waiting_size
        finally:
            broker.thaw()
        await subscribing
        await until(lambda: two.arrived and not one.bus.waiting_size)


async def test_buses_with_another_prefix_are_apart(broker, until):
    async with processes(broker, 1) as (one,), processes(broker, 2, prefix="other") as (two, three):
        for process in (one, two):
            await process.bus.subscribe("a")
        await three.bus.publish("a", "x")
        await until(lambda: two.arrived)
        assert one.arrived == []


def client(redis, **options):
    return import_module("redis.asyncio").Redis.from_url(redis.url, **options)


async def test_what_no_bus_wrote_and_what_fails_is_logged(redis, until, caplog):
    class Picky(Process):
        def deliver(self, topic, message):
            super().deliver(topic, message)
            if message == "bad":
                raise RuntimeError("a mistake")

    process = Picky(redis)
    await process.bus.start(process.deliver)
    async with client(redis) as commands, processes(redis, 1) as (other,):
        await process.bus.subscribe("a")
        for data in ("hello", b"t", b"x12345678", b"t12345678\xff", b"g12345678x"):
            await commands.publish("fastws:a", data)
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
        await until(lambda: two.arrived and not one.bus.waiting_size)
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
        # This gap has been told.
        await two.bus.subscribe("c")
        assert two.gaps == [{"a"}]
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
            await until(lambda: one.bus.waiting_size == 0)
            await one.bus.publish("a", "y")
            await until(lambda: len(two.arrived) == sent + 1 and not one.bus.waiting_size)
            # One that is larger than the limit is sent if nothing waits.
            await one.bus.publish("a", "z" * 200_000)
            with pytest.raises(BusError, match=r"^200\d+ bytes are already waiting for the broker"):
                await one.bus.publish("a", "y")
            await until(lambda: two.arrived[-1] == ("a", "z" * 200_000) and len(two.gaps) == 2)
            # The others are told of one that the broker would not take, too.
            with pytest.raises(ValueError, match="message must be at most"):
                await one.bus.publish("a", bytes(17 << 20))
            await until(lambda: len(two.gaps) == 3)
            with pytest.raises(ValueError, match="topic must be at most 1024 bytes, not 1026"):
                await one.bus.publish("ä" * 513, "")


async def test_a_broker_that_is_silent_is_left(broker, until, caplog):
    async with processes(broker, 1, ping_interval=0.1) as (one,):
        await one.bus.subscribe("a")
        broker.freeze()
        try:
            # (Even if there is nothing to say.)
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
    closed = Process(broker)
    starting = asyncio.create_task(closed.bus.start(closed.deliver))
    await asyncio.sleep(0)
    await closed.bus.close()
    with pytest.raises(BusError, match="the bus was closed"):
        await starting
    await process.bus.start(process.deliver)
    with pytest.raises(BusError, match="already been started: each Topics needs its own"):
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


async def test_close_that_is_cancelled_closes(broker, until, caplog):
    async with processes(broker, 1) as (one,):
        broker.freeze()
        try:
            await one.bus.publish("a", "x")
            closing = asyncio.create_task(one.bus.close())
            await asyncio.sleep(0)
            closing.cancel()
            await asyncio.wait([closing])
            assert closing.cancelled()
            with pytest.raises(BusError, match="closed"):
                await one.bus.publish("a", "x")
            # (That nothing of it runs any more, the fixture of each test checks.)
        finally:
            broker.kill()
            broker.start()


async def test_on_gap_may_be_a_coroutine_function(broker, until, caplog):
    told, running = [], []
    held = asyncio.Event()

    async def on_gap(topics):
        told.append(topics)
        if len(told) == 1:
            raise RuntimeError("a mistake")
        running.append(topics)
        assert len(running) == 1
        await held.wait()
        running.clear()

    one = Process(broker)
    one.bus = broker.bus(retry=SOON, on_gap=on_gap)
    await one.bus.start(one.deliver)
    await one.bus.subscribe("a")
    async with processes(broker, 1) as (other,):
        for count in (1, 2):
            with pytest.raises(ValueError, match="message must be at most"):
                await other.bus.publish("a", bytes(17 << 20))
            await until(lambda count=count: len(told) == count)
    assert caplog.text.count("on_gap failed") == 1
    assert "a mistake" in caplog.text
    # What still runs is cancelled.
    await one.bus.close()


class FakeLink:
    """A connection to no broker.

    Attributes:
        published: the batches that it has got.
        outcomes: what becomes of the next calls: refusals, an error, or a coroutine function that
            is called meanwhile.
    """

    def __init__(self, run=None):
        self.published = []
        self.outcomes = []
        self._run = run

    async def run(self):
        if self._run is not None:
            raise self._run
        await asyncio.Event().wait()

    async def publish(self, batch):
        self.published.append(batch)
        return await self.subscribe(())

    async def subscribe(self, topics):
        outcome = self.outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        if callable(outcome):
            await outcome()
            return {}
        return outcome

    async def close(self):
        pass


async def test_delays_grow_if_each_connection_ends_at_once(until):
    """A broker may take connections only to end them."""
    started = []

    class Policy(RetryPolicy):
        def delays(self):
            started.append("delays")
            for _ in range(5):
                yield 0.0
            yield 9.0

    async def connect():
        started.append("connection")
        return FakeLink(run=ConnectionError("not now"))

    bus = BrokerBus(on_gap=None, retry=Policy(), max_waiting=1, max_message_size=1)
    bus._connect = connect
    await bus.start(print)
    await until(lambda: started.count("connection") == 6)
    assert started.count("delays") == 1
    await bus.close()


async def test_a_loss_is_told_until_the_broker_takes_that(until):
    link = FakeLink()

    async def connect():
        return link

    async def lose_another():
        with pytest.raises(ValueError, match="message must be at most"):
            await bus.publish("b", "too large")

    bus = BrokerBus(on_gap=None, retry=SOON, max_waiting=10_000, max_message_size=3)
    bus._connect = connect
    await bus.start(print)
    # Refused; then the connection breaks, and while that is told, another message is lost.
    link.outcomes = [{"a": "no"}, ConnectionError("lost"), lose_another, {}]
    await bus.publish("a", "x")
    await until(lambda: not link.outcomes)
    sent = [[(topic, open_envelope(data)[1]) for topic, data in batch] for batch in link.published]
    assert sent == [[("a", "x")], [("a", GAP)], [("a", GAP)], [("b", GAP)]]
    # Nor is a refused topic refused forever.
    link.outcomes = [{"a": "no"}, {}]
    with pytest.raises(BusError, match="the broker refuses topic 'a': no"):
        await bus.subscribe("a")
    await bus.subscribe("a")
    await bus.close()


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


# What is special about each broker --------------------------------------------------------------


async def test_what_the_url_of_redis_says_does_not_change_the_bus(redis, until, caplog):
    bus = import_module("fastws.bus.redis").RedisBus
    url = f"{redis.url}/1?protocol=3&socket_timeout=0.01&decode_responses=true"
    one, two = Process(redis), Process(redis)
    for process in (one, two):
        process.bus = bus(url, protocol=3, socket_timeout=0.01)
        await process.bus.start(process.deliver)
    await two.bus.subscribe("a")
    await asyncio.sleep(0.05)
    await one.bus.publish("a", "x")
    await until(lambda: two.arrived)
    await one.bus.close()
    await two.bus.close()
    assert caplog.text == ""
    with pytest.raises(ValueError, match="scheme"):
        bus("http://127.0.0.1")


async def test_redis_ends_a_slow_process_which_is_a_gap(redis, until):
    async with client(redis) as commands, processes(redis, 2) as (one, two):
        limit = "client-output-buffer-limit"
        await commands.config_set(limit, "pubsub 50000 0 0")
        await two.bus.subscribe("a")
        await two.bus.subscribe("b")
        await one.bus.publish("a", "x" * 100_000)
        await until(lambda: two.gaps)
        assert two.gaps == [{"a", "b"}]
        assert one.gaps == []
        await one.bus.publish("a", "y")
        await until(lambda: two.arrived)
        assert two.arrived == [("a", "y")]
        await commands.config_set(limit, "pubsub 33554432 8388608 60")


async def test_redis_that_is_busy_is_left_until_it_is_not(redis, until, caplog):
    async with client(redis) as commands, client(redis) as killer, processes(redis, 2) as (a, b):
        await commands.config_set("busy-reply-threshold", 1)
        await b.bus.subscribe("a")
        # (It ends some time even if this test does not.)
        clock = "redis.call('TIME')[1]"
        loop = f"local start = {clock} while {clock} - start < 30 do end"
        script = asyncio.create_task(commands.eval(loop, 0))
        try:
            while "lost the broker" not in caplog.text:
                await a.bus.publish("a", "x")
                await asyncio.sleep(0.01)
            await until(lambda: "cannot connect to the broker: BUSY" in caplog.text)
        finally:
            await killer.execute_command("SCRIPT", "KILL")
            await asyncio.wait([script])
            assert script.exception()
            await killer.config_set("busy-reply-threshold", 5000)
        await until(lambda: b.gaps)


async def test_full_redis_takes_what_is_published(redis, until):
    async with client(redis) as commands, processes(redis, 2) as (one, two):
        await commands.config_set("maxmemory", 1)
        try:
            await two.bus.subscribe("a")
            await one.bus.publish("a", bytes(1 << 20))
            await until(lambda: two.arrived)
            assert two.arrived == [("a", bytes(1 << 20))]
        finally:
            await commands.config_set("maxmemory", 0)


@pytest.mark.parametrize("prefix", ["", "a b", "a.", ".a", "a..b", "*", "a.>", "a\n"])
def test_prefixes_that_nats_cannot_have(prefix):
    bus = import_module("fastws.bus.nats").NatsBus
    with pytest.raises(ValueError, match="prefix cannot be the beginning of a subject"):
        bus("nats://127.0.0.1", prefix=prefix)


async def test_nats_is_asked_last_whether_it_has_everything(until):
    verbs = []

    async def serve(reader, writer):
        writer.write(b'INFO {"max_payload": 1000}\r\n')
        while line := await reader.readline():
            verbs.append(line.split()[0].decode())
            if verbs[-1] == "PUB":
                await reader.readexactly(int(line.split()[-1]) + 2)
            elif verbs[-1] == "PING":
                writer.write(b"PONG\r\n")
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    bus = import_module("fastws.bus.nats").NatsBus(f"nats://127.0.0.1:{port}")
    await bus.start(print)
    try:
        for topic in "ab":
            await bus.subscribe(topic)
            assert verbs[-2:] == ["SUB", "PING"]
            await bus.publish(topic, "x")
            await until(lambda: not bus.waiting_size)
            assert verbs[-2:] == ["PUB", "PING"]
        await bus.unsubscribe("a")
        await until(lambda: verbs[-2:] == ["UNSUB", "PING"])
    finally:
        await bus.close()
        server.close()


async def test_nats_that_returns_with_another_limit(tmp_path, until, caplog):
    nats = Nats(tmp_path, "--config", "conf")

    def start(limit):
        nats.kill()
        (tmp_path / "conf").write_text(f"max_payload: {limit}\n")
        nats.start()

    start(20_000)
    try:
        async with processes(nats, 2, prefix="a.b") as (one, two):
            await two.bus.subscribe("a")
            nats.kill()
            await until(lambda: caplog.text.count("lost the broker") == 2)
            # This waits, and is too large when the broker is back.
            await one.bus.publish("a", bytes(10_000))
            start(1000)
            await until(lambda: "the broker refuses messages of topic 'a'" in caplog.text)
            # The other process may be back later, and tells of a gap only then.
            await until(lambda: two.gaps)
            with pytest.raises(ValueError, match="message must be at most 991 bytes, not 992"):
                await one.bus.publish("a", bytes(992))
            await until(lambda: len(two.gaps) >= 2)
            start(20_000)
            await until(lambda: caplog.text.count("the broker is back") == 4)
            while not two.arrived:
                await one.bus.publish("a", bytes(10_000))
                await asyncio.sleep(0.01)
    finally:
        nats.kill()


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
