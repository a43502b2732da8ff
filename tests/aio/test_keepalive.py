"""When to ping a peer and when to give it up, with numbers only."""

from __future__ import annotations

import pytest

from fastws import Ping, Pong
from fastws.aio import keepalive
from fastws.aio.keepalive import Keepalive, Verdict
from fastws.aio.settings import Settings

WAIT, PING, GIVE_UP = Verdict
SETTINGS = Settings(ping_interval=20, ping_timeout=30)


def look(beating, now, *, is_alive=False, settings=SETTINGS):
    return beating.look(now, is_alive=is_alive, settings=settings)


def test_the_first_ping_comes_after_one_interval():
    beating = Keepalive(20, now=100)
    assert beating.due == 120
    assert look(beating, 119.9) is WAIT
    assert beating.due == 120
    assert look(beating, 120) is PING
    assert beating.due == 140


def test_who_is_alive_is_pinged_and_never_given_up():
    beating = Keepalive(20, now=0)
    for now in range(20, 400, 20):
        assert look(beating, now, is_alive=True) is PING
        assert beating.due == now + 20


def test_who_is_silent_after_a_ping_is_given_up_in_time():
    beating = Keepalive(20, now=0)
    assert [look(beating, now) for now in (20, 40, 49.9, 50)] == [PING, PING, WAIT, GIVE_UP]


def test_the_next_look_is_when_the_time_is_up_if_that_is_sooner():
    beating = Keepalive(20, now=0)
    assert look(beating, 20) is PING
    assert beating.due == 40
    assert look(beating, 40) is PING
    assert beating.due == 50


def test_further_pings_do_not_prolong_the_time():
    settings = Settings(ping_interval=1, ping_timeout=3.5)
    beating = Keepalive(1, now=0)
    said = [look(beating, now, settings=settings) for now in (1, 2, 3, 4, 4.5)]
    assert said == [PING, PING, PING, PING, GIVE_UP]


def test_a_sign_of_life_ends_the_time():
    beating = Keepalive(20, now=0)
    assert look(beating, 20) is PING
    assert look(beating, 49, is_alive=True) is PING  # whose time begins now
    assert beating.due == 69
    assert [look(beating, now) for now in (50, 69, 78.9, 79)] == [WAIT, PING, WAIT, GIVE_UP]


def test_without_a_timeout_nobody_is_given_up():
    settings = Settings(ping_interval=20, ping_timeout=None)
    beating = Keepalive(20, now=0)
    said = [look(beating, now, settings=settings) for now in range(20, 4000, 20)]
    assert set(said) == {PING}


# Round trips -----------------------------------------------------------------------------------


@pytest.fixture
def clock(monkeypatch):
    """Set the time."""

    def set_time(now):
        monkeypatch.setattr(keepalive, "perf_counter", lambda: now)

    return set_time


@pytest.fixture
def pinged(clock):
    """Send pings at these times; return what they carry, and who knows about them."""

    def ping(*times):
        beating, data = Keepalive(20, now=0), []
        for now in times:
            clock(now)
            data.append(beating.next_ping())
        return beating, data

    return ping


def test_a_round_trip_is_measured(clock, pinged):
    beating, (data,) = pinged(1)
    assert data == b"keepalive"
    clock(1.25)
    assert beating.resolve(["text", Ping(data), Pong(b"another"), Pong(b"keepalive1")]) is None
    assert beating.resolve([b"binary", Pong(data), "text"]) == 0.25
    assert beating.resolve([Pong(data)]) is None  # it has its answer
    assert beating.next_ping() == b"keepalive"


def test_a_round_trip_may_take_longer_than_the_interval(clock, pinged):
    beating, data = pinged(1, 2, 3)
    assert len(set(data)) == 3
    for now, answered in [(3.5, 0), (4.5, 1)]:
        clock(now)
        assert beating.resolve([Pong(data[answered])]) == 2.5
    clock(5)
    data.append(beating.next_ping())
    assert len(set(data)) == 4
    clock(5.5)
    assert beating.resolve([Pong(data[2])]) == 2.5
    assert beating.resolve([Pong(data[3])]) == 0.5


def test_a_pong_may_answer_the_last_of_several_pings(clock, pinged):
    beating, data = pinged(1, 2, 3)
    clock(4)
    assert beating.resolve([Pong(data[1])]) == 2
    assert beating.resolve([Pong(data[0])]) is None
    assert beating.resolve([Pong(data[2])]) == 1


def test_one_read_may_bring_several_pongs(clock, pinged):
    beating, data = pinged(1, 2, 3)
    clock(4)
    assert beating.resolve([Pong(each) for each in data]) == 1
    assert beating.next_ping() == data[0]


def test_what_a_peer_does_not_answer_takes_no_more_memory(clock, pinged):
    beating, data = pinged(*range(100))
    clock(100)
    assert beating.resolve([Pong(data[0])]) is None  # forgotten
    assert beating.resolve([Pong(data[-16])]) == 16
    assert beating.resolve([Pong(data[-1])]) == 1


# Signs of life --------------------------------------------------------------------------------


class Transport:
    """A transport whose peer's system tells nothing."""

    waiting = 0

    def get_extra_info(self, name):
        return None

    def get_write_buffer_size(self):
        return self.waiting


@pytest.fixture(params=["the system tells", "the system does not tell"])
def signs(request, monkeypatch):
    """Ask whether a peer is alive that has taken, and not taken, so many bytes."""
    transport = Transport()
    beating = Keepalive(20, now=0)

    def is_alive(*, taken=0, waiting=0, server=True, heard=False, held=False):
        transport.waiting = waiting
        if request.param == "the system tells":
            # What the system knows counts, and not how much the transport was given.
            monkeypatch.setattr(keepalive, "acknowledged", lambda _: taken)
            monkeypatch.setattr(keepalive, "unacknowledged", lambda _: waiting)
            transport.waiting = 0
            written = 0
        else:
            written = taken + waiting
        return beating.is_alive(
            transport, written=written, is_server=server, was_heard=heard, is_held_up=held
        )

    return is_alive


both_ends = pytest.mark.parametrize("server", [True, False], ids=["server", "client"])


@both_ends
def test_what_arrives_is_a_sign_of_life(signs, server):
    assert signs(server=server, heard=True)
    assert not signs(server=server)


@both_ends
def test_no_sign_can_be_expected_while_nothing_is_read(signs, server):
    assert signs(server=server, held=True)


@both_ends
def test_a_peer_that_takes_what_waits_is_alive(signs, server):
    assert signs(server=server, taken=10_000, waiting=50_000)
    assert signs(server=server, taken=20_000, waiting=40_000)
    assert not signs(server=server, taken=20_000, waiting=40_000)


def test_a_server_does_not_go_by_what_a_client_sends_that_takes_nothing(signs):
    assert signs(taken=10_000, waiting=50_000)
    assert not signs(taken=10_000, waiting=50_000, heard=True)
    assert not signs(taken=10_000, waiting=50_000, held=True)


def test_a_client_goes_by_what_a_server_sends_that_takes_nothing(signs):
    assert signs(server=False, taken=10_000, waiting=50_000)
    assert signs(server=False, taken=10_000, waiting=50_000, heard=True)


@both_ends
def test_pings_are_too_small_to_tell(signs, server):
    # The system of a peer that hangs takes them.
    assert not signs(server=server, taken=256, waiting=0)
    assert not signs(server=server, taken=512, waiting=50_000)
    assert signs(server=server, taken=512 + 257, waiting=50_000)
    # And what waits may be pings alone.
    assert not signs(server=server, taken=10_000, waiting=256)
    assert signs(server=server, taken=10_000, waiting=256, heard=True)


def test_what_waits_in_the_transport_and_in_the_system_counts_together(monkeypatch):
    monkeypatch.setattr(keepalive, "unacknowledged", lambda _: 200)
    monkeypatch.setattr(keepalive, "acknowledged", lambda _: None)
    transport = Transport()
    transport.waiting = 100
    beating = Keepalive(20, now=0)
    arguments = {"is_server": True, "was_heard": True, "is_held_up": False}
    assert beating.is_alive(transport, written=1000, **arguments)  # 700 were taken
    assert not beating.is_alive(transport, written=1000, **arguments)
