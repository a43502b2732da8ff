"""An echo server with OpenTelemetry: spans for connections and messages, and metrics.

    pip install opentelemetry-sdk
    python examples/opentelemetry_server.py

It prints what it would export. To send that to a collector, use the exporters of the package
opentelemetry-exporter-otlp instead of those that print.
"""

import asyncio
import time

from opentelemetry.context import Context
from opentelemetry.propagate import extract
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import ConsoleMetricExporter, PeriodicExportingMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter
from opentelemetry.trace import Link, SpanKind, StatusCode

import fastws


class Telemetry:
    """Wraps a handler of messages: what it returns is sent back."""

    def __init__(self, handle, tracer_provider, meter_provider):
        self.handle = handle
        self.tracer = tracer_provider.get_tracer("websocket")
        meter = meter_provider.get_meter("websocket")
        self.connections = meter.create_up_down_counter("websocket.connections", "{connection}")
        self.duration = meter.create_histogram("websocket.connection.duration", "s")
        self.messages = meter.create_counter("websocket.messages", "{message}")
        self.bytes = meter.create_counter("websocket.io", "By")

    async def __call__(self, ws):
        # The client's request may say to which trace the connection belongs (traceparent).
        carrier = {name.lower(): value for name, value in ws.request.headers.items()}
        host, port = ws.remote_address[:2]
        began = time.monotonic()
        self.connections.add(1)
        with self.tracer.start_as_current_span(
            "websocket connection",
            context=extract(carrier),
            kind=SpanKind.SERVER,
            attributes={
                "client.address": host,
                "client.port": port,
                "url.path": ws.request.path,
                "websocket.subprotocol": ws.subprotocol or "",
            },
        ) as span:
            try:
                async for message in ws:
                    await self.message(ws, message, span)
            except fastws.ConnectionClosed as exc:
                span.set_status(StatusCode.ERROR, str(exc))
            finally:
                self.connections.add(-1)
                self.end(ws, span, time.monotonic() - began)

    async def message(self, ws, message, connection):
        """Answer a message.

        It is a trace of its own, linked to the connection: that may be open for days, and its span
        is exported at the end.
        """
        kind = "text" if isinstance(message, str) else "binary"
        with self.tracer.start_as_current_span(
            "websocket message",
            context=Context(),
            kind=SpanKind.SERVER,
            links=[Link(connection.get_span_context())],
            attributes={"websocket.message.type": kind, "websocket.message.size": len(message)},
        ):
            self.messages.add(1, {"websocket.message.type": kind})
            answer = await self.handle(message)
            if answer is not None:
                await ws.send(answer)

    def end(self, ws, span, duration):
        """Record what is known at the end of a connection."""
        stats = ws.stats
        code = ws.close_code or 1000  # None: the handler has returned first
        span.set_attributes(
            {
                "websocket.close.code": code,
                "websocket.messages.received": stats.messages_received,
                "websocket.messages.sent": stats.messages_sent,
            }
        )
        if stats.latency is not None:
            span.set_attribute("websocket.ping.latency", stats.latency)
        self.duration.record(duration, {"websocket.close.code": code})
        self.bytes.add(stats.bytes_received, {"network.io.direction": "receive"})
        self.bytes.add(stats.bytes_sent, {"network.io.direction": "transmit"})


async def echo(message):
    return message


async def main():
    tracer_provider = TracerProvider()
    tracer_provider.add_span_processor(BatchSpanProcessor(ConsoleSpanExporter()))
    meter_provider = MeterProvider([PeriodicExportingMetricReader(ConsoleMetricExporter())])
    handler = Telemetry(echo, tracer_provider, meter_provider)
    try:
        async with fastws.serve(handler, "localhost", 8080) as server:
            await server.serve_forever()
    finally:
        tracer_provider.shutdown()
        meter_provider.shutdown()


if __name__ == "__main__":
    asyncio.run(main())
