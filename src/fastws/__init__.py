"""fastws: a fast and strict WebSocket codec (RFC 6455), and asyncio connections on top.

A server, here one that echoes, and a client that talks to it:

    async def echo(ws):
        async for message in ws:
            await ws.send(message)

    async with fastws.serve(echo, "localhost", 8080):
        async with fastws.connect("ws://localhost:8080") as ws:
            await ws.send("Hello Server!")
            print(await ws.recv())

For a server of your own, a `Connection` turns bytes into messages and back, and does no I/O:

    connection = fastws.Connection(fastws.Role.SERVER)
    for event in connection.receive_data(data):
        match event:
            case str() | bytes():
                connection.send(event)
    transport.write(connection.data_to_send())

While `connection.has_pending` is true, call `connection.receive_data(b"")` for more events. A
`Session` is such a connection with its opening handshake, its timeouts and the end of TCP.

The codec can also be used alone: `MessageDecoder`, `MessageEncoder`, `FrameDecoder`,
`encode_frame`, `apply_mask`, `Utf8Validator`, … `fastws.implementation` says which of its twins
is in use.

The names in `__all__` are public. The documentation says under "Versions and stability" what that
promises, for this module and for those below it.
"""

from typing import TYPE_CHECKING

from .codec import (
    Frame,
    FrameDecoder,
    MessageDecoder,
    MessageEncoder,
    Utf8Validator,
    apply_mask,
    apply_mask_inplace,
    decode_utf8,
    encode_frame,
    implementation,
    is_utf8,
    kernel,
)
from .connection import Connection, State
from .deflate import Agreement, PerMessageDeflate
from .events import Close, Event, MessagePart, Ping, Pong, Text
from .exceptions import (
    ConnectionClosed,
    FieldError,
    HandshakeError,
    IncompleteResponseError,
    InternalError,
    InvalidPayloadError,
    InvalidURIError,
    MessageTooBigError,
    MissingFieldError,
    ProtocolError,
    ProxyError,
    RequestError,
    ResponseError,
    StateError,
    WebSocketError,
)
from .extensions import ClientExtension, ServerExtension
from .handshake import Accept, ClientHandshake, ServerHandshake
from .http import Headers, HeadersLike, Request, Response
from .peers import Peer, TLSInfo
from .prepared import PreparedMessage, prepare
from .spec import CloseCode, Opcode, Role
from .stats import Stats
from .uri import URI

if TYPE_CHECKING:
    from .aio.client import connect
    from .aio.opening import ProcessRequest
    from .aio.protocol import WebSocketProtocol
    from .aio.retries import RetryPolicy
    from .aio.server import Server
    from .aio.serving import serve
    from .aio.topics import Published, Topics, broadcast
    from .aio.websocket import WebSocket
    from .session import HalfClose, Opened, Read, Session, SessionEvent, Write

__version__ = "0.1.0"

__all__ = [
    # asyncio
    "ProcessRequest",
    "Published",
    "RetryPolicy",
    "Server",
    "Topics",
    "WebSocket",
    "WebSocketProtocol",
    "broadcast",
    "connect",
    "serve",
    # without I/O
    "Accept",
    "Agreement",
    "ClientExtension",
    "ClientHandshake",
    "Connection",
    "HalfClose",
    "Headers",
    "HeadersLike",
    "Opened",
    "Peer",
    "PerMessageDeflate",
    "PreparedMessage",
    "Read",
    "Request",
    "Response",
    "ServerExtension",
    "ServerHandshake",
    "Session",
    "SessionEvent",
    "State",
    "Stats",
    "TLSInfo",
    "URI",
    "Write",
    "prepare",
    # the codec
    "Close",
    "Event",
    "Frame",
    "FrameDecoder",
    "MessageDecoder",
    "MessageEncoder",
    "MessagePart",
    "Ping",
    "Pong",
    "Text",
    "Utf8Validator",
    "apply_mask",
    "apply_mask_inplace",
    "decode_utf8",
    "encode_frame",
    "implementation",
    "is_utf8",
    "kernel",
    # the RFC's names
    "CloseCode",
    "Opcode",
    "Role",
    # errors
    "ConnectionClosed",
    "FieldError",
    "HandshakeError",
    "IncompleteResponseError",
    "InvalidPayloadError",
    "InvalidURIError",
    "InternalError",
    "MessageTooBigError",
    "MissingFieldError",
    "ProtocolError",
    "ProxyError",
    "RequestError",
    "ResponseError",
    "StateError",
    "WebSocketError",
]


# asyncio and ssl take longer to import than everything else, and a program that uses only the
# codec does not need them. (import_module would hide them from PyInstaller and similar tools.)
# Session needs threading; a subinterpreter that has imported it in another thread than the first
# may hang when it ends.
def __getattr__(name: str) -> object:
    value: object
    match name:
        case "ProcessRequest":
            from .aio import opening

            value = opening.ProcessRequest
        case "RetryPolicy":
            from .aio import retries

            value = retries.RetryPolicy
        case "Server":
            from .aio import server

            value = server.Server
        case "serve":
            from .aio import serving

            value = serving.serve
        case "Published" | "Topics" | "broadcast":
            from .aio import topics

            value = getattr(topics, name)
        case "WebSocket":
            from .aio import websocket

            value = websocket.WebSocket
        case "WebSocketProtocol":
            from .aio import protocol

            value = protocol.WebSocketProtocol
        case "HalfClose" | "Opened" | "Read" | "Session" | "SessionEvent" | "Write":
            from . import session

            value = getattr(session, name)
        case "connect":
            from .aio import client

            value = client.connect
        case _:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
