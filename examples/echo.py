"""An echo server: `python examples/echo.py`.

Each message comes back as it is: text as text, binary as binary. Try it with
`fastws connect ws://localhost:8080`. Ctrl+C closes the open connections, and ends the server.
"""

import asyncio

import fastws


async def echo(ws):
    async for message in ws:
        await ws.send(message)


async def main():
    async with fastws.serve(echo, "localhost", 8080) as server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
