"""`fastws probe`: check how a server answers input that breaks the rules.

This module knows the options of the command and how results are printed; reports in files are
written by `_reports`. What is sent, and which
answers are right, is in `_checks`; how it is sent and what comes back, in `_probing`.
"""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from fastws.exceptions import HandshakeError

from ._shared import (
    CommandError,
    add_trust_arguments,
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

    from ._probing import Result

__all__ = ["EPILOG", "SUMMARY", "add_arguments", "run"]

SUMMARY = "check how a server answers input that breaks the rules"

EPILOG = """\
Each check uses a connection of its own, and runs twice: with all data sent at once, and byte by
byte. A check reads at most 1 MiB. The exit status is 1 if an answer is not what RFC 6455 and
RFC 7692 require, and RFC 9110 and RFC 9112 of a handshake; if there was not enough time for all
checks; or if there is no server.

example:
  fastws probe ws://localhost:8080
  fastws probe wss://staging.example.com/chat --json
  fastws probe ws://localhost:8080 --junit probe.xml --html probe.html"""


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the arguments of the command."""
    add = parser.add_argument
    add("uri", metavar="URI", help="your server's address: ws://..., wss://... or ws+unix://...")
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
    """Probe the server and print the results."""
    import asyncio

    from ._probing import OUT_OF_TIME, probe

    counts = dict.fromkeys(("ok", "wrong", "skipped"), 0)

    def show(result: Result) -> None:
        counts[result.verdict] += 1
        if args.json or not (args.all or result.verdict == "wrong"):
            return
        check = result.check
        print_line(f"{result.verdict:7} {check.name}, {result.manner}: {printable(result.answer)}")
        if result.verdict == "wrong":
            expected = " or ".join(check.expected)
            print_line(f"        expected {expected}: {check.rule} (RFC {check.section})")

    probing = probe(
        args.uri,
        ssl=trust(args),
        timeout=args.timeout,
        total_timeout=args.total_timeout,
        on_result=show,
    )
    try:
        results = asyncio.run(probing)
    except (OSError, HandshakeError) as exc:
        raise cannot_connect(args.uri, exc) from exc
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
    incomplete = any(result.answer == OUT_OF_TIME for result in results)
    if incomplete:
        say(f"fastws probe: {OUT_OF_TIME.removeprefix('not tried: ')}; --total-timeout allows more")
    return 1 if counts["wrong"] or incomplete else 0


def _write_reports(args: Namespace, results: list[Result]) -> None:
    from ._reports import html, junit

    for path, report in ((args.junit, junit), (args.html, html)):
        if path is not None:
            try:
                Path(path).write_text(report(args.uri, results), "utf-8")
            except OSError as exc:
                raise CommandError(f"cannot write {path}: {describe(exc)}") from exc
