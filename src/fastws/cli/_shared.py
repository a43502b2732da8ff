"""What several commands use: errors, output, and the options for TLS.

This module knows how a command talks to its user. It does not know any command.
"""

from __future__ import annotations

import argparse
import logging
import os
import re
import sys
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar

from fastws.exceptions import InvalidURIError, ResponseError
from fastws.http import Response
from fastws.spec import DEFAULT_MAX_MESSAGE_SIZE

from ._terminal import printable

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Sequence

__all__ = [
    "DISTRIBUTION",
    "CommandError",
    "OutputError",
    "add_server_arguments",
    "add_trust_arguments",
    "address",
    "cannot_connect",
    "check_server_arguments",
    "decimal",
    "describe",
    "escape_logs",
    "integer",
    "is_tty",
    "print_line",
    "say",
    "trust",
]

T = TypeVar("T", int, float)

# The name under which fastws is installed.
DISTRIBUTION: Final = "fastws-codec"


class CommandError(Exception):
    """A command cannot go on.

    Args:
        message: one line for the user.
        status: the exit status.
        details: more lines: what is known, or what to try.
    """

    def __init__(self, message: str, status: int = 1, details: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.status = status
        self.details = details


class OutputError(Exception):
    """Standard output cannot be written; the message is empty if the reader knows why."""


# Output ---------------------------------------------------------------------------------


def is_tty(stream: Any) -> bool:
    """Return whether a standard stream, which may be None, is a terminal."""
    return stream is not None and stream.isatty()


def print_line(text: str) -> None:
    """Print a line of the command's output.

    Raises:
        OutputError: if standard output cannot be written.
    """
    try:
        print(text, flush=True)
    except BrokenPipeError as exc:
        raise OutputError from exc  # the reader closed the pipe, so it knows
    except OSError as exc:
        raise OutputError(f"standard output: {describe(exc)}") from exc


def say(message: str) -> None:
    """Print one line on standard error, with text from peers escaped."""
    with suppress(OSError):
        print(printable(message), file=sys.stderr, flush=True)


class _Formatter(logging.Formatter):
    """Escapes what a terminal would obey."""

    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record), keep="\n\t")


def escape_logs() -> None:
    """Escape log records that go to standard error because no logging is configured."""
    if logging.lastResort is not None:
        logging.lastResort.setFormatter(_Formatter())


def describe(exc: Exception) -> str:
    """Return a short description of what went wrong."""
    import socket
    import ssl

    if isinstance(exc, ssl.SSLCertVerificationError):
        return f"the server's certificate is not trusted: {exc.verify_message}"
    if isinstance(exc, ssl.SSLError):
        return re.sub(r" \(_ssl\.c:\d+\)$", "", exc.strerror or str(exc))
    if isinstance(exc, socket.gaierror):
        return exc.strerror or str(exc)
    if isinstance(exc, OSError) and exc.errno is not None:
        # asyncio's own message repeats the address.
        return os.strerror(exc.errno)
    return str(exc) or type(exc).__name__


def cannot_connect(uri: str, exc: Exception) -> CommandError:
    """Return the error for a connection that cannot be opened, with what to try."""
    if isinstance(exc, InvalidURIError):
        return CommandError(str(exc), 2, _hints(uri, exc))
    return CommandError(f"cannot connect: {describe(exc)}", 1, _hints(uri, exc))


def _hints(uri: str, exc: Exception) -> list[str]:
    import ssl

    rest = uri.partition("://")[2]
    match exc:
        case InvalidURIError():
            # Someone typed what browsers accept.
            return [f"try ws://{uri}"] if re.fullmatch(r"[\w.-]+(:\d+)?([/?]\S*)?", uri) else []
        case ssl.SSLCertVerificationError():
            return ["--ca FILE trusts the certificates in a file, --insecure trusts any"]
        case ssl.SSLError() if exc.reason in _NO_TLS:
            return [f"perhaps the server does not speak TLS: try ws://{rest}"]
        case ResponseError(response=None) if uri.startswith("ws://"):
            return [f"perhaps the server speaks TLS: try wss://{rest}"]
        case ResponseError(response=Response() as response):
            return _what_was_said(response)
        case ConnectionRefusedError():
            return ["nothing listens at this address; is the server running?"]
        case _:
            return []


# What OpenSSL says about an answer that is not TLS.
_NO_TLS: Final = ("WRONG_VERSION_NUMBER", "WRONG_SSL_VERSION", "UNEXPECTED_EOF_WHILE_READING")


def _what_was_said(response: Response) -> list[str]:
    """Return what the server answered, in a few lines."""
    lines = [f"{response.status} {response.reason}".rstrip()]
    lines += [f"Location: {value}" for value in response.headers.get_all("Location")]
    body = response.body.decode("utf-8", "replace").strip()
    more = body.splitlines()
    lines += more[:_MAX_BODY_LINES]
    if len(more) > _MAX_BODY_LINES:
        lines.append(f"... and {len(more) - _MAX_BODY_LINES} lines more")
    return [line[:_MAX_LINE] for line in lines]


_MAX_BODY_LINES: Final = 10
_MAX_LINE: Final = 500


# Arguments ------------------------------------------------------------------------------


def integer(least: int, most: int, text: str) -> int:
    """Convert an argument to an integer in a range, for `argparse`."""
    return _in_range(int, least, most, text)


def decimal(least: float, most: float, text: str) -> float:
    """Convert an argument to a float in a range, for `argparse`."""
    return _in_range(float, least, most, text)


def _in_range(convert: Callable[[str], T], least: T, most: T, text: str) -> T:
    try:
        number = convert(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"not a number: {text!r}") from None
    if not least <= number <= most:
        raise argparse.ArgumentTypeError(f"not in the range {_short(least)}-{_short(most)}: {text}")
    return number


def _short(number: float) -> str:
    return f"{number:g}" if isinstance(number, float) else str(number)


def address(least_port: int, text: str) -> tuple[str, int]:
    """Convert HOST:PORT to a host and a port, for `argparse`."""
    host, colon, port = text.rpartition(":")
    if not colon:
        raise argparse.ArgumentTypeError(f"must be HOST:PORT, not {text!r}")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise argparse.ArgumentTypeError(f"an IPv6 address needs brackets, [::1]:80: {text!r}")
    return host, integer(least_port, 65535, port)


def _metrics(text: str) -> str | tuple[str, int]:
    if not text.startswith("/"):
        if re.fullmatch(r"[^\d:]+:[^\d:]+", text):  # perhaps what to serve
            message = f"must be a path or HOST:PORT, not {text!r}; without a value, write it last"
            raise argparse.ArgumentTypeError(message)
        return address(1, text)
    if not re.fullmatch(r"[!-~]+", text) or "?" in text or "#" in text:
        raise argparse.ArgumentTypeError(f"not the path of a request: {text!r}")
    return text


def add_server_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options that every server has."""
    add = parser.add_argument
    add("--host", default="127.0.0.1", help="the address to listen on (default: %(default)s)")
    add(
        "--port",
        type=partial(integer, 0, 65535),
        default=8080,
        help="the port to listen on; 0 for any free port (default: %(default)s)",
    )
    add("--uvloop", action="store_true", help="use uvloop's event loop")
    add("--tls-cert", metavar="FILE", help="serve wss:// with this certificate chain (PEM)")
    add("--tls-key", metavar="FILE", help="its private key, if it is in a separate file")
    add(
        "--proxy-protocol",
        action="store_true",
        help="all connections come from a proxy that tells the client's address in a header of the "
        "PROXY protocol, version 1 or 2; nobody else may be able to connect",
    )
    add(
        "--max-message-size",
        type=partial(integer, 0, sys.maxsize),
        default=DEFAULT_MAX_MESSAGE_SIZE,
        metavar="BYTES",
        help="the size of the largest message accepted (default: %(default)s)",
    )
    add("--deflate", action="store_true", help="compress messages if the client supports it")
    add(
        "--metrics",
        nargs="?",
        const="/metrics",
        type=_metrics,
        metavar="WHERE",
        help="show figures for Prometheus: at a path of this server (default: %(const)s), or at "
        "HOST:PORT, path /metrics, which answers /health, too. With --workers, the first has this "
        "port, the second the next, and so on",
    )


def check_server_arguments(args: argparse.Namespace) -> None:
    """Check these options together.

    Raises:
        CommandError: if one of them needs another.
    """
    if args.tls_key is not None and args.tls_cert is None:
        raise CommandError("--tls-key needs --tls-cert", 2)
    workers = args.workers or 1
    if workers > 1 and isinstance(args.metrics, str):
        message = "each worker has its own figures, so --metrics needs a HOST:PORT with --workers"
        raise CommandError(message, 2)
    if isinstance(args.metrics, tuple) and args.metrics[1] + workers > 65536:
        raise CommandError(f"--metrics needs {workers} ports, one for each worker", 2)


def add_trust_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options that say which certificates a client trusts."""
    group = parser.add_mutually_exclusive_group()
    group.add_argument("--ca", metavar="FILE", help="trust the certificates in this file (PEM)")
    group.add_argument(
        "--insecure", action="store_true", help="accept any certificate, from anyone"
    )


def trust(args: argparse.Namespace) -> ssl.SSLContext | None:
    """Return the TLS context that these options ask for; None for the default.

    Raises:
        CommandError: if the file of certificates cannot be used.
    """
    import ssl

    if args.insecure:
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        return context
    if args.ca is None:
        return None
    try:
        return ssl.create_default_context(cafile=args.ca)
    except ssl.SSLError as exc:
        raise CommandError(f"no certificates in PEM in {args.ca} ({describe(exc)})") from exc
    except OSError as exc:
        raise CommandError(f"cannot read {args.ca}: {describe(exc)}") from exc
