"""An echo server on trio: all that `fastws.Connection` leaves to the code around it.

    pip install trio
    python examples/trio_by_hand.py 8080

`trio_server.py` is a server of 20 lines, because `fastws.Session` does most of this. This one is
built from the parts: `ServerHandshake` and `Connection` know the protocol. What they cannot know
is here: sockets, timeouts, back pressure, cancellation, and how to end a TCP connection so that
the client reads everything. It also closes all connections when it is stopped. Replace `echo` by
what your server does.

Each connection has one task. It calls the handler with one message after the other, and reads
on when the handler has returned, so TCP slows down a client whose messages are not handled.
Other tasks may call `WebSocket.send` and `WebSocket.close` at any time.
"""

from __future__ import annotations

import argparse
import logging
import signal
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

import trio

from fastws import (
    CloseCode,
    Connection,
    ConnectionClosed,
    PerMessageDeflate,
    RequestError,
    Role,
    ServerHandshake,
    State,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    Handler: TypeAlias = Callable[["WebSocket", str | bytes], Awaitable[None]]

# In seconds.
OPEN_TIMEOUT = 10.0  # for the client to send its whole request
SEND_TIMEOUT = 20.0  # for the client to take MAX_WRITE bytes
PING_INTERVAL = 20.0  # of silence before we ping the client
PING_TIMEOUT = 20.0  # for the client to send anything after that
CLOSE_TIMEOUT = 10.0  # for everything after we decide to end the connection

# In bytes.
MAX_READ = 64 << 10  # at once
MAX_WRITE = 64 << 10  # at once
MAX_QUEUED = 1 << 20  # that wait to be sent together with our close frame

GONE = (trio.BrokenResourceError, trio.ClosedResourceError)
logger = logging.getLogger(__name__)


class WebSocket:
    """One client: a `Connection` and its stream.

    Args:
        connection: the connection, after the opening handshake.
        stream: the TCP connection.
    """

    def __init__(self, connection: Connection, stream: trio.SocketStream) -> None:
        self._connection = connection
        self._stream = stream
        self._sending = trio.Lock()
        self._reading = trio.CancelScope()

    # For the handler, and for any other task ------------------------------------------------

    async def send(self, message: str | bytes) -> None:
        """Send a message, and wait until the operating system has taken it.

        Raises:
            ConnectionClosed: if the connection is closed or closing, or lost.
        """
        queued = self._connection.send(message)
        # Once the client has closed, what `data_to_send` returns ends with our close frame. So
        # answers to the client's last messages wait until all of them are complete.
        if self._connection.close_code is None or queued > MAX_QUEUED:
            await self._flush()

    async def close(self, code: int = CloseCode.NORMAL_CLOSURE, reason: str = "") -> None:
        """Begin to close the connection; `run` ends, and `end` does the rest.

        Raises:
            ConnectionClosed: if the connection is lost.
        """
        self._connection.close(code, reason)
        await self._flush()
        self._reading.cancel()

    # For serve_client ------------------------------------------------------------------------

    async def run(self, on_message: Handler, data: bytes) -> None:
        """Pass messages to the handler until the client or we have closed.

        Args:
            on_message: the handler.
            data: the bytes that arrived after the request.
        """
        connection = self._connection
        while True:
            for event in connection.receive_data(data):
                # The connection answers pings itself; messages that arrive after our close
                # frame are too late.
                if isinstance(event, (str, bytes)) and connection.state is State.OPEN:
                    await on_message(self, event)
            # If the client has closed, this ends with our close frame.
            await self._flush()
            if connection.has_pending:
                # The data received inflates to more than one step. Let other tasks run first.
                await trio.lowlevel.checkpoint()
                data = b""
                continue
            more = await self._receive()
            if more is None:
                return
            data = more

    async def end(self, code: int) -> None:
        """End the connection, whatever its state: first with close frames, then by closing TCP.

        The client decides how long this takes, so the caller sets a timeout.

        Args:
            code: the close code, if neither side has closed.
        """
        connection = self._connection
        connection.close(code)
        await self._flush()
        # Nothing is sent after this. The client's close frame may come after messages.
        while connection.close_code is None:
            if connection.has_pending:
                connection.receive_data(b"")
                await trio.lowlevel.checkpoint()
                continue
            data = await self._stream.receive_some(MAX_READ)
            if data:
                connection.receive_data(data)
            else:
                connection.receive_eof()
        await linger(self._stream)

    async def _receive(self) -> bytes | None:
        """Read; return b"" at the end of the stream, None if the connection is not open.

        Ping a client that is silent for too long. If it stays silent, give up.
        """
        connection = self._connection
        pinged = False
        while connection.state is State.OPEN:
            patience = PING_TIMEOUT if pinged else PING_INTERVAL
            with trio.move_on_after(patience) as self._reading:
                try:
                    data = await self._stream.receive_some(MAX_READ)
                except GONE:
                    data = b""
                if not data:
                    connection.receive_eof()
                return data
            if connection.state is not State.OPEN:
                break
            if pinged:
                connection.fail(CloseCode.INTERNAL_ERROR, "keepalive ping timeout")
            else:
                connection.ping()
                await self._flush()
            pinged = True
        return None

    async def _flush(self) -> None:
        """Send what is queued; bytes leave in the order in which they were queued."""
        async with self._sending:
            data = memoryview(self._connection.data_to_send())
            try:
                for start in range(0, len(data), MAX_WRITE):
                    with trio.fail_after(SEND_TIMEOUT):
                        await self._stream.send_all(data[start : start + MAX_WRITE])
            except BaseException as exc:
                # A frame may be partly sent, and nothing can follow that: neither other
                # messages nor a close frame.
                self._connection.receive_eof()
                self._stream.socket.close()
                if isinstance(exc, (*GONE, trio.TooSlowError)):
                    raise ConnectionClosed(CloseCode.ABNORMAL_CLOSURE) from exc
                raise


async def shake_hands(stream: trio.SocketStream) -> tuple[Connection | None, bytes]:
    """Do the opening handshake.

    Returns:
        the connection, or None if the request was refused; and the bytes after the request.
    """
    handshake = ServerHandshake(extensions=[PerMessageDeflate()])
    connection = None
    try:
        with trio.fail_after(OPEN_TIMEOUT):
            request = None
            while request is None:
                data = await stream.receive_some(MAX_READ)
                if not data:
                    return None, b""
                request = handshake.receive_data(data)
        response = handshake.accept(request)
    except RequestError as error:
        response = handshake.reject(error)
    except trio.TooSlowError:
        response = handshake.reject(RequestError("the opening handshake took too long", 408))
    else:
        connection = Connection(Role.SERVER, deflate=handshake.deflate)
    with trio.fail_after(SEND_TIMEOUT):
        await stream.send_all(response)
    return connection, handshake.trailing_data


async def linger(stream: trio.SocketStream) -> None:
    """End a TCP connection so that the client can read everything we sent.

    RFC 6455 §7.1.1 says that the server closes first. But closing a socket while data is
    unread, or still arrives, sends a reset, and the client's system then discards what the
    client has not read yet: our close frame. So close only our side, and drop what arrives
    until the client has closed its side.
    """
    await stream.send_eof()
    while await stream.receive_some(MAX_READ):
        pass


async def serve_client(on_message: Handler, stream: trio.SocketStream) -> None:
    """Handle one TCP connection from beginning to end."""
    try:
        connection, data = await shake_hands(stream)
        if connection is None:
            with trio.move_on_after(CLOSE_TIMEOUT):
                await linger(stream)
            return
        ws = WebSocket(connection, stream)
        code = CloseCode.GOING_AWAY  # if the server stops
        try:
            await ws.run(on_message, data)
        except Exception as exc:
            # Sending on a connection that has just been closed is not a mistake.
            if not isinstance(exc, ConnectionClosed) or connection.state is State.OPEN:
                logger.exception("the handler failed")
                code = CloseCode.INTERNAL_ERROR
        finally:
            with trio.move_on_after(CLOSE_TIMEOUT) as scope:
                scope.shield = True  # a server that stops sends a close frame too
                await ws.end(code)
    except (*GONE, trio.TooSlowError, ConnectionClosed):
        pass  # the connection is lost
    finally:
        stream.socket.close()


async def echo(ws: WebSocket, message: str | bytes) -> None:
    await ws.send(message)


async def main(host: str, port: int) -> None:
    """Serve until a signal arrives; then close every connection, and end."""
    async with trio.open_nursery() as nursery:
        with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            listeners = await trio.open_tcp_listeners(port, host=host)
            serve = partial(trio.serve_listeners, partial(serve_client, echo), listeners)
            nursery.start_soon(serve)
            port = listeners[0].socket.getsockname()[1]
            print(f"listening on ws://{host}:{port}", flush=True)
            await anext(aiter(signals))
            nursery.cancel_scope.cancel()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("port", nargs="?", type=int, default=8080, help="0 for any that is free")
    parser.add_argument("--host", default="127.0.0.1")
    arguments = parser.parse_args()
    logging.basicConfig()
    trio.run(main, arguments.host, arguments.port)
