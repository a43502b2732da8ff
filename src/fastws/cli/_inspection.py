"""The channel of `fastws echo --inspect`: the frames of all connections, byte for byte.

This module knows how a stream of bytes is cut into frames, whatever is wrong with them, which of
these frames are kept, and who may see them. It does not know what frames mean: the page does.
"""

from __future__ import annotations

import json
import time
from collections import deque
from functools import partial
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, Final, cast

from fastws.aio.protocol import WebSocketProtocol
from fastws.aio.transports import Tap
from fastws.exceptions import InvalidURIError
from fastws.http import Response
from fastws.rules import measure_frame
from fastws.spec import MAX_HEADER, State
from fastws.uri import join_host, parse_uri

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from typing_extensions import Buffer

    from fastws.http import Request

__all__ = ["PATH", "Inspection", "Recorded", "Scanner", "refusal"]

PATH: Final = "/inspect"

# All that is ever kept: so many frames, with so much of the payload of each.
MAX_FRAMES: Final = 500
MAX_PAYLOAD: Final = 256

# How long frames may wait for others, in seconds, so that viewers get them in batches.
_DELAY: Final = 0.05


class Inspection:
    """The last frames of a server, and the viewers that wait for the next ones.

    Args:
        host: the host that the server was given.
        process_request: what answers the requests that are not for the channel.

    Attributes:
        protocol_factory: makes the server's connections.
    """

    def __init__(self, host: str, process_request: Callable[[Request], Response | None]) -> None:
        self._host = host
        self._process_request = process_request
        self.protocol_factory = partial(Recorded, self)
        self._frames: deque[dict[str, Any]] = deque(maxlen=MAX_FRAMES)
        self._count = 0  # of all frames, kept or not
        self._connections = 0
        self._waiting: list[Recorded] = []
        self._is_due = False

    def process_request(self, request: Request) -> Response | None:
        """Answer a request, or let the handshake go on."""
        if request.is_websocket and request.path == PATH:
            return refusal(request, self._host)
        return self._process_request(request)

    def number_connection(self) -> int:
        """Return a number for a new connection."""
        self._connections += 1
        return self._connections

    def record(self, frame: dict[str, Any], loop: asyncio.AbstractEventLoop) -> None:
        """Keep a frame, and pass it on to the viewers soon."""
        self._frames.append(frame)
        self._count += 1
        if self._waiting and not self._is_due:
            self._is_due = True
            loop.call_later(_DELAY, self._serve_all)

    def serve(self, viewer: Recorded) -> None:
        """Send a viewer the frames that it has not seen, or do so as soon as there are some."""
        if viewer.seen == self._count:
            if viewer not in self._waiting:
                self._waiting.append(viewer)
            return
        new = min(self._count - viewer.seen, len(self._frames))
        frames = list(self._frames)[len(self._frames) - new :]
        missed = self._count - viewer.seen - new
        viewer.seen = self._count
        viewer.send(json.dumps({"missed": missed, "frames": frames}, separators=(",", ":")))

    def forget(self, viewer: Recorded) -> None:
        """A viewer is gone."""
        if viewer in self._waiting:
            self._waiting.remove(viewer)

    def _serve_all(self) -> None:
        self._is_due = False
        waiting, self._waiting = self._waiting, []
        for viewer in waiting:
            if viewer.state is State.OPEN:
                self.serve(viewer)


class Scanner:
    """Cuts the bytes of one direction into frames.

    It knows where a frame ends and nothing else, so that frames with errors are seen, too.

    Args:
        found: called with the header, the beginning of the payload, the payload's size in bytes,
            and whether all of it was there.
    """

    def __init__(self, found: Callable[[bytes, bytes, int, bool], None]) -> None:
        self._found = found
        self._header = bytearray()
        self._payload = bytearray()
        self._size: int | None = None  # of the payload, once the header is complete
        self._missing = 0

    def feed(self, data: Buffer) -> None:
        """Take the next bytes."""
        view = memoryview(data)
        while view:
            if self._size is None:
                before = len(self._header)
                self._header += view[: MAX_HEADER - before]
                measured = measure_frame(self._header)
                if measured is None or measured[0] > len(self._header):
                    return
                size, self._size = measured
                self._missing = self._size
                del self._header[size:]
                view = view[size - before :]
            kept = view[: min(self._missing, MAX_PAYLOAD - len(self._payload))]
            self._payload += kept
            taken = min(self._missing, len(view))
            self._missing -= taken
            view = view[taken:]
            if not self._missing:
                self.end()

    def end(self) -> None:
        """Report the current frame as it is, if its header is complete."""
        size, self._size = self._size, None
        if size is not None:
            header, payload = bytes(self._header), bytes(self._payload)
            self._header.clear()
            self._payload.clear()
            self._found(header, payload, size, not self._missing)


def refusal(request: Request, host: str) -> Response | None:
    """Refuse viewers that are not the server's own page; return None for the page.

    Browsers tell where a page comes from (RFC 6455 §10.2): it must be the host that the request is
    for. That host must be an IP address, localhost, or the host that the server was given: a page
    of somebody else's host can make its name point to this server (DNS rebinding).
    """
    if request.headers.get("Origin") not in (f"http://{request.host}", f"https://{request.host}"):
        return Response.text("only the page of this server may inspect frames\n", 403)
    try:
        name = parse_uri(f"ws://{request.host}/").host
    except InvalidURIError:
        return Response.text("not a host\n", 400)
    if name not in ("localhost", host.lower()) and not _is_address(name):
        words = f"open the page with an IP address, or start the server with --host {name}\n"
        return Response.text(words, 403)
    return None


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


class Recorded(WebSocketProtocol):
    """An echo whose frames are recorded; or, on the path of the channel, a viewer.

    Attributes:
        seen: on a viewer, the number of frames that it has got, or that had gone before.
    """

    def __init__(self, inspection: Inspection) -> None:
        super().__init__()
        self._inspection = inspection
        self._received: Scanner | None = None
        self._sent: Scanner | None = None
        self._is_viewer = False
        self.seen = 0

    # What the transport reads and writes --------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(cast("asyncio.Transport", Tap(transport, self._record_sent)))

    def get_buffer(self, sizehint: int) -> memoryview:
        self._read_buffer = super().get_buffer(sizehint)
        return self._read_buffer

    def buffer_updated(self, nbytes: int) -> None:
        if self._received is not None:
            self._received.feed(self._read_buffer[:nbytes])
        super().buffer_updated(nbytes)

    def data_received(self, data: Buffer) -> None:
        if self._received is not None:
            self._received.feed(data)
        super().data_received(data)

    def _record_sent(self, data: Buffer) -> None:
        if self._sent is not None:
            self._sent.feed(data)

    # Hooks --------------------------------------------------------------------------------

    def on_open(self) -> None:
        assert self.request is not None
        if self.request.path == PATH:
            self._is_viewer = True
            return
        number = self._inspection.number_connection()
        host, port = (self.remote_address or ("an unknown address", 0))[:2]
        peer = join_host(host, port)
        loop = self._loop

        def record(sent: bool, header: bytes, payload: bytes, size: int, complete: bool) -> None:
            frame = {
                "connection": number,
                "peer": peer,
                "sent": sent,
                "time": round(time.time() * 1000, 3),
                "head": header.hex(),
                "payload": payload.hex(),
                "size": size,
                "complete": complete,
            }
            self._inspection.record(frame, loop)

        self._received = Scanner(partial(record, False))
        self._sent = Scanner(partial(record, True))

    def on_message(self, message: str | bytes) -> None:
        if self._is_viewer:
            self._inspection.serve(self)
        else:
            self.send(message)

    def on_error(self, exc: Exception) -> None:
        # What is wrong with a frame is often known before all of it has arrived. What follows is
        # dropped.
        if self._received is not None:
            self._received.end()
            self._received = None

    def on_close(self, code: int, reason: str) -> None:
        self._inspection.forget(self)
        for scanner in (self._received, self._sent):
            if scanner is not None:
                scanner.end()
