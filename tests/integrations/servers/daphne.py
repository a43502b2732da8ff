"""An echo server on daphne: PORT [INTEGRATION ...]"""

import sys
from importlib import import_module
from pathlib import Path

# The host, not this file.
sys.path = [path for path in sys.path if path != str(Path(__file__).parent)]
for name in sys.argv[2:]:
    import_module(f"fastws.integrations.{name}").install()


async def app(scope, receive, send):
    if scope["type"] != "websocket":
        raise ValueError(scope["type"])
    while True:
        message = await receive()
        if message["type"] == "websocket.connect":
            await send({"type": "websocket.accept"})
        elif message["type"] == "websocket.receive":
            await send({**message, "type": "websocket.send"})
        else:
            return


if __name__ == "__main__":
    cli = import_module("daphne.cli").CommandLineInterface()
    sys.modules["echo"] = sys.modules["__main__"]
    cli.run(["-b", "127.0.0.1", "-p", sys.argv[1], "-v", "0", "echo:app"])
