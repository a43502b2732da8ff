"""The contenders in the cases of the codec, and how each one is called.

This module knows the APIs of the peers. Each contender is used in the fastest way that its API
allows and, if it makes no difference, without the parts that belong to sockets. A peer that is
not installed has a reason, which the caller reports.

Peers without a decoder that can be called separately (tornado's reads from its own stream) take
part with what they have, and with their servers in `bench.echo`.
"""

from __future__ import annotations

import asyncio
import io
import logging
import os
import sys
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from itertools import repeat
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any

from .payloads import KEY, READ, VOLUME, Stream, count, payload

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import ModuleType

    # What a case calls repeatedly; it returns what the case compares.
    Call = Callable[[], Any]

UNLIMITED = 64 << 20  # for peers that need a limit


@dataclass(frozen=True)
class Contender:
    """A contender in a kind of case.

    Attributes:
        make: returns the call to measure, given the parameters of the case; None if the case
            does not apply.
        needs: the modules that it requires.
        reference: whether it is not a peer, but a reference for peers and fastws.
    """

    name: str
    make: Callable[..., Any]
    needs: Sequence[str] = ()
    reference: bool = False

    @property
    def missing(self) -> str | None:
        return _missing(tuple(self.needs))

    def __str__(self) -> str:
        return self.name


@lru_cache
def _missing(modules: tuple[str, ...]) -> str | None:
    for name in modules:
        try:
            import_module(name)
        except ImportError as exc:
            return str(exc)
    return None


# Libraries with an accelerator, and the modules of it that are called here.
_VARIANTS = {
    "fastws": ["fastws", "fastws.session"],
    "websocket": ["websocket", "websocket._abnf", "websocket._utils"],
    "websockets": [
        "websockets.protocol",
        "websockets.server",
        "websockets.extensions.permessage_deflate",
    ],
}


def variant(module: str, without: tuple[str, ...] = (), impl: str | None = None) -> ModuleType:
    """Return a module as it is, or as it would be if others were not installed.

    One process can use both variants of a library.
    """
    if not without and impl is None:
        return import_module(module)
    return _variant(module.partition(".")[0], without, impl)[module]


@lru_cache
def _variant(package: str, without: tuple[str, ...], impl: str | None) -> dict[str, ModuleType]:
    def loaded() -> list[str]:
        return [name for name in sys.modules if name.partition(".")[0] == package]

    before = {name: sys.modules.pop(name) for name in loaded()}
    blocked = {name: sys.modules.get(name) for name in without}
    environment = dict(os.environ)
    sys.modules.update(dict.fromkeys(without))  # None makes an import raise ImportError
    if impl is not None:
        os.environ["FASTWS_IMPL"] = impl
        os.environ.pop("FASTWS_KERNEL", None)
    try:
        return {name: import_module(name) for name in _VARIANTS[package]}
    finally:
        for name in {*loaded(), *without}:
            sys.modules.pop(name, None)
        sys.modules.update({name: value for name, value in blocked.items() if value is not None})
        sys.modules.update(before)
        os.environ.clear()
        os.environ.update(environment)


# fastws: the twins, and the accelerated one with every set of kernels ------------------------

C = "fastws._c.messages"


def kernels() -> tuple[str, ...]:
    """The sets of kernels that can run here, starting with the best."""
    try:
        return import_module("fastws._c.kernel").available()
    except ImportError:
        return ()


def use_kernel(name: str | None = None) -> None:
    """Use these kernels, by default the best."""
    if names := kernels():
        import_module("fastws._c.kernel").use(name or names[0])


KERNELS = kernels()
BEST = f"fastws-{KERNELS[0] if KERNELS else 'c'}"
PURE = "fastws-py"


def ours(make: Callable[..., Any]) -> list[Contender]:
    """The contenders that `make(twin, …)` creates."""

    def with_kernel(kernel: str | None) -> Callable[..., Any]:
        def made(*args: Any) -> Any:
            use_kernel(kernel)
            return make("c", *args)

        return made

    accelerated = [
        Contender(f"fastws-{name or 'c'}", with_kernel(name), [C]) for name in KERNELS or (None,)
    ]
    return [*accelerated, Contender(PURE, lambda *args: make("py", *args))]


def twin_module(twin: str, name: str) -> ModuleType:
    return import_module(f"fastws._{twin}.{name}")


# Masking: make(size) -> a call that returns the masked bytes -----------------------------------


def repeats(size: int) -> int:
    """How often to call a function at once: one call takes about the clock's resolution."""
    return max(1, min(1000, VOLUME // size))


def repeated(function: Callable[..., Any], *args: Any, times: int) -> Call:
    """Calls a function repeatedly; the figure includes the loop, about 5 ns."""

    def call() -> Any:
        for _ in repeat(None, times):
            result = function(*args)
        return result

    return call


def mask_ours(twin: str, size: int) -> Call:
    mask = twin_module(twin, "masking").apply_mask
    return repeated(mask, payload("binary", size), KEY, times=repeats(size))


def mask_websockets(size: int) -> Call:
    mask = import_module("websockets.speedups").apply_mask
    return repeated(mask, payload("binary", size), KEY, times=repeats(size))


def mask_websockets_py(size: int) -> Call:
    mask = import_module("websockets.utils").apply_mask
    return repeated(mask, payload("binary", size), KEY, times=repeats(size))


def mask_tornado(size: int) -> Call:
    mask = import_module("tornado.speedups").websocket_mask
    return repeated(mask, KEY, payload("binary", size), times=repeats(size))


def mask_wsaccel(size: int) -> Call:
    masker = import_module("wsaccel.xormask").XorMaskerSimple
    data = payload("binary", size)
    return repeated(lambda: masker(KEY).process(data), times=repeats(size))


def mask_wsproto(size: int) -> Call:
    masker = import_module("wsproto.frame_protocol").XorMaskerSimple
    data = bytearray(payload("binary", size))
    return repeated(lambda: masker(KEY).process(data), times=repeats(size))


WITHOUT_WSACCEL = ("wsaccel", "wsaccel.xormask", "wsaccel.utf8validator")


def mask_websocket_client(accelerated: bool) -> Callable[[int], Call]:
    def make(size: int) -> Call:
        abnf = variant("websocket._abnf", () if accelerated else WITHOUT_WSACCEL)
        return repeated(abnf.ABNF.mask, KEY, payload("binary", size), times=repeats(size))

    return make


def copy(size: int) -> Call:
    return repeated(bytes, bytearray(payload("binary", size)), times=repeats(size))


MASKERS = [
    *ours(mask_ours),
    Contender("websockets", mask_websockets, ["websockets.speedups"]),
    Contender("websockets-py", mask_websockets_py, ["websockets.utils"]),
    Contender("tornado", mask_tornado, ["tornado.speedups"]),
    Contender("wsaccel", mask_wsaccel, ["wsaccel.xormask"]),
    Contender("websocket-client", mask_websocket_client(False), ["websocket"]),
    Contender("websocket-client+wsaccel", mask_websocket_client(True), ["websocket", "wsaccel"]),
    Contender("wsproto", mask_wsproto, ["wsproto.frame_protocol"]),
    Contender("memcpy", copy, reference=True),
]


# Masking in place: make(buffer) -> a call that masks it, an odd number of times ----------------


def odd(size: int) -> int:
    return repeats(size) | 1


def inplace_ours(twin: str, buffer: bytearray) -> Call:
    mask = twin_module(twin, "masking").apply_mask_inplace
    return repeated(mask, buffer, KEY, times=odd(len(buffer)))


def inplace_aiohttp(buffer: bytearray) -> Call:
    mask = import_module("aiohttp._websocket.mask")._websocket_mask_cython
    return repeated(mask, KEY, buffer, times=odd(len(buffer)))


def inplace_nvx(buffer: bytearray) -> Call:
    # The masker keeps its place in the key. All our sizes but one are multiples of four, and
    # resetting it is part of using it.
    masker = import_module("autobahn.nvx._xormasker").XorMaskerNvx(KEY)
    lib, handle = masker.lib, masker._masker
    pointer = masker.ffi.from_buffer("uint8_t[]", buffer)
    size = len(buffer)

    def mask() -> None:
        lib.nvx_xormask_reset(handle)
        lib.nvx_xormask_process(handle, pointer, size)

    return repeated(mask, times=odd(size))


def inplace_numpy(buffer: bytearray) -> Call | None:
    """A pass over memory in place, by compiled loops that do not rotate keys.

    Copying memory onto itself is no use as the limit: libc detects it and does nothing.
    """
    if len(buffer) % 8:
        return None
    numpy = import_module("numpy")
    words = numpy.frombuffer(buffer, "uint64")
    key = numpy.frombuffer(KEY * 2, "uint64")[0]
    xor = numpy.bitwise_xor
    return repeated(lambda: xor(words, key, out=words), times=odd(len(buffer)))


def copy_over(buffer: bytearray) -> Call:
    view, other = memoryview(buffer), bytes(len(buffer))

    def write() -> None:
        view[:] = other

    return repeated(write, times=odd(len(buffer)))


MASKERS_IN_PLACE = [
    *ours(inplace_ours),
    Contender("aiohttp", inplace_aiohttp, ["aiohttp._websocket.mask"]),
    Contender("nvx", inplace_nvx, ["autobahn.nvx._xormasker", "_nvx_xormasker"]),
    Contender("numpy", inplace_numpy, ["numpy"], reference=True),
    Contender("memcpy", copy_over, reference=True),
]


# UTF-8: make(data) -> a call that tells whether it is valid -----------------------------------


def valid_ours(twin: str, data: bytes) -> Call:
    return repeated(twin_module(twin, "utf8").is_utf8, data, times=repeats(len(data)))


def valid_wsaccel(data: bytes) -> Call:
    validator = import_module("wsaccel.utf8validator").Utf8Validator

    def validate() -> bool:
        valid, complete, _, _ = validator().validate(data)
        return valid and complete

    return repeated(validate, times=repeats(len(data)))


def valid_nvx(data: bytes) -> Call:
    validator = import_module("autobahn.nvx").Utf8Validator()  # autobahn keeps one too

    def validate() -> bool:
        validator.reset()
        valid, complete, _, _ = validator.validate(data)
        return valid and complete

    return repeated(validate, times=repeats(len(data)))


def valid_websocket_client(data: bytes) -> Call:
    validate = variant("websocket._utils", WITHOUT_WSACCEL).validate_utf8
    return repeated(validate, data, times=repeats(len(data)))


def valid_decode(data: bytes) -> Call:
    def validate() -> bool:
        data.decode()
        return True

    return repeated(validate, times=repeats(len(data)))


VALIDATORS = [
    *ours(valid_ours),
    Contender("wsaccel", valid_wsaccel, ["wsaccel.utf8validator"]),
    Contender("nvx", valid_nvx, ["autobahn.nvx", "_nvx_utf8validator"]),
    Contender("websocket-client", valid_websocket_client, ["websocket"]),
    Contender("bytes.decode", valid_decode),
]


# Unmask and decode: make(masked) -> a call that returns the str -------------------------------


def text_ours(twin: str, masked: bytes) -> Call:
    decode = twin_module(twin, "utf8").decode_utf8
    return repeated(decode, masked, KEY, times=repeats(len(masked)))


def text_cpython(masked: bytes) -> Call:
    mask = import_module("fastws._c.masking").apply_mask
    return repeated(lambda: mask(masked, KEY).decode(), times=repeats(len(masked)))


TEXT_DECODERS = [
    *ours(text_ours),
    Contender("unmask+bytes.decode", text_cpython, [C]),
]


# Decode: make(stream) -> a call that returns how many messages there were, and the last -------


def decode_ours(twin: str, stream: Stream) -> Call:
    feed = twin_module(twin, "messages").MessageDecoder(masked=True, max_message_size=None).feed
    reads = stream.reads

    def decode() -> tuple[int, object]:
        messages = 0
        for read in reads:
            if events := feed(read):
                messages += len(events)
                last = events[-1]
        return messages, last

    return decode


def decode_in_pieces(twin: str, stream: Stream, piece: int) -> Call:
    decoder = twin_module(twin, "messages").MessageDecoder
    pieces = [stream.data[i : i + piece] for i in range(0, len(stream.data), piece)]

    def decode() -> int:
        feed = decoder(masked=True, max_message_size=None).feed
        return sum([len(feed(piece)) for piece in pieces])

    return decode


def decode_websockets(without: tuple[str, ...] = ()) -> Callable[[Stream], Call]:
    def make(stream: Stream) -> Call:
        protocol = variant("websockets.protocol", without)
        peer = protocol.Protocol(protocol.Side.SERVER, max_size=None)
        is_text = stream.kind != "binary"

        def decode() -> tuple[int, object]:
            messages = 0
            for read in stream.reads:
                peer.receive_data(read)
                if is_text:
                    # Its upper layers do this: frames contain bytes.
                    events = [frame.data.decode() for frame in peer.events_received()]
                else:
                    events = [frame.data for frame in peer.events_received()]
                if events:
                    messages += len(events)
                    last = events[-1]
            return messages, last

        return decode

    return make


def decode_wsproto(stream: Stream) -> Call:
    connection = import_module("wsproto.connection")
    peer = connection.Connection(connection.ConnectionType.SERVER)

    def decode() -> tuple[int, object]:
        messages = 0
        parts: list[Any] = []
        for read in stream.reads:
            peer.receive_data(read)
            for event in peer.events():
                # It returns parts of a message; joining them is up to the caller.
                parts.append(event.data)
                if event.message_finished:
                    messages += 1
                    last = parts[0] if len(parts) == 1 else parts[0][:0].join(parts)
                    parts.clear()
        return messages, last

    return decode


class _NeverPaused:
    """The part of aiohttp's protocol that its reader needs; reading is never paused."""

    _reading_paused = _paused = False

    def pause_reading(self) -> None:
        raise AssertionError("the limit was to be out of reach")


def decode_aiohttp(stream: Stream) -> Call:
    reader = import_module("aiohttp._websocket.reader_c")
    protocol = _NeverPaused()

    def decode() -> tuple[int, object]:
        # A queue accepts no messages when it is full, and only a coroutine empties it. Avoid that
        # by creating a new one each time.
        queue = reader.WebSocketDataQueue(protocol, UNLIMITED, loop=None)
        feed = reader.WebSocketReader(queue, 0, False, True).feed_data
        for read in stream.reads:
            feed(read)
        return len(queue._buffer), queue._buffer[-1][0].data

    return decode


class _Transport:
    """Keeps what is written."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.write = self.written.append
        self.writelines = self.written.extend

    def is_closing(self) -> bool:
        return False


class _Socket(_Transport):
    """The parts of a socket and its transport that picows uses; it cannot send."""

    def __init__(self) -> None:
        super().__init__()
        # It reports that earlier data is unsent: otherwise picows would call the system.
        self.get_write_buffer_size = (1).__index__

    def get_extra_info(self, name: str) -> Any:
        return self if name == "socket" else None

    def setsockopt(self, *args: int) -> None:
        pass

    def getsockopt(self, *args: int) -> int:
        return 0

    def fileno(self) -> int:
        return -1


# As Chromium sends it; not every library accepts Firefox's `Connection: keep-alive, Upgrade`.
REQUEST = b"""\
GET /chat HTTP/1.1\r
Host: server.example.com\r
User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko)\
 Chrome/140.0.0.0 Safari/537.36\r
Accept: */*\r
Accept-Language: en-US,en;q=0.5\r
Accept-Encoding: gzip, deflate, br, zstd\r
Sec-WebSocket-Version: 13\r
Origin: http://server.example.com\r
Sec-WebSocket-Extensions: permessage-deflate\r
Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r
Connection: Upgrade\r
Pragma: no-cache\r
Cache-Control: no-cache\r
Upgrade: websocket\r
\r
"""


def picows_server(listener: Any) -> tuple[Any, _Socket]:
    """picows' protocol after the handshake, created like in its own server."""
    picows = import_module("picows.picows")
    silent = logging.Logger("silent", logging.CRITICAL)  # not in the table of all loggers
    socket = _Socket()

    async def make() -> Any:
        protocol = picows.WSProtocol(
            *(None, None, False, lambda request: listener, silent, True, None),
            *(False, 10, 10, picows.WSAutoPingStrategy.PING_WHEN_IDLE, True),
            *(UNLIMITED, None, READ),
        )
        protocol.connection_made(socket)
        receive_by_picows(protocol, REQUEST)
        return protocol

    with asyncio.Runner() as runner:
        protocol = runner.run(make())
    assert socket.written[0].startswith(b"HTTP/1.1 101 ")
    socket.written.clear()
    return protocol, socket


def receive_by_picows(protocol: Any, data: bytes) -> None:
    """Does the same as an event loop, but takes the bytes from memory."""
    view = memoryview(data)
    while view:
        buffer = protocol.get_buffer(-1)
        size = min(len(buffer), len(view))
        buffer[:size] = view[:size]
        protocol.buffer_updated(size)
        view = view[size:]


def decode_picows(stream: Stream) -> Call:
    picows = import_module("picows")
    messages: list[Any] = []
    if stream.kind == "binary":

        class Listener(picows.WSListener):
            def on_ws_frame(self, transport: Any, frame: Any) -> None:
                messages.append(frame.get_payload_as_bytes())
    else:

        class Listener(picows.WSListener):
            def on_ws_frame(self, transport: Any, frame: Any) -> None:
                messages.append(frame.get_payload_as_utf8_text())

    protocol, _ = picows_server(Listener())

    def decode() -> tuple[int, object]:
        number = 0
        for read in stream.reads:
            receive_by_picows(protocol, read)
            if messages:
                number += len(messages)
                last = messages[-1]
                messages.clear()
        return number, last

    def copied() -> int:
        # Only for picows, we copy into the buffer that the system would have filled; the others get
        # that for free. This is how long it takes.
        target = bytearray(READ)
        view = memoryview(target)
        best = 1 << 62
        for _ in range(10):
            begin = perf_counter_ns()
            for read in stream.reads:
                view[: len(read)] = read
            best = min(best, perf_counter_ns() - begin)
        return best

    decode.overhead = copied
    return decode


def decode_websocket_client(accelerated: bool) -> Callable[[Stream], Call]:
    def make(stream: Stream) -> Call:
        without = () if accelerated else WITHOUT_WSACCEL
        client = variant("websocket", without).WebSocket()
        frame_buffer = variant("websocket._abnf", without).frame_buffer

        def decode() -> tuple[int, object]:
            # It asks the system for exactly what it needs next, each time.
            client.frame_buffer = frame_buffer(io.BytesIO(stream.data).read, False)
            for _ in range(stream.count):
                last = client.recv()
            return stream.count, last

        return decode

    return make


def decode_cpython(stream: Stream) -> Call:
    mask = import_module("fastws._c.masking").apply_mask
    whole = memoryview(stream.data)
    groups = [[whole[i:j] for i, j in zip(*ends, strict=True)] for ends in stream.ends()]

    def decode() -> tuple[int, object]:
        for views in groups:
            messages = [mask(view, KEY).decode() for view in views]
        return stream.count, messages[-1]

    return decode


def decode_copy(stream: Stream) -> Call:
    copied = stream.data.__getitem__
    groups = [list(map(slice, *ends)) for ends in stream.ends()]

    def decode() -> tuple[int, object]:
        for slices in groups:
            messages = list(map(copied, slices))
        return stream.count, messages[-1]

    return decode


WITHOUT_SPEEDUPS = ("websockets.speedups",)

DECODERS = [
    *ours(decode_ours),
    Contender("picows", decode_picows, ["picows"]),
    Contender("aiohttp", decode_aiohttp, ["aiohttp._websocket.reader_c"]),
    Contender("websockets", decode_websockets(), ["websockets.speedups"]),
    Contender("websockets-py", decode_websockets(WITHOUT_SPEEDUPS), ["websockets"]),
    Contender("wsproto", decode_wsproto, ["wsproto"]),
    Contender("websocket-client", decode_websocket_client(False), ["websocket"]),
    Contender("websocket-client+wsaccel", decode_websocket_client(True), ["websocket", "wsaccel"]),
    Contender("unmask+bytes.decode", decode_cpython, [C], reference=True),
    Contender("memcpy", decode_copy, reference=True),
]


DECODERS_IN_PIECES = ours(decode_in_pieces)


# Encode: make(role, size) -> a call that returns how many bytes there are to send -------------
#
# fastws is given the mask key; the peers draw their own, as they accept none.


def encode_ours(twin: str, role: str, size: int) -> Call:
    encoder = twin_module(twin, "messages").MessageEncoder()
    binary, take = encoder.binary, encoder.take
    data, times = payload("binary", size), count(size)
    if role == "server":

        def encode() -> int:
            for _ in repeat(None, times):
                binary(data)
            return len(take())
    else:

        def encode() -> int:
            for _ in repeat(None, times):
                binary(data, KEY)
            return len(take())

    return encode


def encode_websockets(without: tuple[str, ...] = ()) -> Callable[[str, int], Call]:
    def make(role: str, size: int) -> Call:
        protocol = variant("websockets.protocol", without)
        peer = protocol.Protocol(protocol.Side[role.upper()])
        data, times = payload("binary", size), count(size)

        def encode() -> int:
            for _ in repeat(None, times):
                peer.send_binary(data)
            return sum(map(len, peer.data_to_send()))

        return encode

    return make


def encode_wsproto(role: str, size: int) -> Call:
    connection = import_module("wsproto.connection")
    message = import_module("wsproto.events").BytesMessage
    peer = connection.Connection(connection.ConnectionType[role.upper()])
    data, times = payload("binary", size), count(size)

    def encode() -> int:
        return sum([len(peer.send(message(data))) for _ in repeat(None, times)])

    return encode


def encode_aiohttp(role: str, size: int) -> Call:
    writer = import_module("aiohttp._websocket.writer")
    binary = import_module("aiohttp").WSMsgType.BINARY
    transport = _Transport()
    send = writer.WebSocketWriter(_NeverPaused(), transport, use_mask=role == "client").send_frame
    data, times = payload("binary", size), count(size)
    written = transport.written

    def encode() -> int:
        for _ in repeat(None, times):
            # A coroutine that did not wait ends like this; suppress() would double the cost.
            try:  # noqa: SIM105
                send(data, binary).send(None)
            except StopIteration:
                pass
        length = sum(map(len, written))
        written.clear()
        return length

    return encode


def encode_picows(role: str, size: int) -> Call | None:
    if role != "server":
        return None  # a client would expect a response first
    picows = import_module("picows")
    protocol, socket = picows_server(picows.WSListener())
    send, kind = protocol.transport.send, picows.WSMsgType.BINARY
    data, times = payload("binary", size), count(size)
    written = socket.written

    def encode() -> int:
        for _ in repeat(None, times):
            send(kind, data)
        # It passes large messages on unchanged; the transport or the system copies them.
        length = sum(map(len, written))
        written.clear()
        return length

    return encode


def encode_websocket_client(role: str, size: int) -> Call | None:
    if role != "client":
        return None
    abnf = variant("websocket._abnf", WITHOUT_WSACCEL).ABNF
    data, times = payload("binary", size), count(size)

    def encode() -> int:
        binary = abnf.OPCODE_BINARY
        return sum([len(abnf.create_frame(data, binary).format()) for _ in repeat(None, times)])

    return encode


def encode_copy(role: str, size: int) -> Call:
    # join does not copy a single part.
    parts = [payload("binary", size)] * count(size) + [b""]
    return lambda: len(b"".join(parts))


ENCODERS = [
    *ours(encode_ours),
    Contender("picows", encode_picows, ["picows"]),
    Contender("aiohttp", encode_aiohttp, ["aiohttp._websocket.writer"]),
    Contender("websockets", encode_websockets(), ["websockets.speedups"]),
    Contender("websockets-py", encode_websockets(WITHOUT_SPEEDUPS), ["websockets"]),
    Contender("wsproto", encode_wsproto, ["wsproto"]),
    Contender("websocket-client", encode_websocket_client, ["websocket"]),
    Contender("memcpy", encode_copy, reference=True),
]


# A connection that echoes: make(stream, deflate) -> a call that returns the bytes to send -----
#
# All use the same compression: context takeover, a window of 15 bits for the client and of 12
# for the server, and zlib's default level.

OFFER = [("client_max_window_bits", None)]


@lru_cache(4)
def compressed(kind: str, size: int) -> Stream:
    """The stream of a client that compresses."""
    fastws = import_module("fastws")
    client_config = fastws.PerMessageDeflate(max_window_bits=15, mem_level=8, threshold=0)
    accepted = fastws.PerMessageDeflate().accept_offer(OFFER)
    agreement = client_config.accept_response(accepted[0])
    client = fastws.Connection(fastws.Role.CLIENT, max_message_size=None, deflate=agreement)
    messages = count(size)
    contents = [payload(kind, size, number) for number in range(messages)]
    for content in contents:
        client.send(content if kind == "binary" else content.decode(), compress=True)
    data = client.data_to_send()
    reads = [data[i : i + READ] for i in range(0, len(data), READ)]
    return Stream(kind, data, reads, size, contents[-1], messages, 0)


def echo_ours(twin: str, stream: Stream, deflate: bool) -> Call:
    fastws = variant("fastws", impl=None if twin == "c" else twin)
    assert fastws.implementation == twin
    agreement = fastws.PerMessageDeflate().accept_offer(OFFER)[1] if deflate else None
    peer = fastws.Connection(fastws.Role.SERVER, max_message_size=None, deflate=agreement)
    receive, send, take = peer.receive_data, peer.send, peer.data_to_send

    def echo() -> int:
        length = 0
        for read in stream.reads:
            for message in receive(read):
                send(message)
            while peer.has_pending:  # one call inflates so much, and not more
                for message in receive(b""):
                    send(message)
            length += len(take())
        return length

    return echo


def echo_websockets(without: tuple[str, ...] = ()) -> Callable[[Stream, bool], Call]:
    def make(stream: Stream, deflate: bool) -> Call:
        protocol = variant("websockets.protocol", without)
        peer = protocol.Protocol(protocol.Side.SERVER, max_size=None)
        if deflate:
            extension = variant("websockets.extensions.permessage_deflate", without)
            peer.extensions = [
                extension.PerMessageDeflate(False, False, 15, 12, {"memLevel": 5}),
            ]
        return echo_by_websockets(peer, stream)

    return make


def echo_by_websockets(peer: Any, stream: Stream) -> Call:
    is_text = stream.kind != "binary"

    def echo() -> int:
        length = 0
        for read in stream.reads:
            peer.receive_data(read)
            for frame in peer.events_received():
                if is_text:
                    # To text and back, as in its upper layers.
                    peer.send_text(frame.data.decode().encode())
                else:
                    peer.send_binary(frame.data)
            length += sum(map(len, peer.data_to_send()))
        return length

    return echo


def echo_wsproto(stream: Stream, deflate: bool) -> Call:
    connection = import_module("wsproto.connection")
    extensions = []
    if deflate:
        extension = import_module("wsproto.extensions").PerMessageDeflate(
            client_max_window_bits=15, server_max_window_bits=12
        )
        extension.accept("permessage-deflate; client_max_window_bits")
        extensions.append(extension)
    peer = connection.Connection(connection.ConnectionType.SERVER, extensions)
    return echo_by_wsproto(peer, stream)


def echo_by_wsproto(peer: Any, stream: Stream) -> Call:
    events = import_module("wsproto.events")
    kind = events.BytesMessage if stream.kind == "binary" else events.TextMessage

    def echo() -> int:
        length = 0
        parts: list[Any] = []
        for read in stream.reads:
            peer.receive_data(read)
            for event in peer.events():
                parts.append(event.data)
                if event.message_finished:
                    message = parts[0] if len(parts) == 1 else parts[0][:0].join(parts)
                    length += len(peer.send(kind(message)))
                    parts.clear()
        return length

    return echo


ECHOES = [
    *ours(echo_ours),
    Contender("websockets", echo_websockets(), ["websockets.speedups"]),
    Contender("websockets-py", echo_websockets(WITHOUT_SPEEDUPS), ["websockets"]),
    Contender("wsproto", echo_wsproto, ["wsproto"]),
]


# An object for a connection's whole life, which echoes: make(stream) -> as above ----------------


def session_ours(twin: str, stream: Stream) -> Call:
    fastws = variant("fastws.session", impl=None if twin == "c" else twin)
    session, read_event, write_event = fastws.Session.server(), fastws.Read, fastws.Write

    def echo(reads: Sequence[bytes] = stream.reads) -> int:
        length = 0
        arriving = iter(reads)
        for event in session:  # as in its documentation
            match event:
                case str() | bytes():
                    session.send(event)
                case write_event(_):
                    length += len(session.data_to_send())
                case read_event(_):
                    read = next(arriving, None)
                    if read is None:
                        break
                    session.receive_data(read)
        return length

    echo([REQUEST])
    # (The class is the same for both, and its parent is not.)
    assert type(session._connection).__base__.__module__ == f"fastws._{twin}.connection"
    return echo


def session_websockets(without: tuple[str, ...] = ()) -> Callable[[Stream], Call]:
    def make(stream: Stream) -> Call:
        peer = variant("websockets.server", without).ServerProtocol()
        peer.receive_data(REQUEST)
        [request] = peer.events_received()
        peer.send_response(peer.accept(request))
        peer.data_to_send()
        return echo_by_websockets(peer, stream)

    return make


def session_wsproto(stream: Stream) -> Call:
    wsproto = import_module("wsproto")
    peer = wsproto.WSConnection(wsproto.ConnectionType.SERVER)
    peer.receive_data(REQUEST)
    next(peer.events())
    peer.send(import_module("wsproto.events").AcceptConnection())
    return echo_by_wsproto(peer, stream)


SESSIONS = [
    *ours(session_ours),
    Contender("websockets", session_websockets(), ["websockets.speedups"]),
    Contender("websockets-py", session_websockets(WITHOUT_SPEEDUPS), ["websockets"]),
    Contender("wsproto", session_wsproto, ["wsproto"]),
]


# The opening handshake: make() -> a call that returns the response -----------------------------


def handshake_ours() -> Call:
    handshake = import_module("fastws").ServerHandshake

    def accept() -> bytes:
        server = handshake()
        return server.accept(server.receive_data(REQUEST))

    return accept


def handshake_websockets() -> Call:
    server_protocol = import_module("websockets.server").ServerProtocol

    def accept() -> bytes:
        server = server_protocol()
        server.receive_data(REQUEST)
        [request] = server.events_received()
        server.send_response(server.accept(request))
        return b"".join(server.data_to_send())

    return accept


def handshake_wsproto() -> Call:
    wsproto = import_module("wsproto")
    answer = import_module("wsproto.events").AcceptConnection

    def accept() -> bytes:
        server = wsproto.WSConnection(wsproto.ConnectionType.SERVER)
        server.receive_data(REQUEST)
        next(server.events())
        return server.send(answer())

    return accept


# It is pure Python, and the same for both twins.
HANDSHAKES = [
    Contender("fastws", handshake_ours),
    Contender("websockets", handshake_websockets, ["websockets"]),
    Contender("wsproto", handshake_wsproto, ["wsproto"]),
]


# All of them, by the operation that their cases measure ---------------------------------------

BY_OPERATION = {
    "mask": MASKERS,
    "mask in place": MASKERS_IN_PLACE,
    "validate": VALIDATORS,
    "decode text": TEXT_DECODERS,
    "decode": DECODERS,
    "decode one message": DECODERS_IN_PIECES,
    "encode server": ENCODERS,
    "encode client": ENCODERS,
    "echo": ECHOES,
    "echo deflate": ECHOES,
    "session": SESSIONS,
    "session of 16": SESSIONS,
    "handshake": HANDSHAKES,
}
