"""What `fastws echo` answers to plain HTTP: the page, a health check, and what the page must know.

This module knows which files the page consists of, and what a browser may do with them. It does
not know WebSockets.
"""

from __future__ import annotations

import json
from importlib.resources import files
from typing import TYPE_CHECKING, Final

from fastws.http import Response

if TYPE_CHECKING:
    from fastws.http import Request

__all__ = ["Pages"]

_INDEX: Final = "index.html"
_MISSING: Final = "<!doctype html><title>fastws</title>The page is not included in this program."
_TYPES: Final = {".html": "text/html", ".css": "text/css", ".js": "text/javascript"}

# The page consists of files of this server, loads nothing else, and may connect to any WebSocket
# server. Nothing that a client sends is ever served, so 'self' is safe.
_POLICY: Final = (
    "default-src 'none'",
    "script-src 'self'",
    "style-src 'self'",
    "connect-src 'self' ws: wss:",
    "img-src data:",
    "base-uri 'none'",
    "form-action 'none'",
    "frame-ancestors 'none'",
)
_HEADERS: Final = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "; ".join(_POLICY),
    # With these two, browsers give a page their finest clock.
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class Pages:
    """Answers plain HTTP requests, as a function for `process_request`.

    Args:
        inspect: whether there is a channel that shows frames.
    """

    def __init__(self, *, inspect: bool) -> None:
        server = json.dumps({"inspect": inspect})
        self._responses = {
            "/": Response.html(_MISSING, 200, _HEADERS),
            "/health": Response.text("OK\n", 200, {"Cache-Control": "no-store"}),
            "/server.json": _response("application/json", server.encode()),
        }
        # (A program that was frozen may come without the directory.)
        demo = files("fastws").joinpath("demo")
        for file in demo.iterdir() if demo.is_dir() else ():
            media = _TYPES.get(file.name[file.name.rfind(".") :])
            if media is not None:
                path = "/" if file.name == _INDEX else f"/{file.name}"
                self._responses[path] = _response(f"{media}; charset=utf-8", file.read_bytes())

    def __call__(self, request: Request) -> Response | None:
        if request.is_websocket:
            return None
        if request.method not in ("GET", "HEAD"):
            return Response.text("GET or HEAD\n", 405, {"Allow": "GET, HEAD"})
        response = self._responses.get(request.path)
        return response or Response.text("nothing here but / and /health\n", 404)


def _response(content_type: str, body: bytes) -> Response:
    return Response(200, {"Content-Type": content_type, **_HEADERS}, body)
