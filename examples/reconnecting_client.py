"""A client that comes back: start `python examples/ticker.py`, and in another terminal

    python examples/reconnecting_client.py ws://localhost:8080 tea

It prints the price of tea whenever that changes. Stop the server and start it again: the client
says that the connection is lost, connects again as soon as it can, and goes on. Ctrl+C ends it.
"""

import asyncio
import sys
from contextlib import suppress

import fastws

# After the first failure, wait for up to a second; then longer each time, up to ten seconds.
POLICY = fastws.RetryPolicy(initial_delay=1, max_delay=10)


async def watch(uri, share):
    async for ws in fastws.connect(uri, retry=POLICY):
        try:
            await ws.send(share)  # a new connection knows nothing of the one before
            async for quote in ws:
                print(quote, flush=True)
            print(f"the server has closed the connection ({ws.close_code})", flush=True)
        except fastws.ConnectionClosed as exc:
            print(f"the connection is lost ({exc.code})", flush=True)


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        asyncio.run(watch(*sys.argv[1:]))
