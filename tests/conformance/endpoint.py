"""The endpoint that the Autobahn suite tests: an echo server, or a client that echoes.

    python endpoint.py server PORT [--uvloop]     until it gets a signal
    python endpoint.py client PORT AGENT [--uvloop]     once through all cases

Limits are raised as far as the suite needs: it sends messages of 16 MiB, and messages in
65,536 fragments. All other settings are the defaults.
"""

from __future__ import annotations

import argparse
import asyncio

import fastws
from fastws.deflate import PerMessageDeflate

OPTIONS = {
    "max_message_size": 64 << 20,
    "max_fragments": None,
    "deflate": PerMessageDeflate(max_window_bits=15, mem_level=8, threshold=0),
}


class Echo(fastws.WebSocketProtocol):
    def on_message(self, message: str | bytes) -> None:
        self.send(message)


async def serve(port: int) -> None:
    async with fastws.serve(Echo, "127.0.0.1", port, **OPTIONS) as server:
        print("ready", flush=True)
        await server.serve_forever()


async def client(port: int, agent: str) -> None:
    base = f"ws://127.0.0.1:{port}"
    async with fastws.connect(f"{base}/getCaseCount") as ws:
        count = int(await ws.recv())
    for case in range(1, count + 1):
        uri = f"{base}/runCase?case={case}&agent={agent}"
        async with fastws.connect(uri, **OPTIONS) as ws:
            try:
                async for message in ws:
                    await ws.send(message)
            except fastws.ConnectionClosed:
                pass  # as many cases expect
    async with fastws.connect(f"{base}/updateReports?agent={agent}"):
        pass


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("role", choices=["server", "client"])
    parser.add_argument("port", type=int)
    parser.add_argument("agent", nargs="?", default="")
    parser.add_argument("--uvloop", action="store_true")
    args = parser.parse_args()
    factory = None
    if args.uvloop:
        import uvloop

        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        if args.role == "server":
            runner.run(serve(args.port))
        else:
            runner.run(client(args.port, args.agent))


if __name__ == "__main__":
    main()
