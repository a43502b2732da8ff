"""`fastws bench`: put load on a server that echoes, and show how fast it answers.

This module knows the options of the command and how results are printed. The load itself is in
`_loading`.
"""

from __future__ import annotations

import json
import sys
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from fastws.exceptions import HandshakeError, InvalidURIError

from ._shared import (
    CommandError,
    add_trust_arguments,
    cannot_connect,
    decimal,
    integer,
    is_tty,
    print_line,
    trust,
)
from ._terminal import printable

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace
    from collections.abc import Callable, Iterator

    from ._loading import Plan, Result

__all__ = ["EPILOG", "SUMMARY", "add_arguments", "run"]

SUMMARY = "put load on a server that echoes, and show how fast it answers"

EPILOG = """\
The server must answer each message with the same message, as fastws echo does. By default, each
connection sends its next message when an answer arrives (a closed loop): the slower the server,
the fewer messages it gets. With --rate, messages have a time of their own, and latency counts from
then (an open loop): it includes how long a message had to wait because the server was behind.

This client is a single process on Python: fast servers are as fast as it is, or faster. The exit
status is 1 if a message was not answered, or not with the same message.

example:
  fastws bench ws://localhost:8080
  fastws bench ws://localhost:8080 --connections 100 --rate 20000 --size 1000"""

_PERCENTILES = (50, 90, 99, 99.9)
_BAR = 40


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the arguments of the command."""
    add = parser.add_argument
    add("uri", metavar="URI", help="your server's address: ws://..., wss://... or ws+unix://...")
    add(
        "--connections",
        type=partial(integer, 1, 100_000),
        default=10,
        metavar="N",
        help="how many connections to use (default: %(default)s)",
    )
    loop = parser.add_mutually_exclusive_group()
    loop.add_argument(
        "--in-flight",
        type=partial(integer, 1, 10_000),
        default=1,
        metavar="N",
        help="how many messages of each connection may wait for their answers "
        "(default: %(default)s)",
    )
    loop.add_argument(
        "--rate",
        type=partial(decimal, 0.01, 1e7),
        metavar="N",
        help="send N messages per second in all, however long the answers take",
    )
    add(
        "--size",
        type=partial(integer, 0, 1 << 30),
        default=125,
        metavar="BYTES",
        help="the size of a message (default: %(default)s)",
    )
    add("--binary", action="store_true", help="send binary messages instead of text")
    add(
        "--duration",
        type=partial(decimal, 0.01, 1e6),
        default=10.0,
        metavar="SECONDS",
        help="how long to measure (default: %(default)g)",
    )
    add(
        "--warmup",
        type=partial(decimal, 0, 1e6),
        default=0.5,
        metavar="SECONDS",
        help="how long to send before that (default: %(default)g)",
    )
    add("--json", action="store_true", help="print the result as JSON")
    add_trust_arguments(parser)


def run(args: Namespace) -> int:
    """Put load on the server and print the result."""
    import asyncio

    from fastws.aio.client import connect

    from ._loading import Plan, load

    plan = Plan(
        uri=args.uri,
        connections=args.connections,
        in_flight=args.in_flight,
        message=bytes(args.size) if args.binary else "a" * args.size,
        rate=args.rate,
        warmup=args.warmup,
        duration=args.duration,
    )
    context = trust(args)
    try:
        connect(args.uri, ssl=context)  # says what is wrong with the arguments
    except InvalidURIError as exc:
        raise cannot_connect(args.uri, exc) from exc
    except ValueError as exc:
        raise CommandError(str(exc), 2) from exc
    try:
        with _progress(plan) as on_progress:
            result = asyncio.run(load(plan, ssl=context, on_progress=on_progress))
    except ExceptionGroup as group:
        error = _first(group)
        if isinstance(error, (OSError, HandshakeError)):
            raise cannot_connect(args.uri, error) from error
        raise
    if args.json:
        print_line(json.dumps(_row(plan, result), indent=2))
    else:
        for line in _lines(plan, result):
            print_line(line)
    return 1 if result.has_failed else 0


def _first(group: ExceptionGroup[Exception]) -> Exception:
    exc: Exception = group
    while isinstance(exc, ExceptionGroup):
        exc = exc.exceptions[0]
    return exc


@contextmanager
def _progress(plan: Plan) -> Iterator[Callable[[float, int], None]]:
    """Show on standard error how far it is, if that is a terminal and rich is installed."""
    try:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
    except ImportError:
        has_rich = False
    else:
        has_rich = True
    if not has_rich or not is_tty(sys.stderr):
        yield lambda _seconds, _messages: None
        return
    columns = (BarColumn(), TextColumn("{task.fields[rate]}"), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("", total=plan.warmup + plan.duration, rate="connecting")

        def show(seconds: float, messages: int) -> None:
            measured = seconds - plan.warmup
            rate = f"{messages / measured:,.0f} messages/s" if measured > 0 else "warming up"
            progress.update(task, completed=seconds, rate=rate)

        yield show


# Printing -------------------------------------------------------------------------------


def _lines(plan: Plan, result: Result) -> Iterator[str]:
    how = f"{plan.in_flight} in flight each" if plan.rate is None else f"{plan.rate:,g}/s in all"
    kind = "text" if isinstance(plan.message, str) else "binary"
    size = len(plan.message)
    yield (
        f"{printable(plan.uri)}: {plan.connections:,} connection{'s'[: plan.connections != 1]}, "
        f"{how}, {size:,} bytes of {kind}"
    )
    yield ""
    rate = result.messages / result.seconds if result.seconds else 0.0
    yield f"answers      {result.messages:,} in {result.seconds:.1f} s"
    yield f"per second   {rate:,.0f}, {rate * size / 1e6:,.1f} MB in each direction"
    if result.opening:
        opening = sorted(result.opening)
        middle, most = opening[len(opening) // 2] * 1000, opening[-1] * 1000
        yield f"opening      {middle:.1f} ms median, {most:.1f} ms at most"
    if result.latencies:
        yield ""
        yield "latency in ms"
        figures = [("min", min(result.latencies) / 1000), ("mean", result.mean)]
        figures += [(f"p{share:g}", result.percentile(share / 100)) for share in _PERCENTILES]
        figures.append(("max", max(result.latencies) / 1000))
        yield "".join(f"{name:>9}" for name, _ in figures)
        yield "".join(f"{figure:>9.3f}" for _, figure in figures)
        yield ""
        yield from _histogram(result)
    if result.has_failed:
        yield ""
        yield from _failures(result)


def _histogram(result: Result) -> Iterator[str]:
    """Yield a line for each range of latencies, 1, 2, 5, 10 and so on."""
    counts: dict[float, int] = {}
    for time, count in result.latencies.items():
        limit = _limit(time)
        counts[limit] = counts.get(limit, 0) + count
    total, most = sum(counts.values()), max(counts.values())
    limits = [limit for limit in _LIMITS if min(counts) <= limit <= max(counts)]
    for limit in limits:
        count = counts.get(limit, 0)
        bar = "█" * round(_BAR * count / most) or ("▏" if count else "")
        yield f"< {limit / 1000:>7g} ms  {100 * count / total:>5.1f} %  {bar}".rstrip()


_LIMITS: list[int] = [base * 10**power for power in range(9) for base in (1, 2, 5)]


def _limit(time: int) -> int:
    """Return the end of the range that a time in microseconds belongs to."""
    for limit in _LIMITS:
        if time < limit:
            return limit
    return _LIMITS[-1]


def _failures(result: Result) -> Iterator[str]:
    for why, count in result.lost.most_common():
        yield f"{count:,} connection{'s'[: count != 1]} lost: {printable(why)}"
    if result.wrong:
        yield f"{result.wrong:,} answers that are not the message: is this an echo server?"
    if result.unanswered:
        yield f"{result.unanswered:,} messages without an answer"
    if not result.messages:
        yield "no answers in time"


def _row(plan: Plan, result: Result) -> dict[str, Any]:
    """Return the result, ready for JSON."""
    row: dict[str, Any] = {
        "connections": plan.connections,
        "in_flight": plan.in_flight if plan.rate is None else None,
        "rate": plan.rate,
        "size": len(plan.message),
        "type": "text" if isinstance(plan.message, str) else "binary",
        "answers": result.messages,
        "seconds": round(result.seconds, 3),
        "answers_per_second": round(result.messages / result.seconds) if result.seconds else 0,
        "unanswered": result.unanswered,
        "wrong": result.wrong,
        "lost": dict(result.lost),
    }
    if result.latencies:
        row["latency_ms"] = {
            "min": min(result.latencies) / 1000,
            "mean": round(result.mean, 3),
            **{f"p{share:g}": result.percentile(share / 100) for share in _PERCENTILES},
            "max": max(result.latencies) / 1000,
        }
    return row
