"""An echo server on tornado: PORT [INTEGRATION ...]"""

import asyncio
import sys
from importlib import import_module
from pathlib import Path

# The host, not this file.
sys.path = [path for path in sys.path if path != str(Path(__file__).parent)]
for name in sys.argv[2:]:
    import_module(f"fastws.integrations.{name}").install()

from tornado.web import Application
from tornado.websocket import WebSocketHandler


class Echo(WebSocketHandler):
    def on_message(self, message: str | bytes) -> None:
        self.write_message(message, binary=isinstance(message, bytes))

    def check_origin(self, origin: str) -> bool:
        return True

    def open(self) -> None:
        self.set_nodelay(True)


class Slow(Echo):
    async def on_message(self, message: str | bytes) -> None:
        await asyncio.sleep(0)
        await self.write_message(message, binary=isinstance(message, bytes))


class Deflate(Echo):
    def get_compression_options(self) -> dict[str, int]:
        return {}


async def main() -> None:
    app = Application(
        [("/", Echo), ("/slow", Slow), ("/deflate", Deflate)],
        websocket_max_message_size=16 << 20,
    )
    app.listen(int(sys.argv[1]), "127.0.0.1")
    await asyncio.Event().wait()


asyncio.run(main())
