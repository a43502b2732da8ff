"""A client on autobahn and asyncio, of an echo server: PORT [INTEGRATION ...]"""

import asyncio
import os
import sys
from importlib import import_module

for name in sys.argv[2:]:
    import_module(f"fastws.integrations.{name}").install()

from autobahn.asyncio.websocket import WebSocketClientFactory, WebSocketClientProtocol

MESSAGES = [("ä€😀" * size).encode() for size in (0, 1, 100, 20_000)]
MESSAGES += [os.urandom(size) for size in (1, 125, 126, 65_536)]


class Client(WebSocketClientProtocol):
    def onOpen(self) -> None:
        self.received: list[bytes] = []
        for number, message in enumerate(MESSAGES):
            self.sendMessage(message, isBinary=number >= 4)
        # The same frame by frame, as a stream.
        self.beginMessage(isBinary=True)
        for _ in range(3):
            self.beginMessageFrame(10)
            self.sendMessageFrameData(b"01234")
            self.sendMessageFrameData(b"56789")
        self.endMessage()

    def onMessage(self, payload: bytes, isBinary: bool) -> None:
        self.received.append(payload)
        if len(self.received) > len(MESSAGES):
            self.sendClose(1000)

    def onClose(self, wasClean: bool, code: int, reason: str) -> None:
        done.set_result((wasClean, code, self.received))


async def main() -> None:
    global done
    loop = asyncio.get_running_loop()
    done = loop.create_future()
    factory = WebSocketClientFactory(f"ws://127.0.0.1:{sys.argv[1]}/")
    factory.protocol = Client
    await loop.create_connection(factory, "127.0.0.1", int(sys.argv[1]))
    assert await done == (True, 1000, [*MESSAGES, b"0123456789" * 3])


asyncio.run(main())
