"""`fastws probe`: check how a server, or a client, answers input that breaks the rules.

This module knows the options of the command and how results are printed; reports in files are
written by `_reports`. What is sent, and which answers are right, is in `_checks` and
`_client_checks`; how it is sent and what comes back, in `_probing` and `_client_probing`.
"""

from __future__ import annotations

import json
import os
import shlex
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from fastws.exceptions import HandshakeError

from ._shared import (
    CommandError,
    add_trust_arguments,
    address,
    cannot_connect,
    describe,
    integer,
    print_line,
    say,
    trust,
)
from ._terminal import printable

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace
    from collections.abc import Callable

    from ._probing import Result

__all__ = ["EPILOG", "SUMMARY", "add_arguments", "run"]

SUMMARY = "check how a server or client answers input that breaks the rules"

EPILOG = """\
Each check uses a connection of its own, and runs twice: with all data sent at once, and byte by
byte. A check reads at most 1 MiB. The exit status is 1 if an answer is not what RFC 6455 and
RFC 7692 require, and RFC 9110 and RFC 9112 of a handshake; if there was not enough time for all
checks; or if there is no server.

With --client, the command is the server, and checks who connects. The client must connect, send
every message back as it is (text as text) until the connection ends, and connect again at once,
some hundred times; or --exec starts it whenever a check waits for it. It must offer compression if
that is to be checked.

example:
  fastws probe ws://localhost:8080
  fastws probe wss://staging.example.com/chat --json
  fastws probe ws://localhost:8080 --junit probe.xml --html probe.html
  fastws probe --client --listen 127.0.0.1:9001
  fastws probe --client --exec "python client.py {url}\""""


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the arguments of the command."""
    add = parser.add_argument
    add(
        "uri",
        metavar="URI",
        nargs="?",
        help="your server's address: ws://..., wss://... or ws+unix://...",
    )
    add("--client", action="store_true", help="listen, and check a client that connects")
    add(
        "--listen",
        metavar="HOST:PORT",
        type=partial(address, 0),
        help="where to listen (default: 127.0.0.1:9001; a free port with --exec)",
    )
    add(
        "--exec",
        metavar="COMMAND",
        help="the client: a program and its arguments, with {url} in place of the address. It is "
        "started again when it has ended",
    )
    add(
        "--no-echo",
        action="store_true",
        help="the client sends no messages back: skip the checks that need that",
    )
    add("--json", action="store_true", help="print all results as JSON")
    add("--junit", metavar="FILE", help="write all results to this file, as XML for CI systems")
    add("--html", metavar="FILE", help="write all results to this file, as a page for a browser")
    add("--all", action="store_true", help="list correct answers, too")
    add(
        "--timeout",
        type=partial(integer, 1, 3600),
        default=5,
        metavar="SECONDS",
        help="how long to wait for an answer (default: %(default)s)",
    )
    add(
        "--total-timeout",
        type=partial(integer, 1, 1_000_000),
        metavar="SECONDS",
        help="how long all checks together may take; those that remain are skipped "
        "(default: 60 times --timeout)",
    )
    add_trust_arguments(parser)


def run(args: Namespace) -> int:
    """Probe the server or client and print the results."""
    _check_arguments(args)
    counts = dict.fromkeys(("ok", "wrong", "skipped"), 0)

    def show(result: Result) -> None:
        counts[result.verdict] += 1
        if args.json or not (args.all or result.verdict == "wrong"):
            return
        check = result.check
        answer = printable(result.answer)
        print_line(f"{result.verdict:7} {printable(check.name)}, {result.manner}: {answer}")
        if result.verdict == "wrong":
            expected = " or ".join(check.expected)
            print_line(f"        expected {expected}: {check.rule} (RFC {check.section})")

    results = _probe_client(args, show) if args.client else _probe_server(args, show)
    if args.json:
        rows = [
            {
                "check": result.check.name,
                "manner": result.manner,
                "verdict": result.verdict,
                "answer": result.answer,
                "expected": result.check.expected,
                "rule": result.check.rule,
                "rfc": result.check.section,
            }
            for result in results
        ]
        # JSON escapes every other character that a terminal might obey.
        print_line(json.dumps(rows, indent=2).replace("\x7f", r"\u007f"))
    else:
        print_line(", ".join(f"{number} {verdict}" for verdict, number in counts.items()))
    _write_reports(args, results)
    incomplete = _is_incomplete(results)
    return 1 if counts["wrong"] or incomplete else 0


def _check_arguments(args: Namespace) -> None:
    if args.client:
        for name, value in (("a URI", args.uri), ("--ca", args.ca), ("--insecure", args.insecure)):
            if value:
                message = f"{name} cannot be used with --client, which checks who connects"
                raise CommandError(message, 2)
        if args.exec is not None and "{url}" not in args.exec:
            raise CommandError("--exec must contain {url}, where the address of the server goes", 2)
        return
    if args.uri is None:
        raise CommandError("which server? Give its URI, or --client to check a client", 2)
    for name, value in (
        ("--listen", args.listen),
        ("--exec", args.exec),
        ("--no-echo", args.no_echo),
    ):
        if value:
            raise CommandError(f"{name} is for --client", 2)


def _probe_server(args: Namespace, show: Callable[[Result], None]) -> list[Result]:
    import asyncio

    from ._probing import probe

    probing = probe(
        args.uri,
        ssl=trust(args),
        timeout=args.timeout,
        total_timeout=args.total_timeout,
        on_result=show,
    )
    try:
        return asyncio.run(probing)
    except (OSError, HandshakeError) as exc:
        raise cannot_connect(args.uri, exc) from exc


def _probe_client(args: Namespace, show: Callable[[Result], None]) -> list[Result]:
    import asyncio
    import signal

    from fastws.aio.signals import heed

    from ._client_probing import NoClientError, probe_client

    command = None if args.exec is None else _split(args.exec)
    host, port = args.listen or ("127.0.0.1", 9001 if command is None else 0)

    def announce(url: str) -> None:
        if command is None:
            say(f"fastws probe: connect to {url}, send every message back, and connect again")

    async def probe_until_told() -> list[Result]:
        task = asyncio.current_task()
        assert task is not None
        # The program has a session of its own, so nobody else ends it.
        signals = [signal.SIGTERM, *([] if os.name == "nt" else [signal.SIGHUP])]
        with heed(signals, task.cancel):
            return await probe_client(
                host,
                port,
                command=command,
                echo=not args.no_echo,
                timeout=args.timeout,
                total_timeout=args.total_timeout,
                on_listening=announce,
                on_result=show,
            )

    try:
        return asyncio.run(probe_until_told())
    except asyncio.CancelledError as exc:
        raise CommandError("ended by a signal", 128 + signal.SIGTERM) from exc
    except NoClientError as exc:
        raise CommandError(str(exc), 1, exc.details) from exc
    except (OSError, ValueError) as exc:
        raise CommandError(f"cannot listen on {host} port {port}: {describe(exc)}") from exc


def _split(command: str) -> list[str]:
    try:
        return shlex.split(command, posix=os.name == "posix")
    except ValueError as exc:
        raise CommandError(f"--exec: {exc}: {command!r}", 2) from exc


def _is_incomplete(results: list[Result]) -> bool:
    """Say why checks were not made that could have been, if there are any."""
    from ._client_probing import NOBODY
    from ._probing import OUT_OF_TIME

    if any(result.answer == OUT_OF_TIME for result in results):
        say(f"fastws probe: {OUT_OF_TIME.removeprefix('not tried: ')}; --total-timeout allows more")
        return True
    for before, result in pairwise(results):
        if result.answer == NOBODY:
            why = NOBODY.removeprefix("not tried: ")
            say(f"fastws probe: {why} after {before.check.name!r}; --timeout waits longer")
            return True
    return False


def _write_reports(args: Namespace, results: list[Result]) -> None:
    from ._reports import html, junit

    subject = args.uri
    if args.client:
        subject = "a client" if args.exec is None else args.exec
    for path, report in ((args.junit, junit), (args.html, html)):
        if path is not None:
            try:
                Path(path).write_text(report(subject, results), "utf-8")
            except OSError as exc:
                raise CommandError(f"cannot write {path}: {describe(exc)}") from exc
