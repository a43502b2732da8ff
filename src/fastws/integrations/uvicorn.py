"""A WebSocket protocol class for uvicorn.

    uvicorn app:app --ws fastws.integrations.uvicorn:WebSocketProtocol

or `UVICORN_WS=`, or `uvicorn.run(app, ws=WebSocketProtocol)`; there is nothing to install.

There is an extension of ASGI, `fastws.text`: if `decode_text` of `websocket.accept` is false, the
`text` of `websocket.receive` is UTF-8, as bytes; and that of `websocket.send` may be.

This module knows ASGI and what uvicorn expects of a protocol class. It does not know frames,
timers or transports: those are the job of `Endpoint`. It does not import uvicorn's own WebSocket
libraries.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import unquote
from weakref import WeakKeyDictionary

from fastws.aio.endpoint import Endpoint
from fastws.aio.opening import Decision, Opened, Refused
from fastws.aio.phases import RECEIVING, Pace, Phase
from fastws.aio.settings import Settings
from fastws.aio.transports import close_transport
from fastws.aio.twin import Queue, send
from fastws.deflate import PerMessageDeflate
from fastws.events import Text
from fastws.exceptions import ConnectionClosed, RequestError
from fastws.handshake import ServerHandshake
from fastws.http import Headers, Response
from fastws.spec import CloseCode, Role, State
from fastws.text import as_text

from ._hosts import HOSTS
from ._tls import tls_extension
from .asgi import Extensions

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

    from uvicorn.config import Config
    from uvicorn.server import ServerState

    from fastws.aio.flow import Flow
    from fastws.events import Event
    from fastws.http import Request

    Message = MutableMapping[str, Any]

__all__ = ["WebSocketProtocol"]

HOST.is_tested()

# What the application may send next.
_CONNECTING = 0  # accept, close, or the start of a response
_RESPONDING = 1  # more of that response
_OPEN = 2  # messages, and close
_LEFT = 3  # the same, but it was told that the client has disconnected
_CLOSED = 4  # nothing

# The client may send frames before the application has decided. This is the maximum number of
# bytes that are kept.
_MAX_EARLY = 64 << 10

# The maximum size of the header block, in bytes, if uvicorn's option is not set. (That option is
# for h11; with httptools, uvicorn has no limit.)
_MAX_HEADER_SIZE = 64 << 10

# When the server stops, a client has this many seconds to read its close frame.
_SHUTDOWN_TIMEOUT = 1.0


@cache
def _deflate() -> PerMessageDeflate:
    """Return the compression settings of uvicorn's default class."""
    return PerMessageDeflate(max_window_bits=12, peer_max_window_bits=12, mem_level=5)


class _Options:
    """uvicorn's options, which all connections of a server share."""

    def __init__(self, config: Config) -> None:
        interval, timeout = config.ws_ping_interval, config.ws_ping_timeout
        self.settings = Settings(
            max_message_size=config.ws_max_size,
            max_queue=config.ws_max_queue,
            open_timeout=None,
            ping_interval=interval if interval and interval > 0 else None,
            ping_timeout=None if timeout is None else max(timeout, 0.001),
        )
        self.settings_for_bytes = replace(self.settings, decode_text=False)
        self._handshake = ServerHandshake(
            extensions=(_deflate(),) if config.ws_per_message_deflate else (),
            max_header_size=config.h11_max_incomplete_event_size or _MAX_HEADER_SIZE,
        )

    def make_handshake(self) -> ServerHandshake:
        return self._handshake._again()


_options: WeakKeyDictionary[Config, _Options] = WeakKeyDictionary()


class _Inbox(Queue):
    """The messages for the application's `receive`."""

    # `send` makes the application wait for a slow client. That is enough: a task that only receives
    # need not wait for one that sends.
    ignores_unsent = True

    def take(self, endpoint: WebSocketProtocol, events: list[Event], only_messages: bool) -> None:
        # Drop messages that arrive after the application has closed the connection.
        if endpoint._stage == _OPEN:
            super().take(endpoint, events, only_messages)
        endpoint._look_for_end()

    def pace(self, endpoint: Flow) -> Pace:
        if cast("WebSocketProtocol", endpoint)._stage != _OPEN:
            return Pace.FAST
        return super().pace(endpoint)


class WebSocketProtocol(Endpoint):
    """A WebSocket connection under uvicorn.

    uvicorn's HTTP protocol creates an instance for a request for an upgrade, and passes it the
    request and the transport. The arguments are those of uvicorn's own classes.

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

    # When uvicorn stops, it waits for its connections. It must not wait for a client that has sent
    # its close frame but leaves its side of the TCP connection open.
    _awaits_eof = False

    _sink: _Inbox
    scope: dict[str, Any]

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(_Inbox())
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
        self._opening = _Upgrade(options.make_handshake(), self)
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

    def shutdown(self) -> None:
        """Close the connection because the server stops."""
        if self._connection is None:
            self._respond_500()
            close_transport(self._transport)
        elif self._phase is Phase.LOST:
            self._conclude()
        elif self._connection.state is State.OPEN and not self._transport.is_closing():
            self._disconnected(CloseCode.SERVICE_RESTART.value)
            self._fail_with(CloseCode.SERVICE_RESTART, "")
            self._set_timer(_SHUTDOWN_TIMEOUT, self._transport.abort)
        else:
            self._lingering().close()

    # The application ------------------------------------------------------------------

    def _start(self, request: Request) -> None:
        """Run the application for a request that can be accepted."""
        path = request.path
        offered = request.headers.get_all("Sec-WebSocket-Protocol")
        extensions: dict[str, Any] = {"websocket.http.response": {}, "fastws.text": {}}
        if (ssl_object := self.get_extra_info("ssl_object")) is not None:
            extensions["tls"] = tls_extension(ssl_object)
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
            "extensions": Extensions(self, extensions),
        }
        task = self._loop.create_task(self.run_asgi())
        task.add_done_callback(self.tasks.discard)
        self.tasks.add(task)

    async def run_asgi(self) -> None:
        """Run the application, and end the connection if it has not."""
        try:
            result = await self.app(self.scope, self.receive, self.send)
        except ClientDisconnected:
            pass
        except BaseException:
            self.logger.exception("Exception in ASGI application\n")
            self._respond_500()
        else:
            if self._stage in (_CONNECTING, _RESPONDING) and self._phase is not Phase.CLOSED:
                self.logger.error("ASGI callable returned without completing handshake.")
                self._respond_500()
            elif result is not None:
                self.logger.error("ASGI callable should return None, but returned '%s'.", result)
        self._leave()

    def _leave(self) -> None:
        """End the connection after the application has returned. As in uvicorn's classes, only the
        application can send a close frame."""
        upgrade = self._opening
        if isinstance(upgrade, _Upgrade) and upgrade.head_of_response is not None:
            self._respond(upgrade)
        if self._phase is Phase.LOST:
            self._conclude()  # nobody wants the rest
        elif self._phase in RECEIVING and self.state is State.OPEN:
            self._flush()
            if self._phase in RECEIVING:
                self._lingering().close()

    async def receive(self) -> Message:
        """Return the next event: ASGI's `receive`."""
        queue = self._sink
        while (message := self._next_message(None)) is None:
            if not self._greeted:
                self._greeted = True
                return {"type": "websocket.connect"}
            if self._disconnect is not None:
                if self._stage == _OPEN:
                    self._stage = _LEFT
                return self._disconnect.copy()
            if queue.waiter is not None:
                await asyncio.wait([queue.waiter])
                continue
            try:
                waiter = self._wait_for_message()
            except ConnectionClosed:
                continue
            try:
                await waiter
            finally:
                self._stop_waiting()
        if type(message) is str:
            return {"type": "websocket.receive", "text": message}
        if type(message) is Text:
            return {"type": "websocket.receive", "text": message.data}
        return {"type": "websocket.receive", "bytes": message}

    async def send(self, message: Message) -> None:
        """Process an event: ASGI's `send`. This waits if the client reads too slowly.

        Raises:
            RuntimeError: if the event is not allowed now.
            ClientDisconnected: if the client is gone.
        """
        if not self._write_paused and not self._is_sending():
            self._take(message)
        else:
            try:
                async with self._waiting_senders().turn():
                    while self._write_paused and self._phase in RECEIVING:
                        await self._drain()
                    self._take(message)
            except ConnectionClosed as exc:
                raise ClientDisconnected from exc
        if self._must_yield:
            await self._yield_to_loop()

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
                try:
                    data = as_text(data)
                except TypeError:
                    name = type(data).__name__
                    raise TypeError(f"text must be a str or bytes-like, not {name!r}") from None
        elif isinstance(data, str):
            raise TypeError("bytes must be bytes-like, not 'str'")
        try:
            send(self, data)
        except ConnectionClosed as exc:
            raise ClientDisconnected from exc

    def _say(self, message: Message) -> None:
        """Process an event that is not a message on an open connection."""
        if self._phase in (Phase.LOST, Phase.CLOSED):
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
            if not message.get("decode_text", True):
                self._settings = _options[self.config].settings_for_bytes
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
            # fastws frames the body itself.
            headers = [
                (name.decode("latin-1"), value.decode("latin-1"))
                for name, value in message.get("headers", ())
                if name.lower() != b"transfer-encoding"
            ]
            cast("_Upgrade", self._opening).head_of_response = Response(status, headers)
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
        self._stage = _OPEN
        self.logger.info("connection open")
        deflate = upgrade.handshake.deflate
        self._act_on(Opened(octets, bytes(upgrade.early), subprotocol, deflate))

    def _say_goodbye(self, code: int | None, reason: str) -> None:
        connection = self._connection
        assert connection is not None
        if connection.close_code is not None or self._transport.is_closing():
            return
        self._begin_closing(code, reason)
        self._stage = _CLOSED
        self._update_reading()
        if self._phase is Phase.CLOSING:
            self._set_timer(self.close_timeout, self._lingering().close)
        self._disconnected(CloseCode.NO_STATUS_RCVD.value if code is None else code, reason)

    # Plain HTTP -----------------------------------------------------------------------

    def _respond_500(self) -> None:
        if self._stage == _CONNECTING and self._phase is not Phase.CLOSED:
            self._stage = _CLOSED
            self._respond_plain(500, "Internal Server Error")
            self._disconnected(CloseCode.ABNORMAL_CLOSURE.value)

    def _respond_plain(self, status: int, text: str = "") -> None:
        upgrade = cast("_Upgrade", self._opening)
        self._act_on(self._rejecting(upgrade.handshake.respond(Response.text(text, status))))

    def _respond(self, upgrade: _Upgrade) -> None:
        """Send as much of the application's response as it has provided."""
        response = upgrade.head_of_response
        assert response is not None
        upgrade.head_of_response = None
        headers = Headers([("Content-Type", "text/plain; charset=utf-8")]) | response.headers
        whole = Response(response.status, headers, upgrade.body)
        self._disconnected(CloseCode.ABNORMAL_CLOSURE.value)
        self._act_on(self._rejecting(upgrade.handshake.respond(whole)))

    def _rejecting(self, response: bytes) -> Refused:
        """Refuse the handshake with a complete response."""
        self._stage = _CLOSED
        status_and_reason = response[9 : response.index(b"\r")].decode("latin-1")
        self.logger.info("connection rejected (%s)", status_and_reason)
        return Refused(response)

    # For Endpoint ---------------------------------------------------------------------

    def _look_for_end(self) -> None:
        """Tell the application about the client's close frame at once."""
        connection = self._connection
        assert connection is not None
        if connection.close_code is not None:
            self._disconnected(connection.close_code, connection.close_reason)
            if connection.state is State.CLOSED:  # it answers ours
                self._flush()

    def _ended(self) -> None:
        connection = self._connection
        assert connection is not None
        if connection.error is not None:
            self._disconnected(connection.error.close_code.value, str(connection.error))
        else:
            self._disconnected(CloseCode.NO_STATUS_RCVD.value)

    def _lost(self) -> None:
        # The garbage collector must free the HTTP protocol, because the protocol and its parser
        # refer to each other. The buffers of a TLS transport should not wait for that.
        self._release_transport()
        http, self._http = self._http, None
        if http is not self:
            http.transport = self._transport
            http.flow = None
        self.connections.discard(self)
        self._trace("lost")
        # The libraries of uvicorn's own classes log this line, "connection open" and "connection
        # rejected"; people look for them.
        self.logger.info("connection closed")
        # These are uvicorn's codes. Without a close frame, 1006 would be right in both cases.
        never_open = self._connection is None
        code = CloseCode.ABNORMAL_CLOSURE if never_open else CloseCode.NO_STATUS_RCVD
        self._disconnected(code.value)

    # Helpers ----------------------------------------------------------------------------

    def _disconnected(self, code: int, reason: str | None = None) -> None:
        """Let `receive` return the end of the connection, the first time this is called."""
        if self._disconnect is None:
            self._disconnect = {"type": "websocket.disconnect", "code": code}
            if reason is not None:
                self._disconnect["reason"] = reason
            self._sink.wake()

    def _log(self, line: str, *args: object) -> None:
        scope = cast("Any", self.scope)
        self.logger.info(line, get_client_addr(scope), get_path_with_query_string(scope), *args)

    def _trace(self, what: str) -> None:
        if self.logger.level <= TRACE_LOG_LEVEL:
            prefix = "{}:{} - ".format(*self.client) if self.client else ""
            self.logger.log(TRACE_LOG_LEVEL, "%sWebSocket connection %s", prefix, what)


class _Upgrade:
    """The opening handshake, which ends when the application answers the request."""

    __slots__ = ("_protocol", "body", "early", "handshake", "head", "head_of_response")

    role = Role.SERVER
    # The application finds it in its scope.
    request: None = None
    response: None = None
    answer: None = None

    def __init__(self, handshake: ServerHandshake, protocol: WebSocketProtocol) -> None:
        self.handshake = handshake
        self.head = b""  # of the accepting response, without the end
        self.early = bytearray()
        # The part of the application's own response that it has sent.
        self.head_of_response: Response | None = None
        self.body = b""
        self._protocol = protocol

    def begin(self, wire: object = None) -> bytes:
        return b""

    def wants_data(self) -> bool:
        return len(self.early) <= _MAX_EARLY

    def receive_data(self, data: bytes) -> Decision | None:
        if self.head:
            self.early += data
            return None
        handshake = self.handshake
        try:
            request = handshake.receive_data(data)
            if request is None:
                return None
            # uvicorn adds its own Date, or none.
            self.head = handshake._agree(request).encode("latin-1")
        except RequestError as exc:
            return self._protocol._rejecting(handshake.reject(exc))
        self.early += handshake.trailing_data
        self._protocol._start(request)
        return None

    def receive_eof(self) -> Decision | None:
        return None

    def wait_for(self, answer: object) -> None:
        raise NotImplementedError  # only the application answers

    def decide(self) -> Decision:
        raise NotImplementedError

    def time_out(self) -> Decision | None:
        return None  # the application decides
