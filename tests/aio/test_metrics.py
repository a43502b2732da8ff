"""`fastws.metrics`: what servers do, in numbers."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from fastws import ConnectionClosed, HandshakeError, Response, WebSocketProtocol, connect, serve
from fastws.metrics import Metrics

from ..tools import optional


def samples(metrics: Metrics) -> dict[str, float]:
    """The figures, as Prometheus's own parser reads them."""
    parser = optional("prometheus_client.parser")
    found: dict[str, float] = {}
    for family in parser.text_string_to_metric_families(metrics.render()):
        assert family.documentation.endswith(".")
        assert family.type != "unknown"
        for sample in family.samples:
            labels = ",".join(f"{name}={value}" for name, value in sample.labels.items())
            key = f"{sample.name}{{{labels}}}" if labels else sample.name
            assert key not in found
            found[key.removeprefix("fastws_")] = sample.value
    return found


async def echo(ws: Any) -> None:
    async for message in ws:
        await ws.send(message)


class Echo(WebSocketProtocol):
    def on_message(self, message: str | bytes) -> None:
        self.send(message)


@pytest.mark.parametrize("handler", [echo, Echo])
async def test_connections_and_what_they_count(handler: Any, url: Any, until: Any) -> None:
    metrics = Metrics(process=False)
    async with serve(handler, "127.0.0.1", 0) as server:
        metrics.observe(server)
        with pytest.raises(ValueError, match="the server is already observed"):
            metrics.observe(server)
        async with connect(url(server)) as ws:
            await ws.send("é")
            await ws.recv()
            found = samples(metrics)
            assert found["connections"] == metrics.connections == 1
            assert found["connections_opened_total"] == 1
            assert found["messages_received_total"] == found["messages_sent_total"] == 1
            assert found["received_bytes_total"] == 8
            assert found["sent_bytes_total"] == 4
            assert found["payload_received_bytes_total"] == 2
            assert metrics.totals()["messages_received"] == 1
            assert "connections_closed_total{code=1000}" not in found
        async with connect(url(server)) as ws:
            await ws.send(b"123")
            await ws.recv()
            (theirs,) = server.connections
            stats = theirs.stats
            for name, total in metrics.totals().items():
                # The first connection has ended: one message, and a close frame each way.
                first = {"messages": 1, "frames": 2, "payload": 2, "bytes_received": 16}
                first |= {"bytes_sent": 4 + 4}
                kind = name.partition("_")[0]
                assert total == getattr(stats, name) + first.get(name, first.get(kind, 0))
            await ws.close(4000)
        await until(lambda: metrics.connections == 0)
        found = samples(metrics)
        # What connections have counted stays when they end.
        assert found["connections"] == found["unsent_bytes"] == 0
        assert found["connections_opened_total"] == 2
        assert found["connections_closed_total{code=1000}"] == 1
        assert found["connections_closed_total{code=4000}"] == 1
        assert found["messages_received_total"] == found["messages_sent_total"] == 2
        assert found["frames_received_total"] == found["frames_sent_total"] == 4
        assert metrics.totals()["payload_sent"] == found["payload_sent_bytes_total"] == 5


async def test_clients_cannot_make_any_number_of_figures(url: Any, until: Any) -> None:
    metrics = Metrics(process=False)
    async with serve(Echo, "127.0.0.1", 0) as server:
        metrics.observe(server)
        for code in [*range(3000, 3070), 3069, 3000, 1001]:
            async with connect(url(server)) as ws:
                await ws.close(code)
        await until(lambda: metrics.connections == 0)
    found = samples(metrics)
    closed = {key: number for key, number in found.items() if "_closed_" in key}
    assert len(closed) == 66
    assert closed["connections_closed_total{code=3000}"] == 2
    assert closed["connections_closed_total{code=1001}"] == 1
    assert closed["connections_closed_total{code=other}"] == 7


async def test_connections_that_are_open_already_count(url: Any) -> None:
    metrics = Metrics()
    async with serve(echo, "127.0.0.1", 0) as server, connect(url(server)) as ws:
        await ws.send("a")
        await ws.recv()
        metrics.observe(server)
        await ws.send("b")
        await ws.recv()
        found = samples(metrics)
        assert found["connections_opened_total"] == found["connections"] == 1
        assert found["messages_received_total"] == 2


async def test_handshakes_and_limits(url: Any, until: Any) -> None:
    metrics = Metrics()

    def process_request(request: Any) -> Response | None:
        return Response.text("OK\n") if request.path == "/health" else None

    async def refused(server: Any, path: str) -> None:
        with pytest.raises(HandshakeError):
            await connect(url(server) + path)

    options: dict[str, Any] = {"origins": ["https://example.com"], "max_connections": 1}
    async with serve(echo, "127.0.0.1", 0, process_request=process_request, **options) as server:
        metrics.observe(server)
        await refused(server, "")
        await refused(server, "health")
        await until(lambda: not server._endpoints)
        async with connect(url(server), origin="https://example.com"):
            await refused(server, "")
        await until(lambda: not server._endpoints)
        found = samples(metrics)
    assert found["http_responses_total{status=403}"] == 1
    assert found["http_responses_total{status=200}"] == 1
    assert found["http_responses_total{status=503}"] == 1
    assert found["connections_refused_total{limit=max_connections}"] == 1
    assert found["connections_opened_total"] == 1


async def test_a_handshake_without_a_response(url: Any, until: Any) -> None:
    metrics = Metrics()
    async with serve(echo, "127.0.0.1", 0) as server:
        metrics.observe(server)
        port = server.sockets[0].getsockname()[1]
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HTTP/1.1\r\n")
        await until(lambda: server._endpoints)
        writer.close()
        await until(lambda: not server._endpoints)
        assert samples(metrics)["handshakes_lost_total"] == 1


class MadeBefore(WebSocketProtocol):
    def connection_made(self, transport: Any) -> None:
        raise LookupError("made")


class MadeAfter(WebSocketProtocol):
    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        raise LookupError("made")


class MadeBelow(MadeAfter):
    """An override of an override."""

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)


@pytest.mark.parametrize("protocol", [MadeBefore, MadeAfter, MadeBelow])
async def test_a_handshake_that_cannot_begin_is_lost_once(
    protocol: Any, raw: Any, until: Any
) -> None:
    metrics, errors = Metrics(), []

    class Keeping(protocol):  # type: ignore[misc]
        def on_error(self, exc: Exception) -> None:
            errors.append(exc)

    asyncio.get_running_loop().set_exception_handler(lambda *_: None)
    async with serve(Keeping, "127.0.0.1", 0) as server:
        metrics.observe(server)
        async with raw(server, handshake=False) as peer:
            with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
                await peer.reader.readexactly(1)
        await until(lambda: samples(metrics)["handshakes_lost_total"] and not server._endpoints)
        assert samples(metrics)["handshakes_lost_total"] == 1
    assert [str(exc) for exc in errors] == ([] if protocol is MadeBefore else ["made"])


async def test_the_latency_of_pings(url: Any, until: Any) -> None:
    metrics = Metrics()

    async def ping(ws: Any) -> None:
        await ws.ping()
        await ws.wait_closed()

    async with serve(ping, "127.0.0.1", 0, ping_interval=0.02) as server:
        metrics.observe(server)
        async with connect(url(server)):
            await until(lambda: samples(metrics)["ping_latency_seconds_count"] >= 3)
        found = samples(metrics)
    count = found["ping_latency_seconds_count"]
    buckets = [value for name, value in found.items() if "_bucket" in name]
    assert buckets == sorted(buckets)
    assert found["ping_latency_seconds_bucket{le=+Inf}"] == buckets[-1] == count
    assert 0 < found["ping_latency_seconds_sum"] < 10 * count
    assert found["pings_sent_total"] >= count


async def test_several_servers_behind_a_proxy_and_not(url: Any) -> None:
    metrics = Metrics()
    async with (
        serve(echo, "127.0.0.1", 0) as one,
        serve(echo, "127.0.0.1", 0, proxy_protocol=True) as two,
    ):
        metrics.observe(one)
        metrics.observe(two)
        port = two.sockets[0].getsockname()[1]
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\nGET / HTTP/1.0\r\n\r\n")
        assert b" 426 " in await reader.readline()
        writer.close()
        async with connect(url(one)):
            found = samples(metrics)
        assert found["http_responses_total{status=426}"] == 1
        assert found["connections"] == 1


async def test_a_connection_that_is_lost(url: Any, until: Any) -> None:
    metrics = Metrics()
    async with serve(echo, "127.0.0.1", 0) as server:
        metrics.observe(server)
        ws = await connect(url(server))
        ws._transport.abort()
        with pytest.raises(ConnectionClosed):
            await ws.recv()
        await until(lambda: metrics.connections == 0)
        assert samples(metrics)["connections_closed_total{code=1006}"] == 1


def test_the_process_and_the_response() -> None:
    import os
    import sys
    import time

    found = samples(Metrics())
    assert found["process_cpu_seconds_total"] > 0
    if sys.platform == "linux":
        assert abs(found["process_start_time_seconds"] - time.time()) < 24 * 3600
        assert found["process_resident_memory_bytes"] > 1 << 20
        assert found["process_open_fds"] >= 3
        assert os.path.exists("/proc/self/stat")
    assert not any(name.startswith("process_") for name in samples(Metrics(process=False)))
    response = Metrics().response()
    assert response.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert response.body.decode().startswith("# HELP fastws_build_info ")
