"""The server of `fastws echo`: messages, the page, and the health check.

This module knows how to serve in one process. It does not know that there may be several.
"""

from __future__ import annotations

import asyncio
import re
import signal
from base64 import b64encode
from hashlib import sha256
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from fastws.aio.protocol import WebSocketProtocol
from fastws.aio.serving import serve
from fastws.codec import implementation, kernel
from fastws.http import Response

from ._serving import loop_factory, tls_context

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Callable

    from fastws.aio.server import Server
    from fastws.http import Request

__all__ = ["announcement", "serve_echo"]


def serve_echo(
    args: Namespace, announce: Callable[[Server], None], *, parent: int | None = None
) -> None:
    """Run an echo server in this process until a signal ends it.

    Args:
        args: the arguments of the command.
        announce: called when the server listens and handles signals.
        parent: in a worker, a file descriptor that becomes readable when the parent process dies.
    """

    async def run() -> None:
        loop = asyncio.get_running_loop()

        async with serve(
            _Echo,
            args.host,
            args.port,
            ssl=tls_context(args),
            process_request=_Pages(),
            max_message_size=args.max_message_size,
            deflate=args.deflate,
            reuse_port=True if args.workers is not None else None,
        ) as server:
            # A signal may follow the announcement at once. This runs when serve_forever waits,
            # which is after it has installed its handlers.
            loop.call_soon(announce, server)
            if parent is None:
                await server.serve_forever()
            else:

                def orphaned() -> None:
                    loop.remove_reader(parent)
                    signal.raise_signal(signal.SIGTERM)

                loop.add_reader(parent, orphaned)
                # Ctrl-C reaches every process of the terminal; the parent passes it on.
                await server.serve_forever(signals=[signal.SIGTERM])
                loop.remove_reader(parent)

    with asyncio.Runner(loop_factory=loop_factory(args)) as runner:
        runner.run(run())


def announcement(args: Namespace, address: tuple[Any, ...]) -> str:
    """Return the line that tells where the server listens."""
    host = f"[{address[0]}]" if ":" in address[0] else address[0]
    secure = "" if args.tls_cert is None else "s"
    line = (
        f"fastws echo: ws{secure}://{host}:{address[1]} "
        f"(and http{secure}://{host}:{address[1]} in a browser), "
        f"twin {implementation}, kernel {kernel}"
    )
    return line if args.workers is None else f"{line}, workers {args.workers}"


class _Echo(WebSocketProtocol):
    __slots__ = ()

    def on_message(self, message: str | bytes) -> None:
        self.send(message)


class _Pages:
    """Answers plain HTTP requests: with a page to try the server from, and a health check."""

    def __init__(self) -> None:
        try:
            # With line endings as an HTML parser sees them, for the hashes below.
            html = files("fastws").joinpath("demo", "index.html").read_text("utf-8")
        except OSError:
            html = "<!doctype html><title>fastws</title>The page is not included in this program."
        # The page may run its own script and style, load nothing, and connect to any WebSocket
        # server.
        policy = [
            "default-src 'none'",
            *(
                f"{kind}-src {' '.join(map(_csp_hash, re.findall(pattern, html, re.DOTALL)))}"
                for kind, pattern in (
                    ("script", "<script>(.*?)</script>"),
                    ("style", "<style>(.*?)</style>"),
                )
            ),
            "connect-src 'self' ws: wss:",
            "img-src data:",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
        ]
        headers = {
            "Cache-Control": "no-store",
            "Content-Security-Policy": "; ".join(policy),
            "Referrer-Policy": "no-referrer",
            "X-Content-Type-Options": "nosniff",
        }
        self._page = Response.html(html, 200, headers)
        self._health = Response.text("OK\n", 200, {"Cache-Control": "no-store"})

    def __call__(self, request: Request) -> Response | None:
        if request.is_websocket:
            return None
        if request.method not in ("GET", "HEAD"):
            return Response.text("GET or HEAD\n", 405, {"Allow": "GET, HEAD"})
        if request.path == "/":
            return self._page
        if request.path == "/health":
            return self._health
        return Response.text("nothing here but / and /health\n", 404)


def _csp_hash(text: str) -> str:
    return f"'sha256-{b64encode(sha256(text.encode()).digest()).decode()}'"
