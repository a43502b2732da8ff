"""One message of any size, there and back: how fast, and with how much memory.

    python -m bench.streams [--size GIB] [--rounds N] [--deflate] [--loop uvloop]

A client sends a message to a server in another process, which sends it back while it receives it.
For comparison, the same bytes go there and back as messages of 1 MiB, received whole, in the
same run and on the same connection options. Memory is the peak of each process during the long
message, minus what it had before, after a shorter one. `FASTWS_IMPL` chooses the twin.

Linux only: memory is read from /proc.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import statistics
import subprocess
import sys
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import fastws

if TYPE_CHECKING:
    from collections.abc import Iterator

MIB, GIB = 1 << 20, 1 << 30
WARM_UP = 64 * MIB


def payload(size: int) -> bytes:
    """JSON, which compresses to a ninth."""
    rng, lines = random.Random(1), bytearray()
    while len(lines) < size:
        fields = {"id": len(lines), "name": f"sensor-{rng.randint(1, 50)}", "ok": True}
        fields |= {"unit": "celsius", "value": rng.randint(0, 999), "time": 1_700_000_000}
        lines += json.dumps(fields).encode() + b"\n"
    return bytes(lines[:size])


# Memory -------------------------------------------------------------------------------------


def resident(name: str) -> int:
    """VmRSS or VmHWM of this process, in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1]) << 10
    raise RuntimeError(f"no {name} in /proc/self/status")


def forget_peak() -> int:
    """Begin a new peak; return what is resident now, in bytes."""
    Path("/proc/self/clear_refs").write_text("5")
    return resident("VmRSS")


# The server ---------------------------------------------------------------------------------


async def echo_parts(ws: fastws.WebSocket) -> None:
    while True:
        await ws.send(ws.recv_stream())


async def echo_whole(ws: fastws.WebSocket) -> None:
    async for message in ws:
        await ws.send(message)


async def tell_memory(ws: fastws.WebSocket) -> None:
    async for message in ws:
        value = forget_peak() if message == "forget" else resident("VmHWM")
        await ws.send(str(value))


async def run_server(options: dict[str, Any]) -> None:
    servers = [
        await fastws.serve(echo_parts, "127.0.0.1", 0, stream=True, **options),
        await fastws.serve(echo_whole, "127.0.0.1", 0, **options),
        await fastws.serve(tell_memory, "127.0.0.1", 0),
    ]
    print(*(server.sockets[0].getsockname()[1] for server in servers), flush=True)
    await asyncio.to_thread(sys.stdin.read)


# The client ---------------------------------------------------------------------------------


def fragments(chunk: bytes, size: int) -> Iterator[bytes]:
    for _ in range(size // len(chunk)):
        yield chunk


async def stream(ws: fastws.WebSocket, chunk: bytes, size: int) -> None:
    sending = asyncio.create_task(ws.send(fragments(chunk, size)))
    received = 0
    async for part in ws.recv_stream():
        received += len(part)
    await sending
    assert received == size


async def messages(ws: fastws.WebSocket, message: bytes, size: int) -> None:
    async def send() -> None:
        for _ in range(size // len(message)):
            await ws.send(message)

    sending = asyncio.create_task(send())
    for _ in range(size // len(message)):
        assert len(await ws.recv()) == len(message)
    await sending


async def run_client(ports: list[int], size: int, rounds: int, options: dict[str, Any]) -> None:
    message = payload(MIB)
    chunk = message[: (64 if options["deflate"] else 256) << 10]
    url = "ws://127.0.0.1:{}".format
    async with (
        fastws.connect(url(ports[0]), stream=True, **options) as parts,
        fastws.connect(url(ports[1]), **options) as whole,
        fastws.connect(url(ports[2])) as memory,
    ):

        async def remote(what: str) -> int:
            await memory.send(what)
            return int(await memory.recv())

        await messages(whole, message, WARM_UP)
        await stream(parts, chunk, WARM_UP)
        rates: dict[str, list[float]] = {"parts": [], "whole": []}
        growth = [0, 0]
        for _ in range(rounds):
            before = forget_peak(), await remote("forget")
            start = perf_counter()
            await stream(parts, chunk, size)
            rates["parts"].append(size / (perf_counter() - start))
            after = resident("VmHWM"), await remote("peak")
            growth = [max(g, a - b) for g, a, b in zip(growth, after, before, strict=True)]
            start = perf_counter()
            await messages(whole, message, min(size, GIB))
            rates["whole"].append(min(size, GIB) / (perf_counter() - start))
    ratio = statistics.median(
        one / other for one, other in zip(rates["parts"], rates["whole"], strict=True)
    )
    shown = {name: f"{statistics.median(rate) / MIB:,.0f} MiB/s" for name, rate in rates.items()}
    print(
        f"{fastws.implementation}, {'compressed' if options['deflate'] else 'plain'}, "
        f"{size / GIB:g} GiB: in parts {shown['parts']}, whole {shown['whole']} ({ratio:.2f}); "
        f"growth {growth[0] / MIB:.2f} MiB (client), {growth[1] / MIB:.2f} MiB (server)"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--size", type=float, default=4, help="of the message, in GiB (%(default)s)"
    )
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--deflate", action="store_true", help="compress it")
    parser.add_argument("--loop", choices=["asyncio", "uvloop"], default="asyncio")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    options: dict[str, Any] = {"deflate": args.deflate}
    factory = None
    if args.loop == "uvloop":
        import uvloop

        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        if args.serve:
            runner.run(run_server(options))
            return
        command = [sys.executable, "-m", "bench.streams", *sys.argv[1:], "--serve"]
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as server:
            assert server.stdout is not None
            ports = [int(port) for port in server.stdout.readline().split()]
            size = int(args.size * GIB)
            runner.run(run_client(ports, size - size % MIB, args.rounds, options))
            server.communicate()


if __name__ == "__main__":
    main()
