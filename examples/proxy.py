"""A proxy that passes on frames: start `fastws echo --port 8081`, and in another terminal

    python examples/proxy.py 8080 ws://localhost:8081

Then connect to ws://localhost:8080 instead. Each line that the proxy prints is a frame: > is to the
server, < to the client.

Frames go on as they come. Fragments stay fragments. Pings, pongs and close frames are from the
other end, not from the proxy, so both ends see each other's close codes and keepalive, and 1006 if
the other one is lost. The proxy reads only as fast as the receiver takes what it reads. It checks
single frames, but neither their order nor text: `fastws.FrameDecoder` does not know messages. It
does not offer the server any extensions, such as compression.
"""

import asyncio
import os
import sys
from contextlib import AsyncExitStack, asynccontextmanager, suppress

from fastws import (
    ClientHandshake,
    CloseCode,
    FrameDecoder,
    Opcode,
    RequestError,
    Response,
    ResponseError,
    ServerHandshake,
    encode_frame,
)

MAX_FRAME = 1 << 20  # bytes; a frame is passed on when it is complete
OPEN_TIMEOUT = 10  # seconds, for both opening handshakes
CLOSE_TIMEOUT = 10  # seconds, for one end after the other has ended
REQUEST_FIELDS = {"authorization", "cookie", "origin", "user-agent"}
RESPONSE_FIELDS = {"content-type", "location", "retry-after", "set-cookie", "www-authenticate"}


class End:
    """The TCP connection to one end, which is a client or a server."""

    def __init__(self, reader, writer, *, is_client):
        self.reader = reader
        self.writer = writer
        self.is_client = is_client
        self.early = b""  # frames that came together with the opening handshake
        self.is_done = False  # nothing follows a close frame or the end of the stream

    def send(self, opcode, payload, fin=True):
        if not self.is_done:
            self.is_done = opcode == Opcode.CLOSE
            key = None if self.is_client else os.urandom(4)
            self.writer.write(encode_frame(opcode, payload, fin=fin, key=key))

    def close(self, code):
        self.send(Opcode.CLOSE, code.to_bytes(2, "big"))

    def end_stream(self):
        self.is_done = True
        if self.writer.can_write_eof():
            self.writer.write_eof()
        else:  # TLS
            self.writer.close()


async def serve_client(uri, reader, writer):
    """Handle the connection of a client, from its beginning to its end."""
    client = End(reader, writer, is_client=True)
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(closing(writer))
        with suppress(OSError, EOFError):
            async with asyncio.timeout(OPEN_TIMEOUT):
                server = await open_both(client, uri, stack)
            if server is not None:
                await pass_all_frames(client, server)


@asynccontextmanager
async def closing(writer):
    try:
        yield
    finally:
        writer.close()
        try:
            with suppress(OSError):
                async with asyncio.timeout(CLOSE_TIMEOUT):
                    await writer.wait_closed()
        finally:
            writer.transport.abort()


# The opening handshakes ------------------------------------------------------------------------


async def open_both(client, uri, stack):
    """Connect to the server, and answer the client. Return the server; None if it refuses."""
    handshake = ServerHandshake()
    server = None
    try:
        request = await receive(client, handshake)
        opening = ClientHandshake(
            f"{uri.rstrip('/')}{request.path}{'?' if request.query else ''}{request.query}",
            subprotocols=request.headers.tokens("Sec-WebSocket-Protocol"),
            headers=some(request.headers, REQUEST_FIELDS),
        )
        to = opening.uri
        server = End(
            *await asyncio.open_connection(to.host, to.port, ssl=to.secure or None), is_client=False
        )
        await stack.enter_async_context(closing(server.writer))
        server.writer.write(opening.request())
        response = await receive(server, opening)
        headers = some(response.headers, RESPONSE_FIELDS)
        answer = handshake.accept(request, headers=headers, subprotocol=opening.subprotocol)
    except RequestError as error:
        answer = handshake.reject(error)
    except ResponseError as error:
        answer = handshake.respond(refusal(error.response))
    except ValueError:  # the request has something that cannot be passed on
        answer = handshake.respond(Response(400))
    except OSError:
        answer = handshake.respond(Response(502))
    else:
        client.early, server.early = handshake.trailing_data, opening.trailing_data
        client.writer.write(answer)
        return server
    client.writer.write(answer)
    return None


async def receive(end, handshake):
    """Return the request or response of an opening handshake."""
    while True:
        data = await end.reader.read(65536)
        if not data:
            raise EOFError
        if (head := handshake.receive_data(data)) is not None:
            return head


def some(headers, names):
    return [(name, value) for name, value in headers.items() if name.lower() in names]


def refusal(response):
    """Return the server's response as the client gets it."""
    if response is None or response.status < 200:
        return Response(502)
    return Response(response.status, some(response.headers, RESPONSE_FIELDS), response.body)


# Frames ----------------------------------------------------------------------------------------


async def pass_all_frames(client, server):
    """Pass on frames in both directions, until both ends have ended their streams."""
    directions = (client, server, ">"), (server, client, "<")
    tasks = [asyncio.create_task(pass_frames(*direction)) for direction in directions]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        await asyncio.wait(tasks, timeout=CLOSE_TIMEOUT)
    except asyncio.CancelledError:  # the proxy is stopped
        client.close(CloseCode.GOING_AWAY)
        server.close(CloseCode.GOING_AWAY)
        raise
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def pass_frames(source, target, arrow):
    decoder = FrameDecoder(masked=source.is_client, max_payload_size=MAX_FRAME)
    data = source.early
    with suppress(OSError):
        while True:
            if not target.is_done:
                for frame in decoder.feed(data):
                    print(arrow, describe(frame), flush=True)
                    target.send(frame.opcode, frame.payload, frame.fin)
                await target.writer.drain()
            # (After a close frame, violations do not matter.)
            if decoder.error is not None and not target.is_done:
                source.close(decoder.error.close_code)
                source.end_stream()
                target.end_stream()
            # What comes now is dropped, but must be read: else, the source gets a reset, perhaps
            # before it has read our close frame.
            data = await source.reader.read(65536)
            if not data:
                break
    target.end_stream()


def describe(frame):
    if frame.opcode == Opcode.CLOSE and frame.payload:
        code, reason = int.from_bytes(frame.payload[:2], "big"), frame.payload[2:]
        return f"close {code} {reason.decode(errors='replace')}".rstrip()
    more = "" if frame.fin else ", more to come"
    return f"{frame.opcode.name.lower()}, {len(frame.payload)} bytes{more}"


async def main(port, uri):
    tasks = set()

    def accept(reader, writer):
        task = asyncio.create_task(serve_client(uri, reader, writer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    server = await asyncio.start_server(accept, "localhost", int(port))
    try:
        await asyncio.Event().wait()
    finally:
        server.close()


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        asyncio.run(main(*sys.argv[1:]))
