"""websockets with fastws and without: the same frames, errors and bytes; then real servers.

The differential tests compare the classes of the integration to those of websockets itself.
Separate tests show that `install` puts the same functions in place.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import logging
import secrets
import sys
import threading
import weakref
import zlib
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
import websockets
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from websockets import frames
from websockets.asyncio.client import connect as asyncio_connect
from websockets.asyncio.server import serve as asyncio_serve
from websockets.client import ClientProtocol
from websockets.exceptions import ConnectionClosedError, ConnectionClosedOK, ProtocolError
from websockets.extensions import Extension
from websockets.extensions.permessage_deflate import PerMessageDeflate
from websockets.frames import Close, Frame, Opcode
from websockets.protocol import CLIENT, OPEN, SERVER, Protocol, Side
from websockets.server import ServerProtocol
from websockets.sync.client import connect
from websockets.sync.server import serve as sync_serve
from websockets.uri import parse_uri

from fastws import integrations
from fastws.integrations import websockets as ours

from ..tools import Echo, Program, free_port
from .comparing import KEY, chunked, streams, wire

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

URI = parse_uri("ws://localhost/")


@pytest.fixture(autouse=True)
def same_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """Use the same mask key for all frames of clients."""
    token_bytes = secrets.token_bytes
    monkeypatch.setattr(secrets, "token_bytes", lambda n: KEY if n == 4 else token_bytes(n))


@pytest.fixture(autouse=True)
def both_twins(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replace the same functions with either twin, so that both are tested."""
    monkeypatch.setattr(ours, "_gains", True)


# Both ways ----------------------------------------------------------------------------


class Bits(Extension):
    """An extension of somebody else: adds to each byte, and uses the other two reserved bits."""

    name = "x-bits"

    def __init__(self) -> None:
        self.calls: list[Any] = []

    def decode(self, frame: Frame, *, max_size: int | None = None) -> Frame:
        self.calls.append((frame, type(frame), max_size))
        if frame.data == b"boom":
            raise RuntimeError("boom")
        data = bytes((byte - 1) % 256 for byte in frame.data)
        return Frame(frame.opcode, data, frame.fin, frame.rsv1, not frame.rsv2, frame.rsv3)

    def encode(self, frame: Frame) -> Frame:
        data = bytes((byte + 1) % 256 for byte in frame.data)
        return Frame(frame.opcode, data, frame.fin, frame.rsv1, True, True)


EXTENSIONS: dict[str, Callable[[], list[Extension]]] = {
    "none": list,
    "deflate": lambda: [PerMessageDeflate(False, False, 15, 15)],
    "deflate-no-context": lambda: [PerMessageDeflate(True, True, 12, 12)],
    "bits": lambda: [Bits()],
    "both": lambda: [PerMessageDeflate(False, False, 15, 15), Bits()],
}


class Log(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(f"{record.levelname} {record.getMessage()}")


class End:
    """A protocol and its observable state."""

    def __init__(
        self, kind: type[Protocol], side: Side, extensions: str, max_size: Any, debug: bool
    ) -> None:
        logger = logging.Logger("end", logging.DEBUG if debug else logging.ERROR)
        self.log = Log()
        logger.addHandler(self.log)
        options: dict[str, Any] = {"max_size": max_size, "logger": logger, "state": OPEN}
        if side is CLIENT:
            self.protocol: Protocol = kind(URI, **options)  # type: ignore[arg-type]
        else:
            self.protocol = kind(**options)  # type: ignore[call-arg]
        self.protocol.extensions = EXTENSIONS[extensions]()

    def outcome(self) -> dict[str, Any]:
        protocol = self.protocol
        events = protocol.events_received()
        for event in events:
            assert type(event) is Frame
            assert event.opcode is Opcode(event.opcode)
            assert {type(event.fin), type(event.rsv1)} == {bool}
            # Where websockets has a bytearray, fastws has bytes in ordinary cases.
            assert type(event.data) is bytes or protocol.side is CLIENT
        exc = protocol.parser_exc
        return {
            "events": events,
            "writes": protocol.data_to_send(),
            "state": protocol.state,
            "size": protocol.current_size,
            "close": (protocol.close_rcvd, protocol.close_sent, protocol.close_rcvd_then_sent),
            "expected": protocol.close_expected(),
            "error": (type(exc), str(exc), repr(exc and exc.__cause__)),
            "calls": [getattr(extension, "calls", None) for extension in protocol.extensions],
            "log": self.log.lines,
        }


KINDS = {
    SERVER: (ServerProtocol, ours.ServerProtocol),
    CLIENT: (ClientProtocol, ours.ClientProtocol),
}


def compare(
    side: Side,
    chunks: list[bytes],
    *,
    eof: bool = True,
    extensions: str = "none",
    max_size: Any = None,
    debug: bool = False,
    prepare: Callable[[Protocol], None] = lambda protocol: None,
) -> list[dict[str, Any]]:
    """Feed both the same; return the outcome after each chunk."""
    ends = [End(kind, side, extensions, max_size, debug) for kind in KINDS[side]]
    outcomes = []
    for end in ends:
        prepare(end.protocol)
    for chunk in [*chunks, None] if eof else chunks:
        for end in ends:
            if chunk is None:
                end.protocol.receive_eof()
            else:
                end.protocol.receive_data(chunk)
        theirs, mine = (end.outcome() for end in ends)
        # Tracebacks are never the same; they are the last lines of a record.
        for outcome in (theirs, mine):
            outcome["log"] = [line.partition("\nTraceback")[0] for line in outcome["log"]]
        assert mine == theirs
        outcomes.append(mine)
    return outcomes


def deflated(data: bytes) -> bytes:
    compressor = zlib.compressobj(wbits=-12)
    return (compressor.compress(data) + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4]


DEFLATED = [deflated(b"x"), deflated(b"fastws " * 30), deflated(bytes(4000)), deflated(b"")]

payloads = st.one_of(
    st.binary(max_size=12),
    st.sampled_from([b"", b"boom", b"\x03\xe8", b"\x03\xe8bye", b"\x03\xed", b"\x03", *DEFLATED]),
    st.sampled_from([b"\x0b\xb8\xff", b"a" * 125, b"b" * 126, b"c" * 300, b"d" * 70_000]),
)
# Mostly what a peer would send.
firsts = st.one_of(
    st.sampled_from([0x81, 0x82, 0x81, 0x82, 0x01, 0x02, 0x00, 0x80, 0x89, 0x8A]),
    st.sampled_from([0xC1, 0xC2, 0x41, 0xB1, 0xB2, 0xB9, 0x31, 0x30, 0xB0, 0x88, 0xB8]),
    st.integers(0, 255),
)


sizes = st.one_of(
    st.none(),
    st.sampled_from([0, 1, 5, 100, 125, 126, 300, 70_000, 1 << 20]),
    st.tuples(*[st.one_of(st.none(), st.sampled_from([3, 126, 300, 100_000]))] * 2),
)


@pytest.mark.parametrize("extensions", EXTENSIONS)
@pytest.mark.parametrize("side", Side)
def test_same_for_any_stream(side: Side, extensions: str) -> None:
    @settings(
        max_examples=150,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
    @given(chunked(streams(firsts, payloads, side is SERVER)), sizes, st.booleans(), st.booleans())
    def check(chunks: list[bytes], max_size: Any, eof: bool, debug: bool) -> None:
        compare(side, chunks, eof=eof, extensions=extensions, max_size=max_size, debug=debug)

    check()


MASKED_STREAMS = {
    "messages": wire(0x81, b"a", mask=True) + wire(0x82, b"b" * 300, mask=True),
    "fragments": b"".join(wire(first, b"abc", mask=True) for first in (0x01, 0x00, 0x89, 0x80)),
    "too big": wire(0x81, b"a", mask=True) + wire(0x82, b"b" * 20, mask=True),
    "too big together": wire(0x01, b"a" * 9, mask=True) + wire(0x80, b"b" * 9, mask=True),
    "too big for a ping": wire(0x01, b"a" * 9, mask=True) + wire(0x89, b"b" * 9, mask=True),
    "close": wire(0x81, b"a", mask=True)
    + wire(0x88, b"\x03\xe8bye", mask=True)
    + wire(0x81, b"late", mask=True),
    "close of one byte": wire(0x81, b"a", mask=True) + wire(0x88, b"\x03", mask=True),
    "close with a bad code": wire(0x88, b"\x03\xee", mask=True),
    "close with bad UTF-8": wire(0x88, b"\x03\xe8\xff", mask=True),
    "close in a message": wire(0x01, b"a", mask=True) + wire(0x88, b"\x03\xe8", mask=True),
    "long length of a short frame": b"".join(
        wire(0x81, b"abc", mask=True, form=form) for form in (2, 8, 1)
    ),
    "enormous": wire(0x81, b"a", mask=True) + wire(0x82, b"", mask=True, length=1 << 63),
    "unmasked": wire(0x81, b"a", mask=True) + wire(0x81, b"b", mask=False),
    "reserved opcode": wire(0x81, b"a", mask=True) + wire(0x83, b"b", mask=True),
    "reserved bit": wire(0x81, b"a", mask=True) + wire(0xC1, b"b", mask=True),
    "reserved bit of a ping": wire(0x81, b"a", mask=True) + wire(0xC9, b"b", mask=True),
    "long ping": wire(0x81, b"a", mask=True) + wire(0x89, b"b" * 126, mask=True),
    "fragmented ping": wire(0x81, b"a", mask=True) + wire(0x09, b"b", mask=True),
    "nothing to continue": wire(0x81, b"a", mask=True) + wire(0x80, b"b", mask=True),
    "unfinished": wire(0x01, b"a", mask=True) + wire(0x81, b"b", mask=True),
}


@pytest.mark.parametrize("step", [1, 2, 3, 7, 1000])
@pytest.mark.parametrize("name", MASKED_STREAMS)
def test_same_byte_by_byte(name: str, step: int) -> None:
    data = MASKED_STREAMS[name]
    max_size = 16 if name.startswith("too big") else 1000
    chunks = [data[i : i + step] for i in range(0, len(data), step)]
    for eof, end in itertools.product((False, True), range(len(chunks) + 1)):
        compare(SERVER, chunks[:end], eof=eof, max_size=max_size, debug=True)


@pytest.mark.parametrize("extensions", EXTENSIONS)
@pytest.mark.parametrize("side", Side)
def test_same_for_each_reserved_bit(side: Side, extensions: str) -> None:
    mask = side is SERVER
    for bits, opcode, size in itertools.product(range(8), (0, 1, 2, 8, 9, 10), (0, 2)):
        payload = b"\x03\xe8"[:size]
        before = wire(0x81, b"a", mask=mask) if opcode else wire(0x01, b"a", mask=mask)
        bad = wire(0x80 | bits << 4 | opcode, payload, mask=mask)
        (outcome,) = compare(side, [before + bad], eof=False, extensions=extensions)
        if extensions == "none" and bits:
            assert outcome["error"][:2] == (ProtocolError, "reserved bits must be 0")
            assert len(outcome["events"]) == 1


@pytest.mark.parametrize("side", Side)
@pytest.mark.parametrize("size", [0, 1, 14, 15, 125, 126, 65535, 65536, 200_000])
def test_same_end_in_a_frame(side: Side, size: int) -> None:
    data = wire(0x82, bytes(size), mask=side is SERVER)
    for end in {0, 1, 2, 3, 6, 9, 13, 14, 15, 16, len(data) // 2, len(data) - 1, len(data)}:
        compare(side, [data[:end][:5000], data[:end][5000:]])


def test_same_for_a_limit_that_changes() -> None:
    """A message that is announced too large is refused before it arrives, whatever the limit was
    before."""

    def lower(protocol: Protocol) -> None:
        protocol.max_message_size = 10

    def lift(protocol: Protocol) -> None:
        protocol.max_message_size = None

    frame = wire(0x82, bytes(50), mask=True)
    for change, limit in itertools.product((lower, lift), (20, 100, None)):
        for end in (9, 20, len(frame)):
            compare(SERVER, [frame[:end]], max_size=limit, prepare=change)


@pytest.mark.parametrize("max_size", [-1, (None, -1), (5, -1), 1.5])
def test_same_for_strange_limits(max_size: Any) -> None:
    def change(protocol: Protocol) -> None:
        if max_size == 1.5:
            protocol.max_message_size = max_size

    data = wire(0x82, b"", mask=True) + wire(0x82, b"ab", mask=True)
    compare(SERVER, [data], max_size=None if max_size == 1.5 else max_size, prepare=change)


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_same_for_any_buffer(kind: Any) -> None:
    data = wire(0x81, b"abc", mask=True) * 2
    compare(SERVER, [kind(data[:3]), kind(data[3:12]), data[12:], kind(data)])


@pytest.mark.parametrize("side", Side)
def test_payloads_are_bytes(side: Side) -> None:
    for data in (b"", b"abc", bytes(70_000)):
        protocol = KINDS[side][1](URI, state=OPEN) if side is CLIENT else KINDS[side][1](state=OPEN)
        protocol.receive_data(wire(0x82, data, mask=side is SERVER))
        (frame,) = protocol.events_received()
        assert type(frame.data) is bytes  # type: ignore[union-attr]


def test_same_error_for_what_is_no_buffer() -> None:
    for kind in KINDS[SERVER]:
        with pytest.raises(TypeError, match="can't concat str to bytearray"):
            kind(state=OPEN).receive_data("text")  # type: ignore[arg-type]


def test_same_after_the_end() -> None:
    for kind in KINDS[SERVER]:
        protocol = kind(state=OPEN)
        protocol.receive_eof()
        protocol.receive_eof()
        with pytest.raises(EOFError, match="stream ended"):
            protocol.receive_data(b"x")
        assert str(protocol.close_exc) == "no close frame received or sent"


@pytest.mark.parametrize("side", Side)
def test_same_after_fail_in_a_frame(side: Side) -> None:
    """The rest is discarded, not kept."""
    ends = [End(kind, side, "none", None, True) for kind in KINDS[side]]
    data = wire(0x82, bytes(1000), mask=side is SERVER)
    for end in ends:
        end.protocol.receive_data(data[:500])
        end.protocol.fail(1008, "enough")
        end.protocol.receive_data(data[500:] * 2)
        end.protocol.receive_eof()
    theirs, mine = (end.outcome() for end in ends)
    assert mine == theirs
    assert mine["events"] == []
    assert not ends[1].protocol.reader.buffer


def test_errors_of_a_subclass_are_reported_as_before() -> None:
    """An extension that processes frames itself, and stops or fails while doing so."""

    def outcome(kind: Any, action: str) -> tuple[Any, ...]:
        class Picky(kind):  # type: ignore[misc]
            def recv_frame(self, frame: Frame) -> None:
                if frame.data == b"stop":
                    if action == "fail":
                        self.fail(1008, "as I like")
                    else:
                        raise (ProtocolError if action == "protocol" else OSError)("as I like")
                super().recv_frame(frame)

        logger = logging.Logger("picky")
        logger.addHandler(log := Log())
        protocol = Picky(state=OPEN, logger=logger)
        data = b"".join(wire(0x81, part, mask=True) for part in (b"a", b"stop", b"b"))
        protocol.receive_data(data)
        protocol.receive_data(data)
        exc = protocol.parser_exc
        return (
            protocol.events_received(),
            protocol.data_to_send(),
            type(exc),
            str(exc),
            protocol.state,
            log.lines,
        )

    for action in ("fail", "protocol", "other"):
        theirs, mine = (outcome(kind, action) for kind in KINDS[SERVER])
        assert mine == theirs


def test_frames_right_after_the_handshake() -> None:
    """They arrive in the same read as the request or the response."""
    request = b"\r\n".join(
        [
            b"GET / HTTP/1.1",
            b"Host: localhost",
            b"Upgrade: websocket",
            b"Connection: Upgrade",
            b"Sec-WebSocket-Key: " + b"A" * 22 + b"==",
            b"Sec-WebSocket-Version: 13",
            b"\r\n",
        ]
    )
    outcomes = []
    for server_kind, client_kind in zip(KINDS[SERVER], KINDS[CLIENT], strict=True):
        server = server_kind()  # type: ignore[call-arg]
        server.receive_data(request + wire(0x81, b"early", mask=True) + b"\x81")
        first, *rest = server.events_received()
        response = server.accept(first)
        response.headers.pop("Date")
        server.send_response(response)
        server.receive_data(wire(0x82, b"x", mask=True)[1:])
        answer = b"".join(server.data_to_send())

        client = client_kind(URI)  # type: ignore[call-arg]
        client.key = "A" * 22 + "=="
        client.receive_data(answer + wire(0x81, b"welcome", mask=False))
        outcomes.append([rest, server.events_received(), client.events_received()[1:]])
    assert outcomes[0] == outcomes[1] != [[], [], []]


def test_keeps_no_message_when_idle() -> None:
    class Sensed(bytearray):
        """Supports weak references."""

    protocol = ours.ServerProtocol(state=OPEN)
    seen = []

    class Kept(Extension):
        name = "x-kept"

        def decode(self, frame: Frame, *, max_size: int | None = None) -> Frame:
            data = Sensed(frame.data)
            seen.append(weakref.ref(data))
            return Frame(frame.opcode, data, frame.fin)

    protocol.extensions = [Kept()]
    protocol.receive_data(wire(0x82, b"abc", mask=True) * 3)
    protocol.events_received()
    gc.collect()
    assert [ref() for ref in seen] == [None] * 3


# Writing ------------------------------------------------------------------------------


@pytest.mark.parametrize("extensions", EXTENSIONS)
@pytest.mark.parametrize("mask", [False, True])
@pytest.mark.parametrize("size", [0, 1, 125, 126, 65535, 65536, 100_000])
def test_writes_the_same(mask: bool, extensions: str, size: int) -> None:
    data = bytes(range(256)) * (size // 256) + bytes(size % 256)
    for opcode, kind in itertools.product(Opcode, [bytes, bytearray, memoryview]):
        for fin in (True, False):
            if opcode >= 8 and (size > 125 or not fin):
                continue
            frame = Frame(opcode, kind(data), fin)
            made, expected = EXTENSIONS[extensions](), EXTENSIONS[extensions]()
            if opcode is Opcode.CONT:  # begin the message
                begin = Frame(Opcode.TEXT, b"abc", False)
                ours._serialize(begin, mask=mask, extensions=made)
                begin.serialize(mask=mask, extensions=expected)
            written = ours._serialize(frame, mask=mask, extensions=made)
            assert type(written) is bytes
            assert written == frame.serialize(mask=mask, extensions=expected)


def write_both(frame: Frame, **options: Any) -> list[Any]:
    """Return what each protocol writes or raises."""
    outcomes: list[Any] = []
    for write in (ours._serialize, ours._their_serialize):
        try:
            outcomes.append(write(frame, **options))
        except Exception as exc:
            outcomes.append((type(exc), str(exc)))
    return outcomes


@pytest.mark.parametrize(
    "frame",
    [
        Frame(Opcode.PING, bytes(126)),
        Frame(Opcode.PING, b"", fin=False),
        Frame(Opcode.TEXT, b"", rsv1=True),
        Frame(Opcode.TEXT, b"", rsv3=True),
        Frame(3, b"abc"),  # type: ignore[arg-type]
        Frame(1, b"abc"),  # type: ignore[arg-type]
        Frame(Opcode.TEXT, "text"),  # type: ignore[arg-type]
        Frame(Opcode.TEXT, None),  # type: ignore[arg-type]
        Frame(Opcode.BINARY, memoryview(bytes(20))[::2]),
        Frame(Opcode.BINARY, memoryview(bytes(20)).cast("I")),
        Frame(Opcode.BINARY, memoryview(bytes(20)).cast("B", (4, 5))),
    ],
)
@pytest.mark.parametrize("mask", [False, True])
def test_writes_what_is_odd_as_before(frame: Frame, mask: bool) -> None:
    mine, theirs = write_both(frame, mask=mask)
    assert mine == theirs


@pytest.mark.parametrize("mask", [False, True])
def test_writes_whatever_an_extension_makes(mask: bool) -> None:
    class Anything(Extension):
        name = "x-anything"

        def __init__(self, made: Frame) -> None:
            self.made = made

        def encode(self, frame: Frame) -> Frame:
            return self.made

    for made in (
        Frame(Opcode.PING, bytes(126)),
        Frame(Opcode.PING, bytes(70_000), False),
        *(
            Frame(Opcode.TEXT, b"abc", True, *bits)
            for bits in itertools.product((True, False), repeat=3)
        ),
        Frame(Opcode.TEXT, memoryview(bytes(20))[::2], False, True),
        Frame(11, b"abc", True, True),  # type: ignore[arg-type]
    ):
        extensions = [Anything(made)]
        mine, theirs = write_both(Frame(Opcode.TEXT, b""), mask=mask, extensions=extensions)
        assert mine == theirs


def test_draws_a_key_for_each_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    client = ours.ClientProtocol(URI, state=OPEN)
    for _ in range(50):
        client.send_binary(bytes(8))
    keys = {frame[2:6] for frame in client.data_to_send()}
    assert len(keys) > 45
    assert all(len(key) == 4 for key in keys)


# Installing ---------------------------------------------------------------------------


def test_installs() -> None:
    before = Protocol.parse, Frame.serialize, Frame.parse
    assert before[:2] == (ours._their_parse, ours._their_serialize)
    with ours.install() as handle:
        assert handle.version == websockets.__version__
        assert integrations.installed() == ["websockets"]
        assert ours.install() is handle
        assert Protocol.parse is ours._parse
        assert Frame.serialize is ours._serialize
        assert Frame.parse == before[2]
        protocol = ServerProtocol(state=OPEN)
        protocol.receive_data(wire(0x81, b"abc", mask=True)[:5])
    assert (Protocol.parse, Frame.serialize, Frame.parse) == before
    # Connections that were opened in the meantime go on.
    protocol.receive_data(wire(0x81, b"abc", mask=True)[5:])
    assert protocol.events_received() == [Frame(Opcode.TEXT, b"abc")]


def test_replaces_nothing_where_nothing_is_gained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ours, "_gains", False)
    with ours.install() as handle:
        assert handle.active
        assert Protocol.parse is ours._their_parse
        assert Frame.serialize is ours._their_serialize


@pytest.mark.filterwarnings("ignore:websockets.legacy is deprecated")
def test_installed_in_the_legacy_implementation() -> None:
    from websockets.legacy import framing

    frame = framing.Frame(True, Opcode.BINARY, b"abc")
    written: list[bytes] = []
    frame.write(written.append, mask=True)
    with ours.install():
        frame.write(written.append, mask=True)
    assert written[0] == written[1] == wire(0x82, b"abc", mask=True)


@pytest.mark.parametrize(
    "break_it", ["fastws.integrations.websockets.FrameDecoder.feed", "the wrong bytes"]
)
def test_check_notices(break_it: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if break_it == "the wrong bytes":
        wrong = ours.encode_frame
        monkeypatch.setattr(
            ours, "encode_frame", lambda opcode, data, **kw: wrong(opcode, data[1:], **kw)
        )
    else:
        monkeypatch.setattr(ours, "_deliver", lambda *args: 0)
    with pytest.raises(integrations.IntegrationError, match="fastws does not work in websockets"):
        ours.install()
    assert Protocol.parse is ours._their_parse


def test_check_notices_a_wrong_close(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Close, "parse", classmethod(lambda cls, data: cls(1001, "other")))
    with pytest.raises(integrations.IntegrationError, match="close frame"):
        ours.install()


# Connections --------------------------------------------------------------------------


async def echo(ws: Any) -> None:
    async for message in ws:
        await ws.send(message)


def converse(ws: Any) -> None:
    """What any echo server of websockets does, tested with a synchronous client."""
    for message in ["", "fast", "w€bsöckets 🚀" * 999, b"", b"\x00\xff" * 40_000, b"x" * 1_000_000]:
        ws.send(message)
        answer = ws.recv()
        assert answer == message
        assert type(answer) is type(message)
    ws.send(["in ", "three ", "parts"])
    assert ws.recv() == "in three parts"
    for number in range(200):  # many in one read
        ws.send(str(number))
    assert [ws.recv() for _ in range(200)] == [str(number) for number in range(200)]
    assert ws.ping(b"are you there?").wait(10)


def test_connections_without_installing() -> None:
    async def run() -> None:
        async with asyncio_serve(
            echo,
            "127.0.0.1",
            0,
            create_connection=ours.ServerConnection,
            subprotocols=["b"],
            select_subprotocol=lambda connection, offered: (
                "b" if isinstance(connection.protocol, ours.ServerProtocol) else None
            ),
        ) as server:
            port = server.sockets[0].getsockname()[1]
            for compression in ("deflate", None):
                async with asyncio_connect(
                    f"ws://127.0.0.1:{port}",
                    create_connection=ours.ClientConnection,
                    subprotocols=["a", "b"],
                    compression=compression,
                ) as ws:
                    assert type(ws.protocol) is ours.ClientProtocol
                    assert ws.subprotocol == "b"
                    assert ws.protocol.logger is ws.logger
                    for message in ("text €", b"binary" * 20_000):
                        await ws.send(message)
                        assert await ws.recv() == message
                    await (await ws.ping())
                assert ws.close_code == 1000

    asyncio.run(run())
    assert integrations.installed() == []


def test_connections_leave_other_protocols_alone() -> None:
    class Special(ServerProtocol):
        pass

    class SpecialClient(ClientProtocol):
        pass

    async def run() -> None:
        server = Special()
        assert ours.ServerConnection(server, None).protocol is server  # type: ignore[arg-type]
        client = SpecialClient(URI)
        assert ours.ClientConnection(client).protocol is client

    asyncio.run(run())


@contextmanager
def threading_server(**options: Any) -> Iterator[int]:
    def handler(ws: Any) -> None:
        for message in ws:
            ws.send(message)

    with sync_serve(handler, "127.0.0.1", 0, **options) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.socket.getsockname()[1]
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize("compression", ["deflate", None])
def test_threading_implementation(compression: str | None) -> None:
    with ours.install(), threading_server() as port:
        with connect(f"ws://127.0.0.1:{port}", compression=compression) as ws:
            assert ws.protocol.reader.ours
            converse(ws)
        assert ws.close_code == 1000


# Servers as processes -----------------------------------------------------------------

INSTALL = "import fastws.integrations.websockets; fastws.integrations.websockets.install()\n"

SERVERS = {
    "asyncio": """
import asyncio
from websockets.asyncio.server import serve
async def echo(ws):
    async for message in ws:
        await ws.send(message)
async def main():
    async with serve(echo, "127.0.0.1", PORT, max_size=2_000_000):
        await asyncio.get_running_loop().create_future()
asyncio.run(main())
""",
    "create_connection": """
import asyncio
from fastws.integrations.websockets import ServerConnection
from websockets.asyncio.server import serve
async def echo(ws):
    async for message in ws:
        await ws.send(message)
async def main():
    async with serve(
        echo, "127.0.0.1", PORT, max_size=2_000_000, create_connection=ServerConnection
    ):
        await asyncio.get_running_loop().create_future()
asyncio.run(main())
""",
    "threading": """
from websockets.sync.server import serve
def echo(ws):
    for message in ws:
        ws.send(message)
with serve(echo, "127.0.0.1", PORT, max_size=2_000_000) as server:
    server.serve_forever()
""",
    "uvicorn": """
import uvicorn
async def app(scope, receive, send):
    await receive()
    await send({"type": "websocket.accept"})
    while (event := await receive())["type"] == "websocket.receive":
        kind = "text" if event.get("text") is not None else "bytes"
        await send({"type": "websocket.send", kind: event[kind]})
uvicorn.run(app, port=PORT, lifespan="off", ws="WS", ws_max_size=2_000_000, log_level="error")
""",
    "sanic": """
from sanic import Sanic
app = Sanic("echo", configure_logging=False)
@app.websocket("/")
async def echo(request, ws):
    async for message in ws:
        await ws.send(message)
app.config.WEBSOCKET_MAX_SIZE = 2_000_000
app.run("127.0.0.1", PORT, single_process=True, motd=False, access_log=False)
""",
}


@contextmanager
def started(script: str, install: bool) -> Iterator[Any]:
    """Run a server in a process of its own; yield a function that connects."""
    port = free_port()
    check = "import fastws.integrations as i; print(i.installed(), flush=True)\n"
    script = (INSTALL if install else "") + check + script.replace("PORT", str(port))
    with Program(sys.executable, "-c", script) as program:
        assert program.line() == ("['websockets']" if install else "[]")
        program.wait_for_port(port)
        yield lambda **options: connect(
            f"ws://127.0.0.1:{port}/", max_size=None, ping_interval=None, **options
        )


@pytest.mark.parametrize(
    ("name", "ws"),
    [
        ("asyncio", ""),
        ("create_connection", ""),
        ("threading", ""),
        ("uvicorn", "auto"),
        ("uvicorn", "websockets-sansio"),
        ("sanic", ""),
    ],
)
def test_servers(name: str, ws: str) -> None:
    install = name != "create_connection"
    with started(SERVERS[name].replace("WS", ws), install) as connected:
        for compression in ("deflate", None):
            with connected(compression=compression) as client:
                converse(client)
            assert client.close_code == 1000

        for code, data in (
            (1009, wire(0x82, b"", mask=True, length=2_000_001)),
            (
                1009,
                wire(0x02, bytes(1_500_000), mask=True) + b"\x80\xff" + bytes(5) + b"\x16\xe3\x60",
            ),
            (1002, wire(0x83, b"reserved", mask=True)),
            (1002, wire(0x81, b"not masked", mask=False)),
            (1002, wire(0x80, b"continues nothing", mask=True)),
            (1007, wire(0x81, b"\xff", mask=True)),
        ):
            if name == "sanic" and code == 1007:
                continue  # it does not notice, as without fastws
            with connected(compression=None) as client:
                client.send("before")
                assert client.recv() == "before"
                client.socket.sendall(wire(0x89, b"p", mask=True) + data)
                with pytest.raises(ConnectionClosedError) as caught:
                    client.recv(timeout=10)
            assert caught.value.rcvd is not None
            assert caught.value.rcvd.code == code

        with connected(compression=None) as client:
            client.close(3001, "enough")
        with pytest.raises((ConnectionClosedOK, ConnectionClosedError)) as closed:
            client.recv()
        assert closed.value.rcvd == Close(3001, "enough")


def test_clients_against_fastws() -> None:
    async def run(url: str) -> None:
        async with asyncio_connect(url) as ws:
            for message in ("text €", b"binary" * 20_000, ""):
                await ws.send(message)
                assert await ws.recv() == message

    with Echo() as server, ours.install():
        asyncio.run(run(server.url))
        for compression in ("deflate", None):
            with connect(server.url, compression=compression, max_size=None) as client:
                converse(client)
        assert frames.Frame.serialize is ours._serialize
