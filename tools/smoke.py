"""Check that an installed wheel works: the command, and conversations over asyncio.

    python -P tools/smoke.py [--version VERSION] [--no-command]

FASTWS_IMPL says which twin must be there. It needs no test dependencies, so that it runs wherever
fastws does; the suite tests the rest.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Final

import fastws

MESSAGES: Final = ("Hello Server!", "grüß dich, 世界 🎉", "", b"\x00\xff" * 50_000, "x" * 100_000)
TIMEOUT: Final = 60  # seconds; an emulator is slow


class Echo(fastws.WebSocketProtocol):
    def on_message(self, message: str | bytes) -> None:
        self.send(message)


async def echo(ws: fastws.WebSocket) -> None:
    async for message in ws:
        await ws.send(message)


async def converse() -> int:
    """Exchange messages with both styles of server, also compressed; return how many."""
    count = 0
    for handler in (echo, Echo):
        for deflate in (False, True):
            async with fastws.serve(handler, "127.0.0.1", 0, deflate=deflate) as server:
                port = server.sockets[0].getsockname()[1]
                url = f"ws://127.0.0.1:{port}"
                async with fastws.connect(url, deflate=deflate) as ws:
                    for message in MESSAGES:
                        await ws.send(message)
                        answer = await ws.recv()
                        if answer != message:
                            raise AssertionError(f"got {answer!r:.60} for {message!r:.60}")
                        count += 1
            if ws.close_code != 1000:
                raise AssertionError(f"closed with {ws.close_code}")
    return count


def information() -> dict[str, str]:
    """Return what `fastws info --json` prints, from the command beside this Python."""
    command = Path(sys.executable).with_name("fastws")
    argv = [command] if command.exists() else [sys.executable, "-P", "-m", "fastws"]
    result = subprocess.run(
        [*argv, "info", "--json"], stdout=subprocess.PIPE, text=True, check=True
    )
    info: dict[str, str] = json.loads(result.stdout)
    return info


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--version", default=fastws.__version__, help="the version to expect")
    parser.add_argument(
        "--no-command", action="store_true", help="run no other process: an emulator could not"
    )
    args = parser.parse_args()
    wanted = (args.version, os.environ.get("FASTWS_IMPL", fastws.implementation))
    found = [(fastws.__version__, fastws.implementation)]
    if not args.no_command:
        info = information()
        found.append((info["fastws"], info["twin"]))
    if set(found) != {wanted}:
        return f"found {found}, not {wanted}"
    count = asyncio.run(asyncio.wait_for(converse(), TIMEOUT))
    print(f"fastws {' '.join(wanted)}, kernel {fastws.kernel}: {count} messages were echoed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
