"""Echo servers that are not in Python, for scale: how to build and start them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from bench.load import programs
from bench.load.frame import Certificate, Server, Workload, server_options
from bench.load.programs import MissingError

if TYPE_CHECKING:
    from collections.abc import Callable

HERE = Path(__file__).parent


def beast(name: str) -> Server:
    program, tls = programs.build_beast(HERE / "beast.cpp")

    def command(port: int, workload: Workload, cert: Certificate | None) -> list[str]:
        if workload.tls and not tls:
            raise MissingError("built without OpenSSL")
        return [str(program), str(port), *server_options(workload, cert)]

    return Server(name, command)


def uwebsockets(name: str) -> Server:
    program, tls = programs.build_uwebsockets(HERE / "uws.cpp")

    def command(port: int, workload: Workload, cert: Certificate | None) -> list[str]:
        if workload.tls and not tls:
            raise MissingError("built without OpenSSL")
        return [str(program), str(port), *server_options(workload, cert)]

    return Server(name, command)


def node_ws(name: str) -> Server:
    place = programs.install_ws()
    script = str(HERE / "node.mjs")

    def command(port: int, workload: Workload, cert: Certificate | None) -> list[str]:
        start = ["node", "--expose-gc", script, str(port), str(place)]
        return start + server_options(workload, cert)

    return Server(name, command)


REFERENCES: dict[str, Callable[[str], Server]] = {
    "beast": beast,
    "uwebsockets": uwebsockets,
    "node-ws": node_ws,
}
