"""uvicorn's WebSockets, spoken by fastws.

    uvicorn app:app --ws fastws.integrations.uvicorn:WebSocketProtocol

or `UVICORN_WS=`, or `uvicorn.run(app, ws=WebSocketProtocol)`; there is nothing to install.

This module knows ASGI and what uvicorn expects of a protocol class. It does not know frames,
timers or transports: those are the business of `Endpoint`, and the host's own WebSocket
libraries are not imported.
"""

from __future__ import annotations

import asyncio
import logging
from functools import cache
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import unquote
from weakref import WeakKeyDictionary

from fastws.aio.protocol import Endpoint, Settings
from fastws.aio.queue import QueueEndpoint
from fastws.deflate import PerMessageDeflate
from fastws.exceptions import ConnectionClosed, RequestError
from fastws.handshake import ServerHandshake
from fastws.http import Headers, Response
from fastws.spec import CloseCode, Role, State

from ._hosts import HOSTS

HOST = HOSTS["uvicorn"]

try:
    from uvicorn.logging import TRACE_LOG_LEVEL
    from uvicorn.protocols.utils import (
        ClientDisconnected,
        get_client_addr,
        get_local_addr,
        get_path_with_query_string,
        get_remote_addr,
        is_ssl,
    )
except ImportError as exc:
    raise HOST.missing() from exc

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, MutableMapping

    from typing_extensions import Buffer
    from uvicorn.config import Config
    from uvicorn.server import ServerState

    from fastws.events import Event
    from fastws.http import Request

    Message = MutableMapping[str, Any]

__all__ = ["WebSocketProtocol"]

HOST.is_tested()

# What the application can say next.
_CONNECTING = 0  # accept, close, or the start of a response
_RESPONDING = 1  # more of that response
_OPEN = 2  # messages, and close
_LEFT = 3  # the same, but it was told that the client is no longer there
_CLOSED = 4  # nothing

# The client may send frames while the application makes up its mind; no more than so many
# bytes are held for it.
_MAX_EARLY = 64 << 10

# The longest header block, in bytes, where uvicorn's option for it is not set. (That is for h11;
# over httptools, uvicorn has no limit.)
_MAX_HEADER_SIZE = 64 << 10

# When the server stops, a client has so many seconds to take its close frame.
_SHUTDOWN_TIMEOUT = 1.0


@cache
def _deflate() -> PerMessageDeflate:
    """What uvicorn's default class agrees on."""
    return PerMessageDeflate(max_window_bits=12, peer_max_window_bits=12, mem_level=5)


class _Options:
    """uvicorn's options, as all connections of a server share them."""

    def __init__(self, config: Config) -> None:
        interval, timeout = config.ws_ping_interval, config.ws_ping_timeout
        self.settings = Settings(
            max_message_size=config.ws_max_size,
            max_queue=config.ws_max_queue,
            open_timeout=None,
            ping_interval=interval if interval and interval > 0 else None,
            ping_timeout=None if timeout is None else max(timeout, 0.001),
        )
        self._extensions = (_deflate(),) if config.ws_per_message_deflate else ()
        self._max_header_size = config.h11_max_incomplete_event_size or _MAX_HEADER_SIZE

    def make_upgrade(self) -> _Upgrade:
        handshake = ServerHandshake(
            extensions=self._extensions, max_header_size=self._max_header_size
        )
        return _Upgrade(handshake)


_options: WeakKeyDictionary[Config, _Options] = WeakKeyDictionary()


class WebSocketProtocol(QueueEndpoint):
    """A WebSocket connection of uvicorn's.

    Its HTTP protocol makes one when it meets a request for an upgrade, and hands the request
    and the transport over. The arguments are those of uvicorn's own classes.

    Attributes:
        close_timeout: how long the client may take to answer our close frame, in seconds.
    """

    __slots__ = (
        "_disconnect",
        "_greeted",
        "_http",
        "_stage",
        "app",
        "app_state",
        "client",
        "close_timeout",
        "config",
        "connections",
        "logger",
        "loop",
        "root_path",
        "scheme",
        "scope",
        "server",
        "server_state",
        "tasks",
    )

    scope: dict[str, Any]

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__()
        if not config.loaded:
            config.load()
        self.config = config
        self.app = cast("Callable[..., Any]", config.loaded_app)
        self.app_state = app_state
        self.root_path = config.root_path
        self.logger = logging.getLogger("uvicorn.error")
        self.server_state = server_state
        self.connections = cast("set[Any]", server_state.connections)
        self.tasks = server_state.tasks
        self.close_timeout = 10.0
        self.server: tuple[str, int | None] | None = None
        self.client: tuple[str, int] | None = None
        self.scheme = "ws"
        options = _options.get(config)
        if options is None:
            options = _options[config] = _Options(config)
        self._settings = options.settings
        self._make_opening = options.make_upgrade
        self._stage = _CONNECTING
        self._greeted = False  # the application got its websocket.connect
        self._disconnect: dict[str, Any] | None = None

    @property
    def transport(self) -> asyncio.Transport:
        """The transport, under uvicorn's name."""
        return self._transport

    # For uvicorn ----------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._http: Any = cast("asyncio.Transport", transport).get_protocol()
        super().connection_made(transport)
        self.loop = self._loop
        self.connections.add(self)
        self.server = get_local_addr(self._transport)
        self.client = get_remote_addr(self._transport)
        self.scheme = "wss" if is_ssl(self._transport) else "ws"
        self._trace("made")

    def _conclude(self, exc: Exception | None) -> None:
        super()._conclude(exc)
        # The HTTP protocol is left to the garbage collector, for it and its parser refer to each
        # other; the buffers of a transport over TLS must not be.
        http, self._http = self._http, None
        if http is not self:
            http.transport = self._transport
            http.flow = None
        self.connections.discard(self)
        self._trace("lost")
        # This line, "connection open" and "connection rejected" are written by the library of
        # uvicorn's own classes; people look for them.
        self.logger.info("connection closed")
        # uvicorn's codes: without a close frame 1006 would be right in both cases.
        never_open = self._connection is None
        code = CloseCode.ABNORMAL_CLOSURE if never_open else CloseCode.NO_STATUS_RCVD
        self._disconnected(code.value)

    def data_received(self, data: Buffer) -> None:
        """The HTTP protocol hands over the request, before the transport is ours; a
        transport that cannot do with `get_buffer` may go on with this."""
        self._heard = True
        if self._ended:
            return
        if self._connection is not None:
            self._receive(data)
        else:
            self._receive_opening(bytes(data))

    def shutdown(self) -> None:
        """The server stops."""
        if self._connection is None:
            self._respond_500()
            self._close_transport()
        elif self._connection.state is State.OPEN and not self._transport.is_closing():
            self._disconnected(CloseCode.SERVICE_RESTART.value)
            self._fail_with(CloseCode.SERVICE_RESTART, "")
            self._set_timer(_SHUTDOWN_TIMEOUT, self._transport.abort)
        else:
            self._shut()

    # The application ------------------------------------------------------------------

    def _start(self, request: Request) -> None:
        """Run the application for a request that can be accepted."""
        path = request.path
        offered = request.headers.get_all("Sec-WebSocket-Protocol")
        self.scope = {
            "type": "websocket",
            "asgi": {"version": self.config.asgi_version, "spec_version": "2.4"},
            "http_version": "1.1",
            "scheme": self.scheme,
            "server": self.server,
            "client": self.client,
            "root_path": self.root_path,
            "path": self.root_path + unquote(path),
            "raw_path": (self.root_path + path).encode("ascii"),
            "query_string": request.query.encode("ascii"),
            "headers": [
                (name.encode("ascii"), value.encode("latin-1"))
                for name, value in request.headers.items()
            ],
            "subprotocols": [token.strip() for field in offered for token in field.split(",")],
            "state": self.app_state.copy(),
            "extensions": {"websocket.http.response": {}},
        }
        task = self._loop.create_task(self.run_asgi())
        task.add_done_callback(self.tasks.discard)
        self.tasks.add(task)

    async def run_asgi(self) -> None:
        """Run the application, and end what it left open."""
        try:
            result = await self.app(self.scope, self.receive, self.send)
        except ClientDisconnected:
            pass
        except BaseException:
            self.logger.exception("Exception in ASGI application\n")
            self._respond_500()
        else:
            if self._stage in (_CONNECTING, _RESPONDING) and not self._gone:
                self.logger.error("ASGI callable returned without completing handshake.")
                self._respond_500()
            elif result is not None:
                self.logger.error("ASGI callable should return None, but returned '%s'.", result)
        self._leave()

    def _leave(self) -> None:
        """The application is done. As with uvicorn's classes, only it can say goodbye."""
        upgrade = self._opening
        if isinstance(upgrade, _Upgrade) and upgrade.response is not None:
            self._respond(upgrade)
        connection = self._connection
        if connection is not None and not self._ended and connection.state is State.OPEN:
            self._flush()
            if not self._ended:
                self._shut()

    async def receive(self) -> Message:
        """Return the next event: ASGI's `receive`."""
        while self._messages is None:
            if not self._greeted:
                self._greeted = True
                return {"type": "websocket.connect"}
            if self._disconnect is not None:
                if self._stage == _OPEN:
                    self._stage = _LEFT
                return self._disconnect.copy()
            if self._waiter is not None:
                await asyncio.wait([self._waiter])
                continue
            try:
                waiter = self._wait_for_message()
            except ConnectionClosed:
                continue
            try:
                await waiter
            finally:
                self._waiter = None
        message = self._next_message()
        if type(message) is str:
            return {"type": "websocket.receive", "text": message}
        return {"type": "websocket.receive", "bytes": message}

    async def send(self, message: Message) -> None:  # type: ignore[override]
        """Take an event: ASGI's `send`. Waits while the client takes too little.

        Raises:
            RuntimeError: if it is out of turn.
            ClientDisconnected: if the client is gone.
        """
        if self._turns is None and not self._write_paused:
            self._take(message)
        else:
            try:
                async with self._turn():
                    while self._write_paused and not self._ended:
                        await self._drain()
                    self._take(message)
            except ConnectionClosed as exc:
                raise ClientDisconnected from exc
        if self._hogging:
            await self._let_others()

    def _take(self, message: Message) -> None:
        if self._stage != _OPEN or message["type"] != "websocket.send":
            self._say(message)
            return
        data = message.get("bytes")
        if data is None:
            data = message.get("text")
            if not isinstance(data, str):
                if data is None:
                    return
                raise TypeError(f"text must be a str, not {type(data).__name__!r}")
        elif isinstance(data, str):
            raise TypeError("bytes must be bytes-like, not 'str'")
        try:
            self._send(data)
        except ConnectionClosed as exc:
            raise ClientDisconnected from exc

    _send = Endpoint.send

    def _say(self, message: Message) -> None:
        """Take an event that is not a message on an open connection."""
        if self._gone:
            raise ClientDisconnected
        kind = message["type"]
        if self._stage == _CONNECTING:
            self._answer(kind, message)
        elif self._stage == _RESPONDING:
            if kind != "websocket.http.response.body":
                raise RuntimeError(
                    f"Expected ASGI message 'websocket.http.response.body' but got '{kind}'."
                )
            upgrade = cast("_Upgrade", self._opening)
            upgrade.body += message.get("body", b"")
            if not message.get("more_body", False):
                self._respond(upgrade)
        elif self._stage == _CLOSED:
            raise RuntimeError(
                f"Unexpected ASGI message '{kind}', after sending 'websocket.close'."
            )
        elif kind == "websocket.close":
            self._say_goodbye(message.get("code", 1000), message.get("reason") or "")
        elif kind == "websocket.send":
            raise ClientDisconnected
        else:
            raise RuntimeError(
                f"Expected ASGI message 'websocket.send' or 'websocket.close', but got '{kind}'."
            )

    def _answer(self, kind: str, message: Message) -> None:
        """Answer the request."""
        if kind == "websocket.accept":
            self._log('%s - "WebSocket %s" [accepted]')
            self._accept(message.get("subprotocol"), message.get("headers", ()))
        elif kind == "websocket.close":
            self._log('%s - "WebSocket %s" 403')
            self._respond_plain(403)
            self._stage = _CLOSED
            self._disconnected(CloseCode.ABNORMAL_CLOSURE.value)
        elif kind == "websocket.http.response.start":
            status = message["status"]
            if not 200 <= status < 600:
                raise RuntimeError(f"Invalid HTTP status code '{status}' in response.")
            self._log('%s - "WebSocket %s" %d', status)
            # Framing is ours.
            headers = [
                (name.decode("latin-1"), value.decode("latin-1"))
                for name, value in message.get("headers", ())
                if name.lower() != b"transfer-encoding"
            ]
            cast("_Upgrade", self._opening).response = Response(status, headers)
            self._stage = _RESPONDING
        else:
            raise RuntimeError(
                "Expected ASGI message 'websocket.accept', 'websocket.close' "
                f"or 'websocket.http.response.start' but got '{kind}'."
            )

    def _accept(self, subprotocol: str | None, headers: Iterable[tuple[bytes, bytes]]) -> None:
        upgrade = cast("_Upgrade", self._opening)
        fields = [
            (name.decode("latin-1").lower(), value.decode("latin-1"))
            for name, value in [*self.server_state.default_headers, *headers]
        ]
        if subprotocol:
            fields.append(("Sec-WebSocket-Protocol", subprotocol))
        lines = [f"{name}: {value}\r\n" for name, value in Headers(fields).items()]
        octets = upgrade.head + "".join(lines).encode("latin-1") + b"\r\n"
        if self._transport.is_closing():
            return
        self.subprotocol = subprotocol
        self._stage = _OPEN
        self._hold_reading(False)
        self.logger.info("connection open")
        self._open(octets, bytes(upgrade.early), upgrade.handshake.deflate)

    def _say_goodbye(self, code: int | None, reason: str) -> None:
        connection = self._connection
        assert connection is not None
        if connection.close_code is not None or self._transport.is_closing():
            return
        self._close(code, reason)
        self._stage = _CLOSED
        self._disconnected(CloseCode.NO_STATUS_RCVD.value if code is None else code, reason)

    # Plain HTTP -----------------------------------------------------------------------

    def _respond_500(self) -> None:
        if self._stage == _CONNECTING and not self._gone:
            self._stage = _CLOSED
            self._respond_plain(500, "Internal Server Error")
            self._disconnected(CloseCode.ABNORMAL_CLOSURE.value)

    def _respond_plain(self, status: int, text: str = "") -> None:
        upgrade = cast("_Upgrade", self._opening)
        self._reject(upgrade.handshake.respond(Response.text(text, status)))

    def _respond(self, upgrade: _Upgrade) -> None:
        """Send the application's response, as far as it is there."""
        response = upgrade.response
        assert response is not None
        self._stage = _CLOSED
        upgrade.response = None
        headers = Headers([("Content-Type", "text/plain; charset=utf-8")]) | response.headers
        whole = Response(response.status, headers, upgrade.body)
        self._disconnected(CloseCode.ABNORMAL_CLOSURE.value)
        if not self._gone:
            self._reject(upgrade.handshake.respond(whole))

    def _reject(self, response: bytes) -> None:
        """Send a whole response in place of the one that accepts."""
        self._refuse(response, None)
        status_and_reason = response[9 : response.index(b"\r")].decode("latin-1")
        self.logger.info("connection rejected (%s)", status_and_reason)

    # Endpoint's -----------------------------------------------------------------------

    def _received(self, events: list[Event]) -> None:
        # What arrives after the application closed the connection is not for it.
        if self._stage == _OPEN:
            self._keep(events)
        connection = self._connection
        assert connection is not None
        if connection.close_code is not None:
            self._disconnected(connection.close_code, connection.close_reason)
            if connection.state is State.CLOSED:  # it answers ours
                self._flush()

    def _finished(self) -> None:
        super()._finished()
        connection = self._connection
        assert connection is not None
        if connection.error is not None:
            self._disconnected(connection.error.close_code.value, str(connection.error))
        else:
            self._disconnected(CloseCode.NO_STATUS_RCVD.value)

    def _is_overfull(self) -> bool:
        # `send` makes a slow client wait, and that is enough: a task that only receives need
        # not wait for one that sends.
        return False

    def _close(self, code: int | None, reason: str) -> None:
        connection = self._connection
        assert connection is not None
        connection.close(code, reason)
        self._flush()
        self._hold_reading(False)
        self._set_timer(self.close_timeout, self._shut)

    def _end_transport(self) -> None:
        super()._end_transport()
        # uvicorn waits for its connections when it stops: not for a client that has said all it
        # had to say and leaves its side open.
        connection = self._connection
        assert connection is not None
        if connection.error is None and not self._transport.is_closing():
            self._begin_silence()

    # Helpers ----------------------------------------------------------------------------

    def _disconnected(self, code: int, reason: str | None = None) -> None:
        """Have the application told, the first time."""
        if self._disconnect is None:
            self._disconnect = {"type": "websocket.disconnect", "code": code}
            if reason is not None:
                self._disconnect["reason"] = reason
            self._wake_reader()

    def _log(self, line: str, *args: object) -> None:
        scope = cast("Any", self.scope)
        self.logger.info(line, get_client_addr(scope), get_path_with_query_string(scope), *args)

    def _trace(self, what: str) -> None:
        if self.logger.level <= TRACE_LOG_LEVEL:
            prefix = "{}:{} - ".format(*self.client) if self.client else ""
            self.logger.log(TRACE_LOG_LEVEL, "%sWebSocket connection %s", prefix, what)


class _Upgrade:
    """The request, until it is answered: an `Opening`."""

    __slots__ = ("body", "early", "handshake", "head", "response")

    role = Role.SERVER

    def __init__(self, handshake: ServerHandshake) -> None:
        self.handshake = handshake
        self.head = b""  # of the response that accepts, without its end
        self.early = bytearray()
        self.response: Response | None = None
        self.body = b""

    def begin(self, endpoint: Endpoint) -> None:
        pass

    def receive_data(self, endpoint: Endpoint, data: bytes) -> None:
        if self.head:
            self._receive_early(endpoint, data)
            return
        handshake = self.handshake
        try:
            request = handshake.receive_data(data)
            if request is None:
                return
            head = handshake.accept(request)
        except RequestError as exc:
            protocol = cast("WebSocketProtocol", endpoint)
            protocol._stage = _CLOSED
            protocol._reject(handshake.reject(exc))
            return
        # uvicorn has its own Date, or none.
        lines = [line for line in head.splitlines(True) if not line.startswith(b"Date:")]
        self.head = b"".join(lines[:-1])
        self._receive_early(endpoint, handshake.trailing_data)
        cast("WebSocketProtocol", endpoint)._start(request)

    def _receive_early(self, endpoint: Endpoint, data: bytes) -> None:
        self.early += data
        if len(self.early) > _MAX_EARLY:
            endpoint._hold_reading(True)

    def receive_eof(self, endpoint: Endpoint) -> None:
        pass

    def time_out(self, endpoint: Endpoint) -> None:
        pass

    def cancel(self) -> None:
        pass
