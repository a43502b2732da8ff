"""The server of `fastws serve`: somebody else's handler.

This module knows how to find a handler by its name, and how to serve it in one process. It does not
know that there may be several.
"""

from __future__ import annotations

import asyncio
import os
import re
import sys
import traceback
from contextlib import AsyncExitStack
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any

from fastws.aio.protocol import check_handler
from fastws.metrics import Metrics
from fastws.uri import join_host

from ._metrics import note, show_metrics
from ._serving import (
    cannot_listen,
    details,
    health,
    listen,
    loop_factory,
    serve_until_told,
    tls_context,
)
from ._shared import CommandError
from ._status import followed

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Callable

    from fastws.aio.server import Server

    from ._status import Counts

__all__ = ["announcement", "load", "serve_handler"]

_MACHINERY = re.compile(rf"{re.escape(__name__)}$|importlib\b").match


def load(name: str) -> Any:
    """Import what is called MODULE:NAME, from the current directory or wherever Python looks.

    Raises:
        CommandError: if there is no such thing.
    """
    module_name, _, attributes = name.partition(":")
    if not module_name or module_name.startswith(".") or not attributes:
        raise CommandError(f"must be MODULE:NAME, not {name!r}", 2)
    here = os.getcwd()
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        found: Any = import_module(module_name)
    except ModuleNotFoundError as exc:
        if exc.name is None or not f"{module_name}.".startswith(f"{exc.name}."):
            raise  # one that the module imports
        raise CommandError(f"no module {exc.name!r} here, for {name!r}") from exc
    for attribute in attributes.split("."):
        try:
            found = getattr(found, attribute)
        except AttributeError as exc:
            raise CommandError(f"module {module_name!r} has no {attributes!r}") from exc
    return found


def serve_handler(
    args: Namespace,
    announce: Callable[[Server], None],
    *,
    parent: int | None = None,
    counts: Counts | None = None,
    stopping: Callable[[], object] | None = None,
) -> None:
    """Serve in this process until a signal ends it.

    Args:
        args: the arguments of the command.
        announce: called with the server when it listens and handles signals.
        parent: in a worker, a file descriptor: see `serve_until_told`.
        counts: where to keep how much the server does; None if nobody looks.
        stopping: called when a signal tells the server to end; None if nobody wants to know.

    Raises:
        CommandError: if the handler cannot be found, imported, entered, served or left, or the
            server cannot listen.
    """
    try:
        handler = load(args.handler)
        process_request = health if args.process_request is None else load(args.process_request)
        if not callable(process_request):
            kind = type(process_request).__name__
            raise CommandError(f"{args.process_request} must be callable, not {kind!r}")
    except CommandError:
        raise
    except Exception as exc:
        raise _failed("import", args, exc) from exc

    async def run() -> None:
        options: dict[str, Any] = {
            "ssl": tls_context(args),
            "proxy_protocol": args.proxy_protocol,
            "max_message_size": args.max_message_size,
            "deflate": args.deflate,
            "shutdown_timeout": args.shutdown_timeout,
            "backlog": args.backlog,
            "origins": args.origins,
            "max_connections": args.max_connections,
            "max_connections_per_address": args.max_connections_per_address,
            "max_lifetime": args.max_lifetime,
        }
        if args.sockets:
            options["sock"] = args.sockets
        elif args.path is not None:
            options["path"] = args.path
        else:
            reuse_port = True if args.workers is not None else None
            options |= {"host": args.host, "port": args.port, "reuse_port": reuse_port}
        async with AsyncExitStack() as stack:
            called = handler
            if hasattr(handler, "__aenter__") and not isinstance(handler, type):
                application = _Application(args, handler, in_worker=parent is not None)
                called = await stack.enter_async_context(application)
            try:
                check_handler(called)
            except TypeError as exc:
                raise CommandError(f"cannot serve {args.handler}: {exc}") from exc
            metrics = Metrics()
            options["process_request"] = await show_metrics(args, metrics, process_request, stack)
            server = await listen(stack, called, partial(cannot_listen, args), **options)
            if args.metrics is not None or counts is not None:
                metrics.observe(server)
            if counts is not None:
                stack.enter_context(followed(metrics, counts))
            await serve_until_told(server, announce, parent, drain=args.drain, stopping=stopping)

    with asyncio.Runner(loop_factory=loop_factory(args)) as runner:
        runner.run(run())


class _Application:
    """Somebody else's asynchronous context manager, whose failures are reported as such."""

    def __init__(self, args: Namespace, manager: Any, *, in_worker: bool) -> None:
        self._args = args
        self._manager = manager
        self._in_worker = in_worker

    async def __aenter__(self) -> Any:
        try:
            return await self._manager.__aenter__()
        except Exception as exc:
            error = _failed("enter", self._args, exc)
            if self._in_worker:
                raise SystemExit(1) from exc  # the next worker may have more luck
            raise error from exc

    async def __aexit__(self, *exc_info: object) -> Any:
        try:
            return await self._manager.__aexit__(*exc_info)
        except Exception as exc:
            if exc is exc_info[1]:
                raise
            raise _failed("leave", self._args, exc) from exc


def _failed(what: str, args: Namespace, exc: Exception) -> CommandError:
    """Report what the application's code raised; return what to raise instead."""
    # How we got there is of no interest.
    trace = exc.__traceback__
    while trace is not None and _MACHINERY(trace.tb_frame.f_globals.get("__name__", "")):
        trace = trace.tb_next
    traceback.print_exception(type(exc), exc, trace)
    return CommandError(f"cannot {what} {args.handler}")


def announcement(args: Namespace, address: Any) -> str:
    """Return the line that tells where the server listens."""
    secure = "" if args.tls_cert is None else "s"
    if isinstance(address, tuple):
        where = f"ws{secure}://{join_host(*address[:2])}"
    else:
        where = f"ws{secure}+unix:{address}"
    return f"fastws serve: {where} ({args.handler}), {details(args)}{note(args)}"
