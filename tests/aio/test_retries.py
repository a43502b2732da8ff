"""Tests of `RetryPolicy`, and of what `async for ws in connect(…)` does with it."""

from __future__ import annotations

import asyncio
import ssl
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from itertools import islice

import pytest

import fastws
from fastws import (
    IncompleteResponseError,
    ProxyError,
    Response,
    ResponseError,
    RetryPolicy,
    connect,
    serve,
)
from fastws.aio import client
from fastws.aio.retries import may_pass

HOST = "127.0.0.1"


# What is retried, and when -----------------------------------------------------------------


def refused(status, **headers):
    fields = {name.replace("_", "-"): value for name, value in headers.items()}
    return ResponseError("no", Response(status, fields))


def through(error, cause):
    error.__cause__ = cause
    return error


def untrusted():
    return ssl.SSLCertVerificationError(1, "no")


def tls_failure(reason):
    error = ssl.SSLError(1, "x")
    error.reason = reason
    return error


@pytest.mark.parametrize(
    "exc",
    [
        *(ConnectionRefusedError(), ConnectionResetError(), TimeoutError(), OSError("x")),
        *(ssl.SSLError(1, "x"), IncompleteResponseError("x")),
        *map(tls_failure, ("TLSV1_ALERT_INTERNAL_ERROR", "UNEXPECTED_EOF_WHILE_READING")),
        ExceptionGroup("x", [ConnectionRefusedError(), ExceptionGroup("x", [OSError("x")])]),
        *map(refused, (408, 425, 429, 500, 502, 503, 504, 509, 520, 522, 524, 530, 599)),
        through(ProxyError("x"), ConnectionRefusedError()),
        *(ProxyError("x", status, Response(status)) for status in (429, 502, 503, 504)),
        *(ProxyError("x", status) for status in (1, 3, 4, 5, 6, 91)),
    ],
    ids=repr,
)
def test_what_may_pass(exc):
    assert may_pass(exc)
    assert RetryPolicy().may_pass(exc)


@pytest.mark.parametrize(
    "exc",
    [
        *map(refused, (101, 200, 302, 400, 401, 403, 404, 407, 410, 426, 431)),
        *map(refused, (501, 505, 506, 508, 510, 511, 600)),
        *(ResponseError("not HTTP"), untrusted(), fastws.InvalidURIError("x")),
        *map(tls_failure, ("WRONG_VERSION_NUMBER", "SSLV3_ALERT_HANDSHAKE_FAILURE")),
        through(ProxyError("x"), tls_failure("WRONG_VERSION_NUMBER")),
        *(ExceptionGroup("x", [OSError(), exc]) for exc in (untrusted(), ValueError())),
        *(ValueError("x"), RuntimeError("x")),
        *(ProxyError("x"), through(ProxyError("x"), untrusted())),
        *(ProxyError("x", status, Response(status)) for status in (401, 403, 407)),
        *(ProxyError("x", status) for status in (2, 7, 8, 92)),
    ],
    ids=repr,
)
def test_what_does_not_pass(exc):
    assert not may_pass(exc)
    assert not RetryPolicy().may_pass(exc)


def test_delays_grow_up_to_a_bound_and_differ():
    seen = []
    for _ in range(200):
        bound = 1.0
        for delay in islice(RetryPolicy().delays(), 12):
            assert 0 <= delay <= bound
            bound = min(bound * 1.6, 60.0)
        seen.append(delay)
    # Full jitter: from nothing to the bound.
    assert min(seen) < 15
    assert 45 < max(seen) <= 60
    delays = RetryPolicy(initial_delay=8, factor=1, max_delay=5).delays()
    assert all(0 <= delay <= 5 for delay in islice(delays, 20))
    # A client that tries for years does not overflow.
    assert all(delay <= 60 for delay in islice(RetryPolicy(factor=1e9).delays(), 2000))


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0", 0),
        ("7", 7),
        ("600", 600),
        ("601", 600),
        ("9" * 5000, 600),
        ("-1", 0),
        ("1.5", 0),
        ("\u00b2", 0),
        ("soon", 0),
        ("", 0),
        ("Fri, 31 Dec 1999 23:59:59 GMT", 0),
        ("Fri, 31 Dec 2999 23:59:59 GMT", 600),
        ("Fri, 31 Dec 9999 23:59:59 -2359", 600),
        ("Fri, 99 Dec 1999 23:59:59 GMT", 0),
        ("Fri, 31 Dec 99999999999999999999 23:59:59 GMT", 0),
        ("Fri, 31 Dec 1999 23:59:59 +99999999999999999999", 0),
    ],
)
def test_retry_after(value, seconds):
    for status in (429, 503, 408):
        assert RetryPolicy().retry_after(refused(status, Retry_After=value)) == seconds
    error = ProxyError("x", 503, Response(503, {"Retry-After": value}))
    assert RetryPolicy(max_retry_after=5).retry_after(error) == min(seconds, 5)


def test_retry_after_a_date():
    date = datetime.now(UTC) + timedelta(seconds=100)
    for text in (format_datetime(date, usegmt=True), date.strftime("%a %b %d %H:%M:%S %Y")):
        assert 90 < RetryPolicy().retry_after(refused(503, Retry_After=text)) <= 100
    two = ResponseError("no", Response(503, [("Retry-After", "1"), ("Retry-After", "2")]))
    for exc in (two, OSError(), ResponseError("not HTTP"), ProxyError("x"), refused(503)):
        assert RetryPolicy().retry_after(exc) == 0


def test_arguments_that_make_no_sense():
    nan = float("nan")
    for name in ("initial_delay", "max_delay", "max_retry_after"):
        for value in (-1, nan):
            with pytest.raises(ValueError, match=name):
                RetryPolicy(**{name: value})
    for value in (0.5, nan):
        with pytest.raises(ValueError, match="factor"):
            RetryPolicy(factor=value)
    with pytest.raises(TypeError, match="may_pass must be a function, not 'NoneType'"):
        RetryPolicy(may_pass=None)


# What the loop does -----------------------------------------------------------------------


async def echo(ws):
    async for message in ws:
        await ws.send(message)


async def never(connecting):
    async for _ in connecting:
        pytest.fail("connected")


@pytest.fixture
def slept(monkeypatch):
    """How long the loop wanted to sleep; it does not."""
    times = []
    sleep = asyncio.sleep

    async def record(delay):
        if delay:  # (A server that stops lets others run.)
            times.append(delay)
        await sleep(0)

    monkeypatch.setattr(client.asyncio, "sleep", record)
    return times


async def test_retry_after_is_heeded(slept, url):
    answers = [
        Response(503, {"Retry-After": "7"}),
        Response(429, {"Retry-After": "5000"}),
        Response(503),
        None,
    ]
    policy = RetryPolicy(initial_delay=1, factor=1, max_retry_after=100)
    async with serve(echo, HOST, 0, process_request=lambda _: answers.pop(0)) as server:
        async for ws in connect(url(server), retry=policy):
            await ws.close()
            break
    first, second, third = slept[:3]
    assert 7 <= first <= 8
    assert 100 <= second <= 101
    assert 0 <= third <= 1


async def test_an_own_predicate(slept, url):
    asked = []

    def may_pass(exc):
        asked.append(exc)
        return exc.response.status == 404

    answers = [404, 404, 503]
    async with serve(echo, HOST, 0, process_request=lambda _: Response(answers.pop(0))) as server:
        with pytest.raises(ResponseError, match="503") as caught:
            await never(connect(url(server), retry=RetryPolicy(may_pass=may_pass)))
    assert [exc.response.status for exc in asked] == [404, 404, 503]
    assert caught.value is asked[-1]
    assert len(slept) == 2


@pytest.mark.parametrize("answer", [b"SSH-2.0-OpenSSH_9.2\r\n", b"HTTP/1.1 200 OK\r\n\r\n"])
async def test_what_does_not_speak_websocket_ends_the_loop(answer, slept, raw_server, url):
    async def play(peer):
        await peer.reader.readuntil(b"\r\n\r\n")
        await peer.send(answer)

    async with raw_server(play, handshake=False) as server:
        with pytest.raises(ResponseError):
            await never(connect(url(server)))
    assert slept == []


async def test_what_does_not_speak_tls_ends_the_loop(slept, tls, url):
    async with serve(echo, HOST, 0) as server:
        with pytest.raises(ssl.SSLError, match=r"(?i)wrong.version|record layer|packet length"):
            await never(connect(url(server, secure=True), ssl=tls.client))
    assert slept == []


async def test_what_has_an_own_idea_of_tls_ends_the_loop(slept, raw_server, tls, url):
    alert = bytes([21, 3, 3, 0, 2, 2])  # and its number (RFC 8446 §6):
    # handshake_failure, protocol_version, unknown_ca, certificate_required, unrecognized_name
    numbers = [40, 70, 48, 116, 112]

    async def play(peer):
        await peer.reader.read(1000)
        await peer.send(alert + bytes([numbers.pop()]))
        await peer.rest()

    async with raw_server(play, handshake=False) as server:
        while numbers:
            with pytest.raises(ssl.SSLError):
                await never(connect(url(server, secure=True), ssl=tls.client))
    assert slept == []


@pytest.mark.parametrize("kind", ["function", "coroutine"])
async def test_headers_for_each_attempt(kind, slept, url):
    made, seen = [], []

    def make():
        made.append(len(made))
        return {"Authorization": f"Bearer {made[-1]}"}

    async def make_later():
        await asyncio.sleep(0)
        return make()

    def process_request(request):
        seen.append(request.headers["Authorization"])
        if request.path == "/":
            return Response(302, {"Location": "/there"})
        return Response(503) if len(made) < 3 else None

    async with serve(echo, HOST, 0, process_request=process_request) as server:
        headers = make if kind == "function" else make_later
        connecting = connect(url(server), headers=headers)
        assert made == []
        async for ws in connecting:
            await ws.close()
            break
        # (A redirect is not another attempt.)
        assert seen == ["Bearer 0"] * 2 + ["Bearer 1"] * 2 + ["Bearer 2"] * 2
        async with connecting:
            assert seen[-1] == "Bearer 3"


async def test_headers_that_cannot_be_made(slept, url):
    async def forever():
        await asyncio.get_running_loop().create_future()

    def fail():
        failures.append(failures)
        raise failures[0]

    def wrong():
        return {"Upgrade": "h2c"}

    def until_four(failures):
        return lambda exc: may_pass(exc) and len(failures) < 4

    async with serve(echo, HOST, 0) as server:
        with pytest.raises(TimeoutError, match="too long"):
            await connect(url(server), headers=forever, open_timeout=0.1)
        with pytest.raises(ValueError, match="Upgrade"):
            await connect(url(server), headers=wrong)
        # The loop goes on if the service that has the tokens cannot be reached, as if it were the
        # server, and does not hide mistakes.
        for error, retried in ((ConnectionRefusedError(), True), (LookupError("no token"), False)):
            failures = [error]
            policy = RetryPolicy(may_pass=until_four(failures))
            with pytest.raises(type(error)):
                await never(connect(url(server), headers=fail, retry=policy))
            assert len(failures) == (4 if retried else 2)
        assert not server._endpoints
