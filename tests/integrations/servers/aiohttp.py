"""An echo server on aiohttp: PORT [INTEGRATION ...]"""

import sys
from importlib import import_module
from pathlib import Path

# The host, not this file.
sys.path = [path for path in sys.path if path != str(Path(__file__).parent)]
for name in sys.argv[2:]:
    import_module(f"fastws.integrations.{name}").install()

from aiohttp import web


async def echo(request: web.Request) -> web.WebSocketResponse:
    ws = web.WebSocketResponse(max_msg_size=16 << 20)
    await ws.prepare(request)
    async for message in ws:
        if message.type == web.WSMsgType.TEXT:
            await ws.send_str(message.data)
        else:
            await ws.send_bytes(message.data)
    return ws


app = web.Application()
app.add_routes([web.get("/", echo)])
web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]), print=None)
