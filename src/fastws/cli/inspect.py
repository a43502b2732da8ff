"""`fastws inspect`: print captured bytes frame by frame, and name the rules that they break.

This module knows the options of the command and how frames are printed. Captures are read in
`_captures`; what their bytes mean is found out in `_inspecting`.
"""

from __future__ import annotations

import json
import sys
from contextlib import ExitStack, suppress
from functools import partial
from tempfile import NamedTemporaryFile
from typing import TYPE_CHECKING, Any

from fastws.spec import FIN, MASK, RSV1, RSV2, RSV3, CloseCode, Opcode, Role

from ._shared import CommandError, describe, integer, is_tty, print_line, say
from ._terminal import printable

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace
    from collections.abc import Iterator

    from ._captures import Chunk, Flow
    from ._inspecting import Conversation, Frame, Head, Item, Message, Violation

__all__ = ["EPILOG", "SUMMARY", "add_arguments", "run"]

SUMMARY = "print captured bytes frame by frame, and name the rules that they break"

EPILOG = """\
The input is what one end sent, as it is or in hexadecimal (also as xxd, hexdump -C, Wireshark and
Python print it), or a capture of both ends as tcpdump and Wireshark write it (pcap or pcapng).
It may begin with the opening handshake. Lines that begin with > were sent by the client, those
that begin with < by the server. tshark puts TCP segments in order if it is installed.

The exit status is 1 if a rule is broken.

example:
  fastws inspect --hex '81 85 37fa213d 7f9f4d5158'
  fastws inspect session.pcapng --brief
  sudo tcpdump -i lo -w - port 8080 | fastws inspect -"""

_SENDERS = {"client": Role.CLIENT, "server": Role.SERVER}
_MARKS = {Role.CLIENT: ">", Role.SERVER: "<"}
_NAMES = {Role.CLIENT: "client", Role.SERVER: "server"}
_RSV = ((RSV1, "RSV1"), (RSV2, "RSV2"), (RSV3, "RSV3"))


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the arguments of the command."""
    add = parser.add_argument
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "file", nargs="?", metavar="FILE", help="the file to read; - for standard input"
    )
    source.add_argument("--hex", metavar="BYTES", help="read these bytes, in hexadecimal")
    add(
        "--format",
        choices=("auto", "raw", "hex", "pcap"),
        default="auto",
        help="what the input is (default: %(default)s)",
    )
    add(
        "--from",
        dest="sender",
        choices=("client", "server"),
        help="who sent the bytes (default: the client if they begin with a request or a masked "
        "frame)",
    )
    add(
        "--extensions",
        metavar="VALUE",
        help="the Sec-WebSocket-Extensions that both ends agreed on, '' for none (default: as "
        "the captured response says, else permessage-deflate)",
    )
    add("--tls-keys", metavar="FILE", help="decrypt TLS with the keys in SSLKEYLOGFILE's format")
    add(
        "--payload",
        type=partial(integer, 0, 1 << 30),
        default=64,
        metavar="BYTES",
        help="how much to show of each payload (default: %(default)s)",
    )
    group = parser.add_mutually_exclusive_group()
    group.add_argument("--brief", action="store_true", help="print a line for each frame")
    group.add_argument("--json", action="store_true", help="print a line of JSON for each frame")


def run(args: Namespace) -> int:
    """Print what the input contains."""
    from ._inspecting import Conversation

    flows = _read(args)
    if not flows:
        raise CommandError("no TCP connection with data in this capture")
    counts = dict.fromkeys(("frame", "message", "violation"), 0)
    for number, flow in enumerate(flows, 1):
        try:
            conversation = Conversation(args.extensions)
        except ValueError as exc:
            raise CommandError(f"--extensions: {exc}", 2) from exc
        if flow.first and not args.json:
            print_line(f"{'' if number == 1 else chr(10)}{flow.first} -> {flow.second}")
        for item in _items(conversation, flow, args):
            _count(counts, item)
            if args.json:
                row = {"connection": number, **_row(item, args.payload)}
                print_line(json.dumps(row).replace("\x7f", r"\u007f"))
            else:
                for line in _lines(item, args):
                    print_line(line)
    if not args.json:
        summary = ", ".join(f"{count} {name}{'s'[: count != 1]}" for name, count in counts.items())
        print_line(f"\n{summary}" if not args.brief else summary)
    return 1 if counts["violation"] else 0


# Reading --------------------------------------------------------------------------------


def _read(args: Namespace) -> list[Flow]:
    """Return the connections in the input; one for bytes that are no packets."""
    from ._captures import Chunk, Flow, find_format, from_hex

    if args.hex is not None:
        kind, data = "hex", args.hex.encode("utf-8", "surrogateescape")
    else:
        data = _read_file(args.file)
        kind = find_format(data) if args.format == "auto" else args.format
    try:
        if kind == "pcap":
            return _read_packets(args, data)
        if args.tls_keys is not None:
            raise CommandError("--tls-keys needs packets, in a file of pcap or pcapng", 2)
        octets = from_hex(data.decode("ascii")) if kind == "hex" else data
    except UnicodeDecodeError as exc:
        raise CommandError("not hexadecimal", 2) from exc
    except ValueError as exc:
        raise CommandError(str(exc), 2) from exc
    return [Flow("", "", [Chunk(True, octets)])]


def _read_file(path: str) -> bytes:
    name = "standard input" if path == "-" else path
    try:
        if path != "-":
            with open(path, "rb") as file:
                return file.read()
        if sys.stdin is None:
            raise CommandError("there is no standard input")
        if is_tty(sys.stdin):
            say("fastws inspect: reading bytes or hexadecimal; Ctrl-D ends it")
        return sys.stdin.buffer.read()
    except OSError as exc:
        raise CommandError(f"cannot read {name}: {describe(exc)}") from exc


def _read_packets(args: Namespace, data: bytes) -> list[Flow]:
    from ._captures import from_packets, from_tshark, has_tshark

    if not has_tshark():
        if args.tls_keys is not None:
            raise CommandError("--tls-keys needs tshark, which is not installed")
        return from_packets(data, _say_that_it_is_cut)
    with ExitStack() as stack:
        path = args.file
        if path == "-":
            file = stack.enter_context(NamedTemporaryFile())
            file.write(data)
            file.flush()
            path = file.name
        return from_tshark(path, args.tls_keys, _say_that_it_is_cut)


def _say_that_it_is_cut() -> None:
    say("fastws inspect: the capture is truncated: it ends in the middle of a packet")


def _items(conversation: Conversation, flow: Flow, args: Namespace) -> Iterator[Item]:
    first = _first_sender(flow.chunks, args)
    for chunk in flow.chunks:
        sender = first if chunk.from_first else Role(1 - first)
        if chunk.data:
            yield from conversation.feed(sender, chunk.data)
        else:
            say(f"fastws inspect: some bytes of the {_NAMES[sender]} were not captured")
    yield from conversation.end()


def _first_sender(chunks: list[Chunk], args: Namespace) -> Role:
    """Return who sent the chunks that are `from_first`."""
    if args.sender is not None:
        return _SENDERS[args.sender]
    chunk = next(chunk for chunk in [*chunks, None] if chunk is None or chunk.data)
    if chunk is None:
        return Role.CLIENT
    if chunk.data.startswith(b"HTTP/"):
        sender = Role.SERVER
    elif chunk.data[:1].isupper() or chunk.data[1:2] >= bytes([MASK]):
        sender = Role.CLIENT
    else:
        sender = Role.SERVER
    return sender if chunk.from_first else Role(1 - sender)


def _count(counts: dict[str, int], item: Item) -> None:
    from ._inspecting import Frame

    counts["violation"] += len(item.violations)
    if isinstance(item, Frame):
        counts["frame"] += 1
        counts["message"] += item.message is not None


# Printing -------------------------------------------------------------------------------


def _lines(item: Item, args: Namespace) -> Iterator[str]:
    """Yield the lines for a person."""
    from ._inspecting import Frame, Head, Rest

    mark = _MARKS[item.sender]
    if isinstance(item, Head):
        for line in _head_lines(item, args.brief):
            yield f"{mark} {line}"
    elif isinstance(item, Frame):
        yield f"{mark} {_title(item)}{_shown(item, args.payload)}"
        if not args.brief:
            yield from _octets(item, args.payload)
        if item.message is not None and (text := _message(item.message, args.payload)):
            yield f"{mark} {text}"
    elif isinstance(item, Rest):
        yield f"{mark} {_bytes(item.size)} at {item.offset} not read: {item.reason}"
    for violation in item.violations:
        yield f"{mark}   {_violation(violation)}"


def _head_lines(head: Head, is_brief: bool) -> list[str]:
    text = head.octets.decode("latin-1").replace("\r\n", "\n").rstrip("\n")
    lines = [printable(line) for line in text.split("\n")]
    return lines[:1] if is_brief else lines


def _violation(violation: Violation) -> str:
    code = violation.close_code
    end = "" if code is None else f" (closes with {code})"
    return f"! {violation.section}: {printable(violation.text)}{end}"


def _bytes(size: int) -> str:
    return f"{size:,} byte{'s'[: size != 1]}"


def _opcode(opcode: int) -> str:
    try:
        return Opcode(opcode).name.lower()
    except ValueError:
        return f"opcode 0x{opcode:X} (reserved)"


def _title(frame: Frame) -> str:
    """Say what the frame is, in a few words."""
    first = frame.header[0]
    words = [f"{_opcode(frame.opcode)}, {_bytes(frame.length)}"]
    if not first & FIN:
        words.append("not the last fragment")
    if first & RSV1:
        words.append("compressed")
    if not frame.is_complete:
        words.append(f"only {len(frame.octets):,} captured")
    return ", ".join(words)


def _shown(frame: Frame, limit: int) -> str:
    """Return what a frame says."""
    if frame.close is not None:
        code, reason = frame.close.code, frame.close.reason
        with suppress(ValueError):
            name = CloseCode(code).name.lower().replace("_", " ")
            return f": {code} ({name})" + (f' "{printable(reason)}"' if reason else "")
        return f": {code}" + (f' "{printable(reason)}"' if reason else "")
    if frame.header[0] & RSV1 or not limit or not frame.payload:
        return ""
    return f": {_excerpt(frame.payload, limit, frame.opcode == Opcode.TEXT)}"


def _excerpt(data: bytes, limit: int, is_text: bool) -> str:
    """Return the beginning of a payload: text in quotes, or bytes in hexadecimal."""
    part, more = data[:limit], len(data) - limit
    end = f" and {more:,} more" if more > 0 else ""
    if is_text or (part.isascii() and part.decode("ascii").isprintable()):
        # A character may be cut off at the end.
        text = part.decode("utf-8", "ignore" if more > 0 else "backslashreplace")
        return f'"{printable(text)}"{end}'
    return part.hex(" ") + end


def _message(message: Message, limit: int) -> str:
    """Say what the message is, unless its only frame has said so."""
    if message.frames == 1 and message.compressed_size is None:
        return ""
    words = [f"= {message.opcode.name.lower()} message, {_bytes(len(message.payload))}"]
    if message.frames > 1:
        words.append(f"{message.frames} frames")
    if message.compressed_size is not None:
        words.append(f"compressed to {_bytes(message.compressed_size)}")
    if not message.is_whole:
        words.append("not inflated to its end")
    text = ", ".join(words)
    if limit and message.payload:
        text += f": {_excerpt(message.payload, limit, message.opcode == Opcode.TEXT)}"
    return text


def _octets(frame: Frame, limit: int) -> Iterator[str]:
    """Yield the bytes of the frame, with what they mean."""
    first, second = frame.header[:2]
    bits = ["FIN"] if first & FIN else []
    bits += [name for bit, name in _RSV if first & bit]
    rows = [
        (frame.header[:1], ", ".join([*bits, f"opcode 0x{frame.opcode:X}"])),
        (
            frame.header[1:2],
            f"{'MASK' if second & MASK else 'no mask'}, length {second & 0x7F}"
            + (f": {8 * (len(frame.header) - 2)} bits follow" if len(frame.header) > 2 else ""),
        ),
    ]
    if len(frame.header) > 2:
        rows.append((frame.header[2:], f"length {frame.length:,}"))
    if frame.key:
        rows.append((frame.key, "mask key"))
    offset = frame.offset
    for octets, meaning in rows:
        yield f"{offset:>10}  {octets.hex(' '):<24}  {meaning}"
        offset += len(octets)
    shown = frame.octets[:limit]
    for start in range(0, len(shown), 8):
        part = shown[start : start + 8]
        meaning = ""
        if frame.key:
            meaning = f"unmasked {frame.payload[start : start + len(part)].hex(' ')}"
        yield f"{offset + start:>10}  {part.hex(' '):<24}  {meaning}".rstrip()
    if len(frame.octets) > limit:
        yield f"{'':>10}  and {_bytes(len(frame.octets) - limit)} more"


# JSON -----------------------------------------------------------------------------------


def _row(item: Item, limit: int) -> dict[str, Any]:
    """Return all that is known about an item, ready for JSON."""
    from ._inspecting import Frame, Head, Rest

    row: dict[str, Any] = {
        "kind": type(item).__name__.lower(),
        "from": _NAMES[item.sender],
        "offset": item.offset,
    }
    if isinstance(item, Head):
        row["head"] = item.octets.decode("latin-1")
    elif isinstance(item, Frame):
        first = item.header[0]
        row |= {
            "fin": bool(first & FIN),
            "rsv": [name for bit, name in _RSV if first & bit],
            "opcode": item.opcode,
            "name": _opcode(item.opcode),
            "mask_key": item.key.hex() or None,
            "length": item.length,
            "captured": len(item.octets),
            "payload": item.payload[:limit].hex(),
        }
        if item.close is not None:
            row["close"] = {"code": item.close.code, "reason": item.close.reason}
        if item.message is not None:
            message = item.message
            row["message"] = {
                "type": message.opcode.name.lower(),
                "size": len(message.payload),
                "compressed_size": message.compressed_size,
                "frames": message.frames,
                "whole": message.is_whole,
                "payload": message.payload[:limit].hex(),
            }
    elif isinstance(item, Rest):
        row |= {"size": item.size, "reason": item.reason}
    row["violations"] = [
        {"rule": rule.section, "text": rule.text, "close_code": rule.close_code}
        for rule in item.violations
    ]
    return row
