"""One message of any size, there and back: how fast, and with how much memory.

    python -m bench.streams [--size GIB] [--rounds N] [--deflate] [--text | --random] [--file]
                            [--loop uvloop]

A client sends a message to a server in another process, which sends it back while it receives it.
It comes from an iterable, or with `--file` from an object that is read as files are, in a thread.
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


def payload(size: int, *, noise: bool) -> bytes:
    """JSON, which compresses to a ninth; or noise, which does not."""
    rng, lines = random.Random(1), bytearray()
    if noise:
        return rng.randbytes(size)
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


class File:
    """A file in memory whose content is the same again and again."""

    def __init__(self, content: bytes | str, length: int) -> None:
        self.content = content
        self.left = length

    def read(self, size: int, /) -> bytes | str:
        size = min(size, self.left)
        self.left -= size
        return self.content[:size]


def fragments(chunk: bytes | str, length: int) -> Iterator[bytes | str]:
    for start in range(0, length, len(chunk)):
        yield chunk[: length - start]


async def stream(ws: fastws.WebSocket, source: Any, length: int) -> None:
    """Send a message and receive it. Its length is in bytes, or characters."""
    sending = asyncio.create_task(ws.send(source))
    received = 0
    async for part in ws.recv_stream():
        received += len(part)
    await sending
    assert received == length


async def messages(ws: fastws.WebSocket, message: bytes | str, length: int) -> None:
    async def send() -> None:
        for _ in range(length // len(message)):
            await ws.send(message)

    sending = asyncio.create_task(send())
    for _ in range(length // len(message)):
        assert len(await ws.recv()) == len(message)
    await sending


async def run_client(ports: list[int], args: argparse.Namespace, options: dict[str, Any]) -> None:
    # (At most 1 MiB with other letters.)
    octets = payload(MIB * 7 // 8 if args.text else MIB, noise=args.random)
    message: bytes | str = octets
    size, unit = int(args.size * GIB), 1.0
    if args.text:
        message = octets.decode().replace("sensor", "датчик")
        unit = len(message.encode()) / len(message)
    chunk = message[: (64 if args.deflate else 256) << 10]
    url = "ws://127.0.0.1:{}".format

    def length(size: int) -> int:
        length = int(size / unit)
        return length - length % len(message)

    async with (
        fastws.connect(url(ports[0]), stream=True, **options) as parts,
        fastws.connect(url(ports[1]), **options) as whole,
        fastws.connect(url(ports[2])) as memory,
    ):

        async def remote(what: str) -> int:
            await memory.send(what)
            return int(await memory.recv())

        async def send_parts(size: int) -> float:
            total = length(size)
            source = File(message, total) if args.file else fragments(chunk, total)
            start = perf_counter()
            await stream(parts, source, total)
            return total * unit / (perf_counter() - start)

        async def send_whole(size: int) -> float:
            start = perf_counter()
            await messages(whole, message, length(size))
            return length(size) * unit / (perf_counter() - start)

        await send_whole(WARM_UP)
        await send_parts(WARM_UP)
        rates: dict[str, list[float]] = {"parts": [], "whole": []}
        growth = [0, 0]
        for _ in range(args.rounds):
            before = forget_peak(), await remote("forget")
            rates["parts"].append(await send_parts(size))
            after = resident("VmHWM"), await remote("peak")
            growth = [max(g, a - b) for g, a, b in zip(growth, after, before, strict=True)]
            rates["whole"].append(await send_whole(min(size, GIB)))
    ratio = statistics.median(
        one / other for one, other in zip(rates["parts"], rates["whole"], strict=True)
    )
    kind = "text" if args.text else "noise" if args.random else "binary"
    shown = {name: f"{statistics.median(rate) / MIB:,.0f} MiB/s" for name, rate in rates.items()}
    print(
        f"{fastws.implementation}, {args.loop}, {'compressed' if args.deflate else 'plain'}, "
        f"{kind}{', file' if args.file else ''}, {args.size:g} GiB: "
        f"in parts {shown['parts']}, whole {shown['whole']} ({ratio:.2f}); "
        f"growth {growth[0] / MIB:.2f} MiB (client), {growth[1] / MIB:.2f} MiB (server)"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--size", type=float, default=4, help="of the message, in GiB (%(default)s)"
    )
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--deflate", action="store_true", help="compress it")
    content = parser.add_mutually_exclusive_group()
    content.add_argument("--text", action="store_true", help="send text, some of it not ASCII")
    content.add_argument("--random", action="store_true", help="send what cannot be compressed")
    parser.add_argument("--file", action="store_true", help="send what is read like a file")
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
            runner.run(run_client(ports, args, options))
            server.communicate()


if __name__ == "__main__":
    main()
