"""Echo servers in Python that are programs of their own: their applications, and how to start them.

python -m bench.echo.apps PORT [--tls CERT KEY]     # socketify
"""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any

from bench.load import hosts
from bench.load.frame import Certificate, Server, Workload, server_options
from bench.load.programs import HOST, MissingError
from bench.load.serving import MAX_SIZE, UVLOOP

if TYPE_CHECKING:
    from collections.abc import Callable

CLOSE, BYTES = 0, 1  # kinds of message in RSGI


async def rsgi(scope: Any, protocol: Any) -> None:
    """The application of Granian."""
    ws = await protocol.accept()
    while True:
        message = await ws.receive()
        if message.kind == CLOSE:
            return
        if message.kind == BYTES:
            await ws.send_bytes(message.data)
        else:
            await ws.send_str(message.data)


def run_socketify(port: int, cert: str | None, key: str | None) -> None:
    from socketify import App, AppListenOptions, AppOptions, CompressOptions

    def echo(ws: Any, message: Any, opcode: Any) -> None:
        ws.send(message, opcode)

    app = App(AppOptions(cert_file_name=cert, key_file_name=key) if cert else None)
    app.ws(
        "/*",
        {
            "compression": CompressOptions.DISABLED,
            "max_payload_length": MAX_SIZE,
            "idle_timeout": 0,
            "message": echo,
        },
    )
    app.listen(AppListenOptions(port=port, host=HOST), lambda config: None)
    app.run()


def socketify(name: str) -> Server:
    hosts.need("socketify")

    def command(port: int, workload: Workload, cert: Certificate | None) -> list[str]:
        if workload.deflate:
            raise MissingError("not measured with compression")
        start = [sys.executable, "-m", "bench.echo.apps", str(port)]
        return start + server_options(workload, cert)

    return Server(name, command, peer=True, collects=False)


APPS: dict[str, Callable[[str], Server]] = {
    "granian": hosts.granian("bench.echo.apps:rsgi"),
    f"granian{UVLOOP}": hosts.granian("bench.echo.apps:rsgi"),
    "socketify": socketify,
}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m bench.echo.apps")
    parser.add_argument("port", type=int)
    parser.add_argument("--tls", nargs=2, metavar=("CERT", "KEY"), default=(None, None))
    args = parser.parse_args()
    run_socketify(args.port, *args.tls)
