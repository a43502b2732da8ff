"""How a server in Python starts: its name, its event loop, its options.

    python -m MODULE NAME --port P [--tls CERT KEY] [--deflate] [--size B]

A module that is a collection of such servers calls `main`. All are under the same rules: messages
up to 16 MiB, no keepalive, no logging, compression only if requested.

Exit status 3: the library is not installed. SIGUSR2 collects garbage.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import os
import signal
import ssl
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .programs import MISSING

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Coroutine

    # A factory imports its library before there is an event loop, and returns what runs in it.
    Serve = Callable[[], Coroutine[Any, Any, None]]
    Factory = Callable[["Options"], Serve]

MAX_SIZE = 16 << 20
BACKLOG = 1024
UVLOOP = "-uvloop"
AIOFASTNET = "-aiofastnet"  # its transports instead of the loop's; picows always uses them
PURE = "-py"


@dataclass(frozen=True)
class Options:
    """What a server is told.

    Attributes:
        size: of the messages, for servers that make them.
    """

    port: int
    cert: str | None = None
    key: str | None = None
    deflate: bool = False
    size: int = 0

    @property
    def context(self) -> ssl.SSLContext | None:
        if self.cert is None:
            return None
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(self.cert, self.key)
        return context


async def forever() -> None:
    await asyncio.get_running_loop().create_future()


def names_of(
    factories: Collection[str], *, aiofastnet: Collection[str] = (), pure: Collection[str] = ()
) -> list[str]:
    """Each factory on both event loops; some with other transports, or with the pure twin."""
    return [
        *(f"{name}{loop}" for name in factories for loop in ("", UVLOOP)),
        *(f"{name}{loop}{AIOFASTNET}" for name in aiofastnet for loop in ("", UVLOOP)),
        *(f"{name}{PURE}" for name in pure),
    ]


def choose_loop(name: str) -> tuple[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Split the event loop off a name.

    Raises:
        ImportError: if it is not installed.
    """
    factory: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop
    rest = name.removesuffix(AIOFASTNET)
    if rest.endswith(UVLOOP):
        from uvloop import new_event_loop as factory
    if rest != name:
        import aiofastnet

        factory = aiofastnet.loop_factory(factory)
    return rest.removesuffix(UVLOOP), factory


def main(module: str, factories: dict[str, Factory], names: Collection[str]) -> int:
    parser = argparse.ArgumentParser(prog=f"python -m {module}")
    parser.add_argument("name", choices=names, metavar="NAME", help=", ".join(names))
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--tls", nargs=2, metavar=("CERT", "KEY"), default=(None, None))
    parser.add_argument("--deflate", action="store_true")
    parser.add_argument("--size", type=int, default=0)
    args = parser.parse_args()

    name = args.name
    if name.startswith("fastws"):
        # Not whichever twin happens to be available.
        os.environ["FASTWS_IMPL"] = "py" if name.endswith(PURE) else "c"
    try:
        name, loop_factory = choose_loop(name)
        factory = factories[name.removesuffix(PURE)]
        serve = factory(Options(args.port, *args.tls, args.deflate, args.size))
    except ImportError as exc:
        print(f"{args.name} is missing: {exc}", file=sys.stderr)
        return MISSING
    logging.disable(logging.CRITICAL)
    signal.signal(signal.SIGUSR2, lambda *_: gc.collect())
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(serve())
    return 0
