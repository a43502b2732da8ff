"""An echo server on autobahn and Twisted: PORT [INTEGRATION ...]"""

import sys
from importlib import import_module

for name in sys.argv[2:]:
    import_module(f"fastws.integrations.{name}").install()

from autobahn.twisted.websocket import WebSocketServerFactory, WebSocketServerProtocol
from twisted.internet import reactor


class Echo(WebSocketServerProtocol):
    def onMessage(self, payload: bytes, isBinary: bool) -> None:
        self.sendMessage(payload, isBinary)


factory = WebSocketServerFactory()
factory.protocol = Echo
# A peer that violates the protocol gets a close frame.
factory.setProtocolOptions(maxMessagePayloadSize=1 << 20, failByDrop=False)
reactor.listenTCP(int(sys.argv[1]), factory, interface="127.0.0.1")
reactor.run()
