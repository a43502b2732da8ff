"""How `fastws probe --client` checks clients.

This module knows how clients come by, what is sent to them, and what counts as their answer. It
does not know which answers are right: that is in `_client_checks`. Each check uses a connection of
its own: the client connects again and again, or is started for each connection.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from fastws.codec import MessageDecoder, read_header
from fastws.deflate import Inflater, PerMessageDeflate
from fastws.events import Close
from fastws.exceptions import ProtocolError
from fastws.handshake import accept_key
from fastws.spec import CloseCode
from fastws.uri import join_host

from ._client_checks import CLIENT_CHECKS, ClientCheck, Head, describe_messages
from ._probing import (
    MANNERS,
    MAX_RECEIVED,
    OUT_OF_TIME,
    Result,
    Skipped,
    TooMuch,
    Wire,
    control_answer,
    judge,
    now,
    send,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import IO

    from fastws.deflate import Agreement

__all__ = ["CLIENT_CHECKS", "NOBODY", "NoClientError", "probe_client"]

# The answer of a check for which no client came.
NOBODY: Final = "not tried: the client did not connect again"

# How long a client may take for its part of an orderly end, in seconds.
_GOODBYE = 1.0
# How long to wait in the middle of a response, in seconds, for what should not come.
_PAUSE = 0.1
# The largest request, in bytes.
_MAX_HEAD = 64 << 10
# How much of what a program has printed is shown, in lines.
_MAX_LINES = 10

_BYE = b"\x88\x02" + CloseCode.NORMAL_CLOSURE.to_bytes(2, "big")


class NoClientError(Exception):
    """No client has connected.

    Args:
        message: why.
        details: what the program has printed last.
    """

    def __init__(self, message: str, details: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.details = details


async def probe_client(
    host: str,
    port: int,
    *,
    command: Sequence[str] | None = None,
    echo: bool = True,
    timeout: float = 5.0,
    total_timeout: float | None = None,
    on_listening: Callable[[str], None] | None = None,
    on_result: Callable[[Result], None] | None = None,
) -> list[Result]:
    """Run all checks against a client, one connection after the other.

    Args:
        host: the address to listen on.
        port: the port to listen on; 0 for any free port.
        command: a program and its arguments, with "{url}" in place of the address. It is started
            if it does not run while a check waits for a connection. None if the client connects
            again and again by itself.
        echo: whether the client sends messages back; if not, checks of messages are skipped.
        timeout: how long a check may take, and how long to wait for the next connection, in
            seconds. Without a command, the first connection may take any time.
        total_timeout: how long all checks together may take from the first connection on, in
            seconds; by default 60 times `timeout`.
        on_listening: called with the address that the client must connect to.
        on_result: called with each result as it arrives.

    Returns:
        the results: for each of CLIENT_CHECKS, one for each of MANNERS, and one for those about
        the request. If the client stops connecting, the remaining answers are NOBODY.

    Raises:
        OSError, ValueError: if the address cannot be used.
        NoClientError: if the command cannot be started, or makes no connection at all.
    """
    loop = asyncio.get_running_loop()
    arrived: asyncio.Queue[_Arrival] = asyncio.Queue()
    wires: set[_Arrival] = set()
    server = await loop.create_server(lambda: _Arrival(arrived, wires), host, port)
    clients = _Clients(arrived, timeout)
    try:
        address = server.sockets[0].getsockname()
        url = f"ws://{join_host(*address[:2])}/"
        if command is not None:
            clients.program = _Program([part.replace("{url}", url) for part in command])
        if on_listening is not None:
            on_listening(url)
        return await _run_all(clients, echo, timeout, total_timeout, on_result)
    finally:
        server.close()
        for wire in wires:
            wire.abort()
        if clients.program is not None:
            await clients.program.end()
            clients.program.close()


async def _run_all(
    clients: _Clients,
    echo: bool,
    timeout: float,
    total_timeout: float | None,
    on_result: Callable[[Result], None] | None,
) -> list[Result]:
    results: list[Result] = []
    heads: list[Head] = []
    end: float | None = None
    nobody = False
    for check in CLIENT_CHECKS:
        for manner in MANNERS if check.rule_of_request is None else MANNERS[:1]:
            result = None
            if check.observe in ("messages", "keys") and not echo:
                result = Result(check, manner, "skipped", "the client sends nothing back")
            elif nobody:
                result = Result(check, manner, "skipped", NOBODY)
            elif end is not None and end - now() < 0.002:
                result = Result(check, manner, "skipped", OUT_OF_TIME)
            elif (wire := await clients.next(is_first=end is None)) is None:
                nobody = True
                result = Result(check, manner, "skipped", NOBODY)
            else:
                if end is None:
                    end = now() + (60 * timeout if total_timeout is None else total_timeout)
                result = await _run(check, manner, wire, heads, min(end, now() + timeout))
            results.append(result)
            if on_result is not None:
                on_result(result)
    return results


# Where clients come from ---------------------------------------------------------------------


class _Arrival(Wire):
    """A connection of a client.

    Attributes:
        port: the port at which it came.
    """

    def __init__(self, arrived: asyncio.Queue[_Arrival], wires: set[_Arrival]) -> None:
        super().__init__()
        self.port = 0
        self._arrived = arrived
        self._wires = wires

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.port = transport.get_extra_info("sockname")[1]
        self._wires.add(self)
        self._arrived.put_nowait(self)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._wires.discard(self)


class _Clients:
    """Gets the next connection."""

    def __init__(self, arrived: asyncio.Queue[_Arrival], timeout: float) -> None:
        self._arrived = arrived
        self._timeout = timeout
        self.program: _Program | None = None

    async def next(self, *, is_first: bool) -> _Arrival | None:
        """Wait for a connection; return None if there is none in time."""
        if self.program is None:
            timeout = None if is_first else self._timeout
            with suppress(TimeoutError):
                return await asyncio.wait_for(self._arrived.get(), timeout)
            return None
        # A program that hangs gets a second chance.
        for _ in range(2):
            with suppress(TimeoutError):
                async with asyncio.timeout(self._timeout):
                    wire = await self._from(self.program)
                if wire is not None:
                    return wire
            await self.program.end()
        if is_first:
            raise NoClientError("the client does not connect", self.program.output())
        return None

    async def _from(self, program: _Program) -> _Arrival | None:
        """Wait for a connection of the program; return None if it ends without one."""
        connection = asyncio.ensure_future(self._arrived.get())
        is_new = False
        try:
            await asyncio.sleep(0)  # it may be there already
            while not connection.done():
                if program.is_running:
                    ended = asyncio.ensure_future(program.wait())
                    await asyncio.wait((connection, ended), return_when=asyncio.FIRST_COMPLETED)
                    ended.cancel()
                elif not is_new:
                    await program.start()
                    is_new = True
                else:
                    # Its end may be noticed before a connection that it has made.
                    await asyncio.sleep(0.05)
                    break
            return connection.result() if connection.done() else None
        finally:
            connection.cancel()


class _Program:
    """The client, as a program that is started when it is needed."""

    def __init__(self, argv: Sequence[str]) -> None:
        self._argv = argv
        self._process: asyncio.subprocess.Process | None = None
        self._output: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - see `close`

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.returncode is None

    async def start(self) -> None:
        """Start the program; what an earlier run has printed is dropped.

        Raises:
            NoClientError: if that is not possible.
        """
        self._output.seek(0)
        self._output.truncate()
        options: dict[str, Any] = {}
        if sys.platform != "win32":
            options["start_new_session"] = True  # so that what it starts ends with it
        try:
            self._process = await asyncio.create_subprocess_exec(
                *self._argv,
                stdin=subprocess.DEVNULL,
                stdout=self._output,
                stderr=subprocess.STDOUT,
                **options,
            )
        except (OSError, ValueError) as exc:
            why = getattr(exc, "strerror", None) or exc
            raise NoClientError(f"cannot start {self._argv[0]!r}: {why}") from exc

    async def wait(self) -> None:
        """Wait for its end."""
        if self._process is not None:
            await self._process.wait()

    async def end(self) -> None:
        """Kill the program, if it runs."""
        if self._process is not None and self._process.returncode is None:
            with suppress(ProcessLookupError, PermissionError):
                if sys.platform == "win32":
                    self._process.kill()
                else:
                    os.killpg(self._process.pid, signal.SIGKILL)
            await self._process.wait()

    def close(self) -> None:
        """Drop what it has printed."""
        self._output.close()

    def output(self) -> list[str]:
        """Return the last lines that it has printed."""
        self._output.seek(0)
        lines = self._output.read().decode("utf-8", "replace").splitlines()
        return [line for line in lines if line.strip()][-_MAX_LINES:]


# One connection -----------------------------------------------------------------------------


async def _run(
    check: ClientCheck, manner: str, wire: _Arrival, heads: list[Head], deadline: float
) -> Result:
    """Make one check, which ends at the deadline whatever the client does."""
    begin = now()
    visit = _Visit(check, manner, wire, heads)
    try:
        async with asyncio.timeout_at(deadline):
            answer = await visit.answer()
    except Skipped as exc:
        await visit.say_goodbye()
        return Result(check, manner, "skipped", str(exc), now() - begin)
    except TimeoutError:
        answer = visit.overdue
    except TooMuch as exc:
        answer = str(exc)
    except OSError:
        answer = "connection closed" if check.observe == "refusal" else "connection reset"
        if check.observe == "end" and visit.has_closed:
            answer = "end of TCP"
    await visit.say_goodbye()
    return judge(check, manner, answer, now() - begin)


class _Visit:
    """A client on the connection of one check.

    Attributes:
        overdue: what it means if the client does not go on.
        has_closed: whether its close frame has arrived.
    """

    def __init__(self, check: ClientCheck, manner: str, wire: _Arrival, heads: list[Head]) -> None:
        self._check = check
        self._manner = manner
        self._wire = wire
        self._heads = heads
        self._rest = b""  # what has arrived, and was not decoded
        self._is_open = False
        self._decoder: MessageDecoder | None = None
        self._extension = ""
        self.overdue = "no request"
        self.has_closed = False

    async def answer(self) -> str:
        """Return the answer to the check."""
        check, wire = self._check, self._wire
        head = await self._read_head()
        if head is None:
            return "no request, but the end of the connection"
        before = tuple(self._heads)
        self._heads.append(head)
        self.overdue = "no answer"
        if check.rule_of_request is not None:
            answer = check.rule_of_request(head, before)
            if head.key is not None:
                await send(wire, self._respond(head, None), self._manner)
            return answer
        if head.key is None:
            return "no Sec-WebSocket-Key in the request"
        agreement = self._agree(head) if check.deflate else None
        response = self._respond(head, agreement)
        if check.waits:
            wire.write(response[: len(response) // 2])
            with suppress(TimeoutError):
                async with asyncio.timeout(_PAUSE):
                    self._rest += await wire.receive()
            if self._rest or wire.ended:
                return "data before the end of the response" if self._rest else "connection closed"
            response = response[len(response) // 2 :]
        await send(wire, response + check.data, self._manner)
        inflater = None if agreement is None else Inflater(agreement)
        self._decoder = MessageDecoder(
            masked=True, max_message_size=MAX_RECEIVED, inflater=inflater
        )
        match check.observe:
            case "control":
                return await self._control()
            case "refusal":
                return await self._refusal()
            case "messages":
                return await self._messages()
            case "keys":
                return await self._keys()
            case "end":
                return await self._end()

    # The opening handshake

    async def _read_head(self) -> Head | None:
        data = b""
        # (One that ends its lines in another way must be told so.)
        while (end := re.search(rb"\n\r?\n", data)) is None:
            piece = await self._wire.receive()
            if not piece or len(data) > _MAX_HEAD:
                return None
            data += piece
        self._rest = data[end.end() :]
        return Head(data[: end.end()], self._wire.port)

    def _agree(self, head: Head) -> Agreement:
        """Agree on compression.

        Raises:
            Skipped: if the client does not offer what the check needs.
        """
        check = self._check
        for params in head.offers():
            accepted = PerMessageDeflate().accept_offer(params)
            if accepted is None:
                continue
            names = {name for name, _ in params}
            if check.needs is not None and check.needs not in names:
                raise Skipped(f"{check.needs} is not offered")
            if check.unless is not None and check.unless in names:
                raise Skipped(f"{check.unless} is offered")
            agreement = accepted[1]
            if check.needs_takeover and not agreement.context_takeover:
                raise Skipped("the client asks for no context takeover")
            if "client_no_context_takeover" in check.parameters:
                agreement = replace(agreement, peer_context_takeover=False)
            if "client_max_window_bits=9" in check.parameters:
                agreement = replace(agreement, peer_max_window_bits=9)
            answer = {
                name: name if value is None else f"{name}={value}" for name, value in accepted[0]
            }
            for parameter in check.parameters:
                name = parameter.partition("=")[0]
                # What the client asks for comes first, but about its own window we decide.
                if name == "client_max_window_bits":
                    answer[name] = parameter
                else:
                    answer.setdefault(name, parameter)
            self._extension = "; ".join(["permessage-deflate", *answer.values()])
            return agreement
        raise Skipped("permessage-deflate is not offered")

    def _respond(self, head: Head, agreement: Agreement | None) -> bytes:
        check, key = self._check, head.key or ""
        response = check.response
        if not response:
            response = (
                "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
                "Connection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n"
            )
            if agreement is not None:
                response += f"Sec-WebSocket-Extensions: {self._extension}\r\n"
            response += "\r\n"
        accept, wrong = accept_key(key), accept_key("AAAAAAAAAAAAAAAAAAAAAA==")
        self._is_open = check.observe != "refusal"
        return response.replace("{accept}", accept).replace("{wrong}", wrong).encode("latin-1")

    # What comes back

    async def _control(self) -> str:
        assert self._decoder is not None
        answer = await control_answer(self._wire, self._decoder, self._rest)
        self.has_closed = answer.startswith("close ")
        return answer

    async def _refusal(self) -> str:
        self._rest = self._rest or await self._wire.receive()
        if self._rest.startswith(b"GET "):
            return "another request on the same connection"
        return await self._control() if self._rest else "connection closed"

    async def _messages(self) -> str:
        """Read so many messages; what is wrong instead is an answer."""
        assert self._decoder is not None
        found: list[str | bytes] = []
        data = self._rest
        while True:
            for event in self._decoder.feed(data):
                if isinstance(event, (str, bytes)):
                    found.append(event)
                elif isinstance(event, Close):
                    self.has_closed = True
                    return f"close {event.code} after {describe_messages(found)}"
            if self._decoder.error is not None:
                return f"a broken frame: {self._decoder.error}"
            if len(found) >= self._check.messages:
                return describe_messages(found)
            self.overdue = f"no more after {describe_messages(found)}"
            data = await self._wire.receive()
            if not data:
                return f"{_CLOSED} after {describe_messages(found)}"

    async def _keys(self) -> str:
        """Collect the mask keys of the frames that bring so many messages."""
        octets = bytearray(self._rest)
        position, count = 0, 0
        keys: Counter[bytes] = Counter()
        while count < self._check.messages:
            try:
                header = read_header(bytes(octets), position, True, 0, None)
            except ProtocolError as exc:
                return f"a broken frame: {exc}"
            if header is None or header[2] is None or header[3] + header[1] > len(octets):
                data = await self._wire.receive()
                if not data:
                    return _CLOSED
                octets += data
                continue
            first, length, key, start = header
            position = start + length
            if length:  # without a payload, nobody cares
                keys[key or b""] += 1
            if first & 0x8F in (0x80, 0x81, 0x82):
                count += 1
        key, uses = keys.most_common(1)[0]
        return "mask keys differ" if uses == 1 else f"{uses} times the mask key {key.hex()}"

    async def _end(self) -> str:
        """Read to the end of TCP, which is ours first."""
        assert self._decoder is not None
        data = self._rest
        octets = bytearray()
        while not self.has_closed:
            octets += data
            events = self._decoder.feed(data)
            self.has_closed = any(isinstance(event, Close) for event in events)
            if self._decoder.error is not None:
                return f"a broken frame: {self._decoder.error}"
            if not self.has_closed and not (data := await self._wire.receive()):
                return _CLOSED
        size = _size_up_to_close(bytes(octets))
        self._wire.write_eof()
        self.overdue = "no end of TCP"
        while data := await self._wire.receive():
            octets += data
        extra = len(octets) - size
        return "end of TCP" if not extra else f"{extra} bytes after its close frame"

    async def say_goodbye(self) -> None:
        """End the connection so that the client can go on, in order if that is possible."""
        wire = self._wire
        if self._is_open and not self.has_closed and not wire.ended:
            wire.write(_BYE)
            decoder = self._decoder or MessageDecoder(masked=True, max_message_size=MAX_RECEIVED)
            with suppress(TimeoutError, TooMuch, OSError):
                async with asyncio.timeout(_GOODBYE):
                    while decoder.error is None and (data := await wire.receive()):
                        if any(isinstance(event, Close) for event in decoder.feed(data)):
                            break
        wire.close()
        # What is not sent by then never will be.
        asyncio.get_running_loop().call_later(_GOODBYE, wire.abort)


_CLOSED = "connection closed without a close frame"


def _size_up_to_close(octets: bytes) -> int:
    """Return the size of all frames up to the close frame, which is there."""
    position = 0
    while True:
        header = read_header(octets, position, True, 0x70, None)
        assert header is not None
        first, length, _, start = header
        position = start + length
        if first & 0x0F == 0x8:
            return position
