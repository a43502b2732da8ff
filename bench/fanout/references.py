"""The fan-out server that is not in Python, for scale."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from bench.load import programs
from bench.load.frame import Certificate, Server, Workload
from bench.load.programs import MissingError

if TYPE_CHECKING:
    from collections.abc import Callable

HERE = Path(__file__).parent


def uwebsockets(name: str) -> Server:
    program, _ = programs.build_uwebsockets(HERE / "uws.cpp")

    def command(port: int, workload: Workload, cert: Certificate | None) -> list[str]:
        if workload.tls:
            raise MissingError("it is written without TLS")
        return [str(program), str(port), *workload.told()]

    return Server(name, command)


REFERENCES: dict[str, Callable[[str], Server]] = {"uwebsockets": uwebsockets}
