"""examples/opentelemetry_server.py: what it says about connections and messages."""

from __future__ import annotations

import asyncio
import runpy
from pathlib import Path
from typing import Any

import pytest

import fastws

from .tools import optional

EXAMPLE = Path(__file__).parents[1] / "examples" / "opentelemetry_server.py"
TRACE = "0af7651916cd43dd8448eb211c80319c"


@pytest.fixture
def exporters() -> Any:
    optional("opentelemetry.sdk")
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    spans, reader = InMemorySpanExporter(), InMemoryMetricReader()
    tracers, meters = TracerProvider(), MeterProvider([reader])
    tracers.add_span_processor(SimpleSpanProcessor(spans))
    yield spans, reader, tracers, meters
    tracers.shutdown()
    meters.shutdown()


def points(reader: Any) -> dict[str, dict[Any, Any]]:
    """The values of each metric, by the value of its attribute."""
    found: dict[str, dict[Any, Any]] = {}
    for resource in reader.get_metrics_data().resource_metrics:
        for scope in resource.scope_metrics:
            for metric in scope.metrics:
                for point in metric.data.data_points:
                    key = next(iter(point.attributes.values()), None)
                    value = getattr(point, "count", None)
                    found.setdefault(metric.name, {})[key] = point.value if value is None else value
    return found


def test_spans_and_metrics(exporters: Any) -> None:
    spans, reader, tracers, meters = exporters
    example = runpy.run_path(str(EXAMPLE))
    handler = example["Telemetry"](example["echo"], tracers, meters)

    async def main() -> None:
        async with fastws.serve(handler, "127.0.0.1", 0) as server:
            url = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/chat"
            headers = {"Traceparent": f"00-{TRACE}-b7ad6b7169203331-01"}
            async with fastws.connect(url, headers=headers) as ws:
                await ws.send("héllo")
                assert await ws.recv() == "héllo"
                await ws.send(b"\0")
                await ws.recv()
                assert points(reader)["websocket.connections"] == {None: 1}
            async with fastws.connect(url) as ws:
                await ws.close(4000, "enough")

    asyncio.run(main())
    made = {(span.name, span.attributes.get("websocket.close.code")): span
            for span in spans.get_finished_spans()}  # fmt: skip
    connection = made["websocket connection", 1000]
    assert f"{connection.context.trace_id:032x}" == TRACE
    assert connection.attributes["url.path"] == "/chat"
    assert connection.attributes["websocket.messages.received"] == 2
    assert connection.status.is_ok or connection.status.is_unset
    assert made["websocket connection", 4000].status.description.startswith("4000")
    messages = [span for span in spans.get_finished_spans() if span.name == "websocket message"]
    assert [span.attributes["websocket.message.type"] for span in messages] == ["text", "binary"]
    for span in messages:
        assert span.parent is None
        assert span.links[0].context.span_id == connection.context.span_id
    assert points(reader) == {
        "websocket.connections": {None: 0},
        "websocket.connection.duration": {1000: 1, 4000: 1},
        "websocket.messages": {"text": 1, "binary": 1},
        "websocket.io": {"receive": 12 + 7 + 2 * 8 + 6, "transmit": 8 + 3 + 2 * 4 + 6},
    }
