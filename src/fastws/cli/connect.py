"""`fastws connect`: an interactive client, in which a line of input is a message.

This module knows the options of the command. The conversation itself is in `_conversation`.
"""

from __future__ import annotations

import os
import sys
from argparse import ArgumentTypeError
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

from fastws.exceptions import InvalidURIError
from fastws.tunnels import proxy_from_environment
from fastws.uri import parse_proxy, parse_uri

from ._shared import CommandError, add_trust_arguments, cannot_connect, integer, is_tty, trust
from ._terminal import Keyboard

if TYPE_CHECKING:
    import ssl
    from argparse import ArgumentParser, Namespace
    from collections.abc import AsyncIterator, Iterator

__all__ = ["EPILOG", "SUMMARY", "add_arguments", "run"]

SUMMARY = "send lines of input as messages, and print the messages that arrive"

EPILOG = """\
Each line of input is sent as a text message. Each message that arrives is printed on a line:
text as it is, binary messages as their size and their bytes in hexadecimal. On a terminal, only
the first bytes are printed, and characters that a terminal might obey or would not show are
printed as escapes such as \\x1b. A pipe or a file gets all bytes, and text unchanged.

On a terminal, lines can be edited and called up again if the extra cli is installed.

  /ping                   measure how long the server takes to answer
  /close [CODE [REASON]]  close the connection
  //...                   send a line that begins with one slash less

The end of the input (Ctrl-D) closes the connection when all answers have arrived;
Ctrl-C closes it at once.

example:
  fastws connect ws://localhost:8080
  echo hi | fastws connect wss://example.com/chat --header 'Cookie: id=1'"""


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the arguments of the command."""
    add = parser.add_argument
    add(
        "uri",
        metavar="URI",
        help="the address to connect to: ws://..., wss://... or ws+unix:///socket:/...",
    )
    add(
        "--header",
        type=_header,
        action="append",
        default=[],
        metavar="'NAME: VALUE'",
        help="a header field for the request; may be repeated",
    )
    add(
        "--subprotocol",
        action="append",
        default=[],
        metavar="NAME",
        help="a subprotocol to offer, the preferred one first; may be repeated",
    )
    add("--origin", help="the value of the Origin header field")
    add("--deflate", action="store_true", help="offer to compress messages")
    add("--binary", action="store_true", help="send lines as binary messages, in UTF-8")
    add("--json", action="store_true", help="print messages that are JSON on several lines")
    add("--one", action="store_true", help="close the connection after the first message")
    add(
        "--ping",
        type=partial(integer, 1, 1_000_000),
        metavar="SECONDS",
        help="send a ping every so many seconds, and print how long the pong takes",
    )
    add_trust_arguments(parser)
    group = parser.add_mutually_exclusive_group()
    group.add_argument(
        "--unix", metavar="PATH", help="connect to this Unix socket, whatever the address says"
    )
    group.add_argument(
        "--proxy",
        default=True,
        metavar="URL",
        help="a proxy: http://..., https://..., socks4://..., socks4a://..., socks5://... or "
        "socks5h://... (default: the one that the environment names)",
    )
    group.add_argument(
        "--no-proxy", dest="proxy", action="store_const", const=None, help="use no proxy"
    )


def run(args: Namespace) -> int:
    """Talk to the server until the connection is closed."""
    import asyncio

    from fastws.aio.client import connect

    from ._conversation import Conversation

    try:
        context, proxy_context = _trust(args)
        connecting = connect(
            args.uri,
            ssl=context,
            proxy_ssl=proxy_context,
            path=args.unix,
            proxy=args.proxy,
            origin=args.origin,
            subprotocols=args.subprotocol,
            headers=args.header,
            deflate=args.deflate,
        )
    except InvalidURIError as exc:
        raise cannot_connect(args.uri, exc) from exc
    except ValueError as exc:
        raise CommandError(str(exc), 2) from exc
    # Characters that the terminal cannot show must not end the conversation, and line endings in
    # text must stay as they are.
    reconfigure = getattr(sys.stdout, "reconfigure", None)
    if reconfigure is not None:
        reconfigure(errors="backslashreplace", newline="\n")
    with _input() as typed:
        conversation = Conversation(args, typed, is_interactive=is_tty(sys.stdin))
        return asyncio.run(conversation.hold(args.uri, connecting))


@contextmanager
def _input() -> Iterator[AsyncIterator[str]]:
    """Provide the lines of the input: typed with history if prompt-toolkit is installed and there
    is a terminal, with the terminal's own keys if there is one, or read from a pipe or a file."""
    from ._conversation import lines_of_stdin

    if not is_tty(sys.stdin):
        yield lines_of_stdin(None)
        return
    if is_tty(sys.stdout) and os.environ.get("TERM", "dumb") != "dumb":
        try:
            from ._prompt import typed_lines
        except ImportError:
            pass
        else:
            with typed_lines() as lines:
                yield lines
            return
    with Keyboard(sys.stdin.fileno(), sys.stdin.encoding) as keyboard:
        yield lines_of_stdin(keyboard)


def _trust(args: Namespace) -> tuple[ssl.SSLContext | None, ssl.SSLContext | None]:
    """Return the TLS context for the server, and the one for an https:// proxy."""
    context = trust(args)
    if context is None:
        return None, None
    uri = parse_uri(args.uri)
    proxy = None
    if isinstance(args.proxy, str):
        proxy = parse_proxy(args.proxy)
    elif args.proxy:
        proxy = proxy_from_environment(uri.host, uri.port, secure=uri.secure)
    if proxy is None or proxy.scheme != "https":
        return context, None
    return context if uri.secure else None, context


def _header(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not colon:
        raise ArgumentTypeError(f"not of the form 'Name: value': {text!r}")
    return name, value
