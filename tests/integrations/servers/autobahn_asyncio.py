"""An echo server on autobahn and asyncio: PORT [INTEGRATION ...]"""

import asyncio
import sys
from importlib import import_module

for name in sys.argv[2:]:
    import_module(f"fastws.integrations.{name}").install()

from autobahn.asyncio.websocket import WebSocketServerFactory, WebSocketServerProtocol
from autobahn.websocket.compress import PerMessageDeflateOffer, PerMessageDeflateOfferAccept

MAX_SIZE = 16 << 20


class Echo(WebSocketServerProtocol):
    def onMessage(self, payload: bytes, isBinary: bool) -> None:
        self.sendMessage(payload, isBinary)


def accept(offers: list[object]) -> object:
    for offer in offers:
        if isinstance(offer, PerMessageDeflateOffer):
            return PerMessageDeflateOfferAccept(offer)
    return None


async def main() -> None:
    factory = WebSocketServerFactory()
    factory.protocol = Echo
    factory.setProtocolOptions(maxMessagePayloadSize=MAX_SIZE, perMessageCompressionAccept=accept)
    server = await asyncio.get_running_loop().create_server(factory, "127.0.0.1", int(sys.argv[1]))
    await server.serve_forever()


asyncio.run(main())
