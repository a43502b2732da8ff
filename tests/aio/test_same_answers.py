"""A `Session` gives the same answers as the asyncio server and client, whatever arrives.

Both get the same bytes. What they write must be the same, and so must how it ends.
"""

from __future__ import annotations

import asyncio
import re
import socket
import threading
from concurrent.futures import Future

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastws import (
    FrameDecoder,
    HalfClose,
    HandshakeError,
    Opcode,
    Read,
    Session,
    WebSocketProtocol,
    Write,
    connect,
    encode_frame,
    serve,
)
from fastws.cli._checks import CHECKS
from fastws.handshake import accept_key

from ..tools import TIMEOUT
from ..wire import OFFER, compressed, upgrade_request
from .conftest import LOOPS, EchoProtocol

ORIGINS = ["https://good.example", None]
LIMITS = {"max_message_size": 1000, "max_fragments": 10}
DATE = re.compile(rb"\r\nDate: [^\r]*")
KEY = b"\x01\x02\x03\x04"


# What arrives ---------------------------------------------------------------------------------

requests = st.sampled_from(
    [
        upgrade_request(),
        OFFER,
        upgrade_request("Origin: https://good.example"),
        upgrade_request("Origin: https://evil.example"),
        upgrade_request("Sec-WebSocket-Protocol: chat, other"),
        upgrade_request("Sec-WebSocket-Protocol: chat, chat"),
        upgrade_request("Sec-WebSocket-Extensions: ;"),
        upgrade_request("Content-Length: 5"),
        b"\r\n" + upgrade_request(),
        upgrade_request()[:-2],
        upgrade_request().replace(b"\r\n", b"\n"),
        upgrade_request("X: " + "y" * 20_000),
        *(f"HEAD / HTTP/1.1\r\nHost: {name}\r\n\r\n".encode() for name in ("a", "")),
        *(
            check.request.format(target="/", host="localhost").encode()
            for check in CHECKS
            if check.request
        ),
    ]
)
good_frames = st.one_of(
    st.builds(
        encode_frame,
        st.sampled_from([1, 2]),
        st.text(max_size=40).map(str.encode),
        key=st.just(KEY),
        fin=st.booleans(),
    ),
    st.builds(encode_frame, st.sampled_from([0, 9, 10]), st.binary(max_size=125), key=st.just(KEY)),
    st.binary(max_size=900).map(lambda data: encode_frame(2, data, key=KEY)),
    st.binary(max_size=2000).map(
        lambda data: encode_frame(2, compressed(data), key=KEY, rsv1=True)
    ),
    st.sampled_from([encode_frame(8, b"\x03\xe8bye", key=KEY), encode_frame(8, key=KEY)]),
)
bad_frames = st.one_of(
    st.sampled_from([check.data for check in CHECKS if check.data]), st.binary(max_size=20)
)
frames = st.lists(st.one_of(good_frames, good_frames, bad_frames), max_size=6).map(b"".join)
cuts = st.lists(st.integers(0, 400), max_size=6).map(sorted)


def cut(stream, places):
    places = [place for place in places if place < len(stream)]
    parts = [stream[a:b] for a, b in zip([0, *places], [*places, len(stream)], strict=True)]
    return [part for part in parts if part]


# Who gets it ----------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=LOOPS)
def in_loop(request):
    """Run coroutines on an event loop of this kind, which runs in a thread."""
    loop = LOOPS[request.param]()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    yield lambda main: asyncio.run_coroutine_threadsafe(main, loop).result(TIMEOUT)
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


def of_session(session, arriving, echoes):
    """Return what a session writes when this arrives, and then the stream ends."""
    waiting = [*arriving, b""]
    out = b""
    halves = 0
    for event in session:
        match event:
            case str() | bytes() if echoes:
                session.send(event)
            case Write():
                out += session.data_to_send()
            case Read():
                session.receive_data(waiting.pop(0))
            case HalfClose():
                halves += 1
    assert halves <= 1
    return out


def of_socket(port, arriving):
    """Return what a server writes, up to the end of the stream, which must not be a reset."""
    with socket.create_connection(("127.0.0.1", port), TIMEOUT) as sock:
        for part in arriving:
            sock.sendall(part)
        sock.shutdown(socket.SHUT_WR)
        out = b""
        while data := sock.recv(65536):
            out += data
        return out


def frames_of(octets, masked):
    """Return what a peer makes of the frames.

    Pongs are apart: if a read brings a ping and messages, the pong comes before all answers. So
    the order depends on how TCP cuts the stream. And a client's mask keys are random.
    """
    found = [
        (frame.opcode, frame.payload, frame.fin, frame.rsv1)
        for frame in FrameDecoder(masked=masked).feed(octets)
    ]
    pongs = [frame for frame in found if frame[0] == Opcode.PONG]
    return pongs, [frame for frame in found if frame[0] != Opcode.PONG]


def told(out):
    """Return the response and the frames of a server."""
    head, end, rest = DATE.sub(b"", out).partition(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 101 "):
        return head + end + rest
    return head, *frames_of(rest, masked=False)


OPTIONS = {"origins": ORIGINS, "subprotocols": ["other", "chat"], "deflate": True, **LIMITS}


@pytest.fixture(scope="module")
def port(in_loop):
    """The port of the asyncio server."""

    async def start():
        return await serve(EchoProtocol, "127.0.0.1", 0, **OPTIONS)

    server = in_loop(start())
    yield server.sockets[0].getsockname()[1]
    in_loop(server.close())


@settings(deadline=None)
@given(request=requests, frames=frames, places=cuts)
def test_servers(port, request, frames, places):
    arriving = cut(request + frames, places)
    expected = told(of_socket(port, arriving))
    assert told(of_session(Session.server(**OPTIONS), arriving, True)) == expected


# Clients --------------------------------------------------------------------------------------


UPGRADE = "HTTP/1.1 101 \r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
responses = st.sampled_from(
    [
        UPGRADE + "{accept}\r\n",
        UPGRADE + "{accept}Sec-WebSocket-Protocol: chat\r\n\r\n",
        UPGRADE + "{accept}Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n",
        "HTTP/1.1 103 Early Hints\r\n\r\n" + UPGRADE + "{accept}\r\n",
        UPGRADE + "\r\n",
        UPGRADE + "{accept}Sec-WebSocket-Protocol: other\r\n\r\n",
        UPGRADE.replace("1.1", "1.0") + "{accept}\r\n",
        "HTTP/1.1 101 \r\nUpgrade: websocket\r\n{accept}\r\n",
        "HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\nno",
        "HTTP/1.1 500 \r\n\r\nno",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nno\r\n0\r\n\r\n",
        "nonsense\r\n\r\n",
        "HTTP/1.1 101 \r\nX: " + "y" * 20_000 + "\r\n\r\n",
    ]
)


def unmasked(octets):
    """Return the same frames as a server writes them."""
    found = FrameDecoder(masked=True).feed(octets)
    return b"".join(encode_frame(f.opcode, f.payload, fin=f.fin, rsv1=f.rsv1) for f in found)


@st.composite
def served_frames(draw):
    """The frames of a server: not masked, except for some that are bad."""
    return b"".join(
        unmasked(piece) if good else piece
        for good, piece in draw(
            st.lists(
                st.one_of(
                    st.tuples(st.just(True), good_frames),
                    st.tuples(st.just(True), good_frames),
                    st.tuples(st.just(False), bad_frames),
                ),
                max_size=6,
            )
        )
    )


def answered(template, key):
    return template.replace("{accept}", f"Sec-WebSocket-Accept: {accept_key(key)}\r\n").encode()


def key_of(request):
    (key,) = re.findall(rb"Sec-WebSocket-Key: (\S+)", request)
    return key.decode()


class Client(WebSocketProtocol):
    def __init__(self):
        super().__init__()
        self.closed = asyncio.get_running_loop().create_future()

    def on_message(self, message):
        self.send(message)

    def on_close(self, code, reason):
        self.closed.set_result((code, reason))


async def of_asyncio(template, frames, places):
    """Connect a client to a raw server; return the request, what follows it, and the end."""
    written = Future()

    async def answer(reader, writer):
        request = await reader.readuntil(b"\r\n\r\n")
        for part in cut(answered(template, key_of(request)) + frames, places):
            writer.write(part)
            await writer.drain()
        writer.write_eof()
        rest = b""
        try:
            while data := await reader.read(65536):
                rest += data
        except ConnectionError:
            pass  # of a client that gives up while we send
        writer.close()
        written.set_result((request, rest))

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        try:
            uri = f"ws://127.0.0.1:{port}/"
            ws = await connect(uri, protocol=Client, deflate=True, subprotocols=["chat"], **LIMITS)
        except HandshakeError as exc:
            end = (type(exc), str(exc))
        else:
            end = await ws.closed
        return *await asyncio.wrap_future(written), end


@settings(deadline=None)
@given(template=responses, frames=served_frames(), places=cuts)
def test_clients(in_loop, template, frames, places):
    request, rest, end = in_loop(of_asyncio(template, frames, places))
    host = re.findall(rb"Host: (\S+)", request)[0].decode()
    session = Session.client(f"ws://{host}/", deflate=True, subprotocols=["chat"], **LIMITS)
    assert isinstance(next(session), Write)
    head = session.data_to_send()
    assert head == request.replace(key_of(request).encode(), key_of(head).encode())
    out = of_session(session, cut(answered(template, key_of(head)) + frames, places), True)
    if session.state is None:
        assert (type(session.error), str(session.error)) == end
    else:
        assert (session.close_code, session.close_reason) == end
    assert frames_of(out, masked=True) == frames_of(rest, masked=True)
