"""Servers in Python that are programs of their own, and import an application.

This module knows how to start each of them, in the fastest way that its documentation describes.
It does not know the applications.
"""

from __future__ import annotations

import importlib.util
import sys
from typing import TYPE_CHECKING

from .frame import Certificate, Server, Workload
from .programs import MissingError
from .serving import UVLOOP

if TYPE_CHECKING:
    from collections.abc import Callable


def need(*modules: str) -> None:
    """Raise MissingError if one of them is not installed."""
    for module in modules:
        if importlib.util.find_spec(module) is None:
            raise MissingError(f"No module named {module!r}")


def granian(app: str, interface: str = "rsgi") -> Callable[[str], Server]:
    """Granian, with its application for one of its interfaces."""

    def make(name: str) -> Server:
        loop = "uvloop" if name.endswith(UVLOOP) else "asyncio"
        need("granian", loop)

        def command(port: int, workload: Workload, cert: Certificate | None) -> list[str]:
            if workload.deflate:
                raise MissingError("Granian does not compress")
            start = [sys.executable, "-m", "granian", app, "--interface", interface]
            start += ["--port", str(port), "--loop", loop, "--no-log", "--workers", "1"]
            if workload.tls:
                if cert is None:
                    raise MissingError("no certificate: trustme is not installed")
                start += ["--ssl-certificate", cert[0], "--ssl-keyfile", cert[1]]
                start += ["--ssl-protocol-min", "tls1.2"]
            return start

        # SIGUSR2 would end it.
        return Server(name, command, peer=True, collects=False)

    return make


def uvicorn(app: str, protocol: str, module: str) -> Callable[[str], Server]:
    """uvicorn, with one of its classes or ours, which needs a module."""

    def make(name: str) -> Server:
        loop = "uvloop" if name.endswith(UVLOOP) else "asyncio"
        need("uvicorn", module, loop)
        ours = name.startswith("fastws")
        # Not whichever twin happens to be available.
        environment = ["env", "FASTWS_IMPL=c"] if ours else []

        def command(port: int, workload: Workload, cert: Certificate | None) -> list[str]:
            if workload.tls:
                raise MissingError("it is started without TLS")
            start = [*environment, sys.executable, "-m", "uvicorn", app]
            start += ["--port", str(port), "--loop", loop]
            start += ["--ws", protocol, "--ws-per-message-deflate", "false"]
            return [*start, "--log-level", "critical", "--no-access-log"]

        return Server(name, command, peer=not ours, collects=False)

    return make
