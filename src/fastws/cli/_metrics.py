"""`--metrics` of the commands that serve: where the figures are shown.

This module knows how a server gets a place for its figures. It does not know the figures: they are
those of `fastws.metrics`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from fastws.aio.protocol import WebSocketProtocol
from fastws.http import Response
from fastws.uri import join_host

from ._serving import health, listen
from ._shared import CommandError, describe

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Callable
    from contextlib import AsyncExitStack

    from fastws.http import Request
    from fastws.metrics import Metrics

__all__ = ["note", "show_metrics"]

# The path at an address of their own.
_PATH: Final = "/metrics"


def note(args: Namespace) -> str:
    """Return what the announcement of the server says about the figures."""
    if args.metrics is None:
        return ""
    if isinstance(args.metrics, str):
        return f", metrics at {args.metrics}"
    host, port = args.metrics
    host = host or "0.0.0.0"
    last = "" if (args.workers or 1) == 1 else f" to {port + args.workers - 1}"
    return f", metrics at http://{join_host(host, port)}{_PATH}{last}"


async def show_metrics(
    args: Namespace,
    metrics: Metrics,
    process_request: Callable[[Request], Any],
    stack: AsyncExitStack,
) -> Callable[[Request], Any]:
    """Show the figures where the arguments say.

    Workers share a port, and any of them may get a request to it. So each has a port of its own for
    its figures, beginning with the one that was given.

    Args:
        args: the arguments of the command.
        metrics: the figures.
        process_request: what answers requests to the server.
        stack: what ends with the server.

    Returns:
        what answers requests to the server instead.

    Raises:
        CommandError: if the address cannot be used.
    """
    if args.metrics is None:
        return process_request
    if isinstance(args.metrics, str):
        return _Figures(metrics, args.metrics, process_request)
    host, port = args.metrics
    port += getattr(args, "worker", 0)

    def cannot(exc: Exception) -> CommandError:
        where = f"{host or 'any address'} port {port}"
        return CommandError(f"cannot listen on {where} for --metrics: {describe(exc)}")

    figures = _Figures(metrics, _PATH, _others)
    await listen(
        stack, WebSocketProtocol, cannot, host=host or None, port=port, process_request=figures
    )
    return process_request


class _Figures:
    """Answers requests for the figures, and passes on all others."""

    def __init__(
        self, metrics: Metrics, path: str, process_request: Callable[[Request], Any]
    ) -> None:
        self._metrics = metrics
        self._path = path
        self._process_request = process_request

    def __call__(self, request: Request) -> Any:
        if request.path == self._path and request.method in ("GET", "HEAD"):
            return self._metrics.response()
        return self._process_request(request)


def _others(request: Request) -> Response:
    # (A health check here is no connection of the server, whose limits it may have reached.)
    return health(request) or Response.text(f"The metrics are at {_PATH}.\n", 404)
