"""Clients in Python against one fast server, which uses Boost.Beast.

    python -m bench.echo.client [--only NAME,...] [--seconds S] [--json FILE]

One connection, one binary message in flight, three sizes; each client in a process of its own, on
a different core from the server. The round trip is measured, so it includes the server's time,
which is the same for all.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.load import programs
from bench.load.programs import HOST, MISSING, FailedError, MissingError
from bench.load.serving import MAX_SIZE, choose_loop, names_of

from .references import HERE

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    # Echoes until the time is up; returns the number of round trips.
    Client = Callable[[str, bytes, float], Awaitable[int]]

SIZES = [256, 8 << 10, 100_000]
WARMUP = 0.2


def check(reply: bytes | memoryview, payload: bytes) -> None:
    if bytes(reply) != payload:
        raise FailedError("the reply is not what was sent")


# Clients --------------------------------------------------------------------------------


async def fastws_coroutine(uri: str, payload: bytes, seconds: float) -> int:
    import fastws

    async with fastws.connect(uri, ping_interval=None, max_message_size=MAX_SIZE) as ws:
        return await _alternate(ws.send, ws.recv, payload, seconds)


async def fastws_callback(uri: str, payload: bytes, seconds: float) -> int:
    import fastws

    done = asyncio.get_running_loop().create_future()

    class Client(fastws.WebSocketProtocol):
        def on_open(self) -> None:
            self.count = 0
            self.end = time.perf_counter() + seconds
            self.send(payload)

        def on_message(self, message: bytes) -> None:
            if not self.count:
                check(message, payload)
            self.count += 1
            if time.perf_counter() < self.end:
                self.send(payload)
            elif not done.done():
                done.set_result(self.count)

        def on_close(self, code: int, reason: str) -> None:
            if not done.done():
                done.set_exception(FailedError(f"closed with {code}"))

    async with fastws.connect(uri, protocol=Client, ping_interval=None, max_message_size=MAX_SIZE):
        return await done


async def websockets(uri: str, payload: bytes, seconds: float) -> int:
    from websockets.asyncio.client import connect

    async with connect(
        uri, compression=None, ping_interval=None, max_size=MAX_SIZE, proxy=None
    ) as ws:
        return await _alternate(ws.send, ws.recv, payload, seconds)


async def aiohttp(uri: str, payload: bytes, seconds: float) -> int:
    from aiohttp import ClientSession

    async with ClientSession() as session, session.ws_connect(uri, max_msg_size=MAX_SIZE) as ws:
        return await _alternate(ws.send_bytes, ws.receive_bytes, payload, seconds)


async def picows(uri: str, payload: bytes, seconds: float) -> int:
    from picows import WSFrame, WSListener, WSMsgType, WSTransport, ws_connect

    done = asyncio.get_running_loop().create_future()

    class Client(WSListener):
        def on_ws_connected(self, transport: WSTransport) -> None:
            self.count = 0
            self.end = time.perf_counter() + seconds
            transport.send(WSMsgType.BINARY, payload)

        def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
            message = frame.get_payload_as_bytes()
            if not self.count:
                check(message, payload)
            self.count += 1
            if time.perf_counter() < self.end:
                transport.send(WSMsgType.BINARY, payload)
            elif not done.done():
                done.set_result(self.count)

        def on_ws_disconnected(self, transport: WSTransport) -> None:
            if not done.done():
                done.set_exception(FailedError("disconnected"))

    transport, _ = await ws_connect(Client, uri, max_frame_size=MAX_SIZE)
    try:
        return await done
    finally:
        transport.disconnect()


async def websocket_rs(uri: str, payload: bytes, seconds: float) -> int:
    from websocket_rs import connect

    async with await connect(uri) as ws:

        async def send(message: bytes) -> None:
            ws.send(message)

        return await _alternate(send, ws.recv, payload, seconds)


async def websocket_rs_callback(uri: str, payload: bytes, seconds: float) -> int:
    from websocket_rs import connect

    done = asyncio.get_running_loop().create_future()
    count = 0
    end = time.perf_counter() + seconds

    def on_message(message: Any) -> None:
        nonlocal count
        if not count:
            check(bytes(message), payload)
        count += 1
        if time.perf_counter() < end:
            ws.send(payload)
        elif not done.done():
            done.set_result(count)

    async with await connect(uri, on_message=on_message) as ws:
        ws.send(payload)
        return await done


async def _alternate(
    send: Callable[[bytes], Awaitable[Any]],
    receive: Callable[[], Awaitable[Any]],
    payload: bytes,
    seconds: float,
) -> int:
    await send(payload)
    check(await receive(), payload)
    count = 1
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        await send(payload)
        await receive()
        count += 1
    return count


CLIENTS: dict[str, Client] = {
    "fastws-callback": fastws_callback,
    "fastws-coroutine": fastws_coroutine,
    "picows": picows,
    "websockets": websockets,
    "aiohttp": aiohttp,
    "websocket-rs": websocket_rs,
    "websocket-rs-callback": websocket_rs_callback,
}
NAMES = names_of(CLIENTS, aiofastnet=["fastws-callback"])


def run_client(name: str, port: int, size: int, seconds: float) -> float:
    """Messages per second of one client, in this process."""
    name, loop_factory = choose_loop(name)
    client = CLIENTS[name]
    uri = f"ws://{HOST}:{port}/"
    payload = os.urandom(size)

    async def measure() -> float:
        await client(uri, payload, WARMUP)
        begin = time.perf_counter()
        count = await client(uri, payload, seconds)
        return count / (time.perf_counter() - begin)

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        return runner.run(measure())


# The run --------------------------------------------------------------------------------


def measure_client(name: str, port: int, size: int, seconds: float, core: int | None) -> float:
    """The same in a process of its own."""
    command = [sys.executable, "-m", "bench.echo.client", "--run", name, "--port", str(port)]
    command += ["--size", str(size), "--seconds", str(seconds)]
    environment = programs.child_environment()
    if name.startswith("fastws"):
        environment["FASTWS_IMPL"] = "c"
    try:
        result = subprocess.run(
            command,
            cwd=programs.ROOT,
            env=environment,
            capture_output=True,
            text=True,
            timeout=seconds + WARMUP + 30,
            preexec_fn=programs.on_core(core),
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise FailedError("hangs") from None
    if result.returncode:
        lines = result.stderr.strip().splitlines()
        kind = MissingError if result.returncode == MISSING else FailedError
        raise kind(lines[-1] if lines else f"exit status {result.returncode}")
    return float(result.stdout)


def run_all(names: list[str], seconds: float, rounds: int) -> dict[str, dict[str, Any]]:
    """For each client and size, the median of messages per second, or why there is none."""
    beast, _ = programs.build_beast(HERE / "beast.cpp")
    cores = programs.choose_cores()
    port = programs.free_port()
    rates: dict[tuple[str, int], list[float]] = {}
    problems: dict[str, tuple[str, str]] = {}  # a key of the result, and why
    with programs.running([str(beast), str(port)], port, cores.server):
        for round_ in range(rounds):
            for size in SIZES:
                for name in names:
                    if name in problems:
                        continue
                    try:
                        rate = measure_client(name, port, size, seconds, cores.load)
                    except (MissingError, FailedError) as exc:
                        kind = "missing" if isinstance(exc, MissingError) else "error"
                        problems[name] = kind, str(exc)
                        print(f"{name}: {exc}", file=sys.stderr, flush=True)
                        continue
                    rates.setdefault((name, size), []).append(rate)
                    print(
                        f"round {round_ + 1}  {size:>7} B  {name:<24} {rate:>9.0f}/s",
                        file=sys.stderr,
                        flush=True,
                    )
    results: dict[str, dict[str, Any]] = {}
    for name in names:
        row = results[name] = {}
        if name in problems:
            kind, reason = problems[name]
            row[kind] = reason
        for size in SIZES:
            if (name, size) in rates:
                row[str(size)] = round(statistics.median(rates[name, size]), 1)
    return results


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.echo.client")
    parser.add_argument("--only", help=f"clients, of {','.join(NAMES)}")
    parser.add_argument("--seconds", type=float, default=3.0, help="for each measurement (3)")
    parser.add_argument("--rounds", type=int, default=3, help="the median of so many (3)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="in place of stdout")
    parser.add_argument("--run", choices=NAMES, help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--size", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()

    if args.run:
        try:
            print(run_client(args.run, args.port, args.size, args.seconds))
        except ImportError as exc:
            print(f"{args.run} is missing: {exc}", file=sys.stderr)
            return MISSING
        return 0

    names = args.only.split(",") if args.only else NAMES
    if unknown := set(names) - set(NAMES):
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    try:
        results = run_all(names, args.seconds, args.rounds)
    except (MissingError, FailedError) as exc:
        print(f"the server: {exc}", file=sys.stderr)
        return 1
    report = {
        "what": "messages/s, one connection, one binary message in flight, by its size in bytes",
        "seconds": args.seconds,
        "rounds": args.rounds,
        **programs.describe(),
        "results": results,
    }
    text = json.dumps(report, indent=2)
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(text + "\n")
    else:
        print(text)
    return int(any("error" in row for row in results.values()))


if __name__ == "__main__":
    sys.exit(main())
