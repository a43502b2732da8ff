"""The end of a TCP connection, with a transport and a timer that only note what is done."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from fastws.aio.lingering import Lingering


class Transport:
    """Notes what is done to it."""

    def __init__(self, *, tls=False, error=None):
        self.done = []
        self.tls = tls
        self.error = error
        self.unsent = 0

    def can_write_eof(self):
        return not self.tls

    def write_eof(self):
        self.done.append("eof")
        if self.error is not None:
            raise self.error

    def close(self):
        self.done.append("close")

    def abort(self):
        self.done.append("abort")

    def is_closing(self):
        return "close" in self.done or "abort" in self.done

    def get_write_buffer_size(self):
        return self.unsent


class Scene:
    """The end of one connection, in a time of its own.

    Attributes:
        timer: when the timer of the connection ends, and what it does then.
    """

    def __init__(self, transport, timeout=10.0, open_by=None):
        self.transport = transport
        self.now = 1000.0
        self.timer = None
        loop = SimpleNamespace(time=lambda: self.now)
        self.wire = SimpleNamespace(_transport=transport, _loop=loop, _received_since_ping=False)
        self.lingering = Lingering(self.wire, self.set_timer, timeout, open_by)

    def set_timer(self, delay, callback=None, *args):
        self.timer = None if delay is None else (self.now + delay, lambda: callback(*args))

    @property
    def left(self):
        return None if self.timer is None else self.timer[0] - self.now

    def elapse(self):
        self.now, callback = self.timer
        self.timer = None
        callback()


def test_our_side_is_shut_down_and_the_peer_has_time_for_its_own():
    for is_silent in (True, False):
        scene = Scene(Transport())
        scene.lingering.begin(is_silent=is_silent, awaits_eof=True)
        assert scene.transport.done == ["eof"]
        assert scene.left == 10
        scene.elapse()
        assert scene.transport.done == ["eof", "abort"]


def test_without_a_timeout_the_peer_has_all_the_time():
    scene = Scene(Transport(), timeout=None)
    scene.lingering.begin(is_silent=True, awaits_eof=True)
    assert scene.transport.done == ["eof"]
    assert scene.timer is None


def test_a_transport_that_is_closing_is_left_alone():
    scene = Scene(Transport())
    scene.transport.close()
    scene.lingering.begin(is_silent=True, awaits_eof=True)
    assert scene.transport.done == ["close"]
    assert scene.timer is None


def test_a_reset_that_came_before_ends_it():
    for awaits_eof in (True, False):
        scene = Scene(Transport(error=OSError("not connected")))
        scene.wire._received_since_ping = True
        scene.lingering.begin(is_silent=True, awaits_eof=awaits_eof)
        assert scene.transport.done == ["eof", "abort"]
        assert scene.left == 10  # nothing is waited for but the end


def test_who_does_not_wait_for_a_silent_peer_closes_after_some_silence():
    scene = Scene(Transport())
    scene.wire._received_since_ping = True  # its close frame
    scene.lingering.begin(is_silent=True, awaits_eof=False)
    assert scene.transport.done == ["eof"]
    assert scene.left == 1
    scene.elapse()
    assert scene.transport.done == ["eof", "close"]


def test_who_does_not_wait_for_silent_peers_waits_for_others():
    scene = Scene(Transport())
    scene.lingering.begin(is_silent=False, awaits_eof=False)
    assert scene.transport.done == ["eof"]
    assert scene.left == 10


# TLS, where our side cannot be shut down alone ------------------------------------------------


def test_over_tls_a_silent_peer_is_not_waited_for():
    scene = Scene(Transport(tls=True))
    scene.lingering.begin(is_silent=True, awaits_eof=True)
    assert scene.transport.done == ["close"]
    assert scene.left == 10
    scene.elapse()
    assert scene.transport.done == ["close", "abort"]


def test_over_tls_a_peer_that_sends_is_waited_for_until_it_is_silent():
    scene = Scene(Transport(tls=True))
    scene.wire._received_since_ping = True
    scene.lingering.begin(is_silent=False, awaits_eof=True)
    for _ in range(3):
        assert scene.left == 1
        scene.wire._received_since_ping = True
        scene.elapse()
        assert scene.transport.done == []
    scene.elapse()
    assert scene.transport.done == ["close"]
    assert scene.left == 10


def test_over_tls_a_peer_that_takes_what_is_left_is_waited_for():
    scene = Scene(Transport(tls=True))
    scene.transport.unsent = 5000
    scene.lingering.begin(is_silent=False, awaits_eof=True)
    assert scene.left == 1
    scene.elapse()
    assert scene.transport.done == []
    scene.transport.unsent = 0
    scene.elapse()
    assert scene.transport.done == ["close"]


def test_over_tls_a_peer_that_never_stops_is_dropped_in_time():
    scene = Scene(Transport(tls=True), timeout=2.5)
    scene.wire._received_since_ping = True
    scene.lingering.begin(is_silent=False, awaits_eof=True)
    waited = []
    while not scene.transport.done:
        waited.append(scene.left)
        scene.wire._received_since_ping = True
        scene.elapse()
    assert waited == [1, 1, 0.5]
    assert scene.transport.done == ["abort"]


def test_over_tls_without_a_timeout_only_silence_ends_it():
    scene = Scene(Transport(tls=True), timeout=None)
    scene.wire._received_since_ping = True
    scene.lingering.begin(is_silent=False, awaits_eof=True)
    for _ in range(100):
        scene.wire._received_since_ping = True
        scene.elapse()
    scene.elapse()
    assert scene.transport.done == ["close"]
    assert scene.timer is None


# How long -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("timeout", "open_by", "unsent", "left"),
    [
        (10.0, None, 0, 10),
        (None, None, 0, None),
        (10.0, 1004.0, 0, 4),  # what is left for the opening handshake
        (10.0, 999.0, 0, 1),  # nothing is: a moment
        (10.0, 1000.5, 0, 1),
        (10.0, 1020.0, 0, 10),
        (0.5, 999.0, 0, 0.5),
        (None, 1004.0, 0, 4),
        (10.0, 999.0, 5000, 10),  # it still takes the response
        (None, 999.0, 5000, None),
    ],
)
def test_how_long_a_peer_may_take(timeout, open_by, unsent, left):
    scene = Scene(Transport(), timeout, open_by)
    scene.transport.unsent = unsent
    scene.lingering.set_limit()
    assert scene.left == left


def test_closing_twice_closes_the_transport_once():
    scene = Scene(Transport())
    scene.lingering.close()
    scene.lingering.close()
    assert scene.transport.done == ["close"]
    assert scene.left == 10
